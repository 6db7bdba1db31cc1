"""Joining: the current state of another device taken in, with what is here.

Both are states of the same lattice, so nothing of either is lost: of a field the later stamp stays, aliases are one
class, and a tag's addition that one side lacks was either removed there (it has heard of it, by its vector) or not
heard of yet. Where a vector says neither, since the author came back from an old copy, it was not heard of
(index/store/gaps.py).

Parts (snapshot.py) may be applied as they come; only the end, in one unit, says how far the streams are applied, and
takes away what the other side removed. A transfer that broke off is begun anew and has done no harm.

Source: Bieniusa et al., "An Optimized Conflict-free Replicated Set" (2012).
"""

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgpack

from index.model.change import ORIGIN_SYNC
from index.model.errors import PageRefused
from index.store import aliases, gaps, hearing, metadata, pending, recalls, registers, shared, streams, tags
from index.store.registers import Register
from index.store.shared import Merged, Op
from index.store.store import Store
from index.store.streams import SHARED, StreamId
from index.store.unit import Unit
from sync.log import claims, epochs
from sync.log.claims import Card
from sync.log.snapshot import FORMS, Part, is_sound


class Joining:
    """A snapshot that is taken in, part by part, and ended by `finish`. `tell` is told in each unit of which entries
    the annotations changed."""

    def __init__(
        self,
        store: Store,
        put_aside: Callable[[Unit, bytes, int, list[Op]], list[Op]],
        tell: Callable[[Unit, Merged], None],
    ) -> None:
        self.store = store
        self.put_aside = put_aside
        self.tell = tell
        self.merged = Merged(set(), set())
        self._streams: list[tuple[StreamId, int, int]] = []
        self.own_forks: list[tuple[int, int]] = []  # places of this device, which it is to hear of: epoch, number
        self._gaps: list[tuple[bytes, int, int]] = []
        self._forks: list[tuple[bytes, int, int]] = []
        self._recalls: list[tuple[bytes, int, int]] = []
        self._dots: set[tuple[bytes, int, int]] = set()
        self._lost: dict[tuple[bytes, int, int], Op] = {}  # additions that were removed before they came there
        self._vouches: list[tuple[bytes, int, Op]] = []  # device, epoch: they are looked at when all cards are known
        self._cards: dict[bytes, Card] = {}  # those that it shows, also where they are not of the present yet

    def take(self, part: Part) -> None:
        """Join one part, in a unit of its own. PageRefused when it has another form than it must have."""
        if part.sort not in FORMS:
            return
        if not all(is_sound(part.sort, row) for row in part.rows):
            raise PageRefused("a part of a snapshot has another form than it must have")
        try:
            with self.store.write(ORIGIN_SYNC) as unit:
                getattr(self, f"_take_{part.sort}")(unit, part.rows)
                self._tell(unit)
        except (TypeError, ValueError, apsw.Error) as error:
            raise PageRefused(f"a part of a snapshot makes no sense: {error}") from error

    def _tell(self, unit: Unit) -> None:
        self.tell(unit, self.merged)
        self.merged.entries.clear()

    def _take_stream(self, unit: Unit, rows: list[Any]) -> None:
        """Should the transfer break off, and an author come back from a copy of before, what came has to be known."""
        self._streams = [(StreamId(bytes(device), epoch, SHARED), start, seq) for device, epoch, start, seq in rows]
        for stream, start_seq, seq in self._streams:
            if stream.device != unit.device and seq > start_seq:
                held = streams.get(unit.db, stream)
                if held is None or held.seq < seq:
                    gaps.note_fork(unit.db, stream.device, stream.epoch, seq)

    def _take_recall(self, _unit: Unit, rows: list[Any]) -> None:
        self._recalls += [(device, epoch, number) for device, epoch, number in rows]

    def _take_gap(self, unit: Unit, rows: list[Any]) -> None:
        """Of this device nobody else says what it gave its numbers to; others said something where a gap ends."""
        for device, from_seq, to_seq in rows:
            is_told = any(stream.device == device and seq > to_seq for stream, _, seq in self._streams)
            if from_seq < to_seq and is_told:
                self._gaps.append((device, from_seq, to_seq))
                if device != unit.device:
                    gaps.note(unit.db, device, from_seq, to_seq)

    def _take_fork(self, unit: Unit, rows: list[Any]) -> None:
        for device, epoch, seq in rows:
            if device == unit.device:
                self.own_forks.append((epoch, seq))
            else:
                self._forks.append((device, epoch, seq))

    def _take_moved(self, unit: Unit, rows: list[Any]) -> None:
        for device, hlc, stamp in rows:
            pending.move_stamp(unit.db, device, hlc, stamp)

    def _take_register(self, unit: Unit, rows: list[Any]) -> None:
        fields = []
        for model, key, field, value, hlc, device in rows:
            op = Op(0, 0, hlc, "register", "set", [model, key, field], value)
            _check(op)
            if model in shared.OWNED and key[:16] != device:
                continue
            if self._is_of_keys(bytes(device), 0, op):
                continue
            fields += [Register(model, key, field, value, one.hlc, device) for one in self._believed(unit, device, op)]
        registers.merge(unit.db, fields)
        shared.make(unit, {(one.model, one.key) for one in fields}, self.merged)

    def _take_alias(self, unit: Unit, rows: list[Any]) -> None:
        self._merge(unit, b"", [Op(0, 0, 0, "alias", "join", uuid, kept) for uuid, kept in rows])

    def _take_attribute(self, unit: Unit, rows: list[Any]) -> None:
        for uuid, name, value, hlc, device in rows:
            op = Op(0, 0, hlc, "attribute", "set", [uuid, name], value)
            _check(op)
            for one in self._believed(unit, device, op):
                held = aliases.canon(unit.db, uuid)
                metadata.put(unit.db, held, name, value, one.hlc, device)
                self.merged.entries.add(held)

    def _take_tagging(self, unit: Unit, rows: list[Any]) -> None:
        for uuid, tag_uuid, device, seq, part, hlc, order in rows:
            self._dots.add((bytes(device), seq, part))
            if self._was_removed(unit, device, seq, part):
                continue
            pending.drop(unit.db, device, seq, part)  # somebody believed it
            self._merge(unit, device, [Op(seq, part, hlc, "tagging", "add", [uuid, tag_uuid], [hlc, order])])

    def _was_removed(self, unit: Unit, device: bytes, seq: int, part: int) -> bool:
        """Whether an addition that the other side has was heard of here, and is not here any more."""
        if epochs.is_news(unit, bytes(device), seq, part):
            return False
        heard = hearing.is_heard(unit, bytes(device), seq, b"", 0)
        return heard and not tags.has_dot(unit.db, device, seq, part) and not pending.waits(unit.db, device, seq, part)

    def _take_lost(self, _unit: Unit, rows: list[Any]) -> None:
        for device, seq, part, uuid, tag_uuid in rows:
            op = Op(0, 0, 0, "tagging", "remove", [uuid, tag_uuid], [[device, seq, part, 0, 0]])
            _check(op)
            self._lost[bytes(device), seq, part] = op

    def _take_waiting(self, unit: Unit, rows: list[Any]) -> None:
        for device, seq, part, body in rows:
            hlc, said = msgpack.unpackb(body)
            self._dots.add((bytes(device), seq, part))
            op = Op(seq, part, hlc, *said)
            _check(op)
            if (op.model, op.op) != pending.ADDED:
                raise PageRefused("only additions of tags wait for what they refer to")
            if not tags.has_dot(unit.db, device, seq, part) and not self._was_removed(unit, device, seq, part):
                self._merge(unit, device, self.put_aside(unit, device, 0, [op]))

    def _take_aside(self, unit: Unit, rows: list[Any]) -> None:
        for hlc, device, epoch, seq, part, body in rows:
            self._dots.add((bytes(device), seq, part))
            op = Op(seq, part, hlc, *msgpack.unpackb(body))
            _check(op)
            if self._is_of_keys(bytes(device), epoch, op):
                continue
            if (op.model, op.op) == pending.ADDED and (
                tags.has_dot(unit.db, device, seq, part) or self._was_removed(unit, device, seq, part)
            ):
                continue
            self._merge(unit, device, self.put_aside(unit, device, epoch, [op]))

    def _is_of_keys(self, device: bytes, epoch: int, op: Op) -> bool:
        """Keep the card that an operation shows; whether it is a vouch, which waits for the end."""
        if claims.is_vouch(op):
            self._vouches.append((device, epoch, op))
            return True
        shown = claims.card_of(op)
        if shown is not None:
            self._cards[shown[0]] = shown[1]
        return False

    def _believed(self, unit: Unit, device: bytes, op: Op) -> list[Op]:
        return self.put_aside(unit, device, 0, [op])

    def _merge(self, unit: Unit, device: bytes, ops: Sequence[Op]) -> None:
        for op in ops:
            _check(op)
        one = shared.merge(unit, device, ops)
        self.merged.entries.update(one.entries)
        self.merged.rows.update(one.rows)

    def finish(self) -> None:
        """The end: what the other side removed goes, and its streams count as applied."""
        try:
            self._finish()
        except (TypeError, ValueError, apsw.Error) as error:
            raise PageRefused(f"the end of a snapshot makes no sense: {error}") from error

    def _finish(self) -> None:
        with self.store.write(ORIGIN_SYNC) as unit:
            for device, epoch, op in self._vouches:
                if claims.is_proven(unit.db, self.store.library_uuid, device, op, self._cards):
                    self._merge(unit, device, self.put_aside(unit, device, epoch, [op]))
            for (device, _, _), op in self._lost.items():
                # One of this device may have another number by now; whether it is gone is looked at below.
                self._merge(unit, unit.device if device == unit.device else b"", [op])
            gone = []
            told = tags.every_dot(unit.db, untold_by=unit.device)
            for uuid, tag_uuid, device, seq, part in [*told, *pending.additions(unit.db)]:
                if self._is_gone(unit, device, seq, part):
                    tags.drop_dot(unit.db, device, seq, part)
                    pending.drop(unit.db, device, seq, part)
                    gone.append((uuid, tag_uuid, device, seq, part))
                    self.merged.entries.add(uuid)
            if epochs.is_forked(self.store):
                epochs.say_gone(unit, gone)
            recalls.hear(unit.db, unit.device, self._recalls)
            for device, epoch, seq in self._forks:
                is_known = streams.get(unit.db, StreamId(device, epoch, SHARED)) is not None
                if is_known and gaps.holds(unit.db, device, seq):
                    gaps.note_fork(unit.db, device, epoch, seq)
            self._find_forks(unit)
            for stream, start_seq, seq in self._streams:
                if stream.device == unit.device and stream.epoch == unit.epoch:
                    continue
                streams.begin(unit.db, stream, start_seq)
                held = streams.get(unit.db, stream)
                if held is not None and held.seq < seq:
                    streams.advance(unit.db, stream, seq)
                    streams.drop_pages(unit.db, stream, seq)
                    streams.raise_floor(unit.db, stream, seq)
                    pending.forget_lost(unit.db, stream.device, start_seq, seq)
            self._tell(unit)

    def _is_gone(self, unit: Unit, device: bytes, seq: int, part: int) -> bool:
        """Whether the other side had an addition that is here, and has it no more; by whatever number, if it is one of
        this device that was numbered anew: who has heard that knows the new one."""
        if (device, seq, part) in self._dots or epochs.is_news(unit, device, seq, part):
            return False
        if self._covers(device, seq):
            return True
        if device != unit.device:
            return False
        for old, at in tags.numbers_before(unit.db, seq, part):  # the last that the other side knows says it
            if (device, old, at) in self._dots:
                return False
            if (device, old, at) in self._lost or self._covers(device, old):
                return True
        return False

    def _find_forks(self, unit: Unit) -> None:
        """The two sides may have heard of different continuations of a stream."""
        for stream, start_seq, seq in self._streams:
            held = streams.get(unit.db, stream)
            if held is None or stream.device == unit.device:
                continue
            for at, first in ((held.seq, held.start_seq), (seq, start_seq)):
                gaps.find_fork(unit.db, stream.device, stream.epoch, first, at)

    def _covers(self, device: bytes, seq: int) -> bool:
        """Whether the other side has heard of what a device did in a unit."""
        if any(device == other and from_seq < seq <= to_seq for other, from_seq, to_seq in self._gaps):
            return False
        return any(stream.device == device and start < seq <= upto for stream, start, upto in self._streams)


def _check(op: Op) -> None:
    if not shared.is_sound(list(op)):
        raise PageRefused("a part of a snapshot holds what is no operation")
