"""Whose inode it is that was seen under a name: the questions that keep identity, asked before anything is written.

In: rows, and what lstat said. Out: which row is that file, or that none is. Nothing is written here.

Numbers of inodes are used again at once on many file systems. So an inode is the file of a row only while size and
mtime are the row's, while it is held here, or when it is older than what was last seen of the row; a directory also
while something in it is what was there. `Disk` is what the caller knows of the disk just now.
"""

from typing import Any, NamedTuple, Protocol

from index.model.entry import KIND_DIR, KIND_FILE, Entry, Stat
from index.store import entries, limbo, links, metadata
from index.store.limbo import Kept
from index.store.unit import Unit

#: Of a directory that changed, so many names are looked for to tell whether it is still the same.
_CHILDREN_ASKED = 16
#: Of a file with many hard links, so many names are asked who has it.
_NAMES_ASKED = 16
#: From so many entries on a tree does not go to another branch as a whole.
_TREE_ROWS = 2000


class Disk(Protocol):
    """What the caller knows of the disk just now, and what it must know of the rows."""

    def stat_at(self, row: Entry) -> Stat | None:
        """What lstat says of a row's name; None when nothing is there. Where it cannot be asked: what the row says."""

    def is_held(self, branch_id: int, entry_id: int | None, node: int, st_ino: int) -> bool:
        """Whether that inode is open or watched here for a row: then its number cannot be another file's."""

    def born_ns(self, parent_id: int, name: bytes) -> int | None:
        """When the inode that has a name was made; None where that is not remembered."""

    def inode_in(self, parent_id: int, name: bytes, child: bytes) -> int | None:
        """Which inode has a name in the directory that stands under a name."""

    def was_written(self, parent_id: int, name: bytes) -> bool | None:
        """Whether somebody wrote to the file under a name since it was last looked at; None where that is not heard."""

    def own_attributes(self, parent_id: int, name: bytes) -> dict[bytes, bytes]:
        """The attributes that the file under a name carries: a person or a script gave it these."""

    def dir_mtime(self, entry_id: int) -> int | None:
        """The mtime of a directory of the index just now; None when it cannot be had at once."""

    def moved(self, row: Entry) -> None:
        """The row hangs elsewhere from now on."""


class Place(NamedTuple):
    """A name in a directory of a branch."""

    branch_id: int
    parent_id: int
    name: bytes


#: Rows that have an inode that was seen, each with what is under its name now.
Known = list[tuple[Entry, Stat | None]]


def elsewhere(unit: Unit, branch_id: int, st: Stat, disk: Disk, but: Entry | None = None) -> Known:
    """The rows of a branch, but for one, that have the inode that was seen; of many hard links a few."""
    return [
        (other, disk.stat_at(other))
        for other in entries.by_st_ino(unit.db, branch_id, st.st_ino, _NAMES_ASKED)
        if (but is None or other.id != but.id) and other.kind == st.kind and other.parent_id is not None
    ]


def twin(known: Known, st: Stat) -> Entry | None:
    """A row whose name is another one of the inode that was seen: a hard link."""
    if st.nlink < 2 or st.kind == KIND_DIR:
        return None
    return next((other for other, there in known if is_at(there, st)), None)


def is_at(there: Stat | None, st: Stat) -> bool:
    """Whether the inode that was seen is under another name too."""
    return there is not None and there.st_ino == st.st_ino


def arrived(unit: Unit, row: Entry, disk: Disk) -> tuple[Entry, Stat] | None:
    """The row that was written for a file or directory where it is now, before it was known that it left: a first
    listing asks for no moves. None when there is none."""
    if row.nlink > 1 and row.kind != KIND_DIR:
        return None
    for other, there in elsewhere(unit, row.branch_id, row.stat, disk, row):
        if other.id < row.id or there is None or not is_at(there, row.stat) or is_below(unit, other.parent_id, row):
            continue
        if same_file(unit, row, place(other), there, disk):
            return other, there
    return None


def swapped(unit: Unit, row: Entry, st: Stat, known: Known, disk: Disk) -> Entry | None:
    """Which of the rows that have the inode that was seen has the row's file under its own name now."""
    for other, there in known:
        if there is None or there.st_ino != row.st_ino or there.kind != row.kind:
            continue
        if not same_file(unit, row, place(other), there, disk) or not same_file(unit, other, place(row), st, disk):
            continue
        if is_below(unit, other.id, row) or is_below(unit, row.id, other):
            continue
        if goes_as_a_whole(unit, other) and goes_as_a_whole(unit, row):
            return other
    return None


def is_below(unit: Unit, entry_id: int | None, above: Entry) -> bool:
    """Whether the index has a row at or below a directory: then it cannot go there before the index knows better."""
    return above.kind == KIND_DIR and entries.is_below(unit.db, entry_id, above.id)


