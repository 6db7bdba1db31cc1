"""Holdings: what a running library has in its hands of its branches: directories, nodes, and how they follow the rows.

In: the branches, our own (`branches`) and those of other devices (`remotes`), and every commit of the store, at once.
Out: the DirRef of a directory's row, the node of a number, what lstat says of a name. The invariant: nodes hang as the
rows do, never in a circle, and no answer that was prepared outlives a commit that makes it void.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from weakref import WeakSet, WeakValueDictionary

from index.model import change
from index.model.change import Commit
from index.model.entry import KIND_DIR, Entry
from index.model.ids import ROOT_INODE
from index.store import entries
from index.store.store import Store
from vdfs.base.pace import Pace
from vdfs.space.branches import Branch
from vdfs.space.dirs import DirRef, DirTable
from vdfs.space.nodes import Node, is_below
from vdfs.space.remotes import RemoteBranch

#: From so many on those are looked for that nobody holds any more.
_FORMER_MIN = 1000


async def nobody_is_told() -> None:
    """Where nobody shows the tree."""


async def forget_nothing(_: Branch) -> None:
    """Where nothing is watched."""


class Holdings:
    """Directories and nodes of all branches. Used on the loop only."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.dirs = DirTable()
        self.nodes: WeakValueDictionary[int, Node] = WeakValueDictionary()
        self.branches: dict[int, Branch] = {}
        self.remotes: dict[int, RemoteBranch] = {}
        self.pace = Pace()  # of what is written behind the requests
        self.former: dict[int, WeakSet[Node]] = {}  # row -> nodes that the kernel holds it by, of numbers it had
        self._former_max = _FORMER_MIN
        self.root = Node(ROOT_INODE, KIND_DIR)
        self.nodes[ROOT_INODE] = self.root
        store.feed.at_once(self._forget)
        #: Asked before a directory is looked into, so that no change behind the mount falls between look and watch.
        self.before_look: Callable[[DirRef], object] = lambda _: None
        #: Told of each directory that the index did not know: what lies in it is to be taken in too.
        self.found_dir: Callable[[DirRef], object] = lambda _: None
        #: Asked whether a directory has been watched, with that inode, since its row was written.
        self.is_watched: Callable[[int, int], bool] = lambda _id, _ino: False
        #: Told of a name that is gone from the disk; returns whether the watcher takes its row out of the index.
        self.left_to_watch: Callable[[DirRef, bytes], bool] = lambda _ref, _name: False
        #: Asked whether a file was written to since it was last looked at; None where nobody hears of it.
        self.heard_written: Callable[[int, bytes], bool | None] = lambda _id, _name: None
        #: Told of a branch that is about to leave.
        self.forget_watches: Callable[[Branch], Awaitable[None]] = forget_nothing
        #: Waits until who shows the tree has told the kernel of all that is committed by now.
        self.all_told: Callable[[], Awaitable[None]] = nobody_is_told
        #: Told of a name, by its directory's row, that may not be as its row says.
        self.look_at: Callable[[int, bytes], None] = lambda _id, _name: None

    def branch_of(self, branch_id: int) -> Branch | None:
        """A branch, whoever owns it."""
        return self.branches.get(branch_id) or self.remotes.get(branch_id)

    def check(self, branch: Branch) -> bool:
        """Look at a branch's root again; returns whether its state changed."""
        self.dirs.reach()
        return branch.check()

    def renumbered(self, row: Entry) -> None:
        """A row is about to be one with another, under that one's number. Who holds it by its own goes on with that: a
        directory so held is what it was, without the parts that it is one with now."""
        node = self.nodes.get(row.node)
        if node is not None and node.lookups:
            self.former.setdefault(row.id, WeakSet()).add(node)
        if len(self.former) > self._former_max:
            for entry_id in list(self.former):
                self.former_of(entry_id)
            self._former_max = 2 * len(self.former) + _FORMER_MIN

    def former_of(self, entry_id: int | None) -> list[Node]:
        """The nodes by which somebody holds a row that has another number by now, and that no other row has."""
        if entry_id not in self.former:
            return []
        held = [
            node for node in self.former[entry_id]
            if node.lookups and not entries.some_of_node(self.store.db, node.ino, 1)
        ]  # fmt: skip
        if not held:
            del self.former[entry_id]
        return held

    def known_by(self, entry_id: int, number: int) -> list[Node]:
        """The nodes that show a row: that of its number, and the former ones."""
        node = self.nodes.get(number)
        return ([] if node is None else [node]) + self.former_of(entry_id)

    def held_as(self, directory: Node) -> set[Node]:
        """A directory and the former nodes of its parts: when it goes, it goes for all of them."""
        return {directory, *(node for ref in directory.parts for node in self.former_of(ref.entry_id))}

    def _forget(self, commit: Commit) -> None:
        """Drop the prepared answers that a commit makes void, whoever wrote it and wherever it reached."""
        above: dict[int, bool] = {}  # directories -> whether their names changed
        for one in commit.changes:
            for node in self.known_by(one.entry_id, one.node) if one.what != change.META else []:
                node.face = None
                if node.is_dir and one.what == change.REMOVED:
                    self._parted(node, one.node)
                    node.names_changed()  # all that was in it may be gone with it
            if one.parent_id is not None and one.what != change.TIMES:
                above[one.parent_id] = above.get(one.parent_id, False) or one.what in (change.ADDED, change.REMOVED)
        for entry_id, names_changed in above.items():
            ref = self.dirs.known(entry_id)
            if ref is not None:
                self._dir_changed(ref, names_changed=names_changed)

    def _parted(self, node: Node, number: int) -> None:
        """A directory that was a part of a node may be gone, or have got another number than the others have."""
        if len(node.parts) > 1:
            rows = [(part, entries.get(self.store.db, part.entry_id)) for part in node.parts]
            left = tuple(part for part, row in rows if row is not None and row.node == number)
            node.parts = left or tuple(part for part, row in rows if row is None)

    def _dir_changed(self, ref: DirRef, *, names_changed: bool) -> None:
        """A directory of a branch, or what is in it, changed: whoever shows its names must look again.

        Where several branches are merged, anything that is known of a file may change which are shown.
        """
        row = entries.get(self.store.db, ref.entry_id)
        for node in [] if row is None else self.known_by(row.id, row.node):
            if names_changed or len(node.parts) > 1:
                node.names_changed()
        if ref.parent is None and names_changed:
            self.root.names_changed()

    def hang(self, node: Node, parent: Node, name: bytes) -> None:
        """A node is in a directory, by a name. Nodes never hang in a circle, for whoever goes up would not come back:
        what is above the directory may date from before a move behind the mount, and then goes where the index has it.
        """
        if node.is_dir and parent is not node and parent is not node.parent and is_below(parent, node):
            walk = parent
            while walk is not node and is_below(parent, node):
                above = walk.parent
                assert above is not None
                walk.parent = self._nearest(walk, but=node)
                walk = above
        if parent is not node:
            node.parent, node.name = parent, name

    def _nearest(self, node: Node, but: Node) -> Node:
        """The next directory above one, by the rows, that is held and not at or below another."""
        row = entries.get(self.store.db, node.parts[0].entry_id) if node.parts else None
        while row is not None and row.parent_id is not None:
            held = self.held_dir(row.parent_id)
            if held is not None and not is_below(held, but):
                return held
            row = entries.get(self.store.db, row.parent_id)
        return self.root

    def held_dir(self, entry_id: int) -> Node | None:
        """The node of a directory's row, if there is one."""
        if any(ref.entry_id == entry_id for ref in self.root.parts):
            return self.root
        row = entries.get(self.store.db, entry_id)
        return None if row is None else self.nodes.get(row.node)

    def ref_of(self, entry_id: int) -> DirRef | None:
        """The DirRef of a directory's row, made from the rows above it when nobody holds it."""
        way: list[Entry] = []
        wanted: int | None = entry_id
        ref: DirRef | None = None
        while ref is None and wanted is not None:
            ref = self.dirs.known(wanted)
            if ref is not None:
                break
            row = entries.get(self.store.db, wanted)
            branch = None if row is None else self.branch_of(row.branch_id)
            if row is None or branch is None:
                return None
            if row.parent_id is None:
                if row.id != branch.root_entry_id:
                    return None  # it is detached
                ref = self.dirs.root(branch)
            else:
                way.append(row)
            wanted = row.parent_id
        for row in reversed(way):
            assert ref is not None
            ref = self._dir(ref, row)
        return ref

    def _dir(self, above: DirRef, row: Entry) -> DirRef:
        """The DirRef of a directory's row below another, brought up to date."""
        known = self.dirs.known(row.id)
        if known is not None and known.st_ino != row.st_ino:
            known.watch = -1  # another inode: what was watched is not this directory
        return self.dirs.child(above, row.id, row.name, row.st_ino)

    def lstat(self, ref: DirRef, name: bytes) -> os.stat_result:
        """What a name is; of a slow file system that is mounted there, what its root was last seen to be."""
        with self.dirs.opened(ref) as fd:
            leaf = ref.leaf(name)
            if leaf is True:
                raise FileNotFoundError(errno.ENOENT, "it is not to be looked at")
            if isinstance(leaf, Branch):
                return leaf.mount_stat()
            return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def _fstat_dir(self, ref: DirRef) -> os.stat_result:
        with self.dirs.opened(ref) as fd:
            return os.fstat(fd)
