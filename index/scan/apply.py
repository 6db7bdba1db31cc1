"""Writing what was seen: additions, changes and removals of one branch, inside a unit.

The one place where rows of entries come and go, whoever saw the difference (a scan, the watcher, a request of the
kernel). It keeps identity, by the inode the disk shows:

- a name that appears with the inode of a row whose own name is gone is a move: id, uuid and number stay;
- a second name of one inode is a hard link: uuid and number are shared;
- two names whose inodes changed places were exchanged: their rows change places;
- a name whose inode was replaced is a new version of its file (an editor's save, a rename over it): uuid, and with it
  tags and attributes, stay with the name unless the file that came has attributes of its own or other names. Its number
  is that of the inode that came, a new one if the inode is new: the kernel may still hold pages of the old file.

Numbers of inodes are used again at once on many file systems. So an inode is the file of a row only while size and
mtime are the row's, while it is held here, or when it is older than what was last seen of the row; a directory also
while something in it is what was there. `Disk` is what the caller knows of the disk just now. What disappears is
remembered in table limbo for a while, so that a file seen leaving one directory before it is seen arriving in another
is still the same file.
"""

import time
from typing import Any, NamedTuple, Protocol

from index.model import change, versions
from index.model.entry import HASH_NONE, KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry, Stat
from index.model.ids import new_uuid
from index.scan import differ
from index.store import changes, entries, limbo, metadata, places
from index.store.limbo import Kept
from index.store.unit import Unit

#: Of a directory that changed, so many names are looked for to tell whether it is still the same.
_CHILDREN_ASKED = 16
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


def vector_of(row: Entry | Kept, branch_uuid: bytes) -> dict[bytes, int]:
    """The version vector of a row; NULL stands for {its branch: 1}."""
    return versions.unpack(row.version) if row.version is not None else {branch_uuid: 1}


# what a look at the disk found ----------------------------------------------------------------------------------------


def take_in(unit: Unit, place: Place, row: Entry | None, st: Stat, branch_uuid: bytes, disk: Disk) -> Entry:
    """A name is there: make its row say what lstat says, and return it. `row` is what the index has under the name."""
    if row is None:
        return add(unit, *place, st, disk)
    if row.kind == st.kind:
        return change_row(unit, row, st, branch_uuid, disk)
    swapped = _swapped(unit, row, st, _elsewhere(unit, row, st, disk), disk)
    if swapped is not None:
        return _exchange(unit, row, swapped, st, disk)
    remove(unit, row, branch_uuid)
    return add(unit, *place, st, disk)


def add(
    unit: Unit,
    branch_id: int,
    parent_id: int,
    name: bytes,
    st: Stat,
    disk: Disk,
    *,
    node: int | None = None,
    uuid: bytes | None = None,
    fresh: bool = False,
) -> Entry:
    """A name is there that the index did not know. Returns its row.

    `node` and `uuid` say that it is another name of a known file; `fresh`, that it was made a moment ago, so that no
    older row can be it.
    """
    place = Place(branch_id, parent_id, name)
    if fresh or node is not None:
        return _insert(unit, plain_row(unit, *place, st, node=node, uuid=uuid))
    known = entries.by_st_ino(unit.db, branch_id, st.st_ino)
    known = [old for old in known if old.kind == st.kind and old.parent_id is not None]
    if st.nlink > 1 and st.kind != KIND_DIR:
        for old in known:
            if _is_at(disk.stat_at(old), st):
                return _link(unit, place, st, old)
    for old in known:
        if _is_at(disk.stat_at(old), st) or _is_below(unit, parent_id, old):
            continue
        if _same_file(unit, old, place, st, disk):
            return _move(unit, old, place, st, disk)
    moved = _from_beside(unit, place, st, disk)
    if moved is not None:
        return moved
    kept = _kept(unit, place, st, disk)
    return _insert(unit, plain_row(unit, *place, st)) if kept is None else _return(unit, kept, place, st, disk)


