"""Numbers that a device gave to nothing: how two continuations of a stream are told apart, and their author told so."""

import msgpack
import pytest
import trio

from index.store import entries, gaps, metadata, pending, recalls, streams, tags
from index.store.streams import SHARED
from sync.log import epochs
from sync.log.hub import Hub
from sync.log.messages import At
from sync.log.pruning import prune
from tests.sync.linked import connect, made, quiet, run, running
from tests.sync.world import assert_equal, fork, settle


@pytest.fixture
def four(tmp_path):
    """Four devices that know of a file of the first, and the file's uuid."""
    with made(tmp_path, "abcd") as members:
        uuid = members[0].uuid_of(members[0].add(members[0].branch(b"Files"), b"f", data=b"1"))
        settle(*members)
        yield *members, uuid


def said(device) -> list[list[int]]:
    sql = "SELECT key FROM outbox WHERE model='stream' AND op='gap' ORDER BY seq"
    return [msgpack.unpackb(key) for (key,) in device.db.execute(sql)]


def gaps_of(device, other) -> list[tuple[int, int]]:
    sql = "SELECT from_seq, to_seq FROM gap WHERE device=? ORDER BY 1"
    return device.db.execute(sql, (other.uuid,)).fetchall()


def acknowledge(*members) -> None:
    for one in members:
        for other in members:
            if other is not one:
                one.acknowledge(other)


def assert_equal_tags(*members) -> None:
    assert len({tuple(one.shared_rows()["tagging"]) for one in members}) == 1


def test_the_first_that_a_start_says_tells_what_it_leaped_over(four):
    a, b, _, _, uuid = four
    before = said(a)
    a.tag(uuid, "one")
    assert said(a) == before
    last_seq = a.store.last_seq
    a.put_back(a.kept())
    a.tag(uuid, "two")
    ((from_seq, to_seq),) = said(a)[len(before) :]
    assert from_seq == last_seq
    assert last_seq < to_seq == a.store.last_seq - 1
    a.tag(uuid, "three")
    settle(a, b)
    assert (from_seq, to_seq) in gaps_of(b, a)
    assert gaps_of(b, a) == gaps_of(a, a)


def test_a_unit_that_fails_has_said_nothing(four):
    a, _, _, _, _ = four
    a.store.has_said = False
    a.store.leap(a.store.last_seq + 5)
    before = said(a), gaps_of(a, a)
    with pytest.raises(ValueError, match="no"), a.store.write("test") as unit:
        unit.tell("model", "op", b"key", None)
        raise ValueError("no")
    assert (said(a), gaps_of(a, a)) == before
    with a.store.write("test") as unit:
        unit.tell("model", "op", b"key", None)
    assert len(said(a)) == len(before[0]) + 1


def test_a_page_of_operations_ends_with_the_last_of_them(four):
    """Where nothing was said others do not stand: there a place is one of another continuation."""
    a, b, _, _, uuid = four
    a.tag(uuid, "one")
    last_seq = a.store.last_seq
    a.add(entries.by_uuid(a.db, uuid)[0].parent_id, b"g")
    page = next(page for page in a.pages_for(b, limit=9) if page.facts.kind == SHARED)
    assert page.facts.to_seq == last_seq < a.store.last_seq


@pytest.mark.parametrize("first", ["b", "c"])
def test_states_of_two_continuations_lose_nothing_of_either(four, first):
    """Without their author."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    pairs = [(b, c), (c, b)] if first == "b" else [(c, b), (b, c)]
    for one, other in pairs:
        one.give_state(other)
    c.give_state(d)
    for one in (b, c, d):
        assert sorted(tags.of_entry(one.db, uuid)) == ["forgotten", "since"]
        assert gaps.forks(one.db)
    assert_equal_tags(b, c, d)


def test_who_stands_in_a_gap_when_a_page_goes_on_finds_the_fork(four):
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    place = streams.get(b.db, streams.StreamId(a.uuid, a.store.epoch, SHARED))
    assert not gaps.forks(b.db)
    c.tell(b)
    assert gaps.forks(b.db) == [(a.uuid, a.store.epoch, place.seq)]
    b.give_state(d)
    assert gaps.forks(d.db) == gaps.forks(b.db)
    assert not gaps.forks(c.db)


def test_its_author_finds_itself_forgetful_by_it_whatever_all_have(four):
    """What all have told it to have lies beyond the place."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    c.tell(b)
    ((_, epoch, seq),) = gaps.forks(b.db)
    c.tell(d)
    for one in (b, c, d):
        one.acknowledge(a)
    a.prune()
    assert streams.get(a.db, streams.StreamId(a.uuid, epoch, SHARED)).floor_seq > seq
    assert epochs.is_forgotten(a.store, [At(a.uuid, epoch, SHARED, seq)])
    epochs.begin_again(a.store, [At(a.uuid, epoch, SHARED, seq)])
    b.give_state(a)
    settle(a, b, c, d)
    assert not any(gaps.forks(one.db) for one in (b, c, d))
    for one in (a, b, c, d):
        assert sorted(tags.of_entry(one.db, uuid)) == ["forgotten", "since"]
        assert metadata.get(one.db, uuid, b"user.note") == b"forgotten"
    assert_equal(a, b, c, d)


