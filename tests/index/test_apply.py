"""What becomes of a row when the disk says something else: who is who after moves, links, exchanges and saves.

A small disk of numbers instead of files, a real store. `look` does what the watcher does: the names that the index does
not know first, then those that changed, then those that are gone.
"""

import itertools
import stat

import pytest
from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from index.model import change, versions
from index.model.entry import HASH_FULL, HASH_NONE, KIND_DIR, Entry, Stat
from index.scan import apply, kinship, pipeline, recording
from index.store import changes, contents, devices, entries, limbo, metadata, places, tidy
from index.store.store import Store

DEVICE = b"d" * 16
BRANCH = b"b" * 16
FILE, DIR, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
NOTE = b"user.note"

#: Tables and their aliases that have a row for each file, and statements whose plans were looked at.
GROWING = {"entry", "e", "r", "l", "attribute", "tagging", "mirror", "mirror_state", "outbox"}
#: An index used so goes through all that a branch has.
BRANCH_ALONE = "entry_ino (branch_id=?)"
checked: set[str] = set()


@define(eq=False)
class Inode:
    """A file or directory of the disk; `names` are those of a directory."""

    st_ino: int
    mode: int
    size_bytes: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    born_ns: int = 0
    nlink: int = 1
    carries: bool = False  # has attributes of its own
    names: dict[bytes, "Inode"] = field(factory=dict)

    @property
    def stat(self) -> Stat:
        return Stat(self.mode, self.size_bytes, self.mtime_ns, self.ctime_ns, self.st_ino, self.nlink, 0, 0)


