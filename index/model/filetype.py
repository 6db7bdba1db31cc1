"""File types: what a file is by its name, and what it is by its first bytes.

In: a name as the disk has it, and up to HEAD_BYTES of the file. Out: a `FileType`, and by which means it was found.
Everyone who needs a media type, or to know whether something is an image, asks here.

How the two witnesses agree
- A signature beats the name, unless the name only says it more exactly: a `docx` is a zip, a `tar.gz` a gzip file.
- A name whose type always has a signature is wrong where none is found, and so is one of a text that holds NUL bytes.
- One extension may stand for several types (`ts`): a signature decides, else whether the head is text, else the order
  of the table.
- Without a name that says anything the beginning of a text decides: `#!`, `<?xml`, `BEGIN:VCARD`.

It runs for each file that is hashed, so a lookup is a dictionary's and no signature is tried whose first two bytes
are others. The data are in filetypetable.py and filemagic.py. No I/O.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from index.model.filemagic import BEGINNINGS, INTERPRETERS, SIGNATURES
from index.model.filetypetable import TYPES

#: As much of a file as `by_head` wants to see: what magic needs (tar: 262), and enough to know text.
HEAD_BYTES = 4096

KINDS: Final = (
    "unknown", "image", "video", "audio", "document", "archive", "code", "text", "database", "book", "font", "mesh",
    "config", "encrypted", "key", "executable", "binary", "spreadsheet", "presentation", "email", "calendar", "contact",
    "web", "shortcut", "package", "model_entry", "memory",
)  # fmt: skip


class FileType(NamedTuple):
    """One type. `kind` is a place in KINDS; `within` names the type that it is a special case of, or is empty."""

    name: str
    kind: int
    mime: str
    about: str
    extensions: tuple[str, ...]
    is_text: bool
    is_strict: bool  # every such file has one of the type's signatures
    may_be_text: bool  # a head that looks like text does not speak against it
    within: str

    @property
    def kind_name(self) -> str:
        return KINDS[self.kind]


class Method(IntEnum):
    """By which means a type was found, from weak to strong."""

    NAME = 0
    CONTENT = 1  # no signature, but what stands in the head
    MAGIC = 2  # a signature, whatever the name says
    BOTH = 3  # a signature that the name agrees with


class _Signature(NamedTuple):
    type: FileType
    parts: tuple[tuple[int, bytes], ...]
    is_weak: bool
    needs_nul: bool

    def matches(self, head: bytes) -> bool:
        for offset, data in self.parts:
            if not head.startswith(data, offset):
                return False
        return not self.needs_nul or b"\0" in head


# reading the tables ---------------------------------------------------------------------------------------------------


def _read_types() -> Iterator[tuple[FileType, list[str]]]:
    """Each type with its extensions as they stand in the table."""
    kind = 0
    for line in TYPES.splitlines():
        if line.startswith("["):
            kind = KINDS.index(line.strip("[]"))
        elif line:
            facts, _, about = line.partition(" | ")
            name, mime, marks, *words = facts.split()
            plain = tuple(word.rstrip("~") for word in words if not word.startswith("="))
            within = marks.partition("<")[2]
            is_text = marks.startswith("t")
            is_strict = marks.startswith("!") or (bool(within) and not is_text)
            may_be_text = is_text or marks.startswith("a")
            yield FileType(name, kind, mime, about.strip(), plain, is_text, is_strict, may_be_text, within), words


def _read_signatures() -> Iterator[_Signature]:
    for line in SIGNATURES.splitlines():
        if line:
            name, *parts = line.split()
            found = tuple(_part(part) for part in parts)
            yield _Signature(BY_TYPE[name.lstrip("?*")], found, name.startswith("?"), name.startswith("*"))


def _part(text: str) -> tuple[int, bytes]:
    offset, _, value = text.partition(":")
    data = value[1:].replace("_", " ").encode() if value.startswith("'") else bytes.fromhex(value)
    return int(offset), data


#: Every type by its name.
BY_TYPE: Final[dict[str, FileType]] = {}
_BY_EXTENSION: dict[bytes, tuple[FileType, ...]] = {}
_BY_NAME: dict[bytes, FileType] = {}
#: Last parts of extensions that have two.
_SECOND_PARTS: set[bytes] = set()


def _fill() -> None:
    late: list[tuple[bytes, FileType]] = []
    for found, words in _read_types():
        BY_TYPE[found.name] = found
        for word in words:
            key = word.strip("~=").encode()
            if word.startswith("="):
                _BY_NAME[key] = found
            elif word.endswith("~"):
                late.append((key, found))
            else:
                _BY_EXTENSION[key] = (*_BY_EXTENSION.get(key, ()), found)
                if b"." in key:
                    _SECOND_PARTS.add(key.rpartition(b".")[2])
    for key, found in late:
        _BY_EXTENSION[key] = (*_BY_EXTENSION.get(key, ()), found)


_fill()

UNKNOWN: Final = BY_TYPE["binary"]
PLAIN: Final = BY_TYPE["plain"]
_ZIP: Final = BY_TYPE["zip"]
_OOXML: Final = BY_TYPE["ooxml"]
_XML: Final = BY_TYPE["xml"]
_SHELL: Final = BY_TYPE["shell"]
#: Directories of an Office Open XML document, which say what is in it.
_OOXML_PARTS: Final = ((b"word/", BY_TYPE["docx"]), (b"xl/", BY_TYPE["xlsx"]), (b"ppt/", BY_TYPE["pptx"]))

#: The first two bytes -> the signatures that begin so, longest first.
_AT_START: dict[bytes, list[_Signature]] = {}
#: Those that begin further in: (offset, length) -> bytes there -> signatures.
_INSIDE: dict[tuple[int, int], dict[bytes, list[_Signature]]] = {}


def _fill_signatures() -> None:
    def length(one: _Signature) -> int:
        return sum(len(data) for _, data in one.parts)

    for one in sorted(_read_signatures(), key=length, reverse=True):
        offset, data = one.parts[0]
        if offset == 0 and len(data) >= 2:
            _AT_START.setdefault(data[:2], []).append(one)
        elif offset == 0:  # one byte, and the rest elsewhere
            for second in range(256):
                _AT_START.setdefault(bytes((data[0], second)), []).append(one)
        else:
            _INSIDE.setdefault((offset, min(len(data), 4)), {}).setdefault(data[:4], []).append(one)


_fill_signatures()
_INSIDE_PLACES = [(offset, offset + length, found) for (offset, length), found in _INSIDE.items()]
_SIGNED: Final = frozenset(one.type.name for one in _read_signatures() if not one.is_weak)
_NO_SIGNATURES: list[_Signature] = []

_BEGINNINGS = [
    (begin.encode(), BY_TYPE[name])
    for name, begin in (line.split(None, 1) for line in BEGINNINGS.splitlines() if line)
]  # fmt: skip
_INTERPRETERS = {
    word.encode(): BY_TYPE[name]
    for name, *words in (line.split() for line in INTERPRETERS.splitlines() if line)
    for word in words
}
_SHEBANG = re.compile(rb"#![ \t]*(?:[^\s]*/)?(?:env(?:[ \t]+-\S+|[ \t]+\w+=\S*)*[ \t]+(?:[^\s]*/)?)?([a-z]+)")
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\b\x1b")) + b"\x7f"

# asking ---------------------------------------------------------------------------------------------------------------


def extensions() -> Iterator[bytes]:
    """Every extension that there is, without its dot."""
    yield from _BY_EXTENSION


def whole_names() -> Iterator[bytes]:
    """Names that say a type as a whole, without an extension."""
    yield from _BY_NAME


def candidates(name: bytes) -> tuple[FileType, ...]:
    """The types that a name may stand for, the likeliest first; none for a name that says nothing."""
    at = name.rfind(b".")
    if at > 0:
        extension = name[at + 1 :].lower()
        if extension in _SECOND_PARTS:
            before = name.rfind(b".", 0, at)
            if before > 0:
                found = _BY_EXTENSION.get(name[before + 1 :].lower())
                if found is not None:
                    return found
        found = _BY_EXTENSION.get(extension)
        if found is not None:
            return found
    whole = _BY_NAME.get(name.lower())
    return () if whole is None else (whole,)


def by_name(name: bytes) -> FileType:
    """The type that a name says; UNKNOWN where it says nothing."""
    found = candidates(name)
    return found[0] if found else UNKNOWN


def by_head(head: bytes, name: bytes) -> tuple[FileType, Method]:
    """The type of a file of that name whose first HEAD_BYTES (or all, of a small one) are `head`."""
    named = candidates(name)
    found = _by_magic(head, named)
    if found is not None:
        for one in named:
            if one is found or one.within == found.name or found.within == one.name:
                return (found if found.within == one.name else one), Method.BOTH
        return found, Method.MAGIC
    is_binary = b"\0" in head
    for one in named:
        if one.is_strict or (one.is_text and is_binary):
            continue
        if one.may_be_text or is_binary or not looks_like_text(head):
            return one, Method.NAME
    if is_binary or not looks_like_text(head):
        return UNKNOWN, Method.CONTENT
    return _by_beginning(head), Method.CONTENT


def by_signature(one: FileType) -> bool:
    """Whether the type, or the one that it is a special case of, can be known by its bytes."""
    return one.name in _SIGNED or one.within in _SIGNED


def settled(name: bytes, by_content: FileType, method: Method) -> FileType:
    """What an entry is whose bytes were found to be of a type, maybe under another name: bytes that have a signature
    decide, among the rest the name."""
    if method >= Method.MAGIC:
        named = candidates(name)
        return next((one for one in named if one.within == by_content.name), by_content)
    named = candidates(name)
    is_text = by_content.is_text
    fits = (one for one in named if not one.is_strict and (one.may_be_text if is_text else not one.is_text))
    return next(fits, by_content)


def looks_like_text(head: bytes) -> bool:
    """Whether bytes are the beginning of a text: UTF-8, or any 8-bit code with next to no control characters."""
    if head.isascii():
        return len(head) == len(head.translate(None, _CONTROLS))
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:  # not a character that the end of the head cuts
            strange = len(head) - len(head.translate(None, _CONTROLS))
            return strange == 0 and sum(byte > 127 for byte in head) * 2 < len(head)
    return len(head) == len(head.translate(None, _CONTROLS))


def _by_magic(head: bytes, named: tuple[FileType, ...]) -> FileType | None:
    for one in _AT_START.get(head[:2], _NO_SIGNATURES):
        if one.matches(head) and (not one.is_weak or one.type in named):
            return _of_zip(head, one.type) if one.type is _ZIP or one.type is _OOXML else one.type
    for start, stop, there in _INSIDE_PLACES:
        inside = there.get(head[start:stop])
        if inside is not None:
            for one in inside:
                if one.matches(head) and (not one.is_weak or one.type in named):
                    return one.type
    if head.startswith(b"#!"):
        return _by_interpreter(head)
    return None


def _of_zip(head: bytes, found: FileType) -> FileType:
    if found is _OOXML:
        for part, one in _OOXML_PARTS:
            if part in head:
                return one
    return found


def _by_interpreter(head: bytes) -> FileType | None:
    line = _SHEBANG.match(head[:256])
    return None if line is None or b"\0" in head else _INTERPRETERS.get(line[1], PLAIN)


def _by_beginning(head: bytes) -> FileType:
    begin = head[:512].lstrip().lower()
    for words, found in _BEGINNINGS:
        if begin.startswith(words):
            if found is _XML:
                return next((one for mark, one in _XML_ROOTS if mark in head), _XML)
            return found
    return PLAIN


_XML_ROOTS: Final = (
    (b"<svg", BY_TYPE["svg"]), (b"<html", BY_TYPE["html"]), (b"<rss", BY_TYPE["rss"]),
    (b"<feed", BY_TYPE["atom"]), (b"<FictionBook", BY_TYPE["fb2"]), (b"<COLLADA", BY_TYPE["dae"]),
)  # fmt: skip
