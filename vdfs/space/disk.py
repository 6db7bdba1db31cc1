"""BranchDisk: what the disk says just now, for whoever must decide whose inode it is that was seen (kinship.Disk).

Only fast branches are asked, since this is asked on the loop; of a slow one, and of one that is away, the rows are
believed. Not there to be asked is never the same as gone.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from index.model.entry import KIND_DIR, Entry, Stat, ns
from index.model.errors import Stale, Unreachable, VdfsError
from index.model.inode import inode_of
from vdfs.space import realattrs, syscalls
from vdfs.space.branches import LIVE
from vdfs.space.dirs import DirRef
from vdfs.space.holdings import Holdings
from vdfs.space.nodes import Node, Spot

T = TypeVar("T")


class BranchDisk(Holdings):
    """The answers of single branches; satisfies kinship.Disk."""

    def stat_at(self, row: Entry) -> Stat | None:
        """What lstat says of a row's name now, None when it is gone; the row where the branch is slow or away."""
        branch = self.branches.get(row.branch_id)
        if branch is None or branch.state != LIVE or branch.slow or row.parent_id is None:
            return row.stat
        ref = self.ref_of(row.parent_id)
        if ref is None:
            return None
        if ref.branch.slow:
            return row.stat
        try:
            return Stat.of(self.lstat(ref, row.name))
        except (FileNotFoundError, NotADirectoryError, Stale):
            return None
        except (OSError, Unreachable):  # not there to be asked is not the same as gone
            return row.stat

    def is_held(self, branch_id: int, entry_id: int | None, node: int, st_ino: int) -> bool:
        """Whether an inode is open through the mount under a number, kept within reach there, or watched for a row."""
        if entry_id is not None and self.is_watched(entry_id, st_ino):
            return True
        held = self.nodes.get(node)
        if held is None:
            return False
        if held.ghost_fd >= 0 and inode_of(os.fstat(held.ghost_fd)) == st_ino:
            return True
        return self.has_open(held, branch_id, st_ino)

    @staticmethod
    def has_open(node: Node, branch_id: int, st_ino: int) -> bool:
        """Whether somebody has an inode of a branch open under a node (a slow branch is not asked)."""
        fds = [h.fd for h in node.handles if h.branch.id == branch_id and not h.branch.slow]
        return any(inode_of(os.fstat(fd)) == st_ino for fd in fds)

    def inode_in(self, parent_id: int, name: bytes, child: bytes) -> int | None:
        """Which inode has a name in the directory that stands under a name (a slow branch is not asked)."""

        def ask(ref: DirRef) -> int | None:
            return None if ref.mounted(name) else inode_of(self.lstat(ref, name + b"/" + child))

        return self._asked(parent_id, ask, None)

    def born_ns(self, parent_id: int, name: bytes) -> int | None:
        """When the inode under a name was made (not where that would wait, or numbers are new at every mount)."""

        def ask(ref: DirRef) -> int | None:
            with self.dirs.opened(ref) as fd:
                return None if ref.branch.renumbers or ref.mounted(name) else syscalls.born_ns(fd, name)

        return self._asked(parent_id, ask, None)

    def was_written(self, parent_id: int, name: bytes) -> bool | None:
        """Whether a file was written to behind the mount since it was last looked at; None where that is not heard."""
        return self.heard_written(parent_id, name)

    def own_attributes(self, parent_id: int, name: bytes) -> dict[bytes, bytes]:
        """The `user.*` attributes that the file under a name carries (a slow branch is not asked)."""

        def ask(ref: DirRef) -> dict[bytes, bytes]:
            return {} if ref.mounted(name) else realattrs.read(self.dirs, ref, name).values

        return self._asked(parent_id, ask, {})

    def dir_mtime(self, entry_id: int) -> int | None:
        """The mtime of a directory just now; None on a slow branch, or when it cannot be opened."""
        return self._asked(entry_id, lambda ref: ns(self._fstat_dir(ref).st_mtime_ns), None)

    def moved(self, row: Entry) -> None:
        """A row hangs elsewhere: who holds its directory or its node follows."""
        above = None if row.parent_id is None else self.ref_of(row.parent_id)
        if above is None:
            return
        if row.kind == KIND_DIR:
            known = self.dirs.known(row.id)
            if known is not None:
                self._dir(above, row)
                self.dirs.settle_below(row.id)
            node, parent = self.nodes.get(row.node), self.held_dir(above.entry_id)
            if node is not None and parent is not None:
                self.hang(node, parent, row.name)
            return
        node = self.nodes.get(row.node)
        if node is not None:
            node.name_moved(Spot(above, row.name, row.id))

    def _asked(self, entry_id: int, ask: Callable[[DirRef], T], otherwise: T) -> T:
        """What the disk says in a directory; something else where it does not answer, or not at once."""
        ref = self.ref_of(entry_id)
        if ref is None or ref.branch.slow:
            return otherwise
        try:
            return ask(ref)
        except (OSError, VdfsError):
            return otherwise
