"""The root's own names and the files under `.vdfs`: links for people, guards for crawlers, status for programs.

`.vdfs` answers by name and is never listed, so recursion does not find it; `Tags`, `Search` and `Devices` are symbolic
links, which recursion does not follow. An entry of the user with such a name wins over the link.
"""

import json
import os
import stat
from collections.abc import AsyncIterator, Callable

from fusefs.views.base import ViewDir, ViewLink, ViewNode, ViewText
from fusefs.views.content import ContentRoot
from fusefs.views.context import ViewContext
from fusefs.views.devices import ConflictsDir, DevicesRoot
from fusefs.views.links import DuplicatesRoot, TagsRoot, recent
from fusefs.views.search import SearchRoot
from fusefs.views.volumes import OfflineDir, VolumesRoot
from index.model.errors import NoAttribute, NotFound, NotPermitted, Unsupported
from vdfs.space.nodes import Node

ROOT_LINKS = {b"Tags": b".vdfs/tags", b"Search": b".vdfs/search", b"Devices": b".vdfs/devices"}

_README = b"""This directory belongs to sdmount. What is here are views: answers, computed when you look.

tags/<tag>[/<tag>...]     what carries all of the tags (setfattr -n user.xdg.tags, sd tag add)
search/<query>            what a query means: words of the name, tag:x, kind:image, size:>10MB, ...
search/saved/<name>       searches that are kept: mkdir, rmdir, setfattr -n user.vdfs.query -v QUERY
devices/<device>/         what lies where, as it lies
volumes/<name>~<id>/      what lies on which volume, also while it is away
offline/                  what is away just now
content/<blake3>          the bytes of that name
recent/ duplicates/ conflicts/
status.json               what the library is doing now
jobs.json                 its long work: what runs, what waits, how it went
peers.json                its devices: who is there, and what is to come from them
control                   getfattr and setfattr user.vdfs.* on it: the state of the mount

But for saved searches nothing here is stored; nothing changes by looking; tools that recurse should not come in.
"""
_CACHEDIR_TAG = b"""Signature: 8a477f597d28d172789f06886806bc55
# Views of an sdmount library: nothing to back up or to index.
"""

_FIXED = {
    b"README.txt": _README,
    b"CACHEDIR.TAG": _CACHEDIR_TAG,
    b".nomedia": b"",
    b".trackerignore": b"",
    b".ignore": b"*\n",
}


class SnapshotFile(ViewNode):
    """`status.json`, `jobs.json`, `peers.json`: a snapshot, made when opened; its size is that of the last one."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], facts: Callable[[], dict[str, object]]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context
        self._facts = facts

    def size_bytes(self) -> int:
        return len(self._make())

    def _make(self) -> bytes:
        return json.dumps(self._facts(), indent=2, default=str).encode() + b"\n"

    async def content(self) -> bytes:
        return self._make()


class Control(SnapshotFile):
    """`control`: the mount as a file; reading prints the status, attributes are its facts."""

    mode = stat.S_IFREG | 0o600

    def xattr(self, name: bytes) -> bytes | None:
        if name == b"user.vdfs.api":
            return b"1"
        if not name.startswith(b"user.vdfs."):
            return None
        value = self.context.status().get(os.fsdecode(name[len(b"user.vdfs.") :]))
        if value is None or isinstance(value, dict | list):
            return None
        return json.dumps(value).strip('"').encode()

    async def set_xattr(self, name: bytes, value: bytes) -> None:
        if name.startswith(b"user.vdfs."):
            if self.xattr(name) is not None:
                raise NotPermitted(f"{os.fsdecode(name)} can be read only")
            raise NoAttribute(f"there is no {os.fsdecode(name)}")
        raise Unsupported("only user.vdfs.* have a meaning here")


class VdfsDir(ViewDir):
    """`.vdfs` itself."""

    def __init__(self, context: ViewContext) -> None:
        super().__init__((), context.uid, context.gid)
        self.context = context
        self._made: dict[bytes, Callable[[tuple[bytes, ...]], ViewNode]] = {
            b"control": lambda p: Control(context, p, context.status),
            b"status.json": lambda p: SnapshotFile(context, p, context.status),
            b"jobs.json": lambda p: SnapshotFile(context, p, context.jobs),
            b"peers.json": lambda p: SnapshotFile(context, p, context.peers),
            b"tags": lambda p: TagsRoot(context, p),
            b"search": lambda p: SearchRoot(context, p),
            b"devices": lambda p: DevicesRoot(context, p),
            b"volumes": lambda p: VolumesRoot(context, p),
            b"offline": lambda p: OfflineDir(context, p),
            b"content": lambda p: ContentRoot(context, p),
            b"recent": lambda p: recent(context, p),
            b"duplicates": lambda p: DuplicatesRoot(context, p),
            b"conflicts": lambda p: ConflictsDir(context, p),
        }

        if context.is_shared:  # views say names and bytes of files whatever the directories above these allow
            self.mode = stat.S_IFDIR | 0o500

    async def lookup(self, name: bytes) -> ViewNode | Node:
        if name in _FIXED:
            return ViewText(self.child(name), self.uid, self.gid, _FIXED[name])
        made = self._made.get(name)
        if made is None:
            raise NotFound(f"there is no view {os.fsdecode(name)}")
        return made(self.child(name))

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        for name in (*_FIXED, *self._made):
            yield name, await self.lookup(name)


class RootViews:
    """What the root of the mount has beside the union."""

    def __init__(self, context: ViewContext, show: frozenset[bytes] = frozenset(ROOT_LINKS)) -> None:
        self._dir = VdfsDir(context)
        self._context = context
        self._show = show

    async def lookup(self, name: bytes) -> ViewNode | None:
        """The view of a name in the root; None when the name is the union's."""
        if name == b".vdfs":
            return self._dir
        if name in self._show and name in ROOT_LINKS and not await self._taken(name):
            return self._link(name)
        return None

    async def listed(self, taken: set[bytes]) -> AsyncIterator[tuple[bytes, ViewNode]]:
        """The links that a listing of the root shows."""
        for name in ROOT_LINKS:
            if name in self._show and name not in taken:
                yield name, self._link(name)

    async def _taken(self, name: bytes) -> bool:
        try:
            await self._context.tree.lookup(self._context.tree.root, name)
        except NotFound:
            return False
        return True

    def _link(self, name: bytes) -> ViewLink:
        return ViewLink((b"", name), self._context.uid, self._context.gid, ROOT_LINKS[name])
