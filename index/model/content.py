"""Content: what bytes are called, and how a part of them can be checked without the rest.

Three names, from quick to certain:

- the *sampled id*: 16 hex digits over the size and at most 57 344 bytes of the file. The same on every
  device, cheap for any size, and only a hint: two files that differ between the samples share it.
  `content_uuid` turns it into the uuid that devices agree on without talking.
- the *full hash*: plain BLAKE3 of all bytes, as `b3sum` prints it. The truth.
- the *manifest*: the BLAKE3 of every block of 128 KiB (leaves), one hash over each run of up to 256 leaves
  (pages), and one over the size and the pages (root). Whoever trusts a root can check any single block of a
  file that another device sends. The format is docs/format/manifest-v1.md.

A content of one block needs no stored manifest: its only leaf *is* its full hash, so the stored form is
empty. In: bytes and sizes. Out: values. No file is opened here; a reader is a function that is handed in.
Source: the BLAKE3 paper, section 2.3 (hash and derive_key modes do not collide); RFC 9562 for uuid version 5.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple
from uuid import NAMESPACE_DNS, UUID, uuid5

from blake3 import blake3

from index.model.errors import ContentCorrupt, Stale, TooLarge, VersionUnsupported

HASH_BYTES = 32

# The sampled id. The figures are part of the name: another value gives other ids for the same file.
SAMPLE_WHOLE_MAX_BYTES = 102_400
SAMPLE_EDGE_BYTES = 8_192
SAMPLE_BYTES = 10_240
SAMPLE_COUNT = 4
SAMPLED_ID_CHARS = 16

# The manifest. 128 KiB is what FUSE reads at once and 10 ms of a 100 Mbit/s link; a page of 8 KiB vouches for
# 32 MiB.
BLOCK_BYTES = 1 << 17
LEAVES_PER_PAGE = 1 << 8
PAGE_SPAN_BYTES = BLOCK_BYTES * LEAVES_PER_PAGE
#: Beyond 256 GiB version 1 has no manifest (it would pass 64 MiB); such a file still has its full hash.
MANIFEST_SIZE_BYTES_MAX = 1 << 38

_MAGIC = b"sdm"
_VERSION = 1
_HEAD = struct.Struct("<3sBBBHQ32s")  # magic, version, log2 block, log2 leaves a page, reserved, size, root
_PAGE_CONTEXT = "sdmount manifest v1 page"
_ROOT_CONTEXT = "sdmount manifest v1 root"


def sampled_id(read_at: Callable[[int, int], bytes | memoryview], size_bytes: int) -> str | None:
    """The sampled id of a source of `size_bytes`; None for an empty one, which has no identity.

    `read_at(offset, length)` returns exactly that many bytes. Raises Stale when it returns fewer: the source
    shrank.
    """
    if size_bytes == 0:
        return None
    pieces: list[bytes | memoryview] = [size_bytes.to_bytes(8, "little")]
    for offset, length in sampled_extents(size_bytes):
        piece = read_at(offset, length)
        if len(piece) != length:
            raise Stale(f"{length} bytes expected at {offset}, {len(piece)} read: the file shrank")
        pieces.append(piece)
    return blake3(b"".join(pieces)).hexdigest(SAMPLED_ID_CHARS // 2)


def sampled_id_of(data: bytes) -> str | None:
    """The sampled id of bytes in memory: the one that a file of these bytes has."""
    if len(data) <= SAMPLE_WHOLE_MAX_BYTES:
        return blake3(len(data).to_bytes(8, "little") + data).hexdigest(SAMPLED_ID_CHARS // 2) if data else None
    return sampled_id(lambda offset, length: data[offset : offset + length], len(data))


def sampled_extents(size_bytes: int) -> list[tuple[int, int]]:
    """The (offset, length) pairs that the sampled id reads, in order."""
    if size_bytes <= SAMPLE_WHOLE_MAX_BYTES:
        return [(0, size_bytes)]
    step = (size_bytes - 2 * SAMPLE_EDGE_BYTES) // SAMPLE_COUNT
    samples = [(SAMPLE_EDGE_BYTES + i * step, SAMPLE_BYTES) for i in range(SAMPLE_COUNT)]
    return [(0, SAMPLE_EDGE_BYTES), *samples, (size_bytes - SAMPLE_EDGE_BYTES, SAMPLE_EDGE_BYTES)]


def content_uuid(sampled: str) -> UUID:
    """The uuid of the contents that share a sampled id: version 5 in the DNS name space, equal on every
    device."""
    return uuid5(NAMESPACE_DNS, sampled)


def block_count(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES)


def page_count(size_bytes: int) -> int:
    return -(-size_bytes // PAGE_SPAN_BYTES)


def block_extent(index: int, size_bytes: int) -> tuple[int, int]:
    """(offset, length) of block `index`; only the last block is shorter than BLOCK_BYTES."""
    if not 0 <= index < block_count(size_bytes):
        raise IndexError(f"block {index} of a content with {block_count(size_bytes)}")
    offset = index * BLOCK_BYTES
    return offset, min(BLOCK_BYTES, size_bytes - offset)


def blocks_of_extent(offset: int, length: int, size_bytes: int) -> range:
    """The blocks that a read of `length` bytes at `offset` touches; what lies behind the end touches none."""
    end = min(offset + length, size_bytes)
    if offset >= end:
        return range(0)
    return range(offset // BLOCK_BYTES, -(-end // BLOCK_BYTES))


def page_of_block(index: int) -> int:
    return index // LEAVES_PER_PAGE


class Manifest(NamedTuple):
    """The block hashes of one content; made by `parse`, `load`, `of_leaves`, and whole and consistent ever
    after."""

    size_bytes: int
    root: bytes
    pages: bytes
    leaves: bytes

    def leaf(self, index: int) -> bytes:
        """The hash that block `index` must have."""
        block_extent(index, self.size_bytes)
        return self.leaves[index * HASH_BYTES : (index + 1) * HASH_BYTES]

    def matches(self, index: int, block: bytes | bytearray | memoryview) -> bool:
        """Whether these bytes are block `index`, by length and by hash."""
        _, length = block_extent(index, self.size_bytes)
        return len(block) == length and blake3(block).digest() == self.leaf(index)

    def stored(self) -> bytes:
        """The bytes to keep: empty for a content of one block or none, whose full hash implies the rest."""
        if self.size_bytes <= BLOCK_BYTES:
            return b""
        block_log2, page_log2 = BLOCK_BYTES.bit_length() - 1, LEAVES_PER_PAGE.bit_length() - 1
        head = _HEAD.pack(_MAGIC, _VERSION, block_log2, page_log2, 0, self.size_bytes, self.root)
        return b"".join((head, self.pages, self.leaves))


class ManifestHead(NamedTuple):
    """What a reader keeps in hand of a stored manifest: enough to check each page of leaves as it is
    fetched."""

    size_bytes: int
    root: bytes
    pages: bytes

    def check_page(self, page: int, leaves: bytes) -> None:
        """Raises ContentCorrupt unless these leaves are page `page`."""
        expected = self.pages[page * HASH_BYTES : (page + 1) * HASH_BYTES]
        if len(leaves) != page_extent(page, self.size_bytes)[1] or page_hash(leaves) != expected:
            raise ContentCorrupt(f"page {page} of the manifest does not have its hash")


def page_hash(leaves: bytes) -> bytes:
    return blake3(leaves, derive_key_context=_PAGE_CONTEXT).digest()


def root_hash(size_bytes: int, pages: bytes) -> bytes:
    """The hash that vouches for a whole manifest: the size and the block size are inside it."""
    fixed = struct.pack("<QII", size_bytes, BLOCK_BYTES, LEAVES_PER_PAGE)
    return blake3(fixed + pages, derive_key_context=_ROOT_CONTEXT).digest()


def of_leaves(size_bytes: int, leaves: bytes) -> Manifest:
    """The manifest over these leaves. Raises TooLarge above MANIFEST_SIZE_BYTES_MAX."""
    if size_bytes > MANIFEST_SIZE_BYTES_MAX:
        raise TooLarge(f"{size_bytes} bytes: a manifest of version 1 ends at {MANIFEST_SIZE_BYTES_MAX}")
    if len(leaves) != block_count(size_bytes) * HASH_BYTES:
        raise ContentCorrupt(f"{len(leaves)} bytes of leaves do not fit a content of {size_bytes} bytes")
    step = LEAVES_PER_PAGE * HASH_BYTES
    pages = b"".join(page_hash(leaves[at : at + step]) for at in range(0, len(leaves), step))
    return Manifest(size_bytes, root_hash(size_bytes, pages), pages, leaves)


def of_full_hash(size_bytes: int, full: bytes) -> Manifest:
    """The manifest of a content of at most one block, which its full hash implies."""
    if size_bytes > BLOCK_BYTES or len(full) != HASH_BYTES:
        raise ContentCorrupt(f"the full hash of a content of {size_bytes} bytes does not imply its blocks")
    return of_leaves(size_bytes, full if size_bytes else b"")


def load(stored: bytes, size_bytes: int, full: bytes) -> Manifest:
    """The manifest of a content row, whichever of the two forms it is kept in."""
    if size_bytes <= BLOCK_BYTES and not stored:
        return of_full_hash(size_bytes, full)
    manifest = parse(stored)
    if manifest.size_bytes != size_bytes:
        raise ContentCorrupt(f"the manifest is of {manifest.size_bytes} bytes, the content has {size_bytes}")
    return manifest


def head_bytes(size_bytes: int) -> int:
    """How many bytes of a stored manifest `parse_head` needs."""
    return _HEAD.size + page_count(size_bytes) * HASH_BYTES


def page_extent(page: int, size_bytes: int) -> tuple[int, int]:
    """(offset, length) of the leaves of page `page` in a stored manifest."""
    if not 0 <= page < page_count(size_bytes):
        raise IndexError(f"page {page} of a manifest with {page_count(size_bytes)}")
    first = page * LEAVES_PER_PAGE
    count = min(LEAVES_PER_PAGE, block_count(size_bytes) - first)
    return head_bytes(size_bytes) + first * HASH_BYTES, count * HASH_BYTES


def parse_head(data: bytes) -> ManifestHead:
    """The head of a stored manifest, checked against its own root; bytes behind the head are not looked at.

    Raises ContentCorrupt for anything that no writer of version 1 makes, VersionUnsupported for another
    version.
    """
    if len(data) < _HEAD.size:
        raise ContentCorrupt(f"a manifest of {len(data)} bytes is shorter than its head")
    magic, version, block_log2, page_log2, reserved, size_bytes, root = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ContentCorrupt("these bytes are not a manifest")
    if version != _VERSION:
        raise VersionUnsupported(f"the manifest has version {version}, this program reads {_VERSION}")
    if (1 << block_log2, 1 << page_log2, reserved) != (BLOCK_BYTES, LEAVES_PER_PAGE, 0):
        raise ContentCorrupt("the manifest has a block size that version 1 does not know")
    if not BLOCK_BYTES < size_bytes <= MANIFEST_SIZE_BYTES_MAX:
        raise ContentCorrupt(f"the manifest is of {size_bytes} bytes, for which version 1 stores none")
    end = head_bytes(size_bytes)
    if len(data) < end:
        raise ContentCorrupt(f"a manifest of {len(data)} bytes is cut in its page hashes")
    pages = bytes(data[_HEAD.size : end])
    if root_hash(size_bytes, pages) != root:
        raise ContentCorrupt("the page hashes of the manifest do not have its root")
    return ManifestHead(size_bytes, root, pages)


def parse(stored: bytes) -> Manifest:
    """A whole stored manifest, every hash of it checked. Raises as `parse_head`, and for a wrong length."""
    head = parse_head(stored)
    end = head_bytes(head.size_bytes)
    if len(stored) != end + block_count(head.size_bytes) * HASH_BYTES:
        raise ContentCorrupt(f"a manifest of {len(stored)} bytes does not fit a content of {head.size_bytes}")
    for page in range(page_count(head.size_bytes)):
        offset, length = page_extent(page, head.size_bytes)
        head.check_page(page, bytes(stored[offset : offset + length]))
    return Manifest(head.size_bytes, head.root, head.pages, bytes(stored[end:]))


class ContentHasher:
    """One pass over a content: its full hash and its manifest. 1.6 times the cost of the full hash alone."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._full = blake3()
        self._leaves = bytearray()
        self._wants_leaves = BLOCK_BYTES < size_bytes <= MANIFEST_SIZE_BYTES_MAX
        self._seen_bytes = 0

    def update(self, data: memoryview) -> None:
        """Takes the next bytes: a multiple of BLOCK_BYTES, except at the end."""
        if self._seen_bytes % BLOCK_BYTES:
            raise ValueError("bytes after a block that was not whole")
        self._seen_bytes += len(data)
        self._full.update(data)
        if self._wants_leaves:
            for at in range(0, len(data), BLOCK_BYTES):
                self._leaves += blake3(data[at : at + BLOCK_BYTES]).digest()

    def finish(self) -> tuple[bytes, bytes | None]:
        """(full hash, stored manifest); the manifest is None above MANIFEST_SIZE_BYTES_MAX.

        Raises Stale when another number of bytes went in than was announced.
        """
        if self._seen_bytes != self._size_bytes:
            raise Stale(f"{self._size_bytes} bytes announced, {self._seen_bytes} read: the file changed")
        full = self._full.digest()
        if self._size_bytes <= BLOCK_BYTES:
            return full, b""
        if not self._wants_leaves:
            return full, None
        return full, of_leaves(self._size_bytes, bytes(self._leaves)).stored()
