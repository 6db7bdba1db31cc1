"""What is written of an entry's rows: new ones, moves, new bytes, what hard-linked names share, uuids and versions.

In: a unit, rows, and what is known of them already. Out: rows as they are now, their changes noted in the unit. Which
row a file is, and what shall become of it, is decided in kinship.py and apply.py.
"""

from collections.abc import Sequence

from index.model import change, versions
from index.model.entry import HASH_FAILED, HASH_LEFT, HASH_NONE, KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry, Stat
from index.model.ids import new_entry_uuid
from index.store import annotating, changes, entries, heldback, leaving, links, metadata
from index.store.limbo import Kept
from index.store.unit import Unit

#: Of so many names of a file each is told of when it changes: all of them are one inode to the kernel.
_TWINS_TOLD = 64


def vector_of(row: Entry | Kept, branch_uuid: bytes) -> dict[bytes, int]:
    """What the file of a row has seen."""
    return versions.of(row.version, branch_uuid)


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
    rule: int | None = None,
) -> Entry:
    """The row of a name that the index lacks, its change noted; the caller inserts it. `rule` is what holds it back,
    where somebody has judged it already."""
    if entry_id is None:
        entry_id = unit.new_id()
    if uuid is None and st.kind in (KIND_DIR, KIND_SYMLINK):
        uuid = new_entry_uuid()
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
        hash_state=HASH_LEFT if branch_id in unit.shallow else HASH_NONE,
        version=None if st.kind == KIND_DIR else versions.pack({unit.branch_uuid(branch_id): unit.version}),
        seq=unit.seq,
        scanned_ns=None,
        scanned_mtime_ns=None,
        rule=unit.judge(branch_id, parent_id, name, is_dir=st.kind == KIND_DIR) if rule is None else rule,
    )
    unit.changed(change.ADDED, branch_id, entry_id, parent_id, name, row.node)
    return row


def first_row(unit: Unit, branch_id: int, parent_id: int, name: bytes, st: Stat, kind: int, rule: int) -> Entry:
    """`plain_row` of a name that is judged and alone, at half the price: a first scan has hundreds of thousands. Nobody
    knows another file by the name, so that it needs no stamp."""
    entry_id = unit.new_id()
    uuid = new_entry_uuid() if kind in (KIND_DIR, KIND_SYMLINK) else None
    state = HASH_LEFT if branch_id in unit.shallow else HASH_NONE
    unit.changed(change.ADDED, branch_id, entry_id, parent_id, name, entry_id)
    return Entry(
        entry_id, branch_id, parent_id, name, entry_id, uuid, kind, *st, None, state, None, unit.seq, None, None, rule
    )


def set_rule(unit: Unit, row: Entry, rule: int) -> None:
    """What holds a row back is another rule now, or none."""
    entries.set_rule(unit.db, row.id, rule, unit.seq)
    if rule and not row.rule and row.uuid is not None:
        unit.gone(row.id, row.branch_id, changes.WITHDRAWN)
        heldback.withdraw(unit.db, row.uuid)
    elif not rule and row.rule and row.uuid is not None:
        heldback.release(unit.db, row.uuid)
    if row.kind == KIND_DIR:
        unit.rules_changed()
    unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)


def restat(unit: Unit, row: Entry, st: Stat) -> None:
    """Write what lstat says of the row's own inode; what was written to it while nobody looked is a new version."""
    entries.set_stat(unit.db, row.id, st, unit.seq)
    if row.kind == KIND_FILE and (row.size_bytes, row.mtime_ns) != (st.size_bytes, st.mtime_ns):
        note_new_bytes(unit, row)
    retry_unread(unit, row)


