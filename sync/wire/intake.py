"""What comes in: records of the other side, frame by frame, held against what it may say.

Out come events. Whatever may not come is a ProtocolError; then `why_dead` says why, and nothing is taken any more. No
room is made for what was only announced, and no more than was counted is held (`ledger`, `flow`).
"""

from typing import NoReturn

from index.model.errors import ProtocolError
from sync.wire import frames
from sync.wire.flow import MIN_WINDOW
from sync.wire.frames import AMOUNT, PING_BYTES, Frame, Kind, MessageHead
from sync.wire.ledger import (
    MAX_CREDIT,
    MAX_NOTICE_BYTES,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    MAX_WINDOW_BYTES,
    Ledger,
)
from sync.wire.pieces import Incoming
from sync.wire.records import MAX_PLAINTEXT_BYTES
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


class Intake:
    """The receiving half of a session."""

    def __init__(self, ledger: Ledger) -> None:
        self.why_dead: str | None = None
        self._ledger = ledger
        self._body: tuple[Stream, int] | None = None  # the next record is so much of its body
        self._pong_is_queued = False

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

    def forget(self, stream: Asking) -> None:
        """It has been cancelled here: what is still to come of a message is nobody's. A body that is due must go on."""
        if self._body is None or self._body[0] is not stream:
            stream.incoming = None

    def _take(self, frame: Frame, now_s: float, events: list[Event]) -> None:
        kind, id, payload = frame
        ledger = self._ledger
        match kind:
            case Kind.OPEN:
                self._take_open(id, payload, now_s, events)
            case Kind.REPLY:
                self._take_reply(ledger.asked(id), payload, events)
            case Kind.NOTICE:
                self._take_notice(id, payload, events)
            case Kind.DATA:
                self._take_data(ledger.receiving(id), payload, events)
            case Kind.BODY:
                self._take_body(ledger.receiving(id), AMOUNT.unpack(payload)[0])
            case Kind.END:
                self._take_end(ledger.asked(id), None, events)
            case Kind.FAIL:
                self._take_end(ledger.asked(id), frames.unpack_fail(payload), events)
            case Kind.CANCEL:
                self._take_cancel(id, events)
            case Kind.CREDIT:
                self._take_credit(id, payload)
            case Kind.PING:
                self._take_ping(payload)
            case Kind.PONG:
                if ledger.ping is None or payload != ledger.ping:
                    raise ProtocolError("an answer to a ping that was not sent")
                ledger.ping = None
            case Kind.GOODBYE:
                if ledger.has_heard_goodbye:
                    raise ProtocolError("two farewells")
                ledger.has_heard_goodbye = True
                events.append(SaidGoodbye(frames.unpack_text(payload)))
            case _:
                raise ProtocolError(f"a frame of a kind that there is not: {kind}")

    # -- messages

    def _take_open(self, id: int, payload: memoryview, now_s: float, events: list[Event]) -> None:
        ledger = self._ledger
        if id != ledger.next_theirs or ledger.has_heard_goodbye:
            raise ProtocolError("a request out of its order")
        ledger.next_theirs += 2
        head = frames.unpack_open(payload)
        payload = payload[frames.OPEN_HEAD_BYTES :]
        incoming = Incoming(frames.unpack_message(payload), ledger.buffers)
        if len(ledger.serving) >= MAX_STREAMS or ledger.served_bytes + incoming.cost > MAX_REQUEST_BYTES:
            raise ProtocolError("more requests at a time than there may be")
        if not MIN_WINDOW <= head.window <= MAX_WINDOW_BYTES:
            raise ProtocolError(f"a window of {head.window} bytes")
        stream = Serving(id, head, now_s + head.deadline_ms / 1000, ledger.arrived(), incoming)
        ledger.serving[id] = stream
        ledger.served_bytes += incoming.cost
        incoming.add(payload[frames.MESSAGE_HEAD_BYTES :])
        self._complete(stream, events)

    def _take_reply(self, stream: Asking, payload: memoryview, events: list[Event]) -> None:
        incoming = Incoming(frames.unpack_message(payload), self._ledger.buffers)
        incoming.add(payload[frames.MESSAGE_HEAD_BYTES :])
        stream.window.take(incoming.cost - incoming.missing)
        if stream.is_cancelled:
            return
        if stream.incoming is not None or stream.queue:
            raise ProtocolError("an answer in the middle of another, or of the request")
        stream.incoming = incoming
        if incoming.cost > stream.window.size:
            self._ledger.loans.ask(stream, incoming.cost - stream.window.size)
        self._ledger.give_credit(stream)
        self._complete(stream, events)

    def _take_notice(self, id: int, payload: memoryview, events: list[Event]) -> None:
        notices = self._ledger.notices
        incoming = Incoming(frames.unpack_message(payload), self._ledger.buffers)
        incoming.add(payload[frames.MESSAGE_HEAD_BYTES :])
        if id != 0 or notices.incoming is not None or incoming.cost > MAX_NOTICE_BYTES:
            raise ProtocolError("a notice in the middle of another, or too large")
        notices.window.take(incoming.cost - incoming.missing)
        notices.incoming = incoming
        self._ledger.give_credit(notices)
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
            # It has to be opened somewhere all the same.
            stream.incoming = Incoming(MessageHead(1, 0, size), self._ledger.buffers)
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
            if self._ledger.has_said_goodbye:
                self._ledger.fail(stream, "Unreachable", "the link is being closed")
            else:
                events.append(Requested(stream, message))
        else:
            events.append(Noticed(message))

    # -- what steers

    def _take_end(self, stream: Asking, failure: tuple[str, str] | None, events: list[Event]) -> None:
        if stream.queue or (stream.incoming is not None and failure is None and not stream.is_cancelled):
            raise ProtocolError("an end in the middle of an answer, or of the request")
        self._ledger.loans.forget(stream)
        self._ledger.loans.give_back(stream.lent_now)
        stream.lent -= stream.lent_now
        stream.lent_now = 0
        stream.incoming = None
        self._ledger.asking_over(stream)
        if not stream.is_cancelled:
            events.append(Ended(stream, failure))

    def _take_cancel(self, id: int, events: list[Event]) -> None:
        stream = self._ledger.serving.get(id)
        if stream is None:
            self._ledger.check_was_theirs(id)
            return
        if stream.is_cancelled:
            raise ProtocolError("a request cancelled twice")
        stream.is_cancelled = True
        was_whole, stream.incoming = stream.incoming is None, None
        was_finished = stream.is_finished
        self._ledger.outbox.drop(stream)
        self._ledger.end(stream)
        if was_whole and not was_finished:
            events.append(Cancelled(stream))

    def _take_credit(self, id: int, payload: memoryview) -> None:
        if len(payload) != AMOUNT.size or not (amount := AMOUNT.unpack(payload)[0]):
            raise ProtocolError("credit of nothing")
        stream = self._ledger.serving.get(id) if id else self._ledger.notices
        if stream is None:
            self._ledger.check_was_theirs(id)
            return
        assert stream.credit is not None
        stream.credit += amount
        if stream.credit > MAX_CREDIT:
            raise ProtocolError("more credit than anybody could use")
        self._ledger.outbox.wake(stream)

    def _take_ping(self, payload: memoryview) -> None:
        if len(payload) != PING_BYTES or self._pong_is_queued:
            raise ProtocolError("a ping that is none, or before the answer to the last")
        self._pong_is_queued = True
        self._ledger.outbox.steer(frames.frame(Kind.PONG, 0, payload), self._pong_sent)

    def _pong_sent(self) -> None:
        self._pong_is_queued = False

    def _check_alive(self) -> None:
        if self.why_dead is not None:
            raise ProtocolError(self.why_dead)

    def _die(self, why: str) -> NoReturn:
        self.why_dead = why
        raise ProtocolError(why)
