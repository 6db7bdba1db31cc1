"""Restamping: a device whose clock ran ahead gives its changes the stamps that they should have had.

What is stamped more than ten minutes ahead is put aside by whoever hears of it, until the clock gets there. A device
that is told so, and whose clock is right by now, says for each such unit of its own which stamp it has from now on: the
same order, and the present time. Everybody who hears that reads the one stamp as the other, wherever he meets it
(pending.py): in what was put aside, in pages that come late, in the current state, in cells that were written already
by somebody whose clock ran ahead as well. The stamps that were given up are never given again.

A cell that was written with a stamp of the future may have made later writes of others look old, and they were not
kept. So who has such a cell, this device first of all, goes through what it keeps once more (`recall`), and takes the
current state of others.

Source: Kulkarni et al., "Logical Physical Clocks" (2014), whose clocks never go back; here a stamp is given up instead.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgpack

from index.model.change import ORIGIN_SYNC
from index.model.hlc import Hlc, tick
from index.store import heldback, pending, streams
from index.store.connection import one
from index.store.shared import Op
from index.store.store import Store
from index.store.streams import SHARED
from sync.log import pages
from sync.log.incoming import DRIFT_MS, Incoming

log = logging.getLogger("sdmount.sync")

_TOLD: Final = (
    "SELECT hlc FROM register WHERE device=?1 UNION SELECT hlc FROM quarantine WHERE device=?1 "
    f"UNION SELECT hlc FROM attribute WHERE device=?1 AND {heldback.TOLD}"
)
_UNHEARD: Final = f"SELECT hlc FROM outbox UNION SELECT hlc FROM attribute WHERE device=?1 AND NOT ({heldback.TOLD})"
_AT_ONCE: Final = 50
_STAMPED: Final = frozenset({"register", "attribute"})


def restamp(store: Store, aside_hlc: int, stamps: Iterable[int] = ()) -> bool:
    """Give changes of this device that are stamped in the future the stamps of now; returns whether there were any.

    `aside_hlc` is the first stamp that somebody put aside. What was told before is believed, and none of the future: a
    clock that ran ahead may run behind by now. What nobody was told of says nothing of the kind, nor what had been
    said over before others heard: they have the current state. `stamps`: more of those that were put aside. Of some
    nothing is known here any more: something else was said since, and all have both.
    """
    future = Hlc(store.now_ms() + DRIFT_MS, 0).packed()
    limit = max(future, aside_hlc)
    moved = pending.moved_of(store.db, store.device_uuid)
    told = (_stamps(store, _TOLD) | set(moved.values())) - moved.keys()
    unheard = _stamps(store, _UNHEARD) - moved.keys() - told
    given = {hlc for hlc in (aside_hlc, *stamps) if hlc <= max(told | unheard | moved.keys(), default=0)} - moved.keys()
    ahead = sorted({hlc for hlc in told | given if hlc >= limit} | {hlc for hlc in unheard if hlc >= future})
    if not ahead and store.last_hlc.packed() < limit:
        _say_again(store, moved, aside_hlc, future)
        return False
    log.warning("the clock of this device ran ahead: %d changes get the time of now", len(ahead))
    last = Hlc.unpacked(max({*(told | unheard) - set(ahead), _heard(store, future)}))
    store.turn_back(last)  # what is stamped from now on is of the present
    store.moved |= set(ahead)  # none of these is given again
    with store.write(ORIGIN_SYNC) as unit:
        stamp = Hlc.unpacked(unit.hlc)
        for hlc in ahead:
            stamp = tick(stamp, 0)
            while stamp.packed() in store.moved:
                stamp = tick(stamp, 0)
            pending.move_stamp(unit.db, unit.device, hlc, stamp.packed())
            unit.tell("stamp", "move", hlc, stamp.packed())
        unit.observe(stamp.packed())
    return True


def _say_again(store: Store, moved: Mapping[int, int], aside_hlc: int, future: int) -> None:
    """Who puts aside what has another stamp by now has put aside, too, what said so: it was stamped in the future
    itself, where somebody else had believed that. It is said once more, now."""
    if aside_hlc < future or aside_hlc not in moved:
        return
    said: list[Any] = store.db.execute(
        "SELECT key FROM outbox WHERE model='stamp' AND op='move' AND hlc<?", (future,)
    ).fetchall()
    known = {msgpack.unpackb(key) for (key,) in said}
    left = [(hlc, stamp) for hlc, stamp in sorted(moved.items()) if hlc >= aside_hlc and hlc not in known]
    if left:
        with store.write(ORIGIN_SYNC) as unit:
            for hlc, stamp in left:
                unit.tell("stamp", "move", hlc, stamp)


def _heard(store: Store, future: int) -> int:
    """The last stamp of others that is none of the future: what is said from now on comes after it."""
    sql = (
        "SELECT coalesce(max(hlc), 0) FROM (SELECT hlc FROM register WHERE hlc<?1 AND device<>?2 "
        "UNION ALL SELECT hlc FROM attribute WHERE hlc<?1 AND device<>?2)"
    )
    return int(one(store.db, sql, future, store.device_uuid)[0])


def _stamps(store: Store, sql: str) -> set[int]:
    return {int(hlc) for (hlc,) in store.db.execute(sql, (store.device_uuid,))}


def recall(incoming: Incoming) -> Iterator[None]:
    """Go through the operations of others and of this device that are kept, once more; yields between units."""
    store = incoming.store
    for stream in streams.every(store.db):
        if stream.kind == SHARED:
            for row in streams.kept_pages(store.db, stream.id):
                ops = [Op(*op) for op in pages.plain(pages.kept(row))]
                incoming.again(stream.device, stream.epoch, [op for op in ops if op.model in _STAMPED])
                yield
    sql = "SELECT epoch, seq, part, hlc, model, op, key, body FROM outbox ORDER BY epoch, seq, part"
    own: list[Any] = store.db.execute(sql).fetchall()
    for epoch, rows in groupby(own, itemgetter(0)):
        ops = [op for op in (Op.unpacked(*row[1:]) for row in rows) if op.model in _STAMPED]
        for start in range(0, len(ops), _AT_ONCE):
            incoming.again(store.device_uuid, epoch, ops[start : start + _AT_ONCE])
            yield
