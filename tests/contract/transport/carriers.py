"""The carriers that there are."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import trio

from sync.net.addresses import Endpoint
from sync.net.transport import Listener, Stream, dial_tcp, listen_tcp
from tests.fakes.memory import MemoryListener


class Carrier(NamedTuple):
    """How to listen, and how to reach who listens: `dial(listener)`."""

    name: str
    listen: Callable
    dial: Callable


async def _listen_tcp() -> Listener:
    return await listen_tcp(Endpoint("127.0.0.1", 0))


async def _listen_tcp6() -> Listener:
    return await listen_tcp(Endpoint("::1", 0))


async def _dial_tcp(listener) -> Stream:
    return await dial_tcp(listener.endpoint, 5.0)


async def _listen_memory() -> Listener:
    return MemoryListener()


async def _dial_memory(listener) -> Stream:
    return await listener.dial()


CARRIERS = (
    Carrier("tcp", _listen_tcp, _dial_tcp),
    Carrier("tcp over IPv6", _listen_tcp6, _dial_tcp),
    Carrier("memory", _listen_memory, _dial_memory),
)


@contextlib.asynccontextmanager
async def two_ends(carrier: Carrier) -> AsyncIterator[tuple[Stream, Stream]]:
    """Who dialled, and who was dialled."""
    listener = await carrier.listen()
    ends = {}

    async def accept():
        ends["other"] = await listener.accept()

    async def dial():
        ends["one"] = await carrier.dial(listener)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            nursery.start_soon(dial)
        yield ends["one"], ends["other"]
    finally:
        with trio.CancelScope(shield=True):
            for end in ends.values():
                await end.aclose()
            await listener.aclose()
