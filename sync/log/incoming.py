"""Incoming: what other devices tell, page by page, into the tables.

In: pages as they came, from their author or from anybody who keeps them. Out: rows, the cursor moved on, the page kept
for others; all in units of a size that the caller chooses, so that what the kernel waits for is not held up. A page
that was seen before changes nothing, one that does not go on from the cursor is refused as a gap: so it does not matter
who sends what, how often, or in which order, and a kill in the middle costs the page.

The cursor moves in the unit that applies the end of the page. Others may rely on it (acknowledge it) only once that is
durable.
"""

import logging
from collections.abc import Callable, Generator
from typing import Any, Final

from index.model.change import ORIGIN_SYNC
from index.model.errors import MissingDependency, PageRefused, SnapshotNeeded
from index.model.hlc import Hlc
from index.scan import meeting
from index.store import aliases, devices, gaps, pending, places, remote, shared, streams
from index.store.pending import Held
from index.store.shared import Merged, Op
from index.store.store import Store
from index.store.streams import OWNED, SHARED, Stream
from index.store.unit import Unit
from sync.log import claims, epochs, pages, rows
from sync.log.pages import Page

log = logging.getLogger("sdmount.sync")

#: A stamp so far ahead of our clock is believed without a word, with a warning, and beyond that not yet.
SILENT_MS: Final = 2 * 60_000
DRIFT_MS: Final = 10 * 60_000
_SLICE: Final = 200
_REMOVED: Final = 500
_LOOKED_AT: Final = 2000


class Gap(SnapshotNeeded):
    """A page does not go on from where this device stands."""


