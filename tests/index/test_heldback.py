"""What waits for rules is looked at and let go of some at a time, however much there is."""

import pytest

from index.store import heldback
from index.store.store import Store

OWN = b"d" * 16


@pytest.fixture
def db(tmp_path):
    store = Store(tmp_path / "library.db", OWN)
    yield store.db
    store.close()


def uuids(count: int) -> list[bytes]:
    return [at.to_bytes(16, "big") for at in range(1, count + 1)]


def test_withdrawn_entries_that_are_gone_are_let_go_of_round_by_round(db):
    for uuid in uuids(2500):
        heldback.withdraw(db, uuid)
    after, left = b"", []
    for _ in range(3):
        after = heldback.tidy(db, after)
        left.append(db.execute("SELECT count(*) FROM withdrawn").fetchone()[0])
    assert left == [1500, 500, 0]
    assert after == b""
    assert heldback.tidy(db, b"") == b""


def test_who_looks_for_what_is_due_comes_to_all_of_it(db):
    """Entries that are not here and that nobody else has heard of are not due; those of which another device said
    something are."""
    every = uuids(2500)
    db.executemany("INSERT INTO untold VALUES(?)", [(uuid,) for uuid in every])
    others = every[5:2500:25]
    db.executemany(
        "INSERT INTO attribute VALUES(?,?,?,?,?)", [(uuid, b"user.x", b"1", 1, b"o" * 16) for uuid in others]
    )
    found: list[bytes] = []
    some, after = heldback.due(db, OWN, b"")
    rounds = 1
    while after:
        found += some
        assert len(some) <= 100
        some, after = heldback.due(db, OWN, after)
        rounds += 1
    assert found + some == others
    assert 3 <= rounds <= 6
