"""A tracker of this process that comes and goes as its input says, for measuring one build against
another: run with the other tree's ``src`` in PYTHONPATH. Lines: ``on [plain]``, ``off``; each is
answered when it is so. Needs root.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from pageowner.tracker import lifecycle
from pageowner.tracker.lifecycle import Options


def main() -> None:
    with ExitStack() as held:
        for line in sys.stdin:
            words = line.split()
            if words[0] == "on":
                held.enter_context(lifecycle.tracking(Options(memo="plain" not in words)))
            else:
                held.close()
            print(words[0], flush=True)


if __name__ == "__main__":
    main()
