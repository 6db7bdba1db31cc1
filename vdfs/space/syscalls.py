"""System calls that Python's os module lacks or bends, by ctypes: each a function of descriptors and bytes.

renameat2 with its flags (rename(2)), utimensat with UTIME_OMIT and UTIME_NOW (utimensat(2)), chmod of a descriptor
opened with O_PATH (by its /proc name, so that no symlink can be swapped in), statx for the time of birth (statx(2)).
Errors are OSError like those of os.
"""

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2
AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _StatxTimestamp(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_uint32), ("_reserved", ctypes.c_int32))


class _Statx(ctypes.Structure):
    """struct statx as far as the time of birth; the kernel writes 256 bytes."""

    _fields_ = (
        ("stx_mask", ctypes.c_uint32),
        ("_to_attributes_mask", ctypes.c_uint8 * 60),
        ("stx_atime", _StatxTimestamp),
        ("stx_btime", _StatxTimestamp),
        ("_rest", ctypes.c_uint8 * 160),
    )


_statx = getattr(_libc, "statx", None)  # glibc 2.28, musl 1.1.24
if _statx is not None:
    _statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(_Statx))
_renameat2 = _libc.renameat2
_renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_utimensat = _libc.utimensat
_utimensat.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(_Timespec), ctypes.c_int)


def _raise() -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))


def rename(src_fd: int, src: bytes, dst_fd: int, dst: bytes, flags: int = 0) -> None:
    """renameat2; without flags plain renameat, which every file system knows."""
    if flags == 0:
        os.rename(src, dst, src_dir_fd=src_fd, dst_dir_fd=dst_fd)
    elif _renameat2(src_fd, src, dst_fd, dst, flags) != 0:
        _raise()


def set_times(path: str, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set either time or both of what a path of proc_path names; None leaves one alone."""
    pair = (_Timespec * 2)()
    for slot, value in zip(pair, (atime_ns, mtime_ns), strict=True):
        if value is None:
            slot.tv_nsec = UTIME_OMIT
        else:
            slot.tv_sec, slot.tv_nsec = divmod(value, 1_000_000_000)
    if _utimensat(AT_FDCWD, path.encode(), pair, 0) != 0:
        _raise()


def touch_now(path: str) -> None:
    """Both times to now, which a writer who is not the owner may do too."""
    pair = (_Timespec * 2)()
    for slot in pair:
        slot.tv_nsec = UTIME_NOW
    if _utimensat(AT_FDCWD, path.encode(), pair, 0) != 0:
        _raise()


def set_mtime(dir_fd: int, name: bytes, mtime_ns: int) -> None:
    """The mtime of a name, which is not followed, and nothing else."""
    pair = (_Timespec * 2)()
    pair[0].tv_nsec = UTIME_OMIT
    pair[1].tv_sec, pair[1].tv_nsec = divmod(mtime_ns, 1_000_000_000)
    if _utimensat(dir_fd, name, pair, AT_SYMLINK_NOFOLLOW) != 0:
        _raise()


def born_ns(dir_fd: int, name: bytes) -> int | None:
    """When the inode under a name (empty: the descriptor's own) was made; None where the file system forgets it."""
    if _statx is None:
        return None
    found = _Statx()
    flags = AT_SYMLINK_NOFOLLOW if name else AT_EMPTY_PATH
    if _statx(dir_fd, name, flags, _STATX_BTIME, found) != 0:
        _raise()
    if not found.stx_mask & _STATX_BTIME:
        return None
    return int(found.stx_btime.tv_sec) * 1_000_000_000 + int(found.stx_btime.tv_nsec)


def proc_path(fd: int) -> str:
    """A path that names exactly what a descriptor names, for calls that take paths only."""
    return f"/proc/self/fd/{fd}"


def open_path(dir_fd: int, name: bytes) -> int:
    """A descriptor of a name without opening the file: no permission on it needed, no symlink followed."""
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


def change_mode(dir_fd: int, name: bytes, mode: int) -> None:
    """chmod that cannot be led astray by a symlink (there EOPNOTSUPP)."""
    fd = open_path(dir_fd, name)
    try:
        os.chmod(proc_path(fd), mode)
    except FileNotFoundError as error:  # /proc is not mounted
        raise OSError(errno.ENOSYS, "no /proc") from error
    finally:
        os.close(fd)
