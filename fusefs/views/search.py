"""The views of searches: `search/<query>`, any query by lookup, and `search/saved/<name>`, those that are kept.

A name is a query in the language of searches, with U+2215 where a value has a slash. Nothing is stored by asking; a
name that is no query is not there. In `saved`, and only there, a directory may be made, removed and renamed: that is a
saved search, whose query is its name until `user.vdfs.query` says another one.
"""

import errno
import os
import stat
from collections.abc import AsyncIterator

from fusefs.views.answers import AnsweredDir, Names
from fusefs.views.base import ViewDir, ViewLink, ViewNode, link_into_union
from fusefs.views.context import LISTING_MAX, ViewContext, unique_names
from index.model.change import ORIGIN_MOUNT
from index.model.errors import (
    CrossBranch,
    Invalid,
    NameTooLong,
    NoAttribute,
    NotFound,
    OsFailure,
    Unsupported,
)
from index.model.query import Query, parse
from index.store import saved
from vdfs.space.nodes import Node

SLASH = "\u2215"
QUERY_XATTR = b"user.vdfs.query"

_NOREPLACE = 1
_WRITABLE = stat.S_IFDIR | 0o755


class SearchDir(AnsweredDir):
    """A directory of links to what a query means, best first."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], query: Query) -> None:
        super().__init__(context.answers, path, context.uid, context.gid)
        self.context = context
        self.query = query
        self.key = (*path, str(query).encode("utf-8", "surrogateescape"))

    async def find(self) -> Names:
        found = await self.context.finder.find(self.query, LISTING_MAX)
        placed = [self.context.in_union(hit.branch_id, path.split(b"/")) for hit, path in found.hits]
        depth = len(self.path) + 1
        return {
            name: ViewLink(self.child(name), self.uid, self.gid, link_into_union(depth, path))
            for name, path in unique_names([path for path in placed if path])
        }


def query_of(name: bytes) -> Query:
    """The query that a name is. Invalid says what is wrong with it."""
    query = parse(os.fsdecode(name), slash=SLASH)
    if not query.terms:
        raise Invalid("the name is no query; give some text to search for")
    return query


class SearchRoot(ViewDir):
    """`search`: lists `saved` alone, for every answer there is would be a list without end."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        yield b"saved", SavedRoot(self.context, self.child(b"saved"))

    async def lookup(self, name: bytes) -> ViewNode | Node:
        if name == b"saved":
            return SavedRoot(self.context, self.child(name))
        try:
            return SearchDir(self.context, self.child(name), query_of(name))
        except Invalid as error:
            raise NotFound(str(error)) from None


class SavedRoot(ViewDir):
    """`search/saved`: the searches that are kept."""

    mode = _WRITABLE

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context
        self._store = context.tree.store

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        for row in saved.every(self._store.db):
            yield row.name, SavedDir(self.context, self.child(row.name), row.name, row.query)

    async def lookup(self, name: bytes) -> ViewNode | Node:
        row = saved.find(self._store.db, name)
        if row is None:
            raise NotFound("there is no such saved search")
        return SavedDir(self.context, self.child(name), row.name, row.query)

    async def make_dir(self, name: bytes) -> ViewNode:
        if len(name) > 255:
            raise NameTooLong("the name of a saved search has more than 255 bytes")
        self._store.refuse_if_full()
        try:
            query = str(query_of(name))
        except Invalid:
            query = str(parse(f'"{_escaped(name)}"'))  # a name like any other, until it is told its query
        with self._store.write(ORIGIN_MOUNT) as unit:
            row = saved.save(unit, name, _as_text(query))
        return SavedDir(self.context, self.child(name), name, row.query)

    async def remove_dir(self, name: bytes) -> None:
        with self._store.write(ORIGIN_MOUNT) as unit:
            saved.remove(unit, name)

    async def rename(self, name: bytes, target: ViewNode | Node, new_name: bytes, flags: int) -> None:
        if not isinstance(target, SavedRoot):
            raise CrossBranch("a saved search stays among the saved searches")
        if flags & ~_NOREPLACE:
            raise OsFailure(errno.EINVAL, "saved searches cannot be exchanged")
        if len(new_name) > 255:
            raise NameTooLong("the name of a saved search has more than 255 bytes")
        with self._store.write(ORIGIN_MOUNT) as unit:
            saved.rename(unit, name, new_name, replace=not flags & _NOREPLACE)


class SavedDir(SearchDir):
    """`search/saved/<name>`: what a saved search means now."""

    mode = _WRITABLE

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], name: bytes, query: str) -> None:
        super().__init__(context, path, parse(query))
        self._name = name

    def xattr(self, name: bytes) -> bytes | None:
        row = saved.find(self.context.tree.store.db, self._name) if name == QUERY_XATTR else None
        return None if row is None else row.query.encode()

    async def set_xattr(self, name: bytes, value: bytes) -> None:
        if name != QUERY_XATTR:
            if name.startswith(b"user.vdfs."):
                raise NoAttribute(f"there is no {os.fsdecode(name)} here")
            raise Unsupported(f"only {os.fsdecode(QUERY_XATTR)} has a meaning here")
        query = parse(_as_text(os.fsdecode(value)))
        if not query.terms:
            raise Invalid("give some text to search for")
        with self.context.tree.store.write(ORIGIN_MOUNT) as unit:
            saved.set_query(unit, self._name, str(query))
        self.query = query
        self.key = (*self.path, str(query).encode())


def _escaped(name: bytes) -> str:
    return os.fsdecode(name).replace("\\", "\\\\").replace('"', '\\"')


def _as_text(query: str) -> str:
    """A query as the library keeps it: what is not UTF-8 is U+FFFD, as in the names that are searched."""
    return query.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
