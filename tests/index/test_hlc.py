"""The laws of the hybrid logical clock, over any stamps and any wall clock."""

from hypothesis import given
from hypothesis import strategies as st

from index.model.hlc import ZERO, Hlc, merge, tick

COUNTER_MAX = (1 << 16) - 1
TIME_MS = st.integers(0, (1 << 46) - 1)
# The counter's end is where a law would break, so it is tried often.
COUNTER = st.integers(0, COUNTER_MAX) | st.integers(COUNTER_MAX - 2, COUNTER_MAX)
STAMP = st.builds(Hlc, TIME_MS, COUNTER)


@given(STAMP, TIME_MS)
def test_a_tick_is_later_than_the_last_stamp(last, now_ms):
    """Also when the wall clock was set back, and when the counter is full."""
    assert tick(last, now_ms) > last


@given(STAMP, TIME_MS)
def test_a_tick_is_not_behind_the_wall_clock(last, now_ms):
    """So a stamp is never much older than what a person's watch said."""
    assert tick(last, now_ms) >= Hlc(now_ms, 0)


@given(STAMP, TIME_MS)
def test_a_tick_is_the_least_stamp_that_will_do(last, now_ms):
    """Nothing lies between: the clock does not run away from the wall."""
    least = max(Hlc(now_ms, 0), Hlc.unpacked(last.packed() + 1))
    assert least == tick(last, now_ms)


@given(STAMP, STAMP, TIME_MS)
def test_a_merge_is_later_than_both(last, seen, now_ms):
    """What we do after a message comes after the message."""
    merged = merge(last, seen, now_ms)
    assert merged > last
    assert merged > seen
    assert merged >= Hlc(now_ms, 0)


@given(STAMP, STAMP, TIME_MS)
def test_it_does_not_matter_which_of_two_stamps_was_ours(last, seen, now_ms):
    """Two devices that tell each other at once reach the same time."""
    assert merge(last, seen, now_ms) == merge(seen, last, now_ms)


@given(STAMP, STAMP)
def test_packing_keeps_the_order_and_every_bit(a, b):
    """SQLite compares the integers, and they are stamps again afterwards."""
    assert (a < b) == (a.packed() < b.packed())
    assert (a == b) == (a.packed() == b.packed())
    assert a == Hlc.unpacked(a.packed())


@given(STAMP)
def test_a_packed_stamp_is_an_integer_of_sqlite(stamp):
    """63 bits: never negative there."""
    assert 0 <= stamp.packed() < 1 << 63


@given(st.lists(TIME_MS, max_size=30))
def test_any_wall_clock_gives_rising_stamps(walls):
    """However it jumps."""
    last, stamps = ZERO, []
    for now_ms in walls:
        last = tick(last, now_ms)
        stamps.append(last)
    assert stamps == sorted(set(stamps))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), TIME_MS), max_size=40))
def test_a_message_is_always_stamped_before_what_follows_it(steps):
    """Three devices whose wall clocks have nothing in common: cause comes before effect."""
    clocks = [ZERO, ZERO, ZERO]
    for sender, receiver, now_ms in steps:
        clocks[sender] = sent = tick(clocks[sender], now_ms)
        if receiver != sender:
            clocks[receiver] = merge(clocks[receiver], sent, 0)
            assert clocks[receiver] > sent
