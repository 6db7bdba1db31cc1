"""Pairings: sessions that run behind, by their numbers, for those who ask from outside.

In: somebody wants to show words, or has typed some. Out: a session at once; its end comes by itself, by `end`, or when
nobody has asked for UNASKED_S how it stands: words that nobody shows any more must not serve. While a person is asked
about a device that has come that does not count.
"""

import logging
import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

import attrs
import trio

from index.model.errors import NotFound, NotRunning
from sync.net.addresses import Endpoint
from sync.peers.introduction import Introductions
from sync.peers.sessions import Session

log = logging.getLogger("sdmount.sync")

#: How long a pairing goes on without anybody asking for it.
UNASKED_S: Final = 15.0
_LEFT_ALONE_S: Final = 1.0
_LOOK_S: Final = 1.0
_MOST: Final = 16


@attrs.define
class _Held:
    session: Session
    asking: int = 0
    asked_s: float = 0.0

    def left_alone_s(self, now_s: float) -> float:
        """Since when nobody asks, of somebody who shows words."""
        return -math.inf if self.asking or self.session.has_met else now_s - self.asked_s


class Pairings:
    """Used on the loop only; `run` is its life."""

    def __init__(self, introductions: Introductions) -> None:
        self._introductions = introductions
        self._held: dict[int, _Held] = {}
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
        return self._get(number).session

    async def news(self, number: int, seen: str, deadline_s: float) -> Session:
        """A pairing, once its state is another one than is known, or after a while."""
        held = self._get(number)
        held.asking += 1
        try:
            await held.session.news(seen, deadline_s)
        finally:
            held.asking -= 1
            held.asked_s = trio.current_time()
        return held.session

    def end(self, number: int) -> None:
        """Its words serve no more."""
        found = self._held.pop(number, None)
        if found is not None:
            found.session.fail("ended here")

    def _get(self, number: int) -> _Held:
        found = self._held.get(number)
        if found is None:
            raise NotFound("that pairing is over; begin another one with `sd pair`")
        return found

    async def _begin(self, made: Callable[[], AbstractAsyncContextManager[Session]]) -> tuple[int, Session]:
        if self._nursery is None:
            raise NotRunning("devices are paired by a mounted library: run `sdmount MOUNTPOINT` first")
        self._make_way()
        self._number += 1
        number = self._number
        for old in [n for n, held in self._held.items() if held.session.is_over][:-_MOST]:
            del self._held[old]
        session: Session = await self._nursery.start(self._hold, number, made)
        return number, session

    def _make_way(self) -> None:
        """A pairing that nobody asks for any more, since its program was killed, does not hold up another one."""
        now_s = trio.current_time()
        for held in self._held.values():
            if not held.session.is_over and held.left_alone_s(now_s) > _LEFT_ALONE_S:
                held.session.fail("another pairing was begun")

    async def _hold(
        self,
        number: int,
        made: Callable[[], AbstractAsyncContextManager[Session]],
        *,
        task_status: trio.TaskStatus[Session],
    ) -> None:
        session: Session | None = None
        try:
            async with made() as session:
                held = self._held[number] = _Held(session, asked_s=trio.current_time())
                task_status.started(session)
                while not session.is_over:
                    with trio.move_on_after(_LOOK_S):
                        await session.changed()
                    if held.left_alone_s(trio.current_time()) > UNASKED_S:
                        session.fail("nobody waits for it any more")
        except Exception:
            if session is None:
                raise  # told to who wanted to begin it
            log.exception("a pairing ended by a bug of ours")
            session.fail("a bug; the log has it")
