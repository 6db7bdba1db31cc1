"""A library over a real directory, and the loop that has media workers read it: what a job does, without the job.

Also media made for the purpose: nothing is downloaded, and what cannot be made here is not tested.
"""

import io
import os
import struct
import zlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import trio
from PIL import Image

from index.media import pipeline, sidecars, workermain
from index.media.driving import work_off
from index.media.registry import EXTRACTORS
from index.media.variants import DEFAULT
from index.model.entry import KIND_DIR, Stat
from index.model.inode import DEVICES
from index.scan import pipeline as scan_pipeline
from index.scan import recording
from index.scan.hasher import Hasher
from index.scan.workers import WorkerPool
from index.store import devices, entries, places
from index.store.store import Store

DEVICE = b"d" * 16
DEADLINE_S = 60.0


class MediaLibrary:
    """`tree` is the branch's directory; `learn` makes the library know what is in it, hashes and types included."""

    def __init__(self, place: Path) -> None:
        self.tree = place / "tree"
        self.tree.mkdir()
        self.sidecars = os.fsencode(place / "library" / "sidecars")
        os.makedirs(self.sidecars)
        self.store = Store(place / "library.db", DEVICE)
        with self.store.write("test") as unit:
            devices.put(unit.db, DEVICE, "device", b"k" * 32, 1)
            root = os.fsencode(self.tree)
            self.branch = places.put_branch(unit.db, b"b" * 16, None, DEVICE, "store", root, "fs", 1)
            row = recording.plain_row(unit, self.branch, 0, b"", Stat.of(os.stat(self.tree)))
            entries.insert(unit.db, row._replace(parent_id=None))
            self.root_id = row.id

    def put(self, name: str, data: bytes) -> Path:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def learn(self) -> None:
        """Rows for what has none yet, and identities for all of them."""
        ids: dict[str, int] = {".": self.root_id}
        found: list[tuple[int, list[bytes]]] = []
        with self.store.write("test") as unit:
            for directory, below, files in os.walk(self.tree):
                here = os.path.normpath(os.path.relpath(directory, self.tree))
                for name in sorted(below + files):
                    path = os.path.normpath(os.path.join(here, name))
                    row = entries.child(unit.db, ids[here], os.fsencode(name))
                    st = Stat.of(os.lstat(os.path.join(self.tree, path)))
                    if row is None:
                        row = recording.plain_row(unit, self.branch, ids[here], os.fsencode(name), st)
                        entries.insert(unit.db, row)
                    ids[path] = row.id
                    if st.kind != KIND_DIR:
                        found.append((row.id, os.fsencode(path).split(b"/")))
        root_fd = os.open(self.tree, os.O_PATH | os.O_DIRECTORY)
        try:
            with Hasher(root_fd) as hasher, self.store.write("test") as unit:
                again = scan_pipeline.take_identities(unit, [(i, hasher.identify(path)) for i, path in found])
        finally:
            os.close(root_fd)
        assert again == []

    def content_of(self, name: str) -> int:
        row = entries.child(self.store.db, self.root_id, os.fsencode(name))
        assert row is not None
        assert row.content_id is not None
        return row.content_id

    def file_of(self, name: str, variant: str) -> Path | None:
        """The picture that shows a variant."""
        row = sidecars.find(self.store.db, self.content_of(name), variant)
        if row is None:
            return None
        (full,) = self.store.db.execute("SELECT full FROM content WHERE id=?", (row.content_id,)).fetchone()
        return Path(os.fsdecode(sidecars.path_of(self.sidecars, full, row.kind, row.variant)))

    def args(self) -> dict[str, Any]:
        return {"root": os.fsencode(self.tree), "sidecars": self.sidecars, "devices": DEVICES.told()}

    async def extract(self, pool: WorkerPool, extractors: Any = EXTRACTORS) -> int:
        """Passes over the queue until one finds nothing new; returns how many results there were."""

        def page(after: int) -> pipeline.Page:
            return pipeline.lacking_fields(self.store.db, [self.branch], after, extractors)

        async def take(batch: list[tuple[int, list[Any]]]) -> None:
            with self.store.write("media") as unit:
                self.again = pipeline.take_extracted(unit, batch, extractors)

        return await self._until_done(pool, "extract", page, take, {})

    async def thumbnail(self, pool: WorkerPool, variants: Sequence[str] = DEFAULT) -> int:
        def page(after: int) -> pipeline.Page:
            return pipeline.lacking_thumbnails(self.store.db, [self.branch], after, variants)

        async def take(batch: list[tuple[int, list[Any]]]) -> None:
            with self.store.write("media") as unit:
                self.again = pipeline.take_thumbnails(unit, batch, variants)

        return await self._until_done(pool, "thumbnail", page, take, {"variants": list(variants)})

    async def _until_done(self, pool: WorkerPool, operation: str, page: Any, take: Any, more: dict[str, Any]) -> int:
        results = 0
        passes = 0
        while passes < 2:  # one for contents, and one more for those whose type the first found out
            passes += 1
            after: int | None = 0
            while after is not None:
                found: pipeline.Page = page(after)
                items = [source.item() for source in found.sources]
                if items:
                    await work_off(pool, operation, {**self.args(), **more}, items, take)
                results += len(items)
                after = found.next_id
        return results