def doubt(unit: Unit, row: Entry) -> None:
    """The bytes of a file may be others, whatever lstat says: by all names that its inode has, also in branches beside,
    they are to be read again."""
    names = [row]
    if row.nlink > 1:
        names += [one for one in entries.by_node(unit.db, row.node) if one.branch_id == row.branch_id]
        names += links.beside(unit.db, row.branch_id, row.st_ino)
    for one in names:
        if one.kind == KIND_FILE and one.st_ino == row.st_ino and one.hash_state not in (HASH_NONE, HASH_LEFT):
            entries.set_unsure(unit.db, one.id, unit.seq)
            if one.branch_id != row.branch_id:
                unit.changed(change.DATA, one.branch_id, one.id, one.parent_id, one.name, one.node)


def retry_unread(unit: Unit, row: Entry) -> None:
    """A file that could not be read is another by what lstat says: maybe it can be read now."""
    if row.kind == KIND_FILE and row.hash_state == HASH_FAILED:
        entries.set_unsure(unit.db, row.id, unit.seq)


def change_branch(unit: Unit, row: Entry, branch_id: int, parent_id: int, name: bytes, st: Stat) -> Entry:
    """A real rename took a file or a tree to another branch of the same volume: its rows go along."""
    unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
    for below in list(entries.subtree(unit.db, row.id)):
        metadata.mirror_follows(unit.db, below.node, below.branch_id, branch_id)
        unit.db.execute("UPDATE entry SET branch_id=?, seq=? WHERE id=?", (branch_id, unit.seq, below.id))
        if below.hash_state == HASH_LEFT and branch_id not in unit.shallow:
            entries.set_unsure(unit.db, below.id, unit.seq)
        join_links(unit, below._replace(branch_id=branch_id))
    entries.move(unit.db, row.id, parent_id, name, unit.seq)
    restat(unit, again(unit, row.id), st)
    unit.changed(change.ADDED, branch_id, row.id, parent_id, name, row.node)
    return again(unit, row.id)


def join_links(unit: Unit, row: Entry) -> Entry:
    """A hard-linked file is one by all the names it has in a branch, however they came there. Returns its row."""
    if row.nlink < 2 or row.kind == KIND_DIR:
        return row
    others = [
        other
        for other in entries.other_nodes(unit.db, row)
        if (other.kind, other.size_bytes, other.mtime_ns) == (row.kind, row.size_bytes, row.mtime_ns)
    ]
    if not others:
        return row
    row = alone(unit, row)
    uuid = row.uuid or next((other.uuid for other in others if other.uuid is not None), None)
    for other in others:
        entries.set_node(unit.db, other.id, row.node, unit.seq)
        if other.uuid is not None and uuid is not None and other.uuid != uuid:
            uuid = alias(unit, other.uuid, uuid)
        _renumbered(unit, other, again(unit, other.id))
    for one in entries.by_node(unit.db, row.node):
        if one.uuid != uuid:
            entries.set_uuid(unit.db, one.id, uuid, unit.seq)
    return again(unit, row.id)


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


def set_aside(unit: Unit, row: Entry, beside: Entry) -> None:
    """Take a row out of a tree that is about to leave the index, until it gets its own new place in the same unit."""
    assert beside.parent_id is not None
    entries.move(unit.db, row.id, beside.parent_id, b"/" + row.name, unit.seq)  # no real name has a slash


def part(unit: Unit, row: Entry) -> Entry:
    """A replica is no part of one file with the others any more: it, and the other names of its inode, get a number of
    their own. Of these names the change is told here; of its own by the caller, who may be about to show it."""
    number = unit.new_id()
    if not entries.has_rival(unit.db, row):  # what was seen may be the other's
        metadata.mirror_moves(unit.db, row, number)
    for twin in entries.by_node(unit.db, row.node):
        if twin.branch_id == row.branch_id and twin.st_ino == row.st_ino:
            entries.set_node(unit.db, twin.id, number, unit.seq)
            if twin.id != row.id:
                _renumbered(unit, twin, twin._replace(node=number))
    return again(unit, row.id)


