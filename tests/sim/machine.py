"""Machine: one device of the simulation: the shipped engine on a disk, at a network and with a clock that may be wrong.

In: what the story has it do: start, be killed, lose its power, come back from a copy, and all that `tests.sync.world`
can do to a library. Out: the same that a device would tell and keep. A machine that dies does so at once: nothing is
written or sent by it any more, whatever its tasks do on their way out.

Beside the library it keeps the books of the simulation: what was said by whom, and how far anybody has promised to keep
it. These are the oracle's; nothing of the house reads them.
"""

import contextlib
import contextvars
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
import trio
from blake3 import blake3

from index.model.errors import VdfsError
from index.store import devices, places, streams
from index.store.store import Store
from index.store.streams import SHARED, StreamId
from index.store.unit import Unit
from sync.engine import Sync
from sync.log.hub import NoPace, Peer
from sync.log.messages import Have
from sync.peers.settling import Settling
from sync.wire.cards import DeviceCard
from sync.wire.identity import DeviceIdentity, Keys, uuid_of
from tests.sim.chance import Chance, true_ns
from tests.sim.disk import Disk
from tests.sim.network import Network
from tests.sync.world import Device
from vdfs.space.arrivals import Arrivals

#: Whose tasks these are.
AT: contextvars.ContextVar["Machine | None"] = contextvars.ContextVar("machine", default=None)


class Copy:
    """An old copy of a device's files, and how far it had promised to keep what then."""

    def __init__(self, files: dict[str, bytes], promised: dict[StreamId, int]) -> None:
        self.files = files
        self.promised = promised


