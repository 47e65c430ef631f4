"""Tab in a real shell: verbs, options, files and the words that values are made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pageowner.analysis import filters, live
from pageowner.analysis.diff import SORTS
from pageowner.cli import complete
from pageowner.cli.completion import SHELLS, script

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent

# Readline's part: split the line, call the function, print what it offers and whether files.
BASH = """
compopt() { echo "compopt $2"; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_pageowner_completion pageowner
printf '%s\\n' "${COMPREPLY[@]}"
"""


def has(shell: str) -> bool:
    return bool(shutil.which(shell)) and (BIN / "pageowner").exists()


def pressed(*line: str) -> set[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", script("bash") + BASH, "bash", *line], text=True, check=True,
        capture_output=True, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    assert done.stderr == ""
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.skipif(not has("bash"), reason="no bash, or pageowner is not installed")
@pytest.mark.parametrize(("line", "offered"), [
    (["pageowner", "re"], {"report", "record"}),
    (["pageowner", "report", "--by"], {"--by"}),
    (["pageowner", "report", "--by", "comm,mo"], {"comm,module"}),
    (["pageowner", "report", "--subsystem", "page"], {r"page\ cache", r"page\ tables"}),
    (["pageowner", "report", "--sort", "pa"], {"pages"}),
    (["pageowner", "report", "dum"], {"compopt default"}),
    (["pageowner", "record", ""], {"compopt dirnames"}),
    (["pageowner", "completion", ""], set(SHELLS)),
])
def test_bash_completes(line: list[str], offered: set[str]) -> None:
    assert offered <= pressed(*line)


@pytest.mark.parametrize(("shell", "words"), [
    ("zsh", ["-f", "-c", "autoload -U compinit; compinit -D; eval \"$0\"; "
                         "print ${_comps[pageowner]}"]),
    ("fish", ["-N", "-c", "set -l s $argv[1]; echo $s | source; complete -C 'pageowner re'"]),
])
def test_other_shells_take_their_script(shell: str, words: list[str]) -> None:
    if not has(shell):
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, *words, script(shell)], text=True, capture_output=True,
                          check=True, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    assert done.stderr == ""
    assert ("_pageowner_completion" if shell == "zsh" else "report") in done.stdout


def test_the_verb_prints_the_script_whatever_the_shell(cli: Callable[..., Any]) -> None:
    for shell in SHELLS:
        done = cli("completion", shell)
        assert (done.status, done.err) == (0, b"")
        assert done.out.decode() == script(shell)
        assert complete.VARIABLE in script(shell)
    assert cli("completion", "tcsh").status == 2


def test_what_is_offered_is_taken(cli: Callable[..., Any]) -> None:
    def offered(values: Any) -> list[str]:
        return [item.value for item in values(None, None, "")]

    assert offered(complete.keys) == list(filters.KEYS)
    assert offered(complete.changes) == list(SORTS)
    for name in offered(complete.live_keys):
        live.field_of(name)  # raises for a word that is none
    for values in complete.VALUES.values():
        found = offered(values)
        assert found
        assert len(set(found)) == len(found)
