"""Which file system a directory lies on, in a form that survives a remount: its UUID where the kernel tells it.

FS_IOC_GETFSUUID (Linux 6.9) answers for ext4, xfs, …; btrfs has a question of its own, and since each of its subvolumes
numbers its inodes anew, the subvolume is part of the answer. Elsewhere the device number stands in, which tells two
mounted file systems apart but may change over a restart of the machine.

Source: ioctl_fs(2), linux/btrfs.h.
"""

import fcntl
import os
import struct

from index.model.inode import signed

_FS_IOC_GETFSUUID = 0x80111500
_BTRFS_IOC_FS_INFO = 0x8400941F
_BTRFS_IOC_INO_LOOKUP = 0xD0009412
_BTRFS_FIRST_FREE_OBJECTID = 256


def fs_identity(path: bytes) -> tuple[str, int]:
    """(file system identity, inode number) of a directory; raises OSError as open does."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fs_identity_fd(fd)
    finally:
        os.close(fd)


def fs_identity_fd(fd: int) -> tuple[str, int]:
    return _identity(fd, os.fstat(fd))


def is_root(fd: int, fs_id: str, root_ino: int) -> bool:
    """Whether a directory is the one that an identity was taken of, also by a kernel that did not tell UUIDs."""
    st = os.fstat(fd)
    return signed(st.st_ino) == root_ino and fs_id in (_by_device(st), _identity(fd, st)[0])


def _identity(fd: int, st: os.stat_result) -> tuple[str, int]:
    uuid = _fs_uuid(fd, st)
    if not uuid:
        return _by_device(st), signed(st.st_ino)
    subvolume = _subvolume(fd) if _has_no_disk(st) else 0
    return f"uuid:{uuid}" + (f".{subvolume}" if subvolume else ""), signed(st.st_ino)


def fs_uuid_fd(fd: int) -> str:
    """The UUID of the file system of a descriptor as the kernel tells it, in hex; "" when it tells none."""
    return _fs_uuid(fd, os.fstat(fd))


def _fs_uuid(fd: int, st: os.stat_result) -> str:
    reply = _asked(fd, _FS_IOC_GETFSUUID, 17)
    uuid = b"" if reply is None else reply[1 : 1 + reply[0]]
    if not any(uuid) and _has_no_disk(st):
        reply = _asked(fd, _BTRFS_IOC_FS_INFO, 1024)
        uuid = b"" if reply is None else reply[16:32]
    return uuid.hex() if any(uuid) else ""


def _has_no_disk(st: os.stat_result) -> bool:
    """Whether the number of its device is made up, as btrfs does for each subvolume."""
    return os.major(st.st_dev) == 0


def _subvolume(fd: int) -> int:
    """The number of the btrfs subvolume of a descriptor; 0 on other file systems."""
    question = struct.pack("=QQ", 0, _BTRFS_FIRST_FREE_OBJECTID)
    reply = _asked(fd, _BTRFS_IOC_INO_LOOKUP, 4096, question)
    return 0 if reply is None else int(struct.unpack_from("=Q", reply)[0])


def _asked(fd: int, number: int, size_bytes: int, question: bytes = b"") -> bytes | None:
    buffer = bytearray(question.ljust(size_bytes, b"\0"))
    try:
        fcntl.ioctl(fd, number, buffer)
    except OSError:
        return None
    return bytes(buffer)


def _by_device(st: os.stat_result) -> str:
    return f"dev:{os.major(st.st_dev)}:{os.minor(st.st_dev)}"
