"""Two devices meet: whoever is not meant, not known or not genuine gets nowhere, and learns nothing on the way."""

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.model.errors import HandshakeFailed, VersionUnsupported
from sync.wire import aead, handshake
from sync.wire.cards import shown_name, signed_card
from sync.wire.handshake import (
    MAX_MESSAGE_BYTES,
    answer_paired,
    answer_pairing,
    dial_paired,
    dial_pairing,
)
from sync.wire.identity import Keys

ALICE, BOB, MALLORY = Keys(b"a" * 32), Keys(b"b" * 32), Keys(b"m" * 32)
LIBRARY, DEVICE, PSK = b"L" * 16, b"D" * 16, b"p" * 32


def everybody(static, library, device):
    return True


def paired(*, dialler=ALICE, answerer=BOB, meant=BOB, admit=everybody, **more):
    return (
        dial_paired(dialler, device=DEVICE, library=LIBRARY, remote_static=meant.static_key, **more),
        answer_paired(answerer, admit),
    )


def pairing(*, psk=PSK, other_psk=PSK, name="Alice's laptop"):
    return (
        dial_pairing(ALICE, psk, name=name, os_name="Linux"),
        answer_pairing(BOB, other_psk, name="Bob", os_name="Linux"),
    )


WAYS = {"paired": paired, "pairing": pairing}


def shake(dialler, answerer, *, change=lambda number, message: message, step=10_000):
    """Carry messages until nobody has one, each changed on its way, in pieces of at most `step` bytes."""
    said = []
    moved = True
    while moved:
        moved = False
        for sender, receiver in ((dialler, answerer), (answerer, dialler)):
            message = sender.outgoing()
            if not message:
                continue
            moved = True
            said.append(message)
            message = change(len(said) - 1, message)
            while message and receiver.wanted:
                size = min(step, receiver.wanted)
                piece, message = message[:size], message[size:]
                receiver.receive(piece)
    return said


def talk(one, other):
    """What one seals the other opens, in both directions."""
    for sender, receiver in ((one, other), (other, one)):
        receiver.opener.feed(sender.sealer.seal(b"text"))
        assert receiver.opener.waiting() == 4
        assert bytes(receiver.opener.open()) == b"text"


# -- who is meant to ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_both_end_with_the_same_link(way, step):
    """However the bytes arrive; never is one more wanted than the handshake has."""
    a, b = way()
    shake(a, b, step=step)
    assert (a.wanted, b.wanted) == (0, 0)
    assert a.result.handshake_hash == b.result.handshake_hash
    assert a.result.cipher == b.result.cipher == aead.offered()[0]
    assert a.result.version == 1
    assert (a.result.is_initiator, b.result.is_initiator) == (True, False)
    assert (a.result.noise_static, b.result.noise_static) == (BOB.static_key, ALICE.static_key)
    talk(a.result, b.result)


def test_who_is_dialled_is_told_who_dials():
    """And asks whether it may, with the key that was proven."""
    asked = []

    def admit(static, library, device):
        asked.append((static, library, device))
        return True

    a, b = paired(admit=admit)
    shake(a, b)
    assert asked == [(ALICE.static_key, LIBRARY, DEVICE)]
    assert (b.result.library, b.result.device) == (LIBRARY, DEVICE)


def test_a_pairing_shows_two_cards():
    """Each with the keys that sign it and that the handshake proved."""
    a, b = pairing()
    shake(a, b)
    assert (a.result.card.public_key, b.result.card.public_key) == (BOB.public_key, ALICE.public_key)
    assert (a.result.card.noise_static, b.result.card.noise_static) == (BOB.static_key, ALICE.static_key)
    assert (a.result.card.name, b.result.card.name) == ("Bob", "Alice's laptop")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("x" * 100, "x" * 64),
        ("ü" * 100, "ü" * 64),
        ("\U0001f4bb" * 99, "\U0001f4bb" * 64),
        ("a\x1b[2J\nb\u202e", "a�[2J�b�"),
    ],
)
def test_names_are_shown_as_they_can_be(name, shown):
    """Cut to 64 characters, without what a terminal would obey; that of the other side, too."""
    a, b = pairing(name=name)
    shake(a, b)
    assert b.result.card.name == shown
    assert shown_name(name) == shown


def test_no_message_is_longer_than_its_frame():
    """With the longest of names."""
    a, b = pairing(name="\U0001f4bb" * 64)
    assert max(len(message) for message in shake(a, b)) <= 2 + MAX_MESSAGE_BYTES


def test_with_given_randomness_a_handshake_is_the_same_again():
    """A simulation is replayed by its seed."""

    def said():
        source = random.Random(1).randbytes
        a = dial_paired(ALICE, device=DEVICE, library=LIBRARY, remote_static=BOB.static_key, random=source)
        return shake(a, answer_paired(BOB, everybody, random=source))

    assert said() == said()


# -- ciphers and versions ----------------------------------------------------------------------------------------------


def test_the_best_cipher_of_both_is_taken():
    """A device without AES in its processor speaks ChaCha20 with all others."""
    a, b = paired(ciphers=("chacha20poly1305",))
    shake(a, b)
    assert a.result.cipher == b.result.cipher == "chacha20poly1305"
    talk(a.result, b.result)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_devices_without_a_common_version_are_told_so(way, monkeypatch):
    """Both of them, by an error that names the cure."""
    a, b = way()
    monkeypatch.setattr(handshake, "VERSIONS", (2, 3))
    b.receive((hello := a.outgoing())[:2])
    with pytest.raises(VersionUnsupported, match="update"):
        b.receive(hello[2:])
    with pytest.raises(VersionUnsupported, match="update"):
        shake(a, b)
    assert b.wanted == 0


