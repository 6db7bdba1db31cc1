"""What devices tell each other, page by page, without a network."""

import msgpack
import pytest

from index.model import versions
from index.model.hlc import Hlc
from index.scan import meeting, recording
from index.store import (
    aliases,
    annotating,
    devices,
    entries,
    metadata,
    pending,
    places,
    recalls,
    registers,
    shared,
    streams,
    tags,
)
from index.store.pending import Held
from index.store.store import Store
from sync.log import claims, epochs, incoming, pages
from sync.log.messages import At
from sync.log.outgoing import tell_untold
from sync.log.pruning import prune
from sync.log.restamping import recall, restamp
from sync.wire.identity import Keys, uuid_of
from tests.sync.world import DIRECTORY, LIBRARY, LINK, Device, assert_equal, introduce, settle


@pytest.fixture
def pair(tmp_path):
    a, b = Device(tmp_path, "a"), Device(tmp_path, "b")
    introduce(a, b)
    yield a, b
    a.store.close()
    b.store.close()


def test_a_tree_arrives_as_it_is(pair):
    a, b = pair
    root = a.branch(b"Photos")
    sub = a.add(root, b"2026", DIRECTORY)
    a.add(sub, b"beach.jpg", data=b"sand")
    a.add(sub, b"empty")
    a.add(root, b"link", LINK, b"2026/beach.jpg")
    settle(a, b)
    assert b.tree(a.uuid).keys() == {b"2026", b"2026/beach.jpg", b"2026/empty", b"link"}
    assert_equal(a, b)


def test_tags_and_attributes_arrive_both_ways(pair):
    a, b = pair
    root = a.branch(b"Photos")
    uuid = a.uuid_of(a.add(root, b"beach.jpg", data=b"sand"))
    a.tag(uuid, "sea", "sun")
    settle(a, b)
    assert tags.of_entry(b.db, uuid) == ["sea", "sun"]
    b.untag(uuid, "sea")
    b.note(uuid, b"user.note", b"of b")
    a.note(uuid, b"user.note", b"of a, later")
    settle(a, b)
    assert tags.of_entry(a.db, uuid) == ["sun"]
    assert_equal(a, b)


def test_moves_over_each_other_arrive_whatever_is_told_first(pair):
    a, b = pair
    root = a.branch(b"Files")
    one, two = a.add(root, b"one", DIRECTORY), a.add(root, b"two", DIRECTORY)
    file = a.add(one, b"file", data=b"x")
    settle(a, b)
    ino = {path: entries.by_uuid(b.db, a.uuid_of(i))[0].node for path, i in ((b"one", one), (b"file", file))}
    a.move(one, two, b"below")  # a directory into its neighbour
    a.move(two, one, b"/")  # whose place it then takes
    a.move(two, root, b"one")
    a.move(file, root, b"two")
    a.add(one, b"file", data=b"new under the old name")
    settle(a, b, limit=1)
    assert_equal(a, b)
    assert entries.by_uuid(b.db, a.uuid_of(file))[0].node == ino[b"file"]
    assert entries.by_uuid(b.db, a.uuid_of(one))[0].node == ino[b"one"]


def test_what_is_removed_goes_and_what_was_moved_out_before_stays(pair):
    a, b = pair
    root = a.branch(b"Files")
    one = a.add(root, b"one", DIRECTORY)
    kept, gone = a.add(one, b"kept", data=b"k"), a.add(one, b"gone", data=b"g")
    settle(a, b)
    node = entries.by_uuid(b.db, a.uuid_of(kept))[0].node
    a.move(kept, root, b"kept")
    a.remove(one)
    a.move(kept, root, b"kept elsewhere")
    settle(a, b, limit=1)
    assert b.tree(a.uuid).keys() == {b"kept elsewhere"}
    assert entries.by_uuid(b.db, a.uuid_of(kept))[0].node == node
    assert_equal(a, b)
    assert gone


def test_a_third_device_gets_everything_from_the_second(tmp_path):
    a, b, c = (Device(tmp_path, name) for name in "abc")
    introduce(a, b, c)
    root = a.branch(b"Files")
    for number in range(20):
        uuid = a.uuid_of(a.add(root, b"f%d" % number, data=b"%d" % number))
        a.tag(uuid, f"tag {number % 3}")
    settle(a, b)
    settle(b, c)
    assert c.rows_of(a.uuid) == a.rows_of(a.uuid)
    settle(a, b, c)
    assert_equal(a, b, c)


def test_a_page_that_somebody_else_signed_is_refused(pair):
    a, b = pair
    a.branch(b"Files")
    a.out.keys = Keys(b"x" * 32)
    page = a.out.owned(0)
    with pytest.raises(Exception, match="not signed"):
        b.into.proven(page.head, page.body)


def test_pruned_operations_are_replaced_by_the_current_state(tmp_path):
    a, b, c = (Device(tmp_path, name) for name in "abc")
    introduce(a, b, c)
    root = a.branch(b"Files")
    uuid = a.uuid_of(a.add(root, b"f", data=b"1"))
    a.tag(uuid, "kept", "removed")
    settle(a, b)
    a.untag(uuid, "removed")
    settle(a, b)
    for one, other in ((a, b), (b, a)):
        one.acknowledge(other)
        one.prune()
    settle(a, b, c)
    assert tags.of_entry(c.db, uuid) == ["kept"]
    assert_equal(a, b, c)


