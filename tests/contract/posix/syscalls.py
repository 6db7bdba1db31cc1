"""System calls that Python's os module does not carry, called through libc or by number.

In: paths as bytes or str, descriptors. Out: plain values; every failure is an OSError with its errno.
Kept out: any policy. Sources: renameat2(2), getdents64(2), utimensat(2), lgetxattr(2), fcntl_locking(2).
"""

import ctypes
import os
import platform
import struct
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_SYMLINK_FOLLOW = 0x400
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

# getdents64 has no libc wrapper before glibc 2.30; by number it works everywhere we run.
_NR_GETDENTS64 = {"x86_64": 217, "aarch64": 61, "riscv64": 61}.get(platform.machine(), 61)

_DIRENT = struct.Struct("=QqHB")  # d_ino, d_off, d_reclen, d_type; the name follows

type_of_dirent = {1: "fifo", 2: "char", 4: "dir", 6: "block", 8: "regular", 10: "symlink", 12: "socket"}


class Dirent(NamedTuple):
    """One raw directory entry; ``offset`` is where the stream continues after it."""

    inode: int
    offset: int
    kind: int
    name: bytes


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def _checked(result: int, *paths: object) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *paths[:1])
    return result


def renameat2(source: str | bytes | os.PathLike[str], target: str | bytes | os.PathLike[str], flags: int) -> None:
    """Rename with flags, relative paths from the working directory."""
    old, new = os.fsencode(source), os.fsencode(target)
    _checked(_libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, ctypes.c_uint(flags)), source)


def link_following(source: str | bytes, target: str | bytes) -> None:
    """Link what the source leads to; os.link does not follow on Linux, whatever it is told."""
    old, new = os.fsencode(source), os.fsencode(target)
    _checked(_libc.linkat(AT_FDCWD, old, AT_FDCWD, new, AT_SYMLINK_FOLLOW), source)


def getdents(fd: int, buffer_bytes: int = 4096) -> list[Dirent]:
    """Read the next entries of an open directory into a buffer of that size; an empty list is the end."""
    buffer = ctypes.create_string_buffer(buffer_bytes)
    length = _checked(_libc.syscall(_NR_GETDENTS64, fd, buffer, ctypes.c_size_t(buffer_bytes)))
    raw, entries, position = buffer.raw[:length], [], 0
    while position < length:
        inode, offset, record_bytes, kind = _DIRENT.unpack_from(raw, position)
        name = raw[position + _DIRENT.size : position + record_bytes].split(b"\0", 1)[0]
        entries.append(Dirent(inode, offset, kind, name))
        position += record_bytes
    return entries


def listing(fd: int, buffer_bytes: int = 4096) -> list[bytes]:
    """All names from the descriptor's position to the end, without the two dots."""
    names: list[bytes] = []
    while entries := getdents(fd, buffer_bytes):
        names += [entry.name for entry in entries if entry.name not in (b".", b"..")]
    return names


def utimensat(
    path: str | bytes | os.PathLike[str],
    atime: tuple[int, int],
    mtime: tuple[int, int],
    *,
    follow_symlinks: bool = True,
) -> None:
    """Set times given as (seconds, nanoseconds); the nanoseconds may be UTIME_NOW, UTIME_OMIT or nonsense."""
    times = (_Timespec * 2)(_Timespec(*atime), _Timespec(*mtime))
    flags = 0 if follow_symlinks else AT_SYMLINK_NOFOLLOW
    _checked(_libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags), path)


def getxattr_sized(path: str | os.PathLike[str], name: bytes, size_bytes: int) -> bytes | int:
    """getxattr with a buffer of exactly that size; size 0 asks for the length and returns it as an int."""
    buffer = ctypes.create_string_buffer(max(size_bytes, 1))
    target = None if size_bytes == 0 else buffer
    length = _libc.getxattr(os.fsencode(path), name, target, ctypes.c_size_t(size_bytes))
    _checked(length, path)
    return length if size_bytes == 0 else buffer.raw[:length]


def listxattr_sized(path: str | os.PathLike[str], size_bytes: int) -> bytes | int:
    """listxattr with a buffer of exactly that size; size 0 asks for the length and returns it as an int."""
    buffer = ctypes.create_string_buffer(max(size_bytes, 1))
    target = None if size_bytes == 0 else buffer
    length = _checked(_libc.listxattr(os.fsencode(path), target, ctypes.c_size_t(size_bytes)), path)
    return length if size_bytes == 0 else buffer.raw[:length]


def lseek64(fd: int, offset: int, whence: int) -> int:
    """lseek without Python's own check of the offset, for hostile values."""
    _libc.lseek.restype = ctypes.c_int64
    return _checked(_libc.lseek(fd, ctypes.c_int64(offset), whence))


def syncfs(fd: int) -> None:
    """Flush the file system that holds the descriptor."""
    _checked(_libc.syncfs(fd))
