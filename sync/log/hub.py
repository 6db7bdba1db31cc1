"""Hub: what both directions of the log share: the devices that there are links to, who is woken when, what is paused.

Following, serving, backfill and upkeep know each other by it alone. Used on the loop only.
"""

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import attrs
import trio

from index.model.errors import LinkClosed
from index.store import streams
from index.store.store import Store
from index.store.streams import SHARED, StreamId
from sync.log import epochs, outgoing
from sync.log.events import Event, Events
from sync.log.incoming import Incoming
from sync.log.keeper import Keeper
from sync.log.messages import Again, At
from sync.net.bell import Bell
from sync.net.channel import Channel

#: What was said, and what both sides know of each other, goes first; the current state when nothing else is to go.
LIVE, BULK = 2, 4
#: A page of a device that the other side has a link to itself is left to that link for so long; nobody who is told
#: something is waited for longer.
RELAY_S: Final = 2.0
_SEEN_AGAIN_NS: Final = 3600 * 10**9
#: Who comes back from an old copy learns so once, or once more from somebody who knew a copy before. Who learns it
#: again and again is told of by two.
_DOUBLE_AFTER: Final = 3
_DOUBLE_CURE: Final = "nothing is lost, but have one of the two begin with an empty data directory and `sd join`"

log = logging.getLogger("sdmount.sync")


class Pace(Protocol):
    """Turns on the loop, and how much of it one may take."""

    @property
    def is_used(self) -> bool: ...

    def turn(self) -> AbstractAsyncContextManager[None]: ...


class NoPace:
    """Where nobody else wants the loop."""

    is_used = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield


@attrs.define(eq=False)
class Peer:
    """A device that there is a link to."""

    device: bytes
    channel: Channel
    places: dict[StreamId, At] = attrs.field(factory=dict)  # what it has been told
    have: dict[StreamId, int] = attrs.field(factory=dict)  # what it has durably
    direct: frozenset[bytes] = frozenset()
    is_over: bool = False  # it is told nothing more
    is_told: bool = False  # that there is nothing more just now
    is_up_to_date: bool = False  # we have all that it has
    heads: dict[StreamId, int] = attrs.field(factory=dict)  # what it has, as far as it said
    bell: Bell = attrs.field(factory=Bell)
    has_spoken: trio.Event = attrs.field(factory=trio.Event)  # it said how far it knows what
    stalled: dict[StreamId, bytes] = attrs.field(factory=dict)  # what waits for a row that is not known
    has_stalled: trio.Event = attrs.field(factory=trio.Event)
    pages_in: int = 0
    pages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    rows_in: int = 0

    def stand(self, places: Sequence[At]) -> None:
        """It says where it stands: perhaps further back than it was, where all of a stream is to be told anew."""
        for at in places:
            self.places[at.stream] = at
            if at.stream in self.have:
                self.have[at.stream] = min(self.have[at.stream], at.seq)

    def stall(self, stream: StreamId, missing: bytes = b"") -> None:
        """What came of a stream cannot be applied yet."""
        self.stalled[stream] = missing
        self.has_stalled.set()


