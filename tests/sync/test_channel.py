"""A channel does what its caller means, and ends whatever it was doing when the other side goes away, or goes mad."""

import contextlib
import logging
import math
import socket

import pytest
import trio
import trio.testing

from index.model.errors import (
    Deadline,
    HandshakeFailed,
    LinkClosed,
    NotFound,
    PeerError,
    ProtocolError,
    Unsupported,
)
from sync.net import channel, shaking, vitals
from sync.net.addresses import Endpoint
from sync.net.channel import open_channel
from sync.net.shaking import shake_hands
from sync.net.transport import dial_tcp, listen_tcp
from sync.wire import frames
from sync.wire.codec import Body, Codec, message
from sync.wire.forms import U32
from sync.wire.handshake import answer_paired, dial_paired
from sync.wire.identity import Keys
from tests.fakes.memory import memory_pair

ALICE, BOB = Keys(b"a" * 32), Keys(b"b" * 32)


@message(1)
class Count:
    upto: U32
    size: U32 = 0


@message(2)
class Number:
    value: U32
    body: Body = b""


@message(3)
class Unheard:
    value: U32 = 0


CODEC = Codec([Count, Number])


def dialled():
    return dial_paired(ALICE, device=b"D" * 16, library=b"L" * 16, remote_static=BOB.static_key)


def answered():
    return answer_paired(BOB, lambda *_: True)


async def count(call):
    """Answers 0, 1, 2, …, each with a body."""
    for value in range(call.message.upto):
        await call.reply(Number(value, bytes(call.message.size)))


@contextlib.asynccontextmanager
async def linked(handle=count, *, notified=None, streams=None, dial_handle=None):
    """Two channels over a stream in memory: who dialled, who was dialled. The second serves."""
    one, other = streams or memory_pair()
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        both = []

        async def meet(stream, exchange, place, task_status, **more):
            async with open_channel(stream, exchange, codec=CODEC, **more) as channel:
                both.insert(place, channel)
                task_status.started(channel)
                await trio.sleep_forever()

        async def first(task_status=trio.TASK_STATUS_IGNORED):
            await meet(one, dialled(), 0, task_status, handle=dial_handle)

        async def second(task_status=trio.TASK_STATUS_IGNORED):
            await meet(other, answered(), 1, task_status, handle=handle, notified=notified)

        found = {}
        async with trio.open_nursery() as meeting:

            async def start(name, task):
                found[name] = await nursery.start(task)

            meeting.start_soon(start, "first", first)
            meeting.start_soon(start, "second", second)
        stack.callback(nursery.cancel_scope.cancel)
        try:
            yield found["first"], found["second"]
        finally:
            nursery.cancel_scope.cancel()


def run(test, *, clock=None):
    """A test as a task, under a limit that only a hang reaches."""

    async def limited():
        with trio.fail_after(60 if clock is None else 10_000):
            await test()

    trio.run(limited, clock=clock)


def simulated(test):
    """The same by a clock that jumps to whatever is waited for."""
    run(test, clock=trio.testing.MockClock(autojump_threshold=0))


async def until(is_so):
    """Come back when it is."""
    while not is_so():  # noqa: ASYNC110
        await trio.sleep(0.001)


# -- asking ------------------------------------------------------------------------------------------------------------


def test_a_call_has_one_answer():
    """With a body or without."""

    async def test():
        async with linked() as (a, _):
            assert await a.call(Count(1), priority=0, deadline_s=5) == Number(0)
            assert await a.call(Count(1, 300_000), priority=4, deadline_s=5) == Number(0, bytes(300_000))

    run(test)


def test_a_stream_has_any_number_of_answers_in_their_order():
    """Also many large ones through a small window."""

    async def test():
        async with linked() as (a, _):
            for upto, size in ((0, 0), (500, 10), (40, 100_000)):
                async with a.stream(Count(upto, size), priority=1, deadline_s=20, window_bytes=200_000) as replies:
                    assert [reply.value async for reply in replies] == list(range(upto))

    run(test)


