"""Outside: what links need of the machine: a way to dial and to be dialled, who is near, the addresses it has, chance.

`of_this_machine` is the real one: TCP, multicast DNS, rtnetlink, the system's randomness. A simulation gives its own,
in which a seed says what happens.
"""

import os
import random as random_module
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Protocol

import attrs

from sync.net.addresses import Endpoint
from sync.net.announcement import Announcement
from sync.net.discovery import Discovery
from sync.net.interfaces import LocalAddress, NetworkWatch
from sync.net.revision import Revision
from sync.net.transport import Listener, Stream, dial_tcp, listen_tcp


class Listening(Listener, Protocol):
    """A listener that can say where it is reached."""

    @property
    def endpoint(self) -> Endpoint: ...


class Network(Protocol):
    """The addresses of this machine, and notice of their changes."""

    @property
    def revision(self) -> Revision: ...

    @property
    def addresses(self) -> Iterable[LocalAddress]: ...

    async def run(self) -> None: ...


class Near(Protocol):
    """Who is near (discovery.py)."""

    @property
    def revision(self) -> Revision: ...

    def announce(self, announcement: Announcement | None) -> None: ...

    def expect(self, tags: Iterable[bytes], offers: Iterable[bytes] = ()) -> None: ...

    def find(self, tag: bytes) -> tuple[Endpoint, ...]: ...

    def find_offer(self, offer: bytes) -> tuple[Endpoint, ...]: ...

    async def run(self) -> None: ...


@attrs.frozen
class Outside:
    """`dial`: an endpoint, and how many seconds it may take; `bytes`: so many random ones."""

    dial: Callable[[Endpoint, float], Awaitable[Stream]]
    listen: Callable[[Endpoint], Awaitable[Listening]]
    network: Network
    near: Near
    random: Random
    bytes: Callable[[int], bytes]


def of_this_machine() -> Outside:
    """The machine as it is."""
    network = NetworkWatch()
    return Outside(dial_tcp, listen_tcp, network, Discovery(network), random_module.SystemRandom(), os.urandom)
