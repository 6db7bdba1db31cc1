"""Periods: what `modified:` of a query means, as values that print back, and as bounds in time.

An `Age` counts back from the moment of asking (`<7d`: newer than seven days). `Days` are days of the calendar, in local
time, both ends included. `bounds_ns` turns either into [from, to) in ns, None where an end is open.
"""

import calendar
import re
from datetime import date, datetime, timedelta
from typing import Final

import attrs

_DAY_NS: Final = 86_400 * 1_000_000_000
#: What an age is counted in, largest first; a month has 30 days here, a year 365.
UNITS_NS: Final = {
    "y": 365 * _DAY_NS, "mo": 30 * _DAY_NS, "w": 7 * _DAY_NS, "d": _DAY_NS, "h": _DAY_NS // 24, "min": _DAY_NS // 1440,
}  # fmt: skip
_AGE_MAX: Final = 1_000_000

CURE: Final = "write <7d, >2w (min, h, d, w, mo, y), today, yesterday, 2019, 2019-07, 2019-07-15 or 2019-07..2019-09"


class BadPeriod(ValueError):
    """A text that is no period; the message says why."""


@attrs.frozen
class Age:
    """Newer or older than so many units."""

    is_newer: bool
    count: int
    unit: str

    def __str__(self) -> str:
        return f"{'<' if self.is_newer else '>'}{self.count}{self.unit}"

    def bounds_ns(self, now_ns: int) -> tuple[int | None, int | None]:
        at_ns = now_ns - self.count * UNITS_NS[self.unit]
        return (at_ns, None) if self.is_newer else (None, at_ns)


@attrs.frozen
class Day:
    """Today, or the day before it."""

    is_today: bool

    def __str__(self) -> str:
        return "today" if self.is_today else "yesterday"

    def bounds_ns(self, now_ns: int) -> tuple[int | None, int | None]:
        day = datetime.fromtimestamp(now_ns / 1e9).date() - timedelta(days=0 if self.is_today else 1)
        return Days(day, day).bounds_ns(now_ns)


@attrs.frozen
class Days:
    """From a day to a day, both included; None is an open end."""

    first: date | None
    last: date | None

    def __str__(self) -> str:
        first, last = ("" if day is None else day.isoformat() for day in (self.first, self.last))
        return first if first == last else f"{first}..{last}"

    def bounds_ns(self, now_ns: int) -> tuple[int | None, int | None]:
        first = None if self.first is None else _midnight_ns(self.first)
        last = None if self.last is None or self.last == date.max else _midnight_ns(self.last + timedelta(days=1))
        return first, last


Period = Age | Day | Days


def _midnight_ns(day: date) -> int:
    """When a day begins, in local time; of a day that the system's calendar does not know, in UTC."""
    moment = datetime(day.year, day.month, day.day)
    try:
        return int(moment.timestamp()) * 1_000_000_000
    except (OverflowError, ValueError, OSError):
        return calendar.timegm(moment.timetuple()) * 1_000_000_000


def parse_period(text: str) -> Period:
    """The period of a text. BadPeriod says what is wrong."""
    if text in ("today", "yesterday"):
        return Day(text == "today")
    if found := re.fullmatch(r"([<>])(\d+)([a-z]+)", text, re.ASCII):
        sign, count, unit = found[1], int(found[2][:10]), found[3]
        if unit not in UNITS_NS:
            raise BadPeriod(f"{unit} is no unit of time; {CURE}")
        if count > _AGE_MAX:
            raise BadPeriod(f"{found[2]} is too much; {CURE}")
        return Age(sign == "<", count, unit)
    if text[:1] in ("<", ">"):
        first, last = _days(text[1:])
        if text[0] == "<":
            if first == date.min:
                raise BadPeriod(f"nothing is before {text[1:]}")
            return Days(None, first - timedelta(days=1))
        if last == date.max:
            raise BadPeriod(f"nothing is after {text[1:]}")
        return Days(last + timedelta(days=1), None)
    begin, dots, end = text.partition("..")
    if not dots:
        return Days(*_days(text))
    if not (begin or end):
        raise BadPeriod(f"a range needs at least one end; {CURE}")
    from_day = _days(begin)[0] if begin else None
    to_day = _days(end)[1] if end else None
    if from_day is not None and to_day is not None and from_day > to_day:
        raise BadPeriod(f"{begin} is after {end}; the earlier one comes first")
    return Days(from_day, to_day)


def _days(text: str) -> tuple[date, date]:
    """The first and the last day of a year, a month or a day."""
    found = re.fullmatch(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", text, re.ASCII)
    if found is None:
        raise BadPeriod(f"{text or 'nothing'} is no date and no age; {CURE}")
    year, month, day = (None if part is None else int(part) for part in found.groups())
    assert year is not None
    try:
        if month is None:
            return date(year, 1, 1), date(year, 12, 31)
        if day is None:
            return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])
        return date(year, month, day), date(year, month, day)
    except ValueError:  # calendar's own error is one, too
        raise BadPeriod(f"there is no {text} in the calendar; {CURE}") from None
