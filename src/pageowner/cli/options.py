"""Words that mean the same for every verb: SOURCE, the filters, ``--json``."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pageowner.cli import complete
from pageowner.cli.messages import say
from pageowner.model.schema import AGE, FILTERS, GLOB, NUMBERS, Filter, Word
from pageowner.model.source_kinds import has_pages, kind_of
from pageowner.report.text import count_of, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pageowner.api.sources import Read
    from pageowner.model.counts import Counted
    from pageowner.model.metadata import Metadata
    from pageowner.model.snapshot import Snapshot

__all__ = ["about_dumps", "about_users", "about_vmcores", "as_json", "at_time", "at_times",
           "check_page_flags", "filters", "grouped", "load", "load_counted",
           "most_owners", "or_objects", "owners_shown", "reading", "some_filters", "source"]


class _Numbers(click.ParamType[Any]):
    """One number or several: ``1,2,7``."""

    name = NUMBERS

    def convert(self, value: Any, param: click.Parameter | None,
                ctx: click.Context | None) -> tuple[int, ...]:
        try:
            return tuple(int(part, 0) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number, or numbers with commas between", param, ctx)


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the filters; the command gets them as one `Filter`, ``chosen``."""
    return some_filters(FILTERS)(command)


def some_filters(names: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The same with these filters only."""
    words = {name: word for name, word in FILTERS.items() if name in set(names)}
    return lambda command: _filters(command, words)


def _filters(command: Callable[..., Any], about: dict[str, Word]) -> Callable[..., Any]:
    @functools.wraps(command)
    def wrapped(**words: Any) -> Any:
        given: dict[str, Any] = {}
        for name, word in about.items():
            value = words.pop(name)
            if value is None or value == ():
                continue
            if word.takes != AGE:
                value = tuple(x for part in value
                              for x in (part if isinstance(part, tuple) else (part,)))
            given[name] = value
        return command(chosen=Filter(**given), **words)

    for name, word in reversed(about.items()):
        wrapped = click.option(
            f"--{name.replace('_', '-')}", multiple=word.takes != AGE, metavar=word.takes,
            help=word.help, type=_Numbers() if word.takes == NUMBERS else None,
            shell_complete=complete.VALUES.get(name))(wrapped)
    return wrapped


def about_vmcores(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--vmlinux``, by which it reads vmcores."""

    @click.option("--vmlinux", metavar="FILE", shell_complete=complete.files,
                  help="The kernel of a vmcore, with debugging information: adds source lines to"
                       " stacks. Kernels before 6.0 need it.")
    @functools.wraps(command)
    def wrapped(vmlinux: str | None, **words: Any) -> Any:
        from pageowner.cli.messages import heed_log
        from pageowner.sources.given import with_vmlinux

        heed_log()
        with with_vmlinux(vmlinux):
            return command(**words)

    return wrapped


def about_dumps(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--page-size``, ``--handles``, ``--system-map`` and ``--vmlinux``, by which it reads
    dumps."""
    command = about_vmcores(command)

    @functools.wraps(command)
    def wrapped(page_size: str | None, handles: str | None, system_map: str | None,
                **words: Any) -> Any:
        if page_size is None and handles is None and system_map is None:
            return command(**words)
        from pageowner.analysis.filters import size_bytes
        from pageowner.sources import handles as of_handles
        from pageowner.sources import page_size as of_pages
        from pageowner.sources.given import with_system_map

        bytes_each = None if page_size is None else size_bytes(page_size)
        with of_pages.using(bytes_each), of_handles.using(handles), with_system_map(system_map):
            return command(**words)

    for option in (
            click.option("--system-map", metavar="FILE", shell_complete=complete.files,
                         help="Replace addresses in a dump's stacks by names from a System.map"
                              " or a copy of /proc/kallsyms."),
            click.option("--handles", metavar="FILE", shell_complete=complete.files,
                         help="Find the stacks of handles in this copy of page_owner_stacks'"
                              " show_stacks_handles. Default: a copy next to SOURCE."),
            click.option("--page-size", metavar="SIZE",
                         help="The size of a page in the dump, such as 64KiB. Default: found from"
                              " its text, else 4KiB.")):
        wrapped = option(wrapped)
    return wrapped


def or_objects(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--objects``, which asks this machine for objects of slabs. ``names``: the command's
    arguments that are sources, one of which this machine must be, if there are any."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(objects: bool, **words: Any) -> Any:
            if not objects:
                return command(**words)
            if names and all(words[name] for name in names):
                raise click.UsageError("--objects asks this machine; what was saved with it needs"
                                       " no --objects")
            from pageowner.sources import of_objects

            with of_objects.asking():
                return command(**words)

        return click.option("--objects", is_flag=True,
                            help="Read this machine's objects in slabs instead of its pages;"
                                 " needs 'pageowner on --objects'.")(wrapped)

    return decorate


def at_time(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--at``, a moment of a folder of captures, which the command gets with ``source``; and
    `about_dumps`."""

    @functools.wraps(command)
    def wrapped(at: str | None, **words: Any) -> Any:
        if at is not None:
            if words["source"] is None:
                raise click.UsageError("--at needs a directory of 'pageowner record'")
            words["source"] = _at(words["source"], at)
        return command(**words)

    return click.option("--at", metavar="TIME", help="Which capture to read from a directory:"
                        " 14:30, 2026-11-23T14:30, 2h (ago), or an event: oom, low, ..."
                        " Default: the newest.")(
                            about_dumps(wrapped))


def at_times(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--at`` for several sources, the command's arguments ``names`` or, where it is one
    name, a tuple of them: each in turn is for the next that is a folder; and `about_dumps`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(at: tuple[str, ...], **words: Any) -> Any:
            if at:
                whole = words[names[0]] if len(names) == 1 else tuple(words[name] for name in names)
                placed = _placed(whole, at)
                words.update({names[0]: placed} if len(names) == 1 else
                             dict(zip(names, placed, strict=True)))
            return command(**words)

        return click.option("--at", metavar="TIME", multiple=True, help="Which capture to read"
                            " from a directory: 14:30, 2026-11-23T14:30, 2h (ago), or an event:"
                            " oom, low, ... Default: the newest. The first --at is for the first"
                            " directory.")(
                                about_dumps(wrapped))

    return decorate


def _placed(sources: tuple[str | None, ...], at: tuple[str, ...]) -> tuple[str | None, ...]:
    folders = [place for place, source in enumerate(sources)
               if source is not None and os.path.isdir(source)]
    if len(at) > len(folders):
        raise click.UsageError("--at needs a directory of 'pageowner record'" + (
            f"; {len(at)} are given for {len(folders)}"
            if folders else ""))
    placed = list(sources)
    for place, when in zip(folders, at, strict=False):
        placed[place] = _at(str(sources[place]), when)
    return tuple(placed)


def _at(folder: str, when: str) -> str:
    """A folder at a time, or the capture of an event in it."""
    from pageowner.model.events import EVENTS

    if when in EVENTS and os.path.isdir(folder):
        from pageowner.storage.witnessed import capture_of

        path, text = capture_of(Path(folder), when)
        if text:
            say(f"{path.name}: {text}")
        return str(path)
    from pageowner.model.times import moment
    from pageowner.sources.source import Moment

    return Moment(folder, moment(when))


def source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds SOURCE and ``--at``."""
    argument = click.argument("source", required=False, metavar="[SOURCE]",
                              shell_complete=complete.files)
    return argument(at_time(command))


def most_owners(default: int, rest: str = "") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--top`` and ``--all`` to a verb with ``--json``; the command gets as ``most`` how many
    owners to show, None for all: in a table ``default`` unless told otherwise, in JSON all.
    ``rest``: what the help says of the others."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(top: int | None, everyone: bool, **words: Any) -> Any:
            if everyone and top is not None:
                raise click.UsageError("--all and --top contradict each other")
            most = top if everyone or words["as_json"] else top or default
            return command(most=most, **words)

        return click.option(
            "--top", type=click.IntRange(min=1), metavar="N",
            help=f"Show N owners ({default} by default){rest}.")(
            click.option("--all", "everyone", is_flag=True, help="Show all owners.")(wrapped))

    return decorate


def _ordered(default: str, values: str, complete_by: Callable[..., Any],
             ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--sort``, with ``values`` as its help, and ``--reverse``."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        return click.option("--sort", default=default, show_default=True, metavar="HOW",
                            shell_complete=complete_by, help=values)(
            click.option("--reverse", is_flag=True, help="Reverse the order.")(command))

    return decorate


def grouped(help: str, default: str | None = None, *, single: bool = False,
            complete_by: Callable[..., Any] = complete.keys,
            ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds ``--by``, which takes keys, or a single one; ``default``: None if the help tells it."""
    def joined(context: click.Context, option: click.Parameter, given: tuple[str, ...]
               ) -> str | None:
        if single and len(given) > 1:
            raise click.UsageError("--by takes one key here")
        return ",".join(given) if given else default

    # given more than once, all of them count
    return click.option("--by", multiple=True, callback=joined,
                        metavar="KEY" if single else "KEY[,KEY...]", shell_complete=complete_by,
                        help=help if default is None else f"{help}  [default: {default}]")


def owners_shown(by: str, sort: str, values: str, complete_by: Callable[..., Any],
                 ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds what chooses the rows of a table of owners, by stack at first: ``--by``, ``--sort``,
    ``--reverse``, ``--top`` and ``--all``. ``by`` and ``values`` are the help of the first two."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (most_owners(20, "; the last line sums up the others"),
                       _ordered(sort, values, complete_by), grouped(by, "stack")):
            command = option(command)
        return command

    return decorate


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load(name: str | None, chosen: Any = None, whole: bool = False) -> Snapshot:
    """The snapshot that SOURCE names, filtered; what could not be read is said on stderr. Its texts
    are as long as can be shown, or as they are stored (``whole``)."""
    from pageowner.analysis.shorten import shortened
    from pageowner.sources import live_users
    from pageowner.sources.source import read

    with live_users.using(bool(chosen and chosen.user)):
        if chosen and chosen.node:
            from pageowner.sources.kernel_page_owner import on_nodes

            with on_nodes(chosen.node):
                snapshot = read(name)
        else:
            snapshot = read(name)
    _name(snapshot.meta, name)
    _warn(snapshot.meta)
    if not chosen:
        return snapshot if whole else shortened(snapshot)
    found = snapshot.where(chosen)
    rows = snapshot.table.num_rows
    if rows and not found.table.num_rows:
        say(f"nothing of {count_of(snapshot.blocks, 'block')} matches{_oldest(snapshot, chosen)}"
            f"{_parts(snapshot, chosen)}")
    return found if whole else shortened(found)


def _name(meta: Metadata, source: str | None) -> None:
    """A capture that was read from somewhere is not this machine's live state."""
    if source is not None and kind_of(meta).live:
        meta.source = "standard input" if source == "-" else str(source)


def _parts(snapshot: Snapshot, chosen: Any) -> str:
    """Names are matched whole: what would match if words were looked for within them."""
    from pageowner.analysis.keys import key
    from pageowner.analysis.select import conditions

    for name in (name for name, about in FILTERS.items() if about.takes == GLOB):
        for word in getattr(chosen, name) or ():
            if set("*?[") & set(word):
                continue
            part: dict[str, Any] = {name: f"*{word}*"}
            within = conditions(Filter(**part))[name]
            number = sum(label is not None and within(label)
                         for label in key(snapshot, name).labels.to_pylist())
            if number:
                return (f"; names are matched whole, and '*{printable(word)}*' is in"
                        f" {count_of(number, 'stack' if name == 'stack' else 'name')}")
    return ""


def _oldest(snapshot: Snapshot, chosen: Any) -> str:
    if chosen.older is None:
        return ""
    from pageowner.analysis.keys import times
    from pageowner.analysis.select import newest_ns
    from pageowner.report.text import age

    found, known = times(snapshot)
    if not known.any():
        return ""
    unknown = int((~known).sum())
    without = f", and of {count_of(unknown, 'block')} the age is not known" if unknown else ""
    return (f"; the oldest of known age is"
            f" {age(newest_ns(snapshot) - int(found[known].min()))} old{without}")


def load_counted(name: str | None) -> Counted | Snapshot:
    """The same, where sums by kind of record are enough."""
    # Imported while workers read what was begun: nearly every question needs them.
    from pageowner.analysis import subsystems  # noqa: F401
    from pageowner.analysis.shorten import shortened
    from pageowner.sources import readahead
    from pageowner.sources.source import count

    if readahead.is_of_groups(name):
        from pageowner.analysis import owners  # noqa: F401

    found = count(name)
    _name(found.meta, name)
    _warn(found.meta)
    return shortened(found)


def reading(chosen: Filter) -> Read:
    """How a call reads a named source: as sums where no filter needs each allocation."""
    return lambda name: load(name, chosen) if chosen else load_counted(name)


def check_page_flags(snapshot: Snapshot, path: str | None) -> None:
    """Raises UsageError for --kpageflags with a capture, which brings its own."""
    if snapshot.meta.kind == "tracker" and path is not None:
        raise click.UsageError("--kpageflags is for dumps; a capture brings its own")


def _warn(meta: Metadata) -> None:
    for line in _warnings(meta):
        say(line)


def about_users(meta: Metadata) -> list[str]:
    """What of the pages' users could not be read; freed pages are a user of their own."""
    about = meta.extra.get("users") or {}
    counts = {name: number for name, number in (about.get("counts") or {}).items()
              if number and name != "freed_pages"}
    lines = [f"users of pages: {note}" for note in about.get("notes") or []]
    if counts:
        lines.append("users of pages: " + ", ".join(
            f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items())
            + "; these are named by their flags")
    return lines


_OUT_OF_MEMORY = {
    "unknown_stacks": ("stack", "known only by handle: the kernel's memory does not have them"),
    "unsettled": ("record", "changed each time it was read; left out"),
    "unreadable": ("page frame", "whose record is not in memory; left out"),
    "without_page_ext": ("piece", "of memory without records; left out"),
    "unknown_charges": ("cgroup", "that pages are charged to cannot be read; not named"),
}
"""What was not known of the kernel's own page owner, read out of its memory, by counter."""


_NOT_IN_VMCORE = {
    "missing_pages": ("page", "of kernel memory not in the vmcore; what they held counts as zeros"),
    "missing_page_structs": ("page frame", "without a struct page in the vmcore; left out"),
}
"""What a vmcore does not have, by counter."""


def _about_memory(meta: Metadata) -> list[str]:
    """Whether the kernel's own page owner was read out of its memory, and what is not known; what
    the kernel of a vmcore said as it died."""
    lines = []
    if message := meta.extra.get("panic"):
        from pageowner.report.text import printable

        lines.append(f"{meta.source}: the kernel panicked: {printable(str(message))}")
    if why := meta.extra.get("not_from_memory"):
        lines.append(f"{meta.source}: read as text, which takes longer than out of the kernel's"
                     f" memory: {why}")
    if meta.extra.get("read_while_running"):
        lines.append(f"{meta.source}: its kernel ran while it was read: records that changed"
                     " meanwhile may be mixed; without a SOURCE they are read safely")
    if meta.extra.get("kernels_own"):
        lines.append(f"{meta.source}: the kernel's own page owner is in it too; this is what"
                     " 'pageowner on' knew")
    if meta.kind == "page_owner" and (no_types := meta.extra.get("no_block_types")):
        lines.append(f"{meta.source}: types of pageblocks are not known: {no_types}")
    return lines + [f"{meta.source}: {count_of(meta.counters[name], noun)} {what}"
                    for name, (noun, what) in (_OUT_OF_MEMORY | _NOT_IN_VMCORE).items()
                    if meta.counters.get(name)]


def _warnings(meta: Metadata) -> list[str]:
    counters, lines = meta.counters, []
    if filtered := meta.frames.get("filtered"):
        from pageowner.report.text import size

        with_what = meta.left_out()
        lines.append(f"{count_of(filtered, 'page')} ({size(filtered * meta.page_size)}) left out:"
                     f" tracked with {with_what or 'a filter'}")
    undone = meta.extra.get("undone")
    if undone:
        lines.append(f"{meta.source}: changed after the kernel printed it; undone:"
                     f" {', '.join(undone)}")
    if (size_from := meta.extra.get("page_size_from")) and (
            meta.page_size != 4096 or size_from.startswith("assumed;")) and size_from != "given":
        known = "" if size_from.startswith("assumed") else "derived from "
        lines.append(f"{meta.source}: pages of {meta.page_size >> 10} KiB: {known}{size_from};"
                     " --page-size overrides this")
    lines += _about_memory(meta)
    if symbols := meta.extra.get("symbols"):
        lines.append(f"note: {symbols}")
    if damaged := counters.get("damaged"):
        places = meta.extra.get("damage") or []
        of_what = " of the restored text" if undone else ""
        where = f"; the first at byte {places[0][0]}{of_what}: {places[0][1]}" if places else ""
        lines.append(f"{meta.source}: {count_of(damaged, 'damaged record')}"
                     f" skipped{where}")
    lines += [f"{meta.source}: {said}" for said in meta.extra.get("left_out") or ()]
    if joined := counters.get("joined_handles"):
        lines.append(f"{meta.source}: {count_of(joined, 'handle')} replaced by the stacks in"
                     " show_stacks_handles, which must be of the same boot")
    if unknown := counters.get("unknown_handles"):
        lines.append(f"{meta.source}: {count_of(unknown, 'stack')} known only by handle; to name"
                     " them, copy page_owner_stacks/show_stacks_handles of the same boot and give"
                     " it with --handles FILE")
    if inaccurate := counters.get("inaccurate"):
        lines.append(f"{meta.source}: {count_of(inaccurate, 'line')} of code counted too low, as"
                     " the kernel says (accurate:no)")
    if rounded := counters.get("rounded"):
        lines.append(f"{meta.source}: the sizes of {count_of(rounded, 'line')} of code were rounded"
                     " (numfmt)")
    if unknown := counters.get("sizes_unknown"):
        lines.append(f"{meta.source}: counts allocations, not pages, of"
                     f" {count_of(unknown, 'stack')}; each counts as one page, so sizes are"
                     " the least they can be")
    lines += about_users(meta)
    if unknown := counters.get("unknown_lines"):
        lines.append(f"{meta.source}: {count_of(unknown, 'line')} of unknown meaning in records;"
                     " kept as notes")
    if counters.get("unterminated"):
        lines.append(f"{meta.source}: the text does not end where a group ends; the last group may"
                     " be cut" if not has_pages(meta) else
                     f"{meta.source}: no empty line ends the last record; its stack may be cut")
    return lines
