"""Table sums: how many bytes, files and directories lie below each directory, exact for whoever asks.

What units do to rows of `entry` is noted as differences of the directories that they stand in: by triggers for rows
that change, move or go, by `added` for rows that come (a trigger would make a scan dearer by a third). `settle` carries
the differences up to the roots, one step an ancestor: a change costs as much as its place is deep, whatever lies beside
it. Large units end with that; small ones leave it to whoever asks next, or to the next second (`Store.sums_below`,
`Store.settle`), since ten ancestors would make a file's creation twice as dear. Differences add up in any order, so
units may do what they like:

- a directory that moves takes along what its row of `sums` says; what is noted below it goes up from where it is in the
  end;
- a directory that goes takes with it all that its row still says; what was noted in it before is void;
- a row of another device that is detached counts nowhere, and what is below it only there;
- a name of another device that was taken away here (whiteouts.py) does not count: the sums are of what shows. Below a
  directory that is hidden everything is, so that it is only the directory itself that its parent has one less of.

The notes are a table of the writing connection alone (`attend`), so a unit that is rolled back takes them back too.
They end with the process: the first unit that leaves some says so in table meta, and who finds that said at the start
adds everything up anew (`rebuild`), as for a library of an older schema.

Of a file with several names each counts. Symbolic links, sockets and devices count as nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apsw

from index.model.entry import KIND_DIR, KIND_FILE, Entry
from index.store import changes
from index.store.connection import one

SCHEMA = """
-- sums: what lies below each directory of each branch, itself not counted. Local, never synced.
--   rbytes  sizes of all files below; of a file with several names each counts
--   rfiles  files below; symbolic links and special files are none
--   rdirs   directories below
CREATE TABLE sums(
    dir_id INTEGER PRIMARY KEY,
    rbytes INTEGER NOT NULL,
    rfiles INTEGER NOT NULL,
    rdirs  INTEGER NOT NULL
) STRICT;
"""

_ADD = (
    "ON CONFLICT(dir_id) DO UPDATE SET rbytes=rbytes+excluded.rbytes, rfiles=rfiles+excluded.rfiles, "
    "rdirs=rdirs+excluded.rdirs"
)
_NOTES = f"""
CREATE TEMP TABLE noted(
    dir_id INTEGER PRIMARY KEY,
    rbytes INTEGER NOT NULL,
    rfiles INTEGER NOT NULL,
    rdirs  INTEGER NOT NULL
);
CREATE TEMP TRIGGER sums_size AFTER UPDATE OF size_bytes ON main.entry
WHEN old.kind=0 AND old.size_bytes<>new.size_bytes AND new.parent_id IS NOT NULL AND new.rule>=0 BEGIN
    INSERT INTO noted VALUES(new.parent_id, new.size_bytes-old.size_bytes, 0, 0) {_ADD};
END;
CREATE TEMP TRIGGER sums_file_moved AFTER UPDATE OF parent_id ON main.entry
WHEN new.kind=0 AND new.rule>=0 AND old.parent_id IS NOT new.parent_id BEGIN
    INSERT INTO noted SELECT old.parent_id, -old.size_bytes, -1, 0 WHERE old.parent_id IS NOT NULL {_ADD};
    INSERT INTO noted SELECT new.parent_id, old.size_bytes, 1, 0 WHERE new.parent_id IS NOT NULL {_ADD};
END;
CREATE TEMP TRIGGER sums_dir_moved AFTER UPDATE OF parent_id ON main.entry
WHEN new.kind=1 AND old.parent_id IS NOT new.parent_id BEGIN
    INSERT INTO noted SELECT old.parent_id, -rbytes, -rfiles, -rdirs-(new.rule>=0) FROM sums
        WHERE dir_id=new.id AND old.parent_id IS NOT NULL {_ADD};
    INSERT INTO noted SELECT new.parent_id, rbytes, rfiles, rdirs+(new.rule>=0) FROM sums
        WHERE dir_id=new.id AND new.parent_id IS NOT NULL {_ADD};
END;
CREATE TEMP TRIGGER sums_file_gone AFTER DELETE ON main.entry
WHEN old.kind=0 AND old.rule>=0 AND old.parent_id IS NOT NULL BEGIN
    INSERT INTO noted VALUES(old.parent_id, -old.size_bytes, -1, 0) {_ADD};
