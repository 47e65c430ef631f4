"""``pageowner map`` as people see it in a terminal, and as an image."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import asking
import numpy as np
import pytest
from machines import machine
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from pageowner.analysis.memory import Stretch
from pageowner.analysis.picture import Category, Picture, picture
from pageowner.model.snapshot import Metadata
from pageowner.report import map_png, map_view
from pageowner.report.palette import ROLE_COLOURS, VALUE_COLOURS

if TYPE_CHECKING:
    from pathlib import Path

    from pageowner import Snapshot

META = Metadata(kind="page_owner", source="made up")


def stripes(frames: int = 1 << 20) -> Picture:
    """Quarters: a task, free, another task, held; in two zones."""
    edge = frames // 4
    return Picture(
        "comm", np.array([0, edge, 2 * edge, 3 * edge]), np.array([0, 2, 1, 3], np.uint8),
        (Category("one", "value", edge), Category("two", "value", edge),
         Category("free", "free", edge), Category("not the allocator's", "held", edge)),
        (Stretch(0, "DMA32", 0, 2 * edge), Stretch(1, "Normal", 2 * edge, frames)))


def coloured(drawn: Picture, order: str, width: int, height: int) -> tuple[list[str], str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system="truecolor")
    return map_view.draw(drawn, META, order, width, height, console), out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
@pytest.mark.parametrize("order", ["row", "hilbert"])
@pytest.mark.parametrize("colour", [True, False])
def test_the_map_fits_the_window_and_names_its_zones(
        width: int, height: int, order: str, colour: bool,
        capsys: pytest.CaptureFixture[str]) -> None:
    if colour:
        lines, _ = coloured(stripes(), order, width, height)
    else:
        lines = map_view.draw(stripes(), META, order, width, height, None)
        assert capsys.readouterr().out.splitlines() == lines
    assert len(lines) < height  # one is the prompt's
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    assert re.search(r"^N0 DMA32 +0 B ", text, re.MULTILINE)
    assert re.search(r"^N1 Normal +2 GiB ", text, re.MULTILINE)
    for label in ("one", "two", "free", "not the allocator's"):
        assert re.search(rf"{label} +25\.0% +1 GiB", text)
    assert "made up: 4 GiB by task, a cell is " in text


def test_plain_characters_stand_where_the_memory_is() -> None:
    lines = map_view.draw(stripes(), META, "row", 80, 24, None)
    shown = "".join(line[22:] for line in lines[1:-2])
    assert re.fullmatch(r"A+\.+ *B+#+ *", shown)
    assert len(set(map(shown.count, "A.B#"))) == 1


def test_colours_stand_where_the_memory_is() -> None:
    _, drawn = coloured(stripes(), "row", 80, 24)
    cells = []
    for line in drawn.splitlines()[1:-2]:
        text = Text.from_ansi(line)
        for at, char in enumerate(text.plain):
            style = text.get_style_at_offset(Console(), at)
            if char == "▀":
                assert style.color
                cells.append(style.color.get_truecolor().hex)
    assert set(cells) == {VALUE_COLOURS[0], VALUE_COLOURS[1], ROLE_COLOURS["free"],
                          ROLE_COLOURS["held"]}
    runs = [colour for at, colour in enumerate(cells) if at == 0 or cells[at - 1] != colour]
    assert runs == [VALUE_COLOURS[0], ROLE_COLOURS["free"], VALUE_COLOURS[1], ROLE_COLOURS["held"]]


def test_a_tiny_window_and_no_memory_do_not_fail() -> None:
    assert map_view.draw(stripes(64), META, "hilbert", 3, 2, None)
    empty = Picture("comm", np.array([-1]), np.array([0], np.uint8),
                    (Category("free", "free", 0),), ())
    assert map_view.draw(empty, META, "row", 80, 24, None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = machine(3, frames=1 << 12)
    for page in made.pages:
        if page.comm == "aaa":
            page.comm = "\x1b[31m)\n<b>evil"
    path = tmp_path_factory.mktemp("map") / "saved.parquet"
    made.snapshot().save(path)
    return path


def run(*words: object, **env: str) -> tuple[int, str, str]:
    return asking.run("map", *words, **{"COLUMNS": "80", "LINES": "24", **env})


def test_in_a_pipe_there_are_plain_characters_and_hostile_names_are_shown(saved: Path) -> None:
    status, out, _ = run(saved, "--by", "task")
    assert status == 0
    assert "\x1b" not in out
    assert r"\x1b[31m)\x0a<b>ev" in out
    assert "0 Normal" in out


def test_names_in_the_legend_are_whole_at_80_columns(
        capsys: pytest.CaptureFixture[str]) -> None:
    common = ("shared memory (tmpfs)", "slab: network buffers")
    made = machine(3)
    for number, page in enumerate(made.pages):
        page.comm = common[number % 2]
    map_view.draw(picture(made.snapshot(), "comm"), META, "row", 80, 24, None)
    text = capsys.readouterr().out
    assert all(name in text for name in common)
    coloured_lines, _ = coloured(picture(made.snapshot(), "comm"), "row", 80, 24)
    assert all(name in "".join(coloured_lines) for name in common)


def test_notes_are_wrapped_at_a_terminal(dump_text: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "pageowner", "map", str(dump_text)],
                          stdout=subprocess.PIPE, stdin=theirs, stderr=theirs, text=True,
                          env={**os.environ, "COLUMNS": "80", "LINES": "24"}) as child:
        os.close(theirs)
        picture_lines = child.communicate()[0].splitlines()
        notes = os.read(ours, 1 << 16).decode().splitlines()
    os.close(ours)
    assert notes[0].startswith("pageowner: note: a dump contains")
    assert len(notes) > 1
    assert max(map(len, notes)) <= 80
    assert len(notes) + len(picture_lines) < 24


def test_a_terminal_gets_colours_unless_NO_COLOR_is_set(saved: Path) -> None:
    for env, expected in (({"COLORTERM": "truecolor"}, True), ({"NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        with subprocess.Popen([sys.executable, "-m", "pageowner", "map", str(saved)],
                              stdout=theirs, stdin=theirs, stderr=subprocess.PIPE,
                              env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80",
                                   "LINES": "24", **env}) as child:
            os.close(theirs)
            seen = b""
            while True:
                try:
                    part = os.read(ours, 1 << 16)
                except OSError:  # the other end is closed
                    break
                if not part:
                    break
                seen += part
        os.close(ours)
        assert child.returncode == 0
        assert (b"\x1b[" in seen and "▀".encode() in seen) is expected
        assert (b"\x1b[" in seen) is expected


def test_the_json_sums_up_to_all_frames(saved: Path) -> None:
    found = json.loads(run(saved, "--by", "migratetype", "--json")[1])
    assert sum(one["pages"] for one in found["categories"]) == found["frames"]
    assert [zone["name"] for zone in found["zones"]] == ["node 0 DMA", "node 0 Normal"]


@pytest.mark.parametrize(("words", "message"), [
    (["--by", "shoe"], "cannot colour by 'shoe'; choose from age, stack"),
    (["--png", "-"], "a picture is written to a file"),
    (["--html", "-"], "a picture is written to a file"),
    (["--html", "x", "--png", "./x"], "cannot be one file"),
    (["--json", "--png", "x.png"], "neither --png nor --html"),
    (["--beside", "x"], "--beside goes with --html"),
])
def test_words_that_do_not_go_together_are_said_in_one_line(
        saved: Path, tmp_path: Path, words: list[str], message: str) -> None:
    status, out, error = run(saved, *words, PWD=str(tmp_path))
    assert (status, out, error.count("\n")) == (2, "", 1)
    assert message in error


def test_a_page_that_was_written_is_named(saved: Path, tmp_path: Path) -> None:
    status, out, error = run(saved, "--html", tmp_path / "map.html")
    assert (status, out) == (0, "")
    assert re.fullmatch(rf"{tmp_path}/map.html: [\d.]+ [KM]iB, to be opened in a browser\n", error)


def test_a_wrong_file_is_said_in_one_line(saved: Path, tmp_path: Path) -> None:
    status, _, error = run(saved, "--png", tmp_path / "none" / "x.png")
    assert (status, error.count("\n")) == (1, 1)
    assert "cannot write" in error


def decoded(raw: bytes) -> tuple[np.ndarray, dict[str, str]]:
    """Red, green and blue of each pixel, and the texts, of a PNG as the standard has it."""
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks, texts = 8, {}, {}
    while at < len(raw):
        size, kind = struct.unpack(">I4s", raw[at:at + 8])
        content = raw[at + 8:at + 8 + size]
        assert struct.unpack(">I", raw[at + 8 + size:at + 12 + size])[0] == zlib.crc32(
            kind + content)
        chunks[kind] = content
        if kind == b"iTXt":
            keyword, _, rest = content.partition(b"\0")
            texts[keyword.decode()] = rest[4:].decode()
        at += 12 + size
    assert kind == b"IEND"
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, colour, rest) == (8, 3, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    return palette[rows[:, 1:]], texts


def test_the_png_has_a_pixel_for_every_page() -> None:
    drawn = stripes(1 << 20)
    file = io.BytesIO()
    writer = map_png.MapPng(drawn, META, "row")
    writer.write(file)
    pixels, texts = decoded(file.getvalue())
    assert (writer.image.frames, writer.image.scale) == (1, 1)
    assert pixels.shape == (1024 + 3, 1024, 3)  # and the line between the zones
    colours = [tuple(int(one[at:at + 2], 16) for at in (1, 3, 5)) for one in
               (VALUE_COLOURS[0], ROLE_COLOURS["free"], VALUE_COLOURS[1], ROLE_COLOURS["held"])]
    for top, expected in zip((0, 256, 515, 771), colours, strict=True):
        assert (pixels[top:top + 256] == expected).all()
    assert not pixels[512:515].any()
    assert re.search(r"one +25\.0%", texts["Description"])


def test_a_half_of_a_pixel_is_darker_and_a_small_memory_is_enlarged() -> None:
    one = Stretch(0, "Normal", 0, 1 << 22)
    half = Picture("comm", np.array([0, 3]), np.array([0, 1], np.uint8),
                   (Category("one", "value", 3), Category("free", "free", (1 << 22) - 3)), (one,))
    made = map_png.image(half, "row")
    assert made.frames == 4
    full = [int(VALUE_COLOURS[0][at:at + 2], 16) for at in (1, 3, 5)]
    assert made.palette[made.pixels[0, 0]] == pytest.approx(np.array(full) * (.4 + .6 * .75), abs=1)
    small = map_png.image(stripes(256), "hilbert")
    assert (small.frames, small.scale) == (1, 64)
    assert (small.pixels[:64, :64] == small.pixels[0, 0]).all()


def test_the_map_of_a_real_dump_shows_what_report_counts(big: Snapshot) -> None:
    drawn = picture(big, "comm")
    counted = dict(zip(*(big.report("comm")[name].to_pylist() for name in ("comm", "pages")),
                       strict=True))
    shown = {one.label: one.pages for one in drawn.categories if one.role == "value"}
    assert shown
    # the dump has allocations that changed while it was read: memory() leaves them out
    for label, pages in shown.items():
        assert pages == pytest.approx(counted[label], rel=0.01)
