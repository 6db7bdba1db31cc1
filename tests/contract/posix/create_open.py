"""open(2) and creat(2): what a new file is, what each flag promises, and who wins when many create."""

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
    make,
    mode_of,
    names_in,
    opened,
    read,
    stamps,
    together,
    write,
    write_all,
)

CREATE = os.O_CREAT | os.O_WRONLY


@cases(mode=(0o777, 0o666, 0o640, 0o604), umask=(0, 0o022, 0o027, 0o077, 0o777))
def check_creation_applies_the_umask(root: Path, env: Env, mode: int, umask: int) -> None:
    os.umask(umask)
    with opened(root / "f", CREATE, mode) as fd:
        equal(mode_of(fd), mode & ~umask, "mode by fstat")
    equal(mode_of(root / "f"), mode & ~umask, "mode by lstat")


def check_a_new_file_is_empty_and_single(root: Path, env: Env) -> None:
    with opened(root / "f", CREATE | os.O_EXCL) as fd:
        status = os.fstat(fd)
    assert stat.S_ISREG(status.st_mode), "not a regular file"
    equal((status.st_size, status.st_nlink), (0, 1), "size and link count")


def check_a_new_file_belongs_to_its_maker(root: Path, env: Env) -> None:
    write(root / "f", b"")
    equal((os.lstat("f").st_uid, os.lstat("f").st_gid), (os.geteuid(), os.getegid()), "owner and group")


def check_a_new_file_of_another_user_belongs_to_that_user(root: Path, env: Env) -> None:
    (root / "open").mkdir()
    (root / "open").chmod(0o777)
    env.as_user(lambda: write("open/f", b"data"), uid=OTHER, gid=GROUP)
    status = os.lstat("open/f")
    equal((status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)), (OTHER, GROUP, 0o644))
    equal(env.as_user(lambda: read("open/f")), b"data")


def check_a_file_in_a_setgid_directory_takes_its_group(root: Path, env: Env) -> None:
    env.need("other_uids")
    (root / "shared").mkdir()
    os.chown("shared", OTHER, GROUP)
    os.chmod("shared", 0o2777)
    env.as_user(lambda: write("shared/f", b""), uid=THIRD)
    equal((os.lstat("shared/f").st_uid, os.lstat("shared/f").st_gid), (THIRD, GROUP), "owner and group")


def check_setgid_of_a_new_file_is_dropped_for_strangers_to_the_group(root: Path, env: Env) -> None:
    env.need("other_uids")
    (root / "shared").mkdir()
    os.chown("shared", OTHER, GROUP)
    os.chmod("shared", 0o2777)

    def create() -> None:
        os.umask(0)
        os.close(os.open("shared/f", CREATE, 0o2775))

    env.as_user(create, uid=THIRD)
    equal(mode_of("shared/f"), 0o775, "mode")


def check_creation_stamps_file_and_parent(root: Path, env: Env) -> None:
    (root / "d").mkdir()
    with stamps(root, kept="mtime ctime"), stamps("d", moved="mtime ctime"):
        start = os.stat("d").st_mtime_ns
        write("d/f", b"")
    status = os.lstat("d/f")
    assert min(status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns) > start, "old times on a new file"


def check_a_refused_creation_does_not_touch_the_parent(root: Path, env: Env) -> None:
    write("f", b"kept")
    with stamps(root, kept="mtime ctime"), fails(errno.EEXIST):
        os.open("f", CREATE | os.O_EXCL)
    equal(read("f"), b"kept")


def check_o_creat_on_an_existing_file_changes_nothing(root: Path, env: Env) -> None:
    write("f", b"kept")
    os.chmod("f", 0o640)
    with stamps(root, kept="mtime ctime"), stamps("f", kept="mtime ctime"):
        os.close(os.open("f", CREATE, 0o777))
    equal((read("f"), mode_of("f")), (b"kept", 0o640))


@cases(kind=ALL_KINDS)
def check_o_excl_refuses_every_existing_kind(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, root / "x")
    with fails(errno.EEXIST):
        os.open("x", CREATE | os.O_EXCL)


def check_o_creat_follows_a_dangling_symlink(root: Path, env: Env) -> None:
    os.symlink("target", "link")
    write("link", b"through")
    equal(read("target"), b"through")
    assert stat.S_ISLNK(os.lstat("link").st_mode), "the link was replaced"


def check_access_modes_bind_the_descriptor(root: Path, env: Env) -> None:
    write("f", b"data")
    with opened("f", os.O_RDONLY) as fd, fails(errno.EBADF):
        os.write(fd, b"x")
    with opened("f", os.O_WRONLY) as fd, fails(errno.EBADF):
        os.read(fd, 1)
    with opened("f", os.O_RDWR) as fd:
        os.pwrite(fd, b"D", 0)
        equal(os.pread(fd, 9, 0), b"Data")


