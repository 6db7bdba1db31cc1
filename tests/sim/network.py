"""Network: what lies between the devices: delay, loss, links that flap, pairs that do not hear each other for a while.

In: who dials whom, and what the story does to the ways between pairs. Out: streams that keep the promises of
sync/net/transport.py. Bytes of one stream come in their order or not at all; what a network does worse than that, it
does to whole links: one is cut, so that both ends hear of it; another falls silent and delivers what it has when the
way is free again, long after a newer one took its place.

`Outside` of a device, as its links see it, is made here: dialing, listening, who is near, chance.
"""

import math
from collections import deque
from collections.abc import Iterable
from random import Random

import trio

from index.model.errors import Deadline, LinkClosed, Unreachable
from sync.net.addresses import Endpoint
from sync.net.announcement import Announcement
from sync.net.outside import Outside
from sync.net.revision import Revision
from tests.sim.chance import Chance

_CAPACITY_BYTES = 1 << 16


class Way:
    """From one device to another: how slow, and whether anything passes."""

    def __init__(self) -> None:
        self.delay_s = 0.01
        self.is_silent = False
        self.pipes: list[Pipe] = []

    def hush(self, silent: bool) -> None:
        """Nothing arrives for a while; what was sent stays on its way."""
        self.is_silent = silent
        for pipe in self.pipes:
            pipe.changed.unpark_all()


