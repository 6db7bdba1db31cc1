"""Multicast DNS on one set of addresses, from opening its sockets to saying goodbye: the seam to `zeroconf`.

`zeroconf` has a thread with an event loop; everything here that is called from outside returns at once and leaves the
work to that loop, but for `open`, `ask_again` and `close`, which are for a thread of the caller.

What is heard is taken from the packets as they come, not from the cache that `zeroconf` keeps of them: a flood of
records that are to live for hours drives out those of a friend, who says two minutes. Our own programs put all that
is needed into one packet; where a part is missing it is asked for, a few times a second at most. The browser is there
for its questions. What it remembers of each name has no bound, so when strangers come in thousands that is told, and
this is to be closed and opened anew.

In: sightings to fill, an announcement. Out: sightings; `on_flood`, called in zeroconf's thread.
"""

import asyncio
import concurrent.futures
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from zeroconf import (
    DNSQuestionType,
    RecordUpdate,
    RecordUpdateListener,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
    current_time_millis,
)

from sync.net.announcement import Announcement
from sync.net.interfaces import LocalAddress
from sync.net.sightings import MAX_TEXT_BYTES, SERVICE, Sightings, instance_of, read, text_of

log = logging.getLogger("sdmount.net")

#: How long an answer is to be believed: two minutes where to go, twenty that somebody is there at all.
_HOST_TTL_S = 120
_OTHER_TTL_S = 1200
#: So many names that were not known make a flood.
FLOOD_NAMES = 4096
#: Addresses of our own that are told at most.
MAX_OWN_ADDRESSES = 8
#: Whose records came in part are asked for the rest: so many times a second at most, and for so long.
_ASKS_PER_S = 8.0
_ANSWER_MS = 1000
#: Types of records.
_A, _PTR, _TXT, _AAAA, _SRV = 1, 12, 16, 28, 33


class Multicast:
    """One `Zeroconf`, opened once and closed once."""

    def __init__(self, sightings: Sightings, used: list[LocalAddress], on_flood: Callable[[], None]) -> None:
        self._sightings = sightings
        self._used = used
        self._on_flood = on_flood
        self._lock = threading.Lock()
        self._is_closed = False
        self._running: Zeroconf | None = None
        self._browser: ServiceBrowser | None = None
        self._info: ServiceInfo | None = None
        # Our own names, replaced as a whole; what is heard of an older one comes too late to matter.
        self._instances: tuple[str, ...] = ()

    def open(self) -> None:
        """Sockets, threads, the first question. OSError or RuntimeError where there is nothing to do it with."""
        # What strangers send is no news for the log of this program.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)
        if not self._used:
            raise OSError("no interface is up")
        zeroconf = self._zeroconf()
        assert zeroconf.loop is not None
        zeroconf.loop.call_soon_threadsafe(_Ear(self, zeroconf).begin)
        with self._lock:
            self._running = zeroconf
        self._ask(None)

    def ask_again(self) -> None:
        """Who is there? A browser asks three times as it begins, and later only after whom it knows. In a thread."""
        with self._lock:
            before, self._browser = self._browser, None
        self._ask(before)

    def _ask(self, before: ServiceBrowser | None) -> None:
        if before is not None:
            before.cancel()
        with self._lock:
            zeroconf = self._running
        if zeroconf is None:
            return
        try:
            # For answers to everybody: one to this machine alone reaches one of the programs that share the port.
            browser = ServiceBrowser(zeroconf, SERVICE, [_ignore], question_type=DNSQuestionType.QM)
        except RuntimeError:  # closed meanwhile
            return
        with self._lock:
            self._browser = browser
            is_late = self._is_closed
        if is_late:
            self._end()

    def _zeroconf(self) -> Zeroconf:
        """On IPv4 and IPv6, or on IPv4 alone where the kernel has taken IPv6 away from under its addresses."""
        four = [str(known.ip) for known in self._used if known.ip.version == 4]
        # One address an interface is enough; the link-local one comes last and is always there.
        six = {known.interface: str(known.ip) for known in self._used if known.ip.version == 6}
        try:
            return Zeroconf(interfaces=[*four, *six.values()])
        except (OSError, RuntimeError):
            if not four or not six:
                raise
        return Zeroconf(interfaces=four)

    def close(self) -> None:
        """Say goodbye and end the threads. Also an `open` that is still at work ends so."""
        with self._lock:
            self._is_closed = True
        self._end()

    def _end(self) -> None:
        with self._lock:
            zeroconf, browser = self._running, self._browser
            self._running = self._browser = None
        steps = [part for part in (browser.cancel if browser else None, zeroconf.close if zeroconf else None) if part]
        for step in steps:
            try:
                step()
            except Exception as error:  # of an interface that is not there any more
                log.debug("multicast ends with %r", error)

    def announce(self, announcement: Announcement | None) -> None:
        """Tell this from now on; None: nothing.

        Each announcement has names of its own and the one before it says goodbye: listeners that keep records may
        take no notice of one that returns to what it was within seconds (RFC 6762, 10.2, and how it is implemented).
        """
        info = None if announcement is None else self._service(announcement)
        with self._lock:
            running, before, self._info = self._running, self._info, info
        if running is None:
            return
        if info is not None:
            # "Cooperating": it is not asked whether the name is in use.
            _start(running, running.async_register_service(info, cooperating_responders=True))
        if before is not None:
            _start(running, running.async_unregister_service(before))

    def _service(self, announcement: Announcement) -> ServiceInfo:
        instance = secrets.token_hex(16)
        self._instances = (*self._instances[-15:], instance)
        return ServiceInfo(
            SERVICE,
            f"{instance}.{SERVICE}",
            port=announcement.port,
            properties=text_of(announcement.tag, announcement.offer),
            server=f"{secrets.token_hex(16)}.local.",
            host_ttl=_HOST_TTL_S,
            other_ttl=_OTHER_TTL_S,
            addresses=[known.ip.packed for known in self._used[:MAX_OWN_ADDRESSES]],
        )

    def take(self, packet: "_Packet") -> list[str]:
        """What a packet says goes into the table. The names of services that it tells of in part."""
        is_alone = all(known.is_loopback for known in self._used)
        networks = [known.network for known in self._used]
        in_part = []
        for name in packet.named:
            instance = instance_of(name)
            if instance is None or instance in self._instances:
                continue
            host, port = packet.places.get(name, ("", 0))
            text, hosts = packet.texts.get(name), packet.hosts.get(host)
            if text is None or hosts is None:
                in_part.append(name)
            elif len(text) <= MAX_TEXT_BYTES:
                properties = ServiceInfo(SERVICE, name, properties=text).properties
                sighting = read(instance, properties, port, hosts, networks, is_alone=is_alone)
                if sighting is not None:
                    self._sightings.seen(sighting)
        for name in packet.gone:
            if (instance := instance_of(name)) is not None:
                self._sightings.gone(instance)
        return in_part

    def flooded(self) -> None:
        self._on_flood()