class World:
    """A disk, a branch of it in a store, and the `Disk` that apply asks."""

    def __init__(self, path) -> None:
        self.store = Store(path / "library.db", DEVICE)
        self.asked: dict[str, object] = {}
        self.store.db.exec_trace = lambda _cursor, sql, bindings: self.asked.setdefault(sql, bindings) is not self
        self._clock = itertools.count(10**18, 10**9)
        self._free = list(range(200, 100, -1))  # the number given back last is given out first
        self.root = Inode(100, DIR)
        self.held: set[tuple[int, int]] = set()  # (number in the mount, inode)
        self.tells_birth = False  # whether the file system remembers when an inode was made
        self.hangs: list[tuple[int, bytes]] = []  # what `moved` was told
        with self.store.write("test") as unit:
            devices.put(unit.db, DEVICE, "device", b"k" * 32, 1)
            self.branch = places.put_branch(unit.db, BRANCH, None, DEVICE, "store", b"/somewhere", "fs", 100)
            root = recording.plain_row(unit, self.branch, 0, b"", self.root.stat)._replace(parent_id=None)
            entries.insert(unit.db, root)
        self.root_id = root.id

    def close(self) -> None:
        """Nothing that was asked goes through all of a table that grows with the library."""
        self.store.db.exec_trace = None
        for sql, bindings in self.asked.items():
            tidies = "NOT EXISTS" in sql  # housekeeping, a page at a time
            if sql.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "INSERT")) and not tidies and sql not in checked:
                plan = [row[3] for row in self.store.db.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
                slow = [step for step in plan if step.startswith("SCAN ") and step.split()[1] in GROWING]
                slow += [step for step in plan if step.endswith(BRANCH_ALONE)]
                assert not slow, (sql, plan)
                checked.add(sql)
        self.store.close()

    # the disk

    def make(self, name: bytes, mode: int = FILE, above: Inode | None = None, **more) -> Inode:
        inode = Inode(self._free.pop(), mode, **more)
        self.touch(inode)
        inode.born_ns = inode.ctime_ns
        self._above(above).names[name] = inode
        return inode

    def write(self, inode: Inode) -> None:
        inode.size_bytes += 1
        self.touch(inode)

    def link(self, inode: Inode, name: bytes, above: Inode | None = None) -> None:
        self._above(above).names[name] = inode
        inode.nlink += 1

    def unlink(self, name: bytes, above: Inode | None = None) -> None:
        inode = self._above(above).names.pop(name)
        inode.nlink -= 1
        if not inode.nlink:
            self._free.append(inode.st_ino)

    def rename(self, old: bytes, new: bytes, above: Inode | None = None, below: Inode | None = None) -> None:
        source, target = self._above(above), self._above(below)
        if target.names.get(new) is source.names[old]:
            return  # rename(2) does nothing for two names of one file
        if new in target.names:
            self.unlink(new, target)
        target.names[new] = source.names.pop(old)

    def exchange(self, one: bytes, other: bytes, above: Inode | None = None, below: Inode | None = None) -> None:
        a, b = self._above(above).names, self._above(below).names
        a[one], b[other] = b[other], a[one]

    def _above(self, directory: Inode | None) -> Inode:
        return self.root if directory is None else directory

    def touch(self, inode: Inode) -> None:
        inode.mtime_ns = inode.ctime_ns = next(self._clock)

    def directories(self) -> list[Inode]:
        found = [self.root]
        for directory in found:
            found += [inode for inode in directory.names.values() if stat.S_ISDIR(inode.mode)]
        return found

    # kinship.Disk

    def stat_at(self, row: Entry) -> Stat | None:
        above = entries.get(self.store.db, row.parent_id)
        for directory in self.directories():
            if above is not None and directory.st_ino == above.st_ino:
                inode = directory.names.get(row.name)
                return None if inode is None else inode.stat
        return None

    def is_held(self, branch_id: int, entry_id: int | None, node: int, st_ino: int) -> bool:
        return (node, st_ino) in self.held

    def own_attributes(self, parent_id: int, name: bytes) -> dict[bytes, bytes]:
        above = entries.get(self.store.db, parent_id)
        carries = any(d.names[name].carries for d in self.directories() if d.st_ino == above.st_ino)
        return {b"user.own": b"value", b"user.more": b"x"} if carries else {}

    def was_written(self, parent_id: int, name: bytes) -> bool | None:
        return False

    def born_ns(self, parent_id: int, name: bytes) -> int | None:
        above = entries.get(self.store.db, parent_id)
        found = [d.names[name].born_ns for d in self.directories() if d.st_ino == above.st_ino]
        return found[0] if self.tells_birth and found else None

    def inode_in(self, parent_id: int, name: bytes, child: bytes) -> int | None:
        above = entries.get(self.store.db, parent_id)
        for directory in self.directories():
            if directory.st_ino == above.st_ino and child in directory.names[name].names:
                return directory.names[name].names[child].st_ino
        return None

    def dir_mtime(self, entry_id: int) -> int | None:
        return None

    def moved(self, row: Entry) -> None:
        self.hangs.append((row.id, row.name))

    # the index

    def row(self, name: bytes, parent_id: int | None = None) -> Entry | None:
        return entries.child(self.store.db, self.root_id if parent_id is None else parent_id, name)

    def look_at(self, name: bytes, directory: Inode | None = None, parent_id: int | None = None) -> None:
        """What a lookup of one name does."""
        parent_id = self.root_id if parent_id is None else parent_id
        inode = self._above(directory).names.get(name)
        with self.store.write("test") as unit:
            row = entries.child(unit.db, parent_id, name)
            if inode is None:
                if row is not None:
                    apply.remove(unit, row, BRANCH)
            elif row is None or row.stat != inode.stat:
                place = kinship.Place(self.branch, parent_id, name)
                apply.take_in(unit, place, row, inode.stat, BRANCH, self)

    def look(self) -> None:
        """Look at everything until index and disk agree."""
        for _ in range(8):
            differing = self._differing()
            if not differing:
                return
            for directory, parent_id, name in differing:
                if entries.get(self.store.db, parent_id) is not None:
                    self.look_at(name, directory, parent_id)
        raise AssertionError(f"index and disk do not come together: {self._differing()}")

    def _differing(self) -> list[tuple[Inode, int, bytes]]:
        unknown, changed, gone = [], [], []
        todo = [(self.root, self.root_id)]
        for directory, parent_id in todo:
            rows = {row.name: row for row in entries.children(self.store.db, parent_id)}
            for name, inode in sorted(directory.names.items()):
                row = rows.pop(name, None)
                if row is None:
                    unknown.append((directory, parent_id, name))
                elif row.stat != inode.stat:
                    changed.append((directory, parent_id, name))
                elif stat.S_ISDIR(inode.mode):
                    todo.append((inode, row.id))
            gone += [(directory, parent_id, name) for name in rows]
        return unknown + changed + gone

    def hangs_below_root(self, entry_id: int) -> bool:
        seen: set[int] = set()
        while entry_id not in seen:
            seen.add(entry_id)
            row = entries.get(self.store.db, entry_id)
            if row is None or row.parent_id is None:
                return row is not None
            entry_id = row.parent_id
        return False

    def annotate(self, row: Entry, value: bytes) -> None:
        with self.store.write("test") as unit:
            uuid = recording.ensure_uuid(unit, entries.get(unit.db, row.id))
            metadata.put(unit.db, uuid, NOTE, value, unit.hlc, unit.device)

    def note(self, name: bytes) -> bytes | None:
        row = self.row(name)
        return None if row.uuid is None else metadata.get(self.store.db, row.uuid, NOTE)

    def commits(self) -> list[tuple[str, bytes]]:
        """Listen to the feed from now on; returns a list that is filled by `heard`."""
        self._channel = self.store.feed.subscribe()
        return []

    def heard(self) -> list[tuple[str, bytes, int]]:
        out = []
        while self._channel.statistics().current_buffer_used:
            commit = self._channel.receive_nowait()
            out += [(one.what, one.name, one.node) for one in commit.changes]
        return out


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def who(row: Entry) -> tuple[int, int, bytes | None]:
    return row.id, row.node, row.uuid


# -- moves -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [FILE, DIR, LINK])
def test_a_moved_name_keeps_id_number_and_uuid(world, mode):
    """Whatever kind it is; and who holds its directory is told."""
    world.make(b"a", mode)
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = who(world.row(b"a"))
    world.rename(b"a", b"z")
    world.look()
    assert world.row(b"a") is None
    assert who(world.row(b"z")) == before
    assert world.note(b"z") == b"x"
    assert world.hangs == [(before[0], b"z")]


def test_a_move_into_another_directory_takes_the_tree_along(world):
    """The rows below a directory are not touched."""
    tree, target = world.make(b"tree", DIR), world.make(b"target", DIR)
    world.make(b"leaf", FILE, tree)
    world.look()
    leaf = world.row(b"leaf", world.row(b"tree").id)
    world.rename(b"tree", b"moved", None, target)
    world.look()
    moved = world.row(b"moved", world.row(b"target").id)
    assert world.row(b"leaf", moved.id) == leaf


def test_a_file_that_was_written_and_moved_is_another_unless_it_is_held_here(world):
    """Its inode's number may have been given to a new file; what is open cannot have lost its number."""
    for name, is_held in ((b"closed", False), (b"open", True)):
        inode = world.make(name)
        world.look()
        before = world.row(name)
        if is_held:
            world.held.add((before.node, inode.st_ino))
        world.write(inode)
        world.rename(name, name + b"2")
        world.look()
        after = world.row(name + b"2")
        assert (after.node == before.node) == is_held


@pytest.mark.parametrize("kind", [FILE, DIR])
@pytest.mark.parametrize("glance", [False, True], ids=["move", "limbo"])
@pytest.mark.parametrize("new", [False, True], ids=["the same", "a new one"])
def test_an_inode_that_is_older_than_its_row_is_that_of_the_row(world, kind, glance, new):
    """Whatever became of it meanwhile; a new one with its number is younger."""
    world.tells_birth = True
    inode = world.make(b"a", kind)
    world.touch(inode)
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = world.row(b"a")
    if new:
        world.unlink(b"a")
        assert world.make(b"b", kind).st_ino == before.st_ino
    else:
        world.write(inode)
        world.rename(b"a", b"b")
    if glance:
        world.look_at(b"a")
    world.look()
    assert (world.row(b"b").node == before.node, world.note(b"b")) == ((False, None) if new else (True, b"x"))


def test_a_file_with_a_note_that_is_written_anew_and_renamed_over_another_brings_its_note(world):
    """> tmp; mv tmp a, where tmp was there before: nothing on the real file says what the library has of it."""
    world.tells_birth = True
    for name in (b"a", b"tmp"):
        world.touch(world.make(name))
    world.look()
    for name in (b"a", b"tmp"):
        world.annotate(world.row(name), name)
    world.write(world.root.names[b"tmp"])
    world.rename(b"tmp", b"a")
    world.look()
    assert world.note(b"a") == b"tmp"


@pytest.mark.parametrize("known_by", ["its inode", "what is in it", "nothing"])
def test_a_directory_that_changed_and_moved_is_told_by_what_is_known_of_it(world, known_by):
    """It is watched, or something in it is still there; else its number may be that of a new directory."""
    tree = world.make(b"tree", DIR)
    world.make(b"leaf", FILE, tree)
    world.look()
    before = world.row(b"tree")
    world.touch(tree)
    if known_by == "its inode":
        world.held.add((before.node, tree.st_ino))
    if known_by != "what is in it":
        world.unlink(b"leaf", tree)
    world.make(b"new", FILE, tree)
    world.rename(b"tree", b"moved")
    world.look()
    assert (world.row(b"moved").node == before.node) == (known_by != "nothing")


def test_what_was_written_while_it_moved_is_a_new_version(world):
    """Its hash is of the old bytes."""
    inode = world.make(b"a")
    world.look()
    row = world.row(b"a")
    with world.store.write("test") as unit:
        (content,) = contents.exact(unit.db, [contents.Read(b"s" * 8, b"f" * 32, 0, None)])
        entries.set_identity(unit.db, row.id, content, HASH_FULL, b"u" * 16, unit.seq)
    world.held.add((row.node, inode.st_ino))
    world.write(inode)
    world.rename(b"a", b"b")
    world.look()
    moved = world.row(b"b")
    assert (moved.id, moved.hash_state, moved.content_id) == (row.id, HASH_NONE, None)
    assert versions.dominates(recording.vector_of(moved, BRANCH), recording.vector_of(row, BRANCH))


def test_a_number_that_was_given_to_a_new_file_makes_no_move(world):
    """Removed and made between two looks, with one inode number."""
    old = world.make(b"a")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = world.row(b"a")
    world.unlink(b"a")
    new = world.make(b"b")
    assert new.st_ino == old.st_ino
    world.look()
    assert world.row(b"b").node != before.node
    assert world.note(b"b") is None


def test_a_name_that_is_put_aside_and_taken_by_another_known_file(world):
    """mv a b; mv c a: three names, and each file is still itself."""
    world.make(b"a")
    world.make(b"c")
    world.look()
    a, c = world.row(b"a"), world.row(b"c")
    world.rename(b"a", b"b")
    world.rename(b"c", b"a")
    world.look()
    assert [world.row(b"b").node, world.row(b"a").node] == [a.node, c.node]


def test_a_directory_seen_in_its_own_child_makes_no_circle(world):
    """mv outer/inner . ; mv outer inner/outer, and the inner one is looked into first."""
    outer = world.make(b"outer", DIR)
    inner = world.make(b"inner", DIR, outer)
    world.look()
    inner_id = world.row(b"inner", world.row(b"outer").id).id
    world.rename(b"inner", b"inner", outer)
    world.rename(b"outer", b"outer", None, inner)
    world.look_at(b"outer", inner, inner_id)
    assert world.hangs_below_root(inner_id)
    world.look()
    assert world.row(b"outer", world.row(b"inner").id) is not None
    assert world.row(b"outer") is None


def test_names_of_one_file_that_are_told_together_are_written_once(world):
    """While they are made, each is seen with one link more: all of them have what was seen last."""
    state = pipeline.WalkState(world.branch, BRANCH, world, first=False)
    written = {}
    for count in (50, 100):
        inode = world.make(b"first of %d" % count)
        added = []
        for number in range(count):
            world.link(inode, b"%d of %d" % (number, count))
            inode.ctime_ns += 1
            added.append((b"%d of %d" % (number, count), inode.stat, 0, None))
        before = world.store.db.total_changes()
        with world.store.write("walk") as unit:
            pipeline.take_report(unit, state, [world.root_id, None, 0, added, [], [], [], [], None])
        written[count] = world.store.db.total_changes() - before
        world.look()
        rows = [world.row(name) for name, *_ in added]
        assert {row.stat for row in rows} == {inode.stat}
        assert len({(row.node, row.uuid) for row in rows}) == 1
    assert written[100] < 2.5 * written[50]


def test_a_file_that_got_the_number_of_a_linked_one_is_seen_as_it_is(world):
    """While the directory was listed the names of the one went, and the other was made."""
    state = pipeline.WalkState(world.branch, BRANCH, world, first=False)
    new = world.make(b"new", size_bytes=777)
    gone = Inode(new.st_ino, FILE, size_bytes=10, mtime_ns=1, ctime_ns=1, nlink=2)
    added = [(b"gone", gone.stat, 0, None), (b"new", new.stat, 0, None)]
    with world.store.write("walk") as unit:
        pipeline.take_report(unit, state, [world.root_id, None, 0, added, [], [], [], [], None])
    assert world.row(b"new").stat == new.stat


# -- hard links --------------------------------------------------------------------------------------------------------


def test_hard_linked_names_share_number_uuid_and_attributes(world):
    """Also the name that comes later, and the identity that comes last."""
    inode = world.make(b"a")
    world.look()
    world.link(inode, b"b")
    world.look()
    world.annotate(world.row(b"b"), b"x")
    a, b = world.row(b"a"), world.row(b"b")
    assert (a.node, a.uuid) == (b.node, b.uuid)
    assert a.id != b.id
    assert world.note(b"a") == b"x"


def test_a_new_link_is_told_of_the_name_that_was_there(world):
    """Its link count changed, and nothing else says so."""
    inode = world.make(b"a")
    world.look()
    world.commits()
    world.link(inode, b"b")
    world.look_at(b"b")
    assert (change.ATTRS, b"a", world.row(b"a").node) in world.heard()
    assert [world.row(name).nlink for name in (b"a", b"b")] == [2, 2]


def test_one_name_less_leaves_the_other_with_everything(world):
    """And with the link count that is left."""
    inode = world.make(b"a")
    world.link(inode, b"b")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = world.row(b"b")
    world.unlink(b"a")
    world.look_at(b"a")
    assert who(world.row(b"b")) == (before.id, before.node, before.uuid)
    assert world.row(b"b").nlink == 1
    assert world.note(b"b") == b"x"


def test_a_link_over_a_file_is_another_name_of_the_linked_one(world):
    """ln -f a b: b is a now, not a new version of b."""
    a = world.make(b"a")
    world.make(b"b")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    world.annotate(world.row(b"b"), b"b's")
    world.unlink(b"b")
    world.link(a, b"b")
    world.look()
    assert world.row(b"b").node == world.row(b"a").node
    assert world.note(b"b") == b"a's"


def test_both_names_moved_at_once_are_still_one_file(world):
    """However they are found."""
    inode = world.make(b"a")
    world.link(inode, b"b")
    world.look()
    node = world.row(b"a").node
    world.rename(b"a", b"x")
    world.rename(b"b", b"y")
    world.look()
    assert [world.row(b"x").node, world.row(b"y").node] == [node, node]


# -- another file under a name -----------------------------------------------------------------------------------------


def test_a_save_over_a_file_keeps_row_and_uuid_and_gets_a_number_of_its_own(world):
    """The editor's way: a new file renamed over the old one, between two looks."""
    world.make(b"a")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = world.row(b"a")
    world.make(b"tmp")
    world.rename(b"tmp", b"a")
    world.look()
    after = world.row(b"a")
    assert (after.id, after.uuid) == (before.id, before.uuid)
    assert after.node != before.node
    assert world.note(b"a") == b"x"
    assert versions.dominates(recording.vector_of(after, BRANCH), recording.vector_of(before, BRANCH))


def test_a_known_file_renamed_over_another_keeps_its_number_and_takes_the_uuid(world):
    """The kernel has its inode; the version has seen both."""
    world.make(b"a")
    world.make(b"tmp")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    a, tmp = world.row(b"a"), world.row(b"tmp")
    world.rename(b"tmp", b"a")
    world.look()
    after = world.row(b"a")
    assert (after.id, after.node, after.uuid) == (tmp.id, tmp.node, a.uuid)
    assert world.note(b"a") == b"x"
    for old in (a, tmp):
        assert versions.dominates(recording.vector_of(after, BRANCH), recording.vector_of(old, BRANCH))


def test_it_is_the_same_when_the_name_that_is_gone_was_looked_at_first(world):
    """Then the source waits in limbo."""
    world.make(b"a")
    world.make(b"tmp")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    a, tmp = world.row(b"a"), world.row(b"tmp")
    world.rename(b"tmp", b"a")
    world.look_at(b"tmp")
    world.look_at(b"a")
    assert who(world.row(b"a")) == (tmp.id, tmp.node, a.uuid)


@pytest.mark.parametrize("known", [False, True])
def test_a_file_with_attributes_of_its_own_takes_over_nothing(world, known):
    """Whether the index has them yet or only the disk."""
    world.make(b"a")
    tmp = world.make(b"tmp")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    if known:
        world.annotate(world.row(b"tmp"), b"tmp's")
    tmp.carries = not known
    world.rename(b"tmp", b"a")
    world.look()
    assert world.note(b"a") == (b"tmp's" if known else None)


def test_an_unknown_file_with_attributes_takes_over_nothing(world):
    """Made, annotated and renamed between two looks."""
    world.make(b"a")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    world.make(b"tmp", carries=True)
    world.rename(b"tmp", b"a")
    world.look()
    assert world.note(b"a") is None


@pytest.mark.parametrize("seen", [{b"user.own": b"value"}, {b"user.own": b"another"}, {b"user.gone": b"x"}])
def test_a_save_that_copied_the_attributes_takes_over_the_rest(world, seen):
    """What the old file was seen to carry is all there: what only the library has stays. Else it is another file."""
    world.make(b"a")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    old = world.row(b"a")
    with world.store.write("test") as unit:
        for name, value in seen.items():
            metadata.mirror_put(unit.db, old, name, value)
    world.make(b"tmp", carries=True)
    world.rename(b"tmp", b"a")
    world.look()
    copied = seen == {b"user.own": b"value"}
    assert world.note(b"a") == (b"a's" if copied else None)
    assert (world.row(b"a").uuid == old.uuid) == copied


def test_a_file_with_other_names_takes_over_nothing(world):
    """It would be two files in one."""
    world.make(b"a")
    inode = world.make(b"b")
    world.link(inode, b"c")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    world.rename(b"b", b"a")
    world.look()
    assert world.row(b"a").node == world.row(b"c").node
    assert world.note(b"a") is None


def test_a_file_with_another_name_that_nobody_saw_yet_takes_over_nothing(world):
    """The link count says that there is one."""
    world.make(b"a")
    inode = world.make(b"b")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    world.link(inode, b"c")
    world.rename(b"b", b"a")
    world.look_at(b"a")
    assert world.note(b"a") is None


def test_the_other_names_of_a_replaced_file_keep_what_it_had(world):
    """A save over one of two names parts them; both have the attributes."""
    inode = world.make(b"a")
    world.link(inode, b"b")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    world.make(b"tmp")
    world.rename(b"tmp", b"a")
    world.look()
    a, b = world.row(b"a"), world.row(b"b")
    assert a.node != b.node
    assert a.uuid != b.uuid
    assert world.note(b"a") == world.note(b"b") == b"x"
    world.annotate(a, b"y")
    assert world.note(b"b") == b"x"


def test_a_replaced_file_that_turns_up_elsewhere_has_its_number(world):
    """The kernel may have it open; its uuid stays with the name."""
    old = world.make(b"a")
    world.look()
    before = world.row(b"a")
    world.rename(b"a", b"z")
    world.make(b"a")
    world.look_at(b"a")
    world.look_at(b"z")
    assert world.row(b"z").node == before.node
    assert world.row(b"z").st_ino == old.st_ino
    assert world.row(b"a").id == before.id


def test_a_file_that_a_known_one_was_renamed_over_keeps_its_number_and_gives_its_uuid(world):
    """mv a z; mv b a, and a is looked at first: what was a is found at z, and is not the same as a."""
    world.make(b"a")
    world.make(b"b")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = world.row(b"a")
    world.rename(b"a", b"z")
    world.rename(b"b", b"a")
    world.look_at(b"a")
    world.look()
    assert world.row(b"z").node == before.node
    assert world.row(b"z").uuid != world.row(b"a").uuid == before.uuid


def test_another_kind_under_a_name_is_another_entry(world):
    """A file became a directory; nothing of the file goes on."""
    world.make(b"a")
    world.look()
    world.annotate(world.row(b"a"), b"x")
    before = who(world.row(b"a"))
    world.unlink(b"a")
    world.make(b"a", DIR)
    world.look()
    assert not set(who(world.row(b"a"))) & set(before)
    assert world.note(b"a") is None


def test_a_directory_replaced_in_place_is_listed_anew(world):
    """What the index has below it belongs to the other one."""
    world.make(b"a", DIR)
    world.look()
    row = world.row(b"a")
    with world.store.write("test") as unit:
        entries.set_scanned(unit.db, row.id, 1, 1)
    world.make(b"new", DIR)
    world.rename(b"new", b"a")
    world.look()
    assert world.row(b"a").scanned_ns is None
    assert world.row(b"a").node != row.node


# -- exchanges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [(FILE, FILE), (DIR, DIR), (FILE, DIR), (LINK, FILE)])
def test_exchanged_names_exchange_their_rows(world, modes):
    """Also where one is a file and the other a directory."""
    world.make(b"a", modes[0])
    world.make(b"b", modes[1])
    world.look()
    world.annotate(world.row(b"a"), b"x")
    a, b = who(world.row(b"a")), who(world.row(b"b"))
    world.exchange(b"a", b"b")
    world.look()
    assert (who(world.row(b"b")), who(world.row(b"a"))) == (a, b)
    assert set(world.hangs) == {(a[0], b"b"), (b[0], b"a")}


def test_inode_numbers_that_changed_places_by_chance_are_no_exchange(world):
    """rm a b, then new files that got each other's numbers: the names keep their uuids, like after two saves."""
    world.make(b"a")
    world.make(b"b")
    world.look()
    world.annotate(world.row(b"a"), b"a's")
    before = world.row(b"a"), world.row(b"b")
    world.unlink(b"b")
    world.unlink(b"a")
    world.make(b"b")
    world.make(b"a")
    assert [world.root.names[n].st_ino for n in (b"b", b"a")] == [before[0].st_ino, before[1].st_ino]
    world.look()
    assert world.note(b"a") == b"a's"
    assert {world.row(b"a").node, world.row(b"b").node}.isdisjoint({row.node for row in before})


# -- limbo -------------------------------------------------------------------------------------------------------------


def test_what_leaves_before_it_arrives_comes_back_whole(world):
    """Id, number, uuid, hash: nobody notices that it was away. Its version is a later one, under another name."""
    world.make(b"a")
    world.look()
    row = world.row(b"a")
    with world.store.write("test") as unit:
        (content,) = contents.exact(unit.db, [contents.Read(b"s" * 8, b"f" * 32, 0, None)])
        entries.set_identity(unit.db, row.id, content, HASH_FULL, b"u" * 16, unit.seq)
        entries.set_version(unit.db, row.id, versions.pack({BRANCH: 7}), unit.seq)
    before = world.row(b"a")
    world.rename(b"a", b"z")
    world.look_at(b"a")
    assert world.row(b"a") is None
    world.look_at(b"z")
    after = world.row(b"z")
    assert after == before._replace(name=b"z", seq=after.seq, version=after.version)
    assert versions.unpack(after.version)[BRANCH] > 7
    assert world.hangs == [(before.id, b"z")]


def test_a_file_that_is_held_comes_back_though_it_was_written_to(world):
    """The row says what it was before; its inode alone tells it."""
    inode = world.make(b"a")
    world.look()
    before = world.row(b"a")
    world.held.add((before.node, inode.st_ino))
    world.write(inode)
    world.rename(b"a", b"z")
    world.look_at(b"a")
    world.look_at(b"z")
    after = world.row(b"z")
    assert (after.id, after.node) == (before.id, before.node)
    assert versions.dominates(recording.vector_of(after, BRANCH), recording.vector_of(before, BRANCH))


def test_a_new_file_with_an_old_number_is_not_what_waits(world):
    """And what waited is given up: the number is another's now."""
    old = world.make(b"a")
    world.look()
    node = world.row(b"a").node
    world.unlink(b"a")
    world.look_at(b"a")
    new = world.make(b"b")
    assert new.st_ino == old.st_ino
    world.look()
    assert world.row(b"b").node != node
    assert limbo.take(world.store.db, world.branch, old.stat, lambda _: True) is None


def test_what_we_removed_ourselves_does_not_wait(world):
    """`keep=False`: the number may be anybody's."""
    old = world.make(b"a")
    world.look()
    with world.store.write("test") as unit:
        apply.remove(unit, world.row(b"a"), BRANCH, keep=False)
    assert limbo.take(world.store.db, world.branch, old.stat, lambda _: True) is None


def test_a_tree_that_is_gone_takes_all_rows_with_it(world):
    """And each of them can come back on its own."""
    tree = world.make(b"tree", DIR)
    leaf = world.make(b"leaf", FILE, tree)
    world.look()
    tree_id = world.row(b"tree").id
    before = world.row(b"leaf", tree_id)
    world.rename(b"leaf", b"saved", tree)
    world.root.names.pop(b"tree")
    world.look_at(b"tree")
    assert entries.children(world.store.db, tree_id) == []
    world.look()
    assert (world.row(b"saved").id, world.row(b"saved").st_ino) == (before.id, leaf.st_ino)


def test_limbo_is_left_after_a_day(world):
    """With what was seen of the real attributes."""
    inode = world.make(b"a")
    world.look()
    row = world.row(b"a")
    with world.store.write("test") as unit:
        metadata.mirror_put(unit.db, row, NOTE, b"x")
        limbo.put(unit.db, row, 0)
        entries.delete(unit.db, row.id)
        tidy.drop(unit.db, tidy.find(unit.db, limbo.KEEP_NS), limbo.KEEP_NS)
        assert metadata.mirror_seen(unit.db, row) == {NOTE: b"x"}
        for _ in range(2):
            tidy.drop(unit.db, tidy.find(unit.db, limbo.KEEP_NS + 1), limbo.KEEP_NS + 1)
        assert metadata.mirror_seen(unit.db, row) == {}
    assert limbo.take(world.store.db, world.branch, inode.stat, lambda _: True) is None


def test_a_content_is_kept_for_what_waits_in_limbo(world):
    """Its number would be another's, and with it the file's hash when it comes back."""
    world.make(b"a")
    world.look()
    row = world.row(b"a")
    with world.store.write("test") as unit:
        (content,) = contents.exact(unit.db, [contents.Read(b"s" * 32, b"f" * 32, 1, None)])
        entries.set_identity(unit.db, row.id, content, 2, None, unit.seq)
        limbo.put(unit.db, entries.get(unit.db, row.id), 0)
        entries.delete(unit.db, row.id)
        assert tidy.find(unit.db, limbo.KEEP_NS).contents == []
        tidy.drop(unit.db, tidy.Strays([], [content], [], []), limbo.KEEP_NS)
        assert contents.get(unit.db, content) is not None
        tidy.drop(unit.db, tidy.find(unit.db, limbo.KEEP_NS + 1), limbo.KEEP_NS + 1)
        tidy.drop(unit.db, tidy.find(unit.db, limbo.KEEP_NS + 1), limbo.KEEP_NS + 1)
        assert contents.get(unit.db, content) is None


# -- changes -----------------------------------------------------------------------------------------------------------


def test_new_bytes_are_a_new_version_and_new_modes_are_not(world):
    """And each is told as what it is."""
    inode = world.make(b"a")
    world.look()
    world.commits()
    before = world.row(b"a")
    inode.mode = FILE & ~0o044
    world.look()
    assert recording.vector_of(world.row(b"a"), BRANCH) == recording.vector_of(before, BRANCH)
    world.write(inode)
    world.look()
    assert versions.dominates(recording.vector_of(world.row(b"a"), BRANCH), recording.vector_of(before, BRANCH))
    assert [what for what, _, _ in world.heard()] == [change.ATTRS, change.DATA]


def test_a_row_that_has_another_inode_is_left_alone_by_who_speaks_of_the_old_one(world):
    """close(2) of a file whose name was taken by another."""
    old = world.make(b"a")
    world.look()
    world.make(b"tmp")
    world.rename(b"tmp", b"a")
    world.look()
    before = world.row(b"a")
    with world.store.write("test") as unit:
        apply.change_row(unit, before, old.stat, BRANCH)
    assert world.row(b"a") == before


def test_a_removed_name_is_told_to_other_devices_if_there_are_any(world):
    world.make(b"alone")
    world.make(b"told")
    world.look()
    told = world.row(b"told")
    for name in (b"alone", b"told"):
        world.unlink(name)
        world.look()
        world.store.is_shared = True
    found = world.store.db.execute("SELECT entry_id, branch_id, kind FROM tombstone").fetchall()
    assert found == [(told.id, told.branch_id, changes.GONE)]


def test_a_link_less_counts_in_another_branch_whatever_it_says_of_the_bytes(world):
    """A write by the one name is not heard of by the other before the next round."""
    inode = world.make(b"f", nlink=2)
    world.look()
    with world.store.write("test") as unit:
        beside = places.put_branch(unit.db, b"o" * 16, None, DEVICE, "local", b"/beside", "fs", 101)
        root = recording.plain_row(unit, beside, 0, b"", Inode(101, DIR).stat)._replace(parent_id=None)
        entries.insert(unit.db, root)
        other = recording.plain_row(unit, beside, root.id, b"g", inode.stat._replace(size_bytes=7))
        entries.insert(unit.db, other)
    world.unlink(b"f")
    world.look()
    assert entries.get(world.store.db, other.id).nlink == 1


def test_every_name_of_a_file_that_parts_from_a_replica_is_told_of(world):
    """Whoever shows one of them knows it by a number that may be nobody's soon."""
    inode = world.make(b"f")
    world.link(inode, b"g")
    world.link(inode, b"h")
    world.look()
    old = world.row(b"f").node
    with world.store.write("test") as unit:
        beside = places.put_branch(unit.db, b"o" * 16, None, DEVICE, "local", b"/beside", "fs", 101)
        root = recording.plain_row(unit, beside, 0, b"", Inode(101, DIR).stat)._replace(parent_id=None)
        entries.insert(unit.db, root)
        entries.insert(unit.db, recording.plain_row(unit, beside, root.id, b"f", inode.stat, node=old))
    world.commits()
    world.link(inode, b"i")
    world.look()
    new = world.row(b"f").node
    assert new != old
    heard = world.heard()
    for name in (b"f", b"g", b"h"):
        assert world.row(name).node == new
        assert {(change.REMOVED, name, old), (change.ADDED, name, new)} <= set(heard)


# -- everything at once ------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])
WHERE = st.integers(0, 3)


class Identity(RuleBasedStateMachine):
    """Any changes between two looks: the index becomes the disk, and no file's number goes to another."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile
        from pathlib import Path

        self._place = tempfile.TemporaryDirectory(prefix="apply-")
        self.world = World(Path(self._place.name))
        self.number_of: dict[Inode, int] = {}  # as of the last look
        self.all_numbers: dict[int, Inode] = {}
        self.places: dict[int, set[tuple[int, bytes]]] = {}  # number -> where it ever was
        self.written: set[Inode] = set()
        self.older: set[Inode] = set()  # known to be by their birth, whatever is done to them

    def teardown(self) -> None:
        self.world.store.close()
        self._place.cleanup()

    @initialize(tells_birth=st.booleans())
    def begin(self, tells_birth) -> None:
        self.world.tells_birth = tells_birth
        for name in (b"a", b"b"):
            directory = self.world.make(name, DIR)
            self.world.make(b"c", FILE, directory)
        self.world.look()
        self._note()

    def _directory(self, number: int) -> Inode:
        found = self.world.directories()
        return found[number % len(found)]

    @rule(name=NAMES, where=WHERE, mode=st.sampled_from([FILE, FILE, DIR, LINK]))
    def make(self, name, where, mode) -> None:
        above = self._directory(where)
        if name not in above.names:
            self.world.make(name, mode, above)

    @rule(name=NAMES, where=WHERE)
    def write(self, name, where) -> None:
        inode = self._directory(where).names.get(name)
        if inode is not None and stat.S_ISREG(inode.mode):
            self.world.write(inode)
            self.written.add(inode)

    @rule(name=NAMES, where=WHERE)
    def remove(self, name, where) -> None:
        above = self._directory(where)
        if name in above.names and not above.names[name].names:
            self.world.unlink(name, above)

    @rule(name=NAMES, where=WHERE, new=NAMES, to=WHERE)
    def link(self, name, where, new, to) -> None:
        inode, target = self._directory(where).names.get(name), self._directory(to)
        if inode is not None and not stat.S_ISDIR(inode.mode) and new not in target.names:
            self.world.link(inode, new, target)

    @rule(name=NAMES, where=WHERE, new=NAMES, to=WHERE)
    def rename(self, name, where, new, to) -> None:
        source, target = self._directory(where), self._directory(to)
        inode, over = source.names.get(name), target.names.get(new)
        if inode is None or self._holds(inode, target):
            return
        if over is not None and (stat.S_ISDIR(over.mode) != stat.S_ISDIR(inode.mode) or over.names):
            return
        self.world.rename(name, new, source, target)

    @rule(name=NAMES, where=WHERE, new=NAMES, to=WHERE)
    def exchange(self, name, where, new, to) -> None:
        source, target = self._directory(where), self._directory(to)
        one, other = source.names.get(name), target.names.get(new)
        if one is None or other is None or self._holds(one, target) or self._holds(other, source):
            return
        self.world.exchange(name, new, source, target)

    def _holds(self, inode: Inode, directory: Inode) -> bool:
        return inode is directory or any(self._holds(child, directory) for child in inode.names.values())

    @rule(name=NAMES, where=WHERE)
    def glance(self, name, where) -> None:
        """A lookup in the midst of the changes; a directory is found by its inode wherever the index has it."""
        directory = self._directory(where)
        for row in entries.by_st_ino(self.world.store.db, self.world.branch, directory.st_ino)[:1]:
            if row.kind == KIND_DIR:
                self.world.look_at(name, directory, row.id)

    @rule()
    def look(self) -> None:
        self.world.look()
        before, self.number_of = self.number_of, {}
        was_older, self.older = self.older, set()
        self._note()
        for inode, number in self.number_of.items():
            if inode in before and (inode not in self.written or inode in was_older):
                assert before[inode] == number, "a file that only moved has another number"
        self.written.clear()

    def _note(self) -> None:
        """The numbers of all files; one of a file, and one file of a number for ever."""
        todo = [(self.world.root, self.world.root_id)]
        for directory, parent_id in todo:
            for name, inode in directory.names.items():
                row = self.world.row(name, parent_id)
                assert row.stat == inode.stat
                assert self.number_of.setdefault(inode, row.node) == row.node, "two names of a file have two numbers"
                known = self.all_numbers.setdefault(row.node, inode)
                # a new file with the inode of the old one under the same name is the old one written anew
                anew = known.st_ino == inode.st_ino and (parent_id, name) in self.places.get(row.node, ())
                assert known is inode or anew, "a number was given to another file"
                self.all_numbers[row.node] = inode
                if self.world.tells_birth and inode.born_ns < row.ctime_ns:
                    self.older.add(inode)
                self.places.setdefault(row.node, set()).add((parent_id, name))
                if stat.S_ISDIR(inode.mode):
                    todo.append((inode, row.id))

    @invariant()
    def no_row_is_lost(self) -> None:
        """Every row hangs below the root, in no circle."""
        for (entry_id,) in self.world.store.db.execute("SELECT id FROM entry").fetchall():
            assert self.world.hangs_below_root(entry_id)


TestIdentity = Identity.TestCase
TestIdentity.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
