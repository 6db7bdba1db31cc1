"""The poker by itself: who watches what, and that it does nothing where nobody knows it."""

import os
from pathlib import Path
from typing import Any

import pytest

from fusefs import poker
from fusefs.kernel import poking
from index.model.entry import KIND_FILE
from index.scan import inotify
from tests.system.watcher import watching


class Calling:
    """What an operation may ask: nobody stops it."""

    def stopped(self) -> bool:
        return False


def watched(device: int) -> set[int]:
    told = poker.watched({"device": device, "shared": False}, Calling())  # type: ignore[arg-type]
    return set(told["inodes"])


def test_what_other_processes_watch_is_seen(tmp_path: Path) -> None:
    """Directories and files, by device and number."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "other").mkdir()
    st = tmp_path.stat()
    with watching(tmp_path, tmp_path / "file"):
        assert {st.st_ino, (tmp_path / "file").stat().st_ino} <= watched(st.st_dev)
        assert (tmp_path / "other").stat().st_ino not in watched(st.st_dev)
        assert st.st_ino not in watched(os.makedev(0, 999_999))
    assert st.st_ino not in watched(st.st_dev)


def test_a_line_of_the_kernel_is_read_as_it_stands(tmp_path: Path) -> None:
    """Numbers are hexadecimal; the device is the kernel's own number."""
    lines = (
        "pos:\t0\nflags:\t02004000\n"
        "inotify wd:2 ino:10000000000002a sdev:2d mask:fce ignored_mask:0 fhandle-bytes:8 fhandle-type:1\n"
        "inotify wd:1 ino:2 sdev:800003 mask:800fce ignored_mask:0\n"
    )
    (tmp_path / "7").write_text(lines)
    assert poker._watched_by(str(tmp_path / "7"), 0x2D) == {0x10000000000002A}
    assert poker._watched_by(str(tmp_path / "7"), 8 << 20 | 3) == {2}


def poke(top: Path, device: int, pokes: list[list[Any]], greeting: bytes) -> int | None:
    arguments = {"mountpoint": os.fsencode(top), "device": device, "greeting": greeting, "pokes": pokes}
    return poker.poke(arguments, Calling())  # type: ignore[arg-type]


@pytest.fixture
def pokes(tmp_path: Path) -> list[list[Any]]:
    (tmp_path / "old").write_bytes(b"old")
    ino = tmp_path.stat().st_ino
    return [
        [poking.CREATE, ino, [], b"new", 0o100600], [poking.REMOVE, ino, [], b"old", KIND_FILE],
        [poking.MOVE, ino, [], b"old", ino, [], b"older"], [poking.WRITE, ino, [], b"old", 0o100600],
        [poking.TOUCH, ino, [], b"old"], [poking.TOUCH_DIRECTORY, ino, []],
    ]  # fmt: skip


@pytest.mark.parametrize("is_there", [True, False])
def test_nothing_is_done_where_nobody_knows_the_poker(tmp_path: Path, pokes: list[list[Any]], is_there: bool) -> None:
    """Such as under a mount point whose mount is gone; nor on another device, whoever answers there."""
    if is_there:
        (tmp_path / "greeting").write_bytes(b"")
    before = (sorted(os.listdir(tmp_path)), tmp_path.stat().st_mtime_ns, (tmp_path / "old").stat().st_mtime_ns)
    device = tmp_path.stat().st_dev + (1 if is_there else 0)
    assert poke(tmp_path, device, pokes, b"greeting") is None
    assert (sorted(os.listdir(tmp_path)), tmp_path.stat().st_mtime_ns, (tmp_path / "old").stat().st_mtime_ns) == before


def test_nothing_is_done_in_another_directory_than_the_one_that_is_meant(tmp_path: Path) -> None:
    """One that was put in its place, or a link to one."""
    (tmp_path / "greeting").write_bytes(b"")
    (tmp_path / "meant").mkdir()
    ino = (tmp_path / "meant").stat().st_ino
    (tmp_path / "meant").rename(tmp_path / "moved")
    (tmp_path / "meant").mkdir()
    (tmp_path / "link").symlink_to("moved")
    wanted = [[poking.CREATE, ino, [b"meant"], b"new", 0o100600], [poking.CREATE, ino, [b"link"], b"new", 0o100600]]
    assert poke(tmp_path, tmp_path.stat().st_dev, wanted, b"greeting") == 0
    assert [os.listdir(tmp_path / name) for name in ("meant", "moved")] == [[], []]


def test_each_poke_is_the_system_call_that_it_stands_for(tmp_path: Path, pokes: list[list[Any]]) -> None:
    """Here nobody answers in the kernel's stead, so all of them happen."""
    (tmp_path / "greeting").write_bytes(b"")
    with inotify.Inotify() as watch:
        watch.add(os.fsencode(tmp_path))
        order = [pokes[number] for number in (0, 3, 4, 5, 2)]
        assert poke(tmp_path, tmp_path.stat().st_dev, order, b"greeting") == len(order)
        seen = [(event.mask & 0xFFF, event.name) for event in watch.read()]
    assert seen == [
        (inotify.IN_CREATE, b"new"), (inotify.IN_CLOSE_WRITE, b"new"), (inotify.IN_MODIFY, b"old"),
        (inotify.IN_CLOSE_WRITE, b"old"), (inotify.IN_ATTRIB, b"old"), (inotify.IN_ATTRIB, b""),
        (inotify.IN_MOVED_FROM, b"old"), (inotify.IN_MOVED_TO, b"older"),
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == ["greeting", "new", "older"]
