"""A file of ignore patterns as git reads it: lines in, and for a path what the last line says that matches it.

Source: gitignore(5), and dir.c of git 2.39 for what the page leaves open. A list is of one directory, its base; paths
are given from there. Where the list comes from, and which of several lists counts, is the ruler's matter (ruler.py).

Lines without a special byte, which is what long lists are made of, are kept by what they name: such a list is asked
with two looks into a dictionary, and only the other lines become expressions.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from index.scan.rules.globs import literal_length, translate
from index.scan.rules.sieve import Passes

_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One pattern of a list."""

    text: bytes  # as git reads it, without what marks it
    matches: Passes | None  # None: what is `text`, and nothing else
    by_name: bool  # held against the last component alone, else against the path from the base
    dirs_only: bool
    negative: bool
    depth: int  # components of the paths it can match; 0 when that is not fixed
    inside: bytes  # every path that it can match begins so

    @property
    def last(self) -> bytes:
        """A pattern of one component that the last component of every match matches."""
        return self.text if self.by_name else _last_component(self.text)

    def may_match_in(self, above: bytes) -> bool:
        """Whether it can match a name in a directory (its path from the base with a slash, or nothing)."""
        if self.depth and above.count(b"/") + 1 != self.depth:
            return False
        return above.startswith(self.inside) or self.inside.startswith(above)


class Patterns:
    """The lines of one list. Frozen; equal texts may share one."""

    __slots__ = ("_exact", "_fold", "_others", "lines", "paths", "sieved")

    def __init__(self, lines: Sequence[Line], *, fold: bool = False) -> None:
        self.lines = tuple(reversed(lines))
        self._fold = fold
        #: Of files and of directories: a name, or a slash and a path -> the place of the last line that says it.
        self._exact: tuple[dict[bytes, int], dict[bytes, int]] = ({}, {})
        self._others: list[tuple[int, Passes, Line]] = []
        for place, line in enumerate(self.lines):
            if line.matches is not None:
                self._others.append((place, line.matches, line))
                continue
            key = self._seen(line.text if line.by_name else b"/" + line.text)
            for of_kind in self._exact[1:] if line.dirs_only else self._exact:
                of_kind.setdefault(key, place)
        #: What a sieve is to let through, and the lines whose last component says nothing.
        self.sieved = [(line.last, fold) for line in lines if line.last.strip(b"*")]
        self.paths = [line for line in lines if not line.last.strip(b"*")]

    def verdict(self, path: bytes, name: bytes, is_dir: bool) -> bool | None:
        """Whether the last line that matches says that a path is ignored; None: no line does."""
        exact, found = self._exact[is_dir], len(self.lines)
        if exact:
            found = min(exact.get(self._seen(name), found), exact.get(self._seen(b"/" + path), found))
        for place, matches, line in self._others:
            if place > found:
                break
            if (is_dir or not line.dirs_only) and matches(name if line.by_name else path):
                return not line.negative
        return None if found == len(self.lines) else not self.lines[found].negative

    def _seen(self, text: bytes) -> bytes:
        return text.lower() if self._fold else text


class _Unread(Patterns):
    """A list that is there and was not read: it might bring back what farther lists ignore, so those do not count."""

    __slots__ = ()

    def verdict(self, path: bytes, name: bytes, is_dir: bool) -> bool | None:
        return False


UNREAD = _Unread([])


@lru_cache(maxsize=8)
def parse(text: bytes, *, fold: bool = False) -> Patterns:
    """The patterns of a file. `fold`: letters of ASCII in either case (core.ignoreCase). Cached, since a file that
    changed just now is read again and again."""
    lines = (_line(raw, fold) for raw in text.removeprefix(_BOM).split(b"\n"))
    return Patterns([line for line in lines if line is not None], fold=fold)


def _line(raw: bytes, fold: bool) -> Line | None:
    """One line; None for a comment, and for what can match nothing."""
    if raw.startswith(b"#"):
        return None
    text = _without_trailing_spaces(raw.removesuffix(b"\r").partition(b"\0")[0])
    negative = text.startswith(b"!")
    text = text[1:] if negative else text
    dirs_only = text.endswith(b"/")
    text = text[:-1] if dirs_only else text
    by_name = b"/" not in text
    text = text.removeprefix(b"/")
    if not text:
        return None
    length = literal_length(text)
    literal = text[:length]
    matches: Passes | None = None
    if length < len(text):
        matches = _name_matcher(text, fold) if by_name else _path_matcher(text, length, fold)
        if matches is None:
            return None
    if by_name:
        return Line(text, matches, True, dirs_only, negative, 0, b"")
    depth = 0 if b"**" in text or b"[" in text else text.count(b"/") + 1
    inside = b"" if fold else literal.rpartition(b"/")[0] + b"/" if b"/" in literal else b""
    return Line(text, matches, False, dirs_only, negative, depth, inside)


def _name_matcher(text: bytes, fold: bool) -> Passes | None:
    """What says whether a pattern matches a name; None: it matches none."""
    if not fold and text[:1] == b"*" and literal_length(text[1:]) == len(text) - 1:
        ending = text[1:]
        return lambda name: name.endswith(ending)
    if not fold and text[-1:] == b"*" and literal_length(text) == len(text) - 1:
        beginning = text[:-1]
        return lambda name: name.startswith(beginning)
    expression = translate(text, fold=fold)
    return None if expression is None else expression.fullmatch


def _path_matcher(text: bytes, length: int, fold: bool) -> Passes | None:
    """The same for a path and a pattern whose first special byte stands at `length`. Git compares what comes before it
    by itself, and the rest as a pattern of its own: so stars that follow a letter cross directories when they begin
    that rest."""
    literal, rest = text[:length], translate(text[length:], fold=fold)
    if rest is None:
        return None
    fullmatch = rest.fullmatch
    if not literal:
        return fullmatch
    if not fold:
        return lambda path: path.startswith(literal) and fullmatch(path, length)
    folded = literal.lower()
    return lambda path: path[:length].lower() == folded and fullmatch(path, length)


def _last_component(text: bytes) -> bytes:
    """The last component of a pattern for paths, or one that everything matches where that is not plain to see."""
    last = text.rpartition(b"/")[2]
    if b"[" in text or last.endswith(b"\\") or b"**" in last:
        return b"*"
    return last


def _without_trailing_spaces(text: bytes) -> bytes:
    """Spaces at the end go, but for one behind a backslash and what stands before it."""
    if not text.endswith(b" "):
        return text
    cut = None
    position = 0
    while position < len(text):
        byte = text[position]
        if byte == 0x20:
            cut = position if cut is None else cut
        else:
            if byte == 0x5C:
                position += 1
                if position == len(text):
                    return text
            cut = None
        position += 1
    return text if cut is None else text[:cut]
