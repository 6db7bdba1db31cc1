"""Volumes without a kernel's help: disks that vanish, tables that change, connections that follow."""

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from index.model.errors import Unreachable
from index.scan.mounts import mounts
from index.store import places, volumes
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.space.branches import LIVE, MISSING

Run = Callable[[Callable[[Core], Awaitable[None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    async def with_core(test: Callable[[Core], Awaitable[None]]) -> None:
        async with open_core(Config(tmp_path / "data", tmp_path / "state", tmp_path / "run"), "Library") as core:
            await test(core)

    return lambda test: trio.run(with_core, test)


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 that is mounted by a loop device."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    image, point = tmp_path / "stick.img", tmp_path / "stick"
    with open(image, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
    point.mkdir()
    done = subprocess.run(["mount", "-o", "loop", str(image), str(point)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no loop devices here: {done.stderr.strip()}")
    (point / "Stick").mkdir()
    (point / "Stick" / "a").write_bytes(b"a")
    yield point
    while subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False).returncode == 0:
        pass


def mirror(sys: Path) -> Path:
    """A sysfs of links to the real one, from which a disk can be taken."""
    for name in ("dev/block", "class/block", "block"):
        (sys / name).mkdir(parents=True)
        for entry in Path("/sys", name).iterdir():
            (sys / name / entry.name).symlink_to(os.path.realpath(entry))
    return sys


def test_a_disk_that_is_pulled_out_while_it_is_mounted(run, stick, tmp_path):
    """Nothing tells of it but sysfs: its volume is offline, its branch refuses at once; both come back with it."""

    async def test(core: Core) -> None:
        core.volumes.sys = mirror(tmp_path / "sys")
        branch = (await core.locations.add(os.fsencode(stick / "Stick"), None)).branch
        await core.volumes.now()
        one = core.volumes.at(branch.root_path)
        assert one is not None
        assert one.found.disk is not None
        assert branch.volume_id == one.row_id is not None
        assert (branch.state, branch.away) == (LIVE, "local")
        name, device = one.found.disk.name, one.found.device
        for link in (f"dev/block/{device}", f"class/block/{name}"):
            (core.volumes.sys / link).unlink()
        core.volumes._look_for_lost()
        await core.volumes.update()
        assert (branch.state, branch.away) == (MISSING, "offline")
        with pytest.raises(Unreachable, match="pulled out"):
            branch.open_root()
        await core.volumes.now()
        told = [one.is_online for one in core.volumes.all() if one.row is not None and one.row.id == branch.volume_id]
        assert told == [False]
        assert branch.away == "offline", "what is left of it in the table of mounts is no other volume"
        for place in ("dev/block", "class/block"):
            entry = device if place == "dev/block" else name
            (core.volumes.sys / place / entry).symlink_to(os.path.realpath(f"/sys/{place}/{entry}"))
        core.volumes._look_for_lost()
        await core.volumes.now()
        assert (branch.state, branch.away) == (LIVE, "local")

    run(test)


def test_a_branch_is_connected_to_the_volume_it_lies_on(run, stick):
    """By path inside the volume; the row goes with the last branch, unless somebody tracks it."""

    async def test(core: Core) -> None:
        added = await core.locations.add(os.fsencode(stick / "Stick"), None)
        await core.volumes.now()
        branch = added.branch
        assert branch.volume_path == b"/Stick"
        row = volumes.get(core.library.store.db, branch.volume_id or 0)
        assert row is not None
        assert row.mount_point == os.fsencode(stick)
        await core.locations.remove(added.name)
        assert volumes.get(core.library.store.db, row.id) is None

    run(test)


@pytest.mark.parametrize("renumbers", [True, False])
def test_a_root_whose_file_system_numbers_anew_is_known_by_its_path(run, stick, monkeypatch, renumbers):
    """FAT makes its inodes up at each mount; elsewhere another inode is another directory."""

    async def test(core: Core) -> None:
        if renumbers:
            monkeypatch.setattr("index.scan.mounts.RENUMBERS", frozenset(["ext4"]))
        branch = (await core.locations.add(os.fsencode(stick / "Stick"), None)).branch
        await core.volumes.now()
        (stick / "new").mkdir()
        (stick / "Stick" / "a").rename(stick / "new" / "a")
        (stick / "Stick").rmdir()
        (stick / "between").mkdir()  # takes the number that is free
        (stick / "other").mkdir()
        (stick / "new").rename(stick / "Stick")
        await core.volumes.now()
        assert branch.state == (LIVE if renumbers else MISSING)
        if renumbers:
            assert branch.root_ino == os.stat(stick / "Stick").st_ino
            (row,) = [row for row in places.branches(core.library.store.db) if row.id == branch.id]
            assert row.root_ino == branch.root_ino
            node, _ = await core.tree.resolve([b"Stick"])
            assert [line.name for line in await core.tree.listing(node)] == [b"a"]

    run(test)


def test_a_table_without_a_volume_makes_it_offline_at_once(run, stick):
    """By text, before anybody was asked."""

    async def test(core: Core) -> None:
        branch = (await core.locations.add(os.fsencode(stick / "Stick"), None)).branch
        await core.volumes.now()
        table = mounts()
        core.volumes.refresh([m for m in table if m.mount_point != os.fsencode(stick)])
        assert branch.is_offline
        core.volumes.refresh(table)
        await core.volumes.update()
        assert not branch.is_offline

    run(test)


def test_many_mounts_are_taken_in_quickly_enough(run, tmp_path):
    """A table of a thousand overlays, as a machine with containers has, is no work: none of them is asked."""

    async def test(core: Core) -> None:
        await core.volumes.now()
        table = mounts()
        first = table[-1]
        more = [
            first._replace(mount_point=b"/c/%d" % n, fs_type="overlay", source="overlay", device=f"0:{9000 + n}", id=n)
            for n in range(1000)
        ]
        core.volumes.refresh([*table, *more])
        await core.volumes.update()
        assert all(one.facts is None for one in core.volumes._present.values() if one.found.source == "overlay")
        core.volumes.refresh(table)

    run(test)
