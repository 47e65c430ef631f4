"""What the kernel's structures say of who has a page, out of a dump: the questions that
`tracker.users.memory.KernelMemory` answers of the running kernel, with the same answers.

bpf/page_users.bpf.c is the same for the running kernel: what is read of which structure, and what
makes an answer good, is to be the same in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pageowner.errors import PageownerError
from pageowner.kernel.task_flags import PF_KTHREAD
from pageowner.kernel_memory.access import offset, strings, symbol, word
from pageowner.tracker.users import layout
from pageowner.tracker.users.anchors import Anchors
from pageowner.tracker.users.layout import NOT_KNOWN
from pageowner.vmcore import user_files
from pageowner.vmcore.follow import Follow

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pageowner.tracker.users.memory import Files
    from pageowner.vmcore.memory import Vmcore
    from pageowner.vmcore.sections import MemMaps

__all__ = ["KernelStructures"]

_KERNEL = np.uint64(1 << 63)
_MEMORY = b"memory"
_GROUP_DEPTH = 16
_ONLINE = 2
"""CSS_ONLINE."""
_MOST_TASKS = 1 << 20
_DIRECT_MAP = 0xFFFF888000000000
"""__PAGE_OFFSET_BASE_L4 of arch/x86/include/asm/page_64_types.h, of kernels without
CONFIG_RANDOMIZE_MEMORY."""


class KernelStructures:
    """``layout``, ``anchors``, ``failed`` and the questions are those of
    `tracker.users.memory.KernelMemory`. ``super_blocks``: addresses of those that the files asked
    for so far are on. ``file_tables``: a process (tgid) of each struct files_struct.
    ``most_tables``: page tables that there may be at most, as many as there are frames."""

    def __init__(self, memory: Vmcore, maps: MemMaps) -> None:
        """Raises PageownerError where the kernel's types lack what is needed, or its struct pages
        are in more than one place."""
        self.memory = memory
        self.page_shift = memory.page_size.bit_length() - 1
        self.failed: dict[str, int] = {}
        self.super_blocks: set[int] = set()
        self.layout = _layout(memory)
        self.follow = Follow(memory)
        self.most_tables = int(np.count_nonzero(maps.maps)) << maps.bits
        self._most = self.most_tables * memory.page_size
        bases = np.unique(maps.maps[maps.maps != 0])
        if len(bases) != 1:
            raise PageownerError("its kernel has its page structs in more than one place (it is"
                                 " without CONFIG_SPARSEMEM_VMEMMAP)")
        self.has_known_tables = memory.machine == "x86_64"
        self._tasks = self._all_tasks()
        tops = self._tasks["pgd"][self._tasks["pgd"] != 0]
        self.anchors = Anchors(int(bases[0]), self._direct_map() if self.has_known_tables else None,
                               int(tops[0]) if len(tops) else 0)

    def _direct_map(self) -> int | None:
        address = self.memory.symbol("page_offset_base")
        return _DIRECT_MAP if address is None else word(self.memory, address)

    # -- bytes -----------------------------------------------------------------------------------

    def copy(self, addresses: NDArray[np.uint64], size: int) -> tuple[
            NDArray[np.uint8], NDArray[np.bool_]]:
        """So many bytes from each address, and which of them are there. What is not counts as
        none of `Vmcore.missing`: freed areas are asked for, too."""
        if len(addresses) * size > self._most:
            raise PageownerError("its page tables, or lists, lead to more than all of its memory")
        missing = self.memory.missing
        found = self.memory.copy(addresses, size)
        self.memory.missing = missing
        return found

    def page_structs(self, first: int, count: int) -> NDArray[np.uint8] | None:
        """The page structs of these frames; None if there is memory without."""
        size, missing = self.layout["page_size_of"], self.memory.missing
        raw, whole = self.memory.fill(self.anchors.vmemmap + first * size, count * size)
        self.memory.missing = missing  # there may be none for all frames of a piece
        return raw.reshape(count, size) if whole else None

    # -- structures ------------------------------------------------------------------------------

    def caches(self, addresses: NDArray[np.uint64]) -> NDArray[Any]:
        """The names of slab caches (`layout.CACHE`)."""
        found = np.zeros(len(addresses), layout.CACHE)
        follow = self.follow
        name, good = follow.numbers(addresses, "kmem_cache", "name")
        found["size"], sized = follow.numbers(addresses, "kmem_cache", "size")
        found["name"], named = follow.texts(name, good, 47)
        found["cache"], found["failed"] = addresses, ~(named & sized)
        return found

    def pools(self, addresses: NDArray[np.uint64]) -> NDArray[Any]:
        """The devices of page pools (`layout.POOL`)."""
        found = np.zeros(len(addresses), layout.POOL)
        found["pool"], found["failed"] = addresses, 1
        follow = self.follow
        if not follow.has("page_pool", "slow.netdev") or not follow.has("net_device", "name"):
            return found
        device, good = follow.numbers(addresses, "page_pool", "slow.netdev")
        at = np.uint64(offset(self.memory.types, "net_device", "name"))
        found["device"], named = follow.texts(device + at, good & (device != 0), 15)
        found["failed"] = ~(good & (named | (device == 0)))
        return found

    def groups(self, addresses: NDArray[np.uint64]) -> NDArray[Any]:
        """Memory cgroups (`layout.GROUP`)."""
        found, follow = np.zeros(len(addresses), layout.GROUP), self.follow
        found["group"] = addresses
        css = addresses + np.uint64(offset(self.memory.types, "mem_cgroup", "css"))
        ss, good = follow.numbers(css, "cgroup_subsys_state", "ss")
        name, good = follow.numbers(ss, "cgroup_subsys", "name", among=good)
        texts, good = follow.texts(name, good, 15)
        flags, good = follow.numbers(css, "cgroup_subsys_state", "flags",
                                     among=good & (texts == _MEMORY))
        cgroup, good = follow.numbers(css, "cgroup_subsys_state", "cgroup", among=good)
        node, good = follow.numbers(cgroup, "cgroup", "kn", among=good)
        good &= node != 0
        found["id"], good = follow.numbers(node, "kernfs_node", "id", among=good)
        found["state"] = np.where(good, np.where(flags & np.uint64(_ONLINE), 1, 2), 0)
        for place in np.flatnonzero(good).tolist():
            found["path"][place] = self._group_path(int(node[place]))
        return found

    def _group_path(self, node: int) -> bytes:
        parts: list[bytes] = []
        for _ in range(_GROUP_DEPTH):
            pair, good = self.follow.several([node], "kernfs_node", ("__parent", "parent"), "name")
            if not good[0] or not pair[0][0]:
                break
            (name,) = strings(self.memory, np.array([pair[0][1]], np.uint64), 255)
            if name is None:
                break
            parts.append(name + b"/")
            node = pair[0][0]
        return b"".join(parts)[:496]

    def areas(self, addresses: NDArray[np.uint64], of_vm_structs: bool = False) -> NDArray[Any]:
        """Areas of vmalloc by their struct vmap_area, or vm_struct (`layout.AREA`)."""
        found, follow = np.zeros(len(addresses), layout.AREA), self.follow
        types = self.memory.types
        found["address"] = addresses
        vm, good = addresses, addresses != 0
        if not of_vm_structs:
            mine = addresses + np.uint64(offset(types, "vmap_area", "list"))
            following, good = follow.numbers(addresses, "vmap_area", "list.next")
            back, good = follow.numbers(following, "list_head", "prev",
                                        among=good & (following != 0))
            vm, good = follow.numbers(addresses, "vmap_area", "vm", among=good & (back == mine))
            good &= vm != 0
        for name, field in (("start", "addr"), ("end", "size"), ("flags", "flags"),
                            ("pages", "pages"), ("count", "nr_pages"), ("caller", "caller")):
            found[name], good = follow.numbers(vm, "vm_struct", field, among=good)
        found["vm"] = vm
        found["end"] += found["start"]
        if not of_vm_structs:
            start, good = follow.numbers(addresses, "vmap_area", "va_start", among=good)
            found["end"], good = follow.numbers(addresses, "vmap_area", "va_end", among=good)
            good &= start == found["start"]
        found["state"] = good
        return found

    def files(self, mappings: NDArray[np.uint64]) -> Files:
        """What file each struct address_space is of."""
        found, blocks = user_files.files(self.follow, mappings)
        self.super_blocks |= blocks
        return found

    def tasks(self) -> NDArray[Any]:
        """All tasks (`layout.TASK`)."""
        return self._tasks

    def _all_tasks(self) -> NDArray[Any]:
        memory = self.memory
        first = symbol(memory, "init_task")
        tasks_at, thread_at = (offset(memory.types, "task_struct", name)
                               for name in ("tasks", "thread_node"))
        head_at = offset(memory.types, "signal_struct", "thread_head")
        words = ["pid", "tgid", "stack", "flags", "mm", "tasks.next", "thread_node.next", "signal",
                 "files"]
        has_area = self.follow.has("task_struct", "stack_vm_area")
        words += ["stack_vm_area"] if has_area else []
        rows, comms, task, seen = list[tuple[int, ...]](), list[int](), first, set[int]()
        next_leader, signal, is_leader = first, 0, True
        while True:
            good = task not in seen and len(rows) < _MOST_TASKS
            if good:
                (row,), (good,) = self.follow.several([task], "task_struct", *words)
            # All threads of a process have its struct signal_struct; what has not is none.
            if good and (is_leader or row[7] == signal):
                seen.add(task)
                rows.append(row)
                comms.append(task + offset(memory.types, "task_struct", "comm"))
                if is_leader:
                    next_leader, signal = row[5] - tasks_at, row[7]
                if signal and row[6] and row[6] != signal + head_at:
                    task, is_leader = row[6] - thread_at, False
                    continue
            else:
                self.failed["tasks"] = self.failed.get("tasks", 0) + 1
                if is_leader or len(rows) >= _MOST_TASKS:
                    break  # what leads to the others is not known
            task, is_leader = next_leader, True
            if task == first:
                break
        return self._as_tasks(rows, np.array(comms, np.uint64), has_area)

    def _as_tasks(self, rows: list[tuple[int, ...]], comms: NDArray[np.uint64], has_area: bool
                  ) -> NDArray[Any]:
        found = np.zeros(len(rows), layout.TASK)
        table = np.array(rows, np.uint64).reshape(len(rows), -1)
        self.file_tables = {row[8]: row[1] for row in reversed(rows) if row[8]}
        for place, name in enumerate(("pid", "tgid", "stack", "flags", "mm")):
            found[name] = table[:, place]
        found["mm"][found["flags"] & np.uint32(PF_KTHREAD) != 0] = 0
        if has_area:
            found["area"] = table[:, 9]
        raw, _ = self.memory.copy(comms, 16)
        found["comm"] = raw.view("S16").ravel()
        found["pgd"], _ = self.follow.numbers(found["mm"], "mm_struct", "pgd",
                                               among=found["mm"] != 0)
        return found


def _layout(memory: Vmcore) -> dict[str, int]:
    """As find_layout of bpf/page_users.bpf.c has it."""
    types = memory.types

    def place(*members: tuple[str, str]) -> int:
        for name, path in members:
            if (found := types.member(name, path)) is not None:
                return found.offset
        return NOT_KNOWN

    def value(enum: str, name: str, bits: int = 32) -> int:
        found = types.enumerator(enum, name)
        return NOT_KNOWN if found is None else found & (1 << bits) - 1

    size = types.size("page")
    if not size or size % 8:
        raise PageownerError("the kernel's types (BTF) do not have struct page")
    order = place(("folio", "_folio_order"), ("folio", "_flags_1"))
    if order == NOT_KNOWN and (of_page := place(("page", "compound_order"))) != NOT_KNOWN:
        order = size + of_page
    return {
        "page_size_of": size, "page_mapping": place(("page", "mapping")),
        "page_type": place(("page", "_mapcount")), "page_refcount": place(("page", "_refcount")),
        "page_pool_magic": place(("page", "pp_magic")), "page_pool": place(("page", "pp")),
        "slab_cache": place(("slab", "slab_cache"), ("page", "slab_cache")), "order_byte": order,
        "flag_head": value("pageflags", "PG_head"), "flag_slab": value("pageflags", "PG_slab"),
        "type_table": value("pagetype", "PGTY_table"),
        "type_large_kmalloc": value("pagetype", "PGTY_large_kmalloc"),
        "type_zsmalloc": value("pagetype", "PGTY_zsmalloc"),
        "area_size": types.size("vmap_area") or 0,
        "area_start": place(("vmap_area", "va_start")), "area_vm": place(("vmap_area", "vm")),
        "area_list": place(("vmap_area", "list")),
        "has_stack_areas": int(types.member("task_struct", "stack_vm_area") is not None),
        "page_memcg": place(("page", "memcg_data")), "page_list": place(("page", "lru")),
        "table_deposit": place(("ptdesc", "pmd_huge_pte"), ("page", "pmd_huge_pte"))}
