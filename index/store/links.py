"""The names of one inode: what the rows of a hard-linked file say together, each in its branch.

In: a row of one of the names, and what lstat says of the inode. Out: the rows of all the others, made to say so in one
statement a branch, and a few of them for whoever is to be told: a file may have thousands of names, and each that comes
or goes changes what is said of all of them.

An inode has one number in a branch (`node`); its names in other branches of the same file system are found by what the
disk calls it. Only rows that speak of the same bytes are written here: of others it must be decided what they are.
"""

import json

import apsw

from index.model.entry import Entry, Stat
from index.store.entries import COLUMNS

#: Names of an inode, known by its number in their branch; outside of the branch of :node by the disk's number alone.
_NAMES = "branch_id=:branch AND st_ino=:st_ino AND (:node IS NULL OR node=:node) AND id<>:own AND kind=:kind"
#: Those of them that speak of the bytes that are there, and say something else of the inode.
_UNLIKE = (
    "size_bytes=:size AND mtime_ns=:mtime "
    "AND (mode, ctime_ns, nlink, uid, gid) IS NOT (:mode, :ctime, :nlink, :uid, :gid)"
)
#: What could not be read (HASH_FAILED) is tried again.
_RETRY = (
    "UPDATE entry SET hash_state=0, seq=:seq WHERE branch_id=:branch AND st_ino=:st_ino AND kind=0 AND hash_state=3"
)
_OF_BRANCHES = "branch_id IN (SELECT value FROM json_each(?))"
_SELECT = f"SELECT {COLUMNS} FROM entry INDEXED BY entry_ino WHERE"


def _beside(db: apsw.Connection, branch_id: int) -> list[int]:
    """The other branches of this device that lie on the same file system."""
    sql = (
        "SELECT o.id FROM branch b JOIN branch o ON o.fs_id = b.fs_id AND o.device_uuid = b.device_uuid "
        "WHERE b.id = ? AND o.id <> b.id"
    )
    return [found for (found,) in db.execute(sql, (branch_id,))]


def beside(db: apsw.Connection, branch_id: int, st_ino: int, limit: int = -1) -> list[Entry]:
    """The rows with an inode on the other branches of this device that lie on the same file system."""
    asked = (json.dumps(_beside(db, branch_id)), st_ino, limit)
    return [Entry._make(one) for one in db.execute(f"{_SELECT} {_OF_BRANCHES} AND st_ino=? LIMIT ?", asked)]


def names_beside(db: apsw.Connection, row: Entry, limit: int = -1) -> list[Entry]:
    """The other names of an inode in other branches, known by what people attached to it: rows of one inode may differ
    for a moment in what they say of it."""
    sql = f"{_SELECT} {_OF_BRANCHES} AND st_ino=? AND kind=? AND uuid IS ? LIMIT ?"
    asked = (json.dumps(_beside(db, row.branch_id)), row.st_ino, row.kind, row.uuid, limit)
    return [Entry._make(one) for one in db.execute(sql, asked)]


def of_other_inodes(db: apsw.Connection, row: Entry) -> list[Entry]:
    """The rows that have a file's uuid, and are no names of its inode: versions of it, and replicas of other devices
    that do not share its number."""
    sql = f"SELECT {COLUMNS} FROM entry WHERE uuid=? AND node<>? AND NOT ({_OF_BRANCHES} AND st_ino=? AND kind=?)"
    asked = (row.uuid, row.node, json.dumps(_beside(db, row.branch_id)), row.st_ino, row.kind)
    return [Entry._make(one) for one in db.execute(sql, asked)]


def places(db: apsw.Connection, row: Entry) -> list[tuple[int, bytes]]:
    """(directory, name) of all names that a file has in its branch."""
    sql = "SELECT parent_id, name FROM entry INDEXED BY entry_ino WHERE branch_id=? AND st_ino=? AND node=?"
    return list(db.execute(sql, (row.branch_id, row.st_ino, row.node)))


def set_stat(db: apsw.Connection, row: Entry, st: Stat, seq: int, told: int) -> list[Entry]:
    """Write what the disk says of an inode into the rows of all its other names that speak of the same bytes. Returns
    so many of those that said something else, as they were."""
    says = {
        "kind": st.kind, "st_ino": st.st_ino, "size": st.size_bytes, "mtime": st.mtime_ns,
        "mode": st.mode, "ctime": st.ctime_ns, "nlink": st.nlink, "uid": st.uid, "gid": st.gid,
    }  # fmt: skip
    written = "mode=:mode, ctime_ns=:ctime, nlink=:nlink, uid=:uid, gid=:gid"
    return _write(db, row, f"{_NAMES} AND {_UNLIKE}", written, says, seq, told)


def of_other_bytes(db: apsw.Connection, row: Entry, st: Stat) -> list[Entry]:
    """The other names that a file has in its branch whose rows speak of other bytes than those that are there."""
    sql = f"{_SELECT} branch_id=? AND st_ino=? AND node=? AND id<>? AND NOT (size_bytes=? AND mtime_ns=?)"
    asked = (row.branch_id, st.st_ino, row.node, row.id, st.size_bytes, st.mtime_ns)
    return [Entry._make(one) for one in db.execute(sql, asked)]


def one_less(db: apsw.Connection, gone: Entry, seq: int, told: int) -> list[Entry]:
    """A name is not one of an inode's any more: the rows of the others, whatever they say of its bytes, have one link
    less. Returns so many of them, as they were."""
    says = {"kind": gone.kind, "st_ino": gone.st_ino, "nlink": gone.nlink - 1}
    return _write(db, gone, f"{_NAMES} AND nlink>:nlink", "nlink=:nlink", says, seq, told)


def _write(
    db: apsw.Connection, row: Entry, where: str, written: str, says: dict[str, int], seq: int, told: int
) -> list[Entry]:
    """Write the rows of the other names of an inode, a statement a branch; returns so many of them, as they were. A
    file that could not be read is another by what lstat says: maybe it can be read now."""
    changed: list[Entry] = []
    for branch_id in (row.branch_id, *_beside(db, row.branch_id)):
        node = row.node if branch_id == row.branch_id else None
        asked = {**says, "branch": branch_id, "node": node, "own": row.id, "told": told, "seq": seq}
        some = [Entry._make(one) for one in db.execute(f"{_SELECT} {where} LIMIT :told", asked)]
        if some:
            changed += some[: told - len(changed)]
            db.execute(f"UPDATE entry SET {written}, seq=:seq WHERE {where}", asked)
            db.execute(_RETRY, asked)
    return changed
