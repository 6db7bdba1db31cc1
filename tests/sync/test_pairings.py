"""Pairings that run behind: they end with who asks for them, one at a time, and what is secret ends with them."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from index.model.errors import NotFound, NotRunning, PairingRefused
from sync.peers.pairings import UNASKED_S, Pairings
from sync.peers.secrecy import Secrecy, is_dumpable
from sync.peers.sessions import Session
from sync.wire.cards import DeviceCard
from sync.wire.identity import Keys
from sync.wire.pairing import Offer, Secret

KEYS = Keys(b"k" * 32)
CARD = DeviceCard(KEYS.public_key, KEYS.static_key, b"s" * 64, "laptop", "Linux")


class Introductions:
    """Offers as `Introductions` makes them, without a network."""

    def __init__(self) -> None:
        self.made: list[Session] = []

    @asynccontextmanager
    async def offering(self):
        if self.made and not self.made[-1].is_over:
            raise PairingRefused("another pairing is under way here")
        secret = Secret.make()
        session = Session(Offer(secret, trio.current_time()), secret.words, "sdpair1x")
        self.made.append(session)
        yield session


def run(test) -> None:
    async def main() -> None:
        introductions = Introductions()
        pairings = Pairings(introductions)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pairings.run)
            await trio.testing.wait_all_tasks_blocked()
            await test(pairings, introductions)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


def test_it_ends_when_nobody_asks_for_it_any_more():
    async def test(pairings, _):
        number, session = await pairings.offer()
        for _ in range(10):  # as long as somebody asks it goes on
            await pairings.news(number, "open", UNASKED_S - 1)
            assert session.state == "open"
        await trio.sleep(UNASKED_S + 2)
        assert session.failure == "nobody waits for it any more"

    run(test)


def test_who_is_asked_about_a_device_may_take_his_time():
    async def test(pairings, _):
        _, session = await pairings.offer()
        offer = session.machine
        offer.begin(trio.current_time())
        session.note(offer.arrived(CARD, trio.current_time()))
        await trio.sleep(UNASKED_S * 3)
        assert session.state == "shown"

    run(test)


def test_one_that_is_followed_is_in_the_way_and_one_that_is_not_gives_way():
    async def test(pairings, introductions):
        number, first = await pairings.offer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pairings.news, number, "open", 10)
            await trio.sleep(5)
            with pytest.raises(PairingRefused):
                await pairings.offer()
            nursery.cancel_scope.cancel()  # its program was killed
        await trio.sleep(2)
        _, second = await pairings.offer()
        assert first.failure == "another pairing was begun"
        assert second.state == "open"
        assert introductions.made == [first, second]

    run(test)


def test_what_is_secret_ends_with_it():
    async def test(pairings, _):
        number, session = await pairings.offer()
        assert len(session.words) == 12
        pairings.end(number)
        assert (session.words, session.ticket) == ((), "")
        with pytest.raises(PairingRefused):
            _ = session.machine.psk
        with pytest.raises(NotFound):
            pairings.get(number)

    run(test)


def test_nobody_pairs_where_nothing_runs():
    async def main() -> None:
        with pytest.raises(NotRunning):
            await Pairings(Introductions()).offer()

    trio.run(main)


def test_there_is_no_core_file_while_a_secret_is_held():
    """And there may be one afterwards, as before; blocks overlap."""
    secrecy, before = Secrecy(), is_dumpable()
    with secrecy.undumped():
        assert is_dumpable() == 0
        with secrecy.undumped():
            pass
        assert is_dumpable() == 0
    assert is_dumpable() == before