class _Packet:
    """The records of one packet that may be of interest, by lower case names."""

    def __init__(self, now_ms: float, updates: list[RecordUpdate]) -> None:
        self.named: dict[str, None] = {}
        self.gone: list[str] = []
        self.places: dict[str, tuple[str, int]] = {}
        self.texts: dict[str, bytes] = {}
        self.hosts: dict[str, list[str]] = {}
        self.new_names = 0
        for update in updates:
            record: Any = update.new  # which of its classes it is, its type says
            if record.type == _PTR:
                if record.key == SERVICE:
                    self._point(record.alias.lower(), record.is_expired(now_ms), update.old is None)
            elif record.is_expired(now_ms):
                continue
            elif record.type == _SRV:
                self.named[record.key] = None
                self.places[record.key] = record.server.lower(), record.port
            elif record.type == _TXT:
                self.texts[record.key] = record.text
            elif record.type in (_A, _AAAA):
                self.hosts.setdefault(record.key, []).append(_address(record))

    def _point(self, name: str, is_gone: bool, is_new: bool) -> None:
        if is_gone:
            self.gone.append(name)
        else:
            self.named[name] = None
            self.new_names += is_new


def _address(record: Any) -> str:
    """An address as text; a link-local one with the number of its interface."""
    family = socket.AF_INET6 if record.type == _AAAA else socket.AF_INET
    try:
        address = socket.inet_ntop(family, record.address)
    except ValueError:
        return ""
    return f"{address}%{record.scope_id}" if record.scope_id and address.startswith("fe80:") else address


class _Ear(RecordUpdateListener):
    """Hears every packet, on zeroconf's event loop. Nothing that it does may raise: other listeners come after it."""

    def __init__(self, multicast: Multicast, zeroconf: Zeroconf) -> None:
        self._multicast = multicast
        self._zeroconf = zeroconf
        self._new_names = 0
        self._asks_left = _ASKS_PER_S
        self._asked_s = time.monotonic()
        self._has_complained = False

    def begin(self) -> None:
        """What came since the sockets were opened is taken from the cache: said again, it counts as a duplicate."""
        cache = self._zeroconf.cache
        early = [RecordUpdate(record) for name in cache.names() for record in cache.entries_with_name(name)]
        self.async_update_records(self._zeroconf, current_time_millis(), early)
        self._zeroconf.async_add_listener(self, None)

    def async_update_records(self, zc: Zeroconf, now: float, records: list[RecordUpdate]) -> None:
        """The records of one packet, or those that have just expired."""
        try:
            packet = _Packet(now, records)
            for name in self._multicast.take(packet):
                self._ask(name)
            before, self._new_names = self._new_names, self._new_names + packet.new_names
            if before < FLOOD_NAMES <= self._new_names:
                self._multicast.flooded()
        except Exception:
            if not self._has_complained:
                log.exception("what was heard by multicast could not be read")
            self._has_complained = True

    def _ask(self, name: str) -> None:
        """The answer is heard like any other packet."""
        now_s = time.monotonic()
        self._asks_left = min(_ASKS_PER_S, self._asks_left + (now_s - self._asked_s) * _ASKS_PER_S)
        self._asked_s = now_s
        if self._asks_left >= 1.0:
            self._asks_left -= 1.0
            info = self._zeroconf.async_get_service_info(SERVICE, name, _ANSWER_MS, DNSQuestionType.QM)
            _start(self._zeroconf, info)


def _ignore(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
    """The browser wants somebody to tell."""


def _start(zeroconf: Zeroconf, work: Coroutine[Any, Any, object]) -> None:
    """Have zeroconf's event loop do it. What comes of it is heard, or is of interest to nobody."""
    assert zeroconf.loop is not None
    try:
        asyncio.run_coroutine_threadsafe(work, zeroconf.loop).add_done_callback(_noted)
    except RuntimeError:  # the loop has just ended
        work.close()


def _noted(done: "concurrent.futures.Future[object]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.debug("multicast: %r", error)
