"""Records come out as they went in, in their order and whole; anything else is an error, and the end."""

import hmac
import itertools
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl import bindings

from index.model.errors import ProtocolError
from sync.wire import aead
from sync.wire.records import (
    MAX_PLAINTEXT_BYTES,
    MAX_RECORD_BYTES,
    OVERHEAD_BYTES,
    Opener,
    Sealer,
)

KEY = bytes(range(32))
CIPHERS = (aead.AES_256_GCM, aead.CHACHA20_POLY1305)


def sealed(*texts: bytes, cipher: str = CIPHERS[0], fin: bool = True, **limits) -> list[bytes]:
    """Each text as a record, and FIN at the end."""
    sealer = Sealer(cipher, KEY, **limits)
    records = [sealer.seal(text) for text in texts]
    return [*records, sealer.seal(b"", fin=True)] if fin else records


def opened(pieces, *, cipher: str = CIPHERS[0], **limits) -> list[bytes]:
    """What comes out of a stream that arrives in these pieces; the end of the stream is looked at, too."""
    opener = Opener(cipher, KEY, **limits)
    found = []
    for piece in pieces:
        while piece:
            piece = piece[opener.feed(piece) :]
            while opener.waiting() is not None:
                found.append(bytes(opener.open()))
    opener.end_of_stream()
    return found


# -- what goes in comes out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cipher", CIPHERS)
@given(texts=st.lists(st.binary(max_size=300), max_size=8), cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_records_arrive_however_the_stream_was_cut(cipher, texts, cuts):
    """Pieces are the network's; records are ours. FIN is a record, and an empty one here."""
    stream = b"".join(sealed(*texts, cipher=cipher))
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert opened(pieces, cipher=cipher) == [*texts, b""]


def test_records_arrive_byte_by_byte():
    """Every split there is."""
    stream = b"".join(sealed(b"one", b"", b"three"))
    assert opened(bytes((byte,)) for byte in stream) == [b"one", b"", b"three", b""]


def test_large_records_wrap_around_the_buffer():
    """Many times its size goes through it, in pieces that fit nothing."""
    texts = [bytes((number,)) * (MAX_PLAINTEXT_BYTES - number * 1000) for number in range(20)]
    stream = b"".join(sealed(*texts))
    pieces = [stream[at : at + 77_777] for at in range(0, len(stream), 77_777)]
    assert opened(pieces, capacity_bytes=0) == [*texts, b""]


def test_a_record_is_opened_where_the_caller_wants_it():
    """No copy between: into a slice of a buffer."""
    opener = Opener(CIPHERS[0], KEY)
    opener.feed(sealed(b"middle", fin=False)[0])
    assert opener.waiting() == 6
    place = bytearray(10)
    opener.open_into(memoryview(place)[2:8])
    assert place == b"\0\0middle\0\0"
    assert opener.waiting() is None


def test_the_form_on_the_wire():
    """Length, then ciphertext and tag; the highest bit of the length is FIN. The length is associated data."""
    first, last = sealed(b"text")
    assert struct.unpack_from(">I", first)[0] == 4 + 16
    assert struct.unpack_from(">I", last)[0] == 16 | 1 << 31
    assert len(first) == 4 + OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("cipher", "expected"),
    [
        ("aes256gcm", "00000014d80d1d5978125d3c542db9323b36152111ed3bd2 80000010197d25f834268f2efa44909335b0cd27"),
        (
            "chacha20poly1305",
            "00000014e68c7fec6adafb5af38e828e870252952683f8e7 8000001087471c37885a938376c6db2f7b998e22",
        ),
    ],
)
def test_vectors(cipher, expected):
    """Another version must write the same bytes. The second cipher is checked with libsodium, from the beginning."""
    assert b"".join(sealed(b"text", cipher=cipher)) == bytes.fromhex(expected)
    if cipher == aead.CHACHA20_POLY1305:
        mixed = hmac.new(KEY, b"sdmount records 1 chacha20poly1305", "blake2s").digest()
        key = hmac.new(mixed, b"\x01", "blake2s").digest()
        header = bytes.fromhex("00000014")
        seal = bindings.crypto_aead_chacha20poly1305_ietf_encrypt
        assert header + seal(b"text", header, bytes(12), key) == bytes.fromhex(expected.split()[0])


@pytest.mark.parametrize("cipher", CIPHERS)
def test_equal_texts_look_different(cipher):
    """A nonce is used once."""
    records = sealed(*[b"same"] * 50, cipher=cipher, fin=False)
    assert len({*records}) == 50


def test_directions_and_ciphers_have_keys_of_their_own():
    """What was sealed for one is not genuine to another."""
    record = sealed(b"text", fin=False)[0]
    for cipher, key in ((CIPHERS[1], KEY), (CIPHERS[0], bytes(32))):
        opener = Opener(cipher, key)
        opener.feed(record)
        assert opener.waiting() == 4
        with pytest.raises(ProtocolError):
            opener.open()


# -- what does not -----------------------------------------------------------------------------------------------------


