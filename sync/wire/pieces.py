"""A message on its way: cut into pieces by who sends it, put together by who receives it.

A message is its fields and then its body. It begins with a frame that says how long both are and holds what fits of
them; DATA frames bring more, and BODY frames announce records that are a part of the body and nothing else. Which is
used is the sender's choice: a small body goes with the fields, a large one in records, which are opened to where they
stay. Nothing that is announced is made room for until it comes; the place of the body is made as a whole, then.

The unit of the flow control is here, too: a message costs its bytes and MESSAGE_COST for being one.
"""

import sys
from collections import deque
from typing import Final

from index.model.errors import ProtocolError
from sync.wire import frames
from sync.wire.codec import Body, Encoded
from sync.wire.frames import HEADER_BYTES, MESSAGE_HEAD_BYTES, Kind, MessageHead
from sync.wire.records import MAX_PLAINTEXT_BYTES

#: What a message costs beside its bytes, so that empty ones are not for nothing.
MESSAGE_COST: Final = 64
#: A body up to this size goes with the fields: a record of its own costs more than a copy.
INLINE_BYTES: Final = 8 << 10
#: The size of a block of a file, which most bodies have.
BLOCK_BYTES: Final = 128 << 10
_KEPT_PLACES: Final = 16
_LOOKED_AT: Final = 3  # places, the longest used first, before a new one is made
_NOBODY: Final = 3  # references: the table, a name in `take`, the argument of getrefcount
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
        small = len(encoded.body) <= INLINE_BYTES
        self._inline = memoryview(b"".join((encoded.fields, encoded.body)) if small else encoded.fields)
        self._body = memoryview(b"" if small else encoded.body)

    @property
    def is_done(self) -> bool:
        return self.has_begun and not self._inline and not self._body

    def needed_credit(self) -> int:
        """How much credit the next piece takes at least."""
        if not self.has_begun:
            return min(MESSAGE_COST + len(self._inline), BEGIN_CREDIT)
        return min(len(self._inline) or len(self._body), MAX_PLAINTEXT_BYTES)

    def begin(self, stream: int, head: bytes, room: int, credit: int) -> tuple[bytes, int]:
        """The first frame, of at most `room` bytes, and what it costs. `head` comes before the message's own."""
        encoded = self.encoded
        size = min(len(self._inline), credit - MESSAGE_COST, room - HEADER_BYTES - len(head) - MESSAGE_HEAD_BYTES)
        own = frames.pack_message(encoded.number, len(encoded.fields), len(encoded.body))
        self.has_begun = True
        return frames.frame(self.kind, stream, b"".join((head, own, self._take(size)))), MESSAGE_COST + size

    @property
    def has_inline(self) -> bool:
        """Whether bytes are left that go in frames, before those that go in records of their own."""
        return len(self._inline) > 0

    def more(self, stream: int, room: int, credit: int) -> tuple[bytes, int]:
        """The next DATA frame, and what it costs."""
        part = self._take(min(room - HEADER_BYTES, credit))
        return frames.frame(Kind.DATA, stream, part), len(part)

    def next_body(self, credit: int) -> memoryview:
        """The next piece of the body: a record of its own."""
        size = min(len(self._body), credit, MAX_PLAINTEXT_BYTES)
        part, self._body = self._body[:size], self._body[size:]
        return part

    def _take(self, size: int) -> memoryview:
        part, self._inline = self._inline[:size], self._inline[size:]
        return part


class Buffers:
    """Places for bodies of one block. Fresh memory costs as much as the cipher, so those that are free serve again.

    Free is what nobody but this table refers to, neither a message nor a view of its body: nobody has to give anything
    back, and nothing that somebody still reads is written over.
    """

    def __init__(self) -> None:
        self._made: deque[bytearray] = deque()

    def take(self, size: int) -> bytearray:
        """A place of `size` bytes, with anything in it."""
        if size != BLOCK_BYTES:
            return bytearray(size)
        for _ in range(min(len(self._made), _LOOKED_AT)):
            place = self._made[0]
            self._made.rotate(-1)
            if sys.getrefcount(place) == _NOBODY:
                return place
        place = bytearray(size)
        if len(self._made) < _KEPT_PLACES:
            self._made.append(place)
        return place

    def clear(self) -> None:
        """Keep none: for a link that has gone quiet."""
        self._made.clear()


class Incoming:
    """A message that is being received."""

    def __init__(self, head: MessageHead, buffers: Buffers) -> None:
        self.head = head
        self._buffers = buffers
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

    def add(self, part: memoryview) -> None:
        """More of the message: of the fields, then of the body. ProtocolError when that is more than was announced."""
        if len(part) > self.missing:
            raise ProtocolError("a message is longer than it said")
        left = self.head.fields_size - len(self._fields)
        self._fields += part[:left]
        if len(part) > left:
            rest = part[left:]
            self.body_room(len(rest))[:] = rest
            self._received += len(rest)

    def expect_body(self, size: int) -> None:
        """The next `size` bytes of the body are due. ProtocolError when they are not, or not so many."""
        if len(self._fields) < self.head.fields_size or not 0 < size <= self.head.body_size - self._received:
            raise ProtocolError("a body that does not belong to its message")

    def body_room(self, size: int) -> memoryview:
        """Where they go."""
        if self._body is None:
            self._body = self._buffers.take(self.head.body_size)
        return memoryview(self._body)[self._received : self._received + size]

    def body_received(self, size: int) -> None:
        self._received += size

    def whole(self) -> Encoded:
        """The message, once nothing is missing."""
        body: Body = b"" if self._body is None else self._body
        return Encoded(self.head.number, self._fields, body)
