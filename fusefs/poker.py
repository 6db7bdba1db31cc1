"""The poker: a worker process that makes system calls in the mount so that the kernel raises inotify events for them.

The kernel raises events for what programs do, and none for what a FUSE server tells it. So for each change that came
from elsewhere this process does in the mount what would have made it: it creates the name, removes it, renames it. The
server knows the caller and answers as if it had done so (poked.py); nothing is created, removed or renamed.

In: calls of a worker pool (index/scan/workermain.py). `watched`: who watches what, as /proc tells of all processes that
may be looked into. `poke`: a few pokes, each a list as `Poke.packed` makes it. Out: what is watched; how many pokes the
kernel took.

Invariants
- Nothing is done before the server has answered a name that only we are told of: else it would take us for anybody.
- Nothing is done in a directory but by its descriptor, and only where that is of the mount's device and of the inode
  that is meant: what is mounted elsewhere meanwhile, or lies under the mount point, is left alone.
- Nothing of the mount is held between two calls, nor opened but by O_PATH: nobody finds it busy for longer than a call.
Source: inotify(7); fs/notify/fdinfo.c, include/linux/fsnotify.h of Linux.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from fusefs.kernel import poking
from index.model.entry import KIND_DIR
from index.scan.workermain import Context, Operation, Stopped
from vdfs.space import syscalls

_INOTIFY = "anon_inode:inotify"
#: The number of the pid namespace in which all processes of a machine are seen (PROC_PID_INIT_INO).
_ALL_PIDS = 0xEFFF_FFFC
_WALK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


# who watches ----------------------------------------------------------------------------------------------------------


def watched(args: Mapping[str, Any], _context: Context) -> dict[str, Any]:
    """The numbers of the inodes of a device that are watched, and whether there may be more that cannot be seen.

    args: device (as stat has it), shared (others than who mounted may use the mount).
    """
    device = args["device"]
    kernels = os.major(device) << 20 | os.minor(device)
    me = os.geteuid()
    is_blind = os.stat("/proc/self/ns/pid").st_ino != _ALL_PIDS or (args["shared"] and me != 0)
    found: set[int] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with os.scandir(f"/proc/{pid}/fd") as fds:
                for fd in fds:
                    if _leads_to(fd.path) == _INOTIFY:
                        found |= _watched_by(f"/proc/{pid}/fdinfo/{fd.name}", kernels)
        except PermissionError:
            is_blind = is_blind or _user_of(pid) == me
        except OSError:
            continue  # it has ended
    return {"inodes": list(found), "blind": is_blind}


def _leads_to(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _watched_by(path: str, device: int) -> set[int]:
    """What one instance watches: lines like `inotify wd:1 ino:2 sdev:3f mask:…`, in hexadecimal digits."""
    found = set()
    for line in Path(path).read_text("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["inotify"]:
            fields = dict(word.split(":", 1) for word in words[1:] if ":" in word)
            if int(fields.get("sdev", "0"), 16) == device:
                found.add(int(fields.get("ino", "0"), 16))
    return found


def _user_of(pid: str) -> int:
    """Whose process it is, also of one that may not be looked into; -1 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    except OSError:
        pass
    return -1


# pokes ----------------------------------------------------------------------------------------------------------------


def poke(args: Mapping[str, Any], context: Context) -> int | None:
    """Do some pokes, in order; None when the server does not know us.

    args: mountpoint, device (as stat has it), greeting (the name that the server knows us by), pokes.
    """
    root = os.open(args["mountpoint"], _WALK)
    try:
        if os.fstat(root).st_dev != args["device"]:
            return None
        try:
            os.lstat(args["greeting"], dir_fd=root)
        except OSError:
            return None
        done, refused = 0, set()
        for do, ino, path, *details in args["pokes"]:
            if context.stopped():
                raise Stopped
            try:
                _DOING[do](root, args["device"], ino, path, *details)
                done += 1
            except OSError:  # we may not write there, or somebody was there before: then he is to look himself
                if ino not in refused:
                    refused.add(ino)
                    with contextlib.suppress(OSError):
                        _touch_directory(root, args["device"], ino, path)
        return done
    finally:
        os.close(root)


