"""Programs that leak kernel memory, slowly and for ever: ``leaking.py WHAT BYTES_PER_SECOND``.

Each step of a leak takes a known number of bytes at least; the program sleeps so long in between
that the rate comes out. Needs root. It ends with its standard input, and leaves nothing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PAGE = mmap.PAGESIZE
MIB = 1 << 20
HUGE = 2 << 20
_F_SETPIPE_SZ = 1031
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SYS_IO_URING_SETUP, _SYS_BPF = 425, 321
_SYS_TIMER_CREATE, _SYS_ADD_KEY = 222, 248
_SIGEV_NONE, _PROCESS_KEYRING = 1, -2
_MSG_STAT, _IPC_RMID = 11, 0

libc = ctypes.CDLL(None, use_errno=True)
held: list[object] = []
at_end: list[Callable[[], object]] = []


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def pipes() -> int:
    """A pipe full of data."""
    ends = os.pipe()
    held.append(ends)
    fcntl.fcntl(ends[1], _F_SETPIPE_SZ, 64 * PAGE)
    return os.write(ends[1], bytes(64 * PAGE))


def unix() -> int:
    """A message of 32 KiB that nobody reads."""
    if not held:
        pair = socket.socketpair()
        pair[0].setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, (1 << 31) - 1)
        held.append(pair)
    left = held[0][0]  # type: ignore[index]
    return int(left.send(bytes(8 * PAGE), socket.MSG_DONTWAIT))


def tcp() -> int:
    """A connection to itself, the data unread."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, MIB)
    server.bind(("127.0.0.1", 0))
    server.listen()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, MIB)
    client.connect(server.getsockname())
    accepted, _ = server.accept()
    held.append((client, accepted))
    server.close()
    client.setblocking(False)
    return client.send(bytes(MIB // 4))


def tmpfs() -> int:
    """A deleted file in memory that is still open."""
    fd = os.memfd_create("leak")
    held.append(fd)
    return os.write(fd, bytes(16 * PAGE))


def inodes() -> int:
    """Empty files in a file system in memory: an inode and a dentry each."""
    if not held:
        place = tempfile.mkdtemp(prefix="leak-")
        _checked(libc.mount(b"none", place.encode(), b"tmpfs", 0, b"nr_inodes=0"), "mount")
        at_end.extend((lambda: libc.umount2(place.encode(), 2), lambda: os.rmdir(place)))
        held.extend((place, 0))
    place, number = str(held[0]), int(held[1])  # type: ignore[call-overload]
    for one in range(number, number + 100):
        os.close(os.open(f"{place}/{one}", os.O_CREAT | os.O_WRONLY))
    held[1] = number + 100
    return 100 * 900


def tables() -> int:
    """Page tables: a page of an empty mapping read in each 2 MiB, all showing the zero page."""
    area = mmap.mmap(-1, 16 * HUGE, flags=mmap.MAP_PRIVATE | 0x4000 | mmap.MAP_ANONYMOUS,
                     prot=mmap.PROT_READ)
    held.append(area)
    # A mapping that may become a huge zero page takes no table.
    area.madvise(mmap.MADV_NOHUGEPAGE)
    for place in range(0, len(area), HUGE):
        area[place]
    return 16 * PAGE


def threads() -> int:
    """Threads that sleep, each with a stack in the kernel. None of Python's, which have as much
    memory of their own: these are a call of pause(), and begin on two pages."""
    attributes, thread = ctypes.create_string_buffer(64), ctypes.c_ulong()
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(64 << 10))
    for _ in range(4):
        if failed := libc.pthread_create(ctypes.byref(thread), attributes, libc.pause, None):
            raise OSError(failed, f"pthread_create: {os.strerror(failed)}")
    return 4 * (16 << 10)


def eventfd() -> int:
    """An eventfd: a file, a dentry and its counter."""
    held.extend(os.eventfd(0) for _ in range(64))
    return 64 * 512


def epoll() -> int:
    """Entries of epoll: an eventfd watched by many."""
    if not held:
        held.append([os.eventfd(0) for _ in range(512)])
    one = select.epoll()
    held.append(one)
    for fd in held[0]:  # type: ignore[attr-defined]
        one.register(fd, select.EPOLLIN)
    return 512 * 192


def bpf() -> int:
    """A BPF array of 28 KiB."""
    attributes = struct.pack("IIII", 2, 4, 7 * PAGE - 128, 1).ljust(128, b"\0")
    buffer = ctypes.create_string_buffer(attributes)
    held.append(_checked(libc.syscall(_SYS_BPF, 0, buffer, 128), "bpf"))
    return 32 << 10


def io_uring() -> int:
    """Rings of io_uring."""
    parameters = ctypes.create_string_buffer(120)
    held.append(_checked(libc.syscall(_SYS_IO_URING_SETUP, 512, parameters), "io_uring_setup"))
    return 48 << 10


def messages() -> int:
    """Messages of System V that nobody receives."""
    for _ in range(8):
        if not held:
            held.append(_checked(libc.msgget(0, 0o600), "msgget"))
            at_end.append(lambda: [libc.msgctl(queue, _IPC_RMID, None) for queue in held])
        message = struct.pack("l", 1) + bytes(4000)
        while libc.msgsnd(held[-1], message, 4000, 0o4000) < 0:
            if ctypes.get_errno() != errno.EAGAIN:
                raise OSError(ctypes.get_errno(), "msgsnd")
            held.append(_checked(libc.msgget(0, 0o600), "msgget"))
    return 8 * 4096


def huge() -> int:
    """A huge page of private memory."""
    if not held:
        area = mmap.mmap(-1, 512 * HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
        area.madvise(mmap.MADV_HUGEPAGE)
        first = -ctypes.addressof(ctypes.c_char.from_buffer(area)) % HUGE
        held.extend((area, first))
    area, first = held[0], int(held[1])  # type: ignore[call-overload]
    for place in range(first, first + HUGE, PAGE):
        area[place] = 1  # type: ignore[index]
    held[1] = first + HUGE
    return HUGE


def cgroup() -> int:
    """A cgroup that is gone, and the memory charged to it is not: a file of a task that ended."""
    base = Path("/sys/fs/cgroup/memory")
    if not base.is_dir():
        base = Path("/sys/fs/cgroup")
    group = base / f"leak-{os.getpid()}-{len(held)}"
    group.mkdir()
    fd = os.memfd_create("leak")
    held.append(fd)
    child = os.fork()
    if child == 0:
        try:
            (group / "cgroup.procs").write_text(str(os.getpid()))
            os.write(fd, bytes(MIB // 2))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    group.rmdir()
    return MIB // 2


def dentries() -> int:
    """Names of one file in ramfs: each a dentry that is held as long as it is there."""
    if not held:
        place = tempfile.mkdtemp(prefix="leak-")
        _checked(libc.mount(b"none", place.encode(), b"ramfs", 0, b""), "mount")
        at_end.extend((lambda: libc.umount2(place.encode(), 2), lambda: os.rmdir(place)))
        Path(place, "file").touch()
        held.extend((place, 0))
    place, number = str(held[0]), int(held[1])  # type: ignore[call-overload]
    for one in range(number, number + 100):
        os.link(f"{place}/file", f"{place}/{one}")
    held[1] = number + 100
    return 100 * 192


def timers() -> int:
    """Timers of a process, which are never set."""
    event, timer = struct.pack("qii", 0, 0, _SIGEV_NONE).ljust(64, b"\0"), ctypes.c_int()
    for _ in range(50):
        _checked(libc.syscall(_SYS_TIMER_CREATE, time.CLOCK_MONOTONIC, event,
                              ctypes.byref(timer)), "timer_create")
    return 50 * 384


def locks() -> int:
    """Locks on every other byte of some files."""
    if not held:
        held.extend(([tempfile.TemporaryFile() for _ in range(256)], 0))  # noqa: SIM115
    files, number = held
    for file in files:  # type: ignore[attr-defined]
        fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * number)  # type: ignore[operator]
    held[1] = number + 1  # type: ignore[operator]
    return 256 * 192


def keys() -> int:
    """Keys in a keyring of the process."""
    number = len(held)
    for one in range(number * 50, number * 50 + 50):
        _checked(libc.syscall(_SYS_ADD_KEY, b"user", b"%d" % one, bytes(100), 100,
                              _PROCESS_KEYRING), "add_key")
    held.append(None)
    return 50 * 400


def netlink() -> int:
    """Sockets of netlink that nobody binds."""
    held.extend(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) for _ in range(16))
    return 16 * 2560


def signals() -> int:
    """Signals that are queued and blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMAX})
    for _ in range(200):
        _checked(libc.sigqueue(os.getpid(), signal.SIGRTMAX, None), "sigqueue")
    return 200 * 80


PROGRAMS: dict[str, tuple[Callable[[], int], str]] = {
    "pipes": (pipes, r"\b(anon_)?pipe_write"),
    "unix": (unix, r"unix_stream_sendmsg"),
    "tcp": (tcp, r"tcp_sendmsg"),
    "tmpfs": (tmpfs, r"shmem_(alloc|get)_folio"),
    "inodes": (inodes, r"shmem_(get|alloc)_inode|d_alloc"),
    "tables": (tables, r"pte_alloc"),
    "threads": (threads, r"dup_task_struct|copy_process|untracked"),
    "eventfd": (eventfd, r"eventfd"),
    "epoll": (epoll, r"do_epoll_ctl|ep_insert"),
    "bpf": (bpf, r"array_map_alloc|map_create|__sys_bpf"),
    "io_uring": (io_uring, r"io_uring_setup|io_create_region|io_allocate_scq|io_ring_ctx_alloc"),
    "messages": (messages, r"load_msg|do_msgsnd|alloc_msg"),
    "huge": (huge, r"do_huge_pmd_anonymous_page"),
    "cgroup": (cgroup, r"shmem_(alloc|get)_folio"),
    "dentries": (dentries, r"d_alloc"),
    "timers": (timers, r"timer_create"),
    "locks": (locks, r"fcntl_setlk|posix_lock_inode"),
    "keys": (keys, r"add_key"),
    "netlink": (netlink, r"netlink_create|sk_prot_alloc"),
    "signals": (signals, r"sigqueue"),
}
"""What each does, and which stacks, or what note, are its memory."""


SLOWER = {"timers": 1 / 8, "signals": 1 / 24, "keys": 1 / 2}
"""Of what a user may have only so many (RLIMIT_SIGPENDING, kernel/keys/root_maxbytes): their share
of the rate."""


def start(what: str, rate: float) -> subprocess.Popen[bytes]:
    """The program, leaking; closing its standard input ends it."""
    return subprocess.Popen(
        [sys.executable, __file__, what, str(rate * SLOWER.get(what, 1))], stdin=subprocess.PIPE)


def _relay() -> None:
    """A process has so many files at most: a child goes on without them, this one keeps them."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
    held.clear()
    os.closerange(3, 1 << 20)


def main() -> None:
    what, rate = sys.argv[1], float(sys.argv[2])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    leak = PROGRAMS[what][0]
    began, taken = time.monotonic(), 0
    try:
        while not select.select([sys.stdin], [], [],
                                max(began + taken / rate - time.monotonic(), 0))[0]:
            try:
                taken += leak()
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                _relay()
    finally:
        for one in at_end:
            one()
    os._exit(0)


if __name__ == "__main__":
    main()
