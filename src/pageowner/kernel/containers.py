"""Containers and pods: their ids in the path of a cgroup, and what they are called.

Docker and containerd (``docker-ID.scope``, ``/docker/ID``, ``cri-containerd-ID.scope``), CRI-O
(``crio-ID.scope``), Podman (``libpod-ID.scope``), Kubernetes without systemd (``/kubepods/…/ID``):
the id is 64 hexadecimal digits (the OCI runtimes' random ids). LXC, by name: ``lxc.payload.NAME``.

The kubelet names a pod's cgroup by its UID (``kubepods-burstable-podUID.slice`` with ``_`` for
``-``, or ``podUID``; 32 digits without ``-`` for a static pod), Podman by the pod's id
(``libpod_pod_ID.slice``).

Names come from `pageowner.system.container_names`: containers by their whole id, pods by UID.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OF_PATH", "container", "container_id", "pod", "pod_id"]

_END = r"(?=(?:\.scope)?(?:/|$|\)))"  # a cgroup that is gone is in brackets
_ID = re.compile(r"(?:^|[/-])([0-9a-f]{64})" + _END)
_LXC = re.compile(r"(?:^|/)lxc\.payload\.([^/)]+)")
_POD = re.compile(r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
                  r"(?=\.slice(?:/|$|\))|/|$|\))")
_PODMAN = re.compile(r"(?:^|[/-])libpod_pod_([0-9a-f]{64})(?=\.slice|/|$|\))")
_SHOWN = 12  # digits, as docker ps and crictl ps show them


def container_id(path: str | None) -> str | None:
    """The id in a cgroup's path, of the innermost container; None if it is of none."""
    ids = _ID.findall(path) if path else []
    return ids[-1] if ids else None


def pod_id(path: str | None) -> str | None:
    """The UID in a cgroup's path, of the innermost pod, with ``-``; None if it is of none."""
    uids = _POD.findall(path) if path else []
    return uids[-1].replace("_", "-") if uids else None


def container(path: str | None, names: Mapping[str, str] | None = None) -> str | None:
    """The container of a cgroup's path, the innermost: ``NAMESPACE/POD/CONTAINER`` in Kubernetes,
    else its name, or 12 digits of its id where ``names`` lacks it; None if it is of none."""
    names = names or {}
    identity = container_id(path)
    if identity is None:
        named = _LXC.search(path) if path else None
        return None if named is None else named[1]
    if identity in names:
        return names[identity]
    pod = names.get(pod_id(path) or "")
    return f"{pod}/{identity[:_SHOWN]}" if pod else identity[:_SHOWN]


def pod(path: str | None, names: Mapping[str, str] | None = None) -> str | None:
    """The pod of a cgroup's path: ``NAMESPACE/POD``, or its UID where ``names`` lacks it; 12 digits
    of the id of one of Podman; None if it is of none."""
    names = names or {}
    uid = pod_id(path)
    if uid is None:
        ids = _PODMAN.findall(path) if path else []
        return ids[-1][:_SHOWN] if ids else None
    if uid in names:
        return names[uid]
    return names.get(container_id(path) or "", uid).rpartition("/")[0] or uid


OF_PATH: dict[str, Callable[[str | None, Mapping[str, str] | None], str | None]] = {
    "container": container, "pod": pod}
"""What is told of a cgroup's path, by the key's name."""
