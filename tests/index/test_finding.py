"""Searches, held against their plain definition: with an index of names, without one, and with one that lags behind."""

import itertools
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index.media.types import of_row
from index.model.entry import KIND_FILE
from index.model.filekinds import KINDS
from index.model.filetype import BY_TYPE, Method
from index.model.folding import fold, fold_text
from index.model.query import parse
from index.store import entries, finding
from tests.index.names_library import DIRECTORY, LINK, NOW_NS, NamesLibrary

DAY_NS = 86_400 * 10**9


@pytest.fixture(params=["indexed", "half indexed", "not indexed"])
def library(request, tmp_path, monkeypatch):
    """A library whose index knows all that a test adds, the first half of it, or nothing."""
    made = NamesLibrary(tmp_path)
    added = itertools.count()
    plain_add = made.add

    def add(*args, **kwargs):
        row = plain_add(*args, **kwargs)
        if request.param == "indexed" or (request.param == "half indexed" and next(added) < 3):
            made.catch_up()
        return row

    monkeypatch.setattr(made, "add", add)
    try:
        yield made
    finally:
        made.close()


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ['"\0"', '"f\0g"', '"a/b"', "/", "//", "/f", "g//"])
def test_what_can_be_in_no_name_finds_nothing(library, query):
    """Also what the index puts around a name."""
    for name in (b"f", b"fg", b"abc"):
        library.add(name)
    assert library.search(query) == []


def test_a_name_is_found_by_any_part_of_it(library):
    """At its beginning, in the middle, at its end, however short; not by what it lacks."""
    for name in (b"other", b"more", b"Beach 2019.jpg", b"zz"):
        library.add(name)
    for query in ("Beach", '"ach 2"', "jpg", "B", "g", ".", "pg", "Be", '"Beach 2019.jpg"', "19"):
        assert library.search(query) == [b"Beach 2019.jpg"], query
    assert library.search("z") == [b"zz"]
    for query in ("sea", "q", "xq", "gpj"):
        assert library.search(query) == [], query


def test_every_word_must_be_in_the_name_in_any_order(library):
    """And none of those with a dash before them."""
    for name in (b"tax report 2019.pdf", b"tax 2020.pdf", b"x", b"y", b"report"):
        library.add(name)
    assert library.search(" 2019 \t tax ") == [b"tax report 2019.pdf"]
    assert sorted(library.search("tax pdf")) == [b"tax 2020.pdf", b"tax report 2019.pdf"]
    assert library.search("tax -report") == [b"tax 2020.pdf"]
    assert sorted(library.search("-tax")) == [b"report", b"x", b"y"]
    assert library.search("-tax -t") == [b"y", b"x"]


def test_letters_are_found_in_either_case_and_without_their_marks(library):
    """In the name and in the query."""
    for name in ("ReadMe.TXT", "École.md", "ΑΒΓ", "straße"):
        library.add(name.encode())
    assert library.search("readme.txt") == library.search("README") == [b"ReadMe.TXT"]
    for query in ("ecole", "ÉCOLE", "E\u0301col", "αβγ", "STRASSE"):
        assert len(library.search(query)) == 1, query


@pytest.mark.parametrize("sign", ["%", "_", "\\", "'", '\\"', "*", "?", "[a]", "--", ";", "^", "{x}", "OR", "+"])
def test_a_sign_that_means_something_elsewhere_means_itself(library, sign):
    """Wildcards of LIKE and GLOB, quotes and comments of SQL, the words of FTS5."""
    plain = sign.replace("\\", "", 1) if sign == '\\"' else sign
    library.add(b"100" + plain.encode() + b"x")
    library.add(b"100ax")
    quoted = sign if sign == '\\"' else sign.replace("\\", "\\\\")
    assert library.search(f'"{quoted}"') == [b"100" + plain.encode() + b"x"]


def test_a_name_that_is_not_utf8_is_found_by_what_of_it_is(library):
    """Its bytes come back unharmed; a query that is not UTF-8 ends in no error."""
    library.add(b"caf\xe9 menu.txt")
    library.add(b"\xff\xfe")
    assert library.search("menu") == [b"caf\xe9 menu.txt"]
    assert library.search("\udcff\udcfe") == [b"\xff\xfe"]


def test_the_root_of_a_branch_has_no_name_to_be_found_by(library):
    """Directories are found like files, but for that one."""
    library.add(b"photos", mode=DIRECTORY)
    assert library.search("o") == library.search("type:dir") == [b"photos"]


def test_the_best_match_comes_first(library):
    """The whole name, its beginning, the beginning of a word, anything; of each the newest first."""
    for name, mtime_ns in (
        (b"old notes", 1), (b"notes a", 2), (b"my notes", 9), (b"notes", 1), (b"notes b", 5), (b"footnotes", 99),
    ):  # fmt: skip
        library.add(name, mtime_ns=mtime_ns)
    assert library.search("NOTES") == [b"notes", b"notes b", b"notes a", b"my notes", b"old notes", b"footnotes"]


