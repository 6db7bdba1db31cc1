"""The language of searches: text to a frozen value and back.

A query is terms, parted by white space; all of them must hold. A term is a word or a "quoted phrase", which the name
contains, or `key:value`; a `-` before it turns it round. In quotes a backslash stands before a quote or a backslash
that is meant; elsewhere both are themselves. `parse` raises Invalid with one line that names the term, where it stands
and the cure; `str(query)` is its canonical text, and parses to the same value.

Pure: what a term means for a row is in index/store/matching.py.
"""

import re
from collections.abc import Callable
from typing import Final

import attrs

from index.model.errors import Invalid
from index.model.filekinds import KINDS
from index.model.periods import BadPeriod, Period, parse_period
from index.model.sizes import BadSize, Sizes, parse_sizes

#: The terms of a query, and the characters of its text.
TERMS_MAX: Final = 64
TEXT_MAX: Final = 1 << 16

TYPES: Final = ("file", "dir", "link")


@attrs.frozen
class Text:
    """The name contains it, however it is written."""

    text: str

    def __str__(self) -> str:
        return _quoted(self.text, plain=_is_plain_word(self.text))


@attrs.frozen
class Tag:
    """The entry carries the tag."""

    name: str

    def __str__(self) -> str:
        return f"tag:{_value(self.name)}"


@attrs.frozen
class Kind:
    """The file is of one of these kinds (index/model/filekinds.py)."""

    kinds: tuple[str, ...]

    def __str__(self) -> str:
        return f"kind:{','.join(self.kinds)}"


@attrs.frozen
class Type:
    """It is a file, a directory or a symbolic link."""

    types: tuple[str, ...]

    def __str__(self) -> str:
        return f"type:{','.join(self.types)}"


@attrs.frozen
class Size:
    """The file has so many bytes."""

    sizes: Sizes

    def __str__(self) -> str:
        return f"size:{self.sizes}"


@attrs.frozen
class Modified:
    """It was changed in this period."""

    period: Period

    def __str__(self) -> str:
        return f"modified:{self.period}"


@attrs.frozen
class Ext:
    """The name ends in one of these, behind a dot; folded."""

    extensions: tuple[str, ...]

    def __str__(self) -> str:
        return f"ext:{_value(','.join(self.extensions))}"


