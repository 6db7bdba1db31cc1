"""Where a device may be reached: the addresses that are known of it, the likeliest first.

Three sources. What discovery hears just now is a hint: anybody on the network can say it, so it is bounded and proves
nothing; who answers is proven by the handshake. What worked before is remembered, for networks that carry no
multicast and for a start before anybody was heard. What a person wrote down is kept as it is. An address that failed
goes behind those that did not, so that however many false ones are told, each true one gets its turn.

In: endpoints from the three sources, and how dialing them went. Out: `Candidates.ranked`. Pure: times are given in,
what is remembered is loaded and saved by the caller through `Memory`. Names of hosts are taken from people only, and
resolved by whoever dials.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from index.model.errors import Invalid

#: How many hints of one device are kept, and how many addresses that worked.
MAX_HINTS = 64
MAX_REMEMBERED = 8
MAX_MANUAL = 8
#: What did not work for so long is forgotten. It is the time after which a silent device counts as retired.
REMEMBERED_NS = 90 * 86_400 * 1_000_000_000
#: An address that works again and again is saved no oftener than this.
_SAVE_AGAIN_NS = 3600 * 1_000_000_000
#: Failures are counted up to here: what fails for ever and what failed four times take turns.
_MAX_FAILURES = 4
_MAX_HOST_CHARS = 253
_NAME = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*\.?", re.IGNORECASE)
_SCOPE = re.compile(r"[A-Za-z0-9_.:-]{1,15}")


class Endpoint(NamedTuple):
    """A TCP address: an IP address as text (a link-local one with its interface, `fe80::1%eth0`), or a host's name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Remembered(NamedTuple):
    """An address that worked, and when it did last (wall clock)."""

    endpoint: Endpoint
    good_ns: int


class Memory(Protocol):
    """Where the addresses that worked outlast the process. Both calls are short and never fail for the caller."""

    def load(self, device: bytes) -> Sequence[Remembered]: ...

    def save(self, device: bytes, remembered: Sequence[Remembered]) -> None: ...


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a host's text is, without its interface; None for a name."""
    address, percent, scope = host.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        return None
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def is_dialable(host: str) -> bool:
    """Whether a host can be one device at all: no group, no broadcast, nothing that means "any"."""
    ip = ip_of(host)
    if ip is None:
        return len(host) <= _MAX_HOST_CHARS and _NAME.fullmatch(host) is not None and not _is_numeric(host)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None or (ip.is_link_local and "%" not in host):
            return False
    elif "%" in host or ip.packed[0] == 0 or ip.packed == b"\xff\xff\xff\xff":
        return False
    return not (ip.is_multicast or ip.is_unspecified or (ip.is_reserved and ip.version == 4))


