"""Table saved_search: searches that people keep by a name.

A row is shared by all devices and made of its registers (registers.py): name, query, removed. Two searches that got one
name apart both stay: the one with the smaller uuid has it, until the other is renamed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import apsw

from index.model.entry import NAME_MAX_BYTES, is_name
from index.model.errors import Exists, NotFound
from index.model.ids import new_uuid
from index.store import registers
from index.store.unit import Unit

#: The model of the registers that rows here are made of.
MODEL = "saved_search"

SCHEMA = """
-- saved_search: a query that is kept. name is one path component, query a text of the language of searches.
CREATE TABLE saved_search(
    uuid  BLOB PRIMARY KEY,
    name  BLOB NOT NULL,
    query TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX saved_search_name ON saved_search(name);
"""


class Saved(NamedTuple):
    uuid: bytes
    name: bytes
    query: str


def every(db: apsw.Connection) -> list[Saved]:
    """All saved searches by name, each name once."""
    found: dict[bytes, Saved] = {}
    rows = db.execute("SELECT uuid, name, query FROM saved_search ORDER BY name, uuid")
    for row in rows:
        found.setdefault(row[1], Saved._make(row))
    return list(found.values())


def find(db: apsw.Connection, name: bytes) -> Saved | None:
    """The search that is saved under a name."""
    row = db.execute(
        "SELECT uuid, name, query FROM saved_search WHERE name=? ORDER BY uuid LIMIT 1", (name,)
    ).fetchone()
    return None if row is None else Saved._make(row)


def save(unit: Unit, name: bytes, query: str) -> Saved:
    """Keep a query under a name; Exists when the name is taken."""
    if find(unit.db, name) is not None:
        raise Exists(f"there is a saved search {name.decode(errors='replace')} already")
    made = Saved(new_uuid(), name, query)
    unit.db.execute("INSERT INTO saved_search VALUES(?,?,?)", made)
    registers.put(unit, MODEL, made.uuid, "name", name)
    registers.put(unit, MODEL, made.uuid, "query", query)
    return made


def set_query(unit: Unit, name: bytes, query: str) -> None:
    """Another query for a saved search."""
    row = _need(unit.db, name)
    unit.db.execute("UPDATE saved_search SET query=? WHERE uuid=?", (query, row.uuid))
    registers.put(unit, MODEL, row.uuid, "query", query)


def rename(unit: Unit, name: bytes, new_name: bytes, *, replace: bool = False) -> None:
    """Another name for a saved search; one that has the name already goes with `replace`, else that is Exists."""
    row = _need(unit.db, name)
    if name == new_name:
        return
    if find(unit.db, new_name) is not None:
        if not replace:
            raise Exists(f"there is a saved search {new_name.decode(errors='replace')} already")
        remove(unit, new_name)
    unit.db.execute("UPDATE saved_search SET name=? WHERE uuid=?", (new_name, row.uuid))
    registers.put(unit, MODEL, row.uuid, "name", new_name)


def remove(unit: Unit, name: bytes) -> None:
    """Forget a saved search."""
    row = _need(unit.db, name)
    unit.db.execute("DELETE FROM saved_search WHERE uuid=?", (row.uuid,))
    registers.put(unit, MODEL, row.uuid, "removed", True)


def make(db: apsw.Connection, uuid: bytes, fields: Mapping[str, object]) -> None:
    """The row of a search as its registers say; none while they say too little, or that it was removed."""
    name, query = fields.get("name"), fields.get("query")
    db.execute("DELETE FROM saved_search WHERE uuid=?", (uuid,))
    if fields.get("removed") or not isinstance(query, str) or not isinstance(name, bytes):
        return
    if is_name(name) and len(name) <= NAME_MAX_BYTES:
        db.execute("INSERT INTO saved_search VALUES(?,?,?)", (uuid, name, query))


def _need(db: apsw.Connection, name: bytes) -> Saved:
    row = find(db, name)
    if row is None:
        raise NotFound(f"there is no saved search {name.decode(errors='replace')}; see: sd search --saved")
    return row
