"""Deeds: what a device and its people do to a library, drawn by chance. Each is one or a few units, as in the house."""

from collections.abc import Callable
from random import Random

from index.model.entry import Stat
from index.scan import meeting, recording
from index.store import entries, places, registers, saved
from tests.sim.machine import Machine
from tests.sync.world import DIRECTORY, FILE, LINK

LOCATIONS = [b"Photos", b"Files", b"Music"]
NAMES = [b"a", b"b", b"c", b"d", b"\xff\xfe", b"e" * 255]
TAGS = ["red", "green", "blue", "\u00e9t\u00e9"]
CELLS = [b"user.note", b"user.baloo.rating"]


class Deeds:
    """What one device does, by its own luck."""

    def __init__(self, luck: Random) -> None:
        self.luck = luck
        self.all: list[tuple[int, Callable[[Machine], str | None]]] = [
            (14, self.add), (6, self.move), (3, self.swap), (6, self.rewrite), (5, self.remove), (3, self.link),
            (4, self.hold), (3, self.born_held), (4, self.release),
            (12, self.tag), (8, self.untag), (8, self.note), (2, self.location),
            (2, self.branch), (2, self.search), (2, self.rename), (2, self.unknown), (1, self.many),
        ]  # fmt: skip

    def one(self, machine: Machine) -> str | None:
        """Do something; what it was, None for nothing."""
        weights, deeds = zip(*self.all, strict=True)
        deed = self.luck.choices(deeds, weights)[0]
        said = deed(machine)
        return None if said is None else f"{deed.__name__} {said}"

    # what there is

    def mine(self, machine: Machine, where: str = "1") -> list[int]:
        sql = f"SELECT id FROM entry WHERE uid>=0 AND parent_id IS NOT NULL AND {where} ORDER BY id"
        return [row[0] for row in machine.db.execute(sql)]

    def place(self, machine: Machine) -> tuple[int, bytes] | None:
        roots = [row.root_entry_id for row in machine.branches() if row.root_entry_id is not None]
        directories = self.mine(machine, "kind=1") + roots * 2
        return (self.luck.choice(directories), self.luck.choice(NAMES)) if directories else None

    def named(self, machine: Machine) -> bytes | None:
        """The uuid of some entry, whoever has it; or of one of ours, named now."""
        if self.luck.random() < 0.3 and (mine := self.mine(machine, "kind=0")):
            return machine.uuid_of(self.luck.choice(mine))
        found = machine.db.execute("SELECT DISTINCT uuid FROM entry WHERE uuid IS NOT NULL ORDER BY uuid").fetchall()
        return self.luck.choice(found)[0] if found else None

    # trees

    def add(self, machine: Machine) -> str | None:
        place = self.place(machine)
        if place is None:
            return self.branch(machine)
        parent, name = place
        if entries.child(machine.db, parent, name) is not None:
            return None
        kind = self.luck.randrange(6)
        mode = LINK if kind == 0 else DIRECTORY if kind < 3 else FILE
        data = b"to %d" % self.luck.randrange(3) if mode == LINK else b""
        if mode == FILE:
            data = b"%d" % self.luck.randrange(4) * self.luck.randrange(2)
        entry_id = machine.add(parent, name, mode, data, identified=False)
        if mode == FILE and data and self.luck.random() < 0.8:
            self.identify(machine, entry_id, data)
        return f"{entry_id} mode {mode:o} {data!r} as {name[:3]!r} in {parent}"

    def identify(self, machine: Machine, entry_id: int, data: bytes) -> None:
        machine.identify(entry_id, data)
        with machine.store.write("test") as unit:
            row = entries.get(unit.db, entry_id)
            assert row is not None
            if not row.rule:
                meeting.meet_own(unit, row)

    def many(self, machine: Machine) -> str | None:
        place = self.place(machine)
        if place is None:
            return None
        with machine.store.write("test") as unit:
            above = entries.get(unit.db, place[0])
            assert above is not None
            made = 0
            for number in range(self.luck.choice([10, 60, 300])):
                name = b"many %d" % number
                if entries.child(unit.db, place[0], name) is None:
                    machine.row(unit, above.branch_id, place[0], name, FILE)
                    made += 1
        return f"{made} in {place[0]}"

    def move(self, machine: Machine) -> str | None:
        mine, place = self.mine(machine), self.place(machine)
        if not mine or place is None:
            return None
        entry_id, (parent, name) = self.luck.choice(mine), place
        row, above = entries.get(machine.db, entry_id), entries.get(machine.db, parent)
        assert row is not None
        assert above is not None
        taken = entries.child(machine.db, parent, name) is not None
        if taken or row.branch_id != above.branch_id or entries.is_below(machine.db, parent, entry_id):
            return None
        machine.move(entry_id, parent, name)
        return f"{entry_id} to {name[:3]!r} in {parent}"

    def swap(self, machine: Machine) -> str | None:
        mine = self.mine(machine)
        if len(mine) < 2:
            return None
        one, other = self.luck.sample(mine, 2)
        a, b = entries.get(machine.db, one), entries.get(machine.db, other)
        assert a is not None
        assert b is not None
        if a.branch_id != b.branch_id or entries.is_below(machine.db, one, other):
            return None
        if entries.is_below(machine.db, other, one):
            return None
        with machine.store.write("test") as unit:
            recording.swap_names(unit, a, b)
        return f"{one} and {other}"

    def rewrite(self, machine: Machine) -> str | None:
        mine = self.mine(machine, "kind=0")
        if not mine:
            return None
        entry_id, data = self.luck.choice(mine), b"%d" % self.luck.randrange(4)
        with machine.store.write("test") as unit:
            row = entries.get(unit.db, entry_id)
            assert row is not None
            machine.ino += 1
            time_ns = machine.ino * 10**9
            recording.restat(unit, row, row.stat._replace(size_bytes=len(data), mtime_ns=time_ns, ctime_ns=time_ns))
        if self.luck.random() < 0.8:
            self.identify(machine, entry_id, data)
        return f"{entry_id} {data!r}"

    def remove(self, machine: Machine) -> str | None:
        mine = self.mine(machine)
        if not mine:
            return None
        entry_id = self.luck.choice(mine)
        machine.remove(entry_id)
        return str(entry_id)

    def link(self, machine: Machine) -> str | None:
        """A further name of a file."""
        mine, place = self.mine(machine, "kind=0 AND rule=0"), self.place(machine)
        if not mine or place is None:
            return None
        row, above = entries.get(machine.db, self.luck.choice(mine)), entries.get(machine.db, place[0])
        assert row is not None
        assert above is not None
        if row.branch_id != above.branch_id or entries.child(machine.db, *place) is not None:
            return None
        with machine.store.write("test") as unit:
            st = row.stat._replace(nlink=row.nlink + 1)
            made = recording.plain_row(
                unit, row.branch_id, place[0], place[1], st, node=row.node, uuid=row.uuid, rule=0
            )
            recording.insert(unit, made)
            entries.set_identity(unit.db, made.id, row.content_id, row.hash_state, row.uuid, unit.seq)
            if row.version is not None:
                entries.set_version(unit.db, made.id, row.version, unit.seq)
            recording.restat_twins(unit, made, st)
        return f"{made.id} is {row.id}, too"

    def hold(self, machine: Machine) -> str | None:
        """A rule holds back a file, or a directory and all that is in it."""
        mine = self.mine(machine, "rule=0")
        if not mine:
            return None
        entry_id = self.luck.choice(mine)
        self._rule(machine, entry_id, 1)
        return str(entry_id)

    def born_held(self, machine: Machine) -> str | None:
        """A file that a rule holds back from its first moment, with a tag."""
        place = self.place(machine)
        if place is None or entries.child(machine.db, *place) is not None:
            return None
        with machine.store.write("test") as unit:
            above = entries.get(unit.db, place[0])
            assert above is not None
            machine.ino += 1
            st = Stat(FILE, 0, machine.ino * 10**9, machine.ino * 10**9, machine.ino, 1, 0, 0)
            row = recording.insert(unit, recording.plain_row(unit, above.branch_id, place[0], place[1], st, rule=1))
            uuid = recording.ensure_uuid(unit, row)
        machine.never_told.add(uuid)
        machine.tag(uuid, self.luck.choice(TAGS))
        machine.note(uuid, CELLS[0], self.luck.choice([b"x", b"y", None]))
        return f"{row.id} {uuid.hex()[-4:]}"

    def release(self, machine: Machine) -> str | None:
        held = self.mine(machine, "rule<>0 AND (SELECT p.rule FROM entry p WHERE p.id=entry.parent_id)=0")
        if not held:
            return None
        entry_id = self.luck.choice(held)
        self._rule(machine, entry_id, 0)
        return str(entry_id)

    def finish(self, machine: Machine) -> None:
        """No rule holds anything, and all files were read."""
        for entry_id in self.mine(machine, "rule<>0"):
            self._rule(machine, entry_id, 0)
        for entry_id in self.mine(machine, "kind=0 AND size_bytes=1 AND hash_state<2"):
            self.identify(machine, entry_id, b"%d" % self.luck.randrange(4))

    def _rule(self, machine: Machine, entry_id: int, rule: int) -> None:
        with machine.store.write("test") as unit:
            for row in list(entries.subtree(unit.db, entry_id)):
                machine.never_told.discard(row.uuid)
                if row.rule != rule:
                    recording.set_rule(unit, row, rule)

    # what people say

    def tag(self, machine: Machine) -> str | None:
        uuid = self.named(machine)
        if uuid is None:
            return None
        names = self.luck.sample(TAGS, self.luck.randrange(1, 3))
        machine.tag(uuid, *names)
        return f"{uuid.hex()[-4:]} {names}"

    def untag(self, machine: Machine) -> str | None:
        found = machine.db.execute("SELECT DISTINCT entry_uuid FROM tagging ORDER BY entry_uuid").fetchall()
        if not found:
            return None
        uuid, name = self.luck.choice(found)[0], self.luck.choice(TAGS)
        machine.untag(uuid, name)
        return f"{uuid.hex()[-4:]} {name}"

    def note(self, machine: Machine) -> str | None:
        uuid = self.named(machine)
        if uuid is None:
            return None
        cell, value = self.luck.choice(CELLS), self.luck.choice([b"x", b"y", b"z", None])
        machine.note(uuid, cell, value)
        return f"{uuid.hex()[-4:]} {cell!r} {value!r}"

    # locations, searches, devices

    def branch(self, machine: Machine) -> str | None:
        """Another location on this device."""
        own = {row.root_path for row in machine.branches()}
        free = [name for name in LOCATIONS if b"/" + name not in own]
        if not free:
            return None
        name = self.luck.choice(free)
        return f"{name.decode()} at {machine.branch(name)}"

    def location(self, machine: Machine) -> str | None:
        found = places.locations(machine.db)
        if not found:
            return None
        row, what = self.luck.choice(found), self.luck.randrange(4)
        with machine.store.write("test") as unit:
            if what == 0:
                places.set_mode(unit, row.id, self.luck.randrange(3))
            elif what == 1:
                places.rename_location(unit, row.id, b"Renamed %d" % self.luck.randrange(5))
            elif what == 2:
                places.set_rules(unit, row.id, b"rules %d" % self.luck.randrange(5))
            elif self.luck.random() < 0.3:
                places.remove_location(unit, row.id)
        return f"{row.name!r} {what}"

    def search(self, machine: Machine) -> str | None:
        names = [b"one", b"two", b"three"]
        known = saved.every(machine.db)
        with machine.store.write("test") as unit:
            name = self.luck.choice(names)
            if not any(one.name == name for one in known):
                saved.save(unit, name, f"query {self.luck.randrange(9)}")
            elif self.luck.random() < 0.5:
                saved.set_query(unit, name, f"query {self.luck.randrange(9)}")
            elif self.luck.random() < 0.5:
                saved.remove(unit, name)
            else:
                saved.rename(unit, name, self.luck.choice(names), replace=True)
        return str(name)

    def rename(self, machine: Machine) -> str | None:
        found = machine.db.execute("SELECT uuid FROM device ORDER BY uuid").fetchall()
        name = f"device {self.luck.randrange(4)}"
        machine.sync.rename(self.luck.choice(found)[0], name)
        return name

    def unknown(self, machine: Machine) -> str | None:
        """What a program of tomorrow says."""
        with machine.store.write("test") as unit:
            key, value = bytes([self.luck.randrange(3)]) * 16, self.luck.randrange(9)
            registers.put(unit, "hologram", key, "depth", value)
            found = unit.db.execute("SELECT uuid FROM location ORDER BY uuid LIMIT 1").fetchone()
            if found is not None:
                registers.put(unit, places.LOCATION, bytes(found[0]), "scent", value)
            unit.tell("hologram", "spin", [key], {"speed": value})
        return str(value)
