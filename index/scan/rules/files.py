"""Reading the small files that rules depend on: through a symlink only for who asks for that, never from a pipe, never
more than is sane."""

import contextlib
import os
import stat
import time
from typing import NamedTuple

#: A list of patterns longer than this is no list that a person wrote.
PATTERNS_MAX_BYTES = 1 << 20

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: Which file it is, and what it was when it was read: as long as this holds, so does its text.
Stamp = tuple[int, int, int, int, int]

#: A file that changed less than so long ago may change again and look the same: times move in steps.
_RACY_NS = 2_000_000_000


class Text(NamedTuple):
    """What reading a file gave. `note` says why there is no text, for a file that is there."""

    text: bytes | None
    stamp: Stamp | None
    note: str | None = None


ABSENT = Text(None, None)


def stamp_of(st: os.stat_result) -> Stamp:
    return st.st_dev, st.st_ino, st.st_mtime_ns, st.st_ctime_ns, st.st_size


def is_settled(stamp: Stamp) -> bool:
    """Whether what was read of a file may be kept: a change from now on would show."""
    return time.time_ns() - max(stamp[2], stamp[3]) > _RACY_NS


def read(name: bytes, dir_fd: int | None = None, *, max_bytes: int = PATTERNS_MAX_BYTES, follow: bool = False) -> Text:
    """A regular file's text. `follow`: it may be a link to one."""
    try:
        fd = os.open(name, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW, dir_fd=dir_fd)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    except OSError as error:
        return Text(None, None, error.strerror)
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            return Text(None, None, "no regular file")
        if st.st_size > max_bytes:
            return Text(None, stamp_of(st), f"larger than {max_bytes} bytes")
        chunks = []
        left = max_bytes + 1
        while left > 0 and (chunk := os.read(fd, left)):
            chunks.append(chunk)
            left -= len(chunk)
        return Text(b"".join(chunks), stamp_of(st))
    except OSError as error:
        return Text(None, None, error.strerror)
    finally:
        os.close(fd)


def look(name: bytes, dir_fd: int | None = None, *, follow: bool = False) -> os.stat_result | None:
    """lstat, or stat; None where nothing is, or nothing is to be seen."""
    with contextlib.suppress(OSError):
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=follow)
    return None
