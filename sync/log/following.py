"""Following: one device is asked once, from where we stand, and tells pages for as long as the link lasts.

They are applied one at a time, whoever sent them, in steps that give way to whatever else the loop has to do. A page
that cannot be applied leaves the cursor where it is: one that speaks of a branch or a device nobody has told of waits
for that, one with a gap before it is asked for anew, and one that is not what it says it is ends the link.
"""

from collections.abc import Mapping
from typing import Any, Final

import trio

from index.model.errors import Deadline, LinkClosed, MissingDependency, NoSpace, PageRefused
from index.store.streams import StreamId
from sync.log import pages
from sync.log.backfill import Backfill
from sync.log.events import Event
from sync.log.hub import LIVE, RELAY_S, Hub, Peer
from sync.log.incoming import Gap
from sync.log.messages import Again, At, Behind, Follow, PageSent, UpToDate
from sync.log.pages import Page

#: What could not be applied is asked for again after so long, at the latest.
RETRY_S: Final = 1.0
FOLLOW_S: Final = 12 * 3600.0


class Following:
    """Used on the loop only."""

    def __init__(self, hub: Hub, backfill: Backfill) -> None:
        self.hub, self.backfill = hub, backfill
        self.store, self.incoming, self.keeper = hub.store, hub.incoming, hub.keeper
        self.events, self.pace = hub.events, hub.pace

    async def follow(self, peer: Peer) -> None:
        """Until the link is over. VdfsError where its device says what it must not."""
        while peer.channel.closed is None:
            await self.hub.while_paused()
            await self.backfill.take_first(peer)
            request = Follow(tuple(self.keeper.places().values()), self.hub.direct(), self.keeper.forks())
            try:
                async with peer.channel.stream(request, priority=LIVE, deadline_s=FOLLOW_S) as replies:
                    async for reply in replies:
                        if not await self._hear(peer, reply):
                            break
            except Deadline:  # its time is over, and the link is as good as it was
                continue
            except (LinkClosed, trio.ClosedResourceError):
                return

    async def _hear(self, peer: Peer, reply: Any) -> bool:
        """One answer to a Follow; returns whether to go on hearing it."""
        await self.hub.while_paused()
        if isinstance(reply, PageSent):
            await self._take(peer, reply)
        elif isinstance(reply, UpToDate):
            await self.hub.spoken(peer, reply.places)
            peer.heads = {at.stream: at.seq for at in reply.places}
            self._settle(peer)
        elif isinstance(reply, Behind):
            await self._begin_anew(peer, reply)
            return False
        return True

    async def _begin_anew(self, peer: Peer, behind: Behind) -> None:
        """Unless somebody else has told more meanwhile."""
        if not behind.is_rewound:
            if self._stands_at(behind.at):
                await self.backfill.take(peer)
            return
        async with self.hub.applying:  # not in the middle of a page, at whose end the place moves
            if self._stands_at(behind.at):
                self.hub.rewind(behind.at.stream)

    def _stands_at(self, at: At) -> bool:
        return self.keeper.places().get(at.stream, at) == at

    def _settle(self, *peers: Peer) -> None:
        """Whether we have all that devices said that they have."""
        mine = {stream: at.seq for stream, at in self.keeper.places().items()}
        for peer in peers:
            self._settle_one(peer, mine)

    def _settle_one(self, peer: Peer, mine: Mapping[StreamId, int]) -> None:
        # Of our own it may have been told up to a unit that says nothing, which is no head of ours.
        theirs = {s: seq for s, seq in peer.heads.items() if self.hub.is_wanted(s)}
        has_all = bool(peer.heads) and all(mine.get(s, 0) >= seq for s, seq in theirs.items())  # once it has said them
        was, peer.is_up_to_date = peer.is_up_to_date, has_all
        if peer.is_up_to_date and not was:
            self.events.add(Event.CAUGHT_UP, "has told all that it has", peer.device)
            self.hub.changed()

    async def _take(self, peer: Peer, sent: PageSent) -> None:
        """Apply a page that came; after its sender has said what it knows of us."""
        with trio.move_on_after(RELAY_S):
            await peer.has_spoken.wait()
        size_bytes = len(sent.head) + len(sent.body)
        peer.pages_in += 1
        peer.bytes_in += size_bytes
        async with self.hub.applying:
            try:
                stream = pages.stream_of(sent.head)
                if self.incoming.is_out(peer.device):
                    raise PageRefused("a device that was put out of the library tells nothing any more")
                if self.incoming.is_out(stream.device) and not self.hub.is_wanted(stream):
                    return
                page = self.incoming.proven(sent.head, bytes(sent.body))
                if self._is_told_elsewhere(page):
                    raise Gap("somebody else is telling all rows anew")
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
        self.hub.came_s[facts.stream] = trio.current_time()
        self._settle(*self.hub.peers.values())
        self.hub.acknowledge_soon()
        self.hub.applied.ring()
        self.hub.ring_all()

    def _is_told_elsewhere(self, page: Page) -> bool:
        """Whether a page begins with all rows of a device while somebody else is in the middle of telling them: two who
        keep them as of different moments would have us begin again and again."""
        facts = page.facts
        if not facts.is_base or facts.after_id:
            return False
        at = self.keeper.places().get(facts.stream)
        return at is not None and at.part_to not in (0, facts.to_seq) and self.hub.moves(facts.stream)

    async def _apply(self, page: Page) -> None:
        steps = self.incoming.take(page, lambda: 50 if self.pace.is_used else 2000)
        try:
            is_more = True
            while is_more:
                async with self.pace.turn():
                    is_more = next(steps, self) is not self
        finally:
            steps.close()

    async def ask_again(self, peer: Peer) -> None:
        """What could not be applied is asked for once more."""
        while True:
            if not peer.stalled:
                await peer.has_stalled.wait()
            await trio.sleep(RETRY_S)
            places = self.keeper.places()
            wanted = [places.get(stream, At(*stream, 0)) for stream in peer.stalled if not self.hub.moves(stream)]
            for at in wanted:
                del peer.stalled[at.stream]
            if not peer.stalled:
                peer.has_stalled = trio.Event()
            if not wanted:  # others tell it
                continue
            try:
                await peer.channel.notify(Again(tuple(wanted)))
            except LinkClosed:
                return
