"""The figures as metrics for Prometheus: names, units, and labels that have an end.

Of stacks and cgroups the largest are series of their own; one that was shown stays so until it is
far from the largest, so that series do not come and go; all others are one, ``other``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from pageowner import __version__
from pageowner.server.figures import leaks_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pageowner.server.calling import Worker
    from pageowner.server.figures import Figures, Growth, StackOwner

__all__ = ["NAMES", "Metrics", "Shown"]

OTHER = "other"
_STACK = ("stack", "function", "module", "subsystem")
_CGROUP = ("cgroup", "pod", "container")
_STAY = 2
"""One that is shown stays among the series while it is among so many times the largest."""
_LEAKS = 50


class Meaning(NamedTuple):
    """A metric: its help, its labels, whether it only grows, and its unit (part of the name)."""

    help: str
    labels: tuple[str, ...] = ()
    counter: bool = False
    unit: str = ""


NAMES = {
    "pageowner_memory_bytes": Meaning("Memory by what is known of its owner.", ("state",),
                                      unit="bytes"),
    "pageowner_subsystem_bytes": Meaning("Memory by what it is used for.", ("subsystem",),
                                         unit="bytes"),
    "pageowner_stack_bytes": Meaning("Memory by the stack that allocated it: the largest, and all"
                                     " others as 'other'.", _STACK, unit="bytes"),
    "pageowner_cgroup_bytes": Meaning("Memory by the cgroup that it is charged to: the largest, and"
                                      " all others as 'other'.", _CGROUP, unit="bytes"),
    "pageowner_balance_bytes": Meaning("Where all memory is by the kernel's counters; adds up to"
                                       " MemTotal.", ("line",), unit="bytes"),
    "pageowner_total_bytes": Meaning("MemTotal.", unit="bytes"),
    "pageowner_available_bytes": Meaning("MemAvailable.", unit="bytes"),
    "pageowner_leaks": Meaning("Owners that leak, by the rules of 'pageowner leaks'."),
    "pageowner_leak_suspects": Meaning("Owners that grew, but fail a rule of leaks."),
    "pageowner_leak_bytes_per_second": Meaning(
        "How fast a leak grows.", (*_STACK, "program", "untracked")),
    "pageowner_leak_low_bytes_per_second": Meaning(
        "How fast a leak grows: the low end of the 95 % interval.",
        (*_STACK, "program", "untracked")),
    "pageowner_leak_confidence_ratio": Meaning(
        "How clear the case for a leak is, from 0 to 1.", (*_STACK, "program", "untracked"),
        unit="ratio"),
    "pageowner_leak_looks": Meaning("Looks that leaks are judged by; fewer than 4 give no leaks."),
    "pageowner_leak_watched_seconds": Meaning("The time that leaks are judged by.",
                                              unit="seconds"),
    "pageowner_tracking": Meaning("1 if the source is this machine's tracker and it is on, else"
                                  " 0."),
    "pageowner_hooks": Meaning("Hooks of the tracker, attached or missing.", ("state",)),
    "pageowner_allocations": Meaning("Blocks that the tracker saw allocated; each page of a bulk"
                                     " allocation is one.", counter=True),
    "pageowner_frees": Meaning("Blocks that the tracker saw freed.", counter=True),
    "pageowner_missed_events": Meaning("Events that no program of the tracker handled.",
                                       counter=True),
    "pageowner_lost_events": Meaning("Events lost for lack of space or time.", counter=True),
    "pageowner_stale_records": Meaning("Records that the page's flags showed to be stale.",
                                         counter=True),
    "pageowner_checked_records": Meaning("Records that were compared with the page's flags.",
                                           counter=True),
    "pageowner_memo_checks": Meaning("Recognised stacks that were also unwound, as a check.",
                                       counter=True),
    "pageowner_memo_differences": Meaning("Checked stacks that were recognised wrongly.",
                                          counter=True),
    "pageowner_tracker_memory_bytes": Meaning("Kernel memory of the tracker.", unit="bytes"),
    "pageowner_damaged_records": Meaning("Records of the source that could not be read."),
    "pageowner_figures_timestamp_seconds": Meaning(
        "When the data of these figures was captured, in seconds since 1970.", unit="seconds"),
    "pageowner_figures_duration_seconds": Meaning("How long the last figures took to gather.",
                                                  unit="seconds"),
    "pageowner_figures_cpu_seconds": Meaning("CPU time spent on gathering figures.", counter=True,
                                             unit="seconds"),
    "pageowner_figures_renewed": Meaning("How often figures were gathered.", counter=True),
    "pageowner_figures_failed": Meaning("How often gathering figures failed.", counter=True),
    "pageowner_server": Meaning("The server's version."),
}
"""Every metric by its name; a counter's samples end with ``_total``, pageowner_server's with
``_info``. The rules and the dashboard in the tree use no other (a test compares)."""

_OF_HEALTH = {"allocs": "pageowner_allocations", "frees": "pageowner_frees",
              "missed": "pageowner_missed_events", "lost": "pageowner_lost_events",
              "stale": "pageowner_stale_records", "checked": "pageowner_checked_records",
              "memo_checks": "pageowner_memo_checks",
              "memo_different": "pageowner_memo_differences",
              "memory": "pageowner_tracker_memory_bytes", "damaged": "pageowner_damaged_records"}


class Shown:
    """Which of many owners are series of their own: at least the ``most`` largest of them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._names: list[str] = []

    def of(self, largest: Sequence[str]) -> set[str]:
        """The names to show, of all names ordered from the largest on: at most ``_STAY`` times
        ``most``."""
        near = largest[:self.most * _STAY]
        self._names = list(dict.fromkeys([*largest[:self.most],
                                          *(name for name in self._names if name in set(near))]))
        return set(self._names)