@pytest.mark.parametrize("capacity", [100, 1 << 16, 64 << 20])
def test_requests_and_answers_may_be_as_large_as_messages_are(capacity):
    """8 MiB in both directions, however much the carrier takes at once."""

    async def echo(call):
        await call.reply(Number(call.message.value, call.message.body))

    async def test():
        async with linked(echo, streams=memory_pair(capacity)) as (a, _):
            size = (8 << 20) if capacity > 1000 else 100_000
            question = Number(7, bytes(range(250)) * (size // 250))
            assert await a.call(question, priority=2, deadline_s=50) == question

    run(test)


def test_both_sides_may_ask_and_many_at_a_time():
    """Three hundred calls in each direction: more than may be open, so some wait."""

    async def test():
        async with linked(dial_handle=count) as (a, b):
            answers = []

            async def ask(one, size):
                answers.append(await one.call(Count(1, size), priority=size % 5, deadline_s=30))

            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(ask, a, number)
                    nursery.start_soon(ask, b, number)
            assert sorted(len(answer.body) for answer in answers) == sorted([*range(300), *range(300)])

    run(test)


def test_notices_arrive_in_their_order():
    """One after the other, none lost; one that fails takes none with it, one that is unknown is passed over."""
    heard = []

    async def notified(notice):
        heard.append(notice.value)
        await trio.lowlevel.checkpoint()
        if notice.value == 3:
            raise ValueError("a bug of ours")

    async def test():
        async with linked(notified=notified) as (a, b):
            for value in range(50):
                await a.notify(Number(value, bytes(100_000)))
                if value == 20:
                    await a.notify(Unheard())
            await until(lambda: len(heard) == 50)
            assert b.closed is None

    run(test)
    assert heard == list(range(50))


# -- what goes wrong with one request ----------------------------------------------------------------------------------


def test_an_error_of_who_answers_arrives_with_its_kind_and_text():
    """Those of our tree; anything else is an internal error there, with its details in the log there only."""

    async def handle(call):
        await call.reply(Number(0))
        if call.message.upto == 1:
            raise NotFound("no such page: “x”")
        if call.message.upto == 2:
            async with trio.open_nursery():
                raise NotFound("in a group")
        raise ValueError("secret details")

    async def test():
        async with linked(handle) as (a, _):
            for upto, kind, text in ((1, "NotFound", "no such page: “x”"), (2, "NotFound", "in a group")):
                with pytest.raises(PeerError) as caught:
                    await a.call(Count(upto), priority=0, deadline_s=5)
                assert (caught.value.kind, str(caught.value)) == (kind, text)
            with pytest.raises(PeerError) as caught:
                await a.call(Count(3), priority=0, deadline_s=5)
            assert caught.value.kind == "InternalError"
            assert "secret" not in str(caught.value)
            assert a.closed is None

    run(test)


def test_what_the_other_side_does_not_know_is_unsupported():
    """A request of another version, or of any kind where nobody serves."""

    async def test():
        async with linked() as (a, b):
            for one, request in ((a, Unheard()), (b, Count(1))):
                with pytest.raises(PeerError) as caught:
                    await one.call(request, priority=0, deadline_s=5)
                assert caught.value.kind == "Unsupported"

    run(test)


def test_an_answer_that_is_not_known_here_is_told():
    """And ends nothing but that request."""

    async def handle(call):
        await call.reply(Unheard())

    async def test():
        async with linked(handle) as (a, _):
            with pytest.raises(Unsupported, match="type 3"):
                await a.call(Count(1), priority=0, deadline_s=5)
            assert a.closed is None

    run(test)


def test_a_call_wants_exactly_one_answer():
    """None, or two, are an error of who answers."""

    async def test():
        async with linked() as (a, _):
            for upto in (0, 2):
                with pytest.raises(ProtocolError, match="answers"):
                    await a.call(Count(upto), priority=0, deadline_s=5)
            assert a.closed is None

    run(test)


def test_a_deadline_ends_the_request_at_both_ends():
    """Who waits gets Deadline; who works is cancelled."""
    seen = []

    async def handle(call):
        try:
            await trio.sleep_forever()
        finally:
            seen.append("ended")

    async def test():
        async with linked(handle) as (a, b):
            before = trio.current_time()
            with pytest.raises(Deadline):
                await a.call(Count(1), priority=0, deadline_s=3)
            assert trio.current_time() == pytest.approx(before + 3)
            await trio.sleep(0.1)
            assert seen == ["ended"]
            assert (a.closed, b.closed) == (None, None)

    simulated(test)


def test_who_answers_too_late_is_told_so_by_its_own_side():
    """Although nobody there looks at the clock."""

    async def handle(call):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        await trio.sleep_forever()

    async def test():
        async with linked(handle) as (a, _):
            with pytest.raises((Deadline, PeerError)):
                await a.call(Count(1), priority=0, deadline_s=0.5)
            await trio.sleep(2)
            assert a.closed is None

    simulated(test)


def test_leaving_a_stream_cancels_it_at_the_other_end():
    """Whether by break, by an error or by cancellation; the channel goes on."""
    ended = []

    async def handle(call):
        try:
            for value in range(10**9):
                await call.reply(Number(value, bytes(1000)))
        finally:
            ended.append(call.message.upto)

    async def test():
        async with linked(handle) as (a, b):
            async with a.stream(Count(1), priority=0, deadline_s=60) as replies:
                async for reply in replies:
                    if reply.value == 30:
                        break
            with pytest.raises(KeyError):
                async with a.stream(Count(2), priority=0, deadline_s=60) as replies:
                    async for _ in replies:
                        raise KeyError
            with trio.move_on_after(0.05):
                async with a.stream(Count(3), priority=0, deadline_s=60) as replies:
                    async for _ in replies:
                        pass
            await until(lambda: len(ended) == 3)
            assert (a.closed, b.closed) == (None, None)
            assert not b._handlers

    run(test)
    assert ended == [1, 2, 3]


def test_who_answers_waits_for_who_reads():
    """Back-pressure reaches the handler: it gets no further than the window, however fast it is."""
    sent = []

    async def handle(call):
        for value in range(100):
            await call.reply(Number(value, bytes(10_000)))
            sent.append(value)

    async def test():
        async with (
            linked(handle) as (a, _),
            a.stream(Count(1), priority=0, deadline_s=60, window_bytes=50_000) as replies,
        ):
            await trio.testing.wait_all_tasks_blocked()
            assert 4 <= len(sent) <= 12
            assert len([reply async for reply in replies]) == 100

    run(test)


# -- the end -----------------------------------------------------------------------------------------------------------


def test_closing_tells_the_other_side_why():
    """And whoever still waits there."""

    async def handle(call):
        await trio.sleep_forever()

    async def test():
        async with linked(handle, dial_handle=handle) as (a, b):
            failures = []

            async def ask(one):
                with pytest.raises((LinkClosed, PeerError)) as caught:
                    await one.call(Count(1), priority=0, deadline_s=60)
                failures.append(caught.value)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, a)
                nursery.start_soon(ask, b)
                await trio.testing.wait_all_tasks_blocked()
                await a.close("a better link is there")
            assert await b.wait_closed() == "a better link is there"
            assert a.closed == "a better link is there"
            assert len(failures) == 2
            for one in (a, b):
                with pytest.raises(LinkClosed, match="better"):
                    await one.call(Count(1), priority=0, deadline_s=60)
                with pytest.raises(LinkClosed, match="better"):
                    await one.notify(Number(1))

    run(test)


def test_who_is_stopped_says_so():
    """The other side hears of it at once, and not as of a connection that was cut off."""

    async def test():
        one, other = memory_pair()
        async with trio.open_nursery() as nursery:

            async def serve(task_status=trio.TASK_STATUS_IGNORED):
                async with open_channel(other, answered(), codec=CODEC, handle=count) as channel:
                    task_status.started(channel)
                    await trio.sleep_forever()

            async def dial():
                async with open_channel(one, dialled(), codec=CODEC) as channel:
                    assert await channel.call(Count(1), priority=0, deadline_s=5) == Number(0)
                    stopping.set()
                    assert await channel.wait_closed() == "stopped"

            stopping = trio.Event()
            nursery.start_soon(dial)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as inner:
                    inner.start_soon(serve)
                    await stopping.wait()
                    scope.cancel()

    run(test)


def test_closing_may_wait_for_what_is_under_way():
    """New requests are refused meanwhile."""

    async def handle(call):
        await trio.sleep(5)
        await call.reply(Number(7))

    async def test():
        async with linked(handle) as (a, _), trio.open_nursery() as nursery:

            async def ask():
                assert await a.call(Count(1), priority=0, deadline_s=60) == Number(7)

            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(a.close, "moving", 30.0)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LinkClosed):
                await a.call(Count(1), priority=0, deadline_s=60)

    simulated(test)


