"""Unmounting, truthfully: the file system is gone from its places when this returns, or an OSError says why not.

Never lazily: a lazy unmount says "done" while somebody still writes. umount2(2) writes back what is in the cache only
when the last place goes, in whatever mount namespace that is; so syncfs(2) does it before. Both may take as long as a
slow stick needs, and run in a thread. Who is not root asks the programs that may: fusermount3 for FUSE, umount for what
fstab gives to users.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import subprocess

from index.scan.mounts import Mount

_MNT_EXPIRE = 4
_UMOUNT_NOFOLLOW = 8
_libc = ctypes.CDLL(None, use_errno=True)
#: What the programs say in English when it is not for this user to unmount something: util-linux, busybox, libfuse.
_REFUSED = (b"not permitted", b"permission denied", b"superuser", b"only root", b"not found in /etc/mtab")


def unmount(mount: Mount) -> None:
    """Unmount one place; raises OSError (EBUSY: somebody holds it; EPERM: this user may not)."""
    _write_back(mount)
    if _libc.umount2(mount.mount_point, _UMOUNT_NOFOLLOW) == 0:
        return
    code = ctypes.get_errno()
    if code != errno.EPERM or os.geteuid() == 0:
        raise OSError(code, os.strerror(code), os.fsdecode(mount.mount_point))
    _by_program(mount)


def is_held(mount: Mount) -> bool:
    """Whether somebody holds one place, as far as this user may ask; nothing is unmounted.

    By what umount2(2) says to MNT_EXPIRE. It unmounts what was marked by an earlier call and not used since, and every
    use takes the mark away: so the place is used before, and once more for whoever comes later.
    """
    _use(mount)
    failed = _libc.umount2(mount.mount_point, _MNT_EXPIRE | _UMOUNT_NOFOLLOW) != 0
    code = ctypes.get_errno()
    _use(mount)
    return failed and code == errno.EBUSY


def _use(mount: Mount) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(mount.mount_point, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW))


def _write_back(mount: Mount) -> None:
    """Everything is on the disk when this returns. What a server has is nothing that is pulled, and is not asked."""
    if mount.is_slow and mount.fs_type != "fuseblk":
        return
    try:
        fd = os.open(mount.mount_point, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # it may be closed to us
    try:
        if _libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"not all that was written to it is on the disk: {os.strerror(code)}")
    finally:
        os.close(fd)


def _by_program(mount: Mount) -> None:
    """Ask a program that may; raises the OSError that fits what it said."""
    place = os.fsdecode(mount.mount_point)
    is_fuse = mount.fs_type.split(".")[0] in ("fuse", "fuseblk")
    words = ["fusermount3", "-u"] if is_fuse and shutil.which("fusermount3") else ["umount"]
    if shutil.which(words[0]) is None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), place)
    english = {name: value for name, value in os.environ.items() if name != "LANGUAGE"} | {"LC_ALL": "C"}
    done = subprocess.run(
        [*words, "--", place], capture_output=True, check=False, stdin=subprocess.DEVNULL, env=english
    )
    if done.returncode == 0:
        return
    said = done.stderr.lower()
    if b"busy" in said:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), place)
    if any(word in said for word in _REFUSED):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), place)
    reason = os.fsdecode(done.stderr).strip() or f"{words[0]} ended with {done.returncode}"
    raise OSError(errno.EIO, reason, place)
