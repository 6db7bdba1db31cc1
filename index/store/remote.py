"""Rows of other devices: what a page says of them becomes rows of table entry, and of table detached for a while.

A row of another device is known by the number that it has there (`rid`, kept in the column st_ino, which means nothing
else for a file on another machine) and by its branch; uid and gid are -1. Everything about it is its owner's to say but
for the inode number in our mount.

Pages hold rows as they were when the page was made, the last state of each, so a step in between may be missing: a row
may come before its directory, under a name that another still has here, or below a directory that lies in it here.
Such a row is *detached*: it keeps its number, hangs nowhere (parent_id NULL), is seen by nobody, and gets its place as
soon as there is one. A directory that is gone while something still lies in it here is detached too, until the page
comes that says where that went. Once all pages are applied, nothing is detached.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw

from index.model import change
from index.model.entry import KIND_DIR, KIND_FILE, Entry
from index.store import contents, entries, targets
from index.store.contents import Read
from index.store.unit import Unit

SCHEMA = """
-- detached: entries of other devices that hang in no directory (their parent_id is NULL) and show nowhere.
--   branch_id   their branch
--   parent_rid  the number, at their owner, of the directory that they belong in, which has not come yet; NULL: they
--               are gone, or their owner is about to say where they are
--   is_gone     1: their owner said that they are gone; they go when nothing lies in them any more
CREATE TABLE detached(
    entry_id   INTEGER PRIMARY KEY,
    branch_id  INTEGER NOT NULL,
    parent_rid INTEGER,
    is_gone    INTEGER NOT NULL
) STRICT;
CREATE INDEX detached_parent ON detached(branch_id, parent_rid);
"""

#: What stands for the owner and the group of a file on another device.
NOBODY: Final = -1
_DEPTH_MAX: Final = 4096


class RemoteRow(NamedTuple):
    """A row as its owner tells it. parent_rid 0: the root of the branch."""

    rid: int
    parent_rid: int
    name: bytes
    uuid: bytes
    kind: int
    mode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    hash_state: int
    full: bytes | None
    sampled: bytes | None
    version: bytes | None
    target: bytes | None


class Known(NamedTuple):
    """What is known of a row here, as far as it is compared."""

    id: int
    parent_id: int | None
    name: bytes
    node: int
    uuid: bytes
    kind: int
    mode: int
    size_bytes: int
    mtime_ns: int
    content_id: int | None
    hash_state: int
    mark: int | None
    nlink: int


_KNOWN = (
    "SELECT st_ino, id, parent_id, name, node, uuid, kind, mode, size_bytes, mtime_ns, content_id, hash_state, "
    "scanned_mtime_ns, nlink FROM entry INDEXED BY entry_ino "
    "WHERE branch_id=? AND st_ino IN (SELECT value FROM json_each(?))"
)
_UPDATE = (
    "UPDATE entry SET parent_id=?, name=?, uuid=?, kind=?, mode=?, size_bytes=?, mtime_ns=?, ctime_ns=?, nlink=?, "
    "content_id=?, hash_state=?, version=?, seq=?, scanned_mtime_ns=? WHERE id=?"
)
#: A row o, but one, that goes by the number of e and is no name of its file: what has one name is one with replicas of
#: that in other branches, and what has several with those that have several.
_OF_ANOTHER = (
    "((o.id=e.node AND o.node=e.node) OR (o.node=e.node AND o.node<>o.id)) AND o.id NOT IN (e.id, :but) AND CASE "
    "o.branch_id WHEN e.branch_id THEN e.nlink<2 OR o.nlink<2 OR o.uuid IS NOT e.uuid ELSE e.nlink>1 AND o.nlink<2 END"
)


def known(db: apsw.Connection, branch_id: int, rids: Iterable[int]) -> dict[int, Known]:
    """Rows of a branch by the numbers they have at their owner."""
    return {row[0]: Known._make(row[1:]) for row in db.execute(_KNOWN, (branch_id, json.dumps(list(rids))))}


def has_beyond(db: apsw.Connection, branch_id: int, rid: int) -> bool:
    """Whether any row of a branch has a higher number at its owner; not, while it is told for the first time."""
    sql = "SELECT 1 FROM entry INDEXED BY entry_ino WHERE branch_id=? AND st_ino>? LIMIT 1"
    return db.execute(sql, (branch_id, rid)).fetchone() is not None


def apply(
    unit: Unit, branch_id: int, rows: Sequence[RemoteRow], canon: Mapping[bytes, bytes], mark: int
) -> list[Entry]:
    """Make rows of a branch say what their owner says; returns those that are new or have other names, bytes or uuids.

    `canon`: the uuids among them that are aliases, with what they are read as; `mark`: the round they are told in.
    """
    db = unit.db
    db.pragma("defer_foreign_keys", True)
    is_first = not has_beyond(db, branch_id, rows[0].rid - 1)
    if is_first and _apply_first(unit, branch_id, rows, canon, mark):
        return []
    wanted = {row.parent_rid for row in rows}
    if not is_first:
        wanted.update(row.rid for row in rows)
    have = known(db, branch_id, wanted)
    top = _top(db, branch_id)
    for row in rows:
        old = have.get(row.rid)
        if old is None:
            continue
        is_top = not row.parent_rid and old.id == top  # it is what it was, whatever it is called
        is_other = old.mark != mark and old.uuid != canon.get(row.uuid, row.uuid) and not is_top
        if is_other or old.kind != row.kind:
            _give_up_number(unit, old)
            del have[row.rid]
    ids = {rid: one.id for rid, one in have.items()}
    for row in rows:
        if row.rid not in ids:
            ids[row.rid] = unit.new_id()
    content_ids = _contents(db, rows)
    links = _links(unit, branch_id, [row for row in rows if row.rid not in have], ids, canon)
    fresh: list[Entry] = []
    changed: list[Entry] = []
    for row in rows:
        old = have.get(row.rid)
        entry_id = ids[row.rid]
        parent_id = ids.get(row.parent_rid)
        uuid = canon.get(row.uuid, row.uuid)
        new = Entry(
            entry_id, branch_id, parent_id, row.name, links.get(row.rid, entry_id) if old is None else old.node, uuid,
            row.kind, row.mode, row.size_bytes, row.mtime_ns, row.ctime_ns, row.rid, row.nlink, NOBODY, NOBODY,
            None if row.full is None else content_ids[row.full], row.hash_state, row.version, unit.seq, None, mark, 0,
        )  # fmt: skip
        if old is None:
            fresh.append(new)
        elif _put(unit, old, new, row):
            changed.append(new)
        if parent_id is None and row.parent_rid:
            _detach(db, entry_id, branch_id, row.parent_rid)
    changed += _insert(unit, fresh)
    for row in rows:
        old = have.get(row.rid)
        is_same = old is None or (old.uuid, old.nlink > 1) == (canon.get(row.uuid, row.uuid), row.nlink > 1)
        if not is_same and row.kind != KIND_DIR:
            _regroup(unit, ids[row.rid])
    for one in fresh:
        if one.parent_id is None and not one.name:
            db.execute("UPDATE branch SET root_entry_id=? WHERE id=?", (one.id, branch_id))
    for row in rows:
        if row.target is not None:
            targets.put(db, ids[row.rid], row.target)
    attach(unit, branch_id)
    return changed


def _apply_first(
    unit: Unit, branch_id: int, rows: Sequence[RemoteRow], canon: Mapping[bytes, bytes], mark: int
) -> bool:
    """`apply` for what a branch is told for the first time, at half the price: rows that nobody has, in directories
    that are there or among them, in a branch whose top is nobody else's. False where it is not that simple.

    Nobody can have asked for what is in a directory that was not there, so that alone is told of as new.
    """
    db = unit.db
    top = _top(db, branch_id)
    if top is None or unit.one_with(top):
        return False
    if canon or any(row.nlink > 1 and row.kind != KIND_DIR for row in rows):
        return False
    numbers = unit.new_ids(len(rows))
    ids = dict(zip([row.rid for row in rows], numbers, strict=True))
    have = known(db, branch_id, {row.parent_rid for row in rows} - ids.keys())
    above = {rid: one.id for rid, one in have.items()} | ids
    if not all(row.parent_rid in above for row in rows):
        return False
    content_ids = _contents(db, rows)
    seq = unit.seq
    fresh = [
        (number, branch_id, above[parent], name, number, uuid, kind, mode, size, mtime, ctime, rid, nlink, NOBODY,
         NOBODY, None if full is None else content_ids[full], state, version, seq, None, mark, 0)
        for number, (rid, parent, name, uuid, kind, mode, size, mtime, ctime, nlink, state, full, _, version, _)
        in zip(numbers, rows, strict=True)
    ]  # fmt: skip
    try:
        with db:  # a savepoint: all or none
            entries.insert_many(db, fresh)
    except apsw.ConstraintError:
        return False
    for row in rows:
        if row.target is not None:
            targets.put(db, ids[row.rid], row.target)
        if row.parent_rid in have:
            number = ids[row.rid]
            unit.changed(change.ADDED, branch_id, number, above[row.parent_rid], row.name, number)
    attach(unit, branch_id)  # what came before its directory
    return True


def _top(db: apsw.Connection, branch_id: int) -> int | None:
    """The row that the root of a branch is here."""
    row = db.execute("SELECT root_entry_id FROM branch WHERE id=?", (branch_id,)).fetchone()
    return None if row is None or row[0] is None else int(row[0])


def _give_up_number(unit: Unit, old: Known) -> None:
    """Its owner came back from an old copy, and gives another file the number that this one had."""
    _let_go(unit, old.id)
    unit.db.execute("UPDATE entry SET st_ino=-id WHERE id=?", (old.id,))


def _contents(db: apsw.Connection, rows: Sequence[RemoteRow]) -> dict[bytes, int]:
    """The ids of the contents that rows have."""
    read = {row.full: Read(row.sampled or b"", row.full, row.size_bytes, None) for row in rows if row.full is not None}
    if not read:
        return {}
    return dict(zip(read, contents.exact(db, list(read.values())), strict=True))


def _links(
    unit: Unit, branch_id: int, rows: Sequence[RemoteRow], ids: Mapping[int, int], canon: Mapping[bytes, bytes]
) -> dict[int, int]:
    """The inode numbers of new rows that are names of a hard-linked file, known by its uuid, by their own numbers."""
    first: dict[bytes, int] = {}
    links: dict[int, int] = {}
    for row in rows:
        if row.nlink < 2 or row.kind == KIND_DIR:
            continue
        uuid = canon.get(row.uuid, row.uuid)
        if uuid not in first:
            number = _number_of_links(unit.db, branch_id, uuid)
            first[uuid] = ids[row.rid] if number is None else number
        links[row.rid] = first[uuid]
    return links


def _number_of_links(db: apsw.Connection, branch_id: int, uuid: bytes, but: int = 0) -> int | None:
    """The inode number of a hard-linked file, known by its uuid, as one of its names but one has it for the file."""
    sql = (
        "SELECT e.node FROM entry e WHERE e.uuid=:uuid AND e.branch_id=:branch AND e.nlink>1 AND e.kind<>1 "
        f"AND e.id<>:but AND NOT EXISTS (SELECT 1 FROM entry o WHERE {_OF_ANOTHER}) LIMIT 1"
    )
    row = db.execute(sql, {"uuid": uuid, "branch": branch_id, "but": but}).fetchone()
    return None if row is None else int(row[0])


def _regroup(unit: Unit, entry_id: int) -> None:
    """A file is one with others than before, or alone: names of one file of a branch have one inode number, and those
    of several have several."""
    row = entries.get(unit.db, entry_id)
    assert row is not None
    number = None
    if row.nlink > 1 and row.uuid is not None:
        number = _number_of_links(unit.db, row.branch_id, row.uuid, entry_id)
    if number is None:
        sql = f"SELECT 1 FROM entry e JOIN entry o ON {_OF_ANOTHER} WHERE e.id=:but LIMIT 1"
        if unit.db.execute(sql, {"but": entry_id}).fetchone() is None:
            return
        number = unit.new_id()
    if number != row.node:
        entries.set_node(unit.db, entry_id, number, unit.seq)
        if row.parent_id is not None:
            unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
            unit.changed(change.ADDED, row.branch_id, row.id, row.parent_id, row.name, number)


def _insert(unit: Unit, fresh: list[Entry]) -> list[Entry]:
    """Add rows; where a name is taken, by a row whose owner will say where it is, that one gives way."""
    if not fresh:
        return []
    db = unit.db
    try:
        with db:  # a savepoint: all or none
            entries.insert_many(db, fresh)
    except apsw.ConstraintError:
        for row in fresh:
            _make_way(unit, row.parent_id, row.name, row.id)
            entries.insert(db, row)
    for row in fresh:
        if row.parent_id is not None:
            unit.changed(change.ADDED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    return fresh


def _put(unit: Unit, old: Known, new: Entry, row: RemoteRow) -> bool:
    """Write what is new of a row; returns whether that is its name, its bytes or its uuid."""
    moved = (old.parent_id, old.name) != (new.parent_id, new.name)
    if moved and new.kind == KIND_DIR and new.parent_id is not None and _lies_in(unit.db, new.parent_id, new.id):
        _detach(unit.db, new.id, new.branch_id, row.parent_rid)  # what is above it has not been told yet
        new = new._replace(parent_id=None)
    if moved:
        if old.parent_id is not None:
            unit.changed(change.REMOVED, new.branch_id, new.id, old.parent_id, old.name, new.node)
        _make_way(unit, new.parent_id, new.name, new.id)
    unit.db.execute(
        _UPDATE,
        (
            new.parent_id, new.name, new.uuid, new.kind, new.mode, new.size_bytes, new.mtime_ns, new.ctime_ns,
            new.nlink, new.content_id, new.hash_state, new.version, unit.seq, new.scanned_mtime_ns, new.id,
        ),
    )  # fmt: skip
    if new.parent_id is not None or not row.parent_rid:  # it hangs somewhere, or is the top
        unit.db.execute("DELETE FROM detached WHERE entry_id=?", (new.id,))
    if new.parent_id is None:
        return True
    bytes_differ = (old.size_bytes, old.mtime_ns, old.content_id) != (new.size_bytes, new.mtime_ns, new.content_id)
    what = change.DATA if bytes_differ and new.kind == KIND_FILE else change.ATTRS
    if moved:
        what = change.ADDED
    unit.changed(what, new.branch_id, new.id, new.parent_id, new.name, new.node)
    if old.uuid != new.uuid:
        unit.changed(change.META, new.branch_id, new.id, new.parent_id, new.name, new.node)
    return moved or bytes_differ or old.uuid != new.uuid or old.hash_state != new.hash_state


def _make_way(unit: Unit, parent_id: int | None, name: bytes, entry_id: int) -> None:
    """Whoever else has a name here is elsewhere by now, or gone, as its owner will say."""
    if parent_id is None:
        return
    held = entries.child(unit.db, parent_id, name)
    if held is not None and held.id != entry_id:
        _take_down(unit, held, is_gone=False)


def _let_go(unit: Unit, entry_id: int) -> None:
    """A row is gone at its owner, wherever it hung here; it goes when nothing lies in it any more."""
    row = entries.get(unit.db, entry_id)
    if row is not None and row.parent_id is not None:
        _take_down(unit, row, is_gone=True)
    elif row is not None:
        unit.db.execute("INSERT OR REPLACE INTO detached VALUES(?,?,NULL,1)", (row.id, row.branch_id))


def _take_down(unit: Unit, row: Entry, *, is_gone: bool) -> None:
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    unit.db.execute("UPDATE entry SET parent_id=NULL, seq=? WHERE id=?", (unit.seq, row.id))
    unit.db.execute("INSERT OR REPLACE INTO detached VALUES(?,?,NULL,?)", (row.id, row.branch_id, int(is_gone)))


def _detach(db: apsw.Connection, entry_id: int, branch_id: int, parent_rid: int) -> None:
    db.execute("INSERT OR REPLACE INTO detached VALUES(?,?,?,0)", (entry_id, branch_id, parent_rid))


def _lies_in(db: apsw.Connection, entry_id: int | None, above_id: int) -> bool:
    """Whether a row is another or hangs below it; True also where the way up has no end."""
    for _ in range(_DEPTH_MAX):
        if entry_id is None:
            return False
        if entry_id == above_id:
            return True
        found = db.execute("SELECT parent_id FROM entry WHERE id=?", (entry_id,)).fetchone()
        entry_id = None if found is None else found[0]
    return True


_ATTACHABLE: Final = (
    "SELECT d.entry_id, p.id FROM detached d JOIN entry p ON p.branch_id=d.branch_id AND p.st_ino=d.parent_rid "
    "WHERE d.branch_id=? AND d.parent_rid IS NOT NULL"
)


def attach(unit: Unit, branch_id: int) -> None:
    """Put what is detached into directories that are there by now, where its name is free. Where it is not, its owner
    has moved either of the two since: whichever that was will be told."""
    db = unit.db
    if db.execute("SELECT 1 FROM detached WHERE branch_id=? LIMIT 1", (branch_id,)).fetchone() is None:
        return
    found: list[Any] = db.execute(_ATTACHABLE, (branch_id,)).fetchall()
    for entry_id, parent_id in found:
        row = entries.get(db, entry_id)
        if row is None or _lies_in(db, parent_id, entry_id) or entries.child(db, parent_id, row.name) is not None:
            continue
        db.execute("UPDATE entry SET parent_id=?, seq=? WHERE id=?", (parent_id, unit.seq, entry_id))
        db.execute("DELETE FROM detached WHERE entry_id=?", (entry_id,))
        unit.changed(change.ADDED, branch_id, entry_id, parent_id, row.name, row.node)


def remove(unit: Unit, branch_id: int, rids: Sequence[int]) -> None:
    """Rows are gone at their owner, or held back. What still lies in one of them here will be told of."""
    for one in sorted(known(unit.db, branch_id, rids).values(), reverse=True):
        _let_go(unit, one.id)
    sweep(unit, branch_id)
    attach(unit, branch_id)


def sweep(unit: Unit, branch_id: int) -> None:
    """Let go of what is gone and has nothing in it."""
    db = unit.db
    while True:
        empty: list[Any] = db.execute(
            "SELECT entry_id FROM detached WHERE branch_id=? AND is_gone=1 "
            "AND NOT EXISTS (SELECT 1 FROM entry c WHERE c.parent_id=detached.entry_id)",
            (branch_id,),
        ).fetchall()
        if not empty:
            return
        db.executemany("DELETE FROM detached WHERE entry_id=?", empty)
        for (entry_id,) in empty:
            db.execute("UPDATE branch SET root_entry_id=NULL WHERE id=? AND root_entry_id=?", (branch_id, entry_id))
            entries.delete(db, entry_id)


def clear(unit: Unit, branch_id: int, limit: int) -> None:
    """Let go of some rows of a branch that is none any more."""
    unit.db.execute("UPDATE branch SET root_entry_id=NULL WHERE id=?", (branch_id,))
    sql = "SELECT st_ino FROM entry INDEXED BY entry_ino WHERE branch_id=? AND id NOT IN "
    sql += "(SELECT entry_id FROM detached WHERE is_gone=1) ORDER BY id DESC LIMIT ?"
    remove(unit, branch_id, [int(row[0]) for row in unit.db.execute(sql, (branch_id, limit))])


def of_other_rounds(
    db: apsw.Connection, branch_id: int, mark: int, after_rid: int, limit: int
) -> tuple[list[int], int | None]:
    """Of the next rows of a branch (their owner's numbers) those that were not told in this round; and where to look
    on, None at the end."""
    sql = "SELECT st_ino, scanned_mtime_ns FROM entry WHERE branch_id=? AND st_ino>? ORDER BY st_ino LIMIT ?"
    rows: list[Any] = db.execute(sql, (branch_id, after_rid, limit)).fetchall()
    return [rid for rid, told in rows if told != mark], rows[-1][0] if len(rows) == limit else None
