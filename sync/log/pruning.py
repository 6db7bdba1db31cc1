"""Pruning: what every other device said that it has is let go, of our streams and of those we keep for others.

Who comes later, or has been away for too long, takes the current state, or all rows of a device. What was removed
before it came is remembered for as long as it could come yet: a cursor says that of most numbers, and of those in a gap
(index/store/gaps.py) that all have said to have everything.
"""

from collections.abc import Sequence

import apsw

from index.store import gaps, pending, streams
from index.store.store import Store
from index.store.streams import SHARED, Stream


def prune(store: Store, others: Sequence[bytes]) -> None:
    """Let go of what every other device said that it has. Without others of all that was told: who comes is told what
    there is."""
    db = store.db
    with store.note():
        gaps.forget_forks(db)
    for row in streams.every(db):
        if row.device == store.device_uuid and row.epoch == store.epoch:
            seq = streams.held_by_all(db, others, row.id) if others else store.last_seq
            if row.kind == SHARED:
                if db.execute("SELECT 1 FROM outbox WHERE epoch=? AND seq<=? LIMIT 1", (row.epoch, seq)).fetchone():
                    with store.note():
                        db.execute("DELETE FROM outbox WHERE epoch=? AND seq<=?", (row.epoch, seq))
                        streams.raise_floor(db, row.id, seq)
                        streams.drop_boundaries(db, row.id, seq)
            elif db.execute("SELECT 1 FROM tombstone WHERE seq<=? LIMIT 1", (seq,)).fetchone():
                with store.note():
                    db.execute("DELETE FROM tombstone WHERE seq<=?", (seq,))
                    streams.raise_floor(db, row.id, seq)
        elif row.kind == SHARED:
            waiting = [one for one in others if one != row.device]
            seq = min(row.seq, streams.held_by_all(db, waiting, row.id)) if waiting else row.seq
            if seq > row.floor_seq:
                with store.note():
                    streams.drop_pages(db, row.id, seq)
                    streams.raise_floor(db, row.id, seq)
            _forget_lost(store, row, waiting)
    if gaps.has_lost(db) and _have_all(store, others):
        with store.note():
            gaps.forget_lost(db)


def _have_all(store: Store, others: Sequence[bytes]) -> bool:
    """Whether every other device has said that it has all operations that are here; of ours none is kept then."""
    db = store.db
    if db.execute("SELECT 1 FROM outbox WHERE epoch=? LIMIT 1", (store.epoch,)).fetchone():
        return False
    return all(
        streams.held_by_all(db, [one], row.id) >= row.seq
        for row in streams.every(db)
        if row.kind == SHARED and row.seq > row.start_seq and row.device != store.device_uuid
        for one in others
        if one != row.device
    )


def _forget_lost(store: Store, stream: Stream, others: Sequence[bytes]) -> None:
    """Additions of tags that were removed before they came, in an epoch that has ended, come no more once nobody has
    more of it than this device."""
    db = store.db
    end_seq = streams.end_of(db, stream)
    if end_seq is None or not pending.has_lost(db, stream.device, stream.seq, end_seq):
        return
    if all(_has_no_more(db, stream, one) for one in others):
        with store.note():
            pending.forget_lost(db, stream.device, stream.seq, end_seq)


def _has_no_more(db: apsw.Connection, stream: Stream, other: bytes) -> bool:
    """Whether a device said to have of a stream what is here; of an epoch that was given up before anything was told in
    it nobody says anything."""
    held = streams.holdings(db, other)
    seq = held.get(stream.id)
    return bool(held) and stream.seq <= stream.start_seq if seq is None else seq == stream.seq
