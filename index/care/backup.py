"""Backup: the last good state of a library's database, `library.db.backup` beside it.

In: a database, open or not. Out: a whole copy that SQLite made of one moment (VACUUM INTO), put in place of the former
one only after it is on disk; a database that is not sound never replaces a backup. For a thread: it reads everything,
and may be stopped by a deadline. Source: https://sqlite.org/lang_vacuum.html#vacuuminto.
"""

import os
import time
from pathlib import Path
from typing import Final

import apsw

from index.store.connection import connect

#: How old a backup may become while the library is in use.
MAX_AGE_S: Final = 86_400.0
#: Room that a backup leaves on the disk.
_LEFT_BYTES: Final = 64 << 20
_STEPS: Final = 10_000


def path_beside(library_db: Path) -> Path:
    """Where the backup of a library lies."""
    return library_db.with_name("library.db.backup")


def is_due(library_db: Path) -> bool:
    """Whether there is none, or only one that is older than a day."""
    try:
        age_s = time.time() - path_beside(library_db).stat().st_mtime
    except FileNotFoundError:
        return True
    return not 0 <= age_s < MAX_AGE_S


def make(library_db: Path, deadline_s: float | None = None) -> str:
    """Make a backup, at the latest by a moment of the monotonic clock. Returns why there is none, '' when there is."""
    backup = path_beside(library_db)
    fresh = backup.with_name(f"{backup.name}.new")
    size_bytes = library_db.stat().st_size
    room = os.statvfs(library_db.parent)
    if room.f_bavail * room.f_frsize < size_bytes + _LEFT_BYTES:
        return f"the disk lacks room for a backup of {size_bytes} bytes"
    fresh.unlink(missing_ok=True)
    db = connect(library_db, read_only=True)
    try:
        if deadline_s is not None:
            db.set_progress_handler(lambda: time.monotonic() > deadline_s, _STEPS)
        found = db.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            return f"the database is not sound: {found[0][0]}"
        db.execute("VACUUM INTO ?", (str(fresh),))
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(fresh, 0o600)
        os.replace(fresh, backup)
        _sync(backup.parent)
    except apsw.InterruptError:
        return "there was no time for a backup"
    except (apsw.Error, OSError) as error:
        return f"no backup could be made: {error}"
    finally:
        db.close()
        fresh.unlink(missing_ok=True)
    return ""


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
