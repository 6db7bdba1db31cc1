"""Hybrid logical clock: physical time that never runs backwards and orders causally related events.

A stamp is (time in milliseconds, counter), compared as a tuple; ties between devices are broken by the device's id,
which the rows carry beside it. Packed it is one integer of 63 bits, 47 of time and 16 of counter, so that SQLite
compares stamps as integers.

Laws: tick(last, now) > last, and >= now; merge(last, seen, now) > both. No clock is read here: `now_ms` is given.
Source: Kulkarni et al., "Logical Physical Clocks" (2014).
"""

from typing import NamedTuple

_COUNTER_BITS = 16
_COUNTER_MAX = (1 << _COUNTER_BITS) - 1


class Hlc(NamedTuple):
    """One stamp; `packed()` keeps the order."""

    time_ms: int
    counter: int

    def packed(self) -> int:
        return self.time_ms << _COUNTER_BITS | self.counter

    @classmethod
    def unpacked(cls, value: int) -> "Hlc":
        return cls(value >> _COUNTER_BITS, value & _COUNTER_MAX)


ZERO = Hlc(0, 0)


def tick(last: Hlc, now_ms: int) -> Hlc:
    """The next stamp of this device: later than `last`, and not behind the wall clock."""
    if now_ms > last.time_ms:
        return Hlc(now_ms, 0)
    if last.counter < _COUNTER_MAX:
        return Hlc(last.time_ms, last.counter + 1)
    return Hlc(last.time_ms + 1, 0)


def merge(last: Hlc, seen: Hlc, now_ms: int) -> Hlc:
    """The next stamp after a message stamped `seen` arrived: later than both."""
    return tick(max(last, seen), now_ms)
