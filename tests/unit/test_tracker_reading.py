"""Reading the tracker and the machine while they change, or where something is refused."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from pageowner.api import status
from pageowner.errors import PageownerError
from pageowner.tracker import control
from pageowner.tracker.control import Status
from pageowner.tracker.read.pinned import ENDED


def test_pages_that_off_left_without_records_are_not_called_untracked(
        monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    def check_on() -> None:
        if ended:
            raise PageownerError(ENDED)

    def untracked(_: object) -> tuple[int, list[object]]:
        ended.append(True)
        return 10 ** 6, []

    monkeypatch.setattr(control, "status", lambda: Status(on=True, frames=1))
    monkeypatch.setattr(status, "open_store", lambda: nullcontext(
        SimpleNamespace(check_on=check_on)))
    monkeypatch.setattr(status, "untracked", untracked)
    with pytest.raises(PageownerError, match="turned off while it was being read"):
        status.status()
