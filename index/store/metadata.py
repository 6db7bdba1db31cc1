"""Tables attribute and mirror: what people and scripts attach to an entry, and what the real files were seen to carry.

The library is the truth; a real extended attribute is a best-effort copy on each writable local replica. To tell an
edit made outside from our own copy, `mirror` remembers the value last seen on each replica.
"""

import apsw

from index.model.entry import Entry
from index.store import heldback

SCHEMA = """
-- attribute: one cell for each (entry, name), last-writer-wins by (hlc, device). value NULL = removed; the cell stays,
-- because its stamp must outlive late writes. user.xdg.tags is here too: the text as it was written, given back while
-- it still names exactly the live set of tags.
CREATE TABLE attribute(
    entry_uuid BLOB NOT NULL,
    name       BLOB NOT NULL,
    value      BLOB,
    hlc        INTEGER NOT NULL,
    device     BLOB NOT NULL,
    PRIMARY KEY (entry_uuid, name)
) STRICT, WITHOUT ROWID;

-- mirror: the real attributes of one real file as last seen or written (local, never synced). A real file is told by
-- its inode number in the mount and its branch, so its hard-linked names share what was seen, a move takes it along,
-- and another inode under the name starts with nothing.
CREATE TABLE mirror(
    node      INTEGER NOT NULL,
    branch_id INTEGER NOT NULL,
    name      BLOB NOT NULL,
    value     BLOB NOT NULL,
    PRIMARY KEY (node, branch_id, name)
) STRICT, WITHOUT ROWID;

-- mirror_state: the disk's inode and the ctime of a real file when its attributes were last compared with the library.
CREATE TABLE mirror_state(
    node      INTEGER NOT NULL,
    branch_id INTEGER NOT NULL,
    st_ino    INTEGER NOT NULL,
    ctime_ns  INTEGER NOT NULL,
    PRIMARY KEY (node, branch_id)
) STRICT, WITHOUT ROWID;
"""


def get(db: apsw.Connection, entry_uuid: bytes, name: bytes) -> bytes | None:
    """The live value of a cell, None when there is none."""
    row = db.execute("SELECT value FROM attribute WHERE entry_uuid=? AND name=?", (entry_uuid, name)).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])


def has_cell(db: apsw.Connection, entry_uuid: bytes, name: bytes) -> bool:
    """Whether there is a cell, be it that of a value that was removed."""
    sql = "SELECT 1 FROM attribute WHERE entry_uuid=? AND name=?"
    return db.execute(sql, (entry_uuid, name)).fetchone() is not None


def all_of(db: apsw.Connection, entry_uuid: bytes) -> dict[bytes, bytes]:
    """Every live cell of an entry."""
    return {
        bytes(n): bytes(v)
        for n, v in db.execute(
            "SELECT name, value FROM attribute WHERE entry_uuid=? AND value IS NOT NULL ORDER BY name", (entry_uuid,)
        )
    }


def has_any(db: apsw.Connection, entry_uuid: bytes) -> bool:
    """Whether a person or a script annotated the entry."""
    if db.execute("SELECT 1 FROM attribute WHERE entry_uuid=? AND value IS NOT NULL LIMIT 1", (entry_uuid,)).fetchone():
        return True
    return db.execute("SELECT 1 FROM tagging WHERE entry_uuid=? LIMIT 1", (entry_uuid,)).fetchone() is not None


def cells_of(db: apsw.Connection, entry_uuid: bytes, device: bytes) -> list[tuple[bytes, bytes | None, int]]:
    """(name, value, hlc) of the cells of an entry that a device wrote last, also those it emptied."""
    sql = "SELECT name, value, hlc FROM attribute WHERE entry_uuid=? AND device=? ORDER BY name"
    return [(bytes(n), v, int(h)) for n, v, h in db.execute(sql, (entry_uuid, device))]


def put(db: apsw.Connection, entry_uuid: bytes, name: bytes, value: bytes | None, hlc: int, device: bytes) -> None:
    db.execute(
        "INSERT INTO attribute VALUES(?,?,?,?,?) ON CONFLICT(entry_uuid, name) DO UPDATE SET "
        "value=excluded.value, hlc=excluded.hlc, device=excluded.device "
        "WHERE (excluded.hlc, excluded.device) >= (hlc, device)",
        (entry_uuid, name, value, hlc, device),
    )


def mirror_seen(db: apsw.Connection, row: Entry) -> dict[bytes, bytes]:
    """The real attributes of a row's file as last seen."""
    found = db.execute("SELECT name, value FROM mirror WHERE node=? AND branch_id=?", (row.node, row.branch_id))
    return {bytes(n): bytes(v) for n, v in found}


