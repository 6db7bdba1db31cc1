"""Names are bytes: everything but ``/`` and NUL, up to 255 of them, in paths as deep as one can walk."""

import errno
import os
from pathlib import Path

from .kit import (
    Env,
    absent,
    cases,
    descend,
    equal,
    fails,
    kind_of,
    make,
    names_in,
    opened,
    read,
    remove,
    together,
    write,
)

HOSTILE = (
    b" ",
    b"  leading and trailing  ",
    b"-rf",
    b"--",
    b"~",
    b"...",
    b".hidden",
    b"..hidden",
    b"a\nb",
    b"\n",
    b"\t\r\x0b",
    b"\x01\x1b[31m\x7f",
    b"\\",
    b"back\\slash",
    b"*?[a-z]{1,2}",
    b"$HOME `id` $(id);&|<>",
    b"'\"",
    b"%s%n%d",
    b"#x",
    b":",
    b"C:",
    b"con",
    b"aux.txt",
    b"trailing.",
    b"\xff",
    b"\xfe\xff\x80",
    b"caf\xe9 latin1",
    b"\xed\xa0\x80 surrogate",
    b"\xc0\xaf overlong",
    "é NFC".encode(),
    "e\u0301 NFD".encode(),
    "🎉🏳️‍🌈".encode(),
    "\u202egnp.exe".encode(),
    "日本語".encode(),
    "ﬁ ligature".encode(),
    "\u00a0\u200b\ufeff".encode(),
    b"a" * 255,
    b"\xff" * 255,
    "é".encode() * 127,
    b".fuse_hidden0000000100000001",
    b".nfs000000000000000100000001",
    b"lost+found",
    b"x (from device).txt",
)


@cases(name=HOSTILE)
def check_a_file_may_be_called(root: Path, env: Env, name: bytes) -> None:
    absent(name)
    write(name, name)
    equal((read(name), names_in(b".")), (name, {name}))
    os.rename(name, b"plain")
    absent(name)
    os.rename(b"plain", name)
    os.link(name, b"other")
    os.unlink(name)
    os.rename(b"other", name)
    equal(read(name), name)
    os.unlink(name)
    equal(names_in(b"."), set())


@cases(name=HOSTILE)
def check_a_directory_and_a_link_may_be_called(root: Path, env: Env, name: bytes) -> None:
    os.mkdir(name)
    write(name + b"/" + name, b"inside")
    os.symlink(name + b"/" + name, b"link")
    equal((read(b"link"), os.readlink(b"link"), names_in(name)), (b"inside", name + b"/" + name, {name}))
    os.unlink(b"link")
    os.symlink(b"target", name + b"/l")
    os.unlink(name + b"/" + name)
    os.unlink(name + b"/l")
    os.rmdir(name)


def check_all_hostile_names_live_together(root: Path, env: Env) -> None:
    for number, name in enumerate(HOSTILE):
        write(name, b"%d" % number)
    equal(names_in(b"."), set(HOSTILE))
    for number, name in enumerate(HOSTILE):
        equal(read(name), b"%d" % number, f"content of {name!r}")


@cases(
    twins=(
        ("é".encode(), "e\u0301".encode()),
        (b"readme", b"README"),
        (b"a", b"a "),
        (b"a", b"a."),
        (b"a", b"\xe2\x80\x8ba"),
        ("ß".encode(), b"ss"),
        ("ı".encode(), b"i"),
        (b"\xff", b"\xfe"),
        ("\u00c5".encode(), "\u212b".encode()),
        (b"\xef\xbf\xbd", b"\xff"),
    )
)
def check_twins_are_two_files(root: Path, env: Env, twins: tuple[bytes, bytes]) -> None:
    one, two = twins
    write(one, b"one")
    absent(two)
    write(two, b"two")
    equal((read(one), read(two), names_in(b".")), (b"one", b"two", {one, two}))
    os.unlink(one)
    absent(one)
    equal(read(two), b"two")


@cases(kind=("regular", "dir", "fifo", "symlink", "socket"))
def check_255_bytes_fit_and_256_do_not(root: Path, env: Env, kind: str) -> None:
    make(kind, b"n" * 255)
    equal((kind_of(b"n" * 255), names_in(b".")), (kind, {b"n" * 255}))
    remove(b"n" * 255)
    with fails(errno.ENAMETOOLONG):
        make(kind, b"n" * 256)
    equal(names_in(b"."), set())