@attrs.define(eq=False)
class Hub:
    """What all parts of the log work with."""

    store: Store
    incoming: Incoming
    keeper: Keeper
    pace: Pace
    events: Events
    page_rows: int = outgoing.PAGE_ROWS
    peers: dict[bytes, Peer] = attrs.field(factory=dict)  # of two links to one device the later
    changed: Callable[[], None] = lambda: None  # who is connected, and how far, changed
    applied: Bell = attrs.field(factory=Bell)  # something was applied
    applying: trio.Lock = attrs.field(factory=trio.Lock)  # held while rows of others are written
    initializing: trio.Lock = attrs.field(factory=trio.Lock)  # held while a current state is taken
    came_s: dict[StreamId, float] = attrs.field(factory=dict)  # when a stream of somebody else went on last
    to_acknowledge: trio.Event = attrs.field(factory=trio.Event)  # something is to be said to all: what is durable here
    is_paused: bool = False
    is_out: bool = False  # this device is no member any more: nobody will ask for what it says
    _begun: int = 0  # how often this run has heard that others know more of this device than itself
    _resumed: trio.Event = attrs.field(factory=trio.Event)
    _linked: list[Peer] = attrs.field(factory=list)

    def join(self, peer: Peer) -> None:
        """There is a link."""
        self._linked.append(peer)
        self.peers[peer.device] = peer
        self.acknowledge_soon()
        self.events.add(Event.CONNECTED, "connected", peer.device)
        self.changed()

    def leave(self, peer: Peer) -> None:
        """The link is over. Of two to one device the other one stays."""
        self._linked.remove(peer)
        left = [one for one in self._linked if one.device == peer.device]
        if left:
            self.peers[peer.device] = left[-1]
        else:
            del self.peers[peer.device]
        self.events.add(Event.DISCONNECTED, f"disconnected: {peer.channel.closed or 'closing'}", peer.device)
        self._ask_others(peer)
        self.changed()
        self.acknowledge_soon()
        self.ring_all()

    def _ask_others(self, gone: Peer) -> None:
        """What a device that is away has begun to tell anew, others must be asked for: they had told it before."""
        mine = self.keeper.places()
        for stream in gone.heads:
            at = mine.get(stream)
            if at is None or not self.is_wanted(stream):
                continue
            one = next((one for one in self.peers.values() if one.heads.get(stream, 0) > at.seq), None)
            if one is not None:
                one.stall(stream)

    def moves(self, stream: StreamId) -> bool:
        """Whether something of a stream was applied just now."""
        return trio.current_time() - self.came_s.get(stream, -math.inf) < RELAY_S

    def pause(self, paused: bool) -> None:
        """Neither tell nor take in until somebody says otherwise."""
        if paused == self.is_paused:
            return
        self.is_paused = paused
        if not paused:
            self._resumed.set()
            self._resumed = trio.Event()
            self.ring_all()
        self.events.add(Event.STATE, "sync is paused" if paused else "sync goes on")

    async def while_paused(self) -> None:
        """Return when nothing is paused."""
        while self.is_paused:
            await self._resumed.wait()

    def ring_all(self) -> None:
        """Every device is looked after: there may be something to tell."""
        for peer in self.peers.values():
            peer.bell.ring()

    def acknowledge_soon(self) -> None:
        """Something became durable, or somebody came or went: all are told, a moment from now."""
        self.to_acknowledge.set()

    def direct(self) -> tuple[bytes, ...]:
        """Whom there are links to."""
        return tuple(sorted(self.peers))

    def is_wanted(self, stream: StreamId) -> bool:
        """Whether a stream is one of another member; or what one that was put out since had said to others."""
        if stream.device == self.store.device_uuid:
            return False
        if not self.incoming.is_out(stream.device):
            return True
        return stream.kind == SHARED and self.incoming.key_of(stream.device) is not None

    def rewind(self, stream: StreamId) -> None:
        """All rows of a device are to be told anew: nobody is to count on what was here of them. `applying` is held."""
        with self.store.note() as db:
            streams.rewind(db, stream)
        for peer in self.peers.values():
            peer.is_up_to_date = False
        self.acknowledge_soon()

    async def spoken(self, peer: Peer, places: Sequence[At], forks: Sequence[At] = ()) -> None:
        """A device said how far it knows what, and of which places nobody seems to know. Where it knows of us what we
        have forgotten, we begin anew, and hear of that."""
        epochs.was_forked(self.store, forks)
        places = (*places, *forks)
        if epochs.is_forgotten(self.store, places):
            epochs.begin_again(self.store, places)
            self.events.add(Event.STATE, "came back from an old copy; tells all anew", peer.device)
            self._begun += 1
            if self._begun == _DOUBLE_AFTER:
                log.warning("another machine seems to be at work with a copy of %s; %s", self.store.path, _DOUBLE_CURE)
                self.events.add(Event.STATE, f"another machine seems to be at work as this device; {_DOUBLE_CURE}")
            own = self.store.device_uuid
            wanted = Again(tuple(at for at in self.keeper.places().values() if at.device == own and at.kind == SHARED))
            for one in list(self.peers.values()):
                try:
                    await one.channel.notify(wanted)
                except LinkClosed:
                    continue
            self.ring_all()
        peer.has_spoken.set()

    def heard_of(self, device: bytes) -> None:
        """A device is there: nobody gives it up for a while."""
        seen_ns, now_ns = streams.seen_ns(self.store.db, device), self.store.now_ns()
        if seen_ns is None or abs(now_ns - seen_ns) > _SEEN_AGAIN_NS:
            with self.store.note() as db:
                streams.note_seen(db, device, now_ns)
