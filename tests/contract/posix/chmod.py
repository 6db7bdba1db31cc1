"""chmod(2), fchmod(2): the bits of every kind, who may change them, and that they bind at once."""

import errno
import os
from pathlib import Path

from .kit import (
    GROUP,
    MODE_KINDS,
    OTHER,
    THIRD,
    Env,
    cases,
    equal,
    fails,
    make,
    mode_of,
    opened,
    read,
    stamps,
    write,
)


@cases(
    kind=MODE_KINDS,
    mode=(0, 0o111, 0o222, 0o444, 0o600, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o7777),
)
def check_the_bits_are_kept_exactly(root: Path, env: Env, kind: str, mode: int) -> None:
    env.need_kind(kind)
    make(kind, "x")
    if os.geteuid() != 0:
        mode &= ~0o1000 if kind != "dir" else 0o7777  # Linux keeps it; other systems refuse it to users
    os.chmod("x", mode)
    equal(mode_of("x"), mode, "mode")


def check_chmod_follows_a_symlink(root: Path, env: Env) -> None:
    write("f", b"")
    os.symlink("f", "link")
    link_mode = mode_of("link")
    os.chmod("link", 0o604)
    equal((mode_of("f"), mode_of("link")), (0o604, link_mode))


def check_chmod_of_a_dangling_symlink_is_enoent(root: Path, env: Env) -> None:
    os.symlink("nowhere", "link")
    with fails(errno.ENOENT):
        os.chmod("link", 0o600)


@cases(kind=MODE_KINDS)
def check_chmod_stamps_ctime_only(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with stamps(root, kept="mtime ctime"), stamps("x", moved="ctime", kept="mtime atime"):
        os.chmod("x", 0o711)


def check_chmod_to_the_same_mode_stamps_ctime(root: Path, env: Env) -> None:
    write("f", b"")
    with stamps("f", moved="ctime", kept="mtime"):
        os.chmod("f", mode_of("f"))


@cases(kind=MODE_KINDS)
def check_only_the_owner_may_chmod(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    env.need("other_uids")
    make(kind, "x", 0o777)
    os.chown("x", OTHER, OTHER)
    with stamps("x", kept="ctime"), fails(errno.EPERM):
        env.as_user(lambda: os.chmod("x", 0o700), uid=THIRD, groups=[OTHER])
    env.as_user(lambda: os.chmod("x", 0o711), uid=OTHER)
    equal(mode_of("x"), 0o711)


def check_an_owner_outside_the_group_loses_setgid(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chown("f", OTHER, GROUP)
    env.as_user(lambda: os.chmod("f", 0o2755), uid=OTHER)
    equal(mode_of("f"), 0o755, "mode")


@cases(kind=("regular", "dir"))
def check_an_owner_with_the_group_as_supplementary_keeps_setgid(root: Path, env: Env, kind: str) -> None:
    env.need("other_uids")
    make(kind, "x", 0o755)
    os.chown("x", OTHER, GROUP)
    env.as_user(lambda: os.chmod("x", 0o2755), uid=OTHER, groups=[GROUP])
    equal(mode_of("x"), 0o2755, "mode")


def check_fchmod_is_seen_by_path_and_chmod_by_descriptor(root: Path, env: Env) -> None:
    write("f", b"")
    with opened("f") as fd:
        os.fchmod(fd, 0o640)
        equal(mode_of("f"), 0o640)
        os.chmod("f", 0o604)
        equal(mode_of(fd), 0o604)


def check_chmod_through_one_hard_link_shows_on_the_other(root: Path, env: Env) -> None:
    write("f", b"")
    os.link("f", "g")
    for mode in (0o600, 0o755, 0o444):
        os.chmod("f", mode)
        equal(mode_of("g"), mode)


def check_fchmod_of_an_unlinked_file_works(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        os.unlink("f")
        os.fchmod(fd, 0o611)
        equal(mode_of(fd), 0o611)


def check_a_mode_binds_other_users_at_once(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"data")
    for _ in range(5):
        os.chmod("f", 0o600)
        with fails(errno.EACCES):
            env.as_user(lambda: read("f"))
        os.chmod("f", 0o604)
        equal(env.as_user(lambda: read("f")), b"data")


def check_a_directory_without_x_closes_the_way(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.mkdir("d")
    write("d/f", b"data")
    for mode, reachable, listable in ((0o700, False, False), (0o704, False, True), (0o701, True, False)):
        os.chmod("d", mode)
        if reachable:
            equal(env.as_user(lambda: read("d/f")), b"data")
        else:
            with fails(errno.EACCES):
                env.as_user(lambda: os.stat("d/f"))
        if listable:
            equal(env.as_user(lambda: os.listdir("d")), ["f"])
        else:
            with fails(errno.EACCES):
                env.as_user(lambda: os.listdir("d"))


def check_an_open_descriptor_outlives_a_lost_permission(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f", os.O_RDWR) as fd:
        os.chmod("f", 0)
        equal(os.pread(fd, 9, 0), b"data")
        equal(os.pwrite(fd, b"more", 4), 4)


def check_fchmod_needs_no_write_permission(root: Path, env: Env) -> None:
    write("f", b"")
    os.chmod("f", 0o400)
    with opened("f") as fd:
        os.fchmod(fd, 0o600)
    equal(mode_of("f"), 0o600)
