"""``pageowner flame``: boxes as wide as their pages, drawn alike by Python and by a browser."""

from __future__ import annotations

import io
import itertools
import json
import lzma
import random
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from browser import Browser, browser, missing

import pageowner
from pageowner.analysis.flame import Chains, chains, rectangles
from pageowner.analysis.profile import samples
from pageowner.analysis.subsystems import functions
from pageowner.model.metadata import Metadata
from pageowner.report import flame_html
from pageowner.report.flame_colours import FEWER, MORE, SAME, changed
from pageowner.report.flame_html import FlameHtml
from pageowner.report.flame_svg import FlameSvg
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Done
    from pageowner import Snapshot

EVIL = "</script><script>window.owned=1</script><img src=x onerror=window.owned=1>&\u202e\x1b[2J"
SVG = "{http://www.w3.org/2000/svg}"
needs_browser = pytest.mark.skipif(bool(missing()), reason=missing() or "none")


def made(seed: int, rows: int = 300) -> Snapshot:
    """Random rows of some stacks that share their outer frames; a function has a hostile name."""
    chance = random.Random(seed)
    stacks = ["pipe_write+0x1/0x2\nvfs_write+0x1/0x2\nksys_write+0x1/0x2",
              f"{EVIL}\nvfs_write+0x1/0x2\nksys_write+0x1/0x2",
              "shmem_alloc_folio+0x1/0x2\nksys_write+0x1/0x2",
              "ksys_write+0x1/0x2", "do_anonymous_page+0x1/0x2\nasm_exc_page_fault+0x1/0x2",
              f"only{seed}+0x1/0x2 [mod]\nasm_exc_page_fault+0x1/0x2", None]
    return pageowner.Snapshot.from_columns({
        "order": [chance.choice([0, 0, 1, 4]) for _ in range(rows)],
        "comm": [chance.choice(["a", EVIL]) for _ in range(rows)],
        "state": ["owned"] * rows, "stack": [chance.choice(stacks) for _ in range(rows)]},
        Metadata(source=f"s{seed}{EVIL}"))


def both() -> Chains:
    return chains(samples(made(2)), samples(made(1)))


def by_path(found: Chains, reverse: bool) -> dict[tuple[str, ...], list[int]]:
    """Before, after and width of every path from the ground, one chain at a time."""
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    for frames, before, after in zip(found.frames(), found.before, found.after, strict=True):
        path = frames[::-1] if reverse else frames
        for depth in range(len(path) + 1):
            one = sums[path[:depth]]
            for place, pages in enumerate((before, after, max(before, after))):
                one[place] += pages
    return sums


@pytest.mark.parametrize("reverse", [False, True])
def test_every_box_has_the_pages_of_its_path_and_stands_on_its_caller(reverse: bool) -> None:
    found = both()
    expected = by_path(found, reverse)
    boxes = list(rectangles(found, reverse))
    assert len(boxes) == len(expected)
    path: list[Any] = []
    for one in boxes:
        del path[one.depth:]
        path.append(one)
        names = tuple(box.name for box in path[1:])
        assert [one.before, one.after, one.width] == expected[names]
        if one.depth:
            under = path[-2]
            assert under.start <= one.start
            assert one.start + one.width <= under.start + under.width
    for depth in range(max(box.depth for box in boxes) + 1):
        level = [box for box in boxes if box.depth == depth]
        assert all(left.start + left.width <= right.start
                   for left, right in itertools.pairwise(level))


def test_real_memory_adds_up(sample61: Snapshot) -> None:
    boxes = list(rectangles(chains(samples(sample61))))
    assert (boxes[0].name, boxes[0].width) == ("all", sample61.pages)
    outermost = defaultdict(int)
    for row in sample61.table.select(["stack", "order"]).to_pylist():
        outermost[str(functions(row["stack"])[-1])] += 1 << row["order"]
    assert {box.name: box.width for box in boxes if box.depth == 1} == outermost


def drawn(found: Chains, **how: bool) -> ET.Element:
    file = io.BytesIO()
    FlameSvg(found, 4096, f"t{EVIL}", **how).write(file)
    return ET.fromstring(file.getvalue())


