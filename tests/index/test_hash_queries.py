"""Files by their hash, and their copies, over a small library made of rows."""

import stat

import pytest

from index.model.entry import HASH_FULL, HASH_SAMPLED, Entry, Stat
from index.scan import recording
from index.store import contents, copies, devices, entries, names, places
from index.store.copies import Position
from index.store.store import Store

DEVICE = b"d" * 16


class Rows:
    """A library of rows: one branch, its root, and whatever a test puts below."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.write("test") as unit:
            devices.put(unit.db, DEVICE, "device", b"k" * 32, 1)
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
            (content,) = contents.exact(unit.db, [contents.Read(full[:8], full, size_bytes, None)])
            entries.set_identity(unit.db, row.id, content, state, None, unit.seq)


@pytest.fixture
def rows(tmp_path):
    store = Store(tmp_path / "library.db", DEVICE)
    try:
        yield Rows(store)
    finally:
        store.close()


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
    for sign, count, size_bytes in ((b"1", 2, 100), (b"2", 4, 50), (b"3", 1, 9_999), (b"4", 3, 10)):
        for number in range(count):
            rows.identify(rows.add(sign + b"-%d" % number), sign * 32, size_bytes=size_bytes)
    assert names.duplicate_hashes(rows.store.db, 10) == [b"2" * 32, b"1" * 32, b"4" * 32]
    assert names.duplicate_hashes(rows.store.db, 1) == [b"2" * 32]


def pages(rows, sets, limit, least=1):
    """All duplicates, page by page, as (hash, name); no row comes twice."""
    found, after = [], Position()
    while page := copies.duplicates(rows.store.db, least, sets, limit, after):
        assert len(page) <= limit
        assert len({name.full for name in page}) <= sets
        found += [(name.full[:1], b"/".join(name.names)) for name in page]
        after = page[-1].position
    assert len(found) == len(set(found))
    return found


@pytest.fixture
def copied(rows):
    """Sets of four, two and three files; a pair of hard links; what is held, single, or known by its sample only."""
    for sign, copies_of, size_bytes in ((b"1", 2, 100), (b"2", 4, 50), (b"3", 1, 9_999), (b"4", 3, 10)):
        for number in range(copies_of):
            rows.identify(rows.add(sign + b"-%d" % number), sign * 32, size_bytes=size_bytes)
    rows.identify(rows.add(b"1-sampled"), b"1" * 32, HASH_SAMPLED, 100)
    held = rows.add(b"1-held")
    rows.identify(held, b"1" * 32, size_bytes=100)
    a, b = rows.add(b"5-a"), rows.add(b"5-b")
    with rows.store.write("test") as unit:
        entries.set_rule(unit.db, held.id, 3, unit.seq)
        entries.set_node(unit.db, b.id, a.node, unit.seq)
    for row in (a, b):
        rows.identify(row, b"5" * 32)
    return rows


@pytest.mark.parametrize(("sets", "limit"), [(100, 100), (1, 100), (100, 1), (2, 3), (3, 2)])
def test_duplicates_come_whole_however_they_are_paged(copied, sets, limit):
    """Sets by what they waste, files in one order; neither hard links alone nor what is held is one."""
    expected = [(name[:1], name) for sign, n in ((b"2", 4), (b"1", 2), (b"4", 3)) for name in
                (sign + b"-%d" % number for number in range(n))]  # fmt: skip
    if sets == 1:  # a page holds the set that it goes on with
        sets = 2
    assert pages(copied, sets, limit) == expected


def test_small_files_can_be_left_out(copied):
    """By the size of one."""
    assert {sign for sign, _ in pages(copied, 10, 10, least=50)} == {b"1", b"2"}


def test_what_is_unique_is_what_no_other_branch_has(copied):
    """Copies beside it do not count; a file whose hash is not known is neither."""
    db = copied.store.db
    other = places_branch(copied)
    copied.branch, first = other, copied.branch
    copied.identify(copied.add(b"copy"), b"2" * 32, size_bytes=50)
    own = [copies.unique(db, [first], 3, 0)]
    while own[-1]:
        own.append(copies.unique(db, [first], 3, own[-1][-1].entry_id))
    assert {b"/".join(one.names) for page in own for one in page} == {
        *(b"1-0", b"1-1", b"3-0", b"4-0", b"4-1", b"4-2", b"5-a", b"5-b")
    }
    assert copies.unique(db, [other], 10, 0) == []
    assert copies.unsaid(db, 1, [first]) == (1, 1)
    assert copies.unsaid(db, 1, [other]) == (0, 0)
    assert copies.unsaid(db, 1) == (1, 1)


def places_branch(rows):
    with rows.store.write("test") as unit:
        return places.put_branch(unit.db, b"c" * 16, None, DEVICE, "other", b"/elsewhere", "fs", 2)