def test_the_same_file_met_apart_is_one_for_all(pair):
    a, b = pair
    roots = {one: one.branch(b"Photos") for one in pair}
    uuids = {}
    for one in pair:
        sub = one.add(roots[one], b"2026", DIRECTORY)
        uuids[one] = one.uuid_of(one.add(sub, b"beach.jpg", data=b"sand"))
        one.tag(uuids[one], f"of {one.name}")
    settle(a, b)
    assert_equal(a, b)
    kept = min(uuids.values())
    assert sorted(tags.of_entry(a.db, kept)) == ["of a", "of b"]
    assert {row.uuid for row in entries.by_uuid(b.db, kept)} == {kept}
    assert len(entries.by_uuid(b.db, kept)) == 2


# what the simulation found ------------------------------------------------------------------------------------------


def test_rows_that_wait_for_one_location_are_all_made(tmp_path):
    """Branches of two devices are told of before the location that they hold."""
    a, b, c = (Device(tmp_path, name) for name in "abc")
    introduce(a, b, c)
    a.branch(b"Files")
    a.tell(b)
    b.branch(b"Files")
    told = {one: one.out.shared(0) for one in (a, b)}
    with c.store.write("test") as unit:
        for one in (a, b):
            ops = [shared.Op(*op) for op in pages.plain(told[one]) if op[3:5] == ["register", "set"]]
            shared.merge(unit, one.uuid, [op for op in ops if op.key[0] in ("branch", "device")])
        ops = [shared.Op(*op) for op in pages.plain(told[a])]
        shared.merge(unit, a.uuid, [op for op in ops if op.model == "register" and op.key[0] == "location"])
    assert {row.device_uuid for row in places.branches(c.db)} == {a.uuid, b.uuid}
    for one in (a, b, c):
        one.store.close()


def test_a_row_that_comes_before_its_directory_takes_nobodys_place(pair):
    """It waits until its name is free, and whoever is told later stays where he was told to be."""
    a, b = pair
    root = a.branch(b"Files")
    one, two = a.add(root, b"one"), a.add(root, b"two", DIRECTORY)
    settle(a, b)
    with a.store.write("test") as unit:
        recording.set_rule(unit, entries.get(unit.db, two), 1)
    settle(a, b)
    three = a.add(two, b"name")
    settle(a, b)
    with a.store.write("test") as unit:
        recording.set_rule(unit, entries.get(unit.db, two), 0)
        recording.swap_names(unit, entries.get(unit.db, one), entries.get(unit.db, three))
    a.move(three, root, b"one")  # told in a later unit, from where it is
    settle(a, b, limit=2)
    assert_equal(a, b)


def ahead_of(device):
    """What a device would tell others of their stamps, by theirs."""
    limit = Hlc(device.store.now_ms() + incoming.DRIFT_MS, 0).packed()
    return dict(pending.earliest_aside(device.db, limit))


def hidden(device, root, name=b".hidden"):
    """A file that a rule holds back from its first moment."""
    with device.store.write("test") as unit:
        row = device.row(unit, entries.get(unit.db, root).branch_id, root, name, 0o100644)
        entries.set_rule(unit.db, row.id, 1, unit.seq)
    return row.id


def test_a_tag_on_what_a_rule_holds_back_is_told_when_that_is(pair):
    a, b = pair
    root = a.branch(b"Files")
    settle(a, b)
    held = hidden(a, root)
    uuid = a.uuid_of(held)
    a.tag(uuid, "secret")
    a.note(uuid, b"user.note", b"secret")
    settle(a, b)
    assert not tags.of_entry(b.db, uuid)
    with a.store.write("test") as unit:
        recording.set_rule(unit, entries.get(unit.db, held), 0)
    tell_untold(a.store)
    settle(a, b)
    assert tags.of_entry(b.db, uuid) == ["secret"]
    assert_equal(a, b)


def test_much_that_waited_for_a_rule_is_told_in_steps(pair):
    """Each is a unit of its own, so that nobody waits for all of them; what is held still is passed over."""
    a, b = pair
    root = a.branch(b"Files")
    settle(a, b)
    held = [hidden(a, root, b".%d" % number) for number in range(1500)]
    uuids = [a.uuid_of(one) for one in held]
    with a.store.write("test") as unit:
        for uuid in uuids:
            annotating.add_tag(unit, uuid, "secret")
    for some in held[1000:], held[:1000]:
        before = a.store.last_seq
        assert not tell_untold(a.store)[1]
        with a.store.write("test") as unit:
            for one in some:
                recording.set_rule(unit, entries.get(unit.db, one), 0)
        after, has_told = tell_untold(a.store)
        while after or has_told:
            after, has_told = tell_untold(a.store, after)
        said = "SELECT count(DISTINCT key) FROM outbox WHERE seq>? AND model='tagging' GROUP BY seq"
        told = [count for (count,) in a.db.execute(said, (before,))]
        assert sum(told) == len(some)
        assert max(told) <= 100
        settle(a, b)
        assert sum(bool(tags.of_entry(b.db, uuid)) for uuid in uuids) == (500 if some == held[1000:] else 1500)
    assert_equal(a, b)


def test_what_another_has_heard_of_is_told_though_it_is_gone_by_then(pair):
    """It was held back, then was not for a moment, in which the other one tagged it."""
    a, b = pair
    root = a.branch(b"Files")
    settle(a, b)
    held = hidden(a, root)
    uuid = a.uuid_of(held)
    a.tag(uuid, "of a")
    with a.store.write("test") as unit:
        recording.set_rule(unit, entries.get(unit.db, held), 0)
    settle(a, b)
    a.remove(held)
    b.tag(uuid, "of b")
    settle(a, b)
    tell_untold(a.store)
    settle(a, b)
    assert sorted(tags.of_entry(b.db, uuid)) == ["of a", "of b"]
    assert_equal(a, b)


