"""Pages: a SQLite file read page by page, without SQLite, so that damage costs no more than the pages it is on.

In: the database and the log beside it, which are read and never written. Out: pages by their number, as the last commit
in the log left them; the cells of a page that is a page of a b-tree; the values of a record. Whatever does not hold
together is `Damaged`, by page or by cell: nothing is guessed.

Source: https://sqlite.org/fileformat2.html (1.3 header, 1.5 freelist, 1.6 b-tree pages, 2.1 records, 4 log).
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

INDEX_INNER: Final = 2
TABLE_INNER: Final = 5
INDEX_LEAF: Final = 10
TABLE_LEAF: Final = 13
INNER: Final = (INDEX_INNER, TABLE_INNER)

#: That of every library; a header that is damaged cannot tell.
_PAGE_BYTES: Final = 4096
_HEADER_BYTES: Final = 100
_MAGIC: Final = b"SQLite format 3\0"
_LOG_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_LOG_MAGIC: Final = 0x377F0682  # its last bit: checksums are big-endian
_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Value = None | int | float | str | bytes
Record = tuple[Value, ...]


class Damaged(Exception):
    """What was read is no such thing."""


class Cell(NamedTuple):
    """A cell of a page; what its kind of page does not have is None."""

    child: int | None
    rowid: int | None
    record: Record | None


class Page(NamedTuple):
    """A page of a b-tree. `cells` holds what could be read; `lost` says how many could not."""

    kind: int
    cells: list[Cell]
    lost: int
    right: int | None


class Pages:
    """A database file and its log, open for reading; `close()` it. Of a file that is gone the log alone is read."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._size_bytes = os.fstat(self._fd).st_size
        self._log: dict[int, int] = {}
        self._log_fd = -1
        told = self._told_page_bytes()
        self.page_bytes = told or _PAGE_BYTES
        self._read_log(Path(f"{path}-wal"), is_told=bool(told))
        self.count = max([-(-self._size_bytes // self.page_bytes), *self._log])
        first = self.get(1)
        self.version = int.from_bytes(first[60:64], "big") if first.startswith(_MAGIC) else 0

    def close(self) -> None:
        os.close(self._fd)
        if self._log_fd >= 0:
            os.close(self._log_fd)

    def get(self, number: int) -> bytes:
        """The bytes of a page; short of one that is not there."""
        at = self._log.get(number)
        if at is not None:
            return os.pread(self._log_fd, self.page_bytes, at)
        return os.pread(self._fd, self.page_bytes, (number - 1) * self.page_bytes)

    def free(self) -> set[int]:
        """The pages of the freelist, as far as it can be followed."""
        first = self.get(1)
        found: set[int] = set()
        trunk = int.from_bytes(first[32:36], "big") if first.startswith(_MAGIC) else 0
        while 0 < trunk <= self.count and trunk not in found:
            found.add(trunk)
            page = self.get(trunk)
            count = int.from_bytes(page[4:8], "big")
            if len(page) < self.page_bytes or count > self.page_bytes // 4 - 2:
                break
            found.update(struct.unpack_from(f">{count}I", page, 8))
            trunk = int.from_bytes(page[:4], "big")
        return found

    def read(self, number: int) -> Page:
        """A page of a b-tree with its cells. Damaged when it is none."""
        page = self.get(number) if 0 < number <= self.count else b""
        if len(page) < self.page_bytes:
            raise Damaged(f"page {number} is not in the file")
        start = _HEADER_BYTES if number == 1 else 0
        kind = page[start]
        if kind not in (*INNER, TABLE_LEAF, INDEX_LEAF):
            raise Damaged(f"page {number} is of no known kind")
        head_bytes = 12 if kind in INNER else 8
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        first = start + head_bytes + 2 * count
        if first > self.page_bytes:
            raise Damaged(f"page {number} has more cells than room")
        right = int.from_bytes(page[start + 8 : start + 12], "big") if kind in INNER else None
        cells, lost = [], 0
        for at in struct.unpack_from(f">{count}H", page, start + head_bytes):
            try:
                if not first <= at < self.page_bytes:
                    raise Damaged(f"a cell of page {number} lies outside")
                cells.append(self._cell(page, kind, at))
            except (Damaged, IndexError, UnicodeDecodeError, struct.error):
                lost += 1
        return Page(kind, cells, lost, right)

    def _cell(self, page: bytes, kind: int, at: int) -> Cell:
        child = None
        if kind in INNER:
            child, at = int.from_bytes(page[at : at + 4], "big"), at + 4
        if kind == TABLE_INNER:
            return Cell(child, _varint(page, at)[0], None)
        size_bytes, at = _varint(page, at)
        rowid = None
        if kind == TABLE_LEAF:
            rowid, at = _varint(page, at)
            rowid -= (rowid >> 63) << 64
        return Cell(child, rowid, record(self._payload(page, kind, at, size_bytes)))

    def _payload(self, page: bytes, kind: int, at: int, size_bytes: int) -> bytes:
        """The bytes of a record: those in its cell and those on the pages that it overflows to."""
        if size_bytes > self.count * self.page_bytes:
            raise Damaged("a record is larger than the file")
        usable = self.page_bytes  # nothing of ours reserves a part
        most = usable - 35 if kind == TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if size_bytes <= most:
            local = size_bytes
        else:
            least = (usable - 12) * 32 // 255 - 23
            local = least + (size_bytes - least) % (usable - 4)
            local = least if local > most else local
        if at + local > usable:
            raise Damaged("a record goes beyond its page")
        parts, left, at = [page[at : at + local]], size_bytes - local, at + local
        following = int.from_bytes(page[at : at + 4], "big") if left else 0
        while left > 0:
            page = self.get(following) if 0 < following <= self.count else b""
            if len(page) < self.page_bytes:
                raise Damaged("a record goes on where there is no page")
            part = page[4 : min(usable, 4 + left)]
            parts.append(part)
            left -= len(part)
            following = int.from_bytes(page[:4], "big")
        if following and len(parts) > 1:
            raise Damaged("a record goes on beyond its end")
        return b"".join(parts)

    def _told_page_bytes(self) -> int:
        """What the header says of the pages where that agrees with what it says of the file, else 0."""
        head = os.pread(self._fd, _HEADER_BYTES, 0)
        if not head.startswith(_MAGIC):
            return 0
        size_bytes, count = int.from_bytes(head[16:18], "big"), int.from_bytes(head[28:32], "big")
        size_bytes = 65536 if size_bytes == 1 else size_bytes
        is_size = size_bytes >= 512 and not size_bytes & (size_bytes - 1)
        return size_bytes if is_size and size_bytes * count == self._size_bytes else 0

    def _read_log(self, path: Path, *, is_told: bool) -> None:
        """Where the last commit in the log has each page. A frame that is torn ends the log."""
        try:
            self._log_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        head = os.pread(self._log_fd, _LOG_HEADER.size, 0)
        if len(head) < _LOG_HEADER.size:
            return
        magic, _, page_bytes, _, *salt_and_sum = _LOG_HEADER.unpack(head)
        order = ">" if magic & 1 else "<"
        sums = _summed(head[:24], order, (0, 0))
        if magic | 1 != _LOG_MAGIC | 1 or tuple(salt_and_sum[2:]) != sums:
            return
        if is_told and page_bytes != self.page_bytes:
            return
        self.page_bytes = page_bytes
        at, pending = _LOG_HEADER.size, dict[int, int]()
        while len(frame := os.pread(self._log_fd, _FRAME.size + page_bytes, at)) == _FRAME.size + page_bytes:
            number, committed, *found = _FRAME.unpack_from(frame)
            sums = _summed(frame[_FRAME.size :], order, _summed(frame[:8], order, sums))
            if found[:2] != salt_and_sum[:2] or tuple(found[2:]) != sums:
                break
            pending[number] = at + _FRAME.size
            if committed:
                self._log.update(pending)
                pending.clear()
            at += len(frame)


def _summed(data: bytes, order: str, before: tuple[int, int]) -> tuple[int, int]:
    """The running checksum of the log."""
    one, two = before
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for word in words:
        one = (one + word + two) & 0xFFFFFFFF
        two = (two + next(words) + one) & 0xFFFFFFFF
    return one, two


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for step in range(8):
        byte = data[at + step]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + step + 1
    return value << 8 | data[at + 8], at + 9


def record(payload: bytes) -> Record:
    """The values of a record. Damaged when it does not end where it says."""
    head_bytes, at = _varint(payload, 0)
    if not at <= head_bytes <= len(payload):
        raise Damaged("a record's header goes beyond it")
    return tuple(_values(payload, at, head_bytes))


def _values(payload: bytes, at: int, body: int) -> Iterator[Value]:
    end = body
    while at < end:
        kind, at = _varint(payload, at)
        if kind >= 12:
            size_bytes = (kind - 12) // 2
            value = payload[body : body + size_bytes]
            if len(value) < size_bytes:
                raise Damaged("a value goes beyond its record")
            body += size_bytes
            yield value.decode() if kind & 1 else value
        elif kind in _INTEGERS:
            size_bytes = _INTEGERS[kind]
            if body + size_bytes > len(payload):
                raise Damaged("a number goes beyond its record")
            yield int.from_bytes(payload[body : body + size_bytes], "big", signed=True)
            body += size_bytes
        elif kind == 7:
            if body + 8 > len(payload):
                raise Damaged("a number goes beyond its record")
            yield float(struct.unpack_from(">d", payload, body)[0])
            body += 8
        elif kind in (0, 8, 9):
            yield None if kind == 0 else kind - 8
        else:
            raise Damaged("a value is of no known kind")
    if body != len(payload):
        raise Damaged("a record has more bytes than values")
