"""Tables gap and fork: numbers that a device gave to nothing, and who knows it otherwise.

A device whose database came back from an old copy and that goes on before it knows has told two continuations of one
stream. Each start of a store leaps to numbers that no other start gives; so the two are told apart by what lies between
a leap and what was said before it. The first unit of a start that says something says that, too (`stream` `gap`): what
has a number in there is of another continuation.

So a cursor that lies beyond a gap says nothing of the additions of tags that have numbers in it: they are neither heard
nor removed. And who stands in a gap knows of what the author has forgotten: that is a *fork*, told to all until
the author begins a new epoch (sync/log/epochs.py).
"""

from typing import Any, Final

import apsw

from index.store.connection import one

SCHEMA = """
-- gap: numbers of units that were given to nothing, by what is known of their device.
--   device   whose
--   from_seq, to_seq   the numbers (from_seq, to_seq]
CREATE TABLE gap(
    device   BLOB NOT NULL,
    from_seq INTEGER NOT NULL,
    to_seq   INTEGER NOT NULL,
    PRIMARY KEY (device, from_seq, to_seq)
) STRICT, WITHOUT ROWID;

-- fork: places in streams of operations of which the author may know nothing: somebody stood there, and it lies in a
-- gap; or a state that goes as far was taken in part.
--   device, epoch, seq   the place
CREATE TABLE fork(
    device BLOB NOT NULL,
    epoch  INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    PRIMARY KEY (device, epoch, seq)
) STRICT, WITHOUT ROWID;
"""

#: The operation that tells of one.
GAP: Final = ("stream", "gap")
#: So many are remembered of each device, the latest.
_MOST: Final = 64
_FORKS_MOST: Final = 1024


def within(device: str, seq: str) -> str:
    """SQL: whether a number of a device lies in a gap, both as terms."""
    return f"EXISTS (SELECT 1 FROM gap g WHERE g.device={device} AND g.from_seq<{seq} AND g.to_seq>={seq})"


#: Of a row of fork: that its author has begun another epoch, or that it is a place that was passed in the end.
IS_KNOWN: Final = (
    "(EXISTS (SELECT 1 FROM stream s WHERE s.device=fork.device AND s.kind=1 AND s.epoch>fork.epoch) OR "
    "EXISTS (SELECT 1 FROM stream s WHERE s.device=fork.device AND s.kind=1 AND s.epoch=fork.epoch "
    f"AND s.seq>=fork.seq) AND NOT {within('fork.device', 'fork.seq')})"
)
#: Of a row of lost_dot or tagging.
DOT_WITHIN: Final = within("dot_device", "dot_seq")
_OF_LOST: Final = f"FROM lost_dot WHERE {DOT_WITHIN}"


def note(db: apsw.Connection, device: bytes, from_seq: int, to_seq: int) -> None:
    """A device gave no unit a number in (from_seq, to_seq]."""
    db.execute("INSERT OR IGNORE INTO gap VALUES(?,?,?)", (device, from_seq, to_seq))
    sql = "SELECT from_seq, to_seq FROM gap WHERE device=? ORDER BY to_seq DESC, from_seq LIMIT -1 OFFSET ?"
    old: list[Any] = db.execute(sql, (device, _MOST)).fetchall()
    for bounds in old:
        db.execute("DELETE FROM gap WHERE device=? AND from_seq=? AND to_seq=?", (device, *bounds))
        db.execute(
            f"DELETE FROM lost_dot WHERE dot_device=? AND dot_seq>? AND dot_seq<=? AND NOT {DOT_WITHIN}",
            (device, *bounds),
        )


def holds(db: apsw.Connection, device: bytes, seq: int) -> bool:
    """Whether a number of a device lies in a gap."""
    return bool(one(db, f"SELECT {within('?1', '?2')}", device, seq)[0])


def before(db: apsw.Connection, device: bytes, seq: int) -> tuple[int, int] | None:
    """The gap between what this device has said or told of and a unit, the first of a start that says something; None
    without any."""
    (last,) = one(
        db,
        "SELECT max(coalesce((SELECT max(max(seq, floor_seq)) FROM stream WHERE device=?1 AND kind=1 AND seq<?2), 0), "
        "coalesce((SELECT max(seq) FROM outbox WHERE seq<?2), 0), "
        "coalesce((SELECT max(to_seq) FROM boundary WHERE kind=1 AND to_seq<?2), 0))",
        device, seq,
    )  # fmt: skip
    return None if int(last) >= seq - 1 else (int(last), seq - 1)


def note_fork(db: apsw.Connection, device: bytes, epoch: int, seq: int) -> None:
    """Somebody stands in a gap of a device, or did; or has a part of what a state tells up to there."""
    sql = "INSERT OR IGNORE INTO fork SELECT ?,?,? WHERE (SELECT count(*) FROM fork)<?"
    db.execute(sql, (device, epoch, seq, _FORKS_MOST))


def find_fork(db: apsw.Connection, device: bytes, epoch: int, start_seq: int, seq: int) -> None:
    """Somebody stands at a place in a stream that begins at a number: that may be a fork."""
    if seq > start_seq and holds(db, device, seq):
        note_fork(db, device, epoch, seq)


def forks(db: apsw.Connection) -> list[tuple[bytes, int, int]]:
    """Places of which their authors know nothing yet: (device, epoch, number). Who has begun another epoch does."""
    rows = db.execute(f"SELECT device, epoch, seq FROM fork WHERE NOT {IS_KNOWN} ORDER BY device, epoch, seq")
    return [(bytes(device), int(epoch), int(seq)) for device, epoch, seq in rows]


def forget_forks(db: apsw.Connection) -> None:
    """Those that their authors know, and those that were none, are nobody's concern any more."""
    db.execute(f"DELETE FROM fork WHERE {IS_KNOWN}")


def has_lost(db: apsw.Connection) -> bool:
    """Whether additions with numbers in gaps were removed before they came."""
    return db.execute(f"SELECT 1 {_OF_LOST} LIMIT 1").fetchone() is not None


def forget_lost(db: apsw.Connection) -> None:
    """Nobody has any of these any more."""
    db.execute(f"DELETE {_OF_LOST}")
