"""path_resolution(7): the same answers from every call that takes a path; paths of full length work."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from .kit import (
    OTHER,
    Env,
    cases,
    descend,
    equal,
    fails,
    kind_of,
    names_in,
    opened,
    read,
    write,
)

# Each call gets the path under trial; "spare" is an ordinary file beside it, for the calls that take two.
CALLS: dict[str, Callable[[str], object]] = {
    "open": lambda path: os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK)),
    "create": lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)),
    "stat": os.stat,
    "lstat": os.lstat,
    "chdir_up": lambda path: os.chdir(f"{path}/.."),
    "chmod": lambda path: os.chmod(path, 0o644),
    "lchown": lambda path: os.lchown(path, -1, -1),
    "truncate": lambda path: os.truncate(path, 0),
    "utime": lambda path: os.utime(path, ns=(1, 2)),
    "readlink": os.readlink,
    "listdir": os.listdir,
    "chdir": os.chdir,
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "symlink": lambda path: os.symlink("target", path),
    "link_from": lambda path: os.link(path, "linked"),
    "link_to": lambda path: os.link("spare", path),
    "rename_from": lambda path: os.rename(path, "renamed"),
    "rename_to": lambda path: os.rename("spare", path),
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    "statvfs": os.statvfs,
    "getxattr": lambda path: os.getxattr(path, "user.x"),
    "setxattr": lambda path: os.setxattr(path, "user.x", b"1"),
    "listxattr": os.listxattr,
    "removexattr": lambda path: os.removexattr(path, "user.x"),
}
MAKERS = ("create", "mkdir", "symlink", "link_to", "rename_to", "mkfifo", "mknod")
FINDERS = tuple(name for name in CALLS if name not in MAKERS)


@cases(call=tuple(CALLS))
def check_a_missing_directory_on_the_way_is_enoent(root: Path, env: Env, call: str) -> None:
    write("spare", b"")
    with fails(errno.ENOENT):
        CALLS[call]("missing/x")


@cases(call=FINDERS)
def check_a_missing_name_is_enoent(root: Path, env: Env, call: str) -> None:
    write("spare", b"")
    with fails(errno.ENOENT):
        CALLS[call]("missing")


@cases(call=tuple(CALLS), kind=("regular", "fifo"))
def check_a_file_on_the_way_is_enotdir(root: Path, env: Env, call: str, kind: str) -> None:
    write("spare", b"")
    if kind == "fifo":
        os.mkfifo("f")
    else:
        write("f", b"")
    with fails(errno.ENOTDIR):
        CALLS[call]("f/x")


@cases(call=tuple(CALLS))
def check_a_symlink_loop_on_the_way_is_eloop(root: Path, env: Env, call: str) -> None:
    write("spare", b"")
    os.symlink("two", "one")
    os.symlink("one", "two")
    with fails(errno.ELOOP):
        CALLS[call]("one/x")


@cases(call=tuple(CALLS), place=("end", "way"))
def check_a_name_of_256_bytes_is_enametoolong(root: Path, env: Env, call: str, place: str) -> None:
    write("spare", b"")
    with fails(errno.ENAMETOOLONG):
        CALLS[call]("n" * 256 + ("/x" if place == "way" else ""))
    equal(names_in("."), {b"spare"})


@cases(call=tuple(CALLS))
def check_a_path_of_4096_bytes_is_enametoolong(root: Path, env: Env, call: str) -> None:
    write("spare", b"")
    with fails(errno.ENAMETOOLONG):
        CALLS[call]("./" * 2047 + "xx")


@cases(call=tuple(CALLS))
def check_a_directory_without_search_permission_is_eacces(root: Path, env: Env, call: str) -> None:
    env.need("other_uids")
    os.mkdir("d")
    write("d/x", b"")
    write("spare", b"")
    os.chown("d/x", OTHER, OTHER)
    os.chown("spare", OTHER, OTHER)
    os.chmod(".", 0o777)
    os.chmod("d", 0o766)
    with fails(errno.EACCES):
        env.as_user(lambda: CALLS[call]("d/x" if call in FINDERS else "d/new"))
    equal(names_in("d"), {b"x"})


@cases(call=(*MAKERS, "unlink", "rename_from", "rmdir"))
def check_a_directory_without_write_permission_is_eacces(root: Path, env: Env, call: str) -> None:
    env.need("other_uids")
    os.mkdir("d")
    write("d/x", b"")
    os.mkdir("d/dir")
    write("spare", b"")
    for path in ("d/x", "d/dir", "spare"):
        os.chown(path, OTHER, OTHER)
    os.chmod(".", 0o777)
    os.chmod("d", 0o755)
    path = "d/dir" if call == "rmdir" else "d/x" if call in FINDERS else "d/new"
    with fails(errno.EACCES):
        env.as_user(lambda: CALLS[call](path))
    equal(names_in("d"), {b"x", b"dir"})


# -- paths of 4095 bytes ---------------------------------------------------------------------------

STEP = "s" * 255
LONGEST = f"{STEP}/" * 15 + "e" * 255  # 4095 bytes, the most the kernel takes


@cases(call=("create", "mkdir", "symlink", "link_to", "rename_to", "mkfifo", "mknod"))
def check_a_path_of_4095_bytes_can_be_made(root: Path, env: Env, call: str) -> None:
    """Relative to the root of the check: a server that joins its own prefix to it exceeds PATH_MAX."""
    equal(len(LONGEST), 4095)
    descend([STEP] * 15)
    os.chdir(root)
    write("spare", b"")
    CALLS[call](LONGEST)
    kinds = {"mkdir": "dir", "symlink": "symlink", "mkfifo": "fifo"}
    equal(kind_of(LONGEST), kinds.get(call, "regular"))


@cases(call=tuple(name for name in FINDERS if "xattr" not in name and name != "chdir_up"))
def check_a_path_of_4095_bytes_can_be_used(root: Path, env: Env, call: str) -> None:
    descend([STEP] * 15)
    if call in ("listdir", "chdir", "rmdir"):
        os.mkdir("e" * 255)
    elif call == "readlink":
        os.symlink("target", "e" * 255)
    else:
        write("e" * 255, b"data")
    os.chdir(root)
    CALLS[call](LONGEST)
    os.chdir(root)
    gone = call in ("unlink", "rmdir", "rename_from")
    equal(os.path.lexists(LONGEST), not gone, "the name exists")


def check_attributes_at_a_path_of_4095_bytes(root: Path, env: Env) -> None:
    env.need("xattr")
    descend([STEP] * 15)
    write("e" * 255, b"data")
    os.chdir(root)
    os.setxattr(LONGEST, "user.x", b"1")
    equal((os.getxattr(LONGEST, "user.x"), os.listxattr(LONGEST)), (b"1", ["user.x"]))
    os.removexattr(LONGEST, "user.x")
    equal((os.listxattr(LONGEST), read(LONGEST)), ([], b"data"))


def check_a_relative_path_from_a_descriptor(root: Path, env: Env) -> None:
    os.makedirs("a/b")
    write("a/b/f", b"data")
    with opened("a", os.O_RDONLY | os.O_DIRECTORY) as fd:
        inner = os.open("b/f", os.O_RDONLY, dir_fd=fd)
        equal(os.read(inner, 9), b"data")
        os.close(inner)
        os.rename("b/f", "g", src_dir_fd=fd, dst_dir_fd=fd)
        equal((names_in("a"), os.stat("g", dir_fd=fd).st_size), ({b"b", b"g"}, 4))
    with opened("a/g") as fd, fails(errno.ENOTDIR):
        os.open("x", os.O_RDONLY, dir_fd=fd)
