"""Story: what a seed tells: devices, what they do, what happens to them and between them, and how it ends.

The first part goes wrong in every way that the seed chooses. Then all is healed: ways are free, disks have room, clocks
are right, everybody runs; all come to know everything within a time that simulated clocks measure; days pass, so that
what was put aside for its stamp is due; and then they must be equal (checks.py). The trace says what happened, its
digest whether two runs were the same.
"""

import contextlib
import gc
import logging
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import apsw
import attrs
import trio
from blake3 import blake3

from index.model.errors import VdfsError
from index.store import devices, recalls
from index.store.streams import OWNED, SHARED, StreamId
from sync.log import pruning
from sync.log.messages import Again, At
from sync.wire.codec import message
from tests.sim import checks
from tests.sim.chance import Chance, run
from tests.sim.deeds import Deeds
from tests.sim.machine import AT, Copy, Machine
from tests.sim.network import Network

DAY_NS = 86_400 * 10**9
#: How long they may take to hear everything once all is healed.
QUIET_S = 400.0
_NAMES = ("ann", "bob", "cat", "dan", "eve")


@message(999)
class OfTomorrow:
    """A message that no program of today knows."""

    what: bool = True


@attrs.frozen
class Outcome:
    """How a seed ended: what was wrong, if anything, and the digest of all that happened."""

    seed: int
    faults: list[str]
    digest: str
    lines: list[str]