class Pipe:
    """One direction of a stream."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.sent: deque[tuple[float, bytes]] = deque()  # when it arrives, what; b"": the end
        self.size = 0
        self.last_s = 0.0
        self.is_broken = False
        self.changed = trio.lowlevel.ParkingLot()
        way.pipes.append(self)

    def put(self, data: bytes) -> None:
        self.last_s = max(self.last_s, trio.current_time() + self.way.delay_s)
        self.sent.append((self.last_s, data))
        self.size += len(data)
        self.changed.unpark_all()

    def due_s(self) -> float:
        """When the next bytes can be taken; infinite while nobody knows."""
        return math.inf if self.way.is_silent or not self.sent else self.sent[0][0]

    def take(self, limit: int) -> bytes:
        at_s, data = self.sent.popleft()
        if not data:  # the end stays
            self.sent.appendleft((at_s, data))
            return b""
        if len(data) > limit:
            self.sent.appendleft((at_s, data[limit:]))
            data = data[:limit]
        self.size -= len(data)
        self.changed.unpark_all()
        return data

    def break_off(self) -> None:
        self.is_broken = True
        self.sent.clear()
        self.changed.unpark_all()
        if self in self.way.pipes:
            self.way.pipes.remove(self)


class SimStream:
    """One end."""

    def __init__(self, inward: Pipe, outward: Pipe, peer: str) -> None:
        self.peer = peer
        self._in = inward
        self._out = outward
        self._is_broken = False
        self._is_closed = False
        self._is_ended = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_broken or self._is_closed or self._is_ended:
            raise LinkClosed("the stream is broken")
        self._is_broken = True  # unless all of it goes out
        await trio.lowlevel.checkpoint()
        rest = bytes(data)
        while rest:
            if self._out.is_broken or self._is_closed:
                raise LinkClosed("the stream broke")
            room = _CAPACITY_BYTES - self._out.size
            if room <= 0:
                await self._out.changed.park()
                continue
            self._out.put(rest[:room])
            rest = rest[room:]
        self._is_broken = False

    def send_now(self, data: memoryview) -> int:
        if self._is_broken or self._is_closed or self._is_ended or self._out.is_broken:
            return 0
        room = min(_CAPACITY_BYTES - self._out.size, len(data))
        if room > 0:
            self._out.put(bytes(data[:room]))
        return max(0, room)

    async def receive_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        while True:
            if self._is_closed or self._in.is_broken:
                raise LinkClosed("the stream broke")
            due_s = self._in.due_s()
            if due_s <= trio.current_time():
                data = self._in.take(len(buffer))
                buffer[: len(data)] = data
                return len(data)
            with trio.CancelScope(deadline=due_s):
                await self._in.changed.park()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._end()

    def _end(self) -> None:
        if not self._is_ended and not self._out.is_broken:
            self._is_ended = True
            self._out.put(b"")

    async def aclose(self) -> None:
        self._is_closed = True
        self._end()
        self._in.break_off()
        await trio.lowlevel.checkpoint()

    def cut(self) -> None:
        """Break both directions; both ends hear of it."""
        self._in.break_off()
        self._out.break_off()


class SimListener:
    """A port of a device."""

    def __init__(self, port: "Port", endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._port = port
        self.send, self._receive = trio.open_memory_channel[SimStream](32)

    async def accept(self) -> SimStream:
        try:
            return await self._receive.receive()
        except (trio.ClosedResourceError, trio.EndOfChannel):
            raise LinkClosed("nobody is listened for any more") from None

    async def aclose(self) -> None:
        self._receive.close()
        self._port.listeners.pop(self.endpoint.port, None)
        await trio.lowlevel.checkpoint()


class _Network:
    """The addresses of a machine, which never change; that something did may be said."""

    def __init__(self) -> None:
        self.revision = Revision()
        self.addresses: frozenset[object] = frozenset()

    async def run(self) -> None:
        await trio.sleep_forever()


class _Near:
    """Who is near, as multicast would say it."""

    def __init__(self, port: "Port") -> None:
        self.revision = Revision()
        self._port = port
        self.announcement: Announcement | None = None

    def announce(self, announcement: Announcement | None) -> None:
        if announcement != self.announcement:
            self.announcement = announcement
            self._port.network.spread(self._port)

    def expect(self, tags: Iterable[bytes], offers: Iterable[bytes] = ()) -> None:
        self.revision.bump()

    def find(self, tag: bytes) -> tuple[Endpoint, ...]:
        found = []
        for other in self._port.network.ports.values():
            told = other.near.announcement
            heard = told is not None and told.tag == tag and other is not self._port
            if heard and not self._port.network.is_apart(self._port, other):
                found.append(Endpoint(other.host, told.port))
        return tuple(found)

    def find_offer(self, offer: bytes) -> tuple[Endpoint, ...]:
        return ()

    async def run(self) -> None:
        await trio.sleep_forever()


class Port:
    """Where a device is plugged in."""

    def __init__(self, network: "Network", name: str, host: str) -> None:
        self.network = network
        self.name = name
        self.host = host
        self.is_up = False
        self.listeners: dict[int, SimListener] = {}
        self.streams: list[SimStream] = []
        self._count = 4000
        self.near = _Near(self)
        self.interfaces = _Network()

    def outside(self, chance: Chance, boot: int) -> Outside:
        """What the links of a device that starts now see."""
        luck: Random = chance.of(f"links/{self.name}/{boot}")
        self.is_up = True
        self.near = _Near(self)
        self.interfaces = _Network()
        return Outside(self.dial, self.listen, self.interfaces, self.near, luck, luck.randbytes)

    def unplug(self) -> None:
        """The device is dead: nothing more leaves it, and all its links are cut."""
        self.is_up = False
        self.near.announcement = None
        for stream in self.streams:
            stream.cut()
        self.streams.clear()
        for listener in list(self.listeners.values()):
            listener.send.close()
        self.listeners.clear()

    async def listen(self, endpoint: Endpoint) -> SimListener:
        await trio.lowlevel.checkpoint()
        if ":" in endpoint.host or not self.is_up:
            raise Unreachable("no such network")
        number = endpoint.port
        if not number or number in self.listeners:
            self._count += 1
            number = self._count
        listener = self.listeners[number] = SimListener(self, Endpoint(self.host, number))
        return listener

    async def dial(self, endpoint: Endpoint, deadline_s: float) -> SimStream:
        network = self.network
        other = next((one for one in network.ports.values() if one.host == endpoint.host), None)
        with trio.move_on_after(deadline_s):
            if other is None or network.is_apart(self, other):
                await trio.sleep_forever()
            await trio.sleep(2 * network.way(self, other).delay_s)
            listener = other.listeners.get(endpoint.port)
            if listener is None or not other.is_up or not self.is_up:
                raise Unreachable("nobody listens there")
            ours, theirs = network.streams(self, other)
            try:
                listener.send.send_nowait(theirs)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                raise Unreachable("nobody listens there") from None
            return ours
        raise Deadline(f"no answer from {endpoint}")


class Network:
    """All devices, and the ways between them."""

    def __init__(self) -> None:
        self.ports: dict[str, Port] = {}
        self._ways: dict[tuple[str, str], Way] = {}

    def plug_in(self, name: str) -> Port:
        port = self.ports[name] = Port(self, name, f"10.0.0.{len(self.ports) + 1}")
        return port

    def way(self, one: Port, other: Port) -> Way:
        return self._ways.setdefault((one.name, other.name), Way())

    def is_apart(self, one: Port, other: Port) -> bool:
        return self.way(one, other).is_silent or self.way(other, one).is_silent or not other.is_up

    def spread(self, port: Port) -> None:
        """Somebody announces something else."""
        for other in self.ports.values():
            if other is not port:
                other.near.revision.bump()

    def streams(self, one: Port, other: Port) -> tuple[SimStream, SimStream]:
        there, back = Pipe(self.way(one, other)), Pipe(self.way(other, one))
        ours, theirs = SimStream(back, there, other.host), SimStream(there, back, one.host)
        for port, stream in ((one, ours), (other, theirs)):
            port.streams = [held for held in port.streams if not held._in.is_broken][-20:]
            port.streams.append(stream)
        return ours, theirs

    # what the story does

    def part(self, one: Port, other: Port) -> None:
        """They do not hear each other from now on, and are not told so."""
        for way in (self.way(one, other), self.way(other, one)):
            way.hush(True)

    def rejoin(self, one: Port, other: Port) -> None:
        for way in (self.way(one, other), self.way(other, one)):
            way.hush(False)
        one.near.revision.bump()
        other.near.revision.bump()

    def cut(self, one: Port, other: Port) -> None:
        """Their links break, and they may make new ones."""
        for stream in one.streams:
            if stream.peer == other.host:
                stream.cut()

    def heal(self) -> None:
        for way in self._ways.values():
            way.delay_s = 0.01
            way.hush(False)
        for port in self.ports.values():
            port.near.revision.bump()
            port.interfaces.revision.bump()
