"""pyfuse3.Operations: every handler a few lines that turn a request into a question to the floors below.

No decisions about names, bytes or attributes are made here: they lie in vdfs/space. What this file owns is the talk
with the kernel: lookup counts, handles, and how long each answer may be believed. Every handler is guarded.
Source: pyfuse3's documentation of its request handlers; Documentation/filesystems/fuse.rst of Linux.
"""

import contextlib
import errno
import os
import time
from collections.abc import Collection, Sequence
from typing import Any

import pyfuse3

from fusefs.invalidate import Notifier
from fusefs.kernel import attrs
from fusefs.kernel.dots import DOTS, dot_face, dots
from fusefs.kernel.guard import guarded
from fusefs.kernel.handles import DirHandle, Handles, TextHandle
from fusefs.kernel.inodes import Ledger
from fusefs.kernel.listings import Listing, Listings
from fusefs.views.base import ViewNode
from fusefs.views.special import RootViews
from fusefs.xattrs import ACL, Xattrs
from index.model.errors import Exists, NotADirectory, NotFound, NotPermitted, ReadOnly, Stale
from vdfs.space.attributes import Attributes, Wanted
from vdfs.space.content import Handle, Opener, statfs
from vdfs.space.namespace import Caller, Namespace
from vdfs.space.nodes import AnyStat, Node, stamp_of
from vdfs.space.rename import Renames
from vdfs.space.tree import Tree
from vdfs.space.watch import Watch

_STATFS_KEEP_S = 1.0
#: So long a listing that was made at opendir serves its first reader, also where no watch says that it still holds.
_JUST_NOW_S = 0.05


