"""Questions over the whole library about contents: files of one hash. Full or near-full passes."""

import apsw

from index.model.entry import Entry
from index.store.contents import OF_FULL
from index.store.entries import E_COLUMNS


def with_hash(db: apsw.Connection, full: bytes) -> list[Entry]:
    """Every entry of a full hash that shows, one of each file (hard links count once)."""
    rows = db.execute(
        f"SELECT {E_COLUMNS} FROM content c JOIN entry e ON e.content_id = c.id "
        f"WHERE {OF_FULL} AND e.hash_state=2 AND e.rule>=0 ORDER BY e.id",
        {"full": full},
    )
    seen: set[int] = set()
    out = []
    for raw in rows:
        row = Entry._make(raw)
        if row.node not in seen:
            seen.add(row.node)
            out.append(row)
    return out


def duplicate_hashes(db: apsw.Connection, limit: int) -> list[bytes]:
    """The full hashes that more than one file has, largest first."""
    return [
        bytes(r[0])
        for r in db.execute(
            "SELECT c.full FROM content c JOIN entry e ON e.content_id = c.id AND e.hash_state=2 AND e.rule>=0 "
            "WHERE c.full IS NOT NULL GROUP BY c.id HAVING count(DISTINCT e.node) > 1 "
            "ORDER BY c.size_bytes * (count(DISTINCT e.node) - 1) DESC LIMIT ?",
            (limit,),
        )
    ]
