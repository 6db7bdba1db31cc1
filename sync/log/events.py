"""Events: what happened between devices, for people; a ring in memory, kept small.

Pages come by the thousand, so they are gathered into one event for each device and half minute.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import attrs

MOST: Final = 1000
_GATHERED_S: Final = 30.0
_GATHERED_ROWS: Final = 10_000


class Event(StrEnum):
    """What can happen."""

    STATE = "state"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    BACKFILL_STARTED = "backfill started"
    BACKFILL_COMPLETED = "backfill completed"
    BACKFILL_FAILED = "backfill failed"
    CAUGHT_UP = "caught up"
    BATCH = "batch"
    ERROR = "error"


@attrs.frozen
class Line:
    """One event: when (wall clock), what, about which device."""

    time_ns: int
    event: Event
    text: str
    device: bytes | None = None
    rows: int = 0


@attrs.define
class _Batch:
    since_ns: int
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    pages: int = 0


class Events:
    """Used on the loop only."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.lines: deque[Line] = deque(maxlen=MOST)
        self.counts: Counter[Event] = Counter()
        self._now_ns = now_ns
        self._batches: dict[bytes, _Batch] = {}

    def add(self, event: Event, text: str, device: bytes | None = None, rows: int = 0) -> None:
        self.lines.append(Line(self._now_ns(), event, text, device, rows))
        self.counts[event] += 1

    def batch(self, device: bytes, rows: int, size_bytes: int, seconds: float) -> None:
        """A page of a device was applied."""
        now_ns = self._now_ns()
        batch = self._batches.setdefault(device, _Batch(now_ns))
        batch.rows, batch.size_bytes, batch.pages = batch.rows + rows, batch.size_bytes + size_bytes, batch.pages + 1
        batch.seconds += seconds
        if batch.rows >= _GATHERED_ROWS or now_ns - batch.since_ns >= _GATHERED_S * 1e9:
            self.flush(device)

    def flush(self, device: bytes) -> None:
        """What was gathered of a device becomes an event."""
        batch = self._batches.pop(device, None)
        if batch is not None and batch.rows:
            text = f"{batch.rows} rows in {batch.pages} pages, {batch.size_bytes} bytes, {batch.seconds:.2f} s"
            self.add(Event.BATCH, text, device, batch.rows)
