"""Hearing: whether an addition of a tag that is not here was heard of before, so that it was removed since.

What a cursor covers was heard, but for numbers that its device gave to nothing (gaps.py).
"""

from index.store import gaps, streams
from index.store.unit import Unit


def is_heard(unit: Unit, device: bytes, seq: int, by: bytes, by_seq: int) -> bool:
    """Whether an addition that is not here was heard of before, so that it can come no more. `by`: who says in which
    unit of his that it is gone; what he added himself in that epoch was said before. What this device added itself in
    an epoch before, and lost, is news to it; so is to all what has a number that was given to nothing."""
    if gaps.holds(unit.db, device, seq):
        return False
    if device == unit.device and streams.is_same_epoch(unit.db, device, seq, unit.said_seq):
        return True
    if device == by and streams.is_same_epoch(unit.db, device, seq, by_seq):
        return True
    return streams.covers(unit.db, device, seq)
