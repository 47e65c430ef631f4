"""Containers and pods: their ids in the path of a cgroup, and what they are called.

Docker and containerd (``docker-ID.scope``, ``/docker/ID``, ``cri-containerd-ID.scope``), CRI-O
(``crio-ID.scope``), Podman (``libpod-ID.scope``), Kubernetes without systemd (``/kubepods/…/ID``):
the id is 64 hexadecimal digits (the OCI runtimes' random ids). LXC, by name: ``lxc.payload.NAME``.
What watches over a container (``libpod-conmon-ID.scope``, ``crio-conmon-ID.scope``) is not in it.

The kubelet names a pod's cgroup by its UID (``kubepods-burstable-podUID.slice`` with ``_`` for
``-``, or ``podUID``; 32 digits without ``-`` for a static pod), Podman by the pod's id
(``libpod_pod_ID.slice``).

Names come from `pageowner.system.container_names`, by `Id.key`. Who may make a cgroup chooses what
it is called, so where it lies counts too. Below a user's slice only that user's own names are
believed, and all is shown with the user (``user:1000/NAME``: no runtime allows ``:``). In a
container that has a name, or is LXC's, none are: the files that know it do not know what is in it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["OF_PATH", "Id", "container", "containers_in", "pod", "pods_in"]

_END = r"(?=(?:\.scope)?(?:/|$|\)))"  # a cgroup that is gone is in brackets
_ID = re.compile(r"(?:^|[/-])(?<!-conmon-)([0-9a-f]{64})" + _END)
_LXC = re.compile(r"(?:^|/)lxc\.payload\.([^/)]+)")
_POD = re.compile(r"(?:^|[/-])pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
                  r"(?=\.slice(?:/|$|\))|/|$|\))")
_PODMAN = re.compile(r"(?:^|[/-])libpod_pod_([0-9a-f]{64})(?=\.slice|/|$|\))")
_USER = re.compile(r"(?:^|/)user(?:-(\d{1,10})\.slice|@(\d{1,10})\.service)(?=/)")
_SHOWN = 12  # digits, as docker ps and crictl ps show them


class Id(NamedTuple):
    """An id in a cgroup's path: at which character, and the user in whose slice it lies."""

    start: int
    text: str
    user: int | None

    @property
    def key(self) -> str:
        """What ``names`` have it by."""
        return self.text if self.user is None else f"{self.user}/{self.text}"

    def shown(self, name: str) -> str:
        """A name of it, with the user."""
        return name if self.user is None else f"user:{self.user}/{name}"


def containers_in(path: str | None) -> list[Id]:
    """The ids of containers in a cgroup's path, the innermost last."""
    return _ids(_ID, path)


def pods_in(path: str | None) -> list[Id]:
    """The UIDs of pods in a cgroup's path, with ``-``, the innermost last."""
    return [found._replace(text=found.text.replace("_", "-")) for found in _ids(_POD, path)]


def container(path: str | None, names: Mapping[str, str] | None = None) -> str | None:
    """The container of a cgroup's path, the innermost: ``NAMESPACE/POD/CONTAINER`` in Kubernetes,
    else its name, or 12 digits of its id where ``names`` lacks it; of a user's slice after
    ``user:UID/``. None if it is of none."""
    containers = containers_in(path)
    if not containers:
        of_lxc = _ids(_LXC, path)
        return of_lxc[0].shown(of_lxc[0].text) if of_lxc else None
    inner = containers[-1]
    name = _name(inner, path, names)
    if name is None:
        around = [found for found in pods_in(path) if found.start < inner.start]
        in_pod = _name(around[-1], path, names) if around else None
        name = (f"{in_pod}/" if in_pod else "") + inner.text[:_SHOWN]
    return inner.shown(name)


def pod(path: str | None, names: Mapping[str, str] | None = None) -> str | None:
    """The pod of a cgroup's path: ``NAMESPACE/POD``, or its UID where ``names`` lacks it; 12 digits
    of the id of one of Podman; of a user's slice after ``user:UID/``. None if it is of none."""
    pods = pods_in(path)
    if not pods:
        of_podman = _ids(_PODMAN, path)
        return of_podman[-1].shown(of_podman[-1].text[:_SHOWN]) if of_podman else None
    inner = pods[-1]
    name = _name(inner, path, names)
    if name is None:
        within = [found for found in containers_in(path) if found.start > inner.start]
        name = (_name(within[0], path, names) or "").rpartition("/")[0] if within else None
    return inner.shown(name or inner.text)


def _ids(pattern: re.Pattern[str], path: str | None) -> list[Id]:
    user = _USER.search(path) if path else None
    return [Id(found.start(1), found[1],
               int(user[1] or user[2]) if user and user.start() < found.start() else None)
            for found in pattern.finditer(path or "")]


def _name(wanted: Id, path: str | None, names: Mapping[str, str] | None) -> str | None:
    """The name of what is in this path, if it is believed."""
    if not names or any(found.start < wanted.start for found in _ids(_LXC, path)):
        return None
    pods = pods_in(path)
    for outer in containers_in(path):
        if outer.start < wanted.start and (outer.key in names or any(
                around.key in names for around in pods if around.start < outer.start)):
            return None
    return names.get(wanted.key)


OF_PATH: dict[str, Callable[[str | None, Mapping[str, str] | None], str | None]] = {
    "container": container, "pod": pod}
"""What is told of a cgroup's path, by the key's name."""
