"""Tables content and manifest: bytes by their hash.

An entry points to a content once its sampled id is known; the sampled id is a hint (two files may share it), the full
BLAKE3 is the truth. An entry whose hash_state is not "full" points to its content as a hint only; when its own full
hash becomes known it moves to the row of that hash. What counts as "the same bytes" always asks for that state.
"""

from typing import NamedTuple

import apsw

SCHEMA = """
-- content: one row for each (sampled id, full hash). uuid is uuid5 of the sampled id, the same on every device and not
-- unique here, because two contents may share a sampled id. size_bytes is the size of one instance.
--   type_id     what the bytes are (table filetype); NULL until somebody looked
--   type_method by which means that was found: 0 a name, 1 the text, 2 a signature, 3 a signature and a name
CREATE TABLE content(
    id         INTEGER PRIMARY KEY,
    uuid       BLOB NOT NULL,
    sampled    BLOB NOT NULL,
    full       BLOB,
    size_bytes INTEGER NOT NULL,
    type_id    INTEGER REFERENCES filetype(id),
    type_method INTEGER
) STRICT;
CREATE UNIQUE INDEX content_full ON content(full) WHERE full IS NOT NULL;
CREATE INDEX content_sampled ON content(sampled);

-- manifest: the block hashes of one content (docs/format/manifest-v1.md). Contents of a single block have none: their
-- full hash says it all.
CREATE TABLE manifest(
    content_id INTEGER PRIMARY KEY REFERENCES content(id),
    body       BLOB NOT NULL
) STRICT;
"""


class ContentRow(NamedTuple):
    id: int
    uuid: bytes
    sampled: bytes
    full: bytes | None
    size_bytes: int


def hint(db: apsw.Connection, sampled: bytes, uuid: bytes, size_bytes: int) -> int:
    """The id of a row of a sampled id: a hint, until the entry's own full hash is known."""
    row = db.execute("SELECT id FROM content WHERE sampled=? ORDER BY id LIMIT 1", (sampled,)).fetchone()
    if row:
        return int(row[0])
    db.execute("INSERT INTO content(uuid, sampled, size_bytes) VALUES(?,?,?)", (uuid, sampled, size_bytes))
    return db.last_insert_rowid()


def exact(
    db: apsw.Connection,
    sampled: bytes,
    full: bytes,
    uuid: bytes,
    size_bytes: int,
    manifest: bytes | None,
    found: tuple[int, int] | None = None,
) -> int:
    """The id of the row of a full hash; it and its manifest are made when new. `found` is its type and the means."""
    row = db.execute("SELECT id FROM content WHERE full=?", (full,)).fetchone()
    if row:
        if found:
            set_type(db, row[0], *found)
        return int(row[0])
    row = db.execute("SELECT id FROM content WHERE sampled=? AND full IS NULL", (sampled,)).fetchone()
    if row:
        content_id = int(row[0])
        db.execute("UPDATE content SET full=? WHERE id=?", (full, content_id))
        if found:
            set_type(db, content_id, *found)
    else:
        db.execute(
            "INSERT INTO content(uuid, sampled, full, size_bytes, type_id, type_method) VALUES(?,?,?,?,?,?)",
            (uuid, sampled, full, size_bytes, *(found or (None, None))),
        )
        content_id = db.last_insert_rowid()
    if manifest:
        db.execute("INSERT INTO manifest VALUES(?,?)", (content_id, manifest))
    return content_id


def set_type(db: apsw.Connection, content_id: int, type_id: int, method: int) -> None:
    """Write what the bytes were found to be, unless a stronger means said something already."""
    db.execute(
        "UPDATE content SET type_id=?, type_method=? WHERE id=? AND (type_method IS NULL OR type_method < ?)",
        (type_id, method, content_id, method),
    )


def get(db: apsw.Connection, content_id: int) -> ContentRow | None:
    row = db.execute("SELECT id, uuid, sampled, full, size_bytes FROM content WHERE id=?", (content_id,)).fetchone()
    return ContentRow(*row) if row else None


def by_full(db: apsw.Connection, full: bytes) -> ContentRow | None:
    row = db.execute("SELECT id, uuid, sampled, full, size_bytes FROM content WHERE full=?", (full,)).fetchone()
    return ContentRow(*row) if row else None
