"""What containers and pods are called, by the files that kubelet and the runtimes keep: no network,
no runtime is asked.

- kubelet: the names of /var/log/pods/NAMESPACE_POD_UID and of
  /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log
- containerd: io.containerd.runtime.v2.task/NAMESPACE/ID/config.json in /run/containerd (k3s:
  /run/k3s/containerd), the annotations of its CRI plugin, and of nerdctl
- CRI-O: /run/containers/storage/overlay-containers/ID/userdata/config.json
- Docker: containers/ID/config.v2.json in its data-root
- Podman: overlay-containers/containers.json (or of another storage driver) in
  /var/lib/containers/storage, for rootless containers in the user's
  ~/.local/share/containers/storage

Others may write some of these files. So what is there is looked at before it is opened, which
might already do something (a device) or wait; below a home no link is followed and no mount
entered. They are read up to a bound, and only names as the runtimes allow them are taken. Only ids
that were met in cgroups are looked up: the machine's own files name no container of a user's slice,
and a user's file only those of the user's own slice.
"""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import ExitStack, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from pageowner.kernel.containers import Id, containers_in, pods_in
from pageowner.system.strict_open import open_strictly

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["container_names"]

_INIT = "/proc/1/root"
"""The machine's files, in a container that sees its processes."""

_MOST_IDS = 1 << 14
_MOST_ENTRIES = 1 << 16  # of a directory
_LARGEST = 4 << 20  # bytes of a file
_IN_ALL = 128 << 20
_MOST_LINKS = 40  # as in a walk of the kernel's (MAXSYMLINKS, include/linux/namei.h)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_LOG = re.compile(r"([^_]+)_([^_]+)_(.+)-([0-9a-f]{64})\.log")

_TYPE, _SANDBOX = "io.kubernetes.cri.container-type", "POD"
"""The container that holds a pod's namespaces, as Kubernetes' own metrics call it; containerd has
no name for it."""

_ANNOTATIONS = (
    ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name",
     "io.kubernetes.cri.container-name", "io.kubernetes.cri.sandbox-uid"),
    ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name",
     "io.kubernetes.pod.uid"))
"""Namespace, pod, container and UID: of containerd; of CRI-O, and as labels of cri-dockerd."""


def container_names(paths: Iterable[str | None], root: str | None = None) -> dict[str, str]:
    """The names of the containers and pods in these paths of cgroups that are known, by `Id.key`:
    of containers ``NAMESPACE/POD/CONTAINER`` or ``NAME``, of pods ``NAMESPACE/POD``.

    ``root``: where the machine's files are, if not at the root of its init.
    """
    wanted = _Wanted(paths)
    if not wanted.ids and not wanted.pods:
        return {}
    files = _Files(_root() if root is None else root)
    names: dict[str, str] = {}
    for look_up in (_of_logs, _of_containerd, _of_crio, _of_docker, _of_podman):
        look_up(files, wanted, names)
    return names


class _Wanted:
    """``ids``: of containers by user, None for the machine's own, of which ``pods_of`` has the UIDs
    of the pods that they lie in, and None for no pod; ``pods``: UIDs of the machine's own."""

    def __init__(self, paths: Iterable[str | None]) -> None:
        self.ids: dict[int | None, dict[str, None]] = {}
        self.pods_of: dict[str, set[str | None]] = {}
        self.pods: set[str] = set()
        for path in islice(paths, _MOST_IDS):
            pods = pods_in(path)
            self.pods |= {found.text for found in pods if found.user is None}
            for found in containers_in(path):
                self.ids.setdefault(found.user, {})[found.text] = None
                if found.user is None:
                    around = [pod.text for pod in pods if pod.start < found.start]
                    self.pods_of.setdefault(found.text, set()).add(around[-1] if around else None)

    def missing(self, names: dict[str, str]) -> list[str]:
        """The machine's own containers that have no name yet."""
        return [identity for identity in self.pods_of if identity not in names]


def _root() -> str:
    try:
        os.stat(f"{_INIT}/.")
    except OSError:
        return ""
    return _INIT


class _Files:
    """Files below a root, links followed as if it were the root; what cannot be read is empty."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._left = _IN_ALL

    def _inside(self, path: str) -> str:
        todo, there, links = path.split("/")[::-1], [self.root], 0
        while todo:
            name = todo.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del there[max(len(there) - 1, 1):]
                continue
            try:
                target = os.readlink("/".join([*there, name]))
            except OSError:
                there.append(name)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(f"{path}: too many links")
            if target.startswith("/"):
                del there[1:]
            todo += target.split("/")[::-1]
        return "/".join(there)

    def entries(self, path: str) -> Iterator[str]:
        """The names in a directory."""
        with suppress(OSError, ValueError), os.scandir(self._inside(path)) as found:
            yield from (entry.name for entry in islice(found, _MOST_ENTRIES))

    def read(self, path: str, in_home: str = "") -> bytes:
        """A regular file that is not too large; ``in_home``: which is here below this path, a
        user's, where no link is followed and no mount entered."""
        with suppress(OSError, ValueError), ExitStack() as opened:
            where = self._inside(path)
            if in_home:  # the home itself may be a mount of the user's (FUSE)
                above, _, name = where.rpartition("/")
                folder = os.open(above or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                opened.callback(os.close, folder)
                handle = open_strictly(folder, f"{name}/{in_home}", os.O_PATH)
            else:
                handle = os.open(where, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, handle)
            status = os.fstat(handle)
            if stat.S_ISREG(status.st_mode) and status.st_size <= min(_LARGEST, self._left):
                with open(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK
                                  | os.O_CLOEXEC), "rb") as file:
                    raw = file.read(_LARGEST)
                self._left -= len(raw)
                return raw
        return b""

    def json(self, path: str, in_home: str = "") -> Any:
        """What a file of JSON has; None if it is none."""
        with suppress(ValueError, RecursionError):
            return json.loads(self.read(path, in_home))
        return None


