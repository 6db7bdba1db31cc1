"""The index of names as a file: it follows the library, survives a crash, and is made anew where it does not fit."""

import os
import shutil
import threading
import time

import apsw
import pytest

from index.model.folding import fold
from index.store import changes, search
from tests.index.names_library import NamesLibrary


@pytest.fixture
def library(tmp_path):
    made = NamesLibrary(tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_the_index_knows_all_names_and_nothing_else(library, monkeypatch):
    """Slice by slice: new rows, renamed ones, those that went and those that came back; FTS5's own check agrees."""
    monkeypatch.setattr(search, "SLICE_ROWS", 7)
    rows = [library.add(f"name {number} é".encode()) for number in range(40)]
    library.catch_up()
    for row in rows[::3]:
        library.rename(row, b"other " + row.name)
    for row in rows[1::3]:
        library.remove(row, limbo_ns=1)
    for row in rows[1::6]:
        assert library.bring_back(row, b"back " + row.name)
    library.add(b"last")
    assert library.step(), "one slice is not all"
    library.catch_up()
    assert search.check(library.path) == []
    with library.reader.snapshot() as known:
        assert known == library.index.known
        assert library.reader.db.execute("SELECT count(*) FROM search.search_names_docsize").fetchone() == (
            library.store.db.execute("SELECT count(*) FROM entry").fetchone()
        )


def test_a_check_tells_what_is_missing_and_what_is_too_much(library):
    """A row without its line, a line without its row, a name that is not the row's."""
    rows = [library.add(f"name {number}".encode()) for number in range(4)]
    library.catch_up()
    for trigger in ("removed", "renamed"):
        library.store.db.execute(f"DROP TRIGGER search_{trigger}")
    library.remove(rows[0])
    library.rename(rows[1], b"elsewhere")
    library.index._db.execute("DELETE FROM search_names WHERE rowid=?", (rows[2].id,))
    found = search.check(library.path)
    assert len(found) == 3
    for row, said in zip(rows, ("gone", "another name than elsewhere", "not in the index"), strict=False):
        assert any(f"entry {row.id}" in line and said in line for line in found), (said, found)


def test_who_writes_the_index_waits_for_who_checks_it(library, monkeypatch):
    """A check holds the file's lock for as long as it takes. After a while the rest is left for the next time."""
    library.add(b"first")
    library.catch_up()
    library.close_index()
    library.add(b"second")
    checker = apsw.Connection(str(search.path_beside(library.path)))
    context = Heard()

    def follow() -> threading.Thread:
        thread = threading.Thread(target=search.follow_in_worker, args=({"database": str(library.path)}, context))
        thread.start()
        return thread

    try:
        checker.execute("BEGIN IMMEDIATE")
        thread = follow()
        time.sleep(0.3)
        checker.execute("COMMIT")
        thread.join(20)
        assert context.indexed_ids[0] < context.indexed_ids[-1], "it waited, then took in what was new"

        last = library.add(b"third").id
        monkeypatch.setattr(search, "_PATIENCE_MS", 50)
        checker.execute("BEGIN IMMEDIATE")
        context.indexed_ids.clear()
        follow().join(20)
        assert context.indexed_ids[0] == context.indexed_ids[-1] < last
        checker.execute("COMMIT")
        follow().join(20)
        assert context.indexed_ids[-1] == last
    finally:
        checker.close()


class Heard:
    """What a worker says how far the index is."""

    def __init__(self) -> None:
        self.indexed_ids: list[int] = []

    def emit(self, batch: object) -> None:
        self.indexed_ids.append(search.Known._make(batch).indexed_id)

    def stopped(self) -> bool:
        return False


def test_without_an_index_nothing_is_wrong_with_it(library):
    """Nor is one made by asking."""
    assert search.check(library.path) == []
    assert not search.path_beside(library.path).exists()


def test_lines_are_dropped_only_when_they_are_followed(library):
    """And the last one stays, so that no number comes twice."""
    rows = [library.add(b"%d" % number) for number in range(5)]
    library.catch_up()
    for row in rows[:3]:
        library.remove(row)
    library.drop_done()
    assert lines(library) == [0, 1, 2, 3]
    library.catch_up()
    library.drop_done(2)
    assert lines(library) == [2, 3]
    library.drop_done()
    assert lines(library) == [3]
    library.remove(rows[3])
    assert lines(library) == [3, 4]


def lines(library: NamesLibrary) -> list[int]:
    return [row[0] for row in library.store.db.execute("SELECT seq FROM search_todo ORDER BY seq")]


def test_a_crash_between_index_and_library_costs_nothing(library):
    """What was followed and not dropped is followed again."""
    row = library.add(b"before")
    library.catch_up()
    library.rename(row, b"after")
    library.catch_up()
    library.close_index()
    known = search.SearchIndex(library.path)
    assert known.known.indexed_id >= row.id
    known.close()
    assert (library.search("after"), library.search("before")) == ([b"after"], [])
    assert search.check(library.path) == []


def test_two_states_that_do_not_belong_together_are_not_mixed(library):
    """Where lines are missing that the index did not follow, a search does without the index."""
    row = library.add(b"before")
    library.catch_up()
    library.rename(row, b"after")
    library.add(b"more")
    library.remove(library.add(b"x"))
    library.store.db.execute("DELETE FROM search_todo WHERE seq < (SELECT max(seq) FROM search_todo)")
    with library.reader.snapshot() as known:
        assert known is None
    assert (library.search("after"), library.search("before")) == ([b"after"], [])


@pytest.mark.parametrize("what", ["a later state", "another epoch", "an older program", "no database", "cut short"])
def test_an_index_that_does_not_belong_to_the_library_is_made_anew(library, what):
    """Restored from a backup, of another version, or damaged."""
    row = library.add(b"beach")
    library.catch_up()
    library.close_index()
    index = search.path_beside(library.path)
    if what == "a later state":
        library.store.db.wal_checkpoint()
        shutil.copy(library.path, library.path.with_name("backup"))
        library.rename(row, b"sea")
        library.catch_up()
        library.close_index()
        library.store.close()
        library.reader.close()
        for end in ("-wal", "-shm"):
            library.path.with_name(f"library.db{end}").unlink(missing_ok=True)
        os.replace(library.path.with_name("backup"), library.path)
        library.store = type(library.store)(library.path, b"d" * 16)
        library.reader = type(library.reader)(library.path)
    elif what == "another epoch":
        with library.store.write("test") as unit:
            changes.set_meta(unit.db, "epoch", 2)
    elif what == "an older program":
        opened = search.SearchIndex(library.path)
        opened._db.execute("UPDATE state SET version = 0")
        opened.close()
    elif what == "no database":
        index.write_bytes(b"nothing of that kind" * 1000)
    else:
        index.write_bytes(index.read_bytes()[:5000])
    assert library.search("beach") == [b"beach"]
    opened = search.SearchIndex(library.path)
    assert opened.known.indexed_id == 0
    opened.close()
    library.catch_up()
    assert library.search("beach") == [b"beach"]
    assert search.check(library.path) == []


def test_common_trigrams_are_learned_as_the_library_grows(library, monkeypatch):
    """From a sample, each time it has grown by half; a reader sees them."""
    monkeypatch.setattr(search, "_SAMPLE_NAMES", 20)
    for number in range(60):
        library.add(b"IMG_%d" % number)
    library.catch_up()
    with library.reader.snapshot():
        assert library.reader.share_of("img") > 0.9
        assert library.reader.share_of("im") > 0.9
        assert library.reader.share_of("xyz") == 0
        assert 5 <= library.reader.sampled_names <= 25


def test_numbers_that_were_left_out_are_no_names(library, monkeypatch):
    """After a leap of the ids a sample may meet no row at all: then nothing is known to be common."""
    monkeypatch.setattr(search, "_SAMPLE_NAMES", 20)
    library.add(b"before")
    library.store.last_entry_id += 1 << 24
    library.add(b"behind")
    library.catch_up()
    assert search.check(library.path) == []
    assert library.search("behind") == [b"behind"]
    with library.reader.snapshot():
        assert library.reader.share_of("/be") in (0, 1)


def test_a_name_is_indexed_by_all_its_parts(library):
    """Any piece of it, however short, how it begins and ends, and itself as a whole: each finds its row."""
    names = [b"ReadMe.TXT", b"a\x01b\x7f", "É".encode(), b"\xff\x80", b"~^{}", "ſtreet".encode(), b"x"]
    rows = {library.add(name).id: fold(name) for name in names}
    library.catch_up()

    def found(terms: list[str]) -> set[int]:
        sql = "SELECT rowid FROM search_names WHERE search_names MATCH ?"
        return {row[0] for row in library.index._db.execute(sql, (search.all_of(terms),))}

    for entry_id, text in rows.items():
        for start in range(len(text)):
            for end in range(start + 1, len(text) + 1):
                assert entry_id in found(search.trigrams(text[start:end])), (text, start, end)
        assert entry_id in found(search.trigrams(f"/{text}//"))
        assert found([search.whole(text)]) == {entry_id}


def test_a_trigger_that_does_not_fire_writes_nothing(library):
    """A row that is made, and one that changes otherwise, leave no line."""
    row = library.add(b"a")
    with library.store.write("test") as unit:
        unit.db.execute("UPDATE entry SET size_bytes = 5, name = name WHERE id = ?", (row.id,))
    assert lines(library) == [0]
