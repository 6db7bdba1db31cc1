"""Node: one name of the union as the mount knows it while somebody holds it.

A node has the inode number that the database gave its union name. Files and links lie at one or more `Spot`s (a name
in a directory of a branch); the first is the one that is shown, read and written. Directories have `parts`, one
DirRef for each branch that holds them.
"""

import mmap
import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from index.model.entry import KIND_DIR, KIND_SYMLINK, Entry
from vdfs.space.dirs import DirRef


class Spot(NamedTuple):
    """Where one replica lies: its directory, its name there, its row."""

    dir: DirRef
    name: bytes
    entry_id: int


_WORD = (1 << 64) - 1
#: How many sizes are remembered that the kernel may still have.
_SIZES_MAX = 63
_BYTES = (1 << 128) - 1  # of a stamp, what speaks of the bytes: mtime and size


def stamp_of(st: "AnyStat") -> int:
    """ctime, mtime and size of a file in one number, greatest first: equal while nothing happened to its bytes.

    A library of a million files holds a million of these; a tuple of three numbers takes three times the room.
    """
    return st.st_ctime_ns << 128 | (st.st_mtime_ns & _WORD) << 64 | st.st_size


class Node:
    """One node. `face` and `listing` belong to whoever shows the node: prepared answers, dropped on any change."""

    __slots__ = (
        "__weakref__",
        "_older_sizes",
        "_told_size",
        "entry_id",
        "face",
        "generation",
        "ghost_fd",
        "handles",
        "ino",
        "is_doubted",
        "kind",
        "links",
        "listing",
        "lookups",
        "name",
        "parent",
        "parts",
        "reach",
        "removed",
        "spots",
        "st_ino",
        "stale_spots",
        "stamp",
    )

    def __init__(self, ino: int, kind: int) -> None:
        self.ino = ino
        self.kind = kind
        self.parent: Node | None = None
        self.name = b""
        self.spots: tuple[Spot, ...] = ()
        self.stale_spots: tuple[Spot, ...] = ()  # replicas under the same name that are dominated and not shown
        self.st_ino = 0  # the inode of the shown replica; another one under its name is not this node
        self.parts: tuple[DirRef, ...] = ()
        self.links: set[Spot] | None = None  # other names of a hard-linked file, as far as they were seen
        self.handles: tuple[Any, ...] = ()  # open handles, newest last
        self.stamp: int | None = None  # what the kernel's pages belong to, see stamp_of()
        self.is_doubted = False  # the kernel's pages may be old, and nobody will find out: it must be told
        self._told_size: int | None = None  # what the kernel believes the size to be, where it is not the stamp's
        self._older_sizes: tuple[int, ...] = ()  # and what it may believe still: it drops answers that cross a write
        self.reach = 0  # no page of the kernel has bytes from beyond this offset
        self.lookups = 0  # how often the kernel was told of it and has not forgotten yet
        self.generation = 0  # directories: counts the changes of names seen here
        self.face: Any = None
        self.listing: Any = None
        self.ghost_fd = -1  # files: the inode itself (O_PATH), once its last name was taken while the kernel held it
        self.removed: RowStat | None = None  # directories: what a removed one was like, for who still stands in it

    def __del__(self) -> None:
        self.drop_ghost()

    def drop_ghost(self) -> None:
        """Let go of an inode without a name: its space is free from now on, whoever still refers to this node."""
        if self.ghost_fd >= 0:
            os.close(self.ghost_fd)
            self.ghost_fd = -1

    @property
    def is_dir(self) -> bool:
        return self.kind == KIND_DIR

    def names_changed(self) -> None:
        """A name in this directory came, went or means something else now."""
        self.generation += 1
        self.face = None
        self.listing = None

    def lies_in(self, parts: tuple[DirRef, ...]) -> None:
        """A directory: these of the branches' directories are it."""
        self.removed = None
        if self.parts != parts:
            self.parts = parts
            self.names_changed()

    def vanished(self, last: "RowStat") -> None:
        """A directory: it is nowhere any more. Who still stands in it sees it empty, and as it was last."""
        self.removed = last
        self.parts = ()
        self.names_changed()

    def name_moved(self, new: Spot) -> None:
        """One of the file's names hangs elsewhere."""
        self.face = None
        self.spots = tuple(new if s.entry_id == new.entry_id else s for s in self.spots)
        self.stale_spots = tuple(new if s.entry_id == new.entry_id else s for s in self.stale_spots)
        if self.links is not None:
            self.links = {new if s.entry_id == new.entry_id else s for s in self.links}

    def st_is_ours(self, st: os.stat_result) -> bool:
        """Whether a stat is the one that our own last write left, by a handle that is still open for writing."""
        return self.stamp == stamp_of(st) and any(h.wrote for h in self.handles)

    @property
    def kernel_size(self) -> int:
        """What the kernel believes the size to be: less than it is, while somebody else appends."""
        if self._told_size is not None:
            return self._told_size
        return 0 if self.stamp is None else self.stamp & _WORD

    @property
    def least_size(self) -> int:
        """The least that the kernel may believe the size to be."""
        return min(self.kernel_size, *self._older_sizes) if self._older_sizes else self.kernel_size

    def told(self, st: "AnyStat") -> None:
        """The kernel is told these attributes.

        It drops its pages by itself where size or mtime moved. Where only the ctime did it keeps them, and they may be
        old: a tool that rewrites a file can give it its mtime back. Then they go on to belong to what they belonged to.
        """
        stamp = stamp_of(st)
        if self.stamp is not None and (self._told_size is not None or self.stamp & _WORD != stamp & _WORD):
            self._outdated(self.kernel_size)
        if self.stamp is None or self.stamp & _BYTES != stamp & _BYTES:
            self.stamp = stamp
        self._told_size = None

    def _outdated(self, size_bytes: int) -> None:
        if size_bytes not in self._older_sizes:
            self._older_sizes = (*self._older_sizes[-_SIZES_MAX:], size_bytes)

    def begins_at_end(self, offset: int, length: int, *, pages: bool = True) -> bool:
        """Whether a write begins where the kernel has the end of the file, as far as we can know.

        It has what it was told last, or something before: an answer that crosses a write or a notice is dropped. Pages
        that are written back (where that may be: `pages`) may begin there by chance; they end with a page, or where the
        kernel has the end, and were read or written by it before.
        """
        known = self.kernel_size
        if offset == known:
            return True
        if offset not in self._older_sizes:
            return False
        if not pages or offset >= self.reach:
            return True
        end = offset + length
        is_pages = offset % mmap.PAGESIZE == 0 and (end % mmap.PAGESIZE == 0 or end in (known, *self._older_sizes))
        return offset > known or not is_pages

    def is_as_told(self, st: os.stat_result) -> bool:
        """Whether a file is, before a request changes it, as our last answer or write left it.

        If not, somebody changed it behind the mount. What the kernel keeps of it is old then, and after the request
        nothing would show that any more: so that is noted here.
        """
        if self.stamp is None or self.stamp == stamp_of(st):
            return True
        self.is_doubted = True
        return False

    def changed(self, st: "AnyStat") -> None:
        """A request changed attributes of a file that was as told: its pages are as good as before."""
        self.stamp = stamp_of(st)

    def seen(self, st: "AnyStat") -> None:
        """The kernel's pages belong to this state from now on; what it believes the size to be is another matter."""
        self._told_size = self.kernel_size
        self.stamp = stamp_of(st)

    def renamed(self, st: os.stat_result) -> None:
        """A name of ours changed, which moves the ctime and leaves the pages as good as before."""
        if self.stamp is not None and self.stamp & _BYTES == stamp_of(st) & _BYTES:
            self.seen(st)

    def written(self, end: int, st: os.stat_result, *, at_end: bool) -> None:
        """The kernel wrote up to an offset, and the file is so now; writes in threads may end in another order.

        `at_end`: it began where the kernel had the end, which is where it ended, now; or beyond, if an answer came
        between the choice of the offset and the write.
        """
        self.reach = max(self.reach, end)
        if at_end:
            beyond = (*self._older_sizes, self.kernel_size)
            self._told_size, self._older_sizes = end, tuple(size for size in beyond if size > end)
        else:
            if end < self.kernel_size:
                self._outdated(end)
            self._told_size = max(self.kernel_size, end)
        stamp = stamp_of(st)
        if self.stamp is None or stamp > self.stamp:
            self.stamp = stamp

    def path(self) -> list[bytes]:
        """The names from the root of the union, root excluded."""
        out: list[bytes] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            out.append(node.name)
            node = node.parent
        out.reverse()
        return out


