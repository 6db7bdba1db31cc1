"""What a file is: the kind that `kind:` of a search means, by its bytes where these are known, else by its name.

`extensions_of` and `types_of` say by which endings and by which types of bytes an index finds a kind. All are of the
types in filetype.py; nothing is read, and a file of which nothing is known is `unknown`.
"""

from functools import cache
from typing import Final

from index.model import filetype
from index.model.filetype import Method

#: Every kind that there is.
KINDS: Final = frozenset(filetype.KINDS)


def extension_of(name: bytes) -> bytes:
    """What stands behind the last dot of a name, in lower case; empty where nothing stands before it."""
    stem, dot, extension = name.rpartition(b".")
    return extension.lower() if dot and stem else b""


def kind_of(name: bytes, type_name: str | None = None, method: int | None = None) -> str:
    """The kind of a file by its name and by what its bytes were found to be, as table filetype and `Method` say it."""
    if type_name is None or method is None:
        found = filetype.candidates(name)
        return found[0].kind_name if found else "unknown"
    by_content = filetype.BY_TYPE.get(type_name, filetype.UNKNOWN)  # that of a newer program says nothing
    return filetype.settled(name, by_content, Method(method)).kind_name


@cache
def extensions_of(kind: str) -> tuple[str, ...] | None:
    """The endings that all names have which may make a file one of a kind; None where there are no certain ones."""
    if kind == "unknown" or any(_may_be(name, kind) for name in filetype.whole_names()):
        return None
    found = [extension.decode() for extension in filetype.extensions() if _may_be(b"x." + extension, kind)]
    return tuple(found) or None


def types_of(kinds: tuple[str, ...]) -> frozenset[str]:
    """The types whose bytes make a file one of some kinds, whatever its name."""
    return frozenset(name for name, found in filetype.BY_TYPE.items() if found.kind_name in kinds)


def _may_be(name: bytes, kind: str) -> bool:
    return any(found.kind_name == kind for found in filetype.candidates(name))