def test_a_stream_that_breaks_ends_everything():
    """Both ends hear of it, at once, wherever they are."""

    async def test():
        streams = memory_pair()
        async with linked(streams=streams) as (a, b):
            with pytest.raises(LinkClosed):
                async with a.stream(Count(10**6, 1000), priority=0, deadline_s=60) as replies:
                    async for reply in replies:
                        if reply.value == 100:
                            streams[0].cut()
            assert "broke" in await a.wait_closed()
            assert "broke" in await b.wait_closed()

    run(test)


def test_a_stream_that_ends_without_a_farewell_was_cut_off():
    """A clean end of the bytes is no end of the link."""

    async def test():
        streams = memory_pair()
        async with linked(streams=streams) as (a, _):
            await streams[1].send_eof()
            assert await a.wait_closed() == "the stream was cut off"

    run(test)


def test_one_changed_bit_ends_the_link():
    """Whatever was under way fails; nothing wrong is ever delivered."""

    async def test():
        streams = memory_pair()
        async with linked(streams=streams) as (a, b):
            real = streams[1].send_all

            async def changed(data):
                data = bytearray(data)
                data[-1] ^= 1
                await real(data)

            streams[1].send_all = changed
            streams[1].send_now = lambda data: 0
            with pytest.raises(LinkClosed, match="not genuine"):
                await a.call(Count(1), priority=0, deadline_s=60)
            await b.wait_closed()

    run(test)


