"""Meeting: rows of other devices and of this one that are one directory, or one file, find each other.

Two devices that had the same tree before they knew each other gave its files different uuids. Where the same path has
the same bytes for certain, both name one file: what people attached to either is read under the smaller uuid by all
(aliases.py), and our replica has seen what the other has, so that a later change of it is newer and no conflict. Each
device writes its own rows and nobody else's; that two other devices have met is theirs to say.

Directories are one by their path alone, from the tops of locations down.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from index.model import change, versions
from index.model.entry import HASH_FULL, KIND_DIR, KIND_FILE, Entry
from index.scan import recording
from index.store import aliases, entries, heldback
from index.store.unit import Unit

#: Names of an entry that are told of when its annotations change.
_TOLD_MAX = 64


def annotated(unit: Unit, uuids: Iterable[bytes]) -> None:
    """What people attached to some entries is other than before: whoever shows them is told."""
    for uuid in uuids:
        for row in entries.by_uuid(unit.db, uuid)[:_TOLD_MAX]:
            unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)


def meet(unit: Unit, branch_id: int, rows: Sequence[Entry]) -> None:
    """Rows of another device that are new, or other than they were, meet those of the same path."""
    beside: dict[int, list[int]] = {}
    for row in rows:
        if row.parent_id is None:
            if not row.name and row.kind == KIND_DIR:
                _meet_root(unit, branch_id, row)
                beside.clear()
            continue
        others = beside.get(row.parent_id)
        if others is None:
            others = beside[row.parent_id] = unit.one_with(row.parent_id)
        for directory in others:
            other = entries.child(unit.db, directory, row.name)
            if other is not None:
                _meet_one(unit, row, other)
                if row.kind == KIND_DIR:
                    beside.clear()


def meet_own(unit: Unit, row: Entry) -> None:
    """A row of ours is new or its bytes are known now: it meets what other devices have under its path."""
    if row.parent_id is None or row.uid < 0:
        return
    for directory in unit.one_with(row.parent_id):
        other = entries.child(unit.db, directory, row.name)
        if other is not None and other.uid < 0:
            _meet_one(unit, other, row)


def _meet_one(unit: Unit, row: Entry, other: Entry) -> None:
    """A row of another device, and one of the same path on another branch."""
    if row.kind != other.kind:
        return
    if row.kind == KIND_DIR:
        if row.node != other.node and row.node == row.id:
            entries.set_node(unit.db, row.id, other.node, unit.seq)
            unit.parts_changed()
            if row.uuid != other.uuid:  # it is here for the first time, perhaps with all that is in it
                recording.hold_apart(unit, row.id, other.id)
        if other.uid >= 0:
            _are_one(unit, row, other)
    elif row.kind == KIND_FILE and other.uid >= 0 and _same_bytes(row, other):
        if recording.are_one_file(row, other):
            _are_one(unit, row, other)
        _has_seen(unit, other, row)


def _same_bytes(one: Entry, other: Entry) -> bool:
    if one.size_bytes == 0 and other.size_bytes == 0:
        return True
    return one.hash_state == HASH_FULL and other.hash_state == HASH_FULL and one.content_id == other.content_id


def _are_one(unit: Unit, row: Entry, own: Entry) -> None:
    if own.uuid is None:
        uuid = row.uuid
        for twin in entries.by_node(unit.db, own.node):
            if twin.uuid is None and twin.branch_id == own.branch_id:
                entries.set_uuid(unit.db, twin.id, uuid, unit.seq)
    elif row.uuid is not None and row.uuid != own.uuid:
        kept = recording.alias(unit, row.uuid, own.uuid)
        annotated(unit, [kept])
    if own.rule and row.uuid is not None:  # others know it by now, whatever holds it back here
        heldback.withdraw(unit.db, aliases.canon(unit.db, row.uuid))


def _has_seen(unit: Unit, own: Entry, row: Entry) -> None:
    """Our replica has seen what another one of the same bytes has."""
    mine = recording.vector_of(own, unit.branch_uuid(own.branch_id))
    joined = versions.join(mine, recording.vector_of(row, unit.branch_uuid(row.branch_id)))
    if joined != mine:
        entries.set_version(unit.db, own.id, versions.pack(joined), unit.seq)


def _meet_root(unit: Unit, branch_id: int, root: Entry) -> None:
    """The root of a branch is one with the other roots of its location, and the store's directory of that name."""
    for other in _other_roots(unit.db, branch_id):
        row = entries.get(unit.db, other)
        if row is None or row.id == root.id:
            continue
        if root.node == root.id and row.node != root.node:
            entries.set_node(unit.db, root.id, row.node, unit.seq)
            unit.parts_changed()
        if row.uid >= 0:
            _are_one(unit, root, row)


def _other_roots(db: apsw.Connection, branch_id: int) -> list[int]:
    """What lies at the same place of the union as the root of a branch: rows, ours first."""
    found: list[Any] = db.execute(
        "SELECT o.root_entry_id FROM branch b JOIN branch o ON o.id<>b.id AND o.root_entry_id IS NOT NULL "
        "LEFT JOIN location l ON l.id=b.location_id LEFT JOIN location m ON m.id=o.location_id "
        "WHERE b.id=? AND ((b.location_id IS NULL AND o.location_id IS NULL) OR l.name=m.name) "
        "ORDER BY o.fs_id='', o.id",
        (branch_id,),
    ).fetchall()
    found += db.execute(
        "SELECT e.id FROM branch b JOIN location l ON l.id=b.location_id JOIN branch s ON s.location_id IS NULL "
        "JOIN entry e ON e.parent_id=s.root_entry_id AND e.name=l.name AND e.kind=1 WHERE b.id=? ORDER BY s.id",
        (branch_id,),
    ).fetchall()
    return [int(row[0]) for row in found]
