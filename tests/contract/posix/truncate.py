"""truncate(2) and ftruncate(2): a new end, zeros beyond the old one, nothing of what was cut off."""

import errno
import mmap
import os
import resource
import signal
from pathlib import Path

from .kit import (
    OTHER,
    Env,
    cases,
    equal,
    fails,
    make,
    mode_of,
    opened,
    pattern,
    read,
    stamps,
    together,
    write,
    write_all,
)

SIZES = (0, 1, 511, 4095, 4096, 4097, 131_071, 131_072, 131_073, 1 << 20)
HUGE = 1 << 62


@cases(size=SIZES, how=("path", "descriptor"))
def check_growing_adds_zeros(root: Path, env: Env, size: int, how: str) -> None:
    write("f", b"head")
    _truncate("f", 4 + size, how)
    equal((os.stat("f").st_size, read("f")), (4 + size, b"head" + bytes(size)))


@cases(size=SIZES, how=("path", "descriptor"))
def check_shrinking_and_growing_brings_nothing_back(root: Path, env: Env, size: int, how: str) -> None:
    data = pattern((1 << 20) + 777)
    write("f", data)
    _truncate("f", size, how)
    equal((os.stat("f").st_size, read("f")), (size, data[:size]))
    _truncate("f", len(data), how)
    equal(read("f"), data[:size] + bytes(len(data) - size))


def _truncate(path: str, size: int, how: str) -> None:
    if how == "path":
        os.truncate(path, size)
    else:
        with opened(path, os.O_RDWR) as fd:
            os.ftruncate(fd, size)


@cases(size=(0, 3, 10, 5000))
def check_truncate_stamps_mtime_and_ctime(root: Path, env: Env, size: int) -> None:
    write("f", b"0123456789")
    with stamps(root, kept="mtime"), stamps("f", moved="ctime"):
        os.truncate("f", size)
    with stamps("f", moved="mtime ctime"), opened("f", os.O_RDWR) as fd:
        os.ftruncate(fd, size + 1)


@cases(kind_and_errno=(("dir", errno.EISDIR), ("fifo", errno.EINVAL), ("socket", errno.EINVAL)))
def check_only_regular_files_can_be_truncated(root: Path, env: Env, kind_and_errno: tuple[str, int]) -> None:
    make(kind_and_errno[0], "x")
    with fails(kind_and_errno[1]):
        os.truncate("x", 0)


def check_a_negative_length_is_einval(root: Path, env: Env) -> None:
    write("f", b"data")
    with fails(errno.EINVAL):
        os.truncate("f", -1)
    with opened("f", os.O_RDWR) as fd, fails(errno.EINVAL):
        os.ftruncate(fd, -1)
    equal(read("f"), b"data")


def check_a_huge_length_is_kept_or_refused(root: Path, env: Env) -> None:
    """Which one depends on the file system's largest file; a size that is neither would be a lie."""
    write("f", b"data")
    try:
        os.truncate("f", HUGE)
    except OSError as error:
        equal(error.errno in (errno.EFBIG, errno.EINVAL), True, f"errno {error.errno}")
        equal((os.stat("f").st_size, read("f")), (4, b"data"))
    else:
        equal(os.stat("f").st_size, HUGE)


def check_a_reading_descriptor_cannot_truncate(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f") as fd, fails(errno.EINVAL, errno.EBADF):
        os.ftruncate(fd, 0)
    equal(read("f"), b"data")


def check_truncate_needs_write_permission(root: Path, env: Env) -> None:
    write("f", b"data")
    with stamps("f", kept="mtime ctime"), fails(errno.EACCES):
        env.as_user(lambda: os.truncate("f", 0))
    os.chmod("f", 0o666)
    env.as_user(lambda: os.truncate("f", 2))
    equal(read("f"), b"da")


def check_a_descriptor_truncates_what_its_mode_no_longer_allows(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f", os.O_RDWR) as fd:
        os.chmod("f", 0o444)
        os.ftruncate(fd, 1)
    equal(read("f"), b"d")


def check_so_does_the_descriptor_of_an_unprivileged_owner(root: Path, env: Env) -> None:
    """ftruncate comes to a FUSE server as SETATTR with a handle: one that asks the mode instead refuses."""
    os.mkdir("open")
    os.chmod("open", 0o777)

    def run() -> int:
        with opened("open/f", os.O_CREAT | os.O_RDWR, 0o400) as fd:
            write_all(fd, b"data")
            os.ftruncate(fd, 1)
            return os.fstat(fd).st_size

    equal(env.as_user(run), 1)


def check_truncate_follows_symlinks(root: Path, env: Env) -> None:
    write("f", b"data")
    os.symlink("f", "link")
    os.truncate("link", 1)
    equal(read("f"), b"d")
    os.symlink("nowhere", "dangling")
    with fails(errno.ENOENT):
        os.truncate("dangling", 0)


def check_a_truncation_shows_on_every_descriptor_at_once(root: Path, env: Env) -> None:
    write("f", pattern(20_000))
    with opened("f", os.O_RDWR) as one, opened("f") as two:
        for size in (15_000, 4096, 100, 9000, 0, 12):
            os.ftruncate(one, size)
            equal(
                (os.fstat(two).st_size, os.stat("f").st_size, len(os.pread(two, 30_000, 0))),
                (size, size, size),
            )


def check_an_unlinked_open_file_can_be_truncated(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        write_all(fd, b"0123456789")
        os.unlink("f")
        os.ftruncate(fd, 4)
        equal((os.fstat(fd).st_size, os.pread(fd, 20, 0)), (4, b"0123"))
        os.ftruncate(fd, 6)
        equal(os.pread(fd, 20, 0), b"0123\0\0")


def check_a_position_beyond_the_new_end_makes_a_hole(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        write_all(fd, b"0123456789")
        os.ftruncate(fd, 2)
        write_all(fd, b"X")
    equal(read("f"), b"01" + bytes(8) + b"X")


def check_truncation_clears_the_tail_of_the_last_page(root: Path, env: Env) -> None:
    write("f", pattern(4096))
    os.truncate("f", 1000)
    os.truncate("f", 4096)
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, 4096) as view:
        equal(view[:], pattern(1000) + bytes(3096))


def check_the_file_size_limit_holds(root: Path, env: Env) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    write("f", b"")
    with fails(errno.EFBIG):
        os.truncate("f", 10_001)
    with opened("f", os.O_WRONLY) as fd, fails(errno.EFBIG):
        os.pwrite(fd, b"x", 10_000)
    equal(os.stat("f").st_size, 0)


def check_truncate_clears_suid_for_other_writers(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"data")
    os.chmod("f", 0o4777)
    env.as_user(lambda: os.truncate("f", 1), uid=OTHER)
    equal((mode_of("f"), read("f")), (0o777, b"d"))


def check_truncations_and_writes_of_many_leave_a_sound_file(root: Path, env: Env) -> None:
    """Every byte is a zero or a writer's at its own place; the size is the length of the content."""
    write("f", b"")

    def work(number: int) -> None:
        with opened("f", os.O_RDWR) as fd:
            for turn in range(60):
                if number == 0:
                    os.ftruncate(fd, turn * 977 % 30_000)
                else:
                    os.pwrite(fd, bytes([number]) * 100, (turn * 3 + number) * 100)

    together(4, work)
    data = read("f")
    equal(os.stat("f").st_size, len(data))
    for place in range(0, len(data), 100):
        allowed = {0} | {number for number in (1, 2, 3) if (place // 100 - number) % 3 == 0}
        assert set(data[place : place + 100]) <= allowed, f"foreign bytes at {place}"