END;
CREATE TEMP TRIGGER sums_dir_gone AFTER DELETE ON main.entry WHEN old.kind=1 BEGIN
    INSERT INTO noted SELECT old.parent_id, -rbytes, -rfiles, -rdirs-(old.rule>=0) FROM sums
        WHERE dir_id=old.id AND old.parent_id IS NOT NULL {_ADD};
    DELETE FROM noted WHERE dir_id=old.id;
    DELETE FROM sums WHERE dir_id=old.id;
END;
CREATE TEMP TRIGGER sums_hidden AFTER UPDATE OF rule ON main.entry
WHEN (old.rule<0)<>(new.rule<0) AND new.kind<2 AND new.parent_id IS NOT NULL BEGIN
    INSERT INTO noted VALUES(
        new.parent_id, iif(new.kind=0, new.size_bytes, 0)*iif(new.rule<0, -1, 1),
        (new.kind=0)*iif(new.rule<0, -1, 1), (new.kind=1)*iif(new.rule<0, -1, 1)
    ) {_ADD};
END;
"""
#: Of one directory and all above it, in one statement: half of what a step each would cost.
_CARRY_ONE = (
    "UPDATE sums SET rbytes=rbytes+:b, rfiles=rfiles+:f, rdirs=rdirs+:d WHERE dir_id IN ("
    "WITH RECURSIVE up(id) AS (VALUES(:dir) UNION ALL SELECT e.parent_id FROM up CROSS JOIN entry e ON e.id=up.id "
    "WHERE e.parent_id IS NOT NULL) SELECT id FROM up)"
)
_FEW = 4
_OF_ROOTS = (
    "SELECT coalesce(sum(rfiles), 0), coalesce(sum(rdirs + 1), 0), coalesce(sum(rbytes), 0) FROM entry "
    "CROSS JOIN sums ON dir_id=id WHERE "
)
_ROOTS = "parent_id IS NULL AND name=x''"
_BELOW = "SELECT rbytes, rfiles, rdirs FROM sums WHERE dir_id=?"
#: The fact in table meta that says so.
_UNSETTLED = "sums_unsettled"


class Sums(NamedTuple):
    """What lies below a directory."""

    rbytes: int
    rfiles: int
    rdirs: int


def attend(db: apsw.Connection) -> None:
    """Note from now on what the units of this connection do, once for each that writes; mends what a kill left open."""
    db.execute(_NOTES)
    if changes.get_meta(db, _UNSETTLED) is not None:
        with db:
            rebuild(db)
            changes.drop_meta(db, _UNSETTLED)


def added(db: apsw.Connection, rows: Sequence[Entry | tuple[Any, ...]]) -> None:
    """Note rows (or what has their shape) that were inserted."""
    noted: dict[int, list[int]] = {}
    directories: list[tuple[int]] = []
    for row_id, _, parent_id, _, _, _, kind, _, size_bytes, *_ in rows:
        if kind == KIND_DIR:
            directories.append((row_id,))
        if kind > KIND_DIR or parent_id is None:
            continue
        total = noted.get(parent_id)
        if total is None:
            total = noted[parent_id] = [0, 0, 0]
        if kind == KIND_FILE:
            total[0] += size_bytes
            total[1] += 1
        else:
            total[2] += 1
    db.executemany("INSERT INTO sums VALUES(?,0,0,0)", directories)
    db.executemany(f"INSERT INTO noted VALUES(?,?,?,?) {_ADD}", [(key, *total) for key, total in noted.items()])


def leave(db: apsw.Connection) -> bool:
    """Say in the unit that is about to end whether notes remain; returns that."""
    if db.execute("SELECT 1 FROM noted LIMIT 1").fetchone() is None:
        return False
    changes.set_meta(db, _UNSETTLED, 1)
    return True


def settle(db: apsw.Connection) -> None:
    """Carry what was noted up to the roots, inside a unit."""
    changes.drop_meta(db, _UNSETTLED)
    noted: list[tuple[Any, ...]] = db.execute("SELECT dir_id, rbytes, rfiles, rdirs FROM noted").fetchall()
    if not noted:
        return
    db.execute("DELETE FROM noted")
    if len(noted) <= _FEW:
        for dir_id, rbytes, rfiles, rdirs in noted:
            if rbytes or rfiles or rdirs:
                db.execute(_CARRY_ONE, {"dir": dir_id, "b": rbytes, "f": rfiles, "d": rdirs})
        return
    totals: dict[int, list[int]] = {}
    above: dict[int, int | None] = {}
    for dir_id, rbytes, rfiles, rdirs in noted:
        step: int | None = dir_id
        while step is not None:
            total = totals.get(step)
            if total is None:
                totals[step] = [rbytes, rfiles, rdirs]
                found = db.execute("SELECT parent_id FROM entry WHERE id=?", (step,)).fetchone()
                above[step] = None if found is None else found[0]
            else:
                total[0] += rbytes
                total[1] += rfiles
                total[2] += rdirs
            step = above[step]
    db.executemany(
        "UPDATE sums SET rbytes=rbytes+?, rfiles=rfiles+?, rdirs=rdirs+? WHERE dir_id=?",
        [(*total, dir_id) for dir_id, total in totals.items() if any(total)],
    )


def of(db: apsw.Connection, dir_ids: Iterable[int]) -> Sums:
    """What lies below some directories together."""
    rbytes = rfiles = rdirs = 0
    for dir_id in dir_ids:
        row: tuple[Any, ...] | None = db.execute(_BELOW, (dir_id,)).fetchone()
        if row is not None:
            rbytes, rfiles, rdirs = rbytes + row[0], rfiles + row[1], rdirs + row[2]
    return Sums(rbytes, rfiles, rdirs)


def total(db: apsw.Connection) -> tuple[int, int, int]:
    """(files, directories, bytes) of the library, all devices together: what the roots say of what is below them."""
    files, dirs, size_bytes = one(db, f"{_OF_ROOTS}{_ROOTS}")
    return int(files), int(dirs), int(size_bytes)


def afar(db: apsw.Connection) -> tuple[int, int]:
    """(files, bytes) of that which are other devices'."""
    files, _, size_bytes = one(db, f"{_OF_ROOTS}{_ROOTS} AND uid<0")
    return int(files), int(size_bytes)


