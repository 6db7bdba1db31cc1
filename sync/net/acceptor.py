"""Letting others in: whoever connects has to show within seconds who he is, and cannot crowd out the others until then.

In: a listener, and `exchange()`, which makes the answering side of a handshake. Out: `met(stream, secured)`, a task for
each device that has shaken hands, from then on as long as it wants. Before that a connection is *half open*:

- at most MAX_HALF_OPEN of them, MAX_HALF_OPEN_A_SOURCE from one address; who comes beyond is closed on at once;
- each has HANDSHAKE_S, however it spends them, and 2 KiB of memory;
- whoever fails is left standing for REFUSED_S, counted from the moment he came, and then closed on without a word:
  a stranger, a device that is not admitted, a wrong key and garbage look the same, in bytes and in time.

For IPv6 a source is the /64, which one customer has.

Nothing a stranger does, and no bug in a task of one device, ends the acceptor. Kept out: links and what runs on them.
"""

import ipaddress
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from index.model.errors import LinkClosed, VdfsError
from sync.net.shaking import HANDSHAKE_S, shake_hands
from sync.net.transport import Listener, Stream
from sync.wire.handshake import Exchange, Secured

MAX_HALF_OPEN: Final = 64
MAX_HALF_OPEN_A_SOURCE: Final = 8
REFUSED_S: Final = 1.0

Met = Callable[[Stream, Secured], Awaitable[None]]

log = logging.getLogger(__name__)


class Acceptor:
    """One listener at work. `serve` runs until cancelled, or until nobody can come any more."""

    def __init__(self, listener: Listener, exchange: Callable[[], Exchange], met: Met) -> None:
        self._listener = listener
        self._exchange = exchange
        self._met = met
        self._half_open: Counter[str] = Counter()

    @property
    def half_open(self) -> int:
        """How many have connected and not shaken hands yet."""
        return self._half_open.total()

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let in whoever may come in. The listener is closed at the end."""
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    try:
                        stream = await self._listener.accept()
                    except LinkClosed as error:
                        log.warning("nobody can connect any more: %s", error)
                        break
                    source = source_of(stream.peer)
                    if self.half_open >= MAX_HALF_OPEN or self._half_open[source] >= MAX_HALF_OPEN_A_SOURCE:
                        await stream.aclose()
                        continue
                    self._half_open[source] += 1
                    nursery.start_soon(self._meet, stream, source)
        finally:
            with trio.CancelScope(shield=True):
                await self._listener.aclose()

    async def _meet(self, stream: Stream, source: str) -> None:
        try:
            try:
                secured = await self._shake(stream)
            finally:
                self._half_open[source] -= 1
                if not self._half_open[source]:
                    del self._half_open[source]
            if secured is not None:
                await self._met(stream, secured)
        except VdfsError as error:
            log.info("a link to %s ended: %s", source, error)
        except Exception:
            log.exception("a link to %s ended by a bug of ours", source)
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()

    async def _shake(self, stream: Stream) -> Secured | None:
        """None after a failure, at a time that says nothing of its reason."""
        came_s = trio.current_time()
        try:
            return await shake_hands(stream, self._exchange(), HANDSHAKE_S)
        except VdfsError as error:
            log.debug("%s did not get in: %s", stream.peer, error)
            await trio.sleep_until(came_s + REFUSED_S)
            return None


def source_of(peer: str) -> str:
    """Who is counted as one: an address, of IPv6 its first half."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.version == 4:
        return peer
    return str(ipaddress.ip_network((address, 64), strict=False).network_address)
