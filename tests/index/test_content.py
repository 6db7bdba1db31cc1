"""What contents are called: the sampled id, the blocks, and the manifest as its document says."""

import re
import struct
from collections.abc import Callable
from pathlib import Path
from uuid import NAMESPACE_DNS, UUID, uuid5

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from index.model import content
from index.model.errors import ContentCorrupt, Stale, TooLarge, VersionUnsupported

DOCUMENT = Path(__file__).parents[2] / "docs" / "format" / "manifest-v1.md"
MIB = 1 << 20


def pattern(size_bytes: int) -> bytes:
    """Byte i has the value i mod 251."""
    period = bytes(range(251))
    return (period * (size_bytes // 251 + 1))[:size_bytes]


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: data[offset : offset + length]


def stored_of(data: bytes, step: int = MIB) -> tuple[bytes, bytes | None]:
    hasher = content.ContentHasher(len(data))
    for at in range(0, len(data), step):
        hasher.update(memoryview(data)[at : at + step])
    return hasher.finish()


# The sampled id.


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (1, "9b779f74b305adc3"),
        (1024, "a841c51e2d0c467c"),
        (102_399, "cfbff674ab1c0c5d"),
        (102_400, "c66a52267c7e5ee9"),
        (102_401, "17f74805066119da"),
        (200_000, "5b7cfcfd66b367fd"),
        (1_048_576, "5aefa86eb26df03d"),
    ],
)
def test_the_sampled_id_has_its_golden_values(size_bytes: int, expected: str) -> None:
    data = pattern(size_bytes)
    assert content.sampled_id(reader(data), size_bytes) == expected
    assert content.sampled_id_of(data) == expected


def test_the_sampled_id_of_hello() -> None:
    assert content.sampled_id_of(b"hello") == "cc2104c68d62617f"


def test_the_content_uuid_has_its_golden_values() -> None:
    assert content.content_uuid("9b779f74b305adc3") == UUID("cb35c35c-7fc5-5e30-a3fd-396ba64d2889")
    assert content.content_uuid("5aefa86eb26df03d") == UUID("8d0a9117-265a-5f97-b006-0df664ed2592")
    assert uuid5(NAMESPACE_DNS, "Favorite") == UUID("e2ab5909-dec3-510f-99aa-af6bd56d8d29")


def test_an_empty_source_has_no_sampled_id() -> None:
    def never(offset: int, length: int) -> bytes:
        raise AssertionError(f"read at {offset} of {length}")

    assert content.sampled_id(never, 0) is None
    assert content.sampled_id_of(b"") is None


def test_bytes_between_the_samples_do_not_count_and_sampled_ones_do() -> None:
    """The blind spot is part of the algorithm: the id is a hint."""
    data = bytearray(pattern(MIB))
    expected = content.sampled_id_of(bytes(data))
    data[20_000] ^= 1
    assert content.sampled_id_of(bytes(data)) == expected
    data[18_431] ^= 1
    assert content.sampled_id_of(bytes(data)) != expected


def test_a_source_that_shrank_is_stale() -> None:
    with pytest.raises(Stale):
        content.sampled_id(reader(pattern(150_000)), 200_000)


@given(st.integers(1, 1 << 50))
def test_the_samples_lie_in_the_file_in_order_and_apart(size_bytes: int) -> None:
    extents = content.sampled_extents(size_bytes)
    ends = [offset + length for offset, length in extents]
    assert extents[0][0] == 0
    assert ends[-1] == size_bytes
    assert all(end <= offset for end, (offset, _) in zip(ends, extents[1:], strict=False))
    assert sum(length for _, length in extents) == (size_bytes if size_bytes <= 102_400 else 57_344)


# Blocks.


