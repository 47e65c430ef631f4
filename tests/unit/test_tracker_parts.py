"""Sizes, calibration and the ranges of memory, on made-up machines."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from pageowner.errors import PageownerError
from pageowner.kernel import vmstat
from pageowner.kernel.memory_ranges import is_present, parse_iomem
from pageowner.kernel.symbol_text import Lines
from pageowner.model import hook_table
from pageowner.report import status_view
from pageowner.tracker.control import Status
from pageowner.tracker.load import calibrate, hooks, requirements
from pageowner.tracker.load.loading import Tracker, sizes_for
from pageowner.tracker.read import layout, maps, timings

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
00100000-bfffffff : System RAM
  01000000-01ffffff : Kernel code
c0000000-febfffff : PCI Bus 0000:00
100000000-13fffffff : System RAM
140000000-17fffffff : System RAM (kmem)
"""


def test_iomem_gives_whole_frames_of_ram_joined_where_they_touch() -> None:
    assert parse_iomem(IOMEM) == [(1, 0x9F), (0x100, 0xC0000), (0x100000, 0x180000)]
    assert parse_iomem("00000000-00000000 : System RAM\n") == []


@pytest.mark.parametrize(("iomem", "state", "present"), [
    ("1000-ffff", "online", True), ("1000-ffff", "offline", False), ("1000-7fff", "online", False),
    ("1000-ffff", "", True), ("0-0", "online", True)])  # no such blocks; hidden
def test_a_frame_is_there_if_its_memory_is_online(tmp_path: Path, iomem: str, state: str,
                                                  present: bool) -> None:
    (tmp_path / "iomem").write_text(f"{iomem} : System RAM\n")
    block = tmp_path / "devices/system/memory/memory2"
    if state:
        block.mkdir(parents=True)
        (block / "state").write_text(f"{state}\n")
        (block.parent / "block_size_bytes").write_text(f"{4 * mmap.PAGESIZE:x}\n")
    assert is_present(9, str(tmp_path), str(tmp_path)) == present


def test_the_store_grows_with_the_machine_and_leaves_room_for_more() -> None:
    small = sizes_for([(1, 1 << 17)])
    assert (small.span_shift, small.tasks, small.stacks) == (16, 1 << 14, 1 << 14)
    assert small.spans << small.span_shift >= 1 << 28
    large = sizes_for([(1, 1 << 30)])  # 4 TiB
    assert ((1 << 30) >> large.span_shift) <= 1024
    assert large.spans << large.span_shift >= 2 << 30
    assert large.stacks == 1 << 18
    assert large.tasks == 1 << 20


def test_vmemmap_is_where_all_events_agree() -> None:
    base, pfns = 0xFFFFEA0000000000, [7, 100, 5000, 12]
    pages = [base + 64 * pfn for pfn in [1, 2, *pfns, 3]]
    assert calibrate.vmemmap_of(pages, pfns, 64) == (base, 4)


def test_struct_pages_that_are_not_one_array_are_refused() -> None:
    pages = [0xFFFFEA0000000000 + 64 * 7, 0xFFFFEA1000000000 + 64 * 9, 0xFFFFEA0000000000]
    with pytest.raises(PageownerError, match="not one array"):
        calibrate.vmemmap_of(pages, [7, 9, 11], 64)


def test_one_event_alone_proves_nothing() -> None:
    with pytest.raises(PageownerError):
        calibrate.vmemmap_of([64 * 7], [7], 64)


def test_the_direct_map_is_where_two_pages_agree() -> None:
    base = 0xFFFF888000000000
    pages = [(pfn, base + (pfn << 12)) for pfn in (8, 0x12340)]
    assert calibrate.direct_map_of([*pages, (24, base + (7 << 12))]) == base
    assert calibrate.direct_map_of([pages[0], pages[0]]) == 0, "one page proves nothing"
    assert calibrate.direct_map_of([(pfn, address + 64) for pfn, address in pages]) == 0
    assert calibrate.direct_map_of([]) == 0


def test_without_the_direct_map_its_hooks_say_so() -> None:
    tracker = Tracker(None, sizes_for([(1, 2)]), 16, {"direct_map": 0})
    needing = [hook for hook in hook_table.FUNCTIONS if hook.needs]
    assert [hook.name for hook in needing if not hook.instead_of] == ["make_alloc_exact"]
    assert len(needing) == 3
    for hook in needing:
        assert (hook.name in hook_table.LOST) == (not hook.instead_of)
        said = hooks._attach_function(tracker, hook, None)
        assert said.startswith("missing: ")
        assert "direct map" in said


@pytest.mark.parametrize("refused", [set(), {"make_alloc_exact"},
                                     {"make_alloc_exact", "alloc_pages_exact_nid"}])
