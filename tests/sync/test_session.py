"""Two sessions over a wire that this test holds in its hands: what may be said, in which order, and how much of it."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.model.errors import ProtocolError
from sync.wire import frames
from sync.wire.codec import Encoded
from sync.wire.flow import MIN_WINDOW
from sync.wire.frames import Kind, MessageHead, OpenHead
from sync.wire.ledger import (
    MAX_LOAN_BYTES,
    MAX_NOTICE_BYTES,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    MAX_WINDOW_BYTES,
)
from sync.wire.pieces import BLOCK_BYTES, Buffers
from sync.wire.records import MAX_PLAINTEXT_BYTES, MAX_RECORD_BYTES, OVERHEAD_BYTES
from sync.wire.session import Session
from sync.wire.streams import NOTICE_WINDOW, Cancelled, Ended, Noticed, Replied, Requested, SaidGoodbye

SMALL = Encoded(1, b"small")
MEGABYTE = 1 << 20


class Wire:
    """Two sessions, and the records between them, which are carried one by one."""

    def __init__(self):
        self.a, self.b = Session(is_initiator=True), Session(is_initiator=False)
        self.now = 100.0
        self.events = {self.a: [], self.b: []}

    def other(self, one):
        return self.b if one is self.a else self.a

    def carry(self, sender, max_bytes=MAX_PLAINTEXT_BYTES):
        """One batch; whether there was any."""
        records = sender.next_records(self.now, max_bytes)
        assert sum(len(record) + OVERHEAD_BYTES for record in records) < max_bytes + 2 * MAX_RECORD_BYTES
        for record in records:
            self.arrive(self.other(sender), bytes(record))
        return bool(records)

    def arrive(self, receiver, record):
        room = receiver.body_room(len(record))
        if room is None:
            self.events[receiver] += receiver.receive(memoryview(record), self.now)
        else:
            room[:] = record
            self.events[receiver] += receiver.body_received()

    def settle(self):
        """Until nobody has anything to send."""
        while self.carry(self.a) or self.carry(self.b):
            pass

    def take(self, one):
        """The events of one side since the last time."""
        events, self.events[one] = self.events[one], []
        return events

    def ask(self, message=SMALL, *, priority=0, after_s=10.0, **more):
        return self.a.open(message, priority=priority, deadline_s=self.now + after_s, **more)

    def asked(self, message=SMALL, **more):
        """A request of a's that has arrived at b: both ends of its stream."""
        asking = self.ask(message, **more)
        self.settle()
        (request,) = self.take(self.b)
        return asking, request.stream


@pytest.fixture
def wire():
    return Wire()


# -- requests and answers ----------------------------------------------------------------------------------------------


def test_a_request_and_its_answer(wire):
    """With bodies, class and deadline."""
    asking = wire.ask(Encoded(7, b"fields", b"body"), priority=3, after_s=2.5)
    wire.settle()
    (request,) = wire.take(wire.b)
    assert request.message == Encoded(7, b"fields", b"body")
    assert (request.stream.priority, request.stream.deadline_s) == (3, 102.5)
    wire.b.reply(request.stream, Encoded(8, b"answer", b"bytes"))
    wire.b.end(request.stream)
    wire.settle()
    assert wire.take(wire.a) == [Replied(asking, Encoded(8, b"answer", b"bytes"), 0), Ended(asking, None)]
    assert (wire.a.is_idle, wire.b.is_idle) == (True, True)


@pytest.mark.parametrize(
    "fields", [0, 1, MAX_PLAINTEXT_BYTES - 20, MAX_PLAINTEXT_BYTES, 3 * MAX_PLAINTEXT_BYTES, MEGABYTE]
)
@pytest.mark.parametrize(
    "body", [0, 1, 8 << 10, (8 << 10) + 1, MAX_PLAINTEXT_BYTES, MAX_PLAINTEXT_BYTES + 1, 8 * MEGABYTE]
)
def test_messages_of_any_size_arrive_whole(wire, fields, body):
    """In both directions, also those that are larger than the window."""
    message = Encoded(9, random.Random(fields).randbytes(fields), random.Random(body).randbytes(body))
    asking = wire.ask(message)
    wire.settle()
    (request,) = wire.take(wire.b)
    assert request.message == message
    serving = request.stream
    for _ in range(2):
        wire.b.reply(serving, message)
        wire.settle()
        (reply,) = wire.take(wire.a)
        assert reply.message == message
        wire.a.taken(reply)
    wire.b.end(serving)
    wire.settle()
    assert wire.take(wire.a) == [Ended(asking, None)]
    wire.a.discard(asking)
    assert (wire.a._ledger.loans._left, wire.a.is_idle) == (MAX_LOAN_BYTES, True)


