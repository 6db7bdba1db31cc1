"""A short binding of Linux inotify: directories in, events out; no thread, one descriptor.

In: directory descriptors, named as /proc/self/fd/N, so that PATH_MAX and a rename in between do not matter.
Out: lists of `Event` whenever `fd` is readable (`trio.lowlevel.wait_readable(inotify.fd)`, then `read()`).

What the reader of events must know (inotify(7))
- An event says where to look, not what is true: the differ decides.
- A full queue is visible: an event with wd -1 and IN_Q_OVERFLOW. What came after it is lost: rescan.
- A watch covers one directory, not what lies below. A directory that was created or moved in may hold entries
  made before its watch: add the watch first, then scan.
- Events of a removed watch may still be in the queue; IN_IGNORED is its last. A wd is not given twice.
- The two halves of a rename carry the same cookie; a half alone came from or went to where nobody watches.
- Any process that has the instance may add watches to it; numbers are the instance's.
- Writes through a shared mapping make no MODIFY, and nothing tells of changes made on other hosts of a
  network mount.

Cost, measured on one core of a virtual machine: 0.9 us an event to read and parse, so about 1.0 M events/s; 4
us a watch, the opening of its directory included.
"""

import ctypes
import errno
import fcntl
import os
import struct
import sys
import termios
from pathlib import Path
from typing import NamedTuple

from index.model.errors import NoSpace, OsFailure

IN_ACCESS = 0x1
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ONLYDIR = 0x0100_0000
IN_EXCL_UNLINK = 0x0400_0000
IN_ISDIR = 0x4000_0000

#: What a watch asks for. Not OPEN, ACCESS, CLOSE_NOWRITE: our own reading would fill the queue of 16 384
#: events. CLOSE_WRITE is wanted beside MODIFY because it is when a writer is done, the moment at which
#: hashing pays, and the only sign of a writer that wrote through a mapping. UNMOUNT, IGNORED and Q_OVERFLOW
#: come unasked.
WATCH_MASK = (
    IN_MODIFY
    | IN_ATTRIB
    | IN_CLOSE_WRITE
    | IN_MOVED_FROM
    | IN_MOVED_TO
    | IN_CREATE
    | IN_DELETE
    | IN_DELETE_SELF
    | IN_MOVE_SELF
    | IN_ONLYDIR
    | IN_EXCL_UNLINK
)

# Up to 16 384 events of short names: one read empties a full queue in two or three turns.
BUFFER_BYTES = 256 << 10

_HEAD = struct.Struct("iIII")  # wd, mask, cookie, length of the padded name
_WATCHES_SYSCTL = "fs.inotify.max_user_watches"
_INSTANCES_SYSCTL = "fs.inotify.max_user_instances"


class Event(NamedTuple):
    """One change. `name` is empty when it is about the watched directory itself; `wd` is -1 for an
    overflow."""

    wd: int
    mask: int
    cookie: int
    name: bytes


class WatchLimitReached(NoSpace):
    """The kernel gives this user no more inotify watches or instances; the text names the sysctl and its
    value."""

    def __init__(self, sysctl: str) -> None:
        # A user namespace has bounds of its own; the lower one is what was reached.
        here = sysctl.replace("fs.inotify.max_user_", "user.max_inotify_")
        known = {name: value for name in (sysctl, here) if (value := _sysctl(name)) is not None}
        sysctl = min(known, key=known.__getitem__, default=sysctl)
        self.sysctl = sysctl
        self.limit = known.get(sysctl)
        now = "unknown" if self.limit is None else str(self.limit)
        more = "" if self.limit is None else f"; raise it: sysctl {sysctl}={self.limit * 4}"
        super().__init__(f"inotify limit reached: {sysctl} is {now}{more}")


class Inotify:
    """One inotify instance. Every call is immediate; use it from one task.

    `fd` is an instance that another process reads, and that this one adds watches to.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        if fd is not None:
            self.fd = fd
            return
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            code = ctypes.get_errno()
            if code == errno.EMFILE and _has_free_descriptor():
                raise WatchLimitReached(_INSTANCES_SYSCTL)
            raise OsFailure(code, f"inotify_init1: {os.strerror(code)}")

    def __enter__(self) -> "Inotify":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees all watches. A second close does nothing."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def add(self, path: bytes, mask: int = WATCH_MASK) -> int:
        """Watches the directory at `path` and returns its wd; the same wd when it is watched already.

        The links of /proc are followed, so pass b"/proc/self/fd/N"; the descriptor may be closed afterwards.
        Raises WatchLimitReached, and OSError for what the path itself does (ENOENT, ENOTDIR, EACCES).
        """
        wd: int = self._libc.inotify_add_watch(self.fd, ctypes.c_char_p(path), ctypes.c_uint32(mask))
        if wd < 0:
            code = ctypes.get_errno()
            if code == errno.ENOSPC:
                raise WatchLimitReached(_WATCHES_SYSCTL)
            raise OSError(code, os.strerror(code), path)
        return wd

    def remove(self, wd: int) -> None:
        """Ends a watch; one that the kernel has ended already (directory deleted, unmounted) is no error."""
        if self._libc.inotify_rm_watch(self.fd, wd) < 0:
            code = ctypes.get_errno()
            if code != errno.EINVAL:
                raise OSError(code, os.strerror(code))

    def watched(self) -> set[int]:
        """The numbers of all watches, as the kernel has them (proc(5), fdinfo); a read of some 100 bytes a watch."""
        lines = Path(f"/proc/self/fdinfo/{self.fd}").read_text().splitlines()
        return {int(line.split()[1].removeprefix("wd:"), 16) for line in lines if line.startswith("inotify wd:")}

    def read(self) -> list[Event]:
        """All that is queued by now, oldest first; an empty list when nothing is."""
        left_bytes = int.from_bytes(fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4)), sys.byteorder)
        events: list[Event] = []
        while left_bytes > 0:
            try:
                data = os.read(self.fd, BUFFER_BYTES)
            except BlockingIOError:  # another reader had it
                break
            left_bytes -= len(data)
            events += parse(data)
        return events


def parse(data: bytes) -> list[Event]:
    """The events of one read; the kernel never cuts one in two."""
    events = []
    unpack, head_bytes, end = _HEAD.unpack_from, _HEAD.size, len(data)
    at = 0
    while at < end:
        wd, mask, cookie, length = unpack(data, at)
        at += head_bytes
        events.append(Event(wd, mask, cookie, data[at : at + length].rstrip(b"\0")))
        at += length
    return events


def _has_free_descriptor() -> bool:
    """EMFILE means "no more instances" only when the process itself may still open something."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _sysctl(name: str) -> int | None:
    try:
        return int(Path("/proc/sys", *name.split(".")).read_text())
    except (OSError, ValueError):
        return None
