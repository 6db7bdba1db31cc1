"""The real extended attributes of one local file or directory, by descriptor: plain system calls, no decisions.

Names under `user.vdfs.` are ours and virtual; a real one (left by a copy made elsewhere) is neither shown nor taken in.
"""

import contextlib
import errno
import os
from typing import NamedTuple

import xattr

from index.model.entry import ns
from index.model.errors import Stale
from index.model.inode import inode_of
from vdfs.space import syscalls
from vdfs.space.dirs import DirRef, DirTable

_PREFIX = b"user."
_OURS = b"user.vdfs."


class Real(NamedTuple):
    """What a replica carries, or what it was like after a write."""

    st_ino: int
    ctime_ns: int
    values: dict[bytes, bytes]
    written: bool = False
    born_ns: int | None = None  # when its inode was made, where that is remembered

    def is_inode_of(self, state: tuple[int, int] | None) -> bool:
        """Whether it is the inode of the last comparison, (inode, ctime), not one that got its number since."""
        if state is None or state[0] != self.st_ino:
            return False
        return self.born_ns is None or self.born_ns <= state[1] or self.born_ns > self.ctime_ns  # a clock was set back


def _open(dirs: DirTable, ref: DirRef, name: bytes, st_ino: int | None) -> tuple[int, os.stat_result]:
    """A descriptor of a name (empty: the directory itself) and its stat; Stale when it is not the inode meant."""
    with dirs.opened(ref) as dir_fd:
        fd = syscalls.open_path(dir_fd, name) if name else os.dup(dir_fd)
    st = os.fstat(fd)
    if st_ino is not None and inode_of(st) != st_ino:
        os.close(fd)
        raise Stale(f"{os.fsdecode(name)} is another file now")
    return fd, st


def read(dirs: DirTable, ref: DirRef, name: bytes, st_ino: int | None = None) -> Real:
    """The attributes of a name; of that inode only, when one is given."""
    fd, st = _open(dirs, ref, name, st_ino)
    try:
        return Real(inode_of(st), ns(st.st_ctime_ns), _read(fd), born_ns=syscalls.born_ns(fd, b""))
    finally:
        os.close(fd)


def read_if_changed(
    dirs: DirTable, ref: DirRef, name: bytes, st_ino: int | None, known: tuple[int, int] | None
) -> Real | None:
    """The attributes unless inode and ctime are those of the last comparison."""
    fd, st = _open(dirs, ref, name, st_ino)
    try:
        if known == (inode_of(st), ns(st.st_ctime_ns)):
            return None
        return Real(inode_of(st), ns(st.st_ctime_ns), _read(fd), born_ns=syscalls.born_ns(fd, b""))
    finally:
        os.close(fd)


def _read(fd: int) -> dict[bytes, bytes]:
    path = syscalls.proc_path(fd)
    values: dict[bytes, bytes] = {}
    try:
        names = os.listxattr(path)  # the package knows no names but UTF-8
    except OSError:
        return values
    for text in names:
        name = os.fsencode(text)
        if name.startswith(_PREFIX) and not name.startswith(_OURS):
            with contextlib.suppress(OSError):
                values[name] = xattr.getxattr(path, text)
    return values


def acl(dirs: DirTable, ref: DirRef, name: bytes, st_ino: int | None) -> bytes | None:
    """The access control list of a name in the kernel's form; None when it has none. Source: acl(5)."""
    fd, _ = _open(dirs, ref, name, st_ino)
    try:
        return os.getxattr(syscalls.proc_path(fd), "system.posix_acl_access")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return None
        raise
    finally:
        os.close(fd)


def write(dirs: DirTable, ref: DirRef, name: bytes, st_ino: int | None, attribute: bytes, value: bytes | None) -> Real:
    """Set or remove one attribute, best effort; says what the replica is like now."""
    fd, _ = _open(dirs, ref, name, st_ino)
    try:
        path, text = syscalls.proc_path(fd), os.fsdecode(attribute)
        done = True
        try:
            if value is None:
                xattr.removexattr(path, text)
            else:
                xattr.setxattr(path, text, value)
        except OSError:
            done = False
            if value is not None:  # a copy that could not be renewed must not look like an edit
                with contextlib.suppress(OSError):
                    xattr.removexattr(path, text)
        left = {}
        if not done:
            with contextlib.suppress(OSError):
                left[attribute] = xattr.getxattr(path, text)
        st = os.fstat(fd)
        return Real(inode_of(st), ns(st.st_ctime_ns), left, done)
    finally:
        os.close(fd)


def read_fd(fd: int) -> dict[bytes, bytes]:
    """The attributes of what a descriptor names."""
    return _read(fd)


def set_fd(fd: int, attribute: bytes, value: bytes | None) -> None:
    """Set or remove an attribute of what a descriptor names; errors as they are."""
    path, text = syscalls.proc_path(fd), os.fsdecode(attribute)
    if value is None:
        xattr.removexattr(path, text)
    else:
        xattr.setxattr(path, text, value)
