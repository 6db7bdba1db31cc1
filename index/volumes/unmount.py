"""Unmounting, truthfully: the file system is gone from its places when this returns, or an OSError says why not.

Never lazily: a lazy unmount says "done" while somebody still writes. umount2(2) writes back what is in the cache first,
and so may take as long as a slow stick needs; it runs in a thread. Who is not root asks the programs that may:
fusermount3 for FUSE, umount for what fstab gives to users.
"""

import ctypes
import errno
import os
import shutil
import subprocess

from index.scan.mounts import Mount

_UMOUNT_NOFOLLOW = 8
_libc = ctypes.CDLL(None, use_errno=True)


def unmount(mount: Mount) -> None:
    """Unmount one place; raises OSError (EBUSY: somebody holds it; EPERM: this user may not)."""
    if _libc.umount2(mount.mount_point, _UMOUNT_NOFOLLOW) == 0:
        return
    code = ctypes.get_errno()
    if code == errno.EPERM and os.geteuid() != 0:
        code = _by_program(mount)
    if code:
        raise OSError(code, os.strerror(code), os.fsdecode(mount.mount_point))


def _by_program(mount: Mount) -> int:
    """Ask a program that may; returns 0 or the errno that fits what it said."""
    is_fuse = mount.fs_type.split(".")[0] in ("fuse", "fuseblk")
    words = ["fusermount3", "-u"] if is_fuse and shutil.which("fusermount3") else ["umount"]
    if shutil.which(words[0]) is None:
        return errno.EPERM
    done = subprocess.run(
        [*words, "--", os.fsdecode(mount.mount_point)], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode == 0:
        return 0
    return errno.EBUSY if b"busy" in done.stderr.lower() else errno.EPERM
