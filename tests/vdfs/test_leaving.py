"""What leaves a name here, at the edges: a kill in the middle, uuids that are one, devices that come later."""

import os
import shutil
import time
from pathlib import Path

import pytest
import trio

from index.model import versions
from index.store import annotating, changes, entries, leaving, sums, tidy, whiteouts
from tests.remote_rows import RemoteRows
from tests.vdfs.test_remote_space import WHO, World, somewhere
from vdfs.base.config import Config
from vdfs.core import open_core


class Life:
    """A library with a location `L` in one directory, that is opened again and again."""

    def __init__(self, base: Path) -> None:
        self.config = Config(base / "data", base / "state", base / "run")
        self.disk = base / "X"
        self.disk.mkdir()

    def live(self, act) -> None:
        async def main() -> None:
            async with open_core(self.config, "Library") as core:
                if b"L" not in core.tree.locations:
                    await core.locations.add(os.fsencode(self.disk), b"L")
                world = World.__new__(World)
                world.core, world.disks = core, (self.disk, self.disk)
                world.rows = RemoteRows(core.library.store)
                world.told, world.detached, world.held, world.clock, world.hidden = {}, [], [], 0, {}
                world.rows.meet(True)
                if not core.tree.remotes:
                    world.far = world.rows.branch(world.rows.device("Laptop"), "L")
                    await core.locations.follow()
                else:
                    world.far = next(iter(core.tree.remotes))
                await act(world)

        trio.run(main)


@pytest.fixture
def life():
    with somewhere() as base:
        yield Life(base)


async def shown(world: World, path: str = "") -> list[str]:
    return sorted(os.fsdecode(line.name) for line in await world.core.tree.listing(await world.node(path)))


async def hold_all_on_both(world: World) -> None:
    """Both have `a`, and `d` with `d/a` and `d/e/a`."""
    await world.hold_all_on_both()
    assert await shown(world) == ["a", "b", "d"]
    await world.core.arrivals.join_all()


@pytest.mark.parametrize(
    ("op", "path", "step", "left"),
    [
        ("unlink", "a", lambda top: (top / "a").unlink(), ["b", "d"]),
        ("unlink", "a", lambda top: None, ["b", "d"]),
        ("rename", "a", lambda top: (top / "a").rename(top / "c"), ["b", "c", "d"]),
        ("rename", "a", lambda top: None, ["a", "b", "d"]),
        ("rename", "d", lambda top: (top / "d").rename(top / "f"), ["a", "b", "f"]),
        ("rmdir", "d", lambda top: shutil.rmtree(top / "d"), ["a", "b"]),
        ("rmdir", "d", lambda top: None, ["a", "b", "d"]),
    ],
)
def test_a_kill_between_the_disk_and_the_unit_leaves_what_was_or_what_was_to_be(life, op, path, step, left):
    """The journal is written before the disk is touched, and says what has begun."""

    async def die(world: World) -> None:
        await hold_all_on_both(world)
        row = await world.core.tree.lookup(await world.node(""), os.fsencode(path))
        ids = [spot.entry_id for spot in row[0].spots] or [part.entry_id for part in row[0].parts]
        with world.core.library.store.write("mount") as unit:
            changes.journal_begin(unit.db, op, {"rows": ids[:1]})
        step(life.disk)

    async def live_on(world: World) -> None:
        assert await shown(world) == left
        assert await shown(world) == left
        store = world.core.library.store
        assert changes.journal_open(store.db) == []
        store.settle()
        assert sums.wrong(store.db) == {}

    life.live(die)
    life.live(live_on)
    life.live(live_on)


def test_a_third_device_that_has_the_same_file_is_hidden_when_it_turns_out_to_be_that(life):
    """By its uuid, which is told as an alias later than its row."""

    async def act(world: World) -> None:
        await hold_all_on_both(world)
        uuid = world.rows.at(world.far, "a").uuid
        await world.unlink("a", "")
        third = world.rows.branch(world.rows.device("NAS"), "L")
        await world.core.locations.follow()
        world.rows.file(third, "a", b"ours")
        assert await shown(world) == ["a", "b", "d"]
        other = world.rows.at(third, "a").uuid
        with world.core.library.store.write("sync") as unit:
            assert uuid is not None
            assert other is not None
            kept = annotating.join(unit, uuid, other)
            leaving.read_as(unit, max(uuid, other), kept)
        assert await shown(world) == ["b", "d"]

    life.live(act)