@attrs.frozen
class In:
    """It lies below a directory of the union, by the names from the root."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return f"in:{_value('/'.join(self.names))}"


Condition = Text | Tag | Kind | Type | Size | Modified | Ext | In


@attrs.frozen
class Term:
    condition: Condition
    negated: bool = False

    def __str__(self) -> str:
        return f"-{self.condition}" if self.negated else str(self.condition)


@attrs.frozen
class Query:
    """All terms must hold. None of them occurs twice."""

    terms: tuple[Term, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.terms))


def parse(text: str, *, slash: str = "/") -> Query:
    """The query of a text. Invalid names the term that is wrong, its position (from 1) and the cure.

    `slash`: what stands for `/` in the values of `in:` and `tag:` where a text cannot hold one.
    """
    if len(text) > TEXT_MAX:
        raise Invalid(f"the query has {len(text)} characters, more than {TEXT_MAX}; make it shorter")
    terms: dict[Term, None] = {}
    at = 0
    while (at := _skip_space(text, at)) < len(text):
        term, end = _term(text, at, slash)
        terms[term] = None
        if len(terms) > TERMS_MAX:
            raise Invalid(f"more than {TERMS_MAX} terms, at character {at + 1}; leave some out")
        at = end
    return Query(tuple(terms))


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at


def _term(text: str, start: int, slash: str) -> tuple[Term, int]:
    """The term that begins at a position, and where it ends."""
    at = start
    negated = text[at] == "-" and at + 1 < len(text) and not text[at + 1].isspace()
    if negated:
        at += 1
    if text[at] == '"':
        phrase, end = _phrase(text, at)
        if not phrase:
            raise _invalid(text, start, end, "nothing is quoted; write some text between the quotes")
        return Term(Text(phrase), negated), end
    key = re.compile(r"(\w+):").match(text, at)
    if key is None:
        end = _word_end(text, at)
        return Term(Text(text[at:end]), negated), end
    at = key.end()
    is_quoted = at < len(text) and text[at] == '"'
    value, end = _phrase(text, at) if is_quoted else (text[at : _word_end(text, at)], _word_end(text, at))
    make = _KEYS.get(key[1].lower())
    if make is None:
        known = ", ".join(f"{name}:" for name in _KEYS)
        cure = f"there is no key {key[1]}: (there are {known}); a text with a colon is searched in quotes"
        raise _invalid(text, start, end, cure)
    if not value:
        raise _invalid(text, start, end, f"a value is missing behind the colon; {_HINTS[key[1].lower()]}")
    try:
        return Term(make(value.replace(slash, "/") if key[1].lower() in ("in", "tag") else value), negated), end
    except ValueError as error:
        raise _invalid(text, start, end, str(error)) from None


def _invalid(text: str, start: int, end: int, cure: str) -> Invalid:
    word = text[start:end]
    return Invalid(f"{word if len(word) <= 60 else word[:57] + '...'} (at character {start + 1}): {cure}")


def _word_end(text: str, at: int) -> int:
    while at < len(text) and not text[at].isspace():
        at += 1
    return at


def _phrase(text: str, start: int) -> tuple[str, int]:
    """What stands in quotes from a position on, and where it ends. What follows must be white space or the end."""
    found: list[str] = []
    at = start + 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\"):
            at += 1
        found.append(text[at])
        at += 1
    if at == len(text):
        raise _invalid(text, start, at, 'the quote has no end; write another " behind the text')
    if at + 1 < len(text) and not text[at + 1].isspace():
        raise _invalid(text, start, _word_end(text, at), "something follows the quote; put a space between")
    return "".join(found), at + 1


# -- values ------------------------------------------------------------------------------------------------------------


def _listed(value: str, known: "frozenset[str] | tuple[str, ...]", what: str) -> tuple[str, ...]:
    """The parts of a list, each of them known, in one order and once."""
    parts = [part.strip().lower() for part in value.split(",")]
    for part in parts:
        if part not in known:
            raise ValueError(f"{part or 'nothing'} is no {what}; there are {', '.join(sorted(known))}")
    return tuple(sorted(set(parts)))


def _extensions(value: str) -> tuple[str, ...]:
    parts = [part.strip().removeprefix(".") for part in value.split(",")]
    if not all(parts):
        raise ValueError(f"an ending is empty; {_HINTS['ext']}")
    if any("/" in part or "\0" in part for part in parts):
        raise ValueError("no name has such an ending")
    return tuple(sorted(set(parts)))


def _directory(value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.split("/") if name)
    if not names:
        raise ValueError(f"the root holds everything; leave it out, or {_HINTS['in']}")
    if any(name in (".", "..") or "\0" in name for name in names):
        raise ValueError(f"a path in the library has no '.' and no '..'; {_HINTS['in']}")
    return names


def _sizes(value: str) -> Size:
    try:
        return Size(parse_sizes(value))
    except BadSize as error:
        raise ValueError(str(error)) from None


def _period(value: str) -> Modified:
    try:
        return Modified(parse_period(value))
    except BadPeriod as error:
        raise ValueError(str(error)) from None


def _tag(value: str) -> Tag:
    try:
        value.encode()
    except UnicodeEncodeError:  # a byte of a name that is no text, as a path of the views may have
        raise ValueError("a tag is UTF-8 text") from None
    return Tag(value)


_KEYS: Final[dict[str, Callable[[str], Condition]]] = {
    "tag": _tag,
    "kind": lambda value: Kind(_listed(value, KINDS, "kind")),
    "type": lambda value: Type(_listed(value, TYPES, "type")),
    "size": _sizes,
    "modified": _period,
    "ext": lambda value: Ext(_extensions(value)),
    "in": lambda value: In(_directory(value)),
}
#: By key: how a value is written, for a message.
_HINTS: Final = {
    "tag": 'write tag:holiday or tag:"two words"',
    "kind": "write kind:image or kind:image,video",
    "type": "write type:file, type:dir or type:link",
    "size": "write size:>10MB",
    "modified": "write modified:<7d or modified:2019",
    "ext": "write ext:jpg,png",
    "in": 'write in:Photos/2019 or in:"My Docs"',
}


# -- printing ----------------------------------------------------------------------------------------------------------


def _is_plain_word(text: str) -> bool:
    """Whether a text is read back as itself without quotes."""
    if not text or any(char.isspace() for char in text) or text[0] == '"':
        return False
    return (text == "-" or text[0] != "-") and re.match(r"\w+:", text) is None


def _value(text: str) -> str:
    return _quoted(text, plain=not any(char.isspace() for char in text) and text[0] != '"')


def _quoted(text: str, *, plain: bool) -> str:
    return text if plain else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
