"""What the fuzzer can do to a tree: one operation as a value, and a function that does it to one tree.

In: an ``Operation`` with relative paths and all its data. Out: its outcome, a value or the name of an
errno, so that the same operation on two trees can be compared. Invariants: the outcome depends on nothing
but the tree and the operation; no call follows a symlink or waits on a fifo. Kept out: chance, and any
knowledge of mounts.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NOREPLACE, EXCHANGE = 1, 2
_AT_FDCWD = -100
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)

MOUNT, BRANCH = "mount", "branch"


@dataclass(frozen=True)
class Operation:
    """One thing to do; ``side`` says whether through the mount or behind it, on the branch."""

    number: int
    kind: str
    side: str
    paths: tuple[bytes, ...] = ()
    handle: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        words = [f"{self.number:6d} {self.side:6s} {self.kind}", *map(short_path, self.paths)]
        if self.handle:
            words.append(f"handle={self.handle}")
        for name, value in self.arguments.items():
            words.append(f"{name}={_brief(value)}")
        return " ".join(words)


class _Refused(Exception):
    """Not done on any tree; the text is the outcome."""


@dataclass
class Tree:
    """One directory that operations are done to, with the descriptors they keep open there."""

    base: bytes
    handles: dict[int, int] = field(default_factory=dict)

    def path(self, relative: bytes) -> bytes:
        """The name to give the kernel."""
        return os.path.join(self.base, relative)

    def close(self) -> None:
        """Close what is still held; a dead mount may refuse that too."""
        for fd in self.handles.values():
            try:
                os.close(fd)
            except OSError:
                pass
        self.handles.clear()


def perform(operation: Operation, tree: Tree) -> object:
    """Do it; the result, or ``"ENOENT"`` and the like when the kernel refuses."""
    try:
        return _ACTIONS[operation.kind](tree, operation)
    except _Refused as refusal:
        return str(refusal)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))


def short_path(path: bytes) -> str:
    """A relative path for people: very long names by their beginning and length."""
    parts = [part if len(part) <= 40 else part[:8] + b"...%d" % len(part) for part in path.split(b"/")]
    return repr(b"/".join(parts))


def _brief(value: object) -> str:
    if isinstance(value, bytes) and len(value) > 16:
        return f"{value[:8]!r}…{len(value)}"
    return oct(value) if isinstance(value, int) and 0o100 < value <= 0o7777 else repr(value)


def _open(tree: Tree, relative: bytes, flags: int, mode: int = 0o644) -> int:
    """Open what is no fifo: one name in a mount and behind it is two pipes, whose readers do not know each other."""
    path = tree.path(relative)
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.lstat(path).st_mode):
            raise _Refused("a fifo")
    return os.open(path, flags | _SAFE, mode)


# -- bytes -----------------------------------------------------------------------------------------


def _write_at(tree: Tree, operation: Operation) -> object:
    """create, overwrite, write, append: they differ by their flags only."""
    fd = _open(tree, operation.paths[0], operation.arguments["flags"], operation.arguments["mode"])
    try:
        if operation.arguments["flags"] & os.O_APPEND:
            return os.write(fd, operation.arguments["data"])
        return os.pwrite(fd, operation.arguments["data"], operation.arguments["offset"])
    finally:
        os.close(fd)


def _truncate(tree: Tree, operation: Operation) -> object:
    path = tree.path(operation.paths[0])
    if operation.arguments["by_path"]:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise _Refused("not a regular file")
        os.truncate(path, operation.arguments["size"])
        return None
    fd = _open(tree, operation.paths[0], os.O_WRONLY)
    try:
        os.ftruncate(fd, operation.arguments["size"])
    finally:
        os.close(fd)
    return None


def _map(tree: Tree, operation: Operation) -> object:
    """Write through a shared mapping and msync it, so that nothing is left to be written later."""
    fd = _open(tree, operation.paths[0], os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        if not size:
            return "empty"
        start = operation.arguments["offset"] % size
        data = operation.arguments["data"][: size - start]
        with mmap.mmap(fd, size) as view:
            view[start : start + len(data)] = data
            view.flush()
        return len(data)
    finally:
        os.close(fd)


def _save(tree: Tree, operation: Operation) -> object:
    """An editor's save: a new file beside the old one, then renamed over it."""
    target, temporary = operation.paths
    fd = os.open(tree.path(temporary), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _SAFE, 0o644)
    try:
        os.write(fd, operation.arguments["data"])
    finally:
        os.close(fd)
    os.rename(tree.path(temporary), tree.path(target))
    return None


