"""Tracking from early in each boot: a systemd unit that runs `pageowner on`.

The unit heeds ``page_owner=on`` on the kernel's command line, the word that turns on the kernel's
own page owner. It is one file, and one link that enables it. Whoever changes the file makes it
theirs: it carries a fingerprint of its own text, and is neither replaced nor removed once that is
no longer right.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pageowner.errors import PageownerError, UsageError
from pageowner.kernel import mounts
from pageowner.kernel.proc_text import proc_text
from pageowner.storage.whole_file import whole_file
from pageowner.system.safe_path import find, owner, why_not_own
from pageowner.tracker.load import requirements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pageowner.tracker.control import Options

__all__ = ["UNIT", "WORD", "install", "is_enabled", "is_installed", "is_ours", "is_unchanged",
           "is_wanted", "remove", "unit"]

UNIT = Path("/etc/systemd/system/pageowner.service")
"""Where the machine's own units are (systemd.unit(5))."""

WORD = "page_owner=on"
"""On the kernel's command line: what the unit asks for."""

_LINK = UNIT.parent / "sysinit.target.wants" / UNIT.name
# What systemd mounts after the network (fstype_is_network() in src/basic/mountpoint-util.c), also
# as FUSE; with their versions: nfs4, smb3.
_NETWORK = ("afs", "ceph", "cifs", "davfs", "gfs", "glusterfs", "lustre", "ncp", "nfs", "ocfs2",
            "pvfs2", "smb", "sshfs")
_RUNNING = "/run/systemd/system"  # there while systemd is the init (sd_booted(3))
_MARK = "# fingerprint "
_HEAD = """\
# Written by 'pageowner on --at-boot'; 'pageowner off --at-boot' removes it, unless it was changed.
"""
_BODY = """\
[Unit]
Description=Page owner of this machine: who allocated every page
Documentation=man:pageowner-on(1)
ConditionKernelCommandLine={word}
# As early as its files and the kernel's tracepoints are there; nothing waits for it but the end
# of the early boot.
DefaultDependencies=no
RequiresMountsFor={folders}
Wants=sys-kernel-tracing.mount
After=sys-kernel-tracing.mount
Conflicts=shutdown.target
Before=sysinit.target shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} on{options}
ExecStop={program} off
TimeoutStartSec=5min

[Install]
WantedBy=sysinit.target
"""


def unit(options: Options, program: Sequence[str] | None = None) -> str:
    """The text of the unit that turns tracking on with these options.

    ``program`` are the words that run pageowner, absolute; this process's own if left out. Raises
    UsageError for options that mean something of this moment.
    """
    if options.tgid or options.cgroup:
        raise UsageError("--at-boot cannot be combined with --pid or --cgroup: they do not exist"
                         " yet at boot")
    options.check()
    words = _program() if program is None else list(program)
    if set(words[0]) & set("'\"\\"):
        raise PageownerError(f"{words[0]}: systemd cannot run a path with a quote or a backslash;"
                             " install pageowner elsewhere")
    # an option and its value come as one text
    more = [part for word in options.words() for part in word.split(" ", 1)]
    body = _BODY.format(word=WORD, folders=" ".join(map(_quoted, _folders(words))),
                        program=" ".join(map(_quoted, words)),
                        options="".join(f" {_quoted(word)}" for word in more))
    return f"{_HEAD}{_MARK}{_fingerprint(body)}\n{body}"


def install(options: Options) -> Path:
    """Write the unit and enable it; its path. What runs now is left as it is.

    Raises PageownerError without root or systemd, if a unit of that name is another's, if this
    pageowner runs only by what is set in this shell, or if anybody but root can change what would
    run; there is then what was there before.
    """
    program = _program()
    text = unit(options, program)
    requirements.require_root()
    if not os.path.isdir(_RUNNING) or not shutil.which("systemctl"):
        raise PageownerError("this machine was not booted by systemd, so a unit cannot start"
                             " tracking; have its init run 'pageowner on' as early as possible")
    _check_local(_folders(program))
    _check_ours("replaced")
    _check_runs(program)
    _check_roots(program)
    before = UNIT.read_text() if is_installed() else None
    UNIT.parent.mkdir(parents=True, exist_ok=True)
    _write(text)
    try:
        _systemctl("daemon-reload")
        _systemctl("enable", UNIT.name)
    except BaseException:  # Ctrl-C too
        if before is None:
            _LINK.unlink(missing_ok=True)
            UNIT.unlink(missing_ok=True)
        else:
            _write(before)
        raise
    return UNIT