def check_a_writer_does_not_break_a_reader_opened_first(root: Path, env: Env) -> None:
    """One shared descriptor per inode would hand the reader's access mode to the writer."""
    write("f", b"0123456789")
    with (
        opened("f", os.O_RDONLY) as reader,
        opened("f", os.O_WRONLY) as writer,
        opened("f", os.O_RDWR) as both,
    ):
        os.pwrite(writer, b"AB", 2)
        os.pwrite(both, b"CD", 6)
        equal(os.pread(reader, 20, 0), b"01AB45CD89")
        equal(os.pread(both, 20, 0), b"01AB45CD89")


def check_descriptors_have_their_own_position(root: Path, env: Env) -> None:
    write("f", b"abcdef")
    with opened("f") as one, opened("f") as two:
        equal((os.read(one, 2), os.read(two, 3), os.read(one, 2)), (b"ab", b"abc", b"cd"))


@cases(mode=(0, 0o444, 0o200))
def check_the_mode_of_a_new_file_does_not_bind_the_descriptor_that_made_it(root: Path, env: Env, mode: int) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR | os.O_EXCL, mode) as fd:
        write_all(fd, b"data")
        equal(os.pread(fd, 9, 0), b"data")
    equal((mode_of("f"), os.lstat("f").st_size), (mode & ~0o022, 4))


@cases(mode=(0, 0o444, 0o200))
def check_so_for_another_user(root: Path, env: Env, mode: int) -> None:
    (root / "open").mkdir()
    (root / "open").chmod(0o777)

    def create() -> bytes:
        with opened("open/f", os.O_CREAT | os.O_RDWR | os.O_EXCL, mode) as fd:
            write_all(fd, b"data")
            return os.pread(fd, 9, 0)

    equal(env.as_user(create), b"data")


@cases(mode=(0o000, 0o444, 0o333))
def check_the_owner_is_bound_by_the_mode_at_the_next_open(root: Path, env: Env, mode: int) -> None:
    env.need("other_uids")
    write("f", b"data")
    os.chown("f", OTHER, OTHER)
    os.chmod("f", mode)
    for flags, bit in ((os.O_RDONLY, 0o400), (os.O_WRONLY, 0o200)):
        if mode & bit:
            env.as_user(lambda flags=flags: os.open("f", flags))  # type: ignore[misc]
        else:
            with fails(errno.EACCES):
                env.as_user(lambda flags=flags: os.open("f", flags))  # type: ignore[misc]


@cases(mode=(0o555, 0o666, 0o000))
def check_creating_needs_write_and_search_on_the_directory(root: Path, env: Env, mode: int) -> None:
    os.mkdir("d")
    os.chmod("d", mode)
    with fails(errno.EACCES):
        env.as_user(lambda: write("d/f", b""))
    os.chmod("d", 0o777)
    absent("d/f")


def check_a_fifo_without_reader_refuses_a_nonblocking_writer(root: Path, env: Env) -> None:
    os.mkfifo("p")
    with fails(errno.ENXIO):
        os.open("p", os.O_WRONLY | os.O_NONBLOCK)


def check_a_socket_cannot_be_opened(root: Path, env: Env) -> None:
    make("socket", "s")
    with fails(errno.ENXIO):
        os.open("s", os.O_RDONLY)


def check_a_file_with_a_trailing_slash_is_none(root: Path, env: Env) -> None:
    write("f", b"")
    with fails(errno.ENOTDIR):
        os.open("f/", os.O_RDONLY)
    with fails(errno.EISDIR):
        os.open("new/", CREATE)
    absent("new")


def check_the_empty_path_is_enoent(root: Path, env: Env) -> None:
    with fails(errno.ENOENT):
        os.open("", CREATE)


def check_bytes_of_one_descriptor_are_seen_by_another_at_once(root: Path, env: Env) -> None:
    with opened("f", os.O_RDWR | os.O_CREAT) as writer, opened("f") as reader:
        for number in range(200):
            os.write(writer, b"%03d\n" % number)
            equal(os.pread(reader, 4, number * 4), b"%03d\n" % number)
            equal(os.stat("f").st_size, number * 4 + 4, "size")


def check_a_name_found_absent_exists_once_created(root: Path, env: Env) -> None:
    for number in range(50):
        absent(f"f{number}")
        write(f"f{number}", b"now")
        equal(os.stat(f"f{number}").st_size, 3)
        os.unlink(f"f{number}")
        absent(f"f{number}")


def check_of_many_exclusive_creators_one_wins(root: Path, env: Env) -> None:
    def attempt(number: int) -> int:
        won = 0
        for turn in range(20):
            try:
                os.close(os.open(f"f{turn}", CREATE | os.O_EXCL))
                won += 1
            except FileExistsError:
                pass
        return won

    equal(sum(together(6, attempt)), 20, "creations that succeeded")
    equal(len(names_in(root)), 20, "files")


def check_many_open_descriptors_of_one_file_work(root: Path, env: Env) -> None:
    write("f", b"x")
    fds = [os.open("f", os.O_RDWR) for _ in range(200)]
    for number, fd in enumerate(fds):
        os.pwrite(fd, b"%c" % (number % 256), number)
    equal(read("f"), bytes(number % 256 for number in range(200)))
    for fd in fds:
        os.close(fd)