def part_ways(unit: Unit, row: Entry) -> None:
    """What is ours goes to another name, where the replicas of other devices do not follow it: it takes the number
    along, which the kernel moves with the name, and has a uuid of its own from now on, with copies of the annotations.
    So has all that is below it."""
    if not unit.remote or not row.is_ours:
        return
    for entry_id in entries.held_elsewhere(unit.db, row.id):
        ours = again(unit, entry_id)
        leave_to_others(unit, ours.node)
        if ours.uuid is not None and any(not one.is_ours for one in entries.by_uuid(unit.db, ours.uuid)):
            _own_uuid(unit, ours, ours.uuid)


def leave_to_others(unit: Unit, number: int) -> None:
    """Replicas of other devices stay where one of ours is no more: they get a number of their own, together."""
    theirs = [one for one in entries.by_node(unit.db, number) if not one.is_ours]
    if theirs:
        fresh = unit.new_id()
        for one in theirs:
            entries.set_node(unit.db, one.id, fresh, unit.seq)
            _renumbered(unit, one, one._replace(node=fresh))
        unit.parts_changed()


def moved_afar(unit: Unit, row: Entry) -> None:
    """A row of another device has another place, or none: it has for itself from now on what it shared with others, and
    so has all that is below it. What are names of one file there is for the device to say (remote.py)."""
    for entry_id in entries.shared_below(unit.db, row.id):
        one = again(unit, entry_id)
        if not entries.has_replica(unit.db, one):
            continue
        if one.parent_id is None or not entries.is_where_replicas_are(unit.db, one, one.parent_id, one.name):
            _renumbered(unit, one, part(unit, one))
    unit.parts_changed()


def alone(unit: Unit, row: Entry) -> Entry:
    """A file that is to have several names shares its number with them, and not with replicas of one of them."""
    if not entries.is_shared(unit.db, row):
        return row
    parted = part(unit, row)
    _renumbered(unit, row, parted)
    return parted


def leave(unit: Unit, row: Entry, parent_id: int | None, name: bytes) -> Entry:
    """A row is to have that name. Where that is not its replicas', it has for itself from now on what it shared.

    So has all that is below it; there may be something only where the directory itself was shared.
    """
    if not entries.is_shared(unit.db, row):
        return own_identity(unit, row, parent_id, name)
    if entries.is_where_replicas_are(unit.db, row, parent_id, name):
        return row
    for one in list(entries.subtree(unit.db, row.id)) if row.kind == KIND_DIR else [row]:
        now = again(unit, one.id)
        if not entries.is_shared(unit.db, now):
            own_identity(unit, now, now.parent_id, now.name)
            continue
        parted = part(unit, now)
        if parted.uuid is not None:
            _own_uuid(unit, parted, parted.uuid)
        _renumbered(unit, one, parted)
    return again(unit, row.id)


def own_identity(unit: Unit, row: Entry, parent_id: int | None, name: bytes) -> Entry:
    """A version of a file that had a number of its own already is to have a name of its own: so it gets a uuid too.
    Not one that another device has as well, under this name: that stays the file it is."""
    if row.uuid is None or row.kind == KIND_DIR or not row.is_ours:
        return row
    others = links.of_other_inodes(unit.db, row)  # names of the same file in other locations stay its names
    if not others:
        return row
    linked = entries.by_node(unit.db, row.node)
    if not all(one.is_ours for one in linked):
        return row
    linked = [one for one in linked if one.id != row.id] + links.names_beside(unit.db, row)
    ours = {entries.union_name(unit.db, one.parent_id, one.name) for one in linked}
    ours.add(entries.union_name(unit.db, parent_id, name))
    if all(entries.union_name(unit.db, other.parent_id, other.name) in ours for other in others):
        return row
    _own_uuid(unit, row, row.uuid)
    return again(unit, row.id)


