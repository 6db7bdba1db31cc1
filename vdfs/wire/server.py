"""JSON-RPC on a Unix socket, under trio: the glue between `jsonrpc.ServerProtocol` and one dispatch function.

In: a path and `async dispatch(method, params) -> result`. Out: replies. The invariant: nothing a client
does, and no bug in an operation, ends the server or another client's connection.

**Who may come in.** The socket has mode 0600, its directory belongs to us and has mode 0700, and the kernel
is asked for every peer by SO_PEERCRED: our own uid or root. A socket that lies there already is replaced
only when nobody answers on it.

**What a client can cost us.** MAX_CLIENTS connections; on each MAX_IN_FLIGHT lines at work (a batch counts
as one, its calls run one after the other), and while so many are at work no more are read. A client that
does not read its replies is closed after WRITE_STALL_S without progress. A client that has gone takes its
unfinished requests with it; one that only closed its sending half still gets its replies.

**Replies come as they are ready**, not in the order of the requests: ids pair them.

A socket address holds 107 bytes. Longer paths are reached through a descriptor of their directory, as
`/proc/self/fd/<n>/<name>`.

Source: unix(7), proc(5), https://www.jsonrpc.org/specification.
"""

import contextlib
import errno
import fcntl
import logging
import os
import select
import socket
import stat
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import trio

from index.model.errors import AccessDenied, Busy, Exists, Invalid, OsFailure, TooLarge, VdfsError
from vdfs.wire import jsonrpc
from vdfs.wire.client import ADDRESS_BYTES_MAX, peer

Dispatch = Callable[[str, Any], Awaitable[Any]]

MAX_CLIENTS: Final = 64
MAX_IN_FLIGHT: Final = 16
WRITE_STALL_S: Final = 30.0
HANG_UP_LOOK_S: Final = 0.25  # how soon a client that went away is noticed while its requests run
GOODBYE_S: Final = 1.0  # how long a refused client may go on sending before we close on it
RECEIVE_BYTES: Final = 1 << 16
SECRET: Final = frozenset(("action:device.join",))  # whose params are for no log
LOGGED_CHARS: Final = 300  # of the params, when an operation fails for a reason of its own

log = logging.getLogger(__name__)


