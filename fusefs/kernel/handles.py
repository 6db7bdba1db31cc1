"""Open files and directories by the handle the kernel holds.

A directory handle is a snapshot of the names at its first read. It only ever grows: after a rewind new names are added
at the end, and names that are gone leave a hole, so a position that was handed out never comes to mean another name;
an offset that was never handed out is only a wrong answer. Each name that changed since the snapshot is looked up again
before it is told, so that no listing puts a deleted name back into the kernel's cache.
"""

import itertools
import time
from typing import Any

from index.model.errors import Invalid
from vdfs.space.content import Handle


class TextHandle:
    """An open file of a view: the bytes made at open."""

    def __init__(self, node: Any, content: bytes) -> None:
        self.node = node
        self.content = content


class DirHandle:
    """An open directory."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.names: list[Any] = []
        self.position: dict[bytes, int] = {}
        self.read = False
        self.generation = -1
        self.taken_s = 0.0
        self.was_quiet = False  # nothing was left to be heard of the directory when the snapshot was taken

    def take(self, lines: list[Any]) -> None:
        """Bring the snapshot up to date with a fresh listing; lines have the name first."""
        self.taken_s = time.monotonic()
        if not self.names:
            self.names = lines
            return
        if not self.position:
            self.position = {line[0]: i for i, line in enumerate(self.names) if line is not None}
        fresh = {line[0]: line for line in lines}
        self.names = list(self.names)  # the listing may be shared
        for name, index in self.position.items():
            self.names[index] = fresh.pop(name, None)
        for name, line in fresh.items():
            self.position[name] = len(self.names)
            self.names.append(line)


class Handles:
    """handle number -> open thing. Numbers are not reused soon."""

    def __init__(self) -> None:
        self._next = itertools.count(1)
        self._open: dict[int, Handle | TextHandle | DirHandle] = {}

    def add(self, thing: Handle | TextHandle | DirHandle) -> int:
        number = next(self._next)
        self._open[number] = thing
        return number

    def file(self, number: int) -> Handle | TextHandle:
        thing = self._open.get(number)
        if not isinstance(thing, Handle | TextHandle):
            raise Invalid(f"handle {number} is no open file")
        return thing

    def directory(self, number: int) -> DirHandle:
        thing = self._open.get(number)
        if not isinstance(thing, DirHandle):
            raise Invalid(f"handle {number} is no open directory")
        return thing

    def pop(self, number: int) -> Handle | TextHandle | DirHandle | None:
        return self._open.pop(number, None)

    def take_files(self) -> list[Handle]:
        """Every open file, taken out: the end of the session."""
        files = [thing for thing in self._open.values() if isinstance(thing, Handle)]
        self._open.clear()
        return files

    def __len__(self) -> int:
        return len(self._open)