class Operations(pyfuse3.Operations):
    """The mount's handlers."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True

    def __init__(
        self,
        tree: Tree,
        namespace: Namespace,
        renames: Renames,
        attributes: Attributes,
        opener: Opener,
        watch: Watch,
        xattrs: Xattrs,
        views: RootViews,
        notifier: Notifier,
        ledger: Ledger,
    ) -> None:
        super().__init__()
        self.tree = tree
        self.namespace = namespace
        self.renames = renames
        self.attributes = attributes
        self.opener = opener
        self.watch = watch
        self.xattrs = xattrs
        self.views = views
        self.notifier = notifier
        self.ledger = ledger
        self.handles = Handles()
        self.listings = Listings()
        #: Names of which who watches their directory is yet to hear: what is said of them is believed for no time.
        self.awaited: Collection[tuple[int, bytes]] = ()
        self.asked = tree.pace.asked  # what goes on behind gives way for a moment
        self._statfs: tuple[float, tuple[int, int, int, int, int, int]] = (0.0, (4096, 0, 0, 0, 0, 0))

    # answers ----------------------------------------------------------------------------------------------------------

    def _face(self, parent: Any, node: Any, st: AnyStat | None) -> pyfuse3.EntryAttributes:
        """The kernel's answer for a node below a parent."""
        if isinstance(node, ViewNode):
            return node.fill(pyfuse3.EntryAttributes())
        assert st is not None
        if isinstance(parent, Node):
            return self._face_of(node, st, self.watch.covers(parent))
        face = self._face_of(node, st, False)
        face.entry_timeout = 0
        return face

    def _face_of(self, node: Node, st: AnyStat, covered: bool) -> pyfuse3.EntryAttributes:
        """The answer for a node of the union; `covered`: every change in its directory reaches us."""
        face = attrs.fill(pyfuse3.EntryAttributes(), node, st)
        face.entry_timeout = attrs.LONG_S if covered else attrs.SHORT_S
        if node.spots and node.spots[0].name != node.name:
            face.entry_timeout = 0  # a conflict's name ends with the conflict, which nothing announces under that name
        if self.awaited and node.parent is not None and (node.parent.ino, node.name) in self.awaited:
            face.entry_timeout = 0
        face.attr_timeout = self._attr_timeout(node, st, covered)
        if node.face is not None:
            node.face = face  # what the kernel was told last is what a listing may repeat
        return face

    def _attr_timeout(self, node: Node, st: AnyStat, covered: bool) -> float:
        if node.is_dir:
            return attrs.LONG_S if self.watch.covers(node) else attrs.SHORT_S
        if st.st_nlink > 1 or not covered:
            return attrs.SHORT_S
        return attrs.LONG_S

    def _told(self, parent: Any, node: Any, st: AnyStat | None) -> pyfuse3.EntryAttributes:
        face = self._face(parent, node, st)
        self.ledger.remember(node)
        return face

    def _union_dir(self, ino: int) -> Node:
        """The directory of the union that a change is asked in; views refuse."""
        node = self.ledger.get(ino)
        if isinstance(node, ViewNode):
            raise node.refusal()
        assert isinstance(node, Node)
        if not node.is_dir:
            raise NotADirectory("this is no directory")
        return node

    def _refuse_reserved(self, parent: Node, name: bytes) -> None:
        if parent is self.tree.root and name == b".vdfs":
            raise NotPermitted(".vdfs belongs to the mount")

    # names ------------------------------------------------------------------------------------------------------------

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        parent = self.ledger.get(parent_inode)
        if isinstance(parent, ViewNode):
            node = await parent.lookup(name)
            st = await self.tree.stat(node) if isinstance(node, Node) else None
            return self._told(parent, node, st)
        if parent is self.tree.root:
            view = await self.views.lookup(name)
            if view is not None:
                return self._told(parent, view, None)
        is_awaited = bool(self.awaited) and (parent_inode, name) in self.awaited
        held = None if is_awaited else parent.listing
        if held is not None and self.watch.is_quiet(parent):
            known = held.find(name)
            if known is not None and known.face is not None:
                self.ledger.remember(known)
                face: pyfuse3.EntryAttributes = known.face
                return face
            if known is None and self._tells_all_names(parent, name):
                return attrs.absent(attrs.LONG_S)
        try:
            node, st = await self.tree.lookup(parent, name)
        except NotFound:
            if len(name) > 255:
                raise OSError(errno.ENAMETOOLONG, "name too long") from None
            if b" (from " in name or is_awaited:
                return attrs.absent(0)  # the name of a conflict that may begin at any time
            return attrs.absent(attrs.LONG_S if self.watch.covers(parent) else attrs.SHORT_S)
        return self._told(parent, node, st)

    @staticmethod
    def _tells_all_names(parent: Node, name: bytes) -> bool:
        """Whether a name that a listing lacks is not there."""
        return len(name) <= 255 and b" (from " not in name and not any(ref.branch.folds_case for ref in parent.parts)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for ino, count in inode_list:
            node = self.ledger.forget(ino, count)
            if isinstance(node, Node):
                node.drop_ghost()
                self.listings.forgotten(node)

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node = self.ledger.get(inode)
        if isinstance(node, ViewNode):
            return node.fill(pyfuse3.EntryAttributes())
        st = await self.tree.stat(node)
        return self._face(node.parent or node, node, st)

    @guarded
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        node = self.ledger.get(inode)
        if isinstance(node, ViewNode):
            raise node.refusal()
        handle = self.handles.file(fh) if fh is not None else None
        size = attr.st_size if fields.update_size else None
        if size is not None and isinstance(handle, Handle):
            await handle.truncate(size)
            size = None
        now = fields.update_atime and fields.update_mtime and attr.st_atime_ns == attr.st_mtime_ns
        wanted = Wanted(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size_bytes=size,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            times_now=bool(now and abs(attr.st_mtime_ns - time.time_ns()) < 1_000_000_000),
        )
        st = await self.attributes.set(node, wanted)
        self._tell_doubts(node)
        return self._face(node.parent or node, node, st)

    def _tell_doubts(self, node: Node) -> None:
        """A request came upon a file that had been changed behind the mount: the kernel's pages of it are old."""
        if node.is_doubted:
            node.is_doubted = False
            node.face = None
            self.notifier.inode(node.ino, attr_only=False)

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        node = self.ledger.get(inode)
        if isinstance(node, ViewNode):
            return await node.read_link()
        return await self.tree.readlink(node)

    @guarded
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._union_dir(parent_inode)
        self._refuse_reserved(parent, name)
        node, st = await self.namespace.mknod(parent, name, mode, _caller(ctx))
        return self._told(parent, node, st)

    @guarded
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        view = self.ledger.get(parent_inode)
        if isinstance(view, ViewNode):
            return self._told(view, await view.make_dir(name), None)
        parent = self._union_dir(parent_inode)
        self._refuse_reserved(parent, name)
        node, st = await self.namespace.mkdir(parent, name, mode, _caller(ctx))
        return self._told(parent, node, st)

    @guarded
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        parent = self._union_dir(parent_inode)
        self._refuse_reserved(parent, name)
        node, st = await self.namespace.symlink(parent, name, target, _caller(ctx))
        return self._told(parent, node, st)

    @guarded
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = self.ledger.get(inode)
        parent = self._union_dir(new_parent_inode)
        if isinstance(node, ViewNode):
            raise node.refusal()
        self._refuse_reserved(parent, new_name)
        node, st = await self.namespace.link(node, parent, new_name)
        return self._told(parent, node, st)

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        parent = self._union_dir(parent_inode)
        if parent is self.tree.root and await self.views.lookup(name) is not None:
            raise NotPermitted(f"{os.fsdecode(name)} belongs to the mount")
        await self.namespace.unlink(parent, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        view = self.ledger.get(parent_inode)
        if isinstance(view, ViewNode):
            await view.remove_dir(name)
            return
        parent = self._union_dir(parent_inode)
        self._refuse_reserved(parent, name)
        await self.namespace.rmdir(parent, name)

    @guarded
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        view = self.ledger.get(parent_inode_old)
        if isinstance(view, ViewNode):
            await view.rename(name_old, self.ledger.get(parent_inode_new), name_new, flags)
            return
        src, dst = self._union_dir(parent_inode_old), self._union_dir(parent_inode_new)
        self._refuse_reserved(src, name_old)
        self._refuse_reserved(dst, name_new)
        if src is self.tree.root and await self.views.lookup(name_old) is not None:
            raise NotPermitted(f"{os.fsdecode(name_old)} belongs to the mount")
        places = ((src, name_old), (dst, name_new))
        known = [self.tree.known_inos(parent, name) for parent, name in places]
        doubted = any(self.notifier.is_telling(parent.ino, name) for parent, name in places)
        moved = await self.renames.rename(src, name_old, dst, name_new, flags, ctx.pid)
        if doubted or any(node is not None and node.ino not in inos for node, inos in zip(moved, known, strict=True)):
            # Replaced behind the mount a moment ago: the kernel moves the name of a file that is not there any more.
            for parent, name in places:
                self.notifier.entry(parent.ino, name)

    # files ------------------------------------------------------------------------------------------------------------

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        node = self.ledger.get(inode)
        if isinstance(node, ViewNode):
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise ReadOnly("views cannot be written")
            real = await node.real()
            if real is not None:
                opened, _ = await self.opener.open(real, os.O_RDONLY)
                return pyfuse3.FileInfo(fh=self.handles.add(opened), keep_cache=False)
            handle = TextHandle(node, await node.content())
            return pyfuse3.FileInfo(fh=self.handles.add(handle), direct_io=True, keep_cache=False)
        told = node.stamp
        opened, st = await self.opener.open(node, flags, by_uid=ctx.uid)
        keep = told == stamp_of(st)
        if not keep:
            if flags & os.O_TRUNC:
                node.told(st)  # the kernel cuts its own copy
            else:
                node.seen(st)
            node.face = None
            self.notifier.inode(inode, attr_only=True)
        return pyfuse3.FileInfo(fh=self.handles.add(opened), keep_cache=keep)

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        parent = self._union_dir(parent_inode)
        self._refuse_reserved(parent, name)
        keep = flags & ~(os.O_CREAT | os.O_EXCL | os.O_DIRECT | os.O_DIRECTORY | os.O_TRUNC)
        try:
            node, st, fd = await self.namespace.create(parent, name, keep, mode, _caller(ctx))
        except (FileExistsError, Exists):
            if flags & os.O_EXCL:
                raise
            # Made behind the mount since the kernel last looked, so nobody has asked yet who may open it: the kernel
            # looks the name up again, and decides that before it opens what is there.
            raise Stale(f"{os.fsdecode(name)} is there by now") from None
        handle = self.opener.adopt(node, fd, flags)
        face = self._told(parent, node, st)
        return pyfuse3.FileInfo(fh=self.handles.add(handle), keep_cache=True), face

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self.handles.file(fh)
        if isinstance(handle, TextHandle):
            return handle.content[off : off + size]
        return await handle.read(off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        handle = self.handles.file(fh)
        if isinstance(handle, TextHandle):
            raise ReadOnly("views cannot be written")
        done = await handle.write(off, buf)
        self._tell_doubts(handle.node)
        return done

    @guarded
    async def flush(self, fh: int) -> None:
        handle = self.handles.file(fh)
        if isinstance(handle, Handle):
            await self.opener.flush(handle)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        handle = self.handles.file(fh)
        if isinstance(handle, Handle):
            await handle.sync(datasync)
            await self.opener.flush(handle)
            await self.tree.store.make_durable()

    @guarded
    async def release(self, fh: int) -> None:
        handle = self.handles.pop(fh)
        if isinstance(handle, Handle):
            try:
                await self.opener.flush(handle)
            finally:
                handle.close()

    # directories ------------------------------------------------------------------------------------------------------

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        node = self.ledger.get(inode)
        if not node.is_dir:
            raise NotADirectory("this is no directory")
        handle = DirHandle(node)
        await self._fill_listing(handle)
        return self.handles.add(handle)

    async def _fill_listing(self, handle: DirHandle) -> None:
        """Take a fresh listing into a handle: the last one while nothing has changed since."""
        node = handle.node
        if isinstance(node, ViewNode):
            handle.take([(name, child) async for name, child in node.entries()])
            return
        held = node.listing
        if held is not None and self.watch.is_quiet(node):
            self.listings.used(node)
            handle.take(held.lines)
            handle.generation, handle.was_quiet = node.generation, True
            return
        for ref in node.parts:
            self.tree.before_look(ref)  # a watch that stands now lets the kernel keep what it is told next
        generation, quiet = node.generation, self.watch.is_quiet(node)
        lines: list[tuple[bytes, Any]] = []
        covered = self.watch.covers(node)
        for name, child, st in await self.tree.listing(node):
            face = self._face_of(child, st, covered)
            child.face = face if _may_be_repeated(child, st) else None
            lines.append((name, child))
        if node is self.tree.root:
            lines += [(name, view) async for name, view in self.views.listed({line[0] for line in lines})]
        elif quiet and node.generation == generation:
            self.listings.keep(node, Listing(lines))
        handle.generation, handle.was_quiet = node.generation, quiet
        handle.take(lines)

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        handle = self.handles.directory(fh)
        node = handle.node
        in_union = isinstance(node, Node)
        if start_id == 0 and (self._is_old(handle) if in_union else handle.read):
            await self._fill_listing(handle)
        handle.read = True
        names = handle.names
        reply, remember = pyfuse3.readdir_reply, self.ledger.remember
        if not 0 <= start_id <= len(names) + DOTS:
            return
        for position, (name, ino) in enumerate(dots(node)[start_id:], start_id + 1):
            if not reply(token, name, dot_face(ino), position):
                return
        for index in range(max(0, start_id - DOTS), len(names)):
            line = names[index]
            if line is None:
                continue
            name, child = line
            if in_union:
                is_old = handle.generation != node.generation
                face = child.face if isinstance(child, Node) and not is_old else None
                if face is None:
                    now = await self._now(node, name, child, is_old=is_old)
                    if now is None:
                        continue
                    child, face = now
            else:
                face = self._face(node, child, await self.tree.stat(child) if isinstance(child, Node) else None)
            if not reply(token, name, face, index + 1 + DOTS):
                break
            remember(child)

    def _is_old(self, handle: DirHandle) -> bool:
        """Whether a listing that is begun (anew) may lack what has changed since its directory was opened."""
        if handle.generation != handle.node.generation:
            return True
        if self.watch.is_quiet(handle.node):
            return False
        return handle.was_quiet or time.monotonic() - handle.taken_s > _JUST_NOW_S

    async def _now(
        self, node: Node, name: bytes, child: Any, *, is_old: bool
    ) -> tuple[Any, pyfuse3.EntryAttributes] | None:
        """What a line of a snapshot (`is_old`: from before names changed) means now; None when the name is gone."""
        if isinstance(child, ViewNode):
            return child, child.fill(pyfuse3.EntryAttributes())
        st: AnyStat | None = None
        if not is_old:
            with contextlib.suppress(Stale, FileNotFoundError):
                st = await self.tree.stat(child)
        if st is None:  # the name says what is there
            try:
                child, st = await self.tree.lookup(node, name)
            except NotFound:
                return None
        face = self._face_of(child, st, self.watch.covers(node))
        child.face = face if _may_be_repeated(child, st) else None
        return child, face

    @guarded
    async def releasedir(self, fh: int) -> None:
        handle = self.handles.pop(fh)
        if isinstance(handle, DirHandle) and isinstance(handle.node, Node) and handle.node.listing is None:
            for line in handle.names:  # nobody will tell these answers again
                if line is not None and isinstance(line[1], Node):
                    line[1].face = None

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        handle = self.handles.directory(fh)
        if isinstance(handle.node, Node):
            await self.namespace.sync_dir(handle.node)

    # the file system --------------------------------------------------------------------------------------------------

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        now_s = time.monotonic()
        if now_s - self._statfs[0] > _STATFS_KEEP_S:
            self._statfs = (now_s, statfs(self.tree))
        unit, blocks, free, available, files, files_free = self._statfs[1]
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = unit
        answer.f_blocks, answer.f_bfree, answer.f_bavail = blocks, free, available
        answer.f_files, answer.f_ffree, answer.f_favail = files, files_free, files_free
        answer.f_namemax = 255
        return answer

    @guarded
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        return True  # default_permissions: the kernel decides from mode and owner

    # extended attributes ----------------------------------------------------------------------------------------------

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if name.startswith((b"security.", b"system.", b"trusted.")) and not (name == ACL and self.xattrs.is_shared):
            raise pyfuse3.FUSEError(errno.ENODATA)
        return await self.xattrs.get(self.ledger.get(inode), name)

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return await self.xattrs.names(self.ledger.get(inode))

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        node = self.ledger.get(inode)
        await self.xattrs.set(node, name, value)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.xattrs.remove(self.ledger.get(inode), name)


def _may_be_repeated(node: Node, st: AnyStat) -> bool:
    """Whether an answer stays true until a change is heard of: a hard-linked file may have a name nobody watches."""
    return node.is_dir or st.st_nlink == 1


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.umask, ctx.pid)
