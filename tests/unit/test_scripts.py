"""Scripts that may not fail where what they want cannot be had."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
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


def test_no_time_limit_ends_apt_get_while_it_unpacks(tmp_path: Path) -> None:
    for name in ("sh", "id", "env"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    for name, text in {"sudo": 'shift\nexec "$@"', "timeout": 'shift\nTIMED=yes exec "$@"',
                       "apt-get": f'echo "${{TIMED-no}} $*" >>"{tmp_path}/log"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run([SCRIPTS / "browser"], env={"PATH": str(tmp_path)}, check=True,
                   stderr=subprocess.DEVNULL)
    _, fetches, unpacks = (tmp_path / "log").read_text().splitlines()
    assert fetches.startswith("yes install ")
    assert fetches.endswith(" --download-only")
    assert unpacks.startswith("no install ")


@pytest.mark.parametrize(("sudo", "apt_get"), [
    (None, None),
    ("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n", None),
    ('#!/bin/sh\nshift\nexec "$@"\n', "#!/bin/sh\necho noise\necho noise >&2\nexit 100\n"),
])
@pytest.mark.parametrize("python", ["python3", "python3.12"])
def test_where_setup_cannot_make_environments_it_names_the_package_and_no_more(
        tmp_path: Path, python: str, sudo: str | None, apt_get: str | None) -> None:
    """As on a bare Debian, whose Python comes without ``ensurepip``."""
    for name in ("sh", "id", "env", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    for name, text in {"sudo": sudo, "apt-get": apt_get, python:
                       '#!/bin/sh\ncase $2 in *ensurepip*) exit 1;; esac\n'}.items():
        if text:
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
    done = subprocess.run([SCRIPTS / "setup"], env={"PATH": str(tmp_path)}, text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"setup: installing {python}-venv",
        f"setup: {python}-venv is missing and could not be installed;"
        f" as root: apt-get install {python}-venv"]


VENV = """#!/bin/sh
# python3 -m venv FOLDER: a Python there whose pip does what $PIP says; else it is a real one.
[ "$2" = venv ] || exit 0
mkdir -p "$3/bin"
cat >"$3/bin/python" <<'END'
#!/bin/sh
[ "$2" != pip ] || exec sh -ec "$PIP"
exec python3.real "$@"
END
chmod +x "$3/bin/python"
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with scripts/setup in it, and `VENV` for Python."""
    tree = tmp_path / "tree"
    for name in ("scripts", "src", "bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(SCRIPTS / "setup", tree / "scripts/setup")
    (tree / "pyproject.toml").touch()
    (tmp_path / "python3").write_text(VENV)
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "python3.real").symlink_to(sys.executable)
    return tree


def setup(clone: Path, pip: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([clone / "scripts/setup"], text=True, capture_output=True, check=False,
                          env={"PATH": f"{clone.parent}:{os.environ['PATH']}", "PIP": pip})


def test_where_setup_can_install_nothing_what_was_there_works_on(clone: Path) -> None:
    assert setup(clone, "echo first >.venv/made").returncode == 0
    assert setup(clone, "echo again >.venv/made").stderr == ""  # nothing has changed
    (clone / "pyproject.toml").write_text("more is needed now")
    # ended by an error of pip's, and from outside in the middle of it
    done = setup(clone, "echo no network >&2; exit 1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1:] == [
        "no network", "setup: pip could not install what pyproject.toml names; it says above why;"
        " .venv stays as it was, for what pyproject.toml named then"]
    assert (clone / ".venv/made").read_text() == "first\n"
    assert setup(clone, "kill -9 $PPID").returncode == -9
    assert setup(clone, "exit 1").returncode == 1
    assert (clone / ".venv/made").read_text() == "first\n"
    assert setup(clone, "echo second >.venv/made").returncode == 0
    assert (clone / ".venv/made").read_text() == "second\n"
    assert not list(clone.glob(".venv?*"))


def test_the_commands_run_where_a_folder_has_a_space_in_its_name(clone: Path) -> None:
    clone = clone.rename(clone.parent / "my tools")
    for name in ("pageowner", "page_owner_sort"):
        (clone / "bin" / name).write_text("#!python\nimport sys\nprint(*sys.argv, sep='\\n')\n")
    # as pip does
    done = setup(clone, """for name in pageowner page_owner_sort; do
        sed "1s|.*|#!$PWD/.venv/bin/python|" <bin/$name >.venv/bin/$name
        chmod +x .venv/bin/$name; done""")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    for name in ("pageowner", "page_owner_sort"):
        command = clone / ".venv/bin" / name
        said = subprocess.run([command, "a  word", "*"], text=True, capture_output=True,
                              check=True, env={"PATH": f"{clone.parent}:{os.environ['PATH']}"})
        assert said.stdout.splitlines() == [str(command), "a  word", "*"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_in_a_clone_belongs_to_whom_the_clone_does(clone: Path) -> None:
    os.chown(clone, 4711, 4711)
    assert setup(clone, "ln -s /bin/true .venv/link; touch .venv/made").returncode == 0
    assert {path.lstat().st_uid for path in (clone / ".venv").rglob("*")} == {4711}
    assert Path("/bin/true").stat().st_uid == 0


@pytest.mark.parametrize("script", ["setup", "build-bpf"])
def test_two_at_once_install_once_and_both_find_it(clone: Path, script: str) -> None:
    pipe, made = clone.parent / "pipe", clone.parent / "made"
    os.mkfifo(pipe)
    (clone.parent / "python3.real").unlink()
    (clone.parent / "python3.real").symlink_to("/bin/true")
    words = [clone / "scripts/setup"] if script == "setup" else [SCRIPTS / script, "--headers"]
    both = [subprocess.Popen(words, stderr=subprocess.DEVNULL, env={
        "PATH": f"{clone.parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(clone.parent),
        "PIP": f"echo made >>'{made}'; read -r line <'{pipe}'"}) for _ in range(2)]
    try:
        pipe.write_text("go on\n")
        assert [one.wait(timeout=60) for one in both] == [0, 0]
    finally:
        for one in both:
            one.kill()
    assert made.read_text() == "made\n"


def test_without_a_compiler_to_install_build_bpf_says_so_by_its_exit_status(clone: Path) -> None:
    done = subprocess.run([SCRIPTS / "build-bpf", "--headers"], text=True, capture_output=True,
                          check=False, env={
        "PATH": f"{clone.parent}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(clone.parent),
        "PIP": "echo no network >&2; exit 1"})
    assert done.returncode == 77
    assert done.stderr.splitlines()[1] == "no network"


def test_packages_that_nobody_can_check_are_not_built(tmp_path: Path) -> None:
    for name in ("scripts", ".venv", "dist"):
        (tmp_path / name).mkdir()
    shutil.copy(SCRIPTS / "package", tmp_path / "scripts")
    for name, status in {"scripts/setup": 0, "git": 127}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([tmp_path / "scripts/package"], text=True, capture_output=True,
                          check=False, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "package: what belongs into the packages is known to git, and this is no clone, or there is"
        " no git"]
    assert (tmp_path / "dist").exists()


def bench(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tree / "scripts/bench", *words], text=True, capture_output=True,
                          check=False)


def test_bench_runs_what_can_run_alone_and_keeps_results_of_what_is_skipped(
        tmp_path: Path) -> None:
    for name in ("scripts", "benchmarks/results", ".venv/bin"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(SCRIPTS / "bench", tmp_path / "scripts")
    shutil.copy(SCRIPTS.parent / "benchmarks/common.py", tmp_path / "benchmarks")
    for name, text in {"scripts/setup": "", "scripts/peers": "",
                       ".venv/bin/python": f'exec "{sys.executable}" "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    for name, text in {"fails": "exit(1)", "fleet": "exit(1)", "mixed_load": "exit(1)",
                       "skips": "import common; common.skip('no root')",
                       "works": "print('figures')"}.items():
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text)
    skips = tmp_path / "benchmarks/results/skips.txt"
    skips.write_text("last year's")
    done = bench(tmp_path, "--keep", "skips", "works", "fails", "works")
    assert done.returncode == 1
    assert skips.read_text() == "last year's"
    assert "skipped: no root" in done.stderr
    assert (tmp_path / "benchmarks/results/works.txt").read_text().endswith("\n\nfigures\n")
    assert done.stdout.splitlines()[-1] == "== fails"
    (tmp_path / "benchmarks/fails.py").unlink()
    done = bench(tmp_path)
    assert (done.returncode, done.stdout) == (0, "== skips\n== works\nfigures\n")


@pytest.mark.parametrize("script", [path for path in sorted(SCRIPTS.iterdir())
                                    if path.read_text().startswith("#!/bin/sh")],
                         ids=lambda path: path.name)
def test_what_fails_in_a_script_ends_it(script: Path) -> None:
    """POSIX shells leave out `set -e` in all of ``(…) || …``, and in functions called so: of the
    checks there only the last could fail."""
    text = script.read_text()
    assert re.search(r"^set -eu$", text, re.MULTILINE)
    assert not re.search(r"^\s*[)}] *(\|\||&&)", text, re.MULTILINE)
