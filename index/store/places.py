"""Tables device, location and branch: who owns what, and where directories lie (on which volume: volumes.py).

A location is shared by all devices and known by its name; a branch is one directory that holds it on one (device,
volume) and belongs to that device. The branch with no location is the device's built-in store: its root is the root
of the tree, so that a directory made at the top of the mount needs no location.
"""

from itertools import count
from typing import NamedTuple

import apsw

from index.store.connection import one

SCHEMA = """
-- device: every device of the library, ours among them. public_key is Ed25519; slug is its name in paths.
CREATE TABLE device(
    uuid       BLOB PRIMARY KEY,
    name       TEXT NOT NULL,
    slug       TEXT NOT NULL UNIQUE,
    public_key BLOB NOT NULL,
    created_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- location: a top-level name of the tree. name is last-writer-wins by (name_hlc, name_device); a removed location
-- keeps its row with removed_hlc, so that a late change elsewhere does not bring it back. mode says how far its files
-- are looked into: 0 shallow (names and attributes), 1 content (their bytes are identified), 2 deep (what is in them).
-- rules is the packed ruleset (index/scan/rules/ruleset.py); NULL: the default one.
CREATE TABLE location(
    id          INTEGER PRIMARY KEY,
    uuid        BLOB NOT NULL UNIQUE,
    name        BLOB NOT NULL,
    name_hlc    INTEGER NOT NULL,
    name_device BLOB NOT NULL,
    removed_hlc INTEGER,
    mode        INTEGER NOT NULL DEFAULT 1,
    rules       BLOB
) STRICT;

-- branch: a directory of one device. location_id NULL: the device's built-in store, mounted at the root.
--   root_path   absolute, bytes; where the branch was last seen
--   fs_id       identity of its file system: the file system's UUID, else its device number as text; with root_ino
--               it tells the branch from another directory that stands at the same path now
--   volume_id, volume_path   the volume it lies on and its path there, absolute: where it is found again when the
--               volume is mounted elsewhere. NULL on what has no identity (a file system in memory)
--   one_fs      1: what other file systems are mounted in it is no part of it
--   scan_state  pending | scanning | done | failed, with scan_error and the time of the last whole scan
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


def put_device(db: apsw.Connection, uuid: bytes, name: str, slug: str, public_key: bytes, created_ns: int) -> None:
    """Add a device, or change its name. Of a slug that another device has, one with a number is made."""
    taken = {row[0] for row in db.execute("SELECT slug FROM device WHERE uuid<>?", (uuid,))}
    if slug in taken:
        slug = next(other for number in count(2) if (other := f"{slug}-{number}") not in taken)
    db.execute(
        "INSERT INTO device VALUES(?,?,?,?,?) ON CONFLICT(uuid) DO UPDATE SET name=excluded.name",
        (uuid, name, slug, public_key, created_ns),
    )


def device_slug(db: apsw.Connection, uuid: bytes) -> str:
    """What a device is called in paths."""
    return str(one(db, "SELECT slug FROM device WHERE uuid=?", uuid)[0])


def locations(db: apsw.Connection) -> list[LocationRow]:
    """Live locations, by name."""
    return [
        LocationRow(*row)
        for row in db.execute("SELECT id, uuid, name, mode FROM location WHERE removed_hlc IS NULL ORDER BY name")
    ]


def put_location(db: apsw.Connection, uuid: bytes, name: bytes, hlc: int, device: bytes) -> int:
    db.execute("INSERT INTO location(uuid, name, name_hlc, name_device) VALUES(?,?,?,?)", (uuid, name, hlc, device))
    return db.last_insert_rowid()


def set_mode(db: apsw.Connection, location_id: int, mode: int) -> None:
    db.execute("UPDATE location SET mode=? WHERE id=?", (mode, location_id))


def rename_location(db: apsw.Connection, location_id: int, name: bytes, hlc: int, device: bytes) -> None:
    db.execute("UPDATE location SET name=?, name_hlc=?, name_device=? WHERE id=?", (name, hlc, device, location_id))


def remove_location(db: apsw.Connection, location_id: int, hlc: int) -> None:
    db.execute("UPDATE location SET removed_hlc=? WHERE id=?", (hlc, location_id))


def rules_of(db: apsw.Connection, location_id: int) -> bytes | None:
    """The packed rules of a location; None for the default ones."""
    row = db.execute("SELECT rules FROM location WHERE id=?", (location_id,)).fetchone()
    return None if row is None else row[0]


def set_rules(db: apsw.Connection, location_id: int, packed: bytes) -> None:
    db.execute("UPDATE location SET rules=? WHERE id=?", (packed, location_id))


_BRANCH_COLUMNS = (
    "id, uuid, location_id, device_uuid, label, root_path, fs_id, root_ino, root_entry_id, "
    "scan_state, scan_error, scanned_ns, volume_id, volume_path, one_fs"
)


def branches(db: apsw.Connection) -> list[BranchRow]:
    return [BranchRow(*row) for row in db.execute(f"SELECT {_BRANCH_COLUMNS} FROM branch ORDER BY id")]


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
