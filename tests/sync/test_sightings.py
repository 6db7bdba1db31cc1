"""What is believed of what strangers say by multicast, and how much of it is kept."""

import ipaddress
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.net.addresses import Endpoint, is_dialable
from sync.net.sightings import (
    MAX_ADDRESSES,
    MAX_ENDPOINTS,
    MAX_ENDPOINTS_OF_TAG,
    SERVICE,
    Sighting,
    Sightings,
    instance_of,
    read,
    text_of,
)

TAG, OFFER = b"12345678", b"abcdefgh"
NETWORKS = [ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("2a00:1::/64")]
NAME = "0123456789abcdef" * 2


def understood(text=None, port=4000, hosts=("10.0.0.7",), is_alone=False):
    text = text_of(TAG, None) if text is None else text
    return read(NAME, text, port, hosts, NETWORKS, is_alone=is_alone)


# -- reading -----------------------------------------------------------------------------------------------------------


def test_what_our_own_programs_say_is_understood():
    assert understood() == Sighting(NAME, TAG, None, (Endpoint("10.0.0.7", 4000),))
    assert understood(text_of(TAG, OFFER)) == Sighting(NAME, TAG, OFFER, (Endpoint("10.0.0.7", 4000),))
    assert understood(text_of(None, OFFER)).tag is None


@pytest.mark.parametrize(
    "text",
    [
        {},
        {b"v": b"2", b"id": TAG.hex().encode()},
        {b"v": b"1"},
        {b"v": b"1", b"id": None},
        {b"v": b"1", b"id": b"12"},
        {b"v": b"1", b"id": TAG.hex().upper().encode() + b"\n"},
        {b"v": b"1", b"id": b"xyz" + b"0" * 13},
    ],
)
def test_another_version_and_what_is_no_tag_are_left_out(text):
    assert understood(text) is None


@pytest.mark.parametrize("port", [None, 0, -1, 65536])
def test_a_port_is_a_port(port):
    assert understood(port=port) is None


@pytest.mark.parametrize(
    ("host", "is_believed"),
    [
        ("10.0.0.7", True), ("192.168.9.9", True), ("169.254.3.4", True), ("fd00::1", True), ("2a00:1::7", True),
        ("8.8.8.8", False), ("2a00:2::7", False), ("127.0.0.1", False), ("::1", False), ("224.0.0.1", False),
        ("0.0.0.0", False), ("255.255.255.255", False), ("::", False), ("ff02::1", False), ("fe80::1", False),
        ("fe80::1%99999", False), ("fe80::1%x", False), ("::ffff:10.0.0.7", False), ("a.example", False), ("", False),
    ],
)  # fmt: skip
def test_only_addresses_on_a_network_at_hand_are_believed(host, is_believed):
    """Nobody has us dial the world, or services of this machine; a link-local address says on which link."""
    assert (understood(hosts=[host]) is not None) == is_believed


def test_a_link_local_address_gets_the_name_of_its_interface():
    """Numbers of interfaces are not for ever, and names are what people write."""
    assert understood(hosts=["fe80::1%1"]).endpoints == (Endpoint("fe80::1%lo", 4000),)


def test_alone_on_this_machine_only_the_loopback_is_believed():
    assert understood(hosts=["127.0.0.1", "10.0.0.7"], is_alone=True).endpoints == (Endpoint("127.0.0.1", 4000),)


def test_one_program_has_no_more_than_eight_addresses():
    assert len(understood(hosts=[f"10.0.0.{i}" for i in range(1, 100)]).endpoints) == MAX_ADDRESSES


def test_instances_have_names_like_ours():
    assert instance_of(f"{NAME}.{SERVICE}") == NAME
    assert instance_of(f"{NAME.upper()}.{SERVICE}") == NAME
    for name in (SERVICE, f"{NAME}0.{SERVICE}", f"Anna's laptop.{SERVICE}", f"{NAME}._http._tcp.local.", NAME, ""):
        assert instance_of(name) is None


@given(
    st.dictionaries(st.binary(max_size=8) | st.sampled_from([b"v", b"id", b"pr"]), st.none() | st.binary(max_size=20)),
    st.none() | st.integers(-5, 70000),
    st.lists(st.text(max_size=50) | st.ip_addresses().map(str), max_size=30),
    st.booleans(),
)
def test_whatever_comes_is_left_out_or_can_be_dialled(text, port, hosts, is_alone):
    text = {b"v": b"1", b"id": TAG.hex().encode(), **text}
    sighting = read(NAME, text, port, hosts, NETWORKS, is_alone=is_alone)
    if sighting is not None:
        assert 0 < len(sighting.endpoints) <= MAX_ADDRESSES
        assert all(is_dialable(endpoint.host) and 0 < endpoint.port < 65536 for endpoint in sighting.endpoints)


