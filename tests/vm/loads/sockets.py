"""Sockets with data nobody reads: Unix pairs, TCP and UDP over loopback, a packet ring."""

import socket
import struct
import threading
from contextlib import ExitStack

from common import MIB, PAGE, main

PACKET_RX_RING, SOL_PACKET = 5, 263


def fill(end: socket.socket, block: bytes) -> int:
    """Send until the other side takes no more; the bytes that went."""
    end.setblocking(False)
    sent = 0
    try:
        while True:
            sent += end.send(block)
    except BlockingIOError:
        return sent


def tcp_pair(held: ExitStack, listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    """A connection over loopback, both ends."""
    client = held.enter_context(socket.create_connection(listener.getsockname()))
    server = held.enter_context(listener.accept()[0])
    return client, server


def traffic(held: ExitStack, listener: socket.socket, size: int) -> None:
    """Send `size` bytes through a connection of its own, all read."""
    client, server = tcp_pair(held, listener)

    def reader() -> None:
        left = size
        while left > 0:
            left -= len(server.recv(1 << 18))

    thread = threading.Thread(target=reader)
    thread.start()
    block = bytes(1 << 18)
    for _ in range(size // len(block)):
        client.sendall(block)
    thread.join()


def load(held: ExitStack) -> str:
    """60 Unix pairs, 12 TCP connections and 4 UDP sockets full; 64 MiB of TCP traffic; a ring."""
    unix = 0
    for _ in range(60):
        left, right = socket.socketpair()
        held.enter_context(left)
        held.enter_context(right)
        unix += fill(left, bytes(8192))
    listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    traffic(held, listener, 64 * MIB)
    tcp = sum(fill(tcp_pair(held, listener)[0], bytes(1 << 16)) for _ in range(12))
    udp = 0
    for _ in range(4):
        receiver = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver.bind(("127.0.0.1", 0))
        sender = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for _ in range(50):
            udp += sender.sendto(bytes(4000), receiver.getsockname())
    ring = held.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    block, blocks, frame = 8 * PAGE, 8, 2048
    ring.setsockopt(
        SOL_PACKET, PACKET_RX_RING,
        struct.pack("IIII", block, blocks, frame, block // frame * blocks),
    )
    return (
        f"{unix >> 10} KiB in Unix sockets, {tcp >> 10} in TCP, {udp >> 10} in UDP, all unread;"
        f" 64 MiB sent and read over loopback; a packet ring of {blocks} blocks of order 3"
    )


if __name__ == "__main__":
    main("sockets", load)
