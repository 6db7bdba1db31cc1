"""Strangers cost little, hear nothing, and keep nobody else out."""

import contextlib
import logging
import resource

import pytest
import trio
import trio.testing

from index.model.errors import HandshakeFailed, LinkClosed
from sync.net import acceptor as acceptor_module
from sync.net.acceptor import MAX_HALF_OPEN, MAX_HALF_OPEN_A_SOURCE, Acceptor, source_of
from sync.net.addresses import Endpoint
from sync.net.shaking import shake_hands
from sync.net.transport import dial_tcp, listen_tcp
from sync.wire.handshake import answer_paired, dial_paired
from sync.wire.identity import Keys
from tests.fakes.memory import MemoryListener

ALICE, BOB, MALLORY = Keys(b"a" * 32), Keys(b"b" * 32), Keys(b"m" * 32)


def answered():
    return answer_paired(BOB, lambda static, *_: static == ALICE.static_key)


def dialled(keys=ALICE):
    return dial_paired(keys, device=b"D" * 16, library=b"L" * 16, remote_static=BOB.static_key)


class Sources(MemoryListener):
    """Each one who comes is of the source that the test says."""

    def __init__(self):
        super().__init__()
        self.source = "10.0.0.1"

    async def accept(self):
        stream = await super().accept()
        stream.peer = self.source
        return stream


def simulated(test):
    """By a clock that jumps to whatever is waited for."""

    async def limited():
        with trio.fail_after(10_000):
            await test()

    trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0))


@contextlib.asynccontextmanager
async def accepting(met=None):
    listener = Sources()
    come = []

    async def note(stream, secured):
        come.append(secured)
        await trio.sleep_forever()

    acceptor = Acceptor(listener, answered, met or note)
    async with trio.open_nursery() as nursery:
        await nursery.start(acceptor.serve)
        yield acceptor, listener, come
        nursery.cancel_scope.cancel()


async def is_closed(stream):
    """Whether the other side has hung up, and said nothing before."""
    try:
        return await stream.receive_into(memoryview(bytearray(100))) == 0
    except LinkClosed:
        return True


def test_whoever_is_admitted_comes_in():
    """And stays as long as it wants, counted no more among those who have to prove themselves."""

    async def test():
        async with accepting() as (acceptor, listener, come):
            for _ in range(3 * MAX_HALF_OPEN_A_SOURCE):
                await shake_hands(await listener.dial(), dialled())
            await trio.testing.wait_all_tasks_blocked()
            assert {secured.noise_static for secured in come} == {ALICE.static_key}
            assert len(come) == 3 * MAX_HALF_OPEN_A_SOURCE
            assert acceptor.half_open == 0

    simulated(test)


def test_a_stranger_hears_nothing_and_learns_nothing_from_the_time():
    """Not admitted, for another device, garbage, or gone: one second, and no byte."""
    stranger = dialled(MALLORY).outgoing()
    other = dial_paired(ALICE, device=b"D" * 16, library=b"L" * 16, remote_static=MALLORY.static_key)
    elsewhere = other.outgoing()

    async def test():
        async with accepting() as (acceptor, listener, come):
            for said in (stranger, elsewhere, b"GET / HTTP/1.1\r\n\r\n", b"\0\0", b"\xff" * 2000):
                stream = await listener.dial()
                before = trio.current_time()
                with contextlib.suppress(LinkClosed):
                    await stream.send_all(said)
                assert await is_closed(stream)
                assert trio.current_time() == pytest.approx(before + acceptor_module.REFUSED_S)
            assert (come, acceptor.half_open) == ([], 0)

    simulated(test)


def test_a_recorded_call_is_nobody():
    """It is answered, for nobody can tell yet; but who sends it has no keys, so nobody is let in for it."""

    async def test():
        async with accepting() as (acceptor, listener, come):
            exchange = dialled()
            recorded = exchange.outgoing()
            stream = await listener.dial()
            await stream.send_all(recorded)
            assert await stream.receive_into(memoryview(bytearray(1000))) > 50
            await stream.send_all(bytes(100))
            assert await is_closed(stream)
            silent = await listener.dial()
            await silent.send_all(recorded)
            await trio.sleep(11)
            assert (come, acceptor.half_open) == ([], 0)

    simulated(test)


