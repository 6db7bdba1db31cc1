"""Tables content and manifest: bytes by their hash.

An entry points to a content once its sampled id is known; the sampled id is a hint (two files may share it), the full
BLAKE3 is the truth. An entry whose hash_state is not "full" points to its content as a hint only; when its own full
hash becomes known it moves to the row of that hash. What counts as "the same bytes" always asks for that state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import apsw

from index.model.content import SAMPLE_WHOLE_MAX_BYTES
from index.store.connection import one

SCHEMA = """
-- content: one row for each (sampled id, full hash). Its uuid, the same on every device, is computed of the sampled id
-- where it is needed (model/content.py). size_bytes is the size of one instance.
--   full        32 bytes, of one row at most, which exact() sees to
--   type_id     what the bytes are (table filetype); NULL until somebody looked
--   type_method by which means that was found: 0 a name, 1 the text, 2 a signature, 3 a signature and a name
CREATE TABLE content(
    id         INTEGER PRIMARY KEY,
    sampled    BLOB NOT NULL,
    full       BLOB,
    size_bytes INTEGER NOT NULL,
    type_id    INTEGER REFERENCES filetype(id),
    type_method INTEGER
) STRICT;
"""
#: Apart, since a step of the schema made them anew.
INDEXES = """
-- OF_FULL: eight bytes of a hash nearly always say which it is, at a third of the room.
CREATE INDEX content_full ON content(substr(full, 1, 8)) WHERE full IS NOT NULL;
-- hint(), exact(): of files that are not read whole at once; most are, and are not asked for by this.
CREATE INDEX content_sampled ON content(sampled) WHERE full IS NULL OR size_bytes > 1048576;
"""
_MANIFEST = """
-- manifest: the block hashes of one content (docs/format/manifest-v1.md). Contents of a single block have none: their
-- full hash says it all.
CREATE TABLE manifest(
    content_id INTEGER PRIMARY KEY REFERENCES content(id),
    body       BLOB NOT NULL
) STRICT;
"""
#: Apart, since a step of the schema adds the column.
BY_TYPE = """
-- count_of_types(), searches for what is of a kind whatever its name.
CREATE INDEX content_type ON content(type_id) WHERE type_id IS NOT NULL;
"""
SCHEMA += BY_TYPE
SCHEMA += INDEXES + _MANIFEST

_FULL_BYTES = 8
#: The row of a full hash, in a form that its index serves.
OF_FULL = "substr(full, 1, 8)=substr(:full, 1, 8) AND full=:full"


class ContentRow(NamedTuple):
    id: int
    sampled: bytes
    full: bytes | None
    size_bytes: int


class Read(NamedTuple):
    """What reading a file whole gave; its type and the means that found it, where somebody looked."""

    sampled: bytes
    full: bytes
    size_bytes: int
    manifest: bytes | None
    type_id: int | None = None
    method: int | None = None


def hint(db: apsw.Connection, sampled: bytes, size_bytes: int) -> int:
    """The id of a row of a sampled id: a hint, until the entry's own full hash is known."""
    sql = "SELECT id FROM content WHERE sampled=? AND (full IS NULL OR size_bytes > 1048576) ORDER BY id LIMIT 1"
    row = db.execute(sql, (sampled,)).fetchone()
    if row:
        return int(row[0])
    db.execute("INSERT INTO content(sampled, size_bytes) VALUES(?,?)", (sampled, size_bytes))
    return db.last_insert_rowid()


def exact(db: apsw.Connection, read: Sequence[Read]) -> list[int]:
    """The ids of the rows of full hashes, in order; they and their manifests are made when new. A few statements,
    however many are asked for."""
    sql = f"SELECT id, full, type_method FROM content WHERE full IS NOT NULL AND substr(full, 1, 8) IN ({_marks(read)})"
    known: dict[bytes, tuple[int, int | None]] = {
        full: (content_id, method)
        for content_id, full, method in db.execute(sql, [one.full[:_FULL_BYTES] for one in read])
    }
    sampled = [one.sampled for one in read if one.size_bytes > SAMPLE_WHOLE_MAX_BYTES]  # smaller ones are read at once
    hints: dict[bytes, int] = dict(
        db.execute(
            f"SELECT sampled, id FROM content WHERE full IS NULL AND sampled IN ({_marks(sampled)}) ORDER BY id DESC",
            sampled,
        )
        if sampled
        else ()
    )
    next_id = last_id(db) + 1
    ids: list[int] = []
    new: list[tuple[int, bytes, bytes, int, int | None, int | None]] = []
    completed: list[tuple[bytes, int]] = []
    typed: list[tuple[int | None, int, int, int]] = []
    manifests: list[tuple[int, bytes]] = []
    for piece in read:
        content_id, method = known.get(piece.full, (0, None))
        if not content_id:
            content_id = hints.pop(piece.sampled, 0)
            if content_id:
                completed.append((piece.full, content_id))
            else:
                content_id, next_id = next_id, next_id + 1
                method = piece.method
                new.append((content_id, piece.sampled, piece.full, piece.size_bytes, piece.type_id, method))
            if piece.manifest:
                manifests.append((content_id, piece.manifest))
        if piece.method is not None and (method is None or method < piece.method):
            method = piece.method
            typed.append((piece.type_id, method, content_id, method))
        known[piece.full] = content_id, method
        ids.append(content_id)
    db.executemany("INSERT INTO content(id, sampled, full, size_bytes, type_id, type_method) VALUES(?,?,?,?,?,?)", new)
    db.executemany("UPDATE content SET full=? WHERE id=?", completed)
    db.executemany(_SET_TYPE, typed)
    db.executemany("INSERT INTO manifest VALUES(?,?)", manifests)
    return ids


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))


_SET_TYPE = "UPDATE content SET type_id=?, type_method=? WHERE id=? AND (type_method IS NULL OR type_method < ?)"


def count_of_types(db: apsw.Connection, types: list[int], most: int) -> int:
    """How many contents are of some types, counted up to `most`."""
    of_types = f"SELECT 1 FROM content INDEXED BY content_type WHERE type_id IN ({', '.join(map(str, types))})"
    return int(one(db, f"SELECT count(*) FROM ({of_types} LIMIT ?)", most)[0])


def set_type(db: apsw.Connection, content_id: int, type_id: int, method: int) -> None:
    """Write what the bytes were found to be, unless a stronger means said something already."""
    db.execute(_SET_TYPE, (type_id, method, content_id, method))


def last_id(db: apsw.Connection) -> int:
    """The newest content there is, 0 without any."""
    return int(one(db, "SELECT coalesce(max(id), 0) FROM content")[0])


_SELECT = "SELECT id, sampled, full, size_bytes FROM content WHERE "


def get(db: apsw.Connection, content_id: int) -> ContentRow | None:
    row = db.execute(_SELECT + "id=?", (content_id,)).fetchone()
    return ContentRow(*row) if row else None


def by_full(db: apsw.Connection, full: bytes) -> ContentRow | None:
    row = db.execute(_SELECT + OF_FULL, {"full": full}).fetchone()
    return ContentRow(*row) if row else None