class Machine(Device):
    """A device. `live` is its life in the simulation."""

    def __init__(self, chance: Chance, network: Network, name: str, trace: Callable[[str], None]) -> None:
        # world.Device opens its store at once; this one when it is started.
        self.name = name
        self.keys = Keys(blake3(f"{chance.seed}/{name}".encode()).digest())
        self.uuid = uuid_of(self.keys.public_key)
        self.targets: dict[int, bytes] = {}
        self.heard = []
        self.ino = 1000
        self.chance = chance
        self.trace = trace
        self.disk = Disk(f"{name}-{chance.seed}", chance.of(f"disk/{name}"), self._died)
        self.path = self.disk.path
        self.port = network.plug_in(name)
        self.skew_ns = 0
        self.boots = 0
        self.file_number = 1
        self.is_up = False
        self.is_revoked = False
        self.never_told: set[bytes] = set()  # entries that nobody else is to hear of
        self.loses_power = True  # when its disk dies in the middle of a write
        self._nursery: trio.Nursery | None = None
        self.said: list[tuple[tuple[int, int], list[Any]]] = []  # (epoch, seq), operations
        self._unkept: set[tuple[int, int]] = set()  # of those, what no other one had at some time
        self._noted_epoch = -1
        self.removed: set[tuple[Any, ...]] = set()  # tags that it took off at some time
        self.promised: dict[StreamId, int] = {}  # durable here, as others were told
        self.identity = DeviceIdentity(
            self.uuid, name, name, self.keys.public_key, true_ns() + len(network.ports), self.keys
        )
        self._scope: trio.CancelScope | None = None
        self._wake = trio.Event()
        self.has_started = trio.Event()
        self.fail: Callable[[str], None] = trace
        self.is_promised: Callable[[StreamId, int], bool] = lambda _stream, _seq: True
        self.heard_promise: Callable[[bytes, Any], None] = lambda _device, _places: None

    def clock(self) -> int:
        return true_ns() + self.skew_ns

    # life -------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start: the store and all above it, as the house puts them together."""
        self.boots += 1
        store = self.store = Store(self.path, self.uuid, now_ns=self.clock, ground=self.disk)
        hook: Any = SimpleNamespace(store=store, remotes=())
        Arrivals(hook)
        self.sync = Sync(
            store, self.identity, pace=NoPace(), target_of=self.targets.get, adopt=lambda: None,
            library_name=lambda: "library", file_id=f"{self.name}:{self.file_number}",
            outside=self.port.outside(self.chance, self.boots), read_state=self.at_once,
        )  # fmt: skip
        self.out, self.into = self.sync.outgoing, self.sync.incoming
        with store.write("start") as unit:
            devices.say(unit, self.uuid, self.name, self.identity.card, "Linux")
        self.sync.roster.refresh()
        add = self.sync.events.add

        def traced(event: Any, text: str, device: bytes | None = None, rows: int = 0) -> None:
            self.trace(f"{self.name}: {event} {'' if device is None else device.hex()[:4]} {text}")
            add(event, text, device, rows)

        self.sync.events.add = traced  # type: ignore[method-assign]
        wrote, write = store.wrote, store.write

        def begin(origin: str) -> Unit:
            self._unit = write(origin)
            return self._unit

        def note_down() -> None:
            wrote()
            self._note_down(self._unit)

        store.wrote, store.write = note_down, begin  # type: ignore[method-assign]
        luck = self.chance.of(f"sizes/{self.name}/{self.boots}")
        self.sync.replicator.hub.page_rows = luck.choice([2, 7, 50, 2000])
        self.sync.replicator.upkeep.pages_kept = luck.choice([3, 64])
        store.number_bytes = luck.choice([1, 200, store.number_bytes])
        self._watch_promises()
        self._forget_what_was_lost()
        self._keep_promises()

    def close(self) -> None:
        """Let go of the store that was open last, which writes nothing any more: SQLite holds on to much."""
        self.disk.is_dead = True
        store = getattr(self, "store", None)
        if store is not None:
            with contextlib.suppress(Exception):
                store.db.set_wal_hook(None)
            with contextlib.suppress(Exception):
                store.db.close(True)

    def at_once(self) -> Any:
        """The current state, read on the loop."""
        return self.sync.replicator.backfill.state_at_once()

    async def live(self) -> None:
        """Start, run until something ends it, wait to be started again."""
        AT.set(self)
        while True:
            try:
                with trio.CancelScope() as self._scope:
                    self.open()
                    self.is_up = True
                    self.has_started.set()
                    self.trace(f"{self.name}: up")
                    async with trio.open_nursery() as self._nursery:
                        await self.sync.run()
            except BaseExceptionGroup as group:  # at the end of all it has what ends this task in it, too
                ended, faults = group.split(trio.Cancelled)
                if faults is not None and not self.disk.is_dead and not self.disk.is_full:
                    raise
                if ended is not None:
                    raise ended from None
            except Exception:
                if not self.disk.is_dead and not self.disk.is_full:
                    raise
            if not self.disk.is_dead:  # it could not start
                self.trace(f"{self.name}: has no room to start")
                self._stop()
            self.is_up = False
            self._nursery = None
            self.close()
            await self._wake.wait()
            self._wake = trio.Event()
            self.disk.is_dead = False

    def start(self) -> None:
        """Power on; what went on before has ended by then."""
        self._wake.set()

    def _died(self) -> None:
        """The disk says that this is the moment."""
        self.trace(f"{self.name}: dies in the middle of a write")
        files = self.disk.copy()
        self._stop()
        self.disk.put(files) if not self.loses_power else self.disk.lose_power()

    def spawn(self, work: Callable[..., Any], *values: Any) -> None:
        """A task of its own, which may come to nothing."""

        async def attempt() -> None:
            with contextlib.suppress(VdfsError, trio.ClosedResourceError):
                if values and type(values[0]).__name__ == "OfTomorrow" and work.__name__ == "call":
                    await work(*values, priority=2, deadline_s=5)
                else:
                    await work(*values)

        if self._nursery is not None:
            self._nursery.start_soon(attempt)

    def _stop(self) -> None:
        self.disk.is_dead = True
        self.disk.dies_in = None
        self.port.unplug()
        self.is_up = False
        if self._scope is not None:
            self._scope.cancel()

    def kill(self) -> None:
        """The process ends at once; what it wrote is there."""
        files = self.disk.copy()
        self._stop()
        self.disk.put(files)

    def lose_power(self) -> None:
        self._stop()
        self.disk.lose_power()

    def copy(self) -> Copy:
        """A copy of its files, as a backup program makes it."""
        return Copy(self.disk.copy(), dict(self.promised))

    def restore(self, copy: Copy, *, is_told: bool) -> None:
        """Its files are those of the copy; `is_told`: by the file's number, as on a real disk."""
        self._stop()
        self.disk.put(copy.files)
        self.promised = dict(copy.promised)
        if is_told:
            self.file_number += 1

    def _keep_promises(self) -> None:
        """What it said to have durably is there after whatever happened."""
        have = self.knows
        for stream, seq in self.promised.items():
            if have.get(stream, 0) < seq:
                self.fail(f"{self.name} said to have {stream.device.hex()[:4]} up to {seq}: {have.get(stream)} is here")

    def _forget_what_was_lost(self) -> None:
        """What went with the power, or with a copy put in place, and nobody had yet, is not asked for."""
        here = set(self.db.execute("SELECT epoch, seq FROM outbox").fetchall())
        self.said = [
            (at, ops)
            for at, ops in self.said
            if at in here or (at not in self._unkept and self.is_promised(StreamId(self.uuid, at[0], SHARED), at[1]))
        ]
        self._unkept.clear()

    def another_forgot(self) -> None:
        """A copy was put in place of another one's files. What nobody has any more, since this one had forgotten it
        before, is not asked for, though what is said later may be promised."""
        self._unkept.update(
            at for at, _ in self.said if not self.is_promised(StreamId(self.uuid, at[0], SHARED), at[1])
        )
        if self.is_up:
            self._forget_what_was_lost()

    # books ------------------------------------------------------------------------------------------------------------

    def _note_down(self, unit: Unit) -> None:
        """What a unit said, for the oracle."""
        store = self.store
        if store.epoch != self._noted_epoch:  # what it begins with was written beside all units
            self._noted_epoch = store.epoch
            sql = "SELECT body FROM outbox WHERE epoch=? AND model='tagging' AND op='remove'"
            for (body,) in store.db.execute(sql, (store.epoch,)):
                self.removed.update(tuple(dot[:3]) for dot in msgpack.unpackb(body))
        said: dict[int, list[Any]] = {}
        for seq, part, hlc, model, op, key, body in store.db.execute(
            "SELECT seq, part, hlc, model, op, key, body FROM outbox WHERE epoch=? AND seq BETWEEN ? AND ?",
            (store.epoch, unit.seq, unit.said_seq),
        ):
            what = msgpack.unpackb(body)
            said.setdefault(seq, []).append((part, hlc, model, op, msgpack.unpackb(key), what))
            if (model, op) == ("tagging", "remove"):
                self.removed.update(tuple(dot[:3]) for dot in what)
        self.said += [((store.epoch, seq), ops) for seq, ops in sorted(said.items())]

    def _watch_promises(self) -> None:
        """What another one says that he has durably, and was heard to say, he is held to."""
        notified = self.sync.replicator.notified

        async def heard(peer: Peer, message: Any) -> None:
            if isinstance(message, Have):
                self.heard_promise(peer.device, message.places)
            await notified(peer, message)

        self.sync.replicator.notified = heard  # type: ignore[method-assign]

    def promise(self, places_told: Any) -> None:
        for at in places_told:
            if at.kind == SHARED and at.device != self.uuid:
                self.promised[at.stream] = max(self.promised.get(at.stream, 0), at.seq)

    # meeting others ---------------------------------------------------------------------------------------------------

    def pair(self, other: "Machine") -> None:
        """As two people with the words would: this one offers, the other joins."""
        sides = []
        for one, their in ((self, other), (other, self)):
            public, static, signature, _ = their.identity.card
            card = DeviceCard(public, static, signature, their.name, "Linux")
            session: Any = SimpleNamespace()
            side = Settling(
                one.store, one.sync.roster, lambda: None, session, card,
                is_offering=one is self, port=one.sync.links.port, library_name="library",
            )  # fmt: skip
            sides.append(side)
        ours, theirs = sides
        if not (ours.mine.knows and theirs.mine.knows):
            moves = [side.moves(their.mine) for side, their in ((ours, theirs), (theirs, ours))]
            ours._write_down(theirs.mine, moves=moves[0])
            theirs._write_down(ours.mine, moves=moves[1])
        for one in (self, other):
            one.disk.sync(one.store._wal)  # as the house does it, which waits for that
            one.sync.links.refresh()
            one.sync.introductions.paired()

    def meets(self, other: "Machine") -> bool:
        """Whether each of two knows the other."""
        return all(devices.get(a.db, b.uuid) is not None for a, b in ((self, other), (other, self)))

    @property
    def knows(self) -> dict[StreamId, int]:
        return {row.id: row.seq for row in streams.every(self.db)}

    def branches(self) -> list[places.BranchRow]:
        return [row for row in places.branches(self.db) if row.device_uuid == self.uuid and row.scan_state != "gone"]
