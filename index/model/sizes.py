"""Sizes: what `size:` of a query means, a range of bytes that prints back as it would be written.

kB, MB, GB, TB count in thousands; KiB, MiB, GiB, TiB, and the bare letters K, M, G, T in steps of 1024. Case does not
matter.
"""

import re
from fractions import Fraction
from typing import Final

import attrs

_UNITS: Final = {"": 1, "b": 1} | {
    letter + rest: base**power
    for power, letter in enumerate("kmgtp", 1)
    for rest, base in (("b", 1000), ("ib", 1024), ("", 1024))
}
_SIZE_MAX: Final = (1 << 63) - 1

CURE: Final = "write >10MB, <=1.5GiB, 1kB..5MB or 0 (B, kB, MB, GB, TB; KiB, MiB, GiB, TiB)"


class BadSize(ValueError):
    """A text that is no size; the message says why."""


@attrs.frozen
class Sizes:
    """From so many bytes to so many, both included; None is an open end. At least one end is there."""

    low: int | None
    high: int | None

    def __str__(self) -> str:
        if self.low == self.high:
            return _written(self.low or 0)
        if self.high is None:
            assert self.low is not None
            over, least = _written(self.low - 1) if self.low else "0", _written(self.low)
            return f">{over}" if self.low and len(over) < len(least) else f">={least}"
        if self.low is None:
            under, most = _written(self.high + 1), _written(self.high)
            return f"<{under}" if self.high < _SIZE_MAX and len(under) < len(most) else f"<={most}"
        return f"{_written(self.low)}..{_written(self.high)}"


def parse_sizes(text: str) -> Sizes:
    """The sizes of a text. BadSize says what is wrong."""
    if found := re.match(r"[<>]=?", text):
        sign, amount = found[0], _amount(text[found.end() :])
        if sign == "<" and amount == 0:
            raise BadSize("nothing is smaller than 0")
        if sign == ">" and amount == _SIZE_MAX:
            raise BadSize("nothing is larger")
        if sign[0] == ">":
            return Sizes(amount if sign == ">=" else amount + 1, None)
        return Sizes(None, amount if sign == "<=" else amount - 1)
    begin, dots, end = text.partition("..")
    if not dots:
        return Sizes(_amount(text), _amount(text))
    if not (begin or end):
        raise BadSize(f"a range needs at least one end; {CURE}")
    low, high = _amount(begin) if begin else None, _amount(end) if end else None
    if low is not None and high is not None and low > high:
        raise BadSize(f"{begin} is more than {end}; the smaller one comes first")
    return Sizes(low, high)


def _amount(text: str) -> int:
    """Bytes of an amount with a unit."""
    found = re.fullmatch(r"(\d{1,30}(?:\.\d{1,30})?) ?([a-z]*)", text.lower(), re.ASCII)
    if found is None:
        raise BadSize(f"{text or 'nothing'} is no size; {CURE}")
    if found[2] not in _UNITS:
        raise BadSize(f"{text[found.start(2) :]} is no unit of size; {CURE}")
    amount = int(Fraction(found[1]) * _UNITS[found[2]])
    if amount > _SIZE_MAX:
        raise BadSize(f"{text} is more than a file can have; {CURE}")
    return amount


def _written(size_bytes: int) -> str:
    """The shortest of the exact ways to write a size."""
    ways = [str(size_bytes)]
    if size_bytes:
        for unit in ("kB", "MB", "GB", "TB", "KiB", "MiB", "GiB", "TiB"):
            whole, rest = divmod(size_bytes, _UNITS[unit.lower()])
            if not rest:
                ways.append(f"{whole}{unit}")
    return min(ways, key=len)
