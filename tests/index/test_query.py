"""The language of searches: what a text means, that it prints back to itself, and what a mistake is told."""

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model import filetype
from index.model.errors import Invalid
from index.model.filekinds import KINDS, extension_of, extensions_of, kind_of
from index.model.folding import fold, fold_text
from index.model.periods import Age, Day, Days, parse_period
from index.model.query import TYPES, Ext, In, Kind, Modified, Query, Size, Tag, Term, Text, Type, parse
from index.model.sizes import Sizes, parse_sizes

DAY_NS = 86_400 * 10**9


def meant(text: str) -> list[object]:
    """The conditions of a query, a negated one as a pair."""
    return [("not", t.condition) if t.negated else t.condition for t in parse(text).terms]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("beach 2019", [Text("beach"), Text("2019")]),
        ('"a b" -c -"d e"', [Text("a b"), ("not", Text("c")), ("not", Text("d e"))]),
        (r'"say \"a\\b\" \n"', [Text('say "a\\b" \\n')]),
        ('5"disk a\\b - --', [Text('5"disk'), Text("a\\b"), Text("-"), ("not", Text("-"))]),
        ('"a:b" ":x"', [Text("a:b"), Text(":x")]),
        ('tag:x -tag:y TAG:"a b"', [Tag("x"), ("not", Tag("y")), Tag("a b")]),
        ("kind:video,image,video", [Kind(("image", "video"))]),
        ("type:link -type:dir", [Type(("link",)), ("not", Type(("dir",)))]),
        ("ext:jpg,.PNG ext:tar.gz", [Ext(("PNG", "jpg")), Ext(("tar.gz",))]),
        ('in:/Photos/2019/ in:"My Docs"', [In(("Photos", "2019")), In(("My Docs",))]),
        ("a a  a", [Text("a")]),
        (" \t\n", []),
    ],
)
def test_a_text_means_its_terms(text, wanted):
    """Words, phrases, keys with values, each turned round by a dash; a term that is repeated counts once."""
    assert meant(text) == wanted


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        (">10MB", 10_000_001, None), (">=1kB", 1000, None), ("<1KiB", None, 1023), ("<=1.5k", None, 1536),
        ("1kB..5MB", 1000, 5_000_000), ("..2g", None, 2 << 30), ("7..", 7, None), ("0", 0, 0), ("12b", 12, 12),
    ],
)  # fmt: skip
def test_a_size_is_a_range_of_bytes(text, low, high):
    """Thousands for kB and its like, 1024 for KiB and bare letters, in either case."""
    assert parse_sizes(text) == parse_sizes(text.upper()) == Sizes(low, high)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("<7d", Age(True, 7, "d")), (">2w", Age(False, 2, "w")), ("today", Day(True)), ("yesterday", Day(False)),
        ("2019", Days(date(2019, 1, 1), date(2019, 12, 31))), ("2020-02", Days(date(2020, 2, 1), date(2020, 2, 29))),
        ("2019-07-05", Days(date(2019, 7, 5), date(2019, 7, 5))),
        ("2019-07..2019-09", Days(date(2019, 7, 1), date(2019, 9, 30))),
        ("2019..", Days(date(2019, 1, 1), None)), ("..2019-07", Days(None, date(2019, 7, 31))),
        (">2019", Days(date(2020, 1, 1), None)), ("<2019-03", Days(None, date(2019, 2, 28))),
    ],
)  # fmt: skip
def test_a_period_is_an_age_or_days(text, wanted):
    """Of the calendar, both ends included."""
    assert parse_period(text) == wanted


