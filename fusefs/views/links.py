"""Views whose leaves are links into the union: tags, recent, duplicates; those of searches are in search.py.

A leaf's target is relative, so that a bind mount, a container or a moved mount point keeps working.
"""

import os
from collections.abc import AsyncIterator, Callable

import apsw

from fusefs.views.answers import AnsweredDir, Names
from fusefs.views.base import ViewDir, ViewLink, ViewNode, link_into_union
from fusefs.views.context import LISTING_MAX, ViewContext, shown_tag, tag_of, unique_names
from index.model.entry import Entry
from index.model.errors import NotFound
from index.store import entries, names, tags
from vdfs.space.nodes import Node


class LinksDir(AnsweredDir):
    """A directory of links to rows, in the order the query gives them."""

    def __init__(
        self, context: ViewContext, path: tuple[bytes, ...], query: Callable[[apsw.Connection], list[Entry]]
    ) -> None:
        super().__init__(context.answers, path, context.uid, context.gid)
        self.context = context
        self._query = query

    async def find(self) -> Names:
        rows = await self.context.rows(self._query)
        placed = [path for path in map(self.context.union_path, rows) if path]
        depth = len(self.path) + 1
        return {
            name: ViewLink(self.child(name), self.uid, self.gid, link_into_union(depth, path))
            for name, path in unique_names(placed)
        }


class TagDir(LinksDir):
    """`tags/a/b`: what carries all of the tags; a further name narrows."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], wanted: list[str]) -> None:
        super().__init__(context, path, self._find)
        self.wanted = wanted

    def _find(self, db: apsw.Connection) -> list[Entry]:
        found: list[Entry] = []
        for uuid in tags.entries_with_all(db, self.wanted, LISTING_MAX):
            seen: set[int] = set()
            for row in entries.by_uuid(db, uuid):
                if row.node not in seen and not row.is_hidden:
                    seen.add(row.node)
                    found.append(row)
        return sorted(found, key=lambda r: (r.name, r.id))

    async def lookup(self, name: bytes) -> ViewNode | Node:
        try:
            return await super().lookup(name)
        except NotFound:
            tag = tag_of(self.context.tree.store.db, name)
            if tag is None:
                raise
            return TagDir(self.context, self.child(name), [*self.wanted, tag])


class TagsRoot(ViewDir):
    """`tags`: every tag in use."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        shown = dict.fromkeys(shown_tag(tag) for tag, _ in tags.names(self.context.tree.store.db))
        for name in shown:
            tag = tag_of(self.context.tree.store.db, name)
            if tag is not None and len(name) <= 255 and name not in (b".", b".."):
                yield name, TagDir(self.context, self.child(name), [tag])

    async def lookup(self, name: bytes) -> ViewNode | Node:
        tag = tag_of(self.context.tree.store.db, name)
        if tag is None:
            raise NotFound(f"no tag {os.fsdecode(name)}")
        return TagDir(self.context, self.child(name), [tag])


class DuplicatesRoot(ViewDir):
    """`duplicates/<hash>`: files of the same full hash, one directory for each set."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        for full in names.duplicate_hashes(self.context.tree.store.db, LISTING_MAX):
            name = full.hex().encode()
            yield name, self._set(name, full)

    async def lookup(self, name: bytes) -> ViewNode | Node:
        try:
            full = bytes.fromhex(os.fsdecode(name))
        except ValueError:
            raise NotFound("a set of duplicates is named by its hash") from None
        if len(names.with_hash(self.context.tree.store.db, full)) < 2:
            raise NotFound("there are no duplicates of that hash")
        return self._set(name, full)

    def _set(self, name: bytes, full: bytes) -> LinksDir:
        return LinksDir(self.context, self.child(name), lambda db: names.with_hash(db, full))


def recent(context: ViewContext, path: tuple[bytes, ...]) -> LinksDir:
    """`recent`: the newest files."""
    return LinksDir(context, path, lambda db: entries.recent(db, 100))