# -- terms -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def varied(library):
    """Files of kinds, sizes and times, a directory, a link, tags."""
    music = library.add(b"Music", mode=DIRECTORY, mtime_ns=NOW_NS)
    deep = library.add(b"live", parent=music.id, mode=DIRECTORY, mtime_ns=NOW_NS)
    a = library.add(b"a.jpg", size_bytes=10, mtime_ns=NOW_NS - DAY_NS)
    b = library.add(b"b.PNG", size_bytes=2_000_000, mtime_ns=NOW_NS - 9 * DAY_NS)
    c = library.add(b"c.mp3", parent=music.id, size_bytes=5_000, mtime_ns=1_561_975_200 * 10**9)  # 2019-07-01
    library.add(b"d.mp3", parent=deep.id, size_bytes=0, mtime_ns=1_577_880_000 * 10**9)  # 2020-01-01
    library.add(b"e.jpg.link", mode=LINK, mtime_ns=NOW_NS)
    library.add(b"pictures.jpg", mode=DIRECTORY, mtime_ns=NOW_NS)
    library.tag(a, "holiday", "two words")
    library.tag(b, "holiday")
    library.tag(c, "work")
    return library


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("tag:holiday", {b"a.jpg", b"b.PNG"}), ('tag:"two words" tag:holiday', {b"a.jpg"}), ("tag:none", set()),
        ("-tag:holiday .", {b"c.mp3", b"d.mp3", b"e.jpg.link", b"pictures.jpg"}), ("tag:holiday png", {b"b.PNG"}),
        ("tag:holiday -tag:work -png", {b"a.jpg"}),
        ("kind:image", {b"a.jpg", b"b.PNG"}), ("kind:image,audio -b", {b"a.jpg", b"c.mp3", b"d.mp3"}),
        ("-kind:image type:file", {b"c.mp3", b"d.mp3"}),
        ("type:dir", {b"Music", b"live", b"pictures.jpg"}), ("type:link", {b"e.jpg.link"}),
        ("size:0", {b"d.mp3"}), ("size:>1MB", {b"b.PNG"}), ("size:1..5kB", {b"a.jpg", b"c.mp3"}),
        ("-size:<=5kB .", {b"b.PNG", b"e.jpg.link", b"pictures.jpg"}),
        ("modified:<7d type:file", {b"a.jpg"}), ("modified:>7d modified:<2w", {b"b.PNG"}),
        ("modified:2019", {b"c.mp3"}), ("modified:2019-07..2020-01", {b"c.mp3", b"d.mp3"}),
        ("modified:<2019", set()), ("-modified:2019.. type:file", set()),
        ("ext:jpg", {b"a.jpg"}), ("ext:JPG,png", {b"a.jpg", b"b.PNG"}), ("ext:link", {b"e.jpg.link"}),
        ("-ext:mp3 type:file", {b"a.jpg", b"b.PNG"}), ("ext:nope", set()),
        ("in:Music", {b"live", b"c.mp3", b"d.mp3"}), ("in:Music/live", {b"d.mp3"}), ("in:Music mp3 -d", {b"c.mp3"}),
        ("-in:Music type:file", {b"a.jpg", b"b.PNG"}), ("in:music", set()), ("-in:music mp3", {b"c.mp3", b"d.mp3"}),
        ("in:Music in:Music/live", {b"d.mp3"}), ("in:Music tag:work", {b"c.mp3"}), ("in:Music tag:holiday", set()),
        ("in:a.jpg", set()), ("tag:holiday kind:image size:>1kB modified:<30d ext:png b -a", {b"b.PNG"}),
    ],
)  # fmt: skip
def test_each_term_means_what_it_says(varied, query, wanted):
    """Alone, with others, turned round."""
    assert set(varied.search(query)) == wanted


def test_a_kind_is_that_of_the_bytes_where_they_are_known(library):
    """As `sd info` says it, whatever the name; also of what the index of names finds by no ending."""
    types = [BY_TYPE[name] for name in ("jpeg", "zip", "docx", "plain", "binary", "python", "mp3", "elf")]
    names = (b"a.jpg", b"b.docx", b"c.ts", b"d", b"e.mp3", b"f.py", b"Makefile", b"g.tar.gz")
    for name in names:
        library.add(name)
        for file_type in types:
            for method in Method:
                named = b"%s %d %b" % (file_type.name.encode(), method, name)
                library.find_type(library.add(named), file_type, method)
    rows = [row for row in entries.subtree(library.store.db, library.root.id) if row.kind == KIND_FILE]
    told = {row.name: of_row(library.store.db, row) for row in rows}
    kinds = {name: "unknown" if found is None else found.kind_name for name, found in told.items()}
    assert len(set(kinds.values())) > 6
    for kind in KINDS:
        wanted = sorted(name for name, found in kinds.items() if found == kind)
        assert sorted(library.search(f"kind:{kind}", 1000)) == wanted, kind
        assert sorted(library.search(f"kind:{kind} .", 1000)) == [name for name in wanted if b"." in name], kind
        assert sorted(library.search(f"-kind:{kind}", 1000)) == sorted(set(kinds) - set(wanted)), kind


