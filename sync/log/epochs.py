"""Epochs: a database that came back from a copy begins to count anew.

Whoever puts an old copy of a library in place has a device that has forgotten what it told since. Its next units would
have numbers that others know already, with something else in them, and be taken for known. So the database remembers
which file it is (its inode, and when that was born): a copy is another file. It opens a new epoch, whose numbers begin
far beyond any that the old one can have given; in it all rows are told anew, and what it said before comes back to it
from the others, as operations of somebody else would.

A copy that nothing tells from the original (a snapshot of the whole machine) is found out when another device says how
far it knows this one.
"""

import logging
from typing import Final

from index.store import changes, streams
from index.store.store import Store
from index.store.streams import OWNED, SHARED, StreamId

log = logging.getLogger("sdmount.sync")

#: More units than a device makes between two copies.
_LEAP: Final = 1 << 24
_FILE: Final = "database_file"


def begin(store: Store, file_id: str) -> None:
    """At the start: our own streams are there, and the epoch is that of this file (`file_id` tells it from copies)."""
    known = changes.get_meta(store.db, _FILE)
    is_copy = known is not None and known != file_id
    with store.note() as db:
        changes.set_meta(db, _FILE, file_id)
        for kind in (OWNED, SHARED):
            streams.begin(db, StreamId(store.device_uuid, store.epoch, kind), 0)
    if is_copy and store.is_shared:
        log.warning("%s is a copy of what it was: this device tells everything anew", store.path)
        new_epoch(store, store.last_seq, store.last_seq)


def new_epoch(store: Store, copied_seq: int, known_seq: int) -> None:
    """What is told from now on is of another epoch, whose numbers lie beyond any that others know (`known_seq`).

    Of the old one this device is a listener like all others from now on: it knows what it had told when the copy was
    made (`copied_seq`), and hears of the rest. What it wrote since is of the new one.
    """
    device, old, epoch = store.device_uuid, store.epoch, store.epoch + 1
    start_seq = max(store.last_seq, known_seq) + _LEAP
    with store.note() as db:
        streams.advance(db, StreamId(device, old, SHARED), copied_seq)
        beyond = start_seq - copied_seq
        moved = (epoch, beyond, old, copied_seq)
        db.execute("UPDATE outbox SET epoch=?, seq=seq+? WHERE epoch=? AND seq>?", moved)
        db.execute(
            "UPDATE tagging SET dot_seq=dot_seq+? WHERE dot_device=? AND dot_seq>?", (beyond, device, copied_seq)
        )
        last_seq = start_seq + store.last_seq - copied_seq
        streams.drop_epochs_before(db, device, epoch, OWNED)
        for kind in (OWNED, SHARED):
            streams.begin(db, StreamId(device, epoch, kind), start_seq)
        changes.set_meta(db, "epoch", epoch)
        changes.set_counter(db, "seq", last_seq)
    store.epoch = epoch
    store.leap(last_seq)
