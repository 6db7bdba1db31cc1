"""The session: many requests at a time over one sequence of records, without I/O and without a clock.

In: records, as they are opened, with the time; and what this side wants to ask, answer, cancel. Out: events, and the
records that are to be sealed. Whoever asks opens a stream: one request, any number of answers, then END or FAIL, always
exactly one of them, also after a CANCEL. Notices want no answer.

**What is bounded.** MAX_STREAMS open in each direction; MAX_REQUEST_BYTES of requests that are not over; the answers to
one request by its window, all windows together by MAX_WINDOW_BYTES, and a pot for answers that are larger (`flow`);
notices by a window of their own. Both sides count alike, so whoever goes beyond breaks the protocol; this side waits
instead (`can_open`, `can_reply`, `can_notify`). A message is given out as it travelled, and decoded by whoever takes
it, so a queue holds no more than was counted.

**Violations.** What may not come is a ProtocolError; the session is dead then, and `why_dead` says why.

What goes first is the `outbox`'s. Kept out: keys (`records`), the meaning of messages (`codec`), tasks and time-outs
(the channel).
"""

from typing import Final, NoReturn

from index.model.errors import ProtocolError
from sync.wire import frames
from sync.wire.codec import Encoded
from sync.wire.flow import MIN_WINDOW, Loans
from sync.wire.frames import AMOUNT, PING_BYTES, Frame, Kind, MessageHead, OpenHead
from sync.wire.outbox import Outbox
from sync.wire.pieces import Buffers, Incoming, Outgoing, cost_of
from sync.wire.records import MAX_PLAINTEXT_BYTES, Data
from sync.wire.streams import (
    Asking,
    Cancelled,
    Ended,
    Event,
    Noticed,
    Notices,
    Replied,
    Requested,
    SaidGoodbye,
    Serving,
    Stream,
)

MAX_STREAMS: Final = 256
MAX_REQUEST_BYTES: Final = 16 << 20
MAX_WINDOW_BYTES: Final = 64 << 20
MAX_LOAN_BYTES: Final = 16 << 20  # more than any one message
MAX_NOTICE_BYTES: Final = 1 << 20  # half of the window of notices: one always fits
MAX_QUEUED_BYTES: Final = 32 << 20
DEFAULT_WINDOW: Final = 256 << 10
_MAX_DEADLINE_MS: Final = (1 << 32) - 1
_MAX_CREDIT: Final = 1 << 40
_LAST_STREAM: Final = 0xFFFF_FFF0


