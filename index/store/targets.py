"""Table target: where the symbolic links of other devices lead. Those of our own are asked of the disk.

A target is bytes, as readlink(2) tells it, and as long as a path may be. A row goes with its entry.
"""

import apsw

SCHEMA = """
-- target: where a symbolic link of another device's branch leads, as its owner told: the bytes of readlink(2).
CREATE TABLE target(
    entry_id INTEGER PRIMARY KEY,
    target   BLOB NOT NULL
) STRICT;
CREATE TRIGGER target_gone AFTER DELETE ON entry WHEN old.kind=2 BEGIN
    DELETE FROM target WHERE entry_id=old.id;
END;
"""


def put(db: apsw.Connection, entry_id: int, target: bytes) -> None:
    """Say where a link leads, be it for the first time or anew."""
    db.execute("INSERT OR REPLACE INTO target VALUES(?,?)", (entry_id, target))


def get(db: apsw.Connection, entry_id: int) -> bytes | None:
    """Where a link leads; None where nobody has told."""
    row = db.execute("SELECT target FROM target WHERE entry_id=?", (entry_id,)).fetchone()
    return None if row is None else bytes(row[0])