def test_a_tag_on_what_a_rule_holds_back_outlives_the_state_of_another(pair):
    """The other one has heard of all that was said up to there, and has not that tag."""
    a, b = pair
    held = hidden(a, a.branch(b"Files"))
    uuid = a.uuid_of(held)
    a.tag(uuid, "secret")
    a.note(b"u" * 16, b"user.note", b"told")
    settle(a, b)
    b.give_state(a)
    assert tags.of_entry(a.db, uuid) == ["secret"]


def test_a_state_holds_what_others_said_of_what_a_rule_holds_back(pair):
    """b finds out that its file is one with a's, which a has tagged and nobody was told of here."""
    a, b = pair
    known = a.uuid_of(a.add(a.branch(b"Files"), b"f"))
    a.tag(known, "of a")
    a.note(known, b"user.note", b"of a")
    settle(a, b)
    secret = b.uuid_of(hidden(b, b.branch(b"Files")))
    b.tag(secret, "of b")
    with b.store.write("test") as unit:
        annotating.join(unit, known, secret)
    b.give_state(a)
    kept = aliases.canon(a.db, known)
    assert tags.of_entry(a.db, kept) == ["of a"]
    tell_untold(b.store)
    settle(a, b)
    assert sorted(tags.of_entry(a.db, kept)) == ["of a", "of b"]
    assert_equal(a, b)


def test_what_was_stamped_by_a_clock_that_ran_ahead_counts_as_of_now(tmp_path):
    """Others put it aside; told so, the device says which stamps it has, and later writes of others win."""
    ahead_ns = [86_400 * 10**9]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + 10**9)
    introduce(a, b)
    uuid = b"u" * 16
    a.note(uuid, b"user.note", b"of tomorrow")
    a.tag(uuid, "tomorrow")
    settle(a, b)
    assert metadata.get(b.db, uuid, b"user.note") is None
    ahead_ns[0] = 0
    assert restamp(a.store, aside_hlc=0)
    settle(a, b)
    b.into.release()
    assert metadata.get(b.db, uuid, b"user.note") == b"of tomorrow"
    b.note(uuid, b"user.note", b"later")
    settle(a, b)
    assert_equal(a, b)
    assert metadata.get(a.db, uuid, b"user.note") == b"later"
    a.store.close()
    b.store.close()


def test_what_nobody_was_told_of_is_no_proof_that_a_stamp_was_believed(tmp_path):
    """A file that a rule holds back was tagged first, with a stamp of tomorrow, like what is told."""
    ahead_ns = [0]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + 10**9)
    introduce(a, b)
    held = hidden(a, a.branch(b"Files"))
    settle(a, b)
    ahead_ns[0] = 86_400 * 10**9
    secret, known = a.uuid_of(held), b"u" * 16
    a.note(secret, b"user.note", b"secret")
    a.note(known, b"user.note", b"of tomorrow")
    settle(a, b)
    ((author, aside_hlc),) = ahead_of(b).items()
    assert author == a.uuid
    ahead_ns[0] = 0
    assert restamp(a.store, aside_hlc)
    assert a.store.last_hlc.time_ms < 10**12 + incoming.DRIFT_MS
    assert not restamp(a.store, aside_hlc)
    settle(a, b)
    b.into.release()
    assert metadata.get(b.db, known, b"user.note") == b"of tomorrow"
    with a.store.write("test") as unit:
        recording.set_rule(unit, entries.get(unit.db, held), 0)
    tell_untold(a.store)
    settle(a, b)
    assert metadata.get(b.db, secret, b"user.note") == b"secret"
    assert_equal(a, b)
    a.store.close()
    b.store.close()


def test_who_did_not_believe_that_a_stamp_was_given_up_is_told_so_again(tmp_path):
    """One whose clock ran ahead, too, believed what came first, and let it have another stamp of the future."""
    ahead_ns, further_ns = [86_400 * 10**9], [86_400 * 10**9]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + further_ns[0])
    c = Device(tmp_path, "c", lambda: 10**18)
    introduce(a, b, c)
    a.note(b"u" * 16, b"user.note", b"believed")
    settle(a, b)
    further_ns[0] = 0
    a.note(b"v" * 16, b"user.note", b"put aside")
    settle(a, b)
    ahead_ns[0] = 0
    assert restamp(a.store, ahead_of(b)[a.uuid])
    settle(a, b, c)
    for _ in range(4):
        for other in (b, c):
            if (aside_hlc := ahead_of(other).get(a.uuid)) is not None:
                restamp(a.store, aside_hlc)
        settle(a, b, c)
    for other in (b, c):
        while other.into.release():
            pass
        assert a.uuid not in ahead_of(other)
        assert metadata.get(other.db, b"u" * 16, b"user.note") == b"believed"
        assert metadata.get(other.db, b"v" * 16, b"user.note") == b"put aside"
    last_seq = a.store.last_seq
    assert not restamp(a.store, max(pending.moved_of(a.db, a.uuid)))
    assert a.store.last_seq == last_seq, "what is said already is not said again"
    for one in (a, b, c):
        one.store.close()


