"""Table content: what was read of many files is written together, and is the same as one by one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.model.filetype import BY_TYPE, Method
from index.store import contents, filetypes
from index.store.contents import Read
from index.store.store import Store

LARGE_BYTES = 5 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "library.db", b"D" * 16)
    yield opened
    opened.close()


def exact(store: Store, *read: Read) -> list[int]:
    with store.write("test") as unit:
        return contents.exact(unit.db, read)


def hint(store: Store, sampled: bytes, size_bytes: int) -> int:
    with store.write("test") as unit:
        return contents.hint(unit.db, sampled, size_bytes)


def a_file(number: int, *, size_bytes: int = 10, sampled: int | None = None, manifest: bytes | None = None) -> Read:
    own = number if sampled is None else sampled
    return Read(own.to_bytes(8, "big"), number.to_bytes(32, "little"), size_bytes, manifest)


def test_the_same_bytes_have_one_row_however_often_and_where_they_are_read(store):
    """Twice in one batch, and again in the next."""
    first, second, again = exact(store, a_file(1), a_file(2), a_file(1))
    assert (first, second) == (again, second)
    assert first != second
    assert exact(store, a_file(3), a_file(2))[1] == second


def test_a_hash_that_begins_as_another_does_is_another(store):
    """The index holds the first eight bytes; the row is told by all of them."""
    one = Read(b"s" * 8, b"f" * 32, 3, None)
    two = Read(b"t" * 8, b"f" * 31 + b"g", 3, None)
    ids = exact(store, one, two)
    assert len(set(ids)) == 2
    assert [contents.by_full(store.db, read.full).id for read in (one, two)] == ids
    assert exact(store, two, one) == ids[::-1]
    assert contents.by_full(store.db, b"f" * 30 + b"xx") is None


def test_a_hint_becomes_the_row_of_the_first_full_hash_and_of_no_other(store):
    """Two large files may share a sampled id: the second gets a row of its own."""
    hinted = hint(store, (7).to_bytes(8, "big"), LARGE_BYTES)
    assert hint(store, (7).to_bytes(8, "big"), LARGE_BYTES) == hinted
    ids = exact(
        store, a_file(1, sampled=7, size_bytes=LARGE_BYTES, manifest=b"m"), a_file(2, sampled=7, size_bytes=LARGE_BYTES)
    )
    assert ids[0] == hinted != ids[1]
    assert hint(store, (7).to_bytes(8, "big"), LARGE_BYTES) == hinted, "a whole content is a hint for its sampled id"
    assert store.db.execute("SELECT content_id, body FROM manifest").fetchall() == [(hinted, b"m")]


def test_the_stronger_means_says_what_bytes_are_in_whatever_order(store):
    """Within a batch and between two; where nobody looked nothing is said."""
    with store.write("test") as unit:
        text, jpeg = (filetypes.intern(unit.db, BY_TYPE[name]) for name in ("plain", "jpeg"))
    strong = a_file(1)._replace(type_id=jpeg, method=Method.MAGIC)
    weak = a_file(1)._replace(type_id=text, method=Method.NAME)
    for batch in ((weak, strong), (strong, weak), (weak,), (a_file(1),)):
        (content,) = set(exact(store, *batch))
        assert filetypes.of_content(store.db, content) == (BY_TYPE["jpeg"], Method.MAGIC)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(0, 3))
def test_batches_and_single_files_come_to_the_same_rows(tmp_path_factory, batches, hints):
    """Whatever comes together: as many rows as there are hashes, each with its own bytes."""
    store = Store(tmp_path_factory.mktemp("contents") / "library.db", b"D" * 16)
    try:
        for number in range(1, hints + 1):
            hint(store, number.to_bytes(8, "big"), 10)
        seen: dict[int, int] = {}
        for batch in batches:
            for number, content in zip(batch, exact(store, *map(a_file, batch)), strict=True):
                assert seen.setdefault(number, content) == content
        for number, content in seen.items():
            assert contents.get(store.db, content).full == a_file(number).full
        assert len(set(seen.values())) == len(seen)
        (whole,) = store.db.execute("SELECT count(*) FROM content WHERE full IS NOT NULL").fetchone()
        assert whole == len(seen)
    finally:
        store.close()
