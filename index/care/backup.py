"""Backup: the last good state of a library's database, `library.db.backup` beside it.

In: a database, open or not. Out: a whole copy that SQLite made of one moment (VACUUM INTO), put in place of the former
one only after it is on disk; a database that is not sound never replaces a backup. For a thread: it reads everything,
and may be stopped. Source: https://sqlite.org/lang_vacuum.html#vacuuminto.
"""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import apsw

from index.model.errors import VdfsError
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
    except OSError:
        return True
    return not 0 <= age_s < MAX_AGE_S


def make(library_db: Path, stops: Callable[[], bool] = lambda: False) -> str:
    """Make a backup, unless `stops` says so meanwhile. Returns why there is none, '' when there is."""
    backup = path_beside(library_db)
    fresh = backup.with_name(f"{backup.name}.new")
    try:
        size_bytes = library_db.stat().st_size
        room = os.statvfs(library_db.parent)
        if room.f_bavail * room.f_frsize < size_bytes + _LEFT_BYTES:
            return f"the disk lacks room for a backup of {size_bytes} bytes"
        fresh.unlink(missing_ok=True)
        fault = _copy(library_db, fresh, stops)
        if fault:
            return f"the database is not sound: {fault}"
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(fresh, 0o600)
        os.replace(fresh, backup)
        _sync(backup.parent)
    except apsw.InterruptError:
        return "there was no time for a backup"
    except (apsw.Error, OSError, VdfsError) as error:
        return f"no backup could be made: {error}"
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    return ""


def _copy(library_db: Path, fresh: Path, stops: Callable[[], bool]) -> str:
    """A copy, after a look at all pages; returns the fault that keeps it from being made."""
    db = connect(library_db, read_only=True)
    try:
        db.set_progress_handler(stops, _STEPS)
        found: list[Any] = db.execute("PRAGMA quick_check(1)").fetchall()
        if found != [("ok",)]:
            return str(found[0][0])
        db.execute("VACUUM INTO ?", (str(fresh),))
        return ""
    finally:
        db.close()


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