def test_what_is_said_after_stamps_were_given_up_comes_after_what_was_seen(tmp_path):
    """The clock of the other one is five minutes ahead, which all believe."""
    ahead_ns = [86_400 * 10**9]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + 300 * 10**9)
    introduce(a, b)
    uuid = b"u" * 16
    b.note(uuid, b"user.note", b"of b")
    a.note(uuid, b"user.other", b"of tomorrow")
    settle(a, b)
    ahead_ns[0] = 0
    assert restamp(a.store, ahead_of(b)[a.uuid])
    a.note(uuid, b"user.note", b"of a, later")
    settle(a, b)
    assert [metadata.get(one.db, uuid, b"user.note") for one in (a, b)] == [b"of a, later"] * 2
    a.store.close()
    b.store.close()


def test_a_stamp_that_was_believed_is_told_ahead_when_another_is_put_aside(tmp_path):
    """Else what its device says from then on would be stamped after it, in the future, and be put aside for ever."""
    ahead_ns = [7200 * 10**9]
    a, b = (Device(tmp_path, name, lambda: 10**18 + ahead_ns[0]) for name in "ab")
    introduce(a, b)
    a.note(b"u" * 16, b"user.note", b"believed")
    settle(a, b)
    ahead_ns[0] = 0
    a.note(b"v" * 16, b"user.note", b"put aside")
    settle(a, b)
    assert restamp(a.store, ahead_of(b)[a.uuid])
    settle(a, b)
    while b.into.release():
        pass
    assert metadata.get(b.db, b"v" * 16, b"user.note") == b"put aside"
    assert not ahead_of(b)
    a.store.close()
    b.store.close()


def test_a_stamp_of_the_future_is_given_up_though_its_device_has_forgotten_it(tmp_path):
    """All had heard of it, and put it aside; it was no reason to keep it when something else was said."""
    ahead_ns, later_ns = [86_400 * 10**9], [0]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0] + later_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + later_ns[0])
    introduce(a, b)
    for value in (b"first", b"second"):
        a.note(b"u" * 16, b"user.note", value)
        settle(a, b)
        prune(a.store, [])
    ahead_ns[0] = 0
    assert restamp(a.store, ahead_of(b)[a.uuid], pending.stamps_aside(b.db, a.uuid, 100))
    settle(a, b)
    for _ in range(2):
        while b.into.release():
            pass
        assert metadata.get(b.db, b"u" * 16, b"user.note") == b"second"
        later_ns[0] = 3 * 86_400 * 10**9
    assert_equal(a, b)
    a.store.close()
    b.store.close()


def test_what_was_said_over_before_others_heard_is_no_proof_that_a_stamp_was_believed(tmp_path):
    """Who takes the current state knows the last of them alone, and names that."""
    ahead_ns = [0]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18)
    introduce(a, b)
    settle(a, b)
    ahead_ns[0] = 86_400 * 10**9
    stamps = []
    for value in (b"first", b"second"):
        a.note(b"u" * 16, b"user.note", value)
        stamps.append(a.store.last_hlc.packed())
    ahead_ns[0] = 0
    assert restamp(a.store, stamps[1])
    assert pending.moved_of(a.db, a.uuid).keys() >= set(stamps)
    assert a.store.last_hlc.time_ms < 10**12 + incoming.DRIFT_MS
    settle(a, b)
    b.into.release()
    assert metadata.get(b.db, b"u" * 16, b"user.note") == b"second"
    assert not ahead_of(b)
    a.store.close()
    b.store.close()


def test_what_is_the_latest_after_all_is_said_once_more(pair):
    """What had been said over it gets an earlier stamp; others have forgotten what was there before."""
    a, b = pair
    uuid = b"u" * 16
    a.note(uuid, b"user.note", b"first")
    first = a.store.last_hlc.packed()
    settle(a, b)
    b.note(uuid, b"user.note", b"second")
    second = b.store.last_hlc.packed()
    settle(a, b)
    with b.store.write("test") as unit:
        pending.move_stamp(unit.db, unit.device, second, first - 1)
        unit.tell("stamp", "move", second, first - 1)
    settle(a, b)
    assert [metadata.get(one.db, uuid, b"user.note") for one in (a, b)] == [b"second"] * 2
    for _ in recall(a.into):
        pass
    settle(a, b)
    assert [metadata.get(one.db, uuid, b"user.note") for one in (a, b)] == [b"first"] * 2
    assert_equal(a, b)


def test_a_stamp_that_is_given_up_for_two_others_is_one_stamp(pair):
    """In whatever order that is heard, and also where the greater of them is known already."""
    a, _ = pair
    device, given_up, greater, least = b"d" * 16, 1000, 25, 10
    for order in ((greater, least), (least, greater)):
        hlc = given_up + order[0]
        with a.store.note() as db:
            db.execute(
                "INSERT INTO attribute VALUES(?, ?, ?, ?, ?)", (hlc.to_bytes(16, "big"), b"x", b"1", hlc, device)
            )
            for stamp in order:
                pending.move_stamp(db, device, hlc, stamp)
            assert {pending.stamp_of(db, device, one) for one in (hlc, greater, least)} == {least}
        assert a.db.execute("SELECT DISTINCT hlc FROM attribute WHERE device=?", (device,)).fetchall() == [(least,)]


