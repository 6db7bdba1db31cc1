"""Mend: what contradicts itself in a database whose pages are sound is put right, and told.

In: a connection to a library that nobody else has open, without foreign keys. Out: rows that agree, and a line for each
sort of thing that was done. What can be found again is let go of: an entry that hangs nowhere waits in limbo, so that
the file gets its number, its uuid and its tags back when it is met. What cannot be found again is kept where there is
any way to. Numbers are only ever raised.
"""

import contextlib
import os
import stat
import time
from typing import Any, Final

import apsw
import msgpack

from index.care import told
from index.care.carried import ask_anew
from index.care.checking import GIVEN, HANGING, LOOSE, MISNAMED, MISNUMBERED, ROOTLESS, UNHASHED, largest
from index.model.errors import MissingDependency
from index.model.hlc import Hlc
from index.model.ids import new_uuid
from index.store import changes, devices, entries, limbo, places, registers, streams, sums
from index.store.registers import Register

#: How far a counter that was lost leaps beyond the largest number that is still known: more than a day gives.
_LEAP: Final = 1 << 24
#: The branch that a library makes first: its own store.
_STORE: Final = 1
#: Where a branch is whose place is lost.
_NOWHERE: Final = b"/nonexistent/lost directory %d"


def mend(
    db: apsw.Connection, device: bytes, library: bytes, *, is_sure: bool, relists: bool = False, asks: bool = False
) -> list[str]:
    """Inside a transaction; returns what was done. `is_sure`: the counters are those of the last moment; else numbers
    leap ahead, and a new epoch begins. `relists`: rows may be missing, so no directory counts as listed. `asks`: so may
    tags and attributes, of which files carry copies."""
    done = (
        _afar(db, device, relists=relists)
        + _branches(db, device)
        + told.mend(db, device)
        + _devices(db)
        + _locations(db, device)
        + _roots(db)
        + _entries(db)
    )
    if relists or done:
        db.execute("UPDATE entry SET scanned_ns=NULL, scanned_mtime_ns=NULL WHERE kind=1")
    done += _contents(db)
    dropped = _assignments(db)
    done += dropped + _pointers(db)
    if asks or dropped:
        done += _said(ask_anew(db), "files are asked for what they carry of lost tags and attributes")
    done += _facts(db, library, is_sure=is_sure) + _counters(db, device, is_sure=is_sure)
    changes.drop_meta(db, "sums_unsettled")
    return done + _said(sums.rebuild(db), "sums of directories were added up anew")


def _count(db: apsw.Connection, sql: str, *args: "apsw.SQLiteValue") -> int:
    """How many rows a statement changed."""
    before = db.total_changes()
    db.execute(sql, args)
    return db.total_changes() - before


def _said(number: int, words: str) -> list[str]:
    return [f"{number} {words}"] if number else []


def _afar(db: apsw.Connection, device: bytes, *, relists: bool) -> list[str]:
    """What other devices have is theirs to say. What of it hangs in no branch of theirs goes, and never becomes ours;
    its owner is asked to tell all again, and so is everybody where rows may be missing that nobody knows of."""
    rootless: list[Any] = db.execute(
        "SELECT id, device_uuid FROM branch b WHERE device_uuid<>?1 AND root_entry_id IS NOT NULL AND NOT EXISTS "
        "(SELECT 1 FROM entry e WHERE e.id=b.root_entry_id AND e.branch_id=b.id AND e.uid<0)",
        (device,),
    ).fetchall()
    for branch_id, _ in rootless:
        db.execute("DELETE FROM entry WHERE branch_id=? AND uid<0", (branch_id,))
        db.execute("UPDATE branch SET root_entry_id=NULL WHERE id=?", (branch_id,))
    gone = _count(
        db, "DELETE FROM entry WHERE uid<0 AND branch_id NOT IN (SELECT id FROM branch WHERE device_uuid<>?)", device
    )
    owners = {owner for _, owner in rootless} | _branches_told_of(db, device)
    if relists or (gone and not owners):
        owners = {one.device for one in streams.every(db)} - {device}
    for one in streams.every(db):
        if one.device in owners and one.kind == streams.OWNED:
            streams.rewind(db, one.id)
    if not gone and not rootless:
        return []
    return ["what other devices have was known in part, and was let go of; they tell it again"]


def _branches_told_of(db: apsw.Connection, device: bytes) -> set[bytes]:
    """Branches that other devices told of, and that have no row, get one again. Returns whose they are."""
    owners = set()
    for key in registers.keys_of(db, places.BRANCH):
        is_known = db.execute("SELECT 1 FROM branch WHERE uuid=?", (key[16:],)).fetchone() is not None
        fields = registers.fields_of(db, places.BRANCH, key)
        if key[:16] == device or is_known or fields.get("removed"):
            continue
        with contextlib.suppress(MissingDependency):  # it cannot be shown without its location
            places.make_branch(db, key, fields)
            owners.add(key[:16])
    return owners


