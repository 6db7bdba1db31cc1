"""Directories of branches by descriptor: how names are reached without paths.

A `DirRef` is one directory on one branch. Its descriptor is opened component by component beneath the branch's root,
never through a symlink, and checked by inode; a bounded LRU keeps the last few hundred open. So paths longer than
PATH_MAX work, no rename above can lead a call astray, and idle descriptors are closed after a few seconds, so that
none keeps a volume busy.

Descriptors handed out by `fd()` are valid until the next await: the loop calls fast branches inline. A thread uses
`opened()`, which opens what it needs for itself: the table is the loop's. And the loop asks no slow branch for
anything: it is refused.
"""

import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

from index.model.errors import Stale, Unreachable
from index.model.inode import inode_of
from vdfs.space.branches import Branch, Excluded

_OPEN_SEEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = _OPEN_SEEN | os.O_NOATIME  # our looking is not the user's; only an owner may ask for that
_OPEN_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: Directories kept open. Far below the usual limit of 1024 descriptors, which open files share.
CAPACITY = 256
#: Of the directories on the way to a deep one, how many are kept open with it.
_KEPT_ABOVE = 8
IDLE_S = 3.0


class DirRef:
    """One directory of one branch: where it hangs, and what it was when last seen."""

    __slots__ = ("__weakref__", "branch", "entry_id", "excluded", "hidden", "name", "parent", "st_ino", "watch")

    def __init__(
        self,
        branch: Branch,
        entry_id: int,
        parent: "DirRef | None",
        name: bytes,
        st_ino: int,
        excluded: Excluded | None,
    ) -> None:
        self.branch = branch
        self.entry_id = entry_id
        self.parent = parent
        self.name = name
        self.st_ino = st_ino
        self.excluded = excluded
        self.hidden = False  # below something that is never to be looked at
        self.watch = -1  # the watcher's descriptor; < 0: changes behind the mount are not reported

    def chain(self) -> "list[DirRef]":
        """The directories from the root of the branch to this one."""
        out: list[DirRef] = []
        ref: DirRef | None = self
        while ref is not None:
            out.append(ref)
            ref = ref.parent
        out.reverse()
        return out

    def hides(self, name: bytes) -> bool:
        """Whether a name in here is never to be looked at (a mount of ours, the data directory)."""
        return self.leaf(name) is True

    def leaf(self, name: bytes) -> Any:
        """What is special about a name in here (see Excluded); None for most."""
        return None if self.excluded is None else self.excluded.get(name)

    def mounted(self, name: bytes) -> Branch | None:
        """The inner branch that begins at a name in here: that name must not be asked for on the loop."""
        leaf = self.leaf(name)
        return leaf if isinstance(leaf, Branch) else None

    def settle(self) -> None:
        """Take over what the directory above says of this one."""
        if self.parent is None:
            self.excluded = self.branch.excluded or None
            return
        leaf = self.parent.leaf(self.name)
        self.hidden = self.parent.hidden or leaf is True
        self.branch = leaf if isinstance(leaf, Branch) else self.parent.branch
        self.excluded = leaf if isinstance(leaf, dict) else None


def _open_dir(parent_fd: int, name: bytes) -> int:
    """The most that is allowed: to list without leaving a trace, to list, to reach what lies in it."""
    for flags in (_OPEN, _OPEN_SEEN):
        try:
            return os.open(name, flags, dir_fd=parent_fd)
        except PermissionError:
            continue
    return os.open(name, _OPEN_PATH, dir_fd=parent_fd)


