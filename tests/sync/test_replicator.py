"""The log at work over real channels, with a clock that leaps."""

import pytest
import trio
import trio.testing

from index.store import tags
from tests.sync.linked import Node, connect, quiet, running
from tests.sync.world import DIRECTORY, assert_equal, introduce


@pytest.fixture
def nodes(tmp_path):
    made = [Node(tmp_path, name) for name in "abc"]
    introduce(*made)
    yield made
    for node in made:
        node.store.close()


def run(main):
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


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
