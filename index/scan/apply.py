"""Writing what was seen: additions, changes and removals of one branch, inside a unit.

The one place where rows of entries come and go, whoever saw the difference (a scan, the watcher, a request of the
kernel). It keeps identity: a name that appears with the inode of a row whose own name is gone is a move and keeps id,
uuid and number; a second name of one inode is a hard link and shares uuid and number; a name whose inode was replaced
(an editor's save behind the mount) keeps row and uuid and gets a new inode number, because the kernel may still hold
pages of the old file.

`Disk` is what the caller knows of the disk just now. Rows that disappear are
remembered in table limbo for a while, so that a file seen leaving one directory before it is seen arriving in another
is still the same file.
"""

import time
from typing import Protocol

from index.model import change, versions
from index.model.entry import HASH_NONE, KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry, Stat
from index.model.ids import new_uuid
from index.scan import differ
from index.store import changes, entries, limbo, metadata
from index.store.unit import Unit


class Disk(Protocol):
    """What the caller knows of the disk just now."""

    def inode_at(self, row: Entry) -> int | None:
        """Which inode stands under a row's name; None when nothing does."""

    def is_held(self, row: Entry) -> bool:
        """Whether the row's own inode is open here: then its number cannot have been given to another file."""


def vector_of(row: Entry, branch_uuid: bytes) -> dict[bytes, int]:
    """The version vector of a row; NULL stands for {its branch: 1}."""
    return versions.unpack(row.version) if row.version is not None else {branch_uuid: 1}


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
    kind = st.kind
    if fresh or node is not None:
        return _insert(unit, branch_id, parent_id, name, st, node, uuid, None)
    for old in entries.by_st_ino(unit.db, branch_id, st.st_ino):
        if old.kind != kind:
            continue
        if old.parent_id is None:
            continue
        links = kind != KIND_DIR and st.nlink > 1
        if links and disk.inode_at(old) == old.st_ino:
            row = _insert(unit, branch_id, parent_id, name, st, old.node, old.uuid, old)
            restat_twins(unit, row, st)
            return row
        if _same_file(old, st, disk) and disk.inode_at(old) != old.st_ino:
            return _move(unit, old, parent_id, name, st)
    kept = limbo.take(unit.db, branch_id, st.st_ino, kind, st.mtime_ns, st.size_bytes)
    if kept is not None:
        return _insert(
            unit, branch_id, parent_id, name, st, kept.node, kept.uuid, None
        )
    return _insert(unit, branch_id, parent_id, name, st, node, uuid, None)


def change_row(
    unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, disk: Disk | None = None
) -> Entry:
    """The row's name is there, but lstat says something else. Returns the row as it is now.

    `disk` is asked when another inode stands under the name: it may be one the index knows elsewhere.
    """
    verdict = differ.compare(row, st)
    if verdict == differ.SAME:
        return row
    if verdict == differ.REPLACED:
        return _replace(unit, row, st, branch_uuid, disk)
    entries.set_stat(unit.db, row.id, st, unit.seq)
    if verdict == differ.DATA and row.kind == KIND_FILE:
        _new_bytes(unit, row, branch_uuid)
    what = change.DATA if verdict == differ.DATA else change.ATTRS
    unit.changed(what, row.branch_id, row.id, row.parent_id, row.name, row.node)
    return _again(unit, row.id)


def _replace(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, disk: Disk | None) -> Entry:
    """Another inode stands under a row's name: a save by rename, a move over it, or a new hard link.

    A new version of the entry keeps its uuid; the number is that of the inode that came, a fresh one if it is new.
    """
    node, uuid = 0, heir_uuid(unit, row)
    known = [] if disk is None else [(r, disk.inode_at(r)) for r in _known_elsewhere(unit, row, st)]
    swapped = next((r for r, there in known if there == row.st_ino), None)
    twin = next((r for r, there in known if there == st.st_ino), None)
    moved = next((r for r, there in known if there != st.st_ino), None)
    if swapped is not None:
        return _exchange(unit, row, swapped, st)
    if twin is not None:
        if st.nlink > 1 and st.kind != KIND_DIR:
            node, uuid = twin.node, twin.uuid
    elif moved is not None and moved.kind == KIND_DIR:
        remove(unit, row, branch_uuid)
        assert row.parent_id is not None
        return _move(unit, moved, row.parent_id, row.name, st)
    elif moved is not None and _same_file(moved, st, disk):
        node = moved.node
        if moved.uuid is not None and metadata.has_any(unit.db, moved.uuid):
            uuid = moved.uuid
        unit.changed(change.REMOVED, moved.branch_id, moved.id, moved.parent_id, moved.name, moved.node)
        entries.delete(unit.db, moved.id)
    node = node or unit.new_id()
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


def _exchange(unit: Unit, a: Entry, b: Entry, st: Stat) -> Entry:
    """Two names were exchanged on disk: so are their rows. Returns the row that now has the name of `a`."""
    swap_names(unit, a, b)
    entries.set_stat(unit.db, b.id, st, unit.seq)
    return _again(unit, b.id)


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


def _known_elsewhere(unit: Unit, row: Entry, st: Stat) -> list[Entry]:
    return [
        other
        for other in entries.by_st_ino(unit.db, row.branch_id, st.st_ino)
        if other.id != row.id and other.kind == st.kind and other.parent_id is not None
    ]


