"""Large values: what is told fits into pages and parts, however much there is to tell."""

import os

import pytest
import trio

from index.store import metadata
from sync.log import epochs, outgoing
from sync.log.pages import BODY_MAX_BYTES
from sync.wire.codec import MAX_BODY_BYTES
from tests.sync.linked import connect, made, quiet, run, running
from tests.sync.world import assert_equal, settle

COUNT = 200


@pytest.fixture
def pair(tmp_path):
    with made(tmp_path, "ab") as (a, b):
        yield a, b


def write_notes(device) -> list[bytes]:
    """So much that nothing holds it at once, of bytes that nothing makes smaller; returns of which files."""
    uuids = [bytes([1, at]) * 8 for at in range(COUNT)]
    for uuid in uuids:
        device.note(uuid, b"user.note", os.urandom(60_000))
    assert COUNT * 60_000 > MAX_BODY_BYTES > BODY_MAX_BYTES
    return uuids


def follow(a, b) -> None:
    async def main() -> None:
        async with running(a, b) as nursery:
            await connect(nursery, a, b)
            await trio.sleep(1)
            await quiet(a, b)

    run(main)


def test_many_large_values_are_told_by_the_log(pair):
    a, b = pair
    settle(a, b)
    uuids = write_notes(a)
    page = next(a.pages_for(b, limit=outgoing.PAGE_ROWS))
    assert len(page.body) < outgoing.PAGE_BYTES * 1.2
    follow(a, b)
    assert all(metadata.get(b.db, uuid, b"user.note") for uuid in uuids)
    assert_equal(a, b)


def test_many_large_values_are_told_by_a_state(pair):
    a, b = pair
    uuids = write_notes(a)
    a.prune()
    follow(a, b)
    assert all(metadata.get(b.db, uuid, b"user.note") for uuid in uuids)
    assert_equal(a, b)


def test_all_that_is_said_again_after_a_fork_fits_into_pages(pair):
    a, b = pair
    settle(a, b)
    write_notes(a)
    with a.store.write("test") as unit:
        epochs.say_gone(unit, [])
    before = a.store.last_seq
    assert sum(1 for _ in epochs.say_all_again(a.store)) > COUNT * 60_000 // (1 << 20)
    assert not list(epochs.say_all_again(a.store)), "once"
    sql = "SELECT max(n) FROM (SELECT sum(length(body)) AS n FROM outbox WHERE seq>? GROUP BY seq)"
    assert a.db.execute(sql, (before,)).fetchone()[0] < outgoing.PAGE_BYTES
    follow(a, b)
    assert_equal(a, b)
