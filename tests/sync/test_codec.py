"""Messages come back as they were, within their limits; whatever else arrives is one error."""

import random
from typing import Annotated

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import ProtocolError
from sync.wire.codec import (
    MAX_BODY_BYTES,
    MAX_FIELDS_BYTES,
    Body,
    Codec,
    Encoded,
    UnknownMessage,
    encode,
    message,
    pack,
    record,
    unpack,
)
from sync.wire.forms import I64, U8, U16, U64, Bytes16, Length, Range

Name = Annotated[str, Length(1, 20)]
Scalar = None | bool | I64 | float | Annotated[str, Length(0, 50)] | Annotated[bytes, Length(0, 50)]


@record
class Row:
    key: Bytes16
    cells: Annotated[dict[Name, Scalar], Length(0, 8)]


@message(7)
class Page:
    device: Bytes16
    from_seq: U64
    rows: Annotated[tuple[Row, ...], Length(0, 10)]
    parent: Row | None = None
    limit: Annotated[int, Range(1, 1000)] = 100


@message(8)
class Block:
    index: U16
    body: Body


@message(9)
class Newer:
    index: U16 = 5
    flag: bool = False
    body: Body = b""


KNOWN = Codec([Page, Block])

rows = st.builds(
    Row,
    st.binary(min_size=16, max_size=16),
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=10),
            st.binary(max_size=50),
        ),
        max_size=8,
    ),
)
pages = st.builds(
    Page,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
    st.lists(rows, max_size=5).map(tuple),
    st.none() | rows,
    st.integers(1, 1000),
)


@given(page=pages)
def test_a_message_comes_back_as_it_was(page):
    """Records in tuples, dicts of mixed values, optional ones."""
    encoded = encode(page)
    assert encoded.number == 7
    assert KNOWN.decode(encoded) == page


def test_the_form_on_the_wire():
    """An array of the fields in their order: what another program has to write."""
    page = Page(b"d" * 16, 3, (Row(b"k" * 16, {"a": 1}),))
    assert msgpack.unpackb(encode(page).fields) == [b"d" * 16, 3, [[b"k" * 16, {"a": 1}]], None, 100]


@pytest.mark.parametrize("body", [b"", b"bytes", bytearray(b"array"), memoryview(b"a view")[2:]])
def test_a_body_travels_beside_the_fields(body):
    """Not copied, not packed."""
    encoded = encode(Block(3, body))
    assert encoded.body is body
    assert msgpack.unpackb(encoded.fields) == [3]
    assert KNOWN.decode(encoded) == Block(3, body)
    assert encoded.size_bytes == len(encoded.fields) + len(body)


# -- versions ----------------------------------------------------------------------------------------------------------


def test_fields_of_a_newer_device_are_passed_over():
    """Whatever they are, within the limits of all messages."""
    fields = msgpack.packb([3, {"new": [1, 2, None]}, "more"])
    assert KNOWN.decode(Encoded(8, fields, b"x")) == Block(3, b"x")


def test_fields_that_an_older_device_does_not_send_have_their_defaults():
    """But not those that were there from the beginning."""
    assert unpack(Newer, msgpack.packb([]), b"b") == Newer(body=b"b")
    assert unpack(Newer, msgpack.packb([1])) == Newer(1)
    with pytest.raises(ProtocolError, match="at least 3"):
        unpack(Page, msgpack.packb([b"d" * 16, 3]))


def test_an_unknown_type_is_told_as_such():
    """It is no error: who is asked can say that it is unsupported."""
    assert KNOWN.decode(Encoded(12, b"anything")) == UnknownMessage(12)


# -- limits ------------------------------------------------------------------------------------------------------------

GOOD = [b"d" * 16, 3, [], None, 100]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, b"d" * 15), (0, b"d" * 17), (0, "d" * 16), (0, None),
        (1, -1), (1, 1.0), (1, True), (1, "1"),
        (2, [[b"k" * 16, {}]] * 11), (2, {}), (2, [[]]), (2, [[b"k" * 16]]), (2, [[b"k" * 16, {"": 1}]]),
        (2, [[b"k" * 16, {"a": []}]]), (2, [[b"k" * 16, {"a": "x" * 51}]]), (2, [[b"k" * 16, {1: 1}]]),
        (2, [[b"k" * 16, {"ä" * 11: 1}]]), (2, [[b"k" * 16, {"a": 2**63}]]), (2, [[b"k" * 16, {"a": float("nan")}]]),
        (2, [[b"k" * 16, {"a": float("inf")}]]), (2, [[b"k" * 16, {str(n): n for n in range(9)}]]),
        (3, 1), (3, []), (4, 0), (4, 1001),
    ],
)  # fmt: skip
def test_a_field_out_of_its_limits_is_refused(field, value):
    """The error names it."""
    fields = [*GOOD[:field], value, *GOOD[field + 1 :]]
    with pytest.raises(ProtocolError, match=r"^Page\." + ("device", "from_seq", "rows", "parent", "limit")[field]):
        unpack(Page, msgpack.packb(fields))


