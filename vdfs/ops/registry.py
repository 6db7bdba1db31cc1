"""The operations registry: typed functions in, named methods out.

    @attrs.frozen
    class TagList:
        path: bytes | None = attrs.field(default=None, metadata=doc("a file; without it, all tags"))

    @query("tag.list")
    async def list_tags(core: Core, asked: TagList) -> Tags:
        '''The tags of the library, or of one file.'''

A decorator only marks the function, which stays a plain one for callers in the house;
`Registry.of(modules)` collects what is marked, checks it, and knows it as `query:tag.list`. Every door
(socket, offline `sd`, later ones) goes through `Registry.dispatch(core, method, params)`: JSON object in,
JSON object out, errors of the one tree.

Queries change nothing. Handlers may be sync (then they run on the loop and must be quick) or async. Input
and output are `attrs` records; their annotations are the schema:

    bool int float str      as in JSON; int within 64 bits, float finite, no silent conversions
    bytes                   the name or path of a file: text, with a `<field>_b64` twin if it is not UTF-8
    list[T] tuple[T, ...]   an array
    dict[str, T]            an object
    T | None                null as well
    Literal["a", "b"]       one of these strings
    another record          an object

Unknown fields are refused: a misspelt option must not be a silent default. A type outside the table is a
TypeError when the registry is built, not when somebody calls. `query:core.methods` describes all of this to
clients, and `python -m vdfs.ops.table --doc` prints the tables of docs/protocol/rpc-v1.md.
"""

import difflib
import errno
import inspect
import math
import operator
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple, TypeVar

import attrs

from index.model import errors
from vdfs.wire import jsonrpc
from vdfs.wire.jsonrpc import (
    InvalidParams,
    MethodNotFound,
    decode_item,
    decode_name,
    encode_item,
    encode_name,
)

Handler = TypeVar("Handler", bound=Callable[..., Any])

NAME: Final = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
MARK: Final = "__operation__"
INT_LIMIT: Final = 1 << 63


def doc(text: str) -> dict[str, str]:
    """`metadata` for an attrs field: what it means, in a few words, for the generated tables."""
    return {"doc": text}


def query(name: str) -> Callable[[Handler], Handler]:
    """Mark a handler as the query `query:<name>`: it changes nothing."""
    return _marker(f"query:{name}", name)


def action(name: str) -> Callable[[Handler], Handler]:
    """Mark a handler as the action `action:<name>`."""
    return _marker(f"action:{name}", name)


def _marker(method: str, name: str) -> Callable[[Handler], Handler]:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no operation name; use noun.verb")

    def mark(handler: Handler) -> Handler:
        setattr(handler, MARK, method)
        return handler

    return mark


@attrs.frozen
class Nothing:
    """The input of an operation that takes no params, or the output of one that has nothing to say."""


@attrs.frozen
class FieldDoc:
    """A field of a record, as clients see it."""

    name: str
    type: str
    required: bool = attrs.field(metadata=doc("of params: whether it must be there"))
    doc: str


@attrs.frozen
class MethodDoc:
    """A method with the fields that it takes and gives."""

    method: str
    doc: str
    input: list[FieldDoc]
    output: list[FieldDoc]


@attrs.frozen
class TypeDoc:
    """A record that appears inside the fields of others."""

    name: str
    doc: str
    fields: list[FieldDoc]


@attrs.frozen
class MethodsDoc:
    """All methods and the records they speak of."""

    methods: list[MethodDoc] = attrs.field(metadata=doc("by name"))
    types: list[TypeDoc] = attrs.field(metadata=doc("the records that fields speak of"))


class Operation(NamedTuple):
    """A method with its handler and the two ends of its conversion."""

    method: str
    doc: str
    handler: Callable[[Any, Any], Any]
    input: "Codec"
    output: "Codec"


