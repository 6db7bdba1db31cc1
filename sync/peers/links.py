"""Links: a link to each trusted device, as long as any way leads there.

In: who is trusted (roster), where they may be (discovery, what worked before, what people wrote down). Out: channels
that the replicator runs on. The policy of each peer is `Dialing`, which does no I/O; here its actions are carried out
and it is told what came of them. Whoever connects is let in by the `Acceptor`; one who knows the words of an open offer
is handed to whoever made it.

There is no network while there is nobody to talk to: a library of one device listens nowhere and announces nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import attrs
import trio

from index.model.errors import LinkClosed, Unreachable, VdfsError
from index.store import changes, whereabouts
from index.store.devices import Device
from index.store.store import Store
from sync.log.messages import LOG_CODEC, HeadsWanted
from sync.log.replicator import LIVE, Peer, Replicator
from sync.net.acceptor import Acceptor
from sync.net.addresses import Candidates, Endpoint, Remembered
from sync.net.channel import Channel
from sync.net.dialing import ROUND_S, Abandon, Action, Close, Dial, Dialing, Probe
from sync.net.multicast import Announcement
from sync.net.outside import Outside, of_this_machine
from sync.net.revision import Revision
from sync.net.shaking import shake_hands
from sync.net.transport import Listener, Stream
from sync.peers.roster import Roster
from sync.wire.answering import Offered, answer_any
from sync.wire.handshake import Secured, dial_paired
from sync.wire.identity import DeviceIdentity

log = logging.getLogger("sdmount.net")

_PROBE_S: Final = 5.0
_FIRST_MESSAGE_S: Final = 10.0
_PORT: Final = "port"
_ANY: Final = ("0.0.0.0", "::")


class Memory:
    """Where devices were reached, in the database."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self, device: bytes) -> list[Remembered]:
        return [
            Remembered(Endpoint(one.host, one.port), one.worked_ns)
            for one in whereabouts.of(self._store.db, device)
            if one.worked_ns
        ]

    def save(self, device: bytes, remembered: Sequence[Remembered]) -> None:
        try:
            with self._store.note() as db:
                found = [(one.endpoint.host, one.endpoint.port, one.good_ns) for one in remembered]
                whereabouts.remember(db, device, found)
        except VdfsError as error:
            log.info("an address could not be remembered: %s", error)


@attrs.define(eq=False)
class _Link:
    number: int
    stream: Stream
    channel: Channel
    peer: Peer
    attempt: int | None
    is_up: trio.Event = attrs.field(factory=trio.Event)