def test_one_source_cannot_take_all_places():
    """Who comes from it beyond eight is closed on; others come in."""

    async def test():
        async with accepting() as (acceptor, listener, come):
            crowd = [await listener.dial() for _ in range(40)]
            await trio.testing.wait_all_tasks_blocked()
            assert acceptor.half_open == MAX_HALF_OPEN_A_SOURCE
            assert await is_closed(crowd[-1])
            listener.source = "10.0.0.2"
            await shake_hands(await listener.dial(), dialled())
            await trio.testing.wait_all_tasks_blocked()
            assert len(come) == 1

    simulated(test)


def test_all_sources_together_have_so_many_places():
    """And they are free again after the time of a handshake, however it was spent: a byte now and then buys none."""

    async def test():
        async with accepting() as (acceptor, listener, come):
            slow = []
            for number in range(100):
                listener.source = f"10.0.1.{number}"
                slow.append(await listener.dial())
                await trio.testing.wait_all_tasks_blocked()
            assert acceptor.half_open == MAX_HALF_OPEN
            async with trio.open_nursery() as nursery:

                async def drip(stream):
                    with contextlib.suppress(LinkClosed):
                        for byte in dialled().outgoing():
                            await stream.send_all(bytes((byte,)))
                            await trio.sleep(3)

                for stream in slow:
                    nursery.start_soon(drip, stream)
                await trio.sleep(10.5)
                assert acceptor.half_open == 0
                listener.source = "10.0.9.9"
                await shake_hands(await listener.dial(), dialled())
                nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert len(come) == 1

    simulated(test)


def test_a_bug_with_one_device_ends_nothing_else(caplog):
    """It is logged, and the next one comes in."""
    come = []

    async def met(stream, secured):
        come.append(secured)
        if len(come) == 1:
            raise ZeroDivisionError

    async def test():
        async with accepting(met) as (_, listener, __):
            for _ in range(2):
                stream = await listener.dial()
                await shake_hands(stream, dialled())
                assert await is_closed(stream)
            assert len(come) == 2

    simulated(test)
    assert [record.levelno for record in caplog.records if record.levelno > logging.INFO] == [logging.ERROR]


def test_a_listener_that_ends_ends_the_acceptor(caplog):
    """Those who are in may stay until they go."""

    async def test():
        listener = Sources()

        async def stay(*_):
            await trio.sleep(5)

        acceptor = Acceptor(listener, answered, stay)
        async with trio.open_nursery() as nursery:
            await nursery.start(acceptor.serve)
            await shake_hands(await listener.dial(), dialled())
            await listener.aclose()

    simulated(test)
    assert "nobody can connect" in caplog.text


def test_ten_thousand_connections_leave_memory_and_others_alone():
    """Over real sockets: they come and go, and in between a device gets in."""

    async def test():
        listener = await listen_tcp(Endpoint("127.0.0.1", 0))
        come = trio.Event()

        async def met(*_):
            come.set()

        acceptor = Acceptor(listener, answered, met)
        async with trio.open_nursery() as nursery:
            await nursery.start(acceptor.serve)
            before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            for _ in range(100):
                crowd = [await dial_tcp(listener.endpoint, 5) for _ in range(100)]
                for stream in crowd[::7]:
                    with contextlib.suppress(LinkClosed):
                        await stream.send_all(b"\0\xff" + bytes(255))
                assert acceptor.half_open <= MAX_HALF_OPEN_A_SOURCE
                for stream in crowd:
                    await stream.aclose()
            with trio.fail_after(60):
                while not come.is_set():
                    stream = await dial_tcp(listener.endpoint, 5)
                    with contextlib.suppress(LinkClosed, HandshakeFailed):  # while the last strangers are there yet
                        await shake_hands(stream, dialled(), 2.0)
                    await stream.aclose()
                    await trio.sleep(0.1)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 << 10
            nursery.cancel_scope.cancel()

    trio.run(test)


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("192.168.1.7", "192.168.1.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("memory-a", "memory-a"),
    ],
)
def test_who_counts_as_one_source(peer, source):
    """Of IPv6 the network that one customer has."""
    assert source_of(peer) == source
