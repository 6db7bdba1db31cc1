"""JSON-RPC 2.0 as lines of text, without I/O: bytes in, requests out; replies in, bytes out.

One JSON text a line, UTF-8, `\\n` at the end (`\\r\\n` is accepted, blank lines are skipped). A line holds
a request, a notification or a batch. `ServerProtocol.receive` may be fed any pieces: the events depend on
the bytes alone, never on where they were cut. Nothing in here knows a socket, a clock, trio or which
methods exist.

Limits are part of the format, and a breach is an error with a name:

  MAX_LINE_BYTES      longer: LineTooLong, after which the connection is closed (its end is not looked for)
  MAX_DEPTH           deeper nesting: TooDeep
  MAX_BATCH           more calls in one batch: InvalidRequest
  MAX_REPLY_BYTES     a larger reply becomes TooLarge: the question has to be narrowed

Narrower than the specification on purpose: an id is an integer, a string or null (no fractions); NaN,
Infinity and lone surrogates are not JSON text.

**Names of files** are bytes and JSON is text. `NameText` is the one border: a name that is UTF-8 is its
text; any other is shown with U+FFFD for what cannot be decoded, and a twin field (`name_b64` beside `name`,
`path_b64` beside `path`) carries the bytes in base64. Whoever reads takes the twin when it is there. In a
list, where a twin has no place, an undecodable name is the object `{"name": text, "name_b64": base64}`;
that object is understood wherever a name may stand.

This module stays light (no attrs): `sd` imports it at every start.

Source: https://www.jsonrpc.org/specification (2013-01-04), RFC 8259.
"""

import base64
import binascii
import errno
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from index.model.errors import VdfsError, errno_of

MAX_LINE_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_BATCH: Final = 64
MAX_REPLY_BYTES: Final = 64 << 20

INTERNAL_ERROR: Final = -32603

Id = int | str | None
Json = dict[str, Any]


# -- Errors: the codes that the specification keeps for itself


class InvalidRequest(VdfsError):
    """The JSON is not a request, or breaks a limit of this protocol."""

    errno = errno.EINVAL
    rpc_code = -32600


class LineTooLong(InvalidRequest):
    """A line is longer than MAX_LINE_BYTES; the connection ends."""


class TooDeep(InvalidRequest):
    """The JSON is nested deeper than MAX_DEPTH."""


class ParseError(VdfsError):
    """A line is not JSON."""

    errno = errno.EBADMSG
    rpc_code = -32700


class MethodNotFound(VdfsError):
    """No operation has this name."""

    errno = errno.ENOSYS
    rpc_code = -32601


class InvalidParams(VdfsError):
    """The params do not have the fields and types that the operation takes."""

    errno = errno.EINVAL
    rpc_code = -32602


# -- Names


class NameText(NamedTuple):
    """A file name as JSON carries it: readable text, and the bytes in base64 if the text cannot say them."""

    text: str
    b64: str | None = None

    @classmethod
    def of(cls, raw: bytes) -> "NameText":
        try:
            return cls(raw.decode())
        except UnicodeDecodeError:
            return cls(raw.decode(errors="replace"), base64.b64encode(raw).decode())

    def raw(self) -> bytes:
        """The bytes of the name. ValueError when the text or its twin cannot be a name."""
        if self.b64 is None:
            try:
                name = self.text.encode()
            except UnicodeEncodeError:
                raise ValueError("has a lone surrogate; send undecodable names in base64") from None
        else:
            try:
                name = base64.b64decode(self.b64.encode(), validate=True)
            except (binascii.Error, UnicodeEncodeError):
                raise ValueError("has a twin that is not base64") from None
        if b"\0" in name:
            raise ValueError("has a NUL byte, which no file name can have")
        return name


def encode_name(raw: bytes, key: str = "name") -> dict[str, str]:
    """The one or two fields that carry the name `raw` under `key`, to be merged into a JSON object."""
    name = NameText.of(raw)
    return {key: name.text} if name.b64 is None else {key: name.text, f"{key}_b64": name.b64}


def decode_name(fields: Mapping[str, Any], key: str = "name") -> bytes:
    """The name that `encode_name` put under `key`. ValueError says what is wrong with it."""
    text, b64 = fields.get(key), fields.get(f"{key}_b64")
    if not isinstance(text, str) or not (b64 is None or isinstance(b64, str)):
        raise ValueError("a name is text, with an optional base64 twin")
    return NameText(text, b64).raw()


def encode_path(raw: bytes) -> dict[str, str]:
    """`{"path": text}`, with `path_b64` when the path is not UTF-8."""
    return encode_name(raw, "path")


def encode_item(raw: bytes) -> str | dict[str, str]:
    """A name as an element of a list: its text, or an object with `name` and `name_b64`."""
    fields = encode_name(raw)
    return fields["name"] if len(fields) == 1 else fields


def decode_item(value: Any) -> bytes:
    """The name that `encode_item` made. ValueError says what is wrong with it."""
    if isinstance(value, dict) and value.keys() <= {"name", "name_b64"}:
        return decode_name(value)
    if not isinstance(value, str):
        raise ValueError("a name is text, or an object with name and name_b64")
    return NameText(value).raw()


# -- Events: what came in


class Request(NamedTuple):
    """A call that wants a reply under its id."""

    id: Id
    method: str
    params: Json | list[Any] | None


class Notification(NamedTuple):
    """A call that gets no reply, not even an error."""

    method: str
    params: Json | list[Any] | None


class Refusal(NamedTuple):
    """Something that is no call; it is answered with its error, under its id as far as there is one."""

    id: Id
    error: VdfsError


