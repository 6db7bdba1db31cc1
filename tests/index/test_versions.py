"""The laws of version vectors: join is a least upper bound, dominance an order, a change always moves forward."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model.versions import bump, covers, dominates, join, pack, unpack

# Few branches and small counts, so that vectors meet, cover and contradict each other often.
BRANCH = st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16])
VECTOR = st.dictionaries(BRANCH, st.integers(1, 3))


@given(VECTOR, VECTOR, VECTOR)
def test_join_is_commutative_associative_and_idempotent(a, b, c):
    """In whatever order devices hear of each other, they end with one vector."""
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a


@given(VECTOR, VECTOR, VECTOR)
def test_join_is_the_least_that_covers_both(a, b, other):
    """It covers both, and everything that covers both covers it."""
    joined = join(a, b)
    assert covers(joined, a)
    assert covers(joined, b)
    if covers(other, a) and covers(other, b):
        assert covers(other, joined)


@given(VECTOR, VECTOR, VECTOR)
def test_covering_is_a_partial_order(a, b, c):
    """Reflexive, transitive, and mutual only between equals."""
    assert covers(a, a)
    if covers(a, b) and covers(b, c):
        assert covers(a, c)
    assert (covers(a, b) and covers(b, a)) == (a == b)


@given(VECTOR, VECTOR)
def test_of_two_vectors_one_thing_is_true(a, b):
    """Equal, one dominates, or neither: a conflict."""
    conflict = not covers(a, b) and not covers(b, a)
    assert [a == b, dominates(a, b), dominates(b, a), conflict].count(True) == 1


@given(VECTOR, BRANCH)
def test_a_change_dominates_what_it_came_from(vector, branch):
    """On its own branch only, by its stamp, or by one where that is no later."""
    for stamp in (0, 100):
        changed = bump(vector, branch, stamp)
        assert dominates(changed, vector)
        assert changed == {**vector, branch: max(vector.get(branch, 0) + 1, stamp)}


@given(VECTOR, BRANCH, BRANCH, st.integers(0, 5))
def test_changes_apart_conflict_and_a_change_after_both_ends_it(vector, first, second, stamp):
    """Two branches change one version: neither dominates; who has seen both and changes again dominates both."""
    one, other = bump(vector, first, stamp), bump(vector, second, stamp)
    if first != second:
        assert not covers(one, other)
        assert not covers(other, one)
    settled = bump(join(one, other), first, stamp)
    assert dominates(settled, one)
    assert dominates(settled, other)


@given(VECTOR, VECTOR, BRANCH)
def test_nothing_is_changed_in_place(a, b, branch):
    """Vectors are values: what a row holds does not move under it."""
    before = dict(a), dict(b)
    join(a, b)
    bump(a, branch, 0)
    assert before == (a, b)


@given(VECTOR, st.randoms())
def test_equal_vectors_are_equal_bytes(vector, random):
    """In whatever order their branches were met; and the bytes are the vector again."""
    order = list(vector)
    random.shuffle(order)
    assert pack(vector) == pack({key: vector[key] for key in order})
    assert vector == unpack(pack(vector))


@given(VECTOR, VECTOR)
def test_different_vectors_are_different_bytes(a, b):
    """So bytes can be compared in their place."""
    assert (a == b) == (pack(a) == pack(b))


@pytest.mark.parametrize("raw", [None, pack({})])
def test_no_vector_is_the_empty_one(raw):
    """A replica that never changed."""
    assert unpack(raw) == {}
