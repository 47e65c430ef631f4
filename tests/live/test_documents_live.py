"""The tutorial, step by step on this machine, and what else the README does with it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from documents import TREE, Shell, commands, python_block
from shown import OF_THE_MACHINE, check

TUTORIAL, README = TREE / "docs/tutorial.md", TREE / "README.md"


def words_of(text: str) -> list[str]:
    """Behind ``pageowner``; none if that is not what is run."""
    words = [word for word in shlex.split(text, comments=True) if word != "sudo"]
    return words[1:] if words[:1] == ["pageowner"] else []


def asks_this_machine(words: list[str]) -> bool:
    return bool(words) and (words[0] in OF_THE_MACHINE or check(words).get("source", "") is None)


@pytest.mark.usefixtures("off")
def test_the_tutorial_names_the_program_that_leaks(tmp_path: Path) -> None:
    (tmp_path / "leak.py").write_text(python_block(TUTORIAL))
    steps = commands(TUTORIAL)
    done = {words[0] for step in steps if (words := words_of(step.text))}
    more = {words[0]: step for step in commands(README)
            if asks_this_machine(words := words_of(step.text)) and words[0] not in done}
    last = next(n for n, step in enumerate(steps) if words_of(step.text) == ["off"])
    printed: dict[str, list[str]] = {}
    shell = Shell(tmp_path, {})
    try:
        for step in [*steps[:last], *more.values(), *steps[last:]]:
            status, printed[step.text] = shell.run(step.text)
            assert status == 0, f"{step.place}: {step.text}\n" + "\n".join(printed[step.text])
    finally:
        shell.run("kill %1")
        shell.close()

    def said(verb: str) -> list[str]:
        return next(lines for text, lines in printed.items() if words_of(text)[:1] == [verb])

    leak = next(line for line in said("leaks") if "%" in line)
    assert "pipes" in leak
    assert "pipe_write" in leak
    assert any("python3" in line for line in said("report")), said("report")
    assert said("off") == ["tracking is off"]