def test_a_file_that_is_made_after_stamps_were_given_up_is_no_older_version(tmp_path):
    """Another device has one that had seen what was under the name before, of a clock that was a day ahead."""
    ahead_ns, later_ns = [0], [0]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0] + later_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + later_ns[0])
    introduce(a, b)
    here, there = a.branch(b"Photos"), b.branch(b"Photos")
    settle(a, b)
    ahead_ns[0] = 86_400 * 10**9
    first = a.add(here, b"beach.jpg", data=b"same")
    a.note(b"u" * 16, b"user.note", b"of tomorrow")
    a.tell(b)
    same = b.add(there, b"beach.jpg", data=b"same")
    with b.store.write("test") as unit:
        meeting.meet_own(unit, entries.get(unit.db, same))
    ahead_ns[0], later_ns[0] = 0, 10**9
    assert restamp(a.store, ahead_of(b)[a.uuid])
    a.tell(b)
    later_ns[0] = 2 * 10**9
    a.remove(first)
    again = a.add(here, b"beach.jpg", data=b"quite another")
    with a.store.write("test") as unit:
        recording.arrive(unit, entries.get(unit.db, again))
    new = versions.of(entries.get(a.db, again).version, b"")
    old = versions.of(entries.get(b.db, same).version, b"")
    assert len(old) == 2, "it had seen both"
    assert not versions.covers(old, new)
    uuid, path = a.store.device_uuid, a.store.path
    a.store.close()
    opened = Store(path, uuid, now_ns=lambda: 10**18 + 3 * 10**9)
    with opened.write("test") as unit:
        recording.new_bytes(unit, entries.get(unit.db, again), unit.branch_uuid(entries.get(unit.db, again).branch_id))
        assert unit.version > max(new.values())
    opened.close()
    b.store.close()


def test_a_copy_stamps_no_version_that_was_stamped_since_it_was_made(tmp_path):
    """Also where versions are stamped later than all else, since the clock was turned back before."""
    ahead_ns, later_ns = [0], [0]
    a = Device(tmp_path, "a", lambda: 10**18 + ahead_ns[0] + later_ns[0])
    b = Device(tmp_path, "b", lambda: 10**18 + later_ns[0])
    introduce(a, b)
    here = a.branch(b"Photos")
    settle(a, b)
    ahead_ns[0] = 86_400 * 10**9
    a.note(b"u" * 16, b"user.note", b"of tomorrow")
    a.tell(b)
    ahead_ns[0] = 0
    assert restamp(a.store, ahead_of(b)[a.uuid])
    settle(a, b)
    copy = a.kept()
    later_ns[0] = 3600 * 10**9
    stamps = []
    for name in (b"before", b"after"):
        row = entries.get(a.db, a.add(here, name, data=name))
        stamps += versions.of(row.version, b"").values()
        a.put_back(copy)
        later_ns[0] += 3600 * 10**9
    assert stamps[0] < stamps[1]
    a.store.close()
    b.store.close()


@pytest.mark.parametrize(("seq", "is_asked"), [(0, True), (5, False)], ids=["state", "log"])
def test_what_is_put_aside_of_a_state_had_the_place_of_another(pair, seq, is_asked):
    """It was the latest that was said; once its stamp is given up, what was said before it may be. Of a log all that
    was said is here."""
    a, _ = pair
    said = ("attribute", "set", [b"u" * 16, b"user.note"], b"1")
    with a.store.note() as db:
        pending.put_aside(db, 0, Held(b"d" * 16, seq, 0, 1000, said))
        pending.move_stamp(db, b"d" * 16, 1000, 10)
    assert (recalls.left(a.db) is None) == is_asked


def test_a_copy_gives_no_stamp_that_was_given_since_it_was_made(tmp_path):
    """By a machine whose clock is behind that of others, and which would begin where the copy ends."""
    a = Device(tmp_path, "a", lambda: 10**18)
    b = Device(tmp_path, "b", lambda: 10**18 + 300 * 10**9)
    introduce(a, b)
    b.note(b"u" * 16, b"user.note", b"of the present")
    settle(a, b)
    copy = a.kept()
    a.note(b"u" * 16, b"user.other", b"told")
    settle(a, b)
    a.put_back(copy)
    epochs.begin(a.store, "another file")
    a.note(b"u" * 16, b"user.other", b"since")
    settle(a, b)
    assert_equal(a, b)
    a.store.close()
    b.store.close()


def test_what_is_said_of_a_file_that_a_rule_holds_back_is_told_where_it_is_one_with_a_known_one(pair):
    a, b = pair
    root = a.branch(b"Photos")
    with a.store.write("test") as unit:
        held = a.row(unit, entries.get(unit.db, root).branch_id, root, b"x", 0o100644, b"sand").id
        entries.set_rule(unit.db, held, 1, unit.seq)
    a.identify(held, b"sand")
    a.tag(a.uuid_of(held), "of a")
    theirs = b.add(b.branch(b"Photos"), b"x", data=b"sand")
    known = b.uuid_of(theirs)
    b.tag(known, "of b")
    settle(a, b)
    known = aliases.canon(b.db, known)
    assert "of b" in tags.of_entry(a.db, known)
    b.remove(theirs)
    settle(a, b)
    a.untag(known, "of b")
    settle(a, b)
    assert "of b" not in tags.of_entry(b.db, known)
    tell_untold(a.store)
    settle(a, b)
    assert_equal(a, b)


@pytest.fixture
def slow_pair(tmp_path):
    """Two devices, the second of which has a clock that is a day behind."""
    a = Device(tmp_path, "a", lambda: 10**18 + 86_400 * 10**9)
    b = Device(tmp_path, "b", lambda: 10**18)
    introduce(a, b)
    settle(a, b)
    yield a, b
    a.store.close()
    b.store.close()


