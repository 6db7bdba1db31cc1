"""Writing what was seen: additions, changes and removals of one branch, inside a unit.

The one place where rows of entries come and go, whoever saw the difference (a scan, the watcher, a request of the
kernel). It keeps identity, by the inode the disk shows:

- a name that appears with the inode of a row whose own name is gone is a move: id, uuid and number stay;
- a second name of one inode is a hard link: uuid and number are shared;
- two names whose inodes changed places were exchanged: their rows change places;
- a name whose inode was replaced is a new version of its file (an editor's save, a rename over it): uuid, and with it
  tags and attributes, stay with the name unless the file that came has attributes of its own or other names. Its number
  is that of the inode that came, a new one if the inode is new: the kernel may still hold pages of the old file.

Which file an inode is, is asked in kinship.py; what is written of a row, in recording.py. What disappears is
remembered in table limbo for a while, so that a file seen leaving one directory before it is seen arriving in another
is still the same file.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from index.model import change, versions
from index.model.entry import KIND_DIR, KIND_FILE, Entry, Stat
from index.scan import differ, kinship, recording
from index.scan.kinship import Disk, Place
from index.store import entries, leaving, limbo, links, metadata
from index.store.limbo import Kept
from index.store.unit import Unit

#: Of a file that goes, so many names that are left are looked at for one of ours.
_NAMES_LEFT = 16

# what a look at the disk found ----------------------------------------------------------------------------------------


def take_in(unit: Unit, place: Place, row: Entry | None, st: Stat, branch_uuid: bytes, disk: Disk) -> Entry:
    """A name is there: make its row say what lstat says, and return it. `row` is what the index has under the name."""
    if row is None:
        return add(unit, *place, st, disk)
    if row.kind == st.kind:
        return change_row(unit, row, st, branch_uuid, disk)
    swapped = kinship.swapped(unit, row, st, kinship.elsewhere(unit, row.branch_id, st, disk, row), disk)
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
    rule: int | None = None,
) -> Entry:
    """A name is there that the index did not know. Returns its row.

    `node` and `uuid` say that it is another name of a known file; `fresh`, that it was made a moment ago, so that no
    older row can be it; `rule` is what holds it back, where somebody has judged it.
    """
    place = Place(branch_id, parent_id, name)
    if fresh or node is not None:
        row = recording.insert(unit, recording.plain_row(unit, *place, st, node=node, uuid=uuid, rule=rule))
    else:
        twin_id = unit.name_of(branch_id, st)
        if twin_id is not None:
            row = recording.arrive(unit, _another_name(unit, place, st, recording.again(unit, twin_id)))
        else:
            row = recording.restat_twins(unit, _found(unit, place, st, disk, rule), st)
        if row.nlink > 1 and row.kind == KIND_FILE:  # a name of a known file
            unit.all_say(branch_id, st, row.id)
            if disk.was_written(parent_id, name):
                recording.doubt(unit, row)
                row = recording.again(unit, row.id)
    return _made_again(unit, row)


def _made_again(unit: Unit, row: Entry, *, inherits: bool = True) -> Entry:
    """A name is there that may have left before, while other devices have it."""
    if not unit.remote:
        return row
    leaving.made_again(unit, [row], inherits=inherits)
    return recording.again(unit, row.id)


def _found(unit: Unit, place: Place, st: Stat, disk: Disk, rule: int | None) -> Entry:
    """The row of a name that appeared: one that was elsewhere, or a new one."""
    known = kinship.elsewhere(unit, place.branch_id, st, disk)
    twin = kinship.twin(known, st)
    if twin is not None:
        return recording.arrive(unit, _link(unit, place, st, twin, disk))
    source = _source(unit, place, st, known, disk)
    if source is not None:
        row = recording.arrive(unit, source.bring())
        disk.moved(row)  # now that it has its number
        return row
    linked = kinship.linked_beside(unit, place, st, disk)  # a number is a branch's own; what people attached is not
    uuid = None if linked is None else recording.ensure_uuid(unit, linked)
    return recording.arrive(unit, recording.insert(unit, recording.plain_row(unit, *place, st, uuid=uuid, rule=rule)))


class _Source(NamedTuple):
    """What a file was before it was seen at a place, and the step that brings its row there.

    Who takes the step tells `disk.moved`, once the row has all that it is to have.
    """

    was: Entry | Kept
    bring: Callable[[], Entry]


def _source(unit: Unit, place: Place, st: Stat, known: kinship.Known, disk: Disk) -> _Source | None:
    """Where a file was before: under another name in the branch, in a branch beside, in limbo; None: it is new."""
    for old, there in known:
        if kinship.is_at(there, st) or kinship.is_below(unit, place.parent_id, old):
            continue
        if kinship.same_file(unit, old, place, st, disk) and kinship.goes_as_a_whole(unit, old):
            return _Source(old, partial(_move, unit, old, place, st, disk))
    beside = kinship.from_beside(unit, place, st, disk)
    if beside is not None:
        return _Source(beside, partial(_move_beside, unit, beside, place, st, disk))
    kept = kinship.kept(unit, place, st, disk)
    return None if kept is None else _Source(kept, partial(_return, unit, kept, place, st, disk))


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
        return _made_again(unit, recording.restat_twins(unit, _replace(unit, row, st, branch_uuid, disk), st))
    doubted = verdict == differ.ATTRS and disk is not None and kinship.may_be_rewritten(unit, row, st, disk)
    entries.set_stat(unit.db, row.id, st, unit.seq)
    if verdict == differ.DATA and row.kind == KIND_FILE:
        recording.new_bytes(unit, row, branch_uuid)
        if row.nlink > 1:  # nobody hears of it by its names in other locations
            for other in recording.same_beside(unit, row.branch_id, row.stat):
                recording.restat(unit, other, st)
    elif doubted:
        verdict = differ.DATA
    recording.retry_unread(unit, row)
    what = {differ.DATA: change.DATA, differ.TIMES: change.TIMES}.get(verdict, change.ATTRS)
    unit.changed(what, row.branch_id, row.id, row.parent_id, row.name, row.node)
    row = recording.again(unit, row.id)
    row = row if disk is None else recording.restat_twins(unit, row, st)
    if doubted:
        recording.doubt(unit, row)
    return recording.again(unit, row.id)


def remove(unit: Unit, row: Entry, branch_uuid: bytes, *, keep: bool = True) -> None:
    """The row's name is gone from its branch: it and all below it leave the index.

    `keep`: its identity waits in limbo, it may turn up elsewhere (not when we destroyed it ourselves).
    """
    now_ns = time.time_ns()
    doomed = list(entries.subtree(unit.db, row.id)) if row.kind == KIND_DIR else [row]
    for gone in reversed(doomed):
        unit.gone(gone.id, gone.branch_id)
        if keep:
            limbo.put(unit.db, gone, now_ns)
            recording.one_link_less(unit, gone)
        else:
            limbo.forget(unit.db, gone)
        entries.delete(unit.db, gone.id)
        recording.stand_alone(unit, gone)
        if unit.remote and not any(one.is_ours for one in entries.some_of_node(unit.db, gone.node, _NAMES_LEFT)):
            recording.leave_to_others(unit, gone.node)
        unit.changed(change.REMOVED, gone.branch_id, gone.id, gone.parent_id, gone.name, gone.node)


# another inode under a known name -------------------------------------------------------------------------------------


def _replace(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, disk: Disk) -> Entry:
    """Another inode of the same kind stands under a row's name: exchanged, linked, moved here, come back, or new."""
    known = kinship.elsewhere(unit, row.branch_id, st, disk, row)
    swapped = kinship.swapped(unit, row, st, known, disk)
    if swapped is not None:
        return _exchange(unit, row, swapped, st, disk)
    twin = kinship.twin(known, st)
    if twin is not None:
        twin = _known_twin(unit, twin, st, disk)
        return _renew(unit, row, st, branch_uuid, twin.node, twin.uuid)
    source = _source(unit, kinship.place(row), st, known, disk)
    if source is None:
        inherits = row.kind != KIND_FILE or kinship.takes_over(unit, row, disk)
        return _renew(unit, row, st, branch_uuid, None, recording.heir_uuid(unit, row) if inherits else None)
    heir, version = _new_version(unit, row, source.was, st, branch_uuid, disk)
    if isinstance(source.was, Entry) and kinship.is_below(unit, source.was.parent_id, row):
        recording.set_aside(unit, source.was, row)  # a directory took the place of the one it was in
    remove(unit, row, branch_uuid)
    if heir is not None:
        limbo.put_number(unit.db, row, time.time_ns())
    new = source.bring()
    if heir is not None:
        entries.set_uuid(unit.db, new.id, heir, unit.seq)
    if version is not None:
        entries.set_version(unit.db, new.id, version, unit.seq)
    new = recording.again(unit, new.id)
    disk.moved(new)
    return new


