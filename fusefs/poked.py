"""PokedOperations: the handlers of a mount whose watchers hear of what came from elsewhere.

What the poker asks (poker.py) is answered as its pokes need it, and does nothing: a name that came is not there until
it has created it, a name that is gone is there until it has removed it. Attributes that it sets are left as they are,
files that it opens are not opened. Beside that it is told what anybody is told. A name that it wants to change, and
that belongs to no poke, is refused, also when nobody waits for that poker any more. All other requests are those of
operations.py.

What stands for a name that is gone is the node that the kernel had there only where no row has its number any more: the
kernel lets nobody into a directory again whose removal it has seen.
"""

from collections.abc import Coroutine
from typing import Any, TypeVar

import pyfuse3

from fusefs.kernel import attrs
from fusefs.kernel.guard import guarded
from fusefs.kernel.handles import TextHandle
from fusefs.kernel.poking import CREATE, MOVE, REMOVE, Place
from fusefs.operations import Operations
from fusefs.pokeplan import Poke
from fusefs.pokes import Phantom, Pokes
from index.model.entry import KIND_OTHER
from index.model.errors import NotFound, NotPermitted, Stale
from index.store import entries
from vdfs.space.nodes import Node, last_told

T = TypeVar("T")
_Reply = Coroutine[Any, Any, T]
_Face = pyfuse3.EntryAttributes
_Context = pyfuse3.RequestContext