class Session:
    """One end of a link. `is_initiator` is that of the handshake: its streams are odd, the other side's even."""

    def __init__(self, *, is_initiator: bool) -> None:
        self.why_dead: str | None = None
        self.is_closing = False  # one of the two has said goodbye
        self._next_own = 1 if is_initiator else 2
        self._next_theirs = 2 if is_initiator else 1
        self._asking: dict[int, Asking] = {}
        self._unsent: dict[Asking, None] = {}  # requests of ours without a number yet, in their order
        self._serving: dict[int, Serving] = {}
        self._notices = Notices()
        self._asked_bytes = 0
        self._served_bytes = 0
        self._window_bytes = 0
        self._arrivals = 0
        self._loans = Loans(MAX_LOAN_BYTES)
        self._buffers = Buffers()
        self._outbox = Outbox(self._begun)
        self._body: tuple[Stream, int] | None = None  # the next record is so much of its body
        self._ping: bytes | None = None  # that waits for its answer
        self._pings = 0
        self._pong_is_queued = False
        self._has_said_goodbye = False
        self._has_heard_goodbye = False

    # -- asking

    def can_open(self, message: Encoded, window: int = DEFAULT_WINDOW) -> bool:
        """Whether there is room for one more request; when not, there will be when others are over."""
        return (
            len(self._asking) + len(self._unsent) < MAX_STREAMS
            and self._asked_bytes + cost_of(message) <= MAX_REQUEST_BYTES
            and self._window_bytes + window <= MAX_WINDOW_BYTES
        )

    def open(self, message: Encoded, *, priority: int, deadline_s: float, window: int = DEFAULT_WINDOW) -> Asking:
        """Ask. `deadline_s` is a time of the clock that `next_records` is given; `window` bytes of answers may wait.

        ValueError when there is no room, and on a link that is being closed.
        """
        if self.is_closing or self.why_dead is not None or not self.can_open(message, window):
            raise ValueError("no request can be made now")
        if not 0 <= priority < frames.PRIORITIES or window < MIN_WINDOW:
            raise ValueError(f"a request of class {priority} with a window of {window} bytes")
        stream = Asking(priority, deadline_s, self._arrived(), window, self._grant)
        stream.cost = cost_of(message)
        self._unsent[stream] = None
        self._asked_bytes += stream.cost
        self._window_bytes += window
        self._outbox.add(stream, Outgoing(Kind.OPEN, message))
        return stream

    def taken(self, reply: Replied) -> None:
        """Somebody has taken an answer: as much may be sent again."""
        stream = reply.stream
        if stream.is_over or stream.is_cancelled:
            return
        if reply.lent:
            stream.lent -= reply.lent
            self._loans.give_back(reply.lent)
        stream.window.give_back(cost_of(reply.message) - reply.lent)
        self._give_credit(stream)

    def discard(self, stream: Asking) -> None:
        """Nobody wants what still comes: cancelled unless it is over. Called once for each request, at its end."""
        self._loans.forget(stream)
        self._loans.give_back(stream.lent)
        stream.lent = stream.lent_now = 0
        if stream.is_over or stream.is_cancelled:
            return
        stream.is_cancelled = True
        if self._body is None or self._body[0] is not stream:
            stream.incoming = None
        self._outbox.drop(stream)
        if stream in self._unsent:
            self._asking_over(stream)
        else:
            self._outbox.forget_credit(stream.id)
            self._outbox.steer(frames.frame(Kind.CANCEL, stream.id))

    # -- answering

    def can_reply(self, stream: Serving) -> bool:
        """Whether little is queued before an answer, and there is room in all queues together."""
        return stream.is_finished or (
            stream.queued_bytes < stream.queue_limit and self._outbox.queued_bytes < MAX_QUEUED_BYTES
        )

    def reply(self, stream: Serving, message: Encoded) -> None:
        """An answer. It goes nowhere when the stream has been cancelled."""
        if stream.is_cancelled:
            return
        if stream.is_finished:
            raise ValueError("an answer after the end")
        self._outbox.add(stream, Outgoing(Kind.REPLY, message))

    def end(self, stream: Serving) -> None:
        """That was all."""
        self._finish(stream, frames.frame(Kind.END, stream.id))

    def fail(self, stream: Serving, kind: str, text: str) -> None:
        """It cannot be answered, or not to the end. What is queued goes first."""
        self._finish(stream, frames.frame(Kind.FAIL, stream.id, frames.pack_fail(kind, text)))

    def give_up(self, stream: Serving, kind: str, text: str) -> None:
        """As `fail`, and what is queued does not go any more."""
        if not stream.is_finished:
            self._outbox.drop(stream)
            self.fail(stream, kind, text)

    # -- notices, pings, the end

    def can_notify(self) -> bool:
        """Whether a notice would be queued behind no other."""
        return not self._notices.queue and self._outbox.queued_bytes < MAX_QUEUED_BYTES

    def notify(self, message: Encoded) -> None:
        """Tell without asking. ValueError for one of more than MAX_NOTICE_BYTES."""
        if cost_of(message) > MAX_NOTICE_BYTES:
            raise ValueError(f"a notice has at most {MAX_NOTICE_BYTES} bytes")
        self._outbox.add(self._notices, Outgoing(Kind.NOTICE, message))

    def notice_taken(self, notice: Noticed) -> None:
        """Somebody has taken a notice: as much may be sent again."""
        self._notices.window.give_back(cost_of(notice.message))
        self._give_credit(self._notices)

    def ping(self) -> None:
        """Ask whether the other side is there, on a link gone quiet; not again while the last answer is missing."""
        self._buffers.clear()
        if self._ping is None:
            self._pings += 1
            self._ping = self._pings.to_bytes(PING_BYTES, "big")
            self._outbox.steer(frames.frame(Kind.PING, 0, self._ping))

    @property
    def is_waiting_for_pong(self) -> bool:
        return self._ping is not None

    def say_goodbye(self, reason: str) -> list[Event]:
        """No new requests in either direction. Those under way go on; `is_idle` when they are over.

        Requests of ours that were not sent yet will not be: they end here.
        """
        if self._has_said_goodbye:
            return []
        self._has_said_goodbye = self.is_closing = True
        events: list[Event] = []
        for stream in list(self._unsent):
            self._outbox.drop(stream)
            self._asking_over(stream)
            events.append(Ended(stream, ("Unreachable", reason)))
        self._outbox.steer(frames.frame(Kind.GOODBYE, 0, frames.cut_text(reason)))
        return events

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way in either direction."""
        return not (self._asking or self._serving or self._unsent or self._notices.queue or self._outbox)

    # -- out

    @property
    def has_output(self) -> bool:
        """Whether `next_records` may have something."""
        return bool(self._outbox)

    def next_records(self, now_s: float, max_bytes: int = MAX_PLAINTEXT_BYTES) -> list[Data]:
        """The plaintexts of the records to be sent next, in their order; about `max_bytes`, none when there is nothing.

        What is handed out goes out, or the link is closed.
        """
        return self._outbox.next_records(now_s, max_bytes)

    def take_drained(self) -> list[Stream]:
        """Streams whose queue has become empty since the last time: who waits for `can_reply` may look again."""
        drained, self._outbox.drained = self._outbox.drained, []
        return drained

    def _begun(self, stream: Asking, now_s: float) -> bytes:
        """A request goes out: it gets its number, in the order in which requests go out, and the head of its frame."""
        stream.id, self._next_own = self._next_own, self._next_own + 2
        if stream.id >= _LAST_STREAM:
            self.is_closing = True  # two thousand million requests: time for a new link
        del self._unsent[stream]
        self._asking[stream.id] = stream
        left_ms = min((stream.deadline_s - now_s) * 1000, _MAX_DEADLINE_MS)
        return frames.pack_open(OpenHead(stream.priority, max(1, int(left_ms)), stream.window.size))

    # -- in

    def body_room(self, size: int) -> memoryview | None:
        """Where a record with a plaintext of `size` bytes is to be opened to when a body is due: then `body_received`.

        None when it holds frames: then `receive`.
        """
        self._check_alive()
        if self._body is None:
            return None
        stream, expected = self._body
        if size != expected or stream.incoming is None:
            self._die("a record that is not the body that was announced")
        return stream.incoming.body_room(size)

    def body_received(self) -> list[Event]:
        """The room has been filled."""
        assert self._body is not None
        (stream, size), self._body = self._body, None
        assert stream.incoming is not None
        stream.incoming.body_received(size)
        events: list[Event] = []
        if isinstance(stream, Asking) and stream.is_cancelled:
            stream.incoming = None
        else:
            self._complete(stream, events)
        return events

    def receive(self, record: memoryview, now_s: float) -> list[Event]:
        """What a record of frames says. ProtocolError when it says what may not be said; the session is dead then."""
        self._check_alive()
        events: list[Event] = []
        try:
            if self._body is not None:
                raise ProtocolError("frames where a body was announced")
            for frame in frames.frames_of(record):
                self._take(frame, now_s, events)
        except ProtocolError as error:
            self._die(str(error))
        return events

    def _take(self, frame: Frame, now_s: float, events: list[Event]) -> None:
        kind, id, payload = frame
        match kind:
            case Kind.OPEN:
                self._take_open(id, payload, now_s, events)
            case Kind.REPLY:
                self._take_reply(self._asked(id), payload, events)
            case Kind.NOTICE:
                self._take_notice(id, payload, events)
            case Kind.DATA:
                self._take_data(self._receiving(id), payload, events)
            case Kind.BODY:
                self._take_body(self._receiving(id), AMOUNT.unpack(payload)[0])
            case Kind.END:
                self._take_end(self._asked(id), None, events)
            case Kind.FAIL:
                self._take_end(self._asked(id), frames.unpack_fail(payload), events)
            case Kind.CANCEL:
                self._take_cancel(id, events)
            case Kind.CREDIT:
                self._take_credit(id, payload)
            case Kind.PING:
                self._take_ping(payload)
            case Kind.PONG:
                if self._ping is None or payload != self._ping:
                    raise ProtocolError("an answer to a ping that was not sent")
                self._ping = None
            case Kind.GOODBYE:
                if self._has_heard_goodbye:
                    raise ProtocolError("two farewells")
                self._has_heard_goodbye = self.is_closing = True
                events.append(SaidGoodbye(frames.unpack_text(payload)))
            case _:
                raise ProtocolError(f"a frame of a kind that there is not: {kind}")

    def _take_open(self, id: int, payload: memoryview, now_s: float, events: list[Event]) -> None:
        if id != self._next_theirs or self._has_heard_goodbye:
            raise ProtocolError("a request out of its order")
        self._next_theirs += 2
        head = frames.unpack_open(payload)
        payload = payload[frames.OPEN_HEAD_BYTES :]
        incoming = Incoming(frames.unpack_message(payload), self._buffers)
        if len(self._serving) >= MAX_STREAMS or self._served_bytes + incoming.cost > MAX_REQUEST_BYTES:
            raise ProtocolError("more requests at a time than there may be")
        if not MIN_WINDOW <= head.window <= MAX_WINDOW_BYTES:
            raise ProtocolError(f"a window of {head.window} bytes")
        stream = Serving(id, head, now_s + head.deadline_ms / 1000, self._arrived(), incoming)
        self._serving[id] = stream
        self._served_bytes += incoming.cost
        incoming.add(payload[frames.MESSAGE_HEAD_BYTES :])
        self._complete(stream, events)

    def _take_reply(self, stream: Asking, payload: memoryview, events: list[Event]) -> None:
        incoming = Incoming(frames.unpack_message(payload), self._buffers)
        incoming.add(payload[frames.MESSAGE_HEAD_BYTES :])
        stream.window.take(incoming.cost - incoming.missing)
        if stream.is_cancelled:
            return
        if stream.incoming is not None or stream.queue:
            raise ProtocolError("an answer in the middle of another, or of the request")
        stream.incoming = incoming
        if incoming.cost > stream.window.size:
            self._loans.ask(stream, incoming.cost - stream.window.size)
        self._give_credit(stream)
        self._complete(stream, events)

    def _take_notice(self, id: int, payload: memoryview, events: list[Event]) -> None:
        notices = self._notices
        incoming = Incoming(frames.unpack_message(payload), self._buffers)
        incoming.add(payload[frames.MESSAGE_HEAD_BYTES :])
        if id != 0 or notices.incoming is not None or incoming.cost > MAX_NOTICE_BYTES:
            raise ProtocolError("a notice in the middle of another, or too large")
        notices.window.take(incoming.cost - incoming.missing)
        notices.incoming = incoming
        self._give_credit(notices)
        self._complete(notices, events)

    def _take_data(self, stream: Stream, payload: memoryview, events: list[Event]) -> None:
        if not len(payload):
            raise ProtocolError("a frame of nothing")
        if isinstance(stream, Asking | Notices):
            stream.window.take(len(payload))
        if isinstance(stream, Asking) and stream.is_cancelled:
            return
        if stream.incoming is None:
            raise ProtocolError("a part of no message")
        stream.incoming.add(payload)
        self._complete(stream, events)

    def _take_body(self, stream: Stream, size: int) -> None:
        if not 0 < size <= MAX_PLAINTEXT_BYTES:
            raise ProtocolError("a body of a size that no record has")
        if isinstance(stream, Asking | Notices):
            stream.window.take(size)
        if isinstance(stream, Asking) and stream.is_cancelled:
            stream.incoming = Incoming(
                MessageHead(1, 0, size), self._buffers
            )  # it has to be opened somewhere all the same
        if stream.incoming is None:
            raise ProtocolError("a body of no message")
        stream.incoming.expect_body(size)
        self._body = (stream, size)

    def _complete(self, stream: Stream, events: list[Event]) -> None:
        """If nothing is missing any more, the message is told of."""
        if stream.incoming is None or stream.incoming.missing:
            return
        message = stream.incoming.whole()
        stream.incoming = None
        if isinstance(stream, Asking):
            lent, stream.lent_now = stream.lent_now, 0
            events.append(Replied(stream, message, lent))
        elif isinstance(stream, Serving):
            if self._has_said_goodbye:
                self.fail(stream, "Unreachable", "the link is being closed")
            else:
                events.append(Requested(stream, message))
        else:
            events.append(Noticed(message))

    def _take_end(self, stream: Asking, failure: tuple[str, str] | None, events: list[Event]) -> None:
        if stream.queue or (stream.incoming is not None and failure is None and not stream.is_cancelled):
            raise ProtocolError("an end in the middle of an answer, or of the request")
        self._loans.forget(stream)
        self._loans.give_back(stream.lent_now)
        stream.lent -= stream.lent_now
        stream.lent_now = 0
        stream.incoming = None
        self._asking_over(stream)
        if not stream.is_cancelled:
            events.append(Ended(stream, failure))

    def _take_cancel(self, id: int, events: list[Event]) -> None:
        stream = self._serving.get(id)
        if stream is None:
            self._check_was_theirs(id)
            return
        if stream.is_cancelled:
            raise ProtocolError("a request cancelled twice")
        stream.is_cancelled = True
        was_whole, stream.incoming = stream.incoming is None, None
        was_finished = stream.is_finished
        self._outbox.drop(stream)
        self.end(stream)
        if was_whole and not was_finished:
            events.append(Cancelled(stream))

    def _take_credit(self, id: int, payload: memoryview) -> None:
        if len(payload) != AMOUNT.size or not (amount := AMOUNT.unpack(payload)[0]):
            raise ProtocolError("credit of nothing")
        stream = self._serving.get(id) if id else self._notices
        if stream is None:
            self._check_was_theirs(id)
            return
        assert stream.credit is not None
        stream.credit += amount
        if stream.credit > _MAX_CREDIT:
            raise ProtocolError("more credit than anybody could use")
        self._outbox.wake(stream)

    def _take_ping(self, payload: memoryview) -> None:
        if len(payload) != PING_BYTES or self._pong_is_queued:
            raise ProtocolError("a ping that is none, or before the answer to the last")
        self._pong_is_queued = True
        self._outbox.steer(frames.frame(Kind.PONG, 0, payload), self._pong_sent)

    # -- within

    def _asked(self, id: int) -> Asking:
        stream = self._asking.get(id)
        if stream is None:
            raise ProtocolError("an answer to nothing that was asked")
        return stream

    def _receiving(self, id: int) -> Stream:
        stream = (self._asking.get(id) or self._serving.get(id)) if id else self._notices
        if stream is None:
            raise ProtocolError("a part of a message that has not begun")
        return stream

    def _check_was_theirs(self, id: int) -> None:
        if not 0 < id < self._next_theirs or id % 2 != self._next_theirs % 2:
            raise ProtocolError("a frame for a request that was never made")

    def _arrived(self) -> int:
        self._arrivals += 1
        return self._arrivals

    def _finish(self, stream: Serving, last: bytes) -> None:
        """END or FAIL, after what is queued. The stream counts until it has gone out, as it does at the other end."""
        if stream.is_finished:
            return
        stream.is_finished = True

        def go() -> None:
            self._outbox.steer(last, lambda: self._serving_over(stream))

        if stream.queue:
            stream.when_sent = go
        else:
            go()

    def _serving_over(self, stream: Serving) -> None:
        stream.is_over = True
        del self._serving[stream.id]
        self._served_bytes -= stream.cost

    def _asking_over(self, stream: Asking) -> None:
        stream.is_over = True
        self._unsent.pop(stream, None)
        if stream.id:
            del self._asking[stream.id]
            self._outbox.forget_credit(stream.id)
        self._asked_bytes -= stream.cost
        self._window_bytes -= stream.window.size

    def _give_credit(self, stream: Asking | Notices) -> None:
        """Send what is due; all of it when a message in the middle waits for it."""
        amount = stream.window.due(stream.incoming.missing if stream.incoming is not None else 0)
        if amount:
            self._outbox.credit(stream.id, amount)

    def _grant(self, stream: Asking, amount: int) -> None:
        self._outbox.credit(stream.id, amount)

    def _pong_sent(self) -> None:
        self._pong_is_queued = False

    def _check_alive(self) -> None:
        if self.why_dead is not None:
            raise ProtocolError(self.why_dead)

    def _die(self, why: str) -> NoReturn:
        self.why_dead = why
        raise ProtocolError(why)
