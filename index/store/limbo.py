"""Table limbo: what is known of rows that left the index, kept for a day, so that what moved unseen is found again.

A file that is moved while we look, or while we are not running, may be seen leaving one directory long before it is
seen arriving in another. Its inode, size and mtime tell it; while it is held here, or if it is older than its ctime
here, its inode alone does, because the disk cannot have given the number to another file then. It comes back with id,
number, uuid and version, and nobody who holds one of these notices that it was away.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import apsw

from index.model.entry import HASH_NONE, KIND_DIR, KIND_FILE, Entry, Stat

SCHEMA = """
-- limbo: one row for a removed entry, by the inode it had. Local, never synced; given up after a day (tidy.py).
--   entry_id   the id it had; NULL when that row lives on with another inode
--   uuid       NULL when the row that lives on kept it
CREATE TABLE limbo(
    branch_id  INTEGER NOT NULL,
    st_ino     INTEGER NOT NULL,
    entry_id   INTEGER,
    kind       INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    node       INTEGER NOT NULL,
    uuid       BLOB,
    content_id INTEGER,
    hash_state INTEGER NOT NULL,
    version    BLOB,
    removed_ns INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL,
    PRIMARY KEY (branch_id, st_ino)
) STRICT, WITHOUT ROWID;
-- tidy.py: a content is kept for what waits here.
CREATE INDEX limbo_content ON limbo(content_id) WHERE content_id IS NOT NULL;
"""

KEEP_NS = 86_400 * 1_000_000_000


class Kept(NamedTuple):
    """What waits for a file; the columns of its row that lstat does not tell."""

    entry_id: int | None
    node: int
    uuid: bytes | None
    content_id: int | None
    hash_state: int
    version: bytes | None
    ctime_ns: int
    branch_id: int = 0  # where it was
    written: bool = False  # it was written to while it was away


#: The first so many fields are columns.
_STORED = 7


#: What waits on branch b, and on the others of its file system.
_BESIDE = (
    "FROM branch b CROSS JOIN branch o ON o.fs_id = b.fs_id AND o.device_uuid = b.device_uuid "
    "CROSS JOIN limbo l ON l.branch_id = o.id"
)


def put(db: apsw.Connection, row: Entry, removed_ns: int) -> None:
    """Remember a row that is about to go."""
    kept = Kept(row.id, row.node, row.uuid, row.content_id, row.hash_state, row.version, row.ctime_ns)
    _put(db, row, kept, removed_ns)


def forget(db: apsw.Connection, row: Entry) -> None:
    """Nothing waits for a row's inode any more: it is destroyed, and its number free."""
    db.execute("DELETE FROM limbo WHERE branch_id=? AND st_ino=?", (row.branch_id, row.st_ino))


def put_number(db: apsw.Connection, row: Entry, removed_ns: int) -> None:
    """Remember the number alone of a row's inode: the row lives on with another one."""
    _put(db, row, Kept(None, row.node, None, row.content_id, row.hash_state, None, row.ctime_ns), removed_ns)


def _put(db: apsw.Connection, row: Entry, kept: Kept, removed_ns: int) -> None:
    db.execute(
        "INSERT OR REPLACE INTO limbo(branch_id, st_ino, kind, mtime_ns, size_bytes, removed_ns, "
        "entry_id, node, uuid, content_id, hash_state, version, ctime_ns) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?)",
        (row.branch_id, row.st_ino, row.kind, row.mtime_ns, row.size_bytes, removed_ns, *kept[:_STORED]),
    )


def take(db: apsw.Connection, branch_id: int, st: Stat, is_same: Callable[[Kept], bool]) -> Kept | None:
    """What waits for exactly this file, taken out: on its branch, or on another of the same file system.

    `is_same`: its number cannot be another file's by now.
    """
    beside: list[Any] = db.execute(
        "SELECT l.branch_id, l.kind, l.mtime_ns, l.size_bytes, l.entry_id, l.node, l.uuid, l.content_id, l.hash_state, "
        "l.version, l.ctime_ns "
        f"{_BESIDE} AND l.st_ino = ? WHERE b.id = ? ORDER BY o.id <> b.id",
        (st.st_ino, branch_id),
    ).fetchall()
    for holder, *found in beside:
        db.execute("DELETE FROM limbo WHERE branch_id=? AND st_ino=?", (holder, st.st_ino))
        kept = _fitting(db, found, st, is_same)
        if kept is not None:
            return kept._replace(branch_id=holder)
    return None


def waiting(db: apsw.Connection, branch_id: int, inodes: Sequence[int]) -> frozenset[int]:
    """For which inodes of a branch something waits, there or on another of the same file system: mostly for none."""
    if not inodes or db.execute("SELECT 1 FROM limbo LIMIT 1").fetchone() is None:
        return frozenset()
    return frozenset(
        st_ino
        for (st_ino,) in db.execute(
            f"SELECT l.st_ino {_BESIDE} AND l.st_ino IN ({','.join('?' * len(inodes))}) WHERE b.id = ?",
            (*inodes, branch_id),
        )
    )


def _fitting(db: apsw.Connection, found: list[Any], st: Stat, is_same: Callable[[Kept], bool]) -> Kept | None:
    """What waits under an inode number, unless it is another file's by now."""
    kind, mtime_ns, size_bytes, *rest = found
    kept = Kept(*rest)
    if kind != st.kind:
        return None
    unchanged = mtime_ns == st.mtime_ns and (kind == KIND_DIR or size_bytes == st.size_bytes)
    if not unchanged and not is_same(kept):
        return None
    if not unchanged or not _has_content(db, kept.content_id):
        kept = kept._replace(content_id=None, hash_state=HASH_NONE)
    return kept._replace(written=not unchanged and kind == KIND_FILE)


def _has_content(db: apsw.Connection, content_id: int | None) -> bool:
    return content_id is None or bool(db.execute("SELECT 1 FROM content WHERE id=?", (content_id,)).fetchone())
