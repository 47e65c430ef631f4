"""Memory that no counter of the kernel counts: how much there is, and, once tracked, whose."""

from __future__ import annotations

import socket
import struct

import pytest

import pageowner

MIB = 1 << 20
PLANTED = 64 * MIB
PACKET_RX_RING = 5


@pytest.mark.usefixtures("tracking")
def test_rings_of_packet_sockets_are_not_accounted_for_and_have_their_stack() -> None:
    def uncounted() -> int:
        return next(row.bytes for row in pageowner.balance().rows if row.key == "unknown")

    for _ in range(5):  # others take and free such memory too
        before = uncounted()
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as held:
            # struct tpacket_req: bytes of a block, blocks, bytes of a frame, frames
            held.setsockopt(263, PACKET_RX_RING, struct.pack(
                "IIII", MIB, PLANTED // MIB, 2048, PLANTED // 2048))
            gained = uncounted() - before
            rows = pageowner.read().select(stack="packet_set_ring")
        if gained == pytest.approx(PLANTED, rel=0.02):
            break
    print(f"{gained / MIB:.1f} of {PLANTED / MIB:.0f} MiB are not accounted for,"
          f" {rows.pages * rows.meta.page_size / MIB:.1f} MiB have the stack")
    assert gained == pytest.approx(PLANTED, rel=0.02)
    assert rows.pages * rows.meta.page_size == pytest.approx(PLANTED, rel=0.02)