@given(st.integers(0, 1 << 40))
def test_the_blocks_cover_the_content_without_gap(size_bytes: int) -> None:
    count = content.block_count(size_bytes)
    assert (count - 1) * content.BLOCK_BYTES < size_bytes <= count * content.BLOCK_BYTES or count == size_bytes == 0
    assert content.page_count(size_bytes) == -(-count // content.LEAVES_PER_PAGE)
    if count:
        offset, length = content.block_extent(count - 1, size_bytes)
        assert offset + length == size_bytes
        assert 0 < length <= content.BLOCK_BYTES
        assert content.page_of_block(count - 1) == content.page_count(size_bytes) - 1
    with pytest.raises(IndexError):
        content.block_extent(count, size_bytes)


@given(st.integers(0, 1 << 24), st.integers(0, 1 << 24), st.integers(0, 1 << 24))
def test_an_extent_touches_exactly_the_blocks_it_overlaps(offset: int, length: int, size_bytes: int) -> None:
    end = min(offset + length, size_bytes)
    expected = []
    for block in range(content.block_count(size_bytes)):
        first, span = content.block_extent(block, size_bytes)
        if offset < end and first < end and offset < first + span:
            expected.append(block)
    assert list(content.blocks_of_extent(offset, length, size_bytes)) == expected


# The manifest, against its document.


def document_vectors() -> list[tuple[int, int, int, str, str, int, str]]:
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| (\d+) \| ([0-9a-f]{64}) \| ([0-9a-f]{64}) \| (\d+) \| ([0-9a-f]{64}|-) \|$",
        DOCUMENT.read_text(),
        re.MULTILINE,
    )
    return [(int(n), int(b), int(p), full, root, int(s), digest) for n, b, p, full, root, s, digest in rows]


