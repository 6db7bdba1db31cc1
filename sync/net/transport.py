"""Streams of bytes between devices, whatever carries them; and the first carrier, TCP.

A `Stream` is what a channel needs of a carrier, and no more: send, receive, tell that nothing more comes, close. Other
carriers (a relay, QUIC) come in by the same door; tests/contract/transport holds all of them to the same promises:

- Bytes arrive in their order. `receive_into` gives 0 once the other side has sent its end, and not before.
- `send_all` waits while the other side does not read, so nothing piles up here.
- A cancelled `receive_into` has lost nothing. A cancelled `send_all` may have sent a part: the stream is broken then,
  and says so to whoever sends again.
- A stream that broke raises LinkClosed. Nobody there is Unreachable, no answer in time is Deadline.

Source: tcp(7), socket(7); https://lwn.net/Articles/560082/ (TCP_NOTSENT_LOWAT).
"""

import contextlib
import errno
import os
import socket
from typing import Any, Final, Protocol

import trio

from index.model.errors import Deadline, LinkClosed, Unreachable
from sync.net.addresses import Endpoint

#: Unsent bytes that the kernel may hold: few, so that what is urgent is decided here and not in its queue.
UNSENT_BYTES: Final = 128 << 10
USER_TIMEOUT_MS: Final = 8_000
_KEEPALIVE_S: Final = (5, 2, 3)  # idle, then every, then so often
_BACKLOG: Final = 128
_ACCEPT_AGAIN: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ECONNABORTED, errno.EINTR}
_NO_ROOM_S: Final = 0.1


class Stream(Protocol):
    """Bytes in both directions."""

    @property
    def peer(self) -> str:
        """Where the other end is, for logs and for limits by source: an address without a port."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; waits while the other side does not take it."""

    def send_now(self, data: memoryview) -> int:
        """Send as much as goes out without waiting, which may be nothing; how much that was. Never fails: the next
        `send_all` will. Not while another one sends."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte into `buffer`, and how many they were; 0 at the end."""

    async def send_eof(self) -> None:
        """Nothing more will be sent; receiving goes on."""

    async def aclose(self) -> None:
        """End both directions at once. What was sent may still be on its way."""


class Listener(Protocol):
    """Where others can reach us."""

    async def accept(self) -> Stream:
        """The next one who comes."""

    async def aclose(self) -> None:
        """Nobody comes any more."""


class TcpStream:
    """A TCP connection. Takes over the socket."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        self._is_broken = False
        prepare(sock)
        try:
            self._peer: str = sock.getpeername()[0]
        except OSError:
            self._peer = "?"  # gone already; the first read will say so

    @property
    def peer(self) -> str:
        return self._peer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_broken:
            raise LinkClosed(f"the connection to {self._peer} is broken")
        self._is_broken = True  # unless all of it goes out
        with memoryview(data) as rest:
            sent = 0
            try:
                while sent < len(rest):
                    with rest[sent:] as part:
                        sent += await self._sock.send(part)
            except (OSError, trio.ClosedResourceError) as error:
                raise self._broken(error) from error
        self._is_broken = False

    def send_now(self, data: memoryview) -> int:
        if self._is_broken:
            return 0
        try:
            return os.write(self._sock.fileno(), data)
        except OSError:  # full, or broken
            return 0

    async def receive_into(self, buffer: memoryview) -> int:
        try:
            return await self._sock.recv_into(buffer)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._broken(error) from error

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._sock.close()
        await trio.lowlevel.checkpoint()

    def _broken(self, error: Exception) -> LinkClosed:
        told = error.strerror if isinstance(error, OSError) else "closed here"
        return LinkClosed(f"the connection to {self._peer} broke: {told}")


class TcpListener:
    """A TCP port that is listened on."""

    def __init__(self, sock: trio.socket.SocketType) -> None:
        self._sock = sock
        host, port = sock.getsockname()[:2]
        self.endpoint = Endpoint(host, port)

    async def accept(self) -> TcpStream:
        while True:
            try:
                sock, _ = await self._sock.accept()
            except trio.ClosedResourceError as error:
                raise LinkClosed("nobody is listened for any more") from error
            except OSError as error:
                if error.errno not in _ACCEPT_AGAIN:
                    raise LinkClosed(f"the port cannot be listened on any more: {error.strerror}") from error
                await trio.sleep(_NO_ROOM_S)
                continue
            return TcpStream(sock)

    async def aclose(self) -> None:
        self._sock.close()
        await trio.lowlevel.checkpoint()


async def listen_tcp(endpoint: Endpoint) -> TcpListener:
    """Listen at an address; port 0 lets the kernel choose. Unreachable when it cannot be had."""
    try:
        family, where = await _resolved(endpoint)
        sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(where)
            sock.listen(_BACKLOG)
            return TcpListener(sock)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise Unreachable(f"{endpoint} cannot be listened on: {error.strerror}") from error


async def dial_tcp(endpoint: Endpoint, deadline_s: float) -> TcpStream:
    """Connect within `deadline_s` seconds, a name's look-up included.

    Unreachable when nobody is there, Deadline when nobody answers.
    """
    try:
        with trio.fail_after(deadline_s):
            family, where = await _resolved(endpoint)
            sock = trio.socket.socket(family, socket.SOCK_STREAM)
            try:
                await sock.connect(where)
                return TcpStream(sock)
            except BaseException:
                sock.close()
                raise
    except trio.TooSlowError:
        raise Deadline(f"no answer from {endpoint} within {deadline_s:g} s") from None
    except OSError as error:
        raise Unreachable(f"{endpoint} cannot be reached: {error.strerror}") from error


async def _resolved(endpoint: Endpoint) -> tuple[int, Any]:
    """Family and socket address. Of numbers at once; a name is looked up, in a thread that nobody waits for."""
    if not endpoint.host or "\0" in endpoint.host:  # the C library would take it for another one
        raise OSError(errno.EINVAL, "that is no address")
    try:
        found = await trio.socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (UnicodeError, OverflowError) as error:
        raise OSError(errno.EINVAL, "that is no address") from error
    family, _, _, _, where = found[0]
    return family, where


def prepare(sock: trio.socket.SocketType) -> None:
    """Options of a connection: nothing waits to be sent with more, and a dead one is noticed in seconds."""
    idle_s, interval_s, count = _KEEPALIVE_S
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_s),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_s),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
        (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES),
        # Keeps 0.99 of a link that loses one packet in 200, where the usual one keeps 0.13; not every kernel has it.
        (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr"),
    ):
        with contextlib.suppress(OSError):
            sock.setsockopt(level, option, value)
