"""Containers: the id in the path of a cgroup, as the runtimes name their cgroups.

Docker and containerd (``docker-ID.scope``, ``/docker/ID``, ``cri-containerd-ID.scope``), CRI-O
(``crio-ID.scope``), Podman (``libpod-ID.scope``), Kubernetes without systemd (``/kubepods/…/ID``):
the id is 64 hexadecimal digits (the OCI runtimes' random ids). LXC, by name: ``lxc.payload.NAME``.
"""

from __future__ import annotations

import re

__all__ = ["container"]

_ID = re.compile(r"(?:^|[/-])([0-9a-f]{64})(?=\.scope(?:/|$)|/|$)")
_LXC = re.compile(r"(?:^|/)lxc\.payload\.([^/]+)")
_SHOWN = 12  # digits, as docker ps and crictl ps show them


def container(path: str | None) -> str | None:
    """The container of a cgroup's path, the innermost; None if it is of none."""
    if path is None:
        return None
    ids = _ID.findall(path)
    if ids:
        return str(ids[-1])[:_SHOWN]
    named = _LXC.search(path)
    return None if named is None else named[1]
