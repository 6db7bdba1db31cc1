"""Questions about copies: which files are the same bytes, and which exist only once. By their full hash alone.

In: a connection of a thread's own, and where the last page ended. Out: pages of rows in an order that keys continue.
Names of one inode are one file, as are replicas under one name. What rules hold back is left out, whatever was known of
it before; what has no full hash (yet) can be neither, and is counted (`Unsaid`).

Each page of duplicates adds all contents up anew, a pass over the hashed files (some 2 us each); all pages of what
is unique together are one pass.
"""

from collections.abc import Iterable
from typing import NamedTuple

import apsw

from index.store import entries
from index.store.connection import one

_MAX = (1 << 63) - 1


class Position(NamedTuple):
    """Where a page of duplicates ended: behind that row of that set."""

    wasted_bytes: int = _MAX
    content_id: int = 0
    node: int = 0
    entry_id: int = 0


class Name(NamedTuple):
    """One name of a file that has copies. `wasted_bytes` and `files` are those of its whole set."""

    position: Position
    full: bytes
    size_bytes: int
    files: int
    branch_id: int
    names: list[bytes] | None  # None: it hangs nowhere (yet), see entries.place_of


class Lone(NamedTuple):
    """A file of which no other branch has a copy."""

    entry_id: int
    size_bytes: int
    branch_id: int
    names: list[bytes] | None


class Unsaid(NamedTuple):
    """Files of which nothing can be said: they have no full hash, or rules hold them back."""

    unhashed: int
    held: int


_DUPLICATES = """
WITH sets AS MATERIALIZED (
    SELECT c.id AS id, c.full AS full, c.size_bytes AS size_bytes, count(DISTINCT e.node) AS files,
        c.size_bytes * (count(DISTINCT e.node) - 1) AS wasted
    FROM entry e CROSS JOIN content c ON c.id = e.content_id
    WHERE e.content_id IS NOT NULL AND e.hash_state = 2 AND e.rule = 0 AND c.full IS NOT NULL
        AND c.size_bytes >= :least
    GROUP BY e.content_id HAVING files > 1
)
SELECT s.wasted, s.id, e.node, e.id, s.full, s.size_bytes, s.files, e.branch_id
FROM (SELECT * FROM sets WHERE wasted < :wasted OR (wasted = :wasted AND id >= :content)
      ORDER BY wasted DESC, id LIMIT :sets) s
CROSS JOIN entry e ON e.content_id = s.id AND e.hash_state = 2 AND e.rule = 0
WHERE NOT (s.wasted = :wasted AND s.id = :content) OR (e.node, e.id) > (:node, :entry)
ORDER BY s.wasted DESC, s.id, e.node, e.id LIMIT :names
"""
_UNIQUE = """
SELECT e.id, e.size_bytes, e.branch_id FROM entry e CROSS JOIN content c ON c.id = e.content_id
WHERE e.id > ? AND +e.branch_id IN ({}) AND e.kind = 0 AND e.hash_state = 2 AND e.rule = 0 AND c.full IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM entry o WHERE o.content_id = e.content_id AND o.hash_state = 2
        AND o.branch_id <> e.branch_id)
ORDER BY e.id LIMIT ?
"""
_UNSAID = (
    "SELECT count(*) FILTER (WHERE rule = 0), count(*) FILTER (WHERE rule > 0) FROM entry "
    "WHERE kind = 0 AND size_bytes >= ? AND (hash_state <> 2 OR rule > 0) AND rule >= 0"
)


def duplicates(db: apsw.Connection, least_bytes: int, sets: int, limit: int, after: Position) -> list[Name]:
    """Up to so many names of files that have copies, of at most so many sets, those first that waste most."""
    found = db.execute(
        _DUPLICATES,
        {
            "least": max(1, least_bytes), "wasted": after.wasted_bytes, "content": after.content_id,
            "node": after.node, "entry": after.entry_id, "sets": sets, "names": limit,
        },
    )  # fmt: skip
    rows: list[tuple[int, int, int, int, bytes, int, int, int]] = found.fetchall()  # type: ignore[assignment]
    return [
        Name(Position(*row[:4]), bytes(row[4]), row[5], row[6], row[7], entries.place_of(db, row[3])) for row in rows
    ]


def unique(db: apsw.Connection, branch_ids: Iterable[int], limit: int, after_id: int) -> list[Lone]:
    """Up to so many files of some branches whose bytes no other branch has, in the order of their ids."""
    branches = ", ".join(str(branch_id) for branch_id in branch_ids)
    rows: list[tuple[int, int, int]] = db.execute(_UNIQUE.format(branches), (after_id, limit)).fetchall()  # type: ignore[assignment]
    return [Lone(*row, entries.place_of(db, row[0])) for row in rows]


def unsaid(db: apsw.Connection, least_bytes: int, branch_ids: Iterable[int] | None = None) -> Unsaid:
    """How many files, of some branches or of all, nothing can be said of; a pass over the entries."""
    sql = _UNSAID
    if branch_ids is not None:
        sql += f" AND branch_id IN ({', '.join(str(branch_id) for branch_id in branch_ids)})"
    row = one(db, sql, max(1, least_bytes))
    return Unsaid(int(row[0]), int(row[1]))
