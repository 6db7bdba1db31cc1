"""Annotating: what people attach to a logical file, written so that all devices come to say the same of it.

In: a unit and the uuid of an entry, which need not be known here. Each change is one step of the tables' own laws (the
latest of a cell, dots of a set) and one line of the outbox that says the same; nothing here asks what other devices
have. A uuid that is an alias is written under what it is read as.
"""

from collections.abc import Iterable

from index.model.ids import new_uuid
from index.store import aliases, hearing, heldback, metadata, pending, registers, tags
from index.store.unit import Unit


def set_cell(unit: Unit, uuid: bytes, name: bytes, value: bytes | None) -> None:
    """An attribute has this value from now on; None: it is removed."""
    metadata.put(unit.db, uuid, name, value, unit.hlc, unit.device)
    if heldback.waits(unit.db, uuid):
        return
    unit.tell("attribute", "set", [uuid, name], value)


def add_tag(unit: Unit, uuid: bytes, tag: str) -> None:
    """An entry carries a tag from now on; the tag is made when there is none of that name."""
    found = tags.find(unit.db, tag)
    if found is None:
        tag_uuid = new_uuid()
        found = (tags.put(unit.db, tag_uuid, tag), tag_uuid)
        registers.put(unit, tags.MODEL, tag_uuid, "name", tag)
    _add(unit, uuid, *found, unit.hlc, unit.part)


def _add(unit: Unit, uuid: bytes, tag_id: int, tag_uuid: bytes, hlc: int, part: int) -> None:
    tags.add_dot(unit.db, uuid, tag_id, tags.Dot(unit.device, unit.said_seq, unit.part, hlc, part))
    if heldback.waits(unit.db, uuid):
        unit.leave_out()
        return
    unit.tell("tagging", "add", [uuid, tag_uuid], [hlc, part])


def remove_tag(unit: Unit, uuid: bytes, tag: str) -> None:
    """An entry carries a tag no more, as far as this device has heard of it."""
    is_held = heldback.is_held(unit.db, uuid)
    for tag_uuid, dots in tags.remove_dots(unit.db, uuid, tag).items():
        if not is_held:
            unit.tell("tagging", "remove", [uuid, tag_uuid], [list(dot) for dot in dots])
            for device, seq, part, *_ in dots:
                if not hearing.is_heard(unit, device, seq, unit.device, unit.said_seq):
                    pending.lose_dot(unit.db, device, seq, part, uuid, tag_uuid)


def copy(unit: Unit, source: bytes, target: bytes) -> None:
    """Give an entry copies of what another carries, as things said of it just now; its tags keep their order."""
    for name, value in metadata.all_of(unit.db, source).items():
        set_cell(unit, target, name, value)
    for tag_id, tag_uuid, hlc, part in tags.in_order(unit.db, source):
        _add(unit, target, tag_id, tag_uuid, hlc, part)


def join(unit: Unit, one: bytes, other: bytes) -> bytes:
    """Two uuids name one file; what they carry is one. Returns what both are read as."""
    joined = aliases.join(unit.db, one, other)
    if joined is None:
        return aliases.canon(unit.db, one)
    metadata.merge_into(unit.db, *joined)
    unit.tell("alias", "join", one, other)
    return joined[1]


def tell_untold(unit: Unit, due: Iterable[bytes]) -> None:
    """What waited for entries that others may hear of by now is told: this device's cells and tags, as said when they
    were; the tags under numbers of this unit."""
    for uuid in due:
        heldback.told(unit.db, uuid)
        for name, value, hlc in metadata.cells_of(unit.db, uuid, unit.device):
            unit.tell("attribute", "set", [uuid, name], value, hlc)
        for tag_id, tag_uuid, dot in tags.dots_of(unit.db, uuid, unit.device):
            tags.drop_dot(unit.db, *dot[:3])
            _add(unit, uuid, tag_id, tag_uuid, dot.hlc, dot.part)
            unit.tell("tagging", "remove", [uuid, tag_uuid], [list(dot)])  # had it come here from another uuid