def wrong(db: apsw.Connection) -> dict[int, list[int] | None]:
    """What the rows of entry add up to, for each directory of which the table says otherwise; None where it has no
    directory of that number. A pass over the rows."""
    own: dict[int, list[int]] = {}
    parents: dict[int, int | None] = {}
    shown: dict[int, int] = {}
    directories: Iterable[tuple[Any, ...]] = db.execute("SELECT id, parent_id, rule>=0 FROM entry WHERE kind=1")
    for dir_id, parent_id, is_shown in directories:
        own[dir_id] = [0, 0, 0]
        parents[dir_id] = parent_id
        shown[dir_id] = is_shown
    files: Iterable[tuple[Any, ...]] = db.execute(
        "SELECT parent_id, sum(size_bytes), count(*) FROM entry WHERE kind=0 AND rule>=0 GROUP BY parent_id"
    )
    for parent_id, rbytes, rfiles in files:
        if parent_id in own:
            own[parent_id][:2] = [rbytes, rfiles]
    for dir_id in _deepest_first(parents):
        parent_id = parents[dir_id]
        if parent_id in own:
            above, below = own[parent_id], own[dir_id]
            above[0] += below[0]
            above[1] += below[1]
            above[2] += below[2] + shown[dir_id]
    had = {row[0]: list(row[1:]) for row in db.execute("SELECT dir_id, rbytes, rfiles, rdirs FROM sums")}
    return {dir_id: own.get(dir_id) for dir_id in own.keys() | had.keys() if own.get(dir_id) != had.get(dir_id)}


def is_settled(db: apsw.Connection) -> bool:
    """Whether nothing is left to be added up at the next start."""
    return changes.get_meta(db, _UNSETTLED) is None


def rebuild(db: apsw.Connection) -> int:
    """Add everything up anew, inside a transaction; returns how many directories had other figures, or none."""
    found = wrong(db)
    db.executemany("DELETE FROM sums WHERE dir_id=?", [(dir_id,) for dir_id in found])
    rows = [(dir_id, *values) for dir_id, values in sorted(found.items()) if values is not None]
    db.executemany("INSERT INTO sums VALUES(?,?,?,?)", rows)
    return len(found)


def _deepest_first(parents: dict[int, int | None]) -> list[int]:
    """Directories, none before one that lies in it; what hangs in a circle (a damaged file) is left out."""
    below: dict[int | None, list[int]] = {}
    for dir_id, parent_id in parents.items():
        below.setdefault(parent_id if parent_id in parents else None, []).append(dir_id)
    order = list(below.get(None, ()))
    for dir_id in order:
        order.extend(below.get(dir_id, ()))
    order.reverse()
    return order
