"""Keeper: everything that this device can tell, its own streams and those it keeps for others, as one shelf.

In: where somebody stands with a stream. Out: the page that goes on from there, or the word that there is none any more.
"""

from typing import Final

from index.model.errors import RewindNeeded, SnapshotNeeded
from index.store import gaps, streams
from index.store.store import Store
from index.store.streams import OWNED, SHARED, StreamId
from sync.log.messages import At
from sync.log.outgoing import PAGE_ROWS, Outgoing
from sync.log.pages import Page, kept


class Keeper:
    """Used on the loop only."""

    def __init__(self, store: Store, outgoing: Outgoing) -> None:
        self.store = store
        self.outgoing = outgoing

    def is_own(self, stream: StreamId) -> bool:
        return stream.device == self.store.device_uuid and stream.epoch == self.store.epoch

    def places(self) -> dict[StreamId, At]:
        """How far this device is with every stream it knows of; of its own, up to the last thing that they tell."""
        out: dict[StreamId, At] = {}
        for row in streams.every(self.store.db):
            if self.is_own(row.id):
                out[row.id] = At(*row.id, self.outgoing.head_of(row.kind))
            else:
                out[row.id] = At(*row.id, row.seq, row.part_to, row.part_after)
        return out

    def heads(self) -> tuple[At, ...]:
        """What others can have from here, by how far it goes. An epoch of this device that was given up before anything
        was told in it is nobody's to have."""
        void = {
            row.id
            for row in streams.every(self.store.db)
            if row.device == self.store.device_uuid and row.seq <= row.start_seq and not self.is_own(row.id)
        }
        return tuple(at for stream, at in self.places().items() if stream not in void)

    def forks(self) -> tuple[At, ...]:
        """Places that somebody was heard of at, and that their authors do not know (gaps.py)."""
        return tuple(At(device, epoch, SHARED, seq) for device, epoch, seq in gaps.forks(self.store.db))

    def next_page(self, at: At, limit: int = PAGE_ROWS) -> Page | None:
        """The page that goes on from a place. SnapshotNeeded or RewindNeeded where none can."""
        stream = at.stream
        if self.is_own(stream):
            if stream.kind == OWNED:
                return self.outgoing.owned(at.seq, at.part_to, at.part_after, limit)
            return self.outgoing.shared(at.seq, limit)
        row = streams.next_page(self.store.db, stream, at.seq, at.part_to, at.part_after)
        if row is not None:
            return kept(row)
        known = streams.get(self.store.db, stream)
        if known is None or known.seq <= at.seq:
            return None
        if stream.kind == SHARED:
            raise SnapshotNeeded("what goes on from there is not kept here")
        if at.seq > known.start_seq:
            raise RewindNeeded("what goes on from there is not kept here")
        return None

    def start_of(self, stream: StreamId) -> int:
        row = streams.get(self.store.db, stream)
        return 0 if row is None else row.start_seq


def after(page: Page) -> At:
    """Where somebody stands who has a page."""
    facts = page.facts
    if facts.is_last:
        return At(*facts.stream, facts.to_seq)
    return At(*facts.stream, facts.from_seq, facts.to_seq, facts.last_id)


KINDS: Final = (SHARED, OWNED)