class _Directory:
    """The descriptor of a directory of the mount that is the one that is meant."""

    def __init__(self, root: int, device: int, ino: int, path: list[bytes]) -> None:
        fd = os.dup(root)
        for name in path:
            above = fd
            try:
                fd = os.open(name, _WALK, dir_fd=above)
            finally:
                os.close(above)
        self.fd = fd
        st = os.fstat(fd)
        if (st.st_dev, st.st_ino) != (device, ino):
            os.close(fd)
            raise FileNotFoundError("another directory is there by now")

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _create(root: int, device: int, ino: int, path: list[bytes], name: bytes, mode: int) -> None:
    """CREATE; of a file also OPEN and CLOSE_WRITE, which is when programs read a new one."""
    with _Directory(root, device, ino, path) as fd:
        try:
            if stat.S_ISDIR(mode):
                os.mkdir(name, dir_fd=fd)
            elif stat.S_ISLNK(mode):
                os.symlink(b".", name, dir_fd=fd)
            elif stat.S_ISREG(mode):
                os.close(os.open(name, _MAKE, 0o600, dir_fd=fd))
            else:
                os.mknod(name, mode, dir_fd=fd)
        except FileExistsError:
            _touch_name(fd, name)


def _remove(root: int, device: int, ino: int, path: list[bytes], name: bytes, kind: int) -> None:
    """DELETE."""
    with _Directory(root, device, ino, path) as fd:
        (os.rmdir if kind == KIND_DIR else os.unlink)(name, dir_fd=fd)


def _move(
    root: int, device: int, ino: int, path: list[bytes], name: bytes, to: int, to_path: list[bytes], to_name: bytes
) -> None:
    """MOVED_FROM and MOVED_TO, with one cookie."""
    with _Directory(root, device, ino, path) as fd, _Directory(root, device, to, to_path) as to_fd:
        os.rename(name, to_name, src_dir_fd=fd, dst_dir_fd=to_fd)


def _write(root: int, device: int, ino: int, path: list[bytes], name: bytes, mode: int) -> None:
    """OPEN, MODIFY, CLOSE_WRITE; no byte is asked for. MODIFY alone of what cannot be opened to be written."""
    with _Directory(root, device, ino, path) as fd:
        if not stat.S_ISREG(mode):
            return _touch_name(fd, name)
        try:
            opened = os.open(name, _WRITE, dir_fd=fd)
        except OSError:
            return syscalls.set_mtime(fd, name, 0)
        try:
            syscalls.set_mtime(fd, name, 0)
        finally:
            os.close(opened)
    return None


def _touch(root: int, device: int, ino: int, path: list[bytes], name: bytes) -> None:
    """ATTRIB of a name."""
    with _Directory(root, device, ino, path) as fd:
        _touch_name(fd, name)


def _touch_name(fd: int, name: bytes) -> None:
    os.utime(name, ns=(0, 0), dir_fd=fd, follow_symlinks=False)


def _touch_directory(root: int, device: int, ino: int, path: list[bytes]) -> None:
    """ATTRIB of a directory itself: look again at all of it."""
    with _Directory(root, device, ino, path) as fd:
        os.utime(f"/proc/self/fd/{fd}", ns=(0, 0))


_DOING: Final[dict[str, Callable[..., None]]] = {
    poking.CREATE: _create,
    poking.REMOVE: _remove,
    poking.MOVE: _move,
    poking.WRITE: _write,
    poking.TOUCH: _touch,
    poking.TOUCH_DIRECTORY: _touch_directory,
}

#: What this process can do, by name.
OPERATIONS: Final[dict[str, Operation]] = {"watched": watched, "poke": poke}
