"""Hashing a file where it lies: one pass gives the sampled id, the full BLAKE3, the manifest and the file's type.

In: the descriptor of a branch root, a path as components, a mode. Out: an `Identity`, or an `Unidentified`
that says why there is none. No exception leaves here for anything a file system can do; wrong arguments
raise.

Invariants
- Only regular files are read, and no path leads out of the branch (opening.py).
- An identity belongs to the stat it carries: size, mtime and ctime were equal before and after the read.
- The file is never mapped: a truncation by its owner is a short read here, not a SIGBUS.

GONE, DENIED and the rest mean "look again", never "delete": the caller decides with its own stat of the
place.

A time stamp moves in ticks of the file system (some ms; 2 s on FAT). A write within the tick of the stat
leaves it unchanged, so an identity whose file changed that shortly before the read says `racy` and should be
computed again before anything destructive rests on it.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from blake3 import blake3

from index.model import content
from index.model.entry import ns
from index.model.errors import Stale
from index.model.filetype import BY_TYPE, HEAD_BYTES, Method, by_head
from index.model.inode import inode_of
from index.scan.opening import Opener

# One reused buffer: as fast as mmap per CPU second (6.9 GB/s), a multiple of the block, and it stays in the
# cache.
BUFFER_BYTES = 1 << 20

# From here on a file that was not in the page cache is dropped from it again as it is read: hashing a disk
# must not push out what the user works with.
COLD_FILE_BYTES = 32 << 20
#: So often a large file is looked at again while it is read; a multiple of the buffer.
LOOK_STEP_BYTES = 64 << 20
DROP_STEP_BYTES = 8 << 20

COARSE_TICK_NS = 2_000_000_000  # FAT, and file systems that keep whole seconds
FINE_TICK_NS = 20_000_000  # the kernel's coarse clock moves every 1 to 10 ms


#: The type of a file that has no head.
EMPTY = (BY_TYPE["empty"], Method.CONTENT)


class Mode(StrEnum):
    FULL = "full"
    SAMPLED = "sampled"


class Outcome(StrEnum):
    """Why there is no identity."""

    CHANGED = "changed"  # its stat differs before and after, or a lease holds it: ask again later
    GONE = "gone"  # the path leads nowhere, or through something that is no directory
    DENIED = "denied"
    NOT_REGULAR = "not-regular"  # a symlink, directory, fifo, socket or device stands there
    IO_ERROR = "io-error"
    STOPPED = "stopped"  # the caller asked to stop


class Identity(NamedTuple):
    """What one pass learned. `sampled` is None for an empty file; `full` (64 hex digits) and `manifest` are
    None in the sampled mode. `manifest` is the stored form, empty for one block, None also above 256 GiB.
    `carries` says whether the file has extended attributes, `type_name` and `method` what `filetype.by_head` says."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sampled: str | None
    full: str | None
    manifest: bytes | None
    racy: bool
    carries: bool
    type_name: str
    method: int


class Unidentified(NamedTuple):
    outcome: Outcome
    errno: int = 0


Result = Identity | Unidentified

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})
_DENIED = frozenset({errno.EACCES, errno.EPERM})
_NOT_REGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR})


class Hasher:
    """Hashes files under one branch root, with one buffer. Not for several threads at once."""

    def __init__(self, root_fd: int) -> None:
        self._opener = Opener(root_fd)
        self._view = memoryview(bytearray(BUFFER_BYTES))

    def __enter__(self) -> "Hasher":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what it opened; the root descriptor stays the caller's."""
        self._opener.close()

    def identify(
        self, path: Sequence[bytes], mode: Mode = Mode.FULL, stopped: Callable[[], bool] = lambda: False
    ) -> Result:
        """The identity of the file at `path` (components below the root). `stopped` is asked before every
        MiB."""
        try:
            fd = self._opener.open(path)
        except OSError as error:
            return _refusal(error, opening=True)
        try:
            return self._read(fd, path[-1], mode, stopped)
        except Stale:
            return Unidentified(Outcome.CHANGED)
        except OSError as error:
            return _refusal(error, opening=False)
        finally:
            os.close(fd)

    def _read(self, fd: int, name: bytes, mode: Mode, stopped: Callable[[], bool]) -> Result:
        started_ns = time.time_ns()
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return Unidentified(Outcome.NOT_REGULAR)
        size_bytes = before.st_size
        full: str | None = None
        manifest: bytes | None = None
        if mode is Mode.SAMPLED:
            sampled = content.sampled_id(lambda offset, length: os.pread(fd, length, offset), size_bytes)
            head = os.pread(fd, HEAD_BYTES, 0)
        elif stopped():
            return Unidentified(Outcome.STOPPED)
        elif size_bytes <= content.SAMPLE_WHOLE_MAX_BYTES:
            sampled, full, manifest, head = _read_small(fd, size_bytes)
        else:
            whole = self._read_whole(fd, size_bytes, stopped)
            if whole is None:
                return Unidentified(Outcome.STOPPED)
            sampled, full, manifest, head = whole
        after = os.fstat(fd)
        mtime_ns, ctime_ns = ns(after.st_mtime_ns), ns(after.st_ctime_ns)
        if (after.st_size, mtime_ns, ctime_ns) != (size_bytes, ns(before.st_mtime_ns), ns(before.st_ctime_ns)):
            return Unidentified(Outcome.CHANGED)
        racy = _is_racy(ctime_ns, started_ns)
        found, method = EMPTY if not head else by_head(head, name)
        return Identity(
            size_bytes, mtime_ns, ctime_ns, inode_of(after), sampled, full, manifest, racy, _carries(fd), found.name,
            int(method),
        )  # fmt: skip

    def _read_whole(
        self, fd: int, size_bytes: int, stopped: Callable[[], bool]
    ) -> tuple[str | None, str, bytes | None, bytes] | None:
        """(sampled id, full hash, stored manifest, head), or None when asked to stop. Raises Stale when the size
        moved."""
        view = self._view
        hasher = content.ContentHasher(size_bytes)
        drop = _is_cold(fd, size_bytes)
        sampled: str | None = None
        head = b""
        done_bytes = dropped_bytes = 0
        mtime_ns = os.fstat(fd).st_mtime_ns
        while done_bytes < size_bytes:
            if stopped():
                return None
            if done_bytes % LOOK_STEP_BYTES == 0 and done_bytes:
                _refuse_if_changed(fd, size_bytes, mtime_ns)
            wanted = min(BUFFER_BYTES, size_bytes - done_bytes)
            count = _fill(fd, view, wanted)
            if count != wanted:
                raise Stale("the file shrank or grew")
            if done_bytes == 0:
                sampled = self._sampled(fd, size_bytes, count)
                head = bytes(view[:HEAD_BYTES])
            hasher.update(view[:count])
            done_bytes += count
            if drop and done_bytes - dropped_bytes >= DROP_STEP_BYTES:
                os.posix_fadvise(fd, dropped_bytes, done_bytes - dropped_bytes, os.POSIX_FADV_DONTNEED)
                dropped_bytes = done_bytes
        if drop:
            os.posix_fadvise(fd, dropped_bytes, 0, os.POSIX_FADV_DONTNEED)
        full, manifest = hasher.finish()
        return sampled, full.hex(), manifest, head

    def _sampled(self, fd: int, size_bytes: int, held_bytes: int) -> str | None:
        """The sampled id, from the buffer for what it holds and by pread for the rest."""
        view = self._view

        def read_at(offset: int, length: int) -> bytes | memoryview:
            if offset + length <= held_bytes:
                return view[offset : offset + length]
            return os.pread(fd, length, offset)

        return content.sampled_id(read_at, size_bytes)


def unpack_results(batch: Iterable[Any]) -> Iterator[tuple[int, Result]]:
    """The (id, result) pairs of one batch of operation `identify`, as it came over the wire."""
    for item_id, fields in batch:
        if len(fields) == len(Identity._fields):
            yield item_id, Identity(*fields)
        else:
            yield item_id, Unidentified(Outcome(fields[0]), fields[1])


def _refuse_if_changed(fd: int, size_bytes: int, mtime_ns: int) -> None:
    """Reading on is in vain when a large file was deleted or written to. Raises FileNotFoundError, Stale."""
    st = os.fstat(fd)
    if not st.st_nlink:
        raise FileNotFoundError(errno.ENOENT, "the file was removed")
    if (st.st_size, st.st_mtime_ns) != (size_bytes, mtime_ns):
        raise Stale("the file was written to")


def _read_small(fd: int, size_bytes: int) -> tuple[str | None, str, bytes, bytes]:
    """(sampled id, full hash, stored manifest, head) of a file that the sampled id covers wholly. Raises Stale.

    Most files are such; without the buffer and its loops they cost two thirds.
    """
    data = os.read(fd, size_bytes)
    if len(data) != size_bytes:
        raise Stale("the file shrank")
    return content.sampled_id_of(data), blake3(data).hexdigest(), b"", data[:HEAD_BYTES]


def _fill(fd: int, view: memoryview, wanted: int) -> int:
    """Reads until there is what was wanted or the file ends: network file systems may answer short in
    between."""
    count = os.readv(fd, [view])
    while 0 < count < wanted:
        more = os.readv(fd, [view[count:]])
        if more == 0:
            break
        count += more
    return count


def _is_cold(fd: int, size_bytes: int) -> bool:
    """Whether a big file is worth dropping from the page cache behind us: it was not there when we came.

    The probe lies at 5/8, away from the head and the samples that an earlier quick pass may have left in the
    cache.
    """
    if size_bytes < COLD_FILE_BYTES:
        return False
    try:
        os.preadv(fd, [bytearray(1)], size_bytes // 8 * 5, os.RWF_NOWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_racy(ctime_ns: int, started_ns: int) -> bool:
    tick_ns = FINE_TICK_NS if ctime_ns % 1_000_000_000 else COARSE_TICK_NS
    return ctime_ns > started_ns - tick_ns


def _carries(fd: int) -> bool:
    """Whether a file has extended attributes of any kind."""
    try:
        return bool(os.listxattr(fd))
    except OSError:
        return False


def _refusal(error: OSError, *, opening: bool) -> Unidentified:
    code = error.errno or errno.EIO
    if code in _DENIED:
        return Unidentified(Outcome.DENIED, code)
    if opening and code in _GONE:
        return Unidentified(Outcome.GONE, code)
    if opening and code in _NOT_REGULAR:
        return Unidentified(Outcome.NOT_REGULAR, code)
    if opening and code == errno.EAGAIN:  # somebody holds a lease: O_NONBLOCK makes the open say so
        return Unidentified(Outcome.CHANGED, code)
    return Unidentified(Outcome.IO_ERROR, code)
