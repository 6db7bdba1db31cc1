"""setxattr(2) and its family on ``user.*``: bytes under a name, exact flags, and the two size protocols."""

import errno
import os
from pathlib import Path

from .kit import (
    OTHER,
    THIRD,
    Env,
    cases,
    equal,
    fails,
    make,
    opened,
    pattern,
    spawn,
    stamps,
    together,
    write,
)
from .syscalls import getxattr_sized, listxattr_sized

CREATE, REPLACE = os.XATTR_CREATE, os.XATTR_REPLACE
BOTH_KINDS = ("regular", "dir")
NO_DATA = errno.ENODATA

VALUES = (
    b"",
    b"\0",
    b"a",
    b"holiday,2019",
    b" a, b ,",
    "Größe 🎉".encode(),
    b"\xff\xfe\x00\x01",
    b"x" * 1000,
    b"\n\n",
)
TEXT_NAMES = ("user.xdg.tags", "user.xdg.comment", "user.baloo.rating", "user.mime_type", "user.shatag.ts")


@cases(kind=BOTH_KINDS, value=VALUES)
def check_a_value_is_kept_exactly(root: Path, env: Env, kind: str, value: bytes) -> None:
    env.need("xattr")
    make(kind, "x")
    os.setxattr("x", "user.test", value)
    equal((os.getxattr("x", "user.test"), os.listxattr("x")), (value, ["user.test"]))


@cases(name=TEXT_NAMES)
def check_well_known_names_keep_what_was_written(root: Path, env: Env, name: str) -> None:
    env.need("xattr")
    write("f", b"")
    for value in (b"5", b"7") if name.endswith("rating") else (b"zebra,apple", b"apple,zebra,\xc3\xa9t\xc3\xa9"):
        os.setxattr("f", name, value)
        equal((os.getxattr("f", name), os.listxattr("f")), (value, [name]))
    os.removexattr("f", name)
    equal(os.listxattr("f"), [])


@cases(
    name=(
        b"user.a",
        b"user.with space",
        b"user.\xff\xfe",
        b"user.new\nline",
        b"user.A",
        b"user.x.y.z",
        b"user." + b"n" * 250,
    )
)
def check_names_are_raw_bytes(root: Path, env: Env, name: bytes) -> None:
    env.need("xattr")
    write("f", b"")
    os.setxattr(b"f", name, b"value")
    equal(os.getxattr(b"f", name), b"value")
    equal([os.fsencode(known) for known in os.listxattr(b"f")], [name])