def stand_alone(unit: Unit, gone: Entry) -> None:
    """A name of a hard-linked file is not its any more. It may have been that of a version in conflict, which had the
    uuid with the others of its name; what is left by other names is a file of its own."""
    if gone.nlink > 1 and gone.uuid is not None and gone.kind != KIND_DIR:
        for link in (*entries.some_of_node(unit.db, gone.node, 1), *links.names_beside(unit.db, gone, 1)):
            own_identity(unit, link, link.parent_id, link.name)


def _renumbered(unit: Unit, old: Entry, new: Entry) -> None:
    unit.changed(change.REMOVED, old.branch_id, old.id, old.parent_id, old.name, old.node)
    unit.changed(change.ADDED, new.branch_id, new.id, new.parent_id, new.name, new.node)


def arrive(unit: Unit, row: Entry) -> Entry:
    """A file has come to its name. What other branches have under it, or will turn out to have, are versions of
    something else, or of what was here before: neither has seen the other, so that neither is hidden. Replicas that
    share the number have come along."""
    return row if row.kind == KIND_DIR else _held_apart(unit, row, _versions_beside(unit, row))


#: What other branches have under a name, with their vectors.
_Versions = Sequence[tuple[Entry, versions.Vector]]


def _versions_beside(unit: Unit, row: Entry) -> _Versions:
    found = same_name_elsewhere(unit, row)
    return [(other, vector_of(other, unit.branch_uuid(other.branch_id))) for other in found]


def _held_apart(unit: Unit, row: Entry, there: _Versions) -> Entry:
    """A file gets a version that has seen none of those beside but for its replicas, and that none of them has seen."""
    ours = unit.branch_uuid(row.branch_id)
    own = vector_of(row, ours)
    # One that was written meanwhile is no replica any more.
    replicas = [(other, vector) for other, vector in there if other.node == row.node and versions.covers(own, vector)]
    others = [vector for other, vector in there if (other, vector) not in replicas]
    fresh = {ours: _unseen(unit, own, ours, others)}
    for other, vector in replicas:  # it has seen what they are, and nothing that they may yet become
        branch = unit.branch_uuid(other.branch_id)
        fresh[branch] = vector.get(branch, 0)
    if fresh != own:
        entries.set_version(unit.db, row.id, versions.pack(fresh), unit.seq)
    if len(replicas) == sum(other.node == row.node for other, _ in there):
        return again(unit, row.id)
    parted = part(unit, row)
    _renumbered(unit, row, parted)
    return parted


def arrive_together(unit: Unit, rows: list[Entry]) -> None:
    """All that is shown as one name, and what is older, has come to another: none has seen what was there, or will turn
    out to be. Which of them has seen which others stays as it was."""
    rows = [row for row in rows if row.kind != KIND_DIR]
    had = {row.id: vector_of(row, unit.branch_uuid(row.branch_id)) for row in rows}
    others = [
        vector_of(other, unit.branch_uuid(other.branch_id))
        for row in rows
        for other in same_name_elsewhere(unit, row)
        if other.id not in had
    ]
    fresh = {}
    for row in rows:
        ours = unit.branch_uuid(row.branch_id)
        fresh[row.id] = {ours: _unseen(unit, had[row.id], ours, others)}
    for row in rows:
        joined: versions.Vector = {}
        for one in rows:
            if versions.covers(had[row.id], had[one.id]):
                joined = versions.join(joined, fresh[one.id])
        entries.set_version(unit.db, row.id, versions.pack(joined), unit.seq)


def _is_related(one: versions.Vector, other: versions.Vector) -> bool:
    return versions.dominates(one, other) or versions.dominates(other, one)


def _unseen(unit: Unit, own: versions.Vector, branch: bytes, others: Sequence[versions.Vector]) -> int:
    """A stamp for a file's own branch that nobody has seen."""
    seen = max((vector.get(branch, 0) for vector in others), default=0)
    return max(seen + 1, own.get(branch, 0), unit.version)


