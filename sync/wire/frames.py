"""Frames: what a record holds, between two devices that have met.

A record holds frames, one after the other, each whole. A frame is

    kind     u8
    stream   u32, big endian: the request that it belongs to; 0 for what belongs to none
    length   u32, big endian: the bytes that follow
    payload

but for BODY, whose bytes are the next record, all of it, without a frame around them. So bytes of a block go from the
sender's buffer to the receiver's without being copied, and a BODY is the last frame of its record.

This is the alphabet. What may follow what is the session's (`session`); what is in a message is the codec's.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from index.model.errors import ProtocolError
from sync.wire.codec import MAX_BODY_BYTES, MAX_FIELDS_BYTES, MAX_TYPE

MAX_TEXT_BYTES: Final = 1024  # of the reason in a FAIL or a GOODBYE
MAX_KIND_BYTES: Final = 64
PRIORITIES: Final = 5  # 0 interactive, 1 readahead, 2 previews, 3 copies, 4 backfill


class Kind(IntEnum):
    """What a frame is. From OPEN to BODY it carries a part of a message, the others steer."""

    OPEN = 1  # a request begins: OpenHead, MessageHead, bytes of the message
    REPLY = 2  # an answer begins: MessageHead, bytes of the message
    NOTICE = 3  # a message that wants no answer begins: MessageHead, bytes of the message
    DATA = 4  # more of the message that has begun
    BODY = 5  # the next record is so many bytes of its body
    END = 6  # there are no more answers
    FAIL = 7  # there are none, for this reason: FailHead, kind, text
    CANCEL = 8  # no more answers are wanted
    CREDIT = 9  # so many more bytes of answers, or of notices, may be sent: u32
    PING = 10  # 8 bytes
    PONG = 11  # the same 8 bytes
    GOODBYE = 12  # no new request will be made, none will be taken: text


HEADER: Final = struct.Struct(">BII")
HEADER_BYTES: Final = HEADER.size
AMOUNT: Final = struct.Struct(">I")
PING_BYTES: Final = 8
_OPEN: Final = struct.Struct(">BII")
_MESSAGE: Final = struct.Struct(">HII")
OPEN_HEAD_BYTES: Final = _OPEN.size
MESSAGE_HEAD_BYTES: Final = _MESSAGE.size


class Frame(NamedTuple):
    """One frame; the payload is a view into the record."""

    kind: int
    stream: int
    payload: memoryview


class OpenHead(NamedTuple):
    """How a request is to be served: its class, how long it may take, how many bytes of answers may be under way."""

    priority: int
    deadline_ms: int
    window: int


class MessageHead(NamedTuple):
    """What a message is, and how much of it there will be."""

    number: int
    fields_size: int
    body_size: int


def frame(kind: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """A frame as bytes."""
    return HEADER.pack(kind, stream, len(payload)) + payload


def frames_of(record: memoryview) -> Iterator[Frame]:
    """The frames of a record. ProtocolError for a rest that is none."""
    at, end = 0, len(record)
    while at < end:
        if end - at < HEADER_BYTES:
            raise ProtocolError("a record ends within a frame")
        kind, stream, length = HEADER.unpack_from(record, at)
        at += HEADER_BYTES
        if kind == Kind.BODY:
            if at != end:
                raise ProtocolError("frames after one whose bytes are the next record")
            yield Frame(kind, stream, memoryview(AMOUNT.pack(length)))
            return
        if length > end - at:
            raise ProtocolError("a record ends within a frame")
        yield Frame(kind, stream, record[at : at + length])
        at += length


def body_frame(stream: int, size_bytes: int) -> bytes:
    """The frame that says that the next record is `size_bytes` of a body."""
    return HEADER.pack(Kind.BODY, stream, size_bytes)


def pack_open(head: OpenHead) -> bytes:
    return _OPEN.pack(*head)


def unpack_open(payload: memoryview) -> OpenHead:
    """The head of a request. ProtocolError when it has a class that there is not, or no time or room at all."""
    if len(payload) < OPEN_HEAD_BYTES:
        raise ProtocolError("a request without its head")
    head = OpenHead(*_OPEN.unpack_from(payload))
    if head.priority >= PRIORITIES or not head.deadline_ms:
        raise ProtocolError(f"a request of class {head.priority}, within {head.deadline_ms} ms")
    return head


def pack_message(number: int, fields_size: int, body_size: int) -> bytes:
    return _MESSAGE.pack(number, fields_size, body_size)


def unpack_message(payload: memoryview) -> MessageHead:
    """The head of a message. ProtocolError when it announces more than any message has."""
    if len(payload) < MESSAGE_HEAD_BYTES:
        raise ProtocolError("a message without its head")
    head = MessageHead(*_MESSAGE.unpack_from(payload))
    if not 0 < head.number <= MAX_TYPE or head.fields_size > MAX_FIELDS_BYTES or head.body_size > MAX_BODY_BYTES:
        raise ProtocolError(f"a message of {head.fields_size} and {head.body_size} bytes; there are none of that size")
    return head


def pack_fail(kind: str, text: str) -> bytes:
    """A reason: its kind, and its text cut to what fits."""
    name = kind.encode()[:MAX_KIND_BYTES]
    return bytes((len(name),)) + name + cut_text(text)


def unpack_fail(payload: memoryview) -> tuple[str, str]:
    """Kind and text. ProtocolError when they are not Unicode, or too long."""
    if not len(payload) or payload[0] > MAX_KIND_BYTES or len(payload) < 1 + payload[0]:
        raise ProtocolError("a reason that is none")
    return unpack_text(payload[1 : 1 + payload[0]]), unpack_text(payload[1 + payload[0] :])


def printable(text: str) -> str:
    """A stranger's text without what a terminal would obey, or what would turn the direction of a line."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def cut_text(text: str) -> bytes:
    """A text as it travels: at most MAX_TEXT_BYTES, cut between characters; what is not Unicode is written out."""
    raw = text.encode(errors="backslashreplace")
    return raw if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode(errors="ignore").encode()


def unpack_text(payload: memoryview) -> str:
    """A text that came, as it can be shown: it ends in logs and terminals. ProtocolError when it is none."""
    if len(payload) > MAX_TEXT_BYTES:
        raise ProtocolError("a reason that is too long")
    try:
        return printable(str(payload, "utf-8"))
    except UnicodeDecodeError:
        raise ProtocolError("a reason that is no text") from None
