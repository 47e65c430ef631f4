"""Manual pages: one for each verb, with every option that its help has."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from pageowner.cli import manual
from pageowner.cli.group import VERBS, program


def test_there_is_a_page_for_every_verb_with_all_its_options() -> None:
    pages = manual.pages()
    assert set(pages) == {"pageowner.1", "page_owner_sort.1",
                          *(f"pageowner-{verb}.1" for verb in VERBS)}
    context = click.Context(program)
    for verb in VERBS:
        if verb == "sort":
            continue
        assert f"\\fB{verb}\\fR" in pages["pageowner.1"]
        command = program.get_command(context, verb)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                for word in option.opts:
                    assert word.replace("-", "\\-") in pages[f"pageowner-{verb}.1"]


def test_signs_of_the_shell_stay_what_they_are() -> None:
    """groff 1.23 makes accents and quotation marks of these."""
    for name, text in manual.pages().items():
        assert not re.search("[~^`]|(?<!\\\\)'", text), name
    assert ">>\\(ti/.bashrc" in manual.pages()["pageowner-completion.1"]


def test_verbs_with_statuses_of_their_own_are_named_with_them() -> None:
    cli = Path(manual.__file__).parent
    own = [path.stem.replace("_", " ") for path in cli.glob("*.py")
           if re.search(r"Exit\(1\)|^[A-Z]+ = 3$", path.read_text(), re.MULTILINE)]
    assert len(own) == 5
    docs = (Path(__file__).parents[2] / "docs/reference/exit-status.md").read_text()
    page = manual.pages()["pageowner.1"].partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    for verb in own:
        assert f"`{verb}" in docs
        assert re.search(rf"(?<!fleet ){verb} (with|found|knows) ", page), verb


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_a_formatter_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    pages = [path for path in manual.write(tmp_path) if path.name != "pageowner-sort.1"]
    done = subprocess.run(["groff", "-man", "-Tascii", "-ww", "-rLL=80n", *pages],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pageowner report --by comm,order --gfp ZERO" in re.sub(".\x08", "", done.stdout)
