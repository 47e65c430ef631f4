"""What tells who has a page now, on made-up kernels: page tables, page structs, names of files."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pageowner.analysis.owners import owners
from pageowner.errors import PageownerError
from pageowner.kernel import mounts, page_tables, process_pages
from pageowner.kernel.cgroups import gone, path_state
from pageowner.kernel.process_memory import mapped_inodes, open_files
from pageowner.model.metadata import Metadata
from pageowner.model.page_users import NOBODY, PageUsers
from pageowner.model.snapshot import Snapshot
from pageowner.model.user_names import is_user_name, user_name, user_of
from pageowner.report.key_columns import key_columns
from pageowner.sources import live_users
from pageowner.tracker.users import bpf_objects, layout, memory
from pageowner.tracker.users.anonymous import _give, give_anonymous
from pageowner.tracker.users.areas import credible, in_use, label, same_areas
from pageowner.tracker.users.files import Holders, Namer, group_path, same_files
from pageowner.tracker.users.find import numbers_of_proc, with_gone
from pageowner.tracker.users.page_cache import file_pages
from pageowner.tracker.users.pages import Pages, columns_of
from pageowner.tracker.users.tables import deposited

PRESENT, LARGE = 1, 1 << 7


class Memory:
    """Page tables by page frame."""

    def __init__(self) -> None:
        self.tables: dict[int, np.ndarray] = {}

    def entry(self, table: int, place: int, pfn: int, bits: int = PRESENT) -> None:
        self.tables.setdefault(table, np.zeros(512, np.uint64))[place] = pfn << 12 | bits | 1 << 63

    def read(self, pfn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        good = np.array([number in self.tables for number in pfn.tolist()], bool)
        return np.array([self.tables.get(number, np.zeros(512, np.uint64))
                         for number in pfn.tolist()], np.uint64).reshape(-1, 512), good


def test_page_tables_of_two_processes_are_told_apart() -> None:
    made = Memory()
    made.entry(100, 3, 101)          # the first process: one table on each level
    made.entry(101, 0, 102)
    made.entry(102, 5, 103)
    made.entry(102, 6, 900, PRESENT | LARGE)  # a huge page is no table
    made.entry(100, 300, 999)        # the kernel's half is nobody's
    made.entry(200, 0, 201)
    made.entry(201, 1, 202)
    made.entry(202, 2, 203)
    made.entry(202, 3, 204, 0)       # swapped out
    found = page_tables.user_tables(made.read, np.array([100, 200], np.uint64), 4)
    assert dict(zip(found.pfn.tolist(), found.owner.tolist(), strict=True)) == {
        100: 0, 101: 0, 102: 0, 103: 0, 200: 1, 201: 1, 202: 1, 203: 1}
    assert found.level[found.pfn == 103] == 1
    assert found.base[found.pfn == 103] == (3 << 39) + (5 << 21)
    assert not len(found.unread)


def test_a_table_that_cannot_be_read_is_counted() -> None:
    made = Memory()
    made.entry(100, 3, 101)
    found = page_tables.user_tables(made.read, np.array([100], np.uint64), 4)
    assert found.pfn.tolist() == [100, 101]
    assert found.unread.tolist() == [0]


def test_a_table_that_leads_to_itself_is_found_out() -> None:
    made = Memory()
    for place in range(100):
        made.entry(100, place, 100)
    with pytest.raises(page_tables.TooManyTables):
        page_tables.user_tables(made.read, np.array([100], np.uint64), 4, 5000)
    assert page_tables.user_pages(made.read, np.array([100], np.uint64), 4, 5000) is None


@pytest.mark.parametrize(("levels", "first"), [(4, 0xFFFF_C900_0000_0000),
                                               (5, 0xFFA0_0000_0000_0000)])
def test_the_frames_of_an_area_of_vmalloc_are_found_by_its_addresses(levels: int,
                                                                     first: int) -> None:
    made, table = Memory(), 1
    for level in range(levels, 1, -1):
        made.entry(table, first >> (12 + 9 * (level - 1)) & 511, table + 1)
        table += 1
    for page in range(4):
        made.entry(table, page, 5000 + page)
    tables = page_tables.kernel_tables(made.read, 1, levels)
    pfn, address, unread = page_tables.mapped(made.read, tables, first + 4096, first + 3 * 4096)
    assert pfn.tolist() == [5001, 5002]
    assert address.tolist() == [first + 4096, first + 8192]
    assert unread == 0
    assert page_tables.levels_of(first) == (5 if levels == 5 else 4)


def test_what_is_mapped_at_addresses() -> None:
    made = Memory()
    made.entry(1, 300, 2)
    made.entry(2, 0, 3)
    made.entry(3, 1, 4)              # a table of single pages
    made.entry(3, 2, 1024, PRESENT | LARGE)
    made.entry(3, 3, 5)              # one that cannot be read
    made.entry(4, 7, 77)
    tables = page_tables.kernel_tables(made.read, 1, 4)
    made.entry(3, 9, 6)              # one that was made since
    start = (1 << 64) - (1 << 48) + (300 << 39)
    at = {(1 << 21) + 7 * 4096 + 12: 77, (1 << 21) + 8 * 4096: page_tables.UNMAPPED,
          (2 << 21) + 5 * 4096: 1029, 4 << 21: page_tables.UNMAPPED, 3 << 21: page_tables.UNKNOWN,
          9 << 21: page_tables.UNKNOWN, 1 << 39: page_tables.UNKNOWN}
    found = page_tables.frames_at(made.read, tables, np.array(
        [start + place for place in at], np.uint64))
    assert found.tolist() == list(at.values())


def area(start: int, end: int, first: int) -> tuple[Any, ...]:
    """A struct vm_struct of these addresses, whose list begins with this page frame."""
    made = np.zeros(1, layout.AREA)
    made["state"], made["start"], made["end"] = 1, start, end
    made["count"], made["pages"] = (end - start) // 4096, 0xC0000000 + first
    return made[0]


@pytest.mark.parametrize("known", [True, False])
def test_an_area_that_was_freed_is_told_by_what_is_mapped_where_it_began(known: bool) -> None:
    """Also where a larger area has its addresses by now."""
    base, step = 1 << 63, 64

    class Kernel:
        """Page frames 10 and 11 lie where the first area in use does; 90, of the freed one, is
        somebody else's by now."""

        anchors = SimpleNamespace(direct_map=1 << 62 | base, vmemmap=1 << 60 | base)
        layout = MappingProxyType({"page_size_of": step})
        page_shift = 12

        def copy(self, addresses: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
            raw = np.zeros((len(addresses), size), np.uint8)
            for place, address in enumerate(addresses.tolist()):
                if size == 8:  # the list of an area
                    struct = self.anchors.vmemmap + (address - 0xC0000000) * step
                    raw[place] = np.frombuffer(struct.to_bytes(8, "little"), np.uint8)
                elif address >= self.anchors.direct_map:
                    raw[place] = address - self.anchors.direct_map >> 12
                else:
                    raw[place] = 10 + (address - base >> 12)
            return raw, (addresses < np.uint64(base + 0x9000)) | (size == 8) | (
                addresses >= np.uint64(self.anchors.direct_map))

    class Tables:
        def frames_at(self, addresses: np.ndarray) -> np.ndarray:
            inside = addresses < np.uint64(base + 0x9000)
            return np.where(inside, 10 + (addresses - np.uint64(base) >> np.uint64(12)).astype(
                np.int64), page_tables.UNMAPPED) if known else np.full(
                    len(addresses), page_tables.UNKNOWN)

    areas = np.array([area(base, base + 0x5000, 10), area(base + 0x1000, base + 0x2000, 90),
                      area(base + 0x6000, base + 0x8000, 16), area(base + 0xA000, base + 0xB000, 91)
                      ], layout.AREA)
    assert in_use(Kernel(), Tables(), areas).tolist() == [  # type: ignore[arg-type]
        True, False, True, False]


def test_page_structs_are_read_where_this_kernel_has_their_fields() -> None:
    raw = np.zeros((3, 64), np.uint8)
    raw[:, 24:32] = np.array([7, 8, 9], np.uint64).view(np.uint8).reshape(3, 8)
    where = dict.fromkeys(layout.LAYOUT.names or (), layout.NOT_KNOWN) | {"page_mapping": 24}
    found = columns_of(raw, np.array([0, 2]), where)
    assert found["mapping"].tolist() == [7, 9]
    assert found["pool"].tolist() == [0, 0]


def test_frames_within_a_block_are_its_own_and_those_between_are_nobodys() -> None:
    pages = Pages(np.array([10, 16], np.uint64), np.array([1, 2], np.uint8), np.zeros(2, "u8"))
    place, inside = pages.places_of(np.array([9, 10, 11, 12, 19, 20], np.uint64))
    assert inside.tolist() == [False, True, True, False, True, False]
    assert place[inside].tolist() == [0, 0, 1]


def test_who_was_found_first_stays() -> None:
    users = PageUsers.of(3)
    users.give(np.array([0, 1]), users.code("slab dentry"))
    users.give(np.array([1, 2]), users.code("vmalloc here"))
    assert [users.labels[code] for code in users.codes] == [
        "slab dentry", "slab dentry", "vmalloc here"]
    assert PageUsers.of(1).codes.tolist() == [NOBODY]


MOUNTS = mounts.parse("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
                      "2 1 0:22 / /dev/shm rw - tmpfs tmpfs rw\n"
                      "3 1 8:2 /inner/dir /srv rw - xfs /dev/sda2 rw\n"
                      "4 1 8:1 /etc /chroot/etc rw - ext4 /dev/sda1 rw\n")


def files(*found: tuple[bytes, dict[str, Any]]) -> memory.Files:
    """Files by their paths, as the kernel has them: names backwards."""
    numbers = np.zeros(len(found), [(name, "u8") for name in memory.FILE_NUMBERS])
    kinds = []
    for place, (_, words) in enumerate(found):
        fields = {"links": 1, "device": 8 << 20 | 1, "kind": b"ext4"} | words
        kinds.append(fields.pop("kind"))
        for name, value in fields.items():
            numbers[name][place] = value
    return memory.Files([numbers], [path + b"/" if path else b"" for path, _ in found], kinds)


TMPFS, ROOTLESS = b"tmpfs", layout.FILE_ROOTLESS


@pytest.mark.parametrize(("backwards", "fields", "label", "place"), [
    (b"base.db/lib/var", {}, "file /var/lib/base.db", "/"),
    (b"a/dir/inner", {"device": 8 << 20 | 2}, "file /srv/a", "/srv"),
    (b"a/elsewhere", {"device": 8 << 20 | 2}, "file 8:2:/elsewhere/a", "/srv"),
    (b"a", {"device": 7}, "file 0:7:/a", "ext4 0:7"),
    (b"x", {"device": 22, "kind": TMPFS}, "tmpfs file /dev/shm/x", "/dev/shm"),
    (b"x", {"device": 22, "kind": TMPFS, "links": 0, "mapper": 5, "number": 9},
     "tmpfs deleted file /dev/shm/x of 981 (java)", "/dev/shm"),
    (b"memfd:buffer", {"kind": TMPFS, "state": ROOTLESS, "number": 4, "device": 1},
     "memfd buffer of 7 (sh)", "tmpfs 0:1"),
    (b"SYSV0000002a", {"kind": TMPFS, "state": ROOTLESS, "number": 3, "device": 1, "links": 0},
     "System V segment 3", "tmpfs 0:1"),
    (b"dev/zero", {"kind": TMPFS, "state": ROOTLESS, "mapper": 5, "device": 1},
     "shared mapping of 981 (java)", "tmpfs 0:1"),
    (b"log", {"state": layout.FILE_UNLINKED}, "deleted file /log", "/"),
    (b"", {"state": layout.FILE_NAMELESS, "number": 12}, "file inode 12 on /", "/"),
    (b"down/deep", {"state": layout.FILE_CUT}, "file /.../deep/down", "/"),
    (b"a\nb\xff", {}, "file /a\nb\\xff", "/"),
    (b"", {"kind": b"bdev", "own_device": 254 << 20}, "block device 254:0", "block devices"),
])
def test_what_a_file_is_called(backwards: bytes, fields: dict[str, Any], label: str, place: str,
                               tmp_path: Path) -> None:
    namer = Namer(Holders({5: "981 (java)"}, {("0:1", 4): "7 (sh)"}), MOUNTS, str(tmp_path))
    found = files((backwards, fields))
    assert namer.names(found) == [label]
    assert namer.places(found) == [place]


def test_a_file_that_was_renamed_between_two_readings_is_not_the_same() -> None:
    before = files((b"a", {}), (b"b", {}), (b"c", {}))
    after = files((b"a", {}), (b"x", {}), (b"c", {"links": 0}))
    assert same_files(before, after).tolist() == [True, False, False]


def test_areas_are_called_by_who_asked_for_them() -> None:
    assert label("bpf_map_area_alloc", 2) == "vmalloc bpf_map_area_alloc"
    assert label("kernel_clone", 2) == "kernel stacks kept for new tasks"
    assert label("pcpu_get_vm_areas", 2) == "per-CPU memory"
    assert label("irq_init_percpu_irqstack", 4) == "vmap irq_init_percpu_irqstack"


def test_bpf_objects_are_called_by_number_and_many_alike_together() -> None:
    def named(kind: str, name: str, holder: str, alike: int) -> str:
        return bpf_objects.BpfObject((kind, 7), name, 1, holder).label(alike)

    assert named("map", "flows", "12 (falco)", 1) == "bpf map 7 (flows) of 12 (falco)"
    assert named("prog", "", "", 8) == "bpf program 7"
    assert named("map", "span", "", 9) == "9 bpf maps (span)"


def test_who_has_a_bpf_map_open_is_told_by_fdinfo(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid, fd, target, about in (
            (7, 3, "anon_inode:bpf-map", "pos:\t0\nmap_type:\t2\nmap_id:\t12\nfrozen:\t0\n"),
            (7, 4, "anon_inode:bpf-map", "map_id:\t12\n"), (7, 5, "/etc/passwd", "map_id:\t99\n"),
            (9, 3, "anon_inode:bpf-prog", "prog_type:\t2\nprog_id:\t5\n"),
            (8, 3, "anon_inode:bpf-map", "map_id:\t12\n")):
        for folder in ("fd", "fdinfo"):
            (tmp_path / str(pid) / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / str(pid) / "fd" / str(fd)).symlink_to(target)
        (tmp_path / str(pid) / "fdinfo" / str(fd)).write_text(about)
    for pid, comm in {7: "falco", 8: "other", 9: "loader"}.items():
        (tmp_path / str(pid) / "comm").write_text(comm + "\n")
    held = {("map", 12): "7 (falco) and 1 more", ("prog", 5): "9 (loader)"}
    assert bpf_objects.bpf_holders([7, 8, 9, 10], str(tmp_path)) == (held, True)
    # the time is over in the middle of a process that has much open
    monkeypatch.setattr("time.thread_time", itertools.count().__next__)
    assert not bpf_objects.bpf_holders([7], str(tmp_path), 2.5)[1]
    assert bpf_objects.bpf_holders([7], str(tmp_path), 3.5)[1]
    assert not open_files({7: "falco"}, str(tmp_path), 3.5).complete
    assert open_files({7: "falco"}, str(tmp_path), 4.5).complete


def test_the_first_system_v_segment_is_mapped_though_its_number_is_0(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/maps").write_text(
        "7f0000000000-7f0000001000 rw-s 00000000 00:01 0               /SYSV00000000 (deleted)\n"
        "7f0000001000-7f0000002000 rw-p 00000000 00:00 0 \n"
        "7f0000002000-7f0000003000 rw-p 00000000 00:00 0                    [heap]\n"
        "7f0000003000-7f0000004000 r--p 00000000 fe:00 1234                 /x\r1-2 r 0 0:9 9 y\n")
    assert mapped_inodes([7], str(tmp_path)) == {("0:1", 0), ("254:0", 1234)}


def test_processes_that_ended_have_no_pages() -> None:
    found = process_pages.anonymous_pages([(1 << 22) + 1])
    assert len(found.pfn) == found.late == len(found.unreadable) == 0


def test_pages_that_several_processes_map_are_shared_and_others_one_processs() -> None:
    users = PageUsers.of(4)
    pages = Pages(np.array([1, 2, 4, 8], np.uint64), np.array([0, 1, 0, 0], np.uint8),
                  np.array([1 << 12, 1 << 12, 1 << 12, 0], np.uint64))
    _give(users, pages, ["sh", "db", "db"], [7, 8, 9], np.array([1, 3, 2, 4, 4, 8], np.uint64),
          np.array([0, 1, 1, 1, 2, 0], np.int32))
    assert [users.labels[code] if code >= 0 else None for code in users.codes] == [
        "process 7 (sh)", "process 8 (db)", "shared by 2 processes (db)", None]


def test_what_a_process_maps_is_in_its_page_tables() -> None:
    made = Memory()
    made.entry(1, 0, 2)
    made.entry(2, 0, 3)
    made.entry(3, 0, 4)
    made.entry(3, 1, 512, PRESENT | LARGE)
    made.entry(4, 5, 77)
    made.entry(4, 6, 78, 0)
    # PROT_NONE, as NUMA balancing sets it: not present, and the frame is inverted
    for table, place, pfn, bits in ((4, 7, 79, 1 << 8), (3, 3, 1024, 1 << 8 | LARGE)):
        made.tables[table][place] = ~(pfn << 12) & (1 << 52) - (1 << 12) | bits
    found = page_tables.user_pages(made.read, np.array([1], np.uint64), 4)
    assert found is not None
    assert found.tolist() == [77, 79, *range(512, 1536)]
    made.entry(3, 2, 5)  # a table that is not there to be read: not all of its pages are known
    assert page_tables.user_pages(made.read, np.array([1], np.uint64), 4) is None


def test_the_page_behind_a_topmost_table_is_its_processs_only_if_it_leads_to_the_same() -> None:
    made = Memory()
    for table in (10, 20, 30):
        made.entry(table, 3, table + 100)
        made.entry(table, 300, 5)  # the kernel's half is in the first alone
    made.entry(11, 3, 110)
    made.entry(21, 3, 999)
    made.entry(40, 300, 5)  # a process that maps nothing, and an empty page behind
    made.entry(41, 0, 0, 0)
    found = page_tables.second_halves(made.read, np.array([10, 20, 30, 40], np.uint64))
    assert found.tolist() == [True, False, False, False]


def test_processes_that_there_was_no_time_for_are_counted() -> None:
    pids = [os.getpid(), os.getppid()]
    assert process_pages.anonymous_pages(pids, seconds=-1).late == 2
    users = PageUsers.of(0)
    nothing = Pages(np.zeros(0, np.uint64), np.zeros(0, np.uint8), np.zeros(0, np.uint64))
    # In a PID namespace /proc has other numbers: page tables are asked, or it is counted.
    give_anonymous(users, nothing, dict.fromkeys(pids, "test"), lambda pid: None, in_proc=False)
    assert users.counts == {"unreadable_processes": 2}


def test_no_address_of_a_process_is_beyond_where_pages_are_looked_for() -> None:
    end = process_pages._user_end()
    if end is None:
        pytest.skip("this kernel has no PAGEMAP_SCAN (Linux 6.7)")
    addresses = [int(word, 16) for line in Path("/proc/self/maps").read_text().splitlines()
                 for word in line.split()[0].split("-")]
    assert max(address for address in addresses if address < 1 << 63) <= end


def test_numbers_of_another_pid_namespace_are_told_by_this_process(tmp_path: Path) -> None:
    tasks = np.zeros(2, layout.TASK)
    tasks["tgid"] = os.getpid(), 1
    assert numbers_of_proc(tasks)
    (tmp_path / "self").symlink_to("7")
    assert not numbers_of_proc(tasks, str(tmp_path / "self"))
    assert not numbers_of_proc(tasks[:0])


def test_pages_of_files_are_told_from_all_others_by_their_page_structs() -> None:
    where = dict.fromkeys(layout.LAYOUT.names or (), layout.NOT_KNOWN) | {
        "page_mapping": 24, "page_type": 48, "flag_head": 6, "order_byte": 64, "flag_slab": 9}
    mapping, untyped = 0xFFFF888000001000, 0xFFFFFFFF
    raw = np.zeros((8, 64), np.uint8)
    words, kinds = raw.view(np.uint64), raw.view(np.uint32)
    words[:, 3], kinds[:, 12] = mapping, untyped
    words[1, 0] = 1 << 6            # a block of four pages, of which one is a tail here
    raw[2, 0] = 2                   # ... its order
    words[2, 1] = 0xFFFFEA0000000041
    words[3, 3] = mapping | 1       # anonymous
    kinds[4, 12] = 0xF5000000       # a slab by its type
    words[5, 0] = 1 << 9            # a slab by its flag
    words[6, 3] = 0                 # the kernel's own
    found, pages = file_pages(raw, where)
    assert found.tolist() == [mapping] * 3
    assert pages.tolist() == [1, 4, 1]


@pytest.mark.parametrize("text", ["early: slab dentry", "untracked: file /a: b"])
def test_who_has_a_page_without_a_stack_is_not_taken_for_a_stack(text: str) -> None:
    assert is_user_name(text)
    assert not is_user_name("f+0x1/0x2\ng: h")
    assert not is_user_name(None)
    assert user_name(*user_of(text)) == text


def of_users(**columns: Any) -> Snapshot:
    rows = len(columns["pfn"])
    return Snapshot.from_columns(
        {"order": [0] * rows, "page_flags": [0] * rows} | columns, Metadata(kind="tracker"))


def test_early_pages_of_a_report_by_stack_are_told_apart_by_what_has_them() -> None:
    snapshot = of_users(
        pfn=[1, 2, 3, 4], state=["owned", "early", "early", "early"],
        stack=["alloc_pages+0x1/0x2", None, None, None],
        user=["slab dentry", "slab dentry", "file /a", None], page_flags=[0, 0, 0, 1 << 26])
    table = owners(snapshot, users=True).to_pydict()
    assert dict(zip(table["stack"], table["pages"], strict=True)) == {
        "alloc_pages+0x1/0x2": 1, "early: slab dentry": 1, "early: file /a": 1,
        "early: page tables": 1}
    by_user = owners(snapshot, "user").to_pydict()
    assert dict(zip(by_user["user"], by_user["pages"], strict=True)) == {
        "slab dentry": 2, "file /a": 1, "page tables": 1}


def test_without_users_early_pages_are_one_row_as_before() -> None:
    snapshot = of_users(pfn=[1, 2], state=["early", "early"])
    assert owners(snapshot, users=True).to_pydict()["stack"] == [None]


def test_only_questions_that_need_no_stack_are_answered_without_tracking() -> None:
    assert live_users.are_enough_for(["user"])
    assert live_users.are_enough_for(["memcg", "user"])
    assert not live_users.are_enough_for(["user", "comm"])
    assert not live_users.are_enough_for(["zone"])
    assert not live_users.alone()
    with live_users.using(True, True), live_users.using(False):
        assert live_users.wanted()
        assert live_users.alone()


def test_a_removed_cgroup_is_named_beside_those_that_exist() -> None:
    users = PageUsers.of(3)
    users.gone.append(gone(7, group_path(b"db/system.slice/")))
    users.groups[1] = 0
    column = pa.array(["/", "/", None]).dictionary_encode().cast(
        pa.dictionary(pa.int32(), pa.string()))
    merged = with_gone(column, users).to_pylist()
    assert merged == ["/", "cgroup 7 (gone: /system.slice/db)", None]
    assert [path_state(path) for path in merged[:2]] == ["online", "offline"]
    assert path_state(gone(7)) == "offline"
    assert path_state("/cgroup 7 (gone)") == "online"


def test_what_was_an_area_of_vmalloc_is_not_believed() -> None:
    areas = np.zeros(4, layout.AREA)
    areas["state"], areas["start"] = 1, 0xFFFFC90000000000
    areas["end"], areas["count"] = areas["start"] + np.uint64(5 * 4096), 4
    areas["count"][1] = 1 << 30     # more pages than it has addresses
    areas["end"][2] += 8            # no whole page
    areas["state"][3] = 0
    assert credible(areas, 12).tolist() == [True, False, False, False]
    again = areas.copy()
    again["pages"][0] = 1
    assert same_areas(areas, areas).tolist() == [True, True, True, False]
    assert not same_areas(areas, again)[0]


@pytest.mark.parametrize("width", [30, 12, 4])
def test_of_a_long_path_the_end_is_shown(width: int) -> None:
    (column,) = key_columns({"user": ["file /usr/lib/x86_64-linux-gnu/libLLVM.so", "slab dentry",
                                      None]}, ["user"], "tracker")
    assert column.refit
    path, slab, unknown = column.refit(width)
    assert all(len(cell) <= width for cell in (path, slab, unknown))
    if width == 30:
        assert slab == "slab dentry"
        assert path.startswith("file …")
        assert path.endswith("gnu/libLLVM.so")


def test_tables_kept_for_huge_pages_are_found_around_their_ring() -> None:
    base, where = 0xFFFFEA0000000000, {"page_size_of": 64, "page_list": 8, "table_deposit": 16}
    words = {(10, 16): base + 64 * 20, (20, 8): base + 64 * 21 + 8, (21, 8): base + 64 * 20 + 8,
             (11, 16): 0,                                # no huge page there
             (12, 16): base + 64 * 30, (30, 8): 0x1234}  # changed just now

    def word(pfn: np.ndarray, at: int) -> np.ndarray:
        return np.array([words.get((number, at), 0) for number in pfn.tolist()], np.uint64)

    parts = list(deposited(np.array([10, 11, 12], np.uint64), word, where, base))
    assert [(pfn.tolist(), place.tolist()) for pfn, place in parts] == [
        ([20, 30], [0, 2]), ([21], [0])]


def test_pages_are_chosen_by_what_uses_them() -> None:
    snapshot = of_users(pfn=[1, 2, 3], state=["early"] * 3,
                        user=["slab dentry", "slab inode_cache", "file /a"])
    assert snapshot.select(user="slab *").table["pfn"].to_pylist() == [1, 2]
    with pytest.raises(PageownerError, match="does not know what uses each page now"):
        of_users(pfn=[1], state=["early"]).select(user="slab *")
