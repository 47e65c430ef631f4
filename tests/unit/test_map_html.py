"""The page of ``pageowner map --html`` in a real browser: zoom, hover, click, hostile names."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import Browser, browser, missing
from machines import Machine, machine

import pageowner
from pageowner.analysis.layout import hilbert
from pageowner.analysis.memory import memory
from pageowner.errors import PageownerError
from pageowner.report import map_html

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVIL = "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>\u202e\x1b[2J"
needs_browser = pytest.mark.skipif(bool(missing()), reason=missing() or "none")


@pytest.fixture(scope="module")
def made() -> Machine:
    """4,096 frames; one task has a hostile name."""
    found = machine(5, frames=1 << 12)
    for page in found.pages:
        if page.comm == "aaa":
            page.comm = EVIL
    return found


def page_of(made: Machine, by: str = "comm", order: str = "row") -> str:
    snapshot = made.snapshot()
    file = io.BytesIO()
    map_html.MapHtml([(snapshot, memory(snapshot))], by, order).write(file)
    return file.getvalue().decode()


def test_the_page_holds_no_address_and_no_hostile_markup(made: Machine) -> None:
    text = page_of(made)
    assert "://" not in text
    assert text.count("</script>") == 3  # what is known, the data, the script
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    about = json.loads(re.search(r'id="about">(.*?)</script>', text, re.DOTALL)[1])  # type: ignore[index]
    assert any("</script>" in label for label in about["sides"][0]["labels"]["comm"])


def test_memory_without_allocations_and_more_than_a_page_can_hold() -> None:
    made = machine(2)
    made.pages.clear()
    assert "node 0 Normal" in page_of(made)
    made.zones = [("Normal", 0, 1 << 33)]
    with pytest.raises(PageownerError, match="use --png"):
        page_of(made)


def test_two_sources_with_pages_of_other_sizes_are_not_shown_beside_each_other(
        made: Machine, tmp_path: Path) -> None:
    other = made.snapshot()
    other.meta.page_size = 1 << 16
    with pytest.raises(PageownerError, match="pages of 4 KiB cannot be compared with pages of 64"):
        pageowner.map(made.snapshot()).save_html(tmp_path / "both.html", beside=other)


def test_a_page_of_very_many_values_says_what_it_leaves_out(
        made: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def sides(text: str) -> dict[str, Any]:
        about = re.search(r'id="about">(.*?)</script>', text, re.DOTALL)
        return json.loads(about[1])["sides"][0]  # type: ignore[index, no-any-return]

    all_names = sides(page_of(made))["labels"]["comm"]
    monkeypatch.setattr(map_html, "_MOST_LABELS", 2)
    side = sides(page_of(made))
    names = side["labels"]["comm"]
    assert len(names) == 3 < len(all_names)
    assert set(names[:2]) < set(all_names)
    assert names[2] == "(one of those left out)"
    assert f"{len(all_names) - 2} of {len(all_names)} values of comm" in "".join(side["notes"])


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def opened(window: Browser, made: Machine, tmp_path: Path) -> Browser:
    path = tmp_path / "map.html"
    path.write_text(page_of(made))
    window.requests()
    window.complaints()
    window.post("url", url=path.as_uri())
    window.until("document.querySelector('canvas')?.dataset.frames")
    return window


def canvas(opened: Browser) -> dict[str, Any]:
    found: dict[str, Any] = opened.run("""
        const view = views[0], box = view.canvas.getBoundingClientRect();
        return {left: box.left, top: box.top, width: view.canvas.width, height: view.canvas.height,
                px: view.px, frames: view.frames, columns: view.columnsShown(),
                starts: view.side.stretches}""")
    return found


def spot(opened: Browser, pfn: int) -> tuple[int, int]:
    """Where a frame is in the window, in the middle of its cell."""
    x, y, left, top, px = opened.run("""
        const view = views[0], box = view.canvas.getBoundingClientRect();
        const pfn = arguments[0];
        const zone = view.side.stretches.find(one => one[1] <= pfn && pfn < one[2]);
        const [x, y] = view.pixel(pfn - zone[1] + zone[3]);
        return [x, y, box.left, box.top, view.px]""", pfn)
    return int(left + x + px // 2), int(top + y + px // 2)


def fields(opened: Browser) -> dict[str, str]:
    found = opened.run("""return [...document.querySelectorAll('#page dt')].map(
        dt => [dt.textContent, dt.nextSibling.textContent])""")
    return dict(found)


@needs_browser
def test_pointing_at_any_page_tells_its_owner(opened: Browser, made: Machine) -> None:
    owners = made.owner_at()
    for pfn in (1, 17, 500, 1023, 1024, 2050, 2100, 3000, 4000):
        opened.point(*spot(opened, pfn))
        told = fields(opened)
        assert told["pfn"].startswith(f"{pfn} (0x{pfn:x})")
        owner = owners[pfn]
        if pfn in made.held:
            assert told["owner"] == "never given to the page allocator"
        elif owner is None:
            assert told["owner"] == "nobody: free"
        else:
            assert told["task"] == owner.comm or owner.comm == EVIL
            assert told["block"].startswith(f"order {owner.order}:")
        assert told["zone"] == ("node 0 DMA" if pfn < 1024 else "node 0 Normal")


@needs_browser
@pytest.mark.parametrize("order", ["row", "hilbert"])
def test_every_pixel_has_the_colour_of_its_owner(opened: Browser, made: Machine,
                                                 order: str) -> None:
    opened.run("""const s = document.getElementById('order'); s.value = arguments[0];
        s.onchange(); paintNow();""", order)
    legend = {one["label"]: one["colour"] for one in opened.run("return legend")}
    seen = opened.run("""
        const view = views[0], data = view.pen.getImageData(0, 0, view.canvas.width,
                                                            view.canvas.height);
        return [...Array(4000).keys()].map(n => n + 50).filter(pfn => pfn < 4091).map(pfn => {
          const zone = view.side.stretches.find(one => one[1] <= pfn && pfn < one[2]);
          const [x, y] = view.pixel(pfn - zone[1] + zone[3]);
          const at = 4 * ((y + view.px - 2) * view.canvas.width + x + view.px - 2);
          return [pfn, data.data[at], data.data[at + 1], data.data[at + 2]]; })""")
    owners = made.owner_at()
    wrong = 0
    for pfn, *rgb in seen:
        owner = owners[pfn]
        label = ("not the allocator's" if pfn in made.held else "free" if owner is None
                 else owner.comm)
        colour = legend.get(label) or next(
            (one for name, one in legend.items() if label == EVIL and "img" in name),
            legend.get("1 others"))
        wrong += colour != "#" + "".join(f"{part:02x}" for part in rgb)
    assert wrong < 0.03 * len(seen)  # names of zones are written over some


@needs_browser
def test_the_wheel_zooms_on_what_is_under_the_pointer(opened: Browser, made: Machine) -> None:
    for order in ("row", "hilbert"):
        opened.run("""const s = document.getElementById('order'); s.value = arguments[0];
            s.onchange(); paintNow();""", order)
        before = canvas(opened)
        x, y = spot(opened, 2500)
        opened.point(x, y)
        pfn = fields(opened)["pfn"]
        opened.wheel(x, y, -120)
        opened.until(f"views[0].px > {before['px']} || views[0].px == 32")
        opened.point(x + 1, y)
        assert fields(opened)["pfn"] == pfn
        for _ in range(8):
            opened.wheel(x, y, 120)
        opened.until(f"views[0].px == {before['px']}")
        assert canvas(opened) == before


@needs_browser
def test_dragging_moves_the_map(opened: Browser) -> None:
    x, y = spot(opened, 2500)
    opened.wheel(x, y, -120)
    opened.point(x, y)
    pfn = int(fields(opened)["pfn"].split()[0])
    px = canvas(opened)["px"]
    opened.drag(x, y, 3 * px, 0)
    opened.point(x, y)
    assert int(fields(opened)["pfn"].split()[0]) == pfn - 3
    assert not opened.run("return filter")


@needs_browser
def test_a_click_shows_one_owner_alone_and_escape_all_again(opened: Browser,
                                                            made: Machine) -> None:
    page = next(page for page in made.pages if page.comm not in (EVIL,) and page.pfn > 1500)
    alone = sum(1 << one.order for one in made.pages if one.comm == page.comm)
    before = canvas(opened)
    opened.click(*spot(opened, page.pfn))
    opened.until("!document.getElementById('filter').hidden")
    assert canvas(opened) == before
    text = opened.text("#only")
    assert f"task {page.comm}" in text
    assert f"only {alone} pages" in text
    shown = opened.run("""const dim = legend.findIndex(one => one.role === 'dim'), side = sides[0];
        let pages = 0;
        for (let i = 0; i < side.owner.length; i++)
          if (['value', 'other'].includes(legend[side.category[i]].role))
            pages += side.begin[i + 1] - side.begin[i];
        return pages""")
    assert shown == alone
    escape = "\ue00c"
    opened.post("actions", actions=[{"type": "key", "id": "keys", "actions": [
        {"type": "keyDown", "value": escape}, {"type": "keyUp", "value": escape}]}])
    opened.until("document.getElementById('filter').hidden")


@needs_browser
def test_every_way_to_colour_sums_up_to_all_frames(opened: Browser, made: Machine) -> None:
    total = sum(end - start for _, start, end in made.zones)
    legends = {}
    for by in map_html.ASPECTS:
        opened.run("""const s = document.getElementById('by'); s.value = arguments[0];
            s.onchange(); paintNow();""", by)
        legends[by] = opened.run("""return legend.filter(one => one.role !== 'nothing')
            .map(one => [one.label, one.pages])""")
        assert sum(pages for _, pages in legends[by]) == total
        assert opened.text("#legend")
    kinds = dict(legends["migratetype"])
    from machines import TYPES

    for kind in ("Movable", "Unmovable", "Reclaimable"):
        assert kinds[kind] == sum(1 << page.order for page in made.pages
                                  if TYPES[page.what] == kind)


@needs_browser
def test_the_page_asks_no_network_and_runs_no_name(opened: Browser, made: Machine) -> None:
    evil = next(page for page in made.pages if page.comm == EVIL)
    opened.click(*spot(opened, evil.pfn))
    opened.until("!document.getElementById('filter').hidden")
    assert "<img src=x onerror" in fields(opened)["task"]
    assert "<img src=x onerror" in opened.text("#only")
    assert opened.run("return window.owned") is None
    assert opened.run("return document.images.length + document.scripts.length") == 2
    assert all(request.startswith("file:") for request in opened.requests())
    assert opened.complaints() == []


@needs_browser
def test_the_page_draws_the_same_curve_as_the_image(opened: Browser) -> None:
    for level in (1, 4, 5):
        x, y = hilbert(level, np.arange(1 << 2 * level))
        drawn = opened.run("""return [...Array(4 ** arguments[0]).keys()].map(
            at => [...along(arguments[0], at), index(arguments[0], ...along(arguments[0], at))])""",
                           level)
        assert drawn == [[int(a), int(b), at]
                         for at, (a, b) in enumerate(zip(x, y, strict=True))]


@needs_browser
def test_two_snapshots_stand_side_by_side_and_move_together(window: Browser, made: Machine,
                                                            tmp_path: Path) -> None:
    later = machine(5, frames=1 << 12)
    later.pages = [page for page in later.pages if page.comm != "bbb"]
    both = [one.snapshot() for one in (made, later)]
    for one in both:
        one.meta.pageblock_order = None  # of which both have the same note
    path = tmp_path / "both.html"
    with path.open("wb") as file:
        map_html.MapHtml([(one, memory(one)) for one in both], "comm", "row").write(file)
    window.post("url", url=path.as_uri())
    window.until("document.querySelectorAll('canvas')[1]?.dataset.frames")
    assert window.run("return document.querySelectorAll('.note').length") == 1
    pages = sum(1 << page.order for page in made.pages if page.comm == "bbb")
    assert window.run("return legend.find(one => one.label === 'bbb').each") == [pages, 0]
    x, y = spot(window, 2500)
    window.wheel(x, y, -120)
    places = "views.map(view => [view.origin, view.level, view.px])"
    first, second = window.run(f"return {places}")
    assert first == second
    window.run("choose({keys: {comm: 'bbb'}, text: 'task bbb'})")
    assert f"only {pages} page" in window.text("#only")


@needs_browser
@pytest.mark.parametrize("by", ["stack", "order", "node", "age"])
def test_any_key_of_report_can_be_asked_for(window: Browser, made: Machine, tmp_path: Path,
                                            by: str) -> None:
    path = tmp_path / "map.html"
    path.write_text(page_of(made, by))
    window.complaints()
    window.post("url", url=path.as_uri())
    window.until("document.querySelector('canvas')?.dataset.frames")
    assert window.run("return [by, document.getElementById('by').value]") == [by, by]
    counted = dict(window.run(
        "return legend.filter(one => one.role === 'value').map(one => [one.label, one.pages])"))
    if by == "order":
        assert counted == {str(order): sum(1 << order for page in made.pages if page.order == order)
                           for order in {page.order for page in made.pages}}
    assert window.complaints() == []
