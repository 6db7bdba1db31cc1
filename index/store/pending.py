"""Tables waiting, lost_dot and quarantine: what was heard of shared rows and cannot be applied yet.

What refers to a row that is not known waits under the uuid that is missing and is done the moment this comes; nothing
is dropped and no reference is made empty. A removal of a tag that arrives before the addition it removes is remembered
until that comes. What is stamped too far in the future is kept until the clock gets there, so that one wrong clock
neither wins every conflict for years nor drives the clocks of the others.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import apsw
import msgpack

from index.store import gaps, recalls
from index.store.connection import one

SCHEMA = """
-- waiting: what refers to a row that is not known, and is done the moment this comes.
--   missing   the uuid of that row
--   device, seq, part   whose operation, of which unit, as what line of it. Of a row that is to be made of its
--             registers device is the model, a colon and the key, and both numbers are 0
--   body      msgpack: [stamp, [model, op, key, body]]
CREATE TABLE waiting(
    missing BLOB NOT NULL,
    device  BLOB NOT NULL,
    seq     INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    body    BLOB NOT NULL,
    PRIMARY KEY (missing, device, seq, part)
) STRICT, WITHOUT ROWID;

-- lost_dot: an addition of a tag that was removed before it was heard of. It is passed over when it comes, and the row
-- goes once all is heard that its device said up to then.
--   dot_device, dot_seq, dot_part   the addition: whose, in which unit, as what line of it
--   entry_uuid, tag_uuid            what it added, and to what
CREATE TABLE lost_dot(
    dot_device BLOB NOT NULL,
    dot_seq    INTEGER NOT NULL,
    dot_part   INTEGER NOT NULL,
    entry_uuid BLOB NOT NULL,
    tag_uuid   BLOB NOT NULL,
    PRIMARY KEY (dot_device, dot_seq, dot_part)
) STRICT, WITHOUT ROWID;

-- quarantine: operations that are stamped more than ten minutes ahead of our clock, until it gets there.
--   hlc      the stamp
--   device, epoch, seq, part   whose operation, of which unit, as what line of it
--   body     msgpack: [model, op, key, body]
CREATE TABLE quarantine(
    hlc    INTEGER NOT NULL,
    device BLOB NOT NULL,
    epoch  INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    part   INTEGER NOT NULL,
    body   BLOB NOT NULL,
    PRIMARY KEY (hlc, device, seq, part, body)
) STRICT, WITHOUT ROWID;

