"""Backfill: the current state of shared rows over a link, given (snapshot.py) and taken (joining.py).

A device that knows of nobody takes the state of one other device at a time before it follows anybody. What others tell
meanwhile is not asked for until then, so there is nothing that could get lost. One that has been away for too long
takes it, too, and one that took a stamp of the future for true.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

import msgpack
import trio

from index.model.errors import Deadline, PageRefused, VdfsError
from index.store import streams
from index.store.streams import SHARED
from sync.log import snapshot
from sync.log.events import Event
from sync.log.hub import BULK, Hub, Peer
from sync.log.joining import Joining
from sync.log.messages import At, StatePart, StateWanted
from sync.log.snapshot import Part
from sync.net.channel import Call

#: So long the other side is waited for in all while it tells a state; what is done here with what came is not counted.
STATE_S: Final = 300.0
_STATE_MAX_S: Final = 12 * 3600.0
#: Rows that are taken in at once while somebody uses the mount, and else.
_USED_ROWS: Final = 50
_ROWS: Final = 500

#: Gives the parts of the current state, while a block lasts.
ReadState = Callable[[], AbstractAsyncContextManager[AsyncIterator[Part]]]


class Backfill:
    """Used on the loop only."""

    def __init__(self, hub: Hub, read_state: ReadState | None) -> None:
        self.hub = hub
        self.store, self.incoming, self.events, self.pace = hub.store, hub.incoming, hub.events, hub.pace
        self.taken_of: bytes | None = None  # the device whose state is being taken
        self._read_state = read_state or self.state_at_once

    @property
    def is_initialized(self) -> bool:
        """Whether the state of some other device was ever taken in whole."""
        own = self.store.device_uuid
        return any(row.kind == SHARED and row.device != own for row in streams.every(self.store.db))

    async def take_first(self, peer: Peer) -> None:
        """Take the state of a device unless some state was taken before."""
        if not self.is_initialized:
            async with self.hub.initializing:
                if not self.is_initialized:
                    await self._take(peer)

    async def take(self, peer: Peer) -> None:
        """Take the current state of shared rows of a device."""
        async with self.hub.initializing:
            await self._take(peer)

    async def _take(self, peer: Peer) -> None:
        self.taken_of = peer.device
        self.events.add(Event.BACKFILL_STARTED, "takes the current state", peer.device)
        self.hub.changed()
        began_s, rows = trio.current_time(), 0
        try:
            joining = Joining(self.store, self.incoming.believed, self.incoming.tell)
            is_whole = False
            places = tuple(at for at in self.hub.keeper.places().values() if at.device == peer.device)
            async with peer.channel.stream(StateWanted(places), priority=BULK, deadline_s=_STATE_MAX_S) as replies:
                async for reply in _InTime(replies, peer):
                    if not isinstance(reply, StatePart):
                        continue
                    if not reply.sort:
                        is_whole = True
                        break
                    part = _part(reply)
                    rows += len(part.rows)
                    for some in part.cut(_USED_ROWS if self.pace.is_used else _ROWS):
                        async with self.hub.applying, self.pace.turn():
                            joining.take(some)
            if not is_whole:
                raise PageRefused("the current state broke off")
            async with self.hub.applying, self.pace.turn():
                joining.finish()
            self.incoming.heard(joining.merged)
            if joining.own_forks:
                own = self.store.device_uuid
                await self.hub.spoken(peer, (), [At(own, epoch, SHARED, seq) for epoch, seq in joining.own_forks])
        except VdfsError as error:
            self.events.add(Event.BACKFILL_FAILED, f"the current state could not be taken: {error}", peer.device)
            raise
        finally:
            self.taken_of = None
        took_s = trio.current_time() - began_s
        self.events.add(Event.BACKFILL_COMPLETED, f"took the current state: {rows} rows in {took_s:.1f} s", peer.device)
        self.hub.acknowledge_soon()

    async def give(self, call: Call) -> None:
        """Answer with the current state."""
        async with self._read_state() as parts:
            async for part in parts:
                await call.reply(StatePart(part.sort, msgpack.packb(part.rows)))
        await call.reply(StatePart(""))

    @asynccontextmanager
    async def state_at_once(self) -> AsyncIterator[AsyncIterator[Part]]:
        """The state, read on the loop: for stores that have no second connection."""

        async def parts() -> AsyncIterator[Part]:
            for part in read:
                yield part

        read = list(snapshot.read(self.store.db, self.store.device_uuid, self.store.epoch))
        yield parts()


class _InTime:
    """The answers of a device, as long as it is not waited for too long."""

    def __init__(self, replies: AsyncIterator[Any], peer: Peer) -> None:
        self._replies, self._peer = replies, peer
        self._left_s = STATE_S

    def __aiter__(self) -> "_InTime":
        return self

    async def __anext__(self) -> Any:
        began_s = trio.current_time()
        with trio.move_on_after(self._left_s):
            reply = await anext(self._replies)
            self._left_s -= trio.current_time() - began_s
            return reply
        raise Deadline(f"{self._peer.channel.peer} takes too long to tell its state")


def _part(reply: StatePart) -> Part:
    try:
        rows = msgpack.unpackb(bytes(reply.body), max_ext_len=0)
    except Exception as error:
        raise PageRefused("a part of a state is no msgpack") from error
    if not isinstance(rows, list):
        raise PageRefused("a part of a state has another form than it must have")
    return Part(reply.sort, rows)
