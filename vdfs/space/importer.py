"""Importing what files already carry: their `user.*`, read when a file is identified or its ctime moved.

Nothing is ever written into a user's file from here.
"""

from collections.abc import Iterable

from index.model import change
from index.model.change import ORIGIN_CALL, ORIGIN_MOUNT
from index.model.errors import VdfsError
from index.store import entries, metadata
from vdfs.space import realattrs
from vdfs.space.annotations import Annotations
from vdfs.space.branches import LIVE
from vdfs.space.tree import Tree


class Importer:
    """Takes in the real attributes of entries."""

    def __init__(self, tree: Tree, annotations: Annotations) -> None:
        self.tree = tree
        self.annotations = annotations

    def take(self, entry_ids: Iterable[int]) -> None:
        for entry_id in entry_ids:
            self._one(entry_id)

    async def follow(self) -> None:
        """Take in what changed behind the mount: every entry whose inode changed without its bytes."""
        quiet = frozenset({ORIGIN_MOUNT, ORIGIN_CALL, "reconcile"})
        with self.tree.store.feed.subscribe(without=quiet) as commits:
            async for commit in commits:
                self.take(c.entry_id for c in commit.changes if c.what in (change.ATTRS, change.DATA))

    def _one(self, entry_id: int) -> None:
        row = entries.get(self.tree.store.db, entry_id)
        if row is None or row.parent_id is None:
            return
        ref = self.tree.ref_of(row.parent_id)
        if ref is None or ref.branch.slow or ref.branch.state != LIVE:
            return
        try:
            known = metadata.mirror_state(self.tree.store.db, row)
            real = realattrs.read_if_changed(self.tree.dirs, ref, row.name, row.st_ino, known)
        except (OSError, VdfsError):
            return
        if real is None:
            return
        self.annotations.take_in(row, real)
