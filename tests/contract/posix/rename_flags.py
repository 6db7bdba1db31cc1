"""renameat2(2): RENAME_NOREPLACE never replaces, RENAME_EXCHANGE swaps any two names at once."""

import errno
import os
from pathlib import Path

from .kit import Env, absent, cases, equal, fails, kind_of, make, names_in, opened, read, stamps, write
from .syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

DIR_OR_FILE = ("regular", "dir", "fifo", "symlink", "socket")


def _identity(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_ino, status.st_mode, status.st_mtime_ns


@cases(source=DIR_OR_FILE, target=DIR_OR_FILE)
def check_noreplace_refuses_any_existing_name(root: Path, env: Env, source: str, target: str) -> None:
    make(source, "a")
    make(target, "b")
    before = _identity("a"), _identity("b")
    with stamps(root, kept="mtime"), fails(errno.EEXIST):
        renameat2("a", "b", RENAME_NOREPLACE)
    equal((_identity("a"), _identity("b")), before)


@cases(kind=DIR_OR_FILE)
def check_noreplace_moves_to_a_free_name(root: Path, env: Env, kind: str) -> None:
    make(kind, "a")
    before = _identity("a")
    renameat2("a", "b", RENAME_NOREPLACE)
    equal(_identity("b"), before)
    absent("a")


@cases(source=DIR_OR_FILE, target=DIR_OR_FILE)
def check_exchange_swaps_any_two_kinds(root: Path, env: Env, source: str, target: str) -> None:
    os.mkdir("x")
    make(source, "x/a")
    make(target, "b")
    if target == "dir":
        write("b/inside", b"data")
    first, second = _identity("x/a"), _identity("b")
    with stamps(root, moved="mtime"), stamps("x", moved="mtime"):
        renameat2("x/a", "b", RENAME_EXCHANGE)
    equal((_identity("b"), _identity("x/a")), (first, second))
    equal((kind_of("b"), kind_of("x/a")), (source, target))
    if target == "dir":
        equal(read("x/a/inside"), b"data")
        equal(os.stat("x/a/..").st_ino, os.stat("x").st_ino, "inode of ..")


@cases(pair=(("a", "missing"), ("missing", "a")))
def check_exchange_needs_both_names(root: Path, env: Env, pair: tuple[str, str]) -> None:
    write("a", b"data")
    with fails(errno.ENOENT):
        renameat2(*pair, RENAME_EXCHANGE)
    equal(names_in(root), {b"a"})


def check_exchange_refuses_a_directory_and_its_child(root: Path, env: Env) -> None:
    os.makedirs("d/e")
    for pair in (("d", "d/e"), ("d/e", "d")):
        with fails(errno.EINVAL, errno.ENOTEMPTY):
            renameat2(*pair, RENAME_EXCHANGE)
    equal(kind_of("d/e"), "dir")


def check_exchange_and_noreplace_exclude_each_other(root: Path, env: Env) -> None:
    write("a", b"")
    write("b", b"")
    with fails(errno.EINVAL):
        renameat2("a", "b", RENAME_EXCHANGE | RENAME_NOREPLACE)


def check_descriptors_follow_an_exchange(root: Path, env: Env) -> None:
    write("a", b"first")
    write("b", b"second")
    with opened("a", os.O_RDWR) as fd:
        renameat2("a", "b", RENAME_EXCHANGE)
        os.pwrite(fd, b"FIRST", 0)
        equal((read("a"), read("b")), (b"second", b"FIRST"))
        equal(os.fstat(fd).st_ino, os.lstat("b").st_ino)
