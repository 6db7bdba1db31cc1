"""The handshakes are those of the specification, to the byte; what is not genuine gives neither text nor key."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise.connection import Keypair, NoiseConnection

from index.model.errors import HandshakeFailed
from sync.wire import noise
from sync.wire.noise import IK, XX, XXPSK0, CipherState, Handshake, KeyPair

PATTERNS = {pattern.name: pattern for pattern in (XX, XXPSK0, IK)}
PSK = bytes(range(32))
ALICE, BOB = KeyPair.of(b"a" * 32), KeyPair.of(b"b" * 32)


def vectors() -> list[dict[str, str]]:
    text = (Path(__file__).parent / "data" / "noise_vectors.txt").read_text()
    blocks = [block for block in text.strip().split("\n\n") if not block.startswith("#")]
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]


def a_pair(pattern, *, psk=PSK, other_psk=PSK, prologue=b"same", other_prologue=b"same"):
    """Two sides that begin a handshake."""
    has_psk = pattern is XXPSK0
    alice = Handshake(
        pattern,
        is_initiator=True,
        static=ALICE,
        prologue=prologue,
        psk=psk if has_psk else None,
        remote_static=BOB.public if pattern is IK else None,
    )
    bob = Handshake(
        pattern, is_initiator=False, static=BOB, prologue=other_prologue, psk=other_psk if has_psk else None
    )
    return alice, bob


def messages_of(pattern) -> int:
    return len(pattern.messages)


def in_turns(alice, bob, count):
    """(writer, reader) of each message."""
    return [(alice, bob) if number % 2 == 0 else (bob, alice) for number in range(count)]


# -- the specification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["handshake"])
def test_published_vectors(vector):
    """Every message of the handshake, then the first of each direction."""
    field = {key: bytes.fromhex(value) for key, value in vector.items() if key != "handshake"}
    pattern = PATTERNS[vector["handshake"].split("_")[1]]
    sides = []
    for side, is_initiator in (("init", True), ("resp", False)):
        sides.append(
            Handshake(
                pattern,
                is_initiator=is_initiator,
                static=KeyPair.of(field[f"{side}_static"]),
                prologue=field.get("prologue", b""),
                psk=field.get("preshared_key"),
                remote_static=KeyPair.of(field["resp_static"]).public if pattern is IK and is_initiator else None,
                random=lambda size, side=side: field[f"gen_{side}_ephemeral"][:size],
            )
        )
    count = messages_of(pattern)
    for number, (writer, reader) in enumerate(in_turns(*sides, count)):
        message = writer.write(field[f"msg_{number}_payload"])
        assert message == field[f"msg_{number}_ciphertext"]
        assert reader.read(message) == field[f"msg_{number}_payload"]
    assert sides[0].hash == sides[1].hash
    for number, (writer, reader) in enumerate(in_turns(*sides, 2), start=count):  # the initiator's direction first
        sent, expected = field[f"msg_{number}_payload"], field[f"msg_{number}_ciphertext"]
        assert CipherState(writer.split()[0]).encrypt(b"", sent) == expected
        assert CipherState(reader.split()[1]).decrypt(b"", expected) == sent


def test_the_vectors_are_of_all_three_patterns():
    """A test over no vectors would always be green."""
    assert {vector["handshake"].split("_")[1] for vector in vectors()} == set(PATTERNS)


@pytest.mark.parametrize("we_begin", [True, False])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_an_independent_implementation_understands_us(pattern, we_begin):
    """In both roles, with a payload in every message; the hashes are equal, and both directions work afterwards."""
    other = NoiseConnection.from_name(f"Noise_{pattern.name}_25519_ChaChaPoly_BLAKE2s".encode())
    other.set_as_responder() if we_begin else other.set_as_initiator()
    other.set_prologue(b"same")
    other.set_keypair_from_private_bytes(Keypair.STATIC, (BOB if we_begin else ALICE).private)
    if pattern is XXPSK0:
        other.set_psks(PSK)
    if pattern is IK and not we_begin:
        other.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, BOB.public)
    other.start_handshake()
    ours = a_pair(pattern)[0 if we_begin else 1]
    for number in range(messages_of(pattern)):
        payload = b"payload %d" % number
        if ours.is_my_turn:
            assert bytes(other.read_message(ours.write(payload))) == payload
        else:
            assert ours.read(bytes(other.write_message(payload))) == payload
    assert ours.hash == other.get_handshake_hash()
    assert ours.remote_static == (BOB if we_begin else ALICE).public
    send, receive = (CipherState(key) for key in ours.split())
    for number in range(3):
        text = b"text %d" % number
        assert other.decrypt(send.encrypt(b"", text)) == text
        assert receive.decrypt(b"", other.encrypt(text)) == text


# -- what a handshake gives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_both_sides_end_with_the_same_keys_and_know_each_other(pattern):
    """Crosswise: what one sends with is what the other receives with. A payload may sign what came before it."""
    alice, bob = a_pair(pattern)
    for writer, reader in in_turns(alice, bob, messages_of(pattern)):
        payload = reader.read(writer.write(lambda before: b"signed " + before))
        assert payload == b"signed " + reader.hash_before_payload
        assert reader.hash_before_payload == writer.hash_before_payload
    assert alice.is_done
    assert bob.is_done
    assert alice.split() == tuple(reversed(bob.split()))
    assert alice.hash == bob.hash
    assert (alice.remote_static, bob.remote_static) == (BOB.public, ALICE.public)
    assert len({*alice.split()}) == 2


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_no_two_handshakes_share_a_key(pattern):
    """The same two devices, twice: the ephemeral keys are fresh."""
    found = set()
    for _ in range(2):
        alice, bob = a_pair(pattern)
        for writer, reader in in_turns(alice, bob, messages_of(pattern)):
            reader.read(writer.write())
        found |= {*alice.split()}
    assert len(found) == 4


def test_a_private_key_is_not_printed():
    """Not in a log, not in the text of a failed assertion."""
    assert ALICE.private.hex() not in repr(ALICE)
    assert "a" * 32 not in repr(ALICE)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_wrong_secret_is_refused_at_the_first_message():
    """Before this side has sent a byte: nothing can be learned by asking."""
    alice, bob = a_pair(XXPSK0, other_psk=bytes(32))
    with pytest.raises(HandshakeFailed):
        bob.read(alice.write(b"hello"))
    with pytest.raises(HandshakeFailed):
        bob.write()


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_another_prologue_is_refused(pattern):
    """Another protocol, or another role."""
    alice, bob = a_pair(pattern, other_prologue=b"another")
    with pytest.raises(HandshakeFailed):
        for writer, reader in in_turns(alice, bob, messages_of(pattern)):
            reader.read(writer.write())


def test_a_responder_that_is_not_the_one_meant_is_refused():
    """IK: the first message is for one key only."""
    alice, _ = a_pair(IK)
    impostor = Handshake(IK, is_initiator=False, static=KeyPair.of(b"m" * 32), prologue=b"same")
    with pytest.raises(HandshakeFailed):
        impostor.read(alice.write(b"for bob"))


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31)], ids=["zero", "one"])
def test_a_key_that_gives_everybody_the_same_result_is_refused(point):
    """Points of small order."""
    alice, _ = a_pair(XX)
    alice.write()
    with pytest.raises(HandshakeFailed):
        alice.read(point + bytes(64))


damage = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 10_000), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0, 10_000), st.just(0)),
    st.tuples(st.just("cut front"), st.integers(1, 10_000), st.just(0)),
    st.tuples(st.just("grow"), st.integers(0, 255), st.just(0)),
    st.tuples(st.just("other"), st.just(0), st.just(0)),
    st.tuples(st.just("again"), st.just(0), st.just(0)),
)


def damaged(message: bytes, kind: str, where: int, how: int, earlier: list[bytes]) -> bytes:
    if kind == "flip":
        where %= len(message)
        return message[:where] + bytes((message[where] ^ how,)) + message[where + 1 :]
    if kind == "cut":
        return message[: where % len(message)]
    if kind == "cut front":
        return message[1 + where % len(message) :]
    if kind == "grow":
        return message + bytes((where,))
    return earlier[-1] if kind == "again" and earlier else b"x" * len(message)


@given(pattern=st.sampled_from(list(PATTERNS.values())), number=st.integers(0, 2), hurt=damage)
def test_whatever_happens_to_a_message_no_text_and_no_key_comes_of_it(pattern, number, hurt):
    """Flipped, cut, grown, replaced, sent twice: the handshake fails at that message or at the one after it."""
    alice, bob = a_pair(pattern)
    earlier: list[bytes] = []
    turns = in_turns(alice, bob, messages_of(pattern))
    number %= len(turns)
    with pytest.raises(HandshakeFailed):
        for index, (writer, reader) in enumerate(turns):
            message = writer.write(b"secret")
            if index == number:
                got = reader.read(damaged(message, *hurt, earlier))
                # The first message of XX is in clear: changed, it is found out by the answer to it.
                assert (pattern, index) == (XX, 0), got
                assert reader.hash != writer.hash
            else:
                reader.read(message)
            earlier.append(message)
    for side in (alice, bob):
        if not side.is_done:
            with pytest.raises(ValueError, match="when it is done"):
                side.split()


@given(pattern=st.sampled_from(list(PATTERNS.values())), junk=st.binary(max_size=300), number=st.integers(0, 2))
def test_no_junk_is_taken_for_a_message(pattern, junk, number):
    """At any point of a handshake there is one error, and it ends it."""
    alice, bob = a_pair(pattern)
    turns = in_turns(alice, bob, messages_of(pattern))
    for writer, reader in turns[: number % len(turns)]:
        reader.read(writer.write())
    _, reader = turns[number % len(turns)]
    try:
        reader.read(junk)
    except HandshakeFailed:
        pass
    else:
        assert pattern is XX
        return
    with pytest.raises(HandshakeFailed):
        reader.read(junk)


def test_messages_out_of_order_are_refused():
    """The third of a handshake in place of its first, and those of another handshake."""
    for pattern in PATTERNS.values():
        alice, bob = a_pair(pattern)
        sent = []
        for writer, reader in in_turns(alice, bob, messages_of(pattern)):
            sent.append(writer.write(b"p"))
            reader.read(sent[-1])
        for replayed in itertools.permutations(sent):
            fresh_alice, fresh_bob = a_pair(pattern)
            fresh_alice.write(b"p")
            with pytest.raises(HandshakeFailed):
                fresh_bob.read(replayed[0])
                fresh_bob.write(b"p")
                fresh_alice.read(replayed[1])


def test_calls_out_of_turn_are_our_own_bug():
    """They are no message of a stranger's, and have an error of their own."""
    alice, bob = a_pair(XX)
    with pytest.raises(ValueError, match="turn"):
        bob.write()
    with pytest.raises(ValueError, match="turn"):
        alice.read(b"")
    with pytest.raises(ValueError, match="secret"):
        Handshake(XXPSK0, is_initiator=True, static=ALICE)
    with pytest.raises(ValueError, match="static"):
        Handshake(IK, is_initiator=True, static=ALICE)


def test_no_nonce_is_used_twice():
    """After 2^64 - 1 messages the key is used up, and that is an error and not a wrap."""
    sender, receiver = CipherState(b"k" * 32, nonce=(1 << 64) - 2), CipherState(b"k" * 32, nonce=(1 << 64) - 2)
    last = sender.encrypt(b"", b"the last")
    assert receiver.decrypt(b"", last) == b"the last"
    with pytest.raises(HandshakeFailed, match="as many messages"):
        sender.encrypt(b"", b"one more")
    with pytest.raises(HandshakeFailed, match="as many messages"):
        receiver.decrypt(b"", last)


def test_a_message_is_no_longer_than_noise_allows():
    """65 535 bytes."""
    alice, bob = a_pair(XX)
    with pytest.raises(HandshakeFailed):
        bob.read(bytes(noise.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(ValueError, match="65535"):
        alice.write(bytes(noise.MAX_MESSAGE_BYTES))
