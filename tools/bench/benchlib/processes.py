"""Run a program and say how long it took.

Three traps shape this file. `Popen.wait(timeout)` sleeps up to 50 ms between looks, which is as long as a
whole `find`: so the end of a process is awaited on its pidfd. GNU tar and grep notice that their output is
/dev/null and skip the work: so output goes through a pipe into `cat`. A daemon inherits the pipes of the
command that started it and keeps them open: so output that is wanted goes to a file.

Every child gets a process group of its own: Ctrl-C reaches only the benchmark, which then ends its children
by id.
"""

import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PLAIN_ENVIRONMENT = {**os.environ, "LC_ALL": "C"}
GRACE_S = 10.0


class Failed(Exception):
    """A measured program ended with an error, or did not end."""


@dataclass(frozen=True)
class Finished:
    """How a program ended: exit code, what it printed, and the time it took."""

    code: int
    out: str
    error: str
    seconds: float

    def reason(self) -> str:
        """The last line of complaint: what a person would read first."""
        lines = (self.error.strip() or self.out.strip()).splitlines()
        return lines[-1].strip() if lines else f"exit code {self.code}"


def timed(argv: Sequence[str], *, cwd: Path, deadline_s: float, accept: tuple[int, ...] = (0,)) -> float:
    """Seconds from the start of `argv` to its end, with its output read by a `cat` that was there before."""
    with tempfile.TemporaryFile() as complaints:
        sink = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
        assert sink.stdin is not None
        tool = None
        try:
            start = time.perf_counter()
            tool = subprocess.Popen(
                argv, cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink.stdin, stderr=complaints,
                env=PLAIN_ENVIRONMENT, start_new_session=True,
            )  # fmt: skip
            code = wait(tool, deadline_s)
            seconds = time.perf_counter() - start
        finally:
            sink.stdin.close()
            end(tool)
            end(sink)
        if code not in accept:
            complaints.seek(0)
            last = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"{argv[0]} ended with {code}: {' '.join(last)}")
    return seconds


def run(argv: Sequence[str], *, deadline_s: float, environment: Mapping[str, str] | None = None) -> Finished:
    """Run a command to its end and keep what it printed; a daemon it leaves behind does not hold us up."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        start = time.perf_counter()
        tool = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=error,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            code = wait(tool, deadline_s)
            seconds = time.perf_counter() - start
        finally:
            end(tool)
        out.seek(0)
        error.seek(0)
        return Finished(code, out.read().decode(errors="replace"), error.read().decode(errors="replace"), seconds)


def wait(process: subprocess.Popen[bytes], deadline_s: float) -> int:
    """The exit code, at the moment the process ends. Failed when the deadline passes first."""
    if process.poll() is None:
        pidfd = os.pidfd_open(process.pid)
        try:
            readable, _, _ = select.select([pidfd], [], [], deadline_s)
        finally:
            os.close(pidfd)
        if not readable:
            raise Failed(f"no end within {deadline_s:.0f} s")
    return process.wait()


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str] | None) -> None:
    """End a child of ours, its process group with it; nothing happens when it has ended already."""
    if process is None or process.poll() is not None:
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=GRACE_S)
            return
        except subprocess.TimeoutExpired:
            continue