def _joined(*parts: Any) -> str | None:
    """``NAMESPACE/POD/CONTAINER`` of parts that are names."""
    if not all(isinstance(part, str) and _NAME.fullmatch(part) for part in parts):
        return None
    return "/".join(parts)


def _learn(names: dict[str, str], identity: str, name: str | None) -> None:
    if name is not None:
        names.setdefault(identity, name)


def _of_logs(files: _Files, wanted: _Wanted, names: dict[str, str]) -> None:
    for entry in files.entries("/var/log/pods"):
        namespace, _, rest = entry.partition("_")
        pod, _, uid = rest.partition("_")
        if uid in wanted.pods:
            _learn(names, uid, _joined(namespace, pod))
    for entry in files.entries("/var/log/containers"):
        found = _LOG.fullmatch(entry)
        if found and found[4] in wanted.pods_of:
            _learn(names, found[4], _joined(found[2], found[1], found[3]))


def _of_containerd(files: _Files, wanted: _Wanted, names: dict[str, str]) -> None:
    for state in ("/run/containerd", "/run/k3s/containerd"):
        tasks = f"{state}/io.containerd.runtime.v2.task"
        for namespace in sorted({*files.entries(tasks)} - {"moby"})[:64]:  # moby: of Docker
            for identity in wanted.missing(names):
                _of_annotations(files.json(f"{tasks}/{namespace}/{identity}/config.json"),
                                identity, wanted, names)


def _of_crio(files: _Files, wanted: _Wanted, names: dict[str, str]) -> None:
    storage = "/run/containers/storage/overlay-containers"
    for identity in wanted.missing(names):
        _of_annotations(files.json(f"{storage}/{identity}/userdata/config.json"), identity, wanted,
                        names)


def _of_annotations(config: Any, identity: str, wanted: _Wanted, names: dict[str, str]) -> None:
    """Of the configuration of an OCI runtime."""
    notes = config.get("annotations") if isinstance(config, dict) else None
    if isinstance(notes, dict):
        _of_notes(notes, identity, wanted, names)


def _of_notes(notes: dict[str, Any], identity: str, wanted: _Wanted, names: dict[str, str],
              anyones: bool = False) -> None:
    """``anyones``: an image may have set them, which has no UID of a pod that it is not in. (Older
    runtimes do not note the UID.)"""
    for space, pod, container, uid in _ANNOTATIONS:
        if space in notes and pod in notes:
            (own, *others) = wanted.pods_of[identity]
            if others or own is None or notes.get(uid, None if anyones else own) != own:
                return
            in_pod = _joined(notes[space], notes[pod])
            _learn(names, identity, in_pod and _joined(
                *in_pod.split("/"), _SANDBOX if notes.get(_TYPE) == "sandbox" else
                notes.get(container)))
            _learn(names, own, in_pod)
            return
    _learn(names, identity, _joined(notes.get("nerdctl/name")))


def _of_docker(files: _Files, wanted: _Wanted, names: dict[str, str]) -> None:
    settings = files.json("/etc/docker/daemon.json")
    data = settings.get("data-root") if isinstance(settings, dict) else None
    data = data if isinstance(data, str) else "/var/lib/docker"
    for identity in wanted.missing(names):
        config = files.json(f"{data}/containers/{identity}/config.v2.json")
        if not isinstance(config, dict):
            continue
        inner = config.get("Config")
        labels = inner.get("Labels") if isinstance(inner, dict) else None
        if isinstance(labels, dict):
            _of_notes(labels, identity, wanted, names, anyones=True)
        name = config.get("Name")
        _learn(names, identity, _joined(name[1:] if isinstance(name, str) else None))


def _of_podman(files: _Files, wanted: _Wanted, names: dict[str, str]) -> None:
    """A user's own file tells of the user's own containers alone."""
    for user, ids in wanted.ids.items():
        home = "" if user is None else _home(files, user)
        if user is not None and not home.startswith("/"):
            continue
        for driver in ("overlay", "vfs", "btrfs", "zfs"):
            path = f"containers/storage/{driver}-containers/containers.json"
            found = (files.json(home, f".local/share/{path}") if home else
                     files.json(f"/var/lib/{path}"))
            for container in found if isinstance(found, list) else ():
                identity = container.get("id") if isinstance(container, dict) else None
                if isinstance(identity, str) and identity in ids:
                    called = container.get("names")
                    if isinstance(called, list) and called:
                        _learn(names, Id(0, identity, user).key, _joined(called[0]))


def _home(files: _Files, user: int) -> str:
    for line in files.read("/etc/passwd").decode(errors="replace").splitlines():
        fields = line.split(":")
        if len(fields) > 5 and fields[2] == str(user):
            return fields[5]
    return ""
