"""A socket of packets, which loses what a read has no room for, where page owner fails."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def made_up_records(number: int) -> list[bytes]:
    """Records of many sizes, each with the empty line that ends it."""
    return [b"%0*d\n\n" % (300 + 7 * place % 400, place) for place in range(number)]


@contextmanager
def sent(records: Sequence[bytes]) -> Iterator[socket.socket]:
    """A socket from which they come, a record each time; its end is the receiver's to close."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def send() -> None:
        with theirs:
            for record in records:
                theirs.send(record)

    sender = threading.Thread(target=send)
    sender.start()
    yield ours
    sender.join()
