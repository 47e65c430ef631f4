"""Scripts that may not fail where what they want cannot be had."""

from __future__ import annotations

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
