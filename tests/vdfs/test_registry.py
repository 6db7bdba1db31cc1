"""The operations registry: schemas from annotations, JSON in and out, errors that name the field."""

import inspect
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, Literal, NewType

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import NotFound
from vdfs.ops import registry
from vdfs.ops.registry import Nothing, Registry, action, doc, query
from vdfs.ops.table import MODULES, load
from vdfs.wire.jsonrpc import InvalidParams, MethodNotFound, encode

ROOT = Path(__file__).resolve().parents[2]
Rank = NewType("Rank", int)


@attrs.frozen
class Leaf:
    """A record within records."""

    path: bytes
    size_bytes: int = attrs.field(default=0, metadata=doc("its size"))
    children: "list[Leaf]" = attrs.field(factory=list)


@attrs.frozen
class Everything:
    """Every type that has a JSON form."""

    flag: bool
    number: int
    ratio: float
    text: str
    path: bytes
    maybe: int | None
    maybe_path: bytes | None
    rank: Rank
    mode: Literal["here", "there"]
    words: list[str]
    pair: tuple[int, ...]
    paths: list[bytes]
    counts: dict[str, int]
    leaf: Leaf
    leaves: list[Leaf | None]


@attrs.frozen
class Options:
    """All optional."""

    limit: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    path: bytes | None = None


@attrs.frozen
class Tags:
    """Text."""

    tags: list[str]


@query("test.echo")
async def echo(core: Any, asked: Everything) -> Everything:
    """Give back what came."""
    await trio.lowlevel.checkpoint()
    return asked


@action("test.options")
def options(core: Any, asked: Options) -> Options:
    """Sync, and defaults are filled in."""
    return asked


@query("test.core")
async def show_core(core: "NoSuchName", asked: Nothing) -> "Options":  # type: ignore[name-defined]  # noqa: F821
    """The annotation of `core` may be for the type checker only; others may be text."""
    return Options(limit=core["limit"])


@action("test.missing")
async def missing(core: Any, asked: Options) -> Nothing:
    """Errors of the operation pass through."""
    raise NotFound("there is no such thing")


@query("test.liar")
async def liar(core: Any, asked: Nothing) -> Options:
    """Declares one thing and returns another."""
    return Nothing()  # type: ignore[return-value]


@query("test.wrong_field")
async def wrong_field(core: Any, asked: Nothing) -> Leaf:
    """The record is right, a field of it is not."""
    return Leaf(b"a", children=[Leaf(b"b", size_bytes="big")])  # type: ignore[arg-type]


REGISTRY = Registry([echo, options, show_core, missing, liar, wrong_field])


def ask(method: str, params: Any = None, core: Any = None) -> Any:
    return trio.run(REGISTRY.dispatch, core, method, params)


WHOLE: dict[str, Any] = {
    "flag": True,
    "number": -(2**63),
    "ratio": 1,
    "text": "é",
    "path": "/a",
    "maybe": None,
    "maybe_path": None,
    "rank": 3,
    "mode": "here",
    "words": ["a", ""],
    "pair": [1, 2],
    "paths": ["x", {"name": "\ufffd", "name_b64": "/w=="}],
    "counts": {"a": 1},
    "leaf": {"path": "\ufffd", "path_b64": "/w=="},
    "leaves": [None, {"path": "y", "size_bytes": 5, "children": [{"path": "z"}]}],
}


# -- Conversion


def test_every_type_goes_in_and_out() -> None:
    """What comes back is what went in, with the defaults of nested records filled in."""
    result = ask("query:test.echo", WHOLE)
    leaf = {"path": "\ufffd", "path_b64": "/w==", "size_bytes": 0, "children": []}
    inner = {"path": "z", "size_bytes": 0, "children": []}
    leaves = [None, {"path": "y", "size_bytes": 5, "children": [inner]}]
    assert result == {**WHOLE, "ratio": 1.0, "leaf": leaf, "leaves": leaves}
    assert encode(result)