def test_bounds_in_time_are_half_open():
    """A day ends where the next begins; an age counts back from the moment of asking."""
    assert Age(True, 7, "d").bounds_ns(10 * DAY_NS) == (3 * DAY_NS, None)
    assert Age(False, 7, "d").bounds_ns(10 * DAY_NS) == (None, 3 * DAY_NS)
    first, end = parse_period("2019-07-05").bounds_ns(0)
    assert first is not None
    assert end is not None
    assert end - first == DAY_NS
    assert parse_period("2019-07-06").bounds_ns(0)[0] == end
    today, tomorrow = Day(True).bounds_ns(first + 5)
    assert (today, tomorrow) == (first, end)
    assert Day(False).bounds_ns(end + 5) == (first, end)
    assert parse_period("9999..").bounds_ns(0)[1] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a colour:red", r"^colour:red \(at character 3\): there is no key colour: \(there are tag:.*in quotes"),
        ("tag:", r"^tag: \(at character 1\): a value is missing.*tag:holiday"),
        ("tag:\udc80", r"a tag is UTF-8 text"),
        ('tag:""', r'^tag:"" \(at character 1\): a value is missing'),
        ('x ""', r"at character 3.*nothing is quoted"),
        ('x "abc', r'^"abc \(at character 3\): the quote has no end'),
        ('"abc"d', r'^"abc"d \(at character 1\): something follows the quote'),
        ("kind:photo", r"^kind:photo \(at character 1\): photo is no kind; there are archive, audio"),
        ("type:file,,dir", r"nothing is no type; there are dir, file, link"),
        ("size:>10XB", r"^size:>10XB \(at character 1\): XB is no unit of size; write >10MB"),
        ("size:big", r"big is no size"),
        ("size:..", r"at least one end"),
        ("size:5..3", r"5 is more than 3"),
        ("size:<0", r"nothing is smaller than 0"),
        ("size:9999999TB", r"more than a file can have"),
        ("modified:<7x", r"x is no unit of time; write <7d"),
        ("modified:2019-13", r"there is no 2019-13 in the calendar"),
        ("modified:2019-02-30", r"there is no 2019-02-30"),
        ("modified:0000", r"there is no 0000"),
        ("modified:2020..2019", r"2020 is after 2019"),
        ("modified:soon", r"soon is no date and no age"),
        ("ext:a,,b", r"an ending is empty"),
        ("ext:a/b", r"no name has such an ending"),
        ("in:a/../b", r"no '\.' and no '\.\.'"),
        ("in:/", r"the root holds everything"),
        (" ".join(f"w{n}" for n in range(65)), r"more than 64 terms, at character"),
        ("x" * 70_000, r"70000 characters, more than 65536"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(text, said):
    """In one line that names the term."""
    with pytest.raises(Invalid, match=said) as told:
        parse(text)
    assert "\n" not in str(told.value)


def test_a_name_may_hold_another_sign_for_a_slash():
    """In places and tags; a word has the sign itself."""
    asked = "in:a\u2215b tag:x\u2215y p\u2215q"
    assert parse(asked, slash="\u2215") == Query(tuple(map(Term, (In(("a", "b")), Tag("x/y"), Text("p\u2215q")))))


texts = st.text(min_size=1, max_size=8) | st.text('a:"\\- \t.,', min_size=1, max_size=6)
no_slash = texts.filter(lambda t: "/" not in t and "\0" not in t and t not in (".", ".."))
sizes = st.integers(0, (1 << 63) - 1) | st.sampled_from([0, 1000, 1024, 1_500_000, 10**9 + 1, (1 << 63) - 2])
size_ranges = st.tuples(st.none() | sizes, st.none() | sizes).filter(
    lambda r: r != (None, None) and (None in r or r[0] <= r[1])
)
days = st.tuples(st.none() | st.dates(), st.none() | st.dates()).filter(
    lambda r: r != (None, None) and (None in r or r[0] <= r[1])
)
ages = st.builds(Age, st.booleans(), st.integers(0, 1_000_000), st.sampled_from(["min", "h", "d", "w", "mo", "y"]))
extensions = no_slash.map(lambda t: t.replace(",", "").strip().lstrip(".")).filter(lambda t: t and t == t.strip())


def listed(values):
    return st.lists(values, min_size=1, max_size=3, unique=True).map(lambda v: tuple(sorted(v)))


conditions = st.one_of(
    st.builds(Text, texts),
    st.builds(Tag, texts),
    st.builds(Kind, listed(st.sampled_from(sorted(KINDS)))),
    st.builds(Type, listed(st.sampled_from(TYPES))),
    st.builds(Size, size_ranges.map(lambda r: Sizes(*r))),
    st.builds(Modified, ages | st.builds(Day, st.booleans()) | days.map(lambda r: Days(*r))),
    st.builds(Ext, listed(extensions)),
    st.builds(In, st.lists(no_slash, min_size=1, max_size=3).map(tuple)),
)


@given(st.lists(st.builds(Term, conditions, st.booleans()), max_size=6, unique=True))
def test_a_query_prints_back_to_itself(terms):
    """parse(str(q)) is q, for every value there is."""
    query = Query(tuple(terms))
    assert parse(str(query)) == query
    assert str(parse(str(query))) == str(query)


@given(st.text(max_size=30) | st.text('tagsizeinx:"\\- <>.0123MB', max_size=30))
def test_any_text_is_a_query_or_a_mistake(text):
    """Never another error; what is understood is stable."""
    try:
        query = parse(text)
    except Invalid as error:
        assert re.search(r"character", str(error))
        return
    assert parse(str(query)) == query


# -- folding -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ReadMe.TXT", "readme.txt"), ("École", "ecole"), ("E\u0301cole", "ecole"), ("Straße", "strasse"),
        ("İstanbul", "istanbul"), ("ΑΒΓ", "αβγ"), ("\u0439", "\u0439"), ("\u0438\u0306", "\u0439"), ("日本", "日本"),
    ],
)  # fmt: skip
def test_names_are_folded(name, wanted):
    """Case of all scripts, marks of Latin; letters of other scripts keep what tells them apart."""
    assert fold(name.encode()) == fold_text(name) == wanted


@given(st.binary(max_size=20) | st.text(max_size=12).map(lambda t: t.encode("utf-8", "replace")))
def test_folding_twice_changes_nothing_and_adds_no_slash(name):
    """So a query may be folded whoever folded it before, and the marks of the index stay its own."""
    folded = fold(name)
    assert fold_text(folded) == folded
    assert folded.count("/") == name.count(b"/")


def test_a_name_that_is_not_utf8_is_folded_where_it_is():
    """And the same bytes in a query, which come as surrogates."""
    assert fold(b"Caf\xe9 Menu") == "caf\ufffd menu" == fold_text("Caf\udce9 Menu")


# -- kinds -------------------------------------------------------------------------------------------------------------


def test_a_kind_is_told_by_the_ending():
    """Of a name with something before the dot."""
    assert [kind_of(n) for n in (b"a.JPG", b"b.tar.gz", b".jpg", b"c", b"d.", b"e.\xff")] == [
        "image", "archive", "unknown", "unknown", "unknown", "unknown",
    ]  # fmt: skip
    assert extension_of(b"x.y.Z") == b"z"


def test_every_ending_leads_to_its_kind():
    """What the index is asked for is what the name is held against: an ending that may stand for several types leads to
    the kinds of all."""
    for kind in KINDS:
        for extension in extensions_of(kind) or ():
            assert kind in {found.kind_name for found in filetype.candidates(f"x.{extension}".encode())}
    for extension in filetype.extensions():
        endings = extensions_of(kind_of(b"x." + extension))
        assert endings is None or extension.decode() in endings
    assert extensions_of("unknown") is None