def meet(unit: Unit, directory: Entry, number: int) -> None:
    """A directory becomes one with those that have a number. The files in them have not seen each other; but for those
    of another device and of ours that go by one uuid: these are versions of one file, and know which is later."""
    entries.set_node(unit.db, directory.id, number, unit.seq)
    unit.parts_changed()
    for other in unit.one_with(directory.id):
        hold_apart(unit, directory.id, other)


def hold_apart(unit: Unit, directory: int, other: int) -> None:
    """The files of two directories that turned out to be one have not seen each other."""
    for entry_id, other_id in entries.versions_under_one_name(unit.db, directory, other):
        here, there = again(unit, entry_id), again(unit, other_id)
        if not here.is_ours:
            here, there = there, here
        if not here.is_ours or (here.uuid == there.uuid and not there.is_ours):
            continue
        beside = _versions_beside(unit, here)
        own = vector_of(here, unit.branch_uuid(here.branch_id))
        if any(one.node != here.node and _is_related(own, vector) for one, vector in beside):
            _held_apart(unit, here, beside)


def same_name_elsewhere(unit: Unit, row: Entry) -> list[Entry]:
    """What has a row's name in the other directories that are one with its own."""
    beside = [] if row.parent_id is None else unit.one_with(row.parent_id)
    return [other for other in (entries.child(unit.db, directory, row.name) for directory in beside) if other]


def over(unit: Unit, row: Entry, source: Entry | Kept, branch_uuid: bytes) -> bytes:
    """The packed vector of what came over a row on its branch: it has seen what the row had, of others nothing more."""
    own = vector_of(source, branch_uuid).get(branch_uuid, 0)
    seen = versions.join(vector_of(row, branch_uuid), {branch_uuid: own})
    return versions.pack(versions.bump(seen, branch_uuid, unit.version))


def _own_uuid(unit: Unit, row: Entry, uuid: bytes) -> None:
    """A file goes on under a uuid of its own, with copies of the annotations."""
    fresh = copy_of(unit, uuid)
    for twin in (*links.names_beside(unit.db, row), *entries.by_node(unit.db, row.node)):
        if twin.is_ours:
            entries.set_uuid(unit.db, twin.id, fresh, unit.seq)


def copy_of(unit: Unit, uuid: bytes) -> bytes:
    """A new uuid with copies of the annotations of another."""
    fresh = new_entry_uuid()
    annotating.copy(unit, uuid, fresh)
    return fresh


def restat_twins(unit: Unit, row: Entry, st: Stat) -> Entry:
    """The other names of a hard-linked file show the same inode: give their rows the stat that was just seen.

    Events come under one name only. Returns the row, which is one with them.
    """
    if st.kind == KIND_DIR or max(st.nlink, row.nlink) < 2:
        return row
    row = join_links(unit, row)
    told = links.set_stat(unit.db, row, st, unit.seq, _TWINS_TOLD)
    for twin in links.of_other_bytes(unit.db, row, st):
        restat(unit, twin, st)
        told.append(twin)
    for twin in told:
        unit.changed(change.ATTRS, twin.branch_id, twin.id, twin.parent_id, twin.name, twin.node)
    return again(unit, row.id)


def one_link_less(unit: Unit, row: Entry) -> None:
    """A row's name is not one of its inode's any more: the others have one link less."""
    if row.nlink < 2 or row.kind == KIND_DIR:
        return
    for twin in links.one_less(unit.db, row, unit.seq, _TWINS_TOLD):
        unit.changed(change.ATTRS, twin.branch_id, twin.id, twin.parent_id, twin.name, twin.node)


def same_beside(unit: Unit, branch_id: int, st: Stat) -> list[Entry]:
    """The rows of other branches that show an inode as it is: names of one file in several locations."""
    found = links.beside(unit.db, branch_id, st.st_ino)
    return [one for one in found if (one.kind, one.size_bytes, one.mtime_ns) == (st.kind, st.size_bytes, st.mtime_ns)]