def is_below(node: Node, above: Node) -> bool:
    """Whether a node is another or lies under it."""
    walk: Node | None = node
    while walk is not None:
        if walk is above:
            return True
        walk = walk.parent
    return False


class RowStat:
    """What the index remembers of a replica whose branch is away (or that is gone), in the shape of a stat result.

    What is another device's belongs to who has mounted the library, and to nobody else here: whom else its owner lets
    in is not known on this device. Its names have numbers of their own, so each is the only one.
    """

    __slots__ = (
        "st_atime_ns",
        "st_blocks",
        "st_ctime_ns",
        "st_gid",
        "st_mode",
        "st_mtime_ns",
        "st_nlink",
        "st_rdev",
        "st_size",
        "st_uid",
    )

    def __init__(self, row: Entry) -> None:
        if row.is_ours:
            self.st_mode, self.st_nlink, self.st_uid, self.st_gid = row.mode, row.nlink, row.uid, row.gid
        else:
            self.st_mode, self.st_nlink = _seen_from_afar(row.mode), 1
            self.st_uid, self.st_gid = os.getuid(), os.getgid()
        self.st_rdev = 0
        self.st_size = row.size_bytes
        # Never 0 for a file with bytes: GNU tar -S would archive zeros.
        self.st_blocks = 1 if row.size_bytes else 0
        self.st_atime_ns = row.mtime_ns
        self.st_mtime_ns = row.mtime_ns
        self.st_ctime_ns = row.ctime_ns


