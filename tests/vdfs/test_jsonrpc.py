"""The protocol of the socket, fed by hand: what bytes mean does not depend on how they arrive."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import NotFound
from vdfs.wire import jsonrpc
from vdfs.wire.jsonrpc import Batch, Event, NameText, Notification, Refusal, Request, ServerProtocol

CALL = {"jsonrpc": "2.0", "id": 1, "method": "query:core.status", "params": {}}


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def fed(pieces: Iterable[bytes]) -> tuple[list[Event], bool]:
    """All events of a stream that ends, and whether the protocol wanted bytes to the end."""
    protocol = ServerProtocol()
    events = [event for piece in pieces for event in protocol.receive(piece)]
    was_open = protocol.is_open
    return [*events, *protocol.closed()], was_open


def comparable(events: list[Event]) -> list[Any]:
    """Events with errors as their type and text: exceptions compare by identity."""

    def plain(event: Event) -> Any:
        if isinstance(event, Batch):
            return ("batch", [plain(call) for call in event.calls])
        if isinstance(event, Refusal):
            return ("refusal", event.id, type(event.error), str(event.error))
        return event

    return [plain(event) for event in events]


def the_refusal(data: bytes) -> Refusal:
    events, _ = fed([data])
    assert len(events) == 1
    assert isinstance(events[0], Refusal)
    return events[0]


# -- Cutting the stream

STREAM = b"".join(
    [
        line(CALL),
        b"\n  \r\n",
        line({"jsonrpc": "2.0", "method": "action:tag.add", "params": {"tag": "Größe\u2028 ⛵"}}),
        json.dumps({**CALL, "id": "é"}, ensure_ascii=False).encode() + b"\r\n",
        b'{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]\n',
        line([CALL, 1, {"jsonrpc": "2.0", "method": "n"}]),
        b"[]\n",
        b"\xff\xfe\n",
        line({**CALL, "id": 2})[:-1],
    ]
)


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_every_cut_in_two_gives_the_same_events(cut: int) -> None:
    """A cut anywhere, also within a UTF-8 sequence or between \\r and \\n, changes nothing."""
    assert comparable(fed([STREAM[:cut], STREAM[cut:]])[0]) == comparable(fed([STREAM])[0])


def test_a_stream_of_single_bytes_gives_the_same_events() -> None:
    """The finest cut of all; the events themselves are the expected ones."""
    events, _ = fed(STREAM[i : i + 1] for i in range(len(STREAM)))
    assert comparable(events) == comparable(fed([STREAM])[0])
    assert [type(event) for event in events] == [
        *(Request, Notification, Request, Refusal, Batch, Refusal, Refusal, Request)
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
lines = st.lists(
    st.one_of(
        st.builds(lambda v: line({**CALL, "params": {"v": v}}), json_values),
        st.builds(line, json_values),
        st.binary(max_size=20).map(lambda raw: raw + b"\n"),
    ),
    max_size=5,
)


@given(lines, st.lists(st.integers(0, 400), max_size=8), st.binary(max_size=5))
def test_any_cut_of_any_stream_gives_the_same_events(parts: list[bytes], cuts: list[int], tail: bytes) -> None:
    """The events are a function of the bytes alone, good lines and rubbish alike."""
    stream = b"".join(parts) + tail
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    assert comparable(fed(pieces)[0]) == comparable(fed([stream])[0])


@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_the_protocol_raise(data: bytes) -> None:
    """Whatever comes in is events; an answer to each can be encoded."""
    events, _ = fed([data])
    for event in events:
        for call in event.calls if isinstance(event, Batch) else (event,):
            if isinstance(call, Refusal):
                assert jsonrpc.encode(jsonrpc.error_reply(call.id, call.error))


# -- Calls


def test_ids_are_integers_strings_and_null() -> None:
    """Each is given back as it came; an absent id is a notification, a null id is not."""
    calls = [{**CALL, "id": id} for id in (0, -7, 2**70, "", "x", None)]
    events, _ = fed([b"".join(map(line, calls))])
    assert [event.id for event in events if isinstance(event, Request)] == [0, -7, 2**70, "", "x", None]
    (event,), _ = fed([b'{"jsonrpc":"2.0","method":"m"}\n'])
    assert event == Notification("m", None)


@pytest.mark.parametrize("id", [1.5, True, [], {}])
def test_other_ids_are_refused(id: Any) -> None:
    """A fraction or a container cannot be matched reliably; the refusal has the id null."""
    refusal = the_refusal(line({**CALL, "id": id}))
    assert (refusal.id, refusal.error.rpc_code) == (None, -32600)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"jsonrpc": "1.0"}, "jsonrpc"),
        ({"jsonrpc": None}, "jsonrpc"),
        ({"method": 1}, "method"),
        ({"params": "bar"}, "params"),
        ({"params": None}, "params"),
    ],
)
def test_a_malformed_call_is_refused_under_its_id(change: dict[str, Any], word: str) -> None:
    """-32600, and the text names the member that is wrong."""
    refusal = the_refusal(line({**CALL, "id": 9, **change}))
    assert (refusal.id, refusal.error.rpc_code) == (9, -32600)
    assert word in str(refusal.error)


@pytest.mark.parametrize("text", ["1", '"x"', "null", "true", "1.5"])
def test_a_bare_value_is_no_request(text: str) -> None:
    """The specification's invalid request."""
    assert the_refusal(text.encode() + b"\n").error.rpc_code == -32600


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"}",
        b'{"a":}',
        b"NaN",
        b'{"v":Infinity}',
        b"[-Infinity]",
        b"\xc3\x28",
        b'"\\ud800"',
        b'{"jsonrpc":"2.0","id":1,"method":"\\uDFff"}',
        "\ufeff{}".encode(),
        json.dumps(CALL).encode("utf-16"),
        b"1" * 5000,
    ],
)
def test_what_is_no_json_text_is_a_parse_error(data: bytes) -> None:
    """-32700 with id null, also for NaN, lone surrogates, other encodings and numbers without end."""
    refusal = the_refusal(data.replace(b"\n", b"") + b"\n")
    assert (refusal.id, refusal.error.rpc_code) == (None, -32700)