def change_row(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, disk: Disk | None = None) -> Entry:
    """The row's name is there, but lstat says something else. Returns the row as it is now.

    Without `disk` the caller speaks of the row's own inode; if the row has another one by now, nothing is written.
    """
    verdict = differ.compare(row, st)
    if verdict == differ.SAME:
        return row
    if disk is None and verdict in (differ.REPLACED, differ.OTHER_KIND):
        return row
    if disk is not None and verdict == differ.REPLACED:
        return _replace(unit, row, st, branch_uuid, disk)
    doubted = verdict == differ.ATTRS and disk is not None and _may_be_rewritten(unit, row, st, disk)
    entries.set_stat(unit.db, row.id, st, unit.seq)
    if verdict == differ.DATA and row.kind == KIND_FILE:
        _new_bytes(unit, row, branch_uuid)
    elif doubted:
        entries.set_unsure(unit.db, row.id, unit.seq)
        verdict = differ.DATA
    what = {differ.DATA: change.DATA, differ.TIMES: change.TIMES}.get(verdict, change.ATTRS)
    unit.changed(what, row.branch_id, row.id, row.parent_id, row.name, row.node)
    if disk is not None and st.nlink > 1 and row.kind == KIND_FILE:
        change_twins(unit, row, st, branch_uuid)
    return _again(unit, row.id)


def _may_be_rewritten(unit: Unit, row: Entry, st: Stat, disk: Disk) -> bool:
    """Whether only the ctime of a file moved, and nothing that is seen says why.

    Tools that write in place and give the mtime back leave no other trace. Who writes attributes leaves these.
    """
    if row.kind != KIND_FILE or not row.size_bytes or row.stat._replace(ctime_ns=st.ctime_ns) != st:
        return False
    if metadata.mirror_state(unit.db, row) == (st.st_ino, st.ctime_ns):
        return False  # they were compared, or written by us, since
    return disk.own_attributes(*_place(row)[1:]) == metadata.mirror_seen(unit.db, row)


def change_twins(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes) -> None:
    """What was seen by one name of a hard-linked file is so by its others: events come under one name only."""
    for twin in entries.by_node(unit.db, row.node):
        if twin.id != row.id and twin.branch_id == row.branch_id and twin.st_ino == st.st_ino:
            change_row(unit, twin, st, branch_uuid)


def remove(unit: Unit, row: Entry, branch_uuid: bytes, *, keep: bool = True, told: bool = True) -> None:
    """The row's name is gone from its branch: it and all below it leave the index.

    `keep`: its identity waits in limbo, it may turn up elsewhere (not when we destroyed it ourselves). `told`: other
    devices learn of the deletion (not when another row carries the uuid on).
    """
    now_ns = time.time_ns()
    doomed = list(entries.subtree(unit.db, row.id)) if row.kind == KIND_DIR else [row]
    for gone in reversed(doomed):
        if told and gone.uuid is not None:
            changes.put_tombstone(unit.db, gone.uuid, branch_uuid, unit.seq, unit.hlc, "delete")
        if keep:
            limbo.put(unit.db, gone, now_ns)
            _one_link_less(unit, gone)
        entries.delete(unit.db, gone.id)
        unit.changed(change.REMOVED, gone.branch_id, gone.id, gone.parent_id, gone.name, gone.node)


# another inode under a known name -------------------------------------------------------------------------------------


def _replace(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, disk: Disk) -> Entry:
    """Another inode of the same kind stands under a row's name: exchanged, linked, moved here, come back, or new."""
    known = _elsewhere(unit, row, st, disk)
    swapped = _swapped(unit, row, st, known, disk)
    if swapped is not None:
        return _exchange(unit, row, swapped, st, disk)
    twin = next((other for other, there in known if _is_at(there, st)), None)
    if twin is not None and st.nlink > 1 and st.kind != KIND_DIR:
        renewed = _renew(unit, row, st, branch_uuid, twin.node, twin.uuid)
        restat_twins(unit, renewed, st)
        return renewed
    place = _place(row)
    moved = next((o for o, there in known if not _is_at(there, st) and _same_file(unit, o, place, st, disk)), None)
    if moved is not None and _is_below(unit, place.parent_id, moved):
        moved = None
    kept = _kept(unit, place, st, disk) if moved is None else None
    source = moved or kept
    if source is None:
        inherits = row.kind != KIND_FILE or _takes_over(unit, row, disk)
        return _renew(unit, row, st, branch_uuid, None, heir_uuid(unit, row) if inherits else None)
    heir, version = _new_version(unit, row, source, st, branch_uuid, disk)
    remove(unit, row, branch_uuid, told=heir is None)
    if heir is not None:
        limbo.put_number(unit.db, row, time.time_ns())
    if moved is not None:
        new = _move(unit, moved, place, st, disk)
    else:
        assert kept is not None
        new = _return(unit, kept, place, st, disk)
    if heir is not None:
        entries.set_uuid(unit.db, new.id, heir, unit.seq)
    if version is not None:
        entries.set_version(unit.db, new.id, version, unit.seq)
    return _again(unit, new.id)


