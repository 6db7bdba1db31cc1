"""A pairing is completed when two people said yes to a secret that served once, and never otherwise."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from index.model.errors import Invalid, PairingRefused
from sync.wire.cards import DeviceCard
from sync.wire.handshake import answer_pairing, dial_pairing
from sync.wire.identity import Keys
from sync.wire.pairing import (
    CONFIRM_S,
    MAX_FAILURES,
    MAX_HALF_OPEN,
    OFFER_S,
    Arrived,
    Completed,
    Failed,
    Joining,
    Offer,
    Say,
    Secret,
    State,
    Ticket,
    Verdict,
)
from sync.wire.words import fingerprint_words

SECRET = Secret(bytes(range(16)))
CARD = DeviceCard(b"p" * 32, b"s" * 32, b"g" * 64, "Bob", "Linux")


def arrived_offer():
    offer = Offer(SECRET, 0.0)
    offer.begin(1.0)
    offer.arrived(CARD, 2.0)
    return offer


# -- the secret --------------------------------------------------------------------------------------------------------


def test_what_follows_from_a_secret():
    """The same on both devices, and in every version."""
    again = Secret.of_words(" ".join(SECRET.words))
    assert (again.psk, again.tag) == (SECRET.psk, SECRET.tag)
    assert SECRET.psk.hex() == "0208860aa28ca93a5053625a4f8befea2d7d09200a1fb83f8406404071a66968"
    assert SECRET.tag.hex() == "25ae340ee7de6462"
    assert Secret.make(lambda size: b"r" * size) == Secret(b"r" * 16)
    assert Secret.make() != Secret.make()


def test_a_secret_is_not_printed():
    """Neither by itself nor inside of what has it."""
    for text in (repr(SECRET), repr(Ticket(SECRET, b"D" * 16))):
        assert SECRET.entropy.hex() not in text
        assert repr(SECRET.entropy)[2:-1] not in text


def test_words_and_handshake_belong_together():
    """Who typed them gets through; the key is what follows from them."""
    a = dial_pairing(Keys(b"a" * 32), Secret.of_words(" ".join(SECRET.words)).psk, name="", os_name="")
    b = answer_pairing(Keys(b"b" * 32), SECRET.psk, name="", os_name="")
    hello = a.outgoing()
    b.receive(hello[:2])
    b.receive(hello[2:])
    assert b.outgoing()


# -- the ticket --------------------------------------------------------------------------------------------------------

endpoints = st.tuples(st.sampled_from(["192.168.1.7", "fe80::1%eth0", "2001:db8::1"]), st.integers(0, 65535))


@given(
    secret=st.binary(min_size=16, max_size=16), places=st.lists(endpoints, max_size=8).map(tuple), spaces=st.booleans()
)
def test_a_ticket_comes_back_from_its_text(secret, places, spaces):
    """Also when it was wrapped by a mail, or a scanner shouts."""
    ticket = Ticket(Secret(secret), b"D" * 16, places)
    text = ticket.text()
    assert text.startswith("sdpair1")
    assert text.isalnum()
    assert Ticket.of_text(f" {text[:20]}\n{text[20:].upper()}" if spaces else text) == ticket


@given(where=st.integers(0, 10_000), how=st.sampled_from("abcdefghijklmnopqrstuvwxyz0123456789=-ß\0"))
def test_a_ticket_that_was_damaged_is_none(where, how):
    """One letter is enough; so is a missing one."""
    text = Ticket(SECRET, b"D" * 16, (("192.168.1.7", 4000),)).text()
    at = 7 + where % (len(text) - 7)
    for bad in (text[:at] + how + text[at + 1 :], text[:at], text[:at] + text[at + 1 :]):
        if bad != text:
            with pytest.raises(Invalid):
                Ticket.of_text(bad)


@given(text=st.text(max_size=100))
def test_no_text_is_taken_for_a_ticket(text):
    """One error, whatever it is."""
    for some in (text, "sdpair1" + text, "sdpair1" * 200):
        with pytest.raises(Invalid):
            Ticket.of_text(some)


# -- the story ---------------------------------------------------------------------------------------------------------


def test_the_good_end():
    """Words shown, somebody arrives, both say yes."""
    offer = Offer(SECRET, 100.0)
    assert (offer.state, offer.expires_s) == (State.OPEN, 100.0 + OFFER_S)
    offer.begin(101.0)
    assert offer.arrived(CARD, 102.0) == [Arrived(CARD, fingerprint_words(CARD.public_key))]
    assert offer.confirm(103.0) == [Say(Verdict(True))]
    assert offer.state is State.CONFIRMED
    assert offer.heard(Verdict(True)) == [Completed(CARD)]
    assert offer.tick(10_000.0) == []


def test_the_other_person_may_be_quicker():
    """It completes with the second yes, whoever says it."""
    joining = Joining(0.0)
    joining.arrived(CARD, 1.0)
    assert joining.heard(Verdict(True)) == []
    assert joining.confirm(2.0) == [Say(Verdict(True)), Completed(CARD)]


@pytest.mark.parametrize("first", ["here", "there"])
def test_one_no_is_enough(first):
    """On either side; the other one is told."""
    offer = arrived_offer()
    if first == "here":
        assert offer.refuse(3.0) == [Say(Verdict(False)), Failed("refused here")]
    else:
        offer.confirm(3.0)
        assert offer.heard(Verdict(False)) == [Failed("refused by the other device")]
    with pytest.raises(PairingRefused, match="refused"):
        offer.confirm(4.0)
    assert offer.heard(Verdict(True)) == []
    assert offer.state is State.FAILED


def test_giving_up_before_anybody_came():
    """Nobody has to be told."""
    offer = Offer(SECRET, 0.0)
    assert offer.refuse(1.0) == [Failed("refused here")]
    assert offer.refuse(2.0) == []
    with pytest.raises(PairingRefused):
        offer.begin(3.0)


def test_a_secret_serves_once():
    """Burnt by the first success: who is in the middle of a handshake does not get through any more."""
    offer = Offer(SECRET, 0.0)
    offer.begin(1.0)
    offer.begin(1.0)
    offer.arrived(CARD, 2.0)
    with pytest.raises(PairingRefused, match="served"):
        offer.arrived(CARD, 2.0)
    with pytest.raises(PairingRefused, match="served"):
        offer.begin(3.0)
    assert offer.state is State.ARRIVED
    assert offer.half_open == 0


def test_five_failures_burn_it():
    """Strangers who only connect do not."""
    offer = Offer(SECRET, 0.0)
    for number in range(20):
        offer.begin(1.0)
        offer.dropped()
        assert offer.failures == 0, number
    for number in range(MAX_FAILURES):
        offer.begin(1.0)
        assert offer.failed() == ([Failed("too many tries with other words")] if number == MAX_FAILURES - 1 else [])
    with pytest.raises(PairingRefused, match="too many tries"):
        offer.begin(2.0)


def test_not_more_than_eight_at_a_time():
    """Of those who have not proven anything."""
    offer = Offer(SECRET, 0.0)
    for _ in range(MAX_HALF_OPEN):
        offer.begin(1.0)
    with pytest.raises(PairingRefused, match="at a time"):
        offer.begin(1.0)
    offer.dropped()
    offer.begin(1.0)


def test_it_ends_with_time():
    """The offer after five minutes, the question after two more; a late arrival and a late yes are refused."""
    offer = Offer(SECRET, 0.0)
    offer.begin(1.0)
    assert offer.tick(OFFER_S - 1) == []
    with pytest.raises(PairingRefused, match="in time"):
        offer.arrived(CARD, OFFER_S)
    offer = arrived_offer()
    with pytest.raises(PairingRefused, match="confirmed in time"):
        offer.confirm(2.0 + CONFIRM_S)
    joining = Joining(0.0)
    assert joining.tick(OFFER_S) == [Failed("nobody came in time")]


def test_a_link_that_breaks_ends_it():
    """Before both said yes; afterwards it changes nothing."""
    offer = arrived_offer()
    offer.confirm(3.0)
    assert offer.lost("the link broke") == [Failed("the link broke")]
    offer = arrived_offer()
    offer.confirm(3.0)
    offer.heard(Verdict(True))
    assert offer.lost("the link broke") == []
    assert offer.state is State.COMPLETED


# -- any story ---------------------------------------------------------------------------------------------------------


class AnyStory(RuleBasedStateMachine):
    """Whatever comes in whatever order: what was promised holds."""

    @initialize()
    def begin_story(self):
        self.now = 0.0
        self.offer = Offer(SECRET, 0.0)
        self.events = []
        self.yes_here = self.yes_there = self.no = False
        self.heard = None
        self.open = 0

    def note(self, events):
        self.events += events

    @rule(seconds=st.sampled_from([0.0, 1.0, 100.0, 400.0]))
    def wait(self, seconds):
        self.now += seconds
        self.note(self.offer.tick(self.now))

    @rule()
    def connect(self):
        was_open = self.offer.state is State.OPEN and self.now < self.offer.expires_s
        try:
            self.offer.begin(self.now)
            self.open += 1
            assert was_open
        except PairingRefused:
            assert not was_open or self.open == MAX_HALF_OPEN
            self.sync_failure()

    @precondition(lambda self: self.open)
    @rule(how=st.sampled_from(["arrived", "failed", "dropped"]))
    def end_handshake(self, how):
        self.open -= 1
        if how == "arrived":
            try:
                self.note(self.offer.arrived(CARD, self.now))
            except PairingRefused:
                self.sync_failure()
        elif how == "failed":
            self.note(self.offer.failed())
        else:
            self.offer.dropped()

    @rule()
    def say_yes(self):
        try:
            self.note(self.offer.confirm(self.now))
            self.yes_here = True
        except PairingRefused:
            self.sync_failure()

    @rule()
    def say_no(self):
        self.no |= not self.offer.is_over
        self.note(self.offer.refuse(self.now))

    @rule(accepted=st.booleans())
    def hear(self, accepted):
        if not self.offer.is_over and self.heard is None:
            self.heard = self.yes_there = accepted
        self.note(self.offer.heard(Verdict(accepted)))

    def sync_failure(self):
        """A refusal may have been the moment in which it expired."""
        if self.offer.state is State.FAILED and not any(isinstance(event, Failed) for event in self.events):
            self.events.append(Failed(self.offer.reason))

    @invariant()
    def promises(self):
        ends = [event for event in self.events if isinstance(event, Completed | Failed)]
        assert len(ends) <= 1
        assert self.offer.is_over == bool(ends)
        assert sum(isinstance(event, Arrived) for event in self.events) <= 1
        assert self.offer.half_open == self.open <= MAX_HALF_OPEN
        assert self.offer.failures <= MAX_FAILURES
        if ends and isinstance(ends[0], Completed):
            assert self.yes_here
            assert self.yes_there
            assert not self.no


TestAnyStory = AnyStory.TestCase
TestAnyStory.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
