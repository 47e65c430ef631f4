"""A command's coloured output as an SVG that asks no network: terminal_picture.py OUT TITLE COMMAND…"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

WIDTH = 100


def main() -> None:
    out, title, *command = sys.argv[1:]
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    printed = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True,
                      highlight=False)
    console.print(Text.from_ansi(printed.stdout.replace(command[2], "dump.txt")), end="")
    # rich's own asks for a font from the network
    looks = re.sub(r"@font-face \{\{.*?\}\}\n?", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    looks = looks.replace("Fira Code, monospace", "monospace")
    text = console.export_svg(title=f"$ {title}", theme=MONOKAI, code_format=looks,
                              unique_id="pageowner")
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(text)


main()
