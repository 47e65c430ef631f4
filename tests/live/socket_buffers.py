"""Kernel memory that a task fills and keeps: the buffers of sockets that nobody reads."""

from __future__ import annotations

import socket


def fill(sender: socket.socket) -> None:
    """Send until the buffers are full."""
    sender.setblocking(False)
    try:
        while True:
            sender.send(bytes(1 << 16))
    except BlockingIOError:
        pass
