"""A worker process: runs one operation at a time for the daemon, outside of its interpreter.

In: frames on descriptor 0 (a socket to the parent). Out: frames on the same socket; whatever is printed goes
to the log. A frame is a length (u32, big-endian) and a msgpack array; `Say` lists them. The parent's side is
workers.py.

Invariants
- It never outlives the daemon: the kernel kills it when the process dies that forked it (forkserver.py), and that one
  with the daemon's main thread; an end of file on descriptor 0 ends it too.
- It holds no descriptor but 0, 1, 2, and in a pool that walks the daemon's inotify instance (walker.WATCHES_FD).
- An exception in an operation is an answer (kind, text, errno), not the end of the process.
- A stream never has more unconsumed bytes under way than the parent granted: `Context.emit` waits.

An operation is a function (args, context) -> result, registered in OPERATIONS. A plain call answers with its
return value; a stream calls `context.emit(batch)` as it goes and asks `context.stopped()` often, at least
every 100 ms: one that does not hear a stop for 2 s is killed. Keep a batch below some 64 KiB: the daemon
decodes it on its loop. What is slow to import (media libraries) is imported inside the operation that needs
it. No trio in this process.
"""

import contextlib
import ctypes
import faulthandler
import importlib
import os
import platform
import select
import socket
import struct
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import msgpack

from index.model.errors import errno_of
from index.scan import judging, speedtest, verify, walker
from index.scan.hasher import Hasher, Identity, Mode
from index.scan.volumes import use_devices

#: Holds the manifest of the largest file that has one (64.3 MiB), and is what a lying peer could make us
#: allocate.
FRAME_BYTES_MAX = 66 << 20

#: What one frame of a stream costs beside its bytes: the objects around it.
FRAME_COST_BYTES = 256

NICE = 5
RESULT_BATCH_COUNT = 128
RESULT_BATCH_BYTES = 48 << 10
RESULT_BATCH_AGE_S = 0.1

_STOP_POLL_S = 0.002
_LENGTH = struct.Struct(">I")
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_IOPRIO_SET = {
    "x86_64": 251,
    "aarch64": 30,
    "riscv64": 30,
    "i686": 289,
    "armv7l": 314,
    "ppc64le": 273,
    "s390x": 282,
}


class Say(IntEnum):
    """The first element of every frame."""

    CALL = 0  # [id, operation, args]                        parent -> worker
    STREAM = 1  # [id, operation, args, window_bytes]        parent -> worker
    CREDIT = 2  # [id, bytes]: that much was consumed        parent -> worker
    STOP = 3  # [id]                                         parent -> worker
    READY = 4  # [pid]: once, at the start                   worker -> parent
    ITEM = 5  # [id, batch]                                  worker -> parent
    DONE = 6  # [id, result]                                 worker -> parent
    ERROR = 7  # [id, kind, text, errno]                     worker -> parent


class FrameError(Exception):
    """A frame over the limit, or bytes that are no frame."""


class Stopped(Exception):
    """The parent wants no more of this operation; let it pass."""


def pack(*message: object) -> bytes:
    """One frame. Raises FrameError above FRAME_BYTES_MAX, TypeError for what msgpack cannot say."""
    body: bytes = msgpack.packb(message)
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"a message of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Bytes in, whole messages out, each with its length in bytes. No I/O."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> tuple[list[Any], int] | None:
        """The next (message, length), None when more bytes are needed. Raises FrameError."""
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > FRAME_BYTES_MAX:
            raise FrameError(f"a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        try:
            with memoryview(self._buffer) as view, view[_LENGTH.size : end] as body:
                message = msgpack.unpackb(body, strict_map_key=False)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            raise FrameError(f"a frame that is no msgpack: {error}") from error
        del self._buffer[:end]
        if not isinstance(message, list) or not message:
            raise FrameError("a frame that is no message")
        return message, end


class Link:
    """The socket to the parent. The end of the parent is the end of this process."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._frames = Frames()
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, *message: object) -> int:
        """Sends one frame and returns its length."""
        frame = pack(*message)
        try:
            self._socket.sendall(frame)
        except OSError:
            sys.exit(0)
        return len(frame)

    def receive(self) -> list[Any]:
        """Waits for the next message."""
        while (found := self._frames.next()) is None:
            self._read()
        return found[0]

    def receive_now(self) -> list[Any] | None:
        """The next message if it is there already."""
        found = self._frames.next()
        while found is None and self._poll.poll(0):
            self._read()
            found = self._frames.next()
        return found[0] if found else None

    def _read(self) -> None:
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            sys.exit(0)
        self._frames.feed(data)


class Context:
    """What an operation may say and ask while it runs."""

    def __init__(self, link: Link, request_id: int, window_bytes: int) -> None:
        self._link = link
        self._id = request_id
        self._window_bytes = window_bytes  # 0 for a plain call
        self._under_way_bytes = 0
        self._stopped = False
        self._polled_s = 0.0

    def emit(self, batch: object) -> None:
        """Sends one batch of a stream; waits while the parent has not consumed enough. Raises Stopped."""
        if not self._window_bytes:
            raise RuntimeError("this operation was called, not streamed: it returns, it does not emit")
        self._hear()
        while self._under_way_bytes >= self._window_bytes and not self._stopped:
            self._take(self._link.receive())
        if self._stopped:
            raise Stopped
        self._under_way_bytes += self.reply(Say.ITEM, batch) + FRAME_COST_BYTES

    def reply(self, say: Say, *fields: object) -> int:
        """Sends one frame about this request and returns its length."""
        return self._link.send(say, self._id, *fields)

    def stopped(self) -> bool:
        """Whether the parent wants no more. Cheap: looks at the socket every 2 ms at most."""
        now_s = time.monotonic()
        if not self._stopped and now_s - self._polled_s > _STOP_POLL_S:
            self._polled_s = now_s
            self._hear()
        return self._stopped

    def _hear(self) -> None:
        while (message := self._link.receive_now()) is not None:
            self._take(message)

    def _take(self, message: list[Any]) -> None:
        kind, request_id = message[0], message[1]
        if request_id != self._id:
            return  # about a request that is over
        if kind == Say.CREDIT:
            self._under_way_bytes -= message[2]
        elif kind == Say.STOP:
            self._stopped = True


Operation = Callable[[Any, Context], Any]


def identify(args: Mapping[str, Any], context: Context) -> None:
    """Streams batches of [id, Identity or Unidentified as a list], one for each item, in the order given.

    args: root (bytes, the branch root), items (a list of {id, path: list of components}), mode ("full",
    "sampled"), devices (numbers of branches' roots). Items of one directory should stand together.
    `hasher.unpack_results` reads a batch; one is sent when it is full or 0.1 s old, also in the middle of a big file.
    """
    mode = Mode(args["mode"])
    pending: list[tuple[int, tuple[Any, ...]]] = []
    pending_bytes = 0
    since_s = 0.0

    def flush() -> None:
        nonlocal pending_bytes
        if pending:
            context.emit(pending)
            pending.clear()
            pending_bytes = 0

    def stopped() -> bool:
        if pending and time.monotonic() - since_s > RESULT_BATCH_AGE_S:
            flush()
        return context.stopped()

    use_devices(*args["devices"])
    root_fd = os.open(args["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with Hasher(root_fd) as hasher:
            for item in args["items"]:
                if stopped():
                    raise Stopped
                result = hasher.identify(item["path"], mode, stopped)
                if not pending:
                    since_s = time.monotonic()
                pending.append((item["id"], result))
                pending_bytes += len(result.manifest or b"") if isinstance(result, Identity) else 0
                if len(pending) >= RESULT_BATCH_COUNT or pending_bytes >= RESULT_BATCH_BYTES:
                    flush()
    finally:
        os.close(root_fd)
    flush()


def check(args: Mapping[str, Any], context: Context) -> Any:
    """The library's faults. This knows the whole store, as no other operation does, so it is imported here."""
    from index.care import checking

    return checking.check_in_worker(args, context)


def names(args: Mapping[str, Any], context: Context) -> None:
    """Bring the index of names up to the library; it knows another store than the others."""
    from index.store import search

    search.follow_in_worker(args, context)


#: What this process can do, by name.
OPERATIONS: dict[str, Operation] = {
    "check": check,
    "identify": identify,
    "judge": judging.judge,
    "names": names,
    "scan": walker.scan,
    "speedtest": speedtest.speedtest,
    "verify": verify.verify,
}


def serve(link: Link, operations: Mapping[str, Operation]) -> None:
    """Answers requests one after the other; returns never, but by the end of the parent."""
    link.send(Say.READY, os.getpid())
    while True:
        message = link.receive()
        if message[0] not in (Say.CALL, Say.STREAM):
            continue  # a credit or a stop that crossed our last answer
        request_id, name, args = message[1:4]
        context = Context(link, request_id, message[4] if message[0] == Say.STREAM else 0)
        _answer(context, operations.get(name), name, args)


def _answer(context: Context, operation: Operation | None, name: str, args: object) -> None:
    if operation is None:
        context.reply(Say.ERROR, "UnknownOperation", f"a worker has no operation {name!r}", 0)
        return
    try:
        context.reply(Say.DONE, operation(args, context))
    except Stopped:
        context.reply(Say.ERROR, "Stopped", "stopped by the caller", 0)
    except Exception as error:
        with contextlib.suppress(OSError):  # the log may be on a disk that is full
            if isinstance(error, OSError):  # what the system refuses is an answer, anything else a bug
                print(f"{name}: {error}", file=sys.stderr)
            else:
                traceback.print_exc()
        text = str(error)[:4096].encode("utf-8", "backslashreplace").decode()
        context.reply(Say.ERROR, type(error).__name__, text, errno_of(error))


def step_back(*, idle_io: bool) -> None:
    """Gives way to people: nicer by 5, first to go when memory ends, the disk only when nobody else wants it.

    The worker that interactive calls wait for keeps its normal turn at the disk. Refusals are no error.
    """
    os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")
    number = _IOPRIO_SET.get(platform.machine())
    if idle_io and number is not None and sys.platform == "linux":
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)


def run(table: str, *, idle_io: bool) -> None:
    """A worker's life, with the socket as descriptor 0 and its operations at `table`, as MODULE:NAME."""
    faulthandler.enable()
    step_back(idle_io=idle_io)
    module, _, name = table.partition(":")
    operations = getattr(importlib.import_module(module), name)
    with socket.socket(fileno=0) as sock:
        serve(Link(sock), operations)
