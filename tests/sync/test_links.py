"""Whole links: two devices pair and meet again; whatever happens on the way between them, nothing wrong arrives."""

import contextlib
import hashlib
import os
import random
import struct

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from index.model.errors import HandshakeFailed, LinkClosed, PeerError, VdfsError
from sync.net.acceptor import Acceptor
from sync.net.addresses import Endpoint
from sync.net.channel import channel_over, open_channel
from sync.net.transport import dial_tcp, listen_tcp
from sync.wire.codec import Body, Codec, message
from sync.wire.forms import U32
from sync.wire.handshake import answer_paired, answer_pairing, dial_paired, dial_pairing
from sync.wire.identity import Keys
from sync.wire.pairing import Arrived, Completed, Failed, Joining, Offer, Say, Secret, Verdict
from sync.wire.words import fingerprint_words
from tests.fakes.memory import memory_pair

ALICE, BOB = Keys(b"a" * 32), Keys(b"b" * 32)
LIBRARY = b"L" * 16


@message(40)
class Wanted:
    count: U32
    size: U32


@message(41)
class Block:
    index: U32
    body: Body


CODEC = Codec([Verdict, Wanted, Block])


def block_of(index: int, size: int) -> bytes:
    return hashlib.shake_128(index.to_bytes(4, "big")).digest(size)


async def serve_blocks(call):
    for index in range(call.message.count):
        await call.reply(Block(index, block_of(index, call.message.size)))


def simulated(test, *, deterministic=False):
    async def limited():
        with trio.fail_after(10_000):
            await test()

    if deterministic:
        trio._core._run._r.seed(5)
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
    try:
        trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = False


# -- pairing, then meeting again ---------------------------------------------------------------------------------------


class Person:
    """One side of a pairing: the machine, and what its person says when somebody is shown."""

    def __init__(self, machine, says_yes):
        self.machine = machine
        self.says_yes = says_yes
        self.shown = None
        self.outcome = None
        self.over = trio.Event()

    async def follow(self, channel, events):
        for event in events:
            if isinstance(event, Arrived):
                self.shown = event
                decide = self.machine.confirm if self.says_yes else self.machine.refuse
                await self.follow(channel, decide(trio.current_time()))
            elif isinstance(event, Say):
                await channel.notify(event.verdict)
            else:
                self.outcome = event
                self.over.set()


def paired(says_yes_here=True, says_yes_there=True, words=None):
    """Pair over TCP by words; both sides' people."""
    people = {}

    async def run():
        secret = Secret.make()
        offer = Offer(secret, trio.current_time())
        host = people["host"] = Person(offer, says_yes_here)
        guest = people["guest"] = Person(Joining(trio.current_time()), says_yes_there)
        listener = await listen_tcp(Endpoint("127.0.0.1", 0))

        async def meet(person, stream, exchange):
            link = []

            async def heard(verdict):
                await person.follow(link[0], person.machine.heard(verdict))

            async with open_channel(stream, exchange, codec=CODEC, notified=heard) as channel:
                link.append(channel)
                card = channel.secured.card
                await person.follow(channel, person.machine.arrived(card, trio.current_time()))
                with trio.move_on_after(5):
                    await person.over.wait()
                    await trio.sleep(0.05)  # for the last word to go out

        async def host_side():
            stream = await listener.accept()
            offer.begin(trio.current_time())
            exchange = answer_pairing(ALICE, secret.psk, name="Alice’s tower", os_name="Linux")
            try:
                await meet(host, stream, exchange)
            except HandshakeFailed:
                host.outcome = (offer.failed() or [None])[0]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(host_side)
            typed = Secret.of_words(words or " ".join(word[:4].upper() for word in secret.words))
            exchange = dial_pairing(BOB, typed.psk, name="Bob’s laptop", os_name="Linux")
            try:
                await meet(guest, await dial_tcp(listener.endpoint, 5), exchange)
            except HandshakeFailed:
                guest.outcome = "refused"
        await listener.aclose()

    trio.run(run)
    return people["host"], people["guest"]


def test_two_devices_pair_by_twelve_words():
    """Each shows the other's name and words; both complete with the other's card."""
    host, guest = paired()
    assert host.shown.card.name == "Bob’s laptop"
    assert host.shown.words == fingerprint_words(BOB.public_key)
    assert guest.shown.words == fingerprint_words(ALICE.public_key)
    assert host.outcome == Completed(guest_card := host.shown.card)
    assert guest.outcome == Completed(guest.shown.card)
    assert guest_card.noise_static == BOB.static_key


@pytest.mark.parametrize("who", ["host", "guest"])
def test_one_no_ends_it_on_both_sides(who):
    """Whoever says it."""
    host, guest = paired(says_yes_here=who != "host", says_yes_there=who != "guest")
    assert {host.outcome, guest.outcome} == {Failed("refused here"), Failed("refused by the other device")}


def test_other_words_lead_nowhere():
    """They are refused at once, and count as one failure."""
    host, guest = paired(words="legal winner thank year wave sausage worth useful legal winner thank yellow")
    assert (host.outcome, guest.outcome, host.shown, guest.shown) == (None, "refused", None, None)
    assert host.machine.failures == 1


