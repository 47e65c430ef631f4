"""A tracker of this process that comes and goes as its input says, for measuring one build against
another: run with the other tree's ``src`` in PYTHONPATH. Lines: ``on [plain] [always]``, ``off``;
each is answered when it is so. Needs root.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

try:
    from pageowner.tracker import control
except ImportError:  # the name it had in older trees
    from pageowner.tracker import lifecycle as control  # type: ignore[attr-defined,no-redef]


def main() -> None:
    with ExitStack() as held:
        for line in sys.stdin:
            words = line.split()
            if words[0] == "on":
                more = {"second_programs": "always"} if "always" in words else {}
                held.enter_context(control.tracking(
                    control.Options(memo="plain" not in words, **more)))
            else:
                held.close()
            print(words[0], flush=True)


if __name__ == "__main__":
    main()