def test_a_directory_that_comes_back_brings_later_versions_of_what_left_with_it(life):
    """As a whole: each file in it has seen what others have under its name."""

    async def act(world: World) -> None:
        await hold_all_on_both(world)
        await world.rename("d", "f")
        assert await shown(world) == ["a", "b", "f"]
        await world.rename("f", "d")
        assert await shown(world) == ["a", "b", "d"]
        assert await shown(world, "d") == ["a", "e"]
        assert await shown(world, "d/e") == ["a"]
        db = world.core.library.store.db
        assert whiteouts.every(db) == []
        assert whiteouts.hidden(db) == []
        far = world.core.tree.remotes[world.far]
        for path in ("d/a", "d/e/a"):
            node = await world.node(path)
            row = entries.get(db, node.spots[0].entry_id)
            assert row is not None
            assert versions.dominates(versions.unpack(row.version), {far.uuid: 1})

    life.live(act)


def test_rows_that_go_and_are_told_again_are_hidden_again(life):
    """They were withdrawn, or a repair let go of them; also below a directory that went with them."""

    async def act(world: World) -> None:
        await hold_all_on_both(world)
        files = {path: world.rows.uuid_of(world.far, path) for path in ("a", "d/a", "d/e/a")}
        dirs = {path: world.rows.uuid_of(world.far, path) for path in ("d", "d/e")}
        for path in files:
            await world.unlink(path, "")
        for path in ("d/e", "d"):
            await world.remove_dir(path, "")
        assert await shown(world) == ["b"]
        for path in ("a", "d"):
            world.rows.remove(world.far, path)
        assert await shown(world) == ["b"]
        world.rows.file(world.far, "a", b"ours", uuid=files["a"])
        with world.core.library.store.write("sync") as unit:
            for path, uuid in dirs.items():
                row = world.rows.put_directory(unit, world.far, path, uuid)
                assert row
            for path in ("d/a", "d/e/a"):
                world.rows.put_file(unit, world.far, path, b"ours", files[path])
        assert await shown(world) == ["b"]

    life.live(act)


def test_what_is_noted_of_directories_that_are_nowhere_goes_after_some_months(life):
    """They may be told again until then."""

    async def act(world: World) -> None:
        await hold_all_on_both(world)
        for path in ("d/a", "d/e/a"):
            await world.unlink(path, "")
        for path in ("d/e", "d"):
            await world.remove_dir(path, "")
        store = world.core.library.store
        assert len(whiteouts.every(store.db)) == 4
        world.rows.remove(world.far, "d")
        now_ns = time.time_ns()
        later_ns = now_ns + (tidy.WHITEOUT_KEEP_MS + 1000) * 1_000_000
        assert tidy.find(store.db, now_ns).whiteouts == []
        strays = tidy.find(store.db, later_ns)
        assert sorted(name for _, name, _ in strays.whiteouts) == [b"a", b"a", b"e"]
        with store.write("test") as unit:
            tidy.drop(unit.db, strays, later_ns)
        assert [one.name for one in whiteouts.every(store.db)] == [b"d"]

    life.live(act)


def test_a_file_of_several_names_gives_its_uuid_to_none_that_is_made_anew(life):
    """The other name is the file yet; the new one gets copies of what people attached."""

    async def act(world: World) -> None:
        await hold_all_on_both(world)
        await world.tag("a", "")
        parent = await world.node("")
        await world.core.namespace.link(await world.node("a"), parent, b"c")
        await world.unlink("a", "")
        assert await shown(world) == ["b", "c", "d"]
        await world.make("a", "")
        db = world.core.library.store.db
        rows = {path: entries.get(db, (await world.node(path)).spots[0].entry_id) for path in ("a", "c")}
        assert rows["a"] is not None
        assert rows["c"] is not None
        assert rows["a"].uuid != rows["c"].uuid
        for path in ("a", "c"):
            assert world.core.annotations.tags_of(await world.node(path)) == ["kept"]

    life.live(act)


def test_a_name_that_is_made_behind_the_mount_has_seen_what_left_too(life):
    """The scan finds it as it finds what a kill left without a row."""

    async def act(world: World) -> None:
        await hold_all_on_both(world)
        await world.unlink("a", "")
        (life.disk / "a").write_bytes(b"behind")
        assert await shown(world) == ["a", "b", "d"]
        db = world.core.library.store.db
        row = entries.get(db, (await world.node("a")).spots[0].entry_id)
        assert row is not None
        assert row.uuid == world.rows.uuid_of(world.far, "a")
        assert len(versions.unpack(row.version)) == 2
        assert WHO.uid == row.uid

    life.live(act)
