"""Replicator: the log at work, between this device and those it has links to.

Over each link two things go on. We *follow* the other device: it is asked once, from where we stand, and tells pages
for as long as the link lasts; they are applied one at a time, whoever sent them, in steps that give way to whatever
else the loop has to do. And we *serve* it the same way: what it lacks of our streams and of those we keep for others,
shared rows before rows of entries, then whatever comes, as soon as it is durable.

    nothing yet ──► backfilling ──► catching up ──► ready
                        ▲               │  ▲          │
                        └── behind ─────┘  └── pages ─┘         paused: by a person

A device that knows of nobody takes the current state of shared rows first, of one other device at a time. What others
tell meanwhile is not asked for until then, so there is nothing that could get lost.

Nothing is acknowledged (`Have`) before it is durable. A page that cannot be applied leaves the cursor where it is: one
that speaks of a branch or a device nobody has told of waits for that, one with a gap before it is asked for anew, and
one that is not what it says it is ends the link. No wait without an end, and one page of each link at a time.
"""

import logging
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol

import attrs
import msgpack
import trio

from index.model.errors import (
    LinkClosed,
    MissingDependency,
    NoSpace,
    PageRefused,
    RewindNeeded,
    SnapshotNeeded,
    Unsupported,
    VdfsError,
)
from index.store import changes, devices, pending, streams
from index.store.store import Store
from index.store.streams import SHARED, StreamId
from sync.log import epochs, outgoing, pages, restamping, snapshot
from sync.log.events import Event, Events
from sync.log.incoming import Gap, Incoming
from sync.log.keeper import KINDS, Keeper, after
from sync.log.messages import (
    Again,
    Ahead,
    At,
    Behind,
    Follow,
    Have,
    Heads,
    HeadsWanted,
    PageSent,
    StatePart,
    StateWanted,
    UpToDate,
)  # fmt: skip
from sync.log.pages import Page
from sync.log.snapshot import Joining, Part
from sync.net.bell import Bell
from sync.net.channel import Call, Channel

log = logging.getLogger("sdmount.sync")

#: How long what was written waits for more before it is told, when something was told a moment ago; a change that comes
#: alone waits for nothing.
GATHER_S: Final = 0.005
#: How long what was applied waits for more before it is made durable and acknowledged.
ACK_S: Final = 0.25
#: A page of a device that the other side has a link to itself is left to that link for so long.
RELAY_S: Final = 2.0
#: What could not be applied is asked for again after so long, at the latest.
RETRY_S: Final = 1.0
PRUNE_S: Final = 60.0
#: Whose clock runs ahead is told so again after so long.
AHEAD_S: Final = 10.0
#: Of another device's rows at least so many pages are kept, before those that are superseded are looked at.
PAGES_KEPT: Final = 64
_SEEN_AGAIN_NS: Final = 3600 * 10**9
FOLLOW_S: Final = 12 * 3600.0
STATE_S: Final = 120.0
HEADS_S: Final = 10.0
LIVE, BULK = 2, 4

UNINITIALIZED, BACKFILLING, CATCHING_UP, READY, PAUSED = (
    "uninitialized", "backfilling", "catching up", "ready", "paused",
)  # fmt: skip


#: Gives the parts of the current state, while a block lasts.
ReadState = Callable[[], AbstractAsyncContextManager[AsyncIterator[Part]]]


class Pace(Protocol):
    """Turns on the loop, and how much of it one may take."""

    @property
    def is_used(self) -> bool: ...

    def turn(self) -> AbstractAsyncContextManager[None]: ...


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

    def stall(self, stream: StreamId, missing: bytes = b"") -> None:
        """What came of a stream cannot be applied yet."""
        self.stalled[stream] = missing
        self.has_stalled.set()