def test_the_removal_of_what_has_a_number_in_a_gap_is_remembered_until_all_have_heard(four):
    """No cursor says of it that it was heard of."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    c.give_state(b)
    b.give_state(d)
    d.untag(uuid, "forgotten")
    d.give_state(c)
    b.give_state(c)
    assert tags.of_entry(c.db, uuid) == ["since"]
    acknowledge(b, c, d)
    for one in (b, c, d):
        prune(one.store, [x.uuid for x in (b, c, d) if x is not one])
    assert gaps.has_lost(c.db), "b has it yet"
    settle(b, c, d)
    assert tags.of_entry(b.db, uuid) == ["since"]
    acknowledge(b, c, d)
    for one in (d, b, c):
        prune(one.store, [x.uuid for x in (b, c, d) if x is not one])
        assert not gaps.has_lost(one.db), one.name
    assert_equal_tags(b, c, d)


def test_so_many_gaps_and_forks_are_remembered_and_no_more(four):
    a, _, _, _, _ = four
    with a.store.note() as db:
        for at in range(1000, 3000, 10):
            gaps.note(db, b"x" * 16, at, at + 5)
            pending.lose_dot(db, b"x" * 16, at + 1, 0, b"e" * 16, b"t" * 16)
        for at in range(2000):
            gaps.note_fork(db, b"x" * 16, 1, at)
    held = [row[1] for row in db.execute("SELECT * FROM gap WHERE device=? ORDER BY 2", (b"x" * 16,))]
    assert held == list(range(3000 - 64 * 10, 3000, 10))
    assert [seq for (seq,) in db.execute("SELECT dot_seq FROM lost_dot ORDER BY 1")] == [at + 1 for at in held]
    assert len(gaps.forks(db)) == 1024


def test_an_author_that_only_knows_who_heard_of_the_fork_begins_anew_and_hears_all(four):
    """b is away: c has it from b's state what b had heard, and that b stood where a never was."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    c.give_state(b)
    b.give_state(c)
    epoch = a.store.epoch

    async def main() -> None:
        async with running(a, c, d) as nursery:
            await connect(nursery, a, c)
            await connect(nursery, a, d)
            await connect(nursery, c, d)
            await trio.sleep(40)
            await quiet(a, c, d)
            await connect(nursery, b, c)
            nursery.start_soon(b.replicator.run)
            await trio.sleep(70)
            await quiet(a, b, c, d)

    run(main)
    assert a.store.epoch > epoch
    for one in (a, b, c, d):
        assert sorted(tags.of_entry(one.db, uuid)) == ["forgotten", "since"]
        assert metadata.get(one.db, uuid, b"user.note") == b"forgotten"
    assert_equal(a, b, c, d)


