"""Table volume: the file systems that branches lie on or that somebody tracks, also while they are away.

A volume is known by its fingerprint, which says nothing of this device: the same stick is the same volume everywhere.
Rows belong to the device that wrote them. What is mounted and was neither tracked nor has a branch has no row.
"""

from typing import NamedTuple

import apsw

from index.store.connection import one

SCHEMA = """
-- volume: a file system by its identity.
--   fingerprint   64 hex digits (BLAKE3); the name of the volume on every device
--   fs_uuid       the UUID that the file system has itself, in hex; '' when it has none
--   marker        id in the marker file at its root, once one was written or read; NULL: none, nothing to compare
--   name          given by a person; NULL: it is called by its label
--   class         Primary | UserData | External | Secondary | System | Network | Virtual | Unknown
--   disk_type     SSD | HDD | Network | Virtual | Unknown
--   mount_point   where it was last seen
--   size_bytes, free_bytes   as last seen
--   tracked_ns    since when somebody wants it to be known; NULL: it is here for its branches alone
--   read_bps, write_bps, tested_ns   of the last speed test, in bytes a second
CREATE TABLE volume(
    id            INTEGER PRIMARY KEY,
    uuid          BLOB NOT NULL UNIQUE,
    device_uuid   BLOB NOT NULL,
    fingerprint   TEXT NOT NULL UNIQUE,
    fs_uuid       TEXT NOT NULL,
    marker        TEXT,
    name          TEXT,
    label         TEXT NOT NULL,
    class         TEXT NOT NULL,
    disk_type     TEXT NOT NULL,
    fs_type       TEXT NOT NULL,
    mount_point   BLOB NOT NULL,
    size_bytes    INTEGER NOT NULL,
    free_bytes    INTEGER NOT NULL,
    first_seen_ns INTEGER NOT NULL,
    last_seen_ns  INTEGER NOT NULL,
    tracked_ns    INTEGER,
    read_bps      INTEGER,
    write_bps     INTEGER,
    tested_ns     INTEGER
) STRICT;
"""


class VolumeRow(NamedTuple):
    id: int
    uuid: bytes
    device_uuid: bytes
    fingerprint: str
    fs_uuid: str
    marker: str | None
    name: str | None
    label: str
    volume_class: str
    disk_type: str
    fs_type: str
    mount_point: bytes
    size_bytes: int
    free_bytes: int
    first_seen_ns: int
    last_seen_ns: int
    tracked_ns: int | None
    read_bps: int | None
    write_bps: int | None
    tested_ns: int | None


def volumes(db: apsw.Connection) -> list[VolumeRow]:
    """Every volume that is known, the first seen first."""
    return [VolumeRow(*row) for row in db.execute("SELECT * FROM volume ORDER BY id")]


def get(db: apsw.Connection, volume_id: int) -> VolumeRow | None:
    return next((VolumeRow(*row) for row in db.execute("SELECT * FROM volume WHERE id=?", (volume_id,))), None)


def by_fingerprint(db: apsw.Connection, fingerprint: str) -> VolumeRow | None:
    rows = db.execute("SELECT * FROM volume WHERE fingerprint=?", (fingerprint,))
    return next((VolumeRow(*row) for row in rows), None)


def put(db: apsw.Connection, row: VolumeRow) -> int:
    """Add a volume (its id is ignored), or say again what was seen of one whose fingerprint is known; returns the id.

    What people said of it (name, tracked) and its speed stay.
    """
    db.execute(
        "INSERT INTO volume VALUES(NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT(fingerprint) DO UPDATE SET "
        "fs_uuid=excluded.fs_uuid, marker=coalesce(excluded.marker, marker), label=excluded.label, "
        "class=excluded.class, disk_type=excluded.disk_type, fs_type=excluded.fs_type, "
        "mount_point=excluded.mount_point, size_bytes=excluded.size_bytes, free_bytes=excluded.free_bytes, "
        "last_seen_ns=excluded.last_seen_ns",
        row[1:],
    )
    return int(one(db, "SELECT id FROM volume WHERE fingerprint=?", row.fingerprint)[0])


def seen(db: apsw.Connection, volume_id: int, now_ns: int) -> None:
    """It was there until now."""
    db.execute("UPDATE volume SET last_seen_ns=? WHERE id=?", (now_ns, volume_id))


def track(db: apsw.Connection, volume_id: int, name: str | None, marker: str | None, now_ns: int) -> None:
    """Somebody wants it to be known; a name of None leaves the one it has."""
    db.execute(
        "UPDATE volume SET tracked_ns=coalesce(tracked_ns, ?), name=coalesce(?, name), marker=coalesce(?, marker) "
        "WHERE id=?",
        (now_ns, name, marker, volume_id),
    )


def untrack(db: apsw.Connection, volume_id: int) -> None:
    """Nobody does any more. The row goes when no branch needs it; the marker on the volume stays."""
    db.execute("UPDATE volume SET tracked_ns=NULL, name=NULL WHERE id=?", (volume_id,))
    drop_unused(db, volume_id)


def drop_unused(db: apsw.Connection, volume_id: int) -> None:
    """Forget a volume that is neither tracked nor has a branch."""
    db.execute(
        "DELETE FROM volume WHERE id=? AND tracked_ns IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM branch WHERE branch.volume_id = volume.id)",
        (volume_id,),
    )


def set_speed(db: apsw.Connection, volume_id: int, read_bps: int, write_bps: int, now_ns: int) -> None:
    db.execute(
        "UPDATE volume SET read_bps=?, write_bps=?, tested_ns=? WHERE id=?", (read_bps, write_bps, now_ns, volume_id)
    )
