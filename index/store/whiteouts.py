"""Table whiteout: names that left here, and that other devices go on to have. Of this device alone, never told.

What another device holds is not ours to delete. So a name that was removed or renamed here is hidden here, as far as it
is what was seen then: the file by its uuid, with a version that had seen no more. A later version shows again. What is
hidden is marked in its own row (`Entry.is_hidden`), so that whoever reads rows need not ask; this table is what that
mark follows from, when rows come, change, move and go (leaving.py).

Keyed by uuids, which stay what they are when a directory is renamed there, when another device turns out to have it
too, and when rows are told anew.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import apsw

from index.model.entry import Entry
from index.store import entries

SCHEMA = """
-- whiteout: a name that left here, of which another device has a replica. Local, never synced.
--   dir      uuid of the directory
--   uuid     which file, link or directory had the name there
--   version  packed vector of all that the name was known to be when it left; of a directory that of nothing
--   held     what it held, where that was known: the full hash of a file, the target of a link
--   is_seen  0: whether its bytes were those that left here was not known. It is hidden, and no version of ours has
--            seen it
--   hlc      the unit that wrote it
CREATE TABLE whiteout(
    dir     BLOB NOT NULL,
    name    BLOB NOT NULL,
    uuid    BLOB NOT NULL,
    kind    INTEGER NOT NULL,
    version BLOB NOT NULL,
    held    BLOB,
    is_seen INTEGER NOT NULL,
    hlc     INTEGER NOT NULL,
    PRIMARY KEY (dir, name, uuid)
) STRICT, WITHOUT ROWID;
-- of_uuid(): a uuid turns out to be an alias.
CREATE INDEX whiteout_uuid ON whiteout(uuid);
-- hidden(): what is marked.
CREATE INDEX entry_hidden ON entry(id) WHERE rule < 0;
"""


class Whiteout(NamedTuple):
    """A row of table whiteout."""

    dir: bytes
    name: bytes
    uuid: bytes
    kind: int
    version: bytes
    held: bytes | None
    is_seen: int
    hlc: int


_SELECT = "SELECT dir, name, uuid, kind, version, held, is_seen, hlc FROM whiteout "


def put(db: apsw.Connection, row: Whiteout) -> None:
    """A name left; what was noted of the same file there before is void."""
    db.execute("INSERT OR REPLACE INTO whiteout VALUES(?,?,?,?,?,?,?,?)", row)


def drop(db: apsw.Connection, row: Whiteout) -> None:
    db.execute("DELETE FROM whiteout WHERE dir=? AND name=? AND uuid=?", row[:3])


def is_any(db: apsw.Connection) -> bool:
    """Whether anything is hidden, or may be."""
    return db.execute("SELECT 1 FROM whiteout LIMIT 1").fetchone() is not None


def get(db: apsw.Connection, directory: bytes, name: bytes, uuid: bytes) -> Whiteout | None:
    row = db.execute(_SELECT + "WHERE dir=? AND name=? AND uuid=?", (directory, name, uuid)).fetchone()
    return None if row is None else Whiteout._make(row)


def at(db: apsw.Connection, directory: bytes, name: bytes) -> list[Whiteout]:
    """All of a name."""
    return _made(db.execute(_SELECT + "WHERE dir=? AND name=?", (directory, name)))


def of_dir(db: apsw.Connection, directory: bytes) -> list[Whiteout]:
    """All of a directory."""
    return _made(db.execute(_SELECT + "WHERE dir=?", (directory,)))


def of_uuid(db: apsw.Connection, uuid: bytes) -> list[Whiteout]:
    """All of a file, or a directory as what is hidden."""
    return _made(db.execute(_SELECT + "WHERE uuid=?", (uuid,)))


def every(db: apsw.Connection) -> list[Whiteout]:
    return _made(db.execute(_SELECT))


def _made(rows: Iterable[Any]) -> list[Whiteout]:
    return [Whiteout._make(row) for row in rows]


def theirs(db: apsw.Connection, directory: bytes, name: bytes) -> list[Entry]:
    """What other devices have under a name of a directory, hidden or not."""
    sql = (
        f"SELECT {entries.E_COLUMNS} FROM entry p INDEXED BY entry_uuid CROSS JOIN entry e ON e.parent_id=p.id "
        "AND e.name=? WHERE p.uuid=? AND p.uuid IS NOT NULL AND e.uid<0"
    )
    return [Entry._make(row) for row in db.execute(sql, (name, directory))]


def hidden(db: apsw.Connection) -> list[Entry]:
    """What is marked as hidden."""
    sql = f"SELECT {entries.E_COLUMNS} FROM entry e INDEXED BY entry_hidden WHERE e.rule<0"
    return [Entry._make(row) for row in db.execute(sql)]


def directories_below(db: apsw.Connection, entry_id: int) -> list[Entry]:
    """A directory and those below it that have whiteouts, what lies above first."""
    sql = (
        "WITH RECURSIVE d(id) AS (SELECT ? UNION ALL "
        "SELECT e.id FROM d CROSS JOIN entry e INDEXED BY entry_dirs ON e.parent_id=d.id AND e.kind=1) "
        f"SELECT {entries.E_COLUMNS} FROM d CROSS JOIN entry e ON e.id=d.id "
        "WHERE EXISTS (SELECT 1 FROM whiteout w WHERE w.dir=e.uuid)"
    )
    return [Entry._make(row) for row in db.execute(sql, (entry_id,))]


def shows_any(db: apsw.Connection, entry_id: int) -> bool:
    """Whether a directory has a name that is not hidden."""
    return db.execute("SELECT 1 FROM entry WHERE parent_id=? AND rule>=0 LIMIT 1", (entry_id,)).fetchone() is not None


def mark(db: apsw.Connection, entry_id: int, rule: int, seq: int) -> None:
    """Hide what another device has, or show it."""
    db.execute("UPDATE entry SET rule=?, seq=? WHERE id=?", (rule, seq, entry_id))