def remove() -> bool:
    """Disable and remove the unit; whether there was one. Tracking itself goes on.

    Raises PageownerError without root, or if the unit is another's.
    """
    requirements.require_root()
    if not is_installed():
        return False
    _check_ours("removed")
    _LINK.unlink(missing_ok=True)
    UNIT.unlink()
    if os.path.isdir(_RUNNING) and shutil.which("systemctl"):
        _systemctl("daemon-reload")
    return True


def is_installed() -> bool:
    """Whether there is a unit of that name, be it ours or another's."""
    return os.path.lexists(UNIT)


def is_enabled() -> bool:
    """Whether systemd starts the unit of that name when it boots."""
    return os.path.lexists(_LINK)


def is_unchanged() -> bool:
    """Whether there is a unit of that name and it is as `install` wrote it."""
    try:
        return not UNIT.is_symlink() and is_ours(UNIT.read_text(errors="replace"))
    except OSError:
        return False


def is_ours(text: str) -> bool:
    """Whether this is the text of a unit that `unit` wrote and nobody changed."""
    head, mark, rest = text.partition(_MARK)
    said, _, body = rest.partition("\n")
    return head == _HEAD and bool(mark) and said == _fingerprint(body)


def is_wanted(command_line: str | Path = "/proc/cmdline") -> bool:
    """Whether the kernel was booted with `WORD`, by this file; it may hold any bytes."""
    return WORD in proc_text(command_line).split()


def _check_ours(what: str) -> None:
    if is_installed() and not is_unchanged():
        raise PageownerError(
            f"{UNIT} was changed since pageowner wrote it, so it is not {what}; check it, then:"
            f" systemctl disable {UNIT.name}; rm {UNIT}")


def _check_runs(program: Sequence[str]) -> None:
    """At boot there is nothing of this shell: no PYTHONPATH, no folder that it is in."""
    done = subprocess.run([*program, "--version"], env={"PATH": os.defpath}, cwd="/",
                          capture_output=True, check=False)
    if done.returncode:
        raise PageownerError(f"{' '.join(program)}: runs only with this shell's environment, so it"
                             " would fail at boot; install pageowner and run the installed one")


def _check_roots(program: Sequence[str]) -> None:
    """Whoever can change what runs at boot becomes root then: the program, Python, what it imports
    and the libraries it has loaded must be root's, and so every folder on the way to them."""
    searched = {path for path in _searched(program) if os.path.isdir(path)}
    files = {program[0], os.path.realpath(program[0]), sys.executable,
             os.path.realpath(sys.executable), *_mapped()}
    for path in sorted(files | searched):
        _check_way(path)
    # os.walk() does not follow links to folders; what they lead to is looked at in its turn.
    todo = sorted(searched)
    for path in todo:
        for folder, folders, names in os.walk(path):
            for entry in (folder, *(os.path.join(folder, name) for name in (*names, *folders))):
                status = os.stat(entry, follow_symlinks=False)
                if stat.S_ISLNK(status.st_mode):
                    _check_way(entry)
                    target = os.path.realpath(entry)
                    if os.path.isdir(target) and target not in todo:
                        todo.append(target)
                elif status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise _not_roots(entry, entry, f"belongs to {owner(status.st_uid)}"
                                     if status.st_uid else "is writable by others")


