"""chown(2), lchown(2), fchown(2): numbers kept exactly, who may give what away, what it clears."""

import errno
import os
from pathlib import Path

from .kit import (
    ALL_KINDS,
    GROUP,
    OTHER,
    SECOND_GROUP,
    THIRD,
    Env,
    cases,
    equal,
    fails,
    make,
    mode_of,
    opened,
    stamps,
    write,
)


def _owner(path: str | int) -> tuple[int, int]:
    status = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    return status.st_uid, status.st_gid


@cases(kind=ALL_KINDS)
def check_root_gives_any_owner_and_group(root: Path, env: Env, kind: str) -> None:
    env.need("other_uids")
    env.need_kind(kind)
    make(kind, "x")
    os.lchown("x", OTHER, GROUP)
    equal(_owner("x"), (OTHER, GROUP))
    os.lchown("x", THIRD, -1)
    equal(_owner("x"), (THIRD, GROUP), "after chown(uid, -1)")
    os.lchown("x", -1, SECOND_GROUP)
    equal(_owner("x"), (THIRD, SECOND_GROUP), "after chown(-1, gid)")
    os.lchown("x", -1, -1)
    equal(_owner("x"), (THIRD, SECOND_GROUP), "after chown(-1, -1)")


@cases(number=(1, 65_534, 65_536, 2**31 - 1, 2**31, 2**32 - 2))
def check_numbers_are_kept_in_full(root: Path, env: Env, number: int) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chown("f", number, number)
    equal(_owner("f"), (number, number))


def check_chown_follows_and_lchown_does_not(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.symlink("f", "link")
    before = _owner("link")
    os.chown("link", OTHER, GROUP)
    equal((_owner("f"), _owner("link")), ((OTHER, GROUP), before))
    os.lchown("link", THIRD, SECOND_GROUP)
    equal((_owner("f"), _owner("link")), ((OTHER, GROUP), (THIRD, SECOND_GROUP)))


@cases(kind=ALL_KINDS)
def check_chown_to_oneself_is_allowed_and_stamps_ctime(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with stamps(root, kept="mtime ctime"), stamps("x", moved="ctime", kept="mtime"):
        os.lchown("x", os.geteuid(), os.getegid())


def check_an_ordinary_user_cannot_give_a_file_away(root: Path, env: Env) -> None:
    if os.geteuid() == 0:
        env.need("other_uids")
        write("f", b"")
        os.chown("f", OTHER, OTHER)
        with stamps("f", kept="ctime"), fails(errno.EPERM):
            env.as_user(lambda: os.chown("f", THIRD, -1), uid=OTHER)
        equal(_owner("f"), (OTHER, OTHER))
    else:
        write("f", b"")
        with fails(errno.EPERM):
            os.chown("f", OTHER, -1)


@cases(kind=ALL_KINDS)
def check_a_stranger_changes_nothing(root: Path, env: Env, kind: str) -> None:
    env.need("other_uids")
    env.need_kind(kind)
    make(kind, "x", 0o777)
    os.lchown("x", OTHER, GROUP)
    with fails(errno.EPERM):
        env.as_user(lambda: os.lchown("x", THIRD, -1), uid=THIRD)
    with fails(errno.EPERM):
        env.as_user(lambda: os.lchown("x", -1, THIRD), uid=THIRD, groups=[GROUP])
    equal(_owner("x"), (OTHER, GROUP))


@cases(kind=ALL_KINDS)
def check_the_owner_may_choose_among_its_groups(root: Path, env: Env, kind: str) -> None:
    """The supplementary groups count: a server that acts with primary ids only refuses these."""
    env.need("other_uids")
    env.need_kind(kind)
    make(kind, "x")
    os.lchown("x", OTHER, OTHER)
    env.as_user(lambda: os.lchown("x", -1, GROUP), uid=OTHER, groups=[SECOND_GROUP, GROUP])
    equal(_owner("x"), (OTHER, GROUP))
    with fails(errno.EPERM):
        env.as_user(lambda: os.lchown("x", -1, SECOND_GROUP), uid=OTHER, groups=[GROUP])
    equal(_owner("x"), (OTHER, GROUP))


def check_an_ordinary_user_cannot_choose_a_foreign_group(root: Path, env: Env) -> None:
    write("f", b"")
    if os.geteuid() != 0:
        with fails(errno.EPERM):
            os.chown("f", -1, GROUP)
        return
    env.need("other_uids")
    os.chown("f", OTHER, OTHER)
    with fails(errno.EPERM):
        env.as_user(lambda: os.chown("f", -1, GROUP), uid=OTHER)


@cases(bits=((0o4755, 0o755), (0o6755, 0o755), (0o2755, 0o755)))
def check_chown_by_the_owner_clears_suid_and_sgid(root: Path, env: Env, bits: tuple[int, int]) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chown("f", OTHER, GROUP)
    os.chmod("f", bits[0])
    equal(mode_of("f"), bits[0], "mode before")
    env.as_user(lambda: os.chown("f", -1, OTHER), uid=OTHER, gid=OTHER, groups=[GROUP])
    equal(mode_of("f"), bits[1], "mode after")


def check_chown_keeps_setgid_of_a_directory(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.mkdir("d")
    os.chmod("d", 0o2775)
    os.chown("d", OTHER, GROUP)
    equal(mode_of("d"), 0o2775)


def check_the_owner_shows_through_a_second_name_and_a_descriptor(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.link("f", "g")
    with opened("f") as fd:
        os.chown("f", OTHER, GROUP)
        equal((_owner("g"), _owner(fd)), ((OTHER, GROUP), (OTHER, GROUP)))
        os.fchown(fd, THIRD, -1)
        equal((_owner("g"), _owner("f")), ((THIRD, GROUP), (THIRD, GROUP)))


def check_fchown_of_an_unlinked_file_works(root: Path, env: Env) -> None:
    env.need("other_uids")
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        os.unlink("f")
        os.fchown(fd, OTHER, GROUP)
        equal(_owner(fd), (OTHER, GROUP))


def check_a_new_owner_gains_its_rights_at_once(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"")
    os.chmod("f", 0o600)
    with fails(errno.EACCES):
        env.as_user(lambda: os.open("f", os.O_RDWR))
    os.chown("f", OTHER, OTHER)
    env.as_user(lambda: os.open("f", os.O_RDWR))
    os.chown("f", THIRD, THIRD)
    with fails(errno.EACCES):
        env.as_user(lambda: os.open("f", os.O_RDWR))
