"""Questions over the whole library: names by their parts, files by their hash, over a small library made of rows."""

import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.model.entry import HASH_FULL, HASH_SAMPLED, Entry, Stat
from index.scan import recording
from index.store import contents, entries, names, places
from index.store.store import Store

DEVICE = b"d" * 16


class Rows:
    """A library of rows: one branch, its root, and whatever a test puts below."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.write("test") as unit:
            places.put_device(unit.db, DEVICE, "device", "device", b"k" * 32, 1)
            self.branch = places.put_branch(unit.db, b"b" * 16, None, DEVICE, "store", b"/somewhere", "fs", 1)
        self.root = self.add(b"", parent=None, mode=stat.S_IFDIR | 0o755)

    def add(self, name: bytes, *, parent: int | None = 0, mtime_ns: int = 0, mode: int = stat.S_IFREG | 0o644) -> Entry:
        """A row of such a name in the root, or where `parent` says."""
        with self.store.write("test") as unit:
            above = self.root.id if parent == 0 else parent
            st_ = Stat(mode, 3, mtime_ns, 0, 1000 + unit.seq, 1, 0, 0)
            row = recording.plain_row(unit, self.branch, 0 if above is None else above, name, st_)
            row = row._replace(parent_id=above)
            entries.insert(unit.db, row)
        return row

    def identify(self, row: Entry, full: bytes, state: int = HASH_FULL, size_bytes: int = 3) -> None:
        with self.store.write("test") as unit:
            content = contents.exact(unit.db, full[:8], full, full[:16], size_bytes, None)
            entries.set_identity(unit.db, row.id, content, state, None, unit.seq)

    def search(self, query: str, limit: int = 100) -> list[bytes]:
        return [row.name for row in names.search(self.store.db, query, limit)]


@pytest.fixture
def rows(tmp_path):
    store = Store(tmp_path / "library.db", DEVICE)
    try:
        yield Rows(store)
    finally:
        store.close()


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["\0", "f\0g", "f g\0", "a/b", "/"])
def test_what_can_be_in_no_name_finds_nothing(rows, query):
    """NUL ends a pattern in SQLite: what stands before it must not count alone."""
    rows.add(b"f")
    rows.add(b"fg")
    assert rows.search(query) == []


def test_a_name_is_found_by_any_part_of_it(rows):
    """At its beginning, in the middle, at its end; not by what it lacks."""
    rows.add(b"Beach 2019.jpg")
    for query in ("Beach", "ach 2", "jpg", "B", "Beach 2019.jpg"):
        assert rows.search(query) == [b"Beach 2019.jpg"], query
    assert rows.search("sea") == []


def test_every_word_must_be_in_the_name_in_any_order(rows):
    """Words are parted by white space, however much."""
    rows.add(b"tax report 2019.pdf")
    rows.add(b"tax 2020.pdf")
    assert rows.search(" 2019 \t tax ") == [b"tax report 2019.pdf"]
    assert sorted(rows.search("tax pdf")) == [b"tax 2020.pdf", b"tax report 2019.pdf"]


def test_letters_of_ascii_are_found_in_either_case(rows):
    """In the name and in the query."""
    rows.add(b"ReadMe.TXT")
    assert rows.search("readme.txt") == rows.search("README") == [b"ReadMe.TXT"]


@pytest.mark.parametrize("query", ["", " ", "\t\n"])
def test_no_text_finds_nothing(rows, query):
    """Rather than everything."""
    rows.add(b"a")
    assert rows.search(query) == []


@pytest.mark.parametrize("sign", ["%", "_", "\\", "'", '"', "*", "?", "[a]", "--", ";"])
def test_a_sign_that_means_something_elsewhere_means_itself(rows, sign):
    """Wildcards of LIKE and GLOB, quotes and comments of SQL."""
    rows.add(b"100" + sign.encode() + b"x")
    rows.add(b"100ax")
    assert rows.search(sign) == [b"100" + sign.encode() + b"x"]


def test_a_name_that_is_not_utf8_is_found_by_what_of_it_is(rows):
    """Its bytes come back unharmed."""
    rows.add(b"caf\xe9 menu.txt")
    rows.add(b"\xff\xfe")
    assert rows.search("menu") == [b"caf\xe9 menu.txt"]


def test_the_root_of_a_branch_has_no_name_to_be_found_by(rows):
    """Directories are found like files, but for that one."""
    rows.add(b"photos", mode=stat.S_IFDIR | 0o755)
    assert rows.search("o") == [b"photos"]


def test_the_best_match_comes_first(rows):
    """The whole name, then a beginning, then a part; of each the newest first, and then by name."""
    for name, mtime_ns in (
        (b"old notes", 1), (b"notes a", 2), (b"my notes", 9), (b"notes", 1), (b"notes b", 5), (b"a notes", 9),
    ):  # fmt: skip
        rows.add(name, mtime_ns=mtime_ns)
    wanted = [b"notes", b"notes b", b"notes a", b"a notes", b"my notes", b"old notes"]
    assert wanted == rows.search("NOTES")


def test_a_limit_is_kept(rows):
    """Never more than were asked for."""
    for number in range(20):
        rows.add(b"file %d" % number)
    assert len(rows.search("file", 7)) == 7


def test_a_query_of_any_length_has_an_answer(rows):
    """The socket takes a mebibyte of it: no words or letters too many for the database."""
    rows.add(b"a")
    assert rows.search("a " * 5_000) == [b"a"]
    assert rows.search("a" * 100_000) == []


def test_a_query_that_is_not_utf8_ends_in_no_error(rows):
    """The view hands on any file name as a query."""
    rows.add(b"x\xff")
    assert rows.search("\udcff") in ([], [b"x\xff"])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.text("aB%_\\é .", min_size=1, max_size=6), min_size=1, max_size=8, unique=True),
    st.text("ab%_\\é ", min_size=1, max_size=4),
)
def test_search_is_the_plain_definition(tmp_path_factory, given_names, query):
    """What a loop over all names would find: each word in the name, ASCII letters in either case."""
    store = Store(tmp_path_factory.mktemp("names") / "library.db", DEVICE)
    try:
        rows = Rows(store)
        for name in given_names:
            rows.add(name.encode())

        def folded(text: str) -> str:
            return "".join(c.lower() if c.isascii() else c for c in text)

        words = [folded(word) for word in query.split()]
        wanted = {n.encode() for n in given_names if words and all(word in folded(n) for word in words)}
        assert wanted == set(rows.search(query))
    finally:
        store.close()


# -- hashes ------------------------------------------------------------------------------------------------------------


def test_a_hash_finds_every_file_that_has_it(rows):
    """By the full hash only: a file of which just the sampled id is known is not certain yet."""
    a, b, c = (rows.add(name) for name in (b"a", b"b", b"c"))
    rows.identify(a, b"1" * 32)
    rows.identify(b, b"1" * 32)
    rows.identify(c, b"1" * 32, HASH_SAMPLED)
    assert [a.id, b.id] == [row.id for row in names.with_hash(rows.store.db, b"1" * 32)]
    assert names.with_hash(rows.store.db, b"2" * 32) == []


def test_hard_links_are_one_file(rows):
    """They are no duplicates, and one of them stands for all."""
    a, b = rows.add(b"a"), rows.add(b"b")
    with rows.store.write("test") as unit:
        entries.set_node(unit.db, b.id, a.node, unit.seq)
    for row in (a, b):
        rows.identify(row, b"1" * 32)
    assert [a.id] == [row.id for row in names.with_hash(rows.store.db, b"1" * 32)]
    assert names.duplicate_hashes(rows.store.db, 10) == []


def test_duplicates_come_by_what_they_waste(rows):
    """Size times the copies beyond the first; single files are none; no more than the limit."""
    for sign, copies, size_bytes in ((b"1", 2, 100), (b"2", 4, 50), (b"3", 1, 9_999), (b"4", 3, 10)):
        for number in range(copies):
            rows.identify(rows.add(sign + b"-%d" % number), sign * 32, size_bytes=size_bytes)
    assert names.duplicate_hashes(rows.store.db, 10) == [b"2" * 32, b"1" * 32, b"4" * 32]
    assert names.duplicate_hashes(rows.store.db, 1) == [b"2" * 32]
