"""page_pool, which allocates in bulk: XDP test runs with live frames, and XDP on a veth pair."""

import ctypes
import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from common import main, run, syscall

PROG_LOAD, PROG_TEST_RUN, LINK_CREATE = 5, 10, 28
TYPE_XDP, ATTACH_XDP, LIVE_FRAMES, DRIVER_MODE = 6, 37, 1 << 1, 1 << 2
XDP_DROP, XDP_PASS = 1, 2


def bpf(command: int, what: str, attributes: bytes) -> int:
    """The bpf system call. Raises OSError."""
    buffer = ctypes.create_string_buffer(attributes.ljust(144, b"\0"))
    return syscall("bpf", what, command, buffer, 144)


def xdp(held: ExitStack, verdict: int) -> int:
    """Load a program of two instructions: r0 = verdict; exit."""
    code = struct.pack("<BBhi", 0xB7, 0, 0, verdict) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    instructions, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQ", TYPE_XDP, 2, ctypes.addressof(instructions), ctypes.addressof(licence)
    )
    descriptor = bpf(PROG_LOAD, "loading an XDP program", attributes)
    held.callback(os.close, descriptor)
    return descriptor


def test_run(program: int, frames: int) -> None:
    """Send made-up frames through a program, out of a page_pool that lives as long as the call."""
    packet = ctypes.create_string_buffer(bytes(64), 64)
    attributes = struct.pack(
        "<4I2Q4I2Q3I",
        *(program, 0, 64, 0),  # retval, data_size_in, data_size_out
        *(ctypes.addressof(packet), 0),
        *(frames, 0, 0, 0),  # repeat, duration, sizes of the context
        *(0, 0),
        *(LIVE_FRAMES, 0, 64),  # flags, cpu, batch_size
    )
    bpf(PROG_TEST_RUN, "XDP test run with live frames", attributes)


def frame(target: bytes, payload: bytes, identity: int) -> bytes:
    """An Ethernet frame with UDP from 10.99.0.1 to 10.99.0.2, port 9999."""
    udp = struct.pack(">HHHH", 9998, 9999, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton("10.99.0.1") + socket.inet_aton("10.99.0.2")
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), identity, 0, 64, 17, 0)
    words = struct.unpack(">10H", head + addresses)
    total = sum(words)
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~total & 0xFFFF)
    return target + b"\2\0\0\0\0\1" + b"\x08\x00" + head + addresses + udp


def veth(held: ExitStack, program: int) -> int:
    """Frames through a veth end with XDP into a socket nobody reads; how many got there."""
    run("modprobe", "-q", "veth")
    run("ip", "link", "add", "po0", "type", "veth", "peer", "name", "po1")
    held.callback(run, "ip", "link", "del", "po0")
    run("ip", "addr", "add", "10.99.0.2/24", "dev", "po1")
    index = socket.if_nametoindex("po1")
    attributes = struct.pack("<IIII", program, index, ATTACH_XDP, DRIVER_MODE)
    held.callback(os.close, bpf(LINK_CREATE, "attaching XDP to veth", attributes))
    for end in ("po0", "po1"):
        run("ip", "link", "set", end, "up")
    receiver = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receiver.bind(("10.99.0.2", 9999))
    receiver.setsockopt(socket.SOL_SOCKET, 33, 4 << 20)  # SO_RCVBUFFORCE
    sender = held.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    sender.bind(("po0", 0))
    target = bytes.fromhex(Path("/sys/class/net/po1/address").read_text().replace(":", ""))
    for identity in range(400):
        sender.send(frame(target, bytes(1400), identity))
    receiver.setblocking(False)
    arrived = 0
    try:
        while receiver.recv(2048):  # a third is read, the rest stays
            arrived += 1
            if arrived == 130:
                break
    except BlockingIOError:
        pass
    return arrived


def load(held: ExitStack) -> str:
    """2,000 live frames dropped; 400 frames through veth, 270 of which stay unread."""
    test_run(xdp(held, XDP_DROP), 2000)
    read = veth(held, xdp(held, XDP_PASS))
    return (
        "2000 live frames in an XDP test run; 400 frames through XDP on veth,"
        f" {read} read of 130 asked for, the rest unread"
    )


if __name__ == "__main__":
    main("page_pool", load)
