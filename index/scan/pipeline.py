"""Taking in what the workers saw: reports of a walk and identities of a hasher, as units of the store.

The daemon's half of a scan. Plain functions over a `Unit`, so that whatever drives them (a task today, a durable job
tomorrow) can stop between two calls and go on later: all state is in the rows.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from index.model import change
from index.model.entry import HASH_FAILED, HASH_FULL, HASH_NONE, HASH_SAMPLED, KIND_DIR, Entry, Stat
from index.model.filetype import BY_TYPE
from index.model.ids import new_entry_uuid, new_entry_uuids
from index.scan import apply, kinship, recording
from index.scan.hasher import Identity, Outcome, Unidentified
from index.store import contents, entries, filetypes, limbo
from index.store.unit import Unit

#: Where a report has a name's inode.
_INODE = Stat._fields.index("st_ino")
_NLINK = Stat._fields.index("nlink")


class WalkState:
    """What one walk has in memory: the ids that its new directories got, and what must be looked at again."""

    def __init__(self, branch_id: int, branch_uuid: bytes, disk: kinship.Disk, *, first: bool) -> None:
        self.branch_id = branch_id
        self.branch_uuid = branch_uuid
        self.disk = disk
        self.first = first  # nothing of the branch was known: no moves to look for
        self.ids: dict[int, int] = {}
        self.again: set[int] = set()
        self.failed: list[tuple[int, int]] = []
        self.listed: list[int] = []  # directories told since last taken that are to be watched and stamped
        self.watched: list[tuple[int, int, int]] = []  # (directory or 0, watch, inode) that workers watch, the same
        self.carrying: list[int] = []  # entries with attributes of their own, told since last taken


def take_report(unit: Unit, state: WalkState, report: list[Any]) -> None:
    """Apply one directory's differences; rows that somebody wrote since are left and the directory is noted."""
    number, mtime_ns, errno, added, changed, gone, carrying, ruled, watch = report
    directory = state.ids.get(number, number)
    above = _reported(unit, state, directory, watch)
    if above is None:
        return
    if errno:
        state.failed.append((directory, errno))
        return
    fresh: list[Entry] = []
    new_names = False
    is_plain = state.first and not unit.one_with(directory)
    if number < 0 or state.first:
        unit.lists_are_known(directory)
    back = limbo.waiting(unit.db, state.branch_id, [raw[_INODE] for _, raw, *_ in added]) if is_plain else ()
    is_bare = is_plain and entries.is_empty(unit.db, directory)
    latest = _latest([*(raw for _, raw, *_ in added), *(raw for _, _, raw in changed)])
    for name, raw, new_number, rule in added:
        st = _of_all_names(latest, raw)
        row = None if is_bare else entries.child(unit.db, directory, name)
        if row is None:
            new_names = True
            kind = st.kind
            if is_plain and (st.nlink <= 1 or kind == KIND_DIR) and st.st_ino not in back:
                if rule is None:
                    rule = unit.judge(state.branch_id, directory, name, is_dir=kind == KIND_DIR)
                row = recording.first_row(unit, state.branch_id, directory, name, st, kind, rule)
                fresh.append(row)
            else:
                last_id = unit.last_id
                row = apply.add(unit, state.branch_id, directory, name, st, state.disk, rule=rule)
                is_bare = False
                if new_number and row.id <= last_id:  # it was elsewhere: what is in it nobody held against its rows
                    state.again.add(row.id)
        if new_number and row.kind == KIND_DIR:
            state.ids[new_number] = row.id
        elif new_number:  # a file has the name by now: what was in the directory is not in it
            state.again.add(directory)
    if fresh:
        entries.insert_many(unit.db, fresh)
    take_ruled(unit, directory, [[state.ids.get(entry_id, entry_id), name, rule] for entry_id, name, rule in ruled])
    for entry_id, seq, raw in changed:
        row = entries.get(unit.db, entry_id)
        if row is None or row.seq != seq:
            state.again.add(directory)
            continue
        place = kinship.Place(state.branch_id, directory, row.name)
        new = apply.take_in(unit, place, row, _of_all_names(latest, raw), state.branch_uuid, state.disk)
        if new.kind == KIND_DIR and (row.kind != KIND_DIR or new.id != row.id):
            state.again.add(new.id)  # it was no directory when the walk came by, or another one
    for entry_id, seq in gone:
        row = entries.get(unit.db, entry_id)
        if row is None or row.parent_id != directory:
            continue
        if not _is_gone(state, row, seq):
            state.again.add(directory)
            continue
        apply.remove(unit, row, state.branch_uuid)
    for name in carrying:
        row = entries.child(unit.db, directory, name) if name else entries.get(unit.db, directory)
        if row is not None:
            state.carrying.append(row.id)
    if mtime_ns is None:
        return
    entries.set_scanned(unit.db, directory, time.time_ns(), mtime_ns)
    if watch is None and new_names and state.disk.dir_mtime(directory) not in (mtime_ns, None):
        state.again.add(directory)  # a name that was added may have gone since
    if watch is None or above.mtime_ns != mtime_ns:
        state.listed.append(directory)