Call = Request | Notification | Refusal


class Batch(NamedTuple):
    """Calls that share one reply line: an array with an element for each request and each refusal."""

    calls: tuple[Call, ...]


Event = Call | Batch


class Lines:
    """Cuts a byte stream into lines, in linear time whatever the pieces are."""

    def __init__(self, max_bytes: int) -> None:
        self.overflow = False  # a line was longer than max_bytes: nothing more comes out
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0  # no newline before this offset

    def feed(self, data: bytes) -> list[bytes]:
        if self.overflow:
            return []
        self._buffer += data
        lines, start = [], 0
        while (end := self._buffer.find(b"\n", max(start, self._searched))) >= 0:
            if end - start > self._max_bytes:
                break
            lines.append(bytes(self._buffer[start:end]))
            start = end + 1
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if end >= 0 or self._searched > self._max_bytes:
            self.overflow = True
            self._buffer.clear()
        return lines

    def rest(self) -> bytes:
        """What came after the last newline; asked for once, at the end of the stream."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._searched = 0
        return rest


class ServerProtocol:
    """The server's half of one connection. After `is_open` is false no more bytes are wanted."""

    def __init__(self) -> None:
        self.is_open = True
        self._lines = Lines(MAX_LINE_BYTES)

    def receive(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in the order of their lines."""
        if not self.is_open:
            return []
        events = [event for line in self._lines.feed(data) for event in _events_of(line)]
        if self._lines.overflow:
            self.is_open = False
            events.append(Refusal(None, LineTooLong(f"a line is longer than {MAX_LINE_BYTES} bytes; closing")))
        return events

    def closed(self) -> list[Event]:
        """The peer sends no more. A last line without newline counts: a JSON object ends by itself."""
        if not self.is_open:
            return []
        self.is_open = False
        return _events_of(self._lines.rest())


# -- Replies: what goes out


def reply(id: Id, result: Any) -> Json:
    return {"jsonrpc": "2.0", "id": id, "result": result}


def error_reply(id: Id, error: BaseException) -> Json:
    """The reply for a call that failed. Errors of our tree say what they are; others are internal errors."""
    if isinstance(error, VdfsError):
        code, text = error.rpc_code, str(error) or (type(error).__doc__ or error.kind).strip()
    else:
        code, text = INTERNAL_ERROR, "internal error; the log has the details"
    # A name inside a text of an error may be undecodable; the reply must go out all the same.
    try:  # bytes of a name as \xff
        message = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # no bytes: surrogates of somebody's own
        message = text.encode(errors="backslashreplace").decode()
    kind = error.kind if isinstance(error, VdfsError) else "InternalError"
    data = {"kind": kind, "errno": errno_of(error)}
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message, "data": data}}


def encode(message: Any) -> bytes:
    """`message` as JSON, no newline. TypeError or ValueError when it is none (bytes, NaN, surrogates)."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def request(id: Id, method: str, params: Json | None = None) -> Json:
    message: Json = {"jsonrpc": "2.0", "id": id, "method": method}
    if params is not None:
        message["params"] = params
    return message


def decode(line: bytes) -> Any:
    """The JSON value on `line`. Raises ParseError or TooDeep."""
    _check_depth(line)
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ParseError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ParseError(f"not JSON at column {error.colno}: {error.msg}") from None
    except ValueError as error:  # a constant, or an integer of thousands of digits
        raise ParseError(f"not JSON: {error}") from None
    except RecursionError:
        raise TooDeep(f"nested deeper than {MAX_DEPTH} levels") from None
    if _SURROGATE_ESCAPE.search(line):
        try:
            encode(value)
        except ValueError:
            raise ParseError("not Unicode text: a lone surrogate") from None
    return value


def _events_of(line: bytes) -> list[Event]:
    if not line.strip():
        return []
    try:
        value = decode(line)
    except VdfsError as error:
        return [Refusal(None, error)]
    if not isinstance(value, list):
        return [_call_of(value)]
    if not value:
        return [Refusal(None, InvalidRequest("a batch holds at least one call"))]
    if len(value) > MAX_BATCH:
        return [Refusal(None, InvalidRequest(f"a batch holds at most {MAX_BATCH} calls, not {len(value)}"))]
    return [Batch(tuple(_call_of(item) for item in value))]


def _call_of(value: Any) -> Call:
    if not isinstance(value, dict):
        return Refusal(None, InvalidRequest("a request is a JSON object"))
    id = value.get("id")
    if isinstance(id, bool) or not (id is None or isinstance(id, int | str)):
        return Refusal(None, InvalidRequest("an id is an integer, a string or null"))
    if value.get("jsonrpc") != "2.0":
        return Refusal(id, InvalidRequest('a request has "jsonrpc": "2.0"'))
    method = value.get("method")
    if not isinstance(method, str):
        return Refusal(id, InvalidRequest('a request has a "method" that is a string'))
    params = value.get("params")
    if not (isinstance(params, dict | list) or "params" not in value):
        return Refusal(id, InvalidRequest('"params" is an object or an array'))
    return Request(id, method, params) if "id" in value else Notification(method, params)


# -- Guards

# Linear whatever it meets: possessive, and an unterminated string runs to the end instead of failing.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def _check_depth(line: bytes) -> None:
    """Measure the nesting before the parser recurses into it: peel `[]` pairs, all leaves in one round."""
    if line.count(b"[") + line.count(b"{") <= MAX_DEPTH:
        return
    brackets = _STRING.sub(b"", line).translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(MAX_DEPTH):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    if b"[]" in brackets:
        raise TooDeep(f"nested deeper than {MAX_DEPTH} levels")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
