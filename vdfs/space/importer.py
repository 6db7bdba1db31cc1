"""Importing what files already carry: their `user.*`, read when a file is identified or its ctime moved, of directories
and empty files when they are found.

Nothing is ever written into a user's file from here.
"""

import logging
from collections.abc import Iterable

import trio

from index.model import change
from index.model.change import ORIGIN_CALL, ORIGIN_MOUNT, ORIGIN_SYNC, ORIGIN_WALK
from index.model.errors import VdfsError
from index.store import entries, metadata
from vdfs.space import realattrs
from vdfs.space.annotations import Annotations
from vdfs.space.branches import LIVE
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.importer")

_AGAIN_S = 0.5
_TRIES = 10
_MISSED_MAX = 1000


class Importer:
    """Takes in the real attributes of entries."""

    def __init__(self, tree: Tree, annotations: Annotations) -> None:
        self.tree = tree
        self.annotations = annotations
        self._missed: dict[int, int] = {}  # entries that could not be asked -> how often

    def take(self, entry_ids: Iterable[int]) -> None:
        for entry_id in entry_ids:
            self._guarded(entry_id)

    async def follow(self) -> None:
        """Take in what changed behind the mount, and what came that nobody will read: a directory, an empty file."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._try_again)
            await self._follow()

    async def _try_again(self) -> None:
        """What was not where the index had it may be soon: a directory above it has moved."""
        while True:
            await trio.sleep(_AGAIN_S)
            for entry_id, tries in list(self._missed.items()):
                del self._missed[entry_id]
                try:
                    self._guarded(entry_id, tries=tries)
                except (OSError, VdfsError):  # no room for the index just now
                    self._missed[entry_id] = tries
                    break

    async def _follow(self) -> None:
        quiet = frozenset({ORIGIN_MOUNT, ORIGIN_CALL, ORIGIN_SYNC, "reconcile"})
        with self.tree.store.feed.subscribe(without=quiet) as commits:
            async for commit in commits:
                is_told = commit.origin == ORIGIN_WALK  # of what came, by who found it
                came = [] if is_told else [one.entry_id for one in commit.changes if one.what == change.ADDED]
                unread = entries.unread_of(self.tree.store.db, came) if came else frozenset()
                for one in commit.changes:
                    if one.what in (change.ATTRS, change.DATA) or (one.what == change.ADDED and one.entry_id in unread):
                        self._guarded(one.entry_id)

    def _guarded(self, entry_id: int, *, tries: int = 0) -> None:
        """One file whose attributes defeat us must not keep those of its neighbours out."""
        try:
            is_asked = self._one(entry_id)
            if not is_asked and tries < _TRIES and len(self._missed) < _MISSED_MAX:
                self._missed[entry_id] = tries + 1
        except (VdfsError, OSError):
            raise
        except Exception:
            log.exception("the attributes of entry %d could not be taken in", entry_id)

    def _one(self, entry_id: int) -> bool:
        """Hold one entry's attributes against what was last seen; returns False where it cannot be asked just now."""
        row = entries.get(self.tree.store.db, entry_id)
        if row is None:
            return True
        ref = self.tree.ref_of(row.parent_id or row.id)
        if ref is None or ref.branch.slow or ref.branch.state != LIVE or ref.mounted(row.name):
            return True
        try:
            known = metadata.mirror_state(self.tree.store.db, row)
            real = realattrs.read_if_changed(self.tree.dirs, ref, row.name, row.st_ino, known)
        except PermissionError:
            return True
        except (OSError, VdfsError):
            return False
        if real is not None:
            self.annotations.take_in(row, real)
        return True
