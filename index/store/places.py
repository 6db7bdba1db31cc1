"""Tables location and branch: where directories lie, and whose they are (on which volume: volumes.py).

A location is shared by all devices and known by its name; a branch is one directory that holds it on one (device,
volume) and belongs to that device. The branch with no location is the device's built-in store: its root is the root
of the tree, so that a directory made at the top of the mount needs no location.
"""

from collections.abc import Mapping
from typing import NamedTuple

import apsw

from index.model.entry import NAME_MAX_BYTES, is_name
from index.model.errors import MissingDependency
from index.store import registers
from index.store.connection import one
from index.store.registers import Writer

#: The models of the registers that rows here are made of.
LOCATION = "location"
BRANCH = "branch"

SCHEMA = """
-- location: a top-level name of the tree, made of its registers. mode says how far its files are looked into: 0 shallow
-- (names and attributes), 1 content (their bytes are identified), 2 deep (what is in them). rules is the packed ruleset
-- (index/scan/rules/ruleset.py); NULL: the default one. removed: 1 once it was taken away; the row stays, for branches
-- of other devices may refer to it.
CREATE TABLE location(
    id      INTEGER PRIMARY KEY,
    uuid    BLOB NOT NULL UNIQUE,
    name    BLOB NOT NULL,
    mode    INTEGER NOT NULL DEFAULT 1,
    rules   BLOB,
    removed INTEGER NOT NULL DEFAULT 0
) STRICT;

-- branch: a directory of one device. location_id NULL: the device's built-in store, mounted at the root. One of another
-- device has an empty fs_id, root_ino 0, and a root_path that is for people alone.
--   root_path   absolute, bytes; where the branch was last seen
--   fs_id       identity of its file system: the file system's UUID, else its device number as text; with root_ino
--               it tells the branch from another directory that stands at the same path now
--   volume_id, volume_path   the volume it lies on and its path there, absolute: where it is found again when the
--               volume is mounted elsewhere. NULL on what has no identity (a file system in memory)
--   one_fs      1: what other file systems are mounted in it is no part of it
--   scan_state  pending | scanning | done | failed, with scan_error and the time of the last whole scan;
--               leaving: it is no branch any more, and its rows are yet to go
CREATE TABLE branch(
    id            INTEGER PRIMARY KEY,
    uuid          BLOB NOT NULL UNIQUE,
    location_id   INTEGER REFERENCES location(id),
    device_uuid   BLOB NOT NULL REFERENCES device(uuid),
    label         TEXT NOT NULL,
    root_path     BLOB NOT NULL,
    fs_id         TEXT NOT NULL,
    root_ino      INTEGER NOT NULL,
    root_entry_id INTEGER,
    scan_state    TEXT NOT NULL DEFAULT 'pending',
    scan_error    TEXT,
    scanned_ns    INTEGER,
    volume_id     INTEGER,
    volume_path   BLOB,
    one_fs        INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


#: The scan state of a branch of another device that is none any more; its rows go, then it does.
GONE = "gone"
_LABEL_MAX_CHARACTERS = 255
#: Of a branch that is being forgotten.
LEAVING = "leaving"
#: How far the files of a location are looked into.
MODE_SHALLOW, MODE_CONTENT, MODE_DEEP = 0, 1, 2
MODE_NAMES = ("shallow", "content", "deep")


class LocationRow(NamedTuple):
    id: int
    uuid: bytes
    name: bytes
    mode: int


class BranchRow(NamedTuple):
    id: int
    uuid: bytes
    location_id: int | None
    device_uuid: bytes
    label: str
    root_path: bytes
    fs_id: str
    root_ino: int
    root_entry_id: int | None
    scan_state: str
    scan_error: str | None
    scanned_ns: int | None
    volume_id: int | None = None
    volume_path: bytes | None = None
    one_fs: int = 0


def locations(db: apsw.Connection) -> list[LocationRow]:
    """Live locations, by name."""
    return [
        LocationRow(*row)
        for row in db.execute("SELECT id, uuid, name, mode FROM location WHERE removed=0 ORDER BY name, uuid")
    ]


def put_location(unit: Writer, uuid: bytes, name: bytes) -> int:
    """A new location, told to all devices; returns its id here."""
    unit.db.execute("INSERT INTO location(uuid, name) VALUES(?,?)", (uuid, name))
    location_id = unit.db.last_insert_rowid()
    registers.put(unit, LOCATION, uuid, "name", name)
    return location_id


def _set(unit: Writer, location_id: int, field: str, value: bytes | int) -> None:
    unit.db.execute(f"UPDATE location SET {field}=? WHERE id=?", (value, location_id))
    uuid = bytes(one(unit.db, "SELECT uuid FROM location WHERE id=?", location_id)[0])
    registers.put(unit, LOCATION, uuid, field, value)


def set_mode(unit: Writer, location_id: int, mode: int) -> None:
    _set(unit, location_id, "mode", mode)


def rename_location(unit: Writer, location_id: int, name: bytes) -> None:
    _set(unit, location_id, "name", name)


def remove_location(unit: Writer, location_id: int) -> None:
    _set(unit, location_id, "removed", 1)


def make_location(db: apsw.Connection, uuid: bytes, fields: Mapping[str, object]) -> None:
    """The row of a location as its registers say; a value that makes no sense here leaves what there was."""
    name, mode, rules = fields.get("name"), fields.get("mode", MODE_CONTENT), fields.get("rules")
    if not isinstance(name, bytes) or not is_name(name) or len(name) > NAME_MAX_BYTES:
        return
    mode = mode if isinstance(mode, int) and 0 <= mode < len(MODE_NAMES) else MODE_CONTENT
    rules = rules if isinstance(rules, bytes) else None
    db.execute(
        "INSERT INTO location(uuid, name, removed, mode, rules) VALUES(?,?,?,?,?) ON CONFLICT(uuid) DO UPDATE SET "
        "name=excluded.name, removed=excluded.removed, mode=excluded.mode, rules=excluded.rules",
        (uuid, name, int(bool(fields.get("removed"))), mode, rules),
    )


def rules_of(db: apsw.Connection, location_id: int) -> bytes | None:
    """The packed rules of a location; None for the default ones."""
    row = db.execute("SELECT rules FROM location WHERE id=?", (location_id,)).fetchone()
    return None if row is None else row[0]


def set_rules(unit: Writer, location_id: int, packed: bytes) -> None:
    _set(unit, location_id, "rules", packed)


_BRANCH_COLUMNS = (
    "id, uuid, location_id, device_uuid, label, root_path, fs_id, root_ino, root_entry_id, "
    "scan_state, scan_error, scanned_ns, volume_id, volume_path, one_fs"
)


def branches(db: apsw.Connection) -> list[BranchRow]:
    return [BranchRow(*row) for row in db.execute(f"SELECT {_BRANCH_COLUMNS} FROM branch ORDER BY id")]


def are_of_one_device(db: apsw.Connection) -> bool:
    """Whether no other device has a branch."""
    return int(one(db, "SELECT count(DISTINCT device_uuid) FROM branch")[0]) < 2


def put_branch(
    db: apsw.Connection,
    uuid: bytes,
    location_id: int | None,
    device: bytes,
    label: str,
    root_path: bytes,
    fs_id: str,
    root_ino: int,
    *,
    one_fs: bool = False,
) -> int:
    db.execute(
        "INSERT INTO branch(uuid, location_id, device_uuid, label, root_path, fs_id, root_ino, one_fs) "
        "VALUES(?,?,?,?,?,?,?,?)",
        (uuid, location_id, device, label, root_path, fs_id, root_ino, int(one_fs)),
    )
    return db.last_insert_rowid()


def tell_branch(unit: Writer, branch_id: int) -> None:
    """Say what a branch of this device is, unless that was said: where it belongs, its label, its path, its volume."""
    uuid, label, path, location, volume = one(
        unit.db,
        "SELECT b.uuid, b.label, b.root_path, l.uuid, v.label FROM branch b LEFT JOIN location l ON l.id=b.location_id "
        "LEFT JOIN volume v ON v.id=b.volume_id WHERE b.id=?",
        branch_id,
    )
    key, facts = unit.device + uuid, [location, label, path, volume or ""]
    if registers.fields_of(unit.db, BRANCH, key).get("facts") != facts:
        registers.put(unit, BRANCH, key, "facts", facts)


def tell_branch_gone(unit: Writer, branch_uuid: bytes) -> None:
    """A branch of this device is none any more."""
    registers.put(unit, BRANCH, unit.device + branch_uuid, "removed", True)


def make_branch(db: apsw.Connection, key: bytes, fields: Mapping[str, object]) -> None:
    """The row of another device's branch as its registers say. What it refers to must be known: a location that is not
    raises MissingDependency."""
    device, uuid, facts = key[:16], key[16:], fields.get("facts")
    if len(key) != 32 or not isinstance(facts, list) or len(facts) != 4:
        return
    location_uuid, label, path, _volume = facts
    if not isinstance(label, str) or not isinstance(path, bytes):
        return
    location_id = None
    if location_uuid is not None:
        found = db.execute("SELECT id FROM location WHERE uuid=?", (location_uuid,)).fetchone()
        if found is None:
            raise MissingDependency(LOCATION, location_uuid)
        location_id = found[0]
    owner = db.execute("SELECT revoked FROM device WHERE uuid=?", (device,)).fetchone()
    if owner is None:
        raise MissingDependency("device", device)
    state = GONE if fields.get("removed") or owner[0] else "done"
    db.execute(
        "INSERT INTO branch(uuid, location_id, device_uuid, label, root_path, fs_id, root_ino, scan_state) "
        "VALUES(?,?,?,?,?,'',0,?) ON CONFLICT(uuid) DO UPDATE SET location_id=excluded.location_id, "
        "label=excluded.label, root_path=excluded.root_path, scan_state=excluded.scan_state "
        "WHERE device_uuid=excluded.device_uuid",
        (uuid, location_id, device, label[:_LABEL_MAX_CHARACTERS], path, state),
    )


def give_up_branches(db: apsw.Connection, own: bytes) -> None:
    """The branches of devices that were put out of the library are none any more."""
    db.execute(
        "UPDATE branch SET scan_state=? WHERE scan_state<>? AND device_uuid<>? "
        "AND device_uuid IN (SELECT uuid FROM device WHERE revoked=1)",
        (GONE, GONE, own),
    )


def gone_branches(db: apsw.Connection, own: bytes) -> list[int]:
    """Branches of other devices that are none any more and have rows yet."""
    sql = "SELECT id FROM branch b WHERE scan_state=? AND device_uuid<>? "
    sql += "AND EXISTS (SELECT 1 FROM entry INDEXED BY entry_ino WHERE branch_id=b.id)"
    return [int(row[0]) for row in db.execute(sql, (GONE, own))]


def set_branch_root(db: apsw.Connection, branch_id: int, root_entry_id: int) -> None:
    db.execute("UPDATE branch SET root_entry_id=? WHERE id=?", (root_entry_id, branch_id))


def move_branch(db: apsw.Connection, branch_id: int, root_path: bytes, fs_id: str, root_ino: int) -> None:
    """A branch stands at another path now, with its volume; its file system may number anew at each mount."""
    db.execute("UPDATE branch SET root_path=?, fs_id=?, root_ino=? WHERE id=?", (root_path, fs_id, root_ino, branch_id))


def set_branch_volume(db: apsw.Connection, branch_id: int, volume_id: int, volume_path: bytes) -> None:
    """A branch lies on a volume, at a path there."""
    db.execute("UPDATE branch SET volume_id=?, volume_path=? WHERE id=?", (volume_id, volume_path, branch_id))


def set_scan_state(
    db: apsw.Connection, branch_id: int, state: str, error: str | None = None, scanned_ns: int | None = None
) -> None:
    db.execute(
        "UPDATE branch SET scan_state=?, scan_error=?, scanned_ns=coalesce(?, scanned_ns) WHERE id=?",
        (state, error, scanned_ns, branch_id),
    )


def delete_branch(db: apsw.Connection, branch_id: int) -> None:
    """Forget a branch; its entries must be gone."""
    db.execute("DELETE FROM branch WHERE id=?", (branch_id,))