def _renew(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, node: int | None, uuid: bytes | None) -> Entry:
    """The row lives on with an inode that came, under its number (None: a new one) and uuid."""
    limbo.put_number(unit.db, row, time.time_ns())
    _one_link_less(unit, row)
    if node is None:
        node = unit.new_id()
    entries.set_stat(unit.db, row.id, st, unit.seq)
    entries.set_node(unit.db, row.id, node, unit.seq)
    if uuid != row.uuid:
        entries.set_uuid(unit.db, row.id, uuid, unit.seq)
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    unit.changed(change.ADDED, row.branch_id, row.id, row.parent_id, row.name, node)
    if row.kind == KIND_DIR:
        entries.set_scanned(unit.db, row.id, None, None)
    elif row.kind == KIND_FILE:
        _new_bytes(unit, row, branch_uuid)
    return _again(unit, row.id)


def _new_version(
    unit: Unit, row: Entry, source: Entry | Kept, st: Stat, branch_uuid: bytes, disk: Disk
) -> tuple[bytes | None, bytes | None]:
    """(uuid that the source takes over, None to keep its own; packed vector that has seen both) of a rename over."""
    if row.kind != KIND_FILE:
        return None, None
    vector = versions.join(vector_of(row, branch_uuid), vector_of(source, branch_uuid))
    version = versions.pack(versions.bump(vector, branch_uuid))
    annotated = source.uuid is not None and metadata.has_any(unit.db, source.uuid)
    if st.nlink > 1 or annotated or not _takes_over(unit, row, disk):
        return None, version
    return heir_uuid(unit, row), version


def _takes_over(unit: Unit, row: Entry, disk: Disk) -> bool:
    """Whether the file that has the row's name now is a version of it by its attributes.

    It is when it carries none, and when it carries all that the row's file was seen to carry: then somebody saved it
    anew and copied them, and what only the library has he could not see.
    """
    own = disk.own_attributes(*_place(row)[1:])
    seen = metadata.mirror_seen(unit.db, row) if own else {}
    return not own or (bool(seen) and all(own.get(name) == value for name, value in seen.items()))


def heir_uuid(unit: Unit, old: Entry) -> bytes | None:
    """The uuid that a new version of a row's file takes over: its own.

    Other hard-linked names of the old inode go on as a file of their own, with copies of the annotations.
    """
    if old.uuid is None:
        return None
    twins = [
        t
        for t in entries.by_node(unit.db, old.node)
        if t.id != old.id and t.branch_id == old.branch_id and t.uuid == old.uuid
    ]
    if twins:
        fresh = new_uuid()
        metadata.copy_to(unit.db, old.uuid, fresh, unit.hlc, unit.device, unit.seq)
        unit.tell("annotations", "copy", fresh, old.uuid)
        for twin in twins:
            entries.set_uuid(unit.db, twin.id, fresh, unit.seq)
    return old.uuid


def _exchange(unit: Unit, a: Entry, b: Entry, st: Stat, disk: Disk) -> Entry:
    """Two names were exchanged on disk: so are their rows. Returns the row that now has the name of `a`."""
    swap_names(unit, a, b)
    _restat(unit, b, st)
    disk.moved(_again(unit, a.id))
    new = _again(unit, b.id)
    disk.moved(new)
    return new


def swap_names(unit: Unit, a: Entry, b: Entry) -> None:
    """Give each of two rows the other's place."""
    assert a.parent_id is not None
    assert b.parent_id is not None
    for row in (a, b):
        unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    entries.move(unit.db, a.id, a.parent_id, b"/" + a.name, unit.seq)  # no real name has a slash
    entries.move(unit.db, b.id, a.parent_id, a.name, unit.seq)
    entries.move(unit.db, a.id, b.parent_id, b.name, unit.seq)
    unit.changed(change.ADDED, a.branch_id, a.id, b.parent_id, b.name, a.node)
    unit.changed(change.ADDED, b.branch_id, b.id, a.parent_id, a.name, b.node)


# whose inode it is ----------------------------------------------------------------------------------------------------


def _elsewhere(unit: Unit, row: Entry, st: Stat, disk: Disk) -> list[tuple[Entry, Stat | None]]:
    """The other rows that have the inode that was seen, each with what is under its name now."""
    return [
        (other, disk.stat_at(other))
        for other in entries.by_st_ino(unit.db, row.branch_id, st.st_ino)
        if other.id != row.id and other.kind == st.kind and other.parent_id is not None
    ]


def _is_at(there: Stat | None, st: Stat) -> bool:
    """Whether the inode that was seen is under another name too."""
    return there is not None and there.st_ino == st.st_ino


