"""The answers to one request, as whoever asked takes them.

They wait here, bounded by the window of the request. Only when one is taken may as much be sent again. Kept out: how
they come (the channel).
"""

from collections import deque
from typing import Any, Final, Protocol

import trio

from index.model.errors import Deadline, LinkClosed, PeerError
from sync.net.bell import Bell
from sync.wire.streams import Ended, Replied

_SAME_S: Final = 0.01  # a deadline travels in whole milliseconds


class Source(Protocol):
    """Where answers come from: a channel."""

    @property
    def peer(self) -> str:
        """Where the other side is, for the texts of errors."""

    @property
    def closed(self) -> str | None:
        """Why no more can come; None while they can."""

    def take(self, reply: Replied) -> Any:
        """The answer as its class, and room for as much."""


class Replies:
    """An async iterator. It ends with the answers, with PeerError when the other side could not give them all, with
    Deadline when one is too late, with LinkClosed when the link ends."""

    def __init__(self, source: Source, deadline: float) -> None:
        #: How many have been taken.
        self.count = 0
        #: When it is too late for another one, by trio's clock.
        self.deadline = deadline
        self._source = source
        self._waiting: deque[Replied] = deque()
        self._end: Ended | None = None
        self._came = Bell()

    def __aiter__(self) -> "Replies":
        return self

    async def __anext__(self) -> Any:
        if not self._waiting:
            await self._wait()
        if not self._waiting:
            assert self._end is not None
            if self._end.failure is None:
                raise StopAsyncIteration
            kind, text = self._end.failure
            if kind == "Deadline" and trio.current_time() > self.deadline - _SAME_S:
                raise Deadline(text)  # both ends look at the clock, and this one came second
            raise PeerError(kind, text)
        self.count += 1
        return self._source.take(self._waiting.popleft())

    async def _wait(self) -> None:
        source = self._source
        while not self._waiting and self._end is None:
            if source.closed is not None:
                raise LinkClosed(f"the link to {source.peer} ended: {source.closed}")
            if trio.current_time() >= self.deadline:
                raise Deadline(f"{source.peer} did not answer in time")
            await self._came.wait()

    def put(self, event: Replied | Ended) -> None:
        """One more has come, or there are no more."""
        if isinstance(event, Replied):
            self._waiting.append(event)
        else:
            self._end = event
        self._came.ring()

    def wake(self) -> None:
        """Whoever waits is to look at the clock, and at the link."""
        self._came.ring()
