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

This is the half that wants something. What comes in is the `intake`'s, what goes first the `outbox`'s. Kept out: keys
(`records`), the meaning of messages (`codec`), tasks and time-outs (the channel).
"""

from typing import Final

from sync.wire import frames
from sync.wire.codec import Encoded
from sync.wire.flow import MIN_WINDOW
from sync.wire.frames import PING_BYTES, Kind, OpenHead
from sync.wire.intake import Intake
from sync.wire.ledger import (
    MAX_NOTICE_BYTES,
    MAX_QUEUED_BYTES,
    MAX_REQUEST_BYTES,
    MAX_STREAMS,
    MAX_WINDOW_BYTES,
    Ledger,
)
from sync.wire.outbox import Outbox
from sync.wire.pieces import Outgoing, cost_of
from sync.wire.records import MAX_PLAINTEXT_BYTES, Data
from sync.wire.streams import Asking, Ended, Event, Noticed, Replied, Serving, Stream

DEFAULT_WINDOW: Final = 256 << 10
_MAX_DEADLINE_MS: Final = (1 << 32) - 1
_LAST_STREAM: Final = 0xFFFF_FFF0


class Session:
    """One end of a link."""

    def __init__(self, *, is_initiator: bool) -> None:
        self._outbox = Outbox(self._begun)
        self._ledger = Ledger(self._outbox, is_initiator=is_initiator)
        self._intake = Intake(self._ledger)
        self._is_used_up = False
        self._pings = 0
        #: What comes in: see Intake.
        self.body_room = self._intake.body_room
        self.body_received = self._intake.body_received
        self.receive = self._intake.receive

    @property
    def why_dead(self) -> str | None:
        """The violation that ended the session, if one did."""
        return self._intake.why_dead

    @property
    def is_closing(self) -> bool:
        """Whether one of the two has said goodbye: no request can be made any more."""
        return self._ledger.has_said_goodbye or self._ledger.has_heard_goodbye or self._is_used_up

    # -- asking

    def can_open(self, message: Encoded, window: int = DEFAULT_WINDOW) -> bool:
        """Whether there is room for one more request; when not, there will be when others are over."""
        ledger = self._ledger
        return (
            len(ledger.asking) + len(ledger.unsent) < MAX_STREAMS
            and ledger.asked_bytes + cost_of(message) <= MAX_REQUEST_BYTES
            and ledger.window_bytes + window <= MAX_WINDOW_BYTES
        )

    def open(self, message: Encoded, *, priority: int, deadline_s: float, window: int = DEFAULT_WINDOW) -> Asking:
        """Ask. `deadline_s` is a time of the clock that `next_records` is given; `window` bytes of answers may wait.

        ValueError when there is no room, and on a link that is being closed.
        """
        if self.is_closing or self.why_dead is not None or not self.can_open(message, window):
            raise ValueError("no request can be made now")
        if not 0 <= priority < frames.PRIORITIES or window < MIN_WINDOW:
            raise ValueError(f"a request of class {priority} with a window of {window} bytes")
        ledger = self._ledger
        stream = Asking(priority, deadline_s, ledger.arrived(), window, ledger.grant)
        stream.cost = cost_of(message)
        ledger.unsent[stream] = None
        ledger.asked_bytes += stream.cost
        ledger.window_bytes += window
        self._outbox.add(stream, Outgoing(Kind.OPEN, message))
        return stream

    def taken(self, reply: Replied) -> None:
        """Somebody has taken an answer: as much may be sent again."""
        stream = reply.stream
        if stream.is_over or stream.is_cancelled:
            return
        if reply.lent:
            stream.lent -= reply.lent
            self._ledger.loans.give_back(reply.lent)
        stream.window.give_back(cost_of(reply.message) - reply.lent)
        self._ledger.give_credit(stream)

    def discard(self, stream: Asking) -> None:
        """Nobody wants what still comes: cancelled unless it is over. Called once for each request, at its end."""
        ledger = self._ledger
        ledger.loans.forget(stream)
        ledger.loans.give_back(stream.lent)
        stream.lent = stream.lent_now = 0
        if stream.is_over or stream.is_cancelled:
            return
        stream.is_cancelled = True
        self._intake.forget(stream)
        self._outbox.drop(stream)
        if stream in ledger.unsent:
            ledger.asking_over(stream)
        else:
            self._outbox.forget_credit(stream.id)
            self._outbox.steer(frames.frame(Kind.CANCEL, stream.id))

    def _begun(self, stream: Asking, now_s: float) -> bytes:
        """A request goes out: it gets its number, in the order in which requests go out, and the head of its frame."""
        ledger = self._ledger
        stream.id = ledger.next_own
        ledger.next_own += 2
        self._is_used_up = stream.id >= _LAST_STREAM  # two thousand million requests: time for a new link
        del ledger.unsent[stream]
        ledger.asking[stream.id] = stream
        left_ms = min((stream.deadline_s - now_s) * 1000, _MAX_DEADLINE_MS)
        return frames.pack_open(OpenHead(stream.priority, max(1, int(left_ms)), stream.window.size))

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
        self._ledger.end(stream)

    def fail(self, stream: Serving, kind: str, text: str) -> None:
        """It cannot be answered, or not to the end. What is queued goes first."""
        self._ledger.fail(stream, kind, text)

    def give_up(self, stream: Serving, kind: str, text: str) -> None:
        """As `fail`, and what is queued does not go any more."""
        if not stream.is_finished:
            self._outbox.drop(stream)
            self._ledger.fail(stream, kind, text)

    # -- notices, pings, the end

    def can_notify(self) -> bool:
        """Whether a notice would be queued behind no other."""
        return not self._ledger.notices.queue and self._outbox.queued_bytes < MAX_QUEUED_BYTES

    def notify(self, message: Encoded) -> None:
        """Tell without asking. ValueError for one of more than MAX_NOTICE_BYTES."""
        if cost_of(message) > MAX_NOTICE_BYTES:
            raise ValueError(f"a notice has at most {MAX_NOTICE_BYTES} bytes")
        self._outbox.add(self._ledger.notices, Outgoing(Kind.NOTICE, message))

    def notice_taken(self, notice: Noticed) -> None:
        """Somebody has taken a notice: as much may be sent again."""
        self._ledger.notices.window.give_back(cost_of(notice.message))
        self._ledger.give_credit(self._ledger.notices)

    def ping(self) -> None:
        """Ask whether the other side is there, on a link gone quiet; not again while the last answer is missing."""
        self._ledger.buffers.clear()
        if self._ledger.ping is None:
            self._pings += 1
            self._ledger.ping = self._pings.to_bytes(PING_BYTES, "big")
            self._outbox.steer(frames.frame(Kind.PING, 0, self._ledger.ping))

    @property
    def is_waiting_for_pong(self) -> bool:
        return self._ledger.ping is not None

    def say_goodbye(self, reason: str) -> list[Event]:
        """No new requests in either direction. Those under way go on; `is_idle` when they are over.

        Requests of ours that were not sent yet will not be: they end here.
        """
        ledger = self._ledger
        if ledger.has_said_goodbye:
            return []
        ledger.has_said_goodbye = True
        events: list[Event] = []
        for stream in list(ledger.unsent):
            self._outbox.drop(stream)
            ledger.asking_over(stream)
            events.append(Ended(stream, ("Unreachable", reason)))
        self._outbox.steer(frames.frame(Kind.GOODBYE, 0, frames.cut_text(reason)))
        return events

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way in either direction."""
        ledger = self._ledger
        return not (ledger.asking or ledger.serving or ledger.unsent or ledger.notices.queue or self._outbox)

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
