"""What was heard by multicast of who is near: read with distrust, kept within bounds.

Anybody on the network can say anything here, in any amount. So what is not exactly as our own programs write it is
left out; an address counts only when it is on a network at hand (nobody has us dial the world, or this machine
itself); and what is kept has limits, the oldest going first, and what nobody waits for before what somebody does.

In: `read`, from a service's records to a `Sighting`; sightings that come and go, from any thread. Out: the endpoints
under a tag. A tag is 8 bytes: that of a device, which only members of its library can compute, or that of an open
offer to pair, which whoever has its words can compute.

The format: an instance of `_vdfs._tcp.local.` with a random name of 32 hex digits, an SRV record with the port and
a random host, and TXT with `v=1`, `id=` (16 hex digits, where the device has a library) and `pr=` (16 hex digits,
while an offer is open).
"""

import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

from sync.net.addresses import Endpoint, ip_of, is_dialable
from sync.net.interfaces import IpNetwork

SERVICE = "_vdfs._tcp.local."
VERSION = b"1"
TAG_BYTES = 8
#: Of one sighting; of all that carry one tag; of all.
MAX_ADDRESSES = 8
MAX_ENDPOINTS_OF_TAG = 64
MAX_ENDPOINTS = 1024
#: Longer TXT records than ours can be are not even taken apart.
MAX_TEXT_BYTES = 256
_INSTANCE = re.compile(r"[0-9a-f]{32}")
_HEX_TAG = re.compile(rb"[0-9a-f]{16}")


@attrs.frozen
class Sighting:
    """One program that was heard: its random name, its tags, where it says it can be reached (at least one place)."""

    instance: str
    tag: bytes | None
    offer: bytes | None
    endpoints: tuple[Endpoint, ...]


def instance_of(name: str) -> str | None:
    """The instance of a service's full name; None when it is not as our programs choose it."""
    instance, dot, service = name.lower().partition(".")
    return instance if dot and service == SERVICE and _INSTANCE.fullmatch(instance) else None


def text_of(tag: bytes | None, offer: bytes | None) -> dict[bytes, bytes]:
    """What the TXT record says."""
    text = {b"v": VERSION}
    if tag is not None:
        text[b"id"] = tag.hex().encode()
    if offer is not None:
        text[b"pr"] = offer.hex().encode()
    return text


def read(
    instance: str,
    text: Mapping[bytes, bytes | None],
    port: int | None,
    hosts: Iterable[str],
    networks: Iterable[IpNetwork],
    *,
    is_alone: bool,
) -> Sighting | None:
    """A service's records as a sighting, None when they are none of ours.

    `hosts` are addresses as text, link-local ones with the number of their interface; `networks` are those at hand.
    `is_alone`: there is no network but this machine's own loopback, so that loopback addresses are meant.
    """
    tag, offer = _tag(text, b"id"), _tag(text, b"pr")
    if text.get(b"v") != VERSION or (tag is None and offer is None) or port is None or not 0 < port < 65536:
        return None
    networks = list(networks)
    endpoints: dict[Endpoint, None] = {}
    for host in hosts:
        if len(endpoints) == MAX_ADDRESSES:
            break
        if (named := _host(host, networks, is_alone)) is not None:
            endpoints[Endpoint(named, port)] = None
    return Sighting(instance, tag, offer, tuple(endpoints)) if endpoints else None


def _tag(text: Mapping[bytes, bytes | None], key: bytes) -> bytes | None:
    value = text.get(key) or b""
    return bytes.fromhex(value.decode("ascii")) if _HEX_TAG.fullmatch(value) else None


def _host(host: str, networks: list[IpNetwork], is_alone: bool) -> str | None:
    """An address that may be dialled, its interface by name."""
    address, percent, index = host.partition("%")
    if percent:
        try:
            address = f"{address}%{socket.if_indextoname(int(index))}"
        except (OSError, ValueError, OverflowError):
            return None
    ip = ip_of(address)
    if ip is None or not is_dialable(address) or ip.is_loopback != is_alone:
        return None
    is_near = not ip.is_global or any(ip in network for network in networks)
    return address if is_near else None


