"""Table device: the devices of a library, by what they say of themselves and others of them.

A row is made of registers (registers.py) of the model `device`, whose key is the device's uuid:

    card       what the device is: its two public keys and a signature that binds them; it says so itself
    name, os   for people; anybody may give another name
    vouch:…    who paired with it by words, each with a signature (who trusts whom is read from these: sync/wire/trust)
    revoked    it is no member any more; never taken back

The slug, its name in paths, is made of the name and is the same on every device: of several that would have one, the
older ones come first.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import apsw

from index.store import registers
from index.store.connection import one

MODEL: Final = "device"

SCHEMA = """
-- device: every device of the library, ours among them, made of its registers. public_key is Ed25519, static_key X25519
-- for the links; slug is its name in paths. revoked: 1 once it is no member any more.
CREATE TABLE device(
    uuid       BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    slug       TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    created_ns INTEGER NOT NULL,
    static_key BLOB NOT NULL DEFAULT x'',
    os         TEXT NOT NULL DEFAULT '',
    revoked    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
"""

_KEY_BYTES: Final = 32
_NAME_MAX_CHARACTERS: Final = 64


class Device(NamedTuple):
    uuid: bytes
    name: str
    slug: str
    public_key: bytes
    created_ns: int
    static_key: bytes
    os: str
    revoked: int


def slug_of(name: str) -> str:
    """A name as one path component: lower case, anything but letters and digits a dash."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "device"


def put(
    db: apsw.Connection,
    uuid: bytes,
    name: str,
    public_key: bytes,
    created_ns: int,
    static_key: bytes = b"",
    os: str = "",
    *,
    revoked: bool = False,
) -> None:
    """Add a device, or say again what it is."""
    db.execute(
        "INSERT INTO device VALUES(?,?,?,?,?,?,?,?) ON CONFLICT(uuid) DO UPDATE SET name=excluded.name, "
        "public_key=excluded.public_key, created_ns=excluded.created_ns, static_key=excluded.static_key, "
        "os=excluded.os, revoked=excluded.revoked",
        (uuid, name, uuid.hex(), public_key, created_ns, static_key, os, int(revoked)),
    )
    _name_paths(db)


def _name_paths(db: apsw.Connection) -> None:
    taken: set[str] = set()
    moved: list[tuple[str, bytes]] = []
    rows: list[Any] = db.execute("SELECT uuid, name, slug FROM device ORDER BY created_ns, uuid").fetchall()
    for uuid, name, held in rows:
        base = new = slug_of(str(name))
        number = 1
        while new in taken:
            number += 1
            new = f"{base}-{number}"
        taken.add(new)
        if new != held:
            moved.append((new, bytes(uuid)))
    db.executemany("UPDATE device SET slug=? WHERE uuid=?", [(uuid.hex(), uuid) for _, uuid in moved])
    db.executemany("UPDATE device SET slug=? WHERE uuid=?", moved)


def every(db: apsw.Connection) -> list[Device]:
    """All devices, the oldest first, also those that were revoked."""
    return [Device._make(row) for row in db.execute("SELECT * FROM device ORDER BY created_ns, uuid")]


def get(db: apsw.Connection, uuid: bytes) -> Device | None:
    row = db.execute("SELECT * FROM device WHERE uuid=?", (uuid,)).fetchone()
    return None if row is None else Device._make(row)


def slug(db: apsw.Connection, uuid: bytes) -> str:
    """What a device is called in paths."""
    return str(one(db, "SELECT slug FROM device WHERE uuid=?", uuid)[0])


def others(db: apsw.Connection, uuid: bytes) -> list[bytes]:
    """The members besides one device."""
    return [
        bytes(u) for (u,) in db.execute("SELECT uuid FROM device WHERE uuid<>? AND revoked=0 ORDER BY uuid", (uuid,))
    ]


def say(unit: registers.Writer, uuid: bytes, name: str, card: list[object], os: str) -> None:
    """What a device is, told to all; what is told already is not told again. A name that it has stays."""
    said = registers.fields_of(unit.db, MODEL, uuid)
    wanted = {"card": card, "os": os, "name": said.get("name", name)}
    for field, value in wanted.items():
        if said.get(field) != value:
            registers.put(unit, MODEL, uuid, field, value)
    make(unit.db, uuid, registers.fields_of(unit.db, MODEL, uuid))


def rename(unit: registers.Writer, uuid: bytes, name: str) -> None:
    """Another name for a device, told to all."""
    registers.put(unit, MODEL, uuid, "name", name)
    make(unit.db, uuid, registers.fields_of(unit.db, MODEL, uuid))


def make(db: apsw.Connection, uuid: bytes, fields: Mapping[str, object]) -> None:
    """The row of a device as its registers say; none before its card is there."""
    card, name, os = fields.get("card"), fields.get("name"), fields.get("os")
    if len(uuid) != 16 or not isinstance(card, list) or len(card) != 4:
        return
    public_key, static_key, _, created_ns = card
    keys = (public_key, static_key)
    if not all(isinstance(key, bytes) and len(key) == _KEY_BYTES for key in keys) or type(created_ns) is not int:
        return
    put(
        db, uuid, (name if isinstance(name, str) else "device")[:_NAME_MAX_CHARACTERS], public_key,
        max(0, min(created_ns, (1 << 63) - 1)), static_key, os[:_NAME_MAX_CHARACTERS] if isinstance(os, str) else "",
        revoked="revoked" in fields,
    )  # fmt: skip
