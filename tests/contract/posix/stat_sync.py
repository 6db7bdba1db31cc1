"""stat(2), statvfs(3), fsync(2): attributes that agree however they are asked; durable bytes."""

import os
import stat
import time
from pathlib import Path

from .kit import (
    ALL_KINDS,
    Env,
    cases,
    equal,
    make,
    next_tick,
    opened,
    pattern,
    read,
    spawn,
    stamps,
    write,
    write_all,
)
from .syscalls import syncfs

FIELDS = (
    "st_mode",
    "st_ino",
    "st_dev",
    "st_nlink",
    "st_uid",
    "st_gid",
    "st_size",
    "st_mtime_ns",
    "st_ctime_ns",
)


def _fields(status: os.stat_result) -> dict[str, int]:
    return {name: getattr(status, name) for name in FIELDS}


@cases(kind=ALL_KINDS)
def check_every_way_to_ask_gives_the_same(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x", 0o640)
    expected = _fields(os.lstat("x"))
    fd = os.open("x", os.O_PATH | os.O_NOFOLLOW)
    equal(_fields(os.fstat(fd)), expected, "by descriptor")
    os.close(fd)
    entry = next(entry for entry in os.scandir(".") if entry.name == "x")
    equal(_fields(entry.stat(follow_symlinks=False)), expected, "by directory entry")
    equal(_fields(spawn(lambda: os.lstat("x")).result()), expected, "by another process")
    equal(_fields(os.lstat(root / "x")), expected, "by absolute path")


def check_numbers_of_living_files_differ(root: Path, env: Env) -> None:
    for number in range(200):
        make(("regular", "dir", "symlink", "fifo", "socket")[number % 5], f"x{number}")
    equal(len({os.lstat(entry.path).st_ino for entry in os.scandir(".")}), 200, "different inode numbers")


def check_a_number_stays_over_changes(root: Path, env: Env) -> None:
    os.mkdir("d")
    write("f", b"")
    inode = os.lstat("f").st_ino
    write("f", pattern(10_000))
    os.chmod("f", 0o600)
    os.rename("f", "d/g")
    os.rename("d", "e")
    os.link("e/g", "h")
    os.unlink("e/g")
    os.truncate("h", 3)
    equal(os.lstat("h").st_ino, inode)


def check_the_device_is_the_same_in_the_whole_tree(root: Path, env: Env) -> None:
    os.makedirs("a/b")
    write("a/b/f", b"")
    equal({os.lstat(path).st_dev for path in (".", "a", "a/b", "a/b/f")}, {os.stat(root).st_dev})


@cases(length=(1, 100, 4096, 100_000))
def check_a_write_shows_in_size_and_times_at_once(root: Path, env: Env, length: int) -> None:
    with opened("f", os.O_CREAT | os.O_WRONLY) as fd:
        for turn in range(1, 6):
            with stamps("f", moved="mtime ctime"):
                write_all(fd, pattern(length))
            equal((os.stat("f").st_size, os.fstat(fd).st_size), (turn * length, turn * length))
            equal(spawn(lambda: os.stat("f").st_size).result(), turn * length, "size in another process")


def check_times_do_not_move_by_themselves(root: Path, env: Env) -> None:
    """What close, fsync and a later look find is what the last change left."""
    with opened("f", os.O_CREAT | os.O_WRONLY) as fd:
        write_all(fd, pattern(100_000))
        before = os.fstat(fd)
        next_tick()
        os.fsync(fd)
    with opened("f") as fd:
        read("f")
    after = os.stat("f")
    equal((after.st_mtime_ns, after.st_ctime_ns), (before.st_mtime_ns, before.st_ctime_ns))


def check_times_lie_in_the_present(root: Path, env: Env) -> None:
    start_ns = next_tick()
    write("f", b"data")
    end_ns = max(next_tick(), time.time_ns())  # since Linux 6.13 stamps may be finer than the clock of ticks
    status = os.stat("f")
    seen = {
        "mtime": status.st_mtime_ns,
        "ctime": status.st_ctime_ns,
        "mtime of the parent": os.stat(".").st_mtime_ns,
    }
    for name, value_ns in seen.items():
        assert start_ns <= value_ns <= end_ns, (
            f"{name} is {value_ns - start_ns} ns after the start, {end_ns - start_ns} the end"
        )


def check_the_kind_of_the_root_is_a_directory(root: Path, env: Env) -> None:
    status = os.stat(root)
    assert stat.S_ISDIR(status.st_mode)
    assert status.st_nlink >= 1, "a directory without links"
    assert status.st_blksize >= 512, "an odd block size"


def check_statvfs_is_plausible(root: Path, env: Env) -> None:
    with opened(root) as fd:
        for facts in (os.statvfs(root), os.fstatvfs(fd)):
            assert facts.f_bsize >= 512, "block size"
            assert facts.f_frsize >= 512, "fragment size"
            assert 0 <= facts.f_bavail <= facts.f_bfree <= facts.f_blocks, "free blocks beyond all blocks"
            assert facts.f_ffree <= facts.f_files, "free inodes beyond all inodes"
            assert facts.f_namemax >= 255, "names shorter than 255"
            assert facts.f_blocks > 0, "no blocks: programs will refuse to write"
            assert facts.f_bavail > 0, "no free blocks: programs will refuse to write"


@cases(call=("fsync", "fdatasync"))
def check_bytes_are_there_after_sync(root: Path, env: Env, call: str) -> None:
    sync = getattr(os, call)
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        for turn in range(3):
            write_all(fd, pattern(50_000, turn + 1))
            sync(fd)
            equal(os.pread(fd, 50_000, turn * 50_000), pattern(50_000, turn + 1))
    with opened("f") as fd:
        sync(fd)  # a reader may ask as well


def check_a_directory_can_be_synced(root: Path, env: Env) -> None:
    os.mkdir("d")
    write("d/f", b"data")
    with opened("d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)
        os.fdatasync(fd)


def check_an_unlinked_file_can_be_synced(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        write_all(fd, b"data")
        os.unlink("f")
        os.fsync(fd)


def check_the_file_system_can_be_synced(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f") as fd:
        syncfs(fd)
    equal(read("f"), b"data")


def check_advice_is_taken(root: Path, env: Env) -> None:
    write("f", pattern(100_000))
    with opened("f") as fd:
        for advice in (
            os.POSIX_FADV_SEQUENTIAL,
            os.POSIX_FADV_WILLNEED,
            os.POSIX_FADV_DONTNEED,
            os.POSIX_FADV_RANDOM,
        ):
            os.posix_fadvise(fd, 0, 0, advice)
        equal(os.pread(fd, 100_000, 0), pattern(100_000))
