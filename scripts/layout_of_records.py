"""Write what the two halves of the tracker say of each other: src/pageowner/tracker/read/layout.py,
what records.h says, for Python; and src/pageowner/tracker/bpf/ran.h, for C, the counters that the
table of hooks names.

build-bpf runs it. With an argument both go into that folder instead.
"""

from __future__ import annotations

import re
import sys
import textwrap
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "pageowner"
TRACKER = PACKAGE / "tracker"
HOOKS = PACKAGE / "model" / "hook_table.py"
RAN = "RAN_COUNTERS"
TYPES = {"u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8", "s32": "i4", "s64": "i8"}
ENUMS = {"counter": ("COUNTERS", "COUNT_"), "hook": ("HOOKS", "HOOK_"),
         "timed": ("TIMED", "TIMING_"), "memo_counter": ("MEMO_COUNTERS", "MEMO_"),
         "state": ("STATES", "STATE_")}
"""The tuple that each enum's names make, and what they begin with there."""

OF_PROGRAMS = {"RECENT", "counters", "recent", "task_key"}
"""What only the programs use, and counters, an array of what enum counter names."""

HEADER = """\
/* SPDX-License-Identifier: MIT OR GPL-2.0 */
/*
 * How often hooks ran that no other counter tells apart: made of model/hook_table.py by
 * scripts/build-bpf.
 */
#ifndef PAGEOWNER_RAN_H
#define PAGEOWNER_RAN_H

"""

HEAD = '''\
"""What both halves of the tracker share, made of records.h by scripts/build-bpf: edit that.

A struct is its fields in order, each with NumPy's name of its type; there are no holes in between.
The names of an enum are in its order, from 0 on. records.h says what all of it means.
"""

from __future__ import annotations

'''


def ran_counters(table: str) -> list[str]:
    """The members of enum counter that this text of the table of hooks names, in its order."""
    return [f"COUNT_{name.upper()}" for name in dict.fromkeys(re.findall(r'"(ran_\w+)"', table))]


def ran_header(names: list[str]) -> str:
    members = ", \\\n".join(f"\t{name}" for name in names)
    return f"{HEADER}#define {RAN} \\\n{members}\n\n#endif\n"


def module(header: str, ran: list[str]) -> str:
    """The module for this text of records.h."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    text = text.replace(RAN, ",\n".join(ran))
    defines = {name: int(value, 0) for name, value in re.findall(
        r"^#define (\w+) (0x[0-9a-f]+|\d+)U?L*[ \t]*$", text, re.MULTILINE)}
    lines = [f"{name} = {shown(value)}\n" for name, value in defines.items()
             if name not in OF_PROGRAMS]
    for name, body in re.findall(r"^enum (\w+) \{(.*?)^\};", text, re.DOTALL | re.MULTILINE):
        title, prefix = ENUMS[name]
        members = re.findall(r"^\s*(\w+)(?: = (\d+))?,?\s*$", body, re.MULTILINE)
        if any(number and int(number) != place for place, (_, number) in enumerate(members)):
            raise ValueError(f"enum {name}: not from 0 on, one by one")
        if not members[-1][1]:  # how many there are
            del members[-1]
        lines.append(wrapped(title, [f'"{member.removeprefix(prefix).lower()}"'
                                     for member, _ in members]))
    for name, body in re.findall(r"^struct (\w+) \{(.*?)^\};", text, re.DOTALL | re.MULTILINE):
        if name not in OF_PROGRAMS:
            lines.append(wrapped(name.upper(), [
                f'("{field}", "{numpy_type(kind, length, defines)}")' for kind, field, length
                in re.findall(r"^\s*(\w+) (\w+)(?:\[(\w+)\])?;", body, re.MULTILINE)]))
    exported = sorted(re.match(r"\w+", line)[0] for line in lines)  # type: ignore[index]
    names = textwrap.fill(", ".join(f'"{name}"' for name in exported), 89)
    return (HEAD + "__all__ = [" + names.replace("\n", "\n           ") + "]\n\n"
            + "".join(lines))


def shown(value: int) -> str:
    return hex(value) if value >= 1 << 31 else str(value)


def numpy_type(kind: str, length: str, defines: dict[str, int]) -> str:
    if not length:
        return TYPES[kind]
    number = int(length) if length.isdigit() else defines[length]
    return f"S{number}" if kind == "char" else f"({number},){TYPES[kind]}"


def wrapped(name: str, items: list[str]) -> str:
    """An assignment of a tuple, in lines of up to 99 characters."""
    if len(line := f"{name} = ({', '.join(items)})\n") < 100:
        return line
    lines = [""]
    for item in items:
        if len(lines[-1]) + len(item) > 93:
            lines.append("")
        lines[-1] += f" {item}," if lines[-1] else f"{item},"
    return f"{name} = (\n" + "".join(f"    {line}\n" for line in lines) + ")\n"


if __name__ == "__main__":
    folders = [Path(sys.argv[1])] * 2 if sys.argv[1:] else [TRACKER / "bpf", TRACKER / "read"]
    counters = ran_counters(HOOKS.read_text())
    (folders[0] / "ran.h").write_text(ran_header(counters))
    (folders[1] / "layout.py").write_text(
        module((TRACKER / "bpf" / "records.h").read_text(), counters))
