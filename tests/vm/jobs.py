"""What is run in the guests. A new check is a new line in JOBS."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable  # the virtual environment's: the guest has it under the same path


GIGANTIC = "4G"
"""Memory of a guest in which a page of 1 GiB can be had: the kernel lies in one of the pieces
[1 GiB, 2 GiB) and [2 GiB, 3 GiB) at most, and what it takes while it boots in what is beyond
4 GiB, where QEMU's machine has the last one."""
GIGANTIC_NODES = "6G"
"""The same with two nodes, whose tables lie at the upper end of each."""

REFUSED = ("stock-5.10",)
"""Kernels on which `pageowner on` must say why they cannot be tracked."""


@dataclass(frozen=True)
class Job:
    """A command for a guest, and the guest that it needs."""

    name: str
    says: str
    """What it shows, in half a sentence."""
    command: tuple[str, ...]
    """Runs as root in its folder of the results; exit status 0 is success."""
    kernels: tuple[str, ...] = ("built", "stock")
    """On which kernels: kinds (``built``) or names (``stock-6.1``); a kernel of REFUSED only by
    its name."""
    page_owner: bool = True
    """Boot kernels that have page owner with it on."""
    memcg: bool = False
    """With the memory controller, though the kernel's own page owner may crash with it: faults
    that the kernel reports are no failure."""
    kills: bool = False
    """Its memory is taken until the kernel kills: what it then reports is no failure."""
    dies: bool = False
    """It ends in a panic, and its memory is dumped from outside (`panicked`)."""
    memory: str = "2G"
    nodes: int = 1
    hotplug: bool = False
    counted: bool = False
    """Its clock counts instructions (`boot.qemu_command`)."""
    cpus: int = 2
    """6.1 has one where instructions are counted: CPUs then run in turns, and it waits for the
    second one for ever."""
    possible_cpus: int = 0
    """With so many CPUs that could be plugged in; 0: no more than there are."""
    timeout: float = 600
    """Seconds for the whole guest."""
    rounds: tuple[str, ...] = ("",)
    """Words for the kernel's command line, of each boot in turn: the command runs in each. With
    ``po_systemd`` the guest is booted by systemd."""
    then: tuple[str, ...] = ()
    """Runs on the host afterwards, with the folder of the results as its last word."""

    def cpus_on(self, kernel: str) -> int:
        """How many CPUs a guest with this kernel has."""
        return 1 if self.counted and kernel.endswith("-6.1") else self.cpus

    def wanted_on(self, kernel: str) -> bool:
        """Whether it runs on this kernel."""
        return kernel in self.kernels or (
            kernel not in REFUSED and kernel.partition("-")[0] in self.kernels)