class Incoming:
    """Pages of others, applied. Used on the loop only.

    `heard` is told which rows of other tables than entry changed, by model and key.
    """

    def __init__(
        self,
        store: Store,
        key_of: Callable[[bytes], bytes | None],
        heard: Callable[[Merged], None] = lambda _: None,
        is_out: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self.store = store
        self.is_out = is_out
        self.key_of = key_of
        self.heard = heard
        self.refused_rows = 0

    def proven(self, head: bytes, body: bytes) -> Page:
        """A page whose author and bytes are what they say. PageRefused otherwise; MissingDependency when nobody told of
        the author yet."""
        page = pages.opened(head, body, self.store.library_uuid, self._key_of)
        if page.facts.device == self.store.device_uuid and page.facts.epoch >= self.store.epoch:
            raise PageRefused("a page says it is of this device")
        return page

    def _key_of(self, device: bytes) -> bytes | None:
        key = self.key_of(device)
        if key is None and not self.is_out(device):
            raise MissingDependency(devices.MODEL, device)
        return key

    def take(self, page: Page, size: Callable[[], int] = lambda: _SLICE) -> Generator[None, None, None]:
        """Apply a page; yields between units. Gap when it does not go on from the cursor, MissingDependency when it
        speaks of a branch that nobody has told of yet: then nothing was applied."""
        stream = self._stream(page)
        if stream is None:
            return
        if page.facts.kind == SHARED:
            self._take_shared(page, stream)
            return
        yield from self._take_owned(page, stream, size)

    def _stream(self, page: Page) -> Stream | None:
        """Where we stand in a page's stream; None when all of it is known already."""
        facts, db = page.facts, self.store.db
        if facts.kind == OWNED and self.is_out(facts.device):
            return None
        stream = streams.get(db, facts.stream)
        if stream is None:
            if facts.kind == OWNED and streams.newest_epoch(db, facts.device, OWNED) > facts.epoch:
                return None
            if facts.from_seq > facts.start_seq:
                raise Gap("the beginning of the stream is not here")
            with self.store.note():
                streams.begin(db, facts.stream, facts.start_seq)
            stream = streams.get(db, facts.stream)
            assert stream is not None
        if facts.to_seq <= stream.seq:
            return None
        if facts.is_base and stream.seq > stream.start_seq:
            raise Gap("all rows anew say nothing of what went since")
        if facts.from_seq > stream.seq:
            raise Gap(f"a page goes on from {facts.from_seq}, and {stream.seq} is where this device stands")
        if facts.to_seq == stream.part_to and facts.last_id <= stream.part_after and not facts.is_last:
            return None
        if facts.after_id and (facts.to_seq != stream.part_to or facts.after_id > stream.part_after):
            raise Gap("a part of a range does not go on from the one before")
        if facts.is_base and not facts.after_id:  # what an attempt before this one told may be gone since
            with self.store.note():
                streams.rewind(db, facts.stream)
            stream = streams.get(db, facts.stream)
        return stream

    # shared rows ------------------------------------------------------------------------------------------------------

    def _take_shared(self, page: Page, stream: Stream) -> None:
        said: Any = pages.plain(page)
        if not isinstance(said, list) or not all(isinstance(op, list) and shared.is_sound(op) for op in said):
            raise PageRefused("a page of operations has another form than it must have")
        # What was heard before is not done again: a tag that was added then may have been taken off since.
        ops = [Op(*op) for op in said if stream.seq < op[0] <= page.facts.to_seq]
        with self.store.write(ORIGIN_SYNC) as unit:
            believed = self.believed(unit, page.facts.device, page.facts.epoch, ops)
            merged = shared.merge(unit, page.facts.device, believed)
            if page.facts.device == unit.device and epochs.is_forked(self.store, page.facts.epoch):
                epochs.say_again(unit, ops)
            gaps.find_fork(unit.db, stream.device, stream.epoch, stream.start_seq, stream.seq)
            streams.advance(unit.db, page.facts.stream, page.facts.to_seq)
            pending.forget_lost(unit.db, page.facts.device, stream.start_seq, page.facts.to_seq)
            streams.keep(unit.db, page.row())
            self.tell(unit, merged)
        if page.facts.device == self.store.device_uuid:  # what it had said in an epoch before
            self.store.moved = set(pending.moved_of(self.store.db, self.store.device_uuid))
        self.heard(merged)

    def believed(self, unit: Unit, device: bytes, epoch: int, ops: list[Op]) -> list[Op]:
        """Those of some operations that are not stamped in the far future; the others are put aside. What their author
        has no right to say is passed over."""
        now_ms = self.store.now_ms()
        limit = Hlc(now_ms + DRIFT_MS, 0).packed()
        out = []
        latest = 0
        moved = pending.moved_of(unit.db, device)
        for op in ops:
            if not claims.is_good(unit.db, self.store.library_uuid, device, op):
                log.warning("%s says of a device what is not so: %s", device.hex()[:8], op.key[2])
                continue
            if op.hlc in moved:
                op = op._replace(hlc=moved[op.hlc])
            if op.hlc >= limit:
                if (op.model, op.op) == pending.ADDED and pending.is_lost(unit.db, device, op.seq, op.part):
                    continue  # removed by somebody who was heard first
                pending.put_aside(
                    unit.db, epoch, Held(device, op.seq, op.part, op.hlc, (op.model, op.op, op.key, op.body))
                )
            else:
                latest = max(latest, op.hlc)
                out.append(op)
        if latest:
            unit.observe(latest)
        if latest > Hlc(now_ms + SILENT_MS, 0).packed():
            log.warning("the clock of %s is ahead of ours, or ours is slow", device.hex()[:8])
        return out

    def again(self, device: bytes, epoch: int, ops: list[Op]) -> None:
        """Operations that were heard before, once more: of each cell the latest stays."""
        with self.store.write(ORIGIN_SYNC) as unit:
            merged = self._merge_again(unit, device, self.believed(unit, device, epoch, ops))
            self.tell(unit, merged)
        self.heard(merged)

    def _merge_again(self, unit: Unit, device: bytes, ops: list[Op]) -> Merged:
        """Merge what was known before. Where something that this device had said, and that was said over since, is the
        latest after all, since stamps were given up, others may know it no more: it is said once more."""
        before = [shared.stamp_here(unit.db, op) for op in ops] if device == unit.device else []
        merged = shared.merge(unit, device, ops)
        for op, was in zip(ops, before, strict=False):
            if was != (op.hlc, device) == shared.stamp_here(unit.db, op):
                unit.tell(op.model, op.op, op.key, op.body, op.hlc)
        return merged

    def release(self) -> bool:
        """Apply some of what was put aside and is due by now; returns whether there was any."""
        limit = Hlc(self.store.now_ms() + DRIFT_MS, 0).packed()
        if not pending.has_due(self.store.db, limit):
            return False
        merged = Merged(set(), set())
        with self.store.write(ORIGIN_SYNC) as unit:
            for held in pending.due(unit.db, limit, _SLICE):
                hlc = pending.stamp_of(unit.db, held.device, held.hlc)  # what came before it may have given it another
                op = Op(held.seq, held.part, hlc, *held.said)  # type: ignore[arg-type]  # as they were put aside
                one = self._merge_again(unit, held.device, [op])
                if held.device == unit.device and (op.model, op.op) == pending.ADDED and epochs.is_forked(self.store):
                    epochs.say_again(unit, [op])  # when it was heard it was not here yet
                merged.entries.update(one.entries)
                merged.rows.update(one.rows)
                unit.observe(hlc)
            self.tell(unit, merged)
        self.heard(merged)
        return True

    def tell(self, unit: Unit, merged: Merged) -> None:
        """Whoever shows an entry whose annotations changed is told."""
        meeting.annotated(unit, merged.entries)

    def clear(self) -> Generator[None, None, None]:
        """What lies in branches that are none any more, and what devices hold that were put out, is let go; yields
        between units."""
        store = self.store
        out = [row.uuid for row in devices.every(store.db) if row.revoked and row.uuid != store.device_uuid]
        if any(row.kind == OWNED and row.device in out for row in streams.every(store.db)):
            with store.note() as db:
                for device in out:
                    streams.drop_all(db, device, OWNED)
        for branch_id in places.gone_branches(store.db, store.device_uuid):
            while branch_id in places.gone_branches(store.db, store.device_uuid):
                with store.write(ORIGIN_SYNC) as unit:
                    remote.clear(unit, branch_id, _REMOVED)
                yield

    # rows of entries --------------------------------------------------------------------------------------------------

    def _take_owned(self, page: Page, stream: Stream, size: Callable[[], int]) -> Generator[None, None, None]:
        facts, store = page.facts, self.store
        body = rows.unpacked(pages.plain(page))
        if body.refused:
            self.refused_rows += body.refused
            log.warning("%d names from %s are none and were left out", body.refused, facts.device.hex()[:8])
        every = {row.uuid: row for row in places.branches(store.db) if row.device_uuid == facts.device}
        branches = {uuid: row for uuid, row in every.items() if row.scan_state != places.GONE}
        for uuid in every.keys() - branches.keys():  # what it holds is told no more
            body.rows.pop(uuid, None)
        body = body._replace(gone=[one for one in body.gone if one.branch in branches or one.branch not in every])
        tops = {uuid: row.root_entry_id for uuid, row in branches.items()}
        opens = facts.to_seq != stream.part_to
        for uuid in (*body.rows, *(one.branch for one in body.gone)):
            if uuid not in branches:
                raise MissingDependency(places.BRANCH, uuid)
        for uuid, told in body.rows.items():
            at = 0
            while at < len(told):
                some = told[at : at + max(1, size())]
                at += len(some)
                with store.write(ORIGIN_SYNC) as unit:
                    opens = opens and self._open_range(unit, page)
                    canon = aliases.canons(unit.db, [row.uuid for row in some])
                    changed = remote.apply(unit, branches[uuid].id, some, canon, stream.round)
                    meeting.meet(unit, branches[uuid].id, changed)
                yield
        for uuid, branch in branches.items():
            gone = [one.rid for one in body.gone if one.branch == uuid]
            for start in range(0, len(gone), _REMOVED):
                with store.write(ORIGIN_SYNC) as unit:
                    opens = opens and self._open_range(unit, page)
                    remote.remove(unit, branch.id, gone[start : start + _REMOVED])
                yield
        if facts.is_last and facts.is_base:
            for branch in branches.values():
                after_rid: int | None = -1
                while after_rid is not None:
                    left, after_rid = remote.of_other_rounds(store.db, branch.id, stream.round, after_rid, _LOOKED_AT)
                    if left:
                        with store.write(ORIGIN_SYNC) as unit:
                            remote.remove(unit, branch.id, left)
                    yield
        with store.write(ORIGIN_SYNC) as unit:
            for uuid in {*body.rows, *(one.branch for one in body.gone)}:
                remote.sweep(unit, branches[uuid].id)
            if facts.is_last:
                streams.advance(unit.db, facts.stream, facts.to_seq)
                streams.drop_epochs_before(unit.db, facts.device, facts.epoch, OWNED)
            else:
                streams.advance_part(unit.db, facts.stream, facts.to_seq, facts.last_id)
            streams.keep(unit.db, page.row())
        now = {row.uuid: row.root_entry_id for row in places.branches(store.db)}
        other = {(places.BRANCH, facts.device + uuid) for uuid, top in tops.items() if now.get(uuid) != top}
        if other:  # they can be shown now, or no more, or are shown from another top
            self.heard(Merged(set(), other))

    def _open_range(self, unit: Unit, page: Page) -> bool:
        """Rows of a range are here from now on, before all of its first page is: should this device die, and the author
        come back from a copy that knows nothing of them, the place has to say so."""
        streams.advance_part(unit.db, page.facts.stream, page.facts.to_seq, 0)
        return False
