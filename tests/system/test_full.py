"""The library's own disk is full: the mount lives on, shows all there is, refuses what is new, and follows the disk.

Root only: a small tmpfs holds the library's data, the location lies elsewhere.
"""

import os
import subprocess
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path

import pytest
from PIL import Image

from tests.system.harness import Mounted, errno_of, eventually, names
from tests.system.storm import equals_fresh

TAGS = "user.xdg.tags"


@pytest.fixture
def cramped(library: Mounted, root_only: None) -> Iterator[Mounted]:
    """A library on 10 MiB, mounted with one location of twenty files."""
    library.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "none", str(library.data)], check=True)
    try:
        disk = library.folder("Docs")
        for number in range(20):
            (disk / f"f{number}").write_bytes(b"before")
        library.mount(disk)
        library.wait_idle()
        yield library
    finally:
        library.close()
        subprocess.run(["umount", "-l", str(library.data)], check=False)


def fill(directory: Path, name: str, leave_bytes: int = 0) -> None:
    """Take what room there is, but for some."""
    fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(fd, bytes(1 << 16))
    except OSError as error:
        assert error.errno == ENOSPC
        os.ftruncate(fd, os.fstat(fd).st_size - leave_bytes)
    finally:
        os.close(fd)


def create_until_refused(directory: Path) -> int:
    """Make files until one is refused for want of room; how many were made."""
    for number in range(100_000):
        code = errno_of((directory / f"new{number}").write_bytes, b"new")
        if code:
            assert code == ENOSPC
            return number
    raise AssertionError("nothing was ever refused")


def test_a_full_library_refuses_what_is_new_and_shows_the_rest(cramped):
    """What was refused is not on the disk either. Deleting, renaming, writing, looking and reading go on."""
    shown, disk = cramped.mnt / "Docs", cramped.disk / "Docs"
    fill(cramped.data, "fill")
    made = create_until_refused(shown)
    assert names(shown) == names(disk)
    assert len(names(disk)) == 20 + made
    assert (shown / "f3").read_bytes() == b"before"
    assert errno_of((shown / "d").mkdir) == ENOSPC
    assert errno_of((shown / "l").symlink_to, "f3") == ENOSPC
    assert errno_of(os.mkfifo, shown / "p") == ENOSPC
    assert errno_of(os.link, shown / "f3", shown / "h") == ENOSPC
    assert names(shown) == names(disk)
    (shown / "f0").unlink()
    (shown / "f1").rename(shown / "renamed")
    (shown / "f2").write_bytes(b"written")
    os.setxattr(shown / "f3", TAGS, b"still")
    (disk / "behind").write_bytes(b"behind the mount")
    eventually(lambda: "behind" in names(shown), "what is made behind the mount shows")
    assert names(shown) == names(disk)
    assert (disk / "f2").read_bytes() == b"written"
    (cramped.data / "fill").unlink()
    eventually(lambda: not errno_of((shown / "after").write_bytes, b"room again"), "there is room again")
    cramped.wait_idle()
    cramped.verify("--content")
    cramped.remount()
    assert names(shown) == names(disk)
    assert os.getxattr(shown / "f3", TAGS) == b"still"


def test_not_a_byte_left(cramped):
    """Also the room kept for following is gone. The mount still shows what it knows, and catches up when it can."""
    shown, disk = cramped.mnt / "Docs", cramped.disk / "Docs"
    fill(cramped.data, "fill")
    create_until_refused(shown)
    fill(cramped.data, "fill too")
    for number in range(300):
        (disk / f"behind{number}").write_bytes(b"x")
    (disk / "f5").write_bytes(b"another length")
    (disk / "f6").unlink()
    for number in range(10):
        assert (shown / f"f{number + 10}").read_bytes() == b"before"
    eventually(lambda: not (shown / "f6").exists(), "what is gone is not shown")
    assert cramped.sd_json("status")["pid"] == cramped.pid
    for name in ("fill", "fill too"):
        (cramped.data / name).unlink()
    eventually(lambda: names(shown) == names(disk), "it has caught up", 20)
    eventually(lambda: not errno_of((shown / "after").write_bytes, b"room again"), "there is room again")
    cramped.wait_idle()
    cramped.verify("--content")


@pytest.fixture
def small(library: Mounted, root_only: None) -> Iterator[Mounted]:
    """A library on 64 MiB, mounted, without a location."""
    library.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(library.data)], check=True)
    try:
        library.mount()
        library.wait_idle()
        yield library
    finally:
        library.close()
        subprocess.run(["umount", "-l", str(library.data)], check=False)


def held_up(library: Mounted) -> list[str]:
    """The kinds of the jobs that wait for room."""
    jobs = [job for one in library.sd_json("job", "list")["jobs"] for job in (one["job"], *one["parts"])]
    return [job["kind"] for job in jobs if job["paused_by"] == "no space"]


def test_a_scan_waits_for_room_and_goes_on_by_itself(small):
    """The job says what it waits for; the mount answers; when there is room everything is there."""
    disk = small.folder("Docs")
    for number in range(4000):
        (disk / f"d{number % 50}").mkdir(exist_ok=True)
        (disk / f"d{number % 50}" / f"{'long name ' * 8}{number}").write_bytes(b"%d" % number)
    fill(small.data, "fill", leave_bytes=1 << 19)  # for a location, not for what is in it
    small.sd("location", "add", disk)
    eventually(lambda: held_up(small), "a job waits for room", 30)
    assert (small.mnt / "Docs" / "d0").is_dir()
    assert "paused" in small.sd_fails("status", "--wait-idle", "--timeout", "2", code=1)
    (small.data / "fill").unlink()
    eventually(lambda: not held_up(small), "it goes on by itself", 20)
    equals_fresh(small, disk)


def test_thumbnails_wait_for_room(small):
    """No image is told to be broken for want of room, and none is left out."""
    disk = small.folder("Docs")
    for number in range(60):
        Image.effect_noise((900, 700 + number), 90).save(disk / f"i{number}.png")
    small.sd("location", "add", disk, "--mode", "deep")
    eventually(lambda: list(small.library_dir.glob("sidecars/**/*.webp")), "there is a first thumbnail", 30)
    fill(small.data, "fill")
    eventually(lambda: "thumbnail" in held_up(small), "the thumbnails wait for room", 30)
    (small.data / "fill").unlink()
    eventually(lambda: not held_up(small), "it goes on by itself", 20)
    equals_fresh(small, disk, mode="deep")
