"""Meter: counts what a job has done and says how fast it goes and how long it will take. No I/O but the clock.

A job counts as often as it likes; readers take a snapshot at their own pace. The rate is that of the last seconds, so
that an estimate follows a disk that becomes slow; it is not said before there is something to say it from.
"""

import time
from collections import deque
from collections.abc import Callable

from vdfs.jobs.job import Progress

#: The rate is taken over so many seconds, from samples so far apart.
WINDOW_S = 10.0
SAMPLE_S = 0.25
#: From less an estimate would only jump about.
ESTIMATE_FROM_S = 1.0


class Meter:
    """Used on the loop only. `changed` is called at each count with whether the phase is a new one."""

    def __init__(self, changed: Callable[[bool], None], *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._changed = changed
        self._now_s = now_s
        self._samples: deque[tuple[float, int, int]] = deque()
        self.phase_name = ""
        self.done = self.bytes_done = 0
        self.total: int | None = None
        self.bytes_total: int | None = None
        self.current: str | None = None

    def phase(
        self, name: str, total: int | None = None, bytes_total: int | None = None, *, done: int = 0, bytes_done: int = 0
    ) -> None:
        """Begin to count something else; `done` and `bytes_done` of it were done in an earlier run."""
        self.phase_name, self.total, self.bytes_total = name, total, bytes_total
        self.done, self.bytes_done, self.current = done, bytes_done, None
        self._samples.clear()
        self._sample()
        self._changed(True)

    def add(self, done: int = 0, size_bytes: int = 0, current: str | None = None) -> None:
        """So much more is done. What was a total is raised when it turns out too small."""
        self.done += done
        self.bytes_done += size_bytes
        if current is not None:
            self.current = current.encode("utf-8", "backslashreplace").decode()
        if self.total is not None:
            self.total = max(self.total, self.done)
        self._sample()
        self._changed(False)

    def snapshot(self) -> Progress:
        rate, bytes_rate = self._rates()
        eta_s = None
        if self.total is not None and rate > 0:
            eta_s = (self.total - self.done) / rate
        if self.bytes_total is not None and bytes_rate > 0:
            eta_s = max(eta_s or 0.0, max(0, self.bytes_total - self.bytes_done) / bytes_rate)
        return Progress(
            self.phase_name, self.done, self.total, self.bytes_done, self.bytes_total, self.current,
            round(rate, 3), round(bytes_rate, 3), None if eta_s is None else round(eta_s, 1),
        )  # fmt: skip

    def _sample(self) -> None:
        now_s = self._now_s()
        if not self._samples or now_s - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((now_s, self.done, self.bytes_done))
            while self._samples[0][0] < now_s - WINDOW_S and len(self._samples) > 2:
                self._samples.popleft()

    def _rates(self) -> tuple[float, float]:
        if not self._samples:
            return 0.0, 0.0
        since_s, done, bytes_done = self._samples[0]
        took_s = self._now_s() - since_s
        if took_s < ESTIMATE_FROM_S:
            return 0.0, 0.0
        return (self.done - done) / took_s, (self.bytes_done - bytes_done) / took_s