def _branches(db: apsw.Connection, device: bytes) -> list[str]:
    """Where entries are of a branch that is lost, it is there again, without a place: a path where nothing is, on no
    file system, so no directory is ever taken for it. Its entries keep their numbers and uuids, and so what people
    attached to them. The first branch of all is the store of the library, which gets its place when that is opened."""
    lost: list[Any] = db.execute(
        "SELECT DISTINCT branch_id FROM entry WHERE branch_id NOT IN (SELECT id FROM branch) ORDER BY branch_id"
    ).fetchall()
    free: list[Any] = db.execute(
        "SELECT id FROM location WHERE removed=0 "
        "AND id NOT IN (SELECT location_id FROM branch WHERE location_id IS NOT NULL)"
    ).fetchall()
    store = None if db.execute("SELECT 1 FROM branch WHERE location_id IS NULL").fetchone() else _STORE
    placeless = [branch_id for (branch_id,) in lost if branch_id != store]
    is_told = len(placeless) == len(free) == 1  # else nobody can say which is whose
    next_id = 1 + largest(db, "SELECT coalesce(max(id), 0) FROM location", b"")
    for (branch_id,) in lost:
        root = db.execute(
            "SELECT id, st_ino FROM entry WHERE branch_id=? AND parent_id IS NULL AND kind=1 ORDER BY id", (branch_id,)
        ).fetchone()
        root_id, root_ino = (None, 0) if root is None else root
        location_id = None
        if branch_id != store:
            location_id, next_id = (free[0][0], next_id) if is_told else (next_id, next_id + 1)
        db.execute(
            "INSERT INTO branch(id, uuid, location_id, device_uuid, label, root_path, fs_id, root_ino, root_entry_id) "
            "VALUES(?,?,?,?,?,?,'',?,?)",
            (branch_id, new_uuid(), location_id, device, f"lost-{branch_id}", _NOWHERE % branch_id, root_ino, root_id),
        )
    return [
        *_said(len(lost) - len(placeless), "store of the library was lost, and is there again"),
        *_said(
            len(placeless),
            "directories of locations are known by what is in them alone, and count as away; "
            "`sd location add DIRECTORY --name LOCATION` says where one is",
        ),
    ]


def _devices(db: apsw.Connection) -> list[str]:
    """Who owns a branch is known, be it by the uuid alone."""
    lost: list[Any] = db.execute(
        "SELECT DISTINCT device_uuid FROM branch WHERE device_uuid NOT IN (SELECT uuid FROM device)"
    ).fetchall()
    for (owner,) in lost:
        devices.put(db, owner, owner.hex()[:8], b"", 0)
    return _said(len(lost), "devices are known by their numbers alone")


