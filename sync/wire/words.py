"""Words for people: 128 bits as twelve of them, and a key as four to compare.

The list is BIP39's, 2048 English words of which each is told from all others by its first four letters. Twelve words
hold 128 bits and a check of four, so that most slips are noticed before anything is asked of anybody. Whatever case
and spaces they are typed with, and cut after the fourth letter or later, they are understood; what is no word is named.

Source: https://github.com/bitcoin/bips/blob/master/bip-0039.mediawiki, by the package mnemonic.
"""

import unicodedata
from functools import cache
from typing import Final

from blake3 import blake3
from mnemonic import Mnemonic

from index.model.errors import Invalid

SECRET_BYTES: Final = 16
SECRET_WORDS: Final = 12
FINGERPRINT_WORDS: Final = 4
_TELLING_LETTERS: Final = 4
_BITS_A_WORD: Final = 11
_LONGEST_SHOWN: Final = 20


def secret_words(secret: bytes) -> tuple[str, ...]:
    """16 bytes as twelve words."""
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    return tuple(_list().to_mnemonic(secret).split())


def secret_of(text: str) -> bytes:
    """The 16 bytes of twelve words as somebody typed them. Invalid says which word is wrong, or that the check is."""
    typed = text.split()
    if len(typed) != SECRET_WORDS:
        raise Invalid(f"a pairing code has {SECRET_WORDS} words; these are {len(typed)}")
    words = [_word_of(word, number) for number, word in enumerate(typed, start=1)]
    try:
        return bytes(_list().to_entropy(words))
    except ValueError:
        raise Invalid(
            "each word is one, but they do not belong together: one is another word, or two are swapped"
        ) from None


def fingerprint_words(public_key: bytes) -> tuple[str, ...]:
    """The four words of a device, the same wherever they are shown: 44 bits that follow from its public key."""
    digest = blake3(public_key, derive_key_context="sdmount fingerprint 1").digest(8)
    number = int.from_bytes(digest, "big") >> (64 - FINGERPRINT_WORDS * _BITS_A_WORD)
    places = range((FINGERPRINT_WORDS - 1) * _BITS_A_WORD, -1, -_BITS_A_WORD)
    return tuple(_list().wordlist[number >> place & 0x7FF] for place in places)


def _word_of(typed: str, number: int) -> str:
    """The word of the list that was meant."""
    plain = unicodedata.normalize("NFKC", typed).lower().strip(".,;")
    word = _by_beginning().get(plain[:_TELLING_LETTERS])
    if word is None or not word.startswith(plain):
        meant = f"; did you mean “{word}”?" if word is not None else ""
        shown = ascii(typed[:_LONGEST_SHOWN])
        raise Invalid(f"word {number}, {shown}, is not in the list{meant}")
    return word


@cache
def _list() -> Mnemonic:
    return Mnemonic("english")


@cache
def _by_beginning() -> dict[str, str]:
    """Words of three letters are whole; the beginning of no other is the same."""
    return {word[:_TELLING_LETTERS]: word for word in _list().wordlist}
