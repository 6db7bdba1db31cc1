"""The space without a kernel: a real library on real directories, asked as the mount asks it.

For what is hard to time from outside: what happens between two steps of a long one, and what a request meets when a
branch went away a moment ago.
"""

import os
import shutil
import stat
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from index.model.entry import KIND_FILE, Stat
from index.model.errors import NotFound, Stale, Unreachable, VdfsError
from index.model.inode import inode_of
from index.scan import pipeline, recording
from index.scan.inotify import IN_CREATE, Event, Inotify, WatchLimitReached
from index.store import annotating, entries, metadata
from tests.vdfs.job_steps import until
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.space import ground, unplaced
from vdfs.space.attributes import Wanted
from vdfs.space.dirs import DirRef
from vdfs.space.namespace import Caller
from vdfs.space.nodes import Node
from vdfs.space.unplaced import Unplaced


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Runs a test with a library whose location `L` has the branches X and Y."""

    async def with_core(test: Callable[..., Awaitable[None]]) -> None:
        config = Config(tmp_path / "data", tmp_path / "state", tmp_path / "run")
        async with open_core(config, "Library") as core:
            for name in ("X", "Y"):
                (tmp_path / name).mkdir()
                await core.locations.add(os.fsencode(tmp_path / name), b"L")
            await test(core, tmp_path / "X", tmp_path / "Y")

    return lambda test: trio.run(with_core, test)


async def look(core: Core, *path: bytes) -> Node:
    return (await core.tree.resolve([b"L", *path]))[0]


async def names(core: Core, *path: bytes) -> list[bytes]:
    return sorted(line.name for line in await core.tree.listing(await look(core, *path)))


def known_same(core: Core, name: bytes) -> None:
    """As if all replicas of a name had been read, and their bytes were equal."""
    with core.library.store.write("test") as unit:
        unit.db.execute(
            "INSERT INTO content(id, sampled, full, size_bytes) VALUES(1, x'aa', zeroblob(32), 4) "
            "ON CONFLICT DO NOTHING"
        )
        unit.db.execute("UPDATE entry SET content_id=1, hash_state=2 WHERE name=? AND kind=?", (name, KIND_FILE))


async def merged(core: Core, x: Path, y: Path) -> Node:
    """The file `f`, the same on both branches, and known to be."""
    for folder in (x, y):
        (folder / "f").write_bytes(b"same")
    await names(core)
    known_same(core, b"f")
    node = await look(core, b"f")
    assert len(node.spots) == 2
    return node


def test_replicas_that_part_again_are_both_shown(run):
    """They had been one file with one number; the newer version has the name, the older one that of a conflict."""

    async def test(core: Core, x: Path, y: Path) -> None:
        await merged(core, x, y)
        for folder, text, seconds in ((x, b"older", 10), (y, b"newer!", 20)):
            (folder / "f").write_bytes(text)
            os.utime(folder / "f", (2 * 10**9 + seconds,) * 2)
        shown = {line.name: line.node for line in await core.tree.listing(await look(core))}
        assert sorted(shown) == [b"f", b"f (from " + core.tree.slug.encode() + b", X)"]
        nodes = list(shown.values())
        assert len({node.ino for node in nodes}) == 2
        read = {name: (await core.tree.stat(node)).st_size for name, node in shown.items()}
        assert read[b"f"] == len(b"newer!")
        assert sorted(read.values()) == [5, 6]

    run(test)


def test_names_that_were_seen_before_their_directory_was_merged_are_told_with_it(run):
    """The kernel holds the directory, as one branch has it; what the other adds must not stay hidden or old to it."""

    async def test(core: Core, x: Path, y: Path) -> None:
        (x / "d").mkdir()
        (x / "d" / "f").write_bytes(b"x")
        node = await look(core, b"d")
        node.lookups = 1  # as the ledger counts
        (y / "d").mkdir()
        (y / "d" / "f").write_bytes(b"x")
        above = next(p for p in (await look(core)).parts if p.branch.label == "Y")
        with core.tree.dirs.opened(above) as fd:
            seen = core.tree.mend(above, b"d", None, os.stat(b"d", dir_fd=fd))
        assert seen is not None
        ref = core.tree.ref_of(seen.row.id)
        assert ref is not None
        await core.tree.list_part(ref)
        told: list[tuple[str, int | None, bytes]] = []
        core.library.store.feed.at_once(
            lambda commit: told.extend((one.what, one.parent_id, one.name) for one in commit.changes)
        )
        assert await look(core, b"d") is node
        assert len(node.parts) == 2
        assert ("added", seen.row.id, b"f") in told

    run(test)


def test_attributes_are_refused_whole_when_a_branch_has_gone(run):
    """It was there at the last look, a second ago: nothing is changed anywhere, and nobody is told otherwise."""

    async def test(core: Core, x: Path, y: Path) -> None:
        (x / "alone").write_bytes(b"data")
        both, alone = await merged(core, x, y), await look(core, b"alone")
        mode = stat.S_IMODE(os.stat(y / "f").st_mode)
        core.tree.dirs.close_all()
        os.rename(x, x.with_name("away"))
        for node in (alone, both):
            with pytest.raises(Unreachable):
                await core.attributes.set(node, Wanted(mode=0o600, size_bytes=1))
        assert stat.S_IMODE(os.stat(y / "f").st_mode) == mode
        assert (x.with_name("away") / "alone").read_bytes() == b"data"

    run(test)


def test_attributes_leave_an_older_version_alone(run):
    """Also of a hard-linked file, whose node remembers every name it ever had."""

    async def test(core: Core, x: Path, y: Path) -> None:
        await merged(core, x, y)
        for folder in (x, y):
            os.link(folder / "f", folder / f"g{folder.name}")
        await names(core)
        node = await look(core, b"f")
        assert len(node.spots) == 2
        handle, _ = await core.opener.open(node, os.O_WRONLY)
        await handle.write(0, b"other bytes")
        await core.opener.flush(handle)
        handle.close()
        node = await look(core, b"f")
        assert len(node.spots) == 1
        older = next(folder / "f" for folder in (x, y) if (folder / "f").read_bytes() == b"same")
        before = os.stat(older)
        await core.attributes.set(node, Wanted(mode=0o600, atime_ns=10**18, mtime_ns=10**18))
        after = os.stat(older)
        assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
        assert await names(core) == [b"f", b"gX", b"gY"]

    run(test)


def test_a_file_without_a_name_is_truncated_by_what_is_left_of_it(run):
    """By the inode that is kept within reach, or by a descriptor that was opened for something else."""

    async def test(core: Core, x: Path, y: Path) -> None:
        (x / "f").write_bytes(b"12345")
        node = await look(core, b"f")
        await core.namespace.unlink(await look(core), b"f")
        assert (await core.attributes.set(node, Wanted(size_bytes=2))).st_size == 2
        (x / "g").write_bytes(b"12345")
        node = await look(core, b"g")
        handle, _ = await core.opener.open(node, os.O_RDONLY)
        (x / "g").unlink()
        assert (await core.attributes.set(node, Wanted(size_bytes=3))).st_size == 3
        handle.close()

    run(test)


def test_a_directory_that_comes_back_is_there_again_for_who_stands_in_it(run):
    """While it was away it looked empty and removed."""

    async def test(core: Core, x: Path, y: Path) -> None:
        (x / "d").mkdir()
        (x / "d" / "f").write_bytes(b"x")
        node = await look(core, b"d")
        assert await names(core, b"d") == [b"f"]
        outside = x.with_name("outside")
        os.rename(x / "d", outside)
        core.tree.dirs.close_all()
        assert await names(core) == []
        assert (await core.tree.stat(node)).st_nlink == 0
        assert await core.tree.listing(node) == []
        with pytest.raises(NotFound):
            await core.namespace.place_for_new(node)
        os.rename(outside, x / "d")
        assert await names(core) == [b"d"]
        assert (await core.tree.stat(node)).st_nlink > 0
        assert [line.name for line in await core.tree.listing(node)] == [b"f"]

    run(test)


@pytest.mark.parametrize("how", ["gone", "back", "elsewhere", "partly"])
def test_a_large_tree_that_turns_up_while_it_is_taken_out_is_scanned_anew(run, monkeypatch, how):
    """What is there is never taken out to the end, and what was taken out already is found again."""
    monkeypatch.setattr(ground, "_UNIT_ROWS", 10)
    monkeypatch.setattr(ground, "_CLEAR_SLICE", 2)

    async def test(core: Core, x: Path, y: Path) -> None:
        for number in range(4):
            (x / "big" / f"d{number}").mkdir(parents=True)
            for leaf in range(8):
                (x / "big" / f"d{number}" / f"f{leaf}").write_bytes(b"")
        for path in [[b"big"], *([b"big", b"d%d" % n] for n in range(4))]:
            await names(core, *path)
        db = core.library.store.db
        above = next(p for p in (await look(core)).parts if p.branch.label == "X")
        row = entries.child(db, above.entry_id, b"big")
        assert row is not None
        outside = x.with_name("outside")
        os.rename(x / "big", outside)
        anew: list[Any] = []
        core.tree.found_dir = anew.append
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.tree.clear, row, above.branch.uuid)
            await trio.testing.wait_all_tasks_blocked() if how == "gone" else await _steps(12)
            left = sum(1 for _ in entries.subtree(db, row.id)) - 1
            if how == "back":
                os.rename(outside, x / "big")
            elif how == "elsewhere":
                (x / "new").mkdir()
                os.rename(outside, x / "new" / "big")
                await names(core, b"new")
            elif how == "partly":
                folders = entries.subdirectories(db, row.id)
                emptied = min(folders, key=lambda folder: len(entries.children(db, folder[0])))[1]
                os.rename(outside / os.fsdecode(emptied), x / "part")
                await names(core)
        rest = sum(1 for _ in entries.subtree(db, row.id)) - 1
        if how == "gone":
            assert (rest, anew) == (0, [])
            return
        assert 0 < left < 36
        if how == "partly":
            assert b"part" in [ref.name for ref in anew]
            assert len(await names(core, b"part")) == 8
        else:
            assert b"big" in [ref.name for ref in anew]
            assert rest > 0

    run(test)


async def _steps(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


def test_numbers_that_are_new_at_every_mount_prove_nothing(run, monkeypatch):
    """On FAT the inode that has a number today may be any file of yesterday."""

    async def test(core: Core, x: Path, y: Path) -> None:
        (x / "f").write_bytes(b"")
        await look(core, b"f")
        above = next(p for p in (await look(core)).parts if p.branch.label == "X")
        told = partial(core.tree.born_ns, above.entry_id, b"f")
        if told() is None:
            pytest.skip("this file system does not remember when a file was made")
        monkeypatch.setattr(above.branch, "renumbers", True)
        assert told() is None

    run(test)


# -- a listing that takes several turns --------------------------------------------------------------------------------


async def between_units(
    core: Core, node: Node, monkeypatch: pytest.MonkeyPatch, act: Callable[[], Awaitable[None]]
) -> Any:
    """List a large directory, `act` after the first unit of names; returns the names, or what it raised."""
    plain = trio.lowlevel.checkpoint
    turns = 0

    async def checkpoint() -> None:
        nonlocal turns
        turns += 1
        await plain()
        if turns == 1:
            await act()

    monkeypatch.setattr(ground, "_UNIT_ROWS", 5)
    monkeypatch.setattr(ground.trio.lowlevel, "checkpoint", checkpoint)
    try:
        listed = await core.tree.listing(node)
    except (NotFound, OSError, VdfsError) as error:
        return error
    finally:
        monkeypatch.undo()
    assert turns
    return sorted(line.name for line in listed)


def fill(directory: Path) -> None:
    directory.mkdir()
    for number in range(20):
        (directory / f"f{number:02}").write_bytes(b"x")


def test_what_happens_while_a_large_directory_is_listed_is_not_undone(run, monkeypatch):
    """Files are made, saved, renamed, removed in it by others; their rows are what these made them, tags and all."""

    async def test(core: Core, x: Path, _y: Path) -> None:
        fill(x / "d")
        node = await look(core, b"d")
        await core.tree.listing(node)
        tagged = await look(core, b"d", b"f19")
        await core.annotations.change_tag(tagged, "kept", True, "call")
        for path in (x / "d").iterdir():
            path.chmod(0o600)
        (x / "d" / "early").write_bytes(b"e")

        async def act() -> None:
            who = Caller(os.getuid(), os.getgid(), 0o022, os.getpid())
            _, _, fd = await core.namespace.create(node, b"new", os.O_RDWR, 0o644, who)
            os.write(fd, b"saved")
            os.close(fd)
            await core.renames.rename(node, b"new", node, b"f19", 0, 1)
            await core.renames.rename(node, b"f18", node, b"a18", 0, 1)
            await core.namespace.unlink(node, b"f17")
            (x / "d" / "f16").unlink()

        listed = await between_units(core, node, monkeypatch, act)
        there = sorted(os.fsencode(name) for name in os.listdir(x / "d"))
        assert set(there) - set(listed) == {b"a18"}, "made after the directory was read"
        assert set(listed) - set(there) <= {b"f16"}, "removed after it was read"
        assert await names(core, b"d") == there
        saved = await look(core, b"d", b"f19")
        assert core.annotations.tags_of(saved) == ["kept"]
        assert (x / "d" / "f19").read_bytes() == b"saved"

    run(test)


def test_a_directory_that_goes_while_it_is_listed_is_not_there(run, monkeypatch):
    async def test(core: Core, x: Path, _y: Path) -> None:
        fill(x / "d")
        node = await look(core, b"d")

        async def act() -> None:
            shutil.rmtree(x / "d")
            with pytest.raises(NotFound):
                await look(core, b"d")

        assert isinstance(await between_units(core, node, monkeypatch, act), Stale | list)
        with pytest.raises(NotFound):
            await look(core, b"d")

    run(test)


def test_watches_that_a_location_had_are_given_to_the_next(run, monkeypatch):
    """Where the system allows no more, what is beyond is watched as soon as there is room."""

    async def test(core: Core, x: Path, y: Path) -> None:
        for number in range(20):
            (x / f"d{number}").mkdir()
        other = x.parent / "Other"
        (other / "in").mkdir(parents=True)
        add = core.watch._inotify.add

        def limited(path: bytes) -> int:
            if len(core.watch) >= 5:
                raise WatchLimitReached("no more than 5")
            return add(path)

        monkeypatch.setattr(core.watch._inotify, "add", limited)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.watch.run)
            nursery.start_soon(core.watch.cover_all)
            for line in await core.tree.listing(await look(core)):
                await core.tree.listing(line.node)
            await core.locations.add(os.fsencode(other), b"Other")
            (node, _) = await core.tree.resolve([b"Other"])
            await core.tree.listing(node)
            assert len(core.watch) == 5
            assert not core.watch.covers(node)
            await core.locations.remove(b"L")
            with trio.fail_after(10):
                while not core.watch.covers(node):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    run(test)


class Saves:
    """A tagged file that somebody saves behind the mount: put aside over an older backup, and written anew."""

    def __init__(self, core: Core, x: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.core, self.x, self.late_s = core, x, 0.0
        self.mended: Callable[[bytes], None] = lambda name: None
        clock, mend = time.monotonic, core.watch._mend
        monkeypatch.setattr(time, "monotonic", lambda: clock() + self.late_s)

        async def mending(ref: DirRef, name: bytes, was_gone: bool) -> None:
            await mend(ref, name, was_gone)
            self.mended(name)

        monkeypatch.setattr(core.watch, "_mend", mending)

    def put_aside(self) -> None:
        os.rename(self.x / "f", self.x / "f~")
        self.core.watch._gather()

    def write(self, said: bytes) -> None:
        (self.x / "f").write_bytes(said)
        self.core.watch._gather()

    @property
    def tagged(self) -> list[str]:
        db = self.core.library.store.db
        sql = "SELECT e.name FROM tagging g JOIN entry e ON e.uuid = g.entry_uuid ORDER BY e.name"
        return [name.decode() for (name,) in db.execute(sql)]


@pytest.fixture
def saves(run, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Saves], Awaitable[None]]], None]:
    """Runs a test with such a file."""

    async def with_file(test: Callable[[Saves], Awaitable[None]], core: Core, x: Path, y: Path) -> None:
        for name in ("f", "f~"):
            (x / name).write_bytes(b"older")
        await names(core)
        for ref in (await look(core)).parts:
            core.watch.look(ref)
        await core.annotations.change_tag(await look(core, b"f"), "Mine", True, "test")
        saved = Saves(core, x, monkeypatch)
        await core.watch._round()
        assert saved.tagged == ["f"]
        await test(saved)

    return lambda test: run(partial(with_file, test))


def test_a_save_behind_that_is_taken_in_late(saves):
    """The name came anew at once; that the index was busy for long does not make it another file."""

    async def test(file: Saves) -> None:
        file.put_aside()
        await file.core.watch._round()
        file.write(b"new")
        file.late_s = 20.0
        await file.core.watch._round()
        assert file.tagged == ["f"]

    saves(test)


def test_a_name_that_is_put_aside_behind_and_made_much_later_is_another_file(saves):
    async def test(file: Saves) -> None:
        file.put_aside()
        await file.core.watch._round()
        file.late_s = 20.0
        file.write(b"new")
        await file.core.watch._round()
        assert file.tagged == ["f~"]

    saves(test)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("count", range(1, 9))
def test_saves_behind_at_any_time_while_others_are_taken_in(saves, count, apart):
    """A file is saved again and again, a step of it after every so many names that were mended. `apart`: the first
    half of the first save was taken in alone."""

    async def test(file: Saves) -> None:
        steps = [step for number in range(4) for step in (file.put_aside, partial(file.write, b"%d" % number))]
        left, mended = iter(steps), 0
        if apart:
            next(left)()
            await file.core.watch._round()

        def goes_on(name: bytes) -> None:
            nonlocal mended
            mended += 1
            if mended % count == 0 and (step := next(left, None)) is not None:
                step()

        file.mended = goes_on
        while (step := next(left, None)) is not None:
            step()
            await file.core.watch._round()
        await file.core.watch._round()
        assert file.tagged == ["f"]

    saves(test)


class ByWorker:
    """A directory that a worker has watched, as the watch of the process that serves hears of it."""

    def __init__(self, core: Core, ref: DirRef, path: Path) -> None:
        core.watch.forget(ref.entry_id)
        ref.watch = -1
        self.watch, self.ref, self.path = core.watch, ref, path
        self.inode = inode_of(path.stat())
        self.wd = Inotify(core.watch.fd).add(os.fsencode(path))

    def place(self, entry_id: int | None = None, lapses: int = 0) -> None:
        number = self.ref.entry_id if entry_id is None else entry_id
        self.watch.place(number, self.wd, self.inode, lapses)

    @property
    def suspects(self) -> set[bytes] | None:
        """The names to be looked at; None for all."""
        return self.watch._dirty.get(self.ref.entry_id, set())

    @property
    def is_watched(self) -> bool:
        """Whether the kernel tells of it at all."""
        self.watch._gather()
        (self.path / "touched").touch()
        return any(event.wd == self.wd and event.name == b"touched" for event in self.watch._inotify.read())


async def by_worker(core: Core, x: Path) -> ByWorker:
    (x / "d").mkdir()
    (ref,) = (await look(core, b"d")).parts
    return ByWorker(core, ref, x / "d")


def test_what_was_heard_of_a_directory_before_its_row_is_looked_at_with_it(run):
    async def test(core: Core, x: Path, y: Path) -> None:
        found = await by_worker(core, x)
        fresh: list[int] = []
        with core.watch.late_in(found.ref.branch, fresh):
            (x / "d" / "early").touch()
            core.watch._gather()
            assert found.suspects == set()
            found.place()
            assert found.suspects == {b"early"}
            (x / "d" / "late").touch()
            core.watch._gather()
            assert found.suspects == {b"early", b"late"}
            assert found.ref.watch == found.wd
            assert not core.watch.look(found.ref)
        assert fresh == []  # it need not be walked once more

    run(test)


def test_a_directory_that_somebody_saw_before_its_report_is_walked_once_more(run):
    """What was heard of it before may have been of names that had no rows yet."""

    async def test(core: Core, x: Path, y: Path) -> None:
        found = await by_worker(core, x)
        fresh: list[int] = []
        with core.watch.late_in(found.ref.branch, fresh):
            assert core.watch.look(found.ref)
            assert fresh == [found.ref.entry_id]
            found.place()
            assert fresh == [found.ref.entry_id]
        assert core.watch.catching_up == {found.ref.entry_id}

    run(test)


def test_where_events_were_lost_meanwhile_a_directory_is_looked_at_whole(run):
    async def test(core: Core, x: Path, y: Path) -> None:
        found = await by_worker(core, x)
        with core.watch.late_in(found.ref.branch, []):
            before = core.watch.unplaced.lapses
            core.watch._overflow()
            core.watch._dirty.clear()
            found.place(lapses=before)
            assert found.suspects is None

    run(test)


def test_watches_of_what_left_the_library_end_after_a_while(run):
    """Of a directory that was moved out, and of one that a worker watched and never told of."""

    async def test(core: Core, x: Path, y: Path) -> None:
        found = await by_worker(core, x)
        assert core.watch.look(found.ref)
        (x.parent / "never told").mkdir()
        wd = Inotify(core.watch.fd).add(os.fsencode(x.parent / "never told"))
        assert {wd, found.wd} <= core.watch._inotify.watched()
        (x / "d").rename(x.parent / "out")
        with pytest.raises(NotFound):
            await look(core, b"d")
        assert found.wd in core.watch._inotify.watched()  # it may come back
        with core.watch.late_in(found.ref.branch, []):
            await core.watch._sweep()
            assert wd in core.watch._inotify.watched()  # who walks may be about to tell of it
        await core.watch._sweep()
        assert not {wd, found.wd} & core.watch._inotify.watched()
        assert core.watch._inotify.watched() == core.watch._entry_of.keys()
        assert found.ref.watch == -1

    run(test)


@pytest.mark.parametrize("annotated", [{"before"}, {"since"}, {"before", "since"}])
def test_a_file_that_was_listed_where_it_went_before_it_was_known_to_leave_is_itself(run, annotated):
    """A first listing asks for no moves. What was attached to it under either name it carries."""

    async def test(core: Core, x: Path, y: Path) -> None:
        (x / "d").mkdir()
        (x / "f").write_bytes(b"f")
        old = entries.get(core.library.store.db, (await look(core, b"f")).spots[0].entry_id)
        (directory,) = (await look(core, b"d")).parts
        store = core.library.store
        if "before" in annotated:
            with store.write("test") as unit:
                annotating.set_cell(unit, recording.ensure_uuid(unit, old), b"user.note", b"before")
        uuid = entries.get(store.db, old.id).uuid
        (x / "f").rename(x / "d" / "g")
        first = pipeline.WalkState(directory.branch.id, directory.branch.uuid, core.tree, first=True)
        added = [[b"g", tuple(Stat.of((x / "d" / "g").stat())), 0, None]]
        with store.write("test") as unit:
            pipeline.take_report(unit, first, [directory.entry_id, None, 0, added, [], [], [], [], None])
            newer = entries.child(unit.db, directory.entry_id, b"g")
            assert newer.id != old.id
            if "since" in annotated:
                annotating.set_cell(unit, recording.ensure_uuid(unit, newer), b"user.comment", b"since")
        with pytest.raises(NotFound):
            await look(core, b"f")
        row = entries.child(store.db, directory.entry_id, b"g")
        assert (row.id, row.node) == (old.id, old.node)
        assert uuid in (row.uuid, None)
        assert {value.decode() for value in metadata.all_of(store.db, row.uuid).values()} == annotated

    run(test)


def test_a_watch_without_a_row_ends(run):
    async def test(core: Core, x: Path, y: Path) -> None:
        found = await by_worker(core, x)
        assert found.is_watched
        with core.watch.late_in(found.ref.branch, []):
            found.place(0)
        assert not found.is_watched

        other = ByWorker(core, found.ref, found.path)  # one whose report never came
        (found.path / "changed").touch()
        core.watch._gather()
        assert not other.is_watched

    run(test)


def test_what_has_no_row_yet_is_kept_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(unplaced, "_NAMES_MAX", 2)
    kept = Unplaced()
    for name in (b"a", b"b", b"a"):
        kept.add(Event(1, IN_CREATE, 0, name))
    assert [event.name for event in kept.take(1)] == [b"a", b"b"]
    for wd in (1, 2):
        kept.add(Event(wd, IN_CREATE, 0, b"a"))
    assert kept.lapses == 0
    kept.add(Event(2, IN_CREATE, 0, b"b"))
    assert kept.lapses == 1
    assert kept.take(1) == []


def test_idle_is_only_who_has_looked_at_all_that_it_heard(run):
    """What happened behind the mount counts as work that is left, from the moment on that the kernel tells of it until
    the index has it: whoever waits for idle, and asks then, finds it."""

    async def test(core: Core, x: Path, _: Path) -> None:
        branch = next(one for one in core.tree.branches.values() if one.root_path == os.fsencode(x))
        assert core.scanner.watch is not None

        def known() -> int:
            return len(list(entries.children(core.library.store.db, branch.root_entry_id)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(core.scanner.watch.run)
            await names(core)
            with trio.fail_after(20):
                await until(lambda: core.scanner.idle)
                for number in range(2000):
                    (x / f"n{number}").touch()
                assert not core.scanner.idle, "the kernel has told of it, and nobody has looked"
                while not core.scanner.idle:
                    assert known() < 2000 or core.scanner.pending_dirs()
                    await trio.lowlevel.checkpoint()
            assert known() == 2000
            nursery.cancel_scope.cancel()

    run(test)
