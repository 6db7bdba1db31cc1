"""What lies below each directory: table sums against a model that adds up, whatever units did and how they ended."""

import shutil
import stat
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from index.model.entry import Stat
from index.scan import apply, recording
from index.store import devices, entries, places, sums
from index.store.store import Store

DEVICE = b"d" * 16
BRANCH = b"b" * 16
DIR = Stat(stat.S_IFDIR | 0o755, 4096, 1, 1, 1, 1, 0, 0)
FILE = Stat(stat.S_IFREG | 0o644, 0, 1, 1, 1, 1, 0, 0)
LINK = Stat(stat.S_IFLNK | 0o777, 7, 1, 1, 1, 1, 0, 0)


class Stop(Exception):
    """What ends a unit in its middle."""


class SumsMachine(RuleBasedStateMachine):
    """A tree under random units: some of many steps, some that fail, some whose process is killed after them."""

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.old: list[Store] = []
        self.rooms = 0
        self.made = 0
        self.store = Store(Path(self.place.name) / "library.db", DEVICE)
        with self.store.write("test") as unit:
            devices.put(unit.db, DEVICE, "device", b"k" * 32, 1)
            self.branch = places.put_branch(unit.db, BRANCH, None, DEVICE, "store", b"/somewhere", "fs", 1)
            root = recording.plain_row(unit, self.branch, 0, b"", DIR)._replace(parent_id=None)
            entries.insert(unit.db, root)
        self.root = root.id

    def teardown(self) -> None:
        for store in (*self.old, self.store):
            store.close()
        self.place.cleanup()

    @rule(steps=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12),
          fails=st.booleans(), large=st.booleans())  # fmt: skip
    def unit(self, steps, fails, large) -> None:
        """Several changes in one transaction, each at random places; a few units are so large that they settle."""
        try:
            with self.store.write("test") as unit:
                for what, one, other in steps:
                    self.step(unit, what, one, other)
                if large:
                    unit.settle()
                if fails:
                    raise Stop
        except Stop:
            pass

    def step(self, unit, what: int, one: int, other: int) -> None:
        rows = [entries.get(unit.db, i) for (i,) in unit.db.execute("SELECT id FROM entry ORDER BY id").fetchall()]
        dirs = [row for row in rows if row.kind == 1]
        place = dirs[one % len(dirs)]
        self.made += 1
        name = b"n%d" % self.made
        if what == 0:
            entries.insert(unit.db, recording.plain_row(unit, self.branch, place.id, name, DIR))
        elif what == 1:
            kinds = (FILE._replace(size_bytes=other), LINK, DIR)
            many = [
                recording.plain_row(unit, self.branch, place.id, name + b"-%d" % i, st) for i, st in enumerate(kinds)
            ]
            entries.insert_many(unit.db, many)
        elif what == 2:
            row = rows[other % len(rows)]
            entries.set_stat(unit.db, row.id, row.stat._replace(size_bytes=one * 7), unit.seq)
        elif what in (3, 4):
            row = rows[other % len(rows)]
            if row.parent_id is not None and not entries.is_below(unit.db, place.id, row.id):
                entries.move(unit.db, row.id, place.id, name, unit.seq)
        elif what == 5:
            row = rows[other % len(rows)]
            if row.parent_id is not None:
                apply.remove(unit, row, BRANCH)
        else:  # the same id comes again, as a file does that was gone for a moment
            row = rows[other % len(rows)]
            if row.parent_id is not None and row.kind == 1 and not entries.some_children(unit.db, row.id, 1):
                apply.remove(unit, row, BRANCH)
                if not entries.is_below(unit.db, place.id, row.id) and place.id != row.id:
                    entries.insert(unit.db, row._replace(parent_id=place.id, name=name))

    @rule()
    def settle(self) -> None:
        self.store.settle()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = Store(self.store.path, DEVICE)

    @rule()
    def killed(self) -> None:
        """What units had left to carry up went with the process."""
        self.rooms += 1
        room = Path(self.place.name) / str(self.rooms)
        room.mkdir()
        for file in self.store.path.parent.glob("library.db*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, room)
        self.old.append(self.store)
        self.store = Store(room / "library.db", DEVICE)

    @precondition(lambda self: self.store.is_settled)
    @rule()
    def rebuilding_finds_nothing_wrong(self) -> None:
        with self.store.write("test") as unit:
            assert sums.rebuild(unit.db) == 0

    @invariant()
    def each_directory_holds_what_its_rows_add_up_to(self) -> None:
        for row in [row for row in entries.subtree(self.store.db, self.root) if row.kind == 1]:
            below = [one for one in entries.subtree(self.store.db, row.id) if one.id != row.id]
            files = [one for one in below if one.kind == 0]
            model = (sum(one.size_bytes for one in files), len(files), sum(one.kind == 1 for one in below))
            assert self.store.sums_below([row.id]) == model

    @invariant()
    def all_of_the_library_is_what_its_rows_add_up_to(self) -> None:
        self.store.settle()
        rows = list(entries.subtree(self.store.db, self.root))
        files = [row.size_bytes for row in rows if row.kind == 0]
        assert sums.total(self.store.db) == (len(files), sum(row.kind == 1 for row in rows), sum(files))


TestSums = SumsMachine.TestCase
TestSums.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


class LeftOpen(SumsMachine):
    """The same, asked only now and then: what many units leave adds up over all of them."""

    @invariant()
    def each_directory_holds_what_its_rows_add_up_to(self) -> None:
        if self.made % 5 == 0:
            super().each_directory_holds_what_its_rows_add_up_to()


TestLeftOpen = LeftOpen.TestCase
TestLeftOpen.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
