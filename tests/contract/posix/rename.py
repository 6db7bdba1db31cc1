"""rename(2) and renameat2(2): one name moves, one file may go, and no one ever sees a moment between."""

import errno
import os
from pathlib import Path

from .kit import (
    ALL_KINDS,
    FILE_KINDS,
    OTHER,
    THIRD,
    Env,
    absent,
    cases,
    equal,
    fails,
    kind_of,
    make,
    names_in,
    opened,
    read,
    spawn,
    stamps,
    write,
    write_all,
)

DIR_OR_FILE = ("regular", "dir", "fifo", "symlink", "socket")


def _identity(path: str) -> tuple[int, int, int]:
    status = os.lstat(path)
    return status.st_ino, status.st_mode, status.st_mtime_ns


@cases(kind=ALL_KINDS, across=(False, True))
def check_the_file_stays_the_same_file(root: Path, env: Env, kind: str, across: bool) -> None:
    env.need_kind(kind)
    os.mkdir("d")
    make(kind, "a")
    before, target = _identity("a"), "d/b" if across else "b"
    os.rename("a", target)
    equal(_identity(target), before, "inode, mode, mtime")
    absent("a")
    equal(kind_of(target), kind)


@cases(kind=ALL_KINDS)
def check_rename_stamps_both_directories(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    os.mkdir("x")
    os.mkdir("y")
    make(kind, "x/a")
    with (
        stamps(root, kept="mtime ctime"),
        stamps("x", moved="mtime ctime"),
        stamps("y", moved="mtime ctime"),
    ):
        os.rename("x/a", "y/a")


@cases(source=FILE_KINDS, target=FILE_KINDS)
def check_rename_replaces_a_file_of_any_kind(root: Path, env: Env, source: str, target: str) -> None:
    make(source, "a")
    make(target, "b")
    before = _identity("a")
    os.rename("a", "b")
    equal((_identity("b"), kind_of("b")), (before, source))
    absent("a")
    equal(names_in(root), {b"b"})


@cases(target=FILE_KINDS)
def check_a_directory_cannot_replace_a_file(root: Path, env: Env, target: str) -> None:
    os.mkdir("a")
    make(target, "b")
    with fails(errno.ENOTDIR):
        os.rename("a", "b")
    equal((kind_of("a"), kind_of("b")), ("dir", target))


@cases(source=FILE_KINDS)
def check_a_file_cannot_replace_a_directory(root: Path, env: Env, source: str) -> None:
    make(source, "a")
    os.mkdir("b")
    with fails(errno.EISDIR):
        os.rename("a", "b")
    equal((kind_of("a"), kind_of("b")), (source, "dir"))


def check_a_directory_replaces_an_empty_one(root: Path, env: Env) -> None:
    os.mkdir("a")
    write("a/f", b"data")
    os.mkdir("b")
    inode = os.lstat("a").st_ino
    os.rename("a", "b")
    equal((os.lstat("b").st_ino, read("b/f"), names_in(root)), (inode, b"data", {b"b"}))


@cases(kind=DIR_OR_FILE)
def check_a_directory_never_replaces_one_that_holds_something(root: Path, env: Env, kind: str) -> None:
    os.mkdir("a")
    os.mkdir("b")
    make(kind, "b/x")
    with stamps(root, kept="mtime"), fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename("a", "b")
    equal((names_in("a"), names_in("b")), (set(), {b"x"}))


@cases(kind=ALL_KINDS)
def check_rename_onto_itself_does_nothing(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "a")
    before = _identity("a")
    os.rename("a", "a")
    equal(_identity("a"), before)


def check_rename_onto_another_link_of_itself_leaves_both(root: Path, env: Env) -> None:
    write("a", b"data")
    os.link("a", "b")
    os.rename("a", "b")
    equal((names_in(root), os.lstat("a").st_nlink, read("b")), ({b"a", b"b"}, 2, b"data"))


@cases(target=("d/d", "d/e/new", "d/e/f/new"))
def check_a_directory_cannot_move_into_itself(root: Path, env: Env, target: str) -> None:
    os.makedirs("d/e/f")
    with fails(errno.EINVAL):
        os.rename("d", target)
    equal(kind_of("d/e/f"), "dir")


def check_a_directory_cannot_replace_its_ancestor(root: Path, env: Env) -> None:
    os.makedirs("d/e/f")
    with fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rename("d/e/f", "d")
    equal(kind_of("d/e/f"), "dir")


@cases(pair=(("d/.", "x"), ("d/..", "x"), ("d", "e/."), ("d", "e/.."), (".", "x"), ("d", ".")))
def check_dots_cannot_be_renamed(root: Path, env: Env, pair: tuple[str, str]) -> None:
    os.mkdir("d")
    os.mkdir("e")
    with fails(errno.EBUSY, errno.EINVAL, errno.ENOTEMPTY, errno.EEXIST):
        os.rename(*pair)
    equal(names_in(root), {b"d", b"e"})


@cases(
    case=(
        ("missing", "x", errno.ENOENT),
        ("f", "missing/x", errno.ENOENT),
        ("f/x", "y", errno.ENOTDIR),
        ("d", "f/x", errno.ENOTDIR),
        ("f/", "x", errno.ENOTDIR),
        ("f", "x/", errno.ENOTDIR),
        ("f", "g/", errno.ENOTDIR),
        ("", "x", errno.ENOENT),
        ("f", "", errno.ENOENT),
    )
)
def check_wrong_paths_are_refused(root: Path, env: Env, case: tuple[str, str, int]) -> None:
    write("f", b"f")
    write("g", b"g")
    os.mkdir("d")
    with stamps(root, kept="mtime"), fails(case[2]):
        os.rename(case[0], case[1])
    equal((read("f"), read("g"), names_in(root)), (b"f", b"g", {b"f", b"g", b"d"}))


def check_a_directory_may_have_trailing_slashes(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.rename("d/", "e/")
    equal(names_in(root), {b"e"})


def check_a_symlink_moves_itself_not_its_target(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    os.symlink("nowhere", "dangling")
    os.rename("link", "link2")
    os.rename("dangling", "dangling2")
    equal((os.readlink("link2"), os.readlink("dangling2"), kind_of("d")), ("d", "nowhere", "dir"))


def check_a_symlink_to_a_directory_is_replaced_as_a_file(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    os.mkdir("e")
    with fails(errno.ENOTDIR):
        os.rename("e", "link")
    write("f", b"data")
    os.rename("f", "link")
    equal((kind_of("link"), kind_of("d")), ("regular", "dir"))


# -- open files, links, subtrees -------------------------------------------------------------------


def check_an_open_file_is_read_and_written_across_a_rename(root: Path, env: Env) -> None:
    os.mkdir("d")
    with opened("a", os.O_CREAT | os.O_RDWR) as fd:
        write_all(fd, b"one ")
        os.rename("a", "d/b")
        write_all(fd, b"two")
        equal((os.pread(fd, 20, 0), read("d/b"), os.stat("d/b").st_size), (b"one two", b"one two", 7))
        equal(os.fstat(fd).st_ino, os.stat("d/b").st_ino)


def check_a_replaced_open_file_keeps_its_bytes(root: Path, env: Env) -> None:
    write("old", b"old bytes")
    write("new", b"new")
    with opened("old", os.O_RDWR) as fd:
        os.rename("new", "old")
        equal((os.fstat(fd).st_nlink, os.fstat(fd).st_size, os.pread(fd, 20, 0)), (0, 9, b"old bytes"))
        os.pwrite(fd, b"OLD", 0)
        os.ftruncate(fd, 5)
        equal((os.pread(fd, 20, 0), read("old")), (b"OLD b", b"new"))


def check_replacing_one_link_lowers_the_count_of_the_others(root: Path, env: Env) -> None:
    write("a", b"data")
    os.link("a", "b")
    os.stat("b")
    write("n", b"new")
    os.rename("n", "a")
    equal((os.lstat("b").st_nlink, read("b"), read("a")), (1, b"data", b"new"))


def check_replacing_stamps_the_ctime_of_the_other_links(root: Path, env: Env) -> None:
    write("a", b"data")
    os.link("a", "b")
    write("n", b"new")
    with stamps("b", moved="ctime", kept="mtime"):
        os.rename("n", "a")


def check_a_subtree_moves_whole_and_at_once(root: Path, env: Env) -> None:
    os.makedirs("a/b/c")
    write("a/b/c/f", b"data")
    for step in range(40):
        old, new = ("a", "z") if step % 2 == 0 else ("z", "a")
        equal(read(f"{old}/b/c/f"), b"data")
        os.rename(old, new)
        absent(f"{old}/b/c/f")
        equal((read(f"{new}/b/c/f"), names_in(f"{new}/b")), (b"data", {b"c"}))


def check_descriptors_and_working_directory_live_on_in_a_moved_subtree(root: Path, env: Env) -> None:
    os.makedirs("a/b")
    write("a/b/f", b"data")
    os.chdir("a/b")
    with opened("f", os.O_RDWR) as fd, opened(".", os.O_RDONLY | os.O_DIRECTORY) as here:
        os.rename(root / "a", root / "z")
        equal(os.getcwd(), str(Path(os.path.realpath(root)) / "z/b"))
        write("g", b"new")
        os.pwrite(fd, b"D", 0)
        os.lseek(here, 0, os.SEEK_SET)  # as rewinddir: from now on new names must show
        equal((read(root / "z/b/f"), sorted(os.listdir(here))), (b"Data", ["f", "g"]))
        os.rename("g", "h")
        equal(names_in("."), {b"f", b"h"})
    os.chdir(root)


def check_a_name_found_absent_exists_once_renamed_to(root: Path, env: Env) -> None:
    write("a", b"data")
    for number in range(30):
        absent(f"n{number}")
        os.rename("a", f"n{number}")
        equal(read(f"n{number}"), b"data")
        absent("a")
        os.rename(f"n{number}", "a")


def check_a_name_taken_over_shows_the_new_file_at_once(root: Path, env: Env) -> None:
    write("a", b"")
    for number in range(100):
        text = b"%d" % number * (number % 7 + 1)
        write("tmp", text)
        inode = os.lstat("tmp").st_ino
        os.rename("tmp", "a")
        equal((os.stat("a").st_ino, os.stat("a").st_size, read("a")), (inode, len(text), text))


def check_only_the_case_of_a_name_can_change(root: Path, env: Env) -> None:
    write("readme", b"data")
    os.rename("readme", "README")
    equal(names_in(root), {b"README"})
    absent("readme")


def check_a_long_name_can_be_renamed_to(root: Path, env: Env) -> None:
    write("a", b"data")
    os.rename("a", "x" * 255)
    equal(names_in(root), {b"x" * 255})
    with fails(errno.ENAMETOOLONG):
        os.rename("x" * 255, "x" * 256)


def check_another_process_sees_the_rename_at_once(root: Path, env: Env) -> None:
    write("a", b"data")
    spawn(lambda: os.stat("a")).result()
    os.rename("a", "b")

    def look() -> bytes:
        absent("a")
        return read("b")

    equal(spawn(look).result(), b"data")


# -- permission ------------------------------------------------------------------------------------


@cases(locked=("from", "to"))
def check_rename_needs_write_permission_on_both_directories(root: Path, env: Env, locked: str) -> None:
    env.need("other_uids")
    os.mkdir("from")
    os.mkdir("to")
    os.chmod("from", 0o777)
    os.chmod("to", 0o777)
    write("from/f", b"")
    os.chmod(locked, 0o755)
    with fails(errno.EACCES):
        env.as_user(lambda: os.rename("from/f", "to/f"))
    os.chmod(locked, 0o777)
    env.as_user(lambda: os.rename("from/f", "to/f"))


@cases(owner=("file", "directory", "neither"))
def check_a_sticky_source_lets_only_the_owners_move(root: Path, env: Env, owner: str) -> None:
    env.need("other_uids")
    _sticky("d", "d/f", owner)
    os.mkdir("free")
    os.chmod("free", 0o777)
    if owner == "neither":
        with fails(errno.EPERM, errno.EACCES):
            env.as_user(lambda: os.rename("d/f", "free/f"), uid=OTHER)
        equal(kind_of("d/f"), "regular")
    else:
        env.as_user(lambda: os.rename("d/f", "free/f"), uid=OTHER)
        equal(kind_of("free/f"), "regular")


@cases(owner=("file", "directory", "neither"))
def check_a_sticky_target_lets_only_the_owners_replace(root: Path, env: Env, owner: str) -> None:
    env.need("other_uids")
    _sticky("d", "d/f", owner)
    os.mkdir("free")
    os.chmod("free", 0o777)
    env.as_user(lambda: write("free/n", b"new"), uid=OTHER)
    if owner == "neither":
        with fails(errno.EPERM, errno.EACCES):
            env.as_user(lambda: os.rename("free/n", "d/f"), uid=OTHER)
        equal(read("d/f"), b"")
    else:
        env.as_user(lambda: os.rename("free/n", "d/f"), uid=OTHER)
        equal(read("d/f"), b"new")


def _sticky(directory: str, file: str, owner: str) -> None:
    """OTHER owns what ``owner`` names, THIRD the rest."""
    os.mkdir(directory)
    write(file, b"")
    os.chown(file, OTHER if owner == "file" else THIRD, -1)
    os.chown(directory, OTHER if owner == "directory" else THIRD, -1)
    os.chmod(directory, 0o1777)


def check_moving_a_directory_needs_write_permission_on_it(root: Path, env: Env) -> None:
    """Its ``..`` changes."""
    env.need("other_uids")
    os.mkdir("x")
    os.mkdir("y")
    os.mkdir("x/d")
    os.chmod("x", 0o777)
    os.chmod("y", 0o777)
    with fails(errno.EACCES):
        env.as_user(lambda: os.rename("x/d", "y/d"))
    env.as_user(lambda: os.rename("x/d", "x/e"))
    equal(kind_of("x/e"), "dir")