def test_a_stand_in_is_told_of_only_where_it_stands_in(monkeypatch: pytest.MonkeyPatch,
                                                       refused: set[str]) -> None:
    monkeypatch.setattr(hooks, "_attach_function", lambda _tracker, hook, _directory: (
        "refused: no" if hook.name in refused else "attached"))
    monkeypatch.setattr(hooks, "_attach", lambda *_: "attached")
    monkeypatch.setattr(hooks, "_known", lambda _bpf, names: names[-1])
    said = hooks.attach_optional(Tracker(None, sizes_for([(1, 2)]), 16, {}), None, Lines(b""))
    assert said["make_alloc_exact"] == ("refused: no" if refused else "attached")
    assert ("alloc_pages_exact" in said) == bool(refused)
    assert ("alloc_pages_exact_nid" in said) == (refused == {"make_alloc_exact"})
    assert "undo_isolate_page_range" not in said


@pytest.mark.parametrize("state", ["attached", "partly: BPF cannot trace one of its copies"])
@pytest.mark.parametrize("known", ["alloc_contig_frozen_range_noprof", ""])
def test_ranges_are_seen_by_the_function_that_others_call(monkeypatch: pytest.MonkeyPatch,
                                                          known: str, state: str) -> None:
    programs = {}

    def attach(_tracker: Tracker, hook: hook_table.Hook, _directory: None) -> str:
        programs[hook.name] = hook.programs
        return state

    monkeypatch.setattr(hooks, "_attach_function", attach)
    monkeypatch.setattr(hooks, "_attach", lambda *_: "attached")
    monkeypatch.setattr(hooks, "_known", lambda _bpf, names: (
        known if "alloc_contig_frozen_range_noprof" in names else names[-1]))
    said = hooks.attach_optional(Tracker(None, sizes_for([(1, 2)]), 16, {}), None, Lines(b""))
    assert ("alloc_contig_frozen" in said) == bool(known)
    assert programs.get("alloc_contig_frozen", ("on_contig",)) == ("on_contig",)
    assert programs["alloc_contig_range"] == ("on_contig_around" if known else "on_contig",)


def test_a_function_with_copies_is_not_called_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_attach_function", lambda *_: "attached")
    monkeypatch.setattr(hooks, "_attach", lambda *_: "attached")
    monkeypatch.setattr(hooks, "_known", lambda _bpf, names: names[-1])
    monkeypatch.setattr(hooks, "copies_of", lambda *_: {"split_page": ["split_page.part.0"]})
    said = hooks.attach_optional(Tracker(None, sizes_for([(1, 2)]), 16, {}), None, Lines(b""))
    assert said["split_page"] == ("partly: BPF cannot trace split_page.part.0, made of split_page")


def test_fields_of_a_tracepoint() -> None:
    text = ("\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
            "\tfield:unsigned long pfn;\toffset:8;\tsize:8;\tsigned:0;\n"
            "\tfield:char comm[16];\toffset:24;\tsize:16;\tsigned:0;\n")
    assert calibrate.fields_of(text) == {"common_type": (0, 2), "pfn": (8, 8), "comm": (24, 16)}


def test_hidden_symbols_are_named_as_such(tmp_path) -> None:
    hidden = tmp_path / "kallsyms"
    hidden.write_text("0000000000000000 T bpf_trace_run4\n0000000000000000 T after\n")
    with pytest.raises(PageownerError, match="kptr_restrict"):
        calibrate.tracing_ranges(Lines.read(hidden))


def test_frames_of_tracing_are_those_of_its_functions(tmp_path) -> None:
    symbols = tmp_path / "kallsyms"
    symbols.write_text("ffffffff81000000 T bpf_trace_run4\nffffffff81000100 T kmalloc\n"
                       "ffffffffc0000000 t bpf_prog_845bf652cc25c498_on_alloc\t[bpf]\n")
    ranges = calibrate.tracing_ranges(Lines.read(symbols))
    frames = [0xFFFFFFFFC0000123, 0xFFFFFFFF81000042, 0xFFFFFFFF81000142, 0xFFFFFFFF81000042]
    assert calibrate.leading_frames(frames, ranges) == 2
    assert calibrate.leading_frames(frames[2:], ranges) == 0


def test_the_iterator_over_tracers_is_tracing_where_they_are_several(tmp_path) -> None:
    symbols = tmp_path / "kallsyms"
    symbols.write_text("ffffffff81000000 T bpf_trace_run4\n"
                       "ffffffff81000100 T __traceiter_mm_page_alloc\nffffffff81000200 T kmalloc\n")
    frames = [0xFFFFFFFF81000042, 0xFFFFFFFF81000142, 0xFFFFFFFF81000242]
    for shared, expected in ((False, 1), (True, 2)):
        ranges = calibrate.tracing_ranges(Lines.read(symbols), shared)
        assert calibrate.leading_frames(frames, ranges) == expected


