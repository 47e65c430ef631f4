"""The live view: keys, a timer and a screen around `analysis.live` and `report.top_lines`.

The whole picture is one widget that draws lines; nothing on it is parsed for markup. Looking at
the records is done in a thread, so that keys are answered meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static

from pageowner.analysis import live
from pageowner.analysis.live import Row
from pageowner.errors import PageownerError, UsageError
from pageowner.model.live import OBJECT_FIELDS
from pageowner.model.schema import LOOKS
from pageowner.report import top_lines
from pageowner.report.ascii import ascii_only, is_ascii
from pageowner.report.palette import CURSOR, STYLES
from pageowner.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual import events

    from pageowner.analysis.filters import Filter
    from pageowner.analysis.live import Live
    from pageowner.model.live import Health, Look
    from pageowner.report.top_lines import Line

__all__ = ["TopApp"]

_STYLES = {name: Style.parse(words) for name, words in STYLES.items()}
_CURSOR = Style.parse(CURSOR)
_ROWS = 200
_PARTS = 8


class _Board(Widget):
    """All that is shown but the filter's field: some lines above, rows that scroll, one below."""

    can_focus = True
    DEFAULT_CSS = "_Board { height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self.above: list[Line] = []
        self.lines: list[Line | Row] = []
        self.line_of: Callable[[Row], Line] = lambda row: []
        self.below: Line = []
        self.cursor = -1
        self.top = 0

    @property
    def room(self) -> int:
        """How many rows fit."""
        return max(self.size.height - len(self.above) - 1, 1)

    def show(self) -> None:
        """Draw what was put in, so that the cursor is seen."""
        last = max(len(self.lines) - self.room, 0)
        if self.cursor >= 0:
            self.top = min(max(self.top, self.cursor - self.room + 1), self.cursor)
        self.top = min(max(self.top, 0), last)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        place = y - len(self.above) + self.top
        style: Style | None = None
        if y < len(self.above):
            line = self.above[y]
        elif y == self.size.height - 1:
            line = self.below
        else:
            found = self.lines[place] if place < len(self.lines) else []
            # what is out of sight is never made
            line = self.line_of(found) if isinstance(found, Row) else found
            style = _CURSOR if place == self.cursor and line else None
        if is_ascii(sys.__stderr__):  # where the screen library writes
            line = [(ascii_only(text), name) for text, name in line]
        segments = [Segment(text, style or _STYLES[name]) for text, name in line]
        return Strip(segments).adjust_cell_length(self.size.width, style)


class _Help(ModalScreen[None]):
    """What the keys do, until the next key."""

    DEFAULT_CSS = "_Help Static { width: 1fr; height: 1fr; }"

    def compose(self) -> ComposeResult:
        yield Static(top_lines.HELP, markup=False)

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss()


