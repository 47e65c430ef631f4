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
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

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

ARRAY = 2
"""BPF_MAP_TYPE_ARRAY."""

SOCKET_FILTER = 1
"""BPF_PROG_TYPE_SOCKET_FILTER."""

MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE."""

_TRACING, _FENTRY = 26, 24
"""BPF_PROG_TYPE_TRACING and BPF_TRACE_FENTRY."""

_NOTHING = bytes((0xB7, *bytes(7), 0x95, *bytes(7)))
"""A program that returns 0 at once."""

_KIND_FUNC = 12
"""BTF_KIND_FUNC."""

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


class _OpenOptions(ctypes.Structure):
    """The first members of struct bpf_object_open_opts (libbpf.h); sz says how many."""

    _fields_ = (("sz", c_size_t), ("object_name", c_char_p))


class _RunOptions(ctypes.Structure):
    """struct bpf_test_run_opts (bpf.h)."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


class _LoadOptions(ctypes.Structure):
    """The first members of struct bpf_prog_load_opts (bpf.h)."""

    _fields_ = (
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_uint32),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
    )


class _MapOptions(ctypes.Structure):
    """The first members of struct bpf_map_create_opts (bpf.h)."""

    _fields_ = (
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    )


class _MapInfo(ctypes.Structure):
    """The first members of struct bpf_map_info (uapi/linux/bpf.h)."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", ctypes.c_char * 16),
    )


class _ProgramInfo(ctypes.Structure):
    """The first members of struct bpf_prog_info (uapi/linux/bpf.h), to recursion_misses (5.12)."""

    _fields_ = (
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_ubyte * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", c_uint64),
        ("xlated_prog_insns", c_uint64),
        ("load_time", c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", c_uint64),
        ("name", ctypes.c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns_dev", c_uint64),
        ("netns_ino", c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", c_uint64),
        ("jited_func_lens", c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", c_uint64),
        ("nr_func_info", c_uint32),
        ("nr_line_info", c_uint32),
        ("line_info", c_uint64),
        ("jited_line_info", c_uint64),
        ("nr_jited_line_info", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("jited_line_info_rec_size", c_uint32),
        ("nr_prog_tags", c_uint32),
        ("prog_tags", c_uint64),
        ("run_time_ns", c_uint64),
        ("run_cnt", c_uint64),
        ("recursion_misses", c_uint64),
    )


class _LinkInfo(ctypes.Structure):
    """The first members of struct bpf_link_info (uapi/linux/bpf.h)."""

    _fields_ = (("type", c_uint32), ("id", c_uint32), ("prog_id", c_uint32),
                ("spare", ctypes.c_ubyte * 64))


class _BtfType(ctypes.Structure):
    """struct btf_type (uapi/linux/btf.h)."""

    _fields_ = (("name_off", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32))


class _BtfParameter(ctypes.Structure):
    """struct btf_param (uapi/linux/btf.h)."""

    _fields_ = (("name_off", c_uint32), ("type", c_uint32))


@dataclass(frozen=True)
class MapInfo:
    """What the kernel says of a map; sizes in bytes."""

    type: int
    id: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True)
class ProgramInfo:
    """What the kernel says of a program; ``run_ns`` and ``runs`` only count with bpf_stats on."""

    id: int
    name: str
    recursion_misses: int
    runs: int
    run_ns: int
    symbols: tuple[int, ...] = ()


@dataclass(frozen=True)
class LinkInfo:
    """What the kernel says of a link."""

    id: int
    program_id: int


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


_PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_major_version": (c_uint32, ()),
    "libbpf_minor_version": (c_uint32, ()),
    "libbpf_set_print": (c_void_p, (_PRINT,)),
    "bpf_object__open_mem": (c_void_p, (c_void_p, c_size_t, c_void_p)),
    "bpf_object__load": (c_int, (c_void_p,)),
    "bpf_object__close": (None, (c_void_p,)),
    "bpf_object__next_program": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__next_map": (c_void_p, (c_void_p, c_void_p)),
    "bpf_object__find_map_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_object__find_program_by_name": (c_void_p, (c_void_p, c_char_p)),
    "bpf_program__name": (c_char_p, (c_void_p,)),
    "bpf_program__fd": (c_int, (c_void_p,)),
    "bpf_program__set_autoload": (c_int, (c_void_p, c_bool)),
    "bpf_program__set_attach_target": (c_int, (c_void_p, c_int, c_char_p)),
    "bpf_program__attach": (c_void_p, (c_void_p,)),
    "bpf_map__name": (c_char_p, (c_void_p,)),
    "bpf_map__fd": (c_int, (c_void_p,)),
    "bpf_map__set_max_entries": (c_int, (c_void_p, c_uint32)),
    "bpf_map__set_value_size": (c_int, (c_void_p, c_uint32)),
    "bpf_map__set_inner_map_fd": (c_int, (c_void_p, c_int)),
    "bpf_map__reuse_fd": (c_int, (c_void_p, c_int)),
    "bpf_map__initial_value": (c_void_p, (c_void_p, POINTER(c_size_t))),
    "bpf_link__fd": (c_int, (c_void_p,)),
    "bpf_link__destroy": (c_int, (c_void_p,)),
    "bpf_prog_load": (c_int, (c_int, c_char_p, c_char_p, c_char_p, c_size_t, c_void_p)),
    "bpf_map_create": (c_int, (c_int, c_char_p, c_uint32, c_uint32, c_uint32, c_void_p)),
    "bpf_map_lookup_elem": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_update_elem": (c_int, (c_int, c_void_p, c_void_p, c_uint64)),
    "bpf_map_update_batch": (c_int, (c_int, c_void_p, c_void_p, POINTER(c_uint32), c_void_p)),
    "bpf_map_get_next_key": (c_int, (c_int, c_void_p, c_void_p)),
    "bpf_map_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_prog_get_fd_by_id": (c_int, (c_uint32,)),
    "bpf_raw_tracepoint_open": (c_int, (c_char_p, c_int)),
    "bpf_prog_get_next_id": (c_int, (c_uint32, POINTER(c_uint32))),
    "bpf_map_get_next_id": (c_int, (c_uint32, POINTER(c_uint32))),
    "bpf_prog_test_run_opts": (c_int, (c_int, c_void_p)),
    "bpf_obj_get": (c_int, (c_char_p,)),
    "bpf_obj_pin": (c_int, (c_int, c_char_p)),
    "bpf_obj_get_info_by_fd": (c_int, (c_int, c_void_p, POINTER(c_uint32))),
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__free": (None, (c_void_p,)),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__type_by_id": (c_void_p, (c_void_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
}


class Libbpf:
    """The library itself; use the one of `libbpf()`."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.lib = library
        self.log: deque[str] = deque(maxlen=1 << 16)
        self.debug = False
        for name, (result, arguments) in _SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError as error:
                raise LibbpfMissing(
                    f"libbpf is too old (no {name}); 0.8 or newer is needed: apt install libbpf1"
                ) from error
            function.restype = result
            function.argtypes = arguments
        self._print = _PRINT(self._said)
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
        options = _OpenOptions(ctypes.sizeof(_OpenOptions), name.encode())
        ctypes.set_errno(0)
        self.log.clear()
        with _interrupts_wait():
            pointer = self.lib.bpf_object__open_mem(image, len(image), byref(options))
        if not pointer:
            raise self.error(f"open {name}", -1)
        return Object(self, pointer, image)

    def create_array(self, name: str, value_size: int, entries: int, flags: int = 0) -> int:
        """A file descriptor of a new BPF array."""
        options = _MapOptions(sz=ctypes.sizeof(_MapOptions), map_flags=flags)
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
            self._kernel_btf(), function.encode(), _KIND_FUNC))
        options = _LoadOptions(sz=ctypes.sizeof(_LoadOptions), expected_attach_type=_FENTRY,
                               attach_btf_id=number)
        ctypes.set_errno(0)
        self.log.clear()
        code = self.lib.bpf_prog_load(_TRACING, b"try_tracing", b"GPL", _NOTHING,
                                      len(_NOTHING) // 8, byref(options))
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
        options = _RunOptions(sz=ctypes.sizeof(_RunOptions), ctx_size_in=ctypes.sizeof(context))
        options.ctx_in = ctypes.addressof(context)
        code = self.lib.bpf_prog_test_run_opts(fd, byref(options))
        if code < 0:
            raise self.error("run a program", code)
        return int(options.retval)

    def run_each(self, fd: int, rows: NDArray[np.uint64]) -> None:
        """`run` once for each row of arguments: an array of the shape (times, arguments)."""
        import numpy as np

        rows = np.ascontiguousarray(rows, np.uint64)
        options = _RunOptions(sz=ctypes.sizeof(_RunOptions), ctx_size_in=rows[:1].nbytes)
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

    def loaded_names(self) -> list[str]:
        """Names of all programs and maps in the kernel now, in no order."""
        names = []
        for kind, open_by_id, info in (("prog", self.program_by_id, self.program_info),
                                       ("map", self.map_by_id, self.map_info)):
            following = getattr(self.lib, f"bpf_{kind}_get_next_id")
            number = c_uint32(0)
            while following(number.value, byref(number)) == 0:
                try:
                    fd = open_by_id(number.value)
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
        info = _MapInfo()
        self._info(fd, info)
        return MapInfo(info.type, info.id, info.name.decode(errors="replace"), info.key_size,
                       info.value_size, info.max_entries, info.map_flags)

    def program_info(self, fd: int) -> ProgramInfo:
        """What the kernel says of a program, the addresses of its functions with it."""
        addresses = (c_uint64 * 64)()
        info = _ProgramInfo(nr_jited_ksyms=64, jited_ksyms=ctypes.addressof(addresses))
        self._info(fd, info)
        return ProgramInfo(info.id, info.name.decode(errors="replace"), info.recursion_misses,
                           info.run_cnt, info.run_time_ns,
                           tuple(addresses[: min(info.nr_jited_ksyms, 64)]))

    def link_info(self, fd: int) -> LinkInfo:
        """What the kernel says of a link."""
        info = _LinkInfo()
        self._info(fd, info)
        return LinkInfo(info.id, info.prog_id)

    def function_parameters(self, name: str) -> list[str] | None:
        """Names of the parameters of a function of the running kernel, from its BTF.

        None if BTF has no such function. BTF is described in Documentation/bpf/btf.rst.
        """
        btf = self._kernel_btf()
        number = self.lib.btf__find_by_name_kind(btf, name.encode(), _KIND_FUNC)
        if number < 0:
            return None
        function = _BtfType.from_address(self.lib.btf__type_by_id(btf, number))
        address = self.lib.btf__type_by_id(btf, function.size_or_type)
        count = _BtfType.from_address(address).info & 0xFFFF
        parameters = (_BtfParameter * count).from_address(address + ctypes.sizeof(_BtfType))
        return [self.lib.btf__name_by_offset(btf, p.name_off).decode() for p in parameters]

    def type_size(self, name: str) -> int:
        """Bytes of a struct of the running kernel, from its BTF. Raises BpfError."""
        kind_struct = 4
        btf = self._kernel_btf()
        number = self.check(f"find struct {name}",
                            self.lib.btf__find_by_name_kind(btf, name.encode(), kind_struct))
        return int(_BtfType.from_address(self.lib.btf__type_by_id(btf, number)).size_or_type)

    def _kernel_btf(self) -> int:
        if not hasattr(self, "_btf"):
            ctypes.set_errno(0)
            btf = self.lib.btf__load_vmlinux_btf()
            if not btf:
                raise self.error("read the kernel's BTF", -1)
            self._btf: int = btf
        return self._btf


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
class Object:
    """An opened BPF object: its maps and programs by name. Close it, or use ``with``."""

    bpf: Libbpf
    pointer: int
    image: bytes
    links: list[Link] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of everything; what is not pinned ends."""
        self.detach()
        if self.pointer:
            self.bpf.lib.bpf_object__close(self.pointer)
            self.pointer = 0

    def programs(self) -> list[str]:
        """Names of all programs."""
        names, at = [], None
        while at := self.bpf.lib.bpf_object__next_program(self.pointer, at):
            names.append(self.bpf.lib.bpf_program__name(at).decode())
        return names

    def maps(self) -> list[str]:
        """Names of all maps; those of global variables end in .rodata, .data or .bss."""
        names, at = [], None
        while at := self.bpf.lib.bpf_object__next_map(self.pointer, at):
            names.append(self.bpf.lib.bpf_map__name(at).decode())
        return names

    def _program(self, name: str) -> int:
        pointer: int | None = self.bpf.lib.bpf_object__find_program_by_name(self.pointer,
                                                                            name.encode())
        if not pointer:
            raise KeyError(name)
        return pointer

    def _map(self, name: str) -> int:
        pointer: int | None = self.bpf.lib.bpf_object__find_map_by_name(self.pointer,
                                                                        name.encode())
        if not pointer:
            raise KeyError(name)
        return pointer

    def choose(self, *names: str) -> None:
        """Load these programs and no others."""
        for name in self.programs():
            self.bpf.lib.bpf_program__set_autoload(self._program(name), name in names)

    def target(self, program: str, function: str) -> None:
        """Which kernel function a fentry or fexit program traces; before `load`."""
        ctypes.set_errno(0)
        code = self.bpf.lib.bpf_program__set_attach_target(self._program(program), 0,
                                                           function.encode())
        self.bpf.check(f"trace {function}", code)

    def resize(self, name: str, entries: int | None = None, value_size: int | None = None) -> None:
        """Set the size of a map before `load`."""
        if value_size is not None:
            code = self.bpf.lib.bpf_map__set_value_size(self._map(name), value_size)
            self.bpf.check(f"size of {name}", code)
        if entries is not None:
            code = self.bpf.lib.bpf_map__set_max_entries(self._map(name), entries)
            self.bpf.check(f"size of {name}", code)

    def inner(self, name: str, fd: int) -> None:
        """A map that is like those that a map of maps will hold; before `load`."""
        self.bpf.check(f"inner map of {name}",
                       self.bpf.lib.bpf_map__set_inner_map_fd(self._map(name), fd))

    def reuse(self, name: str, fd: int) -> None:
        """Use a map that is there already instead of making one; before `load`."""
        self.bpf.check(f"share {name}", self.bpf.lib.bpf_map__reuse_fd(self._map(name), fd))

    def initial(self, name: str) -> memoryview:
        """The bytes of a map of global variables, to be set before `load`."""
        size = c_size_t()
        address = self.bpf.lib.bpf_map__initial_value(self._map(name), byref(size))
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
        return self.bpf.check(f"map {name}", self.bpf.lib.bpf_map__fd(self._map(name)))

    def program_fd(self, name: str) -> int:
        """File descriptor of a program after `load`."""
        return self.bpf.check(f"program {name}", self.bpf.lib.bpf_program__fd(self._program(name)))

    def attach(self, name: str) -> Link:
        """Attach a program where its section says, until this object is closed."""
        self.links.append(self.attach_apart(name))
        return self.links[-1]

    def attach_apart(self, name: str) -> Link:
        """As `attach`, but the link outlives this object."""
        ctypes.set_errno(0)
        self.bpf.log.clear()
        with _interrupts_wait():
            link = self.bpf.lib.bpf_program__attach(self._program(name))
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