class PokedOperations(Operations):
    """The mount's handlers, and what the poker is answered."""

    pokes: Pokes

    def use(self, pokes: Pokes) -> None:
        """Before the first request."""
        self.pokes = pokes
        self.awaited = pokes.wishes.awaited

    # whose request it is ----------------------------------------------------------------------------------------------

    def lookup(self, parent_inode: int, name: bytes, ctx: _Context) -> _Reply[_Face]:
        if ctx.pid in self.pokes.pids or name == self.pokes.greeting:
            return self._show(parent_inode, name, ctx)
        return super().lookup(parent_inode, name, ctx)

    def setattr(
        self, inode: int, attr: _Face, fields: pyfuse3.SetattrFields, fh: int | None, ctx: _Context
    ) -> _Reply[_Face]:
        if self.pokes.is_poker(ctx.pid):
            return self._leave_as_it_is(inode)
        return super().setattr(inode, attr, fields, fh, ctx)

    def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: _Context) -> _Reply[_Face]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_create((parent_inode, name), ctx)
        return super().mknod(parent_inode, name, mode, rdev, ctx)

    def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: _Context) -> _Reply[_Face]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_create((parent_inode, name), ctx)
        return super().mkdir(parent_inode, name, mode, ctx)

    def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: _Context) -> _Reply[_Face]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_create((parent_inode, name), ctx)
        return super().symlink(parent_inode, name, target, ctx)

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: _Context
    ) -> _Reply[tuple[pyfuse3.FileInfo, _Face]]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_create_and_open((parent_inode, name), ctx)
        return super().create(parent_inode, name, mode, flags, ctx)

    def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: _Context) -> _Reply[_Face]:
        if self.pokes.is_poker(ctx.pid):
            raise pyfuse3.FUSEError(NotPermitted.errno)
        return super().link(inode, new_parent_inode, new_name, ctx)

    def unlink(self, parent_inode: int, name: bytes, ctx: _Context) -> _Reply[None]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_remove((parent_inode, name), ctx)
        return super().unlink(parent_inode, name, ctx)

    def rmdir(self, parent_inode: int, name: bytes, ctx: _Context) -> _Reply[None]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_remove((parent_inode, name), ctx)
        return super().rmdir(parent_inode, name, ctx)

    def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: _Context
    ) -> _Reply[None]:
        if self.pokes.is_poker(ctx.pid):
            return self._let_move((parent_inode_old, name_old), (parent_inode_new, name_new), ctx)
        return super().rename(parent_inode_old, name_old, parent_inode_new, name_new, flags, ctx)

    def open(self, inode: int, flags: int, ctx: _Context) -> _Reply[pyfuse3.FileInfo]:
        if self.pokes.is_poker(ctx.pid):
            return self._open_nothing(inode)
        return super().open(inode, flags, ctx)

    def opendir(self, inode: int, ctx: _Context) -> _Reply[int]:
        node = self.ledger.find(inode)
        if isinstance(node, Node):
            self.pokes.opened(node)
        return super().opendir(inode, ctx)

    # what the poker is answered ---------------------------------------------------------------------------------------

    async def _show(self, parent_inode: int, name: bytes, ctx: _Context) -> _Face:
        """A lookup: what a poke needs to be there, or not."""
        if name == self.pokes.greeting:
            if not self.pokes.greets(ctx.pid):
                raise pyfuse3.FUSEError(NotFound.errno)
            self.ledger.remember(self.pokes.greeted)
            return self.pokes.greeted.fill(_Face())
        poke = self.pokes.asked(ctx.pid, (parent_inode, name))
        if poke is not None and (poke.do == CREATE or poke.place != (parent_inode, name)):
            return attrs.absent(0)
        if poke is None or self.tree.is_known(poke.directory, name):  # what was gone may be there again
            return await super().lookup(parent_inode, name, ctx)
        return await (self._show_gone(poke) if poke.do == REMOVE else self._show_moved(poke))

    @guarded
    async def _show_moved(self, poke: Poke) -> _Face:
        """What has another name by now, by the one it had."""
        self.pokes.shown.add(poke.place)
        return self._tell(poke)

    @guarded
    async def _show_gone(self, poke: Poke) -> _Face:
        """What was there, as the kernel has it yet, or something like it."""
        self.pokes.shown.add(poke.place)
        node = self.ledger.find(poke.number)
        face = _Face()
        if isinstance(node, Node) and node.kind == poke.kind != KIND_OTHER and not self._has_row(node):
            attrs.fill(face, node, last_told(node))
            face.entry_timeout = face.attr_timeout = 0
        else:
            node = Phantom(poke.name, poke.kind)
            node.fill(face)
        self.ledger.remember(node)
        return face

    def _has_row(self, node: Node) -> bool:
        return bool(entries.some_of_node(self.tree.store.db, node.ino, 1))

    def _tell(self, poke: Poke) -> _Face:
        """What is there by now, as it was when the poke was made. The kernel holds a lock: nobody is asked for it."""
        assert poke.now is not None
        node, st = poke.now
        face = self._told(poke.directory if poke.to is None else poke.to[0], node, st)
        face.entry_timeout = face.attr_timeout = 0
        node.face = None
        return face

    def _poke(self, ctx: _Context, place: Place, do: str) -> Poke:
        """The poke that a request is part of. What is gone must have been shown first: the kernel may know something
        else by that name, and would take that for removed. What came may be gone again."""
        poke = self.pokes.asked(ctx.pid, place)
        if poke is None or poke.do != do or not (do == CREATE or place in self.pokes.shown):
            raise NotPermitted("this is for the poker to do only where it was asked for")
        directory, name = poke.to or (poke.directory, poke.name)
        if do != REMOVE and not self.tree.is_known(directory, name):
            raise NotFound("it is gone again")
        return poke

    @guarded
    async def _let_create(self, place: Place, ctx: _Context) -> _Face:
        """A name that is there already comes into being for the kernel."""
        poke = self._poke(ctx, place, CREATE)
        self.pokes.answered(poke)
        return self._tell(poke)

    @guarded
    async def _let_create_and_open(self, place: Place, ctx: _Context) -> tuple[pyfuse3.FileInfo, _Face]:
        poke = self._poke(ctx, place, CREATE)
        self.pokes.answered(poke)
        handle = self.handles.add(TextHandle(poke.now, b""))
        return pyfuse3.FileInfo(fh=handle, keep_cache=True), self._tell(poke)

    @guarded
    async def _let_remove(self, place: Place, ctx: _Context) -> None:
        """A name that is not there any more goes for the kernel."""
        self.pokes.answered(self._poke(ctx, place, REMOVE))

    @guarded
    async def _let_move(self, place: Place, to: Place, ctx: _Context) -> None:
        poke = self._poke(ctx, place, MOVE)
        if poke.places != [place, to]:
            raise NotPermitted("this is for the poker to do only where it was asked for")
        self.pokes.answered(poke)

    @guarded
    async def _leave_as_it_is(self, inode: int) -> _Face:
        """Attributes that the poker sets: they are what they are."""
        node = self.ledger.get(inode)
        if not isinstance(node, Node):
            raise Stale(f"inode {inode} is not of the union")
        return self._face(node.parent or node, node, await self.tree.stat(node))

    @guarded
    async def _open_nothing(self, inode: int) -> pyfuse3.FileInfo:
        """A file that the poker opens to be written: it writes nothing, and the kernel keeps its pages."""
        return pyfuse3.FileInfo(fh=self.handles.add(TextHandle(self.ledger.get(inode), b"")), keep_cache=True)
