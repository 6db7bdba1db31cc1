"""Ground: what a store stands on: the file system that has its files, and threads to wait for it.

In: the path of a database. Out: connections to it, and its bytes on disk for certain. A simulation gives another one,
which loses its power.
"""

import os
from collections.abc import Callable
from pathlib import Path

import apsw
import trio

from index.store.connection import connect


class Ground:
    """The file system of this machine."""

    def connect(self, path: Path, *, read_only: bool = False) -> apsw.Connection:
        """A connection of its own to the database."""
        return connect(path, read_only=read_only)

    def sync(self, path: Path) -> None:
        """Return when what was written to a file survives a loss of power. FileNotFoundError without it."""
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    async def aside(self, work: Callable[[], None]) -> None:
        """Do what waits for the disk where the loop does not wait for it."""
        await trio.to_thread.run_sync(work, abandon_on_cancel=False)
