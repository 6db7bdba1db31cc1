"""Large values: what is told fits into pages and parts, however much there is to tell at once."""

import os
from contextlib import asynccontextmanager

import pytest
import trio

from index.model.errors import Deadline
from index.store import annotating, gaps, metadata, streams, tags
from sync.log import backfill, epochs, outgoing
from sync.log.hub import NoPace
from sync.log.pages import BODY_MAX_BYTES
from sync.wire.codec import MAX_BODY_BYTES
from tests.sync.linked import connect, made, quiet, run, running
from tests.sync.world import LINK, assert_equal, settle

COUNT = 200
UUIDS = [bytes([1, at]) * 8 for at in range(COUNT)]
FILE_UUID = b"F" * 16


@pytest.fixture
def pair(tmp_path):
    with made(tmp_path, "ab") as (a, b):
        yield a, b


def write_notes(device) -> list[bytes]:
    """So much that nothing holds it at once, of bytes that nothing makes smaller; returns of which files."""
    for uuid in UUIDS:
        device.note(uuid, b"user.note", os.urandom(60_000))
    assert COUNT * 60_000 > MAX_BODY_BYTES > BODY_MAX_BYTES
    return UUIDS


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


class SlowPace(NoPace):
    """Turns that wait, as those of a device that has much else to do."""

    @asynccontextmanager
    async def turn(self):
        await trio.sleep(1)
        yield


def test_who_is_slow_to_take_a_state_in_gets_all_of_it_nevertheless(pair, monkeypatch):
    """How long the other side is waited for is bounded, and not what is done with what came."""
    a, b = pair
    monkeypatch.setattr(backfill, "STATE_S", 3.0)
    uuids = write_notes(a)
    a.prune()
    b.replicator.backfill.pace = SlowPace()
    follow(a, b)
    assert all(metadata.get(b.db, uuid, b"user.note") for uuid in uuids)
    assert_equal(a, b)


def test_who_takes_too_long_to_tell_its_state_is_left(pair, monkeypatch):
    a, b = pair
    monkeypatch.setattr(backfill, "STATE_S", 3.0)
    write_notes(a)
    a.prune()
    told = a.replicator.backfill.give

    async def give(call) -> None:
        await trio.sleep(10)
        await told(call)

    a.replicator.backfill.give = give
    with pytest.raises(BaseExceptionGroup) as caught:
        follow(a, b)
    assert caught.group_contains(Deadline, match="too long")


def test_one_unit_that_says_more_than_a_page_holds_is_told(pair):
    a, b = pair
    settle(a, b)
    with a.store.write("test") as unit:
        for uuid in UUIDS:
            annotating.set_cell(unit, uuid, b"user.note", os.urandom(60_000))
            annotating.add_tag(unit, uuid, "many")
    follow(a, b)
    assert all(metadata.get(b.db, uuid, b"user.note") for uuid in UUIDS)
    assert all(tags.of_entry(b.db, uuid) == ["many"] for uuid in UUIDS)
    assert_equal(a, b)
    with b.store.write("test") as unit:
        for uuid in UUIDS:
            annotating.remove_tag(unit, uuid, "many")
    follow(a, b)
    assert not any(tags.of_entry(a.db, uuid) for uuid in UUIDS)
    assert_equal(a, b)


def test_many_operations_of_one_unit_are_taken_in_some_at_a_time(pair):
    a, b = pair
    settle(a, b)
    with a.store.write("test") as unit:
        for at in range(1800):
            annotating.add_tag(unit, at.to_bytes(16, "big"), "many")
    told = []
    for page in a.pages_for(b, limit=outgoing.PAGE_ROWS):
        told.append(page.facts.told)
        for _ in b.into.take(page):
            pass
    assert sum(told) > 1800
    assert max(told) <= outgoing.PAGE_OPS
    assert_equal(a, b)


def test_tags_that_one_unit_adds_by_several_numbers_keep_their_order(pair):
    a, b = pair
    settle(a, b)
    a.store.number_bytes = 1
    names = [f"tag {at}" for at in (5, 3, 9, 1, 7)]
    a.tag(FILE_UUID, *names)
    assert tags.of_entry(a.db, FILE_UUID) == names
    settle(a, b)
    assert tags.of_entry(b.db, FILE_UUID) == names
    with a.store.write("test") as unit:  # what a unit adds it can take off again
        annotating.add_tag(unit, FILE_UUID, "short-lived")
        annotating.remove_tag(unit, FILE_UUID, "short-lived")
    settle(a, b)
    assert tags.of_entry(b.db, FILE_UUID) == names
    assert_equal(a, b)


def test_what_lies_before_a_start_is_told_with_the_first_of_several_numbers(pair):
    a, b = pair
    a.tag(FILE_UUID, "one")
    settle(a, b)
    a.store.close()
    a.open()
    a.store.leap(a.store.last_seq + 1000)
    a.store.has_said, a.store.number_bytes = False, 1
    first = a.store.last_seq + 1
    a.tag(FILE_UUID, "two", "three", "four")
    assert a.store.last_seq > first + 3
    page = a.out.shared(streams.get(b.db, a.out.stream(streams.SHARED)).seq, limit=1)
    assert page.facts.to_seq == first
    for _ in b.into.take(page):
        pass
    assert gaps.holds(b.db, a.uuid, first - 1)
    assert not gaps.holds(b.db, a.uuid, first)
    settle(a, b)
    assert_equal(a, b)


@pytest.mark.parametrize("is_known", [False, True])
def test_many_links_that_lead_far_are_told(pair, is_known):
    a, b = pair
    top = a.branch(b"links")
    if is_known:
        settle(a, b)
    for at in range(outgoing.PAGE_ROWS + 10):
        a.add(top, b"%05d" % at, LINK, os.urandom(2000).hex().encode())
    follow(a, b)
    assert len(b.rows_of(a.uuid)) == outgoing.PAGE_ROWS + 11
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
