"""Which file system a directory lies on, in a form that survives a remount: its UUID where the kernel tells it.

FS_IOC_GETFSUUID (Linux 6.9) answers for ext4, xfs, tmpfs, …; elsewhere the device number stands in, which tells two
mounted file systems apart but may change over a restart of the machine.
"""

import fcntl
import os

from index.model.inode import signed

_FS_IOC_GETFSUUID = 0x80111500


def fs_identity(path: bytes) -> tuple[str, int]:
    """(file system identity, inode number) of a directory; raises OSError as open does."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fs_identity_fd(fd)
    finally:
        os.close(fd)


def fs_identity_fd(fd: int) -> tuple[str, int]:
    st = os.fstat(fd)
    number = signed(st.st_ino)
    reply = bytearray(17)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSUUID, reply)
    except OSError:
        pass
    else:
        uuid = bytes(reply[1 : 1 + reply[0]])
        if any(uuid):
            return f"uuid:{uuid.hex()}", number
    return f"dev:{os.major(st.st_dev)}:{os.minor(st.st_dev)}", number