JOBS = (
    Job(
        "facts",
        "the guest has what the project needs",
        (str(HERE / "jobs" / "facts"), PYTHON),
        kernels=("built", "stock", *REFUSED),
    ),
    Job(
        "refused",
        "a kernel that cannot be tracked is refused in one line that says why",
        (PYTHON, str(HERE / "jobs" / "refused.py")),
        kernels=REFUSED,
    ),
    Job(
        "track",
        "tracking works there, every recognised stack checked",
        (PYTHON, str(HERE / "jobs" / "track.py"), "--contiguous", "--always"),
        page_owner=False,
        memory=GIGANTIC,
    ),
    Job(
        "users",
        "memory that was taken before tracking is found by name, and to 2 %",
        (str(HERE / "jobs" / "users"), PYTHON),
        kernels=("stock-6.1", "stock-6.12", "stock-6.18", "stock-7.3"),
        page_owner=False,
        memcg=True,
        timeout=900,
    ),
    Job(
        "many-cpus",
        "the same where hundreds of CPUs are possible, on two nodes",
        (PYTHON, str(HERE / "jobs" / "track.py")),
        kernels=("stock-7.3", "stock-6.1"),
        page_owner=False,
        nodes=2,
        # QEMU's most; before 6.9 a word is enough (prefill_possible_map, arch/x86/kernel/smpboot.c)
        possible_cpus=255,
        rounds=("possible_cpus=512",),
    ),
    Job(
        "price",
        "what tracking adds to a page fault",
        (PYTHON, str(HERE / "jobs" / "price.py"), "4", "2"),
        page_owner=False,
        counted=True,
        cpus=1,
        timeout=1200,
    ),
    Job(
        "price-own",
        "the same with the kernel's own page owner on",
        (PYTHON, str(HERE / "jobs" / "price.py"), "4", "2"),
        kernels=("built",),
        counted=True,
        cpus=1,
        timeout=1200,
    ),
    Job(
        "memcg",
        "with the memory controller and the kernel's own page owner, cgroups have their names",
        (PYTHON, str(HERE / "jobs" / "memcg.py")),
        kernels=("built",),
        memcg=True,
    ),
    Job(
        "loads",
        "every load runs, and the kernel stands it",
        (PYTHON, str(HERE / "loads" / "hold.py"), str(HERE / "jobs" / "standing")),
        memory=GIGANTIC_NODES,
        nodes=2,
        hotplug=True,
        timeout=900,
    ),
    Job(
        "boot",
        "with page_owner=on, and only then, tracking is on once systemd has booted",
        (PYTHON, str(HERE / "jobs" / "at_boot.py")),
        kernels=("stock-6.12",),
        rounds=("po_systemd po_round=1", "po_systemd po_round=2 page_owner=on",
                "po_systemd po_round=3"),
    ),
    Job(
        "promise",
        "ending the tasks that frag names gives the huge pages that it says",
        (PYTHON, str(HERE / "jobs" / "promise.py")),
        kernels=("built-6.12",),
        page_owner=False,
        memory="1G",
        timeout=1200,
    ),
    Job(
        "handles",
        "the kernel's own page owner says the same, read by handle and with stacks",
        (PYTHON, str(HERE / "loads" / "hold.py"), PYTHON, str(HERE / "jobs" / "handles.py")),
        kernels=("built-7.3",),
        nodes=2,
        hotplug=True,
        memory=GIGANTIC_NODES,
        timeout=1200,
    ),
    Job(
        "from-memory",
        "the kernel's own page owner says the same, read out of its memory and as text",
        (PYTHON, str(HERE / "jobs" / "from_memory.py"), "300"),
        kernels=("built",),
        memory="1G",
        timeout=900,
    ),
    Job(
        "objects",
        "objects of slabs are those of the kernel's own account of them",
        (PYTHON, str(HERE / "jobs" / "objects.py")),
        page_owner=False,
        rounds=("slub_debug=U",),
    ),
    Job(
        "objects-soak",
        "half an hour of load, and objects of slabs are as many as the kernel counts",
        (PYTHON, str(HERE / "jobs" / "objects_soak.py")),
        kernels=("stock-6.12", "stock-7.3"),
        page_owner=False,
        rounds=("slub_debug=U",),
        timeout=3600,
    ),
    Job(
        "crash",
        "a dump of its memory tells the same owners as were saved just before",
        (PYTHON, str(HERE / "jobs" / "crash.py")),
        kernels=("stock-6.1", "stock-6.12", "stock-7.3"),
        page_owner=False,
        memory="768M",
        hotplug=True,
        then=(PYTHON, str(HERE / "same_memory.py")),
    ),
    *(Job(
        f"panic-{why}",
        f"a dump made outside after {what} tells the same owners, and why it died",
        (PYTHON, str(HERE / "jobs" / "panic.py"), why),
        kernels=("stock-6.1", "stock-6.12", "stock-7.3"),
        page_owner=False,
        dies=True,
        memory="768M",
        timeout=1800,
        then=(PYTHON, str(HERE / "after_panic.py")),
    ) for why, what in (("sysrq", "a panic asked for"), ("oom", "a panic for want of memory"))),
    Job(
        "kdump",
        "a dump by makedumpfile from a crash kernel tells the same owners",
        (PYTHON, str(HERE / "jobs" / "kdump.py")),
        kernels=("stock-6.1", "stock-6.12", "stock-7.3"),
        page_owner=False,
        kills=True,
        memory="1G",
        timeout=1800,
        rounds=("crashkernel=256M",),
        then=(PYTHON, str(HERE / "after_panic.py")),
    ),
    Job(
        "crash-own",
        "a dump of its memory tells what the kernel's own page owner printed",
        (PYTHON, str(HERE / "jobs" / "crash_own.py")),
        kernels=("built",),
        memory="512M",
        hotplug=True,
        then=(PYTHON, str(HERE / "same_text.py")),
    ),
    Job(
        "oom",
        "a capture from before each kill for memory names what took it",
        (PYTHON, str(HERE / "jobs" / "oom.py")),
        kernels=("stock-6.12",),
        page_owner=False,
        kills=True,
        memory="1G",
        timeout=3000,
    ),
    Job(
        "clocks",
        "captures go on while the clock jumps, the guest is suspended, and the disk is full",
        (PYTHON, str(HERE / "jobs" / "clocks.py")),
        kernels=("stock-6.12",),
        page_owner=False,
    ),
    Job(
        "agree",
        "the tracker agrees with the kernel's own page owner",
        (PYTHON, str(HERE / "jobs" / "agree.py")),
        kernels=("built",),
        memory=GIGANTIC_NODES,
        nodes=2,
        hotplug=True,
        # Else a CPU of the guest that the host lets rest stamps what was one moment as two.
        counted=True,
        timeout=3000,
        then=(PYTHON, str(HERE / "agreement.py")),
    ),
)