class Registry:
    """The table of methods. Immutable once built."""

    def __init__(self, handlers: Iterable[Callable[..., Any]] = ()) -> None:
        """Take marked handlers. TypeError or ValueError names the one that is not well formed."""
        self._operations: dict[str, Operation] = {}
        for handler in (*handlers, self._describing_handler()):
            operation = _operation_of(handler)
            if operation.method in self._operations:
                raise ValueError(f"{operation.method} is defined twice")
            self._operations[operation.method] = operation

    @classmethod
    def of(cls, modules: Iterable[types.ModuleType]) -> "Registry":
        """All operations that are defined in `modules`, in the order of their definition."""
        return cls(
            value
            for module in modules
            for value in vars(module).values()
            if hasattr(value, MARK) and getattr(value, "__module__", None) == module.__name__
        )

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._operations.values())

    async def dispatch(self, core: Any, method: str, params: Any) -> dict[str, Any]:
        """Run one method: params as they came from JSON, the result ready for JSON.

        MethodNotFound, InvalidParams (naming the field), or what the handler raises.
        """
        operation = self._operations.get(method)
        if operation is None:
            raise MethodNotFound(f"there is no method {method!r:.100}; {self._hint(method)}")
        try:
            given = operation.input.decode({} if params is None else params)
        except Mismatch as mismatch:
            raise InvalidParams(f"{method}: {mismatch.at('params')}") from None
        outcome = operation.handler(core, given)
        if inspect.isawaitable(outcome):
            outcome = await outcome
        try:
            result = operation.output.encode(outcome)
        except Mismatch as mismatch:
            raise TypeError(f"{method} returned what it does not declare: {mismatch.at('result')}") from None
        assert isinstance(result, dict)
        return result

    def describe(self) -> MethodsDoc:
        """Every method and record, in the order of their names."""
        operations = sorted(self._operations.values(), key=lambda operation: operation.method)
        records = _records_beneath(operations)
        return MethodsDoc(
            [MethodDoc(o.method, o.doc, _field_docs(o.input), _field_docs(o.output)) for o in operations],
            [TypeDoc(name, codec.doc, _field_docs(codec)) for name, codec in sorted(records.items())],
        )

    def _hint(self, method: str) -> str:
        """What was meant, perhaps: the other kind of the same name, or a close one."""
        same_name = [known for known in self._operations if known.split(":")[1] == method.rsplit(":", maxsplit=1)[-1]]
        close = same_name or difflib.get_close_matches(method[:100], self._operations, n=1)
        return f"did you mean {close[0]}?" if close else "query:core.methods lists them"

    def _describing_handler(self) -> Callable[..., Any]:
        @query("core.methods")
        def methods(core: object, asked: Nothing) -> MethodsDoc:
            """Describe every method: what it does, the fields it takes and gives."""
            return self.describe()

        return methods


def _operation_of(handler: Callable[..., Any]) -> Operation:
    method: str = getattr(handler, MARK)
    parameters = list(inspect.signature(handler).parameters)
    if len(parameters) != 2:
        raise TypeError(f"{method}: a handler takes (core, input), not {tuple(parameters)}")
    text = inspect.cleandoc(handler.__doc__ or "")
    if not text:
        raise TypeError(f"{method}: a handler has a docstring; it is the method's documentation")
    try:
        given, returned = (_record_codec(_annotation(handler, name)) for name in (parameters[1], "return"))
    except TypeError as error:
        raise TypeError(f"{method}: {error}") from None
    return Operation(method, text, handler, given, returned)


