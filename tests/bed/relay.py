"""A cable that is slow: pass frames between two interfaces, each after a while, in order.

Run as a program: relay.py ONE OTHER SECONDS JITTER. Frames are taken from packet(7) sockets; the
interfaces must compute their checksums themselves (ethtool -K IFACE tx off at their other ends).
"""

import random
import select
import socket
import sys
import time
from collections import deque

ETH_P_ALL = 0x0003
PACKET_OUTGOING = 4  # linux/if_packet.h: what we sent comes back to us so marked
LARGEST = 65536


def relay(one: str, other: str, seconds: float, jitter: float) -> None:
    """Pass frames for ever."""
    ends = []
    for interface in (one, other):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        end.bind((interface, ETH_P_ALL))
        ends.append(end)
    target = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: dict[socket.socket, deque[tuple[float, bytes]]] = {end: deque() for end in ends}
    while True:
        now = time.monotonic()
        for end, frames in waiting.items():
            while frames and frames[0][0] <= now:
                target[end].send(frames.popleft()[1])
        due = min((frames[0][0] for frames in waiting.values() if frames), default=None)
        readable, _, _ = select.select(ends, [], [], None if due is None else max(0.0, due - now))
        for end in readable:
            frame, origin = end.recvfrom(LARGEST)
            if origin[2] != PACKET_OUTGOING:
                at = time.monotonic() + seconds + random.uniform(0, jitter)
                queue = waiting[end]
                queue.append((max(at, queue[-1][0]) if queue else at, frame))


if __name__ == "__main__":
    relay(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))