def test_what_was_not_offered_cannot_be_settled_on(monkeypatch):
    """A responder that names another cipher, or a version of its own."""
    for settled in (handshake.Settled(1, "rot13"), handshake.Settled(9, "chacha20poly1305")):
        a, b = paired()
        monkeypatch.setattr(handshake, "_settle", lambda *_, settled=settled: settled)
        hello = a.outgoing()
        b.receive(hello[:2])
        with contextlib.suppress(KeyError):  # it could not use such a cipher itself
            b.receive(hello[2:])
        answer = b.outgoing()
        a.receive(answer[:2])
        with pytest.raises(HandshakeFailed, match="not offered"):
            a.receive(answer[2:])


# -- who is not --------------------------------------------------------------------------------------------------------


def test_a_stranger_hears_nothing():
    """Not one byte, whether the key is unknown, the library or the device."""
    a, b = paired(admit=lambda *_: False)
    with pytest.raises(HandshakeFailed):
        shake(a, b)
    assert (b.outgoing(), b.wanted, b.result) == (b"", 0, None)


def test_an_impostor_cannot_even_read_who_is_calling():
    """The first message is for one key only."""
    asked = []
    a, mallory = paired(answerer=MALLORY, admit=lambda *who: asked.append(who))
    with pytest.raises(HandshakeFailed):
        shake(a, mallory)
    assert (mallory.outgoing(), asked) == (b"", [])


def test_other_words_are_refused_at_the_first_message():
    """Nothing comes back: there is nothing to guess against."""
    a, b = pairing(other_psk=b"q" * 32)
    with pytest.raises(HandshakeFailed):
        shake(a, b)
    assert b.outgoing() == b""


def test_a_recorded_call_leads_nowhere():
    """Sent again, its first message is answered, and that is all: without its keys no record is genuine."""
    a, b = paired()
    said = shake(a, b)
    again = answer_paired(BOB, everybody)
    again.receive(said[0][:2])
    again.receive(said[0][2:])
    again.outgoing()
    record = a.result.sealer.seal(b"text")
    again.result.opener.feed(record)
    with pytest.raises(Exception, match="not genuine"):
        again.result.opener.waiting() and again.result.opener.open()


def test_a_card_of_another_device_is_refused():
    """Its signature is of another key, another handshake or another role."""
    for stolen in ("card", "signature", "role"):
        a, b = pairing()
        genuine = signed_card

        def signed(keys, name, os_name, before, *, is_initiator, stolen=stolen, genuine=genuine):
            if stolen == "role":
                return genuine(keys, name, os_name, before, is_initiator=not is_initiator)
            if stolen == "signature":
                return genuine(keys, name, os_name, bytes(32), is_initiator=is_initiator)
            return genuine(MALLORY, name, os_name, before, is_initiator=is_initiator)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handshake, "signed_card", signed)
            with pytest.raises(HandshakeFailed, match="not its own"):
                shake(a, b)
        assert a.result is None


def test_a_man_in_the_middle_of_a_pairing_without_the_words_fails():
    """He can relay, and be blind; or answer himself, and be refused."""
    a, b = pairing()
    between = answer_pairing(MALLORY, bytes(32), name="Bob", os_name="Linux")
    with pytest.raises(HandshakeFailed):
        shake(a, between)
    outward = dial_pairing(MALLORY, bytes(32), name="Alice", os_name="Linux")
    with pytest.raises(HandshakeFailed):
        shake(outward, b)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_message_that_is_reflected_is_refused(way):
    """What one side said is no answer to it."""
    a, _ = way()
    message = a.outgoing()
    a.receive(message[:2])
    with pytest.raises(HandshakeFailed):
        a.receive(message[2:])


@given(
    way=st.sampled_from(list(WAYS.values())),
    number=st.integers(0, 2),
    kind=st.sampled_from(["flip", "cut", "grow", "again", "drop"]),
    where=st.integers(0, 5000),
    how=st.integers(1, 255),
)
def test_no_damage_leads_to_a_link(way, number, kind, where, how):
    """Flipped, shortened, lengthened, repeated, lost: whoever meets the damage has no result."""
    a, b = way()
    earlier = []

    def change(index, message):
        earlier.append(message)
        if index != number % (2 if way is paired else 3):
            return message
        if kind == "flip":
            at = where % len(message)
            return message[:at] + bytes((message[at] ^ how,)) + message[at + 1 :]
        if kind == "cut":
            body = message[2 : 2 + where % (len(message) - 2)]
            return len(body).to_bytes(2, "big") + body
        if kind == "grow":
            return (len(message) - 1).to_bytes(2, "big") + message[2:] + bytes((how,))
        return earlier[index - 1] if kind == "again" and index else b""

    try:
        shake(a, b, change=change)
    except HandshakeFailed:
        pass
    assert a.result is None or b.result is None


@given(data=st.binary(min_size=2, max_size=1200))
def test_junk_is_no_handshake(data):
    """From the first byte; a length that is none is refused before anything is waited for."""
    for exchange in (answer_paired(BOB, everybody), answer_pairing(BOB, PSK, name="", os_name="")):
        with pytest.raises(HandshakeFailed):
            while data and exchange.wanted:
                size = min(len(data), exchange.wanted)
                exchange.receive(data[:size])
                data = data[size:]
            raise HandshakeFailed("it waits for more, and will until its deadline")
        assert exchange.result is None
        assert exchange.outgoing() == b""


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_BYTES + 1, 0xFFFF])
def test_a_length_that_is_none(length):
    """Two bytes are enough to know."""
    exchange = answer_paired(BOB, everybody)
    with pytest.raises(HandshakeFailed, match="length"):
        exchange.receive(length.to_bytes(2, "big"))
    with pytest.raises(HandshakeFailed, match="before"):
        exchange.receive(b"")
