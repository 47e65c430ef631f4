"""``page_owner_sort``: the kernel's helper of that name (tools/mm), many times faster.

Same options and same output bytes as that of Linux 6.12. Where that one is broken, this does what
Documentation/mm/page_owner.rst says: ``--sort`` is heeded; the input may be a pipe, standard input
(``-``) or compressed; lines and names of any length are read; a task that calls itself
``evil), ts 1 ns`` keeps its name. Only the standard library is imported.
"""

from __future__ import annotations

import os
import signal
import sys

from pageowner.errors import PageownerError, UsageError

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run with the words of a command line (without the program's name); returns the exit status.

    0, or 1 for any failure, bad usage included, as the kernel's tool does.
    """
    start = sys.modules.get("pageowner.start")  # not where this is a call of another program's
    from pageowner.page_owner_sort.options import USAGE, parse

    if argv is None:
        _catch_signals()
    try:
        if start is not None:
            start.at_work(True)
        options = parse(sys.argv[1:] if argv is None else argv)
        if options.help:
            sys.stdout.write(USAGE)
            sys.stdout.flush()
            return 0
        from pageowner.page_owner_sort.sorting import run

        tally, count = run(options)
        if options.debug:
            blocks = sum(tally.counts) + len(tally.each_kind)
            print(
                f"page_owner_sort: {blocks} blocks, {tally.counts[0]} of them not selected,"
                f" {tally.others} not in the format of 5.18 and later; {count} written",
                file=sys.stderr,
            )
    except UsageError as error:
        _say(error)
        print(USAGE, end="")
        return 1
    except PageownerError as error:
        _say(error)
        return 1
    except MemoryError:
        _say("out of memory; split the dump, or select a part of it")
        return 1
    except BrokenPipeError:
        # whoever read the output has seen enough; keep the interpreter from flushing into the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt as error:
        # SIGINT, or what a signal handler made of another
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    finally:
        if start is not None:
            start.at_work(False)
    return 0


def _catch_signals() -> None:
    # an exception, so that temporary files and worker processes go
    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)


def _say(error: PageownerError | str) -> None:
    # in one line, whatever the words and files of the command line are called
    from pageowner.report.text import printable

    print(f"page_owner_sort: {printable(str(error))}", file=sys.stderr)


if __name__ == "__main__":
    from pageowner.start import page_owner_sort

    sys.exit(page_owner_sort())
