"""symlink(2) and readlink(2): a target is bytes, kept as given and resolved only on the way."""

import errno
import os
from pathlib import Path

from .kit import (
    ALL_KINDS,
    GROUP,
    OTHER,
    Env,
    absent,
    cases,
    equal,
    fails,
    kind_of,
    make,
    names_in,
    read,
    stamps,
    write,
)


@cases(length=(1, 2, 59, 60, 61, 255, 256, 1000, 1023, 4095))
def check_targets_of_any_length_are_kept(root: Path, env: Env, length: int) -> None:
    if length > 1023:
        env.need("symlink_4095")
    target = (b"abcdefghi/" * 410)[:length]
    os.symlink(target, b"link")
    equal((os.readlink(b"link"), os.lstat("link").st_size, kind_of("link")), (target, length, "symlink"))


@cases(
    target=(
        b"\xff\xfe",
        b"a\nb",
        b" ",
        b"-rf",
        b"../../..",
        b"/",
        b"//a//b//",
        b"./.",
        "é".encode(),
        b"a" * 300,
        b"\x01",
    )
)
def check_targets_are_raw_bytes(root: Path, env: Env, target: bytes) -> None:
    os.symlink(target, b"link")
    equal((os.readlink(b"link"), os.lstat("link").st_size), (target, len(target)))


def check_a_target_of_4096_bytes_is_too_long(root: Path, env: Env) -> None:
    with fails(errno.ENAMETOOLONG):
        os.symlink("x" * 4096, "link")
    absent("link")


def check_an_empty_target_is_enoent(root: Path, env: Env) -> None:
    with fails(errno.ENOENT):
        os.symlink("", "link")


@cases(kind=ALL_KINDS)
def check_symlink_replaces_nothing(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with stamps(root, kept="mtime"), fails(errno.EEXIST):
        os.symlink("target", "x")
    equal(kind_of("x"), kind)


def check_symlink_stamps_the_parent(root: Path, env: Env) -> None:
    os.mkdir("d")
    with stamps("d", moved="mtime ctime"):
        os.symlink("target", "d/link")


def check_a_new_symlink_belongs_to_its_maker(root: Path, env: Env) -> None:
    os.mkdir("open")
    os.chmod("open", 0o777)
    env.as_user(lambda: os.symlink("x", "open/link"), uid=OTHER, gid=GROUP)
    equal((os.lstat("open/link").st_uid, os.lstat("open/link").st_gid), (OTHER, GROUP))


@cases(kind=("regular", "dir", "fifo", "socket", "char", "block"))
def check_readlink_of_anything_else_is_einval(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with fails(errno.EINVAL):
        os.readlink("x")


def check_readlink_of_a_missing_name_is_enoent(root: Path, env: Env) -> None:
    with fails(errno.ENOENT):
        os.readlink("missing")


def check_a_relative_target_starts_at_the_directory_of_the_link(root: Path, env: Env) -> None:
    os.makedirs("a/b")
    write("a/f", b"right")
    write("f", b"wrong")
    os.symlink("../f", "a/b/link")
    equal(read("a/b/link"), b"right")
    os.rename("a/b/link", "link")
    with fails(errno.ENOENT):
        read("link")


def check_an_absolute_target_is_followed(root: Path, env: Env) -> None:
    write("f", b"data")
    os.symlink(root / "f", "link")
    equal(read("link"), b"data")


def check_a_symlink_to_a_directory_leads_into_it(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    write("link/f", b"data")
    equal((names_in("link"), read("d/f"), kind_of("link/")), ({b"f"}, b"data", "dir"))


def check_a_chain_of_thirty_nine_links_is_followed(root: Path, env: Env) -> None:
    write("l0", b"data")
    for number in range(1, 40):
        os.symlink(f"l{number - 1}", f"l{number}")
    equal(read("l39"), b"data")


@cases(length=(1, 2, 3))
def check_a_loop_is_eloop(root: Path, env: Env, length: int) -> None:
    for number in range(length):
        os.symlink(f"l{(number + 1) % length}", f"l{number}")
    for path in ("l0", "l0/x"):
        with fails(errno.ELOOP):
            os.stat(path)
    equal(os.readlink("l0"), f"l{1 % length}")


def check_a_new_target_holds_at_once(root: Path, env: Env) -> None:
    """A kernel that caches link bodies must forget them when the name is taken over."""
    write("a", b"a")
    write("b", b"b")
    os.symlink("a", "link")
    for number in range(60):
        target = "ab"[number % 2]
        os.symlink(target, "tmp")
        os.rename("tmp", "link")
        equal((os.readlink("link"), read("link")), (target, target.encode()))


def check_a_symlink_made_again_has_its_new_target(root: Path, env: Env) -> None:
    for number in range(60):
        os.symlink(f"target-{number}", "link")
        equal(os.readlink("link"), f"target-{number}")
        os.unlink("link")
        absent("link")


def check_unlink_removes_the_link_only(root: Path, env: Env) -> None:
    write("f", b"data")
    os.symlink("f", "link")
    os.unlink("link")
    equal((names_in(root), read("f")), ({b"f"}, b"data"))


def check_a_dangling_link_becomes_whole_when_its_target_comes(root: Path, env: Env) -> None:
    os.symlink("target", "link")
    with fails(errno.ENOENT):
        os.stat("link")
    write("target", b"data")
    equal(read("link"), b"data")
    os.unlink("target")
    with fails(errno.ENOENT):
        os.stat("link")


def check_times_of_the_link_itself_can_be_set(root: Path, env: Env) -> None:
    write("f", b"")
    os.symlink("f", "link")
    target_mtime = os.stat("f").st_mtime_ns
    os.utime("link", ns=(1_000_000_001, 2_000_000_002), follow_symlinks=False)
    equal((os.lstat("link").st_mtime_ns, os.stat("f").st_mtime_ns), (2_000_000_002, target_mtime))


def check_the_mode_of_a_symlink_is_open(root: Path, env: Env) -> None:
    os.umask(0o077)
    os.symlink("target", "link")
    equal(os.lstat("link").st_mode & 0o777, 0o777)