def parse_endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """`10.0.0.7:4711`, `[fe80::1%eth0]:4711`, `nas.example:4711` as a value. Invalid says what is wrong with it."""
    match = re.fullmatch(r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?", text.strip())
    if match is None:
        raise Invalid(f"{text!r} is no address; write HOST:PORT, or [ADDRESS]:PORT for IPv6")
    host = match["six"] or match["host"]
    port = int(match["port"]) if match["port"] else default_port
    if port is None or not 1 <= port <= 65535:
        raise Invalid(f"{text!r} has no port from 1 to 65535")
    if bool(match["six"]) != (":" in host) or not is_dialable(host):
        raise Invalid(f"{text!r} names no host that can be dialled")
    return Endpoint(host, port)


class Candidates:
    """The addresses of one device. Used on one task."""

    def __init__(self, device: bytes, memory: Memory, now_ns: int) -> None:
        self._device = device
        self._memory = memory
        self._hints: tuple[Endpoint, ...] = ()
        self._manual: tuple[Endpoint, ...] = ()
        self._failures: dict[Endpoint, int] = {}
        self._good: dict[Endpoint, int] = {}  # -> when it worked last, newest last
        usable = [known for known in memory.load(device) if is_dialable(known.endpoint.host)]
        for endpoint, good_ns in sorted(usable, key=lambda known: known.good_ns)[-MAX_REMEMBERED:]:
            self._good[endpoint] = min(good_ns, now_ns)  # a clock that was wrong does not keep it for ever
        self._saved = dict(self._good)  # as the memory has it

    def heard(self, endpoints: Iterable[Endpoint]) -> bool:
        """What discovery knows just now, newest first, takes the place of what it knew. True when one is new."""
        before = set(self._hints)
        hints = dict.fromkeys(endpoint for endpoint in endpoints if is_dialable(endpoint.host))
        self._hints = tuple(hints)[:MAX_HINTS]
        fresh = [endpoint for endpoint in self._hints if endpoint not in before]
        for endpoint in fresh:
            self._failures.pop(endpoint, None)
        self._forget_failures()
        return bool(fresh)

    def set_manual(self, endpoints: Iterable[Endpoint]) -> None:
        """What a person wrote down for this device, in that order."""
        self._manual = tuple(dict.fromkeys(endpoints))[:MAX_MANUAL]
        self._forget_failures()

    def worked(self, endpoint: Endpoint, now_ns: int) -> None:
        """The device itself answered there."""
        self._failures.pop(endpoint, None)
        ip = ip_of(endpoint.host)
        if ip is not None and ip.is_link_local:
            return  # means something on the network at hand only
        self._good.pop(endpoint, None)
        self._good[endpoint] = now_ns
        while len(self._good) > MAX_REMEMBERED:
            del self._good[next(iter(self._good))]
        if endpoint not in self._saved or now_ns - self._saved[endpoint] >= _SAVE_AGAIN_NS:
            self._saved = dict(self._good)
            self._memory.save(self._device, [Remembered(*known) for known in self._good.items()])

    def failed(self, endpoint: Endpoint) -> None:
        """Nobody answered there, or somebody else did."""
        if endpoint in self._known():
            self._failures[endpoint] = min(self._failures.get(endpoint, 0) + 1, _MAX_FAILURES)
            if min(self._failures.get(known, 0) for known in self._known()) == _MAX_FAILURES:
                self._failures = {}  # all are as bad: their order says again what is likely

    def forgive(self) -> None:
        """Another network, or the same after a sleep: what failed before says nothing."""
        self._failures = {}

    def ranked(self, now_ns: int) -> tuple[Endpoint, ...]:
        """All of them, the likeliest first, each once."""
        hinted = {endpoint: place for place, endpoint in enumerate(self._hints)}
        good = {endpoint: when for endpoint, when in self._good.items() if now_ns - when < REMEMBERED_NS}
        manual = {endpoint: place for place, endpoint in enumerate(self._manual)}

        def rank(endpoint: Endpoint) -> tuple[int, int, int, int]:
            if endpoint in good:
                group, place = (0 if endpoint in hinted else 1), -good[endpoint]
            elif endpoint in hinted:
                group, place = 2, hinted[endpoint]
            else:
                group, place = 3, manual[endpoint]
            return self._failures.get(endpoint, 0), group, _distance(endpoint), place

        return tuple(sorted({**hinted, **good, **manual}, key=rank))

    def _known(self) -> set[Endpoint]:
        return {*self._hints, *self._manual, *self._good}

    def _forget_failures(self) -> None:
        known = self._known()
        self._failures = {endpoint: count for endpoint, count in self._failures.items() if endpoint in known}


def _distance(endpoint: Endpoint) -> int:
    """How far an address may be: this machine, the network at hand, the world."""
    ip = ip_of(endpoint.host)
    if ip is None:
        return 2
    return 0 if ip.is_loopback else 1 if not ip.is_global else 2


def _is_numeric(name: str) -> bool:
    """Whether the last label is a number: resolvers take such a name for an IPv4 address, in some notation."""
    return re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", name.rstrip(".").rpartition(".")[2]) is not None