def test_handlers_get_python_values() -> None:
    """Names are bytes, numbers floats, arrays lists or tuples, objects records."""
    seen: list[Everything] = []

    @query("test.see")
    def see(core: Any, asked: Everything) -> Nothing:
        """Note what came."""
        seen.append(asked)
        return Nothing()

    assert trio.run(Registry([see]).dispatch, None, "query:test.see", WHOLE) == {}
    assert seen == [
        Everything(
            *(
                True,
                -(2**63),
                1.0,
                "é",
                b"/a",
                None,
                None,
                Rank(3),
                "here",
                ["a", ""],
                (1, 2),
                [b"x", b"\xff"],
            ),
            *({"a": 1}, Leaf(b"\xff"), [None, Leaf(b"y", 5, [Leaf(b"z")])]),
        )
    ]
    assert type(seen[0].ratio) is float
    assert type(seen[0].pair) is tuple


names = st.binary(max_size=10).filter(lambda raw: b"\0" not in raw)
leaves = st.recursive(
    st.builds(Leaf, path=names, size_bytes=st.integers(-(2**63), 2**63 - 1)),
    lambda inner: st.builds(Leaf, path=names, children=st.lists(inner, max_size=3)),
    max_leaves=5,
)
everything = st.builds(
    Everything,
    flag=st.booleans(),
    number=st.integers(-(2**63), 2**63 - 1),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    text=st.text(max_size=5),
    path=names,
    maybe=st.none() | st.integers(0, 5),
    maybe_path=st.none() | names,
    rank=st.integers(0, 5).map(Rank),
    mode=st.sampled_from(["here", "there"]),
    words=st.lists(st.text(max_size=3), max_size=3),
    pair=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    paths=st.lists(names, max_size=3),
    counts=st.dictionaries(st.text(max_size=3), st.integers(0, 5), max_size=3),
    leaf=leaves,
    leaves=st.lists(st.none() | leaves, max_size=2),
)


@given(everything)
def test_any_record_survives_json(record: Everything) -> None:
    """Encoded, written as text, read again and decoded it is equal."""
    codec = registry._record_codec(Everything)
    assert codec.decode(json.loads(encode(codec.encode(record)))) == record


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"flag": 1}, "params.flag: expected boolean, got int 1"),
        ({"number": True}, "params.number: expected integer, got a boolean"),
        ({"number": 1.0}, "params.number: expected integer, got float 1.0"),
        ({"number": 2**63}, "params.number: is beyond 64 bits"),
        ({"ratio": "1"}, "params.ratio: expected number, got str '1'"),
        ({"ratio": math.inf}, "params.ratio: expected number, got float inf"),
        ({"ratio": 10**400}, "params.ratio: expected number, got int 1000"),
        ({"text": None}, "params.text: expected string, got null"),
        ({"path": 5}, "params.path: a name is text, or an object"),
        ({"path": "a\0"}, "params.path: has a NUL byte"),
        ({"path": "x", "path_b64": "*"}, "params.path: has a twin that is not base64"),
        ({"maybe": "x"}, "params.maybe: expected integer, got str 'x'"),
        ({"rank": "x"}, "params.rank: expected integer"),
        ({"mode": "where"}, 'params.mode: expected "here" or "there", got str \'where\''),
        ({"words": "ab"}, "params.words: expected array, got str 'ab'"),
        ({"words": ["a", 2]}, "params.words[1]: expected string, got int 2"),
        ({"pair": [1, 2, None]}, "params.pair[2]: expected integer, got null"),
        ({"paths": ["a", {"name": 1}]}, "params.paths[1]: a name is text"),
        ({"counts": []}, "params.counts: expected object, got an array"),
        ({"counts": {"a": "b"}}, "params.counts.a: expected integer"),
        ({"leaf": None}, "params.leaf: expected object, got null"),
        ({"leaf": {}}, "params.leaf.path: is missing (name)"),
        (
            {"leaf": {"path": "a", "sise": 1}},
            "params.leaf: unknown field 'sise'; known are: path, size_bytes",
        ),
        ({"leaf": {"path": "a", "children": [{"path": "b"}, 7]}}, "params.leaf.children[1]: expected object"),
        ({"leaves": [{"path": "a", "children": [{}]}]}, "params.leaves[0].children[0].path: is missing"),
        ({"extra": 1}, "params: unknown field 'extra'"),
        ({"number_b64": "AA=="}, "params: unknown field 'number_b64'"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], text: str) -> None:
    """InvalidParams with the way to the field, what was wanted and what was there."""
    with pytest.raises(InvalidParams) as raised:
        ask("query:test.echo", {**WHOLE, **change})
    assert text in str(raised.value)
    assert str(raised.value).startswith("query:test.echo: ")
    assert "\n" not in str(raised.value)


