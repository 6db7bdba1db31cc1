"""The lock of a library: an flock, with a note of who holds it.

The flock is the truth (the kernel drops it with the process, so nothing is ever stale); the JSON in the file is
information for people and for `sd`, which finds the running process through it: pid, mountpoint, socket. The
descriptor is close-on-exec, so no child keeps the lock. A process that was killed has it until its last thread has
ended, one that waits for the disk, say; or a child of it until it has become another program. That is waited for.
"""

import fcntl
import json
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

from index.model.errors import Busy, Invalid

#: How long the lock is waited for while a server holds it, and while somebody does who will be done soon.
_SERVER_S = 0.2
_OFFLINE_S = 5.0
#: The same while its holder is ending; and where nobody is seen by its number, who may be of another pid namespace.
_ENDING_S = 5.0
_UNSEEN_S = 0.5


class Holder(NamedTuple):
    """Who holds a library, as the lock file says."""

    pid: int
    mountpoint: str | None
    socket: str | None
    started_ns: int


class LibraryLock:
    """An flock that is held until `release()` or the end of the process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def note(self, mountpoint: str | None, socket: str | None) -> None:
        """Say who holds it. One write at offset 0, so a reader sees the old or the new text."""
        text = json.dumps(
            {"pid": os.getpid(), "mountpoint": mountpoint, "socket": socket, "started_ns": time.time_ns()}
        ).encode()
        held_bytes = os.fstat(self._fd).st_size
        os.pwrite(self._fd, text.ljust(held_bytes) + b"\n", 0)  # blanks over what is left of a longer one

    def release(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def acquire(directory: Path) -> LibraryLock:
    """Take the library's lock, or raise Busy with the holder's pid."""
    path = directory / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Invalid(f"{path} is no regular file; remove it (it is made anew)")
    try:
        _take(fd, directory)
    except OSError as error:
        os.close(fd)
        holder = read_holder(directory)
        who = f"process {holder.pid}" if holder else "another process"
        where = f", mounted at {holder.mountpoint}" if holder and holder.mountpoint else ""
        raise Busy(
            f"the library {directory} is open in {who}{where}; use that one, or end it first (sdumount MOUNTPOINT)"
        ) from error
    return LibraryLock(fd)


def _take(fd: int, directory: Path) -> None:
    """The exclusive lock. A prober (running_holder) may hold a shared one for a moment, an `sd` that does one thing and
    ends (its note names no socket) a little longer; a server keeps it."""
    began_s = time.monotonic()
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            holder = read_holder(directory)
            waits_s = _SERVER_S if holder is not None and holder.socket else _OFFLINE_S
            if time.monotonic() - began_s > max(waits_s, _end_is_waited_for_s(holder)):
                raise
            time.sleep(0.01)


def read_holder(directory: Path) -> Holder | None:
    """The note in the lock file; None when there is none that makes sense."""
    try:
        facts = json.loads((directory / "lock").read_text("utf-8"))
        return Holder(int(facts["pid"]), facts["mountpoint"], facts["socket"], int(facts["started_ns"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _noted_holder(directory: Path) -> Holder:
    """The note of whoever holds the lock; a holder that has not written it yet gets a moment."""
    deadline_s = time.monotonic() + 1.0
    while True:
        holder = read_holder(directory)
        if holder is not None:
            return holder
        if time.monotonic() > deadline_s:
            return Holder(0, None, None, 0)
        time.sleep(0.01)


def _end_is_waited_for_s(holder: Holder | None) -> float:
    """How long a holder that was killed is given to let go; 0 for one that lives. Source: proc(5), the state in stat:
    that of the first thread, which may be gone before the others."""
    if holder is None or holder.pid <= 0:
        return 0
    try:
        state = Path(f"/proc/{holder.pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except OSError:
        return _UNSEEN_S
    return _ENDING_S if state in "ZX" else 0


def running_holder(directory: Path) -> Holder | None:
    """The holder if the library is held right now, and not by one that was killed and is about to let go; else None."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    began_s = time.monotonic()
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                holder = _noted_holder(directory)
                if time.monotonic() - began_s >= _end_is_waited_for_s(holder):
                    return holder
                time.sleep(0.01)
            else:
                return None
    finally:
        os.close(fd)