def _seen_from_afar(mode: int) -> int:
    """The mode that a file of another device has here; its owner's directories are ours to look through."""
    shown = stat.S_IFMT(mode) | (mode & stat.S_IRWXU)
    return shown | stat.S_IRUSR | stat.S_IXUSR if stat.S_ISDIR(mode) else shown


def remembered(rows: Sequence[Entry]) -> RowStat:
    """A directory of which no part is there to be asked: as ours was, else as the newest of other devices."""
    ours = [row for row in rows if row.is_ours]
    return RowStat(ours[0] if ours else max(rows, key=lambda row: row.mtime_ns))


def removed_stat(st: "AnyStat") -> RowStat:
    """A stat with no link left."""
    out = copy_of(st)
    out.st_nlink = 0
    return out


def last_told(node: Node) -> RowStat:
    """What the kernel was told last of what is gone: of a file size and times, of the rest what kind it is of."""
    out = RowStat.__new__(RowStat)
    stamp = node.stamp or 0
    out.st_mode = {KIND_DIR: stat.S_IFDIR, KIND_SYMLINK: stat.S_IFLNK}.get(node.kind, stat.S_IFREG) | 0o700
    out.st_nlink, out.st_rdev, out.st_blocks = 1, 0, 0
    out.st_uid, out.st_gid = os.getuid(), os.getgid()
    out.st_size = node.kernel_size
    out.st_atime_ns = out.st_mtime_ns = stamp >> 64 & _WORD
    out.st_ctime_ns = stamp >> 128
    return out


def copy_of(st: "AnyStat") -> RowStat:
    """A stat that can be changed."""
    out = RowStat.__new__(RowStat)
    for field in RowStat.__slots__:
        setattr(out, field, getattr(st, field))
    return out


AnyStat = os.stat_result | RowStat


class Listed(NamedTuple):
    """One line of a listing."""

    name: bytes
    node: Node
    st: AnyStat
