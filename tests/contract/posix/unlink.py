"""unlink(2): the name goes at once, the file when the last one that holds it lets go."""

import errno
import mmap
import os
from pathlib import Path

from .kit import (
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
    mode_of,
    names_in,
    opened,
    pattern,
    read,
    spawn,
    stamps,
    together,
    write,
    write_all,
)


@cases(kind=(*FILE_KINDS, "char", "block"))
def check_every_kind_goes_and_stamps_its_directory(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    os.mkdir("d")
    make(kind, "d/x")
    with stamps(root, kept="mtime ctime"), stamps("d", moved="mtime ctime"):
        os.unlink("d/x")
    absent("d/x")
    equal(names_in("d"), set())


def check_the_ctime_of_the_remaining_link_moves(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    with stamps("b", moved="ctime", kept="mtime"):
        os.unlink("a")


def check_a_refused_unlink_changes_nothing(root: Path, env: Env) -> None:
    os.mkdir("d")
    with stamps(root, kept="mtime ctime"), fails(errno.EISDIR, errno.EPERM):
        os.unlink("d")
    equal(kind_of("d"), "dir")


@cases(case=(("missing", errno.ENOENT), ("f/x", errno.ENOTDIR), ("f/", errno.ENOTDIR), ("", errno.ENOENT)))
def check_wrong_paths_are_refused(root: Path, env: Env, case: tuple[str, int]) -> None:
    write("f", b"")
    with fails(case[1]):
        os.unlink(case[0])
    equal(names_in(root), {b"f"})


def check_a_symlink_goes_and_its_target_stays(root: Path, env: Env) -> None:
    os.mkdir("d")
    os.symlink("d", "link")
    os.unlink("link")
    equal(names_in(root), {b"d"})


def check_an_unlinked_open_file_is_read_and_written(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        write_all(fd, b"before ")
        os.unlink("f")
        write_all(fd, b"after")
        equal((os.pread(fd, 50, 0), os.fstat(fd).st_size, os.fstat(fd).st_nlink), (b"before after", 12, 0))


def check_an_unlinked_open_file_leaves_no_trace_in_listings(root: Path, env: Env) -> None:
    os.mkdir("d")
    fds = [os.open(f"d/f{number}", os.O_CREAT | os.O_RDWR) for number in range(20)]
    for number in range(20):
        os.unlink(f"d/f{number}")
    equal(names_in("d"), set(), "names while the files are open")
    os.rmdir("d")
    for fd in fds:
        os.close(fd)


def check_an_unlinked_open_file_keeps_all_its_calls(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        write_all(fd, pattern(10_000))
        inode = os.fstat(fd).st_ino
        os.unlink("f")
        os.fchmod(fd, 0o640)
        os.ftruncate(fd, 5000)
        os.utime(fd, ns=(1_000_000_001, 2_000_000_002))
        os.fsync(fd)
        status = os.fstat(fd)
        equal(
            (mode_of(fd), status.st_mtime_ns, status.st_size, status.st_ino, status.st_nlink),
            (0o640, 2_000_000_002, 5000, inode, 0),
        )
        with mmap.mmap(fd, 5000) as view:
            equal(view[:], pattern(5000))
            view[:3] = b"abc"
        equal(os.pread(fd, 3, 0), b"abc")


def check_attributes_of_an_unlinked_open_file_can_be_used(root: Path, env: Env) -> None:
    env.need("xattr")
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        os.setxattr(fd, "user.one", b"1")
        os.unlink("f")
        os.setxattr(fd, "user.two", b"2")
        equal((os.getxattr(fd, "user.one"), sorted(os.listxattr(fd))), (b"1", ["user.one", "user.two"]))
        os.removexattr(fd, "user.one")
        equal(os.listxattr(fd), ["user.two"])


def check_a_new_file_of_the_same_name_is_another(root: Path, env: Env) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as old:
        write_all(old, b"old")
        os.unlink("f")
        write("f", b"new one")
        assert os.stat("f").st_ino != os.fstat(old).st_ino, "the number of a living file was given again"
        os.pwrite(old, b"OLD", 0)
        equal((read("f"), os.pread(old, 10, 0), os.fstat(old).st_size), (b"new one", b"OLD", 3))


def check_a_new_file_of_the_same_name_has_nothing_of_the_old(root: Path, env: Env) -> None:
    env.need("xattr")
    for number in range(30):
        write("f", b"x" * number)
        os.chmod("f", 0o600 + number % 8)
        os.setxattr("f", "user.mark", b"%d" % number)
        os.unlink("f")
        write("f", b"")
        equal((os.stat("f").st_size, mode_of("f"), os.listxattr("f"), read("f")), (0, 0o644, [], b""))
        os.unlink("f")


def check_another_process_keeps_what_it_holds(root: Path, env: Env) -> None:
    ready_reader, ready_writer = os.pipe()
    go_reader, go_writer = os.pipe()
    write("f", pattern(100_000))

    def hold() -> bytes:
        with opened("f") as fd:
            os.write(ready_writer, b"1")
            os.read(go_reader, 1)
            return os.pread(fd, 100_000, 0)

    child = spawn(hold)
    os.read(ready_reader, 1)
    os.unlink("f")
    absent("f")
    os.write(go_writer, b"1")
    equal(child.result(), pattern(100_000))


def check_a_mapping_outlives_the_name(root: Path, env: Env) -> None:
    write("f", pattern(50_000))
    with opened("f", os.O_RDWR) as fd:
        view = mmap.mmap(fd, 50_000)
    os.unlink("f")
    equal(view[:], pattern(50_000))
    view[10:13] = b"abc"
    view.flush()
    equal(view[9:14], pattern(14)[9:10] + b"abc" + pattern(14)[13:14])
    view.close()


def check_unlink_needs_write_permission_on_the_directory_not_the_file(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.mkdir("d")
    write("d/f", b"")
    os.chmod("d/f", 0o666)
    with fails(errno.EACCES):
        env.as_user(lambda: os.unlink("d/f"))
    os.chmod("d", 0o777)
    os.chmod("d/f", 0)
    env.as_user(lambda: os.unlink("d/f"))
    absent("d/f")


@cases(owner=("file", "directory", "neither"), kind=("regular", "symlink", "fifo", "dir"))
def check_a_sticky_directory_lets_only_the_owners_remove(root: Path, env: Env, owner: str, kind: str) -> None:
    env.need("other_uids")
    os.mkdir("d")
    make(kind, "d/x")
    os.lchown("d/x", OTHER if owner == "file" else THIRD, -1)
    os.chown("d", OTHER if owner == "directory" else THIRD, -1)
    os.chmod("d", 0o1777)
    remove = os.rmdir if kind == "dir" else os.unlink
    if owner == "neither":
        with fails(errno.EPERM, errno.EACCES):
            env.as_user(lambda: remove("d/x"), uid=OTHER)
        equal(kind_of("d/x"), kind)
    else:
        env.as_user(lambda: remove("d/x"), uid=OTHER)
        absent("d/x")


def check_unlink_by_many_succeeds_once_each(root: Path, env: Env) -> None:
    for number in range(60):
        write(f"f{number}", b"")

    def attempt(worker: int) -> int:
        won = 0
        for number in range(60):
            try:
                os.unlink(f"f{number}")
                won += 1
            except FileNotFoundError:
                pass
        return won

    equal(sum(together(4, attempt)), 60, "unlinks that succeeded")
    equal(names_in(root), set())


def check_a_storm_of_creations_and_unlinks_ends_empty(root: Path, env: Env) -> None:
    def storm(worker: int) -> None:
        for turn in range(150):
            name = f"w{worker}-{turn % 7}"
            write(name, b"%d" % turn)
            equal(read(name), b"%d" % turn)
            os.unlink(name)
            absent(name)

    together(4, storm)
    equal(names_in(root), set())


def check_a_storm_on_the_same_names_never_breaks_a_reader(root: Path, env: Env) -> None:
    def storm(worker: int) -> None:
        for turn in range(150):
            name = f"n{turn % 3}"
            try:
                if worker % 2:
                    with opened(name, os.O_CREAT | os.O_RDWR) as fd:
                        os.pwrite(fd, b"whole", 0)
                        equal(os.pread(fd, 9, 0), b"whole")
                else:
                    os.unlink(name)
            except FileNotFoundError:
                pass

    together(4, storm)
    for name in os.listdir("."):
        equal(read(name) in (b"", b"whole"), True)
