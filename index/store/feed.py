"""The feed: committed changes, handed to whoever listens, each at its own pace.

Channels are bounded; a reader that lags loses commits and is told so by one `LAGGED` value, after which it must look
at the store instead (re-read, or invalidate everything it told). Publishing never blocks the writer.

Who keeps answers made from rows cannot have a pace of his own: he is told at once (`at_once`), before anybody else can
ask him, by a function that does nothing but forget.
"""

import math
from collections.abc import Callable
from typing import Final

import trio

from index.model.change import Commit

#: In place of the commits a slow reader lost.
LAGGED: Final = Commit(-1, 0, "lagged", ())

#: Commits a reader may be behind; each holds at most a few hundred changes, so a reader costs a few megabytes at most.
CAPACITY = 1024


class Feed:
    """Fan-out of commits to bounded channels. Used on the loop only."""

    def __init__(self) -> None:
        self._senders: list[tuple[trio.MemorySendChannel[Commit], frozenset[str]]] = []
        self._lagging: set[int] = set()
        self._forgetful: list[Callable[[Commit], None]] = []

    def subscribe(
        self, capacity: float = CAPACITY, without: frozenset[str] = frozenset()
    ) -> trio.MemoryReceiveChannel[Commit]:
        """A channel of the commits from now on, but for those of some origins; close it to unsubscribe."""
        assert capacity < math.inf
        send, receive = trio.open_memory_channel[Commit](capacity)
        self._senders.append((send, without))
        return receive

    def at_once(self, forget: Callable[[Commit], None]) -> None:
        """Call a function with every commit from now on, in the moment it is made; it must not write."""
        self._forgetful.append(forget)

    def publish(self, commit: Commit) -> None:
        for forget in self._forgetful:
            forget(commit)
        for subscriber in list(self._senders):
            send, without = subscriber
            if commit.origin in without:
                continue
            try:
                if id(send) in self._lagging:
                    send.send_nowait(LAGGED)
                    self._lagging.discard(id(send))
                send.send_nowait(commit)
            except trio.WouldBlock:
                self._lagging.add(id(send))
            except trio.BrokenResourceError:
                self._senders.remove(subscriber)
                self._lagging.discard(id(send))
