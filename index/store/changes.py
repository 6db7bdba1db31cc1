"""Tables meta, counter and outbox: who we are, what was handed out, and what the other devices must hear.

`outbox` holds one row for each changed *shared* row (locations, tags, assignments, attributes, aliases). Rows of
entries and branches belong to this device alone: they carry their own `seq` and are paged by it, so that a scan of a
million files writes no million log rows.
"""

import apsw
import msgpack

from index.store.connection import one

SCHEMA = """
-- meta: single facts of this library. library_uuid (16 bytes), library_was (the one before this device joined others),
-- put_out_by (the device that said that this one is no member any more), epoch (how often this device began anew
-- after a restore), created_ns; versions_ahead (how far the clock was turned back, which versions of files are not);
-- attributes_seq (the unit up to which the file of every row was asked for its attributes);
-- sums_unsettled while what units changed is not added up in table sums.
CREATE TABLE meta(
    key   TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

-- counter: bounds of the numbers handed out, by name; never lowered, so that no inode number or id is given twice. They
-- are reserved ahead, so that not every unit writes them: after a crash a few numbers stay unused, none comes twice.
--   entry: ids of entry rows, and thereby the inode numbers of the mount. Numbers up to 64 are the kernel's and ours.
--   seq:   units committed by this device in this epoch; the cursor of those who follow us.
--   hlc:   the packed stamp of the last unit, or a little later.
CREATE TABLE counter(
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('entry', 64), ('seq', 0), ('hlc', 0);

-- outbox: changes of shared rows in the order we made them. (epoch, seq, part) is the transport cursor, hlc orders
-- them against other devices' changes. key and body are msgpack: the row's global key, and its changed columns.
CREATE TABLE outbox(
    epoch INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    part  INTEGER NOT NULL,
    hlc   INTEGER NOT NULL,
    model TEXT NOT NULL,
    op    TEXT NOT NULL,
    key   BLOB NOT NULL,
    body  BLOB NOT NULL,
    PRIMARY KEY (epoch, seq, part)
) STRICT, WITHOUT ROWID;


-- journal: a change of several replicas that has begun and must be completed if we die in between.
CREATE TABLE journal(
    id   INTEGER PRIMARY KEY,
    op   TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT;
"""

#: Apart, since a step of the schema made it anew.
TOMBSTONE = """
-- tombstone: entries of ours that other devices may have and are to hear the end of. A library that has no other device
-- writes none; what all of them have heard is let go of.
--   entry_id, branch_id   the entry, and where it was; one that is there again counts as there
--   seq    the unit that wrote it
--   kind   0: it is gone; 1: a rule holds it back now, and nobody deletes anything for it
CREATE TABLE tombstone(
    entry_id  INTEGER PRIMARY KEY,
    branch_id INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    kind      INTEGER NOT NULL
) STRICT;
CREATE INDEX tombstone_seq ON tombstone(seq);
"""
SCHEMA += TOMBSTONE

GONE, WITHDRAWN = 0, 1


#: The fact that says by how much versions of files are stamped later than all else, since the clock was turned back.
VERSIONS_AHEAD = "versions_ahead"


def get_meta(db: apsw.Connection, key: str) -> object | None:
    """The value of one fact, None when it was never set."""
    row = db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
    return None if row is None else row[0]


def set_meta(db: apsw.Connection, key: str, value: int | bytes | str) -> None:
    db.execute("INSERT INTO meta VALUES(?,?) ON CONFLICT(key) DO UPDATE SET value=excluded.value", (key, value))


def drop_meta(db: apsw.Connection, key: str) -> None:
    db.execute("DELETE FROM meta WHERE key=?", (key,))


def move_library(db: apsw.Connection, library: bytes) -> None:
    """The library has another id from now on. The one that it had is remembered, for what beside the database tells of
    that yet."""
    db.execute("INSERT OR REPLACE INTO meta SELECT 'library_was', value FROM meta WHERE key='library_uuid'")
    set_meta(db, "library_uuid", library)


def get_counter(db: apsw.Connection, name: str) -> int:
    return int(one(db, "SELECT value FROM counter WHERE name=?", name)[0])


def set_counter(db: apsw.Connection, name: str, value: int) -> None:
    db.execute("UPDATE counter SET value=? WHERE name=?", (value, name))


def put_outbox(
    db: apsw.Connection, epoch: int, seq: int, part: int, hlc: int, model: str, op: str, key: object, body: object
) -> int:
    """Returns how many bytes that are."""
    packed = msgpack.packb(key), msgpack.packb(body)
    db.execute("INSERT INTO outbox VALUES(?,?,?,?,?,?,?,?)", (epoch, seq, part, hlc, model, op, *packed))
    return len(packed[0]) + len(packed[1])


def put_tombstone(db: apsw.Connection, entry_id: int, branch_id: int, seq: int, kind: int) -> None:
    """A row of ours is none for other devices any more."""
    db.execute("INSERT OR REPLACE INTO tombstone VALUES(?,?,?,?)", (entry_id, branch_id, seq, kind))


def journal_begin(db: apsw.Connection, op: str, body: object) -> int:
    """Note a change of several replicas before it begins; returns the id to end it with."""
    db.execute("INSERT INTO journal(op, body) VALUES(?,?)", (op, msgpack.packb(body)))
    return db.last_insert_rowid()


def journal_end(db: apsw.Connection, journal_id: int) -> None:
    db.execute("DELETE FROM journal WHERE id=?", (journal_id,))


def journal_open(db: apsw.Connection) -> list[tuple[int, str, object]]:
    """Changes that began and did not end, oldest first."""
    return [
        (int(i), str(op), msgpack.unpackb(body))
        for i, op, body in db.execute("SELECT id, op, body FROM journal ORDER BY id")
    ]
