"""A tracker of this process that comes and goes as its input says, for measuring one build against
another: run with the other tree's ``src`` in PYTHONPATH. Lines: ``on [plain] [always]``, ``off``;
each is answered when it is so. Needs root.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

from pageowner.tracker import control
from pageowner.tracker.control import Options


def main() -> None:
    with ExitStack() as held:
        for line in sys.stdin:
            words = line.split()
            if words[0] == "on":
                more = {"second_programs": "always"} if "always" in words else {}
                held.enter_context(control.tracking(Options(memo="plain" not in words, **more)))
            else:
                held.close()
            print(words[0], flush=True)


if __name__ == "__main__":
    main()