def test_a_surrogate_pair_is_text() -> None:
    """Escaped astral characters are as good as literal ones."""
    (event,), _ = fed([b'{"jsonrpc":"2.0","method":"\\ud83d\\udea2"}\n'])
    assert event == Notification("\U0001f6a2", None)


# -- Batches


def test_a_batch_keeps_the_order_of_its_calls() -> None:
    """Requests, notifications and rubbish in one array."""
    (batch,), _ = fed([line([CALL, {"jsonrpc": "2.0", "method": "n", "params": [1]}, {"foo": "boo"}, 3])])
    assert isinstance(batch, Batch)
    assert batch.calls[0] == Request(1, "query:core.status", {})
    assert batch.calls[1] == Notification("n", [1])
    assert [type(call) for call in batch.calls[2:]] == [Refusal, Refusal]


def test_a_batch_has_a_limit_on_both_ends() -> None:
    """None and too many are one refusal each; the limit itself passes."""
    assert the_refusal(b"[]\n").error.rpc_code == -32600
    assert str(jsonrpc.MAX_BATCH) in str(the_refusal(line([CALL] * (jsonrpc.MAX_BATCH + 1))).error)
    (batch,), _ = fed([line([CALL] * jsonrpc.MAX_BATCH)])
    assert isinstance(batch, Batch)


# -- Limits


@pytest.mark.parametrize("piece_bytes", [1 << 12, (1 << 20) - 1, 1 << 20, 1 << 22])
def test_a_line_over_the_limit_is_refused_and_ends_the_connection(piece_bytes: int) -> None:
    """What came before it counts, what comes after does not, wherever the stream is cut."""
    long = b'"' + b"x" * (jsonrpc.MAX_LINE_BYTES - 1) + b'"'
    stream = line(CALL) + long + b"\n" + line(CALL)
    events, was_open = fed(stream[i : i + piece_bytes] for i in range(0, len(stream), piece_bytes))
    assert isinstance(events[0], Request)
    assert isinstance(events[1], Refusal)
    assert isinstance(events[1].error, jsonrpc.LineTooLong)
    assert (len(events), was_open) == (2, False)


def test_a_line_of_exactly_the_limit_passes() -> None:
    """The limit counts the line without its newline."""
    start, end = b'{"jsonrpc":"2.0","method":"m","params":["', b'"]}'
    text = start + b"x" * (jsonrpc.MAX_LINE_BYTES - len(start) - len(end)) + end
    assert len(text) == jsonrpc.MAX_LINE_BYTES
    (event,), was_open = fed([text, b"\n"])
    assert isinstance(event, Notification)
    assert was_open


