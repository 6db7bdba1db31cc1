"""All rows of a device told anew, over real channels: who asks for that, who tells it, and that it has an end."""

import os
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from index.model.errors import PageRefused
from index.store import recalls, streams
from sync.log.messages import At, Behind
from tests.sync.linked import connect, made, quiet, run, running
from tests.sync.world import assert_equal, settle


@pytest.fixture
def nodes(tmp_path):
    with made(tmp_path, "abcd") as nodes:
        yield nodes


def rows_of(node):
    """The stream of a device's rows."""
    return next(one for one in node.keeper.places() if one.device == node.uuid and one.kind == streams.OWNED)


@asynccontextmanager
async def told(author, other):
    """The root of a branch of a device with one file, and where the one stands in its rows whom it told that."""
    root = author.branch(b"Files")
    author.add(root, b"f", data=b"1")
    async with running(author, other) as nursery:
        await connect(nursery, author, other)
        await quiet(author, other)
        yield root, other.keeper.places()[rows_of(author)]


class Slowly:
    """A mount that somebody works at: each step of a page takes its time."""

    is_used = True

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    @asynccontextmanager
    async def turn(self):
        await trio.sleep(self.seconds)
        yield


def test_who_is_told_to_begin_anew_does_not_where_another_has_told_it_more_meanwhile(nodes):
    """Else all of that would come once more, or, from somebody who counts on what it had, never."""
    a, b, _, _ = nodes

    async def main() -> None:
        async with told(a, b) as (_, here):
            following, peer = b.replicator.following, b.replicator.peers[a.uuid]
            assert not await following._hear(peer, Behind(attrs.evolve(here, seq=here.seq - 1), is_rewound=True))
            assert b.keeper.places()[here.stream] == here
            await trio.sleep(1)
            us = a.replicator.peers[b.uuid]
            assert us.have[here.stream] == here.seq
            assert not await following._hear(peer, Behind(here, is_rewound=True))
            assert b.keeper.places()[here.stream].seq == 0
            us.stand((attrs.evolve(here, seq=0),))
            assert (us.places[here.stream].seq, us.have[here.stream]) == (0, 0)

    run(main)


def test_who_is_told_to_begin_anew_in_the_middle_of_a_page_goes_on(nodes):
    """The place moves at the end of a page only: until then it looks as if nothing had come."""
    a, b, _, _ = nodes

    async def main() -> None:
        async with told(a, b) as (root, here):
            b.replicator.following.pace = Slowly(0.5)
            for number in range(200):
                a.add(root, b"new %d" % number)
            with trio.move_on_after(20):  # the clock jumps while a slow disk is waited for
                while not b.replicator.hub.applying.locked():  # noqa: ASYNC110
                    await trio.sleep(0.01)  # until the first step of what came waits for its turn
            assert b.replicator.hub.applying.locked()
            peer = b.replicator.peers[a.uuid]
            await b.replicator.following._hear(peer, Behind(here, is_rewound=True))
            assert b.keeper.places()[here.stream].seq > here.seq
            await quiet(a, b)
        assert_equal(a, b)

    run(main)


def test_two_who_keep_all_rows_as_of_different_moments_do_not_make_a_third_begin_again_and_again(nodes):
    a, b, c, d = nodes
    root = a.branch(b"Files")
    for number in range(1000):
        a.add(root, b"%d" % number + os.urandom(60).hex().encode())
    settle(a, b, limit=50)
    a.add(root, b"later")
    settle(a, b, c, limit=50)
    d.replicator.following.pace = Slowly(0.3)

    async def main() -> None:
        async with running(b, c, d) as nursery:
            await connect(nursery, b, d)
            await connect(nursery, c, d)
            with trio.fail_after(120):
                while d.keeper.places().get(rows_of(a)) != b.keeper.places()[rows_of(a)]:  # noqa: ASYNC110
                    await trio.sleep(1)

    run(main)
    assert streams.get(d.db, rows_of(a)).round < 5
    assert a.tree(a.uuid) == d.tree(a.uuid)


def test_what_was_to_be_told_anew_by_one_who_is_gone_is_told_by_another(nodes):
    a, b, c, _ = nodes
    root = a.branch(b"Files")
    for number in range(20):
        a.add(root, b"f%d" % number)
    settle(a, b, c, limit=5)

    async def main() -> None:
        async with running(a, b, c) as nursery:
            await connect(nursery, a, b)
            await connect(nursery, c, b)
            await quiet(a, b, c)
            b.replicator.hub.rewind(rows_of(a))
            b.replicator.peers[a.uuid].channel.end("lost")
            assert not any(peer.is_up_to_date for peer in b.replicator.peers.values())
            await trio.sleep(30)
            assert await b.replicator.lacks() == []
            assert b.replicator.peers[c.uuid].is_up_to_date
        assert streams.kept_pages(b.db, rows_of(a))
        assert_equal(a, b)

    run(main)


def test_whose_state_cannot_be_had_keeps_nobody_else_waiting(nodes):
    """Nor does he who is away: an idle device writes nothing."""
    a, b, c, _ = nodes
    settle(*nodes)
    first, second = sorted((b, c), key=lambda one: one.uuid)
    asked = []
    take = a.replicator.backfill.take

    async def fails(peer) -> None:
        asked.append(peer.device)
        if peer.device == first.uuid:
            raise PageRefused("a part of it makes no sense")
        await take(peer)

    async def main() -> None:
        a.replicator.backfill.take = fails
        with a.store.note() as db:
            recalls.note_reason(db)
        async with running(a, b, c) as nursery:
            await connect(nursery, a, b)
            await connect(nursery, a, c)
            await trio.sleep(20)
            assert asked == [first.uuid, second.uuid]
            before = a.store._commits
            await trio.sleep(300)
            assert a.store._commits - before < 30
        assert asked.count(second.uuid) == 1
        assert 5 < asked.count(first.uuid) < 15

    run(main)


def test_who_hears_again_and_again_of_more_than_it_knows_to_have_said_is_one_of_two(nodes):
    """Somebody who comes back from an old copy hears that once: at the third time it is said what is the matter."""
    a, b, _, _ = nodes
    hub = a.replicator.hub

    def says_so() -> bool:
        return any("another machine" in line.text for line in hub.events.lines)

    async def main() -> None:
        async with told(a, b):
            peer = a.replicator.peers[b.uuid]
            for number in range(3):
                assert not says_so(), number
                ahead = At(a.uuid, a.store.epoch + 1, streams.SHARED, 10**6)
                await hub.spoken(peer, [ahead])
            assert says_so()
            await quiet(a, b)
        assert_equal(a, b)

    run(main)
