"""Shared rows: operations of other devices, merged by the laws of their tables.

In: a unit, the device that made the operations, and these in its order (`Op`). Out: rows that would be the same
whatever arrived first, and the uuids of the entries whose annotations changed. Every step is a join of the table's
lattice (the later stamp, the union of dots, the class of aliases), so hearing a thing twice changes nothing.

What refers to a row that is not known raises MissingDependency inside and waits (pending.py). What nobody here
understands stays a register, or is passed over: it is kept in the page it came with, for a program that knows it.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import apsw
import msgpack

from index.model.errors import MissingDependency
from index.store import (
    aliases,
    devices,
    gaps,
    hearing,
    leaving,
    metadata,
    pending,
    places,
    registers,
    saved,
    streams,
    tags,
)
from index.store.pending import Held
from index.store.registers import Register
from index.store.unit import Unit

log = logging.getLogger("sdmount.sync")

#: What rows are made of their registers, in the order in which they refer to each other.
_MAKERS: Final[dict[str, Callable[[apsw.Connection, bytes, Mapping[str, object]], None]]] = {
    devices.MODEL: devices.make,
    places.LOCATION: places.make_location,
    places.BRANCH: places.make_branch,
    tags.MODEL: tags.make,
    saved.MODEL: saved.make,
}
ORDER: Final = tuple(_MAKERS)
#: Models whose rows belong to one device, which their key begins with: nobody else may say anything of them.
OWNED: Final = frozenset({places.BRANCH})


class Op(NamedTuple):
    """One line of an outbox."""

    seq: int
    part: int
    hlc: int
    model: str
    op: str
    key: Any
    body: Any

    @classmethod
    def unpacked(cls, seq: int, part: int, hlc: int, model: str, op: str, key: bytes, body: bytes) -> "Op":
        """A row of table outbox."""
        return cls(seq, part, hlc, model, op, msgpack.unpackb(key), msgpack.unpackb(body))


class Merged(NamedTuple):
    """What a merge touched: entries by uuid, and rows by model and key."""

    entries: set[bytes]
    rows: set[tuple[str, bytes]]


def make_row(db: apsw.Connection, model: str, key: bytes, fields: Mapping[str, object]) -> None:
    """The row of a model as its registers say. MissingDependency where it refers to one that is not known."""
    _MAKERS[model](db, key, fields)


def merge(unit: Unit, device: bytes, ops: Iterable[Op]) -> Merged:
    """Take in what a device said, inside a unit."""
    merged = Merged(set(), set())
    fields: dict[tuple[str, bytes, str], Register] = {}
    rest: list[Op] = []
    for op in ops:
        if (op.model, op.op) == ("register", "set"):
            model, key, field = op.key
            if model in OWNED and key[:16] != device:
                log.warning("%s claims a row of %s", device.hex()[:8], key[:16].hex()[:8])
                continue
            fields[model, key, field] = Register(model, key, field, op.body, op.hlc, device)
        else:
            rest.append(op)
    registers.merge(unit.db, fields.values())
    make(unit, {(model, key) for model, key, _ in fields}, merged)
    for op in rest:
        _apply(unit, Held(device, op.seq, op.part, op.hlc, (op.model, op.op, op.key, op.body)), merged)
    return merged


def stamp_here(db: apsw.Connection, op: Op) -> tuple[int, bytes] | None:
    """Who wrote the cell last that an operation writes, as far as is known here: stamp and device. None: nobody, or it
    writes none."""
    if (op.model, op.op) == ("register", "set"):
        sql, key = "SELECT hlc, device FROM register WHERE model=? AND key=? AND field=?", tuple(op.key)
    elif (op.model, op.op) == ("attribute", "set"):
        sql = "SELECT hlc, device FROM attribute WHERE entry_uuid=? AND name=?"
        key = (aliases.canon(db, op.key[0]), op.key[1])
    else:
        return None
    row = db.execute(sql, key).fetchone()
    return None if row is None else (int(row[0]), bytes(row[1]))


def make(unit: Unit, rows: set[tuple[str, bytes]], merged: Merged) -> None:
    """Rows as their registers say now, those that others refer to first; who waited for one goes on."""
    for model in ORDER:
        for key in sorted(key for m, key in rows if m == model):
            fields = registers.fields_of(unit.db, model, key)
            try:
                make_row(unit.db, model, key, fields)
            except MissingDependency as error:
                held = Held(model.encode() + b":" + key, 0, 0, 0, ("row", "make", [model, key], None))
                pending.wait_for(unit.db, error.uuid, held)
                continue
            except apsw.ConstraintError as error:
                log.warning("a row of %s could not be made: %s", model, error)
                continue
            merged.rows.add((model, key))
            if model == devices.MODEL:
                places.give_up_branches(unit.db, unit.device)
            _go_on(unit, key[-16:], merged)


def _go_on(unit: Unit, uuid: bytes, merged: Merged) -> None:
    """A row has come: what waited for it is done, and what waited for that."""
    for held in pending.arrived(unit.db, uuid):
        _apply(unit, held, merged)


def _apply(unit: Unit, held: Held, merged: Merged) -> None:
    """One operation; what it lacks is waited for."""
    model, op, key, body = held.said
    step = _STEPS.get((str(model), str(op)))
    if step is None:
        return
    try:
        step(unit, held, key, body, merged)
    except MissingDependency as error:
        pending.wait_for(unit.db, error.uuid, held)


def _make_row(unit: Unit, _held: Held, key: Any, _body: Any, merged: Merged) -> None:
    make(unit, {(str(key[0]), bytes(key[1]))}, merged)


def _set_attribute(unit: Unit, held: Held, key: Any, body: Any, merged: Merged) -> None:
    uuid = aliases.canon(unit.db, key[0])
    metadata.put(unit.db, uuid, key[1], body, held.hlc, held.device)
    merged.entries.add(uuid)


def _add_tag(unit: Unit, held: Held, key: Any, body: Any, merged: Merged) -> None:
    if pending.is_lost(unit.db, held.device, held.seq, held.part):
        return
    tag_id = tags.id_of(unit.db, key[1])
    if tag_id is None:
        raise MissingDependency(tags.MODEL, key[1])
    uuid = aliases.canon(unit.db, key[0])
    tags.add_dot(unit.db, uuid, tag_id, tags.Dot(held.device, held.seq, held.part, *body))
    merged.entries.add(uuid)


def _remove_tag(unit: Unit, held: Held, key: Any, body: Any, merged: Merged) -> None:
    uuid = aliases.canon(unit.db, key[0])
    for device, seq, part, hlc, _ in body:
        tags.drop_dot(unit.db, device, seq, part)
        pending.drop(unit.db, device, seq, part)  # both, where a state told what is put aside here
        if device == unit.device and hlc and not _says_number(unit, held, seq):
            _remove_renumbered(unit, key, seq, part)
        # It may be here without having been heard of: by a state that broke off.
        if not hearing.is_heard(unit, device, seq, held.device, held.seq):
            pending.lose_dot(unit.db, device, seq, part, uuid, key[1])
    merged.entries.add(uuid)


def _says_number(unit: Unit, held: Held, seq: int) -> bool:
    """Whether a removal of an addition of this device is its own word that it has another number by now, which is of a
    later epoch than the addition. What it took away in the same one it took away, and has forgotten that. (A removal
    without a stamp says only that somebody missed the addition: so he does when it has another number.)"""
    return held.device == unit.device and not streams.is_same_epoch(unit.db, unit.device, seq, held.seq)


def _remove_renumbered(unit: Unit, key: Any, seq: int, part: int) -> None:
    """An addition of this device that has another number by now was removed by the one that it had; one of an epoch
    before that it has forgotten is not to be said again when it hears of it."""
    at = tags.renumbered(unit.db, seq, part)
    if at is None and not streams.is_same_epoch(unit.db, unit.device, seq, unit.said_seq):
        tags.renumber(unit.db, (seq, part), tags.NOWHERE)
    while at is not None:
        if tags.drop_dot(unit.db, unit.device, *at):
            unit.tell("tagging", "remove", key, [[unit.device, *at, 0, 0]])
        at = tags.renumbered(unit.db, *at)


def _join(unit: Unit, _held: Held, key: Any, body: Any, merged: Merged) -> None:
    joined = aliases.join(unit.db, key, body)
    if joined is not None:
        metadata.merge_into(unit.db, *joined)
        leaving.read_as(unit, *joined)
        merged.entries.add(joined[1])


def _move_stamp(unit: Unit, held: Held, key: Any, body: Any, _merged: Merged) -> None:
    pending.move_stamp(unit.db, held.device, key, body)


def _note_gap(unit: Unit, held: Held, key: Any, _body: Any, _merged: Merged) -> None:
    if held.device != unit.device:  # of another continuation of it: its own is what counts here
        gaps.note(unit.db, held.device, *key)


_STEPS: Final[Mapping[tuple[str, str], Callable[[Unit, Held, Any, Any, Merged], None]]] = {
    ("row", "make"): _make_row,
    ("attribute", "set"): _set_attribute,
    ("tagging", "add"): _add_tag,
    ("tagging", "remove"): _remove_tag,
    ("alias", "join"): _join,
    ("stamp", "move"): _move_stamp,
    gaps.GAP: _note_gap,
}


def is_sound(op: Sequence[object]) -> bool:
    """Whether a line that came from elsewhere has the shape of an operation; what it means is not asked."""
    if len(op) != len(Op._fields):
        return False
    seq, part, hlc, model, kind, key, body = op
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (seq, part, hlc)):
        return False
    if not isinstance(model, str) or not isinstance(kind, str):
        return False
    check = _SHAPES.get((model, kind))
    return check is None or check(key, body)


def _is_uuid(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 16


def _are_uuids(key: object) -> bool:
    return isinstance(key, list) and len(key) == 2 and _is_uuid(key[0]) and _is_uuid(key[1])


def _are_numbers(values: object, count: int) -> bool:
    return (
        isinstance(values, list) and len(values) == count and all(type(n) is int and 0 <= n < 1 << 63 for n in values)
    )


def _is_register(key: object, body: object) -> bool:
    if not isinstance(key, list) or len(key) != 3 or not isinstance(body, bytes) or len(body) > _VALUE_MAX_BYTES:
        return False
    model, row, field = key
    named = isinstance(model, str) and isinstance(field, str) and len(model) <= 64 and len(field) <= 128
    return named and isinstance(row, bytes) and 16 <= len(row) <= 64


def _is_attribute(key: object, body: object) -> bool:
    if not isinstance(key, list) or len(key) != 2 or not _is_uuid(key[0]) or not isinstance(key[1], bytes):
        return False
    return 0 < len(key[1]) <= 255 and (body is None or (isinstance(body, bytes) and len(body) <= _VALUE_MAX_BYTES))


def _are_dots(body: object) -> bool:
    return isinstance(body, list) and all(
        isinstance(dot, list) and len(dot) == 5 and _is_uuid(dot[0]) and _are_numbers(dot[1:], 4) for dot in body
    )


_VALUE_MAX_BYTES = 64 << 10

_SHAPES: Final[Mapping[tuple[str, str], Callable[[object, object], bool]]] = {
    ("register", "set"): _is_register,
    ("attribute", "set"): _is_attribute,
    ("tagging", "add"): lambda key, body: _are_uuids(key) and _are_numbers(body, 2),
    ("tagging", "remove"): lambda key, body: _are_uuids(key) and _are_dots(body),
    ("stamp", "move"): lambda key, body: _are_numbers([key, body], 2),
    gaps.GAP: lambda key, _: _are_numbers(key, 2) and key[0] < key[1],  # type: ignore[index]  # two numbers
    ("alias", "join"): lambda key, body: _is_uuid(key) and _is_uuid(body) and key != body,
}
