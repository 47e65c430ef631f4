"""Manual pages, made of the same words as the help of each verb."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from pageowner import __version__
from pageowner.cli.group import EPILOG, VERBS, program
from pageowner.cli.verb import Verb, VerbGroup

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["pages", "write"]

_SIGNS = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha",
                        "~": "\\(ti"})

_HELP = ["-h", "--help"]

_STATUSES = (("0", "Success."),
             ("1", "Failure; one line on standard error gives the reason. Without such a line: who"
                   " knows nothing of a page or an object that was named; doctor found that"
                   " tracking is not possible."),
             ("2", "Wrong usage."),
             ("3", "diff with --fail-over: an owner gained more than allowed; leaks with --fail or"
                   " --fail-over, fleet leaks with --fail: one leaks."))

_FILES = (("/sys/fs/bpf/pageowner", "The programs and maps of the tracker, while it is on."),
          ("/sys/kernel/debug/page_owner", "The kernel's own page owner, if it is on."))

_ENVIRONMENT = (("NO_COLOR", "If set, output is never coloured."),
                ("FORCE_COLOR", "If set, output is coloured even if it is not a terminal."))


def pages() -> dict[str, str]:
    """Each manual page by its file's name, in man(7)'s language; all in section 1."""
    found = {"pageowner.1": _overview()}
    for name in VERBS:
        if name != "sort":
            found[f"pageowner-{name}.1"] = _verb(name)
    found["page_owner_sort.1"] = _sort()
    found["pageowner-sort.1"] = ".so man1/page_owner_sort.1\n"
    return found


def write(folder: Path) -> list[Path]:
    """Write all pages into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in pages().items():
        written.append(folder / name)
        written[-1].write_text(text)
    return written


def _overview() -> str:
    context = click.Context(program, info_name="pageowner", help_option_names=_HELP)
    text = _head("pageowner", program.help or "")
    text += ".SH SYNOPSIS\n" + _line([("B", "pageowner"), ("I", "VERB"), ("", "[SOURCE]"),
                                      ("", "[OPTIONS]")])
    text += ".SH DESCRIPTION\n" + _escape(EPILOG) + "\n.SH VERBS\n"
    text += "".join(_item([("B", name)], says) for name, says in VERBS.items())
    text += ".SH OPTIONS\n" + _options(program, context)
    text += ".SH EXIT STATUS\n" + "".join(
        _item([("B", status)], says) for status, says in _STATUSES)
    text += ".SH FILES\n" + "".join(_item([("I", path)], says) for path, says in _FILES)
    text += ".SH ENVIRONMENT\n" + "".join(
        _item([("B", variable)], says) for variable, says in _ENVIRONMENT)
    others = ", ".join(f"\\fBpageowner\\-{name}\\fR(1)" for name in VERBS)
    return f"{text}.SH SEE ALSO\n{others}\n"


def _verb(name: str) -> str:
    context = click.Context(program, info_name="pageowner", help_option_names=_HELP)
    command = program.get_command(context, name)
    assert isinstance(command, Verb)
    with click.Context(command, parent=context, info_name=name) as inner:
        summary, *more = re.split(r"\n\s*\n", (command.help or "").strip())
        text = _head(f"pageowner-{name}", " ".join(summary.split()))
        text += ".SH SYNOPSIS\n" + _line([
            ("B", f"pageowner {name}"), *[("", piece) for piece in command.collect_usage_pieces(
                inner)]])
        if more:
            text += ".SH DESCRIPTION\n" + "\n.PP\n".join(
                _escape(" ".join(part.split())) for part in more) + "\n"
        text += (_verbs_of(command, inner) if isinstance(command, VerbGroup) else
                 ".SH OPTIONS\n" + _options(command, inner))
    text += ".SH EXAMPLES\n"
    for line, says in command.examples:
        text += _item([("B", line)], says)
    return text + ".SH SEE ALSO\n\\fBpageowner\\fR(1)\n"


def _verbs_of(group: VerbGroup, context: click.Context) -> str:
    """The verbs of a group, each with its options."""
    text = ".SH VERBS\n"
    for name, says in group.lines():
        command = group.get_command(context, name)
        assert command is not None
        with click.Context(command, parent=context, info_name=name) as inner:
            pieces = [("", piece) for piece in command.collect_usage_pieces(inner)]
            text += f".SS {_escape(name)}\n" + _line(
                [("B", f"{context.command_path} {name}"), *pieces])
            text += f".PP\n{_escape(says)}\n" + _options(command, inner)
    return text


def _sort() -> str:
    from pageowner.page_owner_sort.options import USAGE

    return (_head("page_owner_sort", "sort and group the text of the kernel's page_owner")
            + ".SH SYNOPSIS\n" + _line([("B", "page_owner_sort"), ("", "[OPTIONS]"),
                                        ("I", "INPUT"), ("I", "OUTPUT")])
            + ".SH OPTIONS\n.nf\n" + _escape(USAGE.strip()) + "\n.fi\n"
            + ".SH SEE ALSO\n\\fBpageowner\\fR(1)\n")


def _head(name: str, says: str) -> str:
    says = says.rstrip(".")
    return (f'.TH "{name.upper()}" "1" "" "pageowner {__version__}" "pageowner"\n'
            ".nh\n.ad l\n"  # words and options are not broken
            f".SH NAME\n{_escape(name)} \\- {_escape(says[:1].lower() + says[1:])}\n")


def _options(command: click.Command, context: click.Context) -> str:
    text = ""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            text += _item([("B", record[0])], record[1])
    return text


def _item(title: list[tuple[str, str]], says: str) -> str:
    return f".TP\n{_line(title)}{_escape(says)}\n" if says else f".TP\n{_line(title)}"


def _line(parts: list[tuple[str, str]]) -> str:
    return " ".join(f"\\f{font}{_escape(text)}\\fR" if font else _escape(text)
                    for font, text in parts) + "\n"


def _escape(text: str) -> str:
    """The text as man(7) shows it as it is: a line must not begin with a command of its own, and
    signs that shells know are not to become typographic ones (groff_man_style(7), "Portability").
    """
    text = text.translate(_SIGNS)
    return re.sub(r"^([.])", r"\\&\1", text, flags=re.MULTILINE)
