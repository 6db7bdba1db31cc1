"""mkdir(2) and rmdir(2): what a new directory is, and that only an empty one goes."""

import errno
import os
import stat
from pathlib import Path

from .kit import (
    ALL_KINDS,
    GROUP,
    OTHER,
    THIRD,
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
    stamps,
    together,
    write,
    write_all,
)
from .syscalls import listing


@cases(mode=(0o777, 0o750, 0o700, 0o1777, 0), umask=(0, 0o022, 0o027, 0o077))
def check_mkdir_applies_the_umask(root: Path, env: Env, mode: int, umask: int) -> None:
    os.umask(umask)
    os.mkdir("d", mode)
    equal((kind_of("d"), mode_of("d")), ("dir", mode & ~umask))


def check_a_new_directory_belongs_to_its_maker(root: Path, env: Env) -> None:
    os.mkdir("open")
    os.chmod("open", 0o777)
    os.mkdir("own")
    equal((os.lstat("own").st_uid, os.lstat("own").st_gid), (os.geteuid(), os.getegid()))
    env.as_user(lambda: os.mkdir("open/d"), uid=OTHER, gid=GROUP)
    equal((os.lstat("open/d").st_uid, os.lstat("open/d").st_gid), (OTHER, GROUP))


def check_a_directory_in_a_setgid_directory_takes_group_and_bit(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.mkdir("shared")
    os.chown("shared", OTHER, GROUP)
    os.chmod("shared", 0o2777)
    env.as_user(lambda: os.mkdir("shared/d", 0o755), uid=THIRD)
    status = os.lstat("shared/d")
    equal((status.st_uid, status.st_gid, mode_of("shared/d")), (THIRD, GROUP, 0o2755))
    env.as_user(lambda: write("shared/d/f", b""), uid=THIRD)
    equal(os.lstat("shared/d/f").st_gid, GROUP, "group of a file one level down")


def check_mkdir_stamps_the_parent(root: Path, env: Env) -> None:
    os.mkdir("d")
    with stamps(root, kept="mtime ctime"), stamps("d", moved="mtime ctime"):
        os.mkdir("d/e")


def check_a_new_directory_is_empty(root: Path, env: Env) -> None:
    os.mkdir("d")
    equal(os.listdir("d"), [])
    with opened("d") as fd:
        equal(listing(fd), [])


@cases(kind=ALL_KINDS)
def check_mkdir_refuses_every_existing_kind(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with stamps(root, kept="mtime"), fails(errno.EEXIST):
        os.mkdir("x")
    equal(kind_of("x"), kind)


def check_mkdir_takes_a_trailing_slash(root: Path, env: Env) -> None:
    os.mkdir("d/")
    equal(kind_of("d"), "dir")


@cases(path=(".", "..", "/", "d/.", "d/.."))
def check_mkdir_of_what_always_exists_is_eexist(root: Path, env: Env, path: str) -> None:
    os.mkdir("d")
    with fails(errno.EEXIST):
        os.mkdir(path)


def check_mkdir_without_permission_makes_nothing(root: Path, env: Env) -> None:
    os.mkdir("d")
    with fails(errno.EACCES):
        env.as_user(lambda: os.mkdir("d/e"))
    absent("d/e")


def check_dot_dot_is_the_parent(root: Path, env: Env) -> None:
    os.makedirs("a/b")
    os.mkdir("c")
    equal(os.stat("a/b/..").st_ino, os.stat("a").st_ino)
    os.rename("a/b", "c/b")
    equal(os.stat("c/b/..").st_ino, os.stat("c").st_ino, "after a move")


def check_rmdir_removes_an_empty_directory(root: Path, env: Env) -> None:
    os.mkdir("p")
    os.mkdir("p/d")
    with stamps(root, kept="mtime ctime"), stamps("p", moved="mtime ctime"):
        os.rmdir("p/d")
    absent("p/d")
    equal(names_in("p"), set())


@cases(kind=ALL_KINDS, name=("x", ".x"))
def check_rmdir_refuses_a_directory_that_holds_something(root: Path, env: Env, kind: str, name: str) -> None:
    env.need_kind(kind)
    os.mkdir("d")
    make(kind, f"d/{name}")
    with stamps("d", kept="mtime"), fails(errno.ENOTEMPTY, errno.EEXIST):
        os.rmdir("d")
    equal(names_in("d"), {os.fsencode(name)})


@cases(kind=("regular", "fifo", "symlink", "socket", "char", "block"))
def check_rmdir_refuses_what_is_no_directory(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with fails(errno.ENOTDIR):
        os.rmdir("x")
    equal(kind_of("x"), kind)


def check_rmdir_refuses_a_symlink_to_a_directory(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    for path in ("link", "link/"):
        with fails(errno.ENOTDIR):
            os.rmdir(path)
    equal(kind_of("d"), "dir")


@cases(path_and_errno=(("d/.", errno.EINVAL), ("d/e/..", errno.ENOTEMPTY), ("missing", errno.ENOENT)))
def check_rmdir_of_odd_paths(root: Path, env: Env, path_and_errno: tuple[str, int]) -> None:
    os.makedirs("d/e")
    with fails(path_and_errno[1]):
        os.rmdir(path_and_errno[0])


def check_rmdir_takes_a_trailing_slash(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.rmdir("d/")
    absent("d")


def check_rmdir_needs_write_permission_on_the_parent(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.makedirs("p/d")
    os.chown("p/d", OTHER, OTHER)
    with fails(errno.EACCES):
        env.as_user(lambda: os.rmdir("p/d"), uid=OTHER)
    os.chmod("p", 0o777)
    env.as_user(lambda: os.rmdir("p/d"), uid=OTHER)
    absent("p/d")


def check_a_removed_working_directory_is_gone_but_usable(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.chdir("d")
    os.rmdir(root / "d")
    equal(os.listdir("."), [])
    with fails(errno.ENOENT):
        os.getcwd()
    with fails(errno.ENOENT):
        os.open("f", os.O_CREAT | os.O_WRONLY)
    with fails(errno.ENOENT):
        os.mkdir("e")
    os.chdir(root)


def check_a_removed_open_directory_lists_empty_and_takes_nothing(root: Path, env: Env) -> None:
    os.mkdir("d")
    with opened("d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir("d")
        os.fstat(fd)
        equal([name for name in os.listdir(fd) if name not in (".", "..")], [])
        with fails(errno.ENOENT):
            os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)


def check_a_removed_open_directory_still_has_mode_and_times(root: Path, env: Env) -> None:
    os.mkdir("d")
    with opened("d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir("d")
        os.fchmod(fd, 0o700)
        os.utime(fd, ns=(5, 7))
        os.fsync(fd)
        st = os.fstat(fd)
        equal((stat.S_IMODE(st.st_mode), st.st_atime_ns, st.st_mtime_ns), (0o700, 5, 7))


def check_a_directory_made_again_is_a_new_one(root: Path, env: Env) -> None:
    for number in range(100):
        os.mkdir("d")
        equal(os.listdir("d"), [])
        write(f"d/{number}", b"")
        equal(os.listdir("d"), [str(number)])
        os.unlink(f"d/{number}")
        os.rmdir("d")
        absent(f"d/{number}")


def check_a_directory_goes_while_a_file_that_was_in_it_is_open(root: Path, env: Env) -> None:
    """A hidden stand-in for the unlinked file would make the directory not empty."""
    os.mkdir("d")
    with opened("d/f", os.O_CREAT | os.O_RDWR) as fd:
        os.unlink("d/f")
        equal(names_in("d"), set())
        os.rmdir("d")
        write_all(fd, b"still mine")
        equal(os.pread(fd, 20, 0), b"still mine")


def check_a_name_found_absent_exists_once_made(root: Path, env: Env) -> None:
    for number in range(30):
        absent(f"d{number}/f")
        os.mkdir(f"d{number}")
        absent(f"d{number}/f")
        write(f"d{number}/f", b"x")
        equal(os.stat(f"d{number}/f").st_size, 1)


def check_of_many_makers_one_wins(root: Path, env: Env) -> None:
    def attempt(number: int) -> int:
        won = 0
        for turn in range(30):
            try:
                os.mkdir(f"d{turn}")
                won += 1
            except FileExistsError:
                pass
        return won

    equal(sum(together(6, attempt)), 30, "directories made")


def check_makedirs_by_many_at_once_never_fails(root: Path, env: Env) -> None:
    def build(number: int) -> None:
        for turn in range(20):
            os.makedirs(f"t{turn}/a/b/c", exist_ok=True)
            write(f"t{turn}/a/b/c/{number}", b"")

    together(4, build)
    for turn in range(20):
        equal(len(names_in(f"t{turn}/a/b/c")), 4)


def check_of_many_removers_one_wins(root: Path, env: Env) -> None:
    for turn in range(30):
        os.mkdir(f"d{turn}")

    def attempt(number: int) -> int:
        won = 0
        for turn in range(30):
            try:
                os.rmdir(f"d{turn}")
                won += 1
            except FileNotFoundError:
                pass
        return won

    equal(sum(together(4, attempt)), 30, "directories removed")
    equal(names_in(root), set())