def test_a_long_value_is_not_repeated_in_full() -> None:
    """One line stays one line."""
    with pytest.raises(InvalidParams) as raised:
        ask("query:test.echo", {**WHOLE, "mode": "x" * 10_000, "number": 1})
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_missing_field_is_named(name: str) -> None:
    """A field without default must be there, also one that may be null."""
    with pytest.raises(InvalidParams, match=rf"params\.{name}: is missing"):
        ask("query:test.echo", {key: value for key, value in WHOLE.items() if key != name})


def test_a_twin_without_its_text_is_refused() -> None:
    """The readable half is not optional: logs and people read it."""
    with pytest.raises(InvalidParams, match=r"params: unknown field 'path_b64'"):
        ask("action:test.options", {"path_b64": "AA=="})


def test_a_validator_of_the_record_speaks() -> None:
    """Ranges are the record's own business."""
    with pytest.raises(InvalidParams, match="limit"):
        ask("action:test.options", {"limit": 0})


@pytest.mark.parametrize("params", [[], [1], "x", 5])
def test_params_by_position_are_refused(params: Any) -> None:
    """Names survive a new field, positions do not."""
    with pytest.raises(InvalidParams, match="params: expected object"):
        ask("action:test.options", params)


def test_absent_params_are_an_empty_object() -> None:
    """Every default applies."""
    assert ask("action:test.options") == ask("action:test.options", {}) == {"limit": 10, "path": None}


def test_text_that_quotes_an_undecodable_name_is_escaped() -> None:
    """A message of the operation's must not make its whole result unspeakable."""

    @query("test.message")
    def message(core: Any, asked: Nothing) -> Tags:
        """Speak of a name."""
        return Tags([os.fsdecode(b"a\xff"), "b"])

    result = trio.run(Registry([message]).dispatch, None, "query:test.message", {})
    assert result == {"tags": ["a\\udcff", "b"]}
    assert encode(result)


# -- Operations


def test_handlers_get_the_core() -> None:
    """Whatever dispatch is given; its annotation is not looked at."""
    assert ask("query:test.core", {}, {"limit": 5}) == {"limit": 5, "path": None}


def test_errors_of_an_operation_pass_through() -> None:
    """The registry changes nothing about them."""
    with pytest.raises(NotFound, match="no such thing"):
        ask("action:test.missing")


@pytest.mark.parametrize("method", ["query:test.liar", "query:test.wrong_field"])
def test_an_undeclared_result_is_our_bug(method: str) -> None:
    """TypeError, which no client sees as its own mistake."""
    with pytest.raises(TypeError, match="does not declare"):
        ask(method)


def test_the_place_of_a_wrong_result_is_named() -> None:
    """As for params."""
    with pytest.raises(TypeError, match=r"result\.children\[0\]\.size_bytes: expected integer, got str 'big'"):
        ask("query:test.wrong_field")


@pytest.mark.parametrize(
    ("method", "hint"),
    [
        ("query:test.ecko", "query:test.echo"),
        ("action:test.echo", "query:test.echo"),
        ("x", "query:core.methods"),
    ],
)
def test_an_unknown_method_is_refused_with_a_hint(method: str, hint: str) -> None:
    """The closest name, or where to find them all."""
    with pytest.raises(MethodNotFound, match=hint):
        ask(method)


def test_a_decorated_handler_stays_a_plain_function() -> None:
    """The mount calls the function that the socket calls."""
    assert inspect.iscoroutinefunction(echo)
    assert options(None, Options(3)) == Options(3)


