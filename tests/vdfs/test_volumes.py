"""Volumes without a kernel's help: disks that vanish, tables that change, connections that follow."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from index.model.errors import Busy, Unreachable
from index.scan.mounts import Mount, mount_of, mounts
from index.store import places, volumes
from index.volumes.detect import Found
from index.volumes.measure import Facts
from index.volumes.unmount import is_held
from tests.system.harness import eventually
from tests.vdfs.test_branches import open_below
from vdfs.base.config import Config
from vdfs.core import open_core
from vdfs.ops.context import Core
from vdfs.space import ejection
from vdfs.space import volumes as volumes_module
from vdfs.space.branches import LIVE, MISSING
from vdfs.space.halts import Halts
from vdfs.space.mountwatch import MountWatch

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
        await core.volumes.now()
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


def test_an_encrypted_stick_that_is_pulled_out(run, stick, tmp_path):
    """The mapped device stays; the disk below it is looked for, and what it was like is not forgotten meanwhile."""

    async def test(core: Core) -> None:
        sys = core.volumes.sys = tmp_path / "sys"
        at = mount_of(os.fsencode(stick), mounts())
        assert at is not None
        mapped, disk = sys / "devices/virtual/block/dm-0", sys / "devices/pci/usb1/sdz"
        for place in (mapped / "slaves", disk / "queue", sys / "dev/block", sys / "class/block"):
            place.mkdir(parents=True)
        (disk / "queue/rotational").write_text("1\n")
        (mapped / "slaves/sdz").symlink_to(disk)
        (sys / "dev/block" / at.device).symlink_to(mapped)
        for one in (mapped, disk):
            (sys / "class/block" / one.name).symlink_to(one)
        branch = (await core.locations.add(os.fsencode(stick / "Stick"), None)).branch
        await core.volumes.now()
        before = core.volumes.at(branch.root_path)
        assert before is not None
        assert before.found.disk is not None
        assert before.found.disk.rotational
        shutil.rmtree(disk)
        (sys / "class/block/sdz").unlink()
        core.volumes._look_for_lost()
        await core.volumes.now()
        assert (branch.state, branch.away) == (MISSING, "offline")
        after = core.volumes.at(branch.root_path)
        assert after is before
        assert after.found.disk is not None
        assert after.found.disk.rotational

    run(test)


@contextlib.contextmanager
def covered(place: Path) -> Iterator[None]:
    """Another file system is mounted there for a while."""
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_who_is_told_of_mounts_and_fails_stops_nobody(run, stick, caplog):
    """What must not be looked at any more is let go first, and no request hears of it."""

    async def test(core: Core) -> None:
        def fail(table: list[Mount]) -> None:
            raise PermissionError(13, "Permission denied", "/sys/dev/block")

        home = stick.parent / "home"
        (home / "in").mkdir(parents=True)
        branch = (await core.locations.add(os.fsencode(home), None)).branch
        with contextlib.closing(MountWatch(core.tree, core.watch, core.locations)) as watched:
            watched.added(branch)
            watched.changed = fail
            with covered(home / "in"):
                core.tree.dirs.before_reach()
            assert watched._changed == [(branch, os.fsencode(home / "in"))]
        assert "could not be taken in" in caplog.text

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
        await core.volumes.now()
        assert not branch.is_offline

    run(test)


def test_a_change_that_a_request_found_is_acted_upon(run, stick):
    """Whoever looks first only notes that a branch is away; what follows from it happens all the same, once."""

    async def test(core: Core) -> None:
        branch = (await core.locations.add(os.fsencode(stick / "Stick"), None)).branch
        await core.volumes.now()
        core.tree.dirs.fd(core.tree.dirs.root(branch))
        (stick / "Stick").rename(stick / "elsewhere")
        assert core.tree.check(branch), "as a lookup does"
        assert branch.state == MISSING
        assert open_below(stick) != []
        assert await core.presence.look(branch)
        assert open_below(stick) == [], "descriptors are let go"
        assert not await core.presence.look(branch)
        (stick / "elsewhere").rename(stick / "Stick")
        assert core.tree.check(branch)
        assert await core.presence.look(branch)
        assert not core.indexing.idle, "it is walked"

    run(test)


def test_what_reads_a_branch_is_stopped_from_outside():
    """It ends as Unreachable there; what reads another branch goes on, and what begins later too."""

    async def main() -> None:
        halts = Halts()
        ended: list[int] = []

        async def read(branch: int) -> None:
            try:
                with halts.on(branch):
                    await trio.sleep_forever()
            except Unreachable:
                ended.append(branch)

        async with trio.open_nursery() as nursery:
            for branch in (1, 1, 2):
                nursery.start_soon(read, branch)
            await trio.testing.wait_all_tasks_blocked()
            halts.stop(1)
            await trio.testing.wait_all_tasks_blocked()
            assert ended == [1, 1]
            with halts.on(1):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        assert ended == [1, 1], "who is cancelled by somebody else is not told of a volume"

    trio.run(main)


def test_what_is_in_memory_is_not_asked(run, tmp_path):
    """A machine with containers has hundreds of overlays that come and go: each is named by text alone."""

    async def test(core: Core) -> None:
        await core.volumes.now()
        table = mounts()
        more = [
            Mount(b"/c/%d" % n, "overlay", "overlay", f"0:{9000 + n}", n)
            for n in range(100)
        ]  # fmt: skip
        core.volumes.refresh([*table, *more])
        mine = [one for one in core.volumes._present.values() if one.found.mount_point.startswith(b"/c/")]
        assert len(mine) == 100
        assert all(one.print is not None and one.print.is_ephemeral for one in mine)
        assert not core.volumes._unasked
        core.volumes.refresh(table)
        assert not any(one.found.mount_point.startswith(b"/c/") for one in core.volumes._present.values())

    run(test)


def test_a_server_that_hangs_keeps_no_disk_waiting(run, stick, monkeypatch):
    """A stick that is plugged in meanwhile is known at once."""

    async def test(core: Core) -> None:
        real, hanging = volumes_module.measure, threading.Event()

        def ask(found: Found) -> Facts:
            if found.is_slow:
                hanging.wait(20)
            return real(found)

        monkeypatch.setattr(volumes_module, "measure", ask)
        table = mounts()
        server = table[0]._replace(mount_point=b"/net", fs_type="nfs4", source="nas:/x", device="0:999", id=99999)
        here = os.fsencode(stick)
        try:
            async with trio.open_nursery() as nursery:
                core.volumes.refresh([*(m for m in table if m.mount_point != here), server])
                nursery.start_soon(core.volumes.run)
                await trio.testing.wait_all_tasks_blocked()
                core.volumes.refresh([*table, server])
                with trio.fail_after(volumes_module.ASK_DEADLINE_S / 2):
                    while (one := core.volumes.at(here)) is None or one.print is None:  # noqa: ASYNC110
                        await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        finally:
            hanging.set()

    run(test)


# -- ejecting ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def sleeping(*command: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that does nothing but be there."""
    process = subprocess.Popen([*command, "sleep", "60"], **more)
    try:
        until_s = time.monotonic() + 10
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n" and time.monotonic() < until_s:
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait(10)


