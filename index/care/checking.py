"""Checking: what is wrong with a library's database, in one line a fault; nothing is mended.

In: the database, open or not; no migration is done, and none of the code is used that keeps the tables right. Out: what
SQLite finds (pages, indexes, rows that point nowhere), then what only we know of: every entry hangs in its branch,
numbers are what they should be, hash states have their contents, sums add up, the index of names fits, and what other
devices told does not contradict itself (told.py). Runs in a worker while the library is open, since it is a pass over
everything.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw

from index.care import told
from index.model.emitter import Emitter
from index.model.errors import StoreCorrupt, VersionUnsupported
from index.store import search, sums
from index.store.connection import check_identity, connect, is_damage, translate
from index.store.migrations import SCHEMA_VERSION

#: Faults that are told, of each sort and in all.
_OF_A_SORT: Final = 20
FAULTS_MAX: Final = 200

#: Directories that hang in their branch, in a table of the connection alone.
HANGING: Final = """
CREATE TEMP TABLE hanging(id INTEGER PRIMARY KEY, branch_id INTEGER NOT NULL);
INSERT INTO hanging WITH RECURSIVE below(id, branch_id) AS (
    SELECT e.id, e.branch_id FROM branch b CROSS JOIN entry e ON e.id=b.root_entry_id
        WHERE e.branch_id=b.id AND e.parent_id IS NULL AND e.kind=1
    UNION SELECT id, branch_id FROM entry WHERE parent_id IS NULL AND uid<0 AND kind=1
    UNION SELECT e.id, e.branch_id FROM below d CROSS JOIN entry e ON e.parent_id=d.id
        WHERE e.kind=1 AND e.branch_id=d.branch_id) SELECT * FROM below;
"""
#: Entries that do not: their directory is gone, is none, is another branch's, or they hang in a circle. What is another
#: device's may be detached, with all below it.
LOOSE: Final = """
SELECT e.id FROM entry e LEFT JOIN hanging h ON h.id=e.parent_id AND h.branch_id=e.branch_id
WHERE h.id IS NULL AND NOT EXISTS (SELECT 1 FROM branch b WHERE b.id=e.branch_id AND b.root_entry_id=e.id
    AND e.parent_id IS NULL AND e.kind=1) AND NOT (e.parent_id IS NULL AND e.uid<0)
