"""Watch: changes behind the mount, from inotify to the index, directory by directory and name by name.

A directory is watched before it is first looked into for the kernel, so nothing the kernel is told for a day can change
unseen; the rest of the tree follows in the background. Events only say where to look: each name is stat-ed and mended
by the same functions as a lookup, and a row that already says what the disk says costs one stat and changes nothing,
which is all that our own changes cost. A new directory is handed on to be scanned. Overflow of the kernel's queue makes
every watched directory suspect.

Where the system allows no more watches, directories simply are not covered: the kernel is told to believe answers for a
second only, and that is said once in the log.
"""

import errno
import logging
import os
import time

import trio

from index.model.errors import Stale, Unreachable
from index.scan import inotify
from index.scan.inotify import Inotify, WatchLimitReached
from index.store import entries
from vdfs.space import syscalls
from vdfs.space.branches import LIVE, MISSING, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.watch")

#: Events are gathered this long before they are looked at: an editor's save is then one change.
GATHER_S = 0.02
#: Names looked at between two turns of the loop.
_SLICE = 64

_NAMES_GONE = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT


class Watch:
    """The watches of one library. Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._inotify = Inotify()
        self._entry_of: dict[int, int] = {}  # watch descriptor -> entry id of the directory
        self._wd_of: dict[int, int] = {}
        self._dirty: dict[int, set[bytes] | None] = {}
        self._full = False
        self.overflows = 0

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
        if known is not None:
            ref.watch = known
            return False
        if self._full or ref.branch.slow or ref.branch.state != LIVE:
            return False
        try:
            fd = self.tree.dirs.fd(ref)
            wd = self._inotify.add(os.fsencode(syscalls.proc_path(fd)))
        except WatchLimitReached as error:
            self._full = True
            log.warning("%s; directories beyond are believed for one second only", error)
            return False
        except (OSError, Stale, Unreachable):
            return False
        self._entry_of[wd] = ref.entry_id
        self._wd_of[ref.entry_id] = wd
        ref.watch = wd
        return True

    def forget(self, entry_id: int) -> None:
        wd = self._wd_of.pop(entry_id, None)
        if wd is not None:
            self._entry_of.pop(wd, None)
            self._inotify.remove(wd)

    def forget_branch(self, branch: Branch) -> None:
        """A branch went away or came back: its watches mean nothing any more."""
        for entry_id in list(self._wd_of):
            ref = self.tree.dirs.known(entry_id)
            row = entries.get(self.tree.store.db, entry_id) if ref is None else None
            if (ref is not None and ref.branch is branch) or (row is not None and row.branch_id == branch.id):
                self.forget(entry_id)
                if ref is not None:
                    ref.watch = -1

    # events -----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read events for ever."""
        while True:
            await trio.lowlevel.wait_readable(self._inotify.fd)
            self._gather()
            await trio.sleep(GATHER_S)
            self._gather()
            while self._dirty:
                entry_id, names = self._dirty.popitem()
                try:
                    await self._refresh(entry_id, names)
                except Exception:  # one directory's trouble must not blind the watcher
                    log.exception("a change in directory %d could not be taken in", entry_id)

    def _gather(self) -> None:
        for event in self._inotify.read():
            if event.mask & inotify.IN_Q_OVERFLOW:
                self._overflow()
                continue
            entry_id = self._entry_of.get(event.wd)
            if entry_id is None:
                continue
            if event.mask & inotify.IN_IGNORED:
                self._entry_of.pop(event.wd, None)
                self._wd_of.pop(entry_id, None)
                ref = self.tree.dirs.known(entry_id)
                if ref is not None:
                    ref.watch = -1
                continue
            if event.mask & _NAMES_GONE:
                self._gone(entry_id)
                continue
            if not event.name:
                continue
            names = self._dirty.setdefault(entry_id, set())
            if names is not None:
                names.add(event.name)

    def _overflow(self) -> None:
        self.overflows += 1
        log.warning("the kernel's event queue overflowed; all watched directories are looked at again")
        for entry_id in self._wd_of:
            self._dirty[entry_id] = None

    def _gone(self, entry_id: int) -> None:
        """A watched directory itself was removed, moved or unmounted: its branch's root is looked at again."""
        ref = self.tree.dirs.known(entry_id)
        if ref is not None:
            self.tree.dirs.close(ref)
        for branch in self.tree.branches.values():
            if branch.root_entry_id == entry_id:
                branch.check()

    async def _refresh(self, entry_id: int, names: set[bytes] | None) -> None:
        ref = self.tree.ref_of(entry_id)
        if ref is None or ref.branch.state == MISSING:
            return
        try:
            if names is None:
                await self.tree.list_part(ref)
                self.tree.found_dir(ref)
                return
            await self._refresh_names(ref, names)
        except FileNotFoundError:
            return
        except (Stale, Unreachable, NotADirectoryError, PermissionError):
            return
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ENOTCONN, errno.ESTALE):
                log.exception("a change in directory %d could not be read", entry_id)

    async def _refresh_names(self, ref: DirRef, names: set[bytes]) -> None:
        """Names that are there first: an addition may turn out to be the move of one that is gone."""
        gone: list[bytes] = []
        for count, name in enumerate(sorted(names)):
            if count % _SLICE == _SLICE - 1:
                await trio.lowlevel.checkpoint()
            if ref.hides(name):
                continue
            try:
                with self.tree.dirs.opened(ref) as fd:
                    st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                gone.append(name)
                continue
            row = entries.child(self.tree.store.db, ref.entry_id, name)
            if row is not None and row.matches(st):
                continue
            if row is not None:
                node = self.tree.nodes.get(row.node)
                if node is not None and node.st_is_ours(st):
                    continue  # a write through the mount; close() will write the row
            self.tree.mend(ref, name, row, st)
        for name in gone:
            row = entries.child(self.tree.store.db, ref.entry_id, name)
            if row is not None:
                self.tree.mend(ref, name, row, None)

    async def cover_all(self) -> None:
        """Watch every directory of every live branch, in the background, a few at a time."""
        for branch in list(self.tree.branches.values()):
            if branch.slow or branch.state != LIVE:
                continue
            level = [branch.root_entry_id]
            while level and not self._full:
                below: list[int] = []
                for entry_id in level:
                    ref = self.tree.ref_of(entry_id)
                    if ref is None:
                        continue
                    began_s = time.monotonic()
                    self.look(ref)
                    below.extend(i for i, _ in entries.subdirectories(self.tree.store.db, entry_id))
                    await trio.sleep(min(0.01, (time.monotonic() - began_s) * 2))
                level = below
