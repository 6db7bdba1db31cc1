"""A neighbour: one trusted device, the links to it, and what is done to have one.

In: where it may be (what is heard, what worked before, what people wrote down), links that it dialled. Out: one link
that the replicator runs on, for as long as any way leads there. When to dial, where, and which of two links stays says
`Dialing`, which does no I/O: its actions are carried out here, and it is told what came of them. A link that the other
device dialled counts once it has said something, since a handshake alone may be of an attempt that was abandoned.

Whoever is wanted no more is told one last word at most, and nothing after it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import attrs
import trio

from index.model.errors import LinkClosed, VdfsError
from index.store import whereabouts
from index.store.devices import Device
from index.store.store import Store
from sync.log.hub import LIVE, Peer
from sync.log.messages import LOG_CODEC, HeadsWanted, PutOut
from sync.log.replicator import Replicator
from sync.net.addresses import Candidates, Endpoint, Memory
from sync.net.channel import Channel
from sync.net.dialing import GRACE_S, ROUND_S, Abandon, Action, Close, Dial, Dialing, Probe
from sync.net.outside import Near, Outside
from sync.net.shaking import shake_hands
from sync.net.transport import Stream
from sync.peers.roster import Roster
from sync.wire.handshake import Secured, dial_paired
from sync.wire.identity import DeviceIdentity

log = logging.getLogger("sdmount.net")

_PROBE_S: Final = 5.0
_FIRST_MESSAGE_S: Final = 10.0
_LAST_WORD_S: Final = 1.0
#: The device with the higher id waits before its first round; after that round it is known whether anybody is there.
_EXPECTED_S: Final = GRACE_S + ROUND_S + 1.5


@attrs.define(eq=False)
class _Link:
    number: int
    stream: Stream
    channel: Channel
    peer: Peer
    attempt: int | None
    is_up: trio.Event = attrs.field(factory=trio.Event)


class Around(Protocol):
    """What a neighbour needs of those around it: `Links`."""

    store: Store
    identity: DeviceIdentity
    roster: Roster
    replicator: Replicator
    discovery: Near
    memory: Memory
    outside: Outside
    dial: Callable[[Endpoint, float], Awaitable[Stream]]
    put_out: Callable[[bytes], None]

    def next_number(self) -> int: ...


class Neighbour:
    """Used on the loop only; `run` is its life."""

    def __init__(self, links: Around, device: Device) -> None:
        self.links = links
        self.device = device
        self.candidates = Candidates(device.uuid, links.memory, links.store.now_ns())
        self.dialing = Dialing(links.identity.uuid, device.uuid, links.outside.random, trio.current_time())
        self.open: dict[int, _Link] = {}  # those that count
        self._held: set[_Link] = set()  # and those that have said nothing yet
        self._since_s = trio.current_time()  # since when a link may come any moment
        self._is_stopped = False
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

    def is_expected(self, now_s: float) -> bool:
        """Whether a link may come about any moment, rather than by chance."""
        return bool(self._held) or self.dialing.is_dialling or now_s < self._since_s + _EXPECTED_S

    async def run(self) -> None:
        try:
            with self.scope:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    await self._keep_linked()
        finally:
            self._is_stopped = True

    async def _keep_linked(self) -> None:
        tag = self.links.roster.tag_of(self.device.uuid)
        while True:
            now_s = trio.current_time()
            if self.candidates.heard(self.links.discovery.find(tag)):
                self._since_s = now_s
            self._do(self.dialing.addresses(self.candidates.ranked(self.links.store.now_ns()), now_s))
            self._do(self.dialing.tick(now_s))
            with trio.CancelScope(deadline=self.dialing.due_s):
                await self._news.wait()
            self._news = trio.Event()

    def network_changed(self) -> None:
        self.candidates.forgive()
        self._since_s = trio.current_time()
        self._happened(self.dialing.network_changed(self._since_s))

    async def part(self, last_word: Any = None) -> None:
        """It is wanted no more: it is told nothing from now on but this word, if any, and its links are closed."""
        self._is_stopped = True
        self.open.clear()
        self._do(self.dialing.stop())
        async with trio.open_nursery() as nursery:
            for link in self._held:
                link.peer.is_over = True
                link.peer.bell.ring()
                nursery.start_soon(self._part, link, last_word)
        self.scope.cancel()

    async def _part(self, link: _Link, last_word: Any) -> None:
        with trio.move_on_after(_LAST_WORD_S):
            try:
                if last_word is not None:
                    await link.channel.notify(last_word)
                await link.channel.close("parted")
            except VdfsError as error:
                log.debug("no last word to %s: %s", self.device.name, error)
        link.channel.end("parted")

    def _happened(self, actions: list[Action]) -> None:
        """What follows from something; and the next thing may be due at another time than before."""
        self._do(actions)
        self.look()

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            if self._is_stopped and not isinstance(action, Abandon):
                continue  # `part` closes what there is
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
                self._happened(self.dialing.attempt_failed(attempt, trio.current_time()))

    async def hold(self, stream: Stream, secured: Secured, attempt: int | None) -> None:
        """A link for as long as it lasts. One that the other device dialled counts once it has said something."""
        number = self.links.next_number()
        made: list[_Link] = []
        if self._is_stopped:
            raise LinkClosed("a device that is not wanted any more")

        async def handle(call: Any) -> None:
            self._carried(made[0])
            await self.links.replicator.serve(made[0].peer, call)

        async def notified(message: Any) -> None:
            self._carried(made[0])
            if isinstance(message, PutOut):
                self.links.put_out(self.device.uuid)
                return
            await self.links.replicator.notified(made[0].peer, message)

        channel = Channel(stream, secured, LOG_CODEC, handle, notified)
        link = _Link(number, stream, channel, Peer(self.device.uuid, channel), attempt)
        made.append(link)
        self._held.add(link)
        try:
            async with trio.open_nursery() as nursery:
                if attempt is not None:
                    self._up(link)
                nursery.start_soon(channel.run)
                nursery.start_soon(self._replicate, link)
                await channel.wait_closed()
                nursery.cancel_scope.cancel()
        finally:
            self._held.discard(link)
            self._since_s = trio.current_time()
            if self.open.pop(number, None) is not None:
                self._happened(self.dialing.link_down(number, trio.current_time()))

    def _up(self, link: _Link) -> None:
        self.open[link.number] = link
        link.is_up.set()
        self._happened(self.dialing.link_up(link.number, link.attempt, trio.current_time()))

    def _carried(self, link: _Link) -> None:
        if not link.is_up.is_set():
            self._up(link)
        if link.number in self.open:
            actions = self.dialing.carried(link.number, trio.current_time())
            if actions:
                self._happened(actions)

    async def _replicate(self, link: _Link) -> None:
        with trio.move_on_after(_FIRST_MESSAGE_S):
            await link.is_up.wait()
        if not link.is_up.is_set():
            link.channel.end("it said nothing")
            return
        reason = "done"
        try:
            await self.links.replicator.link(link.peer)
        except* VdfsError as group:
            reason = str(_first(group))
            log.info("the link to %s ends: %s", self.device.name, reason)
        except* Exception:
            log.exception("the link to %s ends by a bug of ours", self.device.name)
        link.channel.end(reason)

    async def _probe(self, number: int) -> None:
        link = self.open.get(number)
        if link is None:
            return
        try:
            await link.channel.call(HeadsWanted(), priority=LIVE, deadline_s=_PROBE_S)
        except VdfsError:
            return
        self._carried(link)


def _first(error: BaseException) -> BaseException:
    """One error of nested groups; whatever comes with it follows from the same."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
