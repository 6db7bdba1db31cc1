"""The addresses that this machine has, and notice of a network that changed or a machine that woke up.

The kernel is asked by rtnetlink: links and addresses are dumped, and its notices say when to do so again. Notices
are only a reason to look; what counts is whether the set of addresses is another one. A sleep shows in two clocks of
which only one goes on while the machine sleeps, looked at every few seconds; after it all that was known of the
network is doubtful, also with the same addresses.

In: nothing. Out: `NetworkWatch.addresses`, and a `revision` that grows with each change and each wake-up. Where the
kernel refuses rtnetlink (a sandbox) that is logged once; there are no addresses then and nobody is found by
multicast, all else works.

Source: rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h.
"""

import contextlib
import errno
import ipaddress
import logging
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import trio

from sync.net.revision import Revision

log = logging.getLogger("sdmount.net")

#: How often the clocks are compared; also the longest that a change goes unseen whose notice was lost.
LOOK_S = 5.0
#: A change comes as several notices: an interface, its addresses one by one.
SETTLE_S = 0.3
#: Clocks that differ by more than that since the last look were parted by a sleep.
SLEPT_S = 2.0
_ANSWER_S = 2.0
_BUFFER_BYTES = 65536

_RTM_NEWLINK, _RTM_GETLINK, _RTM_NEWADDR, _RTM_GETADDR = 16, 18, 20, 22
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x1 | 0x300
_GROUPS = 0x1 | 0x10 | 0x100  # links, IPv4 addresses, IPv6 addresses
_HEADER = struct.Struct("=IHHII")
_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING, _IFF_MULTICAST = 0x1, 0x8, 0x40, 0x1000
#: Of an address: not ours yet, never ours, soon not any more.
_TEMPORARY, _DAD_FAILED, _DEPRECATED, _TENTATIVE = 0x01, 0x08, 0x20, 0x40

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class LocalAddress(NamedTuple):
    """One address of one interface that is up."""

    interface: str
    ip: IpAddress
    prefix_bits: int
    is_loopback: bool
    is_multicast: bool  # the interface carries multicast
    is_temporary: bool  # an IPv6 privacy address, which is replaced within a day

    @property
    def network(self) -> IpNetwork:
        return ipaddress.ip_network((self.ip, self.prefix_bits), strict=False)


def local_addresses() -> frozenset[LocalAddress]:
    """What the kernel says just now: a fraction of a millisecond. OSError where it may not be asked."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_ANSWER_S)
        links = dict(_links(_dump(kernel, _RTM_GETLINK)))
        return frozenset(_addresses(_dump(kernel, _RTM_GETADDR), links))


class NetworkWatch:
    """The addresses as they change. `run` is the task that follows them."""

    def __init__(self) -> None:
        self.revision = Revision()
        self.addresses: frozenset[LocalAddress] = frozenset()
        self._has_complained = False
        self._slept_s = _slept_s()
        self._look()

    async def run(self) -> None:
        """Follow the network, for ever."""
        with contextlib.ExitStack() as stack:
            notices = _notices()
            if notices is not None:
                stack.enter_context(notices)
            while True:
                with trio.move_on_after(LOOK_S) as patience:
                    if notices is None:
                        await trio.sleep_forever()
                    await trio.lowlevel.wait_readable(notices)
                if notices is not None and not patience.cancelled_caught:
                    await trio.sleep(SETTLE_S)
                    _drain(notices)
                self.look()

    def look(self) -> None:
        """Compare with what was there before, now."""
        slept_s, before_s = _slept_s(), self._slept_s
        self._slept_s = slept_s
        has_slept = slept_s - before_s > SLEPT_S
        if self._look() or has_slept:
            self.revision.bump()

    def _look(self) -> bool:
        try:
            found = local_addresses()
        except OSError as error:
            if not self._has_complained:
                log.warning("the addresses of this machine are not to be had (%s); nobody is found by multicast", error)
            self._has_complained = True
            return False
        is_another = found != self.addresses
        self.addresses = found
        return is_another


def _slept_s() -> float:
    """How long this machine has slept since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


# -- rtnetlink ---------------------------------------------------------------------------------------------------------


def _notices() -> socket.socket | None:
    """A socket that becomes readable when links or addresses change; None where that is refused."""
    try:
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            kernel.bind((0, _GROUPS))
        except OSError:
            kernel.close()
            raise
    except OSError as error:
        log.info("changes of the network are looked for every %.0f s only (%s)", LOOK_S, error)
        return None
    kernel.setblocking(False)
    return kernel


def _drain(notices: socket.socket) -> None:
    """Throw the notices away; too many of them for the socket's buffer are a notice, too."""
    while True:
        try:
            notices.recv(_BUFFER_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _dump(kernel: socket.socket, kind: int) -> Iterator[tuple[int, memoryview]]:
    """All messages that answer one request: type and body."""
    kernel.send(_HEADER.pack(_HEADER.size + 1, kind, _REQUEST_DUMP, kind, 0) + bytes([socket.AF_UNSPEC]))
    while True:
        data = memoryview(kernel.recv(_BUFFER_BYTES))
        while len(data) >= _HEADER.size:
            length, answer, _, sequence, _ = _HEADER.unpack_from(data)
            if length < _HEADER.size or sequence != kind:
                break
            if answer == _NLMSG_DONE:
                return
            if answer == _NLMSG_ERROR:
                code = -struct.unpack_from("=i", data, _HEADER.size)[0]
                raise OSError(code, "rtnetlink refuses")
            yield answer, data[_HEADER.size : length]
            data = data[(length + 3) & ~3 :]


def _attributes(data: memoryview) -> dict[int, bytes]:
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & 0x3FFF] = bytes(data[4:length])
        data = data[(length + 3) & ~3 :]
    return found


def _links(messages: Iterator[tuple[int, memoryview]]) -> Iterator[tuple[int, tuple[str, int]]]:
    """Index -> name and flags of the interfaces that are up and have a carrier."""
    for kind, body in messages:
        if kind == _RTM_NEWLINK:
            _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
            name = _attributes(body[16:]).get(_IFLA_IFNAME, b"").rstrip(b"\0").decode("utf-8", "replace")
            if flags & _IFF_UP and flags & _IFF_RUNNING:
                yield index, (name, flags)


def _addresses(messages: Iterator[tuple[int, memoryview]], links: dict[int, tuple[str, int]]) -> Iterator[LocalAddress]:
    for kind, body in messages:
        if kind != _RTM_NEWADDR:
            continue
        family, prefix_bits, flags, _, index = struct.unpack_from("=BBBBI", body)
        attributes = _attributes(body[8:])
        if _IFA_FLAGS in attributes:
            flags = struct.unpack("=I", attributes[_IFA_FLAGS])[0]
        raw = attributes.get(_IFA_LOCAL, attributes.get(_IFA_ADDRESS, b""))
        if index not in links or flags & (_DAD_FAILED | _DEPRECATED | _TENTATIVE):
            continue
        if (family, len(raw)) not in ((socket.AF_INET, 4), (socket.AF_INET6, 16)):
            continue
        name, link = links[index]
        ip = ipaddress.ip_address(raw)
        is_temporary = ip.version == 6 and bool(flags & _TEMPORARY)  # for IPv4 the same bit means "secondary"
        yield LocalAddress(name, ip, prefix_bits, bool(link & _IFF_LOOPBACK), bool(link & _IFF_MULTICAST), is_temporary)
