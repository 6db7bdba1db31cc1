"""What a session knows: which streams are open, how much each side has asked for, and what both may still send.

Shared by the two halves of a session: what comes in (`intake`), what this side wants (`session`). Both ends of a link
count alike; who goes beyond a bound has broken the protocol.
"""

from typing import Final

from index.model.errors import ProtocolError
from sync.wire import frames
from sync.wire.flow import Loans
from sync.wire.frames import Kind
from sync.wire.outbox import Outbox
from sync.wire.pieces import Buffers
from sync.wire.streams import Asking, Notices, Serving, Stream

MAX_STREAMS: Final = 256
MAX_REQUEST_BYTES: Final = 16 << 20
MAX_WINDOW_BYTES: Final = 64 << 20
MAX_LOAN_BYTES: Final = 16 << 20  # more than any one message
MAX_NOTICE_BYTES: Final = 1 << 20  # half of the window of notices: one always fits
MAX_QUEUED_BYTES: Final = 32 << 20
MAX_CREDIT: Final = 1 << 40


class Ledger:
    """The state of one end. `is_initiator` is that of the handshake: its streams are odd, the other side's even."""

    def __init__(self, outbox: Outbox, *, is_initiator: bool) -> None:
        self.outbox = outbox
        self.next_own = 1 if is_initiator else 2
        self.next_theirs = 2 if is_initiator else 1
        self.asking: dict[int, Asking] = {}
        self.unsent: dict[Asking, None] = {}  # requests of ours without a number yet, in their order
        self.serving: dict[int, Serving] = {}
        self.notices = Notices()
        self.asked_bytes = 0  # cost of our requests that are not over
        self.served_bytes = 0  # of theirs
        self.window_bytes = 0  # of our requests
        self.loans = Loans(MAX_LOAN_BYTES)
        self.buffers = Buffers()
        self.ping: bytes | None = None  # that waits for its answer
        self.has_said_goodbye = False
        self.has_heard_goodbye = False
        self._arrivals = 0

    def arrived(self) -> int:
        """The next place in the order of arrival."""
        self._arrivals += 1
        return self._arrivals

    # -- looking up

    def asked(self, id: int) -> Asking:
        """Our request of that number. ProtocolError when there is none."""
        stream = self.asking.get(id)
        if stream is None:
            raise ProtocolError("an answer to nothing that was asked")
        return stream

    def receiving(self, id: int) -> Stream:
        """Where parts of a message may come. ProtocolError when nowhere."""
        stream = (self.asking.get(id) or self.serving.get(id)) if id else self.notices
        if stream is None:
            raise ProtocolError("a part of a message that has not begun")
        return stream

    def check_was_theirs(self, id: int) -> None:
        """A frame may come late for a request that is over. ProtocolError when there never was one."""
        if not 0 < id < self.next_theirs or id % 2 != self.next_theirs % 2:
            raise ProtocolError("a frame for a request that was never made")

    # -- ending

    def finish(self, stream: Serving, last: bytes) -> None:
        """END or FAIL, after what is queued. The stream counts until it has gone out, as it does at the other end."""
        if stream.is_finished:
            return
        stream.is_finished = True

        def go() -> None:
            self.outbox.steer(last, lambda: self._serving_over(stream))

        if stream.queue:
            stream.when_sent = go
        else:
            go()

    def end(self, stream: Serving) -> None:
        self.finish(stream, frames.frame(Kind.END, stream.id))

    def fail(self, stream: Serving, kind: str, text: str) -> None:
        self.finish(stream, frames.frame(Kind.FAIL, stream.id, frames.pack_fail(kind, text)))

    def _serving_over(self, stream: Serving) -> None:
        stream.is_over = True
        del self.serving[stream.id]
        self.served_bytes -= stream.cost

    def asking_over(self, stream: Asking) -> None:
        """A request of ours counts no more."""
        stream.is_over = True
        self.unsent.pop(stream, None)
        if stream.id:
            del self.asking[stream.id]
            self.outbox.forget_credit(stream.id)
        self.asked_bytes -= stream.cost
        self.window_bytes -= stream.window.size

    # -- credit

    def give_credit(self, stream: Asking | Notices) -> None:
        """Send what is due; all of it when a message in the middle waits for it."""
        amount = stream.window.due(stream.incoming.missing if stream.incoming is not None else 0)
        if amount:
            self.outbox.credit(stream.id, amount)

    def grant(self, stream: Asking, amount: int) -> None:
        """Send credit that was lent."""
        self.outbox.credit(stream.id, amount)