def _check_way(path: str) -> None:
    """Raises PageownerError if anybody but root can change a file or a part of the way to it."""
    def folder(shown: str, handle: int) -> None:
        if why := why_not_own(handle, sticky=False):
            raise _not_roots(path, shown, why)

    def link(shown: str, status: os.stat_result, _: os.stat_result) -> None:
        if status.st_uid != 0:
            raise _not_roots(path, shown, f"is a symbolic link of {owner(status.st_uid)}")

    try:
        with find(path, folder, link) as found:
            status = found.status
    except FileNotFoundError:
        return  # its folder was looked at, and only root can make it there
    if status is not None and not stat.S_ISDIR(status.st_mode) and (
            status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise _not_roots(path, path, f"belongs to {owner(status.st_uid)}" if status.st_uid else
                         "is writable by others")


def _not_roots(path: str, part: str, why: str) -> PageownerError:
    return PageownerError(
        f"{path} would run as root at boot, but {part if part != path else 'it'} {why}, who could"
        " then run anything as root; install pageowner where only root can write, such as /opt")


def _searched(program: Sequence[str]) -> list[str]:
    """Where the Python that runs at boot looks for modules, but for the current folder (/)."""
    done = subprocess.run([sys.executable, "-c", "import sys; print(*sys.path[1:], sep='\\n')"],
                          env={"PATH": os.defpath}, cwd="/", capture_output=True, text=True,
                          check=False)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [package, *(path for path in done.stdout.splitlines() if path.startswith("/"))]


def _mapped() -> set[str]:
    """Files that this process runs code of: Python, and the libraries that are loaded."""
    found = set()
    for line in proc_text("/proc/self/maps", "surrogateescape").split("\n"):
        parts = line.split(maxsplit=5)  # proc_pid_maps(5)
        if len(parts) == 6 and "x" in parts[1] and parts[5].startswith("/"):
            found.add(parts[5])
    return found


def _check_local(folders: Sequence[str]) -> None:
    """A unit before sysinit.target that waits for a mount over the network, which waits for
    sysinit.target, is a cycle, and systemd breaks one by leaving out some unit of it, any unit."""
    kinds = {mount.place: mount.kind for mount in mounts.running()}
    for folder in folders:
        real = Path(os.path.realpath(folder))
        place = next((str(path) for path in (real, *real.parents) if str(path) in kinds), "/")
        kind = kinds.get(place, "")
        # the root is there before systemd is, whatever it is
        if place != "/" and kind.removeprefix("fuse.").startswith(_NETWORK):
            raise PageownerError(f"{folder} is on a network file system ({kind}), which is not"
                                 " mounted that early in boot; install pageowner on a local disk")


def _write(text: str) -> None:
    with whole_file(UNIT) as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(text.encode())


def _fingerprint(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _program() -> list[str]:
    """What runs this pageowner again, by absolute paths."""
    found = shutil.which(sys.argv[0]) if sys.argv and sys.argv[0] else None
    if found and os.path.basename(found) == "pageowner":
        return [os.path.abspath(found)]
    return [os.path.abspath(sys.executable), "-m", "pageowner"]


def _folders(program: Sequence[str]) -> list[str]:
    """Where what runs lies: the program, Python, and the package."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = [os.path.dirname(program[0]), sys.prefix, sys.base_prefix, package]
    return list(dict.fromkeys(folders))


def _quoted(word: str) -> str:
    """A path or a plain word as a unit's file takes it (systemd.syntax(7), "Quoting";
    systemd.unit(5), "Specifiers"). ``$`` stands for itself in the path of what is run
    (systemd.service(5), "Command lines"); no option has one."""
    # the file is UTF-8, and a line of it ends at more than \n
    if not word.isprintable():
        raise PageownerError(f"{word!r} cannot be part of a systemd unit; install pageowner"
                             " elsewhere")
    word = word.replace("%", "%%")
    plain = word.replace("/", "").replace("-", "").replace(".", "").replace("_", "")
    if plain.isalnum() and plain.isascii():
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", "--quiet", *words], capture_output=True, text=True,
                          check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise PageownerError(f"systemctl {' '.join(words)}: {said[-1] if said else 'failed'}")
