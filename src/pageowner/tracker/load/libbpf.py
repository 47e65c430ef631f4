"""libbpf through ctypes: load BPF objects, pin and reopen what they hold. Nothing of ours in it.

Every function raises `BpfError`, an OSError with the last lines that libbpf wrote, when libbpf
or the kernel refuses. File descriptors are owned by their objects and closed with them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from collections import deque
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pageowner.system.closing import Closing
from pageowner.tracker.load import libbpf_abi as abi
from pageowner.tracker.load.btf import KernelTypes
from pageowner.tracker.load.libbpf_abi import (
    ARRAY,
    MMAPABLE,
    SOCKET_FILTER,
    LinkInfo,
    MapInfo,
    ProgramInfo,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ARRAY",
    "MMAPABLE",
    "SOCKET_FILTER",
    "BpfError",
    "Libbpf",
    "LibbpfMissing",
    "LinkInfo",
    "MapInfo",
    "Object",
    "ProgramInfo",
    "libbpf",
]

_LEVEL_DEBUG = 2
_LOG_BYTES = 1 << 20


class LibbpfMissing(Exception):
    """There is no libbpf, or it is too old; the text says what to install."""


class BpfError(OSError):
    """libbpf or the kernel refused; ``log`` has libbpf's last lines, oldest first."""

    def __init__(self, number: int, what: str, log: tuple[str, ...] = ()) -> None:
        said = f" ({'; '.join(log[-3:])})" if log else ""
        super().__init__(number, f"{what}: {os.strerror(number)}{said}")
        self.log = log


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Signals that end this process do so afterwards: libbpf calls back to say something, and an
    exception there is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: handler
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
                if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda *arrived: came.append(arrived))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrived, frame in came:
            handlers[signal.Signals(arrived)](arrived, frame)