# -- names -----------------------------------------------------------------------------------------


def _rename(tree: Tree, operation: Operation) -> object:
    old, new = map(tree.path, operation.paths)
    flags = operation.arguments.get("flags", 0)
    if _libc.renameat2(_AT_FDCWD, old, _AT_FDCWD, new, ctypes.c_uint(flags)):
        raise OSError(ctypes.get_errno(), "renameat2")
    return None


def _link(tree: Tree, operation: Operation) -> object:
    os.link(tree.path(operation.paths[0]), tree.path(operation.paths[1]), follow_symlinks=False)
    return None


def _symlink(tree: Tree, operation: Operation) -> object:
    os.symlink(operation.arguments["target"], tree.path(operation.paths[0]))
    return None


def _mkdir(tree: Tree, operation: Operation) -> object:
    os.mkdir(tree.path(operation.paths[0]), operation.arguments["mode"])
    return None


def _mkfifo(tree: Tree, operation: Operation) -> object:
    os.mkfifo(tree.path(operation.paths[0]), operation.arguments["mode"])
    return None


def _rmdir(tree: Tree, operation: Operation) -> object:
    os.rmdir(tree.path(operation.paths[0]))
    return None


def _unlink(tree: Tree, operation: Operation) -> object:
    os.unlink(tree.path(operation.paths[0]))
    return None


# -- attributes ------------------------------------------------------------------------------------


def _chmod(tree: Tree, operation: Operation) -> object:
    path = tree.path(operation.paths[0])
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        raise _Refused("a symlink")
    os.chmod(path, operation.arguments["mode"] | (0o700 if stat.S_ISDIR(mode) else 0))
    return None


def _utimens(tree: Tree, operation: Operation) -> object:
    os.utime(tree.path(operation.paths[0]), ns=operation.arguments["ns"], follow_symlinks=False)
    return None


def _setxattr(tree: Tree, operation: Operation) -> object:
    arguments, path = operation.arguments, tree.path(operation.paths[0])
    os.setxattr(path, arguments["name"], arguments["value"], arguments["flags"], follow_symlinks=False)
    return None


def _removexattr(tree: Tree, operation: Operation) -> object:
    os.removexattr(tree.path(operation.paths[0]), operation.arguments["name"], follow_symlinks=False)
    return None


# -- held descriptors ------------------------------------------------------------------------------


def _hold(tree: Tree, operation: Operation) -> object:
    tree.handles[operation.handle] = _open(tree, operation.paths[0], operation.arguments["flags"])
    return None


def _held_write(tree: Tree, operation: Operation) -> object:
    fd = tree.handles[operation.handle]
    return os.pwrite(fd, operation.arguments["data"], operation.arguments["offset"])


def _held_truncate(tree: Tree, operation: Operation) -> object:
    os.ftruncate(tree.handles[operation.handle], operation.arguments["size"])
    return None


def _held_read(tree: Tree, operation: Operation) -> object:
    """The whole file as the held descriptor shows it, with the size and link count it tells."""
    fd = tree.handles[operation.handle]
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return stat.S_IFMT(status.st_mode)
    return status.st_size, status.st_nlink, os.pread(fd, 1 << 22, 0)


def _held_close(tree: Tree, operation: Operation) -> object:
    os.close(tree.handles.pop(operation.handle))
    return None


_ACTIONS: dict[str, Callable[[Tree, Operation], object]] = {
    "create": _write_at,
    "overwrite": _write_at,
    "write": _write_at,
    "append": _write_at,
    "truncate": _truncate,
    "mmap": _map,
    "save": _save,
    "rename": _rename,
    "noreplace": _rename,
    "exchange": _rename,
    "link": _link,
    "symlink": _symlink,
    "mkdir": _mkdir,
    "mkfifo": _mkfifo,
    "rmdir": _rmdir,
    "unlink": _unlink,
    "chmod": _chmod,
    "utimens": _utimens,
    "setxattr": _setxattr,
    "removexattr": _removexattr,
    "hold": _hold,
    "held_write": _held_write,
    "held_truncate": _held_truncate,
    "held_read": _held_read,
    "held_close": _held_close,
}
KINDS = tuple(_ACTIONS)
