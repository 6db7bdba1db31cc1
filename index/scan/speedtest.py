"""How fast a volume is: one file written and read past the page cache, in a worker process.

In: a directory on the volume. Out: bytes a second, both ways. The file has no name (O_TMPFILE) or loses it at once, so
it is gone whatever happens to this process. O_DIRECT passes the cache by; where a file system knows no such thing, what
was written is synced and its pages are dropped before it is read, and the answer says so. Both ways end when their time
is over; the speed is that of what was done by then.

Source: open(2), posix_fadvise(2).
"""

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

SIZE_BYTES = 10 << 20
LIMIT_S = 30.0
#: What must stay free beside the file, as a share of the volume: a test must not be what fills it.
_RESERVE = 0.01
_STEP_BYTES = 1 << 20


def speedtest(args: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Answers {write_bps, read_bps, size_bytes, direct}.

    args: directory (bytes), size_bytes, limit_s (for both ways together). Raises OSError with ENOSPC or EROFS before
    anything is written when the volume is nearly full or takes no writes.
    """
    directory, size_bytes = args["directory"], int(args.get("size_bytes", SIZE_BYTES))
    until_s = time.monotonic() + float(args.get("limit_s", LIMIT_S))
    room = os.statvfs(directory)
    if room.f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, "it is read only")
    free_bytes, whole_bytes = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    if free_bytes < size_bytes + max(size_bytes, _RESERVE * whole_bytes):
        raise OSError(errno.ENOSPC, f"it is nearly full ({free_bytes >> 20} MiB free)")
    fd, is_direct = _open(directory)
    try:
        stopped = context.stopped
        with mmap.mmap(-1, _STEP_BYTES) as page:  # mapped memory is aligned as O_DIRECT wants it
            page.write(os.urandom(_STEP_BYTES))
            written, write_s = _timed(lambda at: os.pwrite(fd, page, at), size_bytes, until_s, stopped, fd)
            if not is_direct:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            read, read_s = _timed(lambda at: os.preadv(fd, [page], at), written, until_s, stopped, None)
    finally:
        os.close(fd)
    return {
        "write_bps": int(written / write_s), "read_bps": int(read / read_s), "size_bytes": written, "direct": is_direct,
    }  # fmt: skip


def _timed(
    step: Callable[[int], int], size_bytes: int, until_s: float, stopped: Callable[[], bool], sync_fd: int | None
) -> tuple[int, float]:
    """(bytes, seconds) of one way."""
    done = 0
    began_s = time.monotonic()
    while done < size_bytes and (not done or time.monotonic() < until_s) and not stopped():
        got = step(done)
        if got <= 0:
            break
        done += got
    if sync_fd is not None:
        os.fsync(sync_fd)
    return done, max(time.monotonic() - began_s, 1e-9)


def _open(directory: bytes) -> tuple[int, bool]:
    """A file without a name, and whether it passes the page cache by."""
    for direct in (os.O_DIRECT, 0):
        try:
            return _unnamed(directory, os.O_RDWR | os.O_CLOEXEC | direct), bool(direct)
        except OSError as error:
            if not direct or error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
    raise AssertionError("unreachable")


def _unnamed(directory: bytes, flags: int) -> int:
    try:
        return os.open(directory, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
    path = os.path.join(directory, b".vdfs-speedtest-%d" % os.getpid())
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return fd
