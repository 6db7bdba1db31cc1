"""What a running job may ask and say, and what a kind of job is.

A job is an async function of a `JobContext`. It may be stopped at every `await` (paused, cancelled, the process ends),
so what it has done must be in rows or in a checkpoint by then: it does a piece, writes it down synchronously, says so
(`checkpoint`), and goes on. After a stop it is called again, with the state of its last checkpoint.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs
import trio

from vdfs.jobs.job import Job, Status
from vdfs.jobs.meter import Meter


@attrs.frozen
class Kind:
    """A sort of job: what does it, which version its checkpoints are of, and with how many others it runs at once.

    What only waits for its parts has no lane.
    """

    name: str
    run: Callable[["JobContext"], Awaitable[Mapping[str, Any] | None]]
    version: int = 1
    lane: str | None = None
    width: int = 1  # how many of the lane run at once


@attrs.define(eq=False)
class Run:
    """A job that runs now."""

    job_id: int
    kind: Kind
    scope: trio.CancelScope
    meter: Meter
    began_ns: int
    why: tuple[Status, str | None] | None = None  # what it is being stopped for
    is_unsaved: bool = False


class Host(Protocol):
    """What a job needs of its manager."""

    def save_state(self, job_id: int, version: int, state: Mapping[str, Any]) -> None: ...

    def note(self, job_id: int, level: str, text: str) -> None: ...

    def write_log(self, job_id: int, text: str) -> None: ...

    async def part_of(self, job: Job, kind: str, title: str, args: Mapping[str, Any]) -> Job: ...


class JobContext:
    """Used on the loop only."""

    def __init__(self, host: Host, job: Job, run: Run, state: Mapping[str, Any] | None) -> None:
        self._host = host
        self._run = run
        self.job = job
        self.args = job.args
        #: That of the last checkpoint; None when the job begins.
        self.state = state
        self.meter = run.meter

    @property
    def is_cancelled(self) -> bool:
        """Whether it is being stopped for good."""
        return self._run.why is not None and self._run.why[0] is Status.CANCELLED

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        """From here the job goes on, should it be stopped now."""
        self._host.save_state(self.job.id, self._run.kind.version, state)

    def warn(self, text: str) -> None:
        self._host.note(self.job.id, "warning", text)

    def error(self, text: str) -> None:
        """Something of many did not work; the job goes on."""
        self._host.note(self.job.id, "error", text)

    def log(self, text: str) -> None:
        self._host.write_log(self.job.id, text)

    async def part(self, kind: str, title: str, args: Mapping[str, Any]) -> Job:
        """Have a part done by a job of its own, or see what became of it in an earlier run; returns it ended."""
        return await self._host.part_of(self.job, kind, title, args)
