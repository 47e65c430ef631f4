"""What is said of a file that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import pageowner
from pageowner.errors import PageownerError

if TYPE_CHECKING:
    from pathlib import Path


def refused(path: Path) -> str:
    """The one line, behind the file's name."""
    with pytest.raises(PageownerError) as caught:
        pageowner.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert caught.value.exit_status == 1
    return message.removeprefix(f"{path}: ")
