"""One temporary place for a whole run, and the promise that nothing of it is left.

Two directories are made: one on a disk (`--dir`, else $TMPDIR) for what is read and written, one in memory
(`--storm-dir`, else /dev/shm when it is a tmpfs) for storms of creation and deletion. Memory, because ext4
does not reuse an inode for some seconds after it was freed: a storm of creations soon after a storm of
deletions then costs about a millisecond a file on every file system alike and the ratio says nothing.

SIGINT, SIGTERM and SIGHUP become an ordinary exit, so that `with` blocks unwind: file systems are unmounted
and daemons ended by whoever started them; then whatever is still mounted below the two directories is
unmounted, and only then are they removed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import FrameType, TracebackType

from . import machine
from .processes import Failed

MEMORY_DIRECTORY = Path("/dev/shm")
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Workspace:
    """Context manager: `disk` and `memory` are fresh directories that exist inside the `with` block only."""

    disk: Path
    memory: Path

    def __init__(self, *, directory: Path | None, storm_directory: Path | None, keep: bool = False) -> None:
        self._directory = directory
        self._storm_directory = storm_directory
        self._keep = keep

    def __enter__(self) -> "Workspace":
        for number in STOPPING_SIGNALS:
            signal.signal(number, _leave)
        storms = self._storm_directory
        if storms is None and machine.file_system_of(MEMORY_DIRECTORY) == "tmpfs":
            storms = MEMORY_DIRECTORY if os.access(MEMORY_DIRECTORY, os.W_OK) else None
        self.disk = _make_directory(self._directory)
        try:
            self.memory = _make_directory(storms) if storms is not None else self.disk / "memory"
            self.memory.mkdir(exist_ok=True)
        except BaseException:
            shutil.rmtree(self.disk, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in STOPPING_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        stuck = [place for place in self._mount_points() if not unmount(place)]
        if stuck:
            raise Failed(f"still mounted, so left as it is: {', '.join(map(str, stuck))}")
        if self._keep:
            print(f"kept: {self.disk} {self.memory}", file=sys.stderr)
        else:
            for place in (self.memory, self.disk):
                shutil.rmtree(place, ignore_errors=True)
            left = [str(place) for place in (self.memory, self.disk) if place.exists()]
            if left:
                raise Failed(f"could not be removed: {', '.join(left)}")
        for number in STOPPING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def storms_in_memory(self) -> bool:
        """Whether storms of creation run on a tmpfs."""
        return machine.file_system_of(self.memory) == "tmpfs"

    def _mount_points(self) -> list[Path]:
        """What is still mounted inside, the innermost first."""
        roots = tuple(f"{place.resolve()}/" for place in (self.disk, self.memory))
        return [Path(point) for point, _ in reversed(machine.mounts()) if point.startswith(roots)]


def unmount(mount_point: Path) -> bool:
    """Unmount, kindly first, then lazily (which ends a daemon that does not answer). False when it stays."""
    helper = next((tool for tool in ("fusermount3", "fusermount") if shutil.which(tool)), None)
    attempts = [[helper, "-u"], [helper, "-uz"]] if helper else []
    attempts += [["umount"], ["umount", "-l"]]
    for attempt in attempts:
        if not is_mounted(mount_point):
            return True
        subprocess.run([*map(str, attempt), str(mount_point)], capture_output=True, check=False)
    return not is_mounted(mount_point)


def is_mounted(mount_point: Path) -> bool:
    """Asked of mountinfo, never of the path: a stat of a dead mount may hang."""
    return any(point == str(mount_point) for point, _ in machine.mounts())


def _make_directory(parent: Path | None) -> Path:
    # Resolved, because mountinfo names mounts by their real path.
    return Path(tempfile.mkdtemp(prefix="sdbench-", dir=parent)).resolve()


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
