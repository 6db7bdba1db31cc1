"""Importing what files already carry: `user.xdg.*` and the rating, read when a file is identified, never written."""

from collections.abc import Iterable

from index.model.errors import VdfsError
from index.store import entries, metadata
from vdfs.space import realattrs
from vdfs.space.annotations import RATING, Annotations, take_in_edits
from vdfs.space.branches import LIVE
from vdfs.space.tree import Tree

_IMPORTED_PREFIX = b"user.xdg."


class Importer:
    """Takes in the attributes of files that were just identified."""

    def __init__(self, tree: Tree, annotations: Annotations) -> None:
        self.tree = tree
        self.annotations = annotations

    def take(self, entry_ids: Iterable[int]) -> None:
        for entry_id in entry_ids:
            self._one(entry_id)

    def _one(self, entry_id: int) -> None:
        row = entries.get(self.tree.store.db, entry_id)
        if row is None or row.parent_id is None:
            return
        ref = self.tree.ref_of(row.parent_id)
        if ref is None or ref.branch.slow or ref.branch.state != LIVE:
            return
        try:
            real = realattrs.read_if_changed(
                self.tree.dirs, ref, row.name, metadata.mirror_state(self.tree.store.db, row.id)
            )
        except (OSError, VdfsError):
            return
        if real is None:
            return
        wanted = {n: v for n, v in real.values.items() if n.startswith(_IMPORTED_PREFIX) or n == RATING}
        before = metadata.mirror_seen(self.tree.store.db, row.id)
        edits: dict[bytes, bytes | None] = {n: v for n, v in wanted.items() if before.get(n) != v}
        if not edits:
            return
        with self.tree.store.write("reconcile") as unit:
            take_in_edits(unit, row, edits)
            for name, value in wanted.items():
                metadata.mirror_put(unit.db, row.id, name, value)