def _swapped(unit: Unit, row: Entry, st: Stat, known: list[tuple[Entry, Stat | None]], disk: Disk) -> Entry | None:
    """Which of the rows that have the inode that was seen has the row's file under its own name now."""
    for other, there in known:
        if there is None or there.st_ino != row.st_ino or there.kind != row.kind:
            continue
        if not _same_file(unit, row, _place(other), there, disk) or not _same_file(unit, other, _place(row), st, disk):
            continue
        if not _is_below(unit, other.id, row) and not _is_below(unit, row.id, other):
            return other
    return None


def _is_below(unit: Unit, entry_id: int | None, above: Entry) -> bool:
    """Whether the index has a row at or below a directory: then it cannot go there before the index knows better."""
    return above.kind == KIND_DIR and entries.is_below(unit.db, entry_id, above.id)


def _same_file(unit: Unit, old: Entry, place: Place, st: Stat, disk: Disk) -> bool:
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


def _place(row: Entry) -> Place:
    assert row.parent_id is not None
    return Place(row.branch_id, row.parent_id, row.name)


def _kept(unit: Unit, place: Place, st: Stat, disk: Disk) -> Kept | None:
    """What waits in limbo for the inode that was seen."""

    def is_same(kept: Kept) -> bool:
        if disk.is_held(place.branch_id, kept.entry_id, kept.node, st.st_ino):
            return True
        return _is_older(disk.born_ns(place.parent_id, place.name), kept.ctime_ns, st)

    return limbo.take(unit.db, place.branch_id, st, is_same)


def _return(unit: Unit, kept: Kept, place: Place, st: Stat, disk: Disk) -> Entry:
    """The row of a file that comes back from limbo."""
    row = plain_row(unit, *place, st, entry_id=kept.entry_id, node=kept.node, uuid=kept.uuid)
    row = row._replace(content_id=kept.content_id, hash_state=kept.hash_state, version=kept.version)
    _insert(unit, row)
    if kept.written:
        note_new_bytes(unit, row)
    disk.moved(row)
    return _again(unit, row.id)


def _link(unit: Unit, place: Place, st: Stat, twin: Entry) -> Entry:
    """Another name of a file that is known by others."""
    row = plain_row(unit, *place, st, node=twin.node, uuid=twin.uuid)
    row = row._replace(content_id=twin.content_id, hash_state=twin.hash_state, version=twin.version)
    _insert(unit, row)
    restat_twins(unit, row, st)
    return row


def restat_twins(unit: Unit, row: Entry, st: Stat) -> None:
    """The other names of a hard-linked file show the same inode: give their rows the stat that was just seen."""
    for twin in entries.by_node(unit.db, row.node):
        if twin.id != row.id and twin.branch_id == row.branch_id and twin.st_ino == st.st_ino and twin.stat != st:
            entries.set_stat(unit.db, twin.id, st, unit.seq)
            unit.changed(change.ATTRS, twin.branch_id, twin.id, twin.parent_id, twin.name, twin.node)


def _one_link_less(unit: Unit, row: Entry) -> None:
    """A row's name is not one of its inode's any more."""
    if row.nlink > 1 and row.kind != KIND_DIR:
        restat_twins(unit, row, row.stat._replace(nlink=row.nlink - 1))


# rows -----------------------------------------------------------------------------------------------------------------


def _move(unit: Unit, old: Entry, place: Place, st: Stat, disk: Disk) -> Entry:
    unit.changed(change.REMOVED, old.branch_id, old.id, old.parent_id, old.name, old.node)
    entries.move(unit.db, old.id, place.parent_id, place.name, unit.seq)
    unit.changed(change.ADDED, old.branch_id, old.id, place.parent_id, place.name, old.node)
    _restat(unit, old, st)
    moved = _again(unit, old.id)
    disk.moved(moved)
    return moved


def _from_beside(unit: Unit, place: Place, st: Stat, disk: Disk) -> Entry | None:
    """A file or directory that was moved here from another branch of the same file system, with all below it.

    A large tree would be one long unit: it is new here, and the files in it are found one by one.
    """
    for old in entries.by_st_ino_beside(unit.db, place.branch_id, st.st_ino):
        if old.kind != st.kind or old.parent_id is None or (old.nlink > 1 and old.kind != KIND_DIR):
            continue
        if _is_at(disk.stat_at(old), st) or not _same_file(unit, old, place, st, disk):
            continue
        if old.kind == KIND_DIR and entries.is_larger(unit.db, old.id, _TREE_ROWS):
            continue
        new = change_branch(unit, old, *place, st)
        if new.kind == KIND_FILE and (old.size_bytes, old.mtime_ns) != (st.size_bytes, st.mtime_ns):
            note_new_bytes(unit, new)
        disk.moved(new)
        return _again(unit, new.id)
    return None


