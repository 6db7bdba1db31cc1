"""job.*: long work, listed, watched and commanded."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from vdfs.jobs.job import Job
from vdfs.ops.context import Core
from vdfs.ops.registry import action, doc, query

_LIMIT_MAX = 1000
_WAIT_MAX_S = 30.0
#: So long who pauses or cancels a job waits until it has stopped.
_STOP_S = 2.0


@attrs.frozen
class JobFacts:
    id: int
    kind: str
    title: str
    status: str = attrs.field(metadata=doc("queued, running, paused, completed, failed, cancelled"))
    paused_by: str | None = attrs.field(metadata=doc("user, parent, or what it waits for"))
    error: str | None
    priority: int
    parent: int | None
    phase: str
    done: int
    total: int | None
    bytes_done: int
    bytes_total: int | None
    current: str | None
    rate: float = attrs.field(metadata=doc("things a second, of the last seconds"))
    bytes_rate: float
    eta_s: float | None
    warnings: int
    errors: int
    runs: int = attrs.field(metadata=doc("how often it was begun or gone on with"))
    created_ns: int
    started_ns: int | None
    ended_ns: int | None
    worked_s: float = attrs.field(metadata=doc("of all runs that have ended"))


@attrs.frozen
class JobListAsked:
    limit: int = attrs.field(default=50, metadata=doc("at most so many, those that have not ended first"))


@attrs.frozen
class JobWithParts:
    job: JobFacts
    parts: list[JobFacts]


@attrs.frozen
class JobList:
    jobs: list[JobWithParts]
    told: int = attrs.field(metadata=doc("for job.watch: what is new since this answer"))


@attrs.frozen
class JobAsked:
    id: int


@attrs.frozen
class JobShowAsked:
    id: int
    lines: int = attrs.field(default=50, metadata=doc("of its log, the last"))


@attrs.frozen
class JobNote:
    at_ns: int
    level: str
    text: str


@attrs.frozen
class JobStory:
    job: JobFacts
    parts: list[JobFacts]
    result: str = attrs.field(metadata=doc("what it says it did, as a JSON object"))
    notes: list[JobNote] = attrs.field(metadata=doc("warnings and errors that did not end it, the first hundred"))
    log: list[str]


@attrs.frozen
class JobWatchAsked:
    told: int = attrs.field(default=-1, metadata=doc("of the last answer; -1 to be answered at once"))
    timeout_s: float = attrs.field(default=10.0, metadata=doc("answer after so long when nothing is new"))
    limit: int = 20


@query("job.list")
async def list_jobs(core: Core, asked: JobListAsked) -> JobList:
    """Jobs with their parts: those that have not ended, then the last that have."""
    return _list(core, asked.limit)


@query("job.watch")
async def watch_jobs(core: Core, asked: JobWatchAsked) -> JobList:
    """The same list once something is new: a status or a phase at once, counts at most ten times a second."""
    await core.jobs.news(asked.told, max(0.0, min(asked.timeout_s, _WAIT_MAX_S)))
    return _list(core, asked.limit)


@query("job.show")
async def show_job(core: Core, asked: JobShowAsked) -> JobStory:
    """One job: its parts, what it did, what it complained of, its log."""
    job = core.jobs.get(asked.id)
    notes = [JobNote(*note) for note in core.jobs.table.notes(job.id)]
    log = core.jobs.logs.read(job.id, min(asked.lines, 10_000))
    return JobStory(facts(job), _parts(core, job), json.dumps(_plain(job.result)), notes, log)


@action("job.pause")
async def pause_job(core: Core, asked: JobAsked) -> JobFacts:
    """Hold a job and its parts up, also over a restart, until somebody lets it go on."""
    return await _stopped(core, core.jobs.pause(asked.id))


@action("job.resume")
async def resume_job(core: Core, asked: JobAsked) -> JobFacts:
    """Let a paused job go on from its last checkpoint."""
    return facts(core.jobs.resume(asked.id))


@action("job.cancel")
async def cancel_job(core: Core, asked: JobAsked) -> JobFacts:
    """End a job where it is; what it did stays."""
    return await _stopped(core, core.jobs.cancel(asked.id))


async def _stopped(core: Core, job: Job) -> JobFacts:
    return facts(await core.jobs.stopped(job.id, _STOP_S))


def snapshot(core: Core) -> dict[str, object]:
    """The list as plain values, for a file of the mount."""
    return attrs.asdict(_list(core, 50))


def _list(core: Core, limit: int) -> JobList:
    jobs = core.jobs.table.recent(max(0, min(limit, _LIMIT_MAX)))
    return JobList([JobWithParts(facts(core.jobs.now(job)), _parts(core, job)) for job in jobs], core.jobs.told)


def _parts(core: Core, job: Job) -> list[JobFacts]:
    return [facts(core.jobs.now(part)) for part in core.jobs.table.children(job.id)]


def facts(job: Job) -> JobFacts:
    p = job.progress
    return JobFacts(
        job.id, job.kind, job.title, str(job.status), job.paused_by, job.error, job.priority, job.parent_id,
        p.phase, p.done, p.total, p.bytes_done, p.bytes_total, p.current, p.rate, p.bytes_rate, p.eta_s,
        job.warnings, job.errors, job.runs, job.created_ns, job.started_ns, job.ended_ns, round(job.worked_ns / 1e9, 3),
    )  # fmt: skip


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A result as JSON can say it."""
    return {str(k): _plain(v) if isinstance(v, Mapping) else v for k, v in value.items()}
