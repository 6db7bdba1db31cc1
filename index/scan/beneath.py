"""Opening below a directory, by a path that cannot lead out of it (openat2(2), Linux 5.6).

In: a descriptor of the directory and a path. Out: a descriptor, or the OSError of what stood in the way: a symlink, a
`..` that leaves, another file system where that is asked for. Kernels and sandboxes that lack the call are told apart
once, by `is_known`.
"""

import ctypes
import os

_SYS_OPENAT2 = 437  # the same on every architecture
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root_fd: int, path: bytes, flags: int, *, same_mount: bool = False) -> int:
    """openat2(2): open a path below a directory, following no symlink and leaving by no `..`; with `same_mount`, EXDEV
    for what another file system is mounted over."""
    resolve = _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH | (_RESOLVE_NO_XDEV if same_mount else 0)
    how = _OpenHow(flags, 0, resolve)
    fd = _libc.syscall(_SYS_OPENAT2, root_fd, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd >= 0:
        return int(fd)
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))


def is_known(root_fd: int) -> bool:
    """Whether kernel and sandbox know the call; where not, paths are opened step by step."""
    try:
        os.close(open_beneath(root_fd, b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
