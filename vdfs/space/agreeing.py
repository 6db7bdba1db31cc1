"""Agreeing: what sync asks of the space, and what follows here when rows of other devices come.

In: the rows that another device changed, and who is connected. Out: branches and locations that run as the rows say
now. Kept out: everything that goes on between devices.
"""

import os
from pathlib import Path

import trio

from index.model.errors import VdfsError
from index.store import devices, entries, places
from index.store.store import Store
from vdfs.space import syscalls
from vdfs.space.locations import Locations
from vdfs.space.tree import Tree

_FOLLOWED = frozenset((devices.MODEL, places.LOCATION, places.BRANCH))


class Agreeing:
    """Used on the loop only; `run` is its life."""

    def __init__(self, tree: Tree, locations: Locations) -> None:
        self.tree = tree
        self.locations = locations
        self._online: frozenset[bytes] = frozenset()
        self._wake = trio.Event()

    def changed(self, rows: set[tuple[str, bytes]]) -> None:
        """Rows are other than before, by model and key."""
        if any(model in _FOLLOWED for model, _ in rows):
            self._wake.set()

    def connected(self, online: frozenset[bytes]) -> None:
        """These devices are connected."""
        for device in online ^ self._online:
            self.tree.set_online(device, device in online)
        self._online = online

    async def run(self) -> None:
        """Follow what was changed."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self.locations.follow()

    def target_of(self, entry_id: int) -> bytes | None:
        """Where a symlink of ours leads; None where that cannot be said at once."""
        row = entries.get(self.tree.store.db, entry_id)
        ref = None if row is None or row.parent_id is None else self.tree.ref_of(row.parent_id)
        if row is None or ref is None or ref.branch.slow:
            return None
        try:
            with self.tree.dirs.opened(ref) as fd:
                return os.readlink(row.name, dir_fd=fd)
        except (OSError, VdfsError):
            return None


def file_id(store: Store) -> str:
    """What tells the database from any copy of it: its inode, and when that was born."""
    path = Path(store.path)
    born = syscalls.born_ns(syscalls.AT_FDCWD, os.fsencode(path))
    return f"{path.stat().st_ino}:{born}"
