"""What a volume says of itself: UUID, label, marker, room. For that the file system is asked, which may make us wait.

In: a `Found`. Out: `Facts`. Runs in a thread, under a deadline of whoever calls; opens one mount point after the other
until one is the file system that is meant, and leaves nothing open. Nothing is written.

Source: ioctl_fs(2), statvfs(3).
"""

import fcntl
import os

import attrs

from index.scan.fsid import fs_uuid_fd
from index.scan.mounts import Mount
from index.volumes import marker, superblock
from index.volumes.detect import Found
from index.volumes.marker import Marker

_FS_IOC_GETFSLABEL = 0x81009431


@attrs.frozen
class Facts:
    """What was found out of one volume. `mount` is the place where it was asked."""

    mount: Mount
    fs_uuid: str
    label: str
    marker: Marker | None
    is_read_only: bool
    size_bytes: int
    free_bytes: int  # for whoever is not root


def measure(found: Found) -> Facts:
    """Ask a volume; raises OSError when none of its places is reached."""
    failed: OSError | None = None
    for mount in found.mounts:
        try:
            fd = os.open(mount.mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            failed = error
            continue
        try:
            return _facts(found, mount, fd)
        except OSError as error:
            failed = error
        finally:
            os.close(fd)
    raise failed or OSError(2, "it is not mounted any more")


def _facts(found: Found, mount: Mount, fd: int) -> Facts:
    st = os.fstat(fd)
    if found.fs_type != "btrfs" and f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}" != found.device:
        raise OSError(2, "something else is mounted over it")
    uuid = "" if found.in_memory else fs_uuid_fd(fd)
    label = _label(fd)
    if not uuid and not found.in_memory and found.disk is not None and found.source.startswith("/dev/"):
        block = superblock.read_device(found.source)
        uuid, label = (uuid, label) if block is None else (block.uuid, label or block.label)
    room = os.fstatvfs(fd)
    return Facts(
        mount=mount,
        fs_uuid=uuid,
        label=label,
        marker=marker.read(fd, uuid) if mount.root == b"/" else None,
        is_read_only=bool(room.f_flag & os.ST_RDONLY),
        size_bytes=room.f_blocks * room.f_frsize,
        free_bytes=room.f_bavail * room.f_frsize,
    )


def _label(fd: int) -> str:
    reply = bytearray(256)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFSLABEL, reply)
    except OSError:
        return ""
    return bytes(reply).split(b"\0")[0].decode("utf-8", "replace").strip()
