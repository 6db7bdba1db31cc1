"""Schema versions: forward only, one transaction a step, a newer file refused unharmed.

The tables themselves, with their prose, are declared beside their queries (entries.py, contents.py, …); this file only
orders them. A fresh file gets the newest schema in one go; an older one gets the steps it lacks. `user_version` holds
the version. Steps are never edited once released: a change is a new step.
"""

from collections.abc import Callable
from pathlib import Path

import apsw
import msgpack

from index.model.errors import VersionUnsupported
from index.store import (
    aliases,
    changes,
    contents,
    devices,
    entries,
    extracts,
    filetypes,
    gaps,
    heldback,
    limbo,
    metadata,
    pending,
    places,
    registers,
    remote,
    rulings,
    saved,
    search,
    sidecars,
    streams,
    sums,
    tags,
    targets,
    volumes,
    whereabouts,
    whiteouts,
)
from index.store.connection import APPLICATION_ID
from index.store.registers import Register

SCHEMA_VERSION = 4

_TABLES = (
    changes, volumes, devices, places, filetypes, contents, entries, limbo, tags, metadata,
    sums, extracts, sidecars, rulings, search, saved, registers, aliases,
    streams, gaps, pending, remote, targets, whereabouts, whiteouts, heldback,
)  # fmt: skip


def create(db: apsw.Connection) -> None:
    """The newest schema in an empty file, inside a transaction."""
    for module in _TABLES:
        db.execute(module.SCHEMA)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _limbo_anew(db: apsw.Connection) -> None:
    """What waits there waits a day at most: begin anew."""
    db.execute("DROP TABLE limbo")
    db.execute(limbo.SCHEMA)


def _limbo_keeps_contents(db: apsw.Connection) -> None:
    """A file that came back could get the content of another: what shows by its size is hashed again."""
    _limbo_anew(db)
    db.execute(
        "UPDATE entry SET content_id=NULL, hash_state=0 WHERE kind=0 AND content_id IS NOT NULL AND size_bytes <> "
        "(SELECT c.size_bytes FROM content c WHERE c.id = entry.content_id)"
    )


def _full_strength(db: apsw.Connection) -> None:
    """What the index learned to know with version 4."""
    db.execute("ALTER TABLE location ADD COLUMN mode INTEGER NOT NULL DEFAULT 1")
    _rules(db)
    db.execute(sums.SCHEMA)
    sums.rebuild(db)
    _contents_have_types(db)
    _search_by_index(db)
    _volumes_come(db)
    _shared_by_registers(db)
    db.execute(targets.SCHEMA)
    db.execute(whiteouts.SCHEMA)


def _rules(db: apsw.Connection) -> None:
    """Entries have a rule and locations have theirs; what is held is no work for the hasher. The walk at the start
    judges every row."""
    db.execute("ALTER TABLE entry ADD COLUMN rule INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE location ADD COLUMN rules BLOB")
    db.execute("DROP INDEX entry_todo")
    db.execute(entries.TODO)
    db.execute(rulings.SCHEMA)


def _contents_have_types(db: apsw.Connection) -> None:
    """What files are, what is in them, and what is made of them. Contents are found by less."""
    db.execute(filetypes.SCHEMA)
    db.execute("DROP INDEX content_full; DROP INDEX content_sampled; ALTER TABLE content DROP COLUMN uuid")
    db.execute(contents.INDEXES)
    db.execute("ALTER TABLE content ADD COLUMN type_id INTEGER REFERENCES filetype(id)")
    db.execute("ALTER TABLE content ADD COLUMN type_method INTEGER")
    db.execute(contents.BY_TYPE)
    db.execute(extracts.SCHEMA)
    db.execute(sidecars.SCHEMA)


def _search_by_index(db: apsw.Connection) -> None:
    """What the index of names must follow, and saved searches. The index itself is built behind."""
    db.execute(search.SCHEMA)
    db.execute(saved.SCHEMA)


def _volumes_come(db: apsw.Connection) -> None:
    """Branches get to know the volumes that they lie on when these are next seen."""
    db.execute(volumes.SCHEMA)
    db.execute("ALTER TABLE branch ADD COLUMN volume_id INTEGER")
    db.execute("ALTER TABLE branch ADD COLUMN volume_path BLOB")
    db.execute("ALTER TABLE branch ADD COLUMN one_fs INTEGER NOT NULL DEFAULT 0")


def _shared_by_registers(db: apsw.Connection) -> None:
    """What devices say together has stamps of its own, and what they were told so far nobody has heard."""
    db.execute(registers.SCHEMA)
    for module in (aliases, streams, gaps, pending, remote, whereabouts, heldback):
        db.execute(module.SCHEMA)
    db.execute("DROP TABLE tombstone")
    db.execute(changes.TOMBSTONE)
    db.execute(entries.BY_SEQ)
    said = [
        Register(places.LOCATION, uuid, field, msgpack.packb(value), hlc, device)
        for uuid, name, hlc, device, removed in db.execute(
            "SELECT uuid, name, name_hlc, name_device, removed_hlc FROM location"
        )
        for field, value in (("name", name), *([("removed", 1)] if removed is not None else []))
    ]
    (device,) = db.execute("SELECT uuid FROM device LIMIT 1").fetchone() or (b"",)
    said += [
        Register(tags.MODEL, uuid, "name", msgpack.packb(name), 0, device)
        for uuid, name in db.execute("SELECT uuid, name FROM tag")
    ]
    registers.merge(db, said)
    db.execute("ALTER TABLE location ADD COLUMN removed INTEGER NOT NULL DEFAULT 0")
    db.execute("UPDATE location SET removed=1 WHERE removed_hlc IS NOT NULL")
    for column in ("name_hlc", "name_device", "removed_hlc"):
        db.execute(f"ALTER TABLE location DROP COLUMN {column}")
    db.execute("ALTER TABLE device ADD COLUMN static_key BLOB NOT NULL DEFAULT x''")
    db.execute("ALTER TABLE device ADD COLUMN os TEXT NOT NULL DEFAULT ''")
    db.execute("ALTER TABLE device ADD COLUMN revoked INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE tagging RENAME TO old; DROP INDEX tagging_tag")
    db.execute(tags.TAGGING)
    db.execute("INSERT INTO tagging SELECT entry_uuid, tag_id, dot_device, dot_seq, part, hlc, part FROM old")
    db.execute("DROP TABLE old")
    db.execute("DELETE FROM outbox")


#: version -> what takes a file from it to the next.
STEPS: dict[int, Callable[[apsw.Connection], None]] = {1: _limbo_anew, 2: _limbo_keeps_contents, 3: _full_strength}


def migrate(db: apsw.Connection, path: Path) -> None:
    """Bring the file to SCHEMA_VERSION; each step is one transaction, so a crash leaves a whole version."""
    found = int(db.pragma("user_version"))
    if found > SCHEMA_VERSION:
        raise VersionUnsupported(
            f"{path} has schema version {found}, this program knows {SCHEMA_VERSION}; "
            "use the newer sdmount that wrote it (nothing was changed)"
        )
    if not found:
        with db:
            create(db)
        return
    for version in range(found, SCHEMA_VERSION):
        with db:
            STEPS[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")