@pytest.mark.parametrize("how", [{}, {"reverse": True}, {"icicle": True}, {"difference": True}])
def test_the_image_has_every_box_in_its_place(how: dict[str, bool]) -> None:
    found = both()
    root = drawn(found, **how)
    groups = root.findall(f"{SVG}g")
    boxes = list(rectangles(found, how.get("reverse", False)))
    assert len(groups) == len(boxes)
    deepest = max(box.depth for box in boxes)
    whole = boxes[0].width
    lowest = max(float(group.find(f"{SVG}rect").get("y")) for group in groups)  # type: ignore
    for group, one in zip(groups, boxes, strict=True):
        box = group.find(f"{SVG}rect")
        assert box is not None
        assert float(box.get("width")) == pytest.approx(1180 * one.width / whole, abs=0.01)
        assert float(box.get("x")) == pytest.approx(10 + 1180 * one.start / whole, abs=0.01)
        row = one.depth if how.get("icicle") else deepest - one.depth
        assert float(box.get("y")) == lowest - 17 * (deepest - row)
        assert group.find(f"{SVG}title").text.startswith(f"{printable(one.name)}: ")  # type: ignore
        if how.get("difference"):
            assert box.get("fill") == changed(one.before, one.after)
        text = group.find(f"{SVG}text")
        assert text is None or printable(one.name).startswith(str(text.text).rstrip("…"))


def test_the_image_runs_nothing_and_asks_nothing() -> None:
    file = io.BytesIO()
    FlameSvg(both(), 4096, f"t{EVIL}").write(file)
    text = file.getvalue().decode()
    assert re.findall(r"\w+://\S+", text) == ['http://www.w3.org/2000/svg"']
    assert {one.tag for one in ET.fromstring(text).iter()} == {
        f"{SVG}{name}" for name in ("svg", "rect", "text", "g", "title")}
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_the_image_of_real_memory_looks_as_it_did(data: Path, sample61: Snapshot) -> None:
    """Look at the new one before it takes the old one's place: write ``file``, packed by xz -9."""
    file = io.BytesIO()
    FlameSvg(chains(samples(sample61, ["comm"])), 4096, "6.1").write(file)
    with lzma.open(data / "flame/6.1-sample.svg.xz") as kept:
        assert file.getvalue() == kept.read()


def test_colours_of_change() -> None:
    assert changed(0, 7) == MORE
    assert changed(7, 0) == FEWER
    assert changed(7, 7) == changed(0, 0) == SAME
    assert changed(4, 8) not in (MORE, SAME)


def test_the_words_of_the_command(text61: Path, some_records: Path, tmp_path: Path,
                                  cli: Callable[..., Done]) -> None:
    page, image = tmp_path / "a.html", tmp_path / "a.svg"
    done = cli("flame", text61, some_records, "--html", page, "--svg", image, "--by", "comm",
               "--icicle", "--reverse", "--order", "0")
    assert (done.status, done.out) == (0, b"")
    assert [line.split(": ")[0] for line in done.err.decode().splitlines()] == [
        str(page), str(image)]
    about = json.loads(re.search(r'id="about">(.*?)</script>', page.read_text(), re.DOTALL)[1])  # type: ignore[index]
    assert (about["icicle"], about["reverse"], about["difference"]) == (True, True, True)
    assert about["title"] == f"{text61} → {some_records}"
    pages = [json.loads(cli("report", path, "--order", "0", "--json").out)["pages"]
             for path in (text61, some_records)]
    assert [sum(about["before"]), sum(about["after"])] == pages
    assert {about["names"][chain[0]] for chain in about["chains"]} >= {"postgres", "dd"}
    assert ET.parse(image).getroot().tag == f"{SVG}svg"
    for words, why in (([text61], b"name a file to write"), (["-", "-", "--svg", "x"], b"only one"),
                       ([text61, "--svg", image, "--by", "x"], b"cannot group by")):
        done = cli("flame", *words)
        assert done.status == 2
        assert why in done.err
    before = page.read_bytes()
    assert cli("flame", tmp_path / "missing", "--html", page).status == 1
    assert page.read_bytes() == before
    for name, start in (("b.SVG", b"<svg"), ("b.html", b"<!doctype html>"), ("b", b"<!doctype")):
        assert cli("flame", text61, "-o", tmp_path / name).status == 0
        assert (tmp_path / name).read_bytes().lower().startswith(start), name
    done = cli("flame", text61, "-o", "c.svg", "--svg", "d.svg")
    assert (done.status, b"two files of the same kind" in done.err) == (2, True)