class Sightings:
    """The table. All methods may be called from any thread; `on_change` is called in the thread of the caller."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, Sighting]] = {}  # by instance, oldest first; with its generation
        self._tags: dict[tuple[str, bytes], dict[str, None]] = {}  # kind and tag -> instances, oldest first
        self._awaited: frozenset[tuple[str, bytes]] = frozenset()
        self._generation = 0
        self._total = 0  # endpoints of all that are known

    def expect(self, tags: Iterable[bytes], offers: Iterable[bytes]) -> None:
        """Whose coming and going is of interest. Of others nothing is told, and they give way when there are many."""
        with self._lock:
            self._awaited = frozenset([*(("id", tag) for tag in tags), *(("pr", offer) for offer in offers)])

    def find(self, tag: bytes) -> tuple[Endpoint, ...]:
        """Where the device with this tag may be reached, what was heard last first."""
        return self._find(("id", tag))

    def find_offer(self, offer: bytes) -> tuple[Endpoint, ...]:
        """Where the device that offers to pair may be reached."""
        return self._find(("pr", offer))

    def _find(self, key: tuple[str, bytes]) -> tuple[Endpoint, ...]:
        with self._lock:
            found = [self._known[instance][1] for instance in reversed(self._tags.get(key, {}))]
        return tuple(dict.fromkeys(endpoint for sighting in found for endpoint in sighting.endpoints))

    def seen(self, sighting: Sighting) -> None:
        """Heard, for the first time or again, perhaps with something changed."""
        with self._lock:
            before = self._known.get(sighting.instance, (0, None))[1]
            changed = self._remove(sighting.instance) if before != sighting else set()
            if self._known.pop(sighting.instance, None) is None:
                self._total += len(sighting.endpoints)
            self._known[sighting.instance] = (self._generation, sighting)
            for key in _keys(sighting):
                instances = self._tags.setdefault(key, {})
                instances.pop(sighting.instance, None)
                instances[sighting.instance] = None
                changed |= {key} if before != sighting else set()
                while self._count(instances) > MAX_ENDPOINTS_OF_TAG:
                    changed |= self._remove(next(iter(instances)))
            while self._total > MAX_ENDPOINTS:
                changed |= self._remove(self._dispensable())
            is_of_interest = not changed.isdisjoint(self._awaited)
        if is_of_interest:
            self._on_change()

    def gone(self, instance: str) -> None:
        """It said goodbye, or was not heard of for long."""
        with self._lock:
            is_of_interest = not self._remove(instance).isdisjoint(self._awaited)
        if is_of_interest:
            self._on_change()

    def begin_generation(self) -> None:
        """Another network, or the same after a sleep: what is not heard again is to be forgotten."""
        with self._lock:
            self._generation += 1

    def forget_older(self) -> None:
        """Whatever was not heard since the generation began is gone."""
        with self._lock:
            old = [name for name, (generation, _) in self._known.items() if generation < self._generation]
            changed = {key for name in old for key in self._remove(name)}
            is_of_interest = not changed.isdisjoint(self._awaited)
        if is_of_interest:
            self._on_change()

    def __len__(self) -> int:
        """How many endpoints there are."""
        with self._lock:
            return self._total

    # with the lock held -------------------------------------------------------------------------------------------

    def _count(self, instances: Iterable[str]) -> int:
        return sum(len(self._known[instance][1].endpoints) for instance in instances)

    def _dispensable(self) -> str:
        """The oldest that nobody waits for, else the oldest."""
        for instance, (_, sighting) in self._known.items():
            if self._awaited.isdisjoint(_keys(sighting)):
                return instance
        return next(iter(self._known))

    def _remove(self, instance: str) -> set[tuple[str, bytes]]:
        """Take one out; the tags that it had."""
        _, sighting = self._known.pop(instance, (0, None))
        if sighting is None:
            return set()
        self._total -= len(sighting.endpoints)
        keys = set(_keys(sighting))
        for key in keys:
            self._tags[key].pop(instance, None)
            if not self._tags[key]:
                del self._tags[key]
        return keys


def _keys(sighting: Sighting) -> Iterator[tuple[str, bytes]]:
    if sighting.tag is not None:
        yield "id", sighting.tag
    if sighting.offer is not None:
        yield "pr", sighting.offer
