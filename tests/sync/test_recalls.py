"""What a stamp of the future had made look old, and who has to look for it once that is given up."""

import pytest

from index.store import metadata, recalls
from sync.log.restamping import recall, restamp
from tests.sync.world import Device, assert_equal, introduce, settle

DAY_NS = 86_400 * 10**9
UUID = b"u" * 16


class World:
    """Devices with clocks of their own."""

    def __init__(self, tmp_path):
        self.now_ns = 10**18
        self.ahead_ns = dict.fromkeys("abcd", 0)
        self.members = [Device(tmp_path, n, lambda n=n: self.now_ns + self.ahead_ns[n]) for n in "abcd"]
        introduce(*self.members)

    def recall_once(self) -> None:
        """Who has to go through what it keeps does that, and takes the state of all others."""
        for one in self.members:
            one.into.release()
            if recalls.left(one.db) == set():
                continue
            with one.store.note() as db:
                recalls.begin(db)
            for _ in recall(one.into):
                pass
            for other in self.members:
                if other is not one:
                    other.give_state(one)
            if recalls.is_begun(one.db):
                with one.store.note() as db:
                    recalls.note_left(db, set())

    def come_to_rest(self) -> int:
        """All that is to be done, with all there; returns after how many rounds nobody had a reason any more."""
        for rounds in range(10):
            settle(*self.members)
            if all(recalls.left(one.db) == set() for one in self.members):
                return rounds
            self.recall_once()
        raise AssertionError("they never come to an end")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    for one in made.members:
        one.store.close()


def with_a_recall_to_do(world):
    """a took the word of b's clock, which was a day ahead, for the latest; it has heard that it was not, and c's."""
    a, b, c, _ = world.members
    settle(a, b, c)
    world.ahead_ns["a"] = world.ahead_ns["b"] = DAY_NS
    b.note(UUID, b"user.note", b"second")
    b.tell(a)
    world.ahead_ns["a"] = world.ahead_ns["b"] = 0
    world.now_ns += 10**9
    b.tell(c)
    assert restamp(b.store, c.db.execute("SELECT min(hlc) FROM quarantine").fetchone()[0])
    world.now_ns += 10**9
    c.note(UUID, b"user.note", b"third")
    c.tell(a)
    b.tell(a)
    b.tell(c)
    c.into.release()
    assert metadata.get(a.db, UUID, b"user.note") == b"second"
    assert recalls.left(a.db) is None


def test_who_takes_the_state_of_one_that_has_a_recall_to_do_has_to_do_it_too(world):
    with_a_recall_to_do(world)
    a, _, _, d = world.members
    a.give_state(d)
    assert metadata.get(d.db, UUID, b"user.note") == b"second"
    assert recalls.left(d.db) is None
    world.come_to_rest()
    assert_equal(*world.members)
    assert metadata.get(d.db, UUID, b"user.note") == b"third"


def test_one_that_is_at_it_itself_begins_anew(world):
    """It had asked c before c said anything."""
    with_a_recall_to_do(world)
    a, _, _, d = world.members
    with d.store.note() as db:
        recalls.note_left(db, {a.uuid})
    a.give_state(d)
    assert recalls.left(d.db) is None
    world.come_to_rest()
    assert_equal(*world.members)


def test_two_that_are_at_it_are_a_reason_for_each_other_once(world):
    with_a_recall_to_do(world)
    a, b, _, d = world.members
    a.give_state(d)
    for _ in range(3):
        d.give_state(a)
        a.give_state(d)
    with d.store.note() as db:
        recalls.note_left(db, {b.uuid})
    a.give_state(d)
    assert recalls.left(d.db) == {b.uuid}
    assert world.come_to_rest() <= 3


def test_a_reason_of_nobody_is_none(world):
    a, b, _, _ = world.members
    settle(a, b)
    with a.store.note() as db:
        recalls.hear(db, a.uuid, [(b"?" * 16, 1, 1), (a.uuid, 1, 1)])
        assert recalls.left(db) == set()
        recalls.hear(db, a.uuid, [(b.uuid, 1, 1)])
        assert recalls.left(db) is None
        recalls.note_left(db, set())
        recalls.hear(db, a.uuid, [(b.uuid, 1, 1), (b.uuid, 0, 7)])
        assert recalls.left(db) == set()
        recalls.hear(db, a.uuid, [(b.uuid, 1, 2)])
        assert recalls.left(db) is None
