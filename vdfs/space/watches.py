"""Watches: which directories the kernel tells of, and what is owed to those that it tells of late.

A directory is watched before it is first looked into for the kernel (`look`), by the worker that lists it first
(`Watch.place`), or with all of its branch (`cover_all`). In between are those that may have been listed before their
watch stood: while a branch is walked they are noted (`late_in`), and stay in `catching_up` until they are walked again.

In: directories. Out: watches on one inotify instance, by the number of their row. What its events say is watch.py's.
Watches that are nobody's any more, of directories that left the library and of reports that never came, are ended once
in a while. Where the system allows no more watches, directories simply are not covered: the kernel is told to believe
answers for a second only, that is said once in the log, and it is tried again when there may be room.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

from index.model.errors import Stale, Unreachable
from index.scan.inotify import Inotify, WatchLimitReached
from index.store import entries
from vdfs.space import syscalls
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree
from vdfs.space.unplaced import Unplaced

log = logging.getLogger("sdmount.watch")

#: Watches are set for so long between two turns of the loop.
_COVER_SLICE_S = 0.002
#: Rows that are looked at between two turns of the loop, for watches that belong to none.
_SWEPT = 64
#: How often it is tried whether the system allows more watches by now.
_ROOM_POLL_S = 60.0


class Watches:
    """The watches of one library. Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.unplaced = Unplaced()
        #: Directories that may have been listed before their watch stood: what was written there nobody has heard.
        self.catching_up: set[int] = set()
        #: Told of a root when all known directories below it are watched, as far as there is room.
        self.covered: Callable[[int], None] = lambda _: None
        self._inotify = Inotify()
        self._entry_of: dict[int, int] = {}  # watch descriptor -> entry id of the directory
        self._wd_of: dict[int, tuple[int, int]] = {}  # entry id -> (watch descriptor, inode)
        self._late: dict[int, list[int]] = {}  # id of a branch that is walked -> what is watched since that began
        self._full = False
        self._said_full = False
        self._was_full = False  # there was no room for a watch,
        self._has_room = False  # and there may be again
        self._to_cover: dict[int, bool] = {}  # roots of branches to watch all of -> whether that is waited for
        self._has_strays = False  # there may be watches that belong to no row
        self._asked = trio.Event()

    @property
    def fd(self) -> int:
        """The inotify instance, for processes that set watches too (see `place`)."""
        return self._inotify.fd

    def close(self) -> None:
        self._inotify.close()

    def __len__(self) -> int:
        return len(self._entry_of)

    def covers(self, node: Node) -> bool:
        """Whether every change of names in a directory, on every branch that holds it, reaches us."""
        return all(ref.watch >= 0 or ref.branch.state == MISSING for ref in node.parts)

    def look(self, ref: DirRef) -> bool:
        """Watch a directory if it is not watched yet; returns whether a watch was set."""
        if ref.watch >= 0:
            return False
        known = self._wd_of.get(ref.entry_id)
        if known is not None and known[1] == ref.st_ino:
            ref.watch = known[0]
            return False
        if self._full or ref.branch.slow or ref.branch.state != LIVE:
            return False
        try:
            fd = self.tree.dirs.fd(ref)
            wd = self._inotify.add(os.fsencode(syscalls.proc_path(fd)))
        except WatchLimitReached as error:
            self._full = self._was_full = self._has_strays = True
            self._asked.set()
            if not self._said_full:
                self._said_full = True
                more = "directories beyond are believed for a second only, and looked through again (-o rescan=SECONDS)"
                log.warning("%s; %s", error, more)
            return False
        except (OSError, Stale, Unreachable):
            return False
        is_new = wd not in self._entry_of
        self._unhook(self._entry_of.get(wd))  # the same directory under an older row, or by another path
        self._entry_of[wd] = ref.entry_id
        self._wd_of[ref.entry_id] = (wd, ref.st_ino)
        ref.watch = wd
        if is_new and ref.branch.id in self._late:
            self._late[ref.branch.id].append(ref.entry_id)
            self.catching_up.add(ref.entry_id)
        return is_new

    def _unhook(self, entry_id: int | None) -> None:
        """A row is not watched any more."""
        if entry_id is None:
            return
        self._wd_of.pop(entry_id, None)
        ref = self.tree.dirs.known(entry_id)
        if ref is not None:
            ref.watch = -1

    def forget(self, entry_id: int) -> None:
        """End the watch of a row, if it has one."""
        known = self._wd_of.get(entry_id)
        if known is not None:
            self._unhook(entry_id)
            self._entry_of.pop(known[0], None)
            self._inotify.remove(known[0])

    def _let_go(self, wd: int) -> None:
        """End a watch that belongs to no row."""
        self.unplaced.take(wd)
        if wd not in self._entry_of:
            self._inotify.remove(wd)

    @contextmanager
    def late_in(self, branch: Branch, fresh: list[int]) -> Iterator[None]:
        """While a branch is walked: directories that get their watch now, whoever sets it, may have been listed before.
        They go into `fresh`, and stay in `catching_up` until they were walked once more."""
        self._late[branch.id] = fresh
        try:
            yield
        except BaseException:
            self._note_strays()  # workers set watches that they will not report
            raise
        finally:
            del self._late[branch.id]
            if not self._late:
                self.unplaced.clear()

    def takes_more(self, branch: Branch) -> bool:
        """Whether directories of a branch may be watched, as far as is known."""
        return not self._full and not branch.slow and branch.state == LIVE

    def request_cover(self, root_entry_id: int) -> None:
        """Watch every known directory of a branch, in the background, and tell when it is done."""
        self._to_cover[root_entry_id] = True
        self._asked.set()

    @property
    def lacks_room(self) -> bool:
        """Whether there are directories that the system allows no watch for."""
        return self._was_full

    def will_cover(self, root_entry_id: int) -> bool:
        return root_entry_id in self._to_cover

    async def cover_all(self) -> None:
        """Watch the directories of the branches that ask for it; all of them again when there may be room for more."""
        wait_s = _ROOM_POLL_S
        while True:
            while self._to_cover:
                root_entry_id, is_asked = next(iter(self._to_cover.items()))
                self._to_cover[root_entry_id] = False
                try:
                    is_asked = await self._cover_branch(root_entry_id) or is_asked
                finally:
                    if not self._to_cover[root_entry_id]:  # else it came back meanwhile, and is looked at again
                        del self._to_cover[root_entry_id]
                    if is_asked:
                        self.covered(root_entry_id)
            self._asked = trio.Event()
            if not self._was_full and not self._has_strays:
                await self._asked.wait()
                continue
            with trio.move_on_after(0 if self._has_room else wait_s if self._was_full else _ROOM_POLL_S) as waiting:
                await self._asked.wait()
            if not waiting.cancelled_caught and not self._has_room:
                continue
            if self._has_strays:
                await self._sweep()
            if self._was_full:
                wait_s = _ROOM_POLL_S if self._has_room else min(2 * wait_s, 3600.0)
                self._full = self._was_full = False
                for branch in self.tree.branches.values():
                    self._to_cover.setdefault(branch.root_entry_id, False)
            self._has_room = False

    def _note_strays(self) -> None:
        """There may be watches that belong to no row: a minute later they are looked for."""
        if not self._has_strays:
            self._has_strays = True
            self._asked.set()

    async def _sweep(self) -> None:
        """End the watches that belong to no row."""
        self._has_strays = False
        for count, entry_id in enumerate(list(self._wd_of)):
            if count % _SWEPT == _SWEPT - 1:
                await trio.lowlevel.checkpoint()
            if entries.get(self.tree.store.db, entry_id) is None:
                self.forget(entry_id)
        numbers = await trio.to_thread.run_sync(self._inotify.watched)
        for wd in numbers - self._entry_of.keys():
            if not self._late:  # else a worker may be about to report it
                self._inotify.remove(wd)

    async def _cover_branch(self, root_entry_id: int) -> bool:
        """A few directories at a time, as long as there is room; while somebody asks, as much time is left for others.
        Returns whether a watch was set."""
        is_fresh = False
        level = [root_entry_id]
        began_s = time.monotonic()
        while level and not self._full:
            below: list[int] = []
            for entry_id in level:
                ref = self.tree.ref_of(entry_id)
                if ref is not None and not ref.branch.slow and ref.branch.state == LIVE:
                    is_fresh = self.look(ref) or is_fresh
                    below.extend(i for i, _ in entries.subdirectories(self.tree.store.db, entry_id))
                taken_s = time.monotonic() - began_s
                if taken_s > _COVER_SLICE_S:
                    await trio.sleep(taken_s if self.tree.pace.is_used else 0)
                    began_s = time.monotonic()
            level = below
        return is_fresh
