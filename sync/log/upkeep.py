"""Upkeep: what goes on behind the links: writing is told, what was applied is acknowledged, what all have is let go.

Nothing is acknowledged (`Have`) before it is durable.
"""

import logging
import math
from typing import Final

import trio

from index.model.errors import LinkClosed, NoSpace, VdfsError
from index.model.hlc import Hlc
from index.store import devices, heldback, pending, recalls, streams
from index.store.streams import StreamId
from sync.log import epochs, outgoing, pruning, restamping
from sync.log.backfill import Backfill
from sync.log.following import RETRY_S
from sync.log.hub import RELAY_S, Hub
from sync.log.incoming import DRIFT_MS
from sync.log.messages import STAMPS_MAX, Again, Ahead, Have
from sync.net.bell import Bell

log = logging.getLogger("sdmount.sync")

#: How long what was written waits for more before it is told, when something was told a moment ago; a change that comes
#: alone waits for nothing.
GATHER_S: Final = 0.005
#: How long what was applied waits for more before it is made durable and acknowledged.
ACK_S: Final = 0.25
PRUNE_S: Final = 60.0
#: Whose clock runs ahead is told so again after so long.
AHEAD_S: Final = 10.0
#: What is kept is gone through for the sake of a stamp, and one device asked for its state, no oftener than this.
RECALL_S: Final = 30.0
#: Of another device's rows at least so many pages are kept, before those that are superseded are looked at.
PAGES_KEPT: Final = 64


