"""Identifier: gives every file its identity, for the jobs that index a branch and on its own for what comes later.

Small files are read whole; large ones get their sampled id first, and the full hash with its block manifest when all
sampled ids are known. What is read is read in worker processes, a page of rows at a time; what a file turned out to be
is written in small units. A file that changed while it was read, or is not as its row says, is looked at again. All
state that matters is in the rows: whoever is interrupted loses what was being read.

A branch that a job is about to go through is that job's (`is_claimed`), also while the job is paused; the files of the
others are looked for a few times a second. Files of locations that are to be known by their names alone are left.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio

from index.model.change import ORIGIN_SCAN
from index.model.entry import HASH_NONE, HASH_SAMPLED, Entry
from index.model.errors import Stale, VdfsError
from index.model.inode import DEVICES
from index.scan import hasher, pipeline, survivors
from index.scan.workers import WorkerPool
from index.store import entries, metadata, places
from vdfs.indexing.progress import Progress
from vdfs.space.branches import LIVE, Branch
from vdfs.space.halts import Halts
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.scan")

#: Files of one page, and while somebody works at the mount; and how many bytes of them: what reading it keeps a worker
#: from other work.
_PAGE = 1024
_PAGE_USED = 32
_PAGE_BYTES = 64 << 20
#: Files of one unit, the fewer the sooner a request gets its turn, and while somebody works at the mount. Hashes lie
#: anywhere in their index, so that a unit writes a page of it for nearly each file, however many there are.
_UNIT_FILES = 1024
_UNIT_FILES_USED = 12
#: Pages of one branch that a job has read at a time.
_SHARES = 2
#: How often the queue of unidentified files is looked at, and how long a file must have been left alone: what is still
#: being written, or is gone in a moment (a temporary name), is not worth reading.
_POLL_S = 0.25
_SETTLED_NS = 1_000_000_000
#: Looking through those that cannot be read now (their branch is away) takes its time: so many times that it rests.
_REST = 20.0
_REST_MAX_S = 10.0
#: Beyond this reading a file whole takes long enough that the sampled id comes first (it reads 57 KB of any file).
_SAMPLED_FIRST_BYTES = 4 << 20
#: A file of this size or more is hashed beside the others, so that they need not wait for it.
_LARGE_BYTES = 256 << 20


#: A file that so many processes died of, each with nothing else to do, is taken to be one that cannot be read.
_DEATHS = 3

#: Why a file is given up, for people.
_GIVEN_UP: Final[Mapping[hasher.Outcome, str]] = {
    hasher.Outcome.DENIED: "the permission to read it is denied",
    hasher.Outcome.IO_ERROR: "its disk fails to read it",
    hasher.Outcome.NOT_REGULAR: "it is no file any more",
}

_Read = tuple[int, hasher.Result]
#: Told of files and bytes that were read, and of (path, reason) of files that are given up.
Done = Callable[[int, int, list[tuple[str, str]]], None]


class _Pages:
    """Where those are who go through the files of a branch that wait in a state."""

    def __init__(self, state: int) -> None:
        self.state = state
        self.after = 0
        self.is_last = False
        self.lock = trio.Lock()
        self.linked: set[int] = set()  # inodes with several names that are being read: each by one of these


class Identifier:
    """Used on the loop only; `run()` is its life."""

    def __init__(
        self, tree: Tree, pool: WorkerPool, progress: Progress, imports: Callable[[list[int]], None], halts: Halts
    ) -> None:
        self.is_claimed: Callable[[int], bool] = lambda branch_id: False  # whether a job goes through a branch
        self.is_held: Callable[[], bool] = lambda: False  # whether nothing is to be read just now
        self.identified: Callable[[list[int]], None] = lambda entry_ids: None  # told of files that were read
        self.tree = tree
        self.store = tree.store
        self.pool = pool
        self.progress = progress
        self.halts = halts
        self._imports = imports  # reads the real attributes of files that were just identified
        self._busy = False
        self._in_vain_s = 0.0  # spent on rows of which none could be read
        self._last: dict[int, set[int]] = {}  # of branches of which a job reads the largest files now: these
        self._large: dict[int, None] = {}  # files that are hashed one by one, in a stream of their own
        self._has_large = trio.Event()
        self._retry: dict[int, tuple[int, float]] = {}  # file that changed while read -> (tries, not before)

    @property
    def idle(self) -> bool:
        """Whether no file is left to identify."""
        return not self._busy and not self._large and not entries.has_unidentified(self.store.db)

    def pending_files(self) -> int:
        """How many files wait; beyond some thousands no more are counted."""
        return entries.count_unidentified(self.store.db)

    async def identify_all(self, branch: Branch, done: Done) -> None:
        """Identify the files of a branch that wait and are left alone; `done` is told of them as they are.

        Two pages are read at a time, the largest files one by one at the end; what comes meanwhile need not wait for
        these. Files that change all the time are left to the task that runs beside.
        """
        large: list[Entry] = []
        for state in (HASH_NONE, HASH_SAMPLED):
            await self._identify_in(branch, _Pages(state), large, done)
        self._last[branch.id] = {row.id for row in large}
        try:
            for row in large:
                await self._identify_rows(branch, [row], done)
        finally:
            del self._last[branch.id]

    async def _identify_in(self, branch: Branch, pages: "_Pages", large: list[Entry], done: Done) -> None:
        failed: list[VdfsError] = []
        async with trio.open_nursery() as nursery:

            async def share() -> None:
                try:
                    await self._identify_share(branch, pages, large, done)
                except VdfsError as error:
                    failed.append(error)
                    nursery.cancel_scope.cancel()

            for _ in range(_SHARES):
                nursery.start_soon(share)
        if failed:
            raise failed[0]

    async def _identify_share(self, branch: Branch, pages: "_Pages", large: list[Entry], done: Done) -> None:
        while not pages.is_last:
            async with pages.lock:
                page, pages.after, pages.is_last = await self._next_page(
                    branch, pages.state, pages.after, large.append, pages.linked
                )
            await self._identify_rows(branch, page, done)
            pages.linked -= {row.st_ino for row in page}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._identify_forever)
            nursery.start_soon(self._identify_large_forever)

    async def _identify_forever(self) -> None:
        while True:
            if not entries.has_unidentified(self.store.db):
                await trio.sleep(_POLL_S)
                continue
            self._busy = True
            self._in_vain_s = 0.0
            try:
                more = False
                for branch in list(self.tree.branches.values()):
                    is_free = branch.id in self._last or not self.is_claimed(branch.id)
                    if branch.state == LIVE and is_free and not self.is_held():
                        more = await self._identify_some(branch) or more
            except VdfsError as error:
                log.warning("files could not be identified: %s", error)
                self.progress.errors += 1
                await trio.sleep(2)
                continue
            except Exception:
                log.exception("identification failed")
                self.progress.errors += 1
                await trio.sleep(5)
                continue
            finally:
                self._busy = False
            if not more:
                await trio.sleep(max(_POLL_S, min(_REST * self._in_vain_s, _REST_MAX_S)))

    async def _identify_some(self, branch: Branch) -> bool:
        """Identify the next files of a branch; returns whether there was a full page of them, so maybe more.

        While files come one by one (somebody unpacks an archive) they are so taken a few times a second, together.
        """
        for state in (HASH_NONE, HASH_SAMPLED):
            began_s = time.monotonic()
            page, _, is_last = await self._next_page(branch, state, 0, self._put_off, set())
            if not page:
                self._in_vain_s += time.monotonic() - began_s
                continue
            await self._identify_rows(branch, page, _nobody_counts)
            if not is_last:
                return True
        return False

    def _put_off(self, row: Entry) -> None:
        """A large file is read by a task of its own, so that the others need not wait for it."""
        if row.id not in self._last.get(row.branch_id, ()):
            self._large.setdefault(row.id)
            self._has_large.set()

    async def _next_page(
        self, branch: Branch, state: int, after: int, put_off: Callable[[Entry], None], linked: set[int]
    ) -> tuple[list[Entry], int, bool]:
        """(files of a branch that wait in a state, the last id that was looked at, whether those were the last).

        Of an inode with several names one is given, and none that is among `linked`, to which it is added.
        """
        now_s = time.monotonic()
        page: list[Entry] = []
        left: list[int] = []
        inner: dict[int | None, bool] = {}  # directory -> whether what lies in it is to be left
        before_ns = time.time_ns() - _SETTLED_NS
        is_last = False
        size_bytes = 0
        wanted = _PAGE_USED if self.tree.pace.is_used else _PAGE
        while len(page) < wanted and size_bytes < _PAGE_BYTES and not is_last:
            rows = entries.unidentified(self.store.db, branch.id, state, after, before_ns, wanted)
            is_last = len(rows) < wanted
            for row in rows:
                if size_bytes >= _PAGE_BYTES:
                    is_last = False
                    break
                after = row.id
                held = self._retry.get(row.id)
                if held is not None and held[1] > now_s:
                    continue
                if row.parent_id not in inner:
                    inner[row.parent_id] = is_inner(self.tree, branch, row.parent_id)
                if branch.mode == places.MODE_SHALLOW or inner[row.parent_id]:
                    left.append(row.id)
                    continue
                if row.nlink > 1:
                    if row.st_ino in linked:
                        continue
                    linked.add(row.st_ino)
                if row.size_bytes >= _LARGE_BYTES and _is_read_whole(row):
                    put_off(row)
                    continue
                page.append(row)
                size_bytes += row.size_bytes if _is_read_whole(row) else 0
            if left:
                with self.store.write(ORIGIN_SCAN) as unit:
                    entries.leave_unhashed(unit.db, left)
                left.clear()
            await trio.lowlevel.checkpoint()
        return page, after, is_last

    async def _identify_rows(self, branch: Branch, page: list[Entry], done: Done) -> None:
        by_mode: dict[hasher.Mode, list[dict[str, Any]]] = {}
        above: dict[int | None, list[bytes]] = {}
        for row in page:
            if row.parent_id not in above:
                above[row.parent_id] = entries.path_of(self.store.db, row.parent_id) if row.parent_id else []
            item = {"id": row.id, "path": [*above[row.parent_id], row.name]}
            mode = hasher.Mode.FULL if _is_read_whole(row) else hasher.Mode.SAMPLED
            by_mode.setdefault(mode, []).append(item)
        for mode, items in by_mode.items():
            await self._identify(branch.id, mode, items, done)

    async def _identify(
        self,
        branch_id: int,
        mode: hasher.Mode,
        items: list[dict[str, Any]],
        done: Done,
    ) -> None:
        branch = self.tree.branches.get(branch_id)
        if branch is None:
            return
        args = {
            "root": branch.root_path, "mode": str(mode.value), "devices": DEVICES.told(),
        }  # fmt: skip
        left = {item["id"]: item for item in items}

        async def read(some: list[dict[str, Any]]) -> None:
            async with self.pool.stream("identify", {**args, "items": some}) as stream:
                waiting: deque[_Read] = deque()
                taken_s = time.monotonic()
                try:
                    async for batch in stream:
                        results = list(hasher.unpack_results(batch))
                        for entry_id, _ in results:
                            left.pop(entry_id, None)
                        waiting.extend(results)
                        if self.tree.pace.is_due(len(waiting), _UNIT_FILES, taken_s):
                            await self._take(waiting, done)
                            taken_s = time.monotonic()
                finally:  # what was read before a worker died is not read again
                    await self._take(waiting, done)

        async def blame(item: dict[str, Any], how: str) -> None:
            log.warning("%s cannot be read: the process that does %s", os.fsdecode(b"/".join(item["path"])), how)
            self.progress.errors += 1
            await self._take(deque([(item["id"], hasher.Unidentified(hasher.Outcome.IO_ERROR))]), _nobody_counts)
            path = os.fsdecode(b"/".join([branch.root_path, *item["path"]]))
            done(0, 0, [(path, f"the process that reads it {how}")])

        with self.halts.on(branch.id):
            await survivors.work_off(self.pool, left, read, blame, deaths=_DEATHS)

    async def _take(self, waiting: "deque[_Read]", done: Done) -> None:
        """Write what was read, in units."""
        while waiting:
            count = _UNIT_FILES_USED if self.tree.pace.is_used else _UNIT_FILES
            some = [waiting.popleft() for _ in range(min(count, len(waiting)))]
            async with self.tree.pace.turn():
                self._take_identities(some)
                known = [one for _, one in some if isinstance(one, hasher.Identity) and one.full is not None]
                done(len(known), sum(one.size_bytes for one in known), self._given_up(some))

    def _given_up(self, results: list[_Read]) -> list[tuple[str, str]]:
        """(path, reason) of those that cannot be read."""
        found = []
        for entry_id, result in results:
            reason = _GIVEN_UP.get(result.outcome) if isinstance(result, hasher.Unidentified) else None
            row = None if reason is None else entries.get(self.store.db, entry_id)
            branch = None if row is None else self.tree.branches.get(row.branch_id)
            if reason is not None and branch is not None:
                path = b"/".join([branch.root_path, *entries.path_of(self.store.db, entry_id)])
                found.append((os.fsdecode(path), reason))
        return found

    async def _identify_large_forever(self) -> None:
        while True:
            if not self._large:
                await self._has_large.wait()
            self._has_large = trio.Event()
            await trio.sleep(_POLL_S)
            while self._large and not self.is_held():
                entry_id = next(iter(self._large))
                row = entries.get(self.store.db, entry_id)
                try:
                    is_wanted = row is not None and not row.rule and row.hash_state in (HASH_NONE, HASH_SAMPLED)
                    if row is not None and is_wanted and row.parent_id is not None:
                        path = [*entries.path_of(self.store.db, row.parent_id), row.name]
                        await self._identify(
                            row.branch_id, hasher.Mode.FULL, [{"id": row.id, "path": path}], _nobody_counts
                        )
                except VdfsError as error:
                    log.warning("a large file could not be identified: %s", error)
                    self.progress.errors += 1
                    await trio.sleep(2)
                except Exception:
                    log.exception("the identification of a large file failed")
                    self.progress.errors += 1
                    await trio.sleep(5)
                finally:
                    self._large.pop(entry_id, None)

    def _take_identities(self, results: list[_Read]) -> None:
        with self.store.write(ORIGIN_SCAN) as unit:
            again = pipeline.take_identities(unit, results)
        now_s = time.monotonic()
        seen = metadata.mirrored(self.store.db, [entry_id for entry_id, _ in results])
        to_import = []
        for entry_id, result in results:
            if isinstance(result, hasher.Identity):
                self.progress.files_identified += 1
                self.progress.bytes_identified += result.size_bytes
            if entry_id in again:
                tries = self._retry.get(entry_id, (0, 0.0))[0] + 1
                self._retry[entry_id] = (tries, now_s + min(30.0, 0.5 * 2**tries))
                self._look_again(entry_id)
            else:
                self._retry.pop(entry_id, None)
                if entry_id in seen or (isinstance(result, hasher.Identity) and result.carries):
                    to_import.append(entry_id)
        self._imports(to_import)
        self.identified([entry_id for entry_id, result in results if isinstance(result, hasher.Identity)])

    def _look_again(self, entry_id: int) -> None:
        """A file was not as the row said: mend the row now."""
        row = entries.get(self.store.db, entry_id)
        if row is None or row.parent_id is None:
            self._retry.pop(entry_id, None)
            return
        ref = self.tree.ref_of(row.parent_id)
        if ref is None or ref.branch.slow or ref.branch.state != LIVE:
            return
        try:
            with self.tree.dirs.opened(ref) as fd:
                st = os.stat(row.name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            self.tree.mend(ref, row.name, row, None)
            self._retry.pop(entry_id, None)
        except Stale:  # one of the directories above is another by now, or none
            for step in ref.chain()[1:]:
                if step.parent is not None:
                    self.tree.look_at(step.parent.entry_id, step.name)
        except (OSError, VdfsError):
            return
        else:
            node = self.tree.nodes.get(row.node)
            if node is None or not node.st_is_ours(st):
                self.tree.mend(ref, row.name, row, st)


def _nobody_counts(files: int, size_bytes: int, given_up: list[tuple[str, str]]) -> None:
    """Of what no job does."""


def _is_read_whole(row: Entry) -> bool:
    """Whether the whole file is to be read now; a large one gets its sampled id first, which is quick."""
    return row.hash_state != HASH_NONE or row.size_bytes <= _SAMPLED_FIRST_BYTES or row.content_id is not None


def is_inner(tree: Tree, branch: Branch, directory: int | None) -> bool:
    """Whether a directory lies on a slow file system inside a fast branch: that is neither walked nor hashed."""
    if not branch.inner or directory is None:
        return False
    ref = tree.ref_of(directory)
    return ref is not None and ref.branch.outer is not None
