"""Leaving: what leaves a name here has left it, though other devices hold it yet; what comes there again is newer.

In: a unit, and rows of ours that are about to leave a name (`leave`, `leave_directory`, `leave_tree`) or have come to
one (`made_again`); rows of others that were told (`told`); uuids that are one (`read_as`). Out: whiteouts, the marks
that follow from them, and versions of ours that have seen what is hidden.

Hidden is a replica of another device whose uuid a whiteout has, while its version has seen no more than that, or its
bytes are the same; and a directory that has one and in which nothing shows. So a version that somebody wrote since
shows, and its whiteout ends; and a directory shows again as soon as there is something new in it.

What comes to such a name here is a later version of what was there, with the uuid, and so what people attached, as
after a rename over it: unless what is hidden was not known to be what had left. That shows then, as a conflict, since
to have seen it means to replace it everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence

import apsw

from index.model import change, versions
from index.model.change import Change
from index.model.entry import HASH_FULL, HIDDEN, KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry
from index.model.ids import new_entry_uuid
from index.store import annotating, contents, entries, metadata, targets, whiteouts
from index.store.unit import Unit
from index.store.whiteouts import Whiteout

#: What rows of ours lead to, by their ids: the disk alone knows.
Targets = Mapping[int, bytes]

# leaving --------------------------------------------------------------------------------------------------------------


def leave(unit: Unit, ours: Sequence[Entry], theirs: Iterable[Entry], leads: Targets | None = None) -> None:
    """Replicas of ours leave a name; what others have under it is hidden, as far as it is what the name showed, or
    older. Not directories. To be called while the rows of ours are there."""
    rows = [row for row in theirs if row.kind != KIND_DIR and not row.is_ours and not row.is_hidden]
    if not rows or not ours:
        return
    seen = joined(unit, ours)
    known = seen_by(unit, ours, rows, leads)
    unsure = [row for row in rows if row not in known and _may_be_same(unit, row, ours, seen, leads or {})]
    seen = versions.join(seen, joined(unit, known))
    for row in known:
        _put(unit, row, seen, is_seen=True)
    for row in unsure:
        _put(unit, row, _vector(unit, row), is_seen=False)
    for row in (*known, *unsure):
        judge(unit, row.id)


def seen_by(unit: Unit, ours: Sequence[Entry], theirs: Iterable[Entry], leads: Targets | None = None) -> list[Entry]:
    """Those of some replicas of other devices that are known to be what replicas of ours are, or older."""
    seen = joined(unit, ours)
    return [row for row in theirs if _is_seen(unit, row, ours, seen, leads or {})]


def leave_directory(unit: Unit, theirs: Iterable[Entry]) -> None:
    """A directory of ours leaves a name; what others have of it is hidden while nothing shows in it."""
    for row in theirs:
        if row.kind == KIND_DIR and not row.is_ours:
            _put(unit, row, {}, is_seen=True)
            judge(unit, row.id)


def leave_tree(unit: Unit, ours: Sequence[Entry], theirs: Sequence[Entry]) -> None:
    """Directories of ours go elsewhere, with all that is in them: each name in them leaves."""
    todo = [(list(ours), [row for row in theirs if row.kind == KIND_DIR and not row.is_ours])]
    for here, there in todo:  # grows on the way: what lies above comes first
        names: dict[bytes, list[Entry]] = {}
        for directory in there:
            for row in entries.children(unit.db, directory.id):
                names.setdefault(row.name, []).append(row)
        for name, rows in names.items():
            found = [entries.child(unit.db, directory.id, name) for directory in here]
            files = [row for row in found if row is not None and row.kind != KIND_DIR]
            directories = [row for row in found if row is not None and row.kind == KIND_DIR]
            leave(unit, files, rows)
            below = [row for row in rows if row.kind == KIND_DIR]
            if directories and below:
                todo.append((directories, below))
    for _, there in reversed(todo):
        leave_directory(unit, there)


def _put(unit: Unit, row: Entry, vector: versions.Vector, *, is_seen: bool) -> None:
    directory = _uuid_of(unit.db, row.parent_id)
    if directory is not None and row.uuid is not None:
        packed, held = versions.pack(vector), _held(unit.db, row)
        whiteouts.put(unit.db, Whiteout(directory, row.name, row.uuid, row.kind, packed, held, int(is_seen), unit.hlc))


def _is_seen(unit: Unit, row: Entry, ours: Sequence[Entry], seen: versions.Vector, leads: Targets) -> bool:
    """Whether a replica of another device is known to be what leaves, or older."""
    return versions.covers(seen, _vector(unit, row)) or any(_is_same(unit.db, row, one, leads) for one in ours)


def _is_same(db: apsw.Connection, row: Entry, own: Entry, leads: Targets) -> bool:
    if row.kind != own.kind:
        return False
    if row.kind == KIND_FILE:
        is_empty = not row.size_bytes and not own.size_bytes
        return is_empty or (_are_full(row, own) and row.content_id == own.content_id)
    if row.kind == KIND_SYMLINK:
        return own.id in leads and targets.get(db, row.id) == leads[own.id]
    return True


def _may_be_same(unit: Unit, row: Entry, ours: Sequence[Entry], seen: versions.Vector, leads: Targets) -> bool:
    """Whether it was shown as one with what leaves, since nobody knows better."""
    if versions.dominates(_vector(unit, row), seen):
        return False
    for own in ours:
        differs = row.kind != own.kind or row.size_bytes != own.size_bytes or _are_full(row, own)
        if row.kind == KIND_SYMLINK and own.id in leads and targets.get(unit.db, row.id) is not None:
            differs = True
        if not differs:
            return True
    return False


def _are_full(one: Entry, other: Entry) -> bool:
    return one.hash_state == other.hash_state == HASH_FULL


# coming ---------------------------------------------------------------------------------------------------------------


def made_again(unit: Unit, rows: Sequence[Entry], *, inherits: bool = True) -> None:
    """Rows of ours, replicas of one name, have come to it. Where whiteouts are they have seen what these had, and the
    whiteouts end. `inherits`: a file goes on as the one that was there, where it has no annotations of its own."""
    if not unit.remote or not rows or not whiteouts.is_any(unit.db):
        return
    found = _of_name(unit, rows[0])
    if rows[0].kind == KIND_DIR:
        _end(unit, [one for one in found if one.kind == KIND_DIR])
        return
    found = [one for one in found if one.kind != KIND_DIR]
    seen = [one for one in found if one.is_seen]
    if seen:
        vector = joined(unit, rows)
        for one in seen:
            vector = versions.join(vector, versions.unpack(one.version))
        packed = versions.pack(versions.bump(vector, unit.branch_uuid(rows[0].branch_id), unit.version))
        for row in rows:
            entries.set_version(unit.db, row.id, packed, unit.seq)
        uuid = _inherited(unit, rows[0], seen) if inherits else None
        for row in rows if uuid is not None else []:
            entries.set_uuid(unit.db, row.id, uuid, unit.seq)
    _end(unit, found)


def _inherited(unit: Unit, row: Entry, seen: Sequence[Whiteout]) -> bytes | None:
    """The uuid that a file takes over; with another name of the same uuid somewhere a new one, with what people
    attached. None: it keeps its own."""
    files = [one for one in seen if one.kind == KIND_FILE]
    if row.kind != KIND_FILE or row.nlink > 1 or not files:
        return None
    if row.uuid is not None and metadata.has_any(unit.db, row.uuid):
        return None
    uuid = max(files, key=lambda one: one.hlc).uuid
    place = entries.union_name(unit.db, row.parent_id, row.name)
    others = [one for one in entries.by_uuid(unit.db, uuid) if one.parent_id is not None]
    if all(entries.union_name(unit.db, one.parent_id, one.name) == place for one in others):
        return uuid
    if not metadata.has_any(unit.db, uuid):
        return None
    fresh = new_entry_uuid()
    annotating.copy(unit, uuid, fresh)
    return fresh


def _of_name(unit: Unit, row: Entry) -> list[Whiteout]:
    """The whiteouts of a name, in all that is one with its directory."""
    if row.parent_id is None:
        return []
    above = {_uuid_of(unit.db, entry_id) for entry_id in (row.parent_id, *unit.one_with(row.parent_id))}
    return [one for uuid in above if uuid is not None for one in whiteouts.at(unit.db, uuid, row.name)]


def _end(unit: Unit, ended: Sequence[Whiteout]) -> None:
    for one in ended:
        whiteouts.drop(unit.db, one)
    for directory, name in {(one.dir, one.name) for one in ended}:
        _judge_at(unit, directory, name)


# following ------------------------------------------------------------------------------------------------------------


def told(unit: Unit, changes: Sequence[Change], before_id: int) -> None:
    """Rows of other devices came, changed, moved or went in a unit that is about to be committed. `before_id`: the last
    number that was given before it."""
    if not whiteouts.is_any(unit.db):
        return
    above: dict[int, None] = {}
    for one in [*changes]:
        row = entries.get(unit.db, one.entry_id)
        if one.parent_id is not None:
            above[one.parent_id] = None
        if row is not None and not row.is_ours:
            if row.kind == KIND_DIR and row.id > before_id:
                _judge_below(unit, row)
            judge(unit, row.id)
    for entry_id in above:
        _judge_above(unit, entry_id)


def judge_all(unit: Unit) -> None:
    """Bring all marks up to date: rows may have come by a way that nobody heard of."""
    for row in whiteouts.hidden(unit.db):
        judge(unit, row.id)
    for one in whiteouts.every(unit.db):
        _judge_at(unit, one.dir, one.name)


def read_as(unit: Unit, uuid: bytes, kept: bytes) -> None:
    """A uuid is an alias: whoever has it goes by another, on every device, so that nothing is told of it."""
    db = unit.db
    if not whiteouts.is_any(db):
        entries.read_uuid_as(db, uuid, kept)
        return
    moved = whiteouts.of_dir(db, uuid) + whiteouts.of_uuid(db, uuid)
    stayed = whiteouts.of_dir(db, kept)
    came = [(row, moved) for row in _own_directories(db, kept)] + [(row, stayed) for row in _own_directories(db, uuid)]
    entries.read_uuid_as(db, uuid, kept)
    for one in moved:
        whiteouts.drop(db, one)
        one = one._replace(dir=kept if one.dir == uuid else one.dir, uuid=kept if one.uuid == uuid else one.uuid)
        other = whiteouts.get(db, one.dir, one.name, one.uuid)
        whiteouts.put(db, one if other is None else _as_one(one, other))
    for directory, there in came:
        for name in {one.name for one in there}:
            row = entries.child(db, directory.id, name)
            if row is not None:
                made_again(unit, [row])
    for one in moved + stayed + whiteouts.of_uuid(db, kept):
        _judge_at(unit, kept if one.dir == uuid else one.dir, one.name)


def _own_directories(db: apsw.Connection, uuid: bytes) -> list[Entry]:
    return [row for row in entries.by_uuid(db, uuid) if row.is_ours and row.kind == KIND_DIR]


def _as_one(one: Whiteout, other: Whiteout) -> Whiteout:
    """What is known of one file at one name from two sides."""
    vector = versions.join(versions.unpack(one.version), versions.unpack(other.version))
    later = max(one, other, key=lambda it: it.hlc)
    return later._replace(version=versions.pack(vector), is_seen=one.is_seen and other.is_seen)


def judge(unit: Unit, entry_id: int) -> None:
    """Hide a row of another device, or show it, as whiteouts say just now."""
    row = entries.get(unit.db, entry_id)
    if row is None or row.is_ours or row.parent_id is None:
        return
    is_hidden = _is_hidden(unit, row)
    row = entries.get(unit.db, entry_id)
    if row is None or row.parent_id is None or is_hidden == row.is_hidden:
        return
    whiteouts.mark(unit.db, row.id, HIDDEN if is_hidden else 0, unit.seq)
    what = change.REMOVED if is_hidden else change.ADDED
    unit.changed(what, row.branch_id, row.id, row.parent_id, row.name, row.node)
    _judge_above(unit, row.parent_id)


def _judge_above(unit: Unit, entry_id: int) -> None:
    """What shows in a directory is other than before, and so may be whether it shows itself."""
    row = entries.get(unit.db, entry_id)
    if row is not None and not row.is_ours and row.uuid is not None and whiteouts.of_uuid(unit.db, row.uuid):
        judge(unit, entry_id)


def _judge_below(unit: Unit, above: Entry) -> None:
    """A directory that is new here, as its owner told it, may have been here before."""
    for directory in reversed(whiteouts.directories_below(unit.db, above.id)):
        assert directory.uuid is not None
        for one in whiteouts.of_dir(unit.db, directory.uuid):
            row = entries.child(unit.db, directory.id, one.name)
            if row is not None:
                judge(unit, row.id)


def _judge_at(unit: Unit, directory: bytes, name: bytes) -> None:
    for row in whiteouts.theirs(unit.db, directory, name):
        judge(unit, row.id)


def _is_hidden(unit: Unit, row: Entry) -> bool:
    """Whether a row of another device is what a whiteout has; that ends where it is more."""
    directory = _uuid_of(unit.db, row.parent_id)
    if directory is None or row.uuid is None:
        return False
    one = whiteouts.get(unit.db, directory, row.name, row.uuid)
    if one is None:
        return False
    if KIND_DIR in (row.kind, one.kind):
        return row.kind == one.kind and not whiteouts.shows_any(unit.db, row.id)
    held = _held(unit.db, row) if row.kind == one.kind else None
    seen, vector = versions.unpack(one.version), _vector(unit, row)
    if None not in (held, one.held) and held == one.held:
        if not versions.covers(seen, vector):  # written since, and yet the same: what comes here is later than that
            whiteouts.put(unit.db, one._replace(version=versions.pack(versions.join(seen, vector))))
        return True
    if row.kind != KIND_SYMLINK and versions.covers(seen, vector):
        return True
    if row.kind == KIND_SYMLINK and None in (held, one.held):
        return True
    whiteouts.drop(unit.db, one)
    _judge_at(unit, directory, row.name)
    return False


def _held(db: apsw.Connection, row: Entry) -> bytes | None:
    """What a replica of another device holds, where that is known; empty files hold the same."""
    if row.kind == KIND_SYMLINK:
        return targets.get(db, row.id)
    if row.kind != KIND_FILE or not row.size_bytes:
        return b"" if row.kind == KIND_FILE else None
    content = None if row.hash_state != HASH_FULL or row.content_id is None else contents.get(db, row.content_id)
    return None if content is None else content.full


def joined(unit: Unit, rows: Iterable[Entry]) -> versions.Vector:
    """All that some rows have seen."""
    seen: versions.Vector = {}
    for row in rows:
        seen = versions.join(seen, _vector(unit, row))
    return seen


def _vector(unit: Unit, row: Entry) -> versions.Vector:
    return versions.of(row.version, unit.branch_uuid(row.branch_id))


def _uuid_of(db: apsw.Connection, entry_id: int | None) -> bytes | None:
    row = None if entry_id is None else entries.get(db, entry_id)
    return None if row is None else row.uuid
