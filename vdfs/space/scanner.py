"""Scanner: the tasks that bring the whole library up to date behind the mount.

A queue of subtrees to walk (a branch at start or when it is added, a directory that the watcher found), one walk at a
time, shared out in pieces among the worker processes; beside it the files get their identity (identifier.py). Here are
only small units, with a turn of the loop between them. Interrupted, it goes on from the rows at the next start: a
directory that was listed costs one comparison, a file that was hashed nothing.

What happens in a directory between its listing and its watch would be seen by nobody. So a walk that set watches is
followed by another, and at the start the directories that are known are watched first (watch.py), then walked.
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio

from index.model.change import ORIGIN_SCAN
from index.model.errors import VdfsError
from index.model.inode import DEVICES
from index.scan import pipeline
from index.scan.pieces import shared_out
from index.scan.workers import WorkerPool
from index.store import entries, places, tidy
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.halts import Halts
from vdfs.space.identifier import Identifier, is_inner
from vdfs.space.progress import Progress
from vdfs.space.tree import Tree
from vdfs.space.watch import Watch

log = logging.getLogger("sdmount.scan")

_QUIET_S = 1.0
_UNIT_REPORTS = 64
_IDLE_POLL_S = 0.05
#: How long the walks of the start wait for the watches: what they find is then right, and nothing is walked twice.
_COVER_S = 5.0
#: So many new watches are followed by a walk of each directory; more, by another of all that was walked.
_FRESH_ONE_BY_ONE = 16
#: How often a directory that was not where its row has it is looked for again, and how soon.
_LOST_TRIES = 5
_LOST_S = 0.2
_TIDY_S = 3600.0


@dataclass(slots=True)
class _Walk:
    """What the pieces of one walk have in common."""

    branch: Branch
    first: bool  # nothing of the branch was known
    failed: list[tuple[int, int]] = field(default_factory=list)
    tries: dict[int, int] = field(default_factory=dict)  # of directories that were lost


class Scanner:
    """Used on the loop only; `run()` is its life."""

    def __init__(self, tree: Tree, pool: WorkerPool, imports: Callable[[list[int]], None]) -> None:
        self.tree = tree
        self.store = tree.store
        self.pool = pool
        self.watch: Watch | None = None
        self.progress = Progress()
        self.halts = Halts()
        self.identifier = Identifier(tree, pool, self.progress, imports, self.halts)
        self._imports = imports  # reads the real attributes of entries that were just found
        self._todo: dict[int, float] = {}  # entry id of a directory -> when to walk it
        self._again: dict[int, float] = {}  # the same, for directories that must first be quiet
        self._unsure: dict[int, set[int]] = {}  # root of a walk to come -> directories in it that it makes sure of
        self._wake = trio.Event()
        self._busy = False

    # asking -----------------------------------------------------------------------------------------------------------

    def request(self, entry_id: int, delay_s: float = 0.0) -> None:
        """Walk a directory and all below it, soon."""
        due = time.monotonic() + delay_s
        self._todo[entry_id] = min(due, self._todo.get(entry_id, due))
        self._wake.set()

    def begin(self, branch: Branch) -> None:
        """A branch is there again: its directories are watched, and then walked (`Watch.covered` asks for that)."""
        is_known = next(iter(entries.children(self.store.db, branch.root_entry_id)), None) is not None
        if self.watch is None or not is_known or branch.state != LIVE or branch.slow:
            self.request(branch.root_entry_id)
            return
        self.request(branch.root_entry_id, _COVER_S)
        self.watch.request_cover(branch.root_entry_id)

    def request_branch(self, branch: Branch) -> None:
        with self.store.write(ORIGIN_SCAN) as unit:
            places.set_scan_state(unit.db, branch.id, "pending")
        self.request(branch.root_entry_id)

    def found_dir(self, ref: DirRef) -> None:
        """A directory appeared behind the mount: walk it now, and again when it has been quiet for a second."""
        self.request(ref.entry_id)
        self.request_again(ref.entry_id)

    def request_again(self, entry_id: int) -> None:
        self._again[entry_id] = time.monotonic() + _QUIET_S

    @property
    def idle(self) -> bool:
        """Whether nothing is left to walk or to identify."""
        return not self._todo and not self._again and not self._busy and self.identifier.idle

    async def wait_idle(self) -> None:
        """Return when nothing is left to walk or to identify."""
        while not self.idle:  # noqa: ASYNC110  (idleness is a fact of several tables, which nothing announces)
            await trio.sleep(_IDLE_POLL_S)

    def pending_dirs(self) -> int:
        return len(self._todo) + len(self._again) + (1 if self._busy else 0)

    # working ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tidy_forever)
            nursery.start_soon(self._walk_forever)
            nursery.start_soon(self.identifier.run)

    async def _tidy_forever(self) -> None:
        """At the start and then every hour: what is of no use any more leaves the database."""

        def find(now_ns: int) -> tidy.Strays:
            with self.store.reader() as db:
                return tidy.find(db, now_ns)

        while True:
            try:
                now_ns = time.time_ns()
                while strays := await trio.to_thread.run_sync(find, now_ns, abandon_on_cancel=True):
                    with self.store.write(ORIGIN_SCAN) as unit:
                        tidy.drop(unit.db, strays, now_ns)
                    await trio.sleep(0.1)
            except Exception:
                log.exception("what is of no use any more could not be removed")
            await trio.sleep(_TIDY_S)

    async def _walk_forever(self) -> None:
        while True:
            now_s = time.monotonic()
            for entry_id, due in list(self._again.items()):
                if due <= now_s:
                    del self._again[entry_id]
                    self._todo.setdefault(entry_id, now_s)
            due_ids = [i for i, due in self._todo.items() if due <= now_s]
            if not due_ids:
                self._wake = trio.Event()
                waits = [*self._todo.values(), *self._again.values()]
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
        if row is None or branch is None or is_inner(self.tree, branch, entry_id):
            self._is_sure(unsure)
            return
        whole = row.parent_id is None
        if branch.state == MISSING and not self.tree.check(branch):
            self._is_sure(unsure)  # its watches are gone, and it is walked when it is back
            self._end(branch, "failed", "its directory is not there") if whole else None
            return
        first = whole and row.scanned_ns is None
        if whole:
            with self.store.write(ORIGIN_SCAN) as unit:
                places.set_scan_state(unit.db, branch.id, "scanning")
        path = entries.path_of(self.store.db, entry_id)
        self.progress.current = os.fsdecode(b"/".join([branch.root_path, *path]))
        self.progress.dirs = self.progress.entries = 0
        this = _Walk(branch, first)
        fresh: list[int] = []
        try:
            with contextlib.nullcontext() if self.watch is None else self.watch.late_in(branch, fresh):
                await shared_out([entry_id], partial(self._walk_piece, this))
        except VdfsError as error:
            self._unsure.setdefault(entry_id, set()).update(unsure, fresh)
            if whole:
                self._end(branch, "failed", str(error))
            raise
        self.progress.errors += len(this.failed)
        for directory, code in this.failed[:20]:
            names = entries.path_of(self.store.db, directory)
            log.warning(
                "%s could not be read: %s", os.fsdecode(b"/".join(names)) or "/", errno.errorcode.get(code, code)
            )
        self._is_sure(unsure)
        self._follow(entry_id, fresh)
        if whole:
            is_covered = self.watch is None or not self.watch.will_cover(entry_id)
            branch.is_followed = branch.is_followed or (not branch.slow and is_covered)
            self._end(branch, "done", None)

    def _is_sure(self, directories: set[int]) -> None:
        if self.watch is not None:
            self.watch.catching_up -= directories

    def _follow(self, entry_id: int, fresh: list[int]) -> None:
        """See that what was listed before its watch stood is walked once more."""
        one_by_one = len(fresh) <= _FRESH_ONE_BY_ONE and entry_id not in self._again
        for directory in fresh:
            root = directory if one_by_one else entry_id
            self._unsure.setdefault(root, set()).add(directory)
            if root not in self._again:  # else it is walked once more in any case
                self.request(root)

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
        }
        with self.halts.on(branch.id):
            async with self.pool.stream("scan", args) as stream:
                async for dirs, seen, reports in stream:
                    self.progress.dirs += dirs
                    self.progress.entries += seen
                    await self._take(state, reports)
        for directory in state.again:
            self.request(directory, 0.2)
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

    def _end(self, branch: Branch, state: str, error: str | None) -> None:
        with self.store.write(ORIGIN_SCAN) as unit:
            places.set_scan_state(unit.db, branch.id, state, error, time.time_ns() if state == "done" else None)

    async def _take(self, state: pipeline.WalkState, reports: list[Any]) -> None:
        for start in range(0, len(reports), _UNIT_REPORTS):
            for report in reports[start : start + _UNIT_REPORTS]:
                for row in pipeline.gone_directories(self.store.db, state, report):
                    await self.tree.clear(row, state.branch_uuid)
            with self.store.write(ORIGIN_SCAN) as unit:
                for report in reports[start : start + _UNIT_REPORTS]:
                    pipeline.take_report(unit, state, report)
            listed, state.listed = state.listed, []
            carrying, state.carrying = state.carrying, []
            self._imports(carrying)
            await trio.lowlevel.checkpoint()
            if self.watch is not None:
                for directory in listed:
                    ref = self.tree.ref_of(directory)
                    if ref is not None:
                        self.watch.look(ref)