def heir_uuid(unit: Unit, old: Entry) -> bytes | None:
    """The uuid that a new version of a row's file takes over: its own.

    Other hard-linked names of the old inode go on as a file of their own, with copies of the annotations.
    """
    if old.uuid is None:
        return None
    here = [t for t in entries.by_node(unit.db, old.node) if t.id != old.id and t.branch_id == old.branch_id]
    twins = [t for t in here if t.uuid == old.uuid] + (links.names_beside(unit.db, old) if old.nlink > 1 else [])
    if twins:
        fresh = copy_of(unit, old.uuid)
        for twin in twins:
            entries.set_uuid(unit.db, twin.id, fresh, unit.seq)
    return old.uuid


def insert(unit: Unit, row: Entry) -> Entry:
    entries.insert(unit.db, row)
    return row


def new_bytes(unit: Unit, row: Entry, branch_uuid: bytes) -> None:
    entries.set_changed(unit.db, row.id, later(unit, row, branch_uuid), unit.seq)


def later(unit: Unit, row: Entry, branch_uuid: bytes) -> bytes:
    """The packed vector of a row after one more change."""
    return versions.pack(versions.bump(vector_of(row, branch_uuid), branch_uuid, unit.version))


def note_new_bytes(unit: Unit, row: Entry) -> None:
    """A file was written to, and nobody saw it happen."""
    new_bytes(unit, row, unit.branch_uuid(row.branch_id))
    unit.changed(change.DATA, row.branch_id, row.id, row.parent_id, row.name, row.node)


def again(unit: Unit, entry_id: int) -> Entry:
    fresh = entries.get(unit.db, entry_id)
    assert fresh is not None
    return fresh


def ensure_uuid(unit: Unit, row: Entry) -> bytes:
    """The row's uuid, given now if it had none; hard-linked names get the same one."""
    if row.uuid is not None:
        return row.uuid
    uuid = new_entry_uuid()
    for twin in entries.by_node(unit.db, row.node):
        if twin.uuid is None:
            entries.set_uuid(unit.db, twin.id, uuid, unit.seq)
    return uuid


def are_one_file(one: Entry, other: Entry) -> bool:
    """Whether two rows of the same bytes name one file, if one of them is another device's. What is hard-linked here is
    none of several files there, nor the other way round: these would all become one, for everybody."""
    return one.is_ours == other.is_ours or one.kind == KIND_DIR or (one.nlink > 1) == (other.nlink > 1)


def known_uuid(first: Entry, second: Entry) -> bytes | None:
    """Of the uuids of two rows that are one file, the smaller one: all devices choose the same."""
    if first.uuid is None or second.uuid is None:
        return first.uuid or second.uuid
    return min(first.uuid, second.uuid)


def alias(unit: Unit, one: bytes, other: bytes) -> bytes:
    """Two uuids turned out to name one file: what they carry is one from now on, for all who have them, as links in
    other locations do. Returns what both are read as."""
    kept = annotating.join(unit, one, other)
    for uuid in {one, other} - {kept}:
        leaving.read_as(unit, uuid, kept)
    return kept


def carries_too(unit: Unit, row: Entry, uuid: bytes | None) -> None:
    """What was attached to a file under a uuid that it had for a moment is its own."""
    if uuid is None or uuid == row.uuid or not metadata.has_any(unit.db, uuid):
        return
    entries.set_uuid(unit.db, row.id, uuid if row.uuid is None else alias(unit, row.uuid, uuid), unit.seq)


def join_versions(unit: Unit, first: Entry, second: Entry, first_branch: bytes, second_branch: bytes) -> None:
    """Two replicas hold the same bytes: each has seen what the other has. Of one that is another device's that is for
    the device to say."""
    joined = versions.pack(versions.join(vector_of(first, first_branch), vector_of(second, second_branch)))
    for row in (first, second):
        if row.is_ours:
            entries.set_version(unit.db, row.id, joined, unit.seq)