def _renew(unit: Unit, row: Entry, st: Stat, branch_uuid: bytes, node: int | None, uuid: bytes | None) -> Entry:
    """The row lives on with an inode that came, under its number (None: a new one) and uuid."""
    limbo.put_number(unit.db, row, time.time_ns())
    recording.one_link_less(unit, row)
    if node is None:
        node = unit.new_id()
    entries.set_stat(unit.db, row.id, st, unit.seq)
    entries.set_node(unit.db, row.id, node, unit.seq)
    if uuid != row.uuid:
        entries.set_uuid(unit.db, row.id, uuid, unit.seq)
    recording.stand_alone(unit, row)
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    unit.changed(change.ADDED, row.branch_id, row.id, row.parent_id, row.name, node)
    if row.kind == KIND_DIR:
        entries.set_scanned(unit.db, row.id, None, None)
    elif row.kind == KIND_FILE:
        recording.new_bytes(unit, row, branch_uuid)
    else:
        entries.set_version(unit.db, row.id, recording.later(unit, row, branch_uuid), unit.seq)
    return recording.again(unit, row.id)


def _new_version(
    unit: Unit, row: Entry, source: Entry | Kept, st: Stat, branch_uuid: bytes, disk: Disk
) -> tuple[bytes | None, bytes | None]:
    """(uuid that the source takes over, None to keep its own; packed vector that has seen both) of a rename over."""
    if row.kind == KIND_DIR:
        return None, None
    version = recording.over(unit, row, source, branch_uuid)
    if row.kind != KIND_FILE:
        return None, version
    annotated = source.uuid is not None and metadata.has_any(unit.db, source.uuid)
    if st.nlink > 1 or annotated or not kinship.takes_over(unit, row, disk):
        return None, version
    return recording.heir_uuid(unit, row), version