class _Neighbour:
    """One peer: its policy, and the actions of it."""

    def __init__(self, links: "Links", device: Device) -> None:
        self.links = links
        self.device = device
        self.candidates = Candidates(device.uuid, links.memory, links.store.now_ns())
        self.dialing = Dialing(links.identity.uuid, device.uuid, links.outside.random, trio.current_time())
        self.open: dict[int, _Link] = {}
        self._attempts: dict[int, trio.CancelScope] = {}
        self._news = trio.Event()
        self._nursery: trio.Nursery
        self.scope = trio.CancelScope()
        self.follow_manual()

    def follow_manual(self) -> None:
        """What people wrote down of it."""
        written = [Endpoint(one.host, one.port) for one in whereabouts.of(self.links.store.db, self.device.uuid)
                   if one.is_manual]  # fmt: skip
        self.candidates.set_manual(written)
        self.look()

    def look(self) -> None:
        """Something about where it may be is other than before."""
        self._news.set()

    async def run(self) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                while True:
                    self.candidates.heard(self.links.discovery.find(self.links.roster.tag_of(self.device.uuid)))
                    now_s = trio.current_time()
                    self._do(self.dialing.addresses(self.candidates.ranked(self.links.store.now_ns()), now_s))
                    self._do(self.dialing.tick(now_s))
                    with trio.CancelScope(deadline=self.dialing.due_s):
                        await self._news.wait()
                    self._news = trio.Event()

    def network_changed(self) -> None:
        self.candidates.forgive()
        self._do(self.dialing.network_changed(trio.current_time()))
        self.look()

    def stop(self) -> None:
        """It is wanted no more."""
        self._do(self.dialing.stop())
        for link in self.open.values():
            link.channel.end("not trusted any more")
        self.scope.cancel()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dial):
                self._nursery.start_soon(self._attempt, action.attempt, action.endpoint)
            elif isinstance(action, Abandon):
                scope = self._attempts.pop(action.attempt, None)
                if scope is not None:
                    scope.cancel()
            elif isinstance(action, Close):
                link = self.open.pop(action.link, None)
                if link is not None:
                    self._nursery.start_soon(link.channel.close, action.reason)
            elif isinstance(action, Probe):
                self._nursery.start_soon(self._probe, action.link)
        if actions:
            self.look()

    async def _attempt(self, attempt: int, endpoint: Endpoint) -> None:
        scope = self._attempts[attempt] = trio.CancelScope()
        links = self.links
        stream: Stream | None = None
        try:
            with scope:
                stream = await links.dial(endpoint, ROUND_S)
                exchange = dial_paired(
                    links.identity.keys, device=links.identity.uuid, library=links.store.library_uuid,
                    remote_static=self.device.static_key, random=links.outside.bytes,
                )  # fmt: skip
                secured = await shake_hands(stream, exchange, ROUND_S)
                self._attempts.pop(attempt, None)
                self.candidates.worked(endpoint, links.store.now_ns())
                await self.hold(stream, secured, attempt)
                return
        except VdfsError as error:
            log.debug("%s at %s: %s", self.device.name, endpoint, error)
            self.candidates.failed(endpoint)
        except Exception:
            log.exception("a link to %s ended by a bug of ours", self.device.name)
        finally:
            was_wanted = self._attempts.pop(attempt, None) is not None
            if stream is not None:
                with trio.CancelScope(shield=True):
                    await stream.aclose()
            if was_wanted:
                self._do(self.dialing.attempt_failed(attempt, trio.current_time()))

    async def hold(self, stream: Stream, secured: Secured, attempt: int | None) -> None:
        """A link for as long as it lasts. One that the other device dialled counts once it has said something."""
        number = self.links.next_number()
        made: list[_Link] = []

        async def handle(call: Any) -> None:
            self._carried(made[0])
            await self.links.replicator.serve(made[0].peer, call)

        async def notified(message: Any) -> None:
            self._carried(made[0])
            await self.links.replicator.notified(made[0].peer, message)

        channel = Channel(stream, secured, LOG_CODEC, handle, notified)
        link = _Link(number, stream, channel, Peer(self.device.uuid, channel), attempt)
        made.append(link)
        try:
            async with trio.open_nursery() as nursery:
                if attempt is not None:
                    self._up(link)
                nursery.start_soon(channel.run)
                nursery.start_soon(self._replicate, link)
                await channel.wait_closed()
                nursery.cancel_scope.cancel()
        finally:
            if self.open.pop(number, None) is not None:
                self._do(self.dialing.link_down(number, trio.current_time()))

    def _up(self, link: _Link) -> None:
        self.open[link.number] = link
        link.is_up.set()
        self._do(self.dialing.link_up(link.number, link.attempt, trio.current_time()))

    def _carried(self, link: _Link) -> None:
        if not link.is_up.is_set():
            self._up(link)
        if link.number in self.open:
            self._do(self.dialing.carried(link.number, trio.current_time()))

    async def _replicate(self, link: _Link) -> None:
        with trio.move_on_after(_FIRST_MESSAGE_S):
            await link.is_up.wait()
        if not link.is_up.is_set():
            link.channel.end("it said nothing")
            return
        try:
            await self.links.replicator.link(link.peer)
        except VdfsError as error:
            log.info("the link to %s ends: %s", self.device.name, error)
        except Exception:
            log.exception("the link to %s ends by a bug of ours", self.device.name)
        link.channel.end("done")

    async def _probe(self, number: int) -> None:
        link = self.open.get(number)
        if link is None:
            return
        try:
            await link.channel.call(HeadsWanted(), priority=LIVE, deadline_s=_PROBE_S)
        except VdfsError:
            return
        self._carried(link)


