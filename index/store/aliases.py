"""Table alias: uuids that turned out to name one logical file.

Two devices that meet with the same file under the same path have given it two uuids; both go on to be used by whoever
has not heard. So the class of uuids that were found to be one is kept for ever, add-only, and goes by its smallest
member: whatever is written under another member is kept under that one. What was written before moves there when the
alias becomes known, by the law of its table (the latest of a cell, the union of tags); hence the order in which changes
and aliases arrive does not matter.
"""

from collections.abc import Sequence

import apsw

SCHEMA = """
-- alias: uuids that turned out to name one file. What is said under uuid is read, and lies in the other tables, under
-- kept: the smallest of all that are one, which is no alias itself. A row is never taken back.
CREATE TABLE alias(
    uuid BLOB PRIMARY KEY,
    kept BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_kept ON alias(kept);
"""


def canon(db: apsw.Connection, uuid: bytes) -> bytes:
    """What a uuid is read as."""
    row = db.execute("SELECT kept FROM alias WHERE uuid=?", (uuid,)).fetchone()
    return uuid if row is None else bytes(row[0])


def canons(db: apsw.Connection, uuids: Sequence[bytes]) -> dict[bytes, bytes]:
    """Those of some uuids (a few thousand at most) that are aliases, with what they are read as."""
    if db.execute("SELECT 1 FROM alias LIMIT 1").fetchone() is None:
        return {}
    marks = ",".join("?" * len(uuids))
    return dict(db.execute(f"SELECT uuid, kept FROM alias WHERE uuid IN ({marks})", uuids))


def join(db: apsw.Connection, one: bytes, other: bytes) -> tuple[bytes, bytes] | None:
    """Two uuids name one file: (what is an alias from now on, what it is read as); None when that was known."""
    a, b = canon(db, one), canon(db, other)
    if a == b:
        return None
    kept, lost = min(a, b), max(a, b)
    db.execute("UPDATE alias SET kept=? WHERE kept=?", (kept, lost))
    db.execute("INSERT INTO alias VALUES(?,?)", (lost, kept))
    return lost, kept


def every(db: apsw.Connection) -> list[tuple[bytes, bytes]]:
    """All aliases with what they are read as, by uuid."""
    return [(bytes(u), bytes(k)) for u, k in db.execute("SELECT uuid, kept FROM alias ORDER BY uuid")]