def check_names_differ_by_case(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    os.setxattr("f", "user.name", b"lower")
    os.setxattr("f", "user.NAME", b"upper")
    equal((os.getxattr("f", "user.name"), os.getxattr("f", "user.NAME")), (b"lower", b"upper"))


@cases(kind=BOTH_KINDS)
def check_a_missing_attribute_is_enodata(root: Path, env: Env, kind: str) -> None:
    env.need("xattr")
    make(kind, "x")
    os.setxattr("x", "user.other", b"")
    with fails(NO_DATA):
        os.getxattr("x", "user.missing")
    with fails(NO_DATA):
        os.removexattr("x", "user.missing")
    equal(os.listxattr("x"), ["user.other"])


def check_an_empty_value_is_not_a_missing_one(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    os.setxattr("f", "user.empty", b"")
    equal((os.getxattr("f", "user.empty"), getxattr_sized("f", b"user.empty", 0)), (b"", 0))
    with fails(errno.EEXIST):
        os.setxattr("f", "user.empty", b"x", CREATE)
    os.setxattr("f", "user.empty", b"full", REPLACE)
    os.setxattr("f", "user.empty", b"")
    equal(os.listxattr("f"), ["user.empty"])


@cases(kind=BOTH_KINDS)
def check_create_refuses_an_existing_attribute(root: Path, env: Env, kind: str) -> None:
    env.need("xattr")
    make(kind, "x")
    os.setxattr("x", "user.a", b"one", CREATE)
    with fails(errno.EEXIST):
        os.setxattr("x", "user.a", b"two", CREATE)
    equal(os.getxattr("x", "user.a"), b"one")


@cases(kind=BOTH_KINDS)
def check_replace_refuses_a_missing_attribute(root: Path, env: Env, kind: str) -> None:
    env.need("xattr")
    make(kind, "x")
    with fails(NO_DATA):
        os.setxattr("x", "user.a", b"one", REPLACE)
    equal(os.listxattr("x"), [])
    os.setxattr("x", "user.a", b"one")
    os.setxattr("x", "user.a", b"two", REPLACE)
    equal(os.getxattr("x", "user.a"), b"two")


def check_a_shorter_value_replaces_a_longer_one_whole(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    for length in (900, 3, 500, 0, 1):
        os.setxattr("f", "user.a", b"v" * length)
        equal(os.getxattr("f", "user.a"), b"v" * length)


def check_the_size_of_a_value_can_be_asked(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    os.setxattr("f", "user.a", b"0123456789")
    equal(getxattr_sized("f", b"user.a", 0), 10)
    equal(getxattr_sized("f", b"user.a", 10), b"0123456789", "with the exact buffer")
    equal(getxattr_sized("f", b"user.a", 500), b"0123456789", "with a larger buffer")
    for size in (1, 9):
        with fails(errno.ERANGE):
            getxattr_sized("f", b"user.a", size)


def check_the_size_of_the_list_can_be_asked(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    equal(listxattr_sized("f", 0), 0, "size of an empty list")
    equal(listxattr_sized("f", 100), b"", "an empty list")
    os.setxattr("f", "user.a", b"1")
    os.setxattr("f", "user.bb", b"2")
    equal(listxattr_sized("f", 0), 15)
    equal(sorted(bytes(listxattr_sized("f", 15)).split(b"\0")), [b"", b"user.a", b"user.bb"])
    with fails(errno.ERANGE):
        listxattr_sized("f", 14)


@cases(
    name_and_errnos=(
        (b"user." + b"n" * 251, (errno.ERANGE,)),
        (b"", (errno.ERANGE, errno.EINVAL)),
        (b"user.", (errno.EINVAL,)),
        (b"foo", (errno.EOPNOTSUPP,)),
        (b"com.apple.quarantine", (errno.EOPNOTSUPP,)),
        (b"system.foo", (errno.EOPNOTSUPP,)),
        (b"USER.a", (errno.EOPNOTSUPP,)),
        (b"userx.a", (errno.EOPNOTSUPP,)),
    )
)
def check_wrong_names_are_refused(root: Path, env: Env, name_and_errnos: tuple[bytes, tuple[int, ...]]) -> None:
    env.need("xattr")
    write("f", b"")
    name, errnos = name_and_errnos
    with fails(*errnos):
        os.setxattr(b"f", name, b"value")
    with fails(*errnos, NO_DATA):
        os.getxattr(b"f", name)
    equal(os.listxattr("f"), [])


def check_a_value_over_64_kib_is_too_big(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    with fails(errno.E2BIG):
        os.setxattr("f", "user.a", bytes(65_537))
    equal(os.listxattr("f"), [])


def check_a_value_of_64_kib_is_kept(root: Path, env: Env) -> None:
    env.need("xattr")
    env.need("xattr_64k")
    write("f", b"")
    os.setxattr("f", "user.a", pattern(65_536))
    equal((os.getxattr("f", "user.a"), getxattr_sized("f", b"user.a", 0)), (pattern(65_536), 65_536))
    with fails(errno.ERANGE):
        getxattr_sized("f", b"user.a", 65_535)


def check_fifty_attributes_live_together(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    wanted = {f"user.n{number}": b"%d" % number for number in range(50)}
    for name, value in wanted.items():
        os.setxattr("f", name, value)
    equal({name: os.getxattr("f", name) for name in os.listxattr("f")}, wanted)
    for number in range(0, 50, 2):
        os.removexattr("f", f"user.n{number}")
    equal(sorted(os.listxattr("f")), sorted(f"user.n{number}" for number in range(1, 50, 2)))


@cases(kind=BOTH_KINDS)
def check_set_and_remove_stamp_ctime_and_not_mtime(root: Path, env: Env, kind: str) -> None:
    env.need("xattr")
    make(kind, "x")
    with stamps(root, kept="mtime ctime"):
        with stamps("x", moved="ctime", kept="mtime"):
            os.setxattr("x", "user.a", b"1")
        with stamps("x", moved="ctime", kept="mtime"):
            os.setxattr("x", "user.a", b"2")
        with stamps("x", moved="ctime", kept="mtime"):
            os.removexattr("x", "user.a")


def check_reading_and_refused_calls_stamp_nothing(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    os.setxattr("f", "user.a", b"1")
    with stamps("f", kept="ctime mtime"):
        os.getxattr("f", "user.a")
        os.listxattr("f")
        with fails(errno.EEXIST):
            os.setxattr("f", "user.a", b"2", CREATE)
        with fails(NO_DATA):
            os.removexattr("f", "user.b")


@cases(kind=("symlink", "fifo", "socket"))
def check_other_kinds_take_no_user_attributes(root: Path, env: Env, kind: str) -> None:
    env.need("xattr")
    make(kind, "x")
    with fails(errno.EPERM):
        os.setxattr("x", "user.a", b"1", follow_symlinks=False)
    with fails(NO_DATA):
        os.getxattr("x", "user.a", follow_symlinks=False)
    equal(os.listxattr("x", follow_symlinks=False), [])


def check_a_symlink_is_followed(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    os.symlink("f", "link")
    os.setxattr("link", "user.a", b"1")
    equal((os.getxattr("f", "user.a"), os.getxattr("link", "user.a")), (b"1", b"1"))


def check_hard_links_share_attributes_at_once(root: Path, env: Env) -> None:
    env.need("xattr")
    write("a", b"")
    os.link("a", "b")
    for number in range(20):
        os.setxattr("a", "user.n", b"%d" % number)
        equal(os.getxattr("b", "user.n"), b"%d" % number)
    os.removexattr("b", "user.n")
    equal(os.listxattr("a"), [])


def check_attributes_move_with_the_file(root: Path, env: Env) -> None:
    env.need("xattr")
    os.mkdir("d")
    write("a", b"")
    os.setxattr("a", "user.a", b"1")
    os.setxattr("d", "user.d", b"2")
    os.rename("a", "d/b")
    os.rename("d", "e")
    equal((os.getxattr("e/b", "user.a"), os.getxattr("e", "user.d")), (b"1", b"2"))
    with fails(errno.ENOENT):
        os.getxattr("a", "user.a")


def check_descriptor_and_path_see_the_same(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    with opened("f") as fd:
        os.setxattr(fd, "user.a", b"by descriptor")
        equal(os.getxattr("f", "user.a"), b"by descriptor")
        os.setxattr("f", "user.a", b"by path")
        equal((os.getxattr(fd, "user.a"), os.listxattr(fd)), (b"by path", ["user.a"]))
        os.removexattr(fd, "user.a")
        equal(os.listxattr("f"), [])


def check_another_process_sees_a_value_at_once(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    for number in range(10):
        os.setxattr("f", "user.a", b"%d" % number)
        equal(spawn(lambda: os.getxattr("f", "user.a")).result(), b"%d" % number)


def check_writing_the_file_keeps_its_attributes(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"one")
    os.setxattr("f", "user.a", b"1")
    write("f", b"two, truncated and longer")
    os.truncate("f", 0)
    os.chmod("f", 0o600)
    equal(os.getxattr("f", "user.a"), b"1")


def check_setting_needs_write_permission_and_reading_read_permission(root: Path, env: Env) -> None:
    env.need("xattr")
    env.need("other_uids")
    write("f", b"")
    os.setxattr("f", "user.a", b"1")
    os.chmod("f", 0o644)
    equal(env.as_user(lambda: os.getxattr("f", "user.a")), b"1")
    for change in (lambda: os.setxattr("f", "user.a", b"2"), lambda: os.removexattr("f", "user.a")):
        with fails(errno.EACCES):
            env.as_user(change)
    os.chmod("f", 0o600)
    with fails(errno.EACCES):
        env.as_user(lambda: os.getxattr("f", "user.a"))
    os.chmod("f", 0o666)
    env.as_user(lambda: os.setxattr("f", "user.a", b"2"))
    equal(os.getxattr("f", "user.a"), b"2")


def check_a_sticky_directory_takes_attributes_of_its_owner_only(root: Path, env: Env) -> None:
    env.need("xattr")
    env.need("other_uids")
    os.mkdir("d")
    os.chown("d", OTHER, OTHER)
    os.chmod("d", 0o1777)
    with fails(errno.EPERM):
        env.as_user(lambda: os.setxattr("d", "user.a", b"1"), uid=THIRD)
    env.as_user(lambda: os.setxattr("d", "user.a", b"1"), uid=OTHER)
    equal(os.getxattr("d", "user.a"), b"1")


def check_of_many_that_create_one_wins(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")

    def attempt(number: int) -> int:
        won = 0
        for turn in range(25):
            try:
                os.setxattr("f", f"user.t{turn}", b"%d" % number, CREATE)
                won += 1
            except FileExistsError:
                pass
        return won

    equal(sum(together(4, attempt)), 25, "creations that succeeded")


def check_many_that_replace_leave_a_whole_value(root: Path, env: Env) -> None:
    env.need("xattr")
    write("f", b"")
    os.setxattr("f", "user.a", b"0" * 300)

    def work(number: int) -> None:
        for _ in range(100):
            os.setxattr("f", "user.a", b"%d" % number * (100 * number + 100), REPLACE)
            value = os.getxattr("f", "user.a")
            equal(len(set(value)), 1, "different bytes in one value")

    together(3, work)


@cases(name=("security.capability", "security.selinux", "system.posix_acl_access"))
def check_absent_system_attributes_do_not_exist(root: Path, env: Env, name: str) -> None:
    write("f", b"")
    with fails(NO_DATA, errno.EOPNOTSUPP):
        os.getxattr("f", name)
