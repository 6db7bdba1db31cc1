"""Indexing: the jobs that bring a branch up to date, from its names to what is in its files, in phases.

    index ─┬─ discover   which files there are, by the disk             (scanner.py)
           ├─ classify   what they are: identity and type by the bytes  (identifier.py; not of shallow locations)
           ├─ extract    what is in them: fields of images, sounds, text (media.py; of deep locations)
           ├─ thumbnail  small pictures of images                       (media.py; of deep locations)
           └─ cleanup    what is of no use any more leaves the disk

A job `index` is about one branch and waits for its phases, which are jobs of their own, one after the other. Each
goes on where it was stopped: discovering from the directories that were left, and the rows say which of these were
listed already; the others from what has no identity, fields or pictures yet. What happened behind the mount while
nothing ran is found by the job that every start asks for, after one that was interrupted has come to its end.
"""

import contextlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import apsw
import trio

from index.media import pipeline, sidecars
from index.model.change import ORIGIN_SCAN
from index.model.errors import NoSpace, NotFound, Unreachable, VdfsError
from index.store import entries, places, tidy
from vdfs.indexing.media import Done, Media
from vdfs.indexing.scanner import Scanner
from vdfs.jobs.context import JobContext, Kind
from vdfs.jobs.job import NO_SPACE, Job, Status
from vdfs.jobs.manager import JobManager
from vdfs.space.branches import LIVE, MISSING, Branch

T = TypeVar("T")
log = logging.getLogger("sdmount.index")

_TIDY_S = 3600.0
#: How soon a branch is looked through again of which not every directory has a watch, and how many times as long it
#: rests as that took.
UNWATCHED_S = 60.0
_UNWATCHED_REST = 20
_UNWATCHED_POLL_S = 1.0
_NEW_POLL_S = 1.0
#: Looking for what came goes through all contents that are not older: so many times as long it rests.
_NEW_REST = 10.0
_IDLE_POLL_S = 0.05
#: What a walk could not read is told one by one up to so many.
_TOLD_MAX = 50
#: How often a walk that failed and came no further is begun again, and how soon; and how often one that failed again
#: and again where it was, though it always listed something.
_TRIES = 3
_TRIES_THERE = 20
_TRY_S = 5.0
#: So much is free again before what found no room goes on.
_ROOM_BYTES = 256 << 10
#: Rows that are looked at in one unit when files are queued again.
_QUEUE_ROWS = 20_000


