"""Questions over the whole library: names that contain a text, files of one hash. Full or near-full passes."""

import apsw

from index.model.entry import NAME_MAX_BYTES, Entry
from index.store.entries import E_COLUMNS

#: Words of a query that count; SQLite bounds the depth of an expression.
WORDS_MAX = 64


def search(db: apsw.Connection, query: str, limit: int) -> list[Entry]:
    """Entries whose name contains every word of the query (letters of ASCII in either case); best matches first. What a
    rule holds back is not among them."""
    words = query.split()[:WORDS_MAX]
    if not words or any(len(w) > NAME_MAX_BYTES or "\0" in w or "/" in w for w in words):  # in no name
        return []
    # LIKE folds ASCII case; its wildcards are escaped. Names are blobs: undecodable ones are compared byte by byte.
    clauses = " AND ".join("CAST(e.name AS TEXT) LIKE ? ESCAPE '\\'" for _ in words)
    patterns = ["%" + w.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%" for w in words]
    whole = " ".join(words).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    # Graded and cut by SQLite, so that the best are found however many there are.
    sql = (
        f"SELECT {E_COLUMNS} FROM entry e WHERE e.parent_id IS NOT NULL AND e.rule = 0 AND {clauses} ORDER BY CASE "
        "WHEN CAST(e.name AS TEXT) LIKE ? ESCAPE '\\' THEN 0 WHEN CAST(e.name AS TEXT) LIKE ? ESCAPE '\\' THEN 1 "
        "ELSE 2 END, e.mtime_ns DESC, e.name LIMIT ?"
    )
    try:
        return [Entry._make(r) for r in db.execute(sql, (*patterns, whole, whole + "%", limit))]
    except UnicodeEncodeError:  # half a character can be in no text that SQLite compares
        return []


def with_hash(db: apsw.Connection, full: bytes) -> list[Entry]:
    """Every entry of a full hash, one of each file (hard links count once)."""
    rows = db.execute(
        f"SELECT {E_COLUMNS} FROM content c JOIN entry e ON e.content_id = c.id "
        "WHERE c.full=? AND e.hash_state=2 ORDER BY e.id",
        (full,),
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
            "SELECT c.full FROM content c JOIN entry e ON e.content_id = c.id AND e.hash_state=2 "
            "WHERE c.full IS NOT NULL GROUP BY c.id HAVING count(DISTINCT e.node) > 1 "
            "ORDER BY c.size_bytes * (count(DISTINCT e.node) - 1) DESC LIMIT ?",
            (limit,),
        )
    ]
