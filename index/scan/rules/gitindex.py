"""Which paths git tracks, read from its index: what is tracked is not ignored, whatever the patterns say.

Versions 2, 3 and 4, as gitformat-index(5) describes them; only names are taken. Of a split index both halves are read.
A file that cannot be read as one tracks nothing.
"""

import struct
from bisect import bisect_left
from collections.abc import Callable

#: Beyond this an index is not read: a hundred million bytes are a million files.
INDEX_MAX_BYTES = 128 << 20

_HEADER = struct.Struct(">4sII")
_FLAGS = struct.Struct(">H")
_FIXED_BYTES = 40  # times, device, inode, mode, owner, group and size; then the hash and the flags
_EXTENDED = 0x4000
_LENGTH = 0x0FFF


class BadIndex(Exception):
    """The bytes are no index that we know."""


class Tracked:
    """The paths of an index, from the top of the work tree, sorted."""

    __slots__ = ("paths",)

    def __init__(self, paths: list[bytes]) -> None:
        self.paths = paths

    def has(self, path: bytes) -> bool:
        """Whether a path is tracked, or is a directory in which something is."""
        at = bisect_left(self.paths, path)
        if at < len(self.paths) and self.paths[at] == path:
            return True
        below = path + b"/"
        at = bisect_left(self.paths, below)
        return at < len(self.paths) and self.paths[at].startswith(below)


NOTHING = Tracked([])


def parse(data: bytes, hash_bytes: int = 20, shared: Callable[[bytes], bytes | None] = lambda _: None) -> Tracked:
    """The paths of an index file. `shared` gives the other half of a split one by its hash. BadIndex."""
    paths, link = _entries(data, hash_bytes)
    if link is not None and any(link[:hash_bytes]):
        base = shared(link[:hash_bytes].hex().encode())
        if base is None:
            raise BadIndex("the shared half of a split index is not there")
        below, again = _entries(base, hash_bytes)
        if again is not None:
            raise BadIndex("a shared index that is split itself")
        gone = _bits(link[hash_bytes:])
        paths = [path for number, path in enumerate(below) if number not in gone] + [path for path in paths if path]
    return Tracked(sorted(set(paths)))


def _entries(data: bytes, hash_bytes: int) -> tuple[list[bytes], bytes | None]:
    """(names, the body of extension `link`)."""
    try:
        magic, version, count = _HEADER.unpack_from(data)
        if magic != b"DIRC" or version not in (2, 3, 4) or count > len(data) // (_FIXED_BYTES + hash_bytes):
            raise BadIndex(f"index version {version}")
        names: list[bytes] = []
        take = names.append
        at, before = _HEADER.size, b""
        fixed = _FIXED_BYTES + hash_bytes
        flags_at = _FLAGS.unpack_from
        for _ in range(count):
            start = at
            (flags,) = flags_at(data, at + fixed)
            at += fixed + (4 if flags & _EXTENDED else 2)
            if version == 4:
                cut, at = _varint(data, at)
                end = data.index(b"\0", at)
                if cut > len(before):
                    raise BadIndex("a name that is shortened by more than it has")
                before = before[: len(before) - cut] + data[at:end]
                at = end + 1
                take(before)
            else:
                length = flags & _LENGTH
                end = at + length if length < _LENGTH else data.index(b"\0", at)
                take(data[at:end])
                at = start + ((end - start) // 8 + 1) * 8
        end = len(data) - hash_bytes
        if at > end:
            raise BadIndex("an index that ends too early")
        link = None
        while at + 8 <= end:
            (size,) = struct.unpack_from(">I", data, at + 4)
            if data[at : at + 4] == b"link":
                link = data[at + 8 : at + 8 + size]
            at += 8 + size
    except (struct.error, ValueError, IndexError) as error:
        raise BadIndex(str(error)) from error
    return [name.rstrip(b"/") for name in names], link  # a directory of a sparse index is told with its slash


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, as in pack files, and where it ends."""
    byte = data[at]
    at += 1
    value = byte & 127
    while byte & 128:
        byte = data[at]
        at += 1
        value = ((value + 1) << 7) | (byte & 127)
    return value, at


def _bits(body: bytes) -> set[int]:
    """The set bits of the first bitmap of extension `link`, in git's EWAH: which shared entries are deleted."""
    if not body:
        return set()
    try:
        size, words = struct.unpack_from(">II", body)
        found: set[int] = set()
        at, bit, left = 8, 0, words
        while left > 0:
            (marker,) = struct.unpack_from(">Q", body, at)
            at, left = at + 8, left - 1
            fill, run, literals = marker & 1, (marker >> 1) & 0xFFFFFFFF, marker >> 33
            if fill:
                found.update(range(bit, min(bit + 64 * run, size)))
            bit += 64 * run
            for _ in range(literals):
                (word,) = struct.unpack_from(">Q", body, at)
                at, left = at + 8, left - 1
                found.update(bit + number for number in range(64) if word >> number & 1)
                bit += 64
    except struct.error as error:
        raise BadIndex(str(error)) from error
    return found
