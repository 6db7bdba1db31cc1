"""link(2): two names of one file are one file, at once and in every attribute."""

import errno
import fcntl
import os
from pathlib import Path

from .kit import (
    OTHER,
    Env,
    absent,
    cases,
    equal,
    fails,
    kind_of,
    make,
    mode_of,
    names_in,
    opened,
    read,
    spawn,
    stamps,
    together,
    write,
    write_all,
)
from .syscalls import link_following

LINKABLE = ("regular", "fifo", "symlink", "socket", "char", "block")


def _link(source: str, target: str) -> None:
    os.link(source, target, follow_symlinks=False)


@cases(kind=LINKABLE)
def check_a_link_is_the_same_file(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "a", 0o640)
    _link("a", "b")
    one, two = os.lstat("a"), os.lstat("b")
    equal((two.st_ino, two.st_dev, two.st_mode, two.st_nlink), (one.st_ino, one.st_dev, one.st_mode, 2))
    equal(one.st_nlink, 2, "link count of the first name")
    os.unlink("a")
    equal((os.lstat("b").st_nlink, os.lstat("b").st_ino), (1, one.st_ino), "after unlink of the first")
    equal(kind_of("b"), kind)


@cases(kind=LINKABLE)
def check_link_stamps_the_file_and_the_directory(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "a")
    os.mkdir("d")
    with (
        stamps(root, kept="mtime ctime"),
        stamps("a", moved="ctime", kept="mtime"),
        stamps("d", moved="mtime ctime"),
    ):
        _link("a", "d/b")


@cases(kind=("regular", "dir", "fifo", "symlink", "socket", "char", "block"))
def check_link_replaces_nothing(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    write("a", b"a")
    make(kind, "b")
    inode = os.lstat("b").st_ino
    with stamps(root, kept="mtime"), stamps("a", kept="ctime"), fails(errno.EEXIST):
        _link("a", "b")
    equal((os.lstat("b").st_ino, os.lstat("a").st_nlink), (inode, 1))


def check_link_to_itself_is_eexist(root: Path, env: Env) -> None:
    write("a", b"")
    with fails(errno.EEXIST):
        os.link("a", "a")


def check_a_directory_cannot_be_linked(root: Path, env: Env) -> None:
    os.mkdir("d")
    with fails(errno.EPERM):
        os.link("d", "e")
    absent("e")


def check_a_missing_file_cannot_be_linked(root: Path, env: Env) -> None:
    with fails(errno.ENOENT):
        os.link("missing", "b")


def check_a_link_can_follow_a_symlink_when_asked(root: Path, env: Env) -> None:
    write("f", b"data")
    os.symlink("f", "s")
    link_following("s", "through")
    equal((os.lstat("through").st_ino, os.lstat("f").st_nlink), (os.lstat("f").st_ino, 2))


def check_an_open_file_can_be_linked_by_its_descriptor(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f") as fd:
        link_following(f"/proc/self/fd/{fd}", "again")
        equal((os.fstat(fd).st_nlink, read("again")), (2, b"data"))


def check_a_dangling_symlink_cannot_be_followed_to_link(root: Path, env: Env) -> None:
    os.symlink("nowhere", "s")
    with fails(errno.ENOENT):
        link_following("s", "b")


def check_size_and_bytes_show_through_the_second_name_at_once(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    os.stat("b")
    with opened("a", os.O_RDWR) as fd:
        for number in range(1, 60):
            os.write(fd, b"0123456789")
            equal(os.stat("b").st_size, number * 10, "size through the second name")
            equal(read("b")[-3:], b"789", "bytes through the second name")
        os.ftruncate(fd, 7)
        equal((os.stat("b").st_size, read("b")), (7, b"0123456"))
    os.truncate("b", 3)
    equal(read("a"), b"012")


def check_the_link_count_is_right_through_every_name_at_once(root: Path, env: Env) -> None:
    write("n0", b"")
    for number in range(1, 100):
        os.link(f"n{number // 2}", f"n{number}")
        equal(os.lstat("n0").st_nlink, number + 1)
        equal(os.lstat(f"n{number}").st_nlink, number + 1)
    equal(len(names_in(root)), 100)
    for number in range(99):
        os.unlink(f"n{number}")
        equal(os.lstat("n99").st_nlink, 99 - number)


def check_the_link_count_of_a_descriptor_is_right_at_once(root: Path, env: Env) -> None:
    write("a", b"")
    with opened("a") as fd:
        os.link("a", "b")
        equal(os.fstat(fd).st_nlink, 2)
        os.unlink("a")
        equal(os.fstat(fd).st_nlink, 1)
        os.unlink("b")
        equal(os.fstat(fd).st_nlink, 0)


def check_times_show_through_the_second_name_at_once(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    for second in (1, 1_000_000_000, 1_700_000_000):
        os.utime("a", ns=(second * 10**9 + 111, second * 10**9 + 222))
        equal((os.stat("b").st_atime_ns % 1000, os.stat("b").st_mtime_ns), (111, second * 10**9 + 222))


def check_a_write_by_another_process_shows_through_the_second_name(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    for number in range(20):
        spawn(lambda number=number: write("a", b"%d" % number)).result()  # type: ignore[misc]
        equal(read("b"), b"%d" % number)


def check_links_in_several_directories_survive_each_other(root: Path, env: Env) -> None:
    os.makedirs("x/y")
    write("x/a", b"data")
    os.link("x/a", "x/y/b")
    os.rename("x/y/b", "c")
    os.unlink("x/a")
    equal((read("c"), os.lstat("c").st_nlink), (b"data", 1))


def check_a_descriptor_of_one_name_writes_the_other_after_unlink(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    with opened("a", os.O_RDWR) as fd:
        os.unlink("a")
        write_all(fd, b"late")
        equal((read("b"), os.stat("b").st_size), (b"late", 4))


def check_a_name_found_absent_exists_once_linked(root: Path, env: Env) -> None:
    write("a", b"data")
    absent("b")
    os.link("a", "b")
    equal(read("b"), b"data")


def check_a_lock_on_one_name_holds_on_the_other(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")

    def try_lock() -> None:
        with opened("b", os.O_RDWR) as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    with opened("a", os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with fails(errno.EWOULDBLOCK):
            spawn(try_lock).result()
    spawn(try_lock).result()


def check_linking_needs_write_permission_on_the_directory(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.mkdir("d")
    write("d/a", b"")
    os.chown("d/a", OTHER, OTHER)
    with fails(errno.EACCES):
        env.as_user(lambda: os.link("d/a", "d/b"))
    os.chmod("d", 0o777)
    env.as_user(lambda: os.link("d/a", "d/b"))
    equal(os.lstat("d/b").st_nlink, 2)


def check_mode_and_owner_are_shared(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    os.chmod("b", 0o604)
    equal(mode_of("a"), 0o604)


def check_a_storm_of_links_leaves_the_right_count(root: Path, env: Env) -> None:
    write("a", b"data")

    def storm(number: int) -> None:
        for turn in range(100):
            os.link("a", f"l{number}.{turn}")
            if turn % 3:
                os.unlink(f"l{number}.{turn}")

    together(4, storm)
    equal((os.lstat("a").st_nlink, len(names_in(root))), (4 * 34 + 1, 4 * 34 + 1))