def test_nothing_at_all_is_drawn_too(tmp_path: Path, cli: Callable[..., Done]) -> None:
    path = tmp_path / "none"
    pageowner.Snapshot.from_columns({"order": []}, Metadata()).save(path)
    done = cli("flame", path, "--svg", tmp_path / "a.svg", "--html", tmp_path / "a.html")
    assert (done.status, done.out) == (0, b"")
    assert [line.split(": ")[0] for line in done.err.decode().splitlines()] == [
        str(tmp_path / "a.html"), str(tmp_path / "a.svg")]
    assert len(ET.parse(tmp_path / "a.svg").getroot().findall(f"{SVG}g")) == 1


def page_of(found: Chains, **how: bool) -> str:
    file = io.BytesIO()
    FlameHtml(found, 4096, f"t{EVIL}", **how).write(file)
    return file.getvalue().decode()


def test_the_page_holds_no_address_and_no_hostile_markup() -> None:
    text = page_of(both())
    assert "://" not in text
    assert text.count("</script>") == 2  # what is known, the script
    assert "<img" not in text
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_a_page_of_very_many_chains_says_what_it_leaves_out(
        monkeypatch: pytest.MonkeyPatch) -> None:
    found = chains(samples(made(2)))
    monkeypatch.setattr(flame_html, "_MOST", 3)
    about = re.search(r'\{"title".*\}', page_of(found))
    assert about is not None
    said = json.loads(about[0])
    number = len(found) - 3
    assert number > 0
    assert [[said["names"][name] for name in chain] for chain in said["chains"]][3:] == [
        [f"({number:,} smaller chains)"]]
    assert sum(said["after"]) == sum(found.after)
    assert said["after"][:3] == [pages for pages in found.after
                                 if pages in sorted(found.after)[-3:]]
    assert f"the frames of {number:,} smaller chains: " in said["title"]


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def show(window: Browser, tmp_path: Path, found: Chains, **how: bool) -> None:
    path = tmp_path / "flame.html"
    path.write_text(page_of(found, **how))
    window.requests()
    window.complaints()
    window.post("url", url=path.as_uri())
    window.until("document.getElementById('graph').dataset.boxes")


def boxes_of(window: Browser) -> list[dict[str, Any]]:
    """All boxes as drawn: their place and size in the graph, colour, and what they say."""
    found: list[dict[str, Any]] = window.run("""
        const graph = document.getElementById('graph').getBoundingClientRect();
        return [...document.querySelectorAll('#graph div')].map(div => {
          const box = div.getBoundingClientRect();
          div.onmouseenter();
          return {x: (box.left - graph.left) / graph.width, w: box.width / graph.width,
                  y: box.top - graph.top, colour: getComputedStyle(div).backgroundColor,
                  text: div.textContent, below: div.classList.contains('below'),
                  found: div.classList.contains('found'),
                  said: Object.fromEntries([...document.querySelectorAll('#box dt')].map(
                      dt => [dt.textContent, dt.nextSibling.textContent]))}; })""")
    return found


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at:at + 2], 16)) for at in (1, 3, 5))})"


@needs_browser
@pytest.mark.parametrize("how", [{}, {"icicle": True}, {"reverse": True}, {"difference": True}])
def test_the_page_draws_the_same_boxes_as_the_image(window: Browser, tmp_path: Path,
                                                    how: dict[str, bool]) -> None:
    found = both() if how.get("difference") else chains(samples(made(2)))
    show(window, tmp_path, found, **how)
    seen = boxes_of(window)
    expected = list(rectangles(found, how.get("reverse", False)))
    assert len(seen) == len(expected)
    whole = expected[0].width
    lines = sorted({one["y"] for one in seen}, reverse=not how.get("icicle"))
    by_place = {(lines.index(one["y"]), one["said"]["function"], round(one["x"] * whole)): one
                for one in seen}
    for one in expected:
        box = by_place[one.depth, printable(one.name), one.start]
        assert box["w"] * whole == pytest.approx(one.width, abs=0.5)
        if how.get("difference"):
            assert box["colour"] == rgb(changed(one.before, one.after))
            assert box["said"]["before"].endswith(f", {one.before:,} page{'s' * (one.before != 1)}")
            assert box["said"]["after"].endswith(f", {one.after:,} page{'s' * (one.after != 1)}")
        else:
            assert box["said"]["pages"] == f"{one.after:,} page{'s' * (one.after != 1)}"
    assert window.complaints() == []


