"""The ledger: which nodes the kernel holds, and how often it was told of each.

The kernel counts each positive reply to lookup, create, mkdir, mknod, symlink, link and each entry of a plus-listing,
and gives the counts back with FORGET. A node is dropped when its count is 0; its number is never given to anything
else (index/store/changes.py), so a late FORGET cannot hit a stranger.
"""

from typing import Any

import pyfuse3

from index.model.errors import Stale


class Ledger:
    """inode number -> node, each with its count in `node.lookups`. No I/O."""

    def __init__(self, root: Any) -> None:
        root.lookups = 1
        self._held: dict[int, Any] = {pyfuse3.ROOT_INODE: root}

    def remember(self, node: Any) -> None:
        """One more reply told the kernel of this node; of two with one number the last is meant from now on."""
        held = self._held.get(node.ino)
        node.lookups = 1 if held is None else held.lookups + 1
        self._held[node.ino] = node

    def get(self, ino: int) -> Any:
        """The node of a number the kernel speaks of; Stale when it should not know it."""
        try:
            return self._held[ino]
        except KeyError:
            raise Stale(f"inode {ino} is not known") from None

    def find(self, ino: int) -> Any | None:
        return self._held.get(ino)

    def forget(self, ino: int, count: int) -> Any | None:
        """The kernel gives counts back; returns the node when these were the last."""
        held = self._held.get(ino)
        if held is None or ino == pyfuse3.ROOT_INODE:
            return None
        held.lookups -= count
        if held.lookups > 0:
            return None
        del self._held[ino]
        return held

    def nodes(self) -> list[Any]:
        return list(self._held.values())

    def __len__(self) -> int:
        return len(self._held)
