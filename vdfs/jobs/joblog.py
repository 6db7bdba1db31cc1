"""A job's log: a text file of its own, so that its story can be read when it is long over. Bounded.

One line an event, with its time. A file that is full becomes `.old`, of which there is one: the last half is always
there. What cannot be written (a full disk) is left out; the log is a comfort.
"""

import contextlib
import os
import time
from pathlib import Path

#: Of one job there are at most twice so many.
FILE_BYTES_MAX = 512 << 10


class JobLogs:
    """The logs of one library, by the job's id."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, job_id: int) -> Path:
        return self.directory / f"{job_id}.log"

    def write(self, job_id: int, text: str) -> None:
        now_ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_ns // 10**9))
        line = f"{stamp}.{now_ns // 10**6 % 1000:03} {text}\n".encode("utf-8", "backslashreplace")
        path = self.path(job_id)
        with contextlib.suppress(OSError):
            self.directory.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_size + len(line) > FILE_BYTES_MAX:
                    os.replace(path, path.with_suffix(".log.old"))
            with open(path, "ab") as file:
                file.write(line)

    def read(self, job_id: int, lines: int) -> list[str]:
        """The last lines."""
        text = b""
        for path in (self.path(job_id).with_suffix(".log.old"), self.path(job_id)):
            with contextlib.suppress(OSError):
                text += path.read_bytes()
        return text.decode("utf-8", "replace").splitlines()[-lines:] if lines > 0 else []

    def remove(self, job_id: int) -> None:
        for path in (self.path(job_id).with_suffix(".log.old"), self.path(job_id)):
            with contextlib.suppress(OSError):
                path.unlink()
