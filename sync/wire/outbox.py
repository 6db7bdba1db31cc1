"""What a session sends next: records are made only when somebody can send one.

Frames that steer (ends, cancellations, credit, pings) go first; they are few and small. Then the stream that has the
lowest class, among these the one with the earliest deadline, then the one that came first. A message goes in pieces,
and after each the question is asked anew: so an interactive answer waits for one record of a copy, not for the copy.

The invariant: what `next_records` hands out has been sent, as far as the session is concerned. It goes out in that
order, or the link is closed. Kept out: what may be sent at all (`session`), how much of it waits (its caller).
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Final

from sync.wire import frames
from sync.wire.frames import AMOUNT, Kind
from sync.wire.pieces import Outgoing, cost_of
from sync.wire.records import MAX_PLAINTEXT_BYTES, OVERHEAD_BYTES, Data
from sync.wire.streams import Asking, Stream

_UNLIMITED: Final = 1 << 40
#: A record with less room than the largest frame that steers, and a bit of a message, is full.
_LEAST_ROOM: Final = frames.MAX_TEXT_BYTES + frames.MAX_KIND_BYTES + 1024


class Outbox:
    """The messages and frames that wait. `begun` is called for a request when it gets its turn, and gives its head."""

    def __init__(self, begun: Callable[[Asking, float], bytes]) -> None:
        self.queued_bytes = 0
        #: Streams whose queue has become empty since somebody cleared this.
        self.drained: list[Stream] = []
        self._begun = begun
        self._heap: list[Stream] = []
        self._steering: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._credits: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether there is something to send. A stream that waits for credit has nothing."""
        return bool(self._steering or self._credits or self._heap)

    def add(self, stream: Stream, message: Outgoing) -> None:
        """One more message of a stream."""
        size = cost_of(message.encoded)
        stream.queue.append(message)
        stream.queued_bytes += size
        self.queued_bytes += size
        self.wake(stream)

    def wake(self, stream: Stream) -> None:
        """It may have got credit."""
        if not stream.is_in_heap and stream.can_send:
            stream.is_in_heap = True
            heapq.heappush(self._heap, stream)

    def drop(self, stream: Stream) -> None:
        """What it has to send is not wanted any more."""
        self.queued_bytes -= stream.queued_bytes
        stream.queued_bytes = 0
        stream.queue.clear()
        self._has_drained(stream)

    def steer(self, frame: bytes, sent: Callable[[], None] | None = None) -> None:
        """A frame that goes before all messages; `sent` is called when it does."""
        self._steering.append((frame, sent))

    def credit(self, id: int, amount: int) -> None:
        """The other side may send so much more on a stream. Added up until it is sent."""
        self._credits[id] = self._credits.get(id, 0) + amount

    def forget_credit(self, id: int) -> None:
        self._credits.pop(id, None)

    def next_records(self, now_s: float, max_bytes: int) -> list[Data]:
        """The plaintexts of the next records, none when there is nothing.

        Sealed they have less than `max_bytes`, or are no more than two records beyond.
        """
        records: list[Data] = []
        parts: list[bytes] = []
        size = total = 0
        while total < max_bytes:
            body: memoryview | None = None
            frame = self._next_steering()
            if frame is None:
                stream = self._next_stream()
                if stream is None:
                    break
                frame, body = self._next_piece(stream, MAX_PLAINTEXT_BYTES - size, now_s)
            parts.append(frame)
            size += len(frame)
            total += len(frame)
            if body is not None or MAX_PLAINTEXT_BYTES - size < _LEAST_ROOM:
                records.append(b"".join(parts))
                parts.clear()
                size = 0
                total += OVERHEAD_BYTES
            if body is not None:
                records.append(body)
                total += len(body) + OVERHEAD_BYTES
        if parts:
            records.append(b"".join(parts))
        return records

    def _next_steering(self) -> bytes | None:
        if self._steering:
            frame, sent = self._steering.popleft()
            if sent is not None:
                sent()
            return frame
        if self._credits:
            id, amount = self._credits.popitem()
            return frames.frame(Kind.CREDIT, id, AMOUNT.pack(amount))
        return None

    def _next_stream(self) -> Stream | None:
        while self._heap:
            stream = heapq.heappop(self._heap)
            stream.is_in_heap = False
            if stream.can_send:
                return stream
        return None

    def _next_piece(self, stream: Stream, room: int, now_s: float) -> tuple[bytes, memoryview | None]:
        """The next frame of a stream, and the record that follows it when it is a BODY."""
        message = stream.queue[0]
        credit = _UNLIMITED if stream.credit is None else stream.credit
        body: memoryview | None = None
        if not message.has_begun:
            head = self._begun(stream, now_s) if isinstance(stream, Asking) else b""
            frame, cost = message.begin(stream.id, head, room, credit)
        elif message.has_inline:
            frame, cost = message.more(stream.id, room, credit)
        else:
            body = message.next_body(credit)
            frame, cost = frames.body_frame(stream.id, len(body)), len(body)
        if stream.credit is not None:
            stream.credit -= cost
        if message.is_done:
            stream.queue.popleft()
            size = cost_of(message.encoded)
            stream.queued_bytes -= size
            self.queued_bytes -= size
            if not stream.queue:
                self._has_drained(stream)
        self.wake(stream)
        return frame, body

    def _has_drained(self, stream: Stream) -> None:
        self.drained.append(stream)
        then, stream.when_sent = stream.when_sent, None
        if then is not None:
            then()
