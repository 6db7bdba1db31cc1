"""A slow, long or lossy link between two namespaces: frames pass through a process that holds them back.

The kernels of many machines have no netem. So each namespace gets a TAP device, and one process carries frames from
one to the other, each direction by itself: a frame waits until those before it have gone out at the rate, then for
the delay; one that finds the queue full is dropped, as is each with the probability of loss, by a seeded generator.

In: `link(a, b, delay_s=0.010, rate_bits_s=100e6)`. Out: an interface `tap0` with an address in each, `10.78.0.1` and
`10.78.0.2`; the process ends with the namespace `a`. In plain Python it carries some 100 Mbit/s on one core; the clock
of `select` makes delays up to a millisecond longer.

Source: linux/if_tun.h.
"""

import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.netlab import Namespace, set_namespace

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000
#: What Ethernet puts around a frame on the wire: preamble, checksum, gap.
_AROUND_BYTES = 24
_FRAME_BYTES = 2048


class Shape(NamedTuple):
    """What a link does to what goes through it, in each direction."""

    delay_s: float = 0.0
    rate_bits_s: float = 0.0  # 0: as fast as it can
    loss: float = 0.0  # the probability that a frame is lost
    queue_bytes: int = 512 << 10
    seed: int = 1


def link(a: Namespace, b: Namespace, shape: Shape) -> "subprocess.Popen[Any]":
    """Join two namespaces; returns when both have their interface and address. The process is the link."""
    command = [sys.executable, __file__, str(a.pid), str(b.pid), json.dumps(shape)]
    process = a.popen(*command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "joined\n"
    for number, namespace in enumerate((a, b), 1):
        namespace.run("ip", "addr", "add", f"10.78.0.{number}/24", "dev", "tap0")
        namespace.run("ip", "link", "set", "tap0", "up")
    return process


class Direction:
    """Frames on their way from one device to the other."""

    def __init__(self, source: int, target: int, shape: Shape, random: Random) -> None:
        self.source = source
        self._target = target
        self._shape = shape
        self._random = random
        self._waiting: list[tuple[float, int, bytes]] = []  # when it arrives, its number, the frame
        self._number = 0
        self._free_s = 0.0  # when the last frame that was accepted has gone out

    @property
    def due_s(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None

    def take(self, now_s: float) -> None:
        """Everything that the sender has put into its device."""
        for frame in self._frames():
            shape, start_s = self._shape, max(now_s, self._free_s)
            if shape.rate_bits_s:
                if (start_s - now_s) * shape.rate_bits_s / 8 > shape.queue_bytes:
                    continue
                self._free_s = start_s + (len(frame) + _AROUND_BYTES) * 8 / shape.rate_bits_s
                start_s = self._free_s
            if shape.loss and self._random.random() < shape.loss:
                continue  # it has been on the wire all the same
            self._number += 1
            heapq.heappush(self._waiting, (start_s + shape.delay_s, self._number, frame))

    def give(self, now_s: float) -> None:
        """What has arrived."""
        while self._waiting and self._waiting[0][0] <= now_s:
            try:
                os.write(self._target, heapq.heappop(self._waiting)[2])
            except OSError:
                continue  # the device is down: lost

    def _frames(self) -> Iterator[bytes]:
        while True:
            try:
                yield os.read(self.source, _FRAME_BYTES)
            except OSError:  # nothing more, or the device is down
                return


def tap(pid: int) -> int:
    """A TAP device in the namespace of a process; it lives as long as its descriptor."""
    with open(f"/proc/{pid}/ns/net", "rb") as namespace:
        set_namespace(namespace.fileno())
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _IFF_TAP | _IFF_NO_PI))
    return device


def carry(first: int, second: int, shape: Shape) -> None:
    """For ever."""
    random = Random(shape.seed)
    directions = [Direction(first, second, shape, random), Direction(second, first, shape, random)]
    while True:
        now_s = time.monotonic()
        for direction in directions:
            direction.give(now_s)
        due = [direction.due_s for direction in directions if direction.due_s is not None]
        wait_s = None if not due else max(0.0, min(due) - time.monotonic())
        readable = select.select([first, second], [], [], wait_s)[0]
        now_s = time.monotonic()
        for direction in directions:
            if direction.source in readable:
                direction.take(now_s)


if __name__ == "__main__":
    devices = [tap(int(pid)) for pid in sys.argv[1:3]]
    print("joined", flush=True)
    carry(*devices, Shape(*json.loads(sys.argv[3])))