def test_pages_freed_are_the_kernels_own_count(tmp_path) -> None:
    text = tmp_path / "vmstat"
    text.write_text("pgalloc_normal 7\npgfree 123456\npgfree_other 5\n")
    assert vmstat.pages_freed(str(text)) == 123456
    text.write_text("nr_free_pages 7\n")
    assert vmstat.pages_freed(str(text)) is None


def test_unseen_frees_are_bounded_by_what_went_on_while_they_were_counted(
        monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracking began between 1,000 and 1,010 pages freed; 200 were seen and 7 were not."""
    store = maps.Store.__new__(maps.Store)
    store.facts = {"freed_before": (1000, 1010)}
    kernel = iter([1205, 1215, 1207, 1207, 1190, 1230, 1200, 1208])
    monkeypatch.setattr(maps, "pages_freed", lambda: next(kernel))
    monkeypatch.setattr(store, "counters", lambda: {"freed_pages": 200})
    assert store.unseen_frees() == (0, 7)
    kernel = iter([1300] * 8)
    assert store.unseen_frees() == (90, 100)
    store.facts = {}
    assert store.unseen_frees() == (None, None)


@pytest.mark.parametrize(("names", "expected"), [
    (["folio", "new_order", "split_at", "lock_at", "list", "uniform_split"],
     (1, 2, 5, 1, 6)),
    (["folio", "new_order", "page", "list", "uniform_split"], (1, 2, 4, 1, 5)),
    (["folio", "new_order", "split_at", "lock_at", "list", "split_type"], (1, 2, 5, 0, 6)),
    (["page", "list", "new_order"], (2, 255, 255, 1, 3)),
    (["page", "list"], (255, 255, 255, 1, 2)),
])
def test_arguments_of_a_split_by_their_names(names: list[str], expected: tuple[int, ...]) -> None:
    assert tuple(hook_table.BY_NAME["split_folio"].arguments(names).values()) == expected


def test_the_array_of_a_bulk_allocation_is_the_last_argument() -> None:
    old = ["gfp", "preferred_nid", "nodemask", "nr_pages", "page_list", "page_array"]
    arguments = hook_table.BY_NAME["alloc_pages_bulk"].arguments
    assert arguments(old) == {"bulk_array": 5}
    assert arguments([*old[:4], "page_array"]) == {"bulk_array": 4}


def test_lockdown_confidentiality_is_refused_in_words(tmp_path) -> None:
    state = tmp_path / "lockdown"
    state.write_text("none integrity [confidentiality]\n")
    assert "locked down" in (requirements.lockdown(str(state)) or "")
    state.write_text("none [integrity] confidentiality\n")
    assert requirements.lockdown(str(state)) is None
    assert requirements.lockdown(str(tmp_path / "not there")) is None


def test_copies_of_a_function_for_some_of_its_callers_are_told(tmp_path: Path) -> None:
    kallsyms = tmp_path / "kallsyms"
    kallsyms.write_text("""\
ffffffff81615910 T split_page
ffffffff81615990 t split_page.part.0
ffffffff81615a00 t split_page.cold
ffffffff81615b00 t split_page_owner.isra.0
ffffffff81616000 t __folio_split.constprop.0.isra.1
ffffffff81617000 T alloc_contig_range_noprof
""")
    assert hooks.copies_of(("split_page", "__folio_split", "alloc_contig_range_noprof"),
                           Lines.read(kallsyms)) == {
        "split_page": ["split_page.part.0"],
        "__folio_split": ["__folio_split.constprop.0.isra.1"]}


def test_a_quantile_is_the_end_of_its_bucket_but_no_more_than_the_longest() -> None:
    buckets = np.zeros(layout.TIMING_BUCKETS, np.uint64)
    buckets[4 * 10 + 1] = 90   # 1,280 to 1,536 ns
    buckets[4 * 12] = 10       # 4,096 to 5,120 ns
    timing = timings.Timing(100, 4500, buckets)
    assert timings.edges()[4 * 10 : 4 * 10 + 3].tolist() == [1024, 1280, 1536]
    assert timing.quantile(0.5) == 1536
    assert timing.quantile(0.95) == 4500
    assert timings.Timing(0, 0, 0 * buckets).quantile(0.5) == 0


@pytest.mark.parametrize(("said", "style"), [
    ("held off by the kernel", ""), ("held off by the programs", ""),
    ("Invalid argument", "warn")])
def test_status_says_whether_programs_are_preempted(said: str, style: str) -> None:
    text, given = status_view._preemption(Status(on=True, facts={"preemption": said}))
    assert said in text
    assert text.startswith("not preempted") == (style == "")
    assert given == style