class Replicator:
    """Used on the loop only; `run` is its life, `link` that of one link."""

    def __init__(
        self,
        store: Store,
        incoming: Incoming,
        keeper: Keeper,
        *,
        pace: Pace,
        events: Events,
        read_state: ReadState | None = None,
    ) -> None:
        self.store = store
        self.incoming = incoming
        self.keeper = keeper
        self.pace = pace
        self.events = events
        self.peers: dict[bytes, Peer] = {}
        self._linked: list[Peer] = []
        self.is_paused = False
        self.is_out = False  # this device is no member any more: nobody will ask for what it says
        self.pages_kept = PAGES_KEPT
        self.page_rows = outgoing.PAGE_ROWS
        self.changed: Callable[[], None] = lambda: None  # who is connected, and how far, changed
        self._read_state = read_state or self._state_at_once
        self._applying = trio.Lock()
        self._initializing = trio.Lock()
        self._backfilling: bytes | None = None
        self._to_acknowledge = trio.Event()
        self._written = Bell()
        self._came_s: dict[StreamId, float] = {}  # when a stream of somebody else went on last
        self._resumed = trio.Event()
        self._ahead_told_s = -math.inf
        self._applied = Bell()
        store.wrote = self._written.ring

    # state ------------------------------------------------------------------------------------------------------------

    @property
    def is_initialized(self) -> bool:
        """Whether the state of some other device was ever taken in whole."""
        own = self.store.device_uuid
        return any(row.kind == SHARED and row.device != own for row in streams.every(self.store.db))

    @property
    def state(self) -> str:
        """One word for where this device stands."""
        if self.is_paused:
            return PAUSED
        if self._backfilling is not None:
            return BACKFILLING
        if not self.is_initialized:
            return UNINITIALIZED
        if any(not peer.is_up_to_date for peer in self.peers.values()):
            return CATCHING_UP
        return READY

    def pause(self, paused: bool) -> None:
        """Neither tell nor take in until somebody says otherwise."""
        if paused == self.is_paused:
            return
        self.is_paused = paused
        if not paused:
            self._resumed.set()
            self._resumed = trio.Event()
            self._ring_all()
        self.events.add(Event.STATE, "sync is paused" if paused else "sync goes on")

    async def _while_paused(self) -> None:
        while self.is_paused:
            await self._resumed.wait()

    # life -------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell what is written, acknowledge what was applied, forget what all have."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_writes)
            nursery.start_soon(self._acknowledge)
            nursery.start_soon(self._keep_house)

    async def link(self, peer: Peer) -> None:
        """Follow a device for as long as the link to it lasts."""
        device, channel = peer.device, peer.channel
        self._linked.append(peer)
        self.peers[device] = peer
        self._to_acknowledge.set()
        self.events.add(Event.CONNECTED, "connected", device)
        self.changed()
        failure: VdfsError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask_again, peer)
                try:
                    await self._follow(peer)
                except VdfsError as error:  # comes out as it is, not in a group
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self._linked.remove(peer)
            left = [one for one in self._linked if one.device == device]  # of two links one stays
            if left:
                self.peers[device] = left[-1]
            else:
                del self.peers[device]
            self.events.add(Event.DISCONNECTED, f"disconnected: {channel.closed or 'closing'}", device)
            self.changed()
            self._to_acknowledge.set()
            self._ring_all()
        if failure is not None:
            raise failure

    # following --------------------------------------------------------------------------------------------------------

    async def _follow(self, peer: Peer) -> None:
        while peer.channel.closed is None:
            await self._while_paused()
            if not self.is_initialized:
                async with self._initializing:
                    if not self.is_initialized:
                        await self._take_state(peer)
            request = Follow(tuple(self.keeper.places().values()), self._direct())
            try:
                async with peer.channel.stream(request, priority=LIVE, deadline_s=FOLLOW_S) as replies:
                    async for reply in replies:
                        if not await self._hear(peer, reply):
                            break
            except (LinkClosed, trio.ClosedResourceError):
                return

    async def _hear(self, peer: Peer, reply: Any) -> bool:
        """One answer to a Follow; returns whether to go on hearing it."""
        await self._while_paused()
        if isinstance(reply, PageSent):
            await self._take(peer, reply)
        elif isinstance(reply, UpToDate):
            await self._spoken(peer, reply.places)
            peer.heads = {at.stream: at.seq for at in reply.places}
            self._settle(peer)
        elif isinstance(reply, Behind):
            stream = StreamId(reply.device, reply.epoch, reply.kind)
            if reply.is_rewound:
                with self.store.note() as db:
                    streams.rewind(db, stream)
            else:
                async with self._initializing:
                    await self._take_state(peer)
            return False
        return True

    def _settle(self, peer: Peer) -> None:
        """Whether we have all that a device said that it has."""
        mine = {stream: at.seq for stream, at in self.keeper.places().items()}
        # Of our own it may have been told up to a unit that says nothing, which is no head of ours.
        theirs = {s: seq for s, seq in peer.heads.items() if self._is_wanted(s)}
        has_all = bool(peer.heads) and all(mine.get(s, 0) >= seq for s, seq in theirs.items())  # once it has said them
        was, peer.is_up_to_date = peer.is_up_to_date, has_all
        if peer.is_up_to_date and not was:
            self.events.add(Event.CAUGHT_UP, "has told all that it has", peer.device)
            self.changed()

    async def _take(self, peer: Peer, sent: PageSent) -> None:
        """Apply a page that came; after its sender has said what it knows of us."""
        with trio.move_on_after(RELAY_S):
            await peer.has_spoken.wait()
        size_bytes = len(sent.head) + len(sent.body)
        peer.pages_in += 1
        peer.bytes_in += size_bytes
        async with self._applying:
            try:
                stream = pages.stream_of(sent.head)
                if self.incoming.is_out(peer.device):
                    raise PageRefused("a device that was put out of the library tells nothing any more")
                if self.incoming.is_out(stream.device) and not self._is_wanted(stream):
                    return
                page = self.incoming.proven(sent.head, bytes(sent.body))
                began_s = trio.current_time()
                await self._apply(page)
            except MissingDependency as error:
                peer.stall(stream, error.uuid)
                return
            except Gap:
                peer.stall(stream)
                return
            except NoSpace as error:
                peer.stall(stream)
                self.events.add(Event.ERROR, str(error), peer.device)
                return
            except PageRefused as error:
                self.events.add(Event.ERROR, f"refused: {error}", peer.device)
                raise
        facts = page.facts
        peer.rows_in += facts.told
        self.events.batch(peer.device, facts.told, size_bytes, trio.current_time() - began_s)
        self._came_s[facts.stream] = trio.current_time()
        self._settle(peer)
        self._to_acknowledge.set()
        self._applied.ring()
        self._ring_all()

    async def _apply(self, page: Page) -> None:
        steps = self.incoming.take(page, lambda: 50 if self.pace.is_used else 2000)
        try:
            is_more = True
            while is_more:
                async with self.pace.turn():
                    is_more = next(steps, self) is not self
        finally:
            steps.close()

    async def _ask_again(self, peer: Peer) -> None:
        """What could not be applied is asked for once more."""
        while True:
            if not peer.stalled:
                await peer.has_stalled.wait()
            await trio.sleep(RETRY_S)
            places = self.keeper.places()
            wanted = [places.get(stream, At(*stream, 0)) for stream in peer.stalled]
            peer.stalled.clear()
            peer.has_stalled = trio.Event()
            try:
                await peer.channel.notify(Again(tuple(wanted)))
            except LinkClosed:
                return

    async def _take_state(self, peer: Peer) -> None:
        """Take the current state of shared rows of a device."""
        self._backfilling = peer.device
        self.events.add(Event.BACKFILL_STARTED, "takes the current state", peer.device)
        self.changed()
        began_s, rows = trio.current_time(), 0
        try:
            joining = Joining(self.store, self.incoming.believed)
            is_whole = False
            async with peer.channel.stream(StateWanted(), priority=BULK, deadline_s=STATE_S) as replies:
                async for reply in replies:
                    if not isinstance(reply, StatePart):
                        continue
                    if not reply.sort:
                        is_whole = True
                        break
                    part = _part(reply)
                    rows += len(part.rows)
                    async with self._applying, self.pace.turn():
                        joining.take(part)
            if not is_whole:
                raise PageRefused("the current state broke off")
            async with self._applying, self.pace.turn():
                joining.finish(self.incoming.tell)
            self.incoming.heard(joining.merged)
        except VdfsError as error:
            self.events.add(Event.BACKFILL_FAILED, f"the current state could not be taken: {error}", peer.device)
            raise
        finally:
            self._backfilling = None
        took_s = trio.current_time() - began_s
        self.events.add(Event.BACKFILL_COMPLETED, f"took the current state: {rows} rows in {took_s:.1f} s", peer.device)
        self._to_acknowledge.set()

    # serving ----------------------------------------------------------------------------------------------------------

    async def serve(self, peer: Peer, call: Call) -> None:
        """Answer a request of a device."""
        message = call.message
        if isinstance(message, Follow):
            await self._serve_follow(peer, call, message)
        elif isinstance(message, StateWanted):
            async with self._read_state() as parts:
                async for part in parts:
                    await call.reply(StatePart(part.sort, msgpack.packb(part.rows)))
            await call.reply(StatePart(""))
        elif isinstance(message, HeadsWanted):
            await call.reply(Heads(tuple(self.keeper.places().values())))
        else:
            raise Unsupported(f"{type(message).__name__} is not answered here")

    async def notified(self, peer: Peer, message: Any) -> None:
        """A notice of a device."""
        if isinstance(message, Have):
            await self._spoken(peer, message.places)
            peer.have = {at.stream: at.seq for at in message.places}
            self._heard_of(peer.device)
            peer.direct = frozenset(message.direct)
            with self.store.note() as db:
                streams.note_holding(db, peer.device, peer.have)
            peer.bell.ring()
        elif isinstance(message, Again):
            peer.places.update({at.stream: at for at in message.places})
            peer.is_told = False
            peer.bell.ring()
        elif isinstance(message, Ahead) and restamping.restamp(self.store):
            self.events.add(Event.STATE, "the clock here ran ahead: what is stamped so is of now", peer.device)

    async def _spoken(self, peer: Peer, places: Sequence[At]) -> None:
        """A device said how far it knows what. Where it knows of us what we have forgotten, we begin anew, and hear of
        that."""
        if epochs.is_forgotten(self.store, places):
            epochs.begin_again(self.store, places)
            self.events.add(Event.STATE, "came back from an old copy; tells all anew", peer.device)
            own = self.store.device_uuid
            wanted = Again(tuple(at for at in self.keeper.places().values() if at.device == own and at.kind == SHARED))
            for one in list(self.peers.values()):
                try:
                    await one.channel.notify(wanted)
                except LinkClosed:
                    continue
            self._ring_all()
        peer.has_spoken.set()

    async def _serve_follow(self, peer: Peer, call: Call, follow: Follow) -> None:
        await self._spoken(peer, follow.places)
        peer.places = {at.stream: at for at in follow.places}
        peer.direct = frozenset(follow.direct)
        peer.is_told = False
        peer.bell.ring()
        while not peer.is_over:
            await self._while_paused()
            try:
                page = self._page_for(peer)
            except (SnapshotNeeded, RewindNeeded) as error:
                stream = self._at_fault
                await call.reply(Behind(*stream, isinstance(error, RewindNeeded)))
                return
            if page is not None:
                if self.keeper.is_own(page.facts.stream):
                    await self.store.make_durable()
                await call.reply(PageSent(page.head, page.body))
                peer.places[page.facts.stream] = after(page)
                peer.pages_out += 1
                peer.bytes_out += len(page.head) + len(page.body)
                peer.is_told = False
                continue
            if not peer.is_told:
                peer.is_told = True
                await call.reply(UpToDate(tuple(self.keeper.places().values())))
            with trio.move_on_after(RELAY_S):
                await peer.bell.wait()

    _at_fault: StreamId

    def _page_for(self, peer: Peer) -> Page | None:
        """What a device is told next: shared rows first, and of these ours."""
        places = self.keeper.places()
        own = self.store.device_uuid
        now_s = trio.current_time()
        for kind in KINDS:
            for stream, mine in sorted(places.items(), key=lambda one: (one[0].device != own, one[0])):
                if stream.kind != kind or (stream.device == peer.device and _is_of_now(stream, peer)):
                    continue
                at = peer.places.get(stream) or At(*stream, self.keeper.start_of(stream))
                if _has_all(at, mine) or (stream.device != own and self._comes_itself(peer, stream, mine, now_s)):
                    continue
                self._at_fault = stream
                page = self.keeper.next_page(at, min(200, self.page_rows) if self.pace.is_used else self.page_rows)
                if page is not None:
                    return page
        return None

    def _comes_itself(self, peer: Peer, stream: StreamId, mine: At, now_s: float) -> bool:
        """Whether a page is left to the link that a device has to its author."""
        if stream.device not in peer.direct:
            return False
        return now_s - self._came_s.get(stream, -math.inf) < RELAY_S or peer.have.get(stream, -1) >= mine.seq

    def _is_wanted(self, stream: StreamId) -> bool:
        """Whether a stream is one of another member; or what one that was put out since had said to others."""
        if stream.device == self.store.device_uuid:
            return False
        if not self.incoming.is_out(stream.device):
            return True
        return stream.kind == SHARED and self.incoming.key_of(stream.device) is not None

    def _is_newest(self, stream: StreamId) -> bool:
        return streams.newest_epoch(self.store.db, stream.device, stream.kind) <= stream.epoch

    @asynccontextmanager
    async def _state_at_once(self) -> AsyncIterator[AsyncIterator[Part]]:
        """The state, read on the loop: for stores that have no second connection."""

        async def parts() -> AsyncIterator[Part]:
            for part in read:
                yield part

        read = list(snapshot.read(self.store.db, self.store.device_uuid, self.store.epoch))
        yield parts()

    # behind -----------------------------------------------------------------------------------------------------------

    def _ring_all(self) -> None:
        for peer in self.peers.values():
            peer.bell.ring()

    def _direct(self) -> tuple[bytes, ...]:
        return tuple(sorted(self.peers))

    async def _watch_writes(self) -> None:
        rung_s = -math.inf
        while True:
            await self._written.wait()
            if trio.current_time() - rung_s < 2 * GATHER_S:
                await trio.sleep(GATHER_S)
            rung_s = trio.current_time()
            self._ring_all()

    async def _acknowledge(self) -> None:
        """Say what is durable here, once there is something new."""
        while True:
            await self._to_acknowledge.wait()
            await trio.sleep(ACK_S)
            self._to_acknowledge = trio.Event()
            places = tuple(self.keeper.places().values())
            await self.store.make_durable()
            notice = Have(places, self._direct())
            for peer in list(self.peers.values()):
                try:
                    with trio.move_on_after(RELAY_S):
                        await peer.channel.notify(notice)
                except LinkClosed:
                    continue

    async def _keep_house(self) -> None:
        pruned_s = trio.current_time()
        while True:
            await trio.sleep(RETRY_S)
            try:
                if self.incoming.release():
                    self._ring_all()
                outgoing.tell_untold(self.store)
                await self._recall()
                await self._tell_ahead()
                for _ in self.incoming.clear():
                    async with self.pace.turn():
                        pass
                if trio.current_time() - pruned_s >= PRUNE_S:
                    pruned_s = trio.current_time()
                    outgoing.prune(self.store, [] if self.is_out else self._awaited())
                    await self._fetch_bases()
            except NoSpace as error:
                log.info("sync waits for room: %s", error)

    async def _recall(self) -> None:
        """A stamp of the future was given up that had made what others wrote look old: it is gone through once more,
        and the state of others taken."""
        if not self.peers or changes.get_meta(self.store.db, pending.RECALL) is None:
            return
        restamping.recall(self.incoming)
        for peer in list(self.peers.values()):
            try:
                async with self._initializing:
                    await self._take_state(peer)
            except VdfsError as error:
                log.info("the current state of %s could not be taken: %s", peer.device.hex()[:8], error)
                return  # once more
        with self.store.note() as db:
            changes.drop_meta(db, pending.RECALL)

    async def _tell_ahead(self) -> None:
        """Who stamps in the future is told so, now and then."""
        if trio.current_time() < self._ahead_told_s + AHEAD_S:
            return
        for device, hlc in pending.earliest_aside(self.store.db):
            self._ahead_told_s = trio.current_time()
            peer = self.peers.get(device)
            if peer is not None:
                try:
                    await peer.channel.notify(Ahead(hlc))
                except LinkClosed:
                    continue

    def _awaited(self) -> list[bytes]:
        """The other devices, without those that were not heard of for so long that nobody waits for them."""
        store, found = self.store, []
        for device in devices.others(store.db, store.device_uuid):
            seen_ns = streams.seen_ns(store.db, device)
            if seen_ns is None or device in self.peers:
                self._heard_of(device)
            elif seen_ns < store.now_ns() - streams.RETIRED_NS:
                continue
            found.append(device)
        return found

    def _heard_of(self, device: bytes) -> None:
        seen_ns, now_ns = streams.seen_ns(self.store.db, device), self.store.now_ns()
        if seen_ns is None or abs(now_ns - seen_ns) > _SEEN_AGAIN_NS:
            with self.store.note() as db:
                streams.note_seen(db, device, now_ns)

    async def _fetch_bases(self) -> None:
        """Where many pages of a device's rows are kept that later ones say anew, all of its rows are asked for."""
        for stream in streams.overgrown(self.store.db, self.pages_kept):
            peer = self.peers.get(stream.device)
            if peer is None or not self._is_newest(stream):
                continue
            with self.store.note() as db:
                streams.rewind(db, stream)
            try:
                await peer.channel.notify(Again((self.keeper.places()[stream],)))
            except LinkClosed:
                continue

    async def news(self, deadline_s: float) -> None:
        """Wait until something was applied, or for a while."""
        with trio.move_on_after(deadline_s):
            await self._applied.wait()

    # asked by people --------------------------------------------------------------------------------------------------

    async def lacks(self) -> list[str]:
        """Asks every connected device how far it is; what is still missing here, in words."""
        missing: list[str] = []

        async def ask(peer: Peer) -> None:
            try:
                heads = await peer.channel.call(HeadsWanted(), priority=LIVE, deadline_s=HEADS_S)
            except VdfsError as error:
                missing.append(f"{peer.device.hex()[:8]} does not answer: {error}")
                return
            mine = self.keeper.places()
            for at in heads.places:
                have = mine.get(at.stream)
                if self._is_wanted(at.stream) and (0 if have is None else have.seq) < at.seq:
                    missing.append(
                        f"{at.device.hex()[:8]} is at {at.seq}, and {0 if have is None else have.seq} is here"
                    )

        async with trio.open_nursery() as nursery:
            for peer in list(self.peers.values()):
                nursery.start_soon(ask, peer)
        if self._backfilling is not None:
            missing.append("the current state is being taken")
        return missing


def _is_of_now(stream: StreamId, peer: Peer) -> bool:
    """Whether a stream of a device's own is of the epoch that it is in, as far as it said."""
    return all(one.epoch <= stream.epoch for one in peer.places if one.device == peer.device)


def _has_all(at: At, mine: At) -> bool:
    """Whether somebody stands where we do, or further."""
    if at.seq != mine.seq or not mine.part_to:
        return at.seq >= mine.seq
    return at.part_to == mine.part_to and at.part_after >= mine.part_after


def _part(reply: StatePart) -> Part:
    try:
        rows = msgpack.unpackb(bytes(reply.body), max_ext_len=0)
    except Exception as error:
        raise PageRefused("a part of a state is no msgpack") from error
    if not isinstance(rows, list):
        raise PageRefused("a part of a state has another form than it must have")
    return Part(reply.sort, rows)


class NoPace:
    """Where nobody else wants the loop."""

    is_used = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield
