"""Table entry: every file, directory, symlink and special file of every branch, one row a name.

The tree is an adjacency list (parent_id), unique by (parent_id, name), which costs one indexed query a lookup and one
UPDATE for a move of any size. Rows are handed out in breadth-first order with names sorted, which keeps both b-trees
append-only while a tree is scanned for the first time.

All functions take the connection first and do not open transactions: writers are called inside a `Unit`.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import apsw

from index.model.entry import NAME_MAX_BYTES, Entry, ns
from index.model.inode import inode_of
from index.store import sums
from index.store.connection import one

SCHEMA = """
-- entry: one replica, a name on one branch, owned by the branch's device.
--   id         handed out by counter 'entry', never reused
--   parent_id  the directory's row; NULL for the root row of a branch, whose name is empty; and of a row of another
--              device that is detached: it waits for its directory, or for the rest of a rename, and shows nowhere
--   name       bytes as the disk has them
--   node       the inode number in the mount: one for a union name whichever replica is shown, one for the hard
--              linked names of a real file; equal to the id of the row that got it first, hence never reused
--   uuid       names the logical file, shared by its replicas and its hard links. Directories and symlinks have it at
--              once, files when they are identified or annotated; until then it is NULL and no other device hears of it
--   kind       0 file, 1 directory, 2 symlink, 3 fifo, socket or device
--   mode … gid what lstat said last; times in nanoseconds; for a directory nlink and size are what they were then.
--              A row of another device says what that one told: uid and gid are -1, st_ino is the number that the row
--              has there, scanned_ns is NULL. But for node, rule and seq its columns are its owner's to write
--   content_id the bytes, once known; hash_state 0 nothing, 1 sampled, 2 full, 3 could not be read, 4 left
--   version    packed version vector; NULL stands for {this branch: 1}, the vector of a file that was there when its
--              branch was listed first, and never changed
--   seq        the unit that wrote the row last, here; of rows of ours what other devices page by
--   scanned_ns, scanned_mtime_ns  directories only: wall clock at the last whole listing, and the directory's mtime
--              then; NULL = never listed
--   rule       what holds the entry back from being read, searched and told; 0 nothing, else a rule of its location
--              (docs/rules.md). What is known of it stays known. -1: it is another device's, and its name was taken
--              away here (table whiteout): only who asks what that device has is told of it
CREATE TABLE entry(
    id               INTEGER PRIMARY KEY,
    branch_id        INTEGER NOT NULL REFERENCES branch(id),
    parent_id        INTEGER REFERENCES entry(id),
    name             BLOB NOT NULL,
    node             INTEGER NOT NULL,
    uuid             BLOB,
    kind             INTEGER NOT NULL,
    mode             INTEGER NOT NULL,
    size_bytes       INTEGER NOT NULL,
    mtime_ns         INTEGER NOT NULL,
    ctime_ns         INTEGER NOT NULL,
    st_ino           INTEGER NOT NULL,
    nlink            INTEGER NOT NULL,
    uid              INTEGER NOT NULL,
    gid              INTEGER NOT NULL,
    content_id       INTEGER REFERENCES content(id),
    hash_state       INTEGER NOT NULL DEFAULT 0,
    version          BLOB,
    seq              INTEGER NOT NULL,
    scanned_ns       INTEGER,
    scanned_mtime_ns INTEGER,
    rule             INTEGER NOT NULL DEFAULT 0
) STRICT;
-- child(), children(): every lookup and listing.
CREATE UNIQUE INDEX entry_name ON entry(parent_id, name);
-- subdirectories(), the walk of the scan, paths of a subtree.
CREATE INDEX entry_dirs ON entry(parent_id) WHERE kind = 1;
-- by_st_ino(): hard links and moves, found by the number the disk gave.
CREATE INDEX entry_ino ON entry(branch_id, st_ino);
-- by_node(): replicas and names of one inode. Most rows are the only one of their number, which is then their id.
CREATE INDEX entry_node ON entry(node) WHERE node <> id;
-- by_uuid(): from tags and attributes to names.
CREATE INDEX entry_uuid ON entry(uuid) WHERE uuid IS NOT NULL;
-- names.with_hash(), names.duplicate_hashes(): content/<hash>, duplicates.
CREATE INDEX entry_content ON entry(content_id) WHERE content_id IS NOT NULL;
"""
#: unidentified(): the queue of the hasher. Apart, since a step of the schema made it anew.
TODO = """
-- unidentified(): the queue of the hasher.
CREATE INDEX entry_todo ON entry(branch_id, hash_state, id)
    WHERE kind = 0 AND hash_state < 2 AND size_bytes > 0 AND rule = 0 AND uid >= 0;
"""
SCHEMA += TODO
#: What other devices are told of our rows: not what a rule holds back; of files those whose bytes are known, or not to
#: be known.
TELLABLE = "rule=0 AND uid>=0 AND (kind<>0 OR size_bytes=0 OR hash_state>=2)"
#: The same, of a row that a statement calls e.
E_TELLABLE = "e.rule=0 AND e.uid>=0 AND (e.kind<>0 OR e.size_bytes=0 OR e.hash_state>=2)"
#: Apart, since a step of the schema made it.
BY_SEQ = f"""
-- told_since(): what others have not heard yet.
CREATE INDEX entry_seq ON entry(seq) WHERE {TELLABLE};
"""
SCHEMA += BY_SEQ

COLUMNS = (
    "id, branch_id, parent_id, name, node, uuid, kind, mode, size_bytes, mtime_ns, ctime_ns, st_ino, nlink, uid, gid, "
    "content_id, hash_state, version, seq, scanned_ns, scanned_mtime_ns, rule"
)
#: The same of a table that is called e in a query.
E_COLUMNS = ", ".join(f"e.{column.strip()}" for column in COLUMNS.split(","))
_SELECT = f"SELECT {COLUMNS} FROM entry "
#: The rows of a number, in a form that the partial index entry_node and the key serve.
_OF_NODE = "((id=:node AND node=:node) OR (node=:node AND node<>id))"
_IDENTITY = "UPDATE entry SET content_id=?, hash_state=?, uuid=coalesce(uuid, ?), seq=? WHERE id=?"
_INSERT = f"INSERT INTO entry({COLUMNS}) VALUES({','.join('?' * 22)})"


def get(db: apsw.Connection, entry_id: int) -> Entry | None:
    """One row by id: one query on the primary key."""
    row = db.execute(_SELECT + "WHERE id=?", (entry_id,)).fetchone()
    return Entry._make(row) if row else None


def child(db: apsw.Connection, parent_id: int, name: bytes) -> Entry | None:
    """The row of a name in a directory: one indexed query."""
    row = db.execute(_SELECT + "WHERE parent_id=? AND name=?", (parent_id, name)).fetchone()
    return Entry._make(row) if row else None


def children(db: apsw.Connection, parent_id: int) -> list[Entry]:
    """All rows of a directory, by name."""
    return [Entry._make(row) for row in db.execute(_SELECT + "WHERE parent_id=? ORDER BY name", (parent_id,))]


def is_below(db: apsw.Connection, entry_id: int | None, above_id: int) -> bool:
    """Whether a row is another or hangs below it."""
    while entry_id is not None:
        if entry_id == above_id:
            return True
        row = get(db, entry_id)
        entry_id = None if row is None else row.parent_id
    return False


def some_children(db: apsw.Connection, parent_id: int, limit: int) -> list[Entry]:
    """Up to so many rows of a directory, in no order."""
    return [Entry._make(row) for row in db.execute(_SELECT + "WHERE parent_id=? LIMIT ?", (parent_id, limit))]


def names_beginning(db: apsw.Connection, parent_id: int, stem: bytes) -> list[bytes]:
    """The names of a directory that begin so, as far as they show."""
    sql = "SELECT name FROM entry WHERE parent_id=? AND name>=? AND name<? AND rule>=0"
    return [name for (name,) in db.execute(sql, (parent_id, stem, stem + b"\xff" * (NAME_MAX_BYTES + 1)))]


#: Of a row, what a walk holds against the disk: id, seq, rule, then what `seen_as` says of a stat.
Known = tuple[int, ...]
#: Where in it that begins.
KNOWN_SEEN = 3


def known_names(db: apsw.Connection, parent_id: int) -> dict[bytes, Known]:
    """The names of a directory with the columns that a walk compares, in no order; a third of what whole rows cost."""
    rows = db.execute(
        "SELECT name, id, seq, rule, mtime_ns, size_bytes, ctime_ns, st_ino, mode, nlink, uid, gid FROM entry "
        "WHERE parent_id=?",
        (parent_id,),
    )
    return {row[0]: row[1:] for row in rows}


def seen_as(st: os.stat_result) -> tuple[int, ...]:
    """A stat in the shape of the end of `Known`."""
    mtime_ns, ctime_ns = ns(st.st_mtime_ns), ns(st.st_ctime_ns)
    return mtime_ns, st.st_size, ctime_ns, inode_of(st), st.st_mode, st.st_nlink, st.st_uid, st.st_gid


def listed_as(db: apsw.Connection, directory_id: int) -> tuple[int | None, int | None, int, int] | None:
    """(when a directory was listed, the mtime it had then, its inode, its rule); None where it has no row."""
    found: tuple[int | None, int | None, int, int] | None = db.execute(
        "SELECT scanned_ns, scanned_mtime_ns, st_ino, rule FROM entry WHERE id=?", (directory_id,)
    ).fetchone()
    return found


def ruled_names(db: apsw.Connection, parent_id: int) -> list[tuple[int, bytes, int, int]]:
    """The names of a directory with what a ruler holds against them: (id, name, kind, rule), by name."""
    sql = "SELECT id, name, kind, rule FROM entry WHERE parent_id=? ORDER BY name"
    return [(int(i), bytes(n), int(k), int(r)) for i, n, k, r in db.execute(sql, (parent_id,))]


def subdirectories(db: apsw.Connection, parent_id: int) -> list[tuple[int, bytes]]:
    return [
        (int(i), bytes(n))
        for i, n in db.execute("SELECT id, name FROM entry WHERE parent_id=? AND kind=1", (parent_id,))
    ]


def by_st_ino(db: apsw.Connection, branch_id: int, st_ino: int, limit: int = -1) -> list[Entry]:
    """The rows of a branch with an inode: one, or the names of a hard-linked file."""
    rows = db.execute(_SELECT + "WHERE branch_id=? AND st_ino=? LIMIT ?", (branch_id, st_ino, limit))
    return [Entry._make(row) for row in rows]


def other_nodes(db: apsw.Connection, row: Entry) -> list[Entry]:
    """The rows of a branch with the inode of a file that do not share its number."""
    rows = db.execute(_SELECT + "WHERE branch_id=? AND st_ino=? AND node<>?", (row.branch_id, row.st_ino, row.node))
    return [Entry._make(found) for found in rows]


def by_node(db: apsw.Connection, node: int) -> list[Entry]:
    sql = f"{_SELECT}WHERE id=? AND node=? UNION ALL {_SELECT}WHERE node=? AND node <> id ORDER BY id"
    return [Entry._make(row) for row in db.execute(sql, (node, node, node))]


def some_of_node(db: apsw.Connection, node: int, limit: int) -> list[Entry]:
    """A few of the rows of a number, in no order: a file may have thousands of names, and sorting costs all of them."""
    sql = f"{_SELECT}WHERE id=? AND node=? UNION ALL {_SELECT}WHERE node=? AND node <> id LIMIT ?"
    return [Entry._make(row) for row in db.execute(sql, (node, node, node, limit))]


def holding(db: apsw.Connection, content_id: int) -> Iterator[Entry]:
    """The files that hold a content for certain, in no order, one at a time: there may be thousands."""
    sql = f"{_SELECT}INDEXED BY entry_content WHERE content_id=? AND hash_state=2 AND kind=0"
    return (Entry._make(row) for row in db.execute(sql, (content_id,)))


def by_uuid(db: apsw.Connection, uuid: bytes) -> list[Entry]:
    return [Entry._make(row) for row in db.execute(_SELECT + "WHERE uuid=? ORDER BY id", (uuid,))]


def unidentified(
    db: apsw.Connection, branch_id: int, state: int, after_id: int, before_ns: int, limit: int
) -> list[Entry]:
    """Files of a branch that wait for the hasher in a state and have been left alone since a time, in id order: pages.

    A time in the future (a clock that was set back) says nothing and does not hold a file up. The conditions of the
    partial index are repeated word for word, or SQLite would not use it.
    """
    return [
        Entry._make(row)
        for row in db.execute(
            f"{_SELECT}INDEXED BY entry_todo WHERE kind=0 AND hash_state<2 AND size_bytes>0 AND rule=0 "
            "AND uid>=0 AND branch_id=? AND hash_state=? AND id>? AND ctime_ns NOT BETWEEN ? AND ? "
            "ORDER BY id LIMIT ?",
            (branch_id, state, after_id, before_ns, before_ns + 10_000_000_000, limit),
        )
    ]


def unread_of(db: apsw.Connection, entry_ids: Sequence[int]) -> frozenset[int]:
    """Those of some entries that nobody reads as they are: directories and empty files. One query."""
    found = db.execute(
        "SELECT id FROM entry WHERE id IN (SELECT value FROM json_each(?)) AND (kind=1 OR (kind=0 AND size_bytes=0))",
        (json.dumps(entry_ids),),
    )
    return frozenset(entry_id for (entry_id,) in found)


def written_since(db: apsw.Connection, seq: int, after: int, passed_max: int) -> tuple[list[int], int | None]:
    """The files and directories of this device among the next rows by id that a unit after `seq` wrote; and the id to
    go on after, None at the end."""
    last = one(db, "SELECT max(id) FROM (SELECT id FROM entry WHERE id>? ORDER BY id LIMIT ?)", after, passed_max)[0]
    if last is None:
        return [], None
    sql = "SELECT id FROM entry WHERE id>? AND id<=? AND seq>? AND uid>=0 AND kind IN (0, 1) ORDER BY id"
    return [entry_id for (entry_id,) in db.execute(sql, (after, last, seq))], last


def some(db: apsw.Connection, entry_ids: Sequence[int]) -> dict[int, Entry]:
    """Those of some rows that there are, by id: one query."""
    found = db.execute(_SELECT + "WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(entry_ids),))
    return {row[0]: Entry._make(row) for row in found}


def is_empty(db: apsw.Connection, directory: int) -> bool:
    """Whether a directory has no rows in it."""
    return db.execute("SELECT 1 FROM entry WHERE parent_id=? LIMIT 1", (directory,)).fetchone() is None


def leave_unhashed(db: apsw.Connection, entry_ids: Iterable[int]) -> None:
    """Files that nobody is to read leave the queue, until they change or stand elsewhere."""
    db.executemany("UPDATE entry SET hash_state=4 WHERE id=?", [(entry_id,) for entry_id in entry_ids])


#: As many files as are counted where somebody waits.
COUNTED_MAX = 10_000


def count_unidentified(db: apsw.Connection) -> int:
    """How many files wait for their full hash, COUNTED_MAX at most; a look at the queue's index only."""
    waiting = "SELECT 1 FROM entry WHERE kind=0 AND hash_state<2 AND size_bytes>0 AND rule=0 AND uid>=0 LIMIT ?"
    sql = f"SELECT count(*) FROM ({waiting})"
    return int(one(db, sql, COUNTED_MAX)[0])


def has_unidentified(db: apsw.Connection) -> bool:
    """Whether a file waits for its full hash."""
    sql = "SELECT 1 FROM entry WHERE kind=0 AND hash_state<2 AND size_bytes>0 AND rule=0 AND uid>=0 LIMIT 1"
    return db.execute(sql).fetchone() is not None


def unidentified_in(db: apsw.Connection, branch_id: int) -> tuple[int, int]:
    """(files, bytes) of a branch that wait for their full hash: a pass over these, for a thread."""
    sql = (
        "SELECT count(*), coalesce(sum(size_bytes), 0) FROM entry INDEXED BY entry_todo "
        "WHERE kind=0 AND hash_state<2 AND size_bytes>0 AND rule=0 AND uid>=0 AND branch_id=?"
    )
    files, size_bytes = one(db, sql, branch_id)
    return int(files), int(size_bytes)


def has_left(db: apsw.Connection, branch_id: int) -> bool:
    """Whether there are such files as `queue_left` is for: a pass over the table, for a thread."""
    sql = "SELECT 1 FROM entry WHERE branch_id=? AND kind=0 AND hash_state IN (3, 4) LIMIT 1"
    return db.execute(sql, (branch_id,)).fetchone() is not None


def queue_left(db: apsw.Connection, branch_id: int, first_id: int, end_id: int) -> None:
    """Those of some rows that are files of a branch and were not to be read, or could not be, wait for the hasher
    again."""
    sql = "UPDATE entry SET hash_state=0 WHERE id>=? AND id<? AND branch_id=? AND kind=0 AND hash_state IN (3, 4)"
    db.execute(sql, (first_id, end_id, branch_id))


def recent(db: apsw.Connection, limit: int) -> list[Entry]:
    """The newest files: a pass over the table, for a thread."""
    sql = _SELECT + "WHERE kind=0 AND rule>=0 ORDER BY mtime_ns DESC LIMIT ?"
    return [Entry._make(row) for row in db.execute(sql, (limit,))]


def path_of(db: apsw.Connection, entry_id: int) -> list[bytes]:
    """The names from the branch's root to an entry, root excluded: one recursive query."""
    rows = db.execute(
        "WITH RECURSIVE up(id, parent_id, name, depth) AS ("
        " SELECT id, parent_id, name, 0 FROM entry WHERE id=?"
        " UNION ALL SELECT e.id, e.parent_id, e.name, up.depth+1 FROM up JOIN entry e ON e.id = up.parent_id)"
        " SELECT name FROM up WHERE parent_id IS NOT NULL ORDER BY depth DESC",
        (entry_id,),
    )
    return [bytes(r[0]) for r in rows]


def place_of(db: apsw.Connection, entry_id: int) -> list[bytes] | None:
    """`path_of` of a row that may be another device's: None where it hangs in no branch (yet)."""
    rows: list[tuple[int | None, bytes]] = db.execute(
        "WITH RECURSIVE up(parent_id, name, depth) AS ("
        " SELECT parent_id, name, 0 FROM entry WHERE id=?"
        " UNION ALL SELECT e.parent_id, e.name, up.depth+1 FROM up JOIN entry e ON e.id = up.parent_id)"
        " SELECT parent_id, name FROM up ORDER BY depth DESC",
        (entry_id,),
    ).fetchall()  # type: ignore[assignment]
    if not rows or rows[0][0] is not None or rows[0][1]:
        return None
    return [bytes(name) for _, name in rows[1:]]


def has_detached(db: apsw.Connection) -> bool:
    """Whether some row hangs in no branch; a look at an index."""
    return db.execute("SELECT 1 FROM entry WHERE parent_id IS NULL AND name > x'' LIMIT 1").fetchone() is not None


def placed(db: apsw.Connection, entry_id: int) -> tuple[int | None, bytes] | None:
    """The directory that an entry is in, and its name there."""
    row = db.execute("SELECT parent_id, name FROM entry WHERE id=?", (entry_id,)).fetchone()
    return None if row is None else (row[0], bytes(row[1]))


def insert_many(db: apsw.Connection, rows: Sequence[Entry | tuple[Any, ...]]) -> None:
    """Add rows (or what has their shape) whose ids were handed out by the unit."""
    db.executemany(_INSERT, rows)
    sums.added(db, rows)


def insert(db: apsw.Connection, row: Entry) -> None:
    db.execute(_INSERT, row)
    sums.added(db, (row,))


def set_stat(db: apsw.Connection, entry_id: int, st: tuple[int, ...], seq: int) -> None:
    """Write what the disk says: (mode, size, mtime, ctime, st_ino, nlink, uid, gid)."""
    db.execute(
        "UPDATE entry SET mode=?, size_bytes=?, mtime_ns=?, ctime_ns=?, st_ino=?, nlink=?, uid=?, gid=?, seq=? "
        "WHERE id=?",
        (*st, seq, entry_id),
    )


