"""Table register: what all devices say together of locations, tags, saved searches, devices, branches; a field a row.

The last writer of a field wins by its stamp (hlc, device), and the stamp is kept for ever, also of what was removed: so
the order in which devices hear of changes does not matter, and a late one brings nothing back. The tables that the
rest of the house reads (location, tag, …) are made of registers (shared.py); fields that this program does not know
stay here and are handed on, for a program that does.

Bulk has tables of its own by the same law: attributes (metadata.py), tags of entries (tags.py).
Source: Shapiro et al., "A comprehensive study of Convergent and Commutative Replicated Data Types" (2011), 3.2.1.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import apsw
import msgpack

SCHEMA = """
-- register: one field of a row that all devices share. The tables location, tag, saved_search and device are made of
-- them, and of other devices branch; where a table says otherwise, this one is right.
--   model   which table
--   key     the row's key on all devices: its uuid; of a branch the uuid of its device, and then its own
--   field   which fields there are: docs/protocol/peer-v1.md, 14
--   value   msgpack
--   hlc, device   the stamp of who wrote it last, also of what was removed; the greater stays
CREATE TABLE register(
    model  TEXT NOT NULL,
    key    BLOB NOT NULL,
    field  TEXT NOT NULL,
    value  BLOB NOT NULL,
    hlc    INTEGER NOT NULL,
    device BLOB NOT NULL,
    PRIMARY KEY (model, key, field)
) STRICT, WITHOUT ROWID;
"""

_PUT = (
    "INSERT INTO register VALUES(?,?,?,?,?,?) ON CONFLICT(model, key, field) DO UPDATE SET "
    "value=excluded.value, hlc=excluded.hlc, device=excluded.device "
    "WHERE (excluded.hlc, excluded.device) >= (hlc, device)"
)


class Writer(Protocol):
    """What a field is written with: a unit."""

    db: apsw.Connection
    hlc: int
    device: bytes

    def tell(self, model: str, op: str, key: object, body: object) -> None: ...


class Register(NamedTuple):
    """One field as it travels: value is packed."""

    model: str
    key: bytes
    field: str
    value: bytes
    hlc: int
    device: bytes


def put(unit: Writer, model: str, key: bytes, field: str, value: object) -> None:
    """Write a field here and tell the others. The caller has changed, or changes, what is made of it."""
    packed: bytes = msgpack.packb(value)
    unit.db.execute(_PUT, (model, key, field, packed, unit.hlc, unit.device))
    unit.tell("register", "set", [model, key, field], packed)


def merge(db: apsw.Connection, fields: Iterable[Register]) -> None:
    """Take in what others wrote; of each field the latest stays."""
    db.executemany(_PUT, fields)


def fields_of(db: apsw.Connection, model: str, key: bytes) -> dict[str, object]:
    """What is said of a row, by field; empty when nothing is."""
    rows = db.execute("SELECT field, value FROM register WHERE model=? AND key=?", (model, key))
    return {str(field): msgpack.unpackb(value) for field, value in rows}


def keys_of(db: apsw.Connection, model: str) -> list[bytes]:
    """The keys of all rows of a model."""
    return [bytes(key) for (key,) in db.execute("SELECT DISTINCT key FROM register WHERE model=?", (model,))]


def every(db: apsw.Connection) -> Iterator[Register]:
    """All of them, by key."""
    return (Register(*row) for row in db.execute("SELECT * FROM register ORDER BY model, key, field"))
