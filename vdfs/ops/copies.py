"""search.duplicates and search.unique: files that are the same bytes, and what of a location exists nowhere else.

Page by page, each from a connection of its own in a thread.
"""

import base64
import os
from collections.abc import Callable
from itertools import groupby
from typing import Any, TypeVar

import apsw
import attrs
import msgpack
import trio

from index.model.errors import Invalid, NotFound
from index.store import copies
from index.store.copies import Name, Position, Unsaid
from vdfs.ops.context import Core
from vdfs.ops.paths import row_path
from vdfs.ops.registry import doc, query

T = TypeVar("T")
_LIMIT_MAX = 10_000
_CURSOR = doc("that of the page before, to go on behind it")
_NEXT = doc("gives the next page; null when there are no more")
_UNHASHED = doc("files that have no full hash (yet), so that nothing is said of them; on the first page, else null")
_HELD = doc("files that rules hold back, and that are not compared; on the first page, else null")


@attrs.frozen
class DuplicatesAsked:
    min_size: int = attrs.field(default=1, metadata=doc("bytes that a file has at least"))
    limit: int = attrs.field(default=100, metadata=doc("sets, at most"))
    cursor: str | None = attrs.field(default=None, metadata=_CURSOR)


@attrs.frozen
class Copy:
    path: bytes
    linked: bool = attrs.field(metadata=doc("it is another name, or a replica, of the file before it"))


@attrs.frozen
class DuplicateSet:
    hash: str
    size_bytes: int
    files: int = attrs.field(metadata=doc("how many there are; hard links count once"))
    wasted_bytes: int
    paths: list[Copy] = attrs.field(metadata=doc("a large set goes on on the next page, as another one of this hash"))


@attrs.frozen
class Duplicates:
    sets: list[DuplicateSet]
    cursor: str | None = attrs.field(metadata=_NEXT)
    unhashed: int | None = attrs.field(metadata=_UNHASHED)
    held: int | None = attrs.field(metadata=_HELD)


@query("search.duplicates")
async def duplicates(core: Core, asked: DuplicatesAsked) -> Duplicates:
    """Sets of files with the same full hash, those first that waste most."""
    limit = _limit(asked.limit)
    least = max(1, min(asked.min_size, (1 << 63) - 1))
    after = Position() if asked.cursor is None else Position(*_opened(asked.cursor, len(Position._fields)))

    def work(db: apsw.Connection) -> tuple[list[Name], Unsaid | None]:
        found = copies.duplicates(db, least, limit + 1, _LIMIT_MAX, after)
        return found, copies.unsaid(db, least) if asked.cursor is None else None

    found, unsaid = await _in_thread(core, work)
    sets: list[DuplicateSet] = []
    has_more, last, node = len(found) == _LIMIT_MAX, after, after.node
    for full, of_set in groupby(found, key=lambda name: name.full):
        if len(sets) == limit:
            has_more = True
            break
        names = list(of_set)
        paths = []
        for name in names:
            path = None if name.names is None else row_path(core, name.branch_id, name.names)
            if path is not None:
                paths.append(Copy(path, name.position.node == node))
                node = name.position.node
        last = names[-1].position
        sets.append(DuplicateSet(full.hex(), names[0].size_bytes, names[0].files, last.wasted_bytes, paths))
    return Duplicates(sets, _sealed(last) if has_more else None, *_unsaid(unsaid))


@attrs.frozen
class UniqueAsked:
    name: bytes = attrs.field(metadata=doc("a location"))
    limit: int = attrs.field(default=1000, metadata=doc("files, at most"))
    cursor: str | None = attrs.field(default=None, metadata=_CURSOR)


@attrs.frozen
class UniqueFile:
    path: bytes
    size_bytes: int


@attrs.frozen
class Unique:
    files: list[UniqueFile]
    cursor: str | None = attrs.field(metadata=_NEXT)
    unhashed: int | None = attrs.field(metadata=_UNHASHED)
    held: int | None = attrs.field(metadata=_HELD)


@query("search.unique")
async def unique(core: Core, asked: UniqueAsked) -> Unique:
    """The files of a location whose bytes no other location has, nor another directory of the same one, on
    whatever device."""
    limit = _limit(asked.limit)
    branches = [branch.id for branch in core.tree.locations.get(asked.name, [])]
    if not branches:
        raise NotFound(f"there is no location {os.fsdecode(asked.name)}")
    (after,) = (0,) if asked.cursor is None else _opened(asked.cursor, 1)

    def work(db: apsw.Connection) -> tuple[list[copies.Lone], Unsaid | None]:
        found = copies.unique(db, branches, limit, after)
        return found, copies.unsaid(db, 1, branches) if asked.cursor is None else None

    found, unsaid = await _in_thread(core, work)
    told = ((row_path(core, one.branch_id, one.names), one.size_bytes) for one in found if one.names is not None)
    files = [UniqueFile(path, size_bytes) for path, size_bytes in told if path is not None]
    cursor = _sealed((found[-1].entry_id,)) if len(found) == limit else None
    return Unique(files, cursor, *_unsaid(unsaid))


async def _in_thread(core: Core, work: Callable[[apsw.Connection], T]) -> T:
    def run() -> T:
        with core.library.store.reader() as db:
            db.execute("BEGIN")  # of one moment
            return work(db)

    return await trio.to_thread.run_sync(run)


def _unsaid(unsaid: Unsaid | None) -> tuple[int | None, int | None]:
    return (None, None) if unsaid is None else (unsaid.unhashed, unsaid.held)


def _limit(limit: int) -> int:
    if limit < 1:
        raise Invalid(f"a limit is a number from 1, not {limit}")
    return min(limit, _LIMIT_MAX)


def _sealed(position: tuple[int, ...]) -> str:
    return base64.urlsafe_b64encode(msgpack.packb(list(position))).decode().rstrip("=")


def _opened(cursor: str, count: int) -> tuple[int, ...]:
    try:
        numbers: Any = msgpack.unpackb(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if [type(number) for number in numbers] == [int] * count and all(0 <= number < 1 << 63 for number in numbers):
            return tuple(numbers)
    except (ValueError, TypeError, msgpack.UnpackException):
        pass
    raise Invalid("the cursor is of another question; ask again without it")
