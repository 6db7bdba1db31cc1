"""Words that stand for secrets and for keys: typed in any way they are understood, and a slip is noticed."""

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from mnemonic import Mnemonic

from index.model.errors import Invalid
from sync.wire import words


@given(secret=st.binary(min_size=16, max_size=16), data=st.data())
def test_a_secret_comes_back_from_its_words_however_they_were_typed(secret, data):
    """In any case, cut after four letters, with any spaces between."""
    made = words.secret_words(secret)
    assert len(made) == 12
    typed = []
    for word in made:
        how = data.draw(
            st.sampled_from([str.lower, str.upper, str.title, lambda word: word[:4], lambda word: word[:5]])
        )
        typed.append(how(word))
    spaces = data.draw(st.sampled_from([" ", "  ", "\n", "\t "]))
    assert words.secret_of(spaces + spaces.join(typed) + spaces) == secret


def test_published_words():
    """Of the vectors of BIP39."""
    assert " ".join(words.secret_words(bytes(16))) == "abandon " * 11 + "about"
    legal = "legal winner thank year wave sausage worth useful legal winner thank yellow"
    assert words.secret_of(legal) == b"\x7f" * 16


GOOD = "legal winner thank year wave sausage worth useful legal winner thank yellow".split()


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ([*GOOD[:3], "yaer", *GOOD[4:]], "word 4, 'yaer', is not in the list"),
        ([*GOOD[:1], "winnner", *GOOD[2:]], "word 2, 'winnner', is not in the list; did you mean “winner”?"),
        ([*GOOD[:1], "win", *GOOD[2:]], None),
        ([*GOOD[:1], "wi", *GOOD[2:]], "word 2, 'wi', is not in the list"),
        ([*GOOD[:5], "\x1b[31m" * 9, *GOOD[6:]], "word 6, '\\x1b[31m\\x1b[31m\\x1b[31m\\x1b[31m', is not in the list"),
        (GOOD[:11], "has 12 words; these are 11"),
        ([], "these are 0"),
        ([*GOOD[:11], "year"], "do not belong together"),
        ([GOOD[1], GOOD[0], *GOOD[2:]], "do not belong together"),
    ],
)
def test_a_mistyped_word_is_named(typed, complaint):
    """And nothing of the others is told."""
    with pytest.raises(Invalid) as caught:
        words.secret_of(" ".join(typed))
    assert (complaint or "") in str(caught.value)


def test_a_fingerprint_is_44_bits_of_a_key():
    """Four words of eleven bits, by the list; another version must show the same."""
    key = bytes(range(32))
    bits = f"{int.from_bytes(blake3(key, derive_key_context='sdmount fingerprint 1').digest(8), 'big'):064b}"
    wordlist = Mnemonic("english").wordlist
    expected = tuple(wordlist[int(bits[at : at + 11], 2)] for at in (0, 11, 22, 33))
    assert words.fingerprint_words(key) == expected
    assert expected == ("chronic", "focus", "pudding", "broom")
