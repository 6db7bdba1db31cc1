"""Who is near: this device announces itself by multicast DNS and listens for others.

A hint and nothing more. Who is found is proven by the handshake, who is not found may be reached by a remembered or a
written address; so nothing here can fail for the caller, and nothing waits for it. Where there is no multicast that
is logged once.

What goes out tells strangers that some program of this kind is here, and no names: those of instance and host are
random and others each time, the tag can be computed by members of the library only. Nobody is asked whether the names
are in use, since 128 random bits are not; so an announcement goes out at once and not after 1.7 s.

Where. On all interfaces that carry multicast. What goes out there is heard by the programs of this machine, too, so
that two of them find each other. Only when there is no such interface the loopback is used, and its addresses are
announced and believed only then.

When. All the time; when the network changes or the machine wakes up it is begun anew. A flood of strangers has it
begun anew, too, so that what `zeroconf` remembers of them has a bound. Who is not heard again soon after is forgotten.

In: `announce`, `expect`, the network as `NetworkWatch` sees it. Out: `find`, `find_offer`, and a `revision` that grows
when what they answer for awaited tags has changed; however often that is, until the loop has looked it is woken once.

Source: RFC 6762, RFC 6763.
"""

import contextlib
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

import trio

from sync.net.addresses import Endpoint
from sync.net.announcement import Announcement
from sync.net.interfaces import LocalAddress, NetworkWatch
from sync.net.revision import Revision
from sync.net.sightings import Sightings

if TYPE_CHECKING:
    from sync.net.multicast import Multicast

log = logging.getLogger("sdmount.net")

#: When it is begun anew, who is not heard again within this time is gone.
HEARD_AGAIN_S = 10.0
#: Opening sockets takes a millisecond; saying goodbye half a second.
OPEN_S = 10.0
CLOSE_S = 3.0
#: A network without multicast is tried again; under a flood it is begun anew no oftener than this.
RETRY_S = 60.0
FLOOD_S = 30.0
#: It is asked anew who is there after this time, then after twice that, and so on. A network that was in two parts
#: is not seen to be whole again.
ASK_AGAIN_S = 30.0
ASK_RARELY_S = 900.0
#: How many interfaces are used at most; a machine of many containers has hundreds.
MAX_INTERFACES = 16


class Discovery:
    """Announces and listens while `run` runs."""

    def __init__(self, network: NetworkWatch) -> None:
        self.revision = Revision()
        self._network = network
        self._announced = Revision()
        self._floods = Revision()
        self._announcement: Announcement | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._sightings = Sightings(lambda: self._soon(self.revision))
        self._threads = trio.CapacityLimiter(2)
        self._has_complained = False

    def announce(self, announcement: Announcement | None) -> None:
        """Tell this from now on, also in the middle of it all; None: nothing, and only listen."""
        if announcement != self._announcement:
            self._announcement = announcement
            self._announced.bump()

    def expect(self, tags: Iterable[bytes], offers: Iterable[bytes] = ()) -> None:
        """The tags of the devices that are wanted, and those of offers. They replace what was expected before."""
        self._sightings.expect(tags, offers)
        self.revision.bump()

    def find(self, tag: bytes) -> tuple[Endpoint, ...]:
        """Where the device with this tag may be reached just now, what was heard last first; 64 at most."""
        return self._sightings.find(tag)

    def find_offer(self, offer: bytes) -> tuple[Endpoint, ...]:
        """Where the device that offers to pair may be reached just now."""
        return self._sightings.find_offer(offer)

    async def run(self) -> None:
        """For ever; at its end (cancellation) goodbye is said."""
        self._token = trio.lowlevel.current_trio_token()
        while (multicast_on := await self._loaded()) is None:  # noqa: ASYNC110  (nothing tells when it can be)
            await trio.sleep(RETRY_S)
        while True:
            network, floods = self._network.revision.value, self._floods.value
            self._sightings.begin_generation()
            multicast = multicast_on(self._sightings, _used(self._network.addresses), lambda: self._soon(self._floods))
            try:
                if await self._open(multicast):
                    await self._serve(multicast, network, floods)
                else:
                    with trio.move_on_after(RETRY_S):
                        await self._network.revision.beyond(network)
            finally:
                with trio.move_on_after(CLOSE_S, shield=True):
                    await trio.to_thread.run_sync(multicast.close, limiter=self._threads, abandon_on_cancel=True)

    async def _loaded(self) -> "type[Multicast] | None":
        try:
            return await trio.to_thread.run_sync(_load, limiter=self._threads, abandon_on_cancel=True)
        except Exception as error:  # it was installed anew under this process, or no descriptor is left, say
            self._complain(error)
            return None

    async def _open(self, multicast: "Multicast") -> bool:
        """Whether there is multicast here."""
        try:
            with trio.fail_after(OPEN_S):
                await trio.to_thread.run_sync(multicast.open, limiter=self._threads, abandon_on_cancel=True)
        except (OSError, RuntimeError, trio.TooSlowError) as error:
            self._complain(error)
            self._sightings.forget_older()
            return False
        return True

    def _complain(self, error: Exception) -> None:
        if not self._has_complained:
            log.warning("no multicast here (%s); devices are reached by addresses that are known", error)
        self._has_complained = True

    async def _serve(self, multicast: "Multicast", network: int, floods: int) -> None:
        """Until the network is another one, or there were too many strangers."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_announced, multicast)
            nursery.start_soon(self._forget)
            nursery.start_soon(self._ask_again, multicast)
            nursery.start_soon(self._end_flood, floods, nursery.cancel_scope)
            await self._network.revision.beyond(network)
            nursery.cancel_scope.cancel()

    async def _keep_announced(self, multicast: "Multicast") -> None:
        seen = -1
        while True:
            seen = await self._announced.beyond(seen)
            multicast.announce(self._announcement)

    async def _forget(self) -> None:
        await trio.sleep(HEARD_AGAIN_S)
        self._sightings.forget_older()

    async def _ask_again(self, multicast: "Multicast") -> None:
        wait_s = ASK_AGAIN_S
        while True:
            await trio.sleep(wait_s)
            wait_s = min(2 * wait_s, ASK_RARELY_S)
            await trio.to_thread.run_sync(multicast.ask_again, limiter=self._threads, abandon_on_cancel=True)

    async def _end_flood(self, floods: int, session: trio.CancelScope) -> None:
        began_s = trio.current_time()
        await self._floods.beyond(floods)
        await trio.sleep_until(began_s + FLOOD_S)
        session.cancel()

    def _soon(self, revision: Revision) -> None:
        """Called in zeroconf's threads. However often: until the loop has looked it is one call."""
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(revision.bump, idempotent=True)


def _load() -> "type[Multicast]":
    """What speaks multicast DNS takes long to load, and a device that has nobody to talk to does without."""
    from sync.net.multicast import Multicast

    return Multicast


def _used(addresses: Iterable[LocalAddress]) -> list[LocalAddress]:
    """The addresses to listen on: all that carry multicast, or the loopback's where there is none. In a fixed order."""
    known = list(addresses)
    outside = [address for address in known if address.is_multicast and not address.is_loopback]
    used = outside or [address for address in known if address.is_loopback]
    names = sorted({address.interface for address in used})[:MAX_INTERFACES]
    return sorted((address for address in used if address.interface in names), key=_order)


def _order(known: LocalAddress) -> tuple[bool, bool, bool, str, bytes]:
    """IPv4 first; a link-local address of IPv6 last, since it means nothing to whoever hears of it by IPv4."""
    return known.ip.version == 6, known.ip.is_link_local, known.is_temporary, known.interface, known.ip.packed