def _latest(stats: Iterable[Sequence[int]]) -> dict[int, Stat]:
    """What was seen last of linked files: while a thousand names of one are made, each of them is seen with another
    stat, and all names have the last."""
    latest: dict[int, Stat] = {}
    for raw in stats:
        if raw[_NLINK] > 1:
            st = Stat._make(raw)
            known = latest.get(st.st_ino)
            if st.kind != KIND_DIR and (known is None or (known.ctime_ns, known.nlink) < (st.ctime_ns, st.nlink)):
                latest[st.st_ino] = st
    return latest


def _of_all_names(latest: dict[int, Stat], raw: Sequence[int]) -> Stat:
    """What a name was seen as, or any of its file since. One that was alone may be another file, of the same number."""
    st = Stat._make(raw)
    return latest.get(st.st_ino, st) if st.nlink > 1 else st


def _reported(unit: Unit, state: WalkState, directory: int, watch: tuple[int, int] | None) -> Entry | None:
    """The row of a directory that a report is about; None when the report is of no use any more."""
    above = entries.get(unit.db, directory) if directory > 0 else None
    is_other = watch is not None and above is not None and above.parent_id is not None and above.st_ino != watch[1]
    if watch is not None:
        state.watched.append((0 if above is None or is_other else directory, *watch))
    if above is None or (above.kind != KIND_DIR and not is_other):
        return None
    if is_other or above.branch_id != state.branch_id:  # since it was listed another one got its row, or it moved away
        state.again.add(directory)
        return None
    return above


def take_ruled(unit: Unit, directory: int, ruled: Iterable[list[Any]]) -> None:
    """Write which rule holds some names of a directory, or the directory itself. One that moved since it was judged is
    left: its move had it judged."""
    for entry_id, name, rule in ruled:
        row = entries.get(unit.db, entry_id)
        if row is None or row.name != name or directory not in (row.parent_id, row.id):
            continue
        if row.rule != rule:
            recording.set_rule(unit, row, rule)


def gone_directories(db: apsw.Connection, state: WalkState, report: list[Any]) -> list[Entry]:
    """The directories that a report will take out, with all below them; large ones are better emptied before."""
    number, _, errno, _, _, gone, *_ = report
    directory = state.ids.get(number, number)
    rows = [] if errno else [(entries.get(db, entry_id), seq) for entry_id, seq in gone]
    return [
        row
        for row, seq in rows
        if row is not None and row.kind == KIND_DIR and row.parent_id == directory and _is_gone(state, row, seq)
    ]


def _is_gone(state: WalkState, row: Entry, seq: int) -> bool:
    """Whether a name that a walk missed is still so, and nobody wrote its row since."""
    return row.seq == seq and state.disk.stat_at(row) is None


