"""A message on its way: cut into pieces by who sends it, put together by who receives it.

A message begins with a frame that says how large it is and holds what fits of its fields; DATA frames bring the rest of
the fields, then BODY frames the body, each in a record of its own. Nothing that is announced is made room for until it
comes, but for the body, whose place is made once, so that its records are opened into it.

The unit of the flow control is here, too: a message costs its bytes and MESSAGE_COST for being one.
"""

from typing import Final

from index.model.errors import ProtocolError
from sync.wire import frames
from sync.wire.codec import Body, Encoded
from sync.wire.frames import HEADER_BYTES, MESSAGE_HEAD_BYTES, Kind, MessageHead
from sync.wire.records import MAX_PLAINTEXT_BYTES

#: What a message costs beside its bytes, so that empty ones are not for nothing.
MESSAGE_COST: Final = 64
#: So much credit is needed to begin a message that does not fit into less.
BEGIN_CREDIT: Final = 512


def cost_of(encoded: Encoded) -> int:
    """What a message takes of the credit, in bytes."""
    return MESSAGE_COST + encoded.size_bytes


class Outgoing:
    """A message that is being sent."""

    def __init__(self, kind: Kind, encoded: Encoded) -> None:
        self.kind = kind
        self.encoded = encoded
        self.has_begun = False
        self._fields = memoryview(encoded.fields)
        self._body = memoryview(encoded.body)

    @property
    def is_done(self) -> bool:
        return self.has_begun and not self._fields and not self._body

    def needed_credit(self) -> int:
        """How much credit the next piece takes at least."""
        if not self.has_begun:
            return min(MESSAGE_COST + len(self._fields), BEGIN_CREDIT)
        return min(len(self._fields) or len(self._body), MAX_PLAINTEXT_BYTES)

    def begin(self, stream: int, head: bytes, room: int, credit: int) -> tuple[bytes, int]:
        """The first frame, of at most `room` bytes, and what it costs. `head` comes before the message's own."""
        size = min(len(self._fields), credit - MESSAGE_COST, room - HEADER_BYTES - len(head) - MESSAGE_HEAD_BYTES)
        own = frames.pack_message(self.encoded.number, len(self._fields), len(self._body))
        self.has_begun = True
        return frames.frame(self.kind, stream, b"".join((head, own, self._take_fields(size)))), MESSAGE_COST + size

    def more_fields(self, stream: int, room: int, credit: int) -> tuple[bytes, int]:
        """The next DATA frame, and what it costs."""
        part = self._take_fields(min(room - HEADER_BYTES, credit))
        return frames.frame(Kind.DATA, stream, part), len(part)

    @property
    def has_fields(self) -> bool:
        """Whether fields are left, which go before the body."""
        return len(self._fields) > 0

    def next_body(self, credit: int) -> memoryview:
        """The next piece of the body: a record of its own."""
        size = min(len(self._body), credit, MAX_PLAINTEXT_BYTES)
        part, self._body = self._body[:size], self._body[size:]
        return part

    def _take_fields(self, size: int) -> memoryview:
        part, self._fields = self._fields[:size], self._fields[size:]
        return part


class Incoming:
    """A message that is being received."""

    def __init__(self, head: MessageHead) -> None:
        self.head = head
        self._fields = bytearray()
        self._body: bytearray | None = None
        self._received = 0  # of the body

    @property
    def cost(self) -> int:
        """Of the whole message."""
        return MESSAGE_COST + self.head.fields_size + self.head.body_size

    @property
    def missing(self) -> int:
        """How many bytes are still to come."""
        return self.head.fields_size - len(self._fields) + self.head.body_size - self._received

    def add_fields(self, part: memoryview) -> None:
        """More of the fields. ProtocolError when there are more than were announced."""
        self._fields += part
        if len(self._fields) > self.head.fields_size:
            raise ProtocolError("a message is longer than it said")

    def expect_body(self, size: int) -> None:
        """The next `size` bytes of the body are due. ProtocolError when they are not, or not so many."""
        if len(self._fields) < self.head.fields_size or not 0 < size <= self.head.body_size - self._received:
            raise ProtocolError("a body that does not belong to its message")

    def body_room(self, size: int) -> memoryview:
        """Where they go."""
        if self._body is None:
            self._body = bytearray(self.head.body_size)
        return memoryview(self._body)[self._received : self._received + size]

    def body_received(self, size: int) -> None:
        self._received += size

    def whole(self) -> Encoded:
        """The message, once nothing is missing."""
        body: Body = b"" if self._body is None else self._body
        return Encoded(self.head.number, self._fields, body)
