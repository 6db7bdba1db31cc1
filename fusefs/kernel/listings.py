"""Listings kept ready: what a directory showed last, until something in it changes.

A listing lives on its node (`Node.listing`), is dropped by `Node.names_changed`, and is used only while the watcher
has heard of nothing in the directory that is not in the index yet (`Watch.is_quiet`). This ledger bounds them: beyond a
number of lines the ones that were not used for longest go. No I/O.
"""

from collections import OrderedDict
from typing import Any

from vdfs.space.nodes import Node

#: About 500 bytes a line with its prepared answer: 100 MB at most.
LINES_MAX = 200_000


class Listing:
    """(name, node) lines in the order they are told, and by name once somebody asks for one."""

    __slots__ = ("_by_name", "lines")

    def __init__(self, lines: list[tuple[bytes, Any]]) -> None:
        self.lines = lines
        self._by_name: dict[bytes, Any] | None = None

    def find(self, name: bytes) -> Any | None:
        """The node of a name; None when the directory has none such."""
        if self._by_name is None:
            self._by_name = dict(self.lines)
        return self._by_name.get(name)


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
        while (old := next(iter(self._kept))).listing is None or self._lines > self._max:
            if old.listing is not None:
                for _, child in old.listing.lines:
                    child.face = None
                old.listing = None
            self._drop(old)

    def used(self, node: Node) -> None:
        self._kept.move_to_end(node)

    def forgotten(self, node: Node) -> None:
        """The kernel does not know a directory any more: with its listing it may come back, without it is let go."""
        if node.listing is None:
            self._drop(node)

    def _drop(self, node: Node) -> None:
        self._lines -= self._kept.pop(node, 0)