def mirror_put(db: apsw.Connection, row: Entry, name: bytes, value: bytes) -> None:
    db.execute(
        "INSERT INTO mirror VALUES(?,?,?,?) ON CONFLICT(node, branch_id, name) DO UPDATE SET value=excluded.value",
        (row.node, row.branch_id, name, value),
    )


def mirror_drop(db: apsw.Connection, row: Entry, name: bytes) -> None:
    db.execute("DELETE FROM mirror WHERE node=? AND branch_id=? AND name=?", (row.node, row.branch_id, name))


def mirror_state(db: apsw.Connection, row: Entry) -> tuple[int, int] | None:
    """(inode, ctime) at the last comparison; None when there was none."""
    found = db.execute(
        "SELECT st_ino, ctime_ns FROM mirror_state WHERE node=? AND branch_id=?", (row.node, row.branch_id)
    ).fetchone()
    return (int(found[0]), int(found[1])) if found else None


def mirrored(db: apsw.Connection, entry_ids: list[int]) -> set[int]:
    """Those of some entries whose real files were seen to carry attributes; one query."""
    marks = ",".join("?" * len(entry_ids))
    found = db.execute(
        f"SELECT e.id FROM entry e WHERE e.id IN ({marks}) AND EXISTS "
        "(SELECT 1 FROM mirror_state m WHERE m.node=e.node AND m.branch_id=e.branch_id)",
        entry_ids,
    )
    return {int(i) for (i,) in found}


def set_mirror_state(db: apsw.Connection, row: Entry, st_ino: int, ctime_ns: int) -> None:
    db.execute(
        "INSERT INTO mirror_state VALUES(?,?,?,?) ON CONFLICT(node, branch_id) DO UPDATE SET "
        "st_ino=excluded.st_ino, ctime_ns=excluded.ctime_ns",
        (row.node, row.branch_id, st_ino, ctime_ns),
    )


def mirror_moves(db: apsw.Connection, row: Entry, node: int) -> None:
    """The row's file goes under another number: what was seen of it goes along."""
    for table in ("mirror", "mirror_state"):
        db.execute(
            f"UPDATE OR REPLACE {table} SET node=? WHERE node=? AND branch_id=?", (node, row.node, row.branch_id)
        )


def mirror_follows(db: apsw.Connection, node: int, old_branch: int, branch_id: int) -> None:
    """A file, or one of its names, goes to another branch: what was seen of it is known there too."""
    sql = "SELECT 1 FROM mirror_state WHERE node=? AND branch_id=?"
    if not db.execute(sql, (node, old_branch)).fetchone():
        return
    for table, columns in (("mirror", "name, value"), ("mirror_state", "st_ino, ctime_ns")):
        db.execute(f"DELETE FROM {table} WHERE node=? AND branch_id=?", (node, branch_id))
        db.execute(
            f"INSERT INTO {table}(node, branch_id, {columns}) "
            f"SELECT node, ?, {columns} FROM {table} WHERE node=? AND branch_id=?",
            (branch_id, node, old_branch),
        )


def mirror_forget(db: apsw.Connection, row: Entry) -> None:
    """A file goes by another uuid than when its real attributes were seen: they are read anew, for that one."""
    for table in ("mirror", "mirror_state"):
        db.execute(f"DELETE FROM {table} WHERE node=? AND branch_id=?", (row.node, row.branch_id))


def merge_into(db: apsw.Connection, other: bytes, kept: bytes) -> None:
    """Move the annotations of one uuid under another: tags join, of each cell the later stamp wins."""
    db.execute(
        "INSERT INTO attribute SELECT ?, name, value, hlc, device FROM attribute WHERE entry_uuid=? "
        "ON CONFLICT(entry_uuid, name) DO UPDATE SET value=excluded.value, hlc=excluded.hlc, device=excluded.device "
        "WHERE (excluded.hlc, excluded.device) > (hlc, device)",
        (kept, other),
    )
    db.execute(
        "INSERT OR IGNORE INTO tagging "
        "SELECT ?, tag_id, dot_device, dot_seq, dot_part, hlc, part FROM tagging WHERE entry_uuid=?",
        (kept, other),
    )
    heldback.renamed(db, other, kept)
    db.execute("DELETE FROM attribute WHERE entry_uuid=?", (other,))
    db.execute("DELETE FROM tagging WHERE entry_uuid=?", (other,))