def test_paired_devices_meet_again_through_the_acceptor():
    """And a device that was revoked meanwhile does not get in."""

    async def test():
        admitted = {BOB.static_key}
        listener = await listen_tcp(Endpoint("127.0.0.1", 0))

        async def met(stream, secured):
            async with channel_over(stream, secured, codec=CODEC, handle=serve_blocks) as channel:
                await channel.wait_closed()

        acceptor = Acceptor(listener, lambda: answer_paired(ALICE, lambda static, *_: static in admitted), met)

        async def ask():
            exchange = dial_paired(BOB, device=b"B" * 16, library=LIBRARY, remote_static=ALICE.static_key)
            async with open_channel(await dial_tcp(listener.endpoint, 5), exchange, codec=CODEC) as channel:
                return await channel.call(Wanted(1, 1000), priority=0, deadline_s=10)

        async with trio.open_nursery() as nursery:
            await nursery.start(acceptor.serve)
            assert await ask() == Block(0, block_of(0, 1000))
            admitted.clear()
            with pytest.raises((HandshakeFailed, LinkClosed)):
                await ask()
            nursery.cancel_scope.cancel()

    trio.run(test)


# -- on the way --------------------------------------------------------------------------------------------------------


async def fetch(one, other, *, count=6, size=50_000, source=os.urandom):
    """Blocks over these two ends; those that arrived, and the error that ended it, if one did."""
    arrived = []
    failure = None
    async with trio.open_nursery() as nursery:

        async def serve():
            exchange = answer_paired(ALICE, lambda *_: True, random=source)
            with contextlib.suppress(VdfsError):
                async with open_channel(other, exchange, codec=CODEC, handle=serve_blocks) as channel:
                    await channel.wait_closed()

        nursery.start_soon(serve)
        exchange = dial_paired(BOB, device=b"B" * 16, library=LIBRARY, remote_static=ALICE.static_key, random=source)
        try:
            async with (
                open_channel(one, exchange, codec=CODEC) as channel,
                channel.stream(Wanted(count, size), priority=3, deadline_s=60) as blocks,
            ):
                async for block in blocks:
                    arrived.append(bytes(block.body))  # noqa: PERF401
        except VdfsError as error:
            failure = error
        nursery.cancel_scope.cancel()
    return arrived, failure


@pytest.mark.parametrize("capacity", [1, 2, 3, 19, 1000, 1 << 20])
def test_any_cut_of_the_stream_is_fine(capacity):
    """A carrier that takes a byte at a time, and one that takes all."""

    async def test():
        arrived, failure = await fetch(*memory_pair(capacity), count=3, size=3000)
        assert (failure, arrived) == (None, [block_of(index, 3000) for index in range(3)])

    simulated(test)


class Thief:
    """Sits between, sees records as what they are from outside, and does one thing to one of them."""

    def __init__(self, stream, number, kind, where):
        self._stream = stream
        self._number = number
        self._kind = kind
        self._where = where
        self._held = b""
        self._seen = 0
        self._skip = 2  # messages of the handshake begin with two bytes of length
        self.done = False
        self.peer = stream.peer

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def send_now(self, data):
        return 0  # all of it comes by send_all

    async def send_all(self, data):
        data = bytes(data)
        if self._skip:  # the first thing that is sent is a whole message of the handshake
            self._skip = 0
            await self._stream.send_all(data)
            return
        out = []
        while data:
            size = 4 + (struct.unpack_from(">I", data)[0] & 0x7FFFFFFF)
            record, data = data[:size], data[size:]
            out += self._through(record)
        await self._stream.send_all(b"".join(out))

    def _through(self, record):
        number, self._seen = self._seen, self._seen + 1
        if number != self._number:
            held, self._held = self._held, b""
            return [record, held] if held else [record]
        self.done = True
        at = self._where % len(record)
        if self._kind == "flip":
            return [record[:at] + bytes((record[at] ^ (1 << self._where % 8),)) + record[at + 1 :]]
        if self._kind == "drop":
            return []
        if self._kind == "repeat":
            return [record, record]
        if self._kind == "cut":
            return [record[:at]]
        if self._kind == "insert":
            return [os.urandom(1 + at), record]
        self._held = record  # goes out behind the next one
        return []


@settings(max_examples=80, deadline=None)
@given(
    number=st.integers(0, 9),
    kind=st.sampled_from(["flip", "drop", "repeat", "cut", "insert", "swap"]),
    where=st.integers(0, 100_000),
    side=st.integers(0, 1),
)
def test_whatever_is_done_to_a_record_nothing_wrong_arrives(number, kind, where, side):
    """What came before it is right, nothing comes after it, and whoever waits hears that the link has ended."""

    async def test():
        ends = list(memory_pair())
        thief = ends[side] = Thief(ends[side], number, kind, where)
        arrived, failure = await fetch(*ends)
        expected = [block_of(index, 50_000) for index in range(6)]
        assert arrived == expected[: len(arrived)]
        if failure is None:  # the damage came behind all that was wanted
            assert arrived == expected
        else:
            assert thief.done
            assert isinstance(failure, LinkClosed | PeerError)

    simulated(test)


def test_a_simulation_is_the_same_again():
    """With seeded keys, trio's seeded order and a simulated clock every byte on the wire is."""

    def said(seed):
        heard = []

        async def test():
            one, other = memory_pair()
            for stream in (one, other):
                real = stream.send_all

                async def note(data, real=real):
                    heard.append(bytes(data))
                    await real(data)

                stream.send_all = note
                stream.send_now = lambda data: 0
            arrived, failure = await fetch(one, other, source=random.Random(seed).randbytes)
            assert (len(arrived), failure) == (6, None)

        simulated(test, deterministic=True)
        return hashlib.sha256(b"|".join(heard)).hexdigest()

    assert said(1) == said(1)
    assert said(1) != said(2)