class Libbpf(KernelTypes):
    """The library itself; use the one of `libbpf()`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.lib = library
        self.log: deque[str] = deque(maxlen=1 << 16)
        self.debug = False
        self._found = {}
        for name, (result, arguments) in abi.SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError as error:
                raise LibbpfMissing(
                    f"libbpf is too old (no {name}); 0.8 or newer is needed: apt install libbpf1"
                ) from error
            function.restype = result
            function.argtypes = arguments
        self._print = abi.PRINT(self._said)
        library.libbpf_set_print(self._print)
        self._vsnprintf = ctypes.CDLL(None).vsnprintf
        self._vsnprintf.argtypes = (c_char_p, c_size_t, c_char_p, c_void_p)

    def _said(self, level: int, text: bytes, arguments: int) -> int:
        """libbpf's own words; va_list is passed as a pointer on x86-64, arm64 and riscv64."""
        if level >= _LEVEL_DEBUG and not self.debug:
            return 0
        buffer = ctypes.create_string_buffer(_LOG_BYTES)
        self._vsnprintf(buffer, len(buffer), text, arguments)
        for line in buffer.value.decode("utf-8", "replace").splitlines():
            self.log.append(line.removeprefix("libbpf: "))
        return 0

    def error(self, what: str, code: int) -> BpfError:
        """An error from a negative errno (or -1 and errno), with what libbpf said last."""
        number = -code if code < -1 else ctypes.get_errno() or errno.EINVAL
        lines = tuple(self.log)
        self.log.clear()
        return BpfError(number, what, lines)

    def check(self, what: str, code: int) -> int:
        """``code`` unless it is negative, else raise."""
        if code < 0:
            raise self.error(what, code)
        return code

    def open(self, image: bytes, name: str) -> Object:
        """Open a compiled object; nothing reaches the kernel before `Object.load`."""
        options = abi.OpenOptions(ctypes.sizeof(abi.OpenOptions), name.encode())
        ctypes.set_errno(0)
        self.log.clear()
        with _interrupts_wait():
            pointer = self.lib.bpf_object__open_mem(image, len(image), byref(options))
        if not pointer:
            raise self.error(f"open {name}", -1)
        return Object(self, pointer, image)

    def create_array(self, name: str, value_size: int, entries: int, flags: int = 0) -> int:
        """A file descriptor of a new BPF array."""
        options = abi.MapOptions(sz=ctypes.sizeof(abi.MapOptions), map_flags=flags)
        ctypes.set_errno(0)
        code = self.lib.bpf_map_create(ARRAY, name.encode(), 4, value_size, entries,
                                       byref(options))
        return self.check(f"create an array of {entries} times {value_size} bytes", code)

    def load_program(self, name: str, kind: int, instructions: bytes) -> int:
        """A file descriptor of a program of these instructions (struct bpf_insn, 8 bytes each)."""
        ctypes.set_errno(0)
        self.log.clear()
        code = self.lib.bpf_prog_load(kind, name.encode(), b"GPL", instructions,
                                      len(instructions) // 8, None)
        return self.check(f"load {name}", code)

    def try_tracing(self, function: str) -> None:
        """Have the kernel verify a program that does nothing where this function begins. Raises
        BpfError as `Object.load` would for one that does something, but in microseconds."""
        number = self.check(f"find {function}", self.lib.btf__find_by_name_kind(
            self._kernel_btf(), function.encode(), abi.KIND_FUNC))
        options = abi.LoadOptions(sz=ctypes.sizeof(abi.LoadOptions), attach_btf_id=number,
                                  expected_attach_type=abi.FENTRY)
        ctypes.set_errno(0)
        self.log.clear()
        code = self.lib.bpf_prog_load(abi.TRACING, b"try_tracing", b"GPL", abi.NOTHING,
                                      len(abi.NOTHING) // 8, byref(options))
        os.close(self.check(f"trace {function}", code))

    def lookup(self, fd: int, key: bytes, size: int) -> bytes | None:
        """The value of ``size`` bytes at a key; None if there is none."""
        value = ctypes.create_string_buffer(size)
        ctypes.set_errno(0)
        code = self.lib.bpf_map_lookup_elem(fd, key, value)
        if code < 0:
            error = self.error("look up a map", code)
            if error.errno == errno.ENOENT:
                return None
            raise error
        return value.raw

    def update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value at a key."""
        ctypes.set_errno(0)
        self.check("update a map", self.lib.bpf_map_update_elem(fd, key, value, flags))

    def update_all(self, fd: int, values: dict[int, int]) -> None:
        """Set many 4-byte values at 4-byte keys at once. In a map of maps every single update
        waits for a grace period of RCU, this waits once (where the kernel has it, 5.17)."""
        count = c_uint32(len(values))
        keys = (c_uint32 * len(values))(*values)
        new = (c_uint32 * len(values))(*values.values())
        if values and self.lib.bpf_map_update_batch(fd, keys, new, byref(count), None) < 0:
            for key, value in values.items():
                self.update(fd, key.to_bytes(4, "little"), value.to_bytes(4, "little"))

    def keys(self, fd: int, size: int) -> Iterator[bytes]:
        """All keys, ``size`` bytes each, of a map that may change meanwhile."""
        key = None
        following = ctypes.create_string_buffer(size)
        while self.lib.bpf_map_get_next_key(fd, key, following) == 0:
            key = following.raw
            yield key

    def run(self, fd: int, *arguments: int) -> int:
        """Run a raw tracepoint program once with these arguments (BPF_PROG_TEST_RUN, 5.10)."""
        context = (c_uint64 * len(arguments))(*(a & 0xFFFFFFFFFFFFFFFF for a in arguments))
        options = abi.RunOptions(sz=ctypes.sizeof(abi.RunOptions), ctx_size_in=8 * len(context),
                                 ctx_in=ctypes.addressof(context))
        code = self.lib.bpf_prog_test_run_opts(fd, byref(options))
        if code < 0:
            raise self.error("run a program", code)
        return int(options.retval)

    def run_each(self, fd: int, rows: NDArray[np.uint64]) -> None:
        """`run` once for each row of arguments: an array of the shape (times, arguments)."""
        import numpy as np

        rows = np.ascontiguousarray(rows, np.uint64)
        options = abi.RunOptions(sz=ctypes.sizeof(abi.RunOptions), ctx_size_in=rows[:1].nbytes)
        run, passed = self.lib.bpf_prog_test_run_opts, byref(options)
        begin = rows.ctypes.data
        for at in range(begin, begin + rows.nbytes, max(rows[:1].nbytes, 1)):
            options.ctx_in = at
            code = run(fd, passed)
            if code < 0:
                raise self.error("run a program", code)

    def attach_raw(self, program: int, tracepoint: str) -> int:
        """Attach a loaded program to a raw tracepoint, while the link's descriptor, which this
        gives, is open or pinned."""
        ctypes.set_errno(0)
        return self.check(f"attach to {tracepoint}",
                          self.lib.bpf_raw_tracepoint_open(tracepoint.encode(), program))

    def pin(self, fd: int, path: str) -> None:
        """Give a map, program or link a name in bpffs; it then outlives this process."""
        ctypes.set_errno(0)
        self.check(f"pin {path}", self.lib.bpf_obj_pin(fd, os.fsencode(path)))

    def get(self, path: str, shown: str = "") -> int:
        """A file descriptor of what is pinned there; ``shown`` is its path in an error."""
        ctypes.set_errno(0)
        return self.check(f"open {shown or path}", self.lib.bpf_obj_get(os.fsencode(path)))

    def map_by_id(self, number: int) -> int:
        """A file descriptor of a map."""
        ctypes.set_errno(0)
        return self.check(f"open map {number}", self.lib.bpf_map_get_fd_by_id(number))

    def program_by_id(self, number: int) -> int:
        """A file descriptor of a program."""
        ctypes.set_errno(0)
        return self.check(f"open program {number}", self.lib.bpf_prog_get_fd_by_id(number))

    def version(self) -> str:
        """Such as ``1.1``."""
        return f"{self.lib.libbpf_major_version()}.{self.lib.libbpf_minor_version()}"

    def numbers(self, kind: str) -> list[int]:
        """Of all that are in the kernel now: ``kind`` is ``map`` or ``prog``."""
        following, found = getattr(self.lib, f"bpf_{kind}_get_next_id"), []
        number = c_uint32(0)
        while following(number.value, byref(number)) == 0:
            found.append(number.value)
        return found

    def loaded_names(self) -> list[str]:
        """Names of all programs and maps in the kernel now, in no order."""
        names = []
        for kind, open_by_id, info in (("prog", self.program_by_id, self.program_info),
                                       ("map", self.map_by_id, self.map_info)):
            for number in self.numbers(kind):
                try:
                    fd = open_by_id(number)
                except BpfError:
                    continue  # it ended meanwhile
                names.append(info(fd).name)
                os.close(fd)
        return names

    def _info(self, fd: int, info: ctypes.Structure) -> None:
        size = c_uint32(ctypes.sizeof(info))
        ctypes.set_errno(0)
        code = self.lib.bpf_obj_get_info_by_fd(fd, byref(info), byref(size))
        self.check("ask for information", code)

    def map_info(self, fd: int) -> MapInfo:
        """What the kernel says of a map."""
        info = abi.MapInfoStructure()
        self._info(fd, info)
        return MapInfo(info.type, info.id, info.name.decode(errors="replace"), info.key_size,
                       info.value_size, info.max_entries, info.map_flags)

    def program_info(self, fd: int) -> ProgramInfo:
        """What the kernel says of a program, with the addresses of its functions and the ids of its
        maps, of which 64 is the most (MAX_USED_MAPS in include/linux/bpf.h, 6.12)."""
        addresses, maps = (c_uint64 * 64)(), (c_uint32 * 64)()
        info = abi.ProgramInfoStructure(nr_jited_ksyms=64, jited_ksyms=ctypes.addressof(addresses),
                                        nr_map_ids=64, map_ids=ctypes.addressof(maps))
        self._info(fd, info)
        return ProgramInfo(info.id, info.name.decode(errors="replace"), info.recursion_misses,
                           info.run_cnt, info.run_time_ns,
                           tuple(addresses[: min(info.nr_jited_ksyms, 64)]),
                           tuple(maps[: min(info.nr_map_ids, 64)]))

    def link_info(self, fd: int) -> LinkInfo:
        """What the kernel says of a link."""
        info = abi.LinkInfoStructure()
        self._info(fd, info)
        return LinkInfo(info.id, info.prog_id)


@dataclass
class Link:
    """A program attached to what it watches, for as long as this is open or pinned."""

    bpf: Libbpf
    pointer: int
    fd: int

    def close(self) -> None:
        """Let go of it; if it is not pinned, the program is detached."""
        if self.pointer:
            self.bpf.lib.bpf_link__destroy(self.pointer)
            self.pointer = 0


@dataclass
class Object(Closing):
    """An opened BPF object: its maps and programs by name. Close it, or use ``with``."""

    bpf: Libbpf
    pointer: int
    image: bytes
    links: list[Link] = field(default_factory=list)

    def close(self) -> None:
        """Let go of everything; what is not pinned ends."""
        self.detach()
        if self.pointer:
            self.bpf.lib.bpf_object__close(self.pointer)
            self.pointer = 0

    def programs(self) -> list[str]:
        """Names of all programs."""
        return self._names("program")

    def maps(self) -> list[str]:
        """Names of all maps; those of global variables end in .rodata, .data or .bss."""
        return self._names("map")

    def _names(self, kind: str) -> list[str]:
        following = getattr(self.bpf.lib, f"bpf_object__next_{kind}")
        name_of = getattr(self.bpf.lib, f"bpf_{kind}__name")
        names, at = [], None
        while at := following(self.pointer, at):
            names.append(name_of(at).decode())
        return names

    def _find(self, kind: str, name: str) -> int:
        find = getattr(self.bpf.lib, f"bpf_object__find_{kind}_by_name")
        pointer: int | None = find(self.pointer, name.encode())
        if not pointer:
            raise KeyError(name)
        return pointer

    def choose(self, *names: str) -> None:
        """Load these programs and no others."""
        for name in self.programs():
            self.bpf.lib.bpf_program__set_autoload(self._find("program", name), name in names)

    def target(self, program: str, function: str) -> None:
        """Which kernel function a fentry or fexit program traces; before `load`."""
        ctypes.set_errno(0)
        code = self.bpf.lib.bpf_program__set_attach_target(self._find("program", program), 0,
                                                           function.encode())
        self.bpf.check(f"trace {function}", code)

    def resize(self, name: str, entries: int | None = None, value_size: int | None = None) -> None:
        """Set the size of a map before `load`."""
        if value_size is not None:
            code = self.bpf.lib.bpf_map__set_value_size(self._find("map", name), value_size)
            self.bpf.check(f"size of {name}", code)
        if entries is not None:
            code = self.bpf.lib.bpf_map__set_max_entries(self._find("map", name), entries)
            self.bpf.check(f"size of {name}", code)

    def inner(self, name: str, fd: int) -> None:
        """A map that is like those that a map of maps will hold; before `load`."""
        self.bpf.check(f"inner map of {name}",
                       self.bpf.lib.bpf_map__set_inner_map_fd(self._find("map", name), fd))

    def reuse(self, name: str, fd: int) -> None:
        """Use a map that is there already instead of making one; before `load`."""
        self.bpf.check(f"share {name}", self.bpf.lib.bpf_map__reuse_fd(self._find("map", name), fd))

    def initial(self, name: str) -> memoryview:
        """The bytes of a map of global variables, to be set before `load`."""
        size = c_size_t()
        address = self.bpf.lib.bpf_map__initial_value(self._find("map", name), byref(size))
        if not address:
            raise self.bpf.error(f"global variables {name}", -1)
        return memoryview((ctypes.c_ubyte * size.value).from_address(address)).cast("B")

    def load(self) -> None:
        """Make the maps and have the kernel verify the chosen programs."""
        ctypes.set_errno(0)
        self.bpf.log.clear()
        with _interrupts_wait():
            code = self.bpf.lib.bpf_object__load(self.pointer)
        self.bpf.check("load the BPF object", code)

    def map_fd(self, name: str) -> int:
        """File descriptor of a map after `load`."""
        return self.bpf.check(f"map {name}", self.bpf.lib.bpf_map__fd(self._find("map", name)))

    def program_fd(self, name: str) -> int:
        """File descriptor of a program after `load`."""
        return self.bpf.check(f"program {name}",
                              self.bpf.lib.bpf_program__fd(self._find("program", name)))

    def attach(self, name: str) -> Link:
        """Attach a program where its section says, until this object is closed."""
        self.links.append(self.attach_apart(name))
        return self.links[-1]

    def attach_apart(self, name: str) -> Link:
        """As `attach`, but the link outlives this object."""
        ctypes.set_errno(0)
        self.bpf.log.clear()
        with _interrupts_wait():
            link = self.bpf.lib.bpf_program__attach(self._find("program", name))
        if not link:
            raise self.bpf.error(f"attach {name}", -1)
        return Link(self.bpf, link,
                    self.bpf.check(f"link of {name}", self.bpf.lib.bpf_link__fd(link)))

    def detach(self) -> None:
        """Destroy the links that are not pinned."""
        for link in self.links:
            link.close()
        self.links.clear()


_loaded: list[Libbpf] = []


def libbpf() -> Libbpf:
    """The system's libbpf: libbpf.so.1, else .so.0 from 0.8 on. Raises `LibbpfMissing`."""
    if not _loaded:
        for name in ("libbpf.so.1", "libbpf.so.0"):
            try:
                library = ctypes.CDLL(name, use_errno=True)
            except OSError:
                continue
            _loaded.append(Libbpf(library))
            break
        else:
            raise LibbpfMissing(
                "libbpf.so.1 is not installed; on Debian and Ubuntu: apt install libbpf1"
            )
    return _loaded[0]
