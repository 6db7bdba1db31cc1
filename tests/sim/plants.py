"""Plants: faults that are put into the house on purpose, to see that the simulation finds them.

Each is a mistake that somebody could make, or has made elsewhere, as a change of shipped code for the length of a
block. A simulation that passes with one of them in place looks at nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import trio

from index.store import metadata, pending, registers, shared, streams
from sync.log import incoming, joining, messages, pruning, upkeep


@contextmanager
def _changed(place: Any, name: str, value: Any) -> Iterator[None]:
    held = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, held)


@contextmanager
def no_tie_break() -> Iterator[None]:
    """Of two writes with one stamp whichever is heard last wins."""
    last = registers._PUT.replace("(excluded.hlc, excluded.device) >= (hlc, device)", "excluded.hlc >= hlc")

    def put(db: Any, entry_uuid: bytes, name: bytes, value: bytes | None, hlc: int, device: bytes) -> None:
        db.execute(
            "INSERT INTO attribute VALUES(?,?,?,?,?) ON CONFLICT(entry_uuid, name) DO UPDATE SET "
            "value=excluded.value, hlc=excluded.hlc, device=excluded.device WHERE excluded.hlc >= hlc",
            (entry_uuid, name, value, hlc, device),
        )

    with _changed(registers, "_PUT", last), _changed(metadata, "put", put):
        yield


@contextmanager
def no_gap_check() -> Iterator[None]:
    """A page is taken wherever it begins."""
    look = incoming.Incoming._stream

    def anywhere(self: incoming.Incoming, page: Any) -> Any:
        try:
            return look(self, page)
        except incoming.Gap:
            return streams.get(self.store.db, page.facts.stream)

    with _changed(incoming.Incoming, "_stream", anywhere):
        yield


@contextmanager
def acknowledged_too_early() -> Iterator[None]:
    """What was applied is acknowledged before it is durable."""

    async def acknowledge(self: upkeep.Upkeep) -> None:
        while True:
            await self.hub.to_acknowledge.wait()
            await trio.sleep(upkeep.ACK_S)
            self.hub.to_acknowledge = trio.Event()
            notice = messages.Have(tuple(self.keeper.places().values()), self.hub.direct())
            for peer in list(self.hub.peers.values()):
                try:
                    await peer.channel.notify(notice)
                except upkeep.LinkClosed:
                    continue

    with _changed(upkeep.Upkeep, "_acknowledge", acknowledge):
        yield


@contextmanager
def cursor_by_clock() -> Iterator[None]:
    """What is stamped before the latest that was heard is taken for known."""
    merge = shared.merge
    latest: dict[str, int] = {}

    def later(unit: Any, device: bytes, ops: Any) -> Any:
        here = unit._store.path
        held = latest.get(here, 0)
        ops = list(ops)
        fresh = [op for op in ops if op.hlc > held]
        latest[here] = max([held, *(op.hlc for op in fresh)])
        return merge(unit, device, fresh)

    with _changed(incoming.shared, "merge", later):
        yield


@contextmanager
def tombstones_by_time() -> Iterator[None]:
    """What is gone is forgotten after a while, whoever has heard of it."""
    prune = pruning.prune

    def sooner(store: Any, others: Any) -> None:
        prune(store, others)
        with store.note() as db:
            db.execute("DELETE FROM tombstone")

    with _changed(pruning, "prune", sooner), _changed(upkeep, "PRUNE_S", 2.0):
        yield


@contextmanager
def dropped_while_waiting() -> Iterator[None]:
    """What refers to a row that is not known yet is dropped."""
    with _changed(pending, "wait_for", lambda _db, _missing, _held: None):
        yield


@contextmanager
def same_round() -> Iterator[None]:
    """When all rows of a device are told anew, those of the time before count as told."""

    def rewind(db: Any, stream: Any) -> None:
        sql = "UPDATE stream SET seq=start_seq, part_to=0, part_after=0 WHERE device=? AND epoch=? AND kind=?"
        db.execute(sql, stream)
        db.execute("DELETE FROM page WHERE device=? AND epoch=? AND kind=?", stream)

    with _changed(streams, "rewind", rewind):
        yield


@contextmanager
def removed_comes_back() -> Iterator[None]:
    """A tag that was taken off comes back with the state of somebody who has not heard of that."""
    with _changed(joining.Joining, "_was_removed", lambda *_: False):
        yield


#: The faults, each with what may happen in the stories that are to show it (nothing: whatever happens otherwise), and
#: the seed at which looking for it begins: one that shows it, as long as the stories are what they are.
PLANTS: dict[str, tuple[Callable[[], AbstractContextManager[None]], tuple[str, ...], int]] = {
    "no_tie_break": (no_tie_break, (), 0),
    "no_gap_check": (no_gap_check, ("hiccup", "flap"), 0),
    "acknowledged_too_early": (acknowledged_too_early, ("lose_power", "die_at_a_write"), 0),
    "cursor_by_clock": (cursor_by_clock, (), 0),
    "tombstones_by_time": (tombstones_by_time, ("part", "rejoin", "kill"), 44),
    "dropped_while_waiting": (dropped_while_waiting, (), 35),
    "same_round": (same_round, (), 101),
    "removed_comes_back": (removed_comes_back, ("part", "rejoin", "copy", "restore", "prune"), 32),
}