@pytest.mark.parametrize(
    "bad",
    [
        Page(b"short", 3, ()),
        Page(b"d" * 16, 1 << 64, ()),
        Page(b"d" * 16, 3, [Row(b"k" * 16, {})]),
        Page(b"d" * 16, 3, ("row",)),
        Page(b"d" * 16, 3, (Row(b"k" * 16, {"a": "\ud800"}),)),
        Block(3, bytes(MAX_BODY_BYTES + 1)),
        Block(3, memoryview(bytes(10))[::2]),
        Block(70_000, b""),
        Row(b"k" * 16, {}),
    ],
    ids=lambda bad: type(bad).__name__,
)
def test_what_we_send_is_held_to_the_same_limits(bad):
    """There it is a bug of ours, and never a message."""
    with pytest.raises(ValueError, match=r"\w"):
        encode(bad)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x93\x01",
        msgpack.packb(GOOD) + b"\0",
        msgpack.packb(7),
        msgpack.packb({"device": b"d" * 16}),
        b"\x95\xc4\x10" + b"d" * 16 + b"\x03\x90\x82\xa1a\x01\xa1a\x02\x64",  # a key twice
        b"\x95\xc4\x10" + b"d" * 16 + b"\x03\x90\x81\x90\x01\x64",  # a key that is an array
        b"\x95\xc4\x10" + b"d" * 16 + b"\x03\x90\x81\x80\x01\x64",  # a key that is a map
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\xd6\xff\0\0\0\0",  # a time stamp
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\xd4\x05\0",  # an extension
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\xa1\xff",  # text that is not Unicode
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\xdd\xff\xff\xff\xff",  # four thousand million items
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\x91" * 16 + b"\xc0",
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\x81\xc0" * 16 + b"\xc0",
        b"\x91" * 5000 + b"\xc0",
        b"\x96" + msgpack.packb(GOOD)[1:] + b"\x91" * 5000 + b"\xc0",
        b"\xdc\x40\x01" + b"\x80" * 0x4001,  # many maps
        bytes(MAX_FIELDS_BYTES + 1),
    ],
    ids=lambda data: data[:30].hex(),
)
def test_what_msgpack_may_say_and_we_do_not_take(data):
    """Extensions, keys that stand twice, depth, sizes: the same error as for what is no msgpack."""
    with pytest.raises(ProtocolError):
        unpack(Page, data)


def test_depth_up_to_the_limit_is_fine():
    """Fifteen below the array of the fields."""
    deep = b"\x96" + msgpack.packb(GOOD)[1:] + b"\x91" * 15 + b"\xc0"
    assert unpack(Page, deep) == Page(b"d" * 16, 3, ())


@given(data=st.binary(max_size=200))
def test_any_bytes_give_a_message_or_the_one_error(data):
    """Arbitrary ones."""
    for cls in (Page, Block, Newer, Row):
        try:
            unpack(cls, data)
        except ProtocolError:
            pass


@given(page=pages, where=st.integers(0, 10_000), how=st.integers(1, 255))
def test_a_damaged_message_gives_a_message_or_the_one_error(page, where, how):
    """Near to genuine ones; and a body where none belongs."""
    data = bytearray(pack(page))
    data[where % len(data)] ^= how
    try:
        unpack(Page, bytes(data))
    except ProtocolError:
        pass
    with pytest.raises(ProtocolError):
        unpack(Page, pack(page), b"body")


def test_ten_thousand_random_messages():
    """A seed of its own, so that it is the same everywhere."""
    generator = random.Random(7)
    refused = 0
    for _ in range(10_000):
        data = bytes((0x90 | generator.randrange(8),)) + generator.randbytes(generator.randrange(60))
        try:
            unpack(Page, data)
        except ProtocolError:
            refused += 1
    assert refused == 10_000


# -- declarations ------------------------------------------------------------------------------------------------------


def test_a_field_without_a_limit_is_refused_when_it_is_declared():
    """And so is what msgpack could not tell apart, or what is nested too deeply."""
    for hint in (int, str, bytes, tuple[U8, ...], dict[U8, U8], list[U8], object, U8 | U16, Name | Row | tuple[Row]):
        with pytest.raises(TypeError):
            record(type("Wrong", (), {"__annotations__": {"field": hint}}))
    for key in (Row, Annotated[tuple[U8, ...], Length(0, 1)]):
        with pytest.raises(TypeError):
            record(type("Wrong", (), {"__annotations__": {"field": Annotated[dict[key, U8], Length(0, 1)]}}))
    deep = U8
    for _ in range(16):
        deep = Annotated[tuple[deep, ...], Length(0, 1)]
    with pytest.raises(TypeError, match="deeper"):
        record(type("Deep", (), {"__annotations__": {"field": deep}}))
    with pytest.raises(TypeError, match="Body"):
        message(3)(type("Wrong", (), {"__annotations__": {"body": bytes}}))
    for number in (0, 1 << 16):
        with pytest.raises(TypeError):
            message(number)
    with pytest.raises(ValueError, match="number of its own"):
        Codec([Page, message(7)(type("Other", (), {"__annotations__": {"field": U8}}))])
    with pytest.raises(TypeError):
        unpack(int, b"")
