"""Scanner: finds out what lies on the disks behind the mount, for the jobs that walk whole branches and on its own.

A walk is shared out in pieces among the worker processes. Whole branches are walked by jobs (`walk_branch`; phases.py),
which go on where they were stopped. Single subtrees (a directory that the watcher found, one that was in motion while
it was listed) wait in a queue of the scanner's own, since they are many and short. Here are only small units, with a
turn of the loop between them.

What happens in a directory between its listing and its watch would be seen by nobody. So a walk that set watches is
followed by another, and at the start the directories that are known are watched first (watch.py), then walked.
"""

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from index.model.change import ORIGIN_SCAN, ORIGIN_WALK
from index.model.errors import NoSpace, Unreachable, VdfsError
from index.model.inode import DEVICES
from index.scan import pipeline
from index.scan.pieces import shared_out
from index.scan.workers import WorkerPool
from index.store import entries, places
from vdfs.indexing.identifier import Identifier, is_inner
from vdfs.indexing.progress import Progress
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.halts import Halts
from vdfs.space.rulers import Rulers
from vdfs.space.tree import Tree
from vdfs.space.watch import Watch

log = logging.getLogger("sdmount.scan")

_QUIET_S = 1.0
#: Rows of one unit, and while somebody works at the mount; a directory alone may be more.
_UNIT_ROWS = 1200
_UNIT_ROWS_USED = 30
#: How long the walks of the start wait for the watches: what they find is then right, and nothing is walked twice.
_COVER_S = 5.0
#: So many new watches are followed by a walk of each directory; more, by another of all that was walked.
_FRESH_ONE_BY_ONE = 16
#: How soon a directory is walked again that was in motion while it was listed.
_AGAIN_S = 0.2
#: How often a directory that was not where its row has it is looked for again, and how soon.
_LOST_TRIES = 5
_LOST_S = 0.2


@dataclass(slots=True)
class _Walk:
    """What the pieces of one walk have in common."""

    branch: Branch
    first: bool = False  # nothing of the branch was known
    since_ns: int | None = None  # it goes on: when it began
    seen: Callable[[int, int], None] = lambda dirs, entries: None
    failed: list[tuple[int, int]] = field(default_factory=list)
    tries: dict[int, int] = field(default_factory=dict)  # of directories that were lost


