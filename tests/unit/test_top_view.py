"""The live view on a screen that is not there: keys, filter, unfolding, sizes; what is drawn is
kept in tests/data/screens (written anew by pytest --update-screens)."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from looks import series
from textual import events
from textual.binding import Binding
from textual.pilot import Pilot
from textual.worker import WorkerCancelled

from pageowner.analysis.live import Live
from pageowner.errors import PageownerError
from pageowner.model.live import Health, Look
from pageowner.model.schema import LOOKS
from pageowner.report.top_view import TopApp

SCREENS = Path(__file__).parent.parent / "data/screens"
HEALTH = Health({"owned": 123456, "early": 999999, "untracked": 7, "free": 3 << 20}, 5, 13, 0, 0,
                0, 55800, 176 << 20, 16800.0, 17800.4, 10**9)

Play = Callable[[Pilot[None], TopApp], Awaitable[None]]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_page_names_all_letters_and_all_that_can_be_grouped_by() -> None:
    page = (Path(__file__).parents[2] / "docs/top.md").read_text().partition("\n## Keys")[2]
    assert set(LOOKS) <= set(re.findall(r"\w+", page))
    letters = {key for binding in TopApp.BINDINGS if isinstance(binding, Binding)
               for key in binding.key.split(",") if len(key) == 1}
    assert letters <= set(re.findall("`(.)`", page))


class Machine:
    """Gives the looks of a series one by one, and notes what it was asked."""

    def __init__(self, ready: int = 12) -> None:
        self.looks = series(20)
        self.ready = ready
        self.asked: list[frozenset[str]] = []
        self.gone = False
        self.without: str | None = None

    def look(self, fields: frozenset[str], _least: int | None, _most: int | None) -> Look:
        self.asked.append(fields)
        if self.gone or self.without in fields:
            raise PageownerError("tracking was turned off" if self.gone else "no memcg here")
        self.ready += 1
        return self.looks[self.ready - 1]


def run(play: Play, size: tuple[int, int] = (80, 24), machine: Machine | None = None,
        by: str = "stack", every: float = 3600) -> TopApp:
    machine = machine or Machine()
    model = Live(by)
    for one in machine.looks[:machine.ready - 1]:
        model.add(one)
    machine.ready -= 1
    app = TopApp(machine.look, lambda: HEALTH, model, every, "host", wall=lambda: 43200.0,
                 page_size=4096)

    async def all_of_it() -> None:
        async with app.run_test(size=size) as pilot:
            await settled(pilot, app)
            await play(pilot, app)

    asyncio.run(all_of_it())
    return app


async def settled(pilot: Pilot[None], app: TopApp) -> None:
    await app.workers.wait_for_complete()
    await pilot.pause()


def screen(app: TopApp) -> list[str]:
    return [strip.text.rstrip() for strip in app.screen._compositor.render_strips()]


def names(app: TopApp) -> list[str]:
    """The owners' column of the rows."""
    return [line[53:].strip() for line in screen(app)[5:-1] if line[8:9] == " " and line[53:]
            and not line.startswith("      ")]


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 50)], ids=lambda size: f"{size[0]}")
@pytest.mark.parametrize("keys", [
    pytest.param([], id="stack"), pytest.param(["enter"], id="unfolded"),
    pytest.param(["t", "down", "enter"], id="task"), pytest.param(["u", "o"], id="subsystem"),
    pytest.param(["m", "end", "space"], id="memcg"), pytest.param(["question_mark"], id="help"),
    pytest.param(["slash", *"tar", "enter"], id="filter")])
