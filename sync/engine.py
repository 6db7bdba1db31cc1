"""Engine: how this library agrees with the other devices that have it, put together; the doorway of the floor.

In: the open store and which file that is, who this device is, and three questions to those above: how the loop is
shared (`pace`), where a symlink leads (`target_of`), and how another id of the library gets onto the disk (`adopt`).
What is not this machine's but a simulation's comes in by `outside`, and `read_state` where there are no threads.
Out: rows in the store, as commits of origin `sync`, and what `Sync` tells of itself. What follows from changed rows of
devices, locations and branches is for who is told by `changed`.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from index.model.errors import NotFound
from index.store import changes, devices
from index.store.shared import Merged
from index.store.store import Store
from sync.log import epochs, snapshot
from sync.log.backfill import ReadState
from sync.log.events import Event, Events
from sync.log.hub import Pace
from sync.log.incoming import Incoming
from sync.log.keeper import Keeper
from sync.log.outgoing import Outgoing
from sync.log.replicator import Replicator
from sync.log.snapshot import Part
from sync.net.outside import Outside
from sync.peers.introduction import Introductions
from sync.peers.links import Links
from sync.peers.pairings import Pairings
from sync.peers.roster import Roster
from sync.wire.identity import DeviceIdentity

log = logging.getLogger("sdmount.sync")

_PARTS_AHEAD: Final = 4
_RESTART_S: Final = 5.0
_PUT_OUT_BY: Final = "put_out_by"


class Sync:
    """One library's agreement with its other devices. Used on the loop only; `run` is its life."""

    def __init__(
        self,
        store: Store,
        identity: DeviceIdentity,
        *,
        pace: Pace,
        target_of: Callable[[int], bytes | None],
        adopt: Callable[[], None],
        library_name: Callable[[], str],
        file_id: str,
        outside: Outside | None = None,
        read_state: ReadState | None = None,
    ) -> None:
        self.store = store
        self.identity = identity
        self.events = Events(store.now_ns)
        epochs.begin(store, file_id)
        self.roster = Roster(store, identity)
        self.outgoing = Outgoing(store, identity.keys, target_of)
        self.incoming = Incoming(store, self.roster.key_of, self._heard, self.roster.is_out)
        self.keeper = Keeper(store, self.outgoing)
        self.replicator = Replicator(
            store, self.incoming, self.keeper, pace=pace, events=self.events,
            read_state=read_state or self._read_state,
        )  # fmt: skip
        self.replicator.hub.changed = self._connections_changed
        self.links = Links(store, identity, self.roster, self.replicator, outside=outside)
        self.links.name = self._own_name()
        self.links.put_out = self._put_out
        self.links.is_out = self.replicator.hub.is_out = self.is_revoked
        self.introductions = Introductions(self.links, adopt, library_name)
        self.pairings = Pairings(self.introductions)
        self.introductions.paired = lambda: self._heard(Merged(set(), {(devices.MODEL, identity.uuid)}))
        #: Told which rows of devices, locations, branches, … are other than before, by model and key.
        self.changed: Callable[[set[tuple[str, bytes]]], None] = lambda _: None
        #: Told who is connected, each time it is somebody else.
        self.connected: Callable[[frozenset[bytes]], None] = lambda _: None
        self._online: frozenset[bytes] = frozenset()

    async def run(self) -> None:
        """Everything that goes on between devices. A failure is logged, and it begins anew."""
        async with trio.open_nursery() as nursery:
            for task in (self.replicator.run, self.links.run, self.pairings.run):
                nursery.start_soon(self._for_ever, task)

    async def _for_ever(self, task: Callable[[], object]) -> None:
        while True:
            try:
                await task()  # type: ignore[misc]  # a coroutine function of no arguments
            except Exception:
                log.exception("what goes on between devices failed, and begins anew")
            await trio.sleep(_RESTART_S)

    def _heard(self, merged: Merged) -> None:
        if any(model == devices.MODEL for model, _ in merged.rows):
            self.roster.refresh()
            self.links.name = self._own_name()
            self._look_whether_out()
            self.links.refresh()
        if merged.rows:
            self.changed(merged.rows)

    def _put_out(self, by: bytes) -> None:
        """A member says that this device is none any more. It is the last thing that is heard."""
        with self.store.note() as db:
            changes.set_meta(db, _PUT_OUT_BY, by)
        self._look_whether_out()

    def _look_whether_out(self) -> None:
        if self.is_revoked and not self.links.is_out:
            self.links.is_out = self.replicator.hub.is_out = True
            self.events.add(Event.STATE, "this device was put out of the library; it goes on by itself")
            self.links.refresh()

    def _own_name(self) -> str:
        row = devices.get(self.store.db, self.identity.uuid)
        return self.identity.name if row is None else row.name

    def _connections_changed(self) -> None:
        online = frozenset(self.replicator.peers)
        if online != self._online:
            self._online = online
            self.connected(online)

    @asynccontextmanager
    async def _read_state(self) -> AsyncIterator[AsyncIterator[Part]]:
        """The state in one transaction of a connection of its own, in a thread; a few parts ahead of who takes it."""
        send, receive = trio.open_memory_channel[Part](_PARTS_AHEAD)
        device, epoch = self.store.device_uuid, self.store.epoch

        def read() -> None:
            with self.store.reader() as db:
                db.execute("BEGIN")
                for part in snapshot.read(db, device, epoch):
                    trio.from_thread.run(send.send, part)
            trio.from_thread.run_sync(send.close)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, read)
            yield receive
            nursery.cancel_scope.cancel()

    async def lacks(self) -> list[str]:
        """What the devices have that can be reached and is not here yet, in words; devices among it that are being
        looked for just now."""
        missing = await self.replicator.lacks()
        if self.replicator.is_paused and self.roster.others():
            missing.append("sync is paused; `sd sync resume` lets it go on")
        for row in self.roster.others():
            if row.uuid not in self.replicator.peers and self.links.is_expected(row.uuid):
                missing.append(f"{row.slug} is being looked for")
        return missing

    # people -----------------------------------------------------------------------------------------------------------

    def find(self, name: str) -> devices.Device:
        """The device of a name, a slug, or the beginning of an id."""
        rows = devices.every(self.store.db)
        for row in rows:
            if name in (row.slug, row.name):
                return row
        found = [row for row in rows if len(name) >= 4 and row.uuid.hex().startswith(name.replace("-", "").lower())]
        if len(found) == 1:
            return found[0]
        known = ", ".join(row.slug for row in rows)
        raise NotFound(f"there is no device {name} (there are: {known})")

    def rename(self, uuid: bytes, name: str) -> None:
        """Another name for a device, everywhere."""
        with self.store.write("device") as unit:
            devices.rename(unit, uuid, name)
        self._heard(Merged(set(), {(devices.MODEL, uuid)}))

    async def revoke(self, uuid: bytes) -> None:
        """A device is out, here at once and everywhere as it is heard."""
        with self.store.write("device") as unit:
            self.roster.revoke(unit, uuid)
        await self.store.make_durable()
        self._heard(Merged(set(), {(devices.MODEL, uuid)}))

    @property
    def is_revoked(self) -> bool:
        """Whether this device itself was put out of the library."""
        row = devices.get(self.store.db, self.identity.uuid)
        is_told = changes.get_meta(self.store.db, _PUT_OUT_BY) is not None
        return is_told or (row is not None and bool(row.revoked))
