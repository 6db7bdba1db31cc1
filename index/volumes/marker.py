"""The marker: `.vdfs-volume`, a small file at the root of a volume that tells it from its own copies.

A file system's UUID is copied with its image, and many have none. So a volume that is tracked and may be carried away
gets a file of ours, JSON of one line:

    {"vdfs-volume": 1, "id": "<32 hex digits>", "filesystem": "<UUID of the file system in hex, or nothing>"}

It is written when somebody tracks the volume and at no other time, and only where writing is allowed. A marker that
speaks of another file system was copied along with the files of another volume: it says nothing here.
"""

import contextlib
import json
import os
import stat
from typing import NamedTuple

NAME = b".vdfs-volume"
_VERSION = 1
_MAX_BYTES = 4096


class Marker(NamedTuple):
    id: str  # 32 hex digits
    fs_uuid: str  # of the file system it was written to; "" when that has none


def read(root_fd: int, fs_uuid: str) -> Marker | None:
    """The marker of a volume by a descriptor of its root; None when there is none that speaks of it."""
    found = read_any(root_fd)
    return found if found is not None and found.fs_uuid == fs_uuid else None


def read_any(root_fd: int) -> Marker | None:
    """The marker that lies in a directory, whatever file system it was written for."""
    try:
        fd = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root_fd)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        said = json.loads(os.read(fd, _MAX_BYTES))
        ident, fs_uuid = said["id"], said["filesystem"]
        if said["vdfs-volume"] != _VERSION or len(bytes.fromhex(ident)) != 16:
            return None
        return Marker(ident, str(fs_uuid))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    finally:
        os.close(fd)


def write(root_fd: int, marker: Marker) -> None:
    """Put a marker in place, whole or not at all, and on the disk; raises OSError as writing does."""
    text = json.dumps({"vdfs-volume": _VERSION, "id": marker.id, "filesystem": marker.fs_uuid}) + "\n"
    draft = NAME + b".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft, dir_fd=root_fd)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=root_fd)
    try:
        try:
            os.write(fd, text.encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(draft, NAME, src_dir_fd=root_fd, dst_dir_fd=root_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft, dir_fd=root_fd)
        raise
    with contextlib.suppress(OSError):
        os.fsync(root_fd)
