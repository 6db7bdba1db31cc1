"""The log at work over real channels, with a clock that leaps."""

import pytest
import trio
import trio.testing

from index.store import metadata, recalls, streams, tags
from sync.log import following
from sync.log.events import Event
from sync.log.upkeep import PRUNE_S
from tests.sync.linked import Node, connect, made, quiet, run, running
from tests.sync.world import DIRECTORY, assert_equal, introduce


@pytest.fixture
def nodes(tmp_path):
    with made(tmp_path, "abc") as nodes:
        yield nodes


def test_what_one_has_the_other_gets_and_then_whatever_comes(nodes):
    a, b, _ = nodes

    async def main() -> None:
        root = a.branch(b"Photos")
        sub = a.add(root, b"2026", DIRECTORY)
        uuid = a.uuid_of(a.add(sub, b"beach.jpg", data=b"sand"))
        a.tag(uuid, "sea")
        async with running(a, b) as nursery:
            await connect(nursery, a, b)
            await quiet(a, b)
            assert_equal(a, b)
            b.tag(uuid, "from b")
            a.add(sub, b"later", data=b"later")
            await quiet(a, b)
            assert tags.of_entry(a.db, uuid) == ["sea", "from b"]
            assert_equal(a, b)
            assert a.replicator.state == b.replicator.state == "ready"

    run(main)


def test_changes_pass_through_the_middle(nodes):
    a, b, c = nodes

    async def main() -> None:
        root = a.branch(b"Files")
        async with running(a, b, c) as nursery:
            await connect(nursery, a, b)
            await connect(nursery, b, c)
            uuid = a.uuid_of(a.add(root, b"f", data=b"1"))
            a.tag(uuid, "x")
            await quiet(a, b, c)
            await quiet(a, b, c)
            c.tag(uuid, "of c")
            await quiet(a, b, c)
            await quiet(a, b, c)
            assert tags.of_entry(a.db, uuid) == ["x", "of c"]
            assert_equal(a, b, c)

    run(main)


def test_a_link_that_breaks_again_and_again_costs_nothing_but_time(nodes):
    a, b, _ = nodes

    async def main() -> None:
        root = a.branch(b"Files")
        for number in range(300):
            a.add(root, b"f%d" % number, data=b"%d" % number)
        async with running(a, b) as nursery:
            for bytes_until in range(2000, 42000, 4000):
                streams = await connect(nursery, a, b)
                await trio.sleep(0.05)
                streams[0].cut()
                await trio.sleep(bytes_until / 1e6)
            await connect(nursery, a, b)
            await quiet(a, b)
            assert_equal(a, b)

    run(main)


def test_what_somebody_told_who_was_put_out_since_is_no_fault_of_who_keeps_it(nodes):
    """It is handed on by who has not heard of that, and passed over; the link stays, and nobody waits for it."""
    one, two, gone = nodes

    async def main() -> None:
        gone.add(gone.branch(b"Gone"), b"late.txt", data=b"late")
        async with running(one, gone) as nursery:
            await connect(nursery, one, gone)
            await quiet(one, gone)
        two.into.key_of = lambda uuid: None if uuid == gone.uuid else two.key_of(uuid)
        two.into.is_out = lambda uuid: uuid == gone.uuid
        root = one.branch(b"Here")
        async with running(one, two) as nursery:
            await connect(nursery, two, one)
            await quiet(one, two)
            one.add(root, b"now.txt", data=b"now")
            await trio.sleep(5)
            await quiet(one, two)
            assert two.replicator.peers[one.uuid].channel.closed is None
            assert two.replicator.peers[one.uuid].is_up_to_date
        names = {bytes(name) for (name,) in two.db.execute("SELECT name FROM entry")}
        assert b"now.txt" in names
        assert b"late.txt" not in names

    run(main)


def test_whose_state_is_wanted_is_asked_when_he_is_back(nodes):
    """What a stamp of the future had made look old may be with one who is away by now, and with nobody else."""
    a, b, c = nodes

    async def main() -> None:
        uuid = c.uuid_of(c.add(c.branch(b"Files"), b"f", data=b"1"))
        c.note(uuid, b"user.note", b"of c")
        async with running(a, b, c) as nursery:
            await connect(nursery, a, c)
            await connect(nursery, b, c)
            await quiet(a, b, c)
        for one in (a, b):
            with one.store.note() as db:
                db.execute("DELETE FROM attribute")
        with a.store.note() as db:
            recalls.note_reason(db)
        async with running(a, b) as nursery:
            await connect(nursery, a, b)
            await quiet(a, b)
            await trio.sleep(5)
            assert recalls.left(a.db) == {c.uuid}
            assert metadata.get(a.db, uuid, b"user.note") is None
        async with running(a, c) as nursery:
            await connect(nursery, a, c)
            await quiet(a, c)
            await trio.sleep(5)
            assert recalls.left(a.db) == set()
            assert metadata.get(a.db, uuid, b"user.note") == b"of c"

    run(main)


def test_who_was_away_for_too_long_is_waited_for_no_more_and_comes_back_whole(tmp_path):
    """After ninety days what is kept for him goes. When he comes he takes the current state, loses nothing that he did
    meanwhile, and brings nothing back that was taken away."""
    now_ns = [10**18]
    a, b, c = nodes = [Node(tmp_path, name, lambda: now_ns[0]) for name in "abc"]
    introduce(*nodes)

    def kept() -> int:
        return a.db.execute("SELECT count(*) FROM outbox").fetchone()[0]

    async def main() -> None:
        root = a.branch(b"Files")
        file = a.add(root, b"f", data=b"1")
        gone = a.add(root, b"gone", data=b"2")
        uuid = a.uuid_of(file)
        a.tag(uuid, "old", "stays")
        async with running(*nodes) as nursery:
            for pair in ((a, b), (b, c), (a, c)):
                await connect(nursery, *pair)
            await quiet(*nodes)
        c.tag(uuid, "of c")
        async with running(a, b) as nursery:
            await connect(nursery, a, b)
            a.untag(uuid, "old")
            a.remove(gone)
            await quiet(a, b)
            await trio.sleep(2 * PRUNE_S)
            assert kept(), "for who is expected to come back"
            now_ns[0] += streams.RETIRED_NS + 10**9
            await trio.sleep(2 * PRUNE_S)
            assert not kept()
            a.note(uuid, b"user.note", b"since")
            await quiet(a, b)
        async with running(*nodes) as nursery:
            for pair in ((a, b), (c, b), (a, c)):
                await connect(nursery, *pair)
            await quiet(*nodes)
            await trio.sleep(5)
            await quiet(*nodes)
        assert sorted(tags.of_entry(a.db, uuid)) == ["of c", "stays"]
        assert_equal(*nodes)

    run(main)
    for node in nodes:
        node.store.close()


def test_who_has_followed_for_as_long_as_one_may_asks_anew(nodes, monkeypatch):
    """The link stays, and nobody calls it a fault."""
    a, b, _ = nodes
    monkeypatch.setattr(following, "FOLLOW_S", 30.0)

    async def main() -> None:
        root = a.branch(b"Files")
        async with running(a, b) as nursery:
            await connect(nursery, a, b)
            await quiet(a, b)
            channel = b.replicator.peers[a.uuid].channel
            for at in range(3):
                await trio.sleep(following.FOLLOW_S)
                a.add(root, b"f%d" % at, data=b"1")
                await quiet(a, b)
            assert b.replicator.peers[a.uuid].channel is channel
            assert channel.closed is None
            assert_equal(a, b)
        assert not [one for node in (a, b) for one in node.events.lines if one.event == Event.ERROR]

    run(main)
