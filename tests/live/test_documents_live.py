"""The tutorial, step by step on this machine, and what else the README does with it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from documents import TREE, Command, Shell, commands, python_block
from shown import OF_THE_MACHINE

TUTORIAL, README = TREE / "docs/tutorial.md", TREE / "README.md"


def words_of(text: str) -> list[str]:
    """Behind ``pageowner``; none if that is not what is run."""
    words = [word for word in shlex.split(text, comments=True) if word != "sudo"]
    return words[1:] if words[:1] == ["pageowner"] else []


@pytest.mark.usefixtures("off")
def test_the_tutorial_names_the_program_that_leaks(tmp_path: Path) -> None:
    (tmp_path / "leak.py").write_text(python_block(TUTORIAL))
    # Each verb once: a capture of a large machine takes seconds. README's are done before `off`.
    steps: dict[str, Command] = {}
    for step in [*commands(TUTORIAL), *commands(README)]:
        verb, *_ = words_of(step.text) or [step.text]
        if step.place.startswith("docs/") or verb in OF_THE_MACHINE:
            steps.setdefault(verb, step)
    steps["off"] = steps.pop("off")
    printed: dict[str, list[str]] = {}
    shell = Shell(tmp_path, {})
    try:
        for verb, step in steps.items():
            status, printed[verb] = shell.run(step.text)
            assert status == 0, f"{step.place}: {step.text}\n" + "\n".join(printed[verb])
    finally:
        shell.run("kill %1")
        shell.close()

    leaks = [line for line in printed["leaks"] if " % " in line]
    assert any("pipes" in leak and "pipe_write" in leak for leak in leaks), printed["leaks"]
    assert any("python3" in line for line in printed["report"]), printed["report"]
    assert printed["off"] == ["tracking is off"]
