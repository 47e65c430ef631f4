"""What rows can be grouped, filtered and labelled by: every key as numbers and their labels.

Arrow's functions are used where there are nulls alone: their first use imports pyarrow.compute,
which takes longer than most questions.

A key gives one number a row and the label of each number, so that what follows works on numbers;
texts derived from a stack (module, subsystem) are computed once for every distinct stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from pageowner.analysis.filters import ALIASES, KEYS, key_names
from pageowner.errors import PageownerError, UsageError
from pageowner.kernel.cgroups import charge_state, path_state
from pageowner.kernel.containers import OF_PATH
from pageowner.model.amounts import row_pages
from pageowner.model.filled import filled, known
from pageowner.model.handle_names import handle_name, is_handle_name
from pageowner.model.hook_states import ACTIVE, is_whole
from pageowner.model.live import OBJECT_KEYS
from pageowner.model.schema import BY_KEY
from pageowner.model.source_kinds import OBJECTS
from pageowner.model.user_names import user_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pageowner.analysis.coded import Coded
    from pageowner.model.snapshot import Snapshot

__all__ = ["ALIASES", "KEYS", "Key", "blocks_pages", "check_keys", "check_users", "coded_stacks",
           "column", "key", "key_names", "knows_users", "stacks_or_users", "times"]


class Key(NamedTuple):
    """``codes``: one place in ``labels`` per row (int64); ``labels``: the distinct values, with
    null as the label of rows that do not know."""

    name: str
    codes: np.ndarray
    labels: pa.Array


def blocks_pages(snapshot: Snapshot) -> np.ndarray:
    """Base pages that each row stands for, int64."""
    return row_pages(snapshot.table)


def times(snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Each row's time of allocation (uint64, ns since boot) and whether it is known (else 0)."""
    column = snapshot.table["ts_ns"]
    return filled(column, 0), known(column)


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def _coded(name: str, encoded: pa.DictionaryArray) -> Key:
    labels = encoded.dictionary
    if encoded.null_count:
        codes = filled(encoded.indices, len(labels)).astype(np.int64)
        labels = pa.concat_arrays([labels, pa.nulls(1, labels.type)])
    else:
        codes = encoded.indices.to_numpy().astype(np.int64)
    return Key(name, codes, labels)


def _relabelled(key: Key, labels: pa.Array) -> Key:
    """The same rows under labels computed from the distinct ones, equal ones joined."""
    encoded = labels.dictionary_encode()
    joined = _coded(key.name, encoded)
    return Key(key.name, joined.codes[key.codes], joined.labels)


_BULK = "vmalloc and other bulk allocations"
"""What untracked memory without a flag is, but for an interrupt's, where the hook at the end of the
bulk allocator is missing: kernel stacks, vmalloc, page pools."""


def _by_flags(snapshot: Snapshot, found: Key, states: bool = True) -> Key:
    """Rows without a label are at least what their page flags say, marked with their state unless
    it does not matter."""
    from pageowner.kernel import pageflags

    missing = found.labels.is_null().to_numpy(zero_copy_only=False)[found.codes]
    flags = snapshot.table["page_flags"]
    if flags.null_count == len(flags):
        return found
    words = flags.fill_null(0).to_numpy()
    kinds = np.zeros(len(words), np.int64)
    kinds[missing] = pageflags.kind(words[missing])
    state = key(snapshot, "state")
    names = [label or "owned" for label in state.labels.to_pylist()]
    labels = found.labels.to_pylist()
    base = len(labels)
    no_bulk = not is_whole(snapshot.meta.hooks.get("alloc_pages_bulk", ACTIVE))
    codes = np.where(missing, base + kinds * len(names) + state.codes, found.codes)
    for kind in pageflags.KINDS:
        named = pageflags.KIND_NAMES.get(kind, kind)
        bulk = _BULK if kind == "kernel" and no_bulk else named
        labels += [named if state == "owned" or not states
                   else f"{bulk if state == 'untracked' else named} ({state})" for state in names]
    present, index = np.unique(codes, return_inverse=True)
    return _relabelled(Key(found.name, index.astype(np.int64), found.labels),
                       pa.array([labels[code] for code in present], pa.string()))


def _slab_by_flag(snapshot: Snapshot, found: Key) -> Key:
    """Of rows without a stack, the page flag tells those of slabs."""
    from pageowner.kernel import flag_bits

    flags = snapshot.table["page_flags"]
    if flags.null_count == len(flags):
        return found
    missing = found.labels.is_null().to_numpy(zero_copy_only=False)[found.codes]
    slab = (flags.fill_null(0).to_numpy() & np.uint64(flag_bits.mask("slab"))) != 0
    codes = np.where(missing & slab, len(found.labels), found.codes)
    present, index = np.unique(codes, return_inverse=True)
    labels = [*found.labels.to_pylist(), "slab"]
    return _relabelled(Key(found.name, index.astype(np.int64), found.labels),
                       pa.array([labels[code] for code in present], pa.string()))


def column(snapshot: Snapshot, name: str) -> Key:
    """A column of the snapshot's table as it is."""
    return _coded(name, _dictionary(snapshot.table[name]))


