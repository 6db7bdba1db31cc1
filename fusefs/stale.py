"""Dead mounts of ours: after a kill the kernel still holds the mount point, and every access says ENOTCONN.

Only a mount whose type is ours and whose connection is dead is cleared, lazily, so that processes with a working
directory in it can leave. Nothing else's mount is touched.
"""

import errno
import os
import subprocess
from pathlib import Path

from index.model.errors import Busy
from index.scan.mounts import is_own_at, mounts


def is_dead(path: Path) -> bool:
    """Whether a mount point answers that its server is gone. statvfs, because its answer is never cached."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def heal_stale_mount(path: Path) -> None:
    """Clear a dead mount of ours away; Busy when that does not work."""
    encoded = os.fsencode(path)
    for _ in range(4):  # dead mounts may be stacked
        if not is_own_at(encoded) or not is_dead(path):
            return
        done = subprocess.run(["fusermount3", "-u", "-z", str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Busy(f"{path} is a dead mount and could not be cleared: {done.stderr.strip()}; try: umount -l {path}")


def real_mountpoint(path: Path) -> Path:
    """The directory that a mount point names, as the kernel lists it: symlinks resolved, but never by a dead mount.

    The last component is looked at only when nothing is mounted there under that very name.
    """
    path = Path(os.path.abspath(path))
    named = Path(os.path.join(os.path.realpath(path.parent), path.name))
    if any(m.mount_point == os.fsencode(named) for m in mounts()):
        return named
    return Path(os.path.realpath(named)) if named.is_symlink() else named
