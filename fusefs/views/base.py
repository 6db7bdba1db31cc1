"""ViewNode: a node that is an answer. Directories list and look up, links point, files hold bytes made at open.

Numbers come from the node's path under `.vdfs`, so they are the same after a remount; views lie in a range of their own
(index/model/ids.py). Nothing here changes anything by being looked at, and the kernel keeps nothing of it: all
time-outs are zero.
"""

import stat
import time
from collections.abc import AsyncIterator

import pyfuse3
from blake3 import blake3

from index.model.errors import Invalid, NameTooLong, NotADirectory, NotFound, NotPermitted, VdfsError
from index.model.ids import VIEW_INODE_BASE
from vdfs.space.nodes import Node

_STARTED_NS = time.time_ns()
_TARGET_MAX_BYTES = 4095  # what the kernel takes


def view_inode(path: tuple[bytes, ...]) -> int:
    """The number of a view by its path below `.vdfs`: 51 bits of a hash, in the views' range."""
    digest = blake3(b"\0".join(path)).digest(8)
    return VIEW_INODE_BASE | (int.from_bytes(digest, "big") >> 13)


class ViewNode:
    """One node of a view. Subclasses answer; the defaults refuse."""

    mode = stat.S_IFREG | 0o444

    def __init__(self, path: tuple[bytes, ...], uid: int, gid: int) -> None:
        self.path = path
        self.ino = view_inode(path)
        self.lookups = 0  # the ledger's
        self.uid = uid
        self.gid = gid

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def size_bytes(self) -> int:
        return 0

    def times_ns(self) -> int:
        return _STARTED_NS

    def fill(self, face: pyfuse3.EntryAttributes) -> pyfuse3.EntryAttributes:
        face.st_ino = self.ino
        face.st_mode = self.mode
        face.st_nlink = 1
        face.st_uid = self.uid
        face.st_gid = self.gid
        face.st_size = self.size_bytes()
        face.st_blocks = (self.size_bytes() + 511) // 512
        face.st_atime_ns = face.st_mtime_ns = face.st_ctime_ns = self.times_ns()
        face.entry_timeout = face.attr_timeout = 0
        return face

    def child(self, name: bytes) -> tuple[bytes, ...]:
        return (*self.path, name)

    async def lookup(self, name: bytes) -> "ViewNode | Node":
        raise NotADirectory("this is no directory")

    def refusal(self) -> VdfsError:
        """What is answered to who wants to change something."""
        return NotPermitted("views cannot be changed")

    async def make_dir(self, name: bytes) -> "ViewNode":
        """A new directory in this one."""
        raise self.refusal()

    async def remove_dir(self, name: bytes) -> None:
        raise self.refusal()

    async def rename(self, name: bytes, target: "ViewNode | Node", new_name: bytes, flags: int) -> None:
        """Another name, in another directory perhaps; `flags` are those of renameat2."""
        raise self.refusal()

    def entries(self) -> AsyncIterator[tuple[bytes, "ViewNode | Node"]]:
        """Every (name, node) of a directory."""
        raise NotADirectory("this is no directory")

    async def read_link(self) -> bytes:
        """Where a symbolic link points."""
        raise Invalid("this is no symbolic link")

    async def real(self) -> Node | None:
        """The node of the union whose bytes are read through this one; None when `content` makes them."""
        return None

    async def content(self) -> bytes:
        """The bytes of a file, made now; one open reads one answer."""
        raise NotPermitted("this cannot be read")

    def xattr(self, name: bytes) -> bytes | None:
        return None

    async def set_xattr(self, name: bytes, value: bytes) -> None:
        raise self.refusal()


class ViewDir(ViewNode):
    """A directory of a view: size 0, so that no file manager takes it for a real one."""

    mode = stat.S_IFDIR | 0o555

    async def lookup(self, name: bytes) -> "ViewNode | Node":
        async for found, node in self.entries():
            if found == name:
                return node
        raise NotFound("there is no such name in this view")


class ViewLink(ViewNode):
    """A relative symbolic link from a view into the union."""

    mode = stat.S_IFLNK | 0o777

    def __init__(self, path: tuple[bytes, ...], uid: int, gid: int, to: bytes) -> None:
        super().__init__(path, uid, gid)
        self._to = to

    def size_bytes(self) -> int:
        return len(self._to)

    async def read_link(self) -> bytes:
        if len(self._to) > _TARGET_MAX_BYTES:
            raise NameTooLong("the path of this file is longer than a symbolic link can be")
        return self._to


class ViewText(ViewNode):
    """A small file with fixed bytes."""

    def __init__(self, path: tuple[bytes, ...], uid: int, gid: int, text: bytes) -> None:
        super().__init__(path, uid, gid)
        self._text = text

    def size_bytes(self) -> int:
        return len(self._text)

    async def real(self) -> Node | None:
        """The node of the union whose bytes are read through this one; None when `content` makes them."""
        return None

    async def content(self) -> bytes:
        return self._text


def link_into_union(depth: int, names: list[bytes]) -> bytes:
    """A relative target from a link `depth` directories below the root of the mount to a path of the union."""
    return b"../" * depth + b"/".join(names)