def goes_as_a_whole(unit: Unit, old: Entry) -> bool:
    """Whether a tree may be taken to another place in one unit.

    A large one that shares its numbers with replicas is new there, and the files in it are found one by one.
    """
    shares = old.kind == KIND_DIR and entries.is_shared(unit.db, old)
    return not shares or not entries.is_larger(unit.db, old.id, _TREE_ROWS)


def same_file(unit: Unit, old: Entry, place: Place, st: Stat, disk: Disk) -> bool:
    """Whether the inode seen at a place is still the file of the row that had its number."""
    if old.kind == KIND_DIR:
        unchanged = st.mtime_ns in (old.mtime_ns, old.scanned_mtime_ns)
    else:
        unchanged = (old.size_bytes, old.mtime_ns) == (st.size_bytes, st.mtime_ns)
    if unchanged or disk.is_held(old.branch_id, old.id, old.node, old.st_ino):
        return True
    if _is_older(disk.born_ns(place.parent_id, place.name), old.ctime_ns, st):
        return True
    return old.kind == KIND_DIR and _has_children_of(unit, old, place, disk)


def _is_older(born_ns: int | None, seen_ns: int, st: Stat) -> bool:
    """Whether an inode was there when its number was seen to be a row's, by its ctime: then it was the row's all along.

    All are times of the file system's own clock; within one tick of it nothing is known, nor after it was set back.
    """
    return born_ns is not None and born_ns < seen_ns <= st.ctime_ns


def _has_children_of(unit: Unit, old: Entry, place: Place, disk: Disk) -> bool:
    """Whether the directory at a place has something in it that the index has below a row."""
    sql = "SELECT name, st_ino FROM entry WHERE parent_id=? LIMIT ?"
    known: list[tuple[Any, ...]] = unit.db.execute(sql, (old.id, _CHILDREN_ASKED)).fetchall()
    return any(disk.inode_in(place.parent_id, place.name, name) == st_ino for name, st_ino in known)


def place(row: Entry) -> Place:
    assert row.parent_id is not None
    return Place(row.branch_id, row.parent_id, row.name)


def may_be_rewritten(unit: Unit, row: Entry, st: Stat, disk: Disk) -> bool:
    """Whether the bytes of a file may be others though its size and mtime are not: only its ctime moved.

    Tools that write in place and give the mtime back leave no other trace; often they set mode or owner as well. Where
    writes are heard of, what explains the ctime is believed: who changed mode, owner, links or attributes.
    """
    if row.kind != KIND_FILE or not row.size_bytes or row.ctime_ns == st.ctime_ns:
        return False
    written = disk.was_written(*place(row)[1:])
    if written:
        return True
    if metadata.mirror_state(unit.db, row) == (st.st_ino, st.ctime_ns):
        return False  # they were compared, or written by us, since
    if written is None:
        return row.nlink == st.nlink  # a link, of a backup say, explains itself
    if row.stat._replace(ctime_ns=st.ctime_ns) != st:
        return False
    return disk.own_attributes(*place(row)[1:]) == metadata.mirror_seen(unit.db, row)


def takes_over(unit: Unit, row: Entry, disk: Disk) -> bool:
    """Whether the file that has the row's name now is a version of it by its attributes.

    It is when it carries none, and when it carries all that the row's file was seen to carry: then somebody saved it
    anew and copied them, and what only the library has he could not see.
    """
    own = disk.own_attributes(*place(row)[1:])
    seen = metadata.mirror_seen(unit.db, row) if own else {}
    return not own or (bool(seen) and all(own.get(name) == value for name, value in seen.items()))


def kept(unit: Unit, place: Place, st: Stat, disk: Disk) -> Kept | None:
    """What waits in limbo for the inode that was seen."""

    def is_same(kept: Kept) -> bool:
        if disk.is_held(place.branch_id, kept.entry_id, kept.node, st.st_ino):
            return True
        return _is_older(disk.born_ns(place.parent_id, place.name), kept.ctime_ns, st)

    return limbo.take(unit.db, place.branch_id, st, is_same)


def linked_beside(unit: Unit, place: Place, st: Stat, disk: Disk) -> Entry | None:
    """The row of another name of a hard-linked file, in another branch of the same file system."""
    if st.nlink < 2 or st.kind != KIND_FILE:
        return None
    beside = links.beside(unit.db, place.branch_id, st.st_ino, _NAMES_ASKED)
    return next((row for row in beside if row.kind == st.kind and is_at(disk.stat_at(row), st)), None)


def from_beside(unit: Unit, place: Place, st: Stat, disk: Disk) -> Entry | None:
    """The row of a file or directory that was moved here from another branch of the same file system.

    A large tree would be one long unit: it is new here, and the files in it are found one by one.
    """
    for old in links.beside(unit.db, place.branch_id, st.st_ino):
        if old.kind != st.kind or old.parent_id is None:
            continue
        if is_at(disk.stat_at(old), st) or not same_file(unit, old, place, st, disk):
            continue
        if old.kind != KIND_DIR or not entries.is_larger(unit.db, old.id, _TREE_ROWS):
            return old
    return None