def set_changed(db: apsw.Connection, entry_id: int, version: bytes, seq: int) -> None:
    """The bytes are new: their identity is unknown again and the version has moved on."""
    db.execute("UPDATE entry SET content_id=NULL, hash_state=0, version=?, seq=? WHERE id=?", (version, seq, entry_id))


def set_unsure(db: apsw.Connection, entry_id: int, seq: int) -> None:
    """The bytes may be new: they are to be read again, and until then are taken to be what they were."""
    db.execute("UPDATE entry SET hash_state=0, seq=? WHERE id=?", (seq, entry_id))


def set_identity(
    db: apsw.Connection, entry_id: int, content_id: int | None, state: int, uuid: bytes | None, seq: int
) -> None:
    db.execute(_IDENTITY, (content_id, state, uuid, seq, entry_id))


def set_identities(db: apsw.Connection, found: Iterable[tuple[int | None, int, bytes | None, int, int]]) -> None:
    """`set_identity` of many: (content_id, state, uuid, seq, entry id)."""
    db.executemany(_IDENTITY, found)


def set_uuid(db: apsw.Connection, entry_id: int, uuid: bytes | None, seq: int) -> None:
    db.execute("UPDATE entry SET uuid=?, seq=? WHERE id=?", (uuid, seq, entry_id))


def name_links(db: apsw.Connection, entry_id: int, uuid: bytes) -> None:
    """Give a row its first uuid, and the other names of its inode in the branch the same; nothing is told of it."""
    row = get(db, entry_id)
    if row is None:
        return
    sql = f"UPDATE entry SET uuid=:uuid WHERE {_OF_NODE} AND branch_id=:branch AND st_ino=:st_ino AND uuid IS NULL"
    db.execute(sql, {"uuid": uuid, "node": row.node, "branch": row.branch_id, "st_ino": row.st_ino})


def read_uuid_as(db: apsw.Connection, uuid: bytes, kept: bytes) -> None:
    """A uuid is an alias: whoever has it goes by another, on every device, so that nothing is told of it."""
    db.execute("UPDATE entry SET uuid=? WHERE uuid=?", (kept, uuid))


def is_shared(db: apsw.Connection, row: Entry) -> bool:
    """Whether another inode goes by the row's number: a replica on another branch, or who was one and came here."""
    sql = f"SELECT 1 FROM entry WHERE {_OF_NODE} AND (branch_id<>:branch OR st_ino<>:st_ino) LIMIT 1"
    found = db.execute(sql, {"node": row.node, "branch": row.branch_id, "st_ino": row.st_ino})
    return found.fetchone() is not None


def has_replica(db: apsw.Connection, row: Entry) -> bool:
    """Whether a row of another branch goes by the row's number."""
    sql = f"SELECT 1 FROM entry WHERE {_OF_NODE} AND branch_id<>:branch LIMIT 1"
    return db.execute(sql, {"node": row.node, "branch": row.branch_id}).fetchone() is not None


