"""Whether the other side is there, and takes what is sent to it.

A link that has been quiet for PING_IDLE_S is asked for a sign of life; none for PONG_S more, and it is dead. A piece
that cannot be sent for WRITE_STALL_S means the same. Two tasks look, seldom: a time-out for each piece would cost more
than the piece.
"""

import math
from collections.abc import Callable
from typing import Final

import trio

from index.model.errors import LinkClosed

PING_IDLE_S: Final = 15.0
PONG_S: Final = 8.0
WRITE_STALL_S: Final = 30.0
_LOOK_S: Final = 1.0


class Vitals:
    """When something was heard last, and since when something is being sent. Both tasks raise LinkClosed."""

    def __init__(self, peer: str) -> None:
        #: By trio's clock. Whoever receives says so here.
        self.heard_s = -math.inf
        #: Infinite while nothing is being sent.
        self.sending_since_s = math.inf
        self._peer = peer

    async def listen(self, ping: Callable[[], None]) -> None:
        """Ask by `ping` when it has been quiet."""
        while True:
            await trio.sleep_until(self.heard_s + PING_IDLE_S)
            heard_s = self.heard_s
            if trio.current_time() < heard_s + PING_IDLE_S:
                continue
            ping()
            while self.heard_s == heard_s:
                await trio.sleep(PONG_S)
                # Behind what a slow line still carries the question has not been asked yet.
                if self.heard_s == heard_s and self.sending_since_s == math.inf:
                    raise LinkClosed(f"{self._peer} gave no sign of life for {PING_IDLE_S + PONG_S:g} s")

    async def watch_sending(self) -> None:
        """End a link whose other side does not read."""
        while True:
            await trio.sleep(_LOOK_S if self.sending_since_s < math.inf else WRITE_STALL_S / 2)
            if trio.current_time() >= self.sending_since_s + WRITE_STALL_S:
                raise LinkClosed(f"{self._peer} did not read for {WRITE_STALL_S:g} s")
