"""The kernels of the matrix and where they come from."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


class NoKernel(Exception):
    """A kernel cannot be had; one line says why."""


@dataclass(frozen=True)
class Kernel:
    """A kernel to boot."""

    name: str
    """``built-6.12``, ``stock-6.1`` or ``stock-7.3-rt-amd64``: built by us with page owner, or
    Debian's own package, with its flavour unless that is amd64."""
    folder: Path
    """Holds bzImage or Image, System.map, config, release, lib/modules, perhaps initrd."""

    @property
    def built(self) -> bool:
        """Whether it has page owner, CMA in debugfs and all else of kernel.config."""
        return self.name.startswith("built-")

    @property
    def release(self) -> str:
        """What ``uname -r`` says."""
        return (self.folder / "release").read_text().strip()

    def words(self, page_owner: bool, memcg: bool = False) -> str:
        """Words for its command line, with the kernel's own page owner on or off; ``memcg``: with
        the memory controller even where the kernel's own then crashes."""
        words = ["cma=64M"] if self.built else []
        if self.built and page_owner:
            words.append("page_owner=on")
            if self.name.startswith("built-6.12") and not memcg:
                # 6.12's reader of page owner dereferences a null pointer on a tail page
                # (print_page_owner_memcg) once cgroup2's memory controller is in use
                words.append("cgroup_disable=memory")
        return " ".join(words)


KERNELS = ("built-7.3", "built-6.12", "built-6.1", "stock-7.3", "stock-7.3-rt-amd64", "stock-7.2",
           "stock-6.18", "stock-6.12", "stock-6.1", "stock-5.10", "built-6.12-arm64",
           "stock-7.3-arm64", "stock-6.12-arm64", "stock-6.12-arm64-16k")


def obtain(name: str, *, cached_only: bool = False) -> Kernel:
    """Find a kernel in the cache, or build or fetch it. Raises NoKernel."""
    kind, version, *flavour = name.split("-", 2)
    tool = HERE / ("build-kernel" if kind == "built" else "stock_kernel.py")
    done = subprocess.run(
        [tool, *(["--cached"] if cached_only else []), version, *flavour],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if cached_only else None,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    )
    if done.returncode:
        raise NoKernel((done.stderr or f"{name}: not to be had, see above").strip())
    return Kernel(name, Path(done.stdout.strip()))
