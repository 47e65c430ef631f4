"""While a wheel is built: manual pages and completions, made of the verbs themselves."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {"bash": "share/bash-completion/completions/pageowner",
               "zsh": "share/zsh/site-functions/_pageowner",
               "fish": "share/fish/vendor_completions.d/pageowner.fish"}


class Share(BuildHookInterface):  # type: ignore[type-arg]
    """What lies beside the package, below the prefix it is installed in.

    Nothing is written into the sources, which may be read-only, or another user's than who builds.
    """

    _made: TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(Path(self.root) / "src"))
        from pageowner.cli.completion import script
        from pageowner.cli.manual import write

        self._made = TemporaryDirectory(prefix="pageowner-share-")
        made = Path(self._made.name)
        for page in write(made / "man"):
            build_data["shared_data"][str(page)] = f"share/man/man1/{page.name}"
        for shell, place in COMPLETIONS.items():
            (made / shell).write_text(script(shell))
            build_data["shared_data"][str(made / shell)] = place

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._made:
            self._made.cleanup()