def by_the_document(data: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """Leaves, pages and root, written from the document alone."""
    leaves = [blake3(data[at : at + 131_072]).digest() for at in range(0, len(data), 131_072)]
    pages = [
        blake3(b"".join(leaves[at : at + 256]), derive_key_context="sdmount manifest v1 page").digest()
        for at in range(0, len(leaves), 256)
    ]
    fixed = struct.pack("<QII", len(data), 131_072, 256)
    root = blake3(fixed + b"".join(pages), derive_key_context="sdmount manifest v1 root").digest()
    return leaves, pages, root


def test_the_document_has_vectors_on_both_sides_of_every_edge() -> None:
    assert {row[0] for row in document_vectors()} >= {0, 1, 131_072, 131_073, 33_554_432, 33_554_433}


@pytest.mark.parametrize("row", document_vectors(), ids=lambda row: str(row[0]))
def test_the_vectors_of_the_document_hold(row: tuple[int, int, int, str, str, int, str]) -> None:
    size_bytes, blocks, pages, full_hex, root_hex, stored_bytes, stored_digest = row
    data = pattern(size_bytes)
    full, stored = stored_of(data)
    assert stored is not None
    manifest = content.load(stored, size_bytes, full)
    leaves, page_hashes, root = by_the_document(data)

    assert (len(leaves), len(page_hashes)) == (blocks, pages)
    assert manifest == (size_bytes, root, b"".join(page_hashes), b"".join(leaves))
    assert (full.hex(), root.hex()) == (full_hex, root_hex)
    assert full == blake3(data).digest()
    assert len(stored) == stored_bytes
    assert (blake3(stored).hexdigest() if stored else "-") == stored_digest


def test_the_printed_stored_form_of_the_document_holds() -> None:
    match = re.search(r"```\n([0-9a-f\n]+)```", DOCUMENT.read_text())
    assert match is not None
    assert stored_of(pattern(131_073))[1] == bytes.fromhex(match[1].replace("\n", ""))


# The manifest, its rules.


@pytest.mark.parametrize("blocks_a_step", [1, 3, 8])
def test_the_manifest_does_not_depend_on_how_the_bytes_come(blocks_a_step: int) -> None:
    data = pattern(2 * MIB + 17)
    expected = stored_of(data, len(data))
    assert stored_of(data, blocks_a_step * content.BLOCK_BYTES) == expected


def test_a_content_of_one_block_stores_nothing_and_is_checked_all_the_same() -> None:
    data = pattern(content.BLOCK_BYTES)
    full, stored = stored_of(data)
    assert stored == b""
    manifest = content.load(stored, len(data), full)
    assert manifest.stored() == b""
    assert manifest.matches(0, data)
    assert not manifest.matches(0, data[:-1] + b"\xff")


def test_a_block_matches_only_at_its_place_and_with_its_length() -> None:
    data = pattern(3 * content.BLOCK_BYTES + 5)
    stored = stored_of(data)[1]
    assert stored
    manifest = content.parse(stored)
    blocks = [data[at : at + content.BLOCK_BYTES] for at in range(0, len(data), content.BLOCK_BYTES)]
    seen = [[manifest.matches(place, block) for block in blocks] for place in range(4)]
    assert seen == [[place == block for block in range(4)] for place in range(4)]
    assert not manifest.matches(3, blocks[3] + b"\0")
    with pytest.raises(IndexError):
        manifest.leaf(4)


def test_a_page_of_leaves_is_checked_with_the_head_alone() -> None:
    size_bytes = content.PAGE_SPAN_BYTES + 1
    leaves = b"".join(blake3(bytes([i % 256, i // 256])).digest() for i in range(257))
    stored = content.of_leaves(size_bytes, leaves).stored()
    head = content.parse_head(stored[: content.head_bytes(size_bytes)])
    for page in range(2):
        offset, length = content.page_extent(page, size_bytes)
        head.check_page(page, stored[offset : offset + length])
    with pytest.raises(ContentCorrupt):
        head.check_page(0, leaves[-32:])
    with pytest.raises(ContentCorrupt):
        head.check_page(1, leaves[:32])


STORED = content.of_leaves(5 * content.BLOCK_BYTES, b"".join(blake3(bytes([i])).digest() for i in range(5))).stored()


@given(st.integers(0, len(STORED) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_stored_manifest_goes_unseen(at: int, change: int) -> None:
    broken = bytearray(STORED)
    broken[at] ^= change
    with pytest.raises((ContentCorrupt, VersionUnsupported)):
        content.parse(bytes(broken))


@given(
    st.one_of(
        st.integers(0, len(STORED) - 1).map(lambda end: STORED[:end]),
        st.binary(min_size=1).map(STORED.__add__),
    )
)
def test_no_cut_or_longer_manifest_is_read(data: bytes) -> None:
    with pytest.raises(ContentCorrupt):
        content.parse(data)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_refused_with_our_own_errors(data: bytes) -> None:
    with pytest.raises((ContentCorrupt, VersionUnsupported)):
        content.parse(data)
    with pytest.raises((ContentCorrupt, VersionUnsupported)):
        content.parse(b"sdm\x01" + data)


def test_a_newer_version_is_unsupported_and_not_corrupt() -> None:
    with pytest.raises(VersionUnsupported):
        content.parse(b"sdm\x02" + STORED[4:])


def test_a_huge_size_is_refused_before_anything_is_allocated() -> None:
    head = struct.pack("<3sBBBHQ32s", b"sdm", 1, 17, 8, 0, (1 << 64) - 1, bytes(32))
    with pytest.raises(ContentCorrupt, match="18446744073709551615"):
        content.parse(head)
    with pytest.raises(TooLarge):
        content.of_leaves(content.MANIFEST_SIZE_BYTES_MAX + 1, b"")


def test_a_manifest_of_another_content_is_refused_by_its_size() -> None:
    with pytest.raises(ContentCorrupt):
        content.load(STORED, 5 * content.BLOCK_BYTES - 1, bytes(32))
    with pytest.raises(ContentCorrupt):
        content.load(b"", 5 * content.BLOCK_BYTES, bytes(32))


def test_a_hasher_notices_that_another_number_of_bytes_came() -> None:
    hasher = content.ContentHasher(200_000)
    hasher.update(memoryview(pattern(199_999)))
    with pytest.raises(Stale):
        hasher.finish()
    with pytest.raises(ValueError, match="not whole"):
        hasher.update(memoryview(b"x"))


def test_a_content_too_large_for_a_manifest_has_its_full_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "MANIFEST_SIZE_BYTES_MAX", 300_000)
    data = pattern(300_001)
    assert stored_of(data) == (blake3(data).digest(), None)
