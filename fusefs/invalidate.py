"""Committed changes to what the kernel must forget: a pure plan, and the one task that tells the kernel.

The kernel is told by another process (telling.py): it may hold the lock of a directory until a request that waits for
the loop is answered, so a call from the loop could wait for itself. What the kernel did itself needs no telling.
"""

import logging
from collections.abc import Callable
from typing import Any

import trio

from fusefs.kernel import notices
from fusefs.kernel.inodes import Ledger
from fusefs.telling import telling
from index.model import change
from index.model.change import ORIGIN_MOUNT, Change, Commit
from index.store import entries
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.mount")

#: One thing to tell: ("inode", number, attributes only), ("entry", parent's number, name: it is gone) or ("expired",
#: the same: ask again).
Order = tuple[str, int, Any]


class Notifier:
    """Gathers what the kernel must forget and tells it, in order."""

    def __init__(self, tree: Tree, ledger: Ledger) -> None:
        self.tree = tree
        self.ledger = ledger
        self._orders: dict[Order, None] = {}
        self._telling: dict[Order, None] = {}  # handed to the kernel just now
        self._wake = trio.Event()
        self.told = 0
        self._taken = self._finished = 0  # batches that were handed to the kernel, and that it has
        self._batch_told = trio.Event()
        #: Told of each change of a name that the kernel is told of, with its origin and the directory it is in.
        self.names_changed: Callable[[str, Node, Change], object] = lambda _origin, _parent, _one: None
        tree.store.feed.at_once(self._heard)

    def inode(self, ino: int, *, attr_only: bool) -> None:
        """Let the kernel ask again for the attributes of an inode (and its pages unless attr_only)."""
        self._order(("inode", ino, attr_only))

    def entry(self, parent_ino: int, name: bytes, *, is_gone: bool = False) -> None:
        """Let the kernel look a name up again.

        Only of a name that is gone the kernel takes the dentry away. Any other may have been looked up in the meantime,
        and who stands in that directory or has that file open would be told that it is deleted.
        """
        self._order(("entry" if is_gone else "expired", parent_ino, name))

    def is_telling(self, parent_ino: int, name: bytes) -> bool:
        """Whether the kernel may not have heard yet that a name means something else."""
        orders = (("entry", parent_ino, name), ("expired", parent_ino, name))
        return any(order in self._orders or order in self._telling for order in orders)

    def _order(self, order: Order) -> None:
        self._orders[order] = None
        self._wake.set()

    def _heard(self, commit: Commit) -> None:
        """A commit, in the moment it is made: a request that comes next must know that the kernel is yet to be told."""
        try:
            self.plan(commit)
        except Exception:  # nobody's unit fails for what the kernel is to hear of it
            log.exception("what a commit means for the kernel could not be said")
            self._everything()

    def plan(self, commit: Commit) -> None:
        """What a commit means for the kernel; what it did itself it knows, unless it has it by two numbers."""
        ours = commit.origin == ORIGIN_MOUNT
        if ours and not self.tree.former:
            return
        parents: dict[int | None, list[Node]] = {}  # asked once: a scan tells of all that is in a directory
        for one in commit.changes:
            node = self.ledger.find(one.node)
            is_dir = isinstance(node, Node) and node.is_dir
            if one.what != change.TIMES:
                if one.parent_id not in parents:
                    parents[one.parent_id] = self._held(self._dir_node(one.parent_id), one.parent_id, ours=ours)
                for parent in parents[one.parent_id]:
                    self._plan_name(parent, one, is_dir)
                    if not ours:
                        self.names_changed(commit.origin, parent, one)
            if one.what == change.META:
                continue
            for held in self._held(node, one.entry_id, ours=ours):
                if isinstance(held, Node):
                    held.face = None
                if one.what != change.ADDED:  # a removed name is one link less for who holds the file
                    self.inode(held.ino, attr_only=one.what != change.DATA)

    def _held(self, node: Any, entry_id: int | None, *, ours: bool) -> list[Any]:
        """What the kernel holds a row by: its node, and those of numbers it had. `ours`: only if it has several."""
        former = self.tree.former_of(entry_id)
        return former if node is None or (ours and not former) else [node, *former]

    def _plan_name(self, parent: Node, one: Change, is_dir: bool) -> None:
        if one.what in (change.ADDED, change.REMOVED):
            self.entry(parent.ino, one.name, is_gone=one.what == change.REMOVED)
            self.inode(parent.ino, attr_only=True)
        elif not is_dir and (one.what != change.META or len(parent.parts) > 1):
            # Another replica may be the shown one now; bytes that are known may make one file of two. A directory that
            # the kernel knows stays the directory it is: forgetting its name would take the working directory from who
            # stands in it.
            self.entry(parent.ino, one.name)

    def _dir_node(self, entry_id: int | None) -> Node | None:
        """The node of a directory's row if the kernel holds it."""
        if entry_id is None or self.tree.dirs.known(entry_id) is None:
            return None
        if any(ref.entry_id == entry_id for ref in self.tree.root.parts):
            return self.tree.root
        row = entries.get(self.tree.store.db, entry_id)
        node = None if row is None else self.ledger.find(row.node)
        return node if isinstance(node, Node) else None

    def _everything(self) -> None:
        """Let the kernel ask again for all it holds."""
        for node in self.ledger.nodes():
            if isinstance(node, Node):
                self.inode(node.ino, attr_only=False)
                if node.parent is not None:
                    self.entry(node.parent.ino, node.name)

    async def all_told(self) -> None:
        """Wait until the kernel has what has been ordered so far."""
        wanted = self._taken + bool(self._orders)
        while self._finished < wanted:
            await self._batch_told.wait()

    async def run(self) -> None:
        """Tell the kernel, in order, what has been ordered since it was told last."""
        async with telling() as tell:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                self._telling, self._orders = self._orders, {}
                self._taken += 1
                try:
                    await tell([_notice(*order) for order in self._telling])
                except OSError:  # who knows what it was told, also of names that were absent
                    self._orders = {**self._telling, **self._orders}
                    self._everything()
                    raise
                self.told += len(self._telling)
                self._telling = {}
                self._finished = self._taken
                self._batch_told.set()
                self._batch_told = trio.Event()


def _notice(kind: str, ino: int, detail: Any) -> bytes:
    if kind == "inode":
        return notices.inval_inode(ino, attr_only=detail)
    return notices.inval_entry(ino, detail, expire=kind == "expired")
