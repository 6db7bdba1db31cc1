"""The manager: takes jobs, runs them by priority, pauses, resumes and cancels them, and remembers how they went.

In: `submit`, and what people command. Out: rows of jobs.db, a log file a job, and news for whoever watches. One
manager a library, on the loop; `run()` is its life, and every job runs in its nursery.

Invariants
- The table says what is true also after a kill: a job is queued, running or paused there before it is so here. What a
  kill left running is queued again at the next start, and goes on from its last checkpoint.
- What a person paused stays paused, also over a restart, until a person resumes it. What was held up by something else
  goes on when that is over.
- A part goes no further than what it is a part of: it ends with it at the latest, and rests while that is paused.
- What a person asked of a job outranks all else that happens while it stops: a cancelled one ends as that.
- A job that is stopped is stopped at an `await` of its own (trio's cancellation), never inside a unit.
- A job's failure is its own: it is written down, logged when it is a bug, and ends nothing else.
- Of one lane so many jobs run at once as it is wide, the rest side by side. A job that waits for its parts has none.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from index.model.errors import Invalid, NoSpace, NotFound, VdfsError
from vdfs.jobs.context import JobContext, Kind, Run
from vdfs.jobs.job import BY_PARENT, BY_USER, ENDED, NO_SPACE, Job, Priority, Status
from vdfs.jobs.joblog import JobLogs
from vdfs.jobs.meter import Meter
from vdfs.jobs.table import JobTable

log = logging.getLogger("sdmount.jobs")

#: Progress is told at most so often, and written down at most so often.
NEWS_S = 0.1
SAVE_S = 2.0
#: How often it is tried whether a job that waits for something may go on.
RETRY_S = 1.0


#: What a run comes to: a status, and who paused it or why it failed.
_End = tuple[Status, str | None]


class JobManager:
    """The jobs of one library. Used on the loop only."""

    def __init__(self, directory: Path, kinds: Iterable[Kind] = ()) -> None:
        self.table = JobTable(directory / "jobs.db")
        self.logs = JobLogs(directory / "job_logs")
        self._kinds: dict[str, Kind] = {}
        self._runs: dict[int, Run] = {}
        self._held: set[str] = set()  # reasons for which nothing works now
        self._wake = trio.Event()
        self._news = trio.Event()
        self._told = 0  # grows with every change of a status or a phase
        self._dirty = trio.Event()  # counts moved since somebody was told
        self.may_go_on: dict[str, Callable[[], bool]] = {}  # reason -> whether it is over
        for kind in kinds:
            self.learn(kind)

    def learn(self, kind: Kind) -> None:
        self._kinds[kind.name] = kind

    def close(self) -> None:
        self.table.close()

    # asking and commanding --------------------------------------------------------------------------------------------

    def submit(self, kind: str, title: str, key: str, args: Mapping[str, Any], priority: int = Priority.NORMAL) -> Job:
        """A new job; or the one of the same key that waits already, with these arguments now. One that has begun
        is done once more after its end."""
        live = self.table.live_of_key(key)
        if live is None:
            return self.add(kind, title, key, args, priority, None)
        if live.status is Status.QUEUED and not live.runs:
            self.table.set_args(live.id, args)
        else:
            self.table.ask_again(live.id, args)
        return self.get(live.id)

    def add(
        self, kind: str, title: str, key: str, args: Mapping[str, Any], priority: int, parent_id: int | None
    ) -> Job:
        job = self.table.add(kind, title, key, args, priority, parent_id)
        self.logs.write(job.id, f"queued: {title}")
        self._changed()
        return job

    def get(self, job_id: int) -> Job:
        job = self.table.get(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id}; `sd job list` shows those that are")
        return self.now(job)

    def now(self, job: Job) -> Job:
        """A row with how far the job is just now, if it runs."""
        run = self._runs.get(job.id)
        return job if run is None else job._replace(progress=run.meter.snapshot())

    def pause(self, job_id: int, by: str = BY_USER) -> Job:
        """Hold a job and its parts up. Nothing changes for one that is paused; Invalid for one that has ended."""
        job = self.get(job_id)
        if job.ended:
            raise Invalid(f"job {job_id} is {job.status}; only one that has not ended can be paused")
        if job.status is Status.PAUSED and by != BY_USER:
            return job
        self._stop(job, Status.PAUSED, by)
        self._rest_parts(job_id)
        return self.get(job_id)

    def _rest_parts(self, job_id: int) -> None:
        """The parts of a job that is paused are, too."""
        for child in self.table.children(job_id):
            is_resting = child.status is Status.PAUSED and child.paused_by in (BY_USER, BY_PARENT)
            if not child.ended and not is_resting:
                self._stop(child, Status.PAUSED, BY_PARENT)

    def _end_parts(self, job_id: int) -> None:
        """The parts of a job that ends do not go on without it."""
        for child in self.table.children(job_id):
            if not child.ended:
                self._stop(child, Status.CANCELLED, None)

    def resume(self, job_id: int) -> Job:
        """Let a paused job and its parts go on. Nothing changes for one that goes on already."""
        job = self.get(job_id)
        if job.ended:
            raise Invalid(f"job {job_id} is {job.status}; it cannot go on")
        above = None if job.parent_id is None else self.get(job.parent_id)
        if above is not None and above.status is Status.PAUSED:
            raise Invalid(f"job {job_id} is a part of job {above.id}, which is paused; resume that one")
        run = self._runs.get(job_id)
        if run is not None and run.why is not None and run.why[0] is Status.PAUSED:
            run.why = (Status.QUEUED, None)  # it has not stopped yet
        if job.status is Status.PAUSED:
            self._set(job, Status.QUEUED, "resumed")
        for child in self.table.children(job_id):
            run = self._runs.get(child.id)
            is_stopping = run is not None and run.why == (Status.PAUSED, BY_PARENT)
            if is_stopping or (child.status is Status.PAUSED and child.paused_by == BY_PARENT):
                self.resume(child.id)
        return self.get(job_id)

    def cancel(self, job_id: int) -> Job:
        """End a job and its parts where they are. Nothing changes for one that has ended."""
        job = self.get(job_id)
        if not job.ended:
            self.table.ask_again(job_id, None)
            self._end_parts(job_id)
            self._stop(job, Status.CANCELLED, None)
        return self.get(job_id)

    def hold(self, reason: str) -> None:
        """Pause what works, for a reason that is not a person's; `release` ends it."""
        if reason in self._held:
            return
        log.info("jobs wait: %s", reason)
        self._held.add(reason)
        for run in list(self._runs.values()):
            job = self.table.get(run.job_id)
            if run.kind.lane is not None and job is not None and not job.ended:
                self._stop(job, Status.PAUSED, reason)

    def release(self, reason: str) -> None:
        if reason not in self._held:
            return
        self._held.discard(reason)
        self._wake.set()
        for job in self.table.live():
            if job.status is Status.PAUSED and job.paused_by == reason:
                self._set(job, Status.QUEUED, f"goes on: {reason} is over")

    async def part_of(self, job: Job, kind: str, title: str, args: Mapping[str, Any]) -> Job:
        """The part of a job that a kind is, ended; made now unless an earlier run did."""
        await trio.lowlevel.checkpoint()  # one that is being stopped begins nothing more
        found = next((child for child in self.table.children(job.id) if child.kind == kind), None)
        if found is None:
            found = self.add(kind, title, job.key, args, job.priority, job.id)
        found = await self.wait(found.id)
        await trio.lowlevel.checkpoint()  # a part that was stopped with it is no part that ended
        return found

    @property
    def held_by(self) -> str | None:
        """For which reason nothing is to work, None when it may."""
        return min(self._held, default=None)

    async def wait(self, job_id: int) -> Job:
        """The job when it has ended."""
        while not (job := self.get(job_id)).ended:
            await self._news.wait()
        return job

    async def stopped(self, job_id: int, timeout_s: float) -> Job:
        """The job once what runs of it and of its parts has stopped, or after a while as it is then."""
        family = {job_id, *(child.id for child in self.table.children(job_id))}
        with trio.move_on_after(timeout_s):
            while not family.isdisjoint(self._runs):
                await self._news.wait()
        return self.get(job_id)

    async def news(self, told: int, timeout_s: float) -> int:
        """Return a number that differs from `told` once there is something new, or after a while the same. Changes of a
        status or a phase are told at once, counts at most ten times a second."""
        with trio.move_on_after(timeout_s):
            while self._told == told:
                await self._news.wait()
        return self._told

    @property
    def told(self) -> int:
        return self._told

    def has_key(self, key: str) -> bool:
        """Whether a job of a key has not ended."""
        return self.table.live_of_key(key) is not None

    def rests(self) -> bool:
        """Whether nothing works or waits to, beside what is held up and who waits for that."""
        live = self.table.live()
        waiting = {job.parent_id for job in live if job.status is Status.PAUSED}
        return not any(job.status in (Status.QUEUED, Status.RUNNING) and job.id not in waiting for job in live)

    def paused(self) -> int:
        """How many jobs are held up."""
        return sum(job.status is Status.PAUSED for job in self.table.live())

    # running ----------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run jobs until cancelled. Those that run then are queued, for the next start."""
        self._take_up()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_forever)
            nursery.start_soon(self._retry_forever)
            task_status.started()
            while True:
                for job, kind in self._ready():
                    run = self._begin(job, kind)
                    nursery.start_soon(self._drive, job, run)
                self._wake = trio.Event()
                await self._wake.wait()

    def _take_up(self) -> None:
        """At the start: what a kill left running goes on, and so does what waited for something."""
        for job in sorted(self.table.live(), key=lambda job: job.parent_id is not None):  # a part after what it is of
            above = None if job.parent_id is None else self.table.get(job.parent_id)
            if above is not None and above.ended:
                self._set(job, Status.CANCELLED, "what it was a part of has ended")
            elif above is not None and above.status is Status.PAUSED:
                if job.status is not Status.PAUSED or job.paused_by != BY_USER:
                    self._set(job, Status.PAUSED, "what it is a part of is paused", BY_PARENT)
            elif job.status is Status.RUNNING:
                self.logs.write(job.id, "the process ended while it ran: it goes on from its last checkpoint")
                self.table.set_status(job.id, Status.QUEUED)
            elif job.status is Status.PAUSED and job.paused_by != BY_USER:
                self._set(job, Status.QUEUED, f"goes on: {job.paused_by} is looked at again")
        self._prune()

    def _prune(self) -> None:
        for job_id in self.table.prune():
            self.logs.remove(job_id)

    def _ready(self) -> list[tuple[Job, Kind]]:
        """Jobs that may begin now, each with its kind; no more of a lane than it is wide."""
        taken = Counter(run.kind.lane for run in self._runs.values())
        ready = []
        for job in self.table.live():
            kind = self._kinds.get(job.kind)
            if kind is None or job.id in self._runs or job.status is not Status.QUEUED:
                continue
            if kind.lane is not None and (taken[kind.lane] >= kind.width or self._held):
                continue
            taken[kind.lane] += 1
            ready.append((job, kind))
        return ready

    def _begin(self, job: Job, kind: Kind) -> Run:
        run = Run(job.id, kind, trio.CancelScope(), Meter(partial(self._counted, job.id)), time.monotonic_ns())
        self._runs[job.id] = run
        self.table.begin(job.id)
        self.logs.write(job.id, "goes on" if job.runs else "begins")
        self._changed()
        return run

    async def _drive(self, job: Job, run: Run) -> None:
        """One run of a job, from its beginning to whatever ends it."""
        end: _End | None = None
        result: Mapping[str, Any] | None = None
        try:
            with run.scope:
                result = await run.kind.run(JobContext(self, job, run, self._state_of(job, run.kind)))
                end = (Status.COMPLETED, None)
        except NoSpace as error:
            self.note(job.id, "warning", str(error))
            end = (Status.PAUSED, NO_SPACE)
        except VdfsError as error:
            end = (Status.FAILED, str(error))
        except Exception as error:
            log.exception("job %d (%s) failed", job.id, job.title)
            end = (Status.FAILED, f"unexpected {type(error).__name__}: {error}; the log of the mount says more")
        finally:
            self._end(job, run, self._outcome(job, run, end), result)

    def _outcome(self, job: Job, run: Run, end: _End | None) -> _End:
        """What becomes of a job: what it was stopped for goes before what went wrong while it stopped."""
        if end is None:
            return run.why or (Status.QUEUED, None)
        if end[0] is Status.COMPLETED or run.why is None or run.why[0] is Status.QUEUED:
            return end
        if end[0] is Status.FAILED:
            self.note(job.id, "warning", f"while it stopped: {end[1]}")
        return run.why

    def _state_of(self, job: Job, kind: Kind) -> Mapping[str, Any] | None:
        try:
            found = self.table.state(job.id)
        except ValueError as error:
            self.note(job.id, "warning", f"its checkpoint cannot be read ({error}): it begins anew")
            return None
        if found is None:
            return None
        version, state = found
        if version != kind.version:
            self.note(job.id, "warning", f"its checkpoint is of version {version}, not {kind.version}: it begins anew")
            return None
        return state

    def _end(self, job: Job, run: Run, end: _End, result: Mapping[str, Any] | None) -> None:
        status, why = end
        del self._runs[job.id]
        self.table.worked(job.id, time.monotonic_ns() - run.began_ns)
        self.table.set_progress(job.id, run.meter.snapshot())
        if result is not None:
            self.table.set_result(job.id, result)
        text = "stopped, to go on later" if status is Status.QUEUED else _told(status, why)
        self._set(self.get(job.id), status, text, why)
        if status is Status.PAUSED and why == BY_USER:
            self._rest_parts(job.id)
        if status in ENDED:
            self._end_parts(job.id)
            again = self.table.asked_again(job.id)
            if again is not None and status is not Status.CANCELLED:
                self.add(job.kind, job.title, job.key, again, job.priority, job.parent_id)
            if job.parent_id is None:
                self._prune()

    def _stop(self, job: Job, status: Status, why: str | None) -> None:
        """See that a job becomes paused or cancelled: now, or when what runs of it has stopped."""
        run = self._runs.get(job.id)
        if run is None:
            self._set(job, status, _told(status, why), why)
            return
        if run.why is None or _rank((status, why)) >= _rank(run.why):
            run.why = (status, why)
        run.scope.cancel()

    def _set(self, job: Job, status: Status, text: str, why: str | None = None) -> None:
        columns: dict[str, str | int | None] = {"paused_by": why if status is Status.PAUSED else None}
        if status is Status.FAILED:
            columns["error"] = why
        if status in ENDED:
            columns["ended_ns"] = time.time_ns()
        self.table.set_status(job.id, status, **columns)
        self.logs.write(job.id, text)
        self._changed()

    def save_state(self, job_id: int, version: int, state: Mapping[str, Any]) -> None:
        self.table.set_state(job_id, version, state)

    def write_log(self, job_id: int, text: str) -> None:
        self.logs.write(job_id, text)

    def note(self, job_id: int, level: str, text: str) -> None:
        self.table.note(job_id, level, text)
        self.logs.write(job_id, f"{level}: {text}")

    # news -------------------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        """A status or a phase is another one: told at once."""
        self._wake.set()
        self._tell()

    def _tell(self) -> None:
        """There is something new, for whoever waits for that."""
        self._told += 1
        news, self._news = self._news, trio.Event()
        news.set()

    def _counted(self, job_id: int, is_phase: bool) -> None:
        run = self._runs.get(job_id)
        if run is None:
            return
        run.is_unsaved = True
        if is_phase:
            self.table.set_progress(job_id, run.meter.snapshot())
            self.logs.write(job_id, f"phase: {run.meter.phase_name}")
            self._changed()
        else:
            self._dirty.set()

    async def _tell_forever(self) -> None:
        """Tell who watches of counts that moved, and write them down now and then."""
        saved_s = time.monotonic()
        while True:
            with trio.move_on_after(SAVE_S if any(run.is_unsaved for run in self._runs.values()) else math.inf):
                await self._dirty.wait()
            await trio.sleep(NEWS_S)
            if self._dirty.is_set():
                self._dirty = trio.Event()
                self._tell()
            if time.monotonic() - saved_s >= SAVE_S:
                saved_s = time.monotonic()
                for run in self._runs.values():
                    if run.is_unsaved:
                        run.is_unsaved = False
                        self.table.set_progress(run.job_id, run.meter.snapshot())

    async def _retry_forever(self) -> None:
        """What waits for something goes on when that is over."""
        while True:
            await trio.sleep(RETRY_S)
            self.table.go_back()
            for job in self.table.live():
                over = self.may_go_on.get(job.paused_by or "")
                if job.status is Status.PAUSED and over is not None and over():
                    self._set(job, Status.QUEUED, f"goes on: {job.paused_by} is over")


def _rank(why: _End) -> int:
    """Which of two reasons to stop a job counts."""
    status, by = why
    if status is Status.PAUSED:
        return {BY_USER: 3, BY_PARENT: 2}.get(by or "", 1)
    return 4 if status is Status.CANCELLED else 0


def _told(status: Status, why: str | None) -> str:
    return str(status) if why is None else f"{status}: {why}"