def test_modules_give_their_own_operations_only() -> None:
    """What a module imported from another is not defined twice; the order is that of definition."""
    first, second = types.ModuleType("first"), types.ModuleType("second")

    @query("first.b")
    def b(core: Any, asked: Nothing) -> Nothing:
        """B."""
        return asked

    @query("first.a")
    def a(core: Any, asked: Nothing) -> Nothing:
        """A."""
        return asked

    a.__module__ = b.__module__ = "first"
    vars(first).update(b=b, a=a, helper=len)
    vars(second).update(borrowed=a)
    methods = [operation.method for operation in Registry.of([first, second])]
    assert methods == ["query:first.b", "query:first.a", "query:core.methods"]


def test_a_name_is_noun_dot_verb() -> None:
    """A typing mistake shows when the module is imported."""
    for name in ("tag", "tag.", "Tag.list", "tag.list.all", "query:tag.list", "tag list"):
        with pytest.raises(ValueError, match=r"noun\.verb"):
            query(name)


@attrs.frozen
class HasSet:
    """A set has no order."""

    tags: set[str]


@attrs.frozen
class HasUnion:
    """Which one was meant?"""

    value: int | str


@attrs.frozen
class HasBareList:
    """Of what?"""

    value: list  # type: ignore[type-arg]


@attrs.frozen
class HasAnything:
    """No schema."""

    value: Any


@attrs.frozen
class HasIntKeys:
    """JSON keys are strings."""

    value: dict[int, str]


@attrs.frozen
class HasTwin:
    """The twin is ours."""

    path: bytes
    path_b64: str


@attrs.frozen
class HasPrivate:
    """attrs would call it `secret`."""

    _secret: int


@pytest.mark.parametrize(
    "record",
    [HasSet, HasUnion, HasBareList, HasAnything, HasIntKeys, HasTwin, HasPrivate, int, dict[str, int]],
)
def test_a_schema_without_json_form_is_refused_when_built(record: Any) -> None:
    """TypeError names the method (twice in a row: a failed record is not kept half made)."""

    def handler(core: Any, asked: Any) -> Any:
        """Documented."""

    handler.__annotations__.update(asked=record, **{"return": Nothing})
    for _ in range(2):
        with pytest.raises(TypeError, match=r"query:bad\.schema"):
            Registry([query("bad.schema")(handler)])
    handler.__annotations__.update(asked=Nothing, **{"return": record})
    with pytest.raises(TypeError, match=r"query:bad\.schema"):
        Registry([query("bad.schema")(handler)])


def test_a_handler_without_doc_or_with_other_parameters_is_refused() -> None:
    """The docstring is the documentation; (core, input) is the form."""

    @query("bad.doc")
    def undocumented(core: Any, asked: Nothing) -> Nothing:
        return asked

    @query("bad.form")
    def formless(asked: Nothing) -> Nothing:
        """No core."""
        return asked

    @query("bad.types")
    def untyped(core, asked):  # type: ignore[no-untyped-def]
        """No types."""

    for handler in (undocumented, formless, untyped):
        with pytest.raises(TypeError, match=r"query:bad\."):
            Registry([handler])


def test_a_method_is_defined_once() -> None:
    """Also `core.methods`, which is the registry's own."""
    with pytest.raises(ValueError, match="twice"):
        Registry([echo, echo])


# -- Description


def test_the_registry_describes_itself() -> None:
    """Every method with its fields, every record beneath them, recursive ones once."""
    described = ask("query:core.methods")
    methods = {method["method"]: method for method in described["methods"]}
    assert list(methods) == sorted(operation.method for operation in REGISTRY)
    fields = {field["name"]: field for field in methods["query:test.echo"]["input"]}
    assert fields["leaves"]["type"] == "array of Leaf or null"
    assert fields["mode"]["type"] == '"here" or "there"'
    assert fields["path"]["type"] == "name"
    assert fields["maybe_path"] == {"name": "maybe_path", "type": "name or null", "required": True, "doc": ""}
    assert [field["required"] for field in methods["action:test.options"]["input"]] == [False, False]
    records = {record["name"]: record for record in described["types"]}
    assert list(records) == ["FieldDoc", "Leaf", "MethodDoc", "TypeDoc"]
    assert records["Leaf"]["fields"][1]["doc"] == "its size"