class Story:
    """One seed."""

    def __init__(
        self,
        seed: int,
        steps: int | None = None,
        without: Sequence[str] = (),
        only: Sequence[str] = (),
    ) -> None:
        self.chance = Chance(seed)
        self.luck = self.chance.of("story")
        self.network = Network()
        self.lines: list[str] = []
        self.faults: list[str] = []
        self._digest = blake3()
        self.machines: list[Machine] = []
        self.copies: dict[str, Copy] = {}
        self.is_over = False
        luck = self.luck
        self.count = luck.choice([2, 2, 3, 3, 3, 4, 5])
        drawn = luck.choice([25, 40, 60, 80])
        self.steps = drawn if steps is None else steps
        self.deeds: dict[str, Deeds] = {}
        self.away: set[str] = set()  # whom the story wants down
        self.revoked: Machine | None = None
        self.without, self.only = without, only
        self.events = self._draw_events()

    def _draw_events(self) -> list[tuple[int, Callable[[Machine], Any]]]:
        """What can happen in this seed beside deeds; not everything in each, so that rare things meet."""
        luck = self.luck
        kinds: list[tuple[int, Callable[[Machine], Any]]] = [
            (6, self.part), (6, self.rejoin), (4, self.flap), (3, self.delay), (3, self.kill), (3, self.lose_power),
            (3, self.die_at_a_write), (3, self.copy), (2, self.restore), (2, self.roll_back), (2, self.skew),
            (2, self.fill_disk), (3, self.hiccup), (4, self.again), (3, self.network_changes), (3, self.prune),
            (1, self.revoke), (2, self.speak_of_tomorrow), (2, self.join), (3, self.start_all),
        ]  # fmt: skip
        if self.only:
            return [one for one in kinds if one[1].__name__ in self.only]
        kept = [one for one in kinds if luck.random() < 0.6 and one[1].__name__ not in self.without]
        return kept or [(1, self.flap)]

    # telling ----------------------------------------------------------------------------------------------------------

    def trace(self, line: str) -> None:
        with contextlib.suppress(RuntimeError):
            line = f"{trio.current_time():9.3f} {line}"
        self.lines.append(line)
        self._digest.update(line.encode(errors="surrogateescape") + b"\n")

    def fail(self, what: str) -> None:
        self.trace(f"FAULT {what}")
        self.faults.append(what)

    @property
    def digest(self) -> str:
        return self._digest.hexdigest(16)

    # life -------------------------------------------------------------------------------------------------------------

    async def main(self) -> None:
        with _errors_to(self.fail):
            async with trio.open_nursery() as self.nursery:
                for _ in range(self.luck.randrange(2, self.count + 1)):
                    await self._new_machine()
                for other in self.machines[1:]:
                    self._pair(self.machines[0], other)
                for _ in range(self.steps):
                    await trio.sleep(self.luck.choice([0.0, 0.0, 0.001, 0.03, 0.3, 1.0, 3.0]))
                    self.step()
                await self.heal()
                await self.end()
                self.is_over = True
                for machine in self.machines:
                    machine.kill()
                    machine.disk.unplug()
                self.nursery.cancel_scope.cancel()

    async def _new_machine(self) -> Machine:
        name = _NAMES[len(self.machines)]
        machine = Machine(self.chance, self.network, name, self.trace)
        machine.heard_promise = self.promised
        machine.fail = self.fail
        machine.is_promised = lambda stream, seq: self.promises().get(stream, 0) >= seq
        self.machines.append(machine)
        self.deeds[name] = Deeds(self.chance.of(f"deeds/{name}"))
        self.nursery.start_soon(machine.live, name=name)
        await machine.has_started.wait()
        return machine

    def _pair(self, one: Machine, other: Machine) -> None:
        self.trace(f"{one.name} and {other.name} are paired")
        one.pair(other)

    def promised(self, device: bytes, told: Any) -> None:
        next(one for one in self.machines if one.uuid == device).promise(told)

    def promises(self) -> dict[StreamId, int]:
        """How far at least one device that is no stranger has promised to keep each stream."""
        found: dict[StreamId, int] = {}
        for machine in self.machines:
            if not machine.is_revoked:
                for stream, seq in machine.promised.items():
                    found[stream] = max(found.get(stream, 0), seq)
        return found

    def step(self) -> None:
        machine = self.luck.choice(self.machines)
        if self.luck.random() < 0.72:
            if not machine.is_up:
                return
            token = AT.set(machine)
            try:
                said = self.deeds[machine.name].one(machine)
                if said is not None:
                    self.trace(f"{machine.name}: {said}")
            except (VdfsError, apsw.Error) as error:
                if not machine.disk.is_dead and not machine.disk.is_full:
                    raise
                self.trace(f"{machine.name}: could not: {type(error).__name__}")
            finally:
                AT.reset(token)
            return
        weights, events = zip(*self.events, strict=True)
        event = self.luck.choices(events, weights)[0]
        token = AT.set(machine)
        try:
            said = event(machine)
        except (VdfsError, apsw.Error) as error:
            if not machine.disk.is_dead and not machine.disk.is_full:
                raise
            said = f"could not: {type(error).__name__}"
        finally:
            AT.reset(token)
        if said is not None:
            self.trace(f"{machine.name}: {event.__name__}: {said}")

    # what happens -----------------------------------------------------------------------------------------------------

    def _other(self, machine: Machine) -> Machine:
        return self.luck.choice([one for one in self.machines if one is not machine])

    def part(self, machine: Machine) -> str:
        other = self._other(machine)
        self.network.part(machine.port, other.port)
        return f"does not hear {other.name}"

    def rejoin(self, machine: Machine) -> str:
        other = self._other(machine)
        self.network.rejoin(machine.port, other.port)
        return f"hears {other.name}"

    def flap(self, machine: Machine) -> str:
        other = self._other(machine)
        self.network.cut(machine.port, other.port)
        return f"is cut off from {other.name}"

    def delay(self, machine: Machine) -> str:
        other, delay_s = self._other(machine), self.luck.choice([0.0, 0.01, 0.2, 2.0])
        self.network.way(machine.port, other.port).delay_s = delay_s
        return f"to {other.name} is {delay_s} s"

    def network_changes(self, machine: Machine) -> str:
        machine.port.interfaces.revision.bump()
        return "has another network"

    def kill(self, machine: Machine) -> str | None:
        if not machine.is_up:
            return self.start(machine)
        machine.kill()
        return "is down"

    def lose_power(self, machine: Machine) -> str | None:
        if not machine.is_up:
            return self.start(machine)
        machine.lose_power()
        return "is down"

    def die_at_a_write(self, machine: Machine) -> str | None:
        if not machine.is_up:
            return self.start(machine)
        machine.loses_power = self.luck.random() < 0.6
        machine.disk.dies_in = self.luck.choice([0, 1, 2, 5, 10, 30, 100])
        return f"dies in {machine.disk.dies_in} writes"

    def start(self, machine: Machine) -> str:
        machine.start()
        return "starts"

    def start_all(self, machine: Machine) -> None:
        for one in self.machines:
            if not one.is_up:
                one.start()

    def copy(self, machine: Machine) -> str | None:
        if not machine.is_up:
            return None
        self.copies[machine.name] = machine.copy()
        return "is copied"

    def restore(self, machine: Machine) -> str | None:
        return self._restore(machine, is_told=True)

    def roll_back(self, machine: Machine) -> str | None:
        return self._restore(machine, is_told=False)

    def _restore(self, machine: Machine, *, is_told: bool) -> str | None:
        copy = self.copies.get(machine.name)
        if copy is None or machine is self.revoked:
            return None
        machine.restore(copy, is_told=is_told)
        for other in self.machines:
            if other is not machine:
                other.another_forgot()
        return "its copy is put in place"

    def skew(self, machine: Machine) -> str:
        machine.skew_ns = self.luck.choice([0, 0, 10**9, -(10**9), 5 * 60 * 10**9, 3600 * 10**9, DAY_NS, -DAY_NS])
        return f"its clock is {machine.skew_ns / 1e9:.0f} s ahead"

    def fill_disk(self, machine: Machine) -> str:
        machine.disk.is_full = not machine.disk.is_full
        if not machine.disk.is_full and machine.is_up:
            machine.store.is_full = False
        return "its disk is full" if machine.disk.is_full else "its disk has room"

    def hiccup(self, machine: Machine) -> str | None:
        """Its disk has no room for a moment."""
        if machine.disk.is_full or not machine.is_up:
            return None
        machine.disk.is_full = True
        self.nursery.start_soon(self._after_hiccup, machine, self.luck.choice([0.05, 0.3, 1.5]))
        return "its disk is full for a moment"

    async def _after_hiccup(self, machine: Machine, seconds: float) -> None:
        await trio.sleep(seconds)
        machine.disk.is_full = False
        if machine.is_up:
            machine.store.is_full = False

    def again(self, machine: Machine) -> str | None:
        """Pages that it has are sent once more."""
        if not machine.is_up or not machine.sync.replicator.peers:
            return None
        peers = machine.sync.replicator.peers
        peer = peers[self.luck.choice(sorted(peers))]
        wanted = []
        for stream, at in machine.sync.keeper.places().items():
            if not machine.sync.keeper.is_own(stream) and stream.kind == SHARED and self.luck.random() < 0.5:
                wanted.append(At(*stream, machine.sync.keeper.start_of(stream)))
            elif stream.kind == OWNED and self.luck.random() < 0.2:
                wanted.append(At(*stream, at.seq))
        machine.spawn(peer.channel.notify, Again(tuple(wanted)))
        return f"has {len(wanted)} streams told again"

    def prune(self, machine: Machine) -> str | None:
        if not machine.is_up:
            return None
        pruning.prune(machine.store, devices.others(machine.db, machine.uuid))
        return "forgets what all have"

    def revoke(self, machine: Machine) -> str | None:
        """One device is put out, once in a story."""
        if self.revoked is not None or not machine.is_up or len(self.machines) < 3:
            return None
        other = self._other(machine)
        others = [one for one in self.machines if one is not other]
        if not all(one.is_up and self._trusts_all(one, others) for one in others):
            return None  # who knows of each other by that device alone could never meet
        self.revoked = other
        other.is_revoked = True
        machine.spawn(machine.sync.revoke, other.uuid)
        return f"puts {other.name} out"

    def _trusts_all(self, machine: Machine, others: list[Machine]) -> bool:
        return all(machine.sync.roster.is_trusted(one.uuid) for one in others)

    def speak_of_tomorrow(self, machine: Machine) -> str | None:
        if not machine.is_up or not machine.sync.replicator.peers:
            return None
        peers = machine.sync.replicator.peers
        peer = peers[self.luck.choice(sorted(peers))]
        machine.spawn(peer.channel.notify, OfTomorrow())
        machine.spawn(peer.channel.call, OfTomorrow())
        return "says what nobody knows"

    def join(self, machine: Machine) -> str | None:
        """A device that comes late."""
        if len(self.machines) >= self.count or not machine.is_up or machine is self.revoked:
            return None
        self.nursery.start_soon(self._join, machine)
        return "has a new device beside it"

    async def _join(self, machine: Machine) -> None:
        if len(self.machines) < self.count:
            other = await self._new_machine()
            try:
                if machine.is_up and machine is not self.revoked:
                    return self._pair(machine, other)
            except (VdfsError, OSError):
                self.trace(f"{machine.name}: could not")
            self.machines.remove(other)
            other.kill()

    # the end ----------------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        self.trace("all is healed")
        self.network.heal()
        for machine in self.machines:
            machine.disk.is_full = False
            machine.disk.dies_in = None
            machine.skew_ns = 0
            if machine.is_up:
                machine.store.is_full = False
            else:
                machine.start()
        await trio.sleep(1)
        for machine in self.members():
            for fault in checks.told_too_early(machine, self.machines):
                self.fail(fault)
        self._pair_again()
        for machine in self.members():
            self.deeds[machine.name].finish(machine)

    def _pair_again(self) -> None:
        """Whom an old copy has not heard of is a stranger to it: somebody has to pair the two once more."""
        members = [one for one in self.members() if one.is_up]
        together = members[:1]
        while len(together) < len(members):
            left = [one for one in members if one not in together]
            near = next((one for one in left if any(one.meets(other) for other in together)), None)
            if near is None:
                near = left[0]
                self._pair(together[0], near)
            together.append(near)

    def members(self) -> list[Machine]:
        """Who is not put out, by the word of anybody who is not, or of his own: who put him out may have forgotten it
        with an old copy."""
        out = {
            bytes(uuid)
            for machine in self.machines
            if not machine.is_revoked and machine.is_up
            for (uuid,) in machine.db.execute("SELECT uuid FROM device WHERE revoked=1")
        }
        out |= {machine.uuid for machine in self.machines if machine.is_up and machine.sync.is_revoked}
        return [machine for machine in self.machines if machine.uuid not in out]

    async def end(self) -> None:
        await self._quiet()
        self.trace("days pass")
        for machine in self.machines:
            machine.skew_ns = 3 * DAY_NS
        await trio.sleep(5)
        if not await self._quiet():
            return
        members = self.members()
        for fault in checks.wrong(self.machines, members, self.promises()):
            self.fail(fault)
        for machine in members:
            for table, rows in sorted(checks.shared_of(machine).items()):
                self._digest.update(f"{machine.name} {table} {rows!r}".encode())

    async def _quiet(self) -> bool:
        """Wait until all have heard everything."""
        calm, why = 0, ""
        with trio.move_on_after(QUIET_S):
            while calm < 2:
                await trio.sleep(2)
                why = self._lacking()
                calm = 0 if why else calm + 1
        if why:
            self.fail(f"they never come to an end: {why}")
        return not why

    def _lacking(self) -> str:
        members = self.members()
        known = {}
        for machine in members:
            if not machine.is_up:
                return f"{machine.name} is down"
            known[machine.name] = machine.sync.keeper.places()
            left = recalls.left(machine.db)  # whoever died in the middle of joining is waited for, and never comes
            if left is None or left & {one.store.device_uuid for one in members if one.is_up}:
                return f"{machine.name} looks for what a stamp had the place of"
        for machine in members:
            for stream, at in known[machine.name].items():
                if at.part_to:
                    return f"{machine.name} has half a range of {stream.device.hex()[:4]}"
                if stream.kind == OWNED and self._is_over_with(stream, members):
                    continue
                if at.seq == machine.sync.keeper.start_of(stream):  # nothing was ever told in it
                    continue
                for other in members:
                    held = known[other.name].get(stream)
                    if (0 if held is None else held.seq) < at.seq and not other.sync.keeper.is_own(stream):
                        what = f"{stream.device.hex()[:4]}/{stream.epoch}/{stream.kind}"
                        return f"{other.name} has {what} up to {held and held.seq}, {machine.name} up to {at.seq}"
        return ""

    def _is_over_with(self, stream: StreamId, members: list[Machine]) -> bool:
        """Whether its device tells its rows in a later epoch."""
        return any(one.uuid == stream.device and one.store.epoch > stream.epoch for one in members)


