"""Writing what was seen: additions, changes and removals of one branch, inside a unit.

The one place where rows of entries come and go, whoever saw the difference (a scan, the watcher, a request of the
kernel). It keeps identity: a name that appears with the inode of a row whose own name is gone is a move and keeps id,
uuid and number; a second name of one inode is a hard link and shares uuid and number; a name whose inode was replaced
(an editor's save behind the mount) keeps row and uuid and gets a new inode number, because the kernel may still hold
pages of the old file.

`Scene` says what the caller knows of the disk: whether the name of an old row is still there. Rows that disappear are
remembered in table limbo for a while, so that a file seen leaving one directory before it is seen arriving in another
is still the same file.
"""

import time
from collections.abc import Callable

from index.model import change, versions
from index.model.entry import HASH_NONE, KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry, Stat
from index.model.ids import new_uuid
from index.scan import differ
from index.store import changes, entries, limbo, metadata
from index.store.unit import Unit

#: Says whether a row's name still stands on disk with the row's inode.
StillThere = Callable[[Entry], bool]


def vector_of(row: Entry, branch_uuid: bytes) -> dict[bytes, int]:
    """The version vector of a row; NULL stands for {its branch: 1}."""
    return versions.unpack(row.version) if row.version is not None else {branch_uuid: 1}


def add(
    unit: Unit,
    branch_id: int,
    parent_id: int,
    name: bytes,
    st: Stat,
    still_there: StillThere,
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
        if links and still_there(old):
            return _insert(unit, branch_id, parent_id, name, st, old.node, old.uuid, old)
        if _same_file(old, st) and not still_there(old):
            return _move(unit, old, parent_id, name, st)
    kept = limbo.take(unit.db, branch_id, st.st_ino, kind, st.mtime_ns, st.size_bytes)
    if kept is not None:
        return _insert(
            unit, branch_id, parent_id, name, st, kept.node, kept.uuid, None
        )
    return _insert(unit, branch_id, parent_id, name, st, node, uuid, None)


def change_row(
    unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, still_there: StillThere | None = None
) -> Entry:
    """The row's name is there, but lstat says something else. Returns the row as it is now.

    `still_there` is asked when another inode stands under the name: it may be one the index knows elsewhere.
    """
    verdict = differ.compare(row, st)
    if verdict == differ.SAME:
        return row
    if verdict == differ.REPLACED:
        return _replace(unit, row, st, branch_uuid, still_there)
    entries.set_stat(unit.db, row.id, st, unit.seq)
    if verdict == differ.DATA and row.kind == KIND_FILE:
        _new_bytes(unit, row, branch_uuid)
    what = change.DATA if verdict == differ.DATA else change.ATTRS
    unit.changed(what, row.branch_id, row.id, row.parent_id, row.name, row.node)
    return _again(unit, row.id)


def _replace(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, still_there: StillThere | None) -> Entry:
    """Another inode stands under a row's name: a save by rename, a move over it, or a new hard link.

    A new version of the entry keeps its uuid; the number is that of the inode that came, a fresh one if it is new.
    """
    node, uuid = 0, row.uuid
    source = _known_elsewhere(unit, row, st)
    if source is not None and still_there is not None:
        if still_there(source):
            if st.nlink > 1 and st.kind != KIND_DIR:
                node, uuid = source.node, source.uuid
        elif source.kind == KIND_DIR:
            remove(unit, row, branch_uuid)
            assert row.parent_id is not None
            return _move(unit, source, row.parent_id, row.name, st)
        elif _same_file(source, st):
            node = source.node
            if source.uuid is not None and metadata.has_any(unit.db, source.uuid):
                uuid = source.uuid
            unit.changed(change.REMOVED, source.branch_id, source.id, source.parent_id, source.name, source.node)
            entries.delete(unit.db, source.id)
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


def _known_elsewhere(unit: Unit, row: Entry, st: Stat) -> Entry | None:
    for other in entries.by_st_ino(unit.db, row.branch_id, st.st_ino):
        if other.id != row.id and other.kind == st.kind and other.parent_id is not None:
            return other
    return None


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


def _same_file(old: Entry, st: Stat) -> bool:
    """Whether an inode number is still the file of the row: numbers are reused at once on many file systems."""
    if old.kind == KIND_DIR:
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


def alias(unit: Unit, other: bytes, kept: bytes) -> None:
    """Two uuids turned out to name one file: annotations of `other` are read under `kept` from now on."""
    metadata.merge_into(unit.db, other, kept)
    unit.tell("alias", "add", other, kept)


def join_versions(unit: Unit, first: Entry, second: Entry, first_branch: bytes, second_branch: bytes) -> None:
    """Two replicas hold the same bytes: each has seen what the other has."""
    joined = versions.pack(versions.join(vector_of(first, first_branch), vector_of(second, second_branch)))
    for row in (first, second):
        entries.set_version(unit.db, row.id, joined, unit.seq)
