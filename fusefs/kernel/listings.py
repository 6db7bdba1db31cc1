"""Listings kept ready: what a directory showed last, until something in it changes.

A listing lives on its node (`Node.listing`), is dropped by `Node.names_changed`, and is used only while the directory's
mtime is what it was and a watch covers it. This ledger bounds them: beyond a number of lines the ones that were not
used for longest go. No I/O.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

from vdfs.space.nodes import Node

#: About 500 bytes a line with its prepared answer: 100 MB at most.
LINES_MAX = 200_000


class Listing(NamedTuple):
    """(name, node) lines, and the directory's mtimes when they were read."""

    stamps: tuple[int, ...]
    lines: list[tuple[bytes, Any]]


#: A directory whose mtime is younger than this may change once more without its mtime moving (coarse clocks).
SETTLE_NS = 2_000_000_000


def settled(stamps: tuple[int, ...], now_ns: int) -> bool:
    """Whether the next change of a directory is sure to move its mtime."""
    return all(now_ns - mtime_ns > SETTLE_NS for mtime_ns in stamps)


class Listings:
    """The least recently used go first."""

    def __init__(self, lines_max: int = LINES_MAX) -> None:
        self._kept: OrderedDict[Node, int] = OrderedDict()
        self._lines = 0
        self._max = lines_max

    def keep(self, node: Node, listing: Listing) -> None:
        self._drop(node)
        count = len(listing.lines) + 1
        if count > self._max // 4:
            return
        node.listing = listing
        self._kept[node] = count
        self._lines += count
        while self._lines > self._max:
            old = next(iter(self._kept))
            if old.listing is not None:
                for _, child in old.listing.lines:
                    child.face = None
                old.listing = None
            self._drop(old)

    def used(self, node: Node) -> None:
        self._kept.move_to_end(node)

    def _drop(self, node: Node) -> None:
        self._lines -= self._kept.pop(node, 0)
