"""What libbpf and bpf(2) look like from outside: numbers, structures, signatures of functions; for
`libbpf`, and with nothing of ours in it.

Structures are cut behind the last member that is used: their first word says how long they are.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

__all__ = [
    "ARRAY", "FENTRY", "KIND_FUNC", "MMAPABLE", "NOTHING", "PRINT", "SIGNATURES",
    "SOCKET_FILTER", "TRACING", "BtfArray", "BtfMember", "BtfParameter", "BtfType", "LinkInfo",
    "LinkInfoStructure", "LoadOptions", "MapInfo", "MapInfoStructure", "MapOptions", "OpenOptions",
    "ProgramInfo", "ProgramInfoStructure", "RunOptions",
]

ARRAY = 2
"""BPF_MAP_TYPE_ARRAY."""

SOCKET_FILTER = 1
"""BPF_PROG_TYPE_SOCKET_FILTER."""

MMAPABLE = 1 << 10
"""BPF_F_MMAPABLE."""

TRACING, FENTRY = 26, 24
"""BPF_PROG_TYPE_TRACING and BPF_TRACE_FENTRY."""

NOTHING = bytes((0xB7, *bytes(7), 0x95, *bytes(7)))
"""A program that returns 0 at once."""

KIND_FUNC = 12
"""BTF_KIND_FUNC."""


class OpenOptions(ctypes.Structure):
    """The first members of struct bpf_object_open_opts (libbpf.h); sz says how many."""

    _fields_ = (("sz", c_size_t), ("object_name", c_char_p))


class RunOptions(ctypes.Structure):
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


class LoadOptions(ctypes.Structure):
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


class MapOptions(ctypes.Structure):
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


class MapInfoStructure(ctypes.Structure):
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


class ProgramInfoStructure(ctypes.Structure):
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


class LinkInfoStructure(ctypes.Structure):
    """The first members of struct bpf_link_info (uapi/linux/bpf.h)."""

    _fields_ = (("type", c_uint32), ("id", c_uint32), ("prog_id", c_uint32),
                ("spare", ctypes.c_ubyte * 64))


class BtfType(ctypes.Structure):
    """struct btf_type (uapi/linux/btf.h)."""

    _fields_ = (("name_off", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32))


class BtfMember(ctypes.Structure):
    """struct btf_member (uapi/linux/btf.h)."""

    _fields_ = (("name_off", c_uint32), ("type", c_uint32), ("offset", c_uint32))


class BtfArray(ctypes.Structure):
    """struct btf_array (uapi/linux/btf.h)."""

    _fields_ = (("type", c_uint32), ("index_type", c_uint32), ("count", c_uint32))


class BtfParameter(ctypes.Structure):
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
    maps: tuple[int, ...] = ()


@dataclass(frozen=True)
class LinkInfo:
    """What the kernel says of a link."""

    id: int
    program_id: int


PRINT = ctypes.CFUNCTYPE(c_int, c_int, c_char_p, c_void_p)

SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "libbpf_major_version": (c_uint32, ()),
    "libbpf_minor_version": (c_uint32, ()),
    "libbpf_set_print": (c_void_p, (PRINT,)),
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
    "btf__new": (c_void_p, (c_char_p, c_uint32)),
    "btf__load_vmlinux_btf": (c_void_p, ()),
    "btf__free": (None, (c_void_p,)),
    "btf__find_by_name_kind": (c_int, (c_void_p, c_char_p, c_uint32)),
    "btf__type_by_id": (c_void_p, (c_void_p, c_uint32)),
    "btf__name_by_offset": (c_char_p, (c_void_p, c_uint32)),
}
