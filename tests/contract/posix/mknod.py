"""mknod(2), mkfifo(3), bind(2): special files, and that data passes through them between processes."""

import errno
import os
import select
import socket
import stat
from pathlib import Path

from .kit import (
    ALL_KINDS,
    GROUP,
    OTHER,
    THIRD,
    Env,
    absent,
    bind_socket,
    cases,
    equal,
    fails,
    kind_of,
    make,
    mode_of,
    names_in,
    opened,
    pattern,
    read_all,
    spawn,
    stamps,
    write_all,
)

NODE_FORMATS = {"regular": stat.S_IFREG, "fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}


@cases(kind=tuple(NODE_FORMATS), umask=(0, 0o022, 0o077), mode=(0o777, 0o640))
def check_mknod_applies_the_umask(root: Path, env: Env, kind: str, umask: int, mode: int) -> None:
    os.umask(umask)
    os.mknod("x", NODE_FORMATS[kind] | mode)
    equal((kind_of("x"), mode_of("x"), os.lstat("x").st_size), (kind, mode & ~umask, 0))


def check_mknod_without_format_makes_a_regular_file(root: Path, env: Env) -> None:
    os.mknod("x", 0o600)
    equal(kind_of("x"), "regular")


@cases(kind=("char", "block"), numbers=((1, 3), (8, 1), (250, 65_536)))
def check_device_numbers_are_kept(root: Path, env: Env, kind: str, numbers: tuple[int, int]) -> None:
    env.need("devices")
    device = os.makedev(*numbers)
    os.mknod("x", (stat.S_IFCHR if kind == "char" else stat.S_IFBLK) | 0o600, device)
    equal((kind_of("x"), os.lstat("x").st_rdev), (kind, device))


@cases(kind=("char", "block"))
def check_devices_are_for_root(root: Path, env: Env, kind: str) -> None:
    format_bits = stat.S_IFCHR if kind == "char" else stat.S_IFBLK
    if os.geteuid() != 0:
        with fails(errno.EPERM):
            os.mknod("x", format_bits | 0o600, os.makedev(1, 3))
        return
    os.mkdir("open")
    os.chmod("open", 0o777)
    with fails(errno.EPERM):
        env.as_user(lambda: os.mknod("open/x", format_bits | 0o600, os.makedev(1, 3)))
    absent("open/x")


def check_a_directory_is_not_made_by_mknod(root: Path, env: Env) -> None:
    with fails(errno.EPERM, errno.EINVAL):
        os.mknod("x", stat.S_IFDIR | 0o700)
    absent("x")


@cases(existing=ALL_KINDS, kind=("fifo", "socket", "regular"))
def check_mknod_replaces_nothing(root: Path, env: Env, existing: str, kind: str) -> None:
    env.need_kind(existing)
    make(existing, "x")
    with fails(errno.EEXIST):
        os.mknod("x", NODE_FORMATS[kind] | 0o600)
    equal(kind_of("x"), existing)


@cases(kind=tuple(NODE_FORMATS))
def check_mknod_stamps_the_parent(root: Path, env: Env, kind: str) -> None:
    os.mkdir("d")
    with stamps(root, kept="mtime"), stamps("d", moved="mtime ctime"):
        os.mknod("d/x", NODE_FORMATS[kind] | 0o600)


@cases(kind=tuple(NODE_FORMATS))
def check_a_node_belongs_to_its_maker(root: Path, env: Env, kind: str) -> None:
    env.need("other_uids")
    os.mkdir("shared")
    os.chown("shared", OTHER, GROUP)
    for bits, group in ((0o777, THIRD), (0o2777, GROUP)):
        os.chmod("shared", bits)
        env.as_user(lambda: os.mknod("shared/x", NODE_FORMATS[kind] | 0o600), uid=THIRD)
        equal((os.lstat("shared/x").st_uid, os.lstat("shared/x").st_gid), (THIRD, group))
        os.unlink("shared/x")


# -- fifos -----------------------------------------------------------------------------------------


def check_a_fifo_passes_bytes_between_processes(root: Path, env: Env) -> None:
    os.mkfifo("p")
    data = pattern(300_000)

    def send() -> None:
        with opened("p", os.O_WRONLY) as fd:
            write_all(fd, data)

    child = spawn(send)
    with opened("p") as fd:
        equal(read_all(fd), data)
    child.result()
    equal(os.lstat("p").st_size, 0)


def check_a_fifo_passes_bytes_through_a_second_name_and_after_rename(root: Path, env: Env) -> None:
    os.mkfifo("p")
    os.link("p", "q")
    os.rename("p", "r")
    with opened("q", os.O_RDWR | os.O_NONBLOCK) as one, opened("r", os.O_RDWR | os.O_NONBLOCK) as two:
        os.write(one, b"through")
        equal(os.read(two, 100), b"through")


def check_an_unlinked_fifo_still_works(root: Path, env: Env) -> None:
    os.mkfifo("p")
    with opened("p", os.O_RDWR | os.O_NONBLOCK) as fd:
        os.unlink("p")
        os.write(fd, b"still")
        equal(os.read(fd, 100), b"still")


def check_poll_wakes_a_fifo_reader(root: Path, env: Env) -> None:
    os.mkfifo("p")
    with opened("p", os.O_RDONLY | os.O_NONBLOCK) as reader:
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        equal(poller.poll(0), [])
        with opened("p", os.O_WRONLY) as writer:
            os.write(writer, b"x")
            equal([event & select.POLLIN for _, event in poller.poll(5000)], [select.POLLIN])


def check_fifo_permissions_hold(root: Path, env: Env) -> None:
    os.mkfifo("p")
    os.chmod("p", 0o600)
    with fails(errno.EACCES):
        env.as_user(lambda: os.open("p", os.O_RDONLY | os.O_NONBLOCK))


# -- sockets ---------------------------------------------------------------------------------------


def check_a_stream_socket_is_bound_and_reached(root: Path, env: Env) -> None:
    with bind_socket("s") as server:
        server.listen(1)
        equal(kind_of("s"), "socket")

        def talk() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("s")
                client.sendall(b"question")
                return client.recv(100)

        child = spawn(talk)
        connection, _ = server.accept()
        equal(connection.recv(100), b"question")
        connection.sendall(b"answer")
        equal(child.result(), b"answer")
        connection.close()
    equal(names_in(root), {b"s"}, "names after close")


def check_a_datagram_socket_is_reached_under_a_new_name(root: Path, env: Env) -> None:
    with (
        bind_socket("s", socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        client.sendto(b"one", "s")
        os.rename("s", "t")
        client.sendto(b"two", "t")
        os.link("t", "u")
        client.sendto(b"three", "u")
        equal([server.recv(100) for _ in range(3)], [b"one", b"two", b"three"])
        with fails(errno.ENOENT):
            client.sendto(b"four", "s")


def check_a_used_name_cannot_be_bound(root: Path, env: Env) -> None:
    make("regular", "x")
    with fails(errno.EADDRINUSE):
        bind_socket("x")


def check_a_socket_without_server_refuses(root: Path, env: Env) -> None:
    bind_socket("s").close()
    with socket.socket(socket.AF_UNIX) as client, fails(errno.ECONNREFUSED):
        client.connect("s")


def check_a_bound_socket_obeys_umask_and_owner(root: Path, env: Env) -> None:
    os.umask(0o027)
    bind_socket("s").close()
    equal((mode_of("s"), os.lstat("s").st_uid), (0o750, os.geteuid()))


def check_connecting_needs_write_permission(root: Path, env: Env) -> None:
    with bind_socket("s") as server:
        server.listen(1)
        os.chmod("s", 0o755)

        def connect() -> None:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("s")

        with fails(errno.EACCES):
            env.as_user(connect)
        os.chmod("s", 0o777)
        env.as_user(connect)
