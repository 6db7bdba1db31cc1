"""Schema versions: forward only, one transaction a step, a newer file refused unharmed.

The tables themselves, with their prose, are declared beside their queries (entries.py, contents.py, …); this file only
orders them. A fresh file gets the newest schema in one go; an older one gets the steps it lacks. `user_version` holds
the version. Steps are never edited once released: a change is a new step.
"""

from collections.abc import Callable
from pathlib import Path

import apsw

from index.model.errors import VersionUnsupported
from index.store import changes, contents, entries, limbo, metadata, places, tags, volumes
from index.store.connection import APPLICATION_ID

SCHEMA_VERSION = 4

_TABLES = (changes, volumes, places, contents, entries, limbo, tags, metadata)


def _create_all(db: apsw.Connection) -> None:
    for module in _TABLES:
        db.execute(module.SCHEMA)


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


def _volumes_come(db: apsw.Connection) -> None:
    """Branches get to know the volumes that they lie on when these are next seen."""
    db.execute(volumes.SCHEMA)
    db.execute("ALTER TABLE branch ADD COLUMN volume_id INTEGER")
    db.execute("ALTER TABLE branch ADD COLUMN volume_path BLOB")
    db.execute("ALTER TABLE branch ADD COLUMN one_fs INTEGER NOT NULL DEFAULT 0")


#: version -> what takes a file from it to the next.
STEPS: dict[int, Callable[[apsw.Connection], None]] = {1: _limbo_anew, 2: _limbo_keeps_contents, 3: _volumes_come}


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
            _create_all(db)
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        return
    for version in range(found, SCHEMA_VERSION):
        with db:
            STEPS[version](db)
            db.execute(f"PRAGMA user_version = {version + 1}")