def test_two_records_of_one_name_are_refused_in_the_description() -> None:
    """They would share a heading."""

    def record(annotation: Any) -> Any:
        return attrs.make_class("Twin", {"value": attrs.field(type=annotation)}, frozen=True)

    @query("test.twins")
    def twins(core: Any, asked: Nothing) -> Nothing:
        """Two records of one name beneath."""
        return asked

    outer = attrs.make_class(
        "Outer", {"a": attrs.field(type=record(int)), "b": attrs.field(type=record(str))}, frozen=True
    )
    twins.__annotations__["return"] = outer
    with pytest.raises(TypeError, match="Twin"):
        Registry([twins]).describe()


def test_the_protocol_document_is_up_to_date() -> None:
    """Its generated part is what the registry prints now; the cure is in the assertion's text."""
    path = ROOT / "docs" / "protocol" / "rpc-v1.md"
    text = path.read_text("utf-8")
    cure = "run: python -m vdfs.ops.table --doc docs/protocol/rpc-v1.md"
    assert registry.replace_generated(text, registry.render_doc(load())) == text, cure


def test_the_table_of_modules_is_complete() -> None:
    """Every file in vdfs/ops that defines an operation is named in MODULES."""
    files = sorted((ROOT / "vdfs" / "ops").glob("*.py"))
    marked = {
        f"vdfs.ops.{file.stem}"
        for file in files
        if file.stem != "registry"
        and any(line.startswith(("@query(", "@action(")) for line in file.read_text("utf-8").splitlines())
    }
    assert marked == set(MODULES)


def test_the_command_prints_the_document_and_replaces_it_in_place(tmp_path: Path) -> None:
    """`--doc` to stdout, `--doc FILE` between the marker lines of a file, anything else is usage."""

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [sys.executable, "-m", "vdfs.ops.table", *arguments],
            capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=environment,
        )  # fmt: skip

    printed = command("--doc")
    assert (printed.returncode, printed.stdout) == (0, registry.render_doc(load()))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{registry.BEGIN}\nold\n{registry.END}\nafter\n")
    assert command("--doc", str(page)).returncode == 0
    assert page.read_text() == f"before\n{printed.stdout}after\n"
    page.write_text("no markers")
    assert command("--doc", str(page)).returncode == 2
    assert command().returncode == 2


@attrs.frozen
class Plain:
    """A record of plain fields."""

    path: bytes
    word: str
    count: int
    is_good: bool


@attrs.frozen
class Plains:
    """Many of them."""

    items: list[Plain]


@query("test.plains")
def plains(core: Any, asked: Nothing) -> Plains:
    """What the core is."""
    return Plains(core)


PLAIN = st.builds(
    Plain, st.binary(max_size=4).filter(lambda b: b"\0" not in b), st.text(max_size=4), st.integers(), st.booleans()
)


@given(st.lists(PLAIN, max_size=5))
def test_many_records_are_encoded_as_one_by_one(items):
    """Names that are not UTF-8 have their twins, text is text, whatever stands beside them in the list."""
    known = Registry([plains])
    told = trio.run(known.dispatch, items, "query:test.plains", None)["items"]
    one_by_one = [trio.run(known.dispatch, [item], "query:test.plains", None)["items"][0] for item in items]
    assert [list(one.items()) for one in told] == [list(one.items()) for one in one_by_one]
    for item, one in zip(items, told, strict=True):
        assert one["word"].encode(errors="replace") == item.word.encode(errors="replace")
        assert ("path_b64" in one) is (item.path.decode(errors="replace").encode() != item.path)


@pytest.mark.parametrize("wrong", [Plain(b"a", "b", "3", True), Plain("a", "b", 3, True), Plain(b"a", "b", 3, 1), 7])
def test_a_record_of_many_that_is_wrong_is_named(wrong):
    """By its place, however the others are encoded."""
    with pytest.raises(TypeError, match=r"result\.items\[1\]"):
        trio.run(Registry([plains]).dispatch, [Plain(b"a", "b", 3, True), wrong], "query:test.plains", None)