def _open_step(parent_fd: int, ref: DirRef) -> int:
    try:
        fd = _open_dir(parent_fd, ref.name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Stale(f"{os.fsdecode(ref.name)} is not there any more") from error
    if inode_of(os.fstat(fd)) != ref.st_ino and (ref.parent is None or ref.parent.mounted(ref.name) is None):
        os.close(fd)
        raise Stale(f"another directory stands at {os.fsdecode(ref.name)}")
    return fd


class DirTable:
    """All DirRefs in use, one per (branch, entry), and the descriptors of the busiest."""

    def __init__(self) -> None:
        self._refs: WeakValueDictionary[int, DirRef] = WeakValueDictionary()
        self._open: OrderedDict[DirRef, tuple[int, float]] = OrderedDict()
        self._pinned: Counter[DirRef] = Counter()
        self._loop_thread = threading.get_ident()
        #: Asked before a directory is reached on the loop: what was mounted since must be known by then.
        self.before_reach: Callable[[], object] = lambda: None

    def root(self, branch: Branch) -> DirRef:
        """The root of a branch; of an inner one that is the root of the branch it lies in."""
        branch = branch.outer or branch
        ref = self._refs.get(branch.root_entry_id)
        if ref is None or ref.branch is not branch:
            ref = DirRef(branch, branch.root_entry_id, None, b"", branch.root_ino, branch.excluded or None)
            self._refs[branch.root_entry_id] = ref
        return ref

    def child(self, parent: DirRef, entry_id: int, name: bytes, st_ino: int) -> DirRef:
        """The one DirRef of a row; brought up to date with where it hangs now."""
        ref = self._refs.get(entry_id)
        if ref is None:
            ref = DirRef(parent.branch, entry_id, parent, name, st_ino, None)
            ref.settle()
            self._refs[entry_id] = ref
        else:
            if ref.st_ino != st_ino:
                ref.st_ino = st_ino
                self.close(ref)
            ref.parent, ref.name = parent, name
        return ref

    def known(self, entry_id: int) -> DirRef | None:
        return self._refs.get(entry_id)

    def of_branch(self, branch: Branch) -> list[DirRef]:
        """The directories of a branch that somebody holds."""
        return [ref for ref in list(self._refs.values()) if ref.branch is branch]

    def fd(self, ref: DirRef) -> int:
        """A descriptor of a directory of a fast branch, valid until the next await (see `opened` for two at once)."""
        self.reach()
        self._refuse(ref)
        held = self._open.get(ref)
        if held is not None:
            self._open.move_to_end(ref)
            return held[0]
        missing: list[DirRef] = []
        walk: DirRef | None = ref
        while walk is not None and walk not in self._open:
            missing.append(walk)
            walk = walk.parent
        fd = -1 if walk is None else self._open[walk][0]
        temporary = -1
        for depth in range(len(missing) - 1, -1, -1):
            step = missing[depth]
            try:
                below = step.branch.open_root() if step.parent is None else _open_step(fd, step)
            finally:
                if temporary >= 0:
                    os.close(temporary)
                    temporary = -1
            fd = below
            if depth < _KEPT_ABOVE:  # the last few of the way are likely to be wanted again
                self._keep(step, fd)
            else:
                temporary = fd
        return fd

    def reach(self) -> None:
        """Before the loop goes anywhere: what was mounted since must be known."""
        if not self._pinned:  # what is lent must stay open; it was asked when the first was reached for
            self.before_reach()

    def _refuse(self, ref: DirRef) -> None:
        if ref.hidden:
            raise Stale(f"{os.fsdecode(ref.name)} is hidden by a mount now")
        if ref.branch.slow and threading.get_ident() == self._loop_thread:
            raise Unreachable(f"{os.fsdecode(ref.name)} lies on a slow file system, and this cannot wait for it")

    def _keep(self, ref: DirRef, fd: int) -> None:
        self._open[ref] = (fd, time.monotonic())
        if len(self._open) > CAPACITY:
            for old in self._open:
                if old not in self._pinned and old is not ref:
                    os.close(self._open.pop(old)[0])
                    break

    def close(self, ref: DirRef) -> None:
        held = self._open.pop(ref, None)
        if held is not None:
            os.close(held[0])

    def close_branch(self, branch: Branch) -> None:
        for ref in [r for r in self._open if r.branch is branch]:
            self.close(ref)

    def settle_below(self, entry_id: int) -> None:
        """A directory hangs elsewhere: it and all that is known below it are of the branch they are in now."""
        below = [ref for ref in list(self._refs.values()) if any(step.entry_id == entry_id for step in ref.chain())]
        for ref in sorted(below, key=lambda ref: len(ref.chain())):
            ref.settle()

    def settle(self, branch: Branch) -> list[DirRef]:
        """What is mounted in a branch changed: every directory is opened anew. Returns those that are held of it."""
        held = [ref for ref in list(self._refs.values()) if ref.branch.id == branch.id]
        for ref in sorted(held, key=lambda ref: len(ref.chain())):
            self.close(ref)
            ref.settle()
        return held

    def close_idle(self, now_s: float) -> None:
        """Close what was opened more than IDLE_S ago: reopening is cheap, a busy volume is not."""
        for ref in [r for r, (_, opened_s) in self._open.items() if now_s - opened_s > IDLE_S]:
            self.close(ref)

    def close_all(self) -> None:
        for ref in list(self._open):
            self.close(ref)

    @contextmanager
    def opened(self, ref: DirRef) -> Iterator[int]:
        """A descriptor for the block: on the loop one of the table, which stays open so long, in a thread its own."""
        if threading.get_ident() == self._loop_thread:
            fd = self.fd(ref)
            self._pinned[ref] += 1
            try:
                yield fd
            finally:
                self._pinned[ref] -= 1
                if not self._pinned[ref]:
                    del self._pinned[ref]
            return
        self._refuse(ref)
        fd = ref.branch.open_root()
        try:
            for step in ref.chain()[1:]:
                below = _open_step(fd, step)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)
