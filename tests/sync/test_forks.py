"""Epochs that others know in two continuations: a device came back from an old copy, and went on before it knew."""

import pytest

from index.store import entries, pending, streams, tags
from index.store.streams import OWNED, SHARED
from sync.log import epochs
from sync.log.messages import At
from sync.log.pruning import prune
from tests.sync.world import LINK, Device, assert_equal, fork, introduce, put_back_beyond, settle


@pytest.fixture
def four(tmp_path):
    """Four devices that know of a file of the first, and the file's uuid."""
    members = [Device(tmp_path, name) for name in "abcd"]
    introduce(*members)
    uuid = members[0].uuid_of(members[0].add(members[0].branch(b"Files"), b"f", data=b"1"))
    settle(*members)
    yield *members, uuid
    for one in members:
        one.store.close()


def find_out(device: Device, *others: Device) -> None:
    """A device hears from others how far they know it, and finds that it has forgotten something."""
    known = [At(*row.id, row.seq, row.part_to, row.part_after) for one in others for row in streams.every(one.db)]
    assert epochs.is_forgotten(device.store, known)
    epochs.begin_again(device.store, known)


def test_what_one_has_of_the_first_continuation_is_not_removed_for_the_sake_of_the_second(four):
    """By the cursor of who knows the second, whose state comes first, all is heard up to there and beyond."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    find_out(a, b, c)
    c.give_state(a)
    b.give_state(a)
    settle(a, b, c, d)
    assert sorted(tags.of_entry(d.db, uuid)) == ["forgotten", "since"]
    assert_equal(a, b, c, d)


def test_a_state_that_broke_off_loses_nothing_of_the_first_continuation(four):
    """What came with its parts has no number of now yet."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    find_out(a, b, c)
    b.give_state(a, is_whole=False)
    c.give_state(a)
    settle(a, b, c, d)
    assert sorted(tags.of_entry(d.db, uuid)) == ["forgotten", "since"]
    assert_equal(a, b, c, d)


def test_what_was_removed_before_it_is_heard_again_stays_so(four):
    """One took off what the copy has forgotten, and says so first; another has it yet."""
    a, b, c, d, uuid = four
    copy = a.kept()
    a.tag(uuid, "forgotten")
    a.tell(b)
    a.tell(d)
    b.untag(uuid, "forgotten")
    put_back_beyond(a, copy)
    a.tag(uuid, "since")
    a.tell(c)
    find_out(a, b, c, d)
    c.give_state(a)
    b.tell(a)
    d.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        prune(one.store, [])
    assert tags.of_entry(d.db, uuid) == ["since"]
    assert_equal(a, b, c, d)


def test_what_the_second_continuation_removed_itself_stays_so(four):
    """It was added and taken off before the fork was found; one has heard of the addition alone."""
    a, b, c, d, uuid = four
    copy = a.kept()
    a.tag(uuid, "forgotten")
    a.tell(b)
    put_back_beyond(a, copy)
    a.tag(uuid, "a while")
    a.tell(c)
    a.untag(uuid, "a while")
    find_out(a, b, c)
    c.give_state(a)
    b.give_state(a)
    settle(a, b, c, d)
    assert tags.of_entry(d.db, uuid) == ["forgotten"]
    assert_equal(a, b, c, d)


def test_who_died_amid_a_page_says_that_rows_of_it_are_here(four):
    """Its author came back from a copy of before, and would have nothing to say of them."""
    a, b, _, _, uuid = four
    top = entries.by_uuid(a.db, uuid)[0].parent_id
    copy = a.kept()
    for name in (b"one", b"two", b"three"):
        a.add(top, name, LINK, b"f")
    page = next(page for page in a.pages_for(b, limit=9) if page.facts.kind == OWNED)
    next(b.into.take(page, lambda: 2))
    assert set(b.tree(a.uuid)) == {b"f", b"one", b"two"}
    a.put_back(copy)
    find_out(a, b)
    settle(a, b)
    assert set(b.tree(a.uuid)) == {b"f"}
    assert_equal(a, b)


@pytest.mark.parametrize("by", ["log", "state"])
def test_what_a_device_took_off_and_has_forgotten_that_stays_off(four, by):
    """The copy has it yet, under a number of its new epoch."""
    a, b, c, d, uuid = four
    a.tag(uuid, "red", "blue")
    settle(a, b, c, d)
    copy = a.kept()
    a.untag(uuid, "red")
    a.tell(b)
    put_back_beyond(a, copy)
    find_out(a, b)
    assert sorted(tags.of_entry(a.db, uuid)) == ["blue", "red"]
    if by == "log":
        b.tell(a)
    else:
        b.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert tags.of_entry(one.db, uuid) == ["blue"]
    assert_equal(a, b, c, d)


def test_what_another_took_off_stays_off_where_its_state_alone_says_so(four):
    """By the number that it had: who has taken it off has not heard of the new one."""
    a, b, c, d, uuid = four
    a.tag(uuid, "red", "blue")
    settle(a, b, c, d)
    copy = a.kept()
    a.note(uuid, b"user.note", b"forgotten")
    a.tell(b)
    b.untag(uuid, "red")
    put_back_beyond(a, copy)
    find_out(a, b)
    b.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert tags.of_entry(one.db, uuid) == ["blue"]
    assert_equal(a, b, c, d)


def test_what_was_removed_of_an_epoch_in_which_nothing_was_told_is_forgotten(four):
    """Nobody else has heard of such an epoch, or ever will."""
    a, b, c, d, uuid = four
    for _ in range(2):
        epochs.new_epoch(a.store, epochs._said_seq(a.store), a.store.last_seq)
    void = [row for row in streams.every(a.db) if row.device == a.uuid and row.kind == SHARED][-2]
    assert void.seq == void.start_seq
    with a.store.note() as db:
        pending.lose_dot(db, a.uuid, void.start_seq + 3, 0, uuid, b"t" * 16)
    a.tag(uuid, "red")
    settle(a, b, c, d)
    prune(a.store, [one.uuid for one in (b, c, d)])
    assert pending.is_lost(a.db, a.uuid, void.start_seq + 3, 0), "nobody has said what he has"
    for one in (b, c, d):
        one.acknowledge(a)
    prune(a.store, [one.uuid for one in (b, c, d)])
    assert not pending.is_lost(a.db, a.uuid, void.start_seq + 3, 0)


def test_what_was_numbered_anew_twice_is_not_gone_for_who_knows_the_number_between(four):
    """He has heard that the first number is none any more."""
    a, b, c, d, uuid = four
    a.tag(uuid, "mine")
    a.tell(b)
    for value in (b"1", b"2"):
        copy = a.kept()
        a.note(uuid, b"user.note", value)
        a.tell(b)
        put_back_beyond(a, copy)
        find_out(a, b)
        if value == b"1":
            a.tell(b)
    b.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert tags.of_entry(one.db, uuid) == ["mine"]
    assert_equal(a, b, c, d)