def _locations(db: apsw.Connection, device: bytes) -> list[str]:
    """A branch whose location is lost gets one of its directory's name."""
    lost: list[Any] = db.execute(
        "SELECT id, location_id, root_path FROM branch WHERE location_id IS NOT NULL "
        "AND location_id NOT IN (SELECT id FROM location)"
    ).fetchall()
    names = {row.name: row.id for row in places.locations(db)}
    done = []
    for branch_id, location_id, root_path in lost:
        name = os.path.basename(root_path) or b"root"
        if name not in names:
            uuid = new_uuid()
            db.execute("INSERT OR IGNORE INTO location(id, uuid, name) VALUES(?,?,?)", (location_id, uuid, name))
            stamp = Hlc(time.time_ns() // 1_000_000, 0).packed()
            registers.merge(db, [Register(places.LOCATION, uuid, "name", msgpack.packb(name), stamp, device)])
            names[name] = location_id
        db.execute("UPDATE branch SET location_id=? WHERE id=?", (names[name], branch_id))
        done.append(f"the location of {os.fsdecode(root_path)} was lost, and is made anew as {os.fsdecode(name)}")
    return done


def _roots(db: apsw.Connection) -> list[str]:
    """A branch without its root row gets one, with the number that it had."""
    done = []
    for (branch_id,) in db.execute(ROOTLESS).fetchall():
        row = next(one for one in places.branches(db) if one.id == branch_id)
        other: Any = db.execute(
            "SELECT id FROM entry WHERE branch_id=? AND parent_id IS NULL AND kind=1 ORDER BY id LIMIT 1", (row.id,)
        ).fetchone()
        if other is not None:
            places.set_branch_root(db, row.id, other[0])
        else:
            root = row.root_entry_id
            if root is None or db.execute("SELECT 1 FROM entry WHERE id=?", (root,)).fetchone():
                root = largest(db, GIVEN["entry"], b"") + 1
                changes.set_counter(db, "entry", max(root, changes.get_counter(db, "entry")))
            db.execute(
                "INSERT INTO entry(id, branch_id, parent_id, name, node, uuid, kind, mode, size_bytes, mtime_ns, "
                "ctime_ns, st_ino, nlink, uid, gid, seq) VALUES(?,?,NULL,x'',?,?,1,?,0,0,0,?,1,0,0,0)",
                (root, row.id, root, new_uuid(), stat.S_IFDIR | 0o700, row.root_ino),
            )
            places.set_branch_root(db, row.id, root)
        done.append(f"the first directory of {os.fsdecode(row.root_path)} was lost, and is there again")
    return done


def _entries(db: apsw.Connection) -> list[str]:
    """What hangs nowhere is let go of, to be found again; who goes by a wrong number gets the one of its row."""
    db.execute(HANGING)
    try:
        loose: list[Any] = db.execute(f"{LOOSE} UNION {MISNAMED}").fetchall()
    finally:
        db.execute("DROP TABLE temp.hanging")
    now_ns = time.time_ns()
    known = {row[0] for row in db.execute("SELECT id FROM branch")}
    for (entry_id,) in loose:
        row = entries.get(db, entry_id)
        if row is not None and row.branch_id in known and row.is_ours:
            limbo.put(db, row, now_ns)
        entries.delete(db, entry_id)
    wrong: list[Any] = db.execute(MISNUMBERED).fetchall()
    for (entry_id,) in wrong:
        taken = db.execute("SELECT 1 FROM entry WHERE node=?1 AND id<>?1", (entry_id,)).fetchone()
        if not taken:
            db.execute("UPDATE entry SET node=id WHERE id=?", (entry_id,))
    return [
        *_said(len(loose), "entries hung in no directory; the next scan finds them again"),
        *_said(len(wrong), "entries had the number of another file"),
    ]


def _contents(db: apsw.Connection) -> list[str]:
    """Contents that are not there are looked for again."""
    lost = "content_id IS NOT NULL AND content_id NOT IN (SELECT id FROM content)"
    unhashed = _count(db, f"UPDATE entry SET content_id=NULL, hash_state=0 WHERE id IN ({UNHASHED}) OR ({lost})")
    _count(db, f"UPDATE limbo SET content_id=NULL, hash_state=0 WHERE {lost}")
    _count(
        db,
        "UPDATE content SET type_id=NULL, type_method=NULL WHERE type_id IS NOT NULL "
        "AND type_id NOT IN (SELECT id FROM filetype)",
    )
    made = sum(
        _count(db, f"DELETE FROM {table} WHERE content_id NOT IN (SELECT id FROM content)")
        for table in ("manifest", "extracted", "sidecar")
    )
    return [*_said(unhashed, "files are hashed again"), *_said(made, "facts of contents that are not known any more")]


def _assignments(db: apsw.Connection) -> list[str]:
    gone = _count(db, "DELETE FROM tagging WHERE tag_id NOT IN (SELECT id FROM tag)")
    return _said(gone, "assignments are lost, since the names of their tags are")


def _facts(db: apsw.Connection, library: bytes, *, is_sure: bool) -> list[str]:
    done = []
    if changes.get_meta(db, "library_uuid") is None:
        changes.set_meta(db, "library_uuid", library)
        changes.set_meta(db, "created_ns", time.time_ns())
        done.append("who the library is was read from library.json")
    epoch = changes.get_meta(db, "epoch")
    if not isinstance(epoch, int):
        changes.set_meta(db, "epoch", int(time.time()))
    elif not is_sure:
        changes.set_meta(db, "epoch", epoch + 1)
    return done


def _counters(db: apsw.Connection, device: bytes, *, is_sure: bool) -> list[str]:
    """Beyond every number that was given."""
    done = []
    for name, sql in GIVEN.items():
        given = largest(db, sql, device)
        row = db.execute("SELECT value FROM counter WHERE name=?", (name,)).fetchone()
        value = 0 if row is None else int(row[0])
        wanted = max(given, value)
        if not is_sure:
            wanted = max(wanted, Hlc(time.time_ns() // 1_000_000, 0).packed()) if name == "hlc" else wanted + _LEAP
        if row is None or wanted > value:
            db.execute("INSERT OR REPLACE INTO counter VALUES(?,?)", (name, wanted))
            done.append(f"counter {name} goes on from {wanted}")
    return done


def _pointers(db: apsw.Connection) -> list[str]:
    """What still points nowhere goes."""
    gone = 0
    for _ in range(8):  # what goes may leave others pointing nowhere
        found: list[Any] = db.execute("PRAGMA foreign_key_check").fetchall()
        keyed = [(table, rowid) for table, rowid, _, _ in found if rowid is not None]
        if not keyed:
            break
        gone += sum(_count(db, f"DELETE FROM {table} WHERE rowid=?", rowid) for table, rowid in keyed)
    return _said(gone, "rows that pointed nowhere were removed")
