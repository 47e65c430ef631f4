"""Scripts that may not fail where what they want cannot be had."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("apt_get", [None, "#!/bin/sh\necho noise\nexit 100\n"])
def test_without_a_browser_to_install_one_line_says_what_is_left_out(
        tmp_path: Path, apt_get: str | None) -> None:
    for name in ("sh", "id", "env", "timeout", "sudo"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    if apt_get:
        (tmp_path / "apt-get").write_text(apt_get)
        (tmp_path / "apt-get").chmod(0o755)
    done = subprocess.run([SCRIPTS / "browser"], env={"PATH": str(tmp_path)}, text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[1:] == [
        "browser: chromium could not be installed: tests of the map's page in a browser are left"
        " out"]


@pytest.mark.parametrize("script", [path for path in sorted(SCRIPTS.iterdir())
                                    if path.read_text().startswith("#!/bin/sh")],
                         ids=lambda path: path.name)
def test_what_fails_in_a_script_ends_it(script: Path) -> None:
    """POSIX shells leave out `set -e` in all of ``(…) || …``, and in functions called so: of the
    checks there only the last could fail."""
    text = script.read_text()
    assert re.search(r"^set -eu$", text, re.MULTILINE)
    assert not re.search(r"^\s*[)}] *(\|\||&&)", text, re.MULTILINE)