def taking(take: Callable[[Any], object]) -> Callable[[Any], Awaitable[None]]:
    """Somebody who takes batches in, of what does so at once."""

    async def taken(batch: Any) -> None:
        take(batch)

    return taken


def with_workers(
    place: Path, body: Callable[[WorkerPool], Awaitable[object]], *, table: str = workermain.TABLE
) -> None:
    """Runs `body` beside a pool of media workers."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            pool = WorkerPool(2, log_path=place / "workers.log", table=table, idle_s=60)
            await nursery.start(pool.run)
            with trio.fail_after(DEADLINE_S):
                await body(pool)
            nursery.cancel_scope.cancel()

    trio.run(main)


# media ----------------------------------------------------------------------------------------------------------------


def picture(width: int = 400, height: int = 300, file_format: str = "JPEG", mode: str = "RGB", **options: Any) -> bytes:
    """An image whose corner at the top left is red, the one at the top right green, the lower left one blue."""
    image = Image.new("RGB", (width, height), "white")
    for box, colour in (
        ((0, 0, width // 2, height // 2), "red"),
        ((width // 2, 0, width, height // 2), (0, 255, 0)),
        ((0, height // 2, width // 2, height), "blue"),
    ):
        image.paste(colour, box)
    out = io.BytesIO()
    image.convert(mode).save(out, file_format, **options)
    return out.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *more: bytes, rows: bytes = b"") -> bytes:
    """A PNG by hand, of a size that it need not have."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (png_chunk(b"IHDR", head), *more, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    )


def wav(seconds: int = 2, rate_hz: int = 8000, tags: dict[bytes, bytes] | None = None) -> bytes:
    """Silence, one channel of 16 bits, with a LIST of tags."""
    sound = bytes(seconds * rate_hz * 2)
    form = struct.pack("<HHIIHH", 1, 1, rate_hz, rate_hz * 2, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    if tags:
        info = b"INFO"
        for name, text in tags.items():
            text += b"\0" * (2 - len(text) % 2)
            info += name + struct.pack("<I", len(text)) + text
        chunks += b"LIST" + struct.pack("<I", len(info)) + info
    chunks += b"data" + struct.pack("<I", len(sound)) + sound
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def mp3(tags: dict[bytes, str], frames: int = 80) -> bytes:
    """An ID3v2.3 head and frames of silence: MPEG 1, layer 3, 128 kbit, 44.1 kHz, 417 bytes each."""
    body = b""
    for name, text in tags.items():
        value = b"\x03" + text.encode()
        body += name + struct.pack(">I", len(value)) + b"\0\0" + value
    size = len(body)
    packed = bytes((size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127))
    return b"ID3\x03\0\0" + packed + body + (b"\xff\xfb\x90\x64" + bytes(413)) * frames


def _comments(tags: dict[str, str]) -> bytes:
    lines = [f"{name}={text}".encode() for name, text in tags.items()]
    return (
        struct.pack("<I", 4) + b"test" + struct.pack("<I", len(lines))
        + b"".join(struct.pack("<I", len(line)) + line for line in lines)
    )  # fmt: skip


def flac(tags: dict[str, str], samples: int = 88200, rate_hz: int = 44100) -> bytes:
    """A head and comments; no sound."""
    packed = (rate_hz << 44) | (1 << 41) | (15 << 36) | samples
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    body = _comments(tags)
    return b"fLaC" + struct.pack(">I", len(info)) + info + struct.pack(">I", (0x84 << 24) | len(body)) + body


def ogg(tags: dict[str, str], samples: int = 88200, rate_hz: int = 44100) -> bytes:
    """Vorbis heads in Ogg pages, and one page that says where the end is."""
    first = b"\x01vorbis" + struct.pack("<IBIIIIB", 0, 2, rate_hz, 0, 112000, 0, 0xB8) + b"\x01"
    second = b"\x03vorbis" + _comments(tags) + b"\x01"
    pages = b""
    for number, (kind, position, packet) in enumerate(((2, 0, first), (0, 0, second), (4, samples, bytes(10)))):
        sizes = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        head = struct.pack("<4sBBqIIIB", b"OggS", 0, kind, position, 1, number, 0, len(sizes)) + sizes
        crc = _ogg_crc(head + packet)
        pages += head[:22] + struct.pack("<I", crc) + head[26:] + packet
    return pages


def _ogg_crc(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = ((crc << 1) ^ 0x04C11DB7 if crc & 0x80000000 else crc << 1) & 0xFFFFFFFF
    return crc
