"""Finder: searches in threads, on connections that are kept for the next one.

In: a parsed query, how many hits, and where the last page ended. Out: hits with their paths, and the cursor of the next
page: opaque text that holds keys (index/store/finding.py), the moment that ages are counted from, and whose query it
is. An index that cannot be read is done without; who gave up waiting leaves no thread that works on.
"""

import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import apsw
import attrs
import msgpack
import trio
from blake3 import blake3

from index.model.errors import Invalid
from index.model.query import Query
from index.store import finding, matching
from index.store.finding import Hit, Page, Position
from index.store.reading import SearchReader

T = TypeVar("T")
log = logging.getLogger("sdmount.search")

#: Searches at a time, and connections that are kept.
_THREADS: Final = 4
_DIGEST_BYTES: Final = 8


@attrs.frozen
class Found:
    """A page: hits with their paths from their branch's root on; the cursor is None when there are no more."""

    hits: list[tuple[Hit, bytes]]
    cursor: str | None


class Finder:
    """What searches a library; `close()` it."""

    def __init__(self, library_db: Path) -> None:
        self._library_db = library_db
        self._idle: list[SearchReader] = []
        self._closed = False
        self._limiter = trio.CapacityLimiter(_THREADS)

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    async def find(self, query: Query, limit: int, cursor: str | None = None) -> Found:
        """A page of hits, best first. Invalid for a cursor that is not of this query."""
        now_ns, after = (time.time_ns(), None) if cursor is None else _opened(cursor, query)

        def search(reader: SearchReader) -> Found:
            try:
                return self._found(reader, query, limit, now_ns, after)
            except apsw.InterruptError:
                raise
            except apsw.Error as error:
                if not reader.has_index:
                    raise
                log.warning("the index of names cannot be read (%s); a search does without", error)
                reader.do_without()
                return self._found(reader, query, limit, now_ns, after)

        return await self._in_thread(search)

    def _found(self, reader: SearchReader, query: Query, limit: int, now_ns: int, after: Position | None) -> Found:
        with reader.snapshot() as known:
            page = finding.find(reader, known, query, now_ns, limit, after)
            hits = [(hit, reader.path_of(hit.parent_id, hit.name)) for hit in page.hits]
        return Found(hits, _sealed(page, query, now_ns))

    async def _in_thread(self, work: Callable[[SearchReader], T]) -> T:
        """Work on a connection in a thread; interrupted when nobody waits for it any more."""
        reader = self._idle.pop() if self._idle else SearchReader(self._library_db)

        def run() -> T:
            is_good = False
            try:
                done = work(reader)
                is_good = True
                return done
            finally:
                if is_good and not self._closed and len(self._idle) < _THREADS:
                    self._idle.append(reader)
                else:
                    reader.close()

        try:
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._limiter)
        except trio.Cancelled:
            reader.interrupt()
            raise


def _digest(query: Query) -> bytes:
    return blake3(str(query).encode("utf-8", "surrogateescape")).digest(_DIGEST_BYTES)


def _sealed(page: Page, query: Query, now_ns: int) -> str | None:
    if page.end is None:
        return None
    return base64.urlsafe_b64encode(msgpack.packb([_digest(query), now_ns, *page.end])).decode().rstrip("=")


def _opened(cursor: str, query: Query) -> tuple[int, Position]:
    """The moment and the position of a cursor."""
    try:
        packed = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        digest, now_ns, *position = msgpack.unpackb(packed)
        numbers = (now_ns, *position)
        is_whole = len(position) == len(Position._fields) and all(
            type(number) is int and abs(number) < 1 << 63 for number in numbers
        )
    except (ValueError, TypeError, msgpack.UnpackException):
        is_whole = False
    if not is_whole or digest != _digest(query) or not 0 <= position[0] <= matching.TIER_ALL:
        raise Invalid("the cursor is of another search; ask again without it")
    return now_ns, Position._make(position)