@contextlib.contextmanager
def bound(source: Path, place: Path) -> Iterator[Path]:
    """It is mounted at another place as well."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "--bind", str(source), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)


def is_mounted(place: Path) -> bool:
    return any(mount.mount_point == os.fsencode(place) for mount in mounts())


async def eject(core: Core, place: Path) -> list[bytes]:
    await core.volumes.now()
    at = core.volumes.at(os.fsencode(place))
    (volume,) = [one for one in core.volumes.all() if one.present is at is not None]
    return await core.ejector.eject(volume)


@pytest.mark.parametrize("elsewhere", ["namespace", "hidden"])
def test_what_is_still_mounted_elsewhere_is_not_to_be_pulled(run, stick, elsewhere):
    """Nothing of it is seen, and it is in use all the same: who has it is told, and what it lacked is there."""
    above = stick.parent / "above"

    @contextlib.contextmanager
    def there() -> Iterator[str]:
        if elsewhere == "namespace":
            alone = ("unshare", "--mount", "--propagation", "private")
            tried = subprocess.run([*alone, "true"], capture_output=True, text=True, check=False)
            if tried.returncode:  # in a chroot, say, whose root is no mount
                pytest.skip(f"no mount namespace of its own: {tried.stderr.strip()}")
            with sleeping(*alone) as process:
                yield rf"mounted at {stick} in the mount namespace of sleep \({process.pid}\)"
            return
        above.mkdir()
        with bound(stick, above / "sub"), covered(above):
            yield f"mounted at {above}/sub, where something else hides it"

    async def test(core: Core) -> None:
        with there() as said:
            (stick / "late").write_bytes(b"written a moment ago" * 1000)
            with pytest.raises(Busy, match=f"unmounted from {stick}, but must not be pulled yet: it is still {said}"):
                await eject(core, stick)
            assert not is_mounted(stick)
            assert b"written a moment ago" * 100 in (stick.parent / "stick.img").read_bytes()

    run(test)


def test_of_several_places_none_goes_before_all_can(run, stick):
    """Somebody stands at the one that would be the last to go: all are as they were."""

    async def test(core: Core) -> None:
        with bound(stick, stick.parent / "bound") as other:
            for place in (stick, other):
                with sleeping(cwd=place / "Stick") as process, pytest.raises(Busy) as raised:
                    await eject(core, stick)
                assert f"sleep ({process.pid}) holds {place}/Stick" in str(raised.value)
                assert "already" not in str(raised.value)
                assert (is_mounted(stick), is_mounted(other)) == (True, True)
            with bound(stick, stick / "Stick") as inside:
                assert len(await eject(core, stick)) == 3
            assert not any(map(is_mounted, (stick, other, inside)))

    run(test)


def test_what_was_unmounted_before_it_failed_is_said(run, stick, monkeypatch):
    """Not every user can ask before."""

    async def test(core: Core) -> None:
        monkeypatch.setattr(ejection, "is_held", lambda _: False)
        with bound(stick, stick.parent / "bound") as other, sleeping(cwd=stick / "Stick"):
            with pytest.raises(Busy, match=f"sleep .* holds .*; it was unmounted from {other} already"):
                await eject(core, stick)
            assert (is_mounted(stick), is_mounted(other)) == (True, False)

    run(test)


def test_asking_whether_a_place_is_held_changes_nothing(stick):
    """However often."""
    at = mount_of(os.fsencode(stick), mounts())
    assert at is not None

    def rests() -> bool:  # another library's process may look at this stick for a moment, as it does at each
        return [is_held(at) for _ in range(3)] == [False] * 3

    eventually(rests, "nobody holds it")
    with open(stick / "Stick" / "a", "rb"):
        assert is_held(at)
    eventually(rests, "nobody holds it any more")
    assert is_mounted(stick)