class Metrics:
    """Collects what a worker's figures are at the time of a scrape, which gathers nothing."""

    def __init__(self, worker: Worker, top: int) -> None:
        self.worker = worker
        self._stacks, self._cgroups = Shown(top), Shown(top)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text, OpenMetrics or Prometheus' own as ``accept`` has it, and its type."""
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind

    def describe(self) -> list[Metric]:
        """Nothing is known before it is gathered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics, those without a value left out."""
        worker = self.worker
        server = InfoMetricFamily("pageowner_server", NAMES["pageowner_server"].help)
        server.add_metric([], {"version": __version__})
        yield server
        yield _single("pageowner_figures_renewed", worker.renewals)
        yield _single("pageowner_figures_failed", worker.failed)
        yield _single("pageowner_figures_cpu_seconds", worker.cpu_s)
        found = worker.figures
        if found is None:
            return
        yield _single("pageowner_figures_duration_seconds", found.waited)
        yield _single("pageowner_tracking", int(found.tracking))
        if found.taken is not None:
            yield _single("pageowner_figures_timestamp_seconds", found.taken)
        for name, values in (("memory", found.states), ("subsystem", found.subsystems),
                             ("balance", found.balance)):
            if values:
                yield _family(f"pageowner_{name}_bytes",
                              [([label], value) for label, value in values.items()])
        if found.total:
            yield _single("pageowner_total_bytes", found.total)
        if found.available is not None:
            yield _single("pageowner_available_bytes", found.available)
        yield from self._owners(found)
        yield from _leaks(found)
        yield from _health(found)

    def _owners(self, found: Figures) -> Iterator[Metric]:
        if found.stacks:
            shown = self._stacks.of([owner.stack for owner in found.stacks])
            rest = found.other_stacks + sum(owner.bytes for owner in found.stacks
                                            if owner.stack not in shown)
            yield _family("pageowner_stack_bytes", [
                *((_labels(owner), owner.bytes) for owner in found.stacks if owner.stack in shown),
                ([OTHER, "", "", ""], rest)])
        if found.cgroups:
            shown = self._cgroups.of(list(found.cgroups)) - {OTHER}  # which one may be called
            rest = found.other_cgroups + sum(number for name, number in found.cgroups.items()
                                             if name not in shown)
            yield _family("pageowner_cgroup_bytes", [
                *(([name, *found.containers.get(name, ("", ""))], number)
                  for name, number in found.cgroups.items() if name in shown),
                ([OTHER, "", ""], rest)])


def _labels(owner: StackOwner | Growth) -> list[str]:
    return [owner.stack, owner.function, owner.module, owner.subsystem]


def _leaks(found: Figures) -> Iterator[Metric]:
    yield _single("pageowner_leak_looks", found.looks)
    yield _single("pageowner_leak_watched_seconds", found.watched)
    if not found.looks:
        return
    yield _single("pageowner_leaks", found.kinds.get("leak", 0))
    yield _single("pageowner_leak_suspects", found.kinds.get("grows", 0))
    shown = leaks_of(found.growth)[:_LEAKS]
    for name, value in (("bytes_per_second", "rate"), ("low_bytes_per_second", "rate_low"),
                        ("confidence_ratio", "confidence")):
        yield _family(f"pageowner_leak_{name}", [
            ([*_labels(owner), owner.program, owner.note], getattr(owner, value))
            for owner in shown])


def _health(found: Figures) -> Iterator[Metric]:
    health = found.health
    if "hooks" in health:
        yield _family("pageowner_hooks", [
            (["attached"], health["hooks"]), (["missing"], health["all_hooks"] - health["hooks"])])
    for name, metric in _OF_HEALTH.items():
        if name in health:
            yield _single(metric, health[name])


def _single(name: str, value: float) -> Metric:
    return _family(name, [([], value)])


def _family(name: str, samples: Sequence[tuple[Sequence[str], float]]) -> Metric:
    about = NAMES[name]
    kind: Any = CounterMetricFamily if about.counter else GaugeMetricFamily
    family: Metric = kind(name, about.help, labels=about.labels, unit=about.unit)
    for labels, value in samples:
        family.add_metric(list(labels), value)  # type: ignore[attr-defined]
    return family