"""
#: Names that no directory can have.
MISNAMED: Final = (
    "SELECT id FROM entry WHERE parent_id IS NOT NULL AND (length(name) NOT BETWEEN 1 AND 255 OR name IN (x'2e', "
    "x'2e2e') OR instr(name, x'2f') OR instr(name, x'00'))"
)
#: Branches without a directory to begin at.
ROOTLESS: Final = (
    "SELECT b.id FROM branch b WHERE NOT EXISTS (SELECT 1 FROM entry e WHERE e.id=b.root_entry_id "
    "AND e.branch_id=b.id AND e.parent_id IS NULL AND e.kind=1) AND NOT (b.fs_id='' AND b.root_entry_id IS NULL)"
)
#: Rows that go by the number of what is another file on their own branch, or no file at all but a directory. Of another
#: device hard-linked names share one, and st_ino is that of each name.
MISNUMBERED: Final = (
    "SELECT e.id FROM entry e WHERE e.node<>e.id AND (e.node<=64 OR EXISTS (SELECT 1 FROM entry o WHERE "
    "((o.id=e.node AND o.node=e.node) OR (o.node=e.node AND o.node<>o.id)) AND o.id<>e.id AND "
    "((o.branch_id=e.branch_id AND o.st_ino<>e.st_ino AND e.uid>=0) OR (o.kind=1)<>(e.kind=1))))"
)
#: Files that are said to be known by their full hash, and have none, or that of another size.
UNHASHED: Final = (
    "SELECT e.id FROM entry e LEFT JOIN content c ON c.id=e.content_id WHERE e.kind=0 AND e.hash_state=2 "
    "AND e.size_bytes>0 AND (c.full IS NULL OR c.size_bytes<>e.size_bytes)"
)
_SORTS: Final = (
    (LOOSE, "entry {} hangs in no directory of its branch"),
    (MISNAMED, "entry {} has a name that no directory can have"),
    (ROOTLESS, "branch {} has no directory to begin at"),
    (MISNUMBERED, "entry {} goes by the number of another file"),
    (UNHASHED, "entry {} is told to be hashed, and has no content of its size with a hash"),
)
#: A stamp of a clock that ran ahead is given up, and counts as another.
_COUNTS: Final = "hlc NOT IN (SELECT hlc FROM moved WHERE device=:device)"
#: Counters, and the largest number that was given.
GIVEN: Final[Mapping[str, str]] = {
    "entry": "SELECT max((SELECT coalesce(max(id), 0) FROM entry), (SELECT coalesce(max(node), 0) FROM entry), "
    "(SELECT coalesce(max(max(coalesce(entry_id, 0), node)), 0) FROM limbo))",
    "seq": "SELECT max((SELECT coalesce(max(seq), 0) FROM entry), (SELECT coalesce(max(dot_seq), 0) FROM tagging "
    "WHERE dot_device=:device), (SELECT coalesce(max(seq), 0) FROM outbox), "
    "(SELECT coalesce(max(seq), 0) FROM tombstone))",
    "hlc": f"SELECT max((SELECT coalesce(max(hlc), 0) FROM tagging WHERE dot_device=:device AND {_COUNTS}), "
    f"(SELECT coalesce(max(hlc), 0) FROM outbox WHERE {_COUNTS}), "
    f"(SELECT coalesce(max(hlc), 0) FROM attribute WHERE device=:device AND {_COUNTS}), "
    f"(SELECT coalesce(max(hlc), 0) FROM register WHERE device=:device AND {_COUNTS}))",
}


def check(path: Path, device: bytes) -> list[str]:
    """The faults of a library's database, FAULTS_MAX at most; none when it is sound. `device` is ours: whose counters
    it has. VersionUnsupported for a sound database of another program or schema, Busy while another program keeps us
    out."""
    if path.is_file() and not path.stat().st_size:  # SQLite would throw its log away, in which the rows may be
        return [f"{path} is empty"]
    try:
        db = connect(path, read_only=True)
    except StoreCorrupt as error:
        if isinstance(error.__cause__, apsw.CantOpenError) and path.exists():
            raise
        return [str(error)]
    except apsw.Error as error:
        if not is_damage(error):
            raise translate(error, path) from error
        return [f"it cannot be read: {error}"]
    try:
        check_identity(db, path)
        return list(islice(_faults(db, path, device), FAULTS_MAX))
    except apsw.Error as error:
        if not is_damage(error):
            raise translate(error, path) from error
        return [f"it cannot be read to the end: {error}"]
    except UnicodeDecodeError as error:
        return [f"what it declares is no text: {error}"]
    finally:
        db.close()


def _faults(db: apsw.Connection, path: Path, device: bytes) -> Iterator[str]:
    with db:  # of one moment
        broken = structure(db)
        yield from broken
        if broken:
            return
        version = db.pragma("user_version")
        if not version:
            yield f"{path} is empty"
            return
        if version != SCHEMA_VERSION:
            raise VersionUnsupported(
                f"{path} has schema version {version}, this program looks through version {SCHEMA_VERSION}; "
                "`sdmount` brings an older one forward"
            )
        for table, rowid, parent, _ in islice(db.execute("PRAGMA foreign_key_check"), _OF_A_SORT):
            yield f"{table} {'' if rowid is None else rowid} points to a row of {parent} that is not there"
        db.execute(HANGING)
        for sql, words in _SORTS:
            yield from (words.format(row[0]) for row in islice(db.execute(sql), _OF_A_SORT))
        yield from told.faults(db, device, _OF_A_SORT)
        yield from _numbers(db, device)
        if sums.is_settled(db):
            wrong = sorted(sums.wrong(db))[:_OF_A_SORT]
            yield from (f"what lies below directory {dir_id} is added up wrongly" for dir_id in wrong)
    yield from search.check(path)


def structure(db: apsw.Connection) -> list[str]:
    """What SQLite finds wrong with pages, rows and indexes."""
    found: list[Any] = db.execute(f"PRAGMA integrity_check({_OF_A_SORT})").fetchall()
    lines = [line for (text,) in found for line in str(text).splitlines()]
    return [] if lines == ["ok"] else lines


def _numbers(db: apsw.Connection, device: bytes) -> Iterator[str]:
    rows: list[Any] = db.execute("SELECT name, value FROM counter").fetchall()
    counters: dict[str, int] = dict(rows)
    for name, sql in GIVEN.items():
        given = largest(db, sql, device)
        if name not in counters:
            yield f"counter {name} is missing"
        elif given > counters[name]:
            yield f"counter {name} says {counters[name]}, and {given} was given"
    facts = {row[0] for row in db.execute("SELECT key FROM meta")}
    yield from (f"the fact {key} is missing" for key in ("library_uuid", "epoch") if key not in facts)


def largest(db: apsw.Connection, sql: str, device: bytes) -> int:
    """The largest number of a kind that was given."""
    row = db.execute(sql, {"device": device} if ":device" in sql else None).fetchone()
    return 0 if row is None else int(row[0])


def check_in_worker(args: Mapping[str, Any], context: Emitter) -> None:
    """In a worker: streams one list of faults. args: database, device."""
    context.emit(check(Path(args["database"]), args["device"]))