-- moved: stamps of a clock that ran ahead, and was told so.
--   device, hlc   who gave the stamp, and which
--   stamp         what it counts as, wherever it is met
CREATE TABLE moved(
    device BLOB NOT NULL,
    hlc    INTEGER NOT NULL,
    stamp  INTEGER NOT NULL,
    PRIMARY KEY (device, hlc)
) STRICT, WITHOUT ROWID;
"""

#: The operation that others may undo while it waits.
ADDED = ("tagging", "add")


class Held(NamedTuple):
    """An operation that waits: whose, and what it says (model, op, key, body)."""

    device: bytes
    seq: int
    part: int
    hlc: int
    said: Sequence[object]


def wait_for(db: apsw.Connection, missing: bytes, held: Held) -> None:
    """An operation waits for a row with a uuid."""
    body = msgpack.packb([held.hlc, held.said])
    db.execute("INSERT OR REPLACE INTO waiting VALUES(?,?,?,?,?)", (missing, held.device, held.seq, held.part, body))


def arrived(db: apsw.Connection, uuid: bytes) -> list[Held]:
    """What waited for a row, oldest first of each device; it waits no more."""
    rows = db.execute("SELECT device, seq, part, body FROM waiting WHERE missing=? ORDER BY seq, part", (uuid,))
    found = [Held(device, seq, part, *msgpack.unpackb(body)) for device, seq, part, body in rows]
    if found:
        db.execute("DELETE FROM waiting WHERE missing=?", (uuid,))
    return found


def waits(db: apsw.Connection, device: bytes, seq: int, part: int) -> bool:
    """Whether an operation waits for a row, or for its time."""
    sql = (
        "SELECT 1 FROM waiting WHERE device=?1 AND seq=?2 AND part=?3 "
        "UNION ALL SELECT 1 FROM quarantine WHERE device=?1 AND seq=?2 AND part=?3 LIMIT 1"
    )
    return db.execute(sql, (device, seq, part)).fetchone() is not None


def drop(db: apsw.Connection, device: bytes, seq: int, part: int) -> bool:
    """An addition of a tag was undone while it waited for a row, or for its time; returns whether it did."""
    dropped = 0
    for table in ("waiting", "quarantine"):
        at = f"FROM {table} WHERE device=? AND seq=? AND part=?"
        for (body,) in db.execute(f"SELECT body {at}", (device, seq, part)).fetchall():
            said = msgpack.unpackb(body)
            if tuple((said[1] if table == "waiting" else said)[:2]) == ADDED:
                db.execute(f"DELETE {at} AND body=?", (device, seq, part, body))
                dropped += db.changes()
    return dropped > 0


def additions(db: apsw.Connection) -> Iterator[tuple[bytes, bytes, bytes, int, int]]:
    """The additions of tags that wait for a row, or for their time: entry, tag, and the addition."""
    for device, seq, part, body in db.execute("SELECT device, seq, part, body FROM waiting WHERE length(device)=16"):
        model, op, key, _ = msgpack.unpackb(body)[1]
        if (model, op) == ADDED:
            yield key[0], key[1], bytes(device), int(seq), int(part)
    for device, seq, part, body in db.execute("SELECT device, seq, part, body FROM quarantine"):
        model, op, key, _ = msgpack.unpackb(body)
        if (model, op) == ADDED:
            yield key[0], key[1], bytes(device), int(seq), int(part)


def count_waiting(db: apsw.Connection) -> int:
    return int(next(iter(db.execute("SELECT count(*) FROM waiting")))[0])


def lose_dot(db: apsw.Connection, device: bytes, seq: int, part: int, entry_uuid: bytes, tag_uuid: bytes) -> None:
    """An addition that was not heard of yet is removed."""
    db.execute("INSERT OR IGNORE INTO lost_dot VALUES(?,?,?,?,?)", (device, seq, part, entry_uuid, tag_uuid))


def is_lost(db: apsw.Connection, device: bytes, seq: int, part: int) -> bool:
    """Whether an addition was removed before it came."""
    sql = "SELECT 1 FROM lost_dot WHERE dot_device=? AND dot_seq=? AND dot_part=?"
    return db.execute(sql, (device, seq, part)).fetchone() is not None


def has_lost(db: apsw.Connection, device: bytes, after_seq: int, seq: int) -> bool:
    """Whether additions of a device that lie in a range of units were removed before they came."""
    sql = "SELECT 1 FROM lost_dot WHERE dot_device=? AND dot_seq>? AND dot_seq<=? LIMIT 1"
    return db.execute(sql, (device, after_seq, seq)).fetchone() is not None


def forget_lost(db: apsw.Connection, device: bytes, after_seq: int, seq: int) -> None:
    """All was heard of that a device said in a range of units of one epoch. What it said in one before may come yet,
    and what it said in another continuation of that."""
    db.execute(
        f"DELETE FROM lost_dot WHERE dot_device=? AND dot_seq>? AND dot_seq<=? AND NOT {gaps.DOT_WITHIN}",
        (device, after_seq, seq),
    )


def put_aside(db: apsw.Connection, epoch: int, held: Held) -> None:
    """An operation is stamped too late to be believed just now."""
    row = (held.hlc, held.device, epoch, held.seq, held.part, msgpack.packb(held.said))
    db.execute("INSERT OR REPLACE INTO quarantine VALUES(?,?,?,?,?,?)", row)


def move_stamp(db: apsw.Connection, device: bytes, hlc: int, stamp: int) -> None:
    """What a device stamped with the one counts as stamped with the other, wherever it is here. Of several that were
    said the least counts, for the others as well. One that was given up for a stamp that is given up itself counts as
    what came of that."""
    stamp = stamp_of(db, device, stamp)
    row = db.execute("SELECT stamp FROM moved WHERE device=? AND hlc=?", (device, hlc)).fetchone()
    if row is not None:
        if row[0] != stamp:  # the greater may be known instead of the one that was given up
            move_stamp(db, device, max(int(row[0]), stamp), min(int(row[0]), stamp))
        return
    if hlc == stamp:
        return
    db.execute("INSERT OR REPLACE INTO moved VALUES(?,?,?)", (device, hlc, stamp))
    db.execute("UPDATE moved SET stamp=? WHERE device=? AND stamp=?", (stamp, device, hlc))
    changed = 0
    for table in ("register", "attribute"):
        db.execute(f"UPDATE {table} SET hlc=? WHERE device=? AND hlc=?", (stamp, device, hlc))
        changed += db.changes()
    # What was put aside as somebody's state (unit 0) had the place of what others wrote before, and is older now.
    state = "SELECT 1 FROM quarantine WHERE device=? AND hlc=? AND seq=0 LIMIT 1"
    changed += len(db.execute(state, (device, hlc)).fetchall())
    db.execute("UPDATE OR REPLACE quarantine SET hlc=? WHERE device=? AND hlc=?", (stamp, device, hlc))
    if changed:
        recalls.note_reason(db)


def stamp_of(db: apsw.Connection, device: bytes, hlc: int) -> int:
    """What a stamp of a device counts as."""
    row = db.execute("SELECT stamp FROM moved WHERE device=? AND hlc=?", (device, hlc)).fetchone()
    return hlc if row is None else int(row[0])


def moved_of(db: apsw.Connection, device: bytes) -> dict[int, int]:
    """The stamps of a device that count as others."""
    return {int(a): int(b) for a, b in db.execute("SELECT hlc, stamp FROM moved WHERE device=?", (device,))}


def has_due(db: apsw.Connection, before_hlc: int) -> bool:
    """Whether anything was put aside that is stamped before a time."""
    return db.execute("SELECT 1 FROM quarantine WHERE hlc<? LIMIT 1", (before_hlc,)).fetchone() is not None


def due(db: apsw.Connection, before_hlc: int, most: int) -> Iterator[Held]:
    """The first of what was put aside and is stamped before a time, one by one; each is put aside no more from then on.
    Of two in one step the first may say that the other is nothing any more: that one is passed over."""
    keys = "hlc, device, seq, part, body"
    sql = f"SELECT {keys} FROM quarantine WHERE hlc<? ORDER BY {keys} LIMIT ?"
    rows: list[Any] = db.execute(sql, (before_hlc, most)).fetchall()
    for row in rows:
        db.execute(f"DELETE FROM quarantine WHERE ({keys})=(?,?,?,?,?)", row)
        if db.changes():
            hlc, device, seq, part, body = row
            yield Held(device, seq, part, hlc, msgpack.unpackb(body))


def earliest_aside(db: apsw.Connection, limit_hlc: int) -> list[tuple[bytes, int]]:
    """The devices of which something is put aside, each with the first of its stamps that is not believed just now
    (`limit_hlc` and later): put aside, or believed before, by a clock that was ahead as well."""
    rows: list[Any] = db.execute("SELECT device, min(hlc) FROM quarantine GROUP BY device ORDER BY device").fetchall()
    believed = (
        "SELECT min(hlc) FROM (SELECT hlc FROM register WHERE device=?1 AND hlc>=?2 "
        "UNION ALL SELECT hlc FROM attribute WHERE device=?1 AND hlc>=?2)"
    )
    found: list[tuple[bytes, int]] = []
    for device, hlc in rows:
        (earlier,) = one(db, believed, device, limit_hlc)
        found.append((bytes(device), int(hlc) if earlier is None else min(int(hlc), int(earlier))))
    return found


def stamps_aside(db: apsw.Connection, device: bytes, most: int) -> tuple[int, ...]:
    """The first stamps of a device by which something is put aside."""
    sql = "SELECT DISTINCT hlc FROM quarantine WHERE device=? ORDER BY hlc LIMIT ?"
    return tuple(int(hlc) for (hlc,) in cast(list[tuple[int]], db.execute(sql, (device, most)).fetchall()))


def aside(db: apsw.Connection) -> dict[bytes, int]:
    """How many operations of each device are put aside."""
    return {bytes(d): int(n) for d, n in db.execute("SELECT device, count(*) FROM quarantine GROUP BY device")}
