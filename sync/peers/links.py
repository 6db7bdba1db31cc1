"""Links: a link to each trusted device, as long as any way leads there.

In: who is trusted (roster), the network as it is. Out: a `Neighbour` for each of them, and whoever connects: the
`Acceptor` lets him in, one who knows the words of an open offer is handed to whoever made it.

There is no network while there is nobody to talk to: a library of one device, and one that was put out of its library,
listen nowhere and announce nothing.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import trio

from index.model.errors import LinkClosed, NoSpace, Unreachable, VdfsError
from index.store import changes, whereabouts
from index.store.store import Store
from sync.log.messages import PutOut
from sync.log.replicator import Replicator
from sync.net import addresses
from sync.net.acceptor import Acceptor
from sync.net.addresses import Endpoint, Remembered
from sync.net.announcement import Announcement
from sync.net.outside import Outside, of_this_machine
from sync.net.revision import Revision
from sync.net.transport import Listener, Stream
from sync.peers.neighbour import Neighbour
from sync.peers.roster import Roster
from sync.wire.answering import Offered, answer_any
from sync.wire.handshake import Secured
from sync.wire.identity import DeviceIdentity

log = logging.getLogger("sdmount.net")

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
        self.memory: addresses.Memory = Memory(store)
        self.network = self.outside.network
        self.discovery = self.outside.near
        self.port = 0
        self.name = ""
        self.offered: Callable[[], Offered | None] = lambda: None
        self.offer_tag: bytes | None = None
        self.met: Callable[[Stream, Secured], Awaitable[None]] = _nobody
        self._needed = 0
        self.is_out = False  # this device is no member any more
        #: Told when another device says that this one is no member any more.
        self.put_out: Callable[[bytes], None] = lambda _: None
        self.looked_for: bytes | None = None  # the tag of an offer that somebody here has the words of
        self._neighbours: dict[bytes, Neighbour] = {}
        self._number = 0
        self._news = trio.Event()
        self._listening = trio.Event()
        self._nursery: trio.Nursery
        self._partings: trio.Nursery

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
        return bool(self._needed) or (not self.is_out and bool(self.roster.others()))

    @contextmanager
    def needed(self) -> Iterator[None]:
        """Within the block others can find and reach this device, and it them, though there is no member yet."""
        self._needed += 1
        self.refresh()
        try:
            yield
        finally:
            self._needed -= 1
            self.refresh()

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

    def is_expected(self, device: bytes) -> bool:
        """Whether a link to a trusted device may come about any moment: it was not looked for everywhere yet."""
        if not self.is_needed:
            return False
        neighbour = self._neighbours.get(device)
        return neighbour is None or neighbour.is_expected(trio.current_time())

    async def _run_network(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = self._partings = nursery
            nursery.start_soon(self.network.run)
            nursery.start_soon(self.discovery.run)
            await self._listen(nursery)
            nursery.start_soon(self._follow, self.discovery.revision, self._look_everywhere)
            nursery.start_soon(self._follow, self.network.revision, self._network_changed)
            async with trio.open_nursery() as self._partings:
                while self.is_needed:
                    self._meet_roster()
                    await self._news.wait()
                    self._news = trio.Event()
                self._meet_roster()
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
                with suppress(NoSpace), self.store.note() as db:  # without it others look for us once more, that is all
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
        self._meet_roster()  # it may have become a member this very moment
        neighbour = self._neighbours.get(secured.device or b"")
        if neighbour is None:
            raise LinkClosed("a device that is not known any more")
        await neighbour.hold(stream, secured, None)

    def _meet_roster(self) -> None:
        wanted = {} if self.is_out else {row.uuid: row for row in self.roster.others()}
        for uuid in [uuid for uuid in self._neighbours if uuid not in wanted]:
            self._partings.start_soon(self._neighbours.pop(uuid).part, PutOut() if self.roster.is_out(uuid) else None)
        for uuid, row in wanted.items():
            if uuid not in self._neighbours:
                neighbour = self._neighbours[uuid] = Neighbour(self, row)
                self._nursery.start_soon(neighbour.run)
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