def test_screens(size: tuple[int, int], keys: list[str], request: pytest.FixtureRequest) -> None:
    drawn: list[str] = []

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        for key in keys:
            await pilot.press(key)
        await settled(pilot, app)
        drawn.extend(screen(app))

    run(play, size)
    path = SCREENS / f"{request.node.callspec.id.split('-')[0]}-{size[0]}x{size[1]}.txt"
    text = "\n".join(drawn) + "\n"
    if request.config.getoption("--update-screens"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"drawn otherwise than in {path}; see --update-screens"
    assert len(drawn) == size[1]
    assert text.replace("\n", "").isprintable()


def test_groups_change_with_their_keys_and_in_turn() -> None:
    seen: list[str] = []

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        for key in ("t", "u", "m", "s", "g", "g", "g", "g"):
            await pilot.press(key)
            await settled(pilot, app)
            seen.append(screen(app)[3].split(" by ")[1].split(":")[0])

    run(play)
    assert seen == ["task name", "subsystem", "memcg", "stack", "task name", "subsystem", "memcg",
                    "stack"]


def test_a_filter_narrows_and_escape_widens() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        everyone = names(app)
        await pilot.press("slash", *"comm=tar", "enter")
        assert "filter: comm=tar" in screen(app)[3]
        assert [name.split(" ")[0] for name in names(app)] == ["__d_alloc",
                                                               "page_cache_ra_unbounded"]
        await pilot.press("slash", *" zz", "enter")
        assert "nothing matches" in screen(app)[5]
        await pilot.press("escape")
        assert names(app) == everyone
        await pilot.press("q")
        await pilot.pause()

    assert run(play).return_code == 0


def test_a_wrong_filter_is_told_and_can_be_mended() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("slash", *"colour=red", "enter")
        await settled(pilot, app)
        assert any("there is no filter 'colour'" in line for line in screen(app))
        assert app.return_code is None
        await pilot.press(*["backspace"] * 10, *"pipe", "enter")
        await settled(pilot, app)
        assert len(names(app)) == 1
        assert screen(app)[-1].startswith("q quit")

    run(play)


def test_what_is_typed_fast_after_the_slash_reaches_the_field() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        for key in ("slash", *"tar", "enter"):  # all at once, as a terminal may deliver them
            app.post_message(events.Key(key, {"slash": "/", "enter": "\r"}.get(key, key)))
        await pilot.pause()
        await settled(pilot, app)
        assert screen(app)[3].endswith("filter: tar")
        assert "by stack" in screen(app)[3]

    run(play)


def test_keys_are_letters_while_a_filter_is_typed() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("slash", *"qstumgopz")
        assert screen(app)[-1] == "qstumgopz"
        assert app.return_code is None
        await pilot.press("escape", "q")
        await pilot.pause()

    assert run(play).return_code == 0


def test_ctrl_c_quits_even_then() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("slash", "ctrl+c")
        await pilot.pause()

    assert run(play).return_code == 0


def test_ctrl_c_quits_from_the_help() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("question_mark", "ctrl+c")
        await pilot.pause()

    assert run(play).return_code == 0


def test_help_opens_and_any_key_closes_it() -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("question_mark")
        assert any("Ctrl-C" in line for line in screen(app))
        await pilot.press("q")
        assert not any("Ctrl-C" in line for line in screen(app))
        assert app.return_code is None

    run(play)


def test_what_is_unfolded_and_chosen_stays_so_as_rows_move() -> None:
    machine = Machine(3)

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("down", "down", "down")
        chosen = names(app)[3]
        await pilot.press("enter")
        assert chosen.startswith("anon_pipe_write")
        for _ in range(6):
            app._tick()
            await settled(pilot, app)
        assert names(app)[1] == chosen  # it grew
        lines = screen(app)
        place = next(n for n, line in enumerate(lines) if "anon_pipe_write ←" in line)
        assert lines[place + 1].strip().startswith("pipes:")
        assert app._board.cursor == place - 5
        await pilot.press("enter")
        assert not any("pipes:" in line for line in screen(app))

    run(play, machine=machine)


def test_pause_looks_no_more_and_zero_counts_anew() -> None:
    machine = Machine(3)

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("p")
        assert "paused" in screen(app)[0]
        looked = len(machine.asked)
        app._tick()
        await settled(pilot, app)
        assert len(machine.asked) == looked
        await pilot.press("p")
        await settled(pilot, app)
        assert len(machine.asked) == looked + 1
        await pilot.press("z")
        assert "(0 in 0 µs)" in screen(app)[3]

    run(play, machine=machine)


def test_it_looks_by_itself() -> None:
    machine = Machine(2)

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        for _ in range(100):
            if len(machine.asked) >= 3:
                break
            await pilot.pause(0.05)

    run(play, machine=machine, every=0.1)
    assert len(machine.asked) >= 3


def test_an_end_of_tracking_ends_the_view_with_its_error() -> None:
    machine = Machine()

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        machine.gone = True
        app._tick()
        with suppress(WorkerCancelled):  # the app ends before its worker does
            await app.workers.wait_for_complete()
        await pilot.pause()

    assert str(run(play, machine=machine).error) == "tracking was turned off"


def test_a_grouping_that_this_kernel_cannot_tell_goes_back_to_the_one_before() -> None:
    machine = Machine()
    machine.looks = [Look(one.time_ns, {name: one.fields[name] for name in ("stack", "task")},
                          one.pages, one.blocks, one.born) for one in machine.looks]
    machine.without = "memcg"

    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("m")
        await settled(pilot, app)
        assert "by stack" in screen(app)[3]
        assert screen(app)[-1] == "no memcg here"
        assert app.return_code is None

    run(play, machine=machine)


@pytest.mark.parametrize("size", [(20, 5), (40, 8), (300, 100)])
def test_odd_sizes_do_not_break_it(size: tuple[int, int]) -> None:
    async def play(pilot: Pilot[None], app: TopApp) -> None:
        await pilot.press("end", "enter", "pageup", "t", "slash", "escape", "question_mark", "x")
        assert len(screen(app)) == size[1]
        await pilot.resize_terminal(80, 24)
        await settled(pilot, app)
        assert len(screen(app)) == 24

    run(play, size)


def test_wrong_words_are_told_before_anything_is_drawn(cli: Callable[..., Any]) -> None:
    done = cli("top")
    assert done.status == 2
    assert b"pageowner report" in done.err
    assert cli("top", "--every", "0.01").status == 2
    assert cli("top", "--every", "often").status == 2
    assert cli("top", "--state", "early").status == 2
    done = cli("top", "--by", "colour")
    assert done.status == 2
    assert b"cannot group by 'colour'" in done.err
    done = cli("top", "--by", "block")
    assert b"report --by block" in done.err