def test_who_hears_of_the_removal_by_the_log_tells_it_by_its_state(four):
    """Who takes that will not hear of it otherwise: his cursor is beyond."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    c.give_state(b)
    b.give_state(c)
    b.give_state(d)
    d.untag(uuid, "forgotten")
    d.tell(b)
    b.give_state(c)
    for one in (b, c, d):
        assert tags.of_entry(one.db, uuid) == ["since"], one.name
    assert_equal_tags(b, c, d)


def test_what_its_author_had_of_the_other_life_before_it_knew_is_said_by_a_number_of_now(four):
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    c.tell(b)
    b.give_state(a)
    assert sorted(tags.of_entry(a.db, uuid)) == ["forgotten", "since"]
    ((_, epoch, seq),) = gaps.forks(b.db)
    epochs.begin_again(a.store, [At(a.uuid, epoch, SHARED, seq)])
    b.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert sorted(tags.of_entry(one.db, uuid)) == ["forgotten", "since"]
        assert {row[3] > seq for row in one.shared_rows()["tagging"]} == {True}
    assert_equal(a, b, c, d)


def test_a_fork_is_told_to_its_author_when_a_link_begins_with_what_was_heard_and_in_a_state(four, monkeypatch):
    a, _, c, _, _ = four
    place = At(a.uuid, a.store.epoch, SHARED, 1)
    with c.store.note() as db:
        gaps.note(db, a.uuid, 0, 1)
        gaps.note_fork(db, a.uuid, place.epoch, place.seq)
    heard = []

    async def spoken(hub, peer, places, forks=()) -> None:
        if hub is a.replicator.hub:
            heard.append([at for at in forks if at == place])
        peer.has_spoken.set()

    monkeypatch.setattr(Hub, "spoken", spoken)

    async def main() -> None:
        async with running(a, c) as nursery:
            await connect(nursery, a, c)
            await trio.sleep(0.1)
            assert heard.pop(0) == [place], "Follow"
            heard.clear()
            await trio.sleep(2)
            assert [place] in heard, "Have"
            heard.clear()
            await a.replicator.backfill.take(a.replicator.peers[c.uuid])
            assert heard[-1] == [place], "the state"

    run(main)


def test_a_word_that_an_addition_has_another_number_is_no_removal_when_it_comes_back_by_a_state(four):
    """Who had not heard of it by the old number remembers that as removed."""
    a, b, c, d, uuid = four
    fork(a, b, c, uuid)
    c.tell(b)
    ((_, epoch, seq),) = gaps.forks(b.db)
    epochs.begin_again(a.store, [At(a.uuid, epoch, SHARED, seq)])
    b.give_state(a)
    a.tell(c)
    assert gaps.has_lost(c.db)
    for one in (c, b, d):
        one.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert sorted(tags.of_entry(one.db, uuid)) == ["forgotten", "since"]
    assert_equal(a, b, c, d)


def test_who_has_a_part_of_a_state_says_how_far_that_went(four):
    """Its author may come back from a copy of before. A place that was passed in the end is nobody's concern."""
    a, b, c, d, uuid = four
    copy = a.kept()
    a.tag(uuid, "forgotten")
    a.give_state(b, is_whole=False)
    a.give_state(c, is_whole=False)
    (at,) = [At(device, epoch, SHARED, seq) for device, epoch, seq in gaps.forks(b.db)]
    assert not epochs.is_forgotten(a.store, [at])
    a.tell(c)
    assert not gaps.forks(c.db)
    a.put_back(copy)
    assert epochs.is_forgotten(a.store, [at])
    epochs.begin_again(a.store, [at])
    b.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert tags.of_entry(one.db, uuid) == ["forgotten"]
        assert not gaps.forks(one.db)
    assert_equal(a, b, c, d)


def test_what_a_broken_off_state_told_can_be_taken_off(four):
    """It comes by the log once more."""
    a, b, c, _, uuid = four
    a.tag(uuid, "red", "blue", "green")
    for one in (b, c):
        a.give_state(one, is_whole=False)
    b.untag(uuid, "red")
    b.tell(c)
    c.untag(uuid, "blue")
    settle(*four[:4])
    for one in four[:4]:
        assert tags.of_entry(one.db, uuid) == ["green"]
    assert_equal(*four[:4])


def test_who_was_forked_says_of_another_that_it_is_gone_and_that_is_none_of_its_new_number(four):
    """It had the addition by the old one, and takes the state of who knows the new one."""
    a, b, c, d, uuid = four
    fork(c, b, d, uuid)
    known = [At(*row.id, row.seq) for row in streams.every(b.db) if row.device == c.uuid]
    epochs.begin_again(c.store, known)
    b.give_state(c)
    settle(a, b, c, d)
    a.tag(uuid, "mine")
    a.tell(c)
    copy = a.kept()
    a.note(uuid, b"user.other", b"forgotten")
    a.tell(b)
    a.put_back(copy)
    epochs.begin_again(a.store, [At(*row.id, row.seq) for row in streams.every(b.db) if row.device == a.uuid])
    b.tell(a)
    a.give_state(c)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert sorted(tags.of_entry(one.db, uuid)) == ["forgotten", "mine", "since"]
    assert_equal(a, b, c, d)


def test_an_author_that_is_in_a_later_epoch_hears_what_only_a_part_of_a_state_told(four):
    """Its copy was found out by the file that it lies in, not by what others knew."""
    a, b, c, d, uuid = four
    copy = a.kept()
    a.tag(uuid, "forgotten")
    a.give_state(b, is_whole=False)
    a.put_back(copy)
    epochs.new_epoch(a.store, epochs._said_seq(a.store), a.store.last_seq)
    forks = [At(device, epoch, SHARED, seq) for device, epoch, seq in gaps.forks(b.db)]
    assert not epochs.is_forgotten(a.store, forks)
    assert epochs.was_forked(a.store, forks)
    assert not epochs.was_forked(a.store, forks), "once"
    assert recalls.left(a.db) is None
    b.give_state(a)
    settle(a, b, c, d)
    for one in (a, b, c, d):
        assert tags.of_entry(one.db, uuid) == ["forgotten"]
        assert not gaps.forks(one.db)
        prune(one.store, [])
    assert_equal(a, b, c, d)
