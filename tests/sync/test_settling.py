"""Settling: two devices that have said yes come to the same conclusion, write in their order, or change nothing."""

import contextlib

import msgpack
import pytest
import trio

from index.model.errors import LinkClosed, VdfsError
from index.store import changes, devices
from index.store.store import Store
from sync.log import claims
from sync.net.channel import Channel
from sync.net.shaking import shake_hands
from sync.peers.roster import Roster
from sync.peers.sessions import Session
from sync.peers.settling import Introduce, Introduced, Settling
from sync.wire.cards import DeviceCard
from sync.wire.codec import Codec
from sync.wire.handshake import answer_pairing, dial_pairing
from sync.wire.identity import DeviceIdentity, Keys, uuid_of
from sync.wire.pairing import Joining
from tests.fakes.memory import memory_pair

CODEC = Codec((Introduce, Introduced))
PSK = b"p" * 32


class Side:
    """One device: its store, its roster, and how often the disk was told of another id."""

    def __init__(self, directory, name: str) -> None:
        self.name = name
        keys = Keys(name.encode().ljust(32, b"."))
        self.identity = DeviceIdentity(uuid_of(keys.public_key), name, name, keys.public_key, 1, keys)
        self.store = Store(directory / f"{name}.db", self.identity.uuid)
        with self.store.write("test") as unit:
            devices.say(unit, self.identity.uuid, name, self.identity.card, "Linux")
        self.roster = Roster(self.store, self.identity)
        self.adopted: list[bytes] = []
        self.failure = ""
        self.session = Session(Joining(0.0))

    @property
    def library(self) -> bytes:
        stored = changes.get_meta(self.store.db, "library_uuid")
        assert stored == self.store.library_uuid
        return self.store.library_uuid

    def knows(self, other: "Side") -> bool:
        return self.roster.is_trusted(other.identity.uuid)

    def settling(self, card: DeviceCard, *, is_offering: bool) -> Settling:
        self.session = Session(Joining(0.0))
        return Settling(
            self.store, self.roster, lambda: self.adopted.append(self.store.library_uuid), self.session, card,
            is_offering=is_offering, port=1, library_name=f"of {self.name}",
        )  # fmt: skip


@pytest.fixture
def sides(tmp_path):
    made = [Side(tmp_path, name) for name in ("ann", "bob", "cat", "dan")]
    yield made
    for side in made:
        side.store.close()


def settle(offers: Side, joins: Side, *, cut_after: str = "") -> None:
    """Both to the end, whatever that is. `cut_after`: who dies once he has written."""

    async def one(side: Side, stream, exchange, *, is_offering: bool) -> None:
        secured = await shake_hands(stream, exchange)
        assert secured.card is not None
        settling = side.settling(secured.card, is_offering=is_offering)
        channel = Channel(stream, secured, CODEC, settling.heard)
        if cut_after == side.name:
            written = settling._write_down

            def write_and_die(*what, **how) -> None:
                written(*what, **how)
                raise LinkClosed("it died")

            settling._write_down = write_and_die
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            try:
                await settling.settle(channel)
            except* VdfsError as group:
                error: BaseException = group
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                side.failure = str(error)
                side.session.fail(str(error))
            await channel.close("done", grace_s=1.0)
            nursery.cancel_scope.cancel()

    async def main() -> None:
        here, there = memory_pair(1 << 16)
        async with trio.open_nursery() as nursery:
            answer = answer_pairing(offers.identity.keys, PSK, name=offers.name, os_name="Linux")
            dial = dial_pairing(joins.identity.keys, PSK, name=joins.name, os_name="Linux")
            nursery.start_soon(lambda: one(offers, here, answer, is_offering=True))
            nursery.start_soon(lambda: one(joins, there, dial, is_offering=False))

    for side in (offers, joins):
        side.failure = ""
    trio.run(main)  # threads sync the disk, so no clock that leaps


def test_the_library_is_that_of_who_offers(sides):
    """Where neither has other devices. Who joins writes the other id in the same transaction as the member."""
    ann, bob, *_ = sides
    kept = ann.library
    settle(ann, bob)
    assert ann.library == bob.library == kept
    assert (ann.adopted, bob.adopted) == ([], [kept])
    assert ann.knows(bob)
    assert bob.knows(ann)
    assert (ann.session.library, bob.session.library) == ("of ann", "of ann")
    assert ann.session.is_done
    assert bob.session.is_done


def test_the_library_that_has_devices_stays_whoever_offers(sides):
    ann, bob, cat, _ = sides
    settle(ann, bob)
    settle(cat, ann)
    assert cat.library == ann.library == bob.library
    assert cat.knows(ann)


def test_two_that_have_devices_stay_two(sides):
    ann, bob, cat, dan = sides
    settle(ann, bob)
    settle(cat, dan)
    before = [side.library for side in sides]
    settle(ann, cat)
    assert "neither can give way" in ann.failure
    assert "neither can give way" in cat.failure
    assert [side.library for side in sides] == before
    assert not ann.knows(cat)
    assert not cat.knows(ann)


def test_members_of_one_library_are_told_so(sides):
    ann, bob, *_ = sides
    settle(ann, bob)
    settle(bob, ann)
    assert "members of one library already" in ann.failure
    assert "members of one library already" in bob.failure


def test_a_vouch_never_comes_without_its_card(sides):
    """Also where that was told before: who takes a current state in between must find both in it."""
    ann, bob, *_ = sides
    settle(ann, bob)
    with ann.store.write("test") as unit:
        ann.roster.vouch(unit, bob.identity.uuid)
        seq = unit.seq
    keys = [msgpack.unpackb(key) for (key,) in ann.store.db.execute("SELECT key FROM outbox WHERE seq=?", (seq,))]
    vouch = claims.vouch_field(ann.identity.uuid)
    assert keys == [[devices.MODEL, bob.identity.uuid, field] for field in ("card", vouch)]


@pytest.mark.parametrize("dies", ["ann", "bob"])
def test_a_death_after_writing_is_put_right_by_pairing_again(sides, dies):
    """The side that stays has written first: nobody has moved to where he is not known."""
    ann, bob, *_ = sides
    settle(ann, bob, cut_after=dies)
    assert dies in (ann.name if ann.failure else "", bob.name if bob.failure else "")
    assert ann.knows(bob)
    assert (bob.library == ann.library) == (dies == "bob")
    settle(ann, bob)
    assert ann.knows(bob)
    assert bob.knows(ann)
    assert ann.library == bob.library


def test_what_fails_to_be_written_changes_nothing(sides):
    """Neither in the database nor in memory."""
    ann, bob, *_ = sides
    before = bob.library
    bob.roster.vouch = _breaks
    with contextlib.suppress(ExceptionGroup):
        settle(ann, bob)
    assert bob.library == before
    assert not bob.knows(ann)


def _breaks(*_) -> None:
    raise VdfsError("no room")
