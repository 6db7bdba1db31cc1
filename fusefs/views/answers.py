"""Answers of views, kept for as long as they are true: who lists a view asks for every one of its names next.

In: the names of a view's directory, once they were found. Out: the same, until the library writes anything. What a
person does (a tag, a new name) shows the next moment. While something is indexed, which writes all the time, an answer
holds for twice as long as it took to find, so that finding it again costs no more than a third of the time.
"""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from fusefs.views.base import ViewDir, ViewNode
from index.model.change import ADDED, FOUND, META, REMOVED, Commit
from index.model.errors import NotFound
from vdfs.space.nodes import Node

Names = Mapping[bytes, "ViewNode | Node"]

_KEPT = 16
#: How long an answer is believed at most.
_AGE_S = 10.0


class _Answer:
    def __init__(self, names: Names, writes: tuple[int, int], began_s: float, found_s: float) -> None:
        self.names = names
        self.writes = writes  # (of people, of the index) when it was found
        self.began_s = began_s
        self.took_s = found_s - began_s


class Answers:
    """The last answers, by the path of the view, or what else tells it."""

    def __init__(self) -> None:
        self._writes = (0, 0)
        self._kept: OrderedDict[tuple[bytes, ...], _Answer] = OrderedDict()

    def forget(self, commit: Commit) -> None:
        """Told of every commit in the moment it is made."""
        people, index = self._writes
        by_people = commit.origin not in FOUND and any(c.what in (ADDED, REMOVED, META) for c in commit.changes)
        self._writes = (people + by_people, index + 1)

    async def get(self, path: tuple[bytes, ...], find: Callable[[], Awaitable[Names]]) -> Names:
        """The names of a view; `find` is asked when nothing is known that holds."""
        now_s = time.monotonic()
        known = self._kept.get(path)
        if known is not None:
            holds_s = _AGE_S if known.writes == self._writes else 2 * known.took_s
            if known.writes[0] == self._writes[0] and now_s - known.began_s < holds_s:
                self._kept.move_to_end(path)
                return known.names
        writes = self._writes
        names = await find()
        self._kept[path] = _Answer(names, writes, now_s, time.monotonic())
        self._kept.move_to_end(path)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return names


class AnsweredDir(ViewDir):
    """A directory whose names are found all at once."""

    def __init__(self, answers: Answers, path: tuple[bytes, ...], uid: int, gid: int) -> None:
        super().__init__(path, uid, gid)
        self._answers = answers
        self.key = path  # what an answer is kept by

    async def find(self) -> Names:
        """The names and what they are, in the order of the listing."""
        raise NotImplementedError

    async def entries(self) -> AsyncIterator[tuple[bytes, "ViewNode | Node"]]:
        for line in (await self._answers.get(self.key, self.find)).items():
            yield line

    async def lookup(self, name: bytes) -> "ViewNode | Node":
        found = (await self._answers.get(self.key, self.find)).get(name)
        if found is None:
            raise NotFound("there is no such name in this view")
        return found