_BELOW_OURS = (
    "WITH RECURSIVE d(id) AS (SELECT id FROM entry WHERE id=:top AND kind=1 UNION ALL "
    "SELECT e.id FROM d CROSS JOIN entry e INDEXED BY entry_dirs ON e.parent_id=d.id AND e.kind=1) "
    "SELECT e.id FROM entry e WHERE e.id=:top AND {0} "
    "UNION ALL SELECT e.id FROM d CROSS JOIN entry e ON e.parent_id=d.id WHERE {0}"
)
_HELD_ELSEWHERE = (
    "(EXISTS (SELECT 1 FROM entry o WHERE o.uuid=e.uuid AND o.uid<0) OR EXISTS (SELECT 1 FROM entry o WHERE "
    "((o.id=e.node AND o.node=e.node) OR (o.node=e.node AND o.node<>o.id)) AND o.uid<0))"
)
_SHARED = "(e.node<>e.id OR EXISTS (SELECT 1 FROM entry o INDEXED BY entry_node WHERE o.node=e.id AND o.node<>o.id))"


def held_elsewhere(db: apsw.Connection, top: int) -> list[int]:
    """An entry of ours and those below it, as far as other devices hold what is one with it by number or uuid."""
    return [int(row[0]) for row in db.execute(_BELOW_OURS.format(_HELD_ELSEWHERE), {"top": top})]


def shared_below(db: apsw.Connection, top: int) -> list[int]:
    """An entry and those below it, as far as another row goes by the number."""
    return [int(row[0]) for row in db.execute(_BELOW_OURS.format(_SHARED), {"top": top})]


def apart(db: apsw.Connection, after_id: int, limit: int) -> list[tuple[tuple[int, bytes], int]]:
    """Names that other devices have, where what is beside them in the same directory of the union, of the same kind,
    goes by another number: ((directory, name), row), in the order of rows. A pass over the entries, for a thread."""
    sql = (
        "SELECT e.parent_id, e.name, e.id FROM entry e CROSS JOIN entry p ON p.id=e.parent_id CROSS JOIN entry t ON "
        "((t.id=p.node AND t.node=p.node) OR (t.node=p.node AND t.node<>t.id)) AND t.id<>p.id "
        "CROSS JOIN entry o ON o.parent_id=t.id AND o.name=e.name "
        "WHERE e.id>? AND e.uid<0 AND e.rule=0 AND o.node<>e.node AND o.kind=e.kind ORDER BY e.id LIMIT ?"
    )
    return [((int(row[0]), bytes(row[1])), int(row[2])) for row in db.execute(sql, (after_id, limit))]


def has_rival(db: apsw.Connection, row: Entry) -> bool:
    """Whether another inode of the row's own branch goes by its number."""
    sql = f"SELECT 1 FROM entry WHERE {_OF_NODE} AND +branch_id=:branch AND st_ino<>:st_ino LIMIT 1"
    found = db.execute(sql, {"node": row.node, "branch": row.branch_id, "st_ino": row.st_ino})
    return found.fetchone() is not None


def one_with(db: apsw.Connection, directory: int) -> list[int]:
    """The directories of other branches that are one with a directory."""
    row = get(db, directory)
    if row is None:
        return []
    sql = f"SELECT id FROM entry WHERE {_OF_NODE} AND id<>:own"
    return [found[0] for found in db.execute(sql, {"node": row.node, "own": row.id})]


def versions_under_one_name(db: apsw.Connection, directory: int, other: int) -> list[tuple[int, int]]:
    """The files of a directory that have a name of another's, each with that, where either has a version of its own."""
    sql = (
        "SELECT e.id, o.id FROM entry e CROSS JOIN entry o ON o.parent_id=:other AND o.name=e.name "
        "WHERE e.parent_id=:dir AND e.kind<>1 AND o.kind<>1 AND (e.version IS NOT NULL OR o.version IS NOT NULL)"
    )
    return [(int(row[0]), int(row[1])) for row in db.execute(sql, {"dir": directory, "other": other})]


