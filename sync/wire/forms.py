"""The forms of values in a message: what an annotation allows, and what msgpack holds of it.

In: an annotation, as `Annotated[int, Range(1, 1000)]`. Out: a `Form`, two functions that turn a value into what msgpack
takes and back; both raise `Breach` for what the annotation does not allow. Types are exact: True is no integer here,
and a list is no tuple. Whatever could grow without a limit is refused as an annotation.

Kept out: messages and records (`codec`), which are made of such values. A record as a field comes in by a function,
since only `codec` knows what a record is.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

import math
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple, TypeVar

MAX_ITEMS: Final = 1 << 16  # of any array
MAX_PAIRS: Final = 1 << 12  # of any map

T = TypeVar("T")


class Range(NamedTuple):
    """The least and the greatest value of an int."""

    least: int
    greatest: int


class Length(NamedTuple):
    """The least and the greatest length: bytes of bytes and of text, items of a tuple or dict."""

    least: int
    greatest: int


U8 = Annotated[int, Range(0, 0xFF)]
U16 = Annotated[int, Range(0, 0xFFFF)]
U32 = Annotated[int, Range(0, 0xFFFF_FFFF)]
U64 = Annotated[int, Range(0, (1 << 64) - 1)]
I64 = Annotated[int, Range(-(1 << 63), (1 << 63) - 1)]
Bytes8 = Annotated[bytes, Length(8, 8)]
Bytes16 = Annotated[bytes, Length(16, 16)]
Bytes32 = Annotated[bytes, Length(32, 32)]
Bytes64 = Annotated[bytes, Length(64, 64)]


class Breach(Exception):
    """A value that is not what its annotation says. Its text begins with the path to it, which grows outwards."""


class Form(NamedTuple):
    """How a type goes into msgpack and comes back; which types it has there; how many arrays and maps it nests."""

    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]
    kinds: tuple[type, ...]
    depth: int = 0


def form_of(hint: Any, where: str, record_form: Callable[[type], Form | None]) -> Form:
    """The form of an annotation. TypeError names the place when there is none, or one without limits.

    `record_form` gives the form of a record, and None for a class that is none.
    """

    def inner(argument: Any) -> Form:
        return form_of(argument, where, record_form)

    limits: tuple[Any, ...] = ()
    if typing.get_origin(hint) is Annotated:
        hint, *rest = typing.get_args(hint)
        limits = tuple(rest)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (bool, type(None), float):
        return _scalar(hint)
    if hint is int:
        return _int(_the(Range, limits, where))
    if hint is bytes:
        return _bytes(_the(Length, limits, where))
    if hint is str:
        return _text(_the(Length, limits, where))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple(inner(arguments[0]), _the(Length, limits, where), where)
    if origin is dict:
        return _dict(inner(arguments[0]), inner(arguments[1]), _the(Length, limits, where), where)
    if origin in (typing.Union, types.UnionType):
        return _union([inner(argument) for argument in arguments], where)
    form = record_form(hint) if isinstance(hint, type) else None
    if form is None:
        raise TypeError(f"{where}: {hint} has no form in a message")
    return form


def _the(kind: type[T], limits: tuple[Any, ...], where: str) -> T:
    found = [limit for limit in limits if isinstance(limit, kind)]
    if len(found) != 1:
        raise TypeError(f"{where}: needs a {kind.__name__}")
    return found[0]


def _both_ways(check: Callable[[Any], Any], kind: type) -> Form:
    return Form(check, check, (kind,))


def _scalar(kind: Any) -> Form:
    def check(value: Any) -> Any:
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise Breach(f": {told(value)} is no {kind.__name__}")
        return value

    return _both_ways(check, kind)


def _int(limit: Range) -> Form:
    least, greatest = limit

    def check(value: Any) -> Any:
        if type(value) is not int or not least <= value <= greatest:
            raise Breach(f": {told(value)} is no integer from {least} to {greatest}")
        return value

    return _both_ways(check, int)


def _bytes(limit: Length) -> Form:
    least, greatest = limit

    def check(value: Any) -> Any:
        if type(value) is not bytes or not least <= len(value) <= greatest:
            raise Breach(f": {told(value)} is not {least} to {greatest} bytes")
        return value

    return _both_ways(check, bytes)


def _text(limit: Length) -> Form:
    least, greatest = limit

    def check(value: Any) -> Any:
        if type(value) is not str:
            raise Breach(f": {told(value)} is no text")
        try:
            size = len(value) if value.isascii() else len(value.encode())
        except UnicodeEncodeError:
            raise Breach(": text with a lone surrogate") from None
        if not least <= size <= greatest:
            raise Breach(f": text of {size} bytes instead of {least} to {greatest}")
        return value

    return _both_ways(check, str)


def _tuple(item: Form, limit: Length, where: str) -> Form:
    def through(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def convert(value: Any) -> Any:
            if type(value) is not tuple or not limit.least <= len(value) <= limit.greatest:
                raise Breach(f": not an array of {limit.least} to {limit.greatest} items")
            return tuple([one(element) for element in value])  # twice as fast as from a generator

        return convert

    if limit.greatest > MAX_ITEMS:
        raise TypeError(f"{where}: no array has more than {MAX_ITEMS} items")
    return Form(through(item.pack), through(item.unpack), (tuple,), 1 + item.depth)


def _dict(key: Form, value: Form, limit: Length, where: str) -> Form:
    def through(one_key: Callable[[Any], Any], one_value: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def convert(plain: Any) -> Any:
            if type(plain) is not dict or not limit.least <= len(plain) <= limit.greatest:
                raise Breach(f": not a map of {limit.least} to {limit.greatest} keys")
            return {one_key(k): one_value(v) for k, v in plain.items()}

        return convert

    if limit.greatest > MAX_PAIRS or key.depth:
        raise TypeError(f"{where}: no map has more than {MAX_PAIRS} keys, nor keys that are no scalars")
    return Form(through(key.pack, value.pack), through(key.unpack, value.unpack), (dict,), 1 + value.depth)


def _union(forms: list[Form], where: str) -> Form:
    by_kind: dict[type, Form] = {}
    for form in forms:
        for kind in form.kinds:
            if by_kind.setdefault(kind, form) is not form:
                raise TypeError(f"{where}: two of its types look the same in msgpack")
    of_others = by_kind.get(tuple)  # records are arrays there, and classes of their own here

    def unpack(plain: Any) -> Any:
        form = by_kind.get(type(plain))
        if form is None:
            raise Breach(f": {told(plain)} has no place here")
        return form.unpack(plain)

    def pack(value: Any) -> Any:
        form = by_kind.get(type(value), of_others)
        if form is None:
            raise Breach(f": {told(value)} has no place here")
        return form.pack(value)

    return Form(pack, unpack, tuple(by_kind), max(form.depth for form in forms))


def told(value: Any) -> str:
    """A value in the text of an error: numbers as they are, of anything else only what it is."""
    text = ascii(value) if isinstance(value, int | float | types.NoneType) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:40] + "…"