def check_looking_up_256_bytes_is_enametoolong(root: Path, env: Env) -> None:
    for path in (b"n" * 256, b"n" * 256 + b"/x", b"n" * 4000):
        with fails(errno.ENAMETOOLONG):
            os.stat(path)


def check_slashes_are_not_counted(root: Path, env: Env) -> None:
    os.makedirs("a/b")
    write("a//b///f", b"data")
    equal(read("./a/./b/../b//f"), b"data")


# -- depth -----------------------------------------------------------------------------------------


@cases(names=(("a",) * 200, ("d" * 255,) * 30, ("é" * 100,) * 40))
def check_a_tree_deeper_than_path_max_is_used_by_steps(root: Path, env: Env, names: tuple[str, ...]) -> None:
    descend(names)
    write("f", b"data")
    os.link("f", "g")
    os.symlink("f", "s")
    os.rename("g", "h")
    os.mkdir("sub")
    os.rename("h", "sub/h")
    os.chmod("f", 0o640)
    os.truncate("f", 2)
    os.utime("f", ns=(1000, 2000))
    equal({name: read(name) for name in ("f", "s", "sub/h")}, dict.fromkeys(("f", "s", "sub/h"), b"da"))
    equal(names_in("."), {b"f", b"s", b"sub"})
    equal((os.stat("f").st_nlink, os.stat("f").st_mtime_ns, os.stat("f").st_mode & 0o777), (2, 2000, 0o640))
    os.unlink("sub/h")
    os.rmdir("sub")
    os.unlink("s")
    os.unlink("f")
    with opened(".", os.O_RDONLY | os.O_DIRECTORY) as here:
        os.mkdir("by-step", dir_fd=here)
        os.rename("by-step", "renamed", src_dir_fd=here, dst_dir_fd=here)
        with opened("renamed", os.O_RDONLY | os.O_DIRECTORY) as inner:
            fd = os.open("f", os.O_CREAT | os.O_RDWR, dir_fd=inner)
            os.write(fd, b"bytes")
            os.unlink("f", dir_fd=inner)
            equal(os.pread(fd, 9, 0), b"bytes")
            os.close(fd)
        os.rmdir("renamed", dir_fd=here)
    for name in reversed(names):
        os.chdir("..")
        os.rmdir(name)
    equal(os.getcwd(), os.path.realpath(root))


def check_attributes_deeper_than_path_max(root: Path, env: Env) -> None:
    env.need("xattr")
    descend(["d" * 250] * 25)
    write("f", b"")
    os.setxattr("f", "user.a", b"deep")
    equal((os.getxattr("f", "user.a"), os.listxattr("f")), (b"deep", ["user.a"]))
    os.chdir(root)


def check_a_subtree_moves_below_path_max(root: Path, env: Env) -> None:
    descend(["d" * 250] * 20)
    os.makedirs("here/x/y")
    write("here/x/y/f", b"data")
    with opened(".", os.O_RDONLY | os.O_DIRECTORY) as deep:
        os.rename("here", root / "up", src_dir_fd=deep)
        os.chdir(root)
        equal(read("up/x/y/f"), b"data")
        os.rename("up", "down", dst_dir_fd=deep)
        with opened("d" * 250, os.O_RDONLY | os.O_DIRECTORY):
            pass
        fd = os.open("down/x/y/f", os.O_RDONLY, dir_fd=deep)
        equal(os.read(fd, 9), b"data")
        os.close(fd)


def check_moving_a_directory_away_above_a_deep_place_keeps_it_usable(root: Path, env: Env) -> None:
    os.mkdir("top")
    os.chdir("top")
    descend(["d" * 250] * 20)
    write("f", b"data")
    os.rename(root / "top", root / "moved")
    equal(read("f"), b"data")
    write("g", b"new")
    equal(names_in("."), {b"f", b"g"})
    os.chdir(root)


def check_many_processes_build_one_deep_tree(root: Path, env: Env) -> None:
    def build(number: int) -> None:
        for level in range(30):
            try:
                os.mkdir("n" * 200)
            except FileExistsError:
                pass
            os.chdir("n" * 200)
            write(f"{number}", b"%d" % level)

    together(3, build)
    for level in range(30):
        os.chdir("n" * 200)
        equal({name: read(name) for name in "012"}, dict.fromkeys("012", b"%d" % level))
    os.chdir(root)