class Indexing:
    """Used on the loop only."""

    def __init__(self, scanner: Scanner, media: Media, jobs: JobManager, rescan_s: float = UNWATCHED_S) -> None:
        self.media = media
        self.rescan_s = rescan_s
        self.scanner = scanner
        self.tree = scanner.tree
        self.store = scanner.store
        self.identifier = scanner.identifier
        self.jobs = jobs
        self._came: dict[int, int] = {}  # deep branch -> the lowest of the contents that files of it turned out to have
        self._looking = False
        self._took_s: dict[int, float] = {}  # branch -> how long it took to look through it,
        self._ended_s: dict[int, float] = {}  # and when that was
        #: Whether somebody else has not taken in yet what was found.
        self.is_more_owed: Callable[[], bool] = lambda: False
        scanner.ask_branch = self.ask
        self.identifier.is_claimed = self.is_claimed
        self.identifier.identified = self.note_contents
        self.identifier.is_held = lambda: jobs.held_by is not None
        jobs.may_go_on[NO_SPACE] = self._has_room
        for kind in (
            Kind("index", self._index),
            Kind("discover", self._discover, lane="walk", width=2),
            Kind("classify", self._classify, lane="read", width=2),
            Kind("extract", partial(self._look_into, media.extract, pipeline.count_fields), lane="media"),
            Kind("thumbnail", partial(self._look_into, media.thumbnail, pipeline.count_thumbnails), lane="media"),
            Kind("cleanup", self._cleanup, lane="tidy"),
        ):
            jobs.learn(kind)

    # asking -----------------------------------------------------------------------------------------------------------

    def ask(self, branch: Branch, *, requeue: bool = False) -> Job:
        """Have a branch brought up to date, soon; `requeue`: also the files that nobody was to read until now."""
        name = "the store" if branch.location is None else branch.location.decode("utf-8", "backslashreplace")
        label = f" ({branch.label})" if len(self.tree.of_location(branch.location or b"")) > 1 else ""
        args = {"branch": branch.uuid, "requeue": requeue or self._is_requeue_owed(branch)}
        return self.jobs.submit("index", f"index {name}{label}", _key(branch), args)

    def _is_requeue_owed(self, branch: Branch) -> bool:
        """Whether somebody asked for that already, and it waits to be done."""
        live = self.jobs.table.live_of_key(_key(branch))
        if live is None:
            return False
        waiting = live.args if live.status is Status.QUEUED and not live.runs else self.jobs.table.asked_again(live.id)
        return bool(waiting and waiting.get("requeue"))

    def forget(self, branch: Branch) -> None:
        """A branch goes: nobody needs to know more of it."""
        live = self.jobs.table.live_of_key(_key(branch))
        if live is not None:
            self.jobs.cancel(live.id)

    def is_claimed(self, branch_id: int) -> bool:
        """Whether the files of a branch are to be read by a job and by nobody else."""
        branch = self.tree.branches.get(branch_id)
        return branch is not None and self.jobs.has_key(_key(branch))

    @property
    def idle(self) -> bool:
        """Whether nothing is left to be done."""
        if self._looking or self._to_look_into() or self.is_more_owed():
            return False
        return self.jobs.rests() and not self.jobs.paused() and self.scanner.idle and self.identifier.idle

    @property
    def active(self) -> bool:
        """Whether anything goes on or is about to, beside what is held up."""
        return not (self.jobs.rests() and self.scanner.idle)

    def _has_room(self) -> bool:
        """Whether the library's disk takes rows again, and thumbnails."""
        try:
            there = os.statvfs(self.media.sidecars_dir)
        except OSError:
            return False
        return not self.store.is_full and there.f_bavail * there.f_frsize >= _ROOM_BYTES

    async def wait_idle(self) -> None:
        while not self.idle:  # noqa: ASYNC110  (idleness is a fact of several tables, which nothing announces)
            await trio.sleep(_IDLE_POLL_S)

    async def run(self) -> None:
        """What nobody asks for: see the three."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tidy)
            nursery.start_soon(self._look_where_no_watch_is)
            nursery.start_soon(self._look_into_what_comes)

    async def _tidy(self) -> None:
        """Now and then what is of no use any more is removed, also from a library that nobody indexes."""
        while True:
            await trio.sleep(_TIDY_S)
            self.jobs.submit("cleanup", "clean up", "cleanup", {})

    def note_contents(self, entry_ids: list[int]) -> None:
        """Files were identified, or are held by no rule any more: those of deep locations are to be looked into. Their
        contents may be old."""
        deep = {branch.id for branch in self.tree.branches.values() if branch.mode >= places.MODE_DEEP}
        for row in [entries.get(self.store.db, entry_id) for entry_id in entry_ids] if deep else ():
            if row is not None and row.branch_id in deep and row.content_id is not None:
                self._came[row.branch_id] = min(row.content_id, self._came.get(row.branch_id, row.content_id))

    def _to_look_into(self) -> list[Branch]:
        """Deep branches that no job goes through, with files that were identified since they were looked into."""
        found = [self.tree.branches[branch_id] for branch_id in self._came if branch_id in self.tree.branches]
        return [one for one in found if one.state == LIVE and not self.is_claimed(one.id)]

    async def _look_into_what_comes(self) -> None:
        """What was identified in a deep location that no job goes through; the longer it takes to find what of that is
        to be decoded, the longer the rest."""
        while True:
            before_s = self.media.looked_s
            for branch in self._to_look_into() if self.jobs.held_by is None else ():
                first = self._came.pop(branch.id)
                if branch.mode >= places.MODE_DEEP:
                    self._looking = True
                    try:
                        await self.media.read_new(branch, first - 1)
                    finally:
                        self._looking = False
            await trio.sleep(max(_NEW_POLL_S, _NEW_REST * (self.media.looked_s - before_s)))

    async def _look_where_no_watch_is(self) -> None:
        """While the system allows too few watches, branches are looked through again and again: a while after the last
        time, and the longer the longer that took."""
        watch = self.scanner.watch
        while watch is not None:
            await trio.sleep(_UNWATCHED_POLL_S)
            if not watch.lacks_room or self.active:
                continue
            for branch in self.tree.branches.values():
                if branch.state == LIVE and not branch.slow and not self.is_claimed(branch.id):
                    rest_s = max(self.rescan_s, _UNWATCHED_REST * self._took_s.get(branch.id, 0.0))
                    if time.monotonic() - self._ended_s.get(branch.id, -math.inf) >= rest_s:
                        self.ask(branch)

    # the jobs ---------------------------------------------------------------------------------------------------------

    async def _index(self, ctx: JobContext) -> Mapping[str, Any]:
        result: dict[str, Any] = {}
        failed = []
        for kind in self._phases(self._branch(ctx)):
            ctx.meter.phase(kind)
            part = await ctx.part(kind, f"{kind} {ctx.job.title.removeprefix('index ')}", ctx.args)
            result[kind] = {**part.result, "took_s": round(part.worked_ns / 1e9, 3)}
            if part.status is Status.FAILED:
                failed.append(f"{kind}: {part.error}")
            elif part.status is Status.CANCELLED:
                ctx.warn(f"{kind} was cancelled")
            if kind == "discover" and part.status is not Status.COMPLETED:
                break
        if failed:
            raise VdfsError("; ".join(failed))
        return result

    def _phases(self, branch: Branch) -> list[str]:
        content = ["classify"] if branch.mode >= places.MODE_CONTENT else []
        deep = ["extract", "thumbnail"] if branch.mode >= places.MODE_DEEP else []
        return ["discover", *content, *deep, "cleanup"]

    async def _discover(self, ctx: JobContext) -> Mapping[str, Any]:
        """Checkpoint: since_ns, left (directories), dirs and entries (seen so far), total (expected entries)."""
        branch = self._branch(ctx)
        began_s = time.monotonic()
        known = self.store.sums_below([branch.root_entry_id])
        begun = {"since_ns": time.time_ns(), "total": known.rfiles + known.rdirs, "dirs": 0, "entries": 0}
        state: dict[str, Any] = {**begun, **(ctx.state or {})}
        ctx.meter.phase("discover", state["total"] or None, done=state["entries"])
        self._set_state(branch, "scanning")
        progress = self.scanner.progress
        progress.current = os.fsdecode(branch.root_path)
        progress.dirs, progress.entries = state["dirs"], state["entries"]

        def seen(dirs: int, names: int) -> None:
            state["dirs"] += dirs
            state["entries"] += names
            ctx.meter.add(names)
            ctx.checkpoint(state)

        def left_is(directories: list[int]) -> None:
            state["left"] = directories
            ctx.checkpoint(state)

        tries, there, seen_until, left = 0, 0, state["dirs"], state.get("left")
        try:
            while True:
                starts = state.get("left") or [branch.root_entry_id]
                since_ns = state["since_ns"] if "left" in state else None
                if "left" not in state:
                    left_is(starts)
                try:
                    unread = await self.scanner.walk_branch(branch, starts, since_ns, left_is, seen)
                    break
                except (Unreachable, NoSpace):
                    raise
                except VdfsError as error:
                    tries = tries + 1 if state["dirs"] == seen_until else 1
                    there = there + 1 if state["left"] == left else 1
                    seen_until, left = state["dirs"], state["left"]
                    if tries >= _TRIES or there >= _TRIES_THERE:
                        raise
                    ctx.warn(f"{error}; it is tried again")
                    await trio.sleep(_TRY_S)
        except VdfsError as error:
            if not isinstance(error, NoSpace):
                self._set_state(branch, "failed", str(error))
            raise
        except trio.Cancelled:
            if ctx.is_cancelled:
                with contextlib.suppress(VdfsError):  # a full disk, say: it is cancelled all the same
                    self._set_state(branch, "failed", "the scan was cancelled")
            raise
        finally:
            progress.current = None
            self._ended_s[branch.id] = time.monotonic()
            self._took_s[branch.id] = time.monotonic() - began_s
        for text in unread[:_TOLD_MAX]:
            ctx.error(text)
            log.warning("%s", text)
        watch = self.scanner.watch
        is_covered = watch is None or not watch.will_cover(branch.root_entry_id)
        branch.is_followed = branch.is_followed or (not branch.slow and is_covered)
        self._set_state(branch, "done")
        return {"dirs": state["dirs"], "entries": state["entries"], "unreadable": len(unread)}

    async def _classify(self, ctx: JobContext) -> Mapping[str, Any]:
        """Needs no checkpoint but of its counts: what is done has its identity."""
        branch = self._branch(ctx)
        begun = {"files": 0, "bytes": 0, "failed": 0, "queued": not ctx.args.get("requeue")}
        state: dict[str, Any] = {**begun, **(ctx.state or {})}
        if not state["queued"]:
            ctx.meter.phase("queue")
            await self._queue_left(branch)
            state["queued"] = True
            ctx.checkpoint(state)
        files, size_bytes = await trio.to_thread.run_sync(self._reading, entries.unidentified_in, branch.id)
        total, total_bytes = state["files"] + files, state["bytes"] + size_bytes
        ctx.meter.phase("classify", total, total_bytes, done=state["files"], bytes_done=state["bytes"])

        def done(count: int, count_bytes: int, given_up: list[tuple[str, str]]) -> None:
            state["files"] += count
            state["bytes"] += count_bytes
            ctx.meter.add(count + len(given_up), count_bytes)
            for path, reason in given_up:
                state["failed"] += 1
                if state["failed"] <= _TOLD_MAX:
                    ctx.error(f"{path}: {reason}")
            ctx.checkpoint(state)

        await self.identifier.identify_all(branch, done)
        if state["failed"] > _TOLD_MAX:
            ctx.error(f"{state['failed'] - _TOLD_MAX} more files could not be read")
        return {"files": state["files"], "bytes": state["bytes"], "failed": state["failed"]}

    def _reading(self, read: Callable[[apsw.Connection, int], T], branch_id: int) -> T:
        """What is read of a branch on a connection of its own, in a thread."""
        with self.store.reader() as db:
            return read(db, branch_id)

    async def _queue_left(self, branch: Branch) -> None:
        if not await trio.to_thread.run_sync(self._reading, entries.has_left, branch.id):
            return
        last = self.store.last_entry_id
        for first in range(0, last + 1, _QUEUE_ROWS):
            with self.store.write(ORIGIN_SCAN) as unit:
                entries.queue_left(unit.db, branch.id, first, first + _QUEUE_ROWS)
            await trio.lowlevel.checkpoint()

    async def _look_into(
        self,
        look: Callable[[Branch, int, Done, Callable[[int], None]], Awaitable[None]],
        count: Callable[[apsw.Connection, int], int],
        ctx: JobContext,
    ) -> Mapping[str, Any]:
        """Fields, or thumbnails. Checkpoint: after (the content it has come to), done, failed. Two passes: what the
        first finds the type of, the second may be able to read."""
        branch = self._branch(ctx)
        state: dict[str, Any] = {"after": 0, "pass": 0, "done": 0, "failed": 0, **(ctx.state or {})}
        waiting = await trio.to_thread.run_sync(self._reading, count, branch.id)
        ctx.meter.phase(ctx.job.kind, state["done"] + waiting, done=state["done"])

        def done(looked_at: int, read: int, failed: list[tuple[str, str]]) -> None:
            state["done"] += read
            state["failed"] += len(failed)
            ctx.meter.add(looked_at)
            for path, reason in failed:
                ctx.error(f"{path}: {reason}")
            ctx.checkpoint(state)

        def at(content_id: int) -> None:
            state["after"] = content_id
            ctx.checkpoint(state)

        while state["pass"] < 2:
            await look(branch, state["after"], done, at)
            state |= {"pass": state["pass"] + 1, "after": 0}
            ctx.checkpoint(state)
        return {"files": state["done"], "failed": state["failed"]}

    async def _cleanup(self, ctx: JobContext) -> Mapping[str, Any]:
        """Rounds of finding in a thread and removing in a unit; one that is interrupted is a round less."""

        def find(now_ns: int) -> tidy.Strays:
            with self.store.reader() as db:
                return tidy.find(db, now_ns)

        ctx.meter.phase("cleanup")
        now_ns = time.time_ns()
        removed = 0
        while strays := await trio.to_thread.run_sync(find, now_ns, abandon_on_cancel=True):
            with self.store.write(ORIGIN_SCAN) as unit:
                tidy.drop(unit.db, strays, now_ns)
            count = len(strays.limbo) + len(strays.contents) + len(strays.mirrors)
            removed += count
            ctx.meter.add(count)
            await trio.sleep(0.1)
        removed += await self._tidy_sidecars()
        return {"removed": removed}

    async def _tidy_sidecars(self) -> int:
        """Rows without their file are made anew another time, files without a row go; returns how many these were."""

        def look_over() -> sidecars.Disagreements:
            with self.store.reader() as db:
                return sidecars.look_over(db, self.media.sidecars_dir)

        found = await trio.to_thread.run_sync(look_over, abandon_on_cancel=True)
        if not found.rows and not found.files:
            return 0
        with self.store.write(ORIGIN_SCAN) as unit:
            sidecars.forget(unit.db, found)
        await trio.to_thread.run_sync(sidecars.remove, found, self.media.sidecars_dir)
        return len(found.files)

    # ------------------------------------------------------------------------------------------------------------------

    def _branch(self, ctx: JobContext) -> Branch:
        found = next((b for b in self.tree.branches.values() if b.uuid == ctx.args.get("branch")), None)
        if found is None:
            raise NotFound("its location was removed")
        if found.state == MISSING and not self.tree.check(found):
            raise Unreachable(f"{os.fsdecode(found.root_path)} is not there; it is looked through when it is back")
        return found

    def _set_state(self, branch: Branch, state: str, error: str | None = None) -> None:
        with self.store.write(ORIGIN_SCAN) as unit:
            places.set_scan_state(unit.db, branch.id, state, error, time.time_ns() if state == "done" else None)


def _key(branch: Branch) -> str:
    """What the job of a branch is about."""
    return f"index:{branch.uuid.hex()}"
