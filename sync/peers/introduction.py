"""Introduction: two devices that know a secret become members of one library.

The side that shows the words offers, the side that types them joins. Both shake hands with the secret (`Links`), show
each other's card to their person, and each says yes or no (`pairing`, which has the rules and no I/O). Then both say
what their library is, and settle, without asking, on the same one of the two: the one that has other devices already,
else that of who offered. Where both have, neither is given up: that is refused. Whoever moves keeps all his rows; he
takes the other's as any newcomer does, and the others take his.

Both write down the other's card and vouch for it, first hand, and link up as members from then on.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import attrs
import trio

from index.model.errors import Invalid, LinkClosed, PairingRefused, VdfsError
from index.store import devices, whereabouts
from index.store.store import Store
from sync.log.outgoing import begin_sharing
from sync.net.addresses import Endpoint
from sync.net.channel import Call, Channel
from sync.net.shaking import shake_hands
from sync.net.transport import Stream
from sync.peers.links import Links
from sync.wire.codec import Codec, message
from sync.wire.forms import U16, Bytes16, Length, Range
from sync.wire.handshake import Secured, dial_pairing
from sync.wire.identity import uuid_of
from sync.wire.pairing import Arrived, Completed, Event, Failed, Joining, Offer, Say, Secret, Ticket, Verdict

log = logging.getLogger("sdmount.sync")

#: How long the two sides have to settle once both persons have said yes.
_SETTLE_S: Final = 20.0
_LOOK_S: Final = 30.0
_DIAL_S: Final = 3.0


@message(2)
class Introduce:
    """What a device brings along, once both persons have said yes."""

    library: Bytes16
    is_shared: bool
    created_ns: Annotated[int, Range(0, (1 << 63) - 1)]
    port: U16
    name: Annotated[str, Length(0, 256)]


@message(3)
class Introduced:
    """It is written down."""


_CODEC: Final = Codec((Verdict, Introduce, Introduced))


@attrs.define(eq=False)
class Session:
    """One pairing, as it is asked about: what is shown, and how it stands."""

    machine: Joining
    words: tuple[str, ...] = ()
    ticket: str = ""
    shown: Arrived | None = None
    device: bytes | None = None
    library: str = ""
    failure: str | None = None
    is_done: bool = False
    changed: trio.Event = attrs.field(factory=trio.Event)
    decided: trio.Event = attrs.field(factory=trio.Event)
    accepts: bool | None = None

    def tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def decide(self, accepts: bool) -> None:
        """What the person says of the device that is shown."""
        if self.accepts is None:
            self.accepts = accepts
            self.decided.set()

    @property
    def state(self) -> str:
        """One word: open, shown, done, failed."""
        if self.failure is not None:
            return "failed"
        return "done" if self.is_done else "open" if self.shown is None else "shown"

    async def news(self, seen: str, deadline_s: float) -> None:
        """Wait until the state is another one than is known."""
        with trio.move_on_after(deadline_s):
            while self.state == seen and not self.is_over:
                await self.changed.wait()

    def fail(self, reason: str) -> None:
        """It has come to nothing."""
        if not self.is_over:
            self.failure = reason
            self.tell()

    def has_met(self) -> bool:
        """Whether somebody with the secret was met."""
        return self.shown is not None

    @property
    def is_over(self) -> bool:
        return self.is_done or self.failure is not None


class _Try:
    """Somebody tries the words of an offer."""

    def __init__(self, introductions: "Introductions", session: Session, offer: Offer) -> None:
        self._introductions = introductions
        self._session = session
        self._offer = offer
        self.psk = offer.secret.psk

    def failed(self) -> None:
        self._introductions.note(self._session, self._offer.failed())

    def dropped(self) -> None:
        self._offer.dropped()


class Introductions:
    """Used on the loop only. `adopt`: the library is another one from now on, on disk as well."""

    def __init__(self, links: Links, adopt: Callable[[bytes], None], library_name: Callable[[], str]) -> None:
        self.links = links
        self.store: Store = links.store
        self.identity = links.identity
        self.adopt = adopt
        self.library_name = library_name
        self.paired: Callable[[], None] = lambda: None
        self._offer: Session | None = None
        links.met = self._arrived
        links.offered = self._offered

    # offering ---------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def offering(self) -> AsyncIterator[Session]:
        """An offer that is open while the block lasts. Busy people: one at a time."""
        if self._offer is not None and not self._offer.is_over:
            raise PairingRefused("another pairing is under way here; end that one first")
        offer = Offer(Secret.make(), trio.current_time())
        links = self.links
        links.offer_tag, links.is_offering = offer.secret.tag, True
        links.refresh()
        try:
            with trio.move_on_after(_DIAL_S):
                await links.listening()
            places = tuple((str(one.ip), links.port) for one in links.network.addresses if not one.ip.is_link_local)
            ticket = Ticket(offer.secret, self.identity.uuid, places)
            session = self._offer = Session(offer, offer.secret.words, ticket.text())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expire, session)
                yield session
                nursery.cancel_scope.cancel()
        finally:
            self._offer = None
            links.offer_tag, links.is_offering = None, False
            links.refresh()

    async def _expire(self, session: Session) -> None:
        while not session.is_over:
            await trio.sleep_until(session.machine.expires_s)
            self.note(session, session.machine.tick(trio.current_time()))

    def _offered(self) -> "_Try | None":
        """The offer that is open, for one more try."""
        session = self._offer
        if session is None or session.is_over or not isinstance(session.machine, Offer):
            return None
        try:
            session.machine.begin(trio.current_time())
        except PairingRefused:
            return None
        return _Try(self, session, session.machine)

    async def _arrived(self, stream: Stream, secured: Secured) -> None:
        session = self._offer
        if session is None or not isinstance(session.machine, Offer) or secured.card is None:
            raise LinkClosed("no offer is open")
        self.note(session, session.machine.arrived(secured.card, trio.current_time()))
        await self._talk(session, stream, secured, is_offering=True)

    # joining ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def joining(self, text: str, endpoints: tuple[Endpoint, ...] = ()) -> AsyncIterator[Session]:
        """Join by words or a ticket, while the block lasts; Invalid for what is neither."""
        if text.strip().lower().startswith("sdpair"):
            ticket = Ticket.of_text(text)
            secret, known = ticket.secret, tuple(Endpoint(host, port) for host, port in ticket.endpoints)
            if ticket.device == self.identity.uuid:
                raise Invalid("this ticket is of this very device; use it on the other one")
        else:
            secret, known = Secret.of_words(text), ()
        session = Session(Joining(trio.current_time()))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._join, session, secret, (*endpoints, *known))
            yield session
            nursery.cancel_scope.cancel()

    async def _join(self, session: Session, secret: Secret, known: tuple[Endpoint, ...]) -> None:
        links = self.links
        was_offering, links.is_offering = links.is_offering, True  # discovery runs, though there is nobody yet
        links.looked_for = secret.tag
        links.refresh()
        try:
            reason = "nobody with these words was found on this network; is `sd pair` open there?"
            until_s = trio.current_time() + _LOOK_S
            tried: set[Endpoint] = set()
            while trio.current_time() < until_s and not (session.has_met() or session.is_over):
                places = [*known, *links.discovery.find_offer(secret.tag)]
                for endpoint in [one for one in dict.fromkeys(places) if one not in tried]:
                    tried.add(endpoint)
                    try:
                        await self._join_at(session, secret, endpoint)
                    except VdfsError as error:
                        reason = f"{endpoint}: {error}"
                        log.info("pairing at %s", reason)
                    if session.has_met():
                        break
                else:
                    await trio.sleep(0.1)
            if not session.has_met():
                self.note(session, session.machine.lost(reason))
        finally:
            links.is_offering, links.looked_for = was_offering, None
            links.refresh()

    async def _join_at(self, session: Session, secret: Secret, endpoint: Endpoint) -> None:
        links = self.links
        stream = await links.dial(endpoint, _DIAL_S)
        try:
            exchange = dial_pairing(self.identity.keys, secret.psk, name=links.name, os_name="Linux")
            secured = await shake_hands(stream, exchange, _DIAL_S)
            assert secured.card is not None
            self.note(session, session.machine.arrived(secured.card, trio.current_time()))
            await self._talk(session, stream, secured, is_offering=False, endpoint=endpoint)
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()

    # both -------------------------------------------------------------------------------------------------------------

    async def _talk(
        self,
        session: Session,
        stream: Stream,
        secured: Secured,
        *,
        is_offering: bool,
        endpoint: Endpoint | None = None,
    ) -> None:
        """From the cards to the end."""
        theirs: list[Introduce] = []
        told = trio.Event()

        async def handle(call: Call) -> None:
            if isinstance(call.message, Introduce):
                if not theirs:
                    theirs.append(call.message)
                    told.set()
                with trio.fail_after(_SETTLE_S):
                    while not session.is_over:
                        await session.changed.wait()
                if session.failure is not None:
                    raise PairingRefused(session.failure)
                await call.reply(Introduced())

        async def notified(said: Any) -> None:
            if isinstance(said, Verdict):
                await self._act(session, channel, session.machine.heard(said))

        channel = Channel(stream, secured, _CODEC, handle, notified)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.run)
                nursery.start_soon(self._decide, session, channel)
                nursery.start_soon(self._watch, session, channel)
                while session.device is None and not session.is_over:
                    await session.changed.wait()
                if session.device is not None:
                    await self._settle(session, channel, secured, theirs, told, is_offering, stream, endpoint)
                await channel.close("done", grace_s=1.0)
                nursery.cancel_scope.cancel()
        except VdfsError as error:
            self.note(session, session.machine.lost(str(error)))
            session.fail(str(error))

    async def _watch(self, session: Session, channel: Channel) -> None:
        reason = await channel.wait_closed()
        if not session.is_over:
            session.fail(f"the other device hung up: {reason}")

    async def _decide(self, session: Session, channel: Channel) -> None:
        """What the person says goes to the other side."""
        await session.decided.wait()
        try:
            now_s = trio.current_time()
            events = session.machine.confirm(now_s) if session.accepts else session.machine.refuse(now_s)
            await self._act(session, channel, events)
        except PairingRefused as error:
            session.fail(str(error))

    async def _act(self, session: Session, channel: Channel, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Say):
                await channel.notify(event.verdict)
        self.note(session, events)

    def note(self, session: Session, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Arrived):
                session.shown = event
            elif isinstance(event, Completed):
                session.device = uuid_of(event.card.public_key)
            elif isinstance(event, Failed):
                session.fail(event.reason)
        if events:
            session.tell()

    async def _settle(
        self,
        session: Session,
        channel: Channel,
        secured: Secured,
        theirs: list[Introduce],
        told: trio.Event,
        is_offering: bool,
        stream: Stream,
        endpoint: Endpoint | None,
    ) -> None:
        """Both persons said yes: whose library it is, and who the other one is, is written down."""
        store, card = self.store, secured.card
        assert card is not None
        others = devices.others(store.db, store.device_uuid)
        mine = Introduce(
            store.library_uuid, bool(others), self.identity.created_ns, self.links.port, self.library_name()[:64]
        )
        async with trio.open_nursery() as nursery:

            async def introduce() -> None:
                await channel.call(mine, priority=0, deadline_s=_SETTLE_S)

            nursery.start_soon(introduce)
            with trio.fail_after(_SETTLE_S):
                await told.wait()
            self._write_down(session, theirs[0], mine, card, is_offering=is_offering)
            if endpoint is None and theirs[0].port:
                endpoint = Endpoint(stream.peer, theirs[0].port)
            if endpoint is not None and session.device is not None:
                with store.note() as db:
                    whereabouts.remember(db, session.device, [(endpoint.host, endpoint.port, store.now_ns())])
            session.is_done = True
            session.tell()
        self.links.refresh()
        self.paired()

    def _write_down(
        self, session: Session, theirs: Introduce, mine: Introduce, card: Any, *, is_offering: bool
    ) -> None:
        store = self.store
        if theirs.is_shared and mine.is_shared and theirs.library != mine.library:
            raise PairingRefused(
                "both libraries have other devices already, so neither can move; pair each device of one of them anew"
            )
        moves = theirs.library != mine.library and (theirs.is_shared or (not mine.is_shared and not is_offering))
        if moves:
            self.adopt(theirs.library)
        begin_sharing(store)
        uuid = uuid_of(card.public_key)
        with store.write("pairing") as unit:
            facts = [card.public_key, card.noise_static, card.static_signature, theirs.created_ns]
            devices.say(unit, uuid, card.name or "device", facts, card.os)
            self.links.roster.vouch(unit, uuid)
        self.links.roster.refresh()
        session.library = theirs.name if moves else mine.name