def test_a_failure_comes_after_the_answers_that_were_given(wire):
    """With its kind and its text, cut to what a frame holds."""
    asking, serving = wire.asked()
    wire.b.reply(serving, SMALL)
    wire.b.fail(serving, "NotFound", "ü" * 2000)
    wire.settle()
    assert wire.take(wire.a) == [Replied(asking, SMALL, 0), Ended(asking, ("NotFound", "ü" * 512))]


def test_giving_up_drops_what_is_queued(wire):
    """At a deadline nobody waits for it any more; the stream ends in the middle of a message."""
    asking, serving = wire.asked()
    wire.b.reply(serving, Encoded(1, b"", bytes(MEGABYTE)))
    wire.carry(wire.b)
    wire.b.give_up(serving, "Deadline", "too late")
    wire.settle()
    assert wire.take(wire.a) == [Ended(asking, ("Deadline", "too late"))]
    assert wire.b.is_idle


def test_both_sides_may_ask_at_the_same_time(wire):
    """Their streams have numbers of their own."""
    theirs = wire.b.open(SMALL, priority=0, deadline_s=200)
    asking = wire.ask()
    wire.settle()
    (at_a,), (at_b,) = wire.take(wire.a), wire.take(wire.b)
    wire.a.end(at_a.stream)
    wire.b.end(at_b.stream)
    wire.settle()
    assert (wire.take(wire.a), wire.take(wire.b)) == ([Ended(asking, None)], [Ended(theirs, None)])


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_who_asked_may_cancel(wire):
    """The other side hears of it, its answers go nowhere, and both forget the stream."""
    asking, serving = wire.asked()
    wire.a.discard(asking)
    wire.settle()
    assert wire.take(wire.b) == [Cancelled(serving)]
    wire.b.reply(serving, SMALL)
    wire.b.end(serving)
    wire.settle()
    assert wire.take(wire.a) == []
    assert (wire.a.is_idle, wire.b.is_idle) == (True, True)


def test_a_request_that_was_not_sent_is_cancelled_here(wire):
    """Nobody hears of it."""
    asking = wire.ask()
    wire.a.discard(asking)
    assert wire.a.next_records(wire.now) == []
    assert wire.a.is_idle


@pytest.mark.parametrize("batches", range(12))
def test_cancelling_in_the_middle_of_anything(wire, batches):
    """Of the request, of an answer, between them: both sides stay in step, and the next request works."""
    asking = wire.ask(Encoded(1, bytes(MEGABYTE), bytes(MEGABYTE)))
    serving = None
    for _ in range(batches):
        wire.carry(wire.a) or wire.carry(wire.b)
        for event in wire.take(wire.b):
            serving = event.stream
            wire.b.reply(serving, Encoded(1, bytes(1000), bytes(MEGABYTE)))
    wire.a.discard(asking)
    wire.settle()
    wire.take(wire.a), wire.take(wire.b)
    assert (wire.a.is_idle, wire.b.is_idle) == (True, True)
    test_a_request_and_its_answer(wire)


def test_a_cancellation_may_cross_the_end(wire):
    """Both are right, and nothing comes of it."""
    asking, serving = wire.asked()
    wire.b.end(serving)
    wire.a.discard(asking)
    records = [wire.a.next_records(wire.now), wire.b.next_records(wire.now)]
    for receiver, batch in zip((wire.b, wire.a), records, strict=True):
        for record in batch:
            wire.arrive(receiver, bytes(record))
    wire.settle()
    assert (wire.take(wire.a), wire.take(wire.b)) == ([], [])
    assert (wire.a.is_idle, wire.b.is_idle) == (True, True)