def is_where_replicas_are(db: apsw.Connection, row: Entry, parent_id: int | None, name: bytes) -> bool:
    """Whether whoever else goes by a row's number has that name on another branch, in what is one directory with that
    parent."""
    place = union_name(db, parent_id, name)
    for other in by_node(db, row.node):
        if other.branch_id == row.branch_id:
            if other.st_ino != row.st_ino:
                return False
        elif union_name(db, other.parent_id, other.name) != place:
            return False
    return True


def union_name(db: apsw.Connection, parent_id: int | None, name: bytes) -> tuple[int, bytes]:
    """A name in what is one directory with a parent: the same for all replicas that are shown under it."""
    above = None if parent_id is None else get(db, parent_id)
    return (0 if above is None else above.node), name


_BEFORE = (
    "SELECT e.id FROM entry p CROSS JOIN entry e ON e.parent_id=p.id AND e.name=:name "
    "WHERE %s AND e.node=:node AND e.id<:id"
)


def replicas_before(db: apsw.Connection, row_id: int, node: int, parent_id: int, name: bytes) -> list[int]:
    """The rows with a lower id that are shown under one name with a row: by way of the directories that are one with
    its parent, which are few, since a file may have thousands of names."""
    above = "(SELECT node FROM entry WHERE id=:parent)"
    sql = f"{_BEFORE % f'p.id={above} AND p.node=p.id'} UNION ALL {_BEFORE % f'p.node={above} AND p.node <> p.id'}"
    values = {"id": row_id, "node": node, "name": name, "parent": parent_id}
    return [int(row[0]) for row in db.execute(sql, values)]


def set_rule(db: apsw.Connection, entry_id: int, rule: int, seq: int) -> None:
    """What holds an entry back is this now; what is known of it stays."""
    db.execute("UPDATE entry SET rule=?, seq=? WHERE id=?", (rule, seq, entry_id))


def set_node(db: apsw.Connection, entry_id: int, node: int, seq: int) -> None:
    db.execute("UPDATE entry SET node=?, seq=? WHERE id=?", (node, seq, entry_id))


def set_version(db: apsw.Connection, entry_id: int, version: bytes, seq: int) -> None:
    db.execute("UPDATE entry SET version=?, seq=? WHERE id=?", (version, seq, entry_id))


def set_scanned(db: apsw.Connection, entry_id: int, scanned_ns: int | None, mtime_ns: int | None) -> None:
    """A directory was listed whole; local bookkeeping, so no new seq."""
    db.execute("UPDATE entry SET scanned_ns=?, scanned_mtime_ns=? WHERE id=?", (scanned_ns, mtime_ns, entry_id))


def move(db: apsw.Connection, entry_id: int, parent_id: int, name: bytes, seq: int) -> None:
    """Another name or directory of the same branch; a whole tree moves with one row."""
    db.execute("UPDATE entry SET parent_id=?, name=?, seq=? WHERE id=?", (parent_id, name, seq, entry_id))


def delete(db: apsw.Connection, entry_id: int) -> None:
    db.execute("DELETE FROM entry WHERE id=?", (entry_id,))


def is_larger(db: apsw.Connection, entry_id: int, rows: int) -> bool:
    """Whether a directory and all below it are at least so many rows; no more than these are looked at."""
    return sum(1 for _ in islice(subtree(db, entry_id), rows)) == rows


def subtree(db: apsw.Connection, entry_id: int) -> Iterator[Entry]:
    """The rows below and including an entry, parents before children."""
    todo = [entry_id]
    root = get(db, entry_id)
    if root:
        yield root
    while todo:
        below: list[int] = []
        for parent_id in todo:
            for row in children(db, parent_id):
                yield row
                if row.kind == 1:
                    below.append(row.id)
        todo = below
