"""Epochs: a database that came back from a copy begins to count anew.

Whoever puts an old copy of a library in place has a device that has forgotten what it told since. Its next units would
have numbers that others know already, with something else in them, and be taken for known. So the database remembers
which file it is (its inode, and when that was born): a copy is another file. It opens a new epoch, whose numbers begin
far beyond any that the old one can have given; in it all rows are told anew, and what it said before comes back to it
from the others, as operations of somebody else would.

A copy that nothing tells from the original (a snapshot of the whole machine) is found out when another device says how
far it knows this one: at a place where no page of ours ended (`is_forgotten`; each start of a store leaps to numbers
that no other one gives). By then others may have heard what came after that. So where this device hears of what it had
said and forgotten, it says that once more, for those who took its later words for a continuation (`say_again`), and it
asks all for their state. What the two continuations have in common ends before a gap (index/store/gaps.py).

The numbers of an epoch, and where it begins, are drawn by chance: the same copy may be put in place twice.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import apsw
import msgpack

from index.model import ids
from index.model.change import ORIGIN_SYNC
from index.store import changes, gaps, heldback, pending, recalls, streams, tags
from index.store.shared import Op
from index.store.store import Store
from index.store.streams import OWNED, SHARED, StreamId
from index.store.unit import Unit
from sync.log.messages import At

log = logging.getLogger("sdmount.sync")

#: More units than a device makes between two copies, and among how many places beyond the next epoch begins.
_LEAP: Final = 1 << 24
_PLACES_BYTES: Final = 5
_EPOCH_BYTES: Final = 3
_FILE: Final = "database_file"
_FORKS: Final = "forks"
#: The fact that all that is known is to be said again.
_TO_SAY: Final = "to_say_again"
#: How many operations of that are one unit, and with how many bytes one has enough.
_SAID_AT_ONCE: Final = 200
_SAID_BYTES: Final = 1 << 18


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
        new_epoch(store, _said_seq(store), store.last_seq)


def _said_seq(store: Store) -> int:
    """The last unit that said something, as far as this database knows; the numbers that it has reserved say more."""
    own = streams.get(store.db, StreamId(store.device_uuid, store.epoch, SHARED))
    floor_seq = 0 if own is None else own.floor_seq
    (told,) = next(iter(store.db.execute("SELECT max(seq) FROM outbox WHERE epoch=?", (store.epoch,))))
    return max(floor_seq, int(told or 0))


def is_forgotten(store: Store, places: Iterable[At]) -> bool:
    """Whether somebody knows of us what we do not know to have said."""
    for at in places:
        if at.device != store.device_uuid:
            continue
        if at.epoch > store.epoch:
            return True
        if at.epoch == store.epoch and not all(_is_ours(store, at.stream, seq) for seq in (at.seq, at.part_to)):
            return True
    return False


def _is_ours(store: Store, stream: StreamId, seq: int) -> bool:
    """Whether what we have told so far ended there at some time."""
    own = streams.get(store.db, stream)
    if stream.kind == SHARED and gaps.holds(store.db, stream.device, seq):
        return False
    if own is None or seq <= max(own.start_seq, own.floor_seq) or streams.has_boundary(store.db, stream, seq):
        return True
    sql = "SELECT 1 FROM outbox WHERE epoch=? AND seq=?"  # where a current state ended
    return stream.kind == SHARED and store.db.execute(sql, (stream.epoch, seq)).fetchone() is not None


def begin_again(store: Store, places: Iterable[At]) -> None:
    """Somebody knows more of us than we do: what is told from now on is of a new epoch, and what was told in this one
    may be known in two continuations."""
    log.warning("%s is older than what others know of it: this device tells everything anew", store.path)
    known_seq = max((max(at.seq, at.part_to) for at in places if at.device == store.device_uuid), default=0)
    known_seq = max(known_seq, streams.last_boundary(store.db, StreamId(store.device_uuid, store.epoch, SHARED)))
    own = streams.get(store.db, StreamId(store.device_uuid, store.epoch, SHARED))
    new_epoch(store, 0 if own is None else own.floor_seq, known_seq, is_forked=True)


def was_forked(store: Store, places: Iterable[At]) -> bool:
    """Whether somebody has heard in part of what this device said in an epoch before, and nobody else has: of a state
    that broke off, told before the copy was put in place. What comes of it is to be said again; returns whether that is
    news. `places`: as they stand in table fork."""
    is_new = False
    for at in places:
        row = streams.get(store.db, at.stream)
        if at.device != store.device_uuid or at.epoch >= store.epoch or row is None or is_forked(store, at.epoch):
            continue
        end_seq = streams.end_of(store.db, row)
        if at.seq > row.seq and end_seq is not None:
            with store.note() as db:
                changes.set_meta(db, _FORKS, msgpack.packb([*_forks(db), [at.epoch, row.seq, end_seq]]))
                recalls.note_reason(db)
            is_new = True
    return is_new


def _forks(db: apsw.Connection) -> list[list[int]]:
    """The epochs of ours that others may know in two continuations: (epoch, up to where there is but one, where the
    next epoch begins)."""
    packed = changes.get_meta(db, _FORKS)
    return list(msgpack.unpackb(packed)) if isinstance(packed, bytes) else []


def is_forked(store: Store, epoch: int | None = None) -> bool:
    """Whether others may know an epoch of ours, or any, in two continuations."""
    found = _forks(store.db)
    return bool(found) if epoch is None else any(epoch == one[0] for one in found)


def is_news(unit: Unit, device: bytes, seq: int, part: int) -> bool:
    """Whether an addition is one that this device made and forgot, and has not said again yet. How far the stream of
    that epoch is heard says nothing of it: that may be so of the other continuation."""
    if device != unit.device or tags.renumbered(unit.db, seq, part) is not None:
        return False
    return any(copied_seq < seq <= end_seq for _, copied_seq, end_seq in _forks(unit.db))


def new_epoch(store: Store, copied_seq: int, known_seq: int, *, is_forked: bool = False) -> None:
    """What is told from now on is of another epoch, whose numbers lie beyond any that others know (`known_seq`).

    Of the old one this device is a listener like all others from now on: it knows what it had told when the copy was
    made (`copied_seq`), and hears of the rest. What it wrote since is of the new one. `is_forked`: others may know the
    old one in two continuations.
    """
    device, old = store.device_uuid, store.epoch
    epoch = old + 1 + int.from_bytes(ids.random_bytes(_EPOCH_BYTES), "big")
    start_seq = max(store.last_seq, known_seq) + _LEAP + int.from_bytes(ids.random_bytes(_PLACES_BYTES), "big")
    beyond = start_seq - copied_seq
    last_seq = max(store.last_seq + beyond, start_seq + 1)  # beyond its beginning, also when there is nothing
    with store.note() as db:
        streams.advance(db, StreamId(device, old, SHARED), copied_seq)
        _move_outbox(db, device, (old, copied_seq), epoch, beyond, known_seq)
        if is_forked:
            forks = [one for one in _forks(db) if one[0] != old]
            changes.set_meta(db, _FORKS, msgpack.packb([*forks, [old, copied_seq, start_seq]]))
            recalls.note_reason(db)  # who knows the other continuation may have it by a state alone
        tags.renumber_after(db, device, copied_seq, beyond)
        db.execute("DELETE FROM tombstone")  # all rows are told anew
        streams.drop_epochs_before(db, device, epoch, OWNED)
        for kind in (OWNED, SHARED):
            streams.begin(db, StreamId(device, epoch, kind), start_seq)
        changes.set_meta(db, "epoch", epoch)
        changes.set_counter(db, "seq", last_seq)
    store.epoch = epoch
    store.leap(last_seq)


def _move_outbox(
    db: apsw.Connection, device: bytes, copied: tuple[int, int], epoch: int, beyond: int, known_seq: int
) -> None:
    """What was said since is of the new epoch. Tags are added by the numbers that they have there, and those that they
    had are taken away where somebody may have heard of them (up to `known_seq`). What was added and is gone by now is
    not said again: it may have been taken away by somebody who had heard of it."""
    rows: list[Any] = db.execute(
        "SELECT seq, part, hlc, key, body FROM outbox WHERE epoch=? AND seq>? AND model='tagging' AND op='add'", copied
    ).fetchall()
    for seq, part, hlc, key, body in rows:
        if not tags.has_dot(db, device, seq, part):
            db.execute("DELETE FROM outbox WHERE epoch=? AND seq=? AND part=?", (copied[0], seq, part))
            tags.renumber(db, (seq, part), tags.NOWHERE)
        elif seq <= known_seq:
            db.execute(
                "INSERT INTO outbox(epoch, seq, part, hlc, model, op, key, body) SELECT epoch, seq, max(part) + 1, ?, "
                "'tagging', 'remove', ?, ? FROM outbox WHERE epoch=? AND seq=?",
                (hlc, key, msgpack.packb([[device, seq, part, *msgpack.unpackb(body)]]), copied[0], seq),
            )
    db.execute("UPDATE outbox SET epoch=?, seq=seq+? WHERE epoch=? AND seq>?", (epoch, beyond, *copied))


# said once more -------------------------------------------------------------------------------------------------------


def say_again(unit: Unit, ops: Iterable[Op]) -> None:
    """What this device said in an epoch that others know in two continuations, and heard of just now, in this one."""
    for op in ops:
        if (op.model, op.op) == ("tagging", "add"):
            _add_again(unit, op.seq, op.part)
        else:
            unit.tell(op.model, op.op, op.key, op.body, op.hlc)


def _add_again(unit: Unit, seq: int, part: int) -> None:
    """A tag that was added in an epoch before gets a number of this one, so that nobody takes it for removed; one that
    has such a number already has come back by the old one, and keeps the new."""
    found: list[Any] = unit.db.execute(
        "SELECT g.entry_uuid, g.tag_id, t.uuid, g.hlc, g.part FROM tagging g JOIN tag t ON t.id=g.tag_id "
        "WHERE g.dot_device=? AND g.dot_seq=? AND g.dot_part=?",
        (unit.device, seq, part),
    ).fetchall()
    for entry_uuid, tag_id, tag_uuid, hlc, order in found:
        if tags.renumbered(unit.db, seq, part) is None:
            tags.renumber(unit.db, (seq, part), (unit.said_seq, unit.part))
            tags.add_dot(unit.db, entry_uuid, tag_id, tags.Dot(unit.device, unit.said_seq, unit.part, hlc, order))
            unit.tell("tagging", "add", [entry_uuid, tag_uuid], [hlc, order])
        tags.drop_dot(unit.db, unit.device, seq, part)
        if gaps.holds(unit.db, unit.device, seq):
            pending.lose_dot(unit.db, unit.device, seq, part, entry_uuid, tag_uuid)
        unit.tell("tagging", "remove", [entry_uuid, tag_uuid], [[unit.device, seq, part, hlc, order]])


def say_gone(unit: Unit, gone: Iterable[tuple[bytes, bytes, bytes, int, int]]) -> None:
    """A current state was joined: what it had removed is said (`gone`: entry, tag, and the addition), and all that is
    known is to be said again."""
    for entry_uuid, tag_uuid, device, seq, part in gone:
        unit.tell("tagging", "remove", [entry_uuid, tag_uuid], [[device, seq, part, 0, 0]])
    changes.set_meta(unit.db, _TO_SAY, 1)


def say_all_again(store: Store) -> Iterator[None]:
    """If that is to be done: what is stamped by this device, aliases, and its tags of epochs before; yields between
    units, none of which says more than a page holds. One that dies on the way begins anew."""
    db, own = store.db, store.device_uuid
    if changes.get_meta(db, _TO_SAY) is None:
        return
    cells = f"SELECT entry_uuid, name FROM attribute WHERE device=? AND {heldback.TOLD}"
    row = streams.get(db, StreamId(own, store.epoch, SHARED))
    dots = f"SELECT dot_seq, dot_part FROM tagging WHERE dot_device=? AND dot_seq<=? AND {heldback.TOLD}"
    start_seq = 0 if row is None else row.start_seq
    yield from _in_units(store, _say_register, "SELECT model, key, field FROM register WHERE device=?", own)
    yield from _in_units(store, _say_cell, cells, own)
    yield from _in_units(store, _say_alias, "SELECT uuid, kept FROM alias")
    yield from _in_units(store, _say_dot, dots, own, start_seq)
    with store.note():
        changes.drop_meta(db, _TO_SAY)


def _in_units(store: Store, say: Callable[[Unit, Any], int], sql: str, *values: bytes | int) -> Iterator[None]:
    """Say what is found, some at a time; `say` returns how many bytes that are."""
    found: list[Any] = store.db.execute(sql, values).fetchall()
    at = 0
    while at < len(found):
        first, size_bytes = at, 0
        with store.write(ORIGIN_SYNC) as unit:
            while at < len(found) and at - first < _SAID_AT_ONCE and size_bytes < _SAID_BYTES:
                size_bytes += say(unit, found[at])
                at += 1
        yield


def _say_register(unit: Unit, key: Any) -> int:
    sql = "SELECT value, hlc FROM register WHERE model=? AND key=? AND field=? AND device=?"
    row: Any = unit.db.execute(sql, (*key, unit.device)).fetchone()
    if row is None:  # somebody else has said something since
        return 0
    unit.tell("register", "set", list(key), *row)
    return len(row[0])


def _say_cell(unit: Unit, key: Any) -> int:
    sql = "SELECT value, hlc FROM attribute WHERE entry_uuid=? AND name=? AND device=?"
    row: Any = unit.db.execute(sql, (*key, unit.device)).fetchone()
    if row is None:
        return 0
    unit.tell("attribute", "set", list(key), *row)
    return len(row[0] or b"")


def _say_alias(unit: Unit, key: Any) -> int:
    unit.tell("alias", "join", *key)
    return 0


def _say_dot(unit: Unit, key: Any) -> int:
    _add_again(unit, *key)
    return 0
