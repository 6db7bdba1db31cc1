"""Folding: names and queries as searches compare them, so that `Ecole` finds `École` and `ecole.txt`.

In: a name as bytes, or a piece of a query. Out: text in which letters have no case and letters of Latin no marks, in
normal form C. Folding twice changes nothing. Bytes that are not UTF-8 become U+FFFD: the rest of such a name is found.
Marks of other scripts stay, since there they tell words apart. Source: Unicode chapter 3.13 (D145), UAX #15.
"""

import re
import unicodedata

_LATIN = "".join(char for char in map(chr, range(0x250)) if char.isalpha())
#: The marks on letters of Latin, in a text that has marks behind their letters.
_LATIN_MARKS = re.compile(f"(?<=[{_LATIN}])[\u0300-\u036f]+")


def fold(name: bytes) -> str:
    """A name as searches see it."""
    if name.isascii():
        return name.decode("ascii").lower()
    return _folded(name.decode("utf-8", "replace"))


def fold_text(text: str) -> str:
    """A piece of a query as searches see it; bytes that it carries as lone surrogates are as in names."""
    return text.lower() if text.isascii() else fold(text.encode("utf-8", "surrogateescape"))


def _folded(text: str) -> str:
    apart = unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
    return unicodedata.normalize("NFC", _LATIN_MARKS.sub("", apart))