def test_a_quiet_link_is_asked_and_a_dead_one_is_noticed():
    """After 15 s of silence a ping; 8 s later it is over."""

    async def nothing(_):
        await trio.sleep_forever()

    async def test():
        streams = memory_pair()
        async with linked(streams=streams) as (a, b):
            await trio.sleep(300)
            assert (a.closed, b.closed) == (None, None)
            streams[0].receive_into = streams[1].receive_into = nothing
            await a.wait_closed()
            await b.wait_closed()
            assert trio.current_time() < 300 + 15 + 15 + 8 + 8 + 1
            assert "no sign of life" in a.closed

    simulated(test)


def test_who_never_reads_is_given_up():
    """Its buffers are full; the writer does not wait for ever."""

    async def test():
        one, other = memory_pair(capacity_bytes=5000)
        async with trio.open_nursery() as nursery:

            async def mute():
                secured = await shake_hands(other, answered())
                while True:  # it says something now and then, and takes nothing
                    await trio.sleep(5)
                    await other.send_all(secured.sealer.seal(frames.frame(frames.Kind.CREDIT, 0, b"\0\0\0\1")))

            nursery.start_soon(mute)
            async with open_channel(one, dialled(), codec=CODEC) as a:
                await a.notify(Number(1, bytes(100_000)))
                assert "did not read for 30 s" in await a.wait_closed()
            nursery.cancel_scope.cancel()

    simulated(test)


def test_a_bug_in_a_task_of_the_link_ends_the_link_only(caplog):
    """It is logged once; who waits is told; nothing else falls over."""

    async def test():
        async with linked() as (a, b):
            a._session.receive = lambda *_: 1 / 0
            with pytest.raises(LinkClosed, match="bug"):
                await a.call(Count(1), priority=0, deadline_s=60)
            await b.wait_closed()

    run(test)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_an_error_inside_the_block_comes_out_as_it_is():
    """Not in a group, and the link is closed by then."""

    async def test():
        one, other = memory_pair()
        async with trio.open_nursery() as nursery:

            async def serve():
                async with open_channel(other, answered(), codec=CODEC) as channel:
                    assert await channel.wait_closed() == "an error"

            nursery.start_soon(serve)
            with pytest.raises(KeyError):
                async with open_channel(one, dialled(), codec=CODEC):
                    raise KeyError

    run(test)


# -- whoever does not keep to the protocol -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def rogue(handle=count):
    """A channel that serves, and the other end of its link in the hands of the test: send(plaintext)."""
    one, other = memory_pair()
    async with trio.open_nursery() as nursery:
        served = {}

        async def serve(task_status=trio.TASK_STATUS_IGNORED):
            async with open_channel(other, answered(), codec=CODEC, handle=handle) as channel:
                served["channel"] = channel
                task_status.started()
                await channel.wait_closed()

        async def shake():
            served["secured"] = await shake_hands(one, dialled())

        async with trio.open_nursery() as meeting:
            meeting.start_soon(shake)
            meeting.start_soon(nursery.start, serve)

        async def send(plaintext):
            await one.send_all(served["secured"].sealer.seal(plaintext))

        yield served["channel"], send, one
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fields", [b"", b"\xc1", b"\x91\xff", b"\x92\x01"])
def test_a_message_that_is_garbage_ends_the_link(fields):
    """It was genuine and meant nothing: the other device is broken, or worse."""

    async def test():
        async with rogue() as (channel, send, _):
            head = frames.pack_open(frames.OpenHead(0, 1000, 4096)) + frames.pack_message(1, len(fields), 0)
            await send(frames.frame(frames.Kind.OPEN, 1, head + fields))
            assert "Count" in await channel.wait_closed() or "msgpack" in channel.closed

    run(test)


