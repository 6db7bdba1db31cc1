"""Reach: by which names, on which branches, a file can be reached just now.

A node has the places it was seen at: the shown replicas, and other names of a hard-linked file. Names are given to
other files behind the mount; so each place is held against the inode that is meant before anything is done there
(`meant`). The disk is asked on the way, one place after the other: a file may have thousands of names, and most need
one.
"""

import os
from collections.abc import Callable, Iterable, Iterator

from index.model.entry import KIND_DIR, kind_of
from index.model.errors import Stale, Unreachable, VdfsError
from index.model.inode import inode_of
from index.store import entries
from vdfs.space import syscalls
from vdfs.space.branches import LIVE
from vdfs.space.ground import Ground
from vdfs.space.nodes import Node, Spot


class Reach(Ground):
    """Where files lie. Used on the loop only."""

    def spots_of(self, node: Node) -> Iterator[Spot]:
        """Every place a file can be reached at: the shown replicas first, then its other hard-linked names.

        Of several names those are left out that are another file by now; a single one is for the caller to check. The
        disk is asked on the way: a file may have thousands of names, and most need one.
        """
        if not node.links:
            yield from node.spots if node.spots or node.ghost_fd >= 0 else self.other_spots(node)
            return
        every = (*node.spots, *(spot for spot in node.links if spot not in node.spots))
        is_somewhere = False
        for spot in every:
            if self._is_at(node, spot):
                is_somewhere = True
                yield spot
        if not is_somewhere:
            yield from self.other_spots(node)

    def replicas(self, node: Node) -> list[Spot]:
        """One place on each branch that a file is shown from, where it still is; none when it has no name left.

        Where it cannot be asked it is taken to be. Hard links may have names on branches that hold an older version.
        """
        return self._one_a_branch(node, self.spots_of(node)) or self._one_a_branch(node, self.other_spots(node))

    def _one_a_branch(self, node: Node, spots: Iterable[Spot]) -> list[Spot]:
        shown_from = {spot.dir.branch.id for spot in node.spots}
        found: dict[int, Spot] = {}
        for spot in spots:
            branch = spot.dir.branch
            if branch.id in found or (shown_from and branch.id not in shown_from):
                continue
            if self._is_at(node, spot):
                found[branch.id] = spot
                if len(found) == len(shown_from):
                    break
        return list(found.values())

    def other_spots(self, node: Node) -> Iterator[Spot]:
        """Where the index has a node."""
        for row in entries.by_node(self.store.db, node.ino):
            ref = None if row.parent_id is None else self.ref_of(row.parent_id)
            if ref is not None:
                yield Spot(ref, row.name, row.id)

    def _is_at(self, node: Node, spot: Spot) -> bool:
        """Whether a spot is still the node's (true where it cannot be asked: the branch is slow, away or refuses)."""
        if spot.dir.branch.slow or spot.dir.branch.state != LIVE:
            return True
        try:
            return self.meant(node, spot)(self.lstat(spot.dir, spot.name))
        except (FileNotFoundError, NotADirectoryError, Stale):
            return False
        except (OSError, VdfsError):
            return True

    def inode_at(self, node: Node, spot: Spot) -> int | None:
        """The inode by which a file lies at a spot; None where the index has another file by now.

        Of the branch it is shown from that is the one that is shown; of another it is what the row says, if the row is
        a replica's, or another name of the file.
        """
        if not node.spots or spot.dir.branch is node.spots[0].dir.branch:
            return node.st_ino
        row = entries.get(self.store.db, spot.entry_id)
        if row is None or (row.node != node.ino and spot not in node.spots):
            return None
        return row.st_ino

    def meant(self, node: Node, spot: Spot) -> Callable[[os.stat_result], bool]:
        """Whether what lies at a spot is that file: names are given to other files behind the mount. To be asked here;
        the answer may be used in a thread."""
        st_ino = self.inode_at(node, spot)
        return lambda st: kind_of(st.st_mode) == node.kind and inode_of(st) == st_ino

    def keep_ghost(self, node: Node) -> None:
        """Before the last name of a file goes: keep its inode within reach of who resolved the name a moment ago."""
        if node.ghost_fd >= 0 or node.kind == KIND_DIR:
            return
        for spot in node.spots:
            if spot.dir.branch.state != LIVE or spot.dir.branch.slow:
                continue
            try:
                node.ghost_fd = syscalls.open_path(self.dirs.fd(spot.dir), spot.name)
            except (OSError, Stale, Unreachable):
                continue
            return