@given(
    number=st.integers(0, 2),
    kind=st.sampled_from(["flip", "drop", "swap", "again", "cut", "insert"]),
    where=st.integers(0, 10_000),
    how=st.integers(1, 255),
)
def test_no_damage_is_taken_for_a_record(number, kind, where, how):
    """Flipped, dropped, swapped, sent twice, cut off, inserted: an error, and nothing after the damage comes out."""
    texts = [b"first", b"second", b"third"]
    records = sealed(*texts)
    hurt = list(records)
    if kind == "flip":
        at = where % len(hurt[number])
        hurt[number] = hurt[number][:at] + bytes((hurt[number][at] ^ how,)) + hurt[number][at + 1 :]
    elif kind == "drop":
        del hurt[number]
    elif kind == "swap":
        hurt[number], hurt[number + 1] = hurt[number + 1], hurt[number]
    elif kind == "again":
        hurt.insert(number, hurt[number])
    elif kind == "cut":
        stream = b"".join(records)
        hurt = [stream[: where % len(stream)]]
    else:
        hurt.insert(number, Sealer(CIPHERS[0], bytes(32)).seal(b"forged"))
    opener, found = Opener(CIPHERS[0], KEY), []
    with pytest.raises(ProtocolError):
        opener.feed(b"".join(hurt))
        while opener.waiting() is not None:
            found.append(bytes(opener.open()))
        opener.end_of_stream()
    assert found == [*texts, b""][: len(found)]
    with pytest.raises(ProtocolError):
        opener.waiting()


def test_a_stream_cut_off_between_two_records_is_no_end():
    """Truncation would else be a file that is shorter than it was."""
    with pytest.raises(ProtocolError, match="cut off"):
        opened(sealed(b"one", b"two", fin=False))
    with pytest.raises(ProtocolError, match="after the last"):
        opened([*sealed(b"one"), b"more"])


@pytest.mark.parametrize("length", [0, 15, MAX_PLAINTEXT_BYTES + 17, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_is_none_is_refused_at_once(length):
    """With its fourth byte, before room is made for what it announces."""
    opener = Opener(CIPHERS[0], KEY)
    opener.feed(struct.pack(">I", length)[:3])
    assert opener.waiting() is None
    opener.feed(struct.pack(">I", length)[3:])
    with pytest.raises(ProtocolError, match="no"):
        opener.waiting()


def test_ten_thousand_random_streams_are_refused():
    """None of them is a record, and none is anything but a ProtocolError."""
    generator = random.Random(4711)
    first = Opener(CIPHERS[0], KEY)
    for _ in range(10_000):
        opener = opener_again(first)
        junk = generator.randbytes(generator.randrange(4, 60))
        if generator.random() < 0.5:
            junk = struct.pack(">I", generator.randrange(16, 40)) + junk
        opener.feed(junk)
        with pytest.raises(ProtocolError):
            if opener.waiting() is not None:
                opener.open()
            opener.end_of_stream()


def opener_again(opener: Opener) -> Opener:
    """A fresh one in the memory of another: making the buffer anew is what takes time."""
    fresh = Opener.__new__(Opener)
    fresh.__dict__.update(opener.__dict__, _start=0, _end=0, _size=None, _is_dead=False, is_finished=False)
    return fresh


def test_what_we_may_not_send():
    """Too much, and anything after FIN."""
    sealer = Sealer(CIPHERS[0], KEY)
    with pytest.raises(ValueError, match="at most"):
        sealer.seal(bytes(MAX_PLAINTEXT_BYTES + 1))
    assert len(sealer.seal(bytes(MAX_PLAINTEXT_BYTES))) == MAX_RECORD_BYTES
    sealer.seal(b"", fin=True)
    with pytest.raises(ValueError, match="finished"):
        sealer.seal(b"")


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"rekey_records": 3}, {"rekey_bytes": 20}])
def test_both_sides_change_the_key_at_the_same_record(limits):
    """After so many records, or so many bytes; nothing is said about it."""
    texts = [b"x" * (number % 9) for number in range(40)]
    assert opened(sealed(*texts, **limits), **limits) == [*texts, b""]
    with pytest.raises(ProtocolError):
        opened(sealed(*texts, **limits))


def test_the_counter_begins_anew_with_the_key():
    """No record looks like one that was sealed under the key before."""
    records = sealed(*[b"same"] * 40, fin=False, rekey_records=4)
    assert len({*records}) == 40


# -- which cipher ------------------------------------------------------------------------------------------------------


def test_aes_is_offered_where_the_processor_has_it(tmp_path):
    """As the kernel writes it on x86 and on Arm; a machine that does not tell gets what is fast everywhere."""
    for text, has in (
        ("flags\t\t: fpu vme aes avx\n", True),
        ("Features\t: fp asimd aes pmull\n", True),
        ("flags\t\t: fpu vaes\n", False),
        ("model name\t: aes\n", False),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        assert aead._has_aes(tmp_path / "cpuinfo") is has
    assert aead._has_aes(tmp_path / "none") is False
    assert aead.offered()[-1] == aead.CHACHA20_POLY1305


def test_two_devices_take_the_best_that_both_have():
    """In the order of the one who chooses; what nobody knows is passed over."""
    both, plain = CIPHERS, CIPHERS[1:]
    assert aead.choose(both, both) == aead.AES_256_GCM
    assert aead.choose(plain, both) == aead.CHACHA20_POLY1305
    assert aead.choose(both, plain) == aead.CHACHA20_POLY1305
    assert aead.choose(["rot13", *plain], ["rot13", *both]) == aead.CHACHA20_POLY1305
    assert aead.choose(["rot13"], both) is None
