"""jobs.db: the jobs of one library, those that run and those that were. Beside library.db, never synced.

A database of its own, so that a checkpoint every few milliseconds makes no unit of the library wait, and since nothing
in it is worth a library: one that is damaged or of a newer program is put aside and begun anew. Like the library's it
is in WAL mode with synchronous NORMAL: what was written survives the death of the process.

A disk that takes nothing more ends no job: the table goes on in memory, from what it was, and returns to its file when
there is room (`go_back`). A kill in between leaves the file as it was, and the jobs go on from there.

State and arguments are msgpack. A state says with which version of its kind of job it was written; one of another
version is dropped with a warning, and the job begins from its beginning.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgpack

from index.store.connection import one, translate
from vdfs.jobs.job import Job, Note, Progress, Status

log = logging.getLogger("sdmount.jobs")

#: "sdmj" in ASCII.
APPLICATION_ID = 0x73646D6A
VERSION = 1

SCHEMA = """
-- job: one piece of long work.
--   id         what people call it by; never given twice
--   key        what it is about: of jobs that are part of no other and have not ended, one has it
--   status     queued, running, paused, completed, failed, cancelled
--   parent_id  the job that it is a part of
--   paused_by  user, parent, or what it waits for; NULL unless paused
--   again      the arguments with which it is to be done once more when it has ended, asked for while it ran
--   args, state, progress, result  msgpack; state is that of the last checkpoint, {"v": version, "s": state}
--   runs       how often it was begun or gone on with; worked_ns the time that all these took
CREATE TABLE job(
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL,
    title      TEXT NOT NULL,
    key        TEXT NOT NULL,
    status     TEXT NOT NULL,
    priority   INTEGER NOT NULL,
    parent_id  INTEGER REFERENCES job(id) ON DELETE CASCADE,
    paused_by  TEXT,
    error      TEXT,
    args       BLOB NOT NULL,
    state      BLOB,
    progress   BLOB NOT NULL,
    result     BLOB NOT NULL,
    again      BLOB,
    warnings   INTEGER NOT NULL DEFAULT 0,
    errors     INTEGER NOT NULL DEFAULT 0,
    runs       INTEGER NOT NULL DEFAULT 0,
    created_ns INTEGER NOT NULL,
    started_ns INTEGER,
    ended_ns   INTEGER,
    worked_ns  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX job_live ON job(status, priority, id) WHERE status IN ('queued', 'running', 'paused');
CREATE INDEX job_parent ON job(parent_id);

-- note: warnings, and errors that did not end a job; the first hundred of each job, all are counted in its row.
CREATE TABLE note(
    job_id INTEGER NOT NULL REFERENCES job(id) ON DELETE CASCADE,
    at_ns  INTEGER NOT NULL,
    level  TEXT NOT NULL,
    text   TEXT NOT NULL
) STRICT;
CREATE INDEX note_job ON note(job_id);
"""

_T = TypeVar("_T", dict[str, Any], list[Any])

_COLUMNS = (
    "id, kind, title, key, status, priority, parent_id, paused_by, error, args, progress, result, warnings, errors, "
    "runs, created_ns, started_ns, ended_ns, worked_ns"
)
_LIVE = "status IN ('queued', 'running', 'paused')"
NOTES_MAX = 100
#: Ended jobs that are remembered, without their children.
HISTORY_MAX = 500


class JobTable:
    """An open jobs.db; `close()` it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._disk: apsw.Connection | None = None  # the file, while the table is in memory
        try:
            self.db = _open(path)
        except (apsw.FullError, apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError) as error:
            raise translate(error, path) from error
        except apsw.Error as error:
            aside = path.with_name(f"{path.name}.aside-{time.time_ns()}")
            log.warning("%s cannot be used (%s): it is put aside as %s, and begun anew", path, error, aside.name)
            for ending in ("", "-wal", "-shm"):
                if os.path.exists(f"{path}{ending}"):
                    os.replace(f"{path}{ending}", f"{aside}{ending}")
            self.db = _open(path)

        self._file = self.db  # `db` is another one while the disk is full

    def close(self) -> None:
        self.go_back()
        self.db.close()
        if self._disk is not None:
            self._disk.close()

    @property
    def is_in_memory(self) -> bool:
        return self._disk is not None

    def go_back(self) -> bool:
        """See whether the file takes what is in memory; returns whether the table is in its file now."""
        if self._disk is None:
            return True
        try:
            _copy(self.db, self._disk)
        except (apsw.FullError, apsw.IOError, apsw.BusyError):
            return False
        self.db.close()
        self.db, self._disk = self._disk, None
        return True

    def _write(self, sql: str, values: "tuple[apsw.SQLiteValue, ...]" = ()) -> None:
        try:
            self.db.execute(sql, values)
        except (apsw.FullError, apsw.IOError) as error:
            if self._disk is not None:
                raise
            log.warning("%s takes nothing more (%s): what becomes of the jobs is kept in memory", self.path, error)
            memory = apsw.Connection(":memory:")
            _copy(self.db, memory)
            memory.pragma("foreign_keys", True)
            self.db, self._disk = memory, self.db
            self.db.execute(sql, values)

    def add(
        self, kind: str, title: str, key: str, args: Mapping[str, Any], priority: int, parent_id: int | None
    ) -> Job:
        empty = _pack({})
        self._write(
            "INSERT INTO job(kind, title, key, status, priority, parent_id, args, progress, result, created_ns) "
            "VALUES(?,?,?,?,?,?,?,?,?,?)",
            (kind, _text(title), key, Status.QUEUED, priority, parent_id, _pack(args), _pack(Progress()), empty,
             time.time_ns()),
        )  # fmt: skip
        found = self.get(self.db.last_insert_rowid())
        assert found is not None
        return found

    def get(self, job_id: int) -> Job | None:
        return next(self._jobs("id=?", job_id), None)

    def live(self) -> list[Job]:
        """Jobs that have not ended, those first that go first."""
        return list(self._jobs(f"{_LIVE} ORDER BY priority DESC, id"))

    def live_of_key(self, key: str) -> Job | None:
        """The job of a key that has not ended and is part of no other."""
        return next(self._jobs(f"{_LIVE} AND parent_id IS NULL AND key=?", key), None)

    def children(self, parent_id: int) -> list[Job]:
        return list(self._jobs("parent_id=? ORDER BY id", parent_id))

    def recent(self, limit: int) -> list[Job]:
        """Jobs that are part of no other: those that have not ended, then the last that have."""
        found = list(self._jobs(f"{_LIVE} AND parent_id IS NULL ORDER BY id DESC LIMIT ?", limit))
        ended = self._jobs(f"parent_id IS NULL AND NOT {_LIVE} ORDER BY id DESC LIMIT ?", limit - len(found))
        return [*found, *ended]

    def _jobs(self, where: str, *args: "apsw.SQLiteValue") -> Iterator[Job]:
        for row in self.db.execute(f"SELECT {_COLUMNS} FROM job WHERE {where}", args).fetchall():
            yield _job(row)

    def set_status(self, job_id: int, status: Status, **columns: str | int | None) -> None:
        """A new status, and further columns with it."""
        names = "".join(f", {name}=?" for name in columns)
        values = [_text(value) if isinstance(value, str) else value for value in columns.values()]
        self._write(f"UPDATE job SET status=?{names} WHERE id=?", (status, *values, job_id))

    def begin(self, job_id: int) -> None:
        now_ns = time.time_ns()
        self._write(
            "UPDATE job SET status='running', paused_by=NULL, error=NULL, runs=runs+1, "
            "started_ns=coalesce(started_ns, ?) WHERE id=?",
            (now_ns, job_id),
        )

    def worked(self, job_id: int, took_ns: int) -> None:
        self._write("UPDATE job SET worked_ns=worked_ns+? WHERE id=?", (took_ns, job_id))

    def set_state(self, job_id: int, version: int, state: Mapping[str, Any]) -> None:
        self._write("UPDATE job SET state=? WHERE id=?", (_pack({"v": version, "s": state}), job_id))

    def state(self, job_id: int) -> tuple[int, dict[str, Any]] | None:
        """(version, state) of the last checkpoint; None when there was none, ValueError for one that is damaged."""
        raw = one(self.db, "SELECT state FROM job WHERE id=?", job_id)[0]
        if raw is None:
            return None
        both = _unpacked(raw, dict)
        if not isinstance(both.get("v"), int) or not isinstance(both.get("s"), dict):
            raise ValueError("it is damaged")
        return both["v"], both["s"]

    def set_progress(self, job_id: int, progress: Progress) -> None:
        self._write("UPDATE job SET progress=? WHERE id=?", (_pack(progress), job_id))

    def set_result(self, job_id: int, result: Mapping[str, Any]) -> None:
        self._write("UPDATE job SET result=? WHERE id=?", (_pack(result), job_id))

    def set_args(self, job_id: int, args: Mapping[str, Any]) -> None:
        self._write("UPDATE job SET args=? WHERE id=?", (_pack(args), job_id))

    def ask_again(self, job_id: int, args: Mapping[str, Any] | None) -> None:
        packed = None if args is None else _pack(args)
        self._write("UPDATE job SET again=? WHERE id=?", (packed, job_id))

    def asked_again(self, job_id: int) -> dict[str, Any] | None:
        raw = one(self.db, "SELECT again FROM job WHERE id=?", job_id)[0]
        return None if raw is None else _unpacked(raw, dict)

    def note(self, job_id: int, level: str, text: str) -> None:
        """Remember a warning or an error; beyond a hundred they are only counted."""
        column = "warnings" if level == "warning" else "errors"
        self._write(f"UPDATE job SET {column}={column}+1 WHERE id=?", (job_id,))
        if one(self.db, "SELECT count(*) FROM note WHERE job_id=?", job_id)[0] < NOTES_MAX:
            self._write("INSERT INTO note VALUES(?,?,?,?)", (job_id, time.time_ns(), level, _text(text)))

    def notes(self, job_id: int) -> list[Note]:
        rows = self.db.execute("SELECT at_ns, level, text FROM note WHERE job_id=? ORDER BY rowid", (job_id,))
        return [Note(*row) for row in rows]

    def prune(self) -> list[int]:
        """Forget the oldest jobs that ended, beyond HISTORY_MAX, with their parts; returns the ids of all of them."""
        old = [
            int(row[0])
            for row in self.db.execute(
                f"SELECT id FROM job WHERE parent_id IS NULL AND NOT {_LIVE} ORDER BY id DESC LIMIT -1 OFFSET ?",
                (HISTORY_MAX,),
            )
        ]
        gone = [*old, *(child.id for job_id in old for child in self.children(job_id))]
        for job_id in old:
            self._write("DELETE FROM job WHERE id=?", (job_id,))
        return gone


def _open(path: Path) -> apsw.Connection:
    db = apsw.Connection(str(path))
    try:
        db.set_busy_timeout(5000)
        found = (db.pragma("application_id"), db.pragma("user_version"))
        if found != (APPLICATION_ID, VERSION) and db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise apsw.NotADBError(f"application id {found[0]:#x}, version {found[1]}")
        db.pragma("journal_mode", "wal")
        db.pragma("synchronous", 1)
        db.pragma("foreign_keys", True)
        if found != (APPLICATION_ID, VERSION):
            with db:
                db.execute(SCHEMA)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {VERSION}")
        if db.pragma("quick_check") != "ok":
            raise apsw.CorruptError("the check of the file failed")
    except apsw.Error:
        db.close()
        raise
    return db


def _copy(source: apsw.Connection, target: apsw.Connection) -> None:
    with target.backup("main", source, "main") as backup:
        while not backup.done:
            backup.step(-1)


def _job(row: tuple[Any, ...]) -> Job:
    progress = Progress(*_unpacked(row[10], list)[: len(Progress._fields)])
    args, result = _unpacked(row[9], dict), _unpacked(row[11], dict)
    return Job._make((*row[:4], Status(row[4]), *row[5:9], args, progress, result, *row[12:]))


def _unpacked(raw: bytes, kind: type[_T]) -> _T:
    """What a column holds; nothing where it is damaged: a row of this table is not worth a library."""
    try:
        found = msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return kind()
    return found if isinstance(found, kind) else kind()


def _text(text: str) -> str:
    """A text that may hold bytes of a name that are not UTF-8, as one that everything can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed
