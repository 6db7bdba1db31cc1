"""The blocking end of the socket: one call at a time, plain sockets, the standard library only.

`sd` and scripts use it, so it imports in a few milliseconds. In: a method and its params; out: the result,
or an exception that is one clear line: RpcError (the other side answered with an error), NotRunning (nobody
answers, or it went away in the middle: an action may then have been done or not), Deadline (no answer in
time).

After any of the last two the connection is of no more use; make a new client.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from index.model.errors import Deadline, NotRunning, TooLarge, VdfsError
from vdfs.wire import jsonrpc

TIMEOUT_S: Final = 30.0
RECEIVE_BYTES: Final = 1 << 16
ADDRESS_BYTES_MAX: Final = 107  # sun_path, less its NUL
_UCRED: Final = struct.Struct("=iII")


class RpcError(VdfsError):
    """The running process answered with an error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    @property
    def kind(self) -> str:
        """The kind of the error on the other side, as its class was called there."""
        named = self.data.get("kind") if isinstance(self.data, dict) else None
        return named if isinstance(named, str) else type(self).__name__


class RpcClient:
    """A connection. `timeout_s` bounds each call as a whole; None waits as long as it takes."""

    def __init__(self, path: str | os.PathLike[str], timeout_s: float | None = TIMEOUT_S) -> None:
        """Connect. Raises NotRunning when nobody listens at `path`."""
        self._path = os.fspath(path)
        self._timeout_s = timeout_s
        self._last_id = 0
        self._lines = jsonrpc.Lines(jsonrpc.MAX_REPLY_BYTES)
        self._waiting: list[bytes] = []  # whole lines that came together with one we took
        self._sock = _connect(self._path, _deadline(timeout_s))

    def call(self, method: str, params: jsonrpc.Json | None = None) -> Any:
        """Call and wait for the result."""
        self._last_id += 1
        line = jsonrpc.encode(jsonrpc.request(self._last_id, method, params))
        if len(line) > jsonrpc.MAX_LINE_BYTES:
            raise TooLarge(f"{method}: the request has {len(line)} bytes, at most {jsonrpc.MAX_LINE_BYTES} go at once")
        deadline = _deadline(self._timeout_s)
        try:
            # A server that refuses us answers and closes before it reads: its answer says more than EPIPE.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._limit(deadline)
                self._sock.sendall(line + b"\n")
            while True:
                message = jsonrpc.decode(self._next_line(deadline))
                if isinstance(message, dict) and self._is_mine(message):
                    break
        except TimeoutError:
            raise Deadline(f"{method}: no answer from {self._path} in time") from None
        except OSError as error:
            raise NotRunning(f"{method}: the connection to {self._path} broke: {error.strerror}") from error
        if "error" not in message:
            return message.get("result")
        facts = message["error"] if isinstance(message["error"], dict) else {}
        raise RpcError(facts.get("code", jsonrpc.INTERNAL_ERROR), str(facts.get("message")), facts.get("data"))

    def close(self) -> None:
        self._sock.close()

    def __enter__(self) -> "RpcClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_mine(self, message: jsonrpc.Json) -> bool:
        """Ours by its id; an error without id is about the connection, so it is ours as well."""
        id = message.get("id")
        return id == self._last_id or (id is None and "error" in message)

    def _next_line(self, deadline: float | None) -> bytes:
        while not self._waiting:
            self._limit(deadline)
            data = self._sock.recv(RECEIVE_BYTES)
            if not data:
                raise NotRunning(f"the process behind {self._path} went away before it answered")
            self._waiting = self._lines.feed(data)
            if self._lines.overflow:
                raise TooLarge(f"the answer is longer than {jsonrpc.MAX_REPLY_BYTES} bytes; ask for less at a time")
        return self._waiting.pop(0)

    def _limit(self, deadline: float | None) -> None:
        if deadline is None:
            self._sock.settimeout(None)
            return
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)


def _deadline(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _connect(path: str, deadline: float | None) -> socket.socket:
    """A connected socket. A full queue of the listener is waited for, until the deadline."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        while True:
            try:
                _connect_once(sock, path)
                return sock
            except BlockingIOError:
                if deadline is not None and time.monotonic() > deadline:
                    raise Deadline(f"the process behind {path} accepts nobody") from None
                time.sleep(0.01)
    except OSError as error:
        sock.close()
        raise NotRunning(f"nobody answers on {path}: {error.strerror or error}") from error
    except BaseException:
        sock.close()
        raise


def listener_pid(path: str) -> int | None:
    """The process that listens at a socket, as the kernel numbers it here: 0 where it is not seen from here. None:
    nobody listens."""
    try:
        sock = _connect(path, _deadline(1.0))
    except (NotRunning, Deadline):
        return None
    with sock:
        return peer(sock.getsockopt)[0]


def peer(getsockopt: Callable[[int, int, int], bytes]) -> tuple[int, int, int]:
    """(pid, uid, gid) at the other end of a socket, of any library, as the kernel noted them."""
    pid, uid, gid = _UCRED.unpack(getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(pid), int(uid), int(gid)


def _connect_once(sock: socket.socket, path: str) -> None:
    sock.setblocking(False)  # connect on a Unix socket is done or refused at once
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        sock.connect(path)
        return
    directory, name = os.path.split(path)
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.connect(f"/proc/self/fd/{directory_fd}/{name}")
    finally:
        os.close(directory_fd)
