"""Containers and pods by name: by the files that kubelet and the runtimes write, in a root of their
own, as they lay them out."""

from __future__ import annotations

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
from pageowner.system.container_names import container_names

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
    "docker": ("happy_hopper", None), "podman": ("db", None), "rootless": ("mine", None),
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


@pytest.fixture
def snapshot(root: Path) -> Snapshot:
    paths = [PATHS["web"], PATHS["web"], PATHS["pause"], PATHS["docker"], "/init.scope", None]
    names = container_names(paths, str(root))
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