async def serve(
    path: str | os.PathLike[str],
    dispatch: Dispatch,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; started when the first client can connect. The socket file goes with the server.

    Raises Busy when somebody answers at `path`, Exists when something else lies there, AccessDenied when its
    directory is open to others, Invalid when the name is too long.
    """
    with _listening(os.fspath(path)) as listener:
        doorkeeper = _Doorkeeper(trio.socket.from_stdlib_socket(listener), dispatch)
        await doorkeeper.run(task_status)


class _Doorkeeper:
    """Accepts clients, at most MAX_CLIENTS at a time, and turns away whom we do not know."""

    def __init__(self, listener: trio.socket.SocketType, dispatch: Dispatch) -> None:
        self._listener = listener
        self._dispatch = dispatch
        self._clients = 0

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                try:
                    sock, _ = await self._listener.accept()
                except OSError as error:
                    if error.errno not in _ACCEPT_AGAIN:
                        raise
                    log.warning("a client could not be accepted: %s", error)
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._meet, sock)

    async def _meet(self, sock: trio.socket.SocketType) -> None:
        with sock:
            refusal: VdfsError | None = None
            uid = peer_uid(sock)
            if not is_welcome(uid, os.geteuid()):
                refusal = AccessDenied(f"this socket serves user {os.geteuid()} only, not user {uid}")
            elif self._clients >= MAX_CLIENTS:
                refusal = Busy(f"{MAX_CLIENTS} clients are connected already; try again later")
            if refusal is not None:
                log.warning("a client is refused: %s", refusal)
                with contextlib.suppress(OSError):
                    await sock.send(jsonrpc.encode(jsonrpc.error_reply(None, refusal)) + b"\n")
                return
            self._clients += 1
            try:
                await _Client(sock, self._dispatch).run()
            except Exception:
                log.exception("a client's connection ended by a bug of ours")
            finally:
                self._clients -= 1


class _Client:
    """One connection: reads lines, runs the calls in its own nursery, writes the replies one at a time."""

    def __init__(self, sock: trio.socket.SocketType, dispatch: Dispatch) -> None:
        self._sock = sock
        self._dispatch = dispatch
        self._scope = trio.CancelScope()
        self._slots = trio.Semaphore(MAX_IN_FLIGHT, max_value=MAX_IN_FLIGHT)
        self._write_lock = trio.Lock()

    async def run(self) -> None:
        """Ends when the peer is done and answered, has gone, or broke a limit. Cancelled, drops its calls."""
        protocol = jsonrpc.ServerProtocol()
        with self._scope:
            async with trio.open_nursery() as watch:
                async with trio.open_nursery() as work:
                    while protocol.is_open:
                        data = await self._receive()
                        for event in protocol.receive(data) if data else protocol.closed():
                            await self._slots.acquire()
                            work.start_soon(self._answer, event)
                    watch.start_soon(self._watch_for_hang_up)
                watch.cancel_scope.cancel()
            if data:
                await self._say_goodbye()

    async def _receive(self) -> bytes:
        try:
            return await self._sock.recv(RECEIVE_BYTES)
        except OSError:  # reset: nobody is left to answer
            self._scope.cancel()
            return b""

    async def _watch_for_hang_up(self) -> None:
        """While the last answers are made: end when nobody is left to read them. No event tells, so look."""
        while not _has_hung_up(self._sock):  # noqa: ASYNC110
            await trio.sleep(HANG_UP_LOOK_S)
        self._scope.cancel()

    async def _say_goodbye(self) -> None:
        """Let the peer read why: a close with unread input would reset its side before it has."""
        with contextlib.suppress(OSError), trio.move_on_after(GOODBYE_S):
            self._sock.shutdown(socket.SHUT_WR)
            while await self._sock.recv(RECEIVE_BYTES):
                pass

    async def _answer(self, event: jsonrpc.Event) -> None:
        try:
            if isinstance(event, jsonrpc.Batch):
                line = await self._batch_line(event)
            else:
                line = await self._call_line(event, jsonrpc.MAX_REPLY_BYTES)
            if line is not None:
                await self._send(line + b"\n")
        finally:
            self._slots.release()

    async def _batch_line(self, batch: jsonrpc.Batch) -> bytes | None:
        lines, room_bytes = [], jsonrpc.MAX_REPLY_BYTES
        for call in batch.calls:
            line = await self._call_line(call, room_bytes)
            if line is not None:
                lines.append(line)
                room_bytes = max(0, room_bytes - len(line))
        return b"[" + b",".join(lines) + b"]" if lines else None

    async def _call_line(self, call: jsonrpc.Call, room_bytes: int) -> bytes | None:
        """The reply to one call as JSON; None for a notification, whatever came of it."""
        if isinstance(call, jsonrpc.Refusal):
            return jsonrpc.encode(jsonrpc.error_reply(call.id, call.error))
        id = call.id if isinstance(call, jsonrpc.Request) else None
        try:
            result = await self._dispatch(call.method, call.params)
            line = jsonrpc.encode(jsonrpc.reply(id, result))
            if len(line) > room_bytes:
                raise TooLarge(f"the answer to {call.method} has {len(line)} bytes; ask for less at a time")
        except Exception as error:
            expected = _only_error(error)
            if not isinstance(expected, VdfsError):
                params = "not told" if call.method in SECRET else ascii(call.params)
                log.exception("%s failed; its params: %.*s", call.method, LOGGED_CHARS, params)
            line = jsonrpc.encode(jsonrpc.error_reply(id, expected))
        return line if isinstance(call, jsonrpc.Request) else None

    async def _send(self, line: bytes) -> None:
        """Write all of `line`, or end the connection. Cancelled in the middle, the connection ends too."""
        rest = memoryview(line)
        async with self._write_lock:
            try:
                while rest:
                    with trio.fail_after(WRITE_STALL_S):
                        rest = rest[await self._sock.send(rest) :]
            except trio.TooSlowError:
                log.warning("a client did not read its replies for %.0f s; closing it", WRITE_STALL_S)
                self._scope.cancel()
            except OSError:
                self._scope.cancel()


# -- Who is there

_ACCEPT_AGAIN = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EINTR}


def peer_uid(sock: trio.socket.SocketType | socket.socket) -> int:
    """The user behind the other end, as the kernel noted it when it connected."""
    return peer(sock.getsockopt)[1]


def is_welcome(uid: int, own_uid: int) -> bool:
    return uid in (own_uid, 0)


def _has_hung_up(sock: trio.socket.SocketType) -> bool:
    """Whether the peer closed the whole connection, not only its sending half."""
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # POLLHUP and POLLERR are always reported
    return bool(poll.poll(0))


def _only_error(error: Exception) -> Exception:
    """The one error inside nested groups of one: operations that use a nursery raise their errors so."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


# -- The socket file


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """A listening socket at `path`, whose file is removed at the end if it is still ours."""
    directory, name = os.path.split(os.path.abspath(path))
    directory_fd = _open_directory(directory)
    try:
        listener, identity = _bind(directory_fd, name, path)
        try:
            yield listener
        finally:
            listener.close()
            if _identity(directory_fd, name) == identity:
                os.unlink(name, dir_fd=directory_fd)
    finally:
        os.close(directory_fd)


def _open_directory(directory: str) -> int:
    """A descriptor of the socket's directory, made when missing; refused when others can reach into it."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _os_failure(error, f"the socket's directory {directory} cannot be used") from error
    facts = os.fstat(fd)
    if facts.st_uid == os.geteuid() and not stat.S_IMODE(facts.st_mode) & 0o077:
        return fd
    os.close(fd)
    raise AccessDenied(
        f"the socket's directory {directory} is open to others (owner {facts.st_uid}, mode "
        f"{stat.S_IMODE(facts.st_mode):04o}); make it yours with mode 0700"
    )


def _bind(directory_fd: int, name: str, path: str) -> tuple[socket.socket, tuple[int, int] | None]:
    """A listening socket with mode 0600. Until it listens, clients are refused as if nobody were here."""
    address = path if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX else f"/proc/self/fd/{directory_fd}/{name}"
    if len(os.fsencode(address)) > ADDRESS_BYTES_MAX:
        raise Invalid(f"the socket's file name is too long: {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # One server at a time: between the look at an old socket and its replacement nobody puts a new one there.
    fcntl.flock(directory_fd, fcntl.LOCK_EX)
    try:
        _make_way(directory_fd, name, address, path)
        listener.bind(address)
        os.chmod(name, 0o600, dir_fd=directory_fd)
        listener.listen(MAX_CLIENTS)
        return listener, _identity(directory_fd, name)
    except OSError as error:
        listener.close()
        raise _os_failure(error, f"no socket can be made at {path}") from error
    except BaseException:
        listener.close()
        raise
    finally:
        fcntl.flock(directory_fd, fcntl.LOCK_UN)


def _make_way(directory_fd: int, name: str, address: str, path: str) -> None:
    """Remove a socket on which nobody answers. Busy when somebody does, Exists when it is no socket."""
    try:
        mode = os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Exists(f"{path} is in the way of the socket; move it aside")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            os.unlink(name, dir_fd=directory_fd)
            return
        except BlockingIOError:
            raise Busy(f"another process answers on {path}; end it first") from None  # its queue is full
        pid = peer(probe.getsockopt)[0]
    raise Busy(f"process {pid} answers on {path}: it serves this library, or another copy of it; end that one first")


def _identity(directory_fd: int, name: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _os_failure(error: OSError, text: str) -> VdfsError:
    return OsFailure(error.errno or errno.EIO, f"{text}: {error.strerror}")
