"""What is to be judged again is noted until it was, and what is held below a directory is told in pages."""

import contextlib

import pytest

from index.model.entry import KIND_DIR
from index.model.query import parse
from index.scan import recording
from index.store import devices, entries, finding, places, rulings
from index.store.reading import SearchReader
from index.store.rulings import Ruling
from index.store.store import Store
from tests.index.test_apply import DIR, FILE, Inode


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "library.db", b"d" * 16)
    yield made
    made.close()


def test_a_directory_that_is_noted_again_stays_noted(store):
    """Whoever judged it before has not seen what came since; what was to be judged deep stays so."""
    with store.write("test") as unit:
        rulings.put(unit.db, 5, unit.seq)
        rulings.put(unit.db, 3, unit.seq, deep=False)
    first = rulings.first(store.db, [], 10)
    assert first == [Ruling(3, store.last_seq, False, None), Ruling(5, store.last_seq, True, None)]
    with store.write("test") as unit:
        rulings.put(unit.db, 5, unit.seq, deep=False)
    with store.write("test") as unit:
        for noted in first:
            rulings.done(unit.db, noted)
    assert rulings.first(store.db, [], 10) == [Ruling(5, first[0].seq + 1, True, None)]
    with store.write("test") as unit:
        rulings.done(unit.db, rulings.first(store.db, [], 1)[0])
    assert rulings.first(store.db, [], 10) == []


@pytest.fixture
def root(store) -> int:
    """A tree: names with an exclamation mark are held."""
    with store.write("test") as unit:
        devices.put(unit.db, b"d" * 16, "device", b"k" * 32, 1)
        branch = places.put_branch(unit.db, b"b" * 16, None, b"d" * 16, "store", b"/somewhere", "fs", 1)
        ids = {"": 0}
        for number, path in enumerate(
            ["", "a/", "a/f!", "a/b/", "a/b/g!", "a/b/h", "c!/", "c!/d!/", "c!/d!/e!", "c!/i!", "z!"], 1
        ):
            above, _, name = path.rstrip("/").rpartition("/")
            inode = Inode(number, DIR if path == "" or path.endswith("/") else FILE)
            rule = 5 if name.endswith("!") else 0
            row = recording.plain_row(
                unit, branch, ids[above + "/" if above else ""], name.encode(), inode.stat, rule=rule
            )
            entries.insert(unit.db, row if path else row._replace(parent_id=None))
            ids[path] = row.id
    return ids[""]


TOPMOST = [(b"a", b"b", b"g!"), (b"a", b"f!"), (b"c!",), (b"z!",)]
EVERYTHING = [*TOPMOST[:3], (b"c!", b"d!"), (b"c!", b"d!", b"e!"), (b"c!", b"i!"), (b"z!",)]


@pytest.mark.parametrize(("everything", "wanted"), [(False, TOPMOST), (True, EVERYTHING)])
def test_what_is_held_is_told_in_pages(store, root, everything, wanted):
    """By name, a directory before what is in it; from behind any of them on the rest is told."""
    whole = list(rulings.held(store.db, root, everything=everything))
    assert [one.path for one in whole] == wanted
    for number, one in enumerate(whole):
        rest = rulings.held(store.db, root, one.path, everything=everything)
        assert [other.path for other in rest] == wanted[number + 1 :]
    if not everything:
        assert [(one.below, one.kind == KIND_DIR) for one in whole] == [(0, False), (0, False), (3, True), (0, False)]


def test_what_is_noted_of_a_branch_that_is_away_is_left(store, root):
    """It does not stand before what can be judged."""
    with store.write("test") as unit:
        rulings.put(unit.db, root, unit.seq)
        rulings.put(unit.db, 999, unit.seq)
    assert [one.entry_id for one in rulings.first(store.db, [77], 1)] == [999]
    assert [one.entry_id for one in rulings.first(store.db, [1, 77], 9)] == [root, 999]


def test_what_is_held_is_counted_by_rule(store, root):
    assert rulings.counts(store.db, root) == {5: 7}
    assert rulings.counts(store.db, root + 1) == {5: 2}


def test_a_rule_takes_a_file_off_the_hashers_queue_and_out_of_the_search(store, root):
    """And back in; nothing else of its row changes."""

    def found() -> list[int]:
        with contextlib.closing(SearchReader(store.path)) as reader, reader.snapshot() as known:
            return [hit.id for hit in finding.find(reader, known, parse('"z!"'), 0, 5).hits]

    row = next(entries.get(store.db, one.entry_id) for one in rulings.held(store.db, root) if one.path == (b"z!",))
    assert found() == []
    with store.write("test") as unit:
        unit.db.execute("UPDATE entry SET size_bytes=9")
        recording.set_rule(unit, row, 0)
    assert found() == [row.id]
    assert row.id in {one.id for one in entries.unidentified(store.db, row.branch_id, 0, 0, 1 << 62, 99)}
    now = entries.get(store.db, row.id)
    assert now == row._replace(rule=0, seq=store.last_seq, size_bytes=9)
