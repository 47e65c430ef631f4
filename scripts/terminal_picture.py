"""A command's coloured output as an SVG that asks no network: terminal_picture.py OUT COMMAND…"""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 100


def printed(command: list[str]) -> str:
    """What the command writes to a terminal of `WIDTH` columns, as it is coloured there."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("NO_COLOR", "COLUMNS")}
    terminal, side = pty.openpty()
    termios.tcsetwinsize(side, (40, WIDTH))
    running = subprocess.Popen(command, env=environment | {"TERM": "xterm-256color"}, stdout=side)
    os.close(side)
    out = b""
    try:
        while more := os.read(terminal, 1 << 16):
            out += more
    except OSError:  # how a terminal ends
        pass
    if running.wait():
        sys.exit(running.returncode)
    return out.decode().replace("\r", "")


def main() -> None:
    out, *command = sys.argv[1:]
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True,
                      highlight=False)
    console.print(Text.from_ansi(printed(command)), end="")
    # rich's own asks for a font from the network
    looks = re.sub(r"@font-face \{\{.*?\}\}\n?", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    looks = looks.replace("Fira Code, monospace", "monospace")
    text = console.export_svg(title=f"$ {' '.join(command)}", theme=MONOKAI, code_format=looks,
                              unique_id="pageowner")
    Path(out).write_text(text)


main()