def test_a_replica_that_is_of_another_kind_hides_no_hit(library):
    """The earlier one's bytes are not known, the later one's are: the later one is shown."""
    two, other = library.add_branch(b"2" * 16, None)
    first = library.add(b"paper")
    second = library.add(b"paper", parent=other.id, branch=two)
    with library.store.write("test") as unit:
        entries.set_node(unit.db, other.id, library.root.node, unit.seq)
        entries.set_node(unit.db, second.id, first.node, unit.seq)
    assert [hit.id for hit in library.page("paper").hits] == [first.id]
    library.find_type(second, BY_TYPE["pdf"], Method.MAGIC)
    assert [hit.id for hit in library.page("kind:document").hits] == [second.id]


def test_a_place_is_one_on_all_branches(library):
    """A location by its name, with all the branches that it has; an older replica of one name is no hit of its own."""
    one, root = library.add_branch(b"1" * 16, b"Photos")
    two, other = library.add_branch(b"2" * 16, b"Photos")
    with library.store.write("test") as unit:
        entries.set_node(unit.db, other.id, root.node, unit.seq)
    first = library.add(b"sea.jpg", parent=root.id, branch=one)
    second = library.add(b"sea.jpg", parent=other.id, branch=two)
    library.add(b"sea shell", parent=other.id, branch=two)
    library.add(b"sea of the store")
    assert sorted(library.search("in:Photos sea")) == [b"sea shell", b"sea.jpg", b"sea.jpg"]
    with library.store.write("test") as unit:
        entries.set_node(unit.db, second.id, first.node, unit.seq)
    assert sorted(library.search("in:Photos sea")) == [b"sea shell", b"sea.jpg"]
    assert library.page("in:Photos ext:jpg").hits[0].id == first.id


# -- pages -------------------------------------------------------------------------------------------------------------


def in_pages(library: NamesLibrary, query: str, limit: int) -> list[int]:
    """The ids of all hits, a page at a time."""
    found: list[int] = []
    page = library.page(query, limit)
    while True:
        assert len(page.hits) <= limit
        found += [hit.id for hit in page.hits]
        if page.end is None:
            return found
        assert len(page.hits) == limit
        page = library.page(query, limit, page.end)


@pytest.fixture
def many(library, monkeypatch):
    """More matches than are ranked at once, of every tier."""
    monkeypatch.setattr(finding, "WINDOW", 5)
    monkeypatch.setattr(finding, "RANKED_MAX", 5)
    for number in range(12):
        for name in ("sea", "sea %d", "seat %d", "my sea %d", "undersea %d", "se sea %d", "land %d"):
            text = name % number if "%" in name else name
            if name != "sea" or number == 0:
                library.add(text.encode(), mtime_ns=(number * 7919) % 13, size_bytes=number)
    return library


@pytest.mark.parametrize("query", ["sea", "se", "s", "ea sea", "size:>3", "in:nowhere", "-sea"])
@pytest.mark.parametrize("limit", [1, 7])
def test_pages_are_the_whole_in_order(many, query, limit):
    """Whatever the size of a page, each hit comes once, and in one order."""
    paged = in_pages(many, query, limit)
    assert paged == in_pages(many, query, 10_000)
    assert len(paged) == len(set(paged))
    grade = finding.matching.Names.of(parse(query)).grader()
    rows = list(entries.subtree(many.store.db, many.root.id))[1:]
    wanted = {r.id for r in rows if grade(r.name, r.kind) is not None and (query != "size:>3" or r.size_bytes > 3)}
    assert set(paged) == (wanted if query != "in:nowhere" else set())


def test_the_best_come_first_however_many_match(many):
    """The whole name, then what begins alike, without reading all others."""
    found = many.search("sea", 37)
    assert found[0] == b"sea"
    assert {name[:2] for name in found} == {b"se"}
    assert many.search("sea", 38)[-1][:2] != b"se"


