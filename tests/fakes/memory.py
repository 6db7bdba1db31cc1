"""A stream of bytes inside this process: what a simulation runs over, and tests that want no kernel between.

It keeps the promises of sync/net/transport.py, with a buffer as small as one likes. `cut` breaks it as a pulled cable
would, and both ends hear of it at once.
"""

import trio

from index.model.errors import LinkClosed, Unreachable


class _Pipe:
    """One direction."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.data = bytearray()
        self.is_ended = False
        self.is_broken = False
        self.changed = trio.lowlevel.ParkingLot()


class MemoryStream:
    """One end."""

    def __init__(self, inward: _Pipe, outward: _Pipe, peer: str) -> None:
        self.peer = peer
        self._in = inward
        self._out = outward
        self._is_broken = False
        self._is_closed = False

    async def send_all(self, data):
        if self._is_broken or self._is_closed:
            raise LinkClosed("the stream is broken")
        self._is_broken = True  # unless all of it goes out
        await trio.lowlevel.checkpoint()
        rest, out = memoryview(data), self._out
        while True:
            if out.is_broken or out.is_ended or self._is_closed:
                raise LinkClosed("the stream broke")
            room = out.capacity_bytes - len(out.data)
            out.data += rest[:room]
            rest = rest[room:]
            out.changed.unpark_all()
            if not rest:
                break
            await out.changed.park()
        self._is_broken = False

    def send_now(self, data):
        out = self._out
        if self._is_broken or self._is_closed or out.is_broken or out.is_ended:
            return 0
        room = min(out.capacity_bytes - len(out.data), len(data))
        out.data += data[:room]
        out.changed.unpark_all()
        return room

    async def receive_into(self, buffer):
        await trio.lowlevel.checkpoint()
        pipe = self._in
        while not pipe.data or self._is_closed:
            if pipe.is_broken or self._is_closed:
                raise LinkClosed("the stream broke")
            if pipe.is_ended:
                return 0
            await pipe.changed.park()
        count = min(len(buffer), len(pipe.data))
        buffer[:count] = pipe.data[:count]
        del pipe.data[:count]
        pipe.changed.unpark_all()
        return count

    async def send_eof(self):
        await trio.lowlevel.checkpoint()
        self._out.is_ended = True
        self._out.changed.unpark_all()

    async def aclose(self):
        self._is_closed = True
        self._in.is_broken = True
        self._in.changed.unpark_all()
        self._out.is_ended = True
        self._out.changed.unpark_all()
        await trio.lowlevel.checkpoint()

    def cut(self):
        """Break both directions."""
        for pipe in (self._in, self._out):
            pipe.is_broken = True
            pipe.data.clear()
            pipe.changed.unpark_all()


def memory_pair(capacity_bytes: int = 1 << 16) -> tuple[MemoryStream, MemoryStream]:
    """Two ends of one stream."""
    there, back = _Pipe(capacity_bytes), _Pipe(capacity_bytes)
    return MemoryStream(back, there, "memory-a"), MemoryStream(there, back, "memory-b")


class MemoryListener:
    """Where `dial` arrives."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[MemoryStream](16)

    async def accept(self):
        try:
            return await self._receive.receive()
        except trio.ClosedResourceError:
            raise LinkClosed("nobody is listened for any more") from None

    async def aclose(self):
        self._receive.close()
        await trio.lowlevel.checkpoint()

    async def dial(self):
        ours, theirs = memory_pair()
        try:
            await self._send.send(theirs)
        except trio.BrokenResourceError:
            raise Unreachable("nobody is there") from None
        return ours
