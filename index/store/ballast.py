"""Ballast: room on the library's disk that is given up when the disk is full, so that the index can still follow.

A file of a fixed size beside the database. When a unit finds the disk full the file is removed: what happened on disk
already (a deletion, a change behind the mount) can then be written, while nothing new is made until the room is there
again. Without it a full disk would leave an index that cannot even forget what was deleted to make room.
"""

import contextlib
import errno
import os
from pathlib import Path

BYTES = 4 << 20


class Ballast:
    """Held or given up; both calls are quick and may be repeated."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_held = False

    def hold(self) -> bool:
        """Take the room if it is there; where the disk cannot tell, go without. Returns whether it is held now."""
        if self.is_held:
            return True
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(fd).st_blocks * 512 < BYTES:
                    os.posix_fallocate(fd, 0, BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            self.give_up()
            self.is_held = error.errno not in (errno.ENOSPC, errno.EDQUOT)
        else:
            self.is_held = True
        return self.is_held

    def give_up(self) -> None:
        """Give the room back to the disk."""
        self.is_held = False
        with contextlib.suppress(OSError):
            self._path.unlink()
