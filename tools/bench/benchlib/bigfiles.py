"""Big files that are not in memory: how fast a disk can be read, and how fast its files are hashed.

The yardstick is `dd` over the same files, one after the other. Before each reading the files are taken out of the page
cache by posix_fadvise(2), which needs no root, since nobody else has them open and all of them are on the disk.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from .processes import timed

FILES = 8
BYTES = 64 << 20
BYTES_SMOKE = 6 << 20
_STEP_BYTES = 8 << 20


class BigFiles:
    """Files of random bytes in a directory of their own."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self.root = directory
        self.size_bytes = size_bytes
        directory.mkdir()
        self._paths = [directory / f"big-{number}" for number in range(FILES)]
        for path in self._paths:
            with path.open("wb") as file:
                for start in range(0, size_bytes, _STEP_BYTES):
                    file.write(os.urandom(min(_STEP_BYTES, size_bytes - start)))
                os.fsync(file.fileno())

    def forget(self) -> None:
        """Have none of their bytes in memory."""
        for path in self._paths:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    def read_by_dd(self, limit_s: float) -> float:
        """Seconds that dd takes to read them all, from the disk."""
        self.forget()
        return sum(timed(_dd(path), cwd=self.root, deadline_s=limit_s) for path in self._paths)


def _dd(path: Path) -> Sequence[str]:
    return ["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"]
