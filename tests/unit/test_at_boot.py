"""The unit that begins tracking at boot, and what is refused. The guests' job boot runs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pageowner.errors import PageownerError, UsageError
from pageowner.kernel import mounts
from pageowner.report.status_view import draw_at_boot
from pageowner.report.terminal import paper
from pageowner.system.safe_path import why_not_own
from pageowner.tracker import at_boot
from pageowner.tracker.control import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., Any]

BOOTED = os.path.isdir("/run/systemd/system")
SEARCHED = at_boot._searched


def lines(text: str, name: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_the_unit_has_the_same_options_and_absolute_words() -> None:
    text = at_boot.unit(Options(kernel_only=True, min_order=2, free_side=True, memo=False,
                                memo_check=0.5, sample=3, depth=20), ["/opt/po/bin/pageowner"])
    assert lines(text, "ExecStart") == ["/opt/po/bin/pageowner on --kernel-only --free --plain"
                                        " --min-order 2 --sample 3 --depth 20 --check 0.5"]
    assert lines(text, "ExecStop") == ["/opt/po/bin/pageowner off"]
    assert lines(text, "ConditionKernelCommandLine") == ["page_owner=on"]
    assert "/opt/po/bin" in lines(text, "RequiresMountsFor")[0].split()


def test_the_unit_runs_this_very_pageowner() -> None:
    (start,) = lines(at_boot.unit(Options()), "ExecStart")
    program = start.removesuffix(" on").split()
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=True,
                          cwd="/", env={})
    assert done.stdout.startswith("pageowner ")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_reads_paths_with_anything_in_them_as_they_are(tmp_path: Path) -> None:
    place = tmp_path / "a b%h$HOME"
    place.mkdir()
    program = place / "pageowner"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "pageowner.service"
    unit.write_text(at_boot.unit(Options(depth=20), [str(program)]).replace(
        "Documentation=", "# Documentation="))  # the manual page is not installed here
    done = subprocess.run(["systemd-analyze", "verify", "--recursive-errors=one", unit],
                          capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_paths_that_systemd_does_not_run_are_refused() -> None:
    with pytest.raises(PageownerError, match="install pageowner elsewhere"):
        at_boot.unit(Options(), ['/a"b/pageowner'])


@pytest.mark.parametrize("program", ["/a\rExecStartPre=b/pageowner", "/a\nb/pageowner",
                                     os.fsdecode(b"/caf\xe9/pageowner")])
def test_paths_that_a_unit_cannot_hold_are_refused(program: str) -> None:
    with pytest.raises(PageownerError, match="install pageowner elsewhere") as said:
        at_boot.unit(Options(), [program])
    assert str(said.value).isprintable()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of units of a systemd that does what the file ``systemctl`` says, on a machine that
    trusts any folder: these tests may lie below /tmp, from which nothing is run at boot. Of what
    Python loads at boot the package alone is looked at."""
    monkeypatch.setattr(at_boot, "why_not_own", lambda folder, sticky: "")
    monkeypatch.setattr(at_boot, "_searched", lambda _: [str(Path(at_boot.__file__).parent.parent)])
    tool = tmp_path / "bin" / "systemctl"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    units = tmp_path / "system"
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(at_boot, "_RUNNING", str(tmp_path))
    monkeypatch.setattr(at_boot, "UNIT", units / "pageowner.service")
    monkeypatch.setattr(at_boot, "_LINK", units / "sysinit.target.wants" / "pageowner.service")
    return tool


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_where_systemd_refuses_there_is_what_was_there_before(systemd: Path) -> None:
    working, failing = systemd.read_text(), (
        "#!/bin/sh\n[ $2 != enable ] || { echo no such luck >&2; exit 1; }\n")
    systemd.write_text(failing)
    with pytest.raises(PageownerError, match="no such luck"):
        at_boot.install(Options())
    assert list(at_boot.UNIT.parent.iterdir()) == []
    systemd.write_text(working)
    at_boot.install(Options(depth=20))
    assert at_boot.UNIT.stat().st_mode & 0o777 == 0o644
    before = at_boot.UNIT.read_text()
    systemd.write_text(failing)
    with pytest.raises(PageownerError, match="no such luck"):
        at_boot.install(Options(depth=30))
    assert at_boot.UNIT.read_text() == before
    assert at_boot.is_unchanged()
    assert [one.name for one in at_boot.UNIT.parent.iterdir()] == ["pageowner.service"]


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_ctrl_c_leaves_no_unit_that_is_not_enabled(
        systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*words: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(at_boot, "_systemctl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        at_boot.install(Options())
    assert list(at_boot.UNIT.parent.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_a_program_on_a_file_system_of_the_network_is_refused(
        systemd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = os.path.dirname(os.path.realpath(sys.prefix))
    text = f"1 0 0:1 / / rw - 9p root rw\n2 1 0:2 / {place} rw shared:1 - nfs4 srv:/x rw\n"
    monkeypatch.setattr(mounts, "running", lambda: mounts.parse(text))
    with pytest.raises(PageownerError, match=r"\(nfs4\).*on a local disk"):
        at_boot.install(Options())
    assert not at_boot.is_installed()
    text = text.replace("nfs4", "ext4")
    at_boot.install(Options())


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_what_runs_only_in_this_shell_is_not_installed(
        systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pageowner"
    program.write_text('#!/bin/sh\n[ "$SET_HERE" ]\n')
    program.chmod(0o755)
    monkeypatch.setenv("SET_HERE", "1")
    monkeypatch.setattr("sys.argv", [str(program)])
    with pytest.raises(PageownerError, match="would fail at boot"):
        at_boot.install(Options())
    assert not at_boot.is_installed()


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
@pytest.mark.parametrize("how", ["owner", "mode", "folder", "file in package", "sticky folder",
                                 "linked package"])
def test_what_another_user_could_change_is_not_run_at_boot(
        systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    place = tmp_path / "opt"
    place.mkdir()
    program = place / "pageowner"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    # as if this was no folder of tests below /tmp, which all may write to
    real = why_not_own
    monkeypatch.setattr(at_boot, "why_not_own", lambda folder, sticky: "" if os.path.samestat(
        os.fstat(folder), os.stat("/tmp")) else real(folder, sticky))
    monkeypatch.setattr("sys.argv", [str(program)])
    searched = tmp_path / "packages"
    (searched / "numpy").mkdir(parents=True)
    module = searched / "numpy" / "core.py"
    module.write_text("")
    monkeypatch.setattr(at_boot, "_searched", lambda _: [str(searched)])
    at_boot.install(Options())
    at_boot.remove()
    if how == "owner":
        os.chown(program, 65534, 65534)
    elif how == "mode":
        program.chmod(0o777)
    elif how == "folder":
        os.chown(place, 65534, 65534)
    elif how == "sticky folder":
        place.chmod(0o1777)
    elif how == "linked package":
        (tmp_path / "elsewhere").mkdir()
        (searched / "click").symlink_to(tmp_path / "elsewhere")
        at_boot.install(Options())
        at_boot.remove()
        (tmp_path / "elsewhere" / "core.py").write_text("")
        os.chown(tmp_path / "elsewhere" / "core.py", 65534, 65534)
    else:
        module.chmod(0o666)
    with pytest.raises(PageownerError, match="would run as root at boot") as said:
        at_boot.install(Options())
    assert "\n" not in str(said.value)
    assert not at_boot.is_installed()


@pytest.mark.skipif(os.geteuid() != 0, reason="for root")
def test_status_does_not_take_another_unit_for_ours(
        systemd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(at_boot, "_searched", SEARCHED)  # thousands of files, all of them root's

    def said() -> str:
        draw_at_boot(at_boot.UNIT, at_boot.is_unchanged(), at_boot.is_enabled(), at_boot.WORD,
                     False, paper())
        return " ".join(capsys.readouterr().out.split())

    at_boot.install(Options())
    assert said().startswith("at boot no: pageowner.service is there, but not enabled")
    at_boot._LINK.parent.mkdir()
    at_boot._LINK.symlink_to(at_boot.UNIT)
    assert said() == ("at boot by pageowner.service, with page_owner=on on the kernel's command"
                      " line (not in this boot)")
    # such as the one that docs/howto/service.md has
    at_boot.UNIT.write_text("[Service]\nExecStart=/usr/local/bin/pageowner on\n")
    assert "is not as 'pageowner on --at-boot' writes it" in said()


def test_a_unit_that_somebody_changed_is_known() -> None:
    text = at_boot.unit(Options())
    assert at_boot.is_ours(text)
    for other in (text.replace("5min", "9min"), text + "#", text.removeprefix("#"), "", "[Unit]\n"):
        assert not at_boot.is_ours(other)


@pytest.mark.parametrize("words", [["--pid", "1"], ["--cgroup", "/x"]])
def test_what_is_of_this_moment_alone_cannot_be_asked_for_at_boot(
        cli: Cli, words: list[str]) -> None:
    done = cli("on", "--at-boot", *words)
    assert (done.status, done.out) == (2, b"")
    assert b"--at-boot cannot be combined" in done.err
    with pytest.raises(UsageError, match="depth"):
        at_boot.unit(Options(depth=99))


@pytest.mark.skipif(BOOTED or os.geteuid() != 0,
                    reason="for root of a machine that systemd did not boot")
def test_without_systemd_one_line_says_what_to_do_instead(cli: Cli) -> None:
    done = cli("on", "--at-boot")
    assert (done.status, done.out) == (1, b"")
    assert b"not booted by systemd" in done.err
    assert not at_boot.is_installed()
    assert cli("off", "--at-boot").out == b"tracking did not begin at boot\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_who_is_not_root_is_told_so() -> None:
    os.seteuid(65534)
    try:
        for act in (lambda: at_boot.install(Options()), at_boot.remove):
            with pytest.raises(PageownerError, match="needs root"):
                act()
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("line", "wanted"), [
    (b"quiet page_owner=on ro\n", True), (b"page_owner=off", False), (b"xpage_owner=on", False),
    (b"page_owner=on,x", False), (b"", False), (b"x=\xff\xe9 page_owner=on\n", True)])
def test_the_word_is_looked_for_as_systemd_does(line: bytes, wanted: bool, tmp_path: Path) -> None:
    (tmp_path / "cmdline").write_bytes(line)
    assert at_boot.is_wanted(tmp_path / "cmdline") is wanted
