"""Job: what a piece of long work is, which states it goes through, how it is counted. Values, no I/O.

    queued → running → completed | failed | cancelled
       ↑  ↖     ↕
       └─── paused

Queued again is what was stopped with its process, by a kill or in order: it goes on from its last checkpoint. Paused is
what somebody, or the lack of something (room on the disk, power), holds up; who, is part of it, since what a person
paused stays so until a person resumes it. The last three are for ever.
"""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})

#: What may follow.
NEXT: Mapping[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.RUNNING, Status.PAUSED, Status.CANCELLED, Status.FAILED}),
    Status.RUNNING: ENDED | {Status.QUEUED, Status.PAUSED},
    Status.PAUSED: frozenset({Status.QUEUED, Status.CANCELLED}),
    **{status: frozenset() for status in ENDED},
}


class Priority(IntEnum):
    LOW = -1
    NORMAL = 0
    HIGH = 1
    CRITICAL = 10


#: Who holds a job up: a person (until a person resumes it), or one of these, until it is over.
BY_USER = "user"
BY_PARENT = "parent"
NO_SPACE = "no space"
ON_BATTERY = "battery"


class Progress(NamedTuple):
    """How far a job is. Totals are None while nobody knows them; rates are of the last seconds."""

    phase: str = ""
    done: int = 0
    total: int | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    current: str | None = None
    rate: float = 0.0
    bytes_rate: float = 0.0
    eta_s: float | None = None


class Job(NamedTuple):
    """A row of table job; what the columns mean is beside the table (vdfs/jobs/table.py)."""

    id: int
    kind: str
    title: str
    key: str
    status: Status
    priority: int
    parent_id: int | None
    paused_by: str | None
    error: str | None
    args: Mapping[str, Any]
    progress: Progress
    result: Mapping[str, Any]
    warnings: int
    errors: int
    runs: int
    created_ns: int
    started_ns: int | None
    ended_ns: int | None
    worked_ns: int

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Note(NamedTuple):
    """Something that a job says of itself beside its state: a warning, an error that did not end it."""

    at_ns: int
    level: str  # "warning" or "error"
    text: str
