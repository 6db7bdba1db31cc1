"""Devices that are linked by real channels over streams in memory: the log at work."""

from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio
import trio.testing

from sync.log.events import Events
from sync.log.hub import NoPace, Peer
from sync.log.keeper import Keeper
from sync.log.messages import LOG_CODEC
from sync.log.replicator import Replicator
from sync.net.channel import Channel
from sync.net.shaking import shake_hands
from sync.wire.handshake import answer_paired, dial_paired
from tests.fakes.memory import memory_pair
from tests.sync.world import LIBRARY, Device, introduce


class Node(Device):
    """A device with its replicator."""

    def open(self) -> None:
        super().open()
        self.events = Events()
        self.keeper = Keeper(self.store, self.out)
        self.replicator = Replicator(self.store, self.into, self.keeper, pace=NoPace(), events=self.events)


@contextmanager
def made(directory: Path, names: str):
    """Devices of these names, of one letter each, which know each other's keys."""
    nodes = [Node(directory, name) for name in names]
    introduce(*nodes)
    yield nodes
    for node in nodes:
        node.store.close()


def run(main) -> None:
    """With a clock that leaps."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


@asynccontextmanager
async def running(*nodes: Node):
    """The tasks of some devices."""
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.replicator.run)
        yield nursery
        nursery.cancel_scope.cancel()


async def connect(nursery: trio.Nursery, one: Node, other: Node):
    """A link between two devices; returns its ends, to be cut."""
    streams = memory_pair()

    async def end(node: Node, stream, exchange, device: bytes) -> None:
        secured = await shake_hands(stream, exchange)
        peer: list[Peer] = []

        async def handle(call) -> None:
            await node.replicator.serve(peer[0], call)

        async def notified(message) -> None:
            await node.replicator.notified(peer[0], message)

        channel = Channel(stream, secured, LOG_CODEC, handle, notified)
        peer.append(Peer(device, channel))
        async with trio.open_nursery() as inner:
            inner.start_soon(channel.run)
            await node.replicator.link(peer[0])
            inner.cancel_scope.cancel()

    dialled = dial_paired(one.keys, device=one.uuid, library=LIBRARY, remote_static=other.keys.static_key)
    answered = answer_paired(other.keys, lambda static, library, device: True)
    nursery.start_soon(end, one, streams[0], dialled, other.uuid)
    nursery.start_soon(end, other, streams[1], answered, one.uuid)
    return streams


async def quiet(*nodes: Node) -> None:
    """Wait until everybody has what the others have."""
    with trio.fail_after(120):
        while True:
            await trio.sleep(1)
            lacking = [line for node in nodes for line in await node.replicator.lacks()]
            stalled = [s for node in nodes for peer in node.replicator.peers.values() for s in peer.stalled]
            if not lacking and not stalled:
                return
