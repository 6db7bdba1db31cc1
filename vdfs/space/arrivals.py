"""Arrivals: what follows when rows of other devices come, change places or go.

In: units and commits of origin `sync`, whoever wrote them. Out: a row that is moved or detached shares no number with
what stays (in the same unit, since a directory with two places would be moved by the kernel); and a directory that
comes to one which somebody stands in becomes a part of it at once, though nobody looks its name up.
"""

import contextlib
from collections.abc import Sequence

from index.model.change import ADDED, ORIGIN_SYNC, REMOVED, Change, Commit
from index.model.entry import KIND_DIR
from index.model.errors import VdfsError
from index.scan import recording
from index.store import entries
from index.store.feed import LAGGED
from index.store.unit import Unit
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree


class Arrivals:
    """Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        tree.store.before_commit = self.about_to_be_told

    def about_to_be_told(self, unit: Unit, changes: Sequence[Change]) -> None:
        """Before a unit is committed: rows of others that left a place and are there yet hang elsewhere, or nowhere."""
        if unit.origin != ORIGIN_SYNC:
            return
        for entry_id in {one.entry_id: None for one in changes if one.what == REMOVED}:
            row = entries.get(unit.db, entry_id)
            if row is not None and not row.is_ours:
                recording.moved_afar(unit, row)

    async def run(self) -> None:
        """Have directories that came looked up where somebody holds what they are one with."""
        with self.tree.store.feed.subscribe() as commits:
            async for commit in commits:
                if commit.origin == ORIGIN_SYNC:
                    await self._join(commit)
                elif commit is LAGGED:
                    for node in [one for one in self.tree.nodes.values() if one.is_dir and one.lookups]:
                        await self._look_up(node.parent, node.name)

    async def _join(self, commit: Commit) -> None:
        for one in commit.changes:
            if one.what != ADDED or one.parent_id is None or self.tree.dirs.known(one.parent_id) is None:
                continue
            row = entries.get(self.tree.store.db, one.entry_id)
            if row is None or row.kind != KIND_DIR:
                continue
            parent = self.tree.held_dir(one.parent_id)
            if parent is not None and self._is_held_beside(parent, one.name):
                await self._look_up(parent, one.name)

    def _is_held_beside(self, parent: Node, name: bytes) -> bool:
        """Whether somebody holds a directory of that name."""
        nodes = (self.tree.nodes.get(number) for number in self.tree.known_inos(parent, name))
        return any(node is not None and node.is_dir and node.lookups for node in nodes)

    async def _look_up(self, parent: Node | None, name: bytes) -> None:
        if parent is not None:
            with contextlib.suppress(OSError, VdfsError):
                await self.tree.lookup(parent, name)