def test_a_line_that_never_ends_is_not_kept() -> None:
    """The refusal comes as soon as the limit is passed, without waiting for a newline."""
    protocol = ServerProtocol()
    events = [event for _ in range(17) for event in protocol.receive(b"x" * (1 << 16))]
    assert isinstance(events[0], Refusal)
    assert not protocol.is_open
    assert protocol.receive(line(CALL)) == protocol.closed() == []


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A request of `depth` levels: its own object is one of them."""
    return (
        b'{"jsonrpc":"2.0","method":"m","params":'
        + opening * (depth - 1)
        + b"1" * (opening != b"[")
        + closing * (depth - 1)
        + b"}\n"
    )


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_nesting_has_a_limit(opening: bytes, closing: bytes) -> None:
    """MAX_DEPTH levels pass, one more is TooDeep; a hundred thousand do not reach the parser."""
    (event,), _ = fed([nested(jsonrpc.MAX_DEPTH, opening, closing)])
    assert isinstance(event, Notification)
    for depth in (jsonrpc.MAX_DEPTH + 1, 100_000):
        assert isinstance(the_refusal(nested(depth, opening, closing)).error, jsonrpc.TooDeep)


def test_brackets_within_strings_are_no_nesting() -> None:
    """Also behind escaped quotes and backslashes."""
    params = {"v": "[" * 100, "w": '\\"' + "{" * 100, "x\\": ["]" * 40] * 40}
    (event,), _ = fed([line({"jsonrpc": "2.0", "method": "m", "params": params})])
    assert event == Notification("m", params)


def test_wide_is_not_deep() -> None:
    """Ten thousand siblings are two levels."""
    (event,), _ = fed([line({"jsonrpc": "2.0", "method": "m", "params": [[]] * 10_000})])
    assert isinstance(event, Notification)


@pytest.mark.parametrize("data", [b"[" * 100, b"]" * 100, b'"' + b'\\"' * 200_000, b'[{"' * 100_000, b"}{" * 99])
def test_unbalanced_rubbish_is_refused_quickly(data: bytes) -> None:
    """No quadratic search for the end of a string, no recursion error."""
    assert the_refusal(data + b"\n").error.rpc_code in (-32700, -32600)


# -- Replies


def test_an_error_of_the_tree_says_what_it_is() -> None:
    """Code, the one clear line, and its kind and errno as data."""
    reply = jsonrpc.error_reply(3, NotFound("there is no location 'X'"))
    assert reply == {
        "jsonrpc": "2.0",
        "id": 3,
        "error": {
            "code": 1404,
            "message": "there is no location 'X'",
            "data": {"kind": "NotFound", "errno": 2},
        },
    }


def test_a_bug_says_nothing_of_itself() -> None:
    """An exception from elsewhere is an internal error without its text."""
    error = jsonrpc.error_reply(None, KeyError("secret"))["error"]
    assert error["code"] == -32603
    assert "secret" not in json.dumps(error)


def test_an_undecodable_name_in_an_error_still_goes_out() -> None:
    """Surrogates in the text are escaped, not fatal."""
    text = b"no such file: \xff".decode(errors="surrogateescape")
    assert rb"file: \\xff" in jsonrpc.encode(jsonrpc.error_reply(1, NotFound(text)))
    assert rb"\\ud800" in jsonrpc.encode(jsonrpc.error_reply(1, NotFound("\ud800")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", "\udcff", {1, 2}])
def test_what_is_no_json_is_not_encoded(value: Any) -> None:
    """A reply is JSON or it is an error of ours."""
    with pytest.raises((TypeError, ValueError)):
        jsonrpc.encode({"v": value})


# -- Names

file_names = st.binary(max_size=60).filter(lambda raw: b"\0" not in raw)


@given(file_names)
def test_every_name_survives_json(raw: bytes) -> None:
    """As a field with its twin, and as an element of a list."""
    through = json.loads(jsonrpc.encode({"f": jsonrpc.encode_name(raw), "l": [jsonrpc.encode_item(raw)]}))
    assert jsonrpc.decode_name(through["f"]) == raw
    assert jsonrpc.decode_item(through["l"][0]) == raw


@given(file_names)
def test_a_twin_is_there_exactly_when_the_text_does_not_suffice(raw: bytes) -> None:
    """UTF-8 names are plain text and nothing else."""
    name = NameText.of(raw)
    try:
        assert name == NameText(raw.decode(), None)
    except UnicodeDecodeError:
        assert "\ufffd" in name.text
        assert name.b64 is not None
    assert name.raw() == raw


def test_a_path_and_its_twin_have_their_names() -> None:
    """`path` and `path_b64`, `name` and `name_b64`."""
    assert jsonrpc.encode_path(b"/a/\xc3\xa9") == {"path": "/a/é"}
    assert jsonrpc.encode_path(b"/a/\xff") == {"path": "/a/\ufffd", "path_b64": "L2Ev/w=="}
    assert jsonrpc.encode_item(b"\xff") == {"name": "\ufffd", "name_b64": "/w=="}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"name": None},
        {"name": 5},
        {"name": "a\0b"},
        {"name": "a", "name_b64": "AA=="},
        {"name": "a", "name_b64": "****"},
        {"name": "a", "name_b64": "é"},
        {"name": "a", "name_b64": 7},
        {"name": "\udcff"},
    ],
)
def test_what_cannot_be_a_name_is_refused(fields: dict[str, Any]) -> None:
    """ValueError, whose text the caller puts behind the field's name."""
    with pytest.raises(ValueError, match=r"name|twin|NUL|surrogate"):
        jsonrpc.decode_name(fields)


@pytest.mark.parametrize("value", [None, 5, [], {"name": "a", "other": 1}, {"path": "a"}, True])
def test_what_cannot_be_a_name_in_a_list_is_refused(value: Any) -> None:
    """An element is text or the object with the twin."""
    with pytest.raises(ValueError, match="name"):
        jsonrpc.decode_item(value)
