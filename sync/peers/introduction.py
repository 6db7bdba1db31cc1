"""Introduction: two devices that know a secret meet, and show each other to their persons.

The side that shows the words offers, the side that types them joins. Both shake hands with the secret, each shows the
other's card to its person, and each says yes or no (`pairing`, which has the rules and no I/O). Then they settle whose
library it is (`settling`) and link up as members from then on.

In: an offer, or words and perhaps addresses. Out: a `Session`, by which others see how it stands. One pairing at a
time, and no core file of this process meanwhile (`secrecy`).

Kept out: how the offer is found (`looking`), and for how long somebody has to ask for it (`pairings`).
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from index.model.errors import Invalid, LinkClosed, PairingRefused, VdfsError
from index.store import whereabouts
from index.store.store import Store
from sync.net.acceptor import REFUSED_S
from sync.net.addresses import Endpoint, is_dialable
from sync.net.channel import Channel
from sync.net.transport import Stream
from sync.peers.links import Links
from sync.peers.looking import Looking
from sync.peers.secrecy import Secrecy
from sync.peers.sessions import Session
from sync.peers.settling import Introduce, Introduced, Settling
from sync.wire.cards import DeviceCard
from sync.wire.codec import Codec
from sync.wire.handshake import Secured
from sync.wire.identity import uuid_of
from sync.wire.pairing import Event, Joining, Offer, Say, Secret, Ticket, Verdict

log = logging.getLogger("sdmount.sync")

_LISTEN_S: Final = 3.0
_GOODBYE_S: Final = 1.0

_CODEC: Final = Codec((Verdict, Introduce, Introduced))


class _Try:
    """Somebody tries the words of an offer."""

    def __init__(self, session: Session, offer: Offer) -> None:
        self._session = session
        self._offer = offer
        self.psk = offer.psk

    def failed(self) -> None:
        self._session.note(self._offer.failed())

    def dropped(self) -> None:
        self._offer.dropped()


class Introductions:
    """Used on the loop only. `adopt`: the database has another id of the library now."""

    def __init__(self, links: Links, adopt: Callable[[], None], library_name: Callable[[], str]) -> None:
        self.links = links
        self.store: Store = links.store
        self.identity = links.identity
        self.adopt = adopt
        self.library_name = library_name
        self.paired: Callable[[], None] = lambda: None
        self._current: Session | None = None
        self._offer: Offer | None = None
        self._secrecy = Secrecy()
        links.met = self._arrived
        links.offered = self._offered

    def _check_free(self) -> None:
        if self.links.is_out:
            raise PairingRefused(
                "this device was put out of the library, and its key serves no more; mount with a new data directory, "
                "which has a new one (sdmount --data-dir DIR …), and pair from there"
            )
        if self._current is not None and not self._current.is_over:
            raise PairingRefused("another pairing is under way here; end that one first (Ctrl-C where it runs)")

    # offering ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def offering(self) -> AsyncIterator[Session]:
        """An offer that is open while the block lasts."""
        self._check_free()
        links, secret = self.links, Secret.make(self.links.outside.bytes)
        offer = Offer(secret, trio.current_time())
        session = self._current = Session(offer, secret.words)
        links.offer_tag = secret.tag
        with self._secrecy.undumped(), links.needed():
            try:
                with trio.move_on_after(_LISTEN_S):
                    await links.listening()
                places = tuple((str(one.ip), links.port) for one in links.network.addresses if not one.ip.is_link_local)
                session.ticket = Ticket(secret, self.identity.uuid, places).text()
                self._offer = offer
                del secret
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._expire, session)
                    yield session
                    await session.last_words(2 * _GOODBYE_S)
                    self._withdraw(session)
                    await trio.sleep(REFUSED_S)  # whoever was refused is left standing as by any other port
                    nursery.cancel_scope.cancel()
            finally:
                session.fail("ended here")
                self._withdraw(session)

    def _withdraw(self, session: Session) -> None:
        """The words serve no more. Another offer may be open by now."""
        if self._current is session:
            self._offer = self.links.offer_tag = None
            self.links.refresh()

    async def _expire(self, session: Session) -> None:
        """It comes to an end by itself."""
        while not session.machine.is_over:
            await trio.sleep_until(session.machine.expires_s)
            session.note(session.machine.tick(trio.current_time()))

    def _offered(self) -> _Try | None:
        """The offer that is open, for one more try."""
        offer, session = self._offer, self._current
        if offer is None or session is None or session.is_over:
            return None
        try:
            offer.begin(trio.current_time())
        except PairingRefused:
            return None
        return _Try(session, offer)

    async def _arrived(self, stream: Stream, secured: Secured) -> None:
        offer, session = self._offer, self._current
        if offer is None or session is None or secured.card is None:
            raise LinkClosed("no offer is open")
        events = offer.arrived(secured.card, trio.current_time())
        await self._talk(session, stream, secured, secured.card, events, is_offering=True)

    # joining ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def joining(self, text: str, endpoints: tuple[Endpoint, ...] = ()) -> AsyncIterator[Session]:
        """Join by words or a ticket, while the block lasts; Invalid for what is neither."""
        if text.strip().lower().startswith("sdpair"):
            ticket = Ticket.of_text(text)
            secret, known = ticket.secret, tuple(Endpoint(host, port) for host, port in ticket.endpoints)
            is_own = ticket.device == self.identity.uuid
        else:
            secret, known = Secret.of_words(text), ()
            is_own = False
        if is_own or (self._offer is not None and secret.tag == self.links.offer_tag):
            raise Invalid("this is what this very device shows; use it on the other one")
        self._check_free()
        session = self._current = Session(Joining(trio.current_time()))
        self.links.looked_for = secret.tag
        with self._secrecy.undumped(), self.links.needed():
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._join, session, secret, (*endpoints, *known))
                    nursery.start_soon(self._expire, session)
                    del secret
                    yield session
                    await session.last_words(2 * _GOODBYE_S)
                    nursery.cancel_scope.cancel()
            finally:
                session.fail("ended here")
                self.links.looked_for = None

    async def _join(self, session: Session, secret: Secret, known: tuple[Endpoint, ...]) -> None:
        looking = Looking(self.links, secret, known)
        met = await looking.run()
        if met is None:
            session.note(session.machine.lost(looking.reason))
            return
        stream, secured, endpoint = met
        try:
            assert secured.card is not None
            events = session.machine.arrived(secured.card, trio.current_time())
            await self._talk(session, stream, secured, secured.card, events, is_offering=False, endpoint=endpoint)
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()

    # both -------------------------------------------------------------------------------------------------------------

    def _check_card(self, card: DeviceCard) -> None:
        """PairingRefused for who cannot become a member, whatever the persons say."""
        device = uuid_of(card.public_key)
        if device == self.identity.uuid:
            raise PairingRefused(
                "that is this very device, with another library of its own; add the locations here instead "
                "(sd location add)"
            )
        if self.links.roster.is_out(device):
            raise PairingRefused(
                f"{card.name} was put out of this library, and its key never serves again; mount there with a new data "
                "directory, which has a new one (sdmount --data-dir DIR …), and join with that"
            )

    async def _talk(
        self, session: Session, stream: Stream, secured: Secured, card: DeviceCard, events: list[Event],
        *, is_offering: bool, endpoint: Endpoint | None = None,
    ) -> None:  # fmt: skip
        """From the cards to the end."""
        links = self.links
        settling = Settling(
            self.store, links.roster, self.adopt, session, card,
            is_offering=is_offering, port=links.port, library_name=self.library_name(),
        )  # fmt: skip

        async def notified(said: Any) -> None:
            if isinstance(said, Verdict):
                await self._act(session, channel, session.machine.heard(said))

        channel = Channel(stream, secured, _CODEC, settling.heard, notified)
        session.talks += 1
        try:
            await self._follow(session, channel, settling, events, stream, endpoint)
        finally:
            session.talks -= 1
            session.tell()
        if session.is_done:
            links.refresh()
            self.paired()

    async def _follow(
        self, session: Session, channel: Channel, settling: Settling, events: list[Event], stream: Stream,
        endpoint: Endpoint | None,
    ) -> None:  # fmt: skip
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.run)
            nursery.start_soon(self._watch, session, channel)
            try:
                self._check_card(settling.card)
                session.note(events)
                nursery.start_soon(self._decide, session, channel)
                while session.device is None and not session.is_over:
                    await session.changed()
                if session.device is not None:
                    await settling.settle(channel)
                    self._remember(session, settling, stream, endpoint)
            except* VdfsError as group:
                error = _first(group)
                session.note(session.machine.lost(str(error)))
                session.fail(str(error))
            await channel.close(session.failure or "done", grace_s=_GOODBYE_S)
            nursery.cancel_scope.cancel()

    async def _watch(self, session: Session, channel: Channel) -> None:
        reason = await channel.wait_closed()
        if session.device is None:  # after that whoever waits for an answer says so
            session.fail(f"the other device ended it: {reason}")

    async def _decide(self, session: Session, channel: Channel) -> None:
        """What the person says goes to the other side."""
        await session.decided.wait()
        now_s = trio.current_time()
        try:
            events = session.machine.confirm(now_s) if session.accepts else session.machine.refuse(now_s)
            await self._act(session, channel, events)
        except VdfsError as error:
            session.fail(str(error))

    async def _act(self, session: Session, channel: Channel, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Say):
                await channel.notify(event.verdict)
        session.note(events)

    def _remember(self, session: Session, settling: Settling, stream: Stream, endpoint: Endpoint | None) -> None:
        """Where the new member is."""
        theirs = settling.theirs
        if endpoint is None and theirs is not None and theirs.port:
            endpoint = Endpoint(stream.peer, theirs.port)
        if endpoint is not None and is_dialable(endpoint.host) and session.device is not None:
            with self.store.note() as db:
                whereabouts.remember(db, session.device, [(endpoint.host, endpoint.port, self.store.now_ns())])


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
