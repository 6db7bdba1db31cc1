"""Plan: what is poked for what is wished for, by what is there now.

In: the wishes of a round, of names in directories that somebody watches (wishes.py). Out: pokes, 200 at most beside
those of directories as a whole. What was there and is not now goes, what was not there and is now comes, and where both
are one row it moves; what was and is there changed, unless the kernel was told the same of it before.
"""

from typing import Any, Final, NamedTuple

import trio

from fusefs.kernel.inodes import Ledger
from fusefs.kernel.poking import CREATE, MOVE, REMOVE, TOUCH, TOUCH_DIRECTORY, WRITE, Place
from fusefs.wishes import Wish
from index.model import change
from index.model.entry import KIND_DIR, KIND_FILE
from index.model.errors import VdfsError
from vdfs.space.nodes import AnyStat, Node, stamp_of
from vdfs.space.tree import Tree

#: Names that are told one by one in a round, and directories that are told as one.
ROUND_POKES_MAX: Final = 200
#: Names that are looked at between two turns of the loop.
_SLICE: Final = 8


class Poke(NamedTuple):
    """One poke. `now` is what is at the place (a MOVE: at its new one), `number` and `kind` are of what was there."""

    do: str
    directory: Node
    name: bytes = b""
    now: tuple[Node, AnyStat] | None = None
    to: tuple[Node, bytes] | None = None
    number: int = 0
    kind: int = KIND_FILE

    @property
    def place(self) -> Place:
        return self.directory.ino, self.name

    @property
    def places(self) -> list[Place]:
        """The names that the server answers for as the poke needs it."""
        if self.do not in (CREATE, REMOVE, MOVE):
            return []
        return [self.place] if self.to is None else [self.place, (self.to[0].ino, self.to[1])]

    def packed(self) -> list[Any]:
        """As the poker is told."""
        out: list[Any] = [self.do, self.directory.ino, self.directory.path()]
        if self.do != TOUCH_DIRECTORY:
            out.append(self.name)
        if self.do in (CREATE, WRITE):
            assert self.now is not None
            out.append(self.now[1].st_mode)
        elif self.do == REMOVE:
            out.append(self.kind)
        elif self.to is not None:
            out += [self.to[0].ino, self.to[0].path(), self.to[1]]
        return out


class Plan:
    """Used on the loop only."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self.tree = tree
        self.ledger = ledger

    async def of(self, names: dict[Place, Wish], directories: list[int]) -> tuple[list[Poke], list[int]]:
        """The pokes of a round, in order, and the directories that are left for the next."""
        pokes: dict[Place, Poke] = {}
        too_many = dict.fromkeys(directories)
        arrived = {wish.came: place for place, wish in names.items() if wish.came and not wish.was_there}
        moved: set[Place] = set()
        for count, (place, wish) in enumerate(names.items()):
            if count % _SLICE == _SLICE - 1:
                await trio.lowlevel.checkpoint()
            parent = self.ledger.find(place[0])
            if not isinstance(parent, Node) or place in moved:
                continue
            if len(pokes) >= ROUND_POKES_MAX:
                too_many[place[0]] = None
                continue
            now = await self._now(parent, place[1])
            to = arrived.get(wish.left) if wish.left and wish.was_there and now is None else None
            poke = await self._move(parent, place[1], to) if to is not None else None
            if poke is not None and to is not None:
                moved.add(to)
                pokes.pop(to, None)
            else:
                poke = self._poke(parent, place[1], wish, now)
            if poke is not None and poke.do == TOUCH_DIRECTORY:
                too_many[place[0]] = None
            elif poke is not None:
                pokes[place] = poke
        whole = list(too_many)
        return [*pokes.values(), *self._as_one(whole[:ROUND_POKES_MAX])], whole[ROUND_POKES_MAX:]

    def _as_one(self, directories: list[int]) -> list[Poke]:
        nodes = [self.ledger.find(ino) for ino in directories]
        return [Poke(TOUCH_DIRECTORY, node) for node in nodes if isinstance(node, Node) and node.is_dir]

    async def _now(self, parent: Node, name: bytes) -> tuple[Node, AnyStat] | None:
        try:
            return await self.tree.lookup(parent, name)
        except (OSError, VdfsError):
            return None

    async def _move(self, parent: Node, name: bytes, to: Place) -> Poke | None:
        there = self.ledger.find(to[0])
        if not isinstance(there, Node) or (now := await self._now(there, to[1])) is None:
            return None
        return Poke(MOVE, parent, name, now, to=(there, to[1]))

    def _poke(self, parent: Node, name: bytes, wish: Wish, now: tuple[Node, AnyStat] | None) -> Poke | None:
        if now is None:
            kind = KIND_FILE if wish.kind is None else wish.kind
            return Poke(REMOVE, parent, name, number=wish.number, kind=kind) if wish.was_there else None
        node, st = now
        if not wish.was_there:
            return Poke(CREATE, parent, name, now)
        if wish.what in (change.META, change.ATTRS) or (node.is_dir and wish.kind == KIND_DIR):
            return Poke(TOUCH, parent, name, now)
        if wish.stamp is None or wish.stamp != stamp_of(st):
            return Poke(WRITE, parent, name, now)
        if wish.what == change.REMOVED or self.tree.in_conflict(parent, name):
            return Poke(TOUCH_DIRECTORY, parent)  # other names may come or go with this one
        return None  # another replica of what is shown came or changed
