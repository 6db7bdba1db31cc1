"""Ruling: the task that has rows judged again where the rules may say something else by now.

In: table ruling, which the store fills while it writes (rulers.py). What is noted there is judged in a worker process
(judging.py), a branch's directories together, and the differences are written in small units with a turn of the loop
between them. A directory leaves the table when it was judged and nobody noted it again meanwhile; so whatever was
interrupted is done at the next start.

Two things wait: what a piece of a walk tells was judged by the lists it had read, so judging begins when the pieces are
through that ran when it was asked for; and a directory whose lists change all the time (a git index) is judged less
often the longer that takes.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import trio

from index.model.change import ORIGIN_SCAN
from index.model.errors import NoSpace, VdfsError
from index.model.inode import DEVICES
from index.scan import pipeline
from index.scan.workers import WorkerPool
from index.store import entries, rulings
from index.store.rulings import Ruling as Noted
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.rulers import Rulers

log = logging.getLogger("sdmount.rules")

#: How long what comes together is gathered: a checkout writes many lists.
_GATHER_S = 0.3
_PAGE = 256
_POLL_S = 0.05
#: A directory rests so many times as long as judging it took.
_REST = 5.0
_AGAIN_S = 5.0
#: How often it is looked whether something can be judged: a volume may be back.
_LOOK_S = 5.0
#: A slow file system that does not answer keeps the others waiting for so long.
_SLOW_S = 300.0
#: Rows of one unit, and while somebody works at the mount.
_UNIT_ROWS = 128
_UNIT_ROWS_USED = 32
#: Directories whose place is looked up between two turns of the loop.
_SLICE = 16
_RESTING_MAX = 200


class Ruling:
    """Used on the loop only; `run()` is its life."""

    def __init__(self, rulers: Rulers, pool: WorkerPool) -> None:
        self.rulers = rulers
        self.tree = rulers.tree
        self.store = rulers.store
        self.pool = pool
        self._busy = False
        self.released: Callable[[list[int]], None] = lambda entry_ids: None  # told of rows that nothing holds any more
        self.changed = 0  # rows that got another rule, since the start
        self._rests: dict[int, float] = {}  # directory -> not before
        self._noted: set[bytes] = set()  # lists of which was said that they cannot be read

    def is_idle(self) -> bool:
        """Whether nothing that can be judged is left to judge."""
        return not self._busy and not self._first(1)

    def _first(self, limit: int) -> list[Noted]:
        """Some of what can be judged now: its branch is there, or it is gone and only to be taken off the list."""
        live = [branch.id for branch in self.tree.branches.values() if branch.state == LIVE]
        return rulings.first(self.store.db, live, limit)

    async def run(self) -> None:
        self.rulers.settled = self.is_idle
        try:
            await self._judge_forever()
        finally:
            self._busy = False
            self.rulers.settled = lambda: True

    async def _judge_forever(self) -> None:
        while True:
            self.rulers.wake = trio.Event()
            now_s = time.monotonic()
            able = self._first(_PAGE + len(self._rests))
            due = [one for one in able if self._rests.get(one.entry_id, 0.0) <= now_s]
            if not due:
                rests = min((self._rests[one.entry_id] for one in able), default=now_s + _LOOK_S)
                with trio.move_on_after(min(_LOOK_S, max(_POLL_S, rests - now_s))) as waiting:
                    await self.rulers.wake.wait()
                await trio.sleep(0 if waiting.cancelled_caught else _GATHER_S)
                continue
            self._busy = True
            try:
                for branch, noted in self._by_branch(due[:_PAGE]):
                    with trio.move_on_after(_SLOW_S if branch.slow else math.inf) as waiting:
                        await self._walked(branch)
                        await self._judge(branch, noted)
                    if waiting.cancelled_caught:
                        self._rest(noted, _SLOW_S)
            except VdfsError as error:
                log.warning("rules could not be applied: %s", error)
                await trio.sleep(_AGAIN_S)
            finally:
                self._busy = False

    def _rest(self, noted: list[Noted], rest_s: float) -> None:
        if len(self._rests) > _RESTING_MAX:
            self._rests.clear()
        self._rests.update({one.entry_id: time.monotonic() + rest_s for one in noted})

    async def _walked(self, branch: Branch) -> None:
        """Return when the pieces of walks are through that go through a branch now."""
        pieces = {piece for piece, its in self.rulers.pieces.items() if its is branch}
        while pieces & self.rulers.pieces.keys():  # noqa: ASYNC110  (pieces are short, and end in any order)
            await trio.sleep(_POLL_S)

    def _by_branch(self, due: Iterable[Noted]) -> Iterator[tuple[Branch, list[Noted]]]:
        by_branch: dict[Branch | None, list[Noted]] = {}
        for noted in due:
            branch = None if noted.branch_id is None else self.tree.branches.get(noted.branch_id)
            by_branch.setdefault(branch, []).append(noted)
        self._done(by_branch.pop(None, []))
        yield from ((branch, noted) for branch, noted in by_branch.items() if branch is not None)

    def _done(self, judged: list[Noted]) -> None:
        if judged:
            with self.store.write(ORIGIN_SCAN) as unit:
                for noted in judged:
                    rulings.done(unit.db, noted)

    async def _judge(self, branch: Branch, noted: list[Noted]) -> None:
        """Have some directories of a branch judged; what differs is in the index when this returns."""
        deep = {one.entry_id for one in noted if one.deep}
        starts = []
        for count, one in enumerate(noted):
            if count % _SLICE == _SLICE - 1:
                await trio.lowlevel.checkpoint()
            if not self._is_below(one, deep):
                starts.append(one)
        args = {
            "database": str(self.store.path), "root": branch.root_path, "root_id": [branch.fs_id, branch.root_ino],
            "root_entry": branch.root_entry_id, "starts": [[one.entry_id, one.deep] for one in starts],
            "excluded": branch.for_workers(), "devices": DEVICES.told(), **self.rulers.for_worker(branch),
        }  # fmt: skip
        began_s = time.monotonic()
        try:
            async with self.pool.stream("judge", args) as stream:
                async for batch in stream:
                    await self._take(batch)
            self._say(stream.result)
        except VdfsError:
            if branch.state == MISSING or (self.tree.check(branch) and branch.state != LIVE):
                return self._rest(noted, _LOOK_S)  # it stays noted until the branch is back
            raise
        self._rest(noted, _REST * (time.monotonic() - began_s))
        self._done(noted)

    def _is_below(self, noted: Noted, deep: set[int]) -> bool:
        """Whether a directory is judged with another one above it."""
        above = entries.placed(self.store.db, noted.entry_id)
        while above is not None and above[0] is not None:
            if above[0] in deep:
                return True
            above = entries.placed(self.store.db, above[0])
        return False

    async def _take(self, batch: list[Any]) -> None:
        for directory, ruled in batch:
            waiting = ruled
            while waiting:
                count = _UNIT_ROWS_USED if self.tree.pace.is_used else _UNIT_ROWS
                some, waiting = waiting[:count], waiting[count:]
                try:
                    async with self.tree.pace.turn():
                        with self.store.write(ORIGIN_SCAN) as unit:
                            pipeline.take_ruled(unit, directory, some)
                except NoSpace:
                    log.warning("rules could not be written down: no space")
                    raise
                self.changed += len(some)
                self.released([entry_id for entry_id, _, rule in some if not rule])

    def _say(self, notes: list[list[Any]]) -> None:
        for path, why in notes:
            if path not in self._noted and len(self._noted) < _RESTING_MAX:
                self._noted.add(path)
                log.warning("%s: %s", os.fsdecode(path), why)