def aside(device):
    return device.db.execute("SELECT count(*) FROM quarantine").fetchone()[0]


def test_a_tag_that_is_taken_off_while_it_is_put_aside_does_not_come_when_its_time_has_come(slow_pair):
    a, b = slow_pair
    uuid = b"u" * 16
    a.tag(uuid, "tomorrow", "stays")
    settle(a, b)
    assert aside(b)
    assert tags.of_entry(b.db, uuid) == []
    a.untag(uuid, "tomorrow")
    for op in a.db.execute("SELECT seq, part, model, op, key, body FROM outbox ORDER BY seq DESC, part").fetchall():
        if (op[2], op[3]) == ("tagging", "remove"):  # by somebody whose clock is right
            with b.store.write("test") as unit:
                shared.merge(unit, a.uuid, [shared.Op.unpacked(op[0], op[1], 0, *op[2:])])
    b.store.now_ns = a.store.now_ns
    b.into.release()
    assert tags.of_entry(b.db, uuid) == ["stays"]


def test_a_tag_whose_removal_is_put_aside_as_well_does_not_come_whichever_is_due_first(slow_pair):
    """The removal has been given another stamp, an earlier one than the tag; both are of the past by then."""
    a, b = slow_pair
    uuid = b"u" * 16
    a.tag(uuid, "tomorrow", "stays")
    a.untag(uuid, "tomorrow")
    settle(a, b)
    said = dict(a.db.execute("SELECT op, hlc FROM outbox WHERE model='tagging'").fetchall())
    added_hlc, removed_hlc = said["add"], said["remove"]
    assert aside(b)
    for device in a, b:
        with device.store.write("test") as unit:
            pending.move_stamp(unit.db, a.uuid, removed_hlc, added_hlc - 1)
    b.store.now_ns = a.store.now_ns
    while b.into.release():
        pass
    assert tags.of_entry(b.db, uuid) == ["stays"]
    assert not aside(b)


def test_a_state_without_a_tag_that_is_put_aside_here_takes_it_off(slow_pair):
    a, b = slow_pair
    uuid = b"u" * 16
    a.tag(uuid, "tomorrow", "stays")
    settle(a, b)
    a.untag(uuid, "tomorrow")
    a.give_state(b)
    b.store.now_ns = a.store.now_ns
    b.into.release()
    assert tags.of_entry(b.db, uuid) == ["stays"]
    assert_equal(a, b)


def test_a_tag_that_a_state_told_before_its_time_is_here_once_and_goes_once(slow_pair):
    """What is put aside by one is believed by another, whose state tells it."""
    a, b = slow_pair
    uuid = b"u" * 16
    b.tag(b"v" * 16, "tomorrow")  # the tag is known
    settle(a, b)
    a.tag(uuid, "tomorrow")
    settle(a, b)
    a.give_state(b)
    assert list(pending.additions(b.db)) == []
    assert tags.of_entry(b.db, uuid) == ["tomorrow"]
    b.untag(uuid, "tomorrow")
    b.store.now_ns = a.store.now_ns
    b.into.release()
    assert tags.of_entry(b.db, uuid) == []


def test_a_removal_that_is_heard_before_what_is_put_aside_counts(slow_pair):
    a, b = slow_pair
    uuid = b"u" * 16
    a.tag(uuid, "tomorrow")
    (seq, part, key) = a.db.execute("SELECT seq, part, key FROM outbox WHERE model='tagging'").fetchone()
    with b.store.write("test") as unit:
        dot = [a.uuid, seq, part, 0, 0]
        shared.merge(unit, b"d" * 16, [shared.Op(1, 0, 1, "tagging", "remove", msgpack.unpackb(key), [dot])])
    settle(a, b)
    b.store.now_ns = a.store.now_ns
    b.into.release()
    assert tags.of_entry(b.db, uuid) == []


def test_a_removal_takes_away_no_other_operation_that_is_put_aside(slow_pair):
    a, b = slow_pair
    uuid = b"u" * 16
    a.note(uuid, b"user.note", b"of tomorrow")
    settle(a, b)
    before = aside(b)
    seq, part = b.db.execute("SELECT seq, part FROM quarantine ORDER BY seq DESC").fetchone()
    with b.store.write("test") as unit:
        dot = [a.uuid, seq, part, 0, 0]
        shared.merge(unit, b"d" * 16, [shared.Op(1, 0, 1, "tagging", "remove", [uuid, b"t" * 16], [dot])])
    assert aside(b) == before


def test_a_clock_that_runs_behind_gives_up_no_stamp_that_others_believe(slow_pair):
    """Only what somebody put aside, and later, is of the future."""
    _, b = slow_pair
    b.store.now_ns = lambda: 10**18 + 86_400 * 10**9
    b.note(b"u" * 16, b"user.note", b"of today")
    before = b.shared_rows()
    b.store.now_ns = lambda: 10**18
    assert not restamp(b.store, aside_hlc=b.store.last_hlc.packed() + 1)
    assert b.shared_rows() == before
    assert restamp(b.store, aside_hlc=0)
    assert b.shared_rows() != before


def test_a_stamp_that_is_given_up_twice_counts_as_the_last_whatever_is_heard_first(pair):
    """A clock that was put back by half first, and told again."""
    a, b = pair
    for moves in (((30, 20), (20, 10)), ((70, 60), (50, 40), (60, 50))):
        for hlc, stamp in moves:
            with b.store.note() as db:
                pending.move_stamp(db, a.uuid, hlc, stamp)
    assert pending.moved_of(b.db, a.uuid) == {30: 10, 20: 10, 70: 40, 60: 40, 50: 40}


