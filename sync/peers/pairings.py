"""Pairings: sessions that run behind, by their numbers, for those who ask from outside.

In: somebody wants to show words, or has typed some. Out: a session at once; its end comes by itself, or by `end`.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import trio

from index.model.errors import NotFound, NotRunning
from sync.net.addresses import Endpoint
from sync.peers.introduction import Introductions, Session

_MOST: Final = 16


class Pairings:
    """Used on the loop only; `run` is its life."""

    def __init__(self, introductions: Introductions) -> None:
        self._introductions = introductions
        self._sessions: dict[int, tuple[Session, trio.CancelScope]] = {}
        self._number = 0
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def offer(self) -> tuple[int, Session]:
        """Show words; a number to ask by."""
        return await self._begin(self._introductions.offering)

    async def join(self, text: str, endpoints: tuple[Endpoint, ...]) -> tuple[int, Session]:
        """Join by what another device shows."""
        return await self._begin(lambda: self._introductions.joining(text, endpoints))

    def get(self, number: int) -> Session:
        """NotFound for a pairing that there is not."""
        found = self._sessions.get(number)
        if found is None:
            raise NotFound("that pairing is over; begin another one with `sd pair`")
        return found[0]

    def end(self, number: int) -> None:
        """Its words serve no more."""
        found = self._sessions.pop(number, None)
        if found is not None:
            found[0].fail("ended here")
            found[1].cancel()

    async def _begin(self, made: Callable[[], AbstractAsyncContextManager[Session]]) -> tuple[int, Session]:
        if self._nursery is None:
            raise NotRunning("devices are paired by a mounted library: run `sdmount MOUNTPOINT` first")
        self._number += 1
        number = self._number
        for old in [n for n, (session, _) in self._sessions.items() if session.is_over][:-_MOST]:
            del self._sessions[old]
        session: Session = await self._nursery.start(self._hold, number, made)
        return number, session

    async def _hold(
        self,
        number: int,
        made: Callable[[], AbstractAsyncContextManager[Session]],
        *,
        task_status: trio.TaskStatus[Session],
    ) -> None:
        with trio.CancelScope() as scope:
            async with made() as session:
                self._sessions[number] = session, scope
                task_status.started(session)
                while not session.is_over:
                    await session.changed.wait()
