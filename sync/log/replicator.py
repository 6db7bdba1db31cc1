"""Replicator: the log at work, between this device and those it has links to.

Over each link two things go on: we *follow* the other device (following.py), and we *serve* it the same way
(serving.py). A device that knows of nobody takes the current state of one other first (backfill.py). Behind the links
things are told, acknowledged and let go (upkeep.py). What all of these share is the hub (hub.py).

    nothing yet ──► backfilling ──► catching up ──► ready
                        ▲               │  ▲          │
                        └── behind ─────┘  └── pages ─┘         paused: by a person

No wait without an end, and one page of each link at a time.
"""

from typing import Any, Final

import trio

from index.model.errors import Unsupported, VdfsError
from index.store import streams
from index.store.store import Store
from sync.log import restamping
from sync.log.backfill import Backfill, ReadState
from sync.log.events import Event, Events
from sync.log.following import Following
from sync.log.hub import LIVE, Hub, Pace, Peer
from sync.log.incoming import Incoming
from sync.log.keeper import Keeper
from sync.log.messages import Again, Ahead, Follow, Have, Heads, HeadsWanted, StateWanted
from sync.log.serving import Serving
from sync.log.upkeep import Upkeep
from sync.net.channel import Call

HEADS_S: Final = 10.0

UNINITIALIZED, BACKFILLING, CATCHING_UP, READY, PAUSED = (
    "uninitialized", "backfilling", "catching up", "ready", "paused",
)  # fmt: skip


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
        self.hub = Hub(store, incoming, keeper, pace, events)
        self.backfill = Backfill(self.hub, read_state)
        self.following = Following(self.hub, self.backfill)
        self.serving = Serving(self.hub)
        self.upkeep = Upkeep(self.hub, self.backfill)
        self.run = self.upkeep.run

    @property
    def peers(self) -> dict[bytes, Peer]:
        """The devices that there are links to."""
        return self.hub.peers

    @property
    def is_paused(self) -> bool:
        """Whether a person said so."""
        return self.hub.is_paused

    @property
    def state(self) -> str:
        """One word for where this device stands."""
        if self.hub.is_paused:
            return PAUSED
        if self.backfill.taken_of is not None:
            return BACKFILLING
        if not self.backfill.is_initialized:
            return UNINITIALIZED
        if any(not peer.is_up_to_date for peer in self.peers.values()):
            return CATCHING_UP
        return READY

    def pause(self, paused: bool) -> None:
        """Neither tell nor take in until somebody says otherwise."""
        self.hub.pause(paused)

    async def link(self, peer: Peer) -> None:
        """Follow a device for as long as the link to it lasts."""
        failure: VdfsError | None = None
        self.hub.join(peer)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.following.ask_again, peer)
                try:
                    await self.following.follow(peer)
                except VdfsError as error:  # comes out as it is, not in a group
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            self.hub.leave(peer)
        if failure is not None:
            raise failure

    async def serve(self, peer: Peer, call: Call) -> None:
        """Answer a request of a device."""
        message = call.message
        if isinstance(message, Follow):
            await self.serving.serve(peer, call, message)
        elif isinstance(message, StateWanted):
            await self.hub.spoken(
                peer, message.places
            )  # before: what is told of an epoch known otherwise would be void
            await self.backfill.give(call)
        elif isinstance(message, HeadsWanted):
            await call.reply(Heads(self.hub.keeper.heads()))
        else:
            raise Unsupported(f"{type(message).__name__} is not answered here")

    async def notified(self, peer: Peer, message: Any) -> None:
        """A notice of a device."""
        if isinstance(message, Have):
            await self.hub.spoken(peer, message.places, message.forks)
            peer.have = {at.stream: at.seq for at in message.places}
            self.hub.heard_of(peer.device)
            peer.direct = frozenset(message.direct)
            with self.store.note() as db:
                streams.note_holding(db, peer.device, peer.have)
            peer.bell.ring()
        elif isinstance(message, Again):
            peer.stand(message.places)
            peer.is_told = False
            peer.bell.ring()
        elif isinstance(message, Ahead) and restamping.restamp(self.store, message.hlc, message.stamps):
            self.hub.events.add(Event.STATE, "the clock here ran ahead: what is stamped so is of now", peer.device)

    async def news(self, deadline_s: float) -> None:
        """Wait until something was applied, or for a while."""
        with trio.move_on_after(deadline_s):
            await self.hub.applied.wait()

    async def lacks(self) -> list[str]:
        """Asks every connected device how far it is; what is still missing here, in words."""
        missing: list[str] = []

        async def ask(peer: Peer) -> None:
            try:
                heads = await peer.channel.call(HeadsWanted(), priority=LIVE, deadline_s=HEADS_S)
            except VdfsError as error:
                missing.append(f"{peer.device.hex()[:8]} does not answer: {error}")
                return
            mine = self.hub.keeper.places()
            for at in heads.places:
                have = mine.get(at.stream)
                if self.hub.is_wanted(at.stream) and (0 if have is None else have.seq) < at.seq:
                    missing.append(
                        f"{at.device.hex()[:8]} is at {at.seq}, and {0 if have is None else have.seq} is here"
                    )

        async with trio.open_nursery() as nursery:
            for peer in list(self.peers.values()):
                nursery.start_soon(ask, peer)
        if self.backfill.taken_of is not None:
            missing.append("the current state is being taken")
        return missing