class Links:
    """Used on the loop only; `run` is its life.

    `met`: told of whoever showed to know the words of an offer; `offered`: the offer that is open, if any.
    """

    def __init__(
        self,
        store: Store,
        identity: DeviceIdentity,
        roster: Roster,
        replicator: Replicator,
        *,
        outside: Outside | None = None,
    ) -> None:
        self.store = store
        self.identity = identity
        self.roster = roster
        self.replicator = replicator
        self.outside = of_this_machine() if outside is None else outside
        self.dial = self.outside.dial
        self.memory = Memory(store)
        self.network = self.outside.network
        self.discovery = self.outside.near
        self.port = 0
        self.name = ""
        self.offered: Callable[[], Offered | None] = lambda: None
        self.offer_tag: bytes | None = None
        self.met: Callable[[Stream, Secured], Awaitable[None]] = _nobody
        self.is_offering = False
        self.looked_for: bytes | None = None  # the tag of an offer that somebody here has the words of
        self._neighbours: dict[bytes, _Neighbour] = {}
        self._number = 0
        self._news = trio.Event()
        self._listening = trio.Event()

    def next_number(self) -> int:
        self._number += 1
        return self._number

    def refresh(self) -> None:
        """Who is trusted, what is offered, or where they are, is other than before."""
        self._news.set()

    def refresh_addresses(self) -> None:
        """What people wrote down of devices is other than before."""
        for neighbour in self._neighbours.values():
            neighbour.follow_manual()

    @property
    def is_needed(self) -> bool:
        """Whether there is anybody to talk to."""
        return self.is_offering or bool(self.roster.others())

    async def listening(self) -> int:
        """Wait until others can connect; the port."""
        await self._listening.wait()
        return self.port

    async def run(self) -> None:
        """Links come and go; ends by cancellation."""
        while True:
            while not self.is_needed:
                await self._news.wait()
                self._news = trio.Event()
            await self._run_network()

    async def _run_network(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.network.run)
            nursery.start_soon(self.discovery.run)
            await self._listen(nursery)
            nursery.start_soon(self._follow, self.discovery.revision, self._look_everywhere)
            nursery.start_soon(self._follow, self.network.revision, self._network_changed)
            while self.is_needed:
                self._meet_roster(nursery)
                await self._news.wait()
                self._news = trio.Event()
            nursery.cancel_scope.cancel()
        self._neighbours.clear()
        self._listening = trio.Event()

    async def _listen(self, nursery: trio.Nursery) -> None:
        """At the port that was used before, if it can be had; others may remember it."""
        wanted = changes.get_meta(self.store.db, _PORT)
        listeners: list[Listener] = []
        for port in (wanted if isinstance(wanted, int) else 0, 0):
            try:
                first = await self.outside.listen(Endpoint(_ANY[0], port))
            except Unreachable as error:
                log.info("%s", error)
                continue
            listeners.append(first)
            self.port = first.endpoint.port
            break
        if not listeners:
            log.warning("no port can be listened on; devices can only be dialled from here")
        else:
            try:
                listeners.append(await self.outside.listen(Endpoint(_ANY[1], self.port)))
            except Unreachable as error:
                log.debug("%s", error)
            if self.port != wanted:
                with self.store.note() as db:
                    changes.set_meta(db, _PORT, self.port)
        for listener in listeners:
            await nursery.start(Acceptor(listener, self._exchange, self._met).serve)
        self._listening.set()

    def _exchange(self) -> Any:
        return answer_any(
            self.identity.keys, self.roster.admit, self.offered, name=self.name, os_name="Linux",
            random=self.outside.bytes,
        )  # fmt: skip

    async def _met(self, stream: Stream, secured: Secured) -> None:
        """Somebody has shaken hands."""
        if secured.card is not None:
            await self.met(stream, secured)
            return
        neighbour = self._neighbours.get(secured.device or b"")
        if neighbour is None:
            raise LinkClosed("a device that is not known any more")
        await neighbour.hold(stream, secured, None)

    def _meet_roster(self, nursery: trio.Nursery) -> None:
        wanted = {row.uuid: row for row in self.roster.others()}
        for uuid in [uuid for uuid in self._neighbours if uuid not in wanted]:
            self._neighbours.pop(uuid).stop()
        for uuid, row in wanted.items():
            if uuid not in self._neighbours:
                neighbour = self._neighbours[uuid] = _Neighbour(self, row)
                nursery.start_soon(neighbour.run)
        tags = [self.roster.tag_of(uuid) for uuid in wanted]
        self.discovery.expect(tags, [] if self.looked_for is None else [self.looked_for])
        tag = self.roster.tag_of(self.identity.uuid) if wanted else None
        if self.port and (tag is not None or self.offer_tag is not None):
            self.discovery.announce(Announcement(self.port, tag, self.offer_tag))
        else:
            self.discovery.announce(None)

    async def _follow(self, revision: Revision, act: Callable[[], None]) -> None:
        seen = revision.value
        while True:
            seen = await revision.beyond(seen)
            act()

    def _look_everywhere(self) -> None:
        for neighbour in self._neighbours.values():
            neighbour.look()

    def _network_changed(self) -> None:
        for neighbour in self._neighbours.values():
            neighbour.network_changed()


async def _nobody(_stream: Stream, _secured: Secured) -> None:
    raise LinkClosed("no offer is open")
