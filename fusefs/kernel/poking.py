"""Pokes as values: what is done in the mount so that the kernel raises the events of what came from elsewhere.

Each names a directory by its number and its path, and a name in it. How the poker does it is poker.py's, what the
server answers is poked.py's. No I/O.
"""

from typing import Any, Final, NamedTuple

from index.model.entry import KIND_FILE
from vdfs.space.nodes import AnyStat, Node

CREATE: Final = "create"  # a name came
REMOVE: Final = "remove"  # a name is gone
MOVE: Final = "move"  # it has another name, or lies in another directory
WRITE: Final = "write"  # other bytes
TOUCH: Final = "touch"  # other attributes
TOUCH_DIRECTORY: Final = "touch directory"  # more in a directory than is told one by one

#: A directory's inode number, and a name in it.
Place = tuple[int, bytes]


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
