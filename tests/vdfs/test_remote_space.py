"""What other devices hold in the space, without a kernel: whatever is done here and told from there, in any order.

Held against a model of what was told: no step of ours writes what is another device's to say; no number is that of
two names; sums and the database are sound; a directory lists what is on our disk and what was told, no more. What left
a name here by a request is hidden if it was shown as one with ours, and only until its device has written it since.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from index.care import checking
from index.model import versions
from index.model.entry import HASH_FULL, HIDDEN, KIND_DIR, Entry
from index.model.errors import ReadOnly, VdfsError
from index.model.ids import new_entry_uuid
from index.scan import recording
from index.store import aliases, entries, leaving, sums, whiteouts
from tests.remote_rows import RemoteRows, content_of
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.space.branches import Branch
from vdfs.space.namespace import Caller
from vdfs.space.nodes import Node

WHO = Caller(os.getuid(), os.getgid(), 0o022)
#: Few names, so that what is here and what is there meets.
PATHS = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "f/a")


class World:
    """A library with a location `L` of two directories of ours, of which another device has one, too."""

    def __init__(self, core: Core, disks: tuple[Path, Path], meets: bool) -> None:
        self.core = core
        self.disks = disks
        self.rows = RemoteRows(core.library.store)
        self.far = self.rows.branch(self.rows.device("Laptop"), "L")
        self.told: dict[int, Entry] = {}
        self.detached: list[int] = []
        self.rows.meet(meets)
        self.held: list[Node] = []
        self.clock = 0
        self.hidden: dict[int, Entry] = {}  # what is hidden, as it was when that began

    async def follow(self) -> None:
        await self.core.locations.follow()
        self.note()

    def note(self) -> None:
        """What is told now is what the owner said last."""
        db = self.core.library.store.db
        found = db.execute("SELECT id FROM entry WHERE uid<0").fetchall()
        self.told = {i: row for (i,) in found if (row := entries.get(db, i)) is not None}

    async def node(self, path: str) -> Node:
        return (await self.core.tree.resolve([b"L", *map(os.fsencode, filter(None, path.split("/")))]))[0]

    async def together(self, path: str) -> tuple[list[int], list[int]]:
        """The rows of ours and of theirs that show as one file, none where that is not so."""
        try:
            node = await self.node(path)
        except (VdfsError, OSError):
            return [], []
        spots = [] if node.is_dir else [*node.spots, *node.stale_spots]
        ours = [spot.entry_id for spot in spots if not spot.dir.branch.is_remote]
        return ours, [spot.entry_id for spot in spots if spot.dir.branch.is_remote] if ours else []

    def seen_at(self, path: str) -> Entry | None:
        """What is hidden at a path, and was known to be what left there."""
        row = self.there(path) if path else None
        if row is None or not row.is_hidden or row.uuid is None or row.kind == KIND_DIR:
            return None
        (above,) = [one for one in [self.there(os.path.dirname(path))] if one is not None and one.uuid is not None]
        assert above.uuid is not None
        known = whiteouts.get(self.rows.store.db, above.uuid, row.name, row.uuid)
        assert known is not None
        return row if known.is_seen else None

    async def above(self, path: str) -> tuple[Node, bytes]:
        parent, _, name = path.rpartition("/")
        return await self.node(parent), os.fsencode(name)

    # what is done here ------------------------------------------------------------------------------------------------

    async def make(self, path: str, _other: str) -> None:
        parent, name = await self.above(path)
        _, _, fd = await self.core.namespace.create(parent, name, os.O_WRONLY, 0o644, WHO)
        os.write(fd, b"ours")
        os.close(fd)

    async def make_dir(self, path: str, _other: str) -> None:
        await self.core.namespace.mkdir(*await self.above(path), 0o755, WHO)

    async def unlink(self, path: str, _other: str) -> None:
        await self.core.namespace.unlink(*await self.above(path))

    async def remove_dir(self, path: str, _other: str) -> None:
        await self.core.namespace.rmdir(*await self.above(path))

    async def rename(self, path: str, other: str) -> None:
        await self.core.renames.rename(*await self.above(path), *await self.above(other), 0)

    async def tag(self, path: str, _other: str) -> None:
        await self.core.annotations.set(await self.node(path), b"user.xdg.tags", b"kept", "call")

    async def move_behind(self, path: str, other: str) -> None:
        for disk in self.disks:
            with contextlib.suppress(OSError):
                os.rename(disk / path, disk / other)

    async def make_behind(self, path: str, other: str) -> None:
        """On the second of our directories, where the mount makes nothing new."""
        with contextlib.suppress(OSError):
            (self.disks[1] / path).parent.mkdir(parents=True, exist_ok=True)
            (self.disks[1] / path).write_bytes((b"ours", b"others")[path < other])

    async def hold_all_on_both(self) -> None:
        """Both devices have the same tree."""
        for path in ("a", "b", "d/a", "d/e/a"):
            (self.disks[0] / path).parent.mkdir(exist_ok=True)
            (self.disks[0] / path).write_bytes(b"ours")
            self.rows.file(self.far, path, b"ours")
            self.note()
            with contextlib.suppress(VdfsError, OSError):
                await self.core.tree.listing(await self.node(os.path.dirname(path)))
        await self.identify("", "")

    # what is told from there ------------------------------------------------------------------------------------------

    def there(self, path: str) -> Entry | None:
        """What the other device has at a path."""
        with contextlib.suppress(AssertionError):
            return self.rows.at(self.far, path)
        return None

    def takes(self, path: str) -> bool:
        """Whether there is nothing there at a path, and no file above it."""
        above = [self.there(path[:end]) for end, letter in enumerate(path) if letter == "/"]
        return self.there(path) is None and all(row is None or row.kind == KIND_DIR for row in above)

    async def tell_file(self, path: str, _other: str) -> None:
        self.clock += 1
        known = self.there(path)
        if not self.takes(path) and (known is None or known.kind == KIND_DIR):
            return
        data = (b"ours", b"theirs")[self.clock % 2]
        version = self.rows.stamped(self.far) if known is None else self.rows.later(self.far, path)
        self.rows.file(self.far, path, data, mtime_ns=(1 << 60) + self.clock, version=version)

    async def tell_dir(self, path: str, _other: str) -> None:
        if self.takes(path):
            self.rows.directory(self.far, path)

    async def tell_move(self, path: str, other: str) -> None:
        if self.there(path) and self.takes(other) and not (other + "/").startswith(path + "/"):
            self.rows.move(self.far, path, other)

    async def tell_detached(self, path: str, _other: str) -> None:
        if self.there(path):
            self.detached.append(self.rows.move(self.far, path, None))

    async def tell_attached(self, path: str, _other: str) -> None:
        if self.detached and self.takes(path):
            self.rows.attach(self.detached.pop(), self.far, path)

    async def tell_gone(self, path: str, _other: str) -> None:
        if self.there(path):
            self.rows.remove(self.far, path)

    # ----------------------------------------------------------------------------------------------------------------

    async def look(self, path: str, _other: str) -> None:
        await self.core.tree.listing(await self.node(path))

    async def hold(self, path: str, _other: str) -> None:
        """The kernel knows it."""
        node = await self.node(path)
        node.lookups += 1
        self.held.append(node)

    async def identify(self, _path: str, _other: str) -> None:
        """Our files are read."""
        store = self.core.library.store
        with store.write("scan") as unit:
            for (entry_id,) in store.db.execute(
                "SELECT id FROM entry WHERE uid>=0 AND kind=0 AND hash_state<2 AND size_bytes>0"
            ).fetchall():
                row = entries.get(unit.db, entry_id)
                assert row is not None
                uuid = row.uuid or new_entry_uuid()
                entries.set_identity(
                    unit.db,
                    entry_id,
                    content_of(unit, b"ours" if row.size_bytes == 4 else b"others"),
                    HASH_FULL,
                    uuid,
                    unit.seq,
                )
                unit.changed("meta", row.branch_id, row.id, row.parent_id, row.name, row.node)

    async def join(self, path: str, _other: str) -> None:
        await self.core.arrivals.join_all()


Step = Callable[[World, str, str], Awaitable[None]]
#: Steps by which a name of ours leaves, unless they are refused.
LEAVING = (World.unlink, World.rename)
STEPS = (
    World.make, World.make, World.make_dir, World.unlink, World.unlink, World.remove_dir, World.remove_dir,
    World.rename, World.rename, World.tag,
    World.move_behind, World.make_behind, World.tell_file, World.tell_file, World.tell_dir, World.tell_move,
    World.tell_detached, World.tell_attached, World.tell_gone, World.look, World.look, World.hold,
    World.identify, World.join,
)  # fmt: skip
PATH = st.sampled_from(PATHS)
#: A few that meet often: what leaves, and comes again.
FEW_STEPS = (
    World.make, World.make, World.make_dir, World.unlink, World.unlink, World.remove_dir, World.rename,
    World.tell_file, World.look, World.identify,
)  # fmt: skip
FEW_PATHS = st.sampled_from(("a", "d", "d/a"))
FEW = st.lists(st.tuples(st.sampled_from(FEW_STEPS), FEW_PATHS, FEW_PATHS), min_size=8, max_size=20)


@contextlib.contextmanager
def somewhere():
    base = Path(tempfile.mkdtemp(prefix="sdmount-space-"))
    try:
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


def run_in(test: Callable[[World], Awaitable[None]], *, meets: bool = False) -> None:
    async def main() -> None:
        with somewhere() as base:
            config = Config(base / "data", base / "state", base / "run")
            async with open_core(config, "Library") as core:
                for name in ("X", "Y"):
                    (base / name).mkdir()
                    await core.locations.add(os.fsencode(base / name), b"L")
                world = World(core, (base / "X", base / "Y"), meets)
                await world.follow()
                await test(world)

    trio.run(main)


#: A version of ours that is another device's, too, makes room for what is renamed over the one that is shown.
MAKES_ROOM = [(World.make_behind, "b", "d"), (World.join, "a", "a"), (World.rename, "a", "b")]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), PATH, PATH), max_size=25), st.booleans(), st.booleans())
@example(MAKES_ROOM, False, True)
def test_whatever_happens_in_any_order(steps, meets, is_full):
    go_through(steps, meets, is_full)


#: What is hidden is written anew there, with the same bytes.
SAME_BYTES = [
    (World.unlink, "d/a", "a"), (World.tell_file, "a", "a"), (World.tell_file, "d/a", "a"), (World.make, "d/a", "a"),
]  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(FEW, st.booleans())
@example(SAME_BYTES, False)
def test_what_leaves_and_comes_again(steps, meets):
    go_through(steps, meets, is_full=True)


def go_through(steps: list[tuple[Step, str, str]], meets: bool, is_full: bool) -> None:
    async def test(world: World) -> None:
        if is_full:
            await world.hold_all_on_both()
        for step, path, other in steps:
            is_told = step.__name__.startswith("tell_")
            ours, theirs = await world.together(path) if step in LEAVING else ([], [])
            hidden = world.seen_at(path if step is World.make else other if step is World.rename else "")
            with contextlib.suppress(VdfsError, OSError):
                await step(world, path, other)
                if path != other:
                    what_left_is_hidden(world, path, ours, theirs)
                if step is World.make or (step is World.rename and path != other):
                    what_was_made_has_seen(world, path if step is World.make else other, hidden)
            if is_told:
                world.note()
                nothing_new_is_taken_for_old(world, path if step is World.tell_file else other)
            nothing_of_theirs_was_written(world)
            no_number_has_two_places(world)
            hidden_is_what_was_seen(world)
        await whole_tree_is_as_told(world)
        world.core.library.store.settle()
        assert sums.wrong(world.core.library.store.db) == {}
        store = world.core.library.store
        assert checking.check(store.path, store.device_uuid) == []

    run_in(test, meets=meets)


def nothing_of_theirs_was_written(world: World) -> None:
    db = world.core.library.store.db
    for entry_id, was in world.told.items():
        now = entries.get(db, entry_id)
        assert now is not None, was
        assert now.rule in (0, HIDDEN)
        assert now._replace(node=was.node, seq=was.seq, rule=was.rule, uuid=was.uuid) == was
        assert was.uuid is not None
        assert now.uuid == aliases.canon(db, was.uuid)


def what_left_is_hidden(world: World, path: str, ours: list[int], theirs: list[int]) -> None:
    """Of what was one with ours under a name that all of ours have left; unless it has met another one of ours."""
    db = world.core.library.store.db
    if any((disk / path).exists() for disk in world.disks):
        return
    for entry_id in theirs:
        row = entries.get(db, entry_id)
        assert row is not None
        assert row.is_hidden, (ours, row)


def what_was_made_has_seen(world: World, path: str, hidden: Entry | None) -> None:
    """A file that is made where another was taken away is later than that, and the uuid goes on."""
    store = world.core.library.store
    disk = next((disk for disk in world.disks if (disk / path).is_file()), None)
    row = None if hidden is None else entries.get(store.db, hidden.id)
    if disk is None or row is None:
        return
    assert not row.is_hidden
    branch = next(one for one in world.core.tree.branches.values() if one.root_path == os.fsencode(disk))
    at = ours_at(world, branch, path)
    assert at is not None
    far = next(one.uuid for one in world.core.tree.remotes.values())
    vector = recording.vector_of(at, branch.uuid)
    assert versions.dominates(vector, recording.vector_of(row, far))
    assert at.uuid is not None


def ours_at(world: World, branch: Branch, path: str) -> Entry | None:
    """Our row at a path of a branch."""
    db = world.core.library.store.db
    at = entries.get(db, branch.root_entry_id)
    for name in path.split("/"):
        at = None if at is None else entries.child(db, at.id, os.fsencode(name))
    return at


def nothing_new_is_taken_for_old(world: World, path: str) -> None:
    """What was told a moment ago is not what ours of the name has seen, unless they hold the same. It may be hidden
    where ours left the name, if that is the same."""
    row = world.there(path)
    if row is None or row.kind == KIND_DIR or row.is_hidden:
        return
    told = recording.vector_of(row, next(one.uuid for one in world.core.tree.remotes.values()))
    for branch in world.core.tree.branches.values():
        at = ours_at(world, branch, path)
        if at is not None and at.kind != KIND_DIR and at.content_id != row.content_id:
            assert not versions.covers(recording.vector_of(at, branch.uuid), told), (at, row)


def hidden_is_what_was_seen(world: World) -> None:
    """As it was when it was hidden, but for what says nothing of its bytes; a directory has nothing in it that shows.
    Marks are what they would be if all were judged anew."""
    store = world.core.library.store
    now = {row.id: row for row in whiteouts.hidden(store.db)}
    for entry_id, row in now.items():
        was = world.hidden.get(entry_id, row)
        assert not row.is_ours
        if row.kind == KIND_DIR:
            assert all(below.is_hidden for below in entries.children(store.db, entry_id))
        else:
            assert row.version == was.version or row.content_id == was.content_id, (was, row)
    world.hidden = {entry_id: world.hidden.get(entry_id, row) for entry_id, row in now.items()}
    with store.write("scan") as unit:
        leaving.judge_all(unit)
    assert {row.id for row in whiteouts.hidden(store.db)} == now.keys()


def no_number_has_two_places(world: World) -> None:
    db = world.core.library.store.db
    places: dict[int, tuple[int, bytes]] = {}
    for (entry_id,) in db.execute("SELECT id FROM entry WHERE parent_id IS NOT NULL").fetchall():
        row = entries.get(db, entry_id)
        assert row is not None
        place = entries.union_name(db, row.parent_id, row.name)
        assert places.setdefault(row.node, place) == place, row


async def whole_tree_is_as_told(world: World) -> None:
    """Twice, since looking joins what is one."""
    for _ in range(2):
        await directory_is_as_told(world, "", world.rows.root(world.far))


def is_plain(name: bytes) -> bool:
    """Not that of a version in conflict; a file may have been given one."""
    return b" (from " not in name


async def directory_is_as_told(world: World, path: str, far_id: int | None) -> None:
    db = world.core.library.store.db
    here = [disk / path for disk in world.disks if (disk / path).is_dir()]
    ours = {os.fsencode(name) for directory in here for name in os.listdir(directory)}
    told = [] if far_id is None else entries.children(db, far_id)
    theirs = {row.name: row for row in told if not row.is_hidden}
    lines = await world.core.tree.listing(await world.node(path))
    shown = [line.name for line in lines]
    assert len(shown) == len(set(shown))
    assert set(filter(is_plain, shown)) == set(filter(is_plain, ours | set(theirs)))
    for line in lines:
        node, attributes = await world.core.tree.lookup(await world.node(path), line.name)
        assert node is line.node
        assert attributes.st_size == line.st.st_size
        if node.is_dir:
            below = theirs.get(line.name)
            is_dir = below is not None and below.kind == KIND_DIR
            await directory_is_as_told(world, os.path.join(path, os.fsdecode(line.name)), below.id if is_dir else None)


def test_what_others_alone_hold_is_refused_by_name():
    async def test(world: World) -> None:
        world.rows.file(world.far, "d/a", b"theirs")
        with pytest.raises(ReadOnly, match="a is on Laptop alone"):
            await world.unlink("d/a", "")
        with pytest.raises(ReadOnly, match="d is on Laptop alone"):
            await world.rename("d", "b")

    run_in(test)
