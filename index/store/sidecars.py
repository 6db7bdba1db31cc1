"""Table sidecar: files that were made of a content and lie in the library: its thumbnails.

Keyed by content. The files themselves, and where they lie, are index/media/sidecars.py; a row says whether there is
one.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from index.store import filetypes
from index.store.connection import one
from index.store.contents import OF_FULL
from index.store.extracts import HELD, Waiting, windowed

THUMB = "thumb"

READY = 1
FAILED = 2
SERVED = 3

SCHEMA = """
-- sidecar: a file that was made of a content, or why there is none.
--   kind       thumb
--   variant    grid@1x, …: which of its kind
--   format     webp: how the file ends
--   state      1 there is a file, 2 it cannot be made, 3 the next smaller variant of the kind serves for it
--   error      why it cannot be made
--   version    of what made it; another one makes it again
CREATE TABLE sidecar(
    content_id INTEGER NOT NULL REFERENCES content(id),
    kind       TEXT NOT NULL,
    variant    TEXT NOT NULL,
    format     TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    error      TEXT,
    version    INTEGER NOT NULL,
    PRIMARY KEY(content_id, kind, variant)
) STRICT, WITHOUT ROWID;
"""


class Sidecar(NamedTuple):
    content_id: int
    kind: str
    variant: str
    format: str
    size_bytes: int
    state: int
    error: str | None
    version: int


def put(db: apsw.Connection, rows: Iterable[Sidecar]) -> None:
    """Write rows over those that are there. Inside a unit."""
    db.executemany("INSERT OR REPLACE INTO sidecar VALUES(?,?,?,?,?,?,?,?)", rows)


def of_content(db: apsw.Connection, content_id: int, kind: str) -> list[Sidecar]:
    rows = db.execute("SELECT * FROM sidecar WHERE content_id=? AND kind=?", (content_id, kind))
    return [Sidecar(*row) for row in rows]


def lacking(
    db: apsw.Connection, types: frozenset[str], variants: Sequence[str], version: int, after_id: int, limit: int
) -> tuple[list[Waiting], int | None]:
    """Contents of those types that lack a thumbnail of this version: (page, where to go on), as `extracts.lacking`."""
    lacks, values = _lacks(db, types, variants, version)
    sql = (
        "SELECT c.id, c.full, t.name FROM content c CROSS JOIN filetype t ON t.id = c.type_id WHERE c.id > ? "
        f"AND c.id <= ? AND {lacks} ORDER BY c.id LIMIT ?"
    )
    return windowed(db, sql, after_id, values, limit)


def count_lacking(
    db: apsw.Connection, types: frozenset[str], variants: Sequence[str], version: int, branch_id: int
) -> int:
    """How many of those a branch has; a pass over the contents, for a thread."""
    lacks, values = _lacks(db, types, variants, version)
    return int(one(db, f"SELECT count(*) FROM content c WHERE {lacks} AND {HELD}", *values, branch_id)[0])


def _lacks(
    db: apsw.Connection, types: frozenset[str], variants: Sequence[str], version: int
) -> tuple[str, list[int | str]]:
    """What `lacking` asks of content c, and the values for it."""
    ids = filetypes.known(db, types)
    condition = (
        f"c.full IS NOT NULL AND c.type_id IN ({','.join('?' * len(ids))}) AND (SELECT count(*) "
        "FROM sidecar s WHERE s.content_id = c.id AND s.kind = 'thumb' AND s.version = ? AND s.variant IN "
        f"({','.join('?' * len(variants))})) < ?"
    )
    return condition, [*ids, version, *variants, len(variants)]


def page_of_contents(db: apsw.Connection, after_id: int, limit: int) -> list[int]:
    """The next contents that have rows, in id order."""
    rows = db.execute(
        "SELECT DISTINCT content_id FROM sidecar WHERE content_id > ? ORDER BY content_id LIMIT ?", (after_id, limit)
    )
    return [int(content_id) for (content_id,) in rows]


def files(db: apsw.Connection, page: Sequence[int]) -> list[tuple[Sidecar, bytes | None]]:
    """The rows of a page of contents that say there is a file, each with the full hash of its content."""
    rows = db.execute(
        "SELECT s.*, c.full FROM sidecar s JOIN content c ON c.id = s.content_id WHERE s.content_id BETWEEN ? AND ? "
        "AND s.state = 1",
        (page[0], page[-1]),
    )
    return [(Sidecar(*row[:8]), row[8]) for row in rows]


def forget(db: apsw.Connection, rows: Iterable[tuple[int, str, str]]) -> None:
    """Remove rows by (content, kind, variant). Inside a unit."""
    db.executemany("DELETE FROM sidecar WHERE content_id=? AND kind=? AND variant=?", rows)


def has_file(db: apsw.Connection, full: bytes, kind: str, variant: str, file_format: str) -> bool:
    """Whether a row says that this file is there."""
    found = db.execute(
        f"SELECT 1 FROM content c JOIN sidecar s ON s.content_id = c.id WHERE {OF_FULL} AND s.kind=:kind "
        "AND s.variant=:variant AND s.format=:format AND s.state=1",
        {"full": full, "kind": kind, "variant": variant, "format": file_format},
    )
    return found.fetchone() is not None