def _restat(unit: Unit, row: Entry, st: Stat) -> None:
    """Write what lstat says of the row's own inode; what was written to it while nobody looked is a new version."""
    entries.set_stat(unit.db, row.id, st, unit.seq)
    if row.kind == KIND_FILE and (row.size_bytes, row.mtime_ns) != (st.size_bytes, st.mtime_ns):
        note_new_bytes(unit, row)


def change_branch(unit: Unit, row: Entry, branch_id: int, parent_id: int, name: bytes, st: Stat) -> Entry:
    """A real rename took a file or a tree to another branch of the same volume: its rows go along."""
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    for below in list(entries.subtree(unit.db, row.id)):
        unit.db.execute("UPDATE entry SET branch_id=?, seq=? WHERE id=?", (branch_id, unit.seq, below.id))
    entries.move(unit.db, row.id, parent_id, name, unit.seq)
    entries.set_stat(unit.db, row.id, st, unit.seq)
    unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)
    return _again(unit, row.id)


def plain_row(
    unit: Unit,
    branch_id: int,
    parent_id: int,
    name: bytes,
    st: Stat,
    *,
    entry_id: int | None = None,
    node: int | None = None,
    uuid: bytes | None = None,
) -> Entry:
    """The row of a name that the index lacks, its change noted; the caller inserts it."""
    if entry_id is None:
        entry_id = unit.new_id()
    if uuid is None and st.kind in (KIND_DIR, KIND_SYMLINK):
        uuid = new_uuid()
    row = Entry(
        id=entry_id,
        branch_id=branch_id,
        parent_id=parent_id,
        name=name,
        node=entry_id if node is None else node,
        uuid=uuid,
        kind=st.kind,
        mode=st.mode,
        size_bytes=st.size_bytes,
        mtime_ns=st.mtime_ns,
        ctime_ns=st.ctime_ns,
        st_ino=st.st_ino,
        nlink=st.nlink,
        uid=st.uid,
        gid=st.gid,
        content_id=None,
        hash_state=HASH_NONE,
        version=None,
        seq=unit.seq,
        scanned_ns=None,
        scanned_mtime_ns=None,
    )
    unit.changed(change.ADDED, branch_id, entry_id, parent_id, name, row.node)
    return row


def _insert(unit: Unit, row: Entry) -> Entry:
    entries.insert(unit.db, row)
    return row


def _new_bytes(unit: Unit, row: Entry, branch_uuid: bytes) -> None:
    vector = versions.bump(vector_of(row, branch_uuid), branch_uuid)
    entries.set_changed(unit.db, row.id, versions.pack(vector), unit.seq)


def note_new_bytes(unit: Unit, row: Entry) -> None:
    """A file was written to, and nobody saw it happen."""
    branch_uuid = next(branch.uuid for branch in places.branches(unit.db) if branch.id == row.branch_id)
    _new_bytes(unit, row, branch_uuid)
    unit.changed(change.DATA, row.branch_id, row.id, row.parent_id, row.name, row.node)


def _again(unit: Unit, entry_id: int) -> Entry:
    fresh = entries.get(unit.db, entry_id)
    assert fresh is not None
    return fresh


# uuids and versions ---------------------------------------------------------------------------------------------------


def ensure_uuid(unit: Unit, row: Entry) -> bytes:
    """The row's uuid, given now if it had none; hard-linked names get the same one."""
    if row.uuid is not None:
        return row.uuid
    uuid = new_uuid()
    for twin in entries.by_node(unit.db, row.node):
        if twin.uuid is None:
            entries.set_uuid(unit.db, twin.id, uuid, unit.seq)
    return uuid


def alias(unit: Unit, other: bytes, kept: bytes) -> None:
    """Two uuids turned out to name one file: annotations of `other` are read under `kept` from now on."""
    metadata.merge_into(unit.db, other, kept)
    unit.tell("alias", "add", other, kept)


def join_versions(unit: Unit, first: Entry, second: Entry, first_branch: bytes, second_branch: bytes) -> None:
    """Two replicas hold the same bytes: each has seen what the other has."""
    joined = versions.pack(versions.join(vector_of(first, first_branch), vector_of(second, second_branch)))
    for row in (first, second):
        entries.set_version(unit.db, row.id, joined, unit.seq)
