"""Every carrier of a link keeps the promises of sync/net/transport.py."""

import random
import socket

import pytest
import trio
import trio.testing

from index.model.errors import Deadline, LinkClosed, Unreachable
from sync.net.addresses import Endpoint
from sync.net.transport import dial_tcp, listen_tcp
from tests.contract.transport.carriers import CARRIERS, two_ends

MEGABYTE = 1 << 20


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=CARRIERS, ids=lambda carrier: carrier.name)
def carrier(request):
    if "IPv6" in request.param.name and not has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    return request.param


def over(carrier, test):
    """A test of two connected ends, under a limit that only a hang reaches."""

    async def limited():
        with trio.fail_after(60):
            async with two_ends(carrier) as (one, other):
                await test(one, other)

    trio.run(limited)


async def receive(stream, size):
    """Exactly so many bytes."""
    data = bytearray(size)
    at = 0
    while at < size:
        count = await stream.receive_into(memoryview(data)[at:])
        assert count, f"the end after {at} bytes of {size}"
        at += count
    return bytes(data)


def test_bytes_arrive_in_their_order(carrier):
    """Both directions at once, in pieces of any size."""
    data = random.Random(3).randbytes(3 * MEGABYTE)

    async def test(one, other):
        async def send(stream):
            at = 0
            for size in (1, 2, 7, 5000, 100_000, MEGABYTE, 3 * MEGABYTE):
                await stream.send_all(memoryview(data)[at : at + size])
                at += size

        async with trio.open_nursery() as nursery:
            for stream in (one, other):
                nursery.start_soon(send, stream)
            for stream in (one, other):

                async def check(stream=stream):
                    assert await receive(stream, len(data)) == data

                nursery.start_soon(check)

    over(carrier, test)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer_can_be_sent(carrier, kind):
    """And none of it is kept: what the caller changes afterwards was sent before."""

    async def test(one, other):
        await one.send_all(kind(b"data"))
        await one.send_all(kind(b""))
        assert await receive(other, 4) == b"data"

    over(carrier, test)


def test_what_goes_out_without_waiting(carrier):
    """In its order between other pieces; as much as there is room for, then nothing; nothing of a stream that broke."""

    async def test(one, other):
        data = memoryview(random.Random(4).randbytes(MEGABYTE))
        await one.send_all(b"before ")
        sent = one.send_now(data[:10])
        assert sent == 10
        at = 10
        while at < len(data) and (sent := one.send_now(data[at:])):
            at += sent
        assert await receive(other, 7 + at) == b"before " + data[:at]
        await one.aclose()
        assert one.send_now(data) == 0

    over(carrier, test)


def test_an_end_of_one_direction(carrier):
    """The other one goes on; the end is told as often as it is asked for, and after all bytes."""

    async def test(one, other):
        await one.send_all(b"last words")
        await one.send_eof()
        assert await receive(other, 10) == b"last words"
        for _ in range(3):
            assert await other.receive_into(memoryview(bytearray(10))) == 0
        await other.send_all(b"answer")
        assert await receive(one, 6) == b"answer"

    over(carrier, test)


def test_who_sends_waits_for_who_reads(carrier):
    """Nothing piles up without a limit; it goes on when somebody reads."""

    async def test(one, other):
        sent = 0

        async def send():
            nonlocal sent
            for _ in range(64):
                await one.send_all(bytes(MEGABYTE))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            before = -1
            while sent != before:
                before = sent
                await trio.sleep(0.2)
            assert sent < 64
            buffer = memoryview(bytearray(MEGABYTE))
            got = 0
            while got < 64 * MEGABYTE:
                got += await other.receive_into(buffer)
        assert sent == 64

    over(carrier, test)


def test_a_cancelled_receive_has_lost_nothing(carrier):
    """However often."""

    async def test(one, other):
        for _ in range(20):
            with trio.move_on_after(0.001):
                await other.receive_into(memoryview(bytearray(10)))
        await one.send_all(b"0123456789")
        with trio.CancelScope() as scope:
            scope.cancel()
            await other.receive_into(memoryview(bytearray(10)))
        assert scope.cancelled_caught
        assert await receive(other, 10) == b"0123456789"

    over(carrier, test)


def test_a_cancelled_send_breaks_the_stream(carrier):
    """Nobody knows how much of it went out, so nothing may follow it."""

    async def test(one, _):
        with trio.move_on_after(0.2) as scope:
            await one.send_all(bytes(64 * MEGABYTE))
        assert scope.cancelled_caught
        with pytest.raises(LinkClosed):
            await one.send_all(b"more")

    over(carrier, test)


def test_closing_wakes_whoever_waits(carrier):
    """Here with an error, there with the end or an error; and it can be done twice."""

    async def test(one, other):
        async with trio.open_nursery() as nursery:

            async def wait_here():
                with pytest.raises(LinkClosed):
                    await one.receive_into(memoryview(bytearray(10)))

            async def wait_there():
                try:
                    assert await other.receive_into(memoryview(bytearray(10))) == 0
                except LinkClosed:
                    pass

            nursery.start_soon(wait_here)
            nursery.start_soon(wait_there)
            await trio.testing.wait_all_tasks_blocked()
            await one.aclose()
        await one.aclose()
        with pytest.raises(LinkClosed):
            await one.send_all(b"more")
        with pytest.raises(LinkClosed):
            await one.receive_into(memoryview(bytearray(10)))
        with pytest.raises(LinkClosed):
            for _ in range(100):
                await other.send_all(bytes(MEGABYTE))

    over(carrier, test)


def test_who_is_there_has_a_name(carrier):
    """For logs, and for limits by source: without a port, so that one source is one name."""

    async def test(one, other):
        for stream in (one, other):
            assert stream.peer
            assert ":4" not in stream.peer

    over(carrier, test)


def test_nobody_is_there(carrier):
    """A closed listener accepts nobody, and is not reached."""

    async def test():
        listener = await carrier.listen()
        await listener.aclose()
        with pytest.raises(LinkClosed):
            await listener.accept()
        with pytest.raises(Unreachable):
            await carrier.dial(listener)

    trio.run(test)


# -- TCP alone ---------------------------------------------------------------------------------------------------------


def test_an_address_that_never_answers_is_given_up():
    """After the time that was given, and without the kernel's minutes."""

    async def test():
        # A listener whose queue is full: the kernel does not answer the next one.
        sock = trio.socket.socket()
        await sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        where = Endpoint(*sock.getsockname())
        waiting = []
        try:
            with pytest.raises(Deadline):
                while True:
                    waiting.append(await dial_tcp(where, 0.5))
        finally:
            sock.close()
            for stream in waiting:
                await stream.aclose()

    trio.run(test)


@pytest.mark.parametrize("host", ["256.1.1.1", "no address", "", "a" * 300, "\ud800", "::1::1", "127.0.0.1\0"])
def test_what_is_no_address_is_unreachable(host):
    """The one error, and at once."""

    async def test():
        with pytest.raises((Unreachable, Deadline)):
            await dial_tcp(Endpoint(host, 4000), 5.0)
        with pytest.raises(Unreachable):
            await listen_tcp(Endpoint(host, 0))

    trio.run(test)


def test_a_port_that_is_taken():
    """Is told, with the address."""

    async def test():
        listener = await listen_tcp(Endpoint("127.0.0.1", 0))
        with pytest.raises(Unreachable, match=r"127\.0\.0\.1"):
            await listen_tcp(listener.endpoint)
        await listener.aclose()

    trio.run(test)