def test_what_comes_and_goes_between_pages_moves_nothing_else(many):
    """Rows that stay are neither skipped nor shown twice."""
    before = set(in_pages(many, "sea", 10_000))
    page = many.page("sea", 4)
    found = [hit.id for hit in page.hits]
    gone = set()
    for number in itertools.count():
        victim = next((i for i in sorted(before - gone) if i not in found), None)
        if victim is not None and number % 2:
            row = entries.get(many.store.db, victim)
            assert row is not None
            many.remove(row)
            gone.add(victim)
        many.add(b"sea new %d" % number, mtime_ns=50)
        if number % 3 == 0 and many.index is not None:
            many.catch_up()
        if page.end is None:
            break
        page = many.page("sea", 4, page.end)
        found += [hit.id for hit in page.hits]
    assert len(found) == len(set(found))
    assert before - gone <= set(found)


# -- whatever happens --------------------------------------------------------------------------------------------------

NAMES = st.text("aBé.-", min_size=1, max_size=5).filter(lambda n: n.strip(".") != "")
QUERIES = st.lists(st.text("abÉe.", min_size=1, max_size=4), min_size=1, max_size=2).map(" ".join)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(given_names=st.lists(NAMES, min_size=1, max_size=12, unique=True), query=QUERIES)
def test_a_search_is_the_plain_definition(tmp_path_factory, given_names, query):
    """What a loop over all names would find: each word in the name, folded."""
    library = NamesLibrary(tmp_path_factory.mktemp("names"))
    try:
        for number, name in enumerate(given_names):
            library.add(name.encode())
            if number == len(given_names) // 2:
                library.catch_up()
        words = [fold_text(word) for word in query.split()]
        wanted = {n.encode() for n in given_names if all(word in fold(n.encode()) for word in words)}
        assert set(library.search(query)) == wanted
    finally:
        library.close()


class Following(RuleBasedStateMachine):
    """Rows come, go, are renamed and come back, the index follows when it likes; searches are exact all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.library: NamesLibrary | None = None

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.library = NamesLibrary(Path(self.folder.name))
        self.names: dict[int, bytes] = {}
        self.rows: dict[int, object] = {}
        self.gone: list[int] = []

    def teardown(self) -> None:
        if self.library is not None:
            self.library.close()
            self.folder.cleanup()

    @rule(name=NAMES)
    def add(self, name) -> None:
        name = name.encode()
        if name not in self.names.values():
            row = self.library.add(name)
            self.names[row.id], self.rows[row.id] = name, row

    @precondition(lambda self: self.names)
    @rule(data=st.data(), name=NAMES)
    def rename(self, data, name) -> None:
        name = name.encode()
        if name not in self.names.values():
            chosen = data.draw(st.sampled_from(sorted(self.names)))
            self.library.rename(self.rows[chosen], name)
            self.names[chosen] = name

    @precondition(lambda self: self.names)
    @rule(data=st.data(), to_limbo=st.booleans())
    def remove(self, data, to_limbo) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.names)))
        self.library.remove(self.rows[chosen], limbo_ns=time.time_ns() if to_limbo else None)
        del self.names[chosen]
        if to_limbo:
            self.gone.append(chosen)

    @precondition(lambda self: self.gone)
    @rule(name=NAMES)
    def come_back(self, name) -> None:
        name = name.encode()
        if name not in self.names.values():
            chosen = self.gone.pop()
            if self.library.bring_back(self.rows[chosen], name):
                self.names[chosen] = name

    @rule()
    def index(self) -> None:
        self.library.step()

    @precondition(lambda self: self.library.index is not None)
    @rule(lines=st.integers(1, 3))
    def drop(self, lines) -> None:
        self.library.drop_done(lines)

    @rule()
    def open_again(self) -> None:
        """As after a crash: what was committed is there."""
        self.library.close_index()

    @invariant()
    def searches_are_exact(self) -> None:
        if self.library is None:
            return
        for query in ("a", "ab", "bé.", "-e"):
            text, negated = fold_text(query.lstrip("-")), query[0] == "-"
            wanted = sorted(name for name in self.names.values() if (text in fold(name)) is not negated)
            assert sorted(self.library.search(query)) == wanted, query


def test_a_file_of_many_names_costs_each_of_them_once(library):
    """Twice as many names are twice the work, not four times."""

    def steps(names: int, stem: bytes) -> int:
        rows = [library.add(b"%s %d" % (stem, number)) for number in range(names)]
        with library.store.write("test") as unit:
            for row in rows:
                unit.db.execute("UPDATE entry SET node=?, nlink=? WHERE id=?", (rows[0].id, names, row.id))
        counted = []

        def count() -> bool:
            counted.append(1)
            return False

        library.reader.db.set_progress_handler(count, 100)
        try:
            assert len(library.search(stem.decode(), 2 * names)) == names
        finally:
            library.reader.db.set_progress_handler(None)
        return len(counted)

    few = steps(300, b"first")
    assert steps(600, b"other") < 3 * few


TestFollowing = Following.TestCase
TestFollowing.settings = settings(deadline=None, max_examples=40, stateful_step_count=25)
