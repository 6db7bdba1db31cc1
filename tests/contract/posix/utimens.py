"""utimensat(2): times to the nanosecond, each one alone, in any century."""

import errno
import os
from pathlib import Path

from .kit import (
    ALL_KINDS,
    OTHER,
    THIRD,
    Env,
    cases,
    equal,
    fails,
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
from .syscalls import UTIME_NOW, UTIME_OMIT, utimensat

NS = 10**9
OMIT, NOW = (0, UTIME_OMIT), (0, UTIME_NOW)
YEAR_1960, YEAR_2100 = -315_619_200, 4_102_444_800


def _times(path: str | int) -> tuple[int, int]:
    status = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    return status.st_atime_ns, status.st_mtime_ns


@cases(kind=ALL_KINDS)
def check_both_times_of_every_kind_are_set(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with stamps(root, kept="mtime"), stamps("x", moved="ctime"):
        utimensat("x", (1_111_111_111, 123_456_789), (1_222_222_222, 987_654_321), follow_symlinks=False)
    equal(_times("x"), (1_111_111_111_123_456_789, 1_222_222_222_987_654_321))


@cases(ns=(0, 1, 9, 99, 100, 999_999, 1_000_000, 123_456_789, 999_999_999))
def check_nanoseconds_are_kept(root: Path, env: Env, ns: int) -> None:
    write("f", b"")
    utimensat("f", (1_500_000_000, ns), (1_600_000_000, ns))
    equal(_times("f"), (1_500_000_000 * NS + ns, 1_600_000_000 * NS + ns))


@cases(second=(0, 1, -1, YEAR_1960, -(2**31) + 1, 2**31 - 1, 2**31, YEAR_2100, 2**32 + 5), ns=(0, 123_456_789))
def check_years_from_before_1970_to_after_2038_are_kept(root: Path, env: Env, second: int, ns: int) -> None:
    write("f", b"")
    utimensat("f", (second, ns), (second, ns))
    equal(_times("f"), (second * NS + ns, second * NS + ns))


def check_omit_leaves_the_access_time(root: Path, env: Env) -> None:
    write("f", b"")
    utimensat("f", (1000, 1), (2000, 2))
    with stamps("f", moved="ctime", kept="atime"):
        utimensat("f", OMIT, (3000, 3))
    equal(_times("f"), (1000 * NS + 1, 3000 * NS + 3))


def check_omit_leaves_the_modification_time(root: Path, env: Env) -> None:
    write("f", b"")
    utimensat("f", (1000, 1), (2000, 2))
    with stamps("f", moved="ctime", kept="mtime"):
        utimensat("f", (3000, 3), OMIT)
    equal(_times("f"), (3000 * NS + 3, 2000 * NS + 2))


def check_omit_of_both_changes_nothing(root: Path, env: Env) -> None:
    write("f", b"")
    utimensat("f", (1000, 1), (2000, 2))
    with stamps("f", kept="ctime mtime atime"):
        utimensat("f", OMIT, OMIT)


def check_now_sets_the_access_time_alone(root: Path, env: Env) -> None:
    write("f", b"")
    utimensat("f", (1000, 1), (2000, 2))
    with stamps("f", moved="atime ctime", kept="mtime"):
        utimensat("f", NOW, OMIT)


def check_now_sets_the_modification_time_alone(root: Path, env: Env) -> None:
    write("f", b"")
    utimensat("f", (1000, 1), (2000, 2))
    with stamps("f", moved="mtime ctime", kept="atime"):
        utimensat("f", OMIT, NOW)


def check_now_beside_a_given_time(root: Path, env: Env) -> None:
    write("f", b"")
    with stamps("f", moved="mtime ctime"):
        utimensat("f", (1000, 1), NOW)
    equal(_times("f")[0], 1000 * NS + 1)
    with stamps("f", moved="atime ctime"):
        utimensat("f", NOW, (2000, 2))
    equal(_times("f")[1], 2000 * NS + 2)


def check_now_for_both(root: Path, env: Env) -> None:
    write("f", b"")
    utimensat("f", (1000, 1), (2000, 2))
    with stamps("f", moved="atime mtime ctime"):
        utimensat("f", NOW, NOW)


@cases(ns=(NS, NS + 5, -1, 2**31 - 1))
def check_impossible_nanoseconds_are_einval(root: Path, env: Env, ns: int) -> None:
    write("f", b"")
    with stamps("f", kept="atime mtime ctime"):
        with fails(errno.EINVAL):
            utimensat("f", (1, ns), (1, 0))
        with fails(errno.EINVAL):
            utimensat("f", (1, 0), (1, ns))


def check_a_symlink_is_followed_unless_told_not_to(root: Path, env: Env) -> None:
    write("f", b"")
    os.symlink("f", "link")
    utimensat("link", (1000, 1), (2000, 2), follow_symlinks=False)
    utimensat("link", (3000, 3), (4000, 4))
    equal(_times("f"), (3000 * NS + 3, 4000 * NS + 4))
    equal(os.lstat("link").st_mtime_ns, 2000 * NS + 2)


def check_a_descriptor_sets_times_too(root: Path, env: Env) -> None:
    write("f", b"")
    with opened("f") as fd:
        os.utime(fd, ns=(5, 7))
        equal((_times(fd), _times("f")), ((5, 7), (5, 7)))


def check_a_directory_keeps_its_time_until_something_happens_in_it(root: Path, env: Env) -> None:
    os.mkdir("d")
    write("d/f", b"")
    os.utime("d", ns=(1000, 2000))
    write("d/f", b"changed bytes, not names")
    os.chmod("d/f", 0o600)
    equal(os.stat("d").st_mtime_ns, 2000)
    write("d/g", b"")
    assert os.stat("d").st_mtime_ns > 2000, "a new name did not stamp the directory"


def check_a_time_set_before_close_survives_the_close(root: Path, env: Env) -> None:
    """As rsync, tar and cp do it: write, set the time, close."""
    for number in range(20):
        with opened(f"f{number}", os.O_CREAT | os.O_WRONLY) as fd:
            write_all(fd, pattern(5000 * number))
            os.utime(fd, ns=(1000 + number, 2000 + number))
        equal(_times(f"f{number}"), (1000 + number, 2000 + number))
        equal(spawn(lambda number=number: _times(f"f{number}")[1]).result(), 2000 + number)  # type: ignore[misc]


def check_a_write_after_it_moves_the_time_again(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        os.utime(fd, ns=(1000, 2000))
        with stamps("f", moved="mtime ctime"):
            os.write(fd, b"x")


def check_chmod_rename_and_link_keep_a_set_time(root: Path, env: Env) -> None:
    write("f", b"data")
    os.utime("f", ns=(1_000_000_007, 2_000_000_009))
    os.chmod("f", 0o600)
    os.rename("f", "g")
    os.link("g", "h")
    os.unlink("g")
    equal(_times("h"), (1_000_000_007, 2_000_000_009))


def check_reading_keeps_the_modification_time(root: Path, env: Env) -> None:
    write("f", pattern(10_000))
    os.utime("f", ns=(1000, 2000))
    with stamps("f", kept="mtime ctime"):
        read("f")


def check_reading_stamps_the_access_time(root: Path, env: Env) -> None:
    """With relatime the first read after a change does."""
    env.need("atime")
    write("f", pattern(10_000))
    os.utime("f", ns=(1000, 2000))
    with opened("f") as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        start_ns = next_tick()
        os.pread(fd, 100, 0)
    assert os.stat("f").st_atime_ns >= start_ns, "the access time did not move"


def check_the_owner_sets_times_without_write_permission(root: Path, env: Env) -> None:
    write("f", b"")
    os.chmod("f", 0o400)
    os.utime("f", ns=(1000, 2000))
    equal(_times("f"), (1000, 2000))


def check_an_unprivileged_owner_sets_times_without_write_permission(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chmod("f", 0)
    os.chown("f", OTHER, OTHER)
    env.as_user(lambda: os.utime("f", ns=(1000, 2000)), uid=OTHER)
    equal(_times("f"), (1000, 2000))


def check_a_stranger_cannot_set_times(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chown("f", OTHER, OTHER)
    os.chmod("f", 0o666)
    before = _times("f")
    for atime, mtime in (((1, 1), (2, 2)), ((1, 1), OMIT), (OMIT, (2, 2)), ((1, 1), NOW)):
        with fails(errno.EPERM):
            env.as_user(lambda atime=atime, mtime=mtime: utimensat("f", atime, mtime), uid=THIRD)  # type: ignore[misc]
    equal(_times("f"), before)


def check_a_writer_may_touch(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chown("f", OTHER, OTHER)
    os.chmod("f", 0o666)
    with stamps("f", moved="atime mtime ctime"):
        env.as_user(lambda: utimensat("f", NOW, NOW), uid=THIRD)
    os.chmod("f", 0o644)
    with stamps("f", kept="mtime ctime"), fails(errno.EACCES):
        env.as_user(lambda: utimensat("f", NOW, NOW), uid=THIRD)
