"""What a file is by its name: the kind that `kind:` of a search means.

`kind_of` says the kind of a name, `extensions_of` says by which endings an index finds a kind. Both are of the types in
filetype.py; nothing is read, and a name that says nothing is `unknown`.
"""

from functools import cache
from typing import Final

from index.model import filetype

#: Every kind that there is.
KINDS: Final = frozenset(filetype.KINDS)


def extension_of(name: bytes) -> bytes:
    """What stands behind the last dot of a name, in lower case; empty where nothing stands before it."""
    stem, dot, extension = name.rpartition(b".")
    return extension.lower() if dot and stem else b""


def kind_of(name: bytes) -> str:
    """The kind of a file by its name."""
    found = filetype.candidates(name)
    return found[0].kind_name if found else "unknown"


@cache
def extensions_of(kind: str) -> tuple[str, ...] | None:
    """The endings that all names of a kind have; None where they have no certain one."""
    if kind == "unknown" or any(kind_of(name) == kind for name in filetype.whole_names()):
        return None
    found = [extension.decode() for extension in filetype.extensions() if kind_of(b"x." + extension) == kind]
    return tuple(found) or None