@needs_browser
def test_a_click_zooms_and_escape_shows_all(window: Browser, tmp_path: Path) -> None:
    found = chains(samples(made(2)))
    show(window, tmp_path, found)
    before = boxes_of(window)
    x, y = window.run("""
        const box = [...document.querySelectorAll('#graph div')].find(
            div => div.textContent === 'vfs_write').getBoundingClientRect();
        return [Math.round(box.left + box.width / 2), Math.round(box.top + 9)]""")
    window.click(x, y)
    window.until("focus.name === 'vfs_write'")
    zoomed = {one["said"]["function"]: one for one in boxes_of(window)}
    assert set(zoomed) > {"all", "ksys_write", "vfs_write", "pipe_write"}
    assert "asm_exc_page_fault" not in zoomed
    for name in ("all", "ksys_write", "vfs_write"):
        assert zoomed[name]["w"] == pytest.approx(1, abs=1e-3)
        assert zoomed[name]["below"] == (name != "vfs_write")
    inside = {rectangle.name: rectangle.width for rectangle in rectangles(found)}
    assert zoomed["pipe_write"]["w"] == pytest.approx(
        inside["pipe_write"] / inside["vfs_write"], abs=1e-3)
    escape = "\ue00c"
    window.post("actions", actions=[{"type": "key", "id": "keys", "actions": [
        {"type": "keyDown", "value": escape}, {"type": "keyUp", "value": escape}]}])
    window.until("focus === root")
    assert boxes_of(window) == before


@needs_browser
def test_search_marks_what_it_finds_and_sums_it_once(window: Browser, tmp_path: Path) -> None:
    found = chains(samples(made(2)))
    show(window, tmp_path, found)
    window.run("const s = document.getElementById('search'); s.value = 'WRITE'; s.oninput();")
    marked = {one["said"]["function"] for one in boxes_of(window) if one["found"]}
    assert marked == {"ksys_write", "vfs_write", "pipe_write"}
    widths = {rectangle.name: rectangle.width for rectangle in rectangles(found)}
    share = 100 * widths["ksys_write"] / widths["all"]  # the others stand on it
    assert window.text("#said").startswith(f"{share:.1f} %: ")
    window.run("const s = document.getElementById('search'); s.value = ''; s.oninput();")
    assert not any(one["found"] for one in boxes_of(window))
    assert window.text("#said") == ""


@needs_browser
def test_the_legend_shows_one_subsystem_alone(window: Browser, tmp_path: Path) -> None:
    found = both()
    show(window, tmp_path, found, difference=True)
    place = found.subsystems.index("pipes")
    assert place >= 0
    window.run("""[...document.querySelectorAll('.entry')].find(
        one => one.querySelector('span').textContent === 'pipes').click()""")
    pages = sum(max(before, after) for before, after, what in zip(
        found.before, found.after, found.what, strict=True)
        if found.subsystems[what] == "pipes")
    assert window.run("return root.width") == pages
    assert {one["said"]["function"] for one in boxes_of(window)} == {
        "all", "ksys_write", "vfs_write", "pipe_write"}
    for measure, values in (("before", found.before), ("after", found.after)):
        window.run("""const s = document.getElementById('width'); s.value = arguments[0];
            s.onchange();""", measure)
        assert window.run("return root.width") == sum(
            pages for pages, what in zip(values, found.what, strict=True)
            if found.subsystems[what] == "pipes")
    window.run("document.getElementById('all').click()")
    assert window.run("return root.width") == sum(found.after)


@needs_browser
def test_the_page_asks_no_network_and_runs_no_name(window: Browser, tmp_path: Path) -> None:
    show(window, tmp_path, chains(samples(made(2), ["comm"])))
    said = [one["said"]["function"] for one in boxes_of(window)]
    assert sum("<img src=x onerror" in name for name in said) >= 3  # a task, functions of both
    assert "<img src=x onerror" in window.text("#title")
    assert window.run("return window.owned") is None
    assert window.run("return document.images.length + document.scripts.length") == 2
    assert all(request.startswith("file:") for request in window.requests())
    assert window.complaints() == []
