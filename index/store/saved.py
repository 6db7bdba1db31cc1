"""Table saved_search: searches that people keep by a name.

A row is shared by all devices and known by its uuid; name and query are last-writer-wins by their stamps, a removal is
a stamp too, so that a late change elsewhere does not bring it back. Two searches that got one name apart both stay:
the one with the smaller uuid has it, until the other is renamed.
"""

from typing import NamedTuple

import apsw

from index.model.errors import Exists, NotFound
from index.model.ids import new_uuid
from index.store.unit import Unit

SCHEMA = """
-- saved_search: a query that is kept. name is one path component, query a text of the language of searches; each with
-- the stamp (hlc, device) of its last change. removed_hlc: it is gone since, and keeps its row.
CREATE TABLE saved_search(
    uuid         BLOB PRIMARY KEY,
    name         BLOB NOT NULL,
    name_hlc     INTEGER NOT NULL,
    name_device  BLOB NOT NULL,
    query        TEXT NOT NULL,
    query_hlc    INTEGER NOT NULL,
    query_device BLOB NOT NULL,
    removed_hlc  INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX saved_search_name ON saved_search(name) WHERE removed_hlc IS NULL;
"""


class Saved(NamedTuple):
    uuid: bytes
    name: bytes
    query: str


def every(db: apsw.Connection) -> list[Saved]:
    """All saved searches by name, each name once."""
    found: dict[bytes, Saved] = {}
    rows = db.execute("SELECT uuid, name, query FROM saved_search WHERE removed_hlc IS NULL ORDER BY name, uuid")
    for row in rows:
        found.setdefault(row[1], Saved._make(row))
    return list(found.values())


def find(db: apsw.Connection, name: bytes) -> Saved | None:
    """The search that is saved under a name."""
    row = db.execute(
        "SELECT uuid, name, query FROM saved_search WHERE name=? AND removed_hlc IS NULL ORDER BY uuid LIMIT 1", (name,)
    ).fetchone()
    return None if row is None else Saved._make(row)


def save(unit: Unit, name: bytes, query: str) -> Saved:
    """Keep a query under a name; Exists when the name is taken."""
    if find(unit.db, name) is not None:
        raise Exists(f"there is a saved search {name.decode(errors='replace')} already")
    made = Saved(new_uuid(), name, query)
    stamp = (unit.hlc, unit.device)
    unit.db.execute(
        "INSERT INTO saved_search(uuid, name, name_hlc, name_device, query, query_hlc, query_device) "
        "VALUES(?,?,?,?,?,?,?)",
        (made.uuid, name, *stamp, query, *stamp),
    )
    unit.tell("saved_search", "put", made.uuid, [name, query])
    return made


def set_query(unit: Unit, name: bytes, query: str) -> None:
    """Another query for a saved search."""
    row = _need(unit.db, name)
    unit.db.execute(
        "UPDATE saved_search SET query=?, query_hlc=?, query_device=? WHERE uuid=?",
        (query, unit.hlc, unit.device, row.uuid),
    )
    unit.tell("saved_search", "query", row.uuid, query)


def rename(unit: Unit, name: bytes, new_name: bytes, *, replace: bool = False) -> None:
    """Another name for a saved search; one that has the name already goes with `replace`, else that is Exists."""
    row = _need(unit.db, name)
    if name == new_name:
        return
    if find(unit.db, new_name) is not None:
        if not replace:
            raise Exists(f"there is a saved search {new_name.decode(errors='replace')} already")
        remove(unit, new_name)
    unit.db.execute(
        "UPDATE saved_search SET name=?, name_hlc=?, name_device=? WHERE uuid=?",
        (new_name, unit.hlc, unit.device, row.uuid),
    )
    unit.tell("saved_search", "name", row.uuid, new_name)


def remove(unit: Unit, name: bytes) -> None:
    """Forget a saved search."""
    row = _need(unit.db, name)
    unit.db.execute("UPDATE saved_search SET removed_hlc=? WHERE uuid=?", (unit.hlc, row.uuid))
    unit.tell("saved_search", "remove", row.uuid, None)


def _need(db: apsw.Connection, name: bytes) -> Saved:
    row = find(db, name)
    if row is None:
        raise NotFound(f"there is no saved search {name.decode(errors='replace')}; see: sd search --saved")
    return row
