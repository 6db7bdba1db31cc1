"""Patterns: what they match, that none takes for ever, and that the sieve lets through whatever one of them matches."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.scan.rules import globs
from index.scan.rules.sieve import Sieve

NAME = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 0x2F} & set(name))
PATTERN = st.lists(st.sampled_from(b"a b . o * ? [ab] [!a] [a-c] \\* \\ [ ] *. ~".split()), min_size=1, max_size=6).map(
    b"".join
)


def matches(pattern: bytes, path: bytes, *, fold: bool = False) -> bool:
    found = globs.translate(pattern, fold=fold)
    return found is not None and found.fullmatch(path) is not None


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (b"*.o", [b"a.o", b".o", b"\xff.o"], [b"a.o/b", b"a.oo"]),
        (b"a?c", [b"abc", b"a\nc"], [b"a/c", b"ac"]),
        (b"**/x", [b"x", b"a/x", b"a/b/x"], [b"ax", b"a/ax"]),
        (b"a/**", [b"a/b", b"a/b/c"], [b"a", b"ab/c"]),
        (b"a/**/b", [b"a/b", b"a/x/b", b"a/x/y/b"], [b"ab", b"a/xb"]),
        (b"a**b", [b"ab", b"axb"], [b"a/b"]),
        (b"[]a]", [b"]", b"a"], [b"b"]),
        (b"[!]a]", [b"b"], [b"]", b"a", b"/"]),
        (b"[a-c-e]", [b"b", b"-", b"e"], [b"d"]),
        (b"[[:digit:]x]", [b"7", b"x"], [b"a"]),
        (b"[\\]]", [b"]"], [b"\\"]),
        (b"\\*", [b"*"], [b"x"]),
        (b"[", [], [b"["]),
        (b"a\\", [], [b"a", b"a\\"]),
        (b"[[:nonsense:]]", [], [b"n"]),
        (b"[z-a]", [b"z"], [b"a", b"m", b"-"]),
    ],
)
def test_what_a_pattern_matches(pattern, yes, no):
    """Stars stay within a name, two of them cross, sets are those of fnmatch; a pattern that is no good is no error."""
    assert [path for path in yes if not matches(pattern, path)] == []
    assert [path for path in no if matches(pattern, path)] == []


def test_letters_count_in_either_case_where_that_is_asked_for():
    """Of ASCII only."""
    assert matches(b"*.JPG", b"a.jpg", fold=True)
    assert matches(b"[a-c]", b"B", fold=True)
    assert not matches(b"\xc3\x89", b"\xc3\xa9", fold=True)
    assert not matches(b"*.JPG", b"a.jpg")


def test_no_pattern_takes_for_ever():
    """Many stars and a long name that nearly matches: the work is that of one star, not of all of them."""
    name = b"a" * 255
    pattern = b"*a" * 60 + b"b"
    deep = b"/".join([b"a"] * 120)
    began_s = time.monotonic()
    with pytest.raises(AssertionError):
        assert matches(pattern, name)
    assert not matches(b"**/a/" * 20 + b"b", deep)
    assert not matches(b"**/*a*a*a*a*a*a*b/" * 4 + b"c", deep)
    assert matches(b"*a" * 60, name)
    assert matches(b"**/a/" * 20 + b"a", deep)
    assert time.monotonic() - began_s < 60  # it would be years


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (b"a", [b"a"]),
        (b"{a,b}c", [b"ac", b"bc"]),
        (b"/{a,{b,c}d}", [b"/a", b"/bd", b"/cd"]),
        (b"{a,b}{1,2}", [b"a1", b"a2", b"b1", b"b2"]),
        (b"{a", [b"{a"]),
        (b"a}", [b"a}"]),
        (b"\\{a,b}", [b"\\{a,b}"]),
        (b"[{]a,b}", [b"[{]a,b}"]),
        (b"{,x}y", [b"y", b"xy"]),
    ],
)
def test_braces_stand_for_alternatives(pattern, wanted):
    """Also in each other; a brace that is not closed, is escaped or in a set is one of the bytes."""
    assert globs.alternatives(pattern) == wanted


def test_alternatives_are_bounded():
    """Twenty pairs would be a million patterns."""
    assert len(globs.alternatives(b"{a,b}" * 20)) < 3000


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(PATTERN, st.booleans()), min_size=1, max_size=8), st.lists(NAME, min_size=1, max_size=30))
def test_a_sieve_lets_through_what_any_of_its_patterns_matches(patterns, names):
    """It may let through more, never less."""
    passes = Sieve(patterns).passes
    for name in [*names, *(pattern.replace(b"*", b"x") for pattern, _ in patterns)]:
        if name and any(matches(pattern, name, fold=fold) for pattern, fold in patterns):
            assert passes(name), name


def test_a_sieve_holds_back_nearly_all_names():
    """The patterns of an everyday list let through what they match and hardly anything else."""
    lines = [b"*.pyc", b"*.py[cod]", b"*~", b".DS_Store", b"node_modules", b"*.egg-info", b"cmake-build-*", b"*.so.*"]
    passes = Sieve((line, False) for line in lines).passes
    chance = random.Random(1)
    names = [bytes(chance.choices(b"abcdefgh._-", k=10)) + b".txt" for _ in range(1000)]
    assert [name for name in names if passes(name)] == []
    for name in (b"x.pyc", b"x.pyo", b"x~", b".DS_Store", b"node_modules", b"a.egg-info", b"cmake-build-x", b"a.so.1"):
        assert passes(name), name
