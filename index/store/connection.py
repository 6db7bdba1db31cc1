"""How a library's database is opened: the pragmas, in one place, each with its reason.

WAL so that readers never wait for the writer; synchronous NORMAL because what the kernel was answered must survive the
death of this process, not each write the loss of power (`Store.make_durable` syncs the log where a person was told
"saved"); foreign keys on because a row that points nowhere is a bug; 64 MiB of cache, since one page fault costs more
than a thousand lookups. Source: https://sqlite.org/wal.html, https://sqlite.org/pragma.html.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from index.model.errors import Busy, NoSpace, ReadOnly, StoreCorrupt, VdfsError, VersionUnsupported

#: "sdml" in ASCII: `file` and `sqlite3` can tell a library from any other database.
APPLICATION_ID = 0x73646D6C
#: How long another program that has the file locked is waited for.
_BUSY_MS = 5000


def connect(path: Path, *, read_only: bool = False, vfs: str | None = None) -> apsw.Connection:
    """A connection with the house's pragmas. StoreCorrupt when the file is not a database.

    `vfs`: files that are not the system's. They have no shared memory, so this is the only connection then.
    """
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    flags |= apsw.SQLITE_OPEN_URI  # what is attached later may say how
    try:
        db = apsw.Connection(str(path), flags=flags, vfs=vfs, statementcachesize=256)
        db.set_busy_timeout(_BUSY_MS)
        if vfs is not None:
            db.pragma("locking_mode", "exclusive")
        if not read_only:
            check_identity(db, path)
        db.pragma("cache_size", -64_000 if not read_only else -16_000)
        db.pragma("temp_store", 2)
        db.pragma("mmap_size", 256 << 20)
        db.pragma("foreign_keys", True)
        if not read_only:
            db.pragma("journal_mode", "wal")
            db.pragma("synchronous", 1)
            db.pragma("journal_size_limit", 64 << 20)
    except apsw.NotADBError as error:
        raise StoreCorrupt(f"{path} is not a library database; `sd library repair` saves what can be saved") from error
    except apsw.CorruptError as error:
        raise translate(error, path) from error
    except apsw.CantOpenError as error:
        raise StoreCorrupt(f"{path} cannot be opened: {error}") from error
    return db


def is_damage(error: apsw.Error) -> bool:
    """Whether an error speaks of what is in the file; others speak of the disk, of rights, or of who else has it."""
    if isinstance(error, apsw.IOError):
        return bool(getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHORT_READ)
    return isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.SQLError)


def translate(error: apsw.Error, path: Path) -> VdfsError:
    """Our error for one of SQLite's."""
    if isinstance(error, apsw.FullError):
        return NoSpace(f"the disk that holds {path} is full; free some space")
    if isinstance(error, apsw.ReadOnlyError):
        return ReadOnly(f"{path} cannot be written")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Busy(f"another program has {path} open; end that one first, and try again")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StoreCorrupt(f"{path} is damaged ({error}); `sd library repair` saves what can be saved")
    return StoreCorrupt(f"{path}: {error}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """What SQLite says of a database leaves as our error for it."""
    try:
        yield
    except apsw.Error as error:
        raise translate(error, path) from error


def one(db: apsw.Connection, sql: str, *args: "apsw.SQLiteValue") -> tuple[Any, ...]:
    """The first row of a query that always has one."""
    row = db.execute(sql, args).fetchone()
    assert row is not None
    return tuple(row)


def check_identity(db: apsw.Connection, path: Path) -> None:
    """Refuse a database that is somebody else's, before anything is written to it."""
    found = db.pragma("application_id")
    if found == APPLICATION_ID:
        return
    if found or db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise VersionUnsupported(f"{path} is a database of another program (application id {found:#x})")