class _errors_to(logging.Handler):  # reads as what it does
    """Whatever is logged as a failure is one, unless whoever logs it has just died."""

    def __init__(self, fail: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._fail = fail

    def __enter__(self) -> None:
        self._held = {name: logging.getLogger(name).propagate for name in ("sdmount", "sync")}
        for name in self._held:
            logging.getLogger(name).addHandler(self)
            logging.getLogger(name).propagate = False

    def __exit__(self, *error: object) -> None:
        for name, propagate in self._held.items():
            logging.getLogger(name).removeHandler(self)
            logging.getLogger(name).propagate = propagate

    def emit(self, record: logging.LogRecord) -> None:
        machine = AT.get()
        if machine is None or not (machine.disk.is_dead or machine.disk.is_full):
            text = record.getMessage()
            if record.exc_info:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            self._fail(f"logged by {machine and machine.name}: {text}")


def tell(seed: int, steps: int | None = None, without: Sequence[str] = (), only: Sequence[str] = ()) -> Outcome:
    """Run a seed to its end."""
    story = Story(seed, steps, without, only)
    try:
        run(story.chance, story.main)
    except Exception as error:
        story.fail("".join(traceback.format_exception(error)))
    finally:
        for machine in story.machines:
            machine.close()
            machine.disk.unplug()
        gc.collect()  # tasks and streams hold each other, and the stores with them
    return Outcome(seed, story.faults, story.digest, story.lines)
