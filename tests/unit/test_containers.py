"""Containers and pods by name: by the files that kubelet and the runtimes write, in a root of their
own, as they lay them out."""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pageowner import Metadata, Snapshot
from pageowner.analysis.owners import owners
from pageowner.analysis.query import rows_of
from pageowner.fleet.capture import Machine, capture_of
from pageowner.kernel.containers import container, pod
from pageowner.system.container_names import _Files, container_names

UID = "0a1b2c3d-1111-2222-3333-444455556666"
STATIC = "f" * 8 + "0" * 24
IDS = {name: f"{place:x}" * 64 for place, name in enumerate(
    ("web", "pause", "crio", "docker", "podman", "rootless", "cri_dockerd", "logged", "nerdctl",
     "unknown"), 1)}


def write(root: Path, path: str, content: Any = "") -> None:
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content if isinstance(content, str) else json.dumps(content))


def slice_of(uid: str, rest: str = "") -> str:
    inner = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    return f"/kubepods.slice/kubepods-burstable.slice/{inner}{rest}"


PATHS = {
    "web": slice_of(UID, f"/cri-containerd-{IDS['web']}.scope"),
    "pause": slice_of(UID, f"/cri-containerd-{IDS['pause']}.scope"),
    "crio": slice_of(UID, f"/crio-{IDS['crio']}.scope/container"),
    "docker": f"/system.slice/docker-{IDS['docker']}.scope",
    "podman": f"/machine.slice/libpod-{IDS['podman']}.scope/container",
    "rootless": "/user.slice/user-1000.slice/user@1000.service/user.slice/"
                f"libpod-{IDS['rootless']}.scope",
    "cri_dockerd": f"/kubepods/besteffort/pod{UID}/{IDS['cri_dockerd']}",
    "logged": f"/kubepods/pod{STATIC}/{IDS['logged']}",
    "nerdctl": f"/default/{IDS['nerdctl']}",
}
NAMED = {
    "web": ("shop/cart-7d9f/web", "shop/cart-7d9f"),
    "pause": ("shop/cart-7d9f/POD", "shop/cart-7d9f"),
    "crio": ("shop/cart-7d9f/side.car", "shop/cart-7d9f"),
    "docker": ("happy_hopper", None), "podman": ("db", None), "rootless": ("user:1000/mine", None),
    "cri_dockerd": ("shop/cart-7d9f/old", "shop/cart-7d9f"),
    "logged": ("kube-system/etcd-node1/etcd", "kube-system/etcd-node1"),
    "nerdctl": ("cache", None),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    cri = {"io.kubernetes.cri.sandbox-namespace": "shop",
           "io.kubernetes.cri.sandbox-name": "cart-7d9f", "io.kubernetes.cri.sandbox-uid": UID}
    tasks = "/run/containerd/io.containerd.runtime.v2.task"
    write(tmp_path, f"{tasks}/k8s.io/{IDS['web']}/config.json", {
        "ociVersion": "1.1.0", "process": {"args": ["web"]}, "annotations": {
            **cri, "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.container-name": "web"}})
    write(tmp_path, f"{tasks}/k8s.io/{IDS['pause']}/config.json", {
        "annotations": {**cri, "io.kubernetes.cri.container-type": "sandbox"}})
    write(tmp_path, f"{tasks}/default/{IDS['nerdctl']}/config.json", {
        "annotations": {"nerdctl/name": "cache", "nerdctl/namespace": "default"}})
    write(tmp_path, f"{tasks}/moby/{IDS['docker']}/config.json", {"annotations": {}})
    crio = f"/run/containers/storage/overlay-containers/{IDS['crio']}"
    write(tmp_path, f"{crio}/userdata/config.json",
          {"annotations": {
              "io.kubernetes.container.name": "side.car", "io.kubernetes.pod.name": "cart-7d9f",
              "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
              "io.kubernetes.cri-o.ContainerType": "container"}})
    # Docker's data lie elsewhere, by a link that begins at the machine's root
    write(tmp_path, f"/data/docker/containers/{IDS['docker']}/config.v2.json",
          {"ID": IDS["docker"], "Name": "/happy_hopper", "Config": {"Labels": {}}})
    write(tmp_path, f"/data/docker/containers/{IDS['cri_dockerd']}/config.v2.json", {
        "Name": f"/k8s_old_cart-7d9f_shop_{UID}_0", "Config": {"Labels": {
            "io.kubernetes.container.name": "old", "io.kubernetes.pod.name": "cart-7d9f",
            "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID}}})
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/docker").symlink_to("/data/docker")
    storage = "containers/storage/overlay-containers/containers.json"
    write(tmp_path, f"/var/lib/{storage}", [
        {"id": IDS["podman"], "names": ["db"], "image": "", "layer": "0" * 64, "metadata":
         '{"image-name":"","image-id":"","name":"db","created-at":1795785215}',
         "created": "2026-11-27T13:13:35.701041189Z", "flags": {"MountLabel": ""}}])
    write(tmp_path, "/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:sh\n")
    write(tmp_path, f"/home/ann/.local/share/{storage}", [
        {"id": IDS["rootless"], "names": ["mine"]},
        # whom others' containers are not
        {"id": IDS["unknown"], "names": ["theirs"]}])
    (tmp_path / f"var/log/pods/kube-system_etcd-node1_{STATIC}/etcd").mkdir(parents=True)
    write(tmp_path, f"/var/log/containers/etcd-node1_kube-system_etcd-{IDS['logged']}.log")
    return tmp_path


def test_every_runtimes_containers_have_their_names(root: Path) -> None:
    names = container_names(PATHS.values(), str(root))
    assert {runtime: (container(path, names), pod(path, names))
            for runtime, path in PATHS.items()} == NAMED
    # one that is gone, and the first 79 characters that the kernel's page owner prints
    assert container(f"cgroup 7 (gone: {PATHS['docker']})", names) == "happy_hopper"
    assert container(f"cri-containerd-{IDS['web']}", names) == "shop/cart-7d9f/web"
    assert pod(slice_of(UID), names) == "shop/cart-7d9f"
    # what watches over a container
    assert container(f"/machine.slice/libpod-conmon-{IDS['podman']}.scope", names) is None
    assert container(slice_of(UID, f"/crio-conmon-{IDS['crio']}.scope"), names) is None
    assert container(slice_of(UID), names) is None


def test_what_has_no_name_is_called_by_its_id(root: Path) -> None:
    other = UID.replace("0a1b", "ffff")
    paths = [f"/system.slice/docker-{IDS['unknown']}.scope",
             slice_of(other, f"/{IDS['unknown']}"),
             slice_of(UID, f"/crio-{IDS['unknown']}.scope"),
             "/lxc.payload.old/init.scope", "/", None]
    names = container_names([*paths, PATHS["web"]], str(root))
    assert [container(path, names) for path in paths] == [
        "a" * 12, "a" * 12, "shop/cart-7d9f/aaaaaaaaaaaa", "old", None, None]
    assert [pod(path, names) for path in paths] == [
        None, other, "shop/cart-7d9f", None, None, None]
    assert pod(f"/machine.slice/machine-libpod_pod_{IDS['podman']}.slice") == "5" * 12
    assert container_names(["/", "/system.slice", None], "/nonexistent") == {}


@pytest.mark.parametrize("content", [
    "[" * 100_000, '{"annotations": 1}', '{"annotations": {"nerdctl/name": 7}}', "[]", "\xff",
    '{"annotations": {"nerdctl/name": "a/../../b"}}', '{"annotations": {"nerdctl/name": "a\\n"}}',
    '{"annotations": {"nerdctl/name": "' + "a" * 254 + '"}}', " " * (5 << 20) + "{}"])
def test_hostile_files_name_nothing(content: str, tmp_path: Path) -> None:
    path = f"/default/{IDS['nerdctl']}"
    state = f"run/containerd/io.containerd.runtime.v2.task/default/{IDS['nerdctl']}/config.json"
    write(tmp_path, state, content)
    write(tmp_path, "/var/lib/containers/storage/overlay-containers/containers.json", content)
    write(tmp_path, f"/var/lib/docker/containers/{IDS['nerdctl']}/config.v2.json", content)
    assert container_names([path], str(tmp_path)) == {}


def test_nothing_outside_the_root_is_read_and_nothing_waits(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = tmp_path / "inside"
    state = inside / "run/containerd/io.containerd.runtime.v2.task/default"
    for place, identity in enumerate((IDS["web"], IDS["crio"], IDS["podman"])):
        (state / identity).mkdir(parents=True)
        config = state / identity / "config.json"
        if place == 0:
            os.mkfifo(config)
        elif place == 1:
            config.symlink_to(config)
        else:
            config.symlink_to("../" * 40 + f"{outside}/config.json".lstrip("/"))
    write(outside, "config.json", {"annotations": {"nerdctl/name": "stolen"}})
    paths = [f"/default/{IDS[name]}" for name in ("web", "crio", "podman")]
    assert container_names(paths, str(inside)) == {}


def in_slice_of_1000(name: str) -> str:
    return f"/user.slice/user-1000.slice/user@1000.service/app.slice/{name}"


def test_whoever_makes_a_cgroup_gets_no_name_of_anothers(root: Path) -> None:
    home = "/home/ann/.local/share/containers/storage/overlay-containers/containers.json"
    write(root, home, [{"id": IDS[name], "names": ["harmless"]} for name in ("podman", "web")]
          + [{"id": IDS["rootless"], "names": ["db"]}])
    forged = {  # the id of one, in a place of another
        in_slice_of_1000(f"libpod-{IDS['podman']}.scope"): "user:1000/harmless",
        in_slice_of_1000(f"docker-{IDS['docker']}.scope"): "user:1000/444444444444",
        in_slice_of_1000(f"user-0.slice/docker-{IDS['docker']}.scope"): "user:1000/444444444444",
        PATHS["rootless"]: "user:1000/db",  # which the machine has one of too
        in_slice_of_1000("lxc.payload.db"): "user:1000/db",
        f"{PATHS['docker']}/libpod-{IDS['podman']}.scope": "555555555555",
        f"/lxc.payload.guest/libpod-{IDS['podman']}.scope": "555555555555",
        f"{PATHS['web']}/libpod-{IDS['podman']}.scope": "shop/cart-7d9f/555555555555"}
    for paths in ([*PATHS.values(), *forged], [*forged, *PATHS.values()]):
        names = container_names(paths, str(root))
        assert {path: container(path, names) for path in forged} == forged | {
            PATHS["rootless"]: "user:1000/db"}
        assert {path: container(path, names) for path in PATHS.values()} == {
            PATHS[runtime]: name for runtime, (name, _) in NAMED.items()} | {
            PATHS["rootless"]: "user:1000/db"}
        assert pod(in_slice_of_1000(f"pod{UID}"), names) == f"user:1000/{UID}"
        assert pod(f"{PATHS['docker']}/pod{UID}", names) == UID


def test_a_pod_in_a_pods_container_is_not_the_outer_pod(root: Path) -> None:
    inner = UID.replace("0a1b", "ffff")
    path = f"{PATHS['web']}/kubelet.slice/pod{inner}"
    names = container_names([path, PATHS["web"]], str(root))
    assert (container(path, names), pod(path, names)) == ("shop/cart-7d9f/web", inner)
    only = {IDS["logged"]: NAMED["logged"][0]}
    assert pod(PATHS["logged"], only) == "kube-system/etcd-node1"
    assert pod(f"{PATHS['logged']}/pod{inner}", only) == inner


def test_labels_of_an_image_put_a_container_in_no_pod(root: Path) -> None:
    labels = {"io.kubernetes.container.name": "etcd", "io.kubernetes.pod.name": "etcd-0",
              "io.kubernetes.pod.namespace": "kube-system", "io.kubernetes.pod.uid": STATIC}
    write(root, f"/data/docker/containers/{IDS['unknown']}/config.v2.json",
          {"Name": "/miner", "Config": {"Labels": labels}})
    for path, name in ((f"/docker/{IDS['unknown']}", "miner"), (
            slice_of(UID, f"/docker-{IDS['unknown']}.scope"), "miner"), (
            f"/kubepods/pod{STATIC}/{IDS['unknown']}", "kube-system/etcd-0/etcd")):
        assert container(path, container_names([path], str(root))) == name
    del labels["io.kubernetes.pod.uid"]
    write(root, f"/data/docker/containers/{IDS['unknown']}/config.v2.json",
          {"Name": "/miner", "Config": {"Labels": labels}})
    path = slice_of(UID, f"/docker-{IDS['unknown']}.scope")
    assert container(path, container_names([path], str(root))) == "miner"


def test_below_a_home_no_link_is_followed_and_no_mount_entered(root: Path) -> None:
    share = root / "home/ann/.local/share"
    assert container_names([PATHS["rootless"]], str(root))
    (share / "containers").rename(root / "elsewhere")
    (share / "containers").symlink_to("/elsewhere")
    assert container_names([PATHS["rootless"]], str(root)) == {}
    (share / "containers").unlink()
    (share / "containers").symlink_to(root / "elsewhere")
    assert container_names([PATHS["rootless"]], str(root)) == {}
    files = _Files("")
    assert files.read("/proc/version")
    assert not files.read("/proc", "version")  # as if it were a home


@pytest.mark.parametrize(("runtime", "path"), [
    ("rootless", "home/ann/.local/share/containers/storage/overlay-containers/containers.json"),
    ("podman", "var/lib/containers/storage/overlay-containers/containers.json")])
def test_what_is_no_file_is_not_even_opened(runtime: str, path: str, root: Path) -> None:
    """A device may do something when it is opened."""
    (root / path).unlink()
    os.mkfifo(root / path)
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(root / path), 0x20) >= 0  # IN_OPEN
        assert container_names([PATHS[runtime]], str(root)) == {}
        with pytest.raises(BlockingIOError):
            os.read(watch, 4096)
    finally:
        os.close(watch)


@pytest.fixture
def snapshot(root: Path) -> Snapshot:
    paths = [PATHS["web"], PATHS["web"], PATHS["pause"], PATHS["docker"], "/init.scope", None]
    names = container_names([*paths, PATHS["rootless"]], str(root))
    assert max(map(len, names)) > 64  # a user's own begin with the user
    return Snapshot.from_columns(
        {"pfn": np.arange(6), "order": np.array([3, 0, 0, 2, 0, 0], np.uint8), "memcg": paths},
        Metadata(kind="tracker", host="node1", taken_at="2026-11-27T00:00:00Z",
                 extra={"containers": names}))


def test_names_are_keys_filters_and_columns_and_stay_with_the_file(
        snapshot: Snapshot, tmp_path: Path) -> None:
    from pageowner import read

    snapshot.save(tmp_path / "saved.parquet")
    saved = read(tmp_path / "saved.parquet")
    for found in (snapshot, saved):
        table = owners(found, "container")
        columns = (table[name].to_pylist() for name in ("container", "pages"))
        assert dict(zip(*columns, strict=True)) == {
            "shop/cart-7d9f/web": 9, "happy_hopper": 4, None: 2, "shop/cart-7d9f/POD": 1}
        assert found.select(pod="shop/*").table.num_rows == 3
        assert found.select(container="happy*").table.num_rows == 1
        rows = rows_of(found)
        assert rows["pod"].to_pylist() == ["shop/cart-7d9f"] * 3 + [None] * 3
        assert rows["container"].to_pylist()[3:] == ["happy_hopper", None, None]


def test_a_fleet_is_told_names(snapshot: Snapshot) -> None:
    rows = capture_of(snapshot, Machine(kernel="6.12"), 0).owners.to_pylist()
    assert {(row["container"], row["pod"]) for row in rows} == {
        ("shop/cart-7d9f/web", "shop/cart-7d9f"), ("shop/cart-7d9f/POD", "shop/cart-7d9f"),
        ("happy_hopper", None), (None, None)}


def test_profiles_and_metrics_have_names_as_labels(snapshot: Snapshot, tmp_path: Path) -> None:
    from pageowner.analysis.profile import LABELS, labels
    from pageowner.server.gathering import of_snapshot

    assert labels(snapshot.meta) == (*LABELS, "container", "pod")
    assert labels(Metadata()) == LABELS
    assert of_snapshot(snapshot)["containers"] == {
        PATHS["web"]: ["shop/cart-7d9f", "shop/cart-7d9f/web"],
        PATHS["pause"]: ["shop/cart-7d9f", "shop/cart-7d9f/POD"],
        PATHS["docker"]: ["", "happy_hopper"]}
