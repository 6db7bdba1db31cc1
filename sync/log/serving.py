"""Serving: a device that follows us is told what it lacks of our streams and of those we keep for others.

Shared rows go before rows of entries, ours before those of others; then whatever comes, as soon as it is durable. One
page of each link at a time.
"""

from typing import Final

import trio

from index.model.errors import RewindNeeded, SnapshotNeeded
from index.store.streams import StreamId
from sync.log.hub import RELAY_S, Hub, Peer
from sync.log.keeper import KINDS, after
from sync.log.messages import At, Behind, Follow, PageSent, UpToDate
from sync.log.pages import Page
from sync.net.channel import Call

#: The most rows of a page while somebody else wants the loop.
_SHORT_ROWS: Final = 200


class Serving:
    """Used on the loop only."""

    _at_fault: At

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.store, self.keeper, self.pace = hub.store, hub.keeper, hub.pace

    async def serve(self, peer: Peer, call: Call, follow: Follow) -> None:
        """Answer a Follow for as long as the link lasts."""
        await self.hub.spoken(peer, follow.places, follow.forks)
        peer.places = {}
        peer.stand(follow.places)
        peer.direct = frozenset(follow.direct)
        peer.is_told = False
        peer.bell.ring()
        while not peer.is_over:
            await self.hub.while_paused()
            try:
                page = self._page_for(peer)
            except (SnapshotNeeded, RewindNeeded) as error:
                await call.reply(Behind(self._at_fault, isinstance(error, RewindNeeded)))
                return
            if page is not None:
                peer.places[page.facts.stream] = after(page)  # at once: it may say meanwhile that it stands elsewhere
                if self.keeper.is_own(page.facts.stream):
                    await self.store.make_durable()
                await call.reply(PageSent(page.head, page.body))
                peer.pages_out += 1
                peer.bytes_out += len(page.head) + len(page.body)
                peer.is_told = False
                continue
            if not peer.is_told:
                peer.is_told = True
                await call.reply(UpToDate(self.keeper.heads()))
            with trio.move_on_after(RELAY_S):
                await peer.bell.wait()

    def _page_for(self, peer: Peer) -> Page | None:
        """What a device is told next: shared rows first, and of these ours."""
        places = self.keeper.places()
        own = self.store.device_uuid
        for kind in KINDS:
            for stream, mine in sorted(places.items(), key=lambda one: (one[0].device != own, one[0])):
                if stream.kind != kind or (stream.device == peer.device and _is_of_now(stream, peer)):
                    continue
                at = peer.places.get(stream) or At(*stream, self.keeper.start_of(stream))
                if _has_all(at, mine) or (stream.device != own and self._comes_itself(peer, stream, mine)):
                    continue
                self._at_fault = at
                rows = self.hub.page_rows
                page = self.keeper.next_page(at, min(_SHORT_ROWS, rows) if self.pace.is_used else rows)
                if page is not None:
                    return page
        return None

    def _comes_itself(self, peer: Peer, stream: StreamId, mine: At) -> bool:
        """Whether a page is left to the link that a device has to its author."""
        if stream.device not in peer.direct:
            return False
        return self.hub.moves(stream) or peer.have.get(stream, -1) >= mine.seq


def _is_of_now(stream: StreamId, peer: Peer) -> bool:
    """Whether a stream of a device's own is of the epoch that it is in, as far as it said."""
    return all(one.epoch <= stream.epoch for one in peer.places if one.device == peer.device)


def _has_all(at: At, mine: At) -> bool:
    """Whether somebody stands where we do, or further."""
    if at.seq != mine.seq or not mine.part_to:
        return at.seq >= mine.seq
    return at.part_to == mine.part_to and at.part_after >= mine.part_after
