"""Wishes: what who watches a directory of the mount is to hear of, gathered from commits between two rounds of pokes.

In: changes that came from elsewhere, each with the directory of the union that the kernel holds. Out, for a round:
names, each with what was there before the first of its changes, so that what came and went meanwhile is nothing, and of
two halves of a move each finds the other; and directories in which more changed than is told one by one. The invariant:
what is held here is bounded, whatever comes.

Who watches at all is not known here (pokes.py). No I/O but queries of the index.
"""

from collections.abc import Container
from typing import NamedTuple

from fusefs.kernel.inodes import Ledger
from fusefs.kernel.poking import Place
from index.model import change
from index.model.change import ORIGIN_CALL, ORIGIN_SCAN, ORIGIN_SYNC, Change
from index.model.entry import KIND_DIR
from index.store import entries
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree

#: Names of one directory, and of all, that are told one by one in a round.
DIRECTORY_NAMES_MAX = 100
NAMES_MAX = 4000

_STRENGTH = {change.META: 0, change.ATTRS: 1, change.DATA: 2, change.REMOVED: 3, change.ADDED: 3}


class Wish(NamedTuple):
    """What became of one name. `number`, `kind` and `stamp` are of what was there, as far as the kernel has it."""

    was_there: bool
    what: str
    number: int
    kind: int | None
    stamp: int | None
    left: int = 0  # the row that left the place first
    came: int = 0  # the row that came last


class Wishes:
    """Used on the loop only."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self.tree = tree
        self.ledger = ledger
        self.names: dict[Place, Wish] = {}
        self.directories: dict[int, None] = {}
        #: Names that are yet to be told. Until then the kernel is to ask for them each time: what somebody has looked
        #: up since could not be created for him who watches, nor what he found absent be removed.
        self.awaited: dict[Place, None] = {}
        self._counts: dict[int, int] = {}
        self._in_hand: set[Place] = set()

    def note(self, origin: str, parent: Node, one: Change) -> bool:
        """A change of a name in a directory that the kernel holds; returns whether somebody may wish to hear of it."""
        if parent.ino in self.directories or not self._is_news(origin, one):
            return False
        place = (parent.ino, one.name)
        known = self.names.get(place)
        if known is None:
            count = self._counts.get(parent.ino, 0)
            if count >= DIRECTORY_NAMES_MAX or len(self.names) >= NAMES_MAX:
                self.too_many(parent.ino)
                return True
            self._counts[parent.ino] = count + 1
            known = self._before(origin, parent, one)
        elif _STRENGTH[one.what] > _STRENGTH[known.what]:
            known = known._replace(what=one.what)
        if one.what == change.REMOVED:
            known = known._replace(left=known.left or one.entry_id)
        elif one.what == change.ADDED:
            known = known._replace(came=one.entry_id)
        self.names[place] = known
        self.awaited[place] = None
        return True

    def too_many(self, directory: int) -> None:
        """What changed in a directory is told as one."""
        self.directories[directory] = None
        if self._counts.pop(directory, 0):
            for place in [place for place in self.names if place[0] == directory]:
                del self.names[place]
                if place not in self._in_hand:
                    del self.awaited[place]

    def take(self) -> tuple[dict[Place, Wish], list[int]]:
        """All that is wished for now; its names stay awaited until they are settled."""
        names, directories = self.names, list(self.directories)
        self._in_hand = set(names)
        self.names, self.directories, self._counts = {}, {}, {}
        return names, directories

    def settle(self, place: Place) -> None:
        """A name was told."""
        self._in_hand.discard(place)
        if place not in self.names:
            self.awaited.pop(place, None)

    def settle_but(self, wanted: Container[Place] = ()) -> None:
        """Of what was taken nobody wants to hear, but for these."""
        for place in [place for place in self._in_hand if place not in wanted]:
            self.settle(place)

    # what a change means ----------------------------------------------------------------------------------------------

    def _is_news(self, origin: str, one: Change) -> bool:
        """Whether a change is one of the tree, and not of what is known of it here."""
        if one.what == change.TIMES:
            return False
        if origin in (ORIGIN_SYNC, ORIGIN_CALL):
            return True
        if one.branch_id in self.tree.remotes:
            return one.what != change.META
        if origin != ORIGIN_SCAN or one.what == change.META or not one.entry_id or one.parent_id is None:
            return False
        directory = entries.get(self.tree.store.db, one.parent_id)
        return directory is not None and directory.scanned_ns is not None  # else it may be old, and found just now

    def _before(self, origin: str, parent: Node, one: Change) -> Wish:
        number, is_there = one.node, one.what != change.ADDED
        if not number:
            row = entries.get(self.tree.store.db, one.entry_id)
            number = 0 if row is None else row.node
        held = self.ledger.find(number)
        if not isinstance(held, Node):
            held = None
        if not is_there:
            others = [ref.entry_id for ref in parent.parts if ref.entry_id != one.parent_id]
            is_there = any(entries.child(self.tree.store.db, directory, one.name) for directory in others)
            if held is not None and (origin != ORIGIN_SYNC or parent is self.tree.root):  # told again, perhaps
                is_there = is_there or (held.parent, held.name) == (parent, one.name)
        kind = held.kind if held is not None else self._kind_of(one.entry_id)
        stamp = None if held is None or kind == KIND_DIR else held.stamp
        return Wish(is_there, one.what, number, kind, stamp)

    def _kind_of(self, entry_id: int) -> int | None:
        row = entries.get(self.tree.store.db, entry_id)
        return None if row is None else row.kind