def key(snapshot: Snapshot, name: str) -> Key:
    """One of `KEYS` for the rows of a snapshot. Raises UsageError for an unknown name."""
    (name,) = key_names([name])
    table = snapshot.table
    if BY_KEY[name].of_stack:
        # These look at frames, and so does the import; most reports need neither.
        from pageowner.analysis import coded

        stack = key(snapshot, "stack")
        told = coded.OF_STACKS[name](coded_stacks(snapshot))
        found = _relabelled(Key(name, stack.codes, stack.labels),
                            coded.labels_of(_without_handles(snapshot, stack.labels), told))
        if name == "subsystem" and found.labels.null_count:
            return _by_flags(snapshot, found)
        if name == "allocator" and found.labels.null_count:
            return _slab_by_flag(snapshot, found)
        return found
    if BY_KEY[name].of_notes:
        return _charge_states(snapshot, name)
    if BY_KEY[name].of_path:
        paths, names = column(snapshot, BY_KEY[name].source), snapshot.meta.container_names()
        return _relabelled(Key(name, paths.codes, paths.labels), pa.array(
            [OF_PATH[name](path, names) for path in paths.labels.to_pylist()], pa.string()))
    found = _coded(name, _dictionary(table[BY_KEY[name].name]))
    if name == "gfp" and found.labels.null_count:
        return _or(found, _labelled(snapshot, "gfp_mask", lambda mask: f"{mask:#x}"))
    if name == "user" and found.labels.null_count and knows_users(snapshot):
        return _by_flags(snapshot, found, states=False)
    if name == "stack" and found.labels.null_count and _has_handles(snapshot):
        return _or(found, _labelled(snapshot, "handle", handle_name))
    return found


def knows_users(snapshot: Snapshot) -> bool:
    """Whether it was looked for who has each page."""
    users = snapshot.table["user"]
    return bool(snapshot.meta.extra.get("users")) or not len(users) or bool(
        users.null_count < len(users))


def check_keys(snapshot: Snapshot, names: Sequence[str]) -> None:
    """Raises UsageError for a key that the rows cannot have: objects have no order."""
    if snapshot.meta.kind == OBJECTS:
        for name in names:
            if name not in OBJECT_KEYS:
                raise UsageError(f"objects have no {name}; they can be grouped by"
                                 f" {', '.join(OBJECT_KEYS)}")


def check_users(snapshot: Snapshot) -> None:
    """Raises PageownerError if it was not looked for who has each page."""
    if not knows_users(snapshot):
        raise PageownerError(f"{snapshot.meta.source or 'the source'} does not say what uses each"
                             " page now: captures that 'pageowner save' writes do, and vmcores")


def stacks_or_users(snapshot: Snapshot) -> Key:
    """The key ``stack``, and where there is none the state and who has the page now, if that was
    looked for (`pageowner.model.user_names`)."""
    found = key(snapshot, "stack")
    if not knows_users(snapshot) or not found.labels.null_count:
        return found
    user, state = key(snapshot, "user"), key(snapshot, "state")
    pairs, codes = np.unique(user.codes * max(len(state.labels), 1) + state.codes,
                             return_inverse=True)
    users_of, states = user.labels.to_pylist(), state.labels.to_pylist()
    labels = [None if users_of[who] is None else user_name(states[how] or "owned", users_of[who])
              for who, how in (divmod(pair, max(len(states), 1)) for pair in pairs.tolist())]
    return _or(found, _relabelled(Key("user", codes.astype(np.int64), user.labels),
                                  pa.array(labels, pa.string())))


def _has_handles(snapshot: Snapshot) -> bool:
    handles = snapshot.table["handle"]
    return bool(handles.null_count < len(handles))


def _without_handles(snapshot: Snapshot, stacks: pa.Array) -> pa.Array:
    """Labels of stacks with null for those of which only the handle is known."""
    if not _has_handles(snapshot):
        return stacks
    return pa.array([None if is_handle_name(stack) else stack for stack in stacks.to_pylist()],
                    stacks.type)


def _charge_states(snapshot: Snapshot, name: str) -> Key:
    """By the record's lines; a live capture has none, but says which cgroups are gone."""
    notes, memcg = column(snapshot, BY_KEY[name].source), column(snapshot, "memcg")
    by_notes = [None if text is None else charge_state(text) for text in notes.labels.to_pylist()]
    by_path = [None if path is None else path_state(path) for path in memcg.labels.to_pylist()]
    unsaid = notes.labels.is_null().to_pylist()
    width = max(len(by_path), 1)
    pairs, codes = np.unique(notes.codes * width + memcg.codes, return_inverse=True)
    labels = [by_path[path] if unsaid[note] else by_notes[note]
              for note, path in (divmod(pair, width) for pair in pairs.tolist())]
    return _relabelled(Key(name, codes.astype(np.int64), notes.labels),
                       pa.array(labels, pa.string()))


def coded_stacks(snapshot: Snapshot) -> Coded:
    """The distinct stacks as numbers, at the places that the key ``stack`` has for them; made once
    for a snapshot."""
    from pageowner.analysis.coded import coded

    found: Coded | None = snapshot.kept.get("coded_stacks")
    if found is None:
        found = snapshot.kept["coded_stacks"] = coded(key(snapshot, "stack").labels)
    return found


def _labelled(snapshot: Snapshot, name: str, spell: Callable[[int], str]) -> Key:
    """A column of numbers, each as what ``spell`` makes of it."""
    numbers = column(snapshot, name)
    return numbers._replace(labels=pa.array(
        [None if number is None else spell(number) for number in numbers.labels.to_pylist()],
        pa.string()))


def _or(found: Key, other: Key) -> Key:
    """A key, and where it does not know the other: a mask without names, as in dumps before 4.6, is
    better than nothing itself, and so is the handle of a stack."""
    missing = found.labels.is_null().to_numpy(zero_copy_only=False)[found.codes]
    labels = found.labels.to_pylist() + other.labels.to_pylist()
    codes = np.where(missing, other.codes + len(found.labels), found.codes)
    present, index = np.unique(codes, return_inverse=True)
    return _relabelled(Key(found.name, index.astype(np.int64), found.labels),
                       pa.array([labels[code] for code in present], pa.string()))