def test_requests_without_end_are_stopped():
    """More than may be open at a time, by somebody who takes no answer."""

    async def handle(call):
        await trio.sleep_forever()

    async def test():
        async with rogue(handle) as (channel, send, _):
            head = frames.pack_open(frames.OpenHead(0, 60_000, 4096)) + frames.pack_message(1, 3, 0) + b"\x92\x01\x01"
            with contextlib.suppress(LinkClosed):
                for number in range(400):
                    await send(frames.frame(frames.Kind.OPEN, 2 * number + 1, head))
            assert "more requests" in await channel.wait_closed()
            assert not channel._handlers

    run(test)


def test_who_gives_no_credit_costs_a_window_and_no_more():
    """The handler waits, and is ended by the deadline of the request."""
    sent = []

    async def handle(call):
        for value in range(10**6):
            await call.reply(Number(value, bytes(1000)))
            sent.append(value)

    async def test():
        async with rogue(handle) as (channel, send, other):
            head = frames.pack_open(frames.OpenHead(0, 2_000, 4096)) + frames.pack_message(1, 3, 0) + b"\x92\x01\x01"
            await send(frames.frame(frames.Kind.OPEN, 1, head))
            buffer = memoryview(bytearray(1 << 16))
            with trio.move_on_after(5):
                while True:
                    await other.receive_into(buffer)
            assert len(sent) <= 6
            assert not channel._handlers
            assert channel.closed is None

    simulated(test)


# -- the handshake -----------------------------------------------------------------------------------------------------


def test_a_handshake_that_is_not_finished_is_given_up():
    """One byte every nine seconds does not buy another ten."""

    async def test():
        one, other = memory_pair()
        async with trio.open_nursery() as nursery:

            async def slow():
                hello = dialled().outgoing()
                with contextlib.suppress(LinkClosed):
                    for byte in hello:
                        await one.send_all(bytes((byte,)))
                        await trio.sleep(9)

            nursery.start_soon(slow)
            with pytest.raises(Deadline):
                async with open_channel(other, answered(), codec=CODEC):
                    pass
            assert trio.current_time() < 11
            nursery.cancel_scope.cancel()

    simulated(test)


def test_a_stranger_gets_no_byte():
    """The stream is closed on him, and that is all he sees."""

    async def test():
        one, other = memory_pair()
        exchange = answer_paired(BOB, lambda *_: False)
        await one.send_all(dialled().outgoing())
        with pytest.raises(HandshakeFailed):
            async with open_channel(other, exchange, codec=CODEC):
                pass
        assert await one.receive_into(memoryview(bytearray(10))) == 0

    run(test)


def test_hanging_up_during_the_handshake():
    """Is a failed handshake."""

    async def test():
        one, other = memory_pair()
        await one.send_eof()
        with pytest.raises(HandshakeFailed, match="hung up"):
            await shake_hands(other, answered())

    run(test)


# -- over TCP ----------------------------------------------------------------------------------------------------------


def test_over_tcp():
    """The same through the kernel, on loopback."""

    async def test():
        listener = await listen_tcp(Endpoint("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:

            async def serve():
                async with open_channel(await listener.accept(), answered(), codec=CODEC, handle=count) as channel:
                    assert await channel.wait_closed() == "done"

            nursery.start_soon(serve)
            stream = await dial_tcp(listener.endpoint, 5)
            async with open_channel(stream, dialled(), codec=CODEC) as channel:
                assert channel.peer == "127.0.0.1"
                async with channel.stream(Count(200, 131_072), priority=3, deadline_s=30) as replies:
                    values = [reply.value async for reply in replies]
                assert values == list(range(200))
        await listener.aclose()

    run(test)


def test_sockets_are_set_up_for_this():
    """Small requests do not wait for more, and the kernel holds little that was not sent."""

    async def test():
        listener = await listen_tcp(Endpoint("127.0.0.1", 0))
        stream = await dial_tcp(listener.endpoint, 5)
        option = stream._sock.getsockopt
        assert option(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert option(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == 128 << 10
        assert option(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8_000
        await stream.aclose()
        await listener.aclose()

    run(test)


def test_times_are_finite():
    """No wait of the channel is without a limit."""
    found = [
        getattr(module, name) for module in (channel, shaking, vitals) for name in vars(module) if name.endswith("_S")
    ]
    assert len(found) >= 7
    assert all(0 < limit < math.inf for limit in found)
