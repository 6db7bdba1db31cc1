"""What a media worker does: reads fields, makes thumbnails, of one file after the other, confined.

The operations of a `WorkerPool` of their own (`TABLE`), because a decoder may die, hang or eat memory, and nobody who
waits for a walk shall notice. In: a branch root and items; out: batches of [id, result]. One result a file, in the
order given:

    ["done", extractor, version, fields]       of extract
    ["type", type, method]                     of extract, of a content whose type was not known: that and nothing else
    ["done", {variant: size in bytes or None}] of thumbnail; None where the next smaller one serves
    ["failed", reason]                         the content cannot be decoded, and will not be by this version
    ["again", outcome]                         the file is not the one that was identified, or cannot be read

A file is decoded only while it is the one that was identified: its size, mtime and inode are the item's before and
after. A process that dies says nothing of the file it was at; who asked finds out (driving.py).
"""

import logging
import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, Final

from index.media import sandbox, sidecars
from index.media.fields import bounded
from index.media.registry import EXTRACTORS, Extractor, by_type
from index.media.variants import variant
from index.model.entry import ns
from index.model.filetype import BY_TYPE, HEAD_BYTES, by_head
from index.model.inode import inode_of
from index.scan.hasher import Outcome
from index.scan.opening import Opener
from index.scan.volumes import use_devices
from index.scan.workermain import Context, Operation, Stopped
from index.store.sidecars import THUMB

TABLE: Final = "index.media.workermain:OPERATIONS"

BATCH_COUNT: Final = 64
BATCH_AGE_S: Final = 0.1
#: Some 48 KiB, as fields go.
BATCH_BYTES: Final = 48 << 10
REASON_MAX_CHARS: Final = 300
_OPEN_FILE: Final = re.compile(r" <_io\.\w+(?: [^<>]*)?>")
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")

Item = Mapping[str, Any]
Result = list[Any]
_Work = Callable[[BinaryIO, Item], Result]


class _Again(Exception):
    """It is not the file that was meant, or it cannot be read now."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def _run(args: Mapping[str, Any], context: Context, work: _Work) -> None:
    """Streams the results of `work` for each item."""
    sandbox.confine(args["sidecars"])
    warnings.simplefilter("ignore")  # of decoders, about strangers' files: the log is not for those
    logging.disable()
    use_devices(*args["devices"])
    pending: list[tuple[int, Result]] = []
    since_s, size_bytes = 0.0, 0
    root_fd = os.open(args["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Opener(root_fd) as opener:
            for item in args["items"]:
                if context.stopped():
                    raise Stopped
                if not pending:
                    since_s, size_bytes = time.monotonic(), 0
                result = _one(opener, item, work)
                pending.append((item["id"], result))
                size_bytes += len(str(result))
                is_old = time.monotonic() - since_s > BATCH_AGE_S
                if len(pending) >= BATCH_COUNT or size_bytes > BATCH_BYTES or is_old:
                    context.emit(pending)
                    pending = []
    finally:
        os.close(root_fd)
    if pending:
        context.emit(pending)


def _one(opener: Opener, item: Item, work: _Work) -> Result:
    """One file's result; only a bug of ours leaves as an exception."""
    try:
        fd = opener.open(item["path"])
    except OSError as error:
        outcome = Outcome.DENIED if isinstance(error, PermissionError) else Outcome.GONE
        return ["again", outcome.value]
    try:
        before = os.fstat(fd)
        _refuse_another(before, item)
        with os.fdopen(fd, "rb", closefd=False) as file:
            with sandbox.time_limit():
                result = work(file, item)
            after = os.fstat(fd)
            if after.st_ctime_ns != before.st_ctime_ns:
                _refuse_another(after, item)
            return result
    except _Again as again:
        return ["again", again.outcome.value]
    finally:
        os.close(fd)


def _refuse_another(st: os.stat_result, item: Item) -> None:
    if not stat.S_ISREG(st.st_mode):
        raise _Again(Outcome.NOT_REGULAR)
    if (st.st_size, ns(st.st_mtime_ns), inode_of(st)) != (item["size_bytes"], item["mtime_ns"], item["inode"]):
        raise _Again(Outcome.CHANGED)


def _reason(error: Exception) -> str:
    """Why, in words that are the same each time: decoders like to name the open file by its descriptor, or an object by
    its address, and both are other ones in another process."""
    if isinstance(error, MemoryError):
        return f"needs more than {sandbox.MEMORY_MAX_BYTES >> 20} MiB of memory"
    text = _OPEN_FILE.sub("", _ADDRESS.sub("", str(error)))
    return f"{type(error).__name__}: {text}"[:REASON_MAX_CHARS].encode("utf-8", "backslashreplace").decode()


def _read_failed(file: BinaryIO, error: Exception) -> bool:
    """Whether it was the disk, not the decoder: the file can be read no more."""
    if not isinstance(error, OSError) or not error.errno:
        return False
    try:
        os.pread(file.fileno(), 1, 0)
    except OSError:
        return True
    return False


def extracting(extractors: Iterable[Extractor]) -> Operation:
    """The operation `extract`: args root, devices, sidecars (the one directory a worker may write to), items of {id,
    path, size_bytes, mtime_ns, inode, type: one that an extractor takes, or None where it is not known}."""
    table = by_type(extractors)

    def work(file: BinaryIO, item: Item) -> Result:
        if item["type"] is None:
            return _type_of(file, item)
        kind = BY_TYPE[item["type"]]
        reader = table[item["type"]]
        try:
            return ["done", reader.name, reader.version, bounded(reader.load()(file, kind))]
        except Exception as error:  # whatever a decoder raises about a file is this file's
            if _read_failed(file, error):
                raise _Again(Outcome.IO_ERROR) from error
            return ["failed", _reason(error)]

    return lambda args, context: _run(args, context, work)


def _type_of(file: BinaryIO, item: Item) -> Result:
    try:
        found, method = by_head(os.pread(file.fileno(), HEAD_BYTES, 0), item["path"][-1])
    except OSError as error:
        raise _Again(Outcome.IO_ERROR) from error
    return ["type", found.name, int(method)]


def thumbnail(args: Mapping[str, Any], context: Context) -> None:
    """The operation `thumbnail`: args as of `extract`, and variants; items also have `full`, their full hash. The files
    are in their place when a result is given."""
    from index.media.thumbs import make

    variants = [variant(name) for name in args["variants"]]
    root_fd = os.open(args["sidecars"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def work(file: BinaryIO, item: Item) -> Result:
        try:
            made = make(file, BY_TYPE[item["type"]], variants)
        except Exception as error:  # as above
            if _read_failed(file, error):
                raise _Again(Outcome.IO_ERROR) from error
            return ["failed", _reason(error)]
        for name, data in made.items():
            if data is not None:
                sidecars.write(root_fd, item["full"], THUMB, name, data)
        return ["done", {name: None if data is None else len(data) for name, data in made.items()}]

    try:
        _run(args, context, work)
    finally:
        os.close(root_fd)


def operations(extractors: Iterable[Extractor]) -> dict[str, Operation]:
    """The table of a pool."""
    return {"extract": extracting(extractors), "thumbnail": thumbnail}


#: What a media worker can do, by name.
OPERATIONS: Final = operations(EXTRACTORS)
