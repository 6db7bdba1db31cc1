"""Devices find each other by multicast and nothing else, tell no names, and are not impressed by what strangers say."""

import getpass
import json
import platform
import queue
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
import trio
from zeroconf._protocol.incoming import DNSIncoming

from sync.net.announcement import Announcement
from sync.net.discovery import Discovery
from sync.net.interfaces import NetworkWatch
from sync.net.sightings import MAX_ENDPOINTS
from tests.netlab import Laboratory, Node, laboratory

A, B, C, OFFER = (letter * 16 for letter in "abcd")
#: How long is waited for what has to come.
PATIENCE_S = 40.0
MDNS = ("224.0.0.251", 5353)


class Neighbour:
    """A program in a node, and what it finds."""

    def __init__(self, node: Node, announce: str = "", expect: str = "", ask_again_s: float = 30.0) -> None:
        self.node = node
        self.found: dict[str, list[str]] = {"tag": [], "offer": []}
        self.process = node.popen(
            sys.executable, "-m", "tests.sync.neighbour", str(ask_again_s),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        self._complaints: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self._complaints.extend(self.process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        assert self._next() == {"up": True}
        for line in (announce, expect):
            if line:
                self.tell(line)

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _next(self, wait_s: float = PATIENCE_S) -> dict:
        line = self._lines.get(timeout=max(0.001, wait_s))
        assert line, f"the program has ended: {self._complaints}"
        return json.loads(line)

    def tell(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask_size(self) -> dict:
        self.tell("size")
        while "size" not in (answer := self._next()):
            self.found = answer
        return answer

    def until(self, is_right, what: str = "tag") -> list[str]:
        """Wait until what is found is as it should be."""
        until_s = time.monotonic() + PATIENCE_S
        while not is_right(self.found[what]):
            try:
                self.found = self._next(until_s - time.monotonic())
            except queue.Empty:
                raise AssertionError(f"{what} is {self.found[what]} {self._complaints}") from None
        return self.found[what]

    def finds(self, *places: str, what: str = "tag") -> None:
        """Exactly these IPv4 places; those of IPv6 come beside them."""
        self.until(lambda found: {place for place in found if "[" not in place} == set(places), what)

    def end(self) -> str:
        """In an orderly way; what it had to complain about."""
        self.process.stdin.close()
        assert self.process.wait(PATIENCE_S) == 0
        for reader in self._readers:
            reader.join()
        return "".join(self._complaints)


@pytest.fixture
def lab():
    with laboratory() as made:
        yield made


def test_two_devices_find_each_other_and_hear_of_the_end(lab):
    """By both families; goodbye is said, so nobody waits for an answer that will not come."""
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -", f"expect {B} {OFFER}")
    b = Neighbour(lab.node("b"), f"announce 2222 {B} -", f"expect {A} {OFFER}")
    a.finds("10.77.0.2:2222")
    b.finds("10.77.0.1:1111")
    a.until(lambda found: "[fe80::ff:fe00:2%eth0]:2222" in found)
    assert a.end() == ""
    b.finds()
    b.until(lambda found: found == [])
    assert b.end() == ""


def test_three_devices_each_find_the_one_they_look_for(lab):
    """Also one that was there long before, and one that only listens."""
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -", f"expect {C} {OFFER}")
    b = Neighbour(lab.node("b"), f"announce 2222 {B} -", f"expect {A} {OFFER}")
    b.finds("10.77.0.1:1111")
    c = Neighbour(lab.node("c"), f"announce 3333 {C} -", f"expect {B} {OFFER}")
    c.finds("10.77.0.2:2222")
    a.finds("10.77.0.3:3333")
    listener = Neighbour(lab.node("d"), "", f"expect {A} {OFFER}")
    listener.finds("10.77.0.1:1111")


def test_an_offer_to_pair_is_seen_while_it_is_open(lab):
    """It is set and unset while the program runs; who has no library yet has an offer only."""
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -", f"expect {A} {OFFER}")
    b = Neighbour(lab.node("b"), "", f"expect {A} {OFFER}")
    b.finds("10.77.0.1:1111")
    assert b.found["offer"] == []
    a.tell(f"announce 1111 {A} {OFFER}")
    b.finds("10.77.0.1:1111", what="offer")
    a.tell(f"announce 1111 {A} -")
    b.finds(what="offer")
    b.finds("10.77.0.1:1111")
    a.tell(f"announce 1111 - {OFFER}")
    b.finds("10.77.0.1:1111", what="offer")
    b.finds()
    a.tell("quiet")
    b.finds(what="offer")


def test_another_port_takes_the_place_of_the_old_one(lab):
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -")
    b = Neighbour(lab.node("b"), "", f"expect {A} {OFFER}")
    b.finds("10.77.0.1:1111")
    a.tell(f"announce 1112 {A} -")
    b.finds("10.77.0.1:1112")


def test_a_device_that_gets_another_address_is_found_there(lab):
    """As on a network that gives it one later, or another one; the old one is forgotten."""
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -", f"expect {B} {OFFER}")
    b = Neighbour(lab.node("b"), f"announce 2222 {B} -", f"expect {A} {OFFER}")
    a.finds("10.77.0.2:2222")
    b.finds("10.77.0.1:1111")
    a.node.add_address("10.77.0.77")
    a.node.remove_address("10.77.0.1")
    b.finds("10.77.0.77:1111")
    a.finds("10.77.0.2:2222")


def test_who_comes_onto_the_network_later_is_found(lab):
    """Started with no network at all, which is nothing to complain about more than once."""
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -", f"expect {B} {OFFER}")
    node = lab.node("b")
    node.down()
    node.run("ip", "link", "set", "lo", "down")
    b = Neighbour(node, f"announce 2222 {B} -", f"expect {A} {OFFER}")
    node.run("ip", "link", "set", "lo", "up")
    node.up()
    a.finds("10.77.0.2:2222")
    b.finds("10.77.0.1:1111")
    assert b.end().count("no multicast here") == 1


def test_two_programs_on_one_machine_find_each_other_with_and_without_a_network(lab):
    """By the addresses of its interfaces where there are any, else by the loopback's."""
    node = lab.node("a")
    a = Neighbour(node, f"announce 1111 {A} -", f"expect {B} {OFFER}")
    b = Neighbour(node, f"announce 2222 {B} -", f"expect {A} {OFFER}")
    a.finds("10.77.0.1:2222")
    b.finds("10.77.0.1:1111")
    node.down()
    a.finds("127.0.0.1:2222")
    b.finds("127.0.0.1:1111")
    node.up()
    a.finds("10.77.0.1:2222")
    b.finds("10.77.0.1:1111")


def test_a_partition_ends_and_they_find_each_other(lab):
    """What both said at first is lost, and no interface tells that the network is whole again: they ask anew."""
    first, second = lab.node("a"), lab.node("b")
    lab.part(first, second)
    a = Neighbour(first, f"announce 1111 {A} -", f"expect {B} {OFFER}", ask_again_s=1.0)
    b = Neighbour(second, f"announce 2222 {B} -", f"expect {A} {OFFER}", ask_again_s=1.0)
    time.sleep(7.0)  # until the first three questions, which zeroconf asks by itself, are over
    lab.heal(first, second)
    a.finds("10.77.0.2:2222")
    b.finds("10.77.0.1:1111")


# -- privacy -----------------------------------------------------------------------------------------------------------


def dns_in(frame: bytes) -> bytes | None:
    """The mDNS message in an Ethernet frame, if any."""
    kind = frame[12:14]
    start = 14 + (frame[14] & 15) * 4 if kind == b"\x08\x00" else 54 if kind == b"\x86\xdd" else None
    if start is None or len(frame) < start + 8 or struct.unpack_from(">H", frame, start + 2)[0] != MDNS[1]:
        return None
    return frame[start + 8 :]


def test_nothing_that_goes_out_has_a_name_in_it(lab):
    """Every label and text of every packet is random, a tag, or a word that all programs of this kind say."""
    with lab.listen() as watching:
        a = Neighbour(lab.node("a"), f"announce 1111 {A} {OFFER}", f"expect {B} -")
        b = Neighbour(lab.node("b"), f"announce 2222 {B} -", f"expect {A} {OFFER}")
        a.finds("10.77.0.2:2222")
        b.finds("10.77.0.1:1111", what="offer")
        a.end()
        b.end()
        messages = []
        with pytest.raises(BlockingIOError):
            while True:
                if message := dns_in(watching.recv(65536)):
                    messages.append(message)
    assert len(messages) > 6
    words = set()
    for message in messages:
        for secret in (socket.gethostname(), platform.node(), getpass.getuser(), "sdmount", "python"):
            assert secret.encode() not in message
        parsed = DNSIncoming(message)
        assert parsed.valid
        for item in [*parsed.questions, *parsed.answers()]:
            for name in (item.name, getattr(item, "server", ""), getattr(item, "alias", "")):
                words.update(label for label in name.split(".") if label)
            text = getattr(item, "text", b"")
            while text:
                words.add(text[1 : 1 + text[0]].decode("ascii"))
                text = text[1 + text[0] :]
    usual = {"_vdfs", "_tcp", "local", "v=1", f"id={A}", f"id={B}", f"pr={OFFER}"}
    assert usual <= words
    for word in words - usual:
        assert len(word) == 32
        assert set(word) <= set("0123456789abcdef")


def test_names_are_others_at_each_start(lab):
    """Who listens for weeks learns from them nothing that he would know again."""
    node = lab.node("a")
    seen = set()
    with lab.listen() as watching:
        for _ in range(2):
            a = Neighbour(node, f"announce 1111 {A} -", f"expect {B} -")
            b = Neighbour(node, f"announce 2222 {B} -", f"expect {A} -")
            a.finds("10.77.0.1:2222")
            a.end()
            b.end()
        with pytest.raises(BlockingIOError):
            while True:
                message = dns_in(watching.recv(65536))
                if message is not None:
                    seen.update(getattr(record, "server", "") for record in DNSIncoming(message).answers())
    assert len(seen - {""}) == 4


# -- strangers ---------------------------------------------------------------------------------------------------------


def dns_name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(name: bytes, kind: int, data: bytes, ttl_s: int = 4500) -> bytes:
    return name + struct.pack(">HHIH", kind, 0x8001 if kind != 12 else 1, ttl_s, len(data)) + data


def service(instance: bytes, tag: bytes, address: str, port: int, text: bytes | None = None) -> list[bytes]:
    """The records of one program, as a stranger may make them up."""
    service_name = dns_name(b"_vdfs", b"_tcp", b"local")
    name = bytes([len(instance)]) + instance + service_name
    host = dns_name(instance[:40], b"local")
    if text is None:
        text = b"\3v=1" + bytes([3 + len(tag)]) + b"id=" + tag
    return [
        record(service_name, 12, name),
        record(name, 33, struct.pack(">HHH", 0, 0, port) + host),
        record(name, 16, text),
        record(host, 1, socket.inet_aton(address)),
    ]


def packets(records: list[bytes], room: int = 8000) -> list[bytes]:
    """Responses that hold them all."""
    made: list[bytes] = []
    body, count = b"", 0
    for one in [*records, b""]:
        if count and (not one or len(body) + len(one) > room):
            made.append(struct.pack(">HHHHHH", 0, 0x8400, 0, count, 0, 0) + body)
            body, count = b"", 0
        body += one
        count += 1
    return made


def shout(node: Node, messages: list[bytes], pause_s: float = 0.002) -> None:
    """Say it to everybody."""

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            stranger.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(node.address))
            stranger.bind((node.address, 5353))
            for message in messages:
                stranger.sendto(message, MDNS)
                time.sleep(pause_s)  # no faster than the listener's socket takes it, so that it does arrive

    node.inside(send)


def last_word(listener: Neighbour, stranger: Node) -> None:
    """Returns when all that the stranger said has been heard: what is said last is heard last. Some may be lost."""
    is_there = threading.Event()

    def repeat() -> None:
        for number in range(200):
            shout(stranger, packets(service(b"%032x" % (number + (1 << 100)), B.encode(), "10.77.0.250", 7)))
            if is_there.wait(0.2):
                return

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        listener.until(lambda found: "10.77.0.250:7" in found)
    finally:
        is_there.set()
        thread.join()


def met(lab: Laboratory, ask_again_s: float = 30.0) -> tuple[Neighbour, Node]:
    """A device that has found B, and a stranger on the same network."""
    a = Neighbour(lab.node("a"), f"announce 1111 {A} -", f"expect {B} {OFFER}", ask_again_s)
    Neighbour(lab.node("b"), f"announce 2222 {B} -", f"expect {A} {OFFER}")
    a.finds("10.77.0.2:2222")
    return a, lab.node("stranger")


def test_a_flood_of_ten_thousand_ids_is_bounded_and_a_friend_is_found_all_the_same(lab):
    """Who was known stays known, who comes afterwards is found; memory has its limit."""
    a, stranger = met(lab)
    before = a.ask_size()["rss_bytes"]
    flood = [
        one
        for number in range(10_000)
        for one in service(b"%032x" % number, b"%016x" % number, f"10.77.{number % 250}.9", 1 + number % 60000)
    ]
    shout(stranger, packets(flood))
    last_word(a, stranger)
    a.finds("10.77.0.2:2222", "10.77.0.250:7")
    after = a.ask_size()
    assert MAX_ENDPOINTS // 2 < after["size"] <= MAX_ENDPOINTS
    assert after["rss_bytes"] - before < 64 << 20
    late = Neighbour(lab.node("late"), f"announce 4444 {B} -")
    a.finds("10.77.0.2:2222", "10.77.0.250:7", "10.77.0.4:4444")
    late.end()
    assert a.end() == ""


def test_when_the_flood_is_over_it_is_forgotten(lab):
    """It is begun anew: strangers that are heard no more go, with all that zeroconf keeps of them; a friend stays."""
    a, stranger = met(lab, ask_again_s=1.0)
    shout(stranger, packets([one for i in range(1000) for one in service(b"%032x" % i, b"%016x" % i, "10.77.0.9", 9)]))
    until_s = time.monotonic() + PATIENCE_S
    while a.ask_size()["size"] < 100 and time.monotonic() < until_s:
        time.sleep(0.05)
    # Names alone, so many that enough of them are heard though packets are lost.
    names = range(1 << 20, (1 << 20) + 40_000)
    shout(stranger, packets([service(b"%032x" % i, b"", "10.77.0.9", 9)[0] for i in names]))
    while (size := a.ask_size()["size"]) > 20 and time.monotonic() < until_s:
        time.sleep(0.2)
    assert size <= 20
    a.finds("10.77.0.2:2222")
    assert a.end() == ""


def test_a_stranger_who_says_a_thousand_times_that_he_is_a_friend_has_64_places(lab):
    """The tag can be read in the air by anybody. It is the handshake that tells them apart."""
    a, stranger = met(lab)
    shout(
        stranger, packets([one for i in range(1000) for one in service(b"%032x" % i, B.encode(), "10.77.0.9", 1 + i)])
    )
    last_word(a, stranger)
    assert 60 <= len(a.found["tag"]) <= 64
    assert a.end() == ""


def test_what_is_not_as_our_programs_say_it_is_left_out(lab):
    """Long names, strange names, texts that lie about their length, the world's addresses; and no word in the log."""
    a, stranger = met(lab)
    tag = B.encode()
    odd = [
        *service(b"x" * 63, tag, "10.77.0.9", 1),
        *service(b"%s%n\x1b[31m\xff\xfe", tag, "10.77.0.9", 2),
        *service(b"../../etc/passwd", tag, "10.77.0.9", 3),
        *service(b"1" * 32, tag, "8.8.8.8", 4),
        *service(b"2" * 32, tag, "127.0.0.1", 5),
        *service(b"3" * 32, tag, "255.255.255.255", 6),
        *service(b"4" * 32, tag, "10.77.0.9", 0),
        *service(b"5" * 32, tag, "10.77.0.9", 7, b"\xffv=1"),
        *service(b"6" * 32, tag, "10.77.0.9", 8, (b"\xff" + b"z" * 255) * 20 + b"\3v=1"),
        *service(b"7" * 32, tag[:-1], "10.77.0.9", 9),
        *service(b"8" * 32, tag, "10.77.0.9", 10, b""),
        *service(b"9" * 32, tag, "10.77.0.9", 11)[:1],
    ]
    garbage = [bytes([i % 256]) * (i * 7 % 1400) for i in range(200)] + [packets(odd)[0][:cut] for cut in range(900)]
    shout(stranger, [*packets(odd), *garbage], pause_s=0.0005)
    last_word(a, stranger)
    a.finds("10.77.0.2:2222", "10.77.0.250:7")
    assert a.end() == ""


# -- in the program that uses it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", [b"", b"1234567", b"123456789"])
def test_tags_have_eight_bytes(tag):
    with pytest.raises(ValueError):
        Announcement(1, tag)
    with pytest.raises(ValueError):
        Announcement(1, None, tag)


def test_where_there_is_no_multicast_it_is_told_once_and_nothing_fails(monkeypatch, caplog):
    """No interface at all, again and again."""
    network = NetworkWatch()
    network.addresses = frozenset()
    discovery = Discovery(network)
    discovery.announce(Announcement(1, b"12345678"))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(discovery.run)
            for _ in range(3):
                await trio.sleep(0.05)
                network.revision.bump()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert [record.levelname for record in caplog.records if "no multicast" in record.message] == ["WARNING"]
    assert discovery.find(b"12345678") == ()


CANCELLED = """
import threading, time, trio
from sync.net.discovery import Discovery
from sync.net.interfaces import NetworkWatch
from sync.net.announcement import Announcement

async def main(wait_s):
    discovery = Discovery(NetworkWatch())
    discovery.announce(Announcement(1, b"12345678"))
    with trio.move_on_after(wait_s):
        await discovery.run()

for wait_s in (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.4):
    trio.run(main, wait_s)
until_s = time.monotonic() + 30
while any("zeroconf" in thread.name or "_run_loop" in thread.name for thread in threading.enumerate()):
    assert time.monotonic() < until_s, threading.enumerate()
    time.sleep(0.05)
"""


def test_it_can_be_cancelled_at_any_moment(lab):
    """While sockets are opened, while it is announced, while it listens; no thread of it goes on, no socket stays."""
    done = lab.node("a").run(sys.executable, "-W", "error", "-c", CANCELLED)
    assert (done.stdout, done.stderr) == ("", "")