def _annotation(handler: Callable[..., Any], name: str) -> Any:
    """One annotation, resolved alone: that of `core` may be for the type checker only."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations

        annotation = get_annotations(handler, format=Format.FORWARDREF).get(name)
    else:
        annotation = handler.__annotations__.get(name)
    if isinstance(annotation, str):
        annotation = eval(annotation, getattr(handler, "__globals__", {}))
    return annotation


# -- Conversion: attrs records from and to JSON values


class Mismatch(Exception):
    """A value does not have the type that the schema wants; remembers where it stood."""

    def __init__(self, problem: str, *where: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where

    def inside(self, step: str) -> "Mismatch":
        return Mismatch(self.problem, step, *self.where)

    def at(self, root: str) -> str:
        return f"{root}{''.join(self.where)}: {self.problem}"


class Field(NamedTuple):
    """A field of a record: its JSON key, and how its value converts."""

    name: str
    codec: "Codec"
    required: bool
    is_name: bool  # bytes: has a twin field
    doc: str


class Codec:
    """How one type converts: `decode` from JSON, `encode` to JSON; both raise Mismatch."""

    def __init__(self, name: str, decode: Callable[[Any], Any], encode: Callable[[Any], Any]) -> None:
        self.name = name
        self.decode = decode
        self.encode = encode
        self.doc = ""
        self.is_record = False
        self.fields: list[Field] = []  # of a record
        self.columns: _Columns | None = None  # of a record, where it comes in lists
        self.parts: tuple[Codec, ...] = ()  # of a list, an object, an optional


def _codec(annotation: Any) -> Codec:
    """The codec of a type. TypeError when it is not in the table at the top."""
    while isinstance(annotation, typing.NewType):
        annotation = annotation.__supertype__
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if attrs.has(annotation):
        return _record_codec(annotation)
    codec = _generic_codec(typing.get_origin(annotation), typing.get_args(annotation))
    if codec is None:
        raise TypeError(f"{annotation!r} has no JSON form here; see vdfs/ops/registry.py for those that have")
    return codec


def _generic_codec(origin: Any, arguments: tuple[Any, ...]) -> "Codec | None":
    """The codec of `origin[arguments]`, None when there is none."""
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and types.NoneType in arguments:
        return _optional_codec(_codec(next(a for a in arguments if a is not types.NoneType)))
    if origin is list and len(arguments) == 1:
        return _list_codec(_codec(arguments[0]), list)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list_codec(_codec(arguments[0]), tuple)
    if origin is dict and arguments[0] is str:
        return _dict_codec(_codec(arguments[1]))
    if origin is Literal and all(isinstance(a, str) for a in arguments):
        return _literal_codec(arguments)
    return None


def _scalar(name: str, accepts: Callable[[Any], bool], convert: Callable[[Any], Any] = lambda v: v) -> Codec:
    def check(value: Any) -> Any:
        if not accepts(value):
            raise Mismatch(f"expected {name}, got {_shown(value)}")
        return convert(value)

    return Codec(name, check, check)


def _decode_integer(value: Any) -> int:
    if type(value) is not int:
        raise Mismatch(f"expected integer, got {_shown(value)}")
    if not -INT_LIMIT <= value < INT_LIMIT:
        raise Mismatch("is beyond 64 bits")
    return value


def _decode_file_name(value: Any) -> bytes:
    try:
        return decode_item(value)
    except ValueError as error:
        raise Mismatch(str(error)) from None


def _encode_file_name(value: Any) -> Any:
    if not isinstance(value, bytes):
        raise Mismatch(f"expected bytes, got {_shown(value)}")
    return encode_item(value)


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _encode_string(value: Any) -> str:
    """Text that quotes an undecodable name (a message) is escaped: it must not spoil the whole reply."""
    if not isinstance(value, str):
        raise Mismatch(f"expected str, got {_shown(value)}")
    return value.encode(errors="backslashreplace").decode()


_STRING = Codec("string", _scalar("string", lambda v: isinstance(v, str)).decode, _encode_string)
_INTEGER = Codec("integer", _decode_integer, _scalar("integer", lambda v: type(v) is int).encode)
_FILE_NAME = Codec("name", _decode_file_name, _encode_file_name)
_SCALARS: dict[Any, Codec] = {
    bool: _scalar("boolean", lambda v: type(v) is bool),
    int: _INTEGER,
    float: _scalar("number", _is_number, float),
    str: _STRING,
    bytes: _FILE_NAME,
}


def _optional_codec(inner: Codec) -> Codec:
    if inner is _FILE_NAME:
        return _OPTIONAL_FILE_NAME
    return _nullable(inner)


def _nullable(inner: Codec) -> Codec:
    codec = Codec(
        f"{inner.name} or null",
        lambda value: None if value is None else inner.decode(value),
        lambda value: None if value is None else inner.encode(value),
    )
    codec.parts = (inner,)
    return codec


_OPTIONAL_FILE_NAME = _nullable(_FILE_NAME)


def _list_codec(inner: Codec, kind: type[list[Any]] | type[tuple[Any, ...]]) -> Codec:
    def decode(value: Any) -> Any:
        if not isinstance(value, list):
            raise Mismatch(f"expected array, got {_shown(value)}")
        return kind(_each(inner.decode, value))

    def encode(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise Mismatch(f"expected a {kind.__name__}, got {_shown(value)}")
        quick = inner.columns.encode(value) if inner.columns is not None else None
        return _each(inner.encode, value) if quick is None else quick

    codec = Codec(f"array of {inner.name}", decode, encode)
    codec.parts = (inner,)
    return codec


def _each(convert: Callable[[Any], Any], values: Iterable[Any]) -> list[Any]:
    converted: list[Any] = []
    try:
        for value in values:
            converted.append(convert(value))  # noqa: PERF401 (its length says where it broke)
    except Mismatch as mismatch:
        raise mismatch.inside(f"[{len(converted)}]") from None
    return converted


def _dict_codec(inner: Codec) -> Codec:
    def through(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def check(value: Any) -> Any:
            if not isinstance(value, dict):
                raise Mismatch(f"expected object, got {_shown(value)}")
            return {key: _under(f".{key}", convert, item) for key, item in value.items()}

        return check

    codec = Codec(f"object of {inner.name}", through(inner.decode), through(inner.encode))
    codec.parts = (inner,)
    return codec


def _literal_codec(allowed: tuple[str, ...]) -> Codec:
    return _scalar(" or ".join(f'"{a}"' for a in allowed), lambda v: isinstance(v, str) and v in allowed)


_records: dict[type, Codec] = {}


def _record_codec(cls: Any) -> Codec:
    """The codec of an attrs class; one object a class, so that a record may contain itself."""
    if not (isinstance(cls, type) and attrs.has(cls)):
        raise TypeError(f"{cls!r} is no attrs record")
    if cls in _records:
        return _records[cls]
    codec = _records[cls] = Codec(
        cls.__name__,
        lambda value: _decode_record(cls, codec, value),
        lambda value: _encode_record(cls, codec, value),
    )
    try:
        codec.is_record = True
        codec.doc = inspect.cleandoc(cls.__doc__ or "")
        hints = typing.get_type_hints(cls)
        codec.fields += [_field_of(attribute, hints[attribute.name]) for attribute in attrs.fields(cls)]
        codec.columns = _Columns(cls, codec)
        names = [field.name for field in codec.fields]
        for field in codec.fields:
            if field.is_name and f"{field.name}_b64" in names:
                raise TypeError(f"{field.name}_b64 is the twin of {field.name} and cannot be a field")
    except TypeError as error:
        del _records[cls]
        raise TypeError(f"{cls.__name__}: {error}") from None
    return codec


def _field_of(attribute: "attrs.Attribute[Any]", annotation: Any) -> Field:
    if attribute.name != attribute.alias or not attribute.init:
        raise TypeError(f"{attribute.name}: fields of a record are public and set by its constructor")
    codec = _codec(annotation)
    is_name = codec is _FILE_NAME or codec is _OPTIONAL_FILE_NAME
    required = attribute.default is attrs.NOTHING
    return Field(attribute.name, codec, required, is_name, attribute.metadata.get("doc", ""))


def _decode_record(cls: type, codec: Codec, value: Any) -> Any:
    if not isinstance(value, dict):
        raise Mismatch(f"expected object, got {_shown(value)}")
    arguments, taken = {}, 0
    for field in codec.fields:
        name, twin = field.name, f"{field.name}_b64"
        if name not in value:
            if field.required:
                raise Mismatch(f"is missing ({field.codec.name})", f".{name}")
            continue
        taken += 1
        if field.is_name and twin in value:
            taken += 1
            arguments[name] = _under(f".{name}", _decode_twins, (value[name], value[twin]))
        else:
            arguments[name] = _under(f".{name}", field.codec.decode, value[name])
    if taken != len(value):
        raise _unknown_field(codec, value)
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as error:  # a validator of the record
        raise Mismatch(str(error)) from None


def _decode_twins(twins: tuple[Any, Any]) -> bytes:
    try:
        return decode_name({"name": twins[0], "name_b64": twins[1]})
    except ValueError as error:
        raise Mismatch(str(error)) from None


def _unknown_field(codec: Codec, value: dict[str, Any]) -> Mismatch:
    known = [field.name for field in codec.fields]
    known_too = {f"{field.name}_b64" for field in codec.fields if field.is_name and field.name in value}
    unknown = next(name for name in value if name not in known and name not in known_too)
    return Mismatch(f"unknown field {unknown!r:.60}; known are: {', '.join(known) or 'none'}")


class _Columns:
    """The short way for lists of records of plain fields, which may have thousands: a field of all at once."""

    _TYPES: Final[dict[str, type]] = {"boolean": bool, "integer": int, "string": str, "name": bytes}

    def __init__(self, cls: type, codec: Codec) -> None:
        self._cls = cls
        self._names = tuple(field.name for field in codec.fields)
        self._types = tuple(self._TYPES.get(field.codec.name, type(None)) for field in codec.fields)
        is_plain = len(self._names) > 1 and type(None) not in self._types
        self._values = operator.attrgetter(*self._names) if is_plain else None

    def encode(self, records: "list[Any] | tuple[Any, ...]") -> list[dict[str, Any]] | None:
        """The objects of some records; None where a value of theirs needs a closer look, or is wrong."""
        if self._values is None or set(map(type, records)) != {self._cls}:
            return None
        columns: list[Any] = list(zip(*map(self._values, records), strict=True))
        for place, wanted in enumerate(self._types):
            column = columns[place]
            if set(map(type, column)) != {wanted} or (wanted is str and not all(map(str.isascii, column))):
                return None
            if wanted is bytes:
                try:
                    columns[place] = list(map(bytes.decode, column))
                except UnicodeDecodeError:
                    return None
        names = self._names
        return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _encode_record(cls: type, codec: Codec, value: Any) -> dict[str, Any]:
    if not isinstance(value, cls):
        raise Mismatch(f"expected {cls.__name__}, got {_shown(value)}")
    result: dict[str, Any] = {}
    for field in codec.fields:
        item = getattr(value, field.name)
        if field.is_name and isinstance(item, bytes):
            result.update(encode_name(item, field.name))
        else:
            result[field.name] = _under(f".{field.name}", field.codec.encode, item)
    return result


def _under(step: str, convert: Callable[[Any], Any], value: Any) -> Any:
    try:
        return convert(value)
    except Mismatch as mismatch:
        raise mismatch.inside(step) from None


_JSON_NAMES = {dict: "an object", list: "an array", types.NoneType: "null", bool: "a boolean"}


def _shown(value: Any) -> str:
    """A value in an error text: short, and its kind rather than its contents when it is a container."""
    return _JSON_NAMES.get(type(value)) or f"{type(value).__name__} {value!r:.40}"


# -- The generated documentation

BEGIN: Final = "<!-- generated by `python -m vdfs.ops.table --doc`; do not edit -->"
END: Final = "<!-- end of the generated part -->"


def _field_docs(codec: Codec) -> list[FieldDoc]:
    return [FieldDoc(f.name, f.codec.name, f.required, f.doc) for f in codec.fields]


def _records_beneath(operations: Iterable[Operation]) -> dict[str, Codec]:
    """The records inside the fields of inputs and outputs, by name. TypeError when two have one name."""
    found: dict[str, Codec] = {}
    to_do = [field.codec for o in operations for field in (*o.input.fields, *o.output.fields)]
    while to_do:
        codec = to_do.pop()
        if codec.is_record:
            known = found.get(codec.name)
            if known is codec:
                continue
            if known is not None:
                raise TypeError(f"two records are called {codec.name}; rename one")
            found[codec.name] = codec
        to_do += [*codec.parts, *(field.codec for field in codec.fields)]
    return found


def render_doc(registry: Registry) -> str:
    """The methods, records and errors as Markdown, between the two marker lines."""
    described = registry.describe()
    lines = [BEGIN, "", "## Methods", ""]
    for method in described.methods:
        lines += [f"### {method.method}", "", method.doc, ""]
        lines += ["Params:", "", *_table(method.input, True), ""] if method.input else ["Params: none.", ""]
        lines += ["Result:", "", *_table(method.output, False), ""] if method.output else ["Result: `{}`.", ""]
    if described.types:
        lines += ["## Records", ""]
        for record in described.types:
            lines += [f"### {record.name}", "", record.doc, "", *_table(record.fields, False), ""]
    lines += ["## Errors", "", *_error_table(), ""]
    return "\n".join([*lines, END]) + "\n"


def _error_table() -> list[str]:
    rows = ["| code | kind | errno | meaning |", "|---|---|---|---|"]
    for module in (jsonrpc, errors):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, errors.VdfsError) and kind.__module__ == module.__name__:
                name = errno.errorcode.get(kind.errno, "")
                rows.append(f"| {kind.rpc_code} | {kind.__name__} | {name} | {inspect.cleandoc(kind.__doc__ or '')} |")
    return rows


def _table(fields: list[FieldDoc], with_required: bool) -> list[str]:
    rows = ["| field | type | meaning |", "|---|---|---|"]
    for field in fields:
        optional = " (optional)" if with_required and not field.required else ""
        rows.append(f"| `{field.name}` | {field.type}{optional} | {field.doc} |")
    return rows


def replace_generated(text: str, generated: str) -> str:
    """`text` with its marker lines and what lies between them replaced. ValueError when it has none."""
    start, end = text.find(BEGIN), text.find(END)
    if start < 0 or end < start:
        raise ValueError("the document has no generated part; put the two marker lines in")
    return text[:start] + generated + text[end + len(END) :].removeprefix("\n")
