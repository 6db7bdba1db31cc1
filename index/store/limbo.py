"""Table limbo: the identity of rows that left the index, kept for a day, so that what moved unseen is found again.

A file that is moved while we look, or while we are not running, may be seen leaving one directory long before it is
seen arriving in another. Its inode, size and mtime tell it.
"""

from typing import NamedTuple

import apsw

from index.model.entry import KIND_DIR, Entry

SCHEMA = """
-- limbo: one row for a removed entry, by the inode it had. Local, never synced; purged after a day.
CREATE TABLE limbo(
    branch_id  INTEGER NOT NULL,
    st_ino     INTEGER NOT NULL,
    kind       INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    node       INTEGER NOT NULL,
    uuid       BLOB,
    removed_ns INTEGER NOT NULL,
    PRIMARY KEY (branch_id, st_ino)
) STRICT, WITHOUT ROWID;
"""

KEEP_NS = 86_400 * 1_000_000_000


class Kept(NamedTuple):
    node: int
    uuid: bytes | None


def put(db: apsw.Connection, row: Entry, removed_ns: int) -> None:
    """Remember a row that is about to go; rows of hard-linked names are found by their twins instead."""
    db.execute(
        "INSERT OR REPLACE INTO limbo VALUES(?,?,?,?,?,?,?,?)",
        (row.branch_id, row.st_ino, row.kind, row.mtime_ns, row.size_bytes, row.node, row.uuid, removed_ns),
    )


def take(db: apsw.Connection, branch_id: int, st_ino: int, kind: int, mtime_ns: int, size_bytes: int) -> Kept | None:
    """The identity that waits for exactly this file, taken out."""
    row = db.execute(
        "SELECT kind, mtime_ns, size_bytes, node, uuid FROM limbo WHERE branch_id=? AND st_ino=?", (branch_id, st_ino)
    ).fetchone()
    if row is None:
        return None
    db.execute("DELETE FROM limbo WHERE branch_id=? AND st_ino=?", (branch_id, st_ino))
    if row[0] != kind or row[1] != mtime_ns or (kind != KIND_DIR and row[2] != size_bytes):
        return None
    return Kept(int(row[3]), None if row[4] is None else bytes(row[4]))


def purge(db: apsw.Connection, now_ns: int) -> None:
    db.execute("DELETE FROM limbo WHERE removed_ns < ?", (now_ns - KEEP_NS,))