class Upkeep:
    """Used on the loop only; `run` is its life."""

    def __init__(self, hub: Hub, backfill: Backfill) -> None:
        self.hub, self.backfill = hub, backfill
        self.store, self.incoming, self.keeper, self.pace = hub.store, hub.incoming, hub.keeper, hub.pace
        self.pages_kept = PAGES_KEPT
        self._written = Bell()
        self._ahead_told_s = -math.inf
        self._untold_after = self._tidied_after = b""
        self._recalled_s = -math.inf
        self._asked_s: dict[bytes, float] = {}  # when the state of a device was asked for last
        self.store.wrote = self._written.ring

    async def run(self) -> None:
        """Tell what is written, acknowledge what was applied, forget what all have."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_writes)
            nursery.start_soon(self._acknowledge)
            nursery.start_soon(self._keep_house)

    async def _watch_writes(self) -> None:
        rung_s = -math.inf
        while True:
            await self._written.wait()
            if trio.current_time() - rung_s < 2 * GATHER_S:
                await trio.sleep(GATHER_S)
            rung_s = trio.current_time()
            self.hub.ring_all()

    async def _acknowledge(self) -> None:
        """Say what is durable here, once there is something new."""
        while True:
            await self.hub.to_acknowledge.wait()
            await trio.sleep(ACK_S)
            self.hub.to_acknowledge = trio.Event()
            places = tuple(self.keeper.places().values())
            await self.store.make_durable()
            notice = Have(places, self.hub.direct(), self.keeper.forks())
            for peer in list(self.hub.peers.values()):
                try:
                    with trio.move_on_after(RELAY_S):
                        await peer.channel.notify(notice)
                except LinkClosed:
                    continue

    async def _keep_house(self) -> None:
        pruned_s = trio.current_time()
        while True:
            await trio.sleep(RETRY_S)
            try:
                while self.incoming.release():
                    self.hub.ring_all()
                    async with self.pace.turn():
                        pass
                await self._tell_untold()
                for _ in epochs.say_all_again(self.store):
                    async with self.pace.turn():
                        pass
                await self._recall()
                await self._tell_ahead()
                for _ in self.incoming.clear():
                    async with self.pace.turn():
                        pass
                if trio.current_time() - pruned_s >= PRUNE_S and self.backfill.taken_of is None:
                    pruned_s = trio.current_time()
                    with self.store.note() as db:
                        self._tidied_after = heldback.tidy(db, self._tidied_after)
                    pruning.prune(self.store, [] if self.hub.is_out else self._awaited())
                    await self._fetch_bases()
            except NoSpace as error:
                log.info("sync waits for room: %s", error)

    async def _tell_untold(self) -> None:
        """Some of what waits for rules is looked at each time; as long as there is something to tell, all of it."""
        has_told = True
        while has_told:
            async with self.pace.turn():
                self._untold_after, has_told = outgoing.tell_untold(self.store, self._untold_after)

    async def _recall(self) -> None:
        """A stamp of the future was given up that had made what others wrote look old: it is gone through once more,
        and the state of every other device taken, of one that is away when it is back."""
        left = recalls.left(self.store.db)
        if left == set() or (left is None and trio.current_time() < self._recalled_s + RECALL_S):
            return
        if left is None:
            await self._go_through_what_is_kept()
        elif gone := left - set(self._awaited()):
            self._note_recall(left - gone)
        await self._ask_for_states()

    async def _go_through_what_is_kept(self) -> None:
        self._recalled_s = trio.current_time()
        self._asked_s.clear()
        with self.store.note() as db:
            recalls.begin(db)
        for _ in restamping.recall(self.incoming):
            async with self.pace.turn():
                pass
        if recalls.is_begun(self.store.db):  # else there is a reason to begin anew, in a while
            self._note_recall(set(self._awaited()))

    async def _ask_for_states(self) -> None:
        for device in sorted((recalls.left(self.store.db) or set()) & self.hub.peers.keys()):
            peer = self.hub.peers.get(device)  # who is gone by now is asked when it is back
            if peer is None or trio.current_time() < self._asked_s.get(device, -math.inf) + RECALL_S:
                continue
            self._asked_s[device] = trio.current_time()
            try:
                await self.backfill.take(peer)
            except VdfsError as error:
                log.info("the current state of %s could not be taken: %s", device.hex()[:8], error)
                continue
            left = recalls.left(self.store.db)
            if left is None:  # what came with it is a reason to begin anew, in a while
                return
            self._note_recall(left - {device})

    def _note_recall(self, left: set[bytes]) -> None:
        with self.store.note() as db:
            recalls.note_left(db, left)

    async def _tell_ahead(self) -> None:
        """Who stamps in the future is told so, now and then."""
        if trio.current_time() < self._ahead_told_s + AHEAD_S:
            return
        limit = Hlc(self.store.now_ms() + DRIFT_MS, 0).packed()
        for device, hlc in pending.earliest_aside(self.store.db, limit):
            self._ahead_told_s = trio.current_time()
            peer = self.hub.peers.get(device)
            if peer is not None:
                try:
                    await peer.channel.notify(Ahead(hlc, pending.stamps_aside(self.store.db, device, STAMPS_MAX)))
                except LinkClosed:
                    continue

    def _awaited(self) -> list[bytes]:
        """The other devices, without those that were not heard of for so long that nobody waits for them."""
        store, found = self.store, []
        for device in devices.others(store.db, store.device_uuid):
            seen_ns = streams.seen_ns(store.db, device)
            if seen_ns is None or device in self.hub.peers:
                self.hub.heard_of(device)
            elif seen_ns < store.now_ns() - streams.RETIRED_NS:
                continue
            found.append(device)
        return found

    async def _fetch_bases(self) -> None:
        """Where many pages of a device's rows are kept that later ones say anew, all of its rows are asked for."""
        for stream in streams.overgrown(self.store.db, self.pages_kept):
            peer = self.hub.peers.get(stream.device)
            if peer is None or not self._is_newest(stream):
                continue
            async with self.hub.applying:
                before = self.keeper.places().get(stream)
                if before is None or before.part_to:  # all of it is being told just now
                    continue
                self.hub.rewind(stream)
            try:
                await peer.channel.notify(Again((self.keeper.places()[stream],)))
            except LinkClosed:
                continue

    def _is_newest(self, stream: StreamId) -> bool:
        return streams.newest_epoch(self.store.db, stream.device, stream.kind) <= stream.epoch