def _new_bytes(unit: Unit, row: Entry, branch_uuid: bytes) -> None:
    vector = versions.bump(vector_of(row, branch_uuid), branch_uuid)
    entries.set_changed(unit.db, row.id, versions.pack(vector), unit.seq)


def _again(unit: Unit, entry_id: int) -> Entry:
    fresh = entries.get(unit.db, entry_id)
    assert fresh is not None
    return fresh


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
            if gone.nlink > 1:
                restat_twins(unit, gone, gone.stat._replace(nlink=gone.nlink - 1))
        entries.delete(unit.db, gone.id)
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)


def change_branch(unit: Unit, row: Entry, branch_id: int, parent_id: int, name: bytes, st: Stat) -> Entry:
    """A real rename took a file or a tree to another branch of the same volume: its rows go along."""
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    for below in list(entries.subtree(unit.db, row.id)):
        unit.db.execute("UPDATE entry SET branch_id=?, seq=? WHERE id=?", (branch_id, unit.seq, below.id))
    entries.move(unit.db, row.id, parent_id, name, unit.seq)
    entries.set_stat(unit.db, row.id, st, unit.seq)
    unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)
    moved = entries.get(unit.db, row.id)
    assert moved is not None
    return moved


def ensure_uuid(unit: Unit, row: Entry) -> bytes:
    """The row's uuid, given now if it had none; hard-linked names get the same one."""
    if row.uuid is not None:
        return row.uuid
    uuid = new_uuid()
    for twin in entries.by_node(unit.db, row.node):
        if twin.uuid is None:
            entries.set_uuid(unit.db, twin.id, uuid, unit.seq)
    return uuid


def _same_file(old: Entry, st: Stat, disk: Disk | None) -> bool:
    """Whether an inode number is still the file of the row: numbers are reused at once on many file systems."""
    if old.kind == KIND_DIR or (disk is not None and disk.is_held(old)):
        return True
    return old.size_bytes == st.size_bytes and old.mtime_ns == st.mtime_ns


def _move(unit: Unit, old: Entry, parent_id: int, name: bytes, st: Stat) -> Entry:
    unit.changed(change.REMOVED, old.branch_id, old.id, old.parent_id, old.name, old.node)
    entries.move(unit.db, old.id, parent_id, name, unit.seq)
    entries.set_stat(unit.db, old.id, st, unit.seq)
    unit.changed(change.ADDED, old.branch_id, old.id, parent_id, name, old.node)
    moved = entries.get(unit.db, old.id)
    assert moved is not None
    return moved


def plain_row(
    unit: Unit,
    branch_id: int,
    parent_id: int,
    name: bytes,
    st: Stat,
    node: int | None = None,
    uuid: bytes | None = None,
    twin: Entry | None = None,
) -> Entry:
    """The row of a name that is new, its change noted; the caller inserts it."""
    entry_id = unit.new_id()
    if uuid is None and st.kind in (KIND_DIR, KIND_SYMLINK):
        uuid = new_uuid()
    row = Entry(
        entry_id,
        branch_id,
        parent_id,
        name,
        entry_id if node is None else node,
        uuid,
        st.kind,
        st.mode,
        st.size_bytes,
        st.mtime_ns,
        st.ctime_ns,
        st.st_ino,
        st.nlink,
        st.uid,
        st.gid,
        twin.content_id if twin else None,
        twin.hash_state if twin else HASH_NONE,
        twin.version if twin else None,
        unit.seq,
        None,
        None,
    )
    unit.changed(change.ADDED, branch_id, entry_id, parent_id, name, row.node)
    return row


def _insert(
    unit: Unit,
    branch_id: int,
    parent_id: int,
    name: bytes,
    st: Stat,
    node: int | None,
    uuid: bytes | None,
    twin: Entry | None,
) -> Entry:
    row = plain_row(unit, branch_id, parent_id, name, st, node, uuid, twin)
    entries.insert(unit.db, row)
    return row


def restat_twins(unit: Unit, row: Entry, st: Stat) -> None:
    """The other names of a hard-linked file show the same inode: give their rows the stat that was just seen."""
    for twin in entries.by_node(unit.db, row.node):
        if twin.id != row.id and twin.branch_id == row.branch_id and twin.st_ino == st.st_ino and twin.stat != st:
            entries.set_stat(unit.db, twin.id, st, unit.seq)
            unit.changed(change.ATTRS, twin.branch_id, twin.id, twin.parent_id, twin.name, twin.node)


def heir_uuid(unit: Unit, old: Entry) -> bytes | None:
    """The uuid that a new version of a row's file takes over.

    Its own, unless other hard-linked names go on living under it: then a fresh one that carries the same annotations.
    """
    twins = [] if old.uuid is None else entries.by_node(unit.db, old.node)
    if not any(t.id != old.id and t.branch_id == old.branch_id and t.uuid == old.uuid for t in twins):
        return old.uuid
    uuid = new_uuid()
    assert old.uuid is not None
    metadata.copy_to(unit.db, old.uuid, uuid, unit.hlc, unit.device, unit.seq)
    unit.tell("annotations", "copy", uuid, old.uuid)
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