def test_what_nobody_was_told_of_is_not_told_when_all_is_told_again(pair):
    """A device that came back from a copy says all that it has said; not what it has told nobody."""
    a, b = pair
    root = a.branch(b"Files")
    row = entries.get(a.db, a.add(root, b"secret"))
    with a.store.write("test") as unit:
        recording.set_rule(unit, row, 1)
    uuid = a.uuid_of(row.id)
    a.tag(uuid, "secret")
    a.note(uuid, b"user.note", b"secret")
    settle(a, b)
    epochs.begin_again(a.store, [])
    b.give_state(a)
    settle(a, b)
    assert tags.of_entry(b.db, uuid) == []
    assert metadata.get(b.db, uuid, b"user.note") is None


@pytest.fixture
def three(tmp_path):
    made = [Device(tmp_path, name) for name in "abc"]
    introduce(*made)
    settle(*made)
    yield made
    for device in made:
        device.store.close()


def card_of(device, uuid):
    return registers.fields_of(device.db, devices.MODEL, uuid).get("card")


def test_nobody_writes_over_the_card_of_another(three):
    """Neither by a page of his own nor by the state that he tells."""
    a, b, c = three
    good = card_of(a, c.uuid)
    forged = [b.keys.public_key, b.keys.static_key, b.keys.sign_static(), 1]
    with b.store.write("test") as unit:
        registers.put(unit, devices.MODEL, c.uuid, "card", forged)
    b.tell(a)
    assert card_of(a, c.uuid) == good
    b.give_state(a)
    assert card_of(a, c.uuid) == good


def test_nobody_writes_over_the_vouch_of_another(three):
    a, b, c = three
    field = claims.vouch_field(c.uuid)
    said = claims.vouched(LIBRARY, a.uuid, a.keys.public_key, a.keys.static_key)
    with c.store.write("test") as unit:
        registers.put(unit, devices.MODEL, a.uuid, field, c.keys.sign(said))
    settle(a, b, c)
    good = registers.fields_of(a.db, devices.MODEL, a.uuid)[field]
    with b.store.write("test") as unit:
        registers.put(unit, devices.MODEL, a.uuid, field, b"x" * 64)
    b.tell(a)
    assert registers.fields_of(a.db, devices.MODEL, a.uuid)[field] == good
    with b.store.note() as db:  # as if the one had said it whose it is
        db.execute("UPDATE register SET device=? WHERE field=?", (c.uuid, field))
    b.give_state(a)
    assert registers.fields_of(a.db, devices.MODEL, a.uuid)[field] == good


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_a_branch_that_an_old_copy_begins_once_more_has_one_top(tmp_path, is_elsewhere):
    """Its number may be that of the old one, or of another row by now."""
    a, b = Device(tmp_path, "a"), Device(tmp_path, "b")
    introduce(a, b)
    a.branch(b"Other")
    settle(a, b)
    copy = a.kept()
    a.add(a.branch(b"Files"), b"forgotten", data=b"1")
    settle(a, b)
    a.put_back(copy)
    known = [At(*row.id, row.seq, row.part_to, row.part_after) for row in streams.every(b.db)]
    epochs.begin_again(a.store, known)
    root = a.branch(b"Others" if is_elsewhere else b"Files")
    a.add(a.branch(b"Files") if is_elsewhere else root, b"f", data=b"2")
    settle(a, b)
    assert_equal(a, b)
    tops = b.db.execute("SELECT branch_id, id FROM entry WHERE parent_id IS NULL ORDER BY branch_id").fetchall()
    assert tops == b.db.execute("SELECT id, root_entry_id FROM branch ORDER BY id").fetchall()
    a.store.close()
    b.store.close()


def killed_while_it_clears_away(tmp_path, monkeypatch):
    """Two devices, of which the one came back from a copy without a branch, and the other was cut off in the middle of
    taking that branch down; and the number of its top."""
    monkeypatch.setattr(incoming, "_LOOKED_AT", 3)
    a, b = Device(tmp_path, "a"), Device(tmp_path, "b")
    introduce(a, b)
    a.add(a.branch(b"Other"), b"x")
    settle(a, b)
    copy = a.kept()
    root = a.branch(b"Files")
    for number in range(8):
        a.add(root, b"f%d" % number)
    settle(a, b)
    a.put_back(copy)
    epochs.begin_again(a.store, [At(*row.id, row.seq, row.part_to, row.part_after) for row in streams.every(b.db)])
    page = a.out.owned(streams.get(a.db, a.out.stream(streams.OWNED)).start_seq, 0, 0, 100)
    steps = b.into.take(b.into.proven(page.head, page.body))
    while not b.db.execute("SELECT 1 FROM detached d JOIN branch ON root_entry_id=d.entry_id").fetchone():
        next(steps)
    steps.close()
    return a, b, root


def tops(device):
    sql = "SELECT b.uuid, e.id IS NOT NULL FROM branch b LEFT JOIN entry e ON e.id=b.root_entry_id ORDER BY b.id"
    return dict(device.db.execute(sql).fetchall())


def test_a_top_that_was_on_its_way_out_is_there_again_when_it_is_told_again(tmp_path, monkeypatch):
    a, b, root = killed_while_it_clears_away(tmp_path, monkeypatch)
    assert a.branch(b"Files") == root
    settle(a, b, limit=100)
    a.add(root, b"later", data=b"3")
    settle(a, b, limit=100)
    assert list(tops(b).values()) == [1, 1]
    assert_equal(a, b)
    a.store.close()
    b.store.close()


