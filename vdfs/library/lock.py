"""The lock of a library: an flock, with a note of who holds it.

The flock is the truth (the kernel drops it with the process, so nothing is ever stale); the JSON in the file is
information for people and for `sd`, which finds the running process through it: pid, mountpoint, socket. The
descriptor is close-on-exec, so no child keeps the lock.
"""

import fcntl
import json
import os
import stat
import time
from pathlib import Path

import attrs

from index.model.errors import Busy, Invalid

#: How long the lock is waited for while a server holds it, and while somebody does who will be done soon.
_SERVER_S = 0.2
_OFFLINE_S = 5.0


@attrs.frozen
class Holder:
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
            if time.monotonic() - began_s > waits_s:
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


def running_holder(directory: Path) -> Holder | None:
    """The holder if the library is held right now, else None."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _noted_holder(directory)
    else:
        return None
    finally:
        os.close(fd)
