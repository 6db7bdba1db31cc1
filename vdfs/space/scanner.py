"""Scanner: the tasks that bring the whole library up to date behind the mount.

A queue of subtrees to walk (a branch at start or when it is added, a directory that the watcher found), one walk at a
time, then the files that wait for their identity: small ones whole, large ones their sampled id first and the full hash
with its block manifest when all sampled ids are known. Walking and hashing run in worker processes; here are only small
units, with a turn of the loop between them. Interrupted, it goes on from the rows at the next start: a directory that
was listed costs one comparison, a file that was hashed nothing.
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import trio

from index.model.change import ORIGIN_SCAN
from index.model.entry import HASH_NONE, HASH_SAMPLED, Entry, ns
from index.model.errors import NotFound, VdfsError
from index.model.inode import DEVICES
from index.scan import hasher, pipeline
from index.scan.workers import WorkerPool
from index.store import entries, metadata, places, tidy
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.tree import Tree
from vdfs.space.watch import Watch

log = logging.getLogger("sdmount.scan")

_IDENTIFY_PAGE = 256
_QUIET_S = 1.0
_UNIT_REPORTS = 64
_IDLE_POLL_S = 0.05
_TIDY_S = 3600.0
#: How often the queue of unidentified files is looked at, and how long a file must have been left alone: what is still
#: being written, or is gone in a moment (a temporary name), is not worth reading.
_IDENTIFY_POLL_S = 0.25
_SETTLED_NS = 1_000_000_000
#: Beyond this reading a file whole takes long enough that the sampled id comes first (it reads 57 KB of any file).
_SAMPLED_FIRST_BYTES = 4 << 20
#: A file of this size or more is hashed beside the others, so that they need not wait for it.
_LARGE_BYTES = 256 << 20


class Progress:
    """What the scanner is doing, for status."""

    def __init__(self) -> None:
        self.current: str | None = None
        self.dirs = 0
        self.entries = 0
        self.files_identified = 0
        self.bytes_identified = 0
        self.errors = 0


class Scanner:
    """Used on the loop only; `run()` is its life."""

    def __init__(self, tree: Tree, pool: WorkerPool, imports: Callable[[list[int]], None]) -> None:
        self.tree = tree
        self.store = tree.store
        self.pool = pool
        self.watch: Watch | None = None
        self.progress = Progress()
        self._imports = imports  # reads the real attributes of files that were just identified
        self._todo: dict[int, float] = {}  # entry id of a directory -> when to walk it
        self._again: dict[int, float] = {}  # the same, for directories that must first be quiet
        self._wake = trio.Event()
        self._busy = False
        self._identifying = False
        self._large: dict[int, None] = {}  # files that are hashed one by one, in a stream of their own
        self._retry: dict[int, tuple[int, float]] = {}  # file that changed while read -> (tries, not before)

    # asking -----------------------------------------------------------------------------------------------------------

    def request(self, entry_id: int, delay_s: float = 0.0) -> None:
        """Walk a directory and all below it, soon."""
        due = time.monotonic() + delay_s
        self._todo[entry_id] = min(due, self._todo.get(entry_id, due))
        self._wake.set()

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
        return (
            not self._todo and not self._again and not self._busy and not self._identifying and not self.pending_files()
        )

    async def wait_idle(self) -> None:
        """Return when nothing is left to walk or to identify."""
        while not self.idle:  # noqa: ASYNC110  (idleness is a fact of several tables, which nothing announces)
            await trio.sleep(_IDLE_POLL_S)

    def pending_files(self) -> int:
        return entries.count_unidentified(self.store.db)

    def pending_dirs(self) -> int:
        return len(self._todo) + len(self._again) + (1 if self._busy else 0)

    # working ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tidy_forever)
            nursery.start_soon(self._walk_forever)
            nursery.start_soon(self._identify_forever)
            nursery.start_soon(self._identify_large_forever)

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
        row = entries.get(self.store.db, entry_id)
        branch = None if row is None else self.tree.branches.get(row.branch_id)
        if row is None or branch is None or self._is_inner(branch, entry_id):
            return
        whole = row.parent_id is None
        if branch.state == MISSING and not self.tree.check(branch):
            self._end(branch, "failed", "its directory is not there") if whole else None
            return
        first = whole and next(iter(entries.children(self.store.db, entry_id)), None) is None
        state = pipeline.WalkState(branch.id, branch.uuid, self.tree, first=first)
        if whole:
            with self.store.write(ORIGIN_SCAN) as unit:
                places.set_scan_state(unit.db, branch.id, "scanning")
        path = entries.path_of(self.store.db, entry_id)
        self.progress.current = os.fsdecode(b"/".join([branch.root_path, *path]))
        args: dict[str, Any] = {
            "database": str(self.store.path),
            "root": branch.root_path,
            "root_id": [branch.fs_id, branch.root_ino],
            "start": entry_id,
            "path": path,
            "excluded": branch.for_workers(),
            "devices": DEVICES.told(),
        }
        try:
            async with self.pool.stream("scan", args) as stream:
                async for dirs, seen, reports in stream:
                    self.progress.dirs, self.progress.entries = dirs, seen
                    await self._take(state, reports)
        except VdfsError as error:
            if whole:
                self._end(branch, "failed", str(error))
            raise
        for directory in state.again:
            self.request(directory, 0.2)
        if state.failed:
            self.progress.errors += len(state.failed)
            for directory, code in state.failed[:20]:
                names = entries.path_of(self.store.db, directory)
                log.warning(
                    "%s could not be read: %s", os.fsdecode(b"/".join(names)) or "/", errno.errorcode.get(code, code)
                )
        if whole:
            branch.is_followed = not branch.slow
            self._end(branch, "done", None)

    def _is_inner(self, branch: Branch, directory: int | None) -> bool:
        """Whether a directory lies on a slow file system inside a fast branch: that is neither walked nor hashed."""
        if not branch.inner or directory is None:
            return False
        ref = self.tree.ref_of(directory)
        return ref is not None and ref.branch.outer is not None

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
                for directory, mtime_ns in listed:
                    self._cover(directory, mtime_ns)

    def _cover(self, directory: int, mtime_ns: int) -> None:
        """Watch a directory that was listed; if it changed before the watch stood, look again."""
        assert self.watch is not None
        ref = self.tree.ref_of(directory)
        if ref is None or ref.branch.slow or ref.branch.state != LIVE:
            return
        fresh = self.watch.look(ref)
        if not fresh:
            return
        try:
            if ns(os.fstat(self.tree.dirs.fd(ref)).st_mtime_ns) != mtime_ns:
                self.request(directory, 0.2)
        except (OSError, VdfsError):
            self.request(directory, 0.2)

    # identity ---------------------------------------------------------------------------------------------------------

    async def _identify_forever(self) -> None:
        while True:
            self._identifying = True
            try:
                more = await self.identify_page(HASH_NONE) or await self.identify_page(HASH_SAMPLED)
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
                self._identifying = False
            if not more:
                await trio.sleep(_IDENTIFY_POLL_S)

    async def identify_page(self, state: int) -> bool:
        """Identify the next files that wait in a state; returns whether there was a full page of them, so maybe more.

        While files come one by one (somebody unpacks an archive) they are so taken a few times a second, together.
        """
        now_s = time.monotonic()
        page: list[Entry] = []
        after = 0
        left: list[int] = []
        inner: dict[int | None, bool] = {}  # directory -> whether what lies in it is to be left
        before_ns = time.time_ns() - _SETTLED_NS
        while len(page) < _IDENTIFY_PAGE:
            rows = entries.unidentified(self.store.db, state, after, before_ns, _IDENTIFY_PAGE)
            if not rows:
                break
            after = rows[-1].id
            for row in rows:
                branch = self.tree.branches.get(row.branch_id)
                held = self._retry.get(row.id)
                if branch is None or branch.state != LIVE or (held is not None and held[1] > now_s):
                    continue
                if row.parent_id not in inner:
                    inner[row.parent_id] = self._is_inner(branch, row.parent_id)
                if inner[row.parent_id]:
                    left.append(row.id)
                    continue
                if row.size_bytes >= _LARGE_BYTES and _is_read_whole(row):
                    self._large.setdefault(row.id)
                    continue
                page.append(row)
            if left:
                with self.store.write(ORIGIN_SCAN) as unit:
                    entries.leave_unhashed(unit.db, left)
                left.clear()
                await trio.lowlevel.checkpoint()
        if not page:
            return False
        by_branch: dict[tuple[int, hasher.Mode], list[dict[str, Any]]] = {}
        above: dict[int | None, list[bytes]] = {}
        for row in page[:_IDENTIFY_PAGE]:
            if row.parent_id not in above:
                above[row.parent_id] = entries.path_of(self.store.db, row.parent_id) if row.parent_id else []
            item = {"id": row.id, "path": [*above[row.parent_id], row.name]}
            mode = hasher.Mode.FULL if _is_read_whole(row) else hasher.Mode.SAMPLED
            by_branch.setdefault((row.branch_id, mode), []).append(item)
        for (branch_id, mode), items in by_branch.items():
            await self._identify(branch_id, mode, items)
        return len(page) >= _IDENTIFY_PAGE

    async def _identify(self, branch_id: int, mode: hasher.Mode, items: list[dict[str, Any]]) -> None:
        branch = self.tree.branches.get(branch_id)
        if branch is None:
            return
        args = {
            "root": branch.root_path, "items": items, "mode": str(mode.value), "devices": DEVICES.told(),
        }  # fmt: skip
        async with self.pool.stream("identify", args) as stream:
            async for batch in stream:
                self._take_identities(list(hasher.unpack_results(batch)))
                await trio.lowlevel.checkpoint()

    async def _identify_large_forever(self) -> None:
        while True:
            await trio.sleep(_IDENTIFY_POLL_S)
            while self._large:
                entry_id = next(iter(self._large))
                row = entries.get(self.store.db, entry_id)
                try:
                    if row is not None and row.hash_state in (HASH_NONE, HASH_SAMPLED) and row.parent_id is not None:
                        path = [*entries.path_of(self.store.db, row.parent_id), row.name]
                        await self._identify(row.branch_id, hasher.Mode.FULL, [{"id": row.id, "path": path}])
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

    def _take_identities(self, results: list[tuple[int, hasher.Identity | hasher.Unidentified]]) -> None:
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
        except (OSError, VdfsError, NotFound):
            return
        else:
            node = self.tree.nodes.get(row.node)
            if node is None or not node.st_is_ours(st):
                self.tree.mend(ref, row.name, row, st)


def _is_read_whole(row: Entry) -> bool:
    """Whether the whole file is to be read now; a large one gets its sampled id first, which is quick."""
    return row.hash_state != HASH_NONE or row.size_bytes <= _SAMPLED_FIRST_BYTES or row.content_id is not None
