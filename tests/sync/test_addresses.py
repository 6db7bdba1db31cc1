"""Where a device may be reached: what is accepted, what is kept, what comes first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import Invalid
from sync.net.addresses import (
    MAX_HINTS,
    MAX_MANUAL,
    MAX_REMEMBERED,
    REMEMBERED_NS,
    Candidates,
    Endpoint,
    Remembered,
    is_dialable,
    parse_endpoint,
)

DEVICE = b"d" * 16
NOW_NS = 1_700_000_000 * 10**9
HOUR_NS = 3600 * 10**9


class Kept:
    """A memory that counts."""

    def __init__(self, *known: Remembered) -> None:
        self.known = list(known)
        self.saves = 0

    def load(self, device):
        assert device == DEVICE
        return self.known

    def save(self, device, remembered):
        assert device == DEVICE
        self.known = list(remembered)
        self.saves += 1


def at(number: int) -> Endpoint:
    return Endpoint(f"10.0.0.{number}", 4000)


def candidates(*known: Remembered) -> tuple[Candidates, Kept]:
    memory = Kept(*known)
    return Candidates(DEVICE, memory, NOW_NS), memory


# -- text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("10.0.0.7:4711", Endpoint("10.0.0.7", 4711)),
        ("10.0.0.7", Endpoint("10.0.0.7", 9)),
        (" nas.example:1 ", Endpoint("nas.example", 1)),
        ("[2001:db8::1]:65535", Endpoint("2001:db8::1", 65535)),
        ("[fe80::1%eth0]:80", Endpoint("fe80::1%eth0", 80)),
        ("[::1]", Endpoint("::1", 9)),
    ],
)
def test_an_address_is_written_as_everybody_writes_it(text, endpoint):
    assert parse_endpoint(text, 9) == endpoint
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    "10.0.0.7 10.0.0.7: 10.0.0.7:0 10.0.0.7:65536 :80 ::1:80 [10.0.0.7]:80 [nas]:80 [fe80::1]:80 224.0.0.251:80 "
    "[ff02::1]:80 0.0.0.0:80 [::]:80 255.255.255.255:80 240.0.0.1:80 0.1.2.3:80 [::ffff:10.0.0.1]:80 a..b:80 -a:80 "
    "a_b:80 10.0.0.7%eth0:80 2130706433:80 0x7f000001:80 1.2.3:80 [fe80::1%a/b]:80 host:80:80".split(),
)
def test_what_cannot_be_one_device_is_refused_with_a_word(text):
    """Groups, broadcasts, "any", numbers that a resolver would take for an address, link-local without its link."""
    with pytest.raises(Invalid):
        parse_endpoint(text)


@given(st.text(max_size=300))
def test_any_text_is_an_address_or_invalid(text):
    try:
        endpoint = parse_endpoint(text)
    except Invalid:
        return
    assert parse_endpoint(str(endpoint)) == endpoint


# -- order -------------------------------------------------------------------------------------------------------------


def test_what_worked_and_is_heard_comes_first_what_a_person_wrote_last():
    book, _ = candidates(Remembered(at(1), NOW_NS - 2), Remembered(at(2), NOW_NS - 1))
    book.heard([at(3), at(1)])
    book.set_manual([at(9), at(3)])
    assert book.ranked(NOW_NS) == (at(1), at(2), at(3), at(9))


def test_the_network_at_hand_comes_before_the_world():
    book, _ = candidates()
    book.heard([Endpoint("8.8.8.8", 1), Endpoint("2001:4860::1", 1), Endpoint("192.168.1.5", 1), Endpoint("::1", 1)])
    assert [endpoint.host for endpoint in book.ranked(NOW_NS)] == ["::1", "192.168.1.5", "8.8.8.8", "2001:4860::1"]


def test_what_failed_gives_way_so_that_each_gets_its_turn():
    """However many false addresses are heard, a true one that is remembered or written down is among the first soon."""
    book, _ = candidates(Remembered(at(1), NOW_NS))
    book.heard([Endpoint("10.9.9.9", port) for port in range(1, MAX_HINTS + 1)])
    book.set_manual([at(2)])
    dialled = set()
    for _ in range(9):
        for endpoint in book.ranked(NOW_NS)[:8]:
            dialled.add(endpoint)
            book.failed(endpoint)
    assert dialled == set(book.ranked(NOW_NS))


def test_failures_are_forgotten_by_success_by_another_network_and_when_all_failed():
    book, _ = candidates()
    book.heard([at(1), at(2)])
    book.failed(at(1))
    assert book.ranked(NOW_NS)[0] == at(2)
    book.forgive()
    assert book.ranked(NOW_NS)[0] == at(1)
    book.failed(at(1))
    book.worked(at(1), NOW_NS)
    assert book.ranked(NOW_NS)[0] == at(1)
    for _ in range(10):
        book.failed(at(1))
        book.failed(at(2))
    assert book.ranked(NOW_NS)[0] == at(1)


def test_what_is_heard_anew_is_news_and_what_is_heard_again_is_none():
    book, _ = candidates()
    assert book.heard([at(1)])
    assert not book.heard([at(1)])
    assert book.heard([at(2), at(1)])
    assert not book.heard([at(1)])
    assert book.ranked(NOW_NS) == (at(1),)
    assert book.heard([at(2)])


# -- memory ------------------------------------------------------------------------------------------------------------


def test_what_worked_outlasts_the_process():
    book, memory = candidates()
    book.heard([at(1)])
    book.worked(at(1), NOW_NS)
    assert Candidates(DEVICE, memory, NOW_NS).ranked(NOW_NS) == (at(1),)


def test_an_address_that_works_all_the_time_is_not_saved_all_the_time():
    book, memory = candidates()
    for i in range(10):
        book.worked(at(1), NOW_NS + i)
    assert memory.saves == 1
    book.worked(at(1), NOW_NS + HOUR_NS)
    assert memory.saves == 2


def test_what_is_old_is_not_dialled_any_more():
    book, _ = candidates(Remembered(at(1), NOW_NS - REMEMBERED_NS), Remembered(at(2), NOW_NS))
    assert book.ranked(NOW_NS) == (at(2),)
    assert book.ranked(NOW_NS + REMEMBERED_NS) == ()


def test_a_time_from_the_future_ages_from_now_on():
    """The clock was wrong when it was written."""
    book, _ = candidates(Remembered(at(1), NOW_NS * 2))
    assert book.ranked(NOW_NS + REMEMBERED_NS) == ()


def test_an_address_of_one_link_is_not_remembered():
    """`fe80::1%eth0` is somebody else on the next network."""
    book, memory = candidates()
    book.heard([Endpoint("fe80::1%eth0", 1)])
    book.worked(Endpoint("fe80::1%eth0", 1), NOW_NS)
    assert memory.known == []


def test_everything_has_its_limit():
    book, memory = candidates(*(Remembered(at(i), NOW_NS + i) for i in range(100)))
    book.heard([Endpoint("10.1.0.1", port) for port in range(1, 5000)])
    book.set_manual([Endpoint("10.2.0.1", port) for port in range(1, 5000)])
    assert len(book.ranked(NOW_NS)) == MAX_HINTS + MAX_REMEMBERED + MAX_MANUAL
    for port in range(1, 50):
        book.worked(Endpoint("10.3.0.1", port), NOW_NS + port)
    assert [known.endpoint.port for known in memory.known] == list(range(50 - MAX_REMEMBERED, 50))


@given(st.lists(st.text(max_size=40), max_size=20))
def test_hosts_of_any_form_are_left_out_or_can_be_dialled(hosts):
    """Hints are text that a stranger sent."""
    book, _ = candidates()
    book.heard([Endpoint(host, 1) for host in hosts])
    assert all(is_dialable(endpoint.host) for endpoint in book.ranked(NOW_NS))
