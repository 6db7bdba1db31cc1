"""Messages: what devices say to each other, as classes whose annotations are the format.

    @message(7)
    class PagesWanted:
        device: Bytes16
        from_seq: U64
        limit: Annotated[int, Range(1, 1000)] = 100

A message is a number (its type) and an array in msgpack, one element a field, in the order of the class. Later versions
add fields at the end, with defaults: what is missing there has its default, what is more than known is passed over. A
field `body: Body` is no element: its bytes travel beside the array, unchanged. A `@record` is the same without a
number, for fields of messages. Annotations may be:

    bool, float (finite), None, int with a Range
    str, bytes, tuple[T, ...], dict[K, V] with a Length
    a record; a union of those that msgpack tells apart

The invariant: `decode` gives an object of the class, within the limits of its annotations, or raises ProtocolError;
nothing else, whatever the bytes. No extension types, no key twice, nothing nested deeper than MAX_DEPTH, no text that
is not Unicode. What is sent is held to the same limits; there a breach is a ValueError, for it is a bug of ours. A
class that could not be held to them is refused when it is defined.

No class registers itself: who serves or asks says which messages it knows (`Codec`). Kept out: what messages there are,
and the forms of single values (`forms`).

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import typing
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar, dataclass_transform

import attrs
import msgpack

from index.model.errors import ProtocolError
from sync.wire.forms import MAX_ITEMS, MAX_PAIRS, Breach, Form, form_of, told

MAX_DEPTH: Final = 16
MAX_FIELDS_BYTES: Final = 1 << 20  # of a message without its body
MAX_BODY_BYTES: Final = 8 << 20
MAX_TYPE: Final = 0xFFFF
_MAX_MAPS: Final = 1 << 14  # in one message: a map takes a hundred times the room that its bytes do

T = TypeVar("T")

#: What a body may be: whatever can be sent without being copied.
Body = bytes | bytearray | memoryview


class UnknownMessage(NamedTuple):
    """A message of a type that this version does not know."""

    number: int


class Encoded(NamedTuple):
    """A message as it travels: its type, its fields in msgpack, its body."""

    number: int
    fields: bytes | bytearray | memoryview
    body: Body = b""

    @property
    def size_bytes(self) -> int:
        return len(self.fields) + len(self.body)


@attrs.frozen
class _Layout:
    """What a class was declared to be."""

    names: tuple[str, ...]
    forms: tuple[Form, ...]
    required: int
    number: int | None
    has_body: bool
    depth: int


# -- declaring ---------------------------------------------------------------------------------------------------------


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def record(cls: type[T]) -> type[T]:
    """A class whose objects are fields of messages. TypeError when a field has no limit."""
    return _declared(cls, None)


@dataclass_transform(frozen_default=True, field_specifiers=(attrs.field,))
def message(number: int) -> Callable[[type[T]], type[T]]:
    """A message of the type `number`, 1 to 65 535. TypeError when a field has no limit."""
    if not 0 < number <= MAX_TYPE:
        raise TypeError(f"{number} is no type of a message")
    return lambda cls: _declared(cls, number)


def _declared(cls: type[T], number: int | None) -> type[T]:
    made: Any = attrs.frozen(cls)
    hints = typing.get_type_hints(made, include_extras=True)
    everything = attrs.fields(made)
    fields = [field for field in everything if field.name != "body" or number is None]
    has_body = len(fields) < len(everything)
    if has_body and (hints["body"] != Body or everything[-1].name != "body"):
        raise TypeError(f"{cls.__name__}: a body is a Body, and the last field")
    forms = tuple(form_of(hints[field.name], f"{cls.__name__}.{field.name}", _record_form) for field in fields)
    depth = 1 + max((form.depth for form in forms), default=0)
    if depth > MAX_DEPTH:
        raise TypeError(f"{cls.__name__} nests deeper than {MAX_DEPTH}")
    names = tuple(field.name for field in fields)
    required = sum(field.default is attrs.NOTHING for field in fields)
    made.__layout__ = _Layout(names, forms, required, number, has_body, depth)
    declared: type[T] = made
    return declared


def _layout_of(cls: type) -> _Layout:
    layout = cls.__dict__.get("__layout__")
    if not isinstance(layout, _Layout):
        raise TypeError(f"{cls.__name__} is neither a message nor a record")
    return layout


def _record_form(cls: type) -> Form | None:
    if "__layout__" not in cls.__dict__:
        return None
    layout = _layout_of(cls)

    def pack_one(value: Any) -> Any:
        if type(value) is not cls:
            raise Breach(f": {told(value)} is no {cls.__name__}")
        return _pack_fields(value, layout)

    return Form(pack_one, lambda plain: cls(*_unpack_fields(layout, plain)), (tuple,), layout.depth)


# -- out ---------------------------------------------------------------------------------------------------------------


def encode(value: Any) -> Encoded:
    """A message as it travels. ValueError when it breaks its own limits."""
    layout = _layout_of(type(value))
    if layout.number is None:
        raise ValueError(f"{type(value).__name__} is no message")
    body: Body = value.body if layout.has_body else b""
    if isinstance(body, memoryview) and (body.itemsize != 1 or not body.contiguous):
        raise ValueError(f"{type(value).__name__}.body: not a row of bytes")
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"{type(value).__name__}.body: more than {MAX_BODY_BYTES} bytes")
    return Encoded(layout.number, pack(value), body)


def pack(value: Any) -> bytes:
    """The fields of a message or record in msgpack. ValueError when one breaks its limits."""
    try:
        packed: bytes = msgpack.packb(_pack_fields(value, _layout_of(type(value))), use_bin_type=True)
    except Breach as breach:
        raise ValueError(f"{type(value).__name__}{breach}") from None
    if len(packed) > MAX_FIELDS_BYTES:
        raise ValueError(f"{type(value).__name__}: more than {MAX_FIELDS_BYTES} bytes")
    return packed


def _pack_fields(value: Any, layout: _Layout) -> list[Any]:
    packed = []
    for name, form in zip(layout.names, layout.forms, strict=True):
        try:
            packed.append(form.pack(getattr(value, name)))
        except Breach as breach:
            raise Breach(f".{name}{breach}") from None
    return packed


# -- in ----------------------------------------------------------------------------------------------------------------


class Codec:
    """The messages that somebody knows. Two of one number are a ValueError."""

    def __init__(self, messages: Iterable[type]) -> None:
        self._known: dict[int, type] = {}
        for cls in messages:
            number = _layout_of(cls).number
            if number is None or self._known.setdefault(number, cls) is not cls:
                raise ValueError(f"{cls.__name__} has no number of its own")

    def decode(self, encoded: Encoded) -> Any:
        """The message, or UnknownMessage. ProtocolError when it is not what its type says."""
        cls = self._known.get(encoded.number)
        return UnknownMessage(encoded.number) if cls is None else unpack(cls, encoded.fields, encoded.body)


def unpack(cls: type[T], data: bytes | bytearray | memoryview, body: Body = b"") -> T:
    """An object of `cls` from its fields. ProtocolError when they are not."""
    layout = _layout_of(cls)
    make: Any = cls
    try:
        values = _unpack_fields(layout, _plain(data))
    except Breach as breach:
        raise ProtocolError(f"{cls.__name__}{breach}") from None
    if layout.has_body:
        made: T = make(*values, body=body)
        return made
    if len(body):
        raise ProtocolError(f"{cls.__name__} has no body")
    made = make(*values)
    return made


def _plain(data: bytes | bytearray | memoryview) -> Any:
    """What msgpack says, as tuples, dicts and scalars."""
    if len(data) > MAX_FIELDS_BYTES:
        raise ProtocolError(f"a message of more than {MAX_FIELDS_BYTES} bytes")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=False,
            object_pairs_hook=_Maps(),
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_PAIRS,
            max_ext_len=0,
        )
    except (ValueError, TypeError) as error:  # all of msgpack's own are ValueErrors; TypeError is a key of no hash
        raise ProtocolError(f"a message that is no msgpack of ours: {error!r}") from None


class _Maps:
    """Makes the dicts of one message."""

    def __init__(self) -> None:
        self._left = _MAX_MAPS

    def __call__(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._left -= 1
        made = dict(pairs)
        if self._left < 0 or len(made) != len(pairs):
            raise ValueError("too many maps" if self._left < 0 else "a key stands twice in a map")
        return made


def _unpack_fields(layout: _Layout, plain: Any) -> list[Any]:
    if type(plain) is not tuple or len(plain) < layout.required:
        raise Breach(f": not an array of at least {layout.required} fields")
    values: list[Any] = []
    for form, element in zip(layout.forms, plain, strict=False):
        try:
            values.append(form.unpack(element))
        except Breach as breach:
            raise Breach(f".{layout.names[len(values)]}{breach}") from None
    for element in plain[len(layout.forms) :]:
        _check_depth(element, MAX_DEPTH - 1)
    return values


def _check_depth(plain: Any, room: int) -> None:
    """For what nobody looks into; a form goes no deeper than it was declared."""
    if isinstance(plain, tuple | dict):
        if room <= 0:
            raise Breach(f": nested deeper than {MAX_DEPTH}")
        for element in plain if isinstance(plain, tuple) else (*plain.keys(), *plain.values()):
            _check_depth(element, room - 1)