# -- keeping -----------------------------------------------------------------------------------------------------------


class Told:
    """A table, and how often it told of a change."""

    def __init__(self) -> None:
        self.count = 0
        self.table = Sightings(self._tell)

    def _tell(self) -> None:
        self.count += 1


def sighting(number: int, tag: bytes | None = TAG, offer: bytes | None = None, count: int = 1) -> Sighting:
    endpoints = tuple(Endpoint(f"10.0.{number // 250}.{number % 250 + 1}", 1000 + i) for i in range(count))
    return Sighting(f"{number:032x}", tag, offer, endpoints)


def test_who_is_awaited_is_told_of_when_he_comes_changes_and_goes_and_not_when_he_repeats_himself():
    told = Told()
    told.table.expect([TAG], [])
    told.table.seen(sighting(1))
    assert told.count == 1
    told.table.seen(sighting(1))
    assert told.count == 1
    told.table.seen(sighting(1, count=2))
    assert told.count == 2
    assert len(told.table.find(TAG)) == 2
    told.table.gone(sighting(1).instance)
    assert told.count == 3
    assert told.table.find(TAG) == ()


def test_a_tag_that_changes_is_told_to_who_awaits_the_old_one():
    told = Told()
    told.table.expect([TAG], [])
    told.table.seen(sighting(1))
    told.table.seen(sighting(1, tag=b"another!"))
    assert told.count == 2
    assert told.table.find(TAG) == ()


def test_an_offer_is_found_under_its_own_kind_of_tag():
    """A device that calls itself by the tag of an offer is not taken for who made it."""
    told = Told()
    told.table.expect([], [OFFER])
    told.table.seen(sighting(1, tag=OFFER))
    assert (told.count, told.table.find_offer(OFFER)) == (0, ())
    told.table.seen(sighting(2, tag=None, offer=OFFER))
    assert (told.count, told.table.find_offer(OFFER)) == (1, sighting(2).endpoints)
    told.table.seen(sighting(2, tag=TAG, offer=None))
    assert (told.count, told.table.find_offer(OFFER)) == (2, ())


def test_strangers_wake_nobody_and_are_found_when_they_become_known():
    told = Told()
    told.table.seen(sighting(1))
    assert told.count == 0
    assert told.table.find(TAG) == sighting(1).endpoints


def test_of_one_tag_the_64_newest_are_kept_the_newest_first():
    told = Told()
    for number in range(1, 300):
        told.table.seen(sighting(number))
    found = told.table.find(TAG)
    assert len(found) == MAX_ENDPOINTS_OF_TAG == len(told.table)
    assert found[0] == sighting(299).endpoints[0]
    assert found[-1] == sighting(300 - MAX_ENDPOINTS_OF_TAG).endpoints[0]


def test_of_all_1024_are_kept_and_who_is_awaited_goes_last():
    """A flood of ten thousand strangers does not wash away a friend."""
    told = Told()
    told.table.expect([TAG], [])
    told.table.seen(sighting(0, count=3))
    for number in range(1, 10_001):
        told.table.seen(sighting(number, tag=number.to_bytes(8, "big"), count=number % 8 + 1))
        assert len(told.table) <= MAX_ENDPOINTS
    assert told.table.find(TAG) == sighting(0, count=3).endpoints
    assert told.table.find((1).to_bytes(8, "big")) == ()
    assert told.count == 1


def test_the_limit_holds_for_those_who_are_awaited_too():
    told = Told()
    told.table.expect([number.to_bytes(8, "big") for number in range(3000)], [])
    for number in range(3000):
        told.table.seen(sighting(number, tag=number.to_bytes(8, "big")))
    assert len(told.table) == MAX_ENDPOINTS


def test_on_another_network_who_is_not_heard_again_is_gone():
    told = Told()
    told.table.expect([TAG], [])
    told.table.seen(sighting(1))
    told.table.seen(sighting(2))
    told.table.begin_generation()
    assert len(told.table.find(TAG)) == 2
    told.table.seen(sighting(2))
    told.table.forget_older()
    assert told.table.find(TAG) == sighting(2).endpoints
    assert told.count == 3


def test_threads_may_come_and_go_at_once():
    told = Told()
    told.table.expect([TAG], [OFFER])

    def work(seed: int) -> None:
        for i in range(2000):
            number = (i * 7 + seed) % 90
            if i % 3:
                told.table.seen(sighting(number, offer=OFFER if i % 2 else None, count=i % 8 + 1))
            else:
                told.table.gone(sighting(number).instance)
            told.table.find(TAG)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(90):
        told.table.gone(sighting(number).instance)
    assert len(told.table) == 0
    assert told.table._tags == {}