def take_identities(unit: Unit, results: Iterable[tuple[int, Identity | Unidentified]]) -> list[int]:
    """Write what was read of files; returns the ids of those that changed meanwhile and must be asked again."""
    read = list(results)
    rows = entries.some(unit.db, [entry_id for entry_id, _ in read])
    again: list[int] = []
    good: list[tuple[Entry, Identity]] = []
    for entry_id, result in read:
        row = rows.get(entry_id)
        if row is None:
            continue
        if isinstance(result, Unidentified):
            if result.outcome in (Outcome.DENIED, Outcome.IO_ERROR, Outcome.NOT_REGULAR):
                for twin in _twins(unit, row):
                    entries.set_identity(unit.db, twin.id, twin.content_id, HASH_FAILED, None, unit.seq)
            elif result.outcome in (Outcome.CHANGED, Outcome.GONE):
                again.append(entry_id)
        elif (row.size_bytes, row.mtime_ns, row.st_ino) != (result.size_bytes, result.mtime_ns, result.inode):
            again.append(entry_id)
        elif result.ctime_ns < row.ctime_ns and row.hash_state == HASH_NONE:
            again.append(entry_id)  # something happened since; if that was a write, its times were given back
        elif result.sampled is not None:
            good.append((row, result))
    if good:
        _identified(unit, good)
    return again


def _identified(unit: Unit, good: list[tuple[Entry, Identity]]) -> None:
    """Write the identities of files that are as their rows say."""
    types = {name: filetypes.intern(unit.db, BY_TYPE[name]) for name in {result.type_name for _, result in good}}
    read = [
        contents.Read(
            bytes.fromhex(result.sampled or ""), bytes.fromhex(result.full), result.size_bytes, result.manifest,
            types[result.type_name], result.method,
        )
        for _, result in good if result.full is not None
    ]  # fmt: skip
    exact = iter(contents.exact(unit.db, read) if read else ())
    found: list[tuple[int | None, int, bytes | None, int, int]] = []
    fresh = iter(new_entry_uuids(len(good)))
    for row, result in good:
        if result.full is None:
            content_id = contents.hint(unit.db, bytes.fromhex(result.sampled or ""), result.size_bytes)
            contents.set_type(unit.db, content_id, types[result.type_name], result.method)
            level = HASH_SAMPLED
        else:
            content_id = next(exact)
            level = HASH_FULL
            if row.hash_state == HASH_NONE:
                _note_if_new(unit, row, bytes.fromhex(result.full))
        if row.nlink > 1:
            twins = entries.by_node(unit.db, row.node)
            own_uuid = next((t.uuid for t in twins if t.uuid is not None), None) or new_entry_uuid()
            for twin in twins:
                if (twin.branch_id, twin.st_ino) == (row.branch_id, row.st_ino):
                    if twin.id != row.id and result.full is not None and twin.content_id not in (None, content_id):
                        _note_if_new(unit, twin, bytes.fromhex(result.full))
                    entries.set_identity(unit.db, twin.id, content_id, level, own_uuid, unit.seq)
        else:
            found.append((content_id, level, row.uuid or next(fresh), unit.seq, row.id))
        unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)
    entries.set_identities(unit.db, found)


def _note_if_new(unit: Unit, row: Entry, full: bytes) -> None:
    """A file that was written in place, and given its times back, is a new version by each of its names."""
    known = None if row.content_id is None else contents.get(unit.db, row.content_id)
    if known is not None and known.full not in (None, full):
        recording.note_new_bytes(unit, row)


def _twins(unit: Unit, row: Entry) -> list[Entry]:
    """The rows of the names of a file."""
    twins = entries.by_node(unit.db, row.node) if row.nlink > 1 else [row]
    return [twin for twin in twins if (twin.branch_id, twin.st_ino) == (row.branch_id, row.st_ino)]
