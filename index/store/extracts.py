"""Table extracted: what stands in a content, as fields: the size of an image, the artist of a song.

Keyed by content, so one reading serves all copies. There is one row a content, also for one that could not be read:
it is tried again when the extractor has another version, not before.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import apsw
import msgpack

from index.store import filetypes
from index.store.connection import one

#: What a field may hold; a time is a text by ISO 8601, without a zone where the file names none.
Value = int | float | str

DONE = 1
FAILED = 2

SCHEMA = """
-- extracted: what an extractor found in a content.
--   extractor, version  which one, and which of its versions
--   state               1 done, 2 failed
--   error               why it failed
--   fields              msgpack: an object of numbers and texts; NULL when it failed
CREATE TABLE extracted(
    content_id INTEGER PRIMARY KEY REFERENCES content(id),
    extractor  TEXT NOT NULL,
    version    INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    error      TEXT,
    fields     BLOB
) STRICT;
"""

#: Contents that one look at the queue goes through at most, whether they are in it or not.
WINDOW = 2048


class Extracted(NamedTuple):
    content_id: int
    extractor: str
    version: int
    state: int
    error: str | None
    fields: dict[str, Value]


class Waiting(NamedTuple):
    """A content that lacks something; `type_name` is None where nobody looked what it is."""

    content_id: int
    full: bytes
    type_name: str | None


def put(db: apsw.Connection, row: Extracted) -> None:
    """Write what was found, over what an older version found. Inside a unit."""
    packed = None if row.state == FAILED else msgpack.packb(row.fields)
    db.execute("INSERT OR REPLACE INTO extracted VALUES(?,?,?,?,?,?)", (*row[:5], packed))


def get(db: apsw.Connection, content_id: int) -> Extracted | None:
    row = db.execute("SELECT * FROM extracted WHERE content_id=?", (content_id,)).fetchone()
    if row is None:
        return None
    content, extractor, version, state, error, packed = row
    return Extracted(content, extractor, version, state, error, {} if packed is None else msgpack.unpackb(packed))


def lacking(
    db: apsw.Connection, types: frozenset[str], present: Collection[tuple[str, int]], after_id: int, limit: int
) -> tuple[list[Waiting], int | None]:
    """Contents of those types, or of a type that nobody knows yet, that no present (extractor, version) has seen.

    In id order, up to `limit` of them behind `after_id`, from a window of the table: (page, where to go on). The second
    is None at the end; an empty page is not the end.
    """
    lacks, values = _lacks(db, types, present)
    sql = (
        "SELECT c.id, c.full, t.name FROM content c LEFT JOIN filetype t ON t.id = c.type_id "
        f"LEFT JOIN extracted x ON x.content_id = c.id WHERE c.id > ? AND c.id <= ? AND {lacks} ORDER BY c.id LIMIT ?"
    )
    return windowed(db, sql, after_id, values, limit)


def count_lacking(
    db: apsw.Connection, types: frozenset[str], present: Collection[tuple[str, int]], branch_id: int
) -> int:
    """How many of those a branch has; a pass over the contents, for a thread."""
    lacks, values = _lacks(db, types, present)
    sql = f"SELECT count(*) FROM content c LEFT JOIN extracted x ON x.content_id = c.id WHERE {lacks} AND {HELD}"
    return int(one(db, sql, *values, branch_id)[0])


#: Whether a branch has a file of content c that may be read.
HELD = (
    "EXISTS (SELECT 1 FROM entry e INDEXED BY entry_content WHERE e.content_id = c.id AND e.branch_id = ? "
    "AND e.rule = 0)"
)


def _lacks(
    db: apsw.Connection, types: frozenset[str], present: Collection[tuple[str, int]]
) -> tuple[str, list[int | str]]:
    """What `lacking` asks of content c and its row x, and the values for it."""
    ids = filetypes.known(db, types)
    pairs = ",".join(["(?,?)"] * len(present))
    condition = (
        f"c.full IS NOT NULL AND (c.type_id IS NULL OR c.type_id IN ({','.join('?' * len(ids))})) "
        f"AND (x.content_id IS NULL OR (x.extractor, x.version) NOT IN (VALUES {pairs}))"
    )
    return condition, [*ids, *(value for pair in present for value in pair)]


def windowed(
    db: apsw.Connection, sql: str, after_id: int, values: Sequence[int | str], limit: int
) -> tuple[list[Waiting], int | None]:
    """One page of a query over contents, of ids in (after, window's end]: what `lacking` promises."""
    end_row = db.execute("SELECT id FROM content WHERE id > ? ORDER BY id LIMIT 1 OFFSET ?", (after_id, WINDOW - 1))
    found_end = end_row.fetchone()
    end = (1 << 62) if found_end is None else int(found_end[0])
    page = [Waiting(*row) for row in db.execute(sql, (after_id, end, *values, limit))]
    if len(page) == limit:
        return page, page[-1].content_id
    return page, None if found_end is None else end


def counts(db: apsw.Connection) -> tuple[int, int]:
    """(contents with fields, contents that failed); a pass over the table."""
    done, failed = one(db, "SELECT count(*) FILTER (WHERE state=1), count(*) FILTER (WHERE state=2) FROM extracted")
    return int(done), int(failed)
