"""A handshake carried over a stream, within its time.

Not a byte more is read than belongs to it: what follows is the channel's. Kept out: what is said (`handshake`), and
what becomes of those who fail (the acceptor).
"""

from typing import Final

import trio

from index.model.errors import Deadline, HandshakeFailed
from sync.net.transport import Stream
from sync.wire.handshake import Exchange, Secured

HANDSHAKE_S: Final = 10.0
_PIECE_BYTES: Final = 2048


async def shake_hands(stream: Stream, exchange: Exchange, deadline_s: float = HANDSHAKE_S) -> Secured:
    """Where the handshake led. HandshakeFailed when it fails, Deadline when it takes longer than `deadline_s`.

    Somebody who failed is sent what the exchange says, which is nothing, but for two versions that cannot meet.
    """
    buffer = memoryview(bytearray(_PIECE_BYTES))
    try:
        with trio.fail_after(deadline_s):
            await _send_outgoing(stream, exchange)
            while exchange.wanted:
                count = await stream.receive_into(buffer[: exchange.wanted])
                if not count:
                    raise HandshakeFailed(f"{stream.peer} hung up during the handshake")
                try:
                    exchange.receive(bytes(buffer[:count]))
                finally:
                    await _send_outgoing(stream, exchange)
    except trio.TooSlowError:
        raise Deadline(f"{stream.peer} did not finish the handshake within {deadline_s:g} s") from None
    assert exchange.result is not None
    return exchange.result


async def _send_outgoing(stream: Stream, exchange: Exchange) -> None:
    data = exchange.outgoing()
    if data:
        await stream.send_all(data)
