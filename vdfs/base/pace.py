"""Pace: what goes on behind the requests gives way to them, on one loop.

In: that somebody asked (`asked`, once for each request of the kernel). Out: turns for those who write what was found
on the disk, one at a time. While the mount is in use the loop is free between two turns for some times as long as the
turn took, and a turn begins in a gap between requests: most requests meet no unit at all, the others wait for one at
most and have the loop to themselves for the steps that they take. When nobody has asked for a while turns follow each
other. Units are small while it is in use (`is_used`).

Kept out: work in processes of its own, which gives way by its niceness, and threads, which hold no turn.
"""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

#: For so long after a request the mount counts as in use.
USED_S: Final = 0.5
#: How long what is to be written may wait for more.
_GATHER_S: Final = 0.2
#: So many times as long as a turn took it rests, and how long at most.
_REST: Final = 3.0
_REST_MAX_S: Final = 0.05
#: Requests come in bursts, and the loop is woken by one for what else is due; so a turn begins when none came for so
#: long, and after so many looks in any case.
_GAP_S: Final = 0.0007
_GAP_TRIES: Final = 4


class Pace:
    """Used on the loop only."""

    def __init__(self) -> None:
        self._asked_s = -math.inf
        self._turn = trio.Lock()

    def asked(self) -> None:
        """A request came."""
        self._asked_s = time.monotonic()

    @property
    def is_used(self) -> bool:
        """Whether somebody asked a moment ago."""
        return time.monotonic() - self._asked_s < USED_S

    def is_due(self, count: int, most: int, since_s: float) -> bool:
        """Whether what was gathered for a unit since a moment (monotonic) is to be written, not to wait for more."""
        return self.is_used or count >= most or time.monotonic() - since_s > _GATHER_S

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold the one turn there is: for one unit, without an await in between."""
        async with self._turn:
            for _ in range(_GAP_TRIES):
                if time.monotonic() - self._asked_s >= _GAP_S:
                    break
                await trio.sleep(_GAP_S)
            began_s = time.monotonic()
            yield
            took_s = time.monotonic() - began_s
            if self.is_used:
                await trio.sleep(min(_REST * took_s, _REST_MAX_S))
            else:
                await trio.lowlevel.checkpoint()
