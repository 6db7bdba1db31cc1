"""A handshake carried over a stream, within its time.

When it is done the initiator sends one empty record at once, and the responder waits for it: a first message that was
recorded and sent again leads as far as the keys and no further, since whoever sends it does not have them. So nothing
may replace a link, or be counted as a device that is there, before `shake_hands` has returned.

Not a byte more is read than belongs to it: what follows is the channel's. Kept out: what is said (`handshake`), and
what becomes of those who fail (the acceptor).
"""

from collections.abc import Callable
from typing import Final

import trio

from index.model.errors import Deadline, HandshakeFailed, ProtocolError
from sync.net.transport import Stream
from sync.wire.handshake import Exchange, Secured
from sync.wire.records import OVERHEAD_BYTES, Opener

HANDSHAKE_S: Final = 10.0


async def shake_hands(
    stream: Stream,
    exchange: Exchange,
    deadline_s: float = HANDSHAKE_S,
    may_finish: Callable[[], bool] = lambda: True,
) -> Secured:
    """Where the handshake led. HandshakeFailed when it fails, Deadline when it takes longer than `deadline_s`.

    Somebody who failed is sent what the exchange says, which is nothing, but for two versions that cannot meet.
    `may_finish` is asked once the other side has proven itself, before it is told the rest: of several handshakes with
    one device one is finished.
    """
    try:
        with trio.fail_after(deadline_s):
            await _send_outgoing(stream, exchange)
            while exchange.wanted:
                data = await _receive(stream, exchange.wanted)
                is_wanted = True
                try:
                    exchange.receive(data)
                    is_wanted = exchange.result is None or may_finish()
                finally:
                    if is_wanted:
                        await _send_outgoing(stream, exchange)
                if not is_wanted:
                    raise HandshakeFailed("another handshake was quicker")
            assert exchange.result is not None
            if exchange.result.is_initiator:
                await stream.send_all(exchange.result.sealer.seal(b""))
            else:
                await _receive_proof(stream, exchange.result.opener)
    except trio.TooSlowError:
        raise Deadline(f"{stream.peer} did not finish the handshake within {deadline_s:g} s") from None
    return exchange.result


async def _receive_proof(stream: Stream, opener: Opener) -> None:
    left = OVERHEAD_BYTES
    while left:
        left -= opener.feed(await _receive(stream, left))
    try:
        if opener.waiting() != 0:
            raise ProtocolError("the first record is not empty")
        opener.open()
    except ProtocolError as error:
        raise HandshakeFailed(str(error)) from None


async def _receive(stream: Stream, wanted: int) -> bytes:
    """Some bytes, at most so many. HandshakeFailed at the end of the stream."""
    buffer = bytearray(wanted)
    count = await stream.receive_into(memoryview(buffer))
    if not count:
        raise HandshakeFailed(f"{stream.peer} hung up during the handshake")
    return bytes(buffer[:count])


async def _send_outgoing(stream: Stream, exchange: Exchange) -> None:
    data = exchange.outgoing()
    if data:
        await stream.send_all(data)