class Scanner:
    """Used on the loop only; `run()` is its life."""

    def __init__(self, tree: Tree, pool: WorkerPool, imports: Callable[[list[int]], None]) -> None:
        self.tree = tree
        self.store = tree.store
        self.pool = pool
        self.watch: Watch | None = None
        self.rulers: Rulers | None = None  # judges what a walk finds
        self.progress = Progress()
        self.halts = Halts()
        self.identifier = Identifier(tree, pool, self.progress, imports, self.halts)
        self.ask_branch: Callable[[Branch], object] = lambda branch: None  # have a whole branch walked
        self._imports = imports  # reads the real attributes of entries that were just found
        self._todo: dict[int, float] = {}  # entry id of a directory -> when to walk it
        self._again: dict[int, float] = {}  # the same, for directories that must first be quiet
        self._unsure: dict[int, set[int]] = {}  # root of a walk to come -> directories in it that it makes sure of
        self._uncovered: dict[int, float] = {}  # root of a branch that is being watched -> when it is walked at last
        self._walking: dict[int, trio.Lock] = {}  # of a branch that is walked: by one at a time
        self._wake = trio.Event()
        self._busy = False

    # asking -----------------------------------------------------------------------------------------------------------

    def request(self, entry_id: int, delay_s: float = 0.0) -> None:
        """Walk a directory and all below it, soon."""
        branch = self._root_of(entry_id)
        if branch is not None:
            self.ask_branch(branch)
            return
        due = time.monotonic() + delay_s
        self._todo[entry_id] = min(due, self._todo.get(entry_id, due))
        self._wake.set()

    def begin(self, branch: Branch) -> None:
        """A branch is there again: its directories are watched, and then walked (`Watch.covered` asks for that)."""
        if not self._is_there(branch):
            return
        root = entries.get(self.store.db, branch.root_entry_id)
        was_listed = root is not None and root.scanned_mtime_ns is not None  # perhaps there was nothing in it
        is_known = was_listed or not entries.is_empty(self.store.db, branch.root_entry_id)
        if self.watch is None or not is_known or branch.state != LIVE or branch.slow:
            self.ask_branch(branch)
            return
        self._uncovered[branch.root_entry_id] = time.monotonic() + _COVER_S
        self._wake.set()
        self.watch.request_cover(branch.root_entry_id)

    def request_branch(self, branch: Branch) -> None:
        with self.store.write(ORIGIN_SCAN) as unit:
            places.set_scan_state(unit.db, branch.id, "pending")
        self.ask_branch(branch)

    def covered(self, root_entry_id: int) -> None:
        """The directories of a branch are watched now: what a walk finds from here on stays right."""
        self._uncovered.pop(root_entry_id, None)
        self.request(root_entry_id)

    def _root_of(self, entry_id: int) -> Branch | None:
        """The branch whose root a row is."""
        return next((b for b in self.tree.branches.values() if b.root_entry_id == entry_id), None)

    def found_dir(self, ref: DirRef) -> None:
        """A directory appeared behind the mount: walk it now, and again when it has been quiet for a second."""
        self.request(ref.entry_id)
        self.request_again(ref.entry_id)

    def request_again(self, entry_id: int) -> None:
        self._again[entry_id] = time.monotonic() + _QUIET_S
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether nothing is left to walk, to judge, or to take in of what was heard."""
        is_judged = self.rulers is None or self.rulers.settled()
        return is_judged and not self.pending_dirs()

    def pending_dirs(self) -> int:
        heard = 0 if self.watch is None else self.watch.pending_dirs()
        return len(self._todo) + len(self._again) + len(self._uncovered) + (1 if self._busy else 0) + heard

    # working ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._walk_forever)
            nursery.start_soon(self.identifier.run)

    async def _walk_forever(self) -> None:
        while True:
            now_s = time.monotonic()
            for entry_id, due in list(self._again.items()):
                if due <= now_s:
                    del self._again[entry_id]
                    self.request(entry_id)
            for root, due in list(self._uncovered.items()):
                if due <= now_s:
                    self.covered(root)
            due_ids = [i for i, due in self._todo.items() if due <= now_s]
            if not due_ids:
                self._wake = trio.Event()
                waits = [*self._todo.values(), *self._again.values(), *self._uncovered.values()]
                with trio.move_on_after(max(0.01, min(waits) - now_s) if waits else 3600):
                    await self._wake.wait()
                continue
            entry_id = due_ids[0]
            del self._todo[entry_id]
            self._busy = True
            try:
                await self.walk(entry_id)
            except VdfsError as error:
                log.warning("a scan could not be finished: %s", error)
                self.progress.errors += 1
                self._todo.setdefault(entry_id, time.monotonic() + 5)
            except Exception:  # a bug in one walk must not end all of them
                log.exception("the walk of directory %d failed", entry_id)
                self.progress.errors += 1
            finally:
                self._busy = False
                self.progress.current = None

    async def walk(self, entry_id: int) -> None:
        """Walk one directory of a branch and all below it; returns when its differences are in the index."""
        unsure = self._unsure.pop(entry_id, set())
        row = entries.get(self.store.db, entry_id)
        branch = None if row is None else self.tree.branches.get(row.branch_id)
        if row is None or branch is None or is_inner(self.tree, branch, entry_id) or not self._is_there(branch):
            self._is_sure(unsure)  # where it is not there its watches are gone, and it is walked when it is back
            return
        path = entries.path_of(self.store.db, entry_id)
        self.progress.current = os.fsdecode(b"/".join([branch.root_path, *path]))
        this = _Walk(branch)
        fresh: list[int] = []
        try:
            await self._walked(this, [entry_id], fresh, lambda _: None)
        except VdfsError:
            self._unsure.setdefault(entry_id, set()).update(unsure, fresh)
            raise
        for text in self._unreadable(this):
            log.warning("%s", text)
        self._is_sure(unsure)
        one_by_one = len(fresh) <= _FRESH_ONE_BY_ONE and entry_id not in self._again
        for directory in fresh:  # what was listed before its watch stood is walked once more
            root = directory if one_by_one else entry_id
            self._unsure.setdefault(root, set()).add(directory)
            if root not in self._again:  # else it is walked once more in any case
                self.request(root)

    async def walk_branch(
        self,
        branch: Branch,
        starts: list[int],
        since_ns: int | None,
        left_is: Callable[[list[int]], None],
        seen: Callable[[int, int], None],
    ) -> list[str]:
        """Walk a branch from some of its directories: the root, or what a walk that began at `since_ns` had left.

        `left_is` is told what is left after each piece, `seen` of directories and entries as they are seen. Returns
        what could not be read. Unreachable when its directory is not there.
        """
        if not self._is_there(branch):
            raise Unreachable(f"{os.fsdecode(branch.root_path)} is not there")
        root = entries.get(self.store.db, branch.root_entry_id)
        is_first = since_ns is None and root is not None and root.scanned_ns is None
        this = _Walk(branch, is_first, since_ns, seen)
        unsure = self._unsure.pop(branch.root_entry_id, set())
        fresh: list[int] = []
        try:
            await self._walked(this, starts, fresh, left_is)
            while fresh:  # what was listed before its watch stood is walked once more
                again = fresh[:] if len(fresh) <= _FRESH_ONE_BY_ONE else [branch.root_entry_id]
                unsure.update(fresh)
                fresh.clear()
                left_is(again)
                await self._walked(_Walk(branch, failed=this.failed), again, fresh, left_is)
        except BaseException:
            self._unsure.setdefault(branch.root_entry_id, set()).update(unsure, fresh)
            raise
        self._is_sure(unsure)
        return self._unreadable(this)

    async def _walked(
        self, this: _Walk, starts: list[int], fresh: list[int], left_is: Callable[[list[int]], None]
    ) -> None:
        """Walk; the directories that got their watch meanwhile are in `fresh` then."""
        lock = self._walking.setdefault(this.branch.id, trio.Lock())
        async with lock:
            with contextlib.nullcontext() if self.watch is None else self.watch.late_in(this.branch, fresh):
                await shared_out(starts, partial(self._walk_piece, this), left_is)

    def _is_there(self, branch: Branch) -> bool:
        return branch.state != MISSING or self.tree.check(branch)

    def _unreadable(self, this: _Walk) -> list[str]:
        """What could not be read, for people."""
        self.progress.errors += len(this.failed)
        out = []
        for directory, code in this.failed:
            path = b"/".join([this.branch.root_path, *entries.path_of(self.store.db, directory)])
            out.append(f"{os.fsdecode(path)} could not be read: {os.strerror(code)}")
        return out

    def _is_sure(self, directories: set[int]) -> None:
        if self.watch is not None:
            self.watch.catching_up -= directories

    async def _walk_piece(self, this: _Walk, starts: list[int]) -> list[int]:
        """One piece of a walk in a worker; returns the directories that it left for another."""
        branch = this.branch
        state = pipeline.WalkState(branch.id, branch.uuid, self.tree, first=this.first)
        args: dict[str, Any] = {
            "database": str(self.store.path),
            "root": branch.root_path,
            "root_id": [branch.fs_id, branch.root_ino],
            "root_entry": branch.root_entry_id,
            "starts": starts,
            "excluded": branch.for_workers(),
            "devices": DEVICES.told(),
            "since_ns": this.since_ns,
            "watching": self.watch is not None and self.watch.takes_more(branch),
            **({} if self.rulers is None else self.rulers.for_worker(branch)),
        }
        lapses = 0 if self.watch is None else self.watch.unplaced.lapses
        judging = contextlib.nullcontext() if self.rulers is None else self.rulers.walking(branch)
        with judging, self.halts.on(branch.id):
            async with self.pool.stream("scan", args) as stream:
                waiting: deque[Any] = deque()
                rows, taken_s = 0, time.monotonic()
                try:
                    async for dirs, seen, reports in stream:
                        self.progress.dirs += dirs
                        self.progress.entries += seen
                        waiting.extend(reports)
                        rows += seen
                        if self.tree.pace.is_due(rows, _UNIT_ROWS, taken_s):
                            await self._take(state, waiting, lapses)
                            rows, taken_s = 0, time.monotonic()
                        this.seen(dirs, seen)
                finally:
                    await self._take(state, waiting, lapses)
        this.failed.extend(state.failed)
        left: list[int]
        left, lost = stream.result
        found = [one for one in (state.ids.get(number, number) for number in lost) if self._is_lost(this, one)]
        if found:
            await trio.sleep(_LOST_S * max(this.tries[one] for one in found))
        return left + found

    def _is_lost(self, this: _Walk, directory: int) -> bool:
        """Whether a directory that was not where a piece looked is to be looked for again: its row may have moved."""
        row = entries.get(self.store.db, directory) if directory > 0 else None
        if row is None:
            return False
        if row.branch_id != this.branch.id:
            self.request(directory, _LOST_S)
            return False
        this.tries[directory] = this.tries.get(directory, 0) + 1
        return this.tries[directory] <= _LOST_TRIES

    async def _take(self, state: pipeline.WalkState, waiting: deque[Any], lapses: int) -> None:
        """Write what was reported, in units. `lapses`: how many the watch knew of when the piece began."""
        while waiting:
            some = _first_unit(waiting, _UNIT_ROWS_USED if self.tree.pace.is_used else _UNIT_ROWS)
            for report in some:
                for row in pipeline.gone_directories(self.store.db, state, report):
                    await self.tree.clear(row, state.branch_uuid)
            async with self.tree.pace.turn():
                with self.store.write(ORIGIN_WALK) as unit:
                    for report in some:
                        pipeline.take_report(unit, state, report)
                watched, state.watched = state.watched, []
                if self.watch is not None:  # before anybody else finds the rows
                    for directory, wd, st_ino in watched:
                        self.watch.place(directory, wd, st_ino, lapses)
                for directory in state.again:  # at once: a walk that is stopped leaves nothing of that behind
                    self.request(directory, _AGAIN_S)
                state.again.clear()
                listed, state.listed = state.listed, []
                carrying, state.carrying = state.carrying, []
                self._imports(carrying)
            if self.watch is not None:
                refs = [ref for ref in map(self.tree.ref_of, listed) if ref is not None and not ref.branch.slow]
                for ref in refs:
                    self.watch.look(ref)
                with contextlib.suppress(NoSpace):
                    self.tree.restamp(refs)  # it was stat-ed with the names beside it, before it was listed


def _first_unit(waiting: deque[Any], rows_max: int) -> list[Any]:
    """Take the reports of one unit from what waits, in order; a directory costs about what three rows do."""
    some = [waiting.popleft()]
    rows = _rows_of(some[0])
    while waiting and rows + _rows_of(waiting[0]) <= rows_max:
        some.append(waiting.popleft())
        rows += _rows_of(some[-1])
    return some


def _rows_of(report: list[Any]) -> int:
    _, _, _, added, changed, gone, _, ruled, _ = report
    return 3 + len(added) + len(changed) + len(gone) + len(ruled)