class TopApp(App[None]):
    """`pageowner top`.

    ``look`` counts what is live for some fields, of a least and a most age (ns), ``health`` says
    how the tracker stood then. A ``page_size`` of 1 is of objects, in bytes. If the tracker goes
    away the app ends, and ``error`` is what to tell.
    """

    CSS = "Input { dock: bottom; height: 1; border: none; padding: 0; display: none; }"
    ENABLE_COMMAND_PALETTE = False
    # With priority, that is before the next key is handed to a widget: what is typed fast after
    # a slash must reach the field.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(keys, action, priority=True) for keys, action in (
            ("ctrl+c,ctrl+q", "stop"), ("q", "quit"), ("question_mark,f1", "about"),
            ("slash", "filter"), ("g", "group('')"), ("s", "group('stack')"),
            ("t", "group('comm')"), ("u", "group('subsystem')"), ("m", "group('memcg')"),
            ("w", "group('user')"),
            ("c", "group('cache')"),
            ("o", "order"), ("p", "pause"), ("z", "zero"), ("enter,space", "unfold"),
            ("down,j", "move(1)"), ("up,k", "move(-1)"), ("pagedown", "page(1)"),
            ("pageup", "page(-1)"), ("home", "end(0)"), ("end", "end(1)"), ("escape", "leave"),
            ("ctrl+z", "suspend_process"))]

    def __init__(self, look: Callable[[frozenset[str], int | None, int | None], Look],
                 health: Callable[[], Health], model: Live, every: float, name: str,
                 wall: Callable[[], float] = time.time, page_size: int | None = None) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self.error: PageownerError | None = None
        self._look, self._health, self._model = look, health, model
        self._every, self._machine, self._wall = every, name, wall
        self._given = model.asked.chosen
        self._typed = ""
        self._page_size = page_size or os.sysconf("SC_PAGE_SIZE")
        self._groups = live.OF_OBJECTS if page_size == 1 else live.GROUPS
        self._order = live.ORDERS[0]
        self._paused = self._looking = False
        self._message = ""
        self._open: set[Any] = set()
        self._chosen: tuple[Any, int] | None = None  # owner, and the line below its own
        self._places: list[tuple[Any, int]] = []
        self._last_by = ""
        self._now_ns = 0
        self._seen_at = 0.0

    def compose(self) -> ComposeResult:
        yield _Board()
        field = Input(placeholder="filter: comm=ba* order=0,1 subsystem=slab* ext4", compact=True)
        field.cursor_blink = False
        yield field

    def on_mount(self) -> None:
        self._board.focus()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            # the terminal is to be put back before we go
            loop.add_signal_handler(number, self.exit, None, 128 + number)
        self._draw()
        self.set_interval(self._every, self._tick)
        self._tick()

    @property
    def _board(self) -> _Board:
        return self.query_one(_Board)

    @property
    def _field(self) -> Input:
        return self.query_one(Input)

    # looking

    def _tick(self) -> None:
        if not self._paused and not self._looking:
            self._looking = True
            self.run_worker(self._look_once, thread=True, exit_on_error=True)

    def _look_once(self) -> None:
        chosen = self._model.asked.chosen
        try:
            look = self._look(self._model.needs(), *chosen.ages_ns())
        except PageownerError as error:
            self.call_from_thread(self._failed, error)
            return
        self.call_from_thread(self._seen, look, chosen)

    def _seen(self, look: Look, looked_for: Filter) -> None:
        self._looking = False
        self._now_ns, self._seen_at = look.time_ns, self._wall()
        now = self._model.asked.chosen
        if (looked_for.older, looked_for.newer) == (now.older, now.newer):
            self._model.add(look)
        if not self._model.looks:
            self._tick()  # it answers an older question than what is asked now
        self._draw()

    def _failed(self, error: PageownerError) -> None:
        self._looking = False
        if self._last_by:
            # what was asked last is not to be had here; what was shown before is
            self._message, by = str(error), self._last_by
            self._last_by = ""
            self._model.ask(by=by)
            self._draw()
            return
        self.error = error
        self.exit()

    # drawing

    def _draw(self) -> None:
        board, width = self._board, self.size.width
        model, unit = self._model, self._page_size
        rows, number = model.rows(self._order, _ROWS)
        board.above = [
            *top_lines.header(self._health(), self._machine, self._now_ns, self._seen_at,
                              self._every, self._paused, width, unit),
            top_lines.state_line(model.total(), number, model.by,
                                 model.asked.words(), model.seconds, width, unit),
            top_lines.titles(model.by, self._order, width)]
        lines: list[Line | Row] = []
        places: list[tuple[Any, int]] = []
        board.line_of = partial(top_lines.owner, by=model.by, width=width, page_size=unit)
        for row in rows:
            lines.append(row)
            places.append((row.label, 0))
            if row.label in self._open:
                parts, many = ([], 0) if model.by == "stack" else model.parts(row.label, _PARTS)
                more = top_lines.details(row, model.by, parts, many, width, unit)
                lines += more
                places += [(row.label, below + 1) for below in range(len(more))]
        if number > len(rows):
            lines.append(top_lines.rest(number - len(rows)))
        if not lines and model.looks:
            lines = [[("nothing matches the filter; / to change it", "warn")]]
        elif not lines:
            lines = [[("looking at all records ...", "dim")]]
        board.lines, self._places = lines, places
        board.below = [(printable(self._message), "warn")] if self._message else [
            (top_lines.KEYS_LINE, "dim")]
        board.cursor = self._cursor()
        board.show()

    def _cursor(self) -> int:
        """The line of the owner that was chosen, wherever it is now."""
        if self._chosen is None or not self._places:
            return 0 if self._places else -1
        if self._chosen in self._places:
            return self._places.index(self._chosen)
        if (self._chosen[0], 0) in self._places:
            return self._places.index((self._chosen[0], 0))
        return min(max(self._board.cursor, 0), len(self._places) - 1)

    def on_resize(self) -> None:
        """Another size has other columns."""
        self.call_after_refresh(self._draw)

    # keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a filter is typed, letters are letters; any key closes the help."""
        if len(self.screen_stack) > 1:
            return action in ("stop", "suspend_process")
        return self.screen.focused is not self._field or action in (
            "stop", "leave", "suspend_process")

    def action_stop(self) -> None:
        self.exit()

    def action_about(self) -> None:
        self.push_screen(_Help())

    def action_group(self, by: str) -> None:
        if not by:
            groups = self._groups
            place = groups.index(self._model.by) + 1 if self._model.by in groups else 0
            by = groups[place % len(groups)]
        of_objects = self._page_size == 1
        if by == self._model.by or (LOOKS[by] not in OBJECT_FIELDS if of_objects else
                                    by == "cache"):
            return  # what is shown has no such key
        self._last_by, self._message = self._model.by, ""
        self._ask(by=by)

    def _ask(self, by: str | None = None, question: live.Question | None = None) -> None:
        self._model.ask(by, question)
        self._open.clear()
        self._chosen = None
        self._board.top = 0
        if not self._model.looks:
            self._tick()
        self._draw()

    def action_order(self) -> None:
        place = live.ORDERS.index(self._order) + 1
        self._order = live.ORDERS[place % len(live.ORDERS)]
        self._draw()

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._tick()
        self._draw()

    def action_zero(self) -> None:
        self._model.begin_anew()
        self._draw()

    def action_unfold(self) -> None:
        if not 0 <= self._board.cursor < len(self._places):
            return
        label, _ = self._places[self._board.cursor]
        self._open ^= {label}
        self._chosen = (label, 0)
        self._draw()

    def action_move(self, by: int) -> None:
        self._move_to(self._board.cursor + by)

    def action_page(self, by: int) -> None:
        self._move_to(self._board.cursor + by * self._board.room)

    def action_end(self, last: int) -> None:
        self._move_to(len(self._places) - 1 if last else 0)

    def _move_to(self, place: int) -> None:
        if not self._places:
            return
        place = min(max(place, 0), len(self._places) - 1)
        # at the top stays at the top, whoever gets there
        self._chosen = self._places[place] if place else None
        self._draw()

    def on_mouse_scroll_down(self) -> None:
        self.action_move(3)

    def on_mouse_scroll_up(self) -> None:
        self.action_move(-3)

    # filter

    def action_filter(self) -> None:
        self._field.value = self._typed
        self._field.display = True
        # at once, for the next key may be here already
        self.screen.set_focus(self._field)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = " ".join(event.value.split("\n")).strip()
        try:
            question = live.question(text, self._given)
            if self._page_size == 1:
                live.check_objects_have(self._model.by, question.chosen)
        except UsageError as error:
            self._message = str(error)
            self._draw()
            return
        self._typed, self._message = text, ""
        self._close_field()
        self._ask(question=question)

    def action_leave(self) -> None:
        if self.screen.focused is self._field:
            self._close_field()
        elif self._typed:
            self._typed = ""
            self._ask(question=live.question("", self._given))
        self._message = ""
        self._draw()

    def _close_field(self) -> None:
        self._field.display = False
        self.screen.set_focus(self._board)