# -- what overtakes what -----------------------------------------------------------------------------------------------


def test_what_is_urgent_waits_for_one_record(wire):
    """An interactive answer overtakes a copy in the middle of a message."""
    copy, copy_served = wire.asked(priority=3, window=MEGABYTE * 10)
    urgent, urgent_served = wire.asked(priority=0)
    wire.b.reply(copy_served, Encoded(1, b"", bytes(8 * MEGABYTE)))
    wire.carry(wire.b)
    wire.b.reply(urgent_served, SMALL)
    wire.carry(wire.b)
    assert wire.take(wire.a) == [Replied(urgent, SMALL, 0)]
    wire.settle()
    assert [event.stream for event in wire.take(wire.a)] == [copy]


def test_the_order_is_class_then_deadline_then_arrival(wire):
    """Of answers that wait at the same time."""
    order = [(1, 9.0), (0, 9.0), (4, 1.0), (0, 3.0), (0, 3.0), (2, 5.0)]
    streams = [wire.asked(priority=priority, after_s=after_s) for priority, after_s in order]
    for _, serving in streams:
        wire.b.reply(serving, SMALL)
    wire.settle()
    arrived = [event.stream for event in wire.take(wire.a)]
    assert arrived == [streams[index][0] for index in (3, 4, 1, 0, 5, 2)]


def test_requests_overtake_each_other_too(wire):
    """A large one of low class waits behind a small one that came later."""
    wire.ask(Encoded(1, bytes(MEGABYTE), bytes(MEGABYTE)), priority=4)
    wire.carry(wire.a)
    urgent = wire.ask(priority=0)
    wire.carry(wire.a)
    (request,) = wire.take(wire.b)
    assert (request.stream.id, urgent.id) == (3, 3)


# -- back-pressure -----------------------------------------------------------------------------------------------------


def test_answers_wait_for_credit(wire):
    """A consumer that takes nothing gets its window, and then nothing; when it takes, more comes."""
    _, serving = wire.asked(window=MIN_WINDOW)
    for _ in range(100):
        wire.b.reply(serving, Encoded(1, bytes(100)))
    wire.settle()
    replies = wire.take(wire.a)
    assert 3 * MIN_WINDOW / 4 <= sum(100 + 64 for _ in replies) <= MIN_WINDOW
    total = len(replies)
    while replies:
        for reply in replies:
            wire.a.taken(reply)
        wire.settle()
        replies = wire.take(wire.a)
        total += len(replies)
    assert total == 100


def test_a_stream_without_credit_holds_up_no_other(wire):
    """Although it has the lower class."""
    _, stuck_served = wire.asked(priority=0, window=MIN_WINDOW)
    other, other_served = wire.asked(priority=4)
    for _ in range(50):
        wire.b.reply(stuck_served, Encoded(1, bytes(1000)))
    wire.b.reply(other_served, SMALL)
    wire.settle()
    assert wire.take(wire.a)[-1] == Replied(other, SMALL, 0)


def test_messages_larger_than_their_windows_take_turns(wire):
    """The pot lends to as many as it can hold; the others come when it is given back, and none is forgotten."""
    streams = [wire.asked(window=MIN_WINDOW) for _ in range(6)]
    for _, serving in streams:
        wire.b.reply(serving, Encoded(1, b"", bytes(7 * MEGABYTE)))
        wire.b.end(serving)
    arrived = []
    while len(arrived) < 6:
        wire.settle()
        events = [event for event in wire.take(wire.a) if isinstance(event, Replied)]
        assert 1 <= len(events) <= 2
        assert wire.a._ledger.loans._left < 3 * MEGABYTE
        for reply in events:
            wire.a.taken(reply)
            wire.a.discard(reply.stream)
        arrived += events
    wire.settle()
    assert wire.a._ledger.loans._left == MAX_LOAN_BYTES