def test_a_branch_whose_top_is_gone_has_none_and_who_shows_it_is_told(tmp_path, monkeypatch):
    a, b, _ = killed_while_it_clears_away(tmp_path, monkeypatch)
    b.heard.clear()
    settle(a, b, limit=100)
    (gone,) = (uuid for uuid, is_there in tops(b).items() if not is_there)
    row = next(row for row in places.branches(b.db) if row.uuid == gone)
    assert row.root_entry_id is None
    assert any((places.BRANCH, a.uuid + gone) in one.rows for one in b.heard)
    a.store.close()
    b.store.close()


def test_a_vouch_whose_cards_nobody_shows_is_passed_over(three):
    """What a card that is put aside shows is shown."""
    a, b, c = three
    keys = Keys(b"n" * 32)
    new, field, late = uuid_of(keys.public_key), claims.vouch_field(c.uuid), a.store.last_hlc.packed() + 1000

    def say(vouch: bytes) -> None:  # as if the one had said it whose it is
        with b.store.note() as db:
            row = (devices.MODEL, new, field, msgpack.packb(vouch), late, c.uuid)
            db.execute(
                "INSERT OR REPLACE INTO register(model, key, field, value, hlc, device) VALUES(?,?,?,?,?,?)", row
            )
        b.give_state(a)

    def heard() -> object:
        return registers.fields_of(a.db, devices.MODEL, new).get(field)

    good = c.keys.sign(claims.vouched(LIBRARY, new, keys.public_key, keys.static_key))
    for vouch in (b"x" * 64, good):
        say(vouch)
        assert heard() is None
    card = [keys.public_key, keys.static_key, keys.sign_static(), 1]
    said = ("register", "set", [devices.MODEL, new, "card"], msgpack.packb(card))
    with b.store.note() as db:
        pending.put_aside(db, 1, Held(b.uuid, 99, 0, Hlc(b.store.now_ms() + 10**9, 0).packed(), said))
    say(b"x" * 64)
    assert heard() is None
    say(good)
    assert heard() == good


def test_a_tag_that_is_known_in_both_continuations_is_one_tag(tmp_path):
    """An old copy told it once more, after a place that it had forgotten, before anybody found out."""
    a, b, c = (Device(tmp_path, name) for name in "abc")
    introduce(a, b, c)
    uuid = a.uuid_of(a.add(a.branch(b"Files"), b"f", data=b"1"))
    settle(a, b, c)
    a.tag(uuid, "red")
    copy = a.kept()
    settle(a, b)
    a.untag(uuid, "red")
    settle(a, b)
    a.put_back(copy)
    while a.store.last_seq <= streams.get(b.db, a.out.stream(streams.SHARED)).seq:
        a.kept()  # each start leaps
    a.note(uuid, b"user.note", b"since")
    assert a.tell(c), "c takes it for all that was ever said"
    known = [At(*row.id, row.seq, row.part_to, row.part_after) for row in streams.every(b.db)]
    assert epochs.is_forgotten(a.store, known)
    epochs.begin_again(a.store, known)
    c.tell(b)
    b.give_state(a)
    settle(a, b, c)
    assert tags.of_entry(c.db, uuid) == tags.of_entry(a.db, uuid)
    for one in (a, b, c):
        prune(one.store, [])
    assert_equal(a, b, c)
    for one in (a, b, c):
        one.store.close()


def test_a_tag_that_another_took_off_stays_off_when_an_old_copy_has_it(tmp_path):
    """The copy gives it another number; by the old one it was removed."""
    a, b, c = (Device(tmp_path, name) for name in "abc")
    introduce(a, b, c)
    uuid = a.uuid_of(a.add(a.branch(b"Files"), b"f", data=b"1"))
    a.tag(uuid, "red", "blue")
    settle(a, b, c)
    copy = a.kept()
    a.note(uuid, b"user.note", b"forgotten")
    settle(a, b)
    b.untag(uuid, "red")
    settle(a, b)
    a.put_back(copy)
    epochs.begin_again(a.store, [At(*row.id, row.seq, row.part_to, row.part_after) for row in streams.every(b.db)])
    settle(a, b, c)
    for one in (a, b, c):
        assert tags.of_entry(one.db, uuid) == ["blue"]
        prune(one.store, [])
    assert_equal(a, b, c)
    for one in (a, b, c):
        one.store.close()


def test_a_copy_that_nothing_tells_from_the_original_is_found_out(tmp_path):
    """What it had said comes back to it, and what it says since reaches all."""
    a, b = Device(tmp_path, "a"), Device(tmp_path, "b")
    introduce(a, b)
    uuid = a.uuid_of(a.add(a.branch(b"Files"), b"f", data=b"1"))
    settle(a, b)
    copy = a.kept()
    a.tag(uuid, "forgotten")
    settle(a, b)
    a.put_back(copy)
    a.tag(uuid, "since")
    known = [At(*row.id, row.seq, row.part_to, row.part_after) for row in streams.every(b.db)]
    assert epochs.is_forgotten(a.store, known)
    epochs.begin_again(a.store, known)
    assert not epochs.is_forgotten(a.store, [At(*row.id, row.seq) for row in streams.every(b.db) if row.kind == 1])
    settle(a, b)
    assert sorted(tags.of_entry(a.db, uuid)) == ["forgotten", "since"]
    assert_equal(a, b)
    a.store.close()
    b.store.close()
