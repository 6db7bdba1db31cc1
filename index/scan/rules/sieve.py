"""Sieve: whether any of many patterns may match a name, told in a fraction of a microsecond.

Nearly all names match nothing. So patterns are sorted into classes that cost a look into a set (whole names, endings
after the last dot) and only names that begin or end with a byte that another pattern begins or ends with are held
against one expression of all those. A name that passes may still match nothing: who asks then tries the patterns one by
one; a name that does not pass matches none of them.
"""

import re
from collections.abc import Callable, Iterable
from itertools import product
from math import prod

from index.scan.rules.globs import literal_length, source_of

#: Endings that one pattern may stand for (`*.py[co]` for two).
_ENDINGS_MAX = 64

Passes = Callable[[bytes], object]

_SMALL_SET = re.compile(rb"\[([A-Za-z0-9]{1,16})\]")


class Sieve:
    """Patterns of names, sorted into classes; `passes(name)` is what it is for."""

    def __init__(self, patterns: Iterable[tuple[bytes, bool]]) -> None:
        """`patterns`: (pattern of one component, whether letters count in either case)."""
        self.names: set[bytes] = set()
        self.folded_names: set[bytes] = set()  # in small letters
        self.endings: set[bytes] = set()
        self.firsts: set[int] = set()
        self.lasts: set[int] = set()
        others: list[bytes] = []
        folded: list[bytes] = []
        is_open = False  # some pattern says neither how a name begins nor how it ends
        self.takes_all = False
        for pattern, fold in dict.fromkeys(patterns):
            if not pattern.strip(b"*") and pattern:
                self.takes_all = True
                continue
            if literal_length(pattern) == len(pattern):
                if not fold:
                    self.names.add(pattern)
                    continue
                self.folded_names.add(pattern.lower())
                self._gate(pattern, fold)
                continue
            if not fold:
                endings = _endings(pattern)
                if endings is not None:
                    self.endings.update(endings)
                    continue
            source = source_of(pattern, fold=fold)
            if source is None:
                continue
            (folded if fold else others).append(source)
            is_open = not self._gate(pattern, fold) or is_open
        if is_open:
            self.firsts.update(range(256))
        self.rest = _either(others, 0), _either(folded, re.IGNORECASE)
        self.passes: Passes = self._passes()

    def _gate(self, pattern: bytes, fold: bool) -> bool:
        """Note a byte that every match begins or ends with; False when there is none."""
        first, last = pattern[:1], pattern[-1:]
        if literal_length(first):
            self.firsts.update(first.lower() + first.upper() if fold else first)
            return True
        is_plain = literal_length(last) and last != b"]" and pattern[-2:-1] != b"\\"
        if is_plain:
            self.lasts.update(last.lower() + last.upper() if fold else last)
        return bool(is_plain)

    def _passes(self) -> Passes:
        if self.takes_all:
            return lambda _name: True
        names = frozenset(self.folded_names)
        each = [
            *([lambda name: name.lower() in names] if names else []),
            *(one for one in self.rest if one is not None),
        ]
        if len(each) > 1:
            return self._classes(lambda name: any(tried(name) for tried in each))
        return self._classes(each[0] if each else _none)

    def _classes(self, tried: Passes) -> Passes:
        names, endings, firsts, lasts = (frozenset(x) for x in (self.names, self.endings, self.firsts, self.lasts))

        def passes(name: bytes) -> object:
            return (
                name in names
                or name.rpartition(b".")[2] in endings
                or ((name[0] in firsts or name[-1] in lasts) and tried(name))
            )

        return passes


def _none(_name: bytes) -> object:
    return False


def _either(sources: list[bytes], flags: int) -> Passes | None:
    return re.compile(b"|".join(b"(?:%s)" % one for one in sources), re.DOTALL | flags).fullmatch if sources else None


def _endings(pattern: bytes) -> list[bytes] | None:
    """What names that match `*.ending` have after their last dot; None for a pattern of another form."""
    if pattern[:2] != b"*." or b"." in pattern[2:]:
        return None
    parts = _SMALL_SET.split(pattern[2:])  # literal, set, literal, …
    if any(literal_length(part) < len(part) or b"]" in part for part in parts):
        return None
    choices = [[part] if number % 2 == 0 else [bytes([one]) for one in part] for number, part in enumerate(parts)]
    if prod(map(len, choices)) > _ENDINGS_MAX:
        return None
    return [b"".join(choice) for choice in product(*choices)]