def test_notices_have_a_window_of_their_own(wire):
    """Who does not take them stops notices, and nothing else."""
    for _ in range(5):
        wire.a.notify(Encoded(1, bytes(MEGABYTE - 100)))
    wire.settle()
    first = wire.take(wire.b)
    assert 1 <= len(first) <= 2
    assert not wire.a.can_notify()
    wire.asked()
    total = len(first)
    while first:
        for notice in first:
            assert isinstance(notice, Noticed)
            wire.b.notice_taken(notice)
        wire.settle()
        first = wire.take(wire.b)
        total += len(first)
    assert total == 5
    with pytest.raises(ValueError, match="at most"):
        wire.a.notify(Encoded(1, b"", bytes(MAX_NOTICE_BYTES)))


def test_this_side_keeps_the_limits_that_it_holds_others_to(wire):
    """So many requests, so many bytes of requests, so large windows: one more has to wait."""
    streams = [wire.ask() for _ in range(MAX_STREAMS)]
    assert not wire.a.can_open(SMALL)
    wire.settle()
    wire.b.end(wire.take(wire.b)[0].stream)
    wire.settle()
    assert wire.a.can_open(SMALL)
    for stream in streams:
        wire.a.discard(stream)
    assert not wire.a.can_open(Encoded(1, b""), MAX_WINDOW_BYTES)  # until the other side has agreed to the end
    wire.settle()
    assert wire.a.can_open(Encoded(1, b""), MAX_WINDOW_BYTES)
    assert not wire.a.can_open(Encoded(1, b""), MAX_WINDOW_BYTES + 1)
    large = Encoded(1, b"", bytes(8 * MEGABYTE))
    wire.ask(large)
    assert not wire.a.can_open(large)
    with pytest.raises(ValueError, match="now"):
        wire.ask(large)


# -- pings, farewell ---------------------------------------------------------------------------------------------------


def test_a_ping_is_answered(wire):
    """Before all messages."""
    wire.a.ping()
    wire.a.ping()
    assert wire.a.is_waiting_for_pong
    wire.asked(priority=0)
    assert not wire.a.is_waiting_for_pong


def test_after_a_farewell_what_is_under_way_goes_on(wire):
    """Nothing new begins; what had not been sent ends here, what was on its way there is refused."""
    asking, serving = wire.asked()
    unsent = wire.ask()
    assert wire.a.say_goodbye("moving") == [Ended(unsent, ("Unreachable", "moving"))]
    crossing = wire.b.open(SMALL, priority=0, deadline_s=200)
    batch = wire.b.next_records(wire.now)
    wire.settle()
    assert wire.take(wire.b) == [SaidGoodbye("moving")]
    for record in batch:
        wire.arrive(wire.a, bytes(record))
    assert wire.take(wire.a) == []
    with pytest.raises(ValueError, match="now"):
        wire.ask()
    with pytest.raises(ValueError, match="now"):
        wire.b.open(SMALL, priority=0, deadline_s=200)
    wire.b.reply(serving, SMALL)
    assert not wire.a.is_idle
    wire.b.end(serving)
    wire.settle()
    assert wire.take(wire.a) == [Replied(asking, SMALL, 0), Ended(asking, None)]
    assert wire.take(wire.b) == [Ended(crossing, ("Unreachable", "the link is being closed"))]
    assert (wire.a.is_idle, wire.b.is_idle) == (True, True)


# -- violations --------------------------------------------------------------------------------------------------------


def opening(stream=1, priority=0, deadline_ms=1000, window=MIN_WINDOW, number=1, fields=0, body=0, data=b""):
    head = frames.pack_open(OpenHead(priority, deadline_ms, window))
    return frames.frame(Kind.OPEN, stream, head + struct.pack(">HII", number, fields, body) + data)


def message(kind, stream, number=1, fields=0, body=0, data=b""):
    return frames.frame(kind, stream, struct.pack(">HII", number, fields, body) + data)