def _exchange(unit: Unit, a: Entry, b: Entry, st: Stat, disk: Disk) -> Entry:
    """Two names were exchanged on disk: so are their rows. Returns the row that now has the name of `a`."""
    a, b = recording.leave(unit, a, b.parent_id, b.name), recording.leave(unit, b, a.parent_id, a.name)
    recording.swap_names(unit, a, b)
    recording.restat(unit, b, st)
    disk.moved(recording.arrive(unit, recording.again(unit, a.id)))
    new = recording.arrive(unit, recording.again(unit, b.id))
    disk.moved(new)
    _made_again(unit, recording.again(unit, a.id), inherits=False)
    return new


def _move(unit: Unit, old: Entry, place: Place, st: Stat, disk: Disk) -> Entry:
    old = recording.leave(unit, old, place.parent_id, place.name)
    unit.changed(change.REMOVED, old.branch_id, old.id, old.parent_id, old.name, old.node)
    entries.move(unit.db, old.id, place.parent_id, place.name, unit.seq)
    unit.changed(change.ADDED, old.branch_id, old.id, place.parent_id, place.name, old.node)
    recording.restat(unit, old, st)
    _doubt_written(unit, old, place, disk)
    return recording.again(unit, old.id)


def _doubt_written(unit: Unit, row: Entry, place: Place, disk: Disk) -> None:
    """Somebody wrote to a file that moved here: its bytes are others, whatever its size and mtime say."""
    if row.kind == KIND_FILE and (
        disk.was_written(*place[1:]) or (row.parent_id is not None and disk.was_written(row.parent_id, row.name))
    ):
        recording.doubt(unit, recording.again(unit, row.id))


def _move_beside(unit: Unit, old: Entry, place: Place, st: Stat, disk: Disk) -> Entry:
    """A row, with all below it, goes to the branch it was found in; what it had seen, it has seen there too."""
    alone = recording.leave(unit, old, place.parent_id, place.name)
    had = recording.vector_of(alone, unit.branch_uuid(alone.branch_id)) if alone.version is not None else None
    new = recording.change_branch(unit, alone, *place, st)
    if had is not None:
        version = versions.pack(versions.bump(had, unit.branch_uuid(new.branch_id), unit.version))
        entries.set_version(unit.db, new.id, version, unit.seq)
    _doubt_written(unit, old, place, disk)
    return recording.again(unit, new.id)


def _return(unit: Unit, kept: Kept, place: Place, st: Stat, disk: Disk) -> Entry:
    """The row of a file that comes back from limbo."""
    row = recording.plain_row(unit, *place, st, entry_id=kept.entry_id, node=kept.node, uuid=kept.uuid)
    row = row._replace(content_id=kept.content_id, hash_state=kept.hash_state, version=kept.version)
    recording.insert(unit, row)
    if kept.branch_id not in (0, place.branch_id):
        metadata.mirror_follows(unit.db, kept.node, kept.branch_id, place.branch_id)
    row = recording.leave(unit, row, place.parent_id, place.name)
    if kept.written:
        recording.note_new_bytes(unit, row)
    _doubt_written(unit, row, place, disk)
    row = recording.again(unit, row.id)
    if kept.uuid is None:  # who it was lives on with another inode
        metadata.mirror_forget(unit.db, row)
    return row


def _known_twin(unit: Unit, twin: Entry, st: Stat, disk: Disk) -> Entry:
    """A hard-linked file is to have another name: it goes by its own number, and what was just seen of it is known."""
    twin = recording.alone(unit, twin)
    row = recording.restat_twins(unit, change_row(unit, twin, st, unit.branch_uuid(twin.branch_id)), st)
    # The name that came explains the ctime; a write by any name is one nevertheless.
    if twin.ctime_ns != st.ctime_ns and any(disk.was_written(*name) for name in links.places(unit.db, row)):
        recording.doubt(unit, row)
    return recording.again(unit, row.id)


def _link(unit: Unit, place: Place, st: Stat, twin: Entry, disk: Disk) -> Entry:
    """Another name of a file that is known by others."""
    return _another_name(unit, place, st, _known_twin(unit, twin, st, disk))


def _another_name(unit: Unit, place: Place, st: Stat, twin: Entry) -> Entry:
    row = recording.plain_row(unit, *place, st, node=twin.node, uuid=twin.uuid)
    row = row._replace(content_id=twin.content_id, hash_state=twin.hash_state)
    return recording.insert(unit, row)
