"""The flags of open(2), each with what it promises and what it refuses."""

import errno
import mmap
import os
from pathlib import Path

from .kit import (
    Env,
    cases,
    equal,
    fails,
    make,
    mode_of,
    opened,
    pattern,
    read,
    read_all,
    stamps,
    write,
    write_all,
)


def check_o_trunc_empties_and_stamps(root: Path, env: Env) -> None:
    write("f", b"x" * 10_000)
    inode = os.lstat("f").st_ino
    with stamps("f", moved="mtime ctime"):
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
    equal((os.lstat("f").st_size, os.lstat("f").st_ino, read("f")), (0, inode, b""))


def check_o_trunc_stamps_an_empty_file(root: Path, env: Env) -> None:
    write("f", b"")
    with stamps("f", moved="mtime ctime"):
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))


def check_o_trunc_keeps_mode_and_second_name(root: Path, env: Env) -> None:
    write("f", b"data")
    os.chmod("f", 0o751)
    os.link("f", "g")
    os.close(os.open("f", os.O_RDWR | os.O_TRUNC))
    equal((mode_of("g"), os.lstat("g").st_size, os.lstat("g").st_nlink), (0o751, 0, 2))


def check_o_trunc_is_seen_by_a_descriptor_opened_before(root: Path, env: Env) -> None:
    write("f", b"old bytes")
    with opened("f") as fd:
        os.close(os.open("f", os.O_WRONLY | os.O_TRUNC))
        equal((os.fstat(fd).st_size, os.pread(fd, 10, 0)), (0, b""))


def check_o_trunc_without_permission_truncates_nothing(root: Path, env: Env) -> None:
    write("f", b"kept")
    with fails(errno.EACCES):
        env.as_user(lambda: os.open("f", os.O_WRONLY | os.O_TRUNC))
    equal(read("f"), b"kept")


@cases(kind=("regular", "fifo", "socket", "symlink"))
def check_o_directory_refuses_what_is_none(root: Path, env: Env, kind: str) -> None:
    make(kind, root / "x")
    if kind == "symlink":
        write("file", b"")
        os.unlink("x")
        os.symlink("file", "x")
    with fails(errno.ENOTDIR):
        os.open("x", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)


def check_o_directory_follows_a_symlink_to_a_directory(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    with opened("link", os.O_RDONLY | os.O_DIRECTORY) as fd:
        equal(os.fstat(fd).st_ino, os.lstat("d").st_ino, "inode")


def check_o_nofollow_refuses_a_symlink_at_the_end_only(root: Path, env: Env) -> None:
    os.mkdir("d")
    write("d/f", b"data")
    os.symlink("d", "linkdir")
    os.symlink("d/f", "linkfile")
    with fails(errno.ELOOP):
        os.open("linkfile", os.O_RDONLY | os.O_NOFOLLOW)
    with opened("linkdir/f", os.O_RDONLY | os.O_NOFOLLOW) as fd:
        equal(read_all(fd), b"data")


@cases(
    flags=(
        "O_WRONLY",
        "O_RDWR",
        "O_WRONLY|O_TRUNC",
        "O_RDONLY|O_CREAT",
        "O_WRONLY|O_CREAT",
        "O_RDWR|O_APPEND",
    )
)
def check_a_directory_cannot_be_opened_for_writing(root: Path, env: Env, flags: str) -> None:
    os.mkdir("d")
    with fails(errno.EISDIR):
        os.open("d", _flags(flags))


def _flags(words: str) -> int:
    value = 0
    for word in words.split("|"):
        value |= int(getattr(os, word))
    return value


def check_reading_a_directory_descriptor_is_eisdir(root: Path, env: Env) -> None:
    with opened(root) as fd, fails(errno.EISDIR):
        os.read(fd, 10)


def check_o_append_writes_at_the_end_wherever_the_position_is(root: Path, env: Env) -> None:
    write("f", b"start")
    with opened("f", os.O_RDWR | os.O_APPEND) as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"+1")
        os.lseek(fd, 2, os.SEEK_SET)
        os.write(fd, b"+2")
    equal(read("f"), b"start+1+2")


@cases(length=(4096, 8192, 1 << 20))
def check_o_direct_moves_whole_blocks(root: Path, env: Env, length: int) -> None:
    data = pattern(length)
    with mmap.mmap(-1, length) as aligned:
        aligned[:] = data
        with opened("f", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as fd:
            equal(os.write(fd, aligned), length, "bytes written")
        equal(read("f"), data, "buffered read")
        aligned[:] = bytes(length)
        with opened("f", os.O_RDONLY | os.O_DIRECT) as fd:
            equal(os.readv(fd, [aligned]), length, "bytes read")
        equal(aligned[:], data, "direct read")


def check_o_direct_and_buffered_writes_see_each_other(root: Path, env: Env) -> None:
    with mmap.mmap(-1, 4096) as aligned, opened("f", os.O_RDWR | os.O_CREAT) as buffered:
        write_all(buffered, b"a" * 8192)
        with opened("f", os.O_RDWR | os.O_DIRECT) as direct:
            os.preadv(direct, [aligned], 4096)
            equal(aligned[:], b"a" * 4096, "direct read of buffered bytes")
            aligned[:] = b"b" * 4096
            os.pwritev(direct, [aligned], 4096)
        equal(os.pread(buffered, 8192, 0), b"a" * 4096 + b"b" * 4096, "buffered read of direct bytes")


def check_o_path_names_but_does_not_read(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f", os.O_PATH) as fd:
        equal(os.fstat(fd).st_size, 4)
        with fails(errno.EBADF):
            os.read(fd, 1)
        with opened(f"/proc/self/fd/{fd}") as again:
            equal(read_all(again), b"data")


def check_an_open_file_can_be_reopened_after_its_name_is_gone(root: Path, env: Env) -> None:
    with opened("f", os.O_RDWR | os.O_CREAT) as fd:
        write_all(fd, b"data")
        os.unlink("f")
        with opened(f"/proc/self/fd/{fd}") as again:
            equal(read_all(again), b"data")


def check_o_noatime_is_for_the_owner(root: Path, env: Env) -> None:
    write("f", b"")
    with fails(errno.EPERM):
        env.as_user(lambda: os.open("f", os.O_RDONLY | os.O_NOATIME))
    os.close(os.open("f", os.O_RDONLY | os.O_NOATIME))


@cases(flag=("O_SYNC", "O_DSYNC"))
def check_synchronous_writes_arrive(root: Path, env: Env, flag: str) -> None:
    with opened("f", os.O_CREAT | os.O_WRONLY | _flags(flag)) as fd:
        write_all(fd, pattern(10_000))
    equal(read("f"), pattern(10_000))