CREDIT = struct.pack(">I", 10)
# What b sends to a, which has asked once (stream 1) and been asked once (stream 2).
VIOLATIONS = {
    "no frame": b"\1\0\0",
    "a frame that is cut": opening(4)[:-1],
    "an unknown kind": frames.frame(99, 0),
    "kind 0": frames.frame(0, 0),
    "our own stream number": opening(3),
    "an old stream number": opening(2),
    "a later stream number": opening(6),
    "stream 0": opening(0),
    "a class too many": opening(4, priority=5),
    "no time": opening(4, deadline_ms=0),
    "no window": opening(4, window=MIN_WINDOW - 1),
    "a giant window": opening(4, window=MAX_WINDOW_BYTES + 1),
    "type 0": opening(4, number=0),
    "giant fields": opening(4, fields=MEGABYTE + 1),
    "a giant body": opening(4, body=8 * MEGABYTE + 1),
    "fields that nobody announced": opening(4, data=b"x"),
    "an answer to nothing": message(Kind.REPLY, 3),
    "an answer on their own stream": message(Kind.REPLY, 2),
    "an answer inside an answer": message(Kind.REPLY, 1, fields=5) + message(Kind.REPLY, 1),
    "an end inside an answer": message(Kind.REPLY, 1, fields=5) + frames.frame(Kind.END, 1),
    "an end of nothing": frames.frame(Kind.END, 3),
    "two ends": frames.frame(Kind.END, 1) * 2,
    "a failure that is none": frames.frame(Kind.FAIL, 1, b"\5abc"),
    "a failure that is no text": frames.frame(Kind.FAIL, 1, b"\1\xff"),
    "a failure that is too long": frames.frame(Kind.FAIL, 1, b"\1k" + bytes(1025)),
    "fields of nothing": frames.frame(Kind.DATA, 1, b"x"),
    "fields of no stream": frames.frame(Kind.DATA, 9, b"x"),
    "fields of no notice": frames.frame(Kind.DATA, 0, b"x"),
    "no fields": message(Kind.REPLY, 1, fields=5) + frames.frame(Kind.DATA, 1),
    "too many fields": message(Kind.REPLY, 1, fields=5) + frames.frame(Kind.DATA, 1, b"123456"),
    "a body of nothing": frames.body_frame(1, 5),
    "a body before its fields": message(Kind.REPLY, 1, fields=5, body=5) + frames.body_frame(1, 5),
    "an empty body": message(Kind.REPLY, 1, body=5) + frames.body_frame(1, 0),
    "a body larger than a record": message(Kind.REPLY, 1, body=MEGABYTE) + frames.body_frame(1, (128 << 10) + 1),
    "frames after a body": message(Kind.REPLY, 1, body=5) + frames.body_frame(1, 5) + frames.frame(Kind.END, 1),
    "a cancellation of nothing": frames.frame(Kind.CANCEL, 4),
    "a cancellation of our request": frames.frame(Kind.CANCEL, 1),
    "two cancellations": frames.frame(Kind.CANCEL, 2) * 2,
    "credit of nothing": frames.frame(Kind.CREDIT, 2, bytes(4)),
    "credit that is none": frames.frame(Kind.CREDIT, 2, b"12"),
    "credit for nothing": frames.frame(Kind.CREDIT, 4, CREDIT),
    "credit for our request": frames.frame(Kind.CREDIT, 1, CREDIT),
    "credit without end": frames.frame(Kind.CREDIT, 2, b"\xff" * 4) * 300,
    "a ping that is none": frames.frame(Kind.PING, 0, b"1234567"),
    "pings without waiting": frames.frame(Kind.PING, 0, bytes(8)) * 2,
    "a pong to no ping": frames.frame(Kind.PONG, 0, bytes(8)),
    "two farewells": frames.frame(Kind.GOODBYE, 0, b"x") * 2,
    "a farewell that is no text": frames.frame(Kind.GOODBYE, 0, b"\xff"),
    "a request after the farewell": frames.frame(Kind.GOODBYE, 0, b"x") + opening(4),
    "a notice on a stream": message(Kind.NOTICE, 2),
    "a notice inside a notice": message(Kind.NOTICE, 0, fields=5) * 2,
    "a giant notice": message(Kind.NOTICE, 0, fields=MEGABYTE),
    "more than the window": b"".join(message(Kind.REPLY, 1, fields=n, data=bytes(n)) for n in (200_000, 100_000)),
    "many empty answers": message(Kind.REPLY, 1) * 5000,
    "many empty notices": message(Kind.NOTICE, 0) * (NOTICE_WINDOW // 64 + 1),
    "many requests": b"".join(opening(2 * number) for number in range(2, MAX_STREAMS + 3)),
    "requests of many bytes": b"".join(opening(2 * n, body=8 * MEGABYTE) for n in range(2, 5)),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_ends_the_session_and_says_why(wire, name):
    """One error, once told; nothing is taken afterwards."""
    wire.asked()
    wire.b.open(SMALL, priority=0, deadline_s=200)
    wire.settle()
    with pytest.raises(ProtocolError) as caught:
        wire.arrive(wire.a, VIOLATIONS[name])
    assert wire.a.why_dead == str(caught.value)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            wire.a.body_room(5)
        with pytest.raises(ProtocolError):
            wire.a.receive(memoryview(b""), 0.0)


@pytest.mark.parametrize("size", [4, 6])
def test_a_body_record_has_the_size_that_was_announced(wire, size):
    """Neither less nor more."""
    wire.asked()
    wire.arrive(wire.a, message(Kind.REPLY, 1, body=5) + frames.body_frame(1, 5))
    with pytest.raises(ProtocolError, match="not the body"):
        wire.a.body_room(size)
    with pytest.raises(ProtocolError):
        wire.a.receive(memoryview(b"12345"), 0.0)


@pytest.mark.parametrize("name", ["credit", "end"])
def test_frames_that_crossed_a_cancellation_are_no_violation(wire, name):
    """Credit for a stream that has just ended, and a body that was on its way."""
    asking, serving = wire.asked(window=MIN_WINDOW)
    wire.b.end(serving)
    wire.settle()
    wire.arrive(wire.b, frames.frame(Kind.CREDIT, asking.id, CREDIT))
    wire.arrive(wire.b, frames.frame(Kind.CANCEL, asking.id))
    assert wire.b.why_dead is None


def test_a_peer_that_floods_is_stopped_within_bounds(wire):
    """It asks as often as it may and never reads: nothing piles up here but what was counted."""
    for number in range(MAX_STREAMS):
        wire.arrive(wire.a, opening(2 * (number + 1)))
    for event in wire.take(wire.a):
        assert isinstance(event, Requested)
        wire.a.fail(event.stream, "Unsupported", "x" * 5000)
    with pytest.raises(ProtocolError, match="more requests"):
        wire.arrive(wire.a, opening(2 * (MAX_STREAMS + 1)))
    assert sum(len(record) for record in wire.a.next_records(0.0, 1 << 30)) < MAX_STREAMS * 1200


def test_ten_thousand_random_records_give_events_or_the_one_error():
    """Bytes of frames, put together at random."""
    generator = random.Random(11)
    deaths = 0
    for _ in range(10_000):
        one = Session(is_initiator=True)
        asking = one.open(SMALL, priority=0, deadline_s=9)
        one.next_records(0.0)
        record = b"".join(
            frames.frame(
                generator.randrange(14),
                generator.choice([0, 1, 2, 3, 4]),
                generator.randbytes(generator.choice([0, 4, 8, 10, 19, 30]))
                if generator.random() < 0.7
                else generator.choice(list(VIOLATIONS.values()))[9:60],
            )
            for _ in range(generator.randrange(1, 4))
        )
        try:
            if one.body_room(len(record)) is None:
                one.receive(memoryview(record), 0.0)
        except ProtocolError:
            deaths += 1
        one.discard(asking)
    assert deaths > 5_000


@given(data=st.binary(max_size=400))
def test_any_bytes_give_events_or_the_one_error(data):
    """Arbitrary ones."""
    wire = Wire()
    wire.asked()
    try:
        wire.arrive(wire.a, data)
    except ProtocolError as error:
        assert wire.a.why_dead == str(error)


# -- everything at once ------------------------------------------------------------------------------------------------

sizes = st.sampled_from([0, 1, 63, 1000, 9000, 70_000, MAX_PLAINTEXT_BYTES, 300_000])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_mixture_of_requests_ends_well(data):
    """Many streams, any sizes and windows, slow consumers, cancellations: every answer arrives once, in its order."""
    wire = Wire()
    streams = []
    for index in range(data.draw(st.integers(1, 6))):
        window = data.draw(st.sampled_from([MIN_WINDOW, 20_000, 400_000]))
        asking = wire.ask(
            Encoded(1, bytes((index,)) * data.draw(sizes)), priority=data.draw(st.integers(0, 4)), window=window
        )
        answers = [
            Encoded(2, bytes((n,)) * data.draw(sizes), bytes((n,)) * data.draw(sizes))
            for n in range(data.draw(st.integers(0, 4)))
        ]
        streams.append([asking, answers, [], None])
    cancelled = {index for index in range(len(streams)) if data.draw(st.integers(0, 5)) == 0}
    held = []
    for _ in range(3000):
        moved = wire.carry(wire.a, data.draw(st.sampled_from([1, 10_000, MAX_PLAINTEXT_BYTES]))) | wire.carry(wire.b)
        for event in wire.take(wire.b):
            if isinstance(event, Requested):
                for entry in streams:
                    if entry[0].id == event.stream.id:
                        for answer in entry[1]:
                            wire.b.reply(event.stream, answer)
                wire.b.end(event.stream)
        for event in wire.take(wire.a):
            entry = next(entry for entry in streams if entry[0] is event.stream)
            if isinstance(event, Replied):
                entry[2].append(event.message)
                held.append(event)
            else:
                entry[3] = event
        for index in list(cancelled):
            if streams[index][2]:
                wire.a.discard(streams[index][0])
                held = [event for event in held if event.stream is not streams[index][0]]
                cancelled.discard(index)
        if not moved:
            if not held:
                break
            wire.a.taken(held.pop(data.draw(st.integers(0, len(held) - 1))))
    for asking, answers, arrived, end in streams:
        if asking.is_cancelled:
            assert arrived == answers[: len(arrived)]
        else:
            assert (arrived, end) == (answers, Ended(asking, None))
        wire.a.discard(asking)
    wire.settle()
    assert (wire.a.is_idle, wire.b.is_idle) == (True, True)
    assert wire.a._ledger.loans._left == MAX_LOAN_BYTES
    assert (wire.a._ledger.asked_bytes, wire.a._ledger.window_bytes, wire.b._ledger.served_bytes) == (0, 0, 0)
    assert wire.b._outbox.queued_bytes == 0


def test_places_serve_again_once_nobody_looks_at_them():
    """Neither a message nor a view of a part of one; other sizes are made when they are needed."""
    buffers = Buffers()
    first = buffers.take(BLOCK_BYTES)
    address = id(first)
    view = memoryview(first)[5:10]
    del first
    assert id(buffers.take(BLOCK_BYTES)) != address
    del view
    assert address in {id(buffers.take(BLOCK_BYTES)) for _ in range(3)}
    held = [buffers.take(BLOCK_BYTES) for _ in range(100)]
    assert len({id(place) for place in held}) == 100
    assert len(buffers.take(7)) == 7
    buffers.clear()
    assert not buffers._made


def test_small_bodies_go_with_the_fields_and_large_ones_alone(wire):
    """A record of its own is worth it from some size on; nothing of a block is copied."""
    wire.asked(Encoded(1, b"fields", b"small"))
    serving = wire.b._ledger.serving[1]
    block = memoryview(bytes(BLOCK_BYTES))
    wire.b.reply(serving, Encoded(1, b"fields", b"small"))
    wire.b.reply(serving, Encoded(1, b"fields", block))
    records = wire.b.next_records(0.0, 1 << 20)
    assert [len(record) < 200 for record in records] == [True, False]
    assert records[1].obj is block.obj


def test_the_head_of_a_message(wire):
    """As another program has to write it."""
    assert opening(4, fields=2, data=b"xy") == bytes.fromhex(
        "01 00000004 00000015  00 000003e8 00001000  0001 00000002 00000000") + b"xy"  # fmt: skip
    assert frames.unpack_message(memoryview(opening(4)[18:])) == MessageHead(1, 0, 0)
    assert MAX_REQUEST_BYTES == 16 * MEGABYTE
