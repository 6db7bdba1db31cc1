"""What who watches a directory is told: with what he knew before it makes what is there, whatever came in between."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusefs.invalidate import Notifier
from fusefs.kernel.inodes import Ledger
from fusefs.kernel.poking import CREATE, MOVE, REMOVE, TOUCH, TOUCH_DIRECTORY, WRITE
from fusefs.pokeplan import ROUND_POKES_MAX, Poke
from fusefs.pokes import Pokes
from fusefs.wishes import DIRECTORY_NAMES_MAX
from index.model.entry import KIND_DIR
from index.scan.workers import WorkerPool
from tests.vdfs.test_remote_space import World, is_plain, run_in
from vdfs.space.nodes import Node

STEPS = (
    World.tell_file, World.tell_file, World.tell_dir, World.tell_move, World.tell_move, World.tell_detached,
    World.tell_attached, World.tell_gone, World.join, World.look,
)  # fmt: skip
NAME = st.sampled_from("abcd")


class Watching:
    """Who watches a directory, and has the names that he was told of; the kernel holds what he watches."""

    def __init__(self, world: World, directory: Node) -> None:
        self.world = world
        self.directory = directory
        tree = world.core.tree
        ledger = Ledger(tree.root)
        assert directory.parent is tree.root
        ledger.remember(directory)
        notifier = Notifier(tree, ledger)
        self.pokes = Pokes(tree, ledger, notifier, WorkerPool(2, log_path=None), Path("/nowhere"), "0:99")
        notifier.names_changed = self.pokes.note
        self.names: set[bytes] = set()

    async def there(self) -> set[bytes]:
        lines = await self.world.core.tree.listing(self.directory)
        return {line.name for line in lines if is_plain(line.name)}

    async def round(self) -> list[Poke]:
        """What is poked now, of which each must fit what is known."""
        names, directories = self.pokes.wishes.take()
        pokes, _ = await self.pokes.plan.of(names, directories)
        for poke in pokes:
            if poke.do == CREATE:
                assert poke.name not in self.names, poke
                self.names.add(poke.name)
            elif poke.do == REMOVE:
                self.names.remove(poke.name)
            elif poke.do == MOVE:
                assert poke.to is not None
                assert poke.to[1] not in self.names, poke
                self.names.remove(poke.name)
                self.names.add(poke.to[1])
            elif poke.do in (WRITE, TOUCH):
                assert poke.name in self.names, poke
        self.pokes.wishes.settle_but()
        return pokes


def watching(test):
    """Run a test with somebody who watches the location that both devices have."""

    async def run(world: World) -> None:
        watcher = Watching(world, await world.node(""))
        watcher.names = await watcher.there()
        await test(world, watcher)

    run_in(run)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), NAME, NAME, st.booleans()), max_size=30), st.sets(st.sampled_from("abc"))
)
def test_what_is_told_makes_what_is_there(steps, own):
    async def test(world: World, watcher: Watching) -> None:
        for step, path, other, is_round in steps:
            if step is World.look:
                path = ""
            await step(world, path, other)
            if is_round:
                await watcher.round()
                assert watcher.names == await watcher.there()
        await watcher.round()
        assert watcher.names == await watcher.there()

    async def run(world: World) -> None:
        for name in own:
            (world.disks[0] / name).write_bytes(b"ours")
        watcher = Watching(world, await world.node(""))
        watcher.names = await watcher.there()
        await test(world, watcher)

    run_in(run)


def test_what_comes_and_goes_between_two_rounds_is_nothing():
    async def test(world: World, watcher: Watching) -> None:
        await world.tell_file("a", "")
        await world.tell_gone("a", "")
        assert await watcher.round() == []

    watching(test)


def test_a_name_that_is_here_already_does_not_come():
    async def test(world: World, watcher: Watching) -> None:
        (world.disks[0] / "a").write_bytes(b"ours")
        await watcher.there()
        await watcher.round()
        await world.tell_file("a", "")
        assert {poke.do for poke in await watcher.round()} <= {WRITE, TOUCH_DIRECTORY}

    watching(test)


def test_a_name_is_awaited_until_it_is_told():
    """The kernel may believe nothing of it for so long, or it could not be created for who watches."""

    async def test(world: World, watcher: Watching) -> None:
        wishes, place = watcher.pokes.wishes, (watcher.directory.ino, b"a")
        await world.tell_file("a", "")
        assert place in wishes.awaited
        wishes.take()
        assert place in wishes.awaited
        await world.tell_gone("a", "")  # it is wished for anew
        wishes.settle(place)
        assert place in wishes.awaited
        wishes.take()
        wishes.settle_but()
        assert wishes.awaited == {}

    watching(test)


def test_many_names_are_told_as_one_and_nothing_grows():
    async def test(world: World, watcher: Watching) -> None:
        for number in range(DIRECTORY_NAMES_MAX + 50):
            await world.tell_file(f"f{number}", "")
        assert (watcher.pokes.wishes.names, watcher.pokes.wishes.awaited) == ({}, {})
        assert [poke.do for poke in await watcher.round()] == [TOUCH_DIRECTORY]
        assert DIRECTORY_NAMES_MAX <= ROUND_POKES_MAX

    watching(test)


def test_directories_beyond_what_a_round_tells_are_left_for_the_next():
    async def test(world: World, watcher: Watching) -> None:
        told, left = await watcher.pokes.plan.of({}, [watcher.directory.ino, *range(10**6, 10**6 + 500)])
        assert [poke.directory for poke in told] == [watcher.directory]
        assert left == [*range(10**6 + ROUND_POKES_MAX - 1, 10**6 + 500)]

    watching(test)


def test_what_nobody_holds_is_not_wished_for():
    async def test(world: World, watcher: Watching) -> None:
        await world.tell_dir("d", "")
        await watcher.round()
        await world.tell_file("d/a", "")
        assert watcher.pokes.wishes.names == {}

    watching(test)


@pytest.mark.parametrize("is_blind", [True, False])
def test_where_not_all_who_watch_are_seen_what_was_opened_lately_counts_as_watched(is_blind):
    """And of what is seen to be watched each counts: the directory, or what is in it."""

    async def test(world: World, watcher: Watching) -> None:
        async def call(_op: str, _args: object) -> dict[str, object]:
            return {"inodes": [4711], "blind": is_blind}

        watcher.pokes.pool.call = call
        is_watched = await watcher.pokes._who_watches()
        assert is_watched(4711, 1)
        assert is_watched(1, 4711)
        assert not is_watched(watcher.directory.ino, 1)
        watcher.pokes.opened(watcher.directory)
        assert (await watcher.pokes._who_watches())(watcher.directory.ino, 1) is is_blind
        for ino in range(10**6, 10**6 + 300):
            watcher.pokes.opened(Node(ino, KIND_DIR))
        assert not (await watcher.pokes._who_watches())(watcher.directory.ino, 1)

    watching(test)


def test_who_is_no_worker_of_ours_is_not_greeted():
    async def test(world: World, watcher: Watching) -> None:
        assert not watcher.pokes.greets(os.getpid())
        assert not watcher.pokes.is_poker(os.getpid())
        assert watcher.pokes.asked(os.getpid(), (1, b"a")) is None

    watching(test)
