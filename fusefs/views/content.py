"""`content/<blake3>`: the bytes of a name, by lookup; never listed, since the list would be the whole library."""

import os
import stat
from collections.abc import AsyncIterator

from fusefs.views.base import ViewDir, ViewNode
from fusefs.views.context import ViewContext
from index.model.entry import Entry, ns
from index.model.errors import NotFound
from index.store import contents, names
from vdfs.space.branches import LIVE
from vdfs.space.nodes import Node

_HEX_DIGITS = 64


class ContentFile(ViewNode):
    """One content: read through whichever entry has it now."""

    mode = stat.S_IFREG | 0o444

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], full: bytes, row: Entry) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context
        self.full = full
        self.row = row

    def size_bytes(self) -> int:
        return self.row.size_bytes

    def times_ns(self) -> int:
        return self.row.mtime_ns

    async def real(self) -> Node | None:
        """A node of the union that holds these bytes now; best one that lies here and can be read."""
        found: Node | None = None
        for row in names.with_hash(self.context.tree.store.db, self.full):
            path = self.context.union_path(row)
            if path is None:
                continue
            try:
                node, st = await self.context.tree.resolve(path)
            except NotFound:
                continue
            if st.st_size == row.size_bytes and ns(st.st_mtime_ns) == row.mtime_ns:
                if any(spot.dir.branch.state == LIVE for spot in node.spots):
                    return node
                found = found or node
        if found is None:
            raise NotFound("no file has these bytes any more")
        return found


class ContentRoot(ViewDir):
    """`content`."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        nothing: list[tuple[bytes, ViewNode | Node]] = []  # every answer there is would be a list without end
        for line in nothing:
            yield line

    async def lookup(self, name: bytes) -> ViewNode | Node:
        try:
            full = bytes.fromhex(os.fsdecode(name)) if len(name) == _HEX_DIGITS else b""
        except ValueError:
            full = b""
        content = contents.by_full(self.context.tree.store.db, full) if full else None
        rows = names.with_hash(self.context.tree.store.db, full) if content else []
        rows = [row for row in rows if self.context.union_path(row) is not None]
        if not rows:
            raise NotFound("no file of the library has that hash")
        return ContentFile(self.context, self.child(name), full, rows[0])
