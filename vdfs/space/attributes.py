"""Attributes: chmod, chown, truncate and utimes of a logical entry, on every local replica and in the index at once.

A request of the kernel is about an inode, and names come and go behind it. So each replica is opened by its name
without being followed (O_PATH), held against the inode that is meant, and changed by that descriptor: what has the name
since a moment ago is never hit. Stale makes the kernel look the name up again; a file that has no name left is changed
by what is open of it.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from index.model.change import ORIGIN_MOUNT, ORIGIN_SCAN
from index.model.entry import HASH_NONE, KIND_FILE, Entry, Stat
from index.model.errors import NotFound, Stale, Unreachable
from index.model.inode import inode_of
from index.scan import apply, recording
from index.store import entries
from vdfs.space import journal, syscalls
from vdfs.space.branches import CALL_DEADLINE_S, LIVE, MISSING
from vdfs.space.checks import check_not_read_only, check_there, own_parts, own_spots
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import AnyStat, Node, RowStat, Spot
from vdfs.space.sameness import certain
from vdfs.space.tree import Tree

#: Whether what a name leads to is the file that a request is about.
IsMeant = Callable[[os.stat_result], bool]


class Wanted(NamedTuple):
    """The attributes a setattr asks for; None leaves one alone."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size_bytes: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    times_now: bool = False


class Attributes:
    """Changes of what stat tells. Used on the loop only."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.store = tree.store

    async def set(self, node: Node, wanted: Wanted) -> AnyStat:
        """Change every local replica, the size of the shown one; returns the attributes after that."""
        if node.removed is not None:
            _change_removed(node.removed, wanted)
            return node.removed
        if node.is_dir:
            await self._set_dir(node, wanted)
            st = await self.tree.stat(node)
        else:
            check_there(own_spots(node))
            spots = [spot for spot in self.tree.replicas(node) if not spot.dir.branch.is_remote]
            check_there(spots)  # asking may have shown that one is away
            if not spots:
                return await self._set_nameless(node, wanted)
            st = await self._set_file(node, await certain(self.tree, spots), wanted)
        self.note(node, st, data=wanted.size_bytes is not None)
        return st

    async def _set_dir(self, node: Node, wanted: Wanted) -> None:
        if not node.parts:
            raise NotFound(f"{os.fsdecode(node.name)} was removed")
        ours = own_parts(node)
        parts = [ref for ref in ours if ref.branch.state == LIVE]
        if not parts and any(ref.branch.state == MISSING for ref in ours):
            raise Unreachable(f"{os.fsdecode(node.name)} lies on a branch that is away")
        check_not_read_only(self.tree, parts)
        with self._noted([ref.entry_id for ref in parts], wanted):
            for ref in parts:
                await ref.branch.call(CALL_DEADLINE_S, self._apply_to_dir, ref, wanted)

    async def _set_file(self, node: Node, spots: list[Spot], wanted: Wanted) -> AnyStat:
        check_not_read_only(self.tree, [spot.dir for spot in spots])
        first = spots[0]
        before: os.stat_result | None = None
        if wanted.size_bytes is not None:
            before = await first.dir.branch.call(
                CALL_DEADLINE_S, self._truncate, first.dir, first.name, self.tree.meant(node, first), wanted.size_bytes
            )
        with self._noted([spot.entry_id for spot in spots], wanted):
            for spot in spots:
                is_meant = self.tree.meant(node, spot)
                was = await spot.dir.branch.call(CALL_DEADLINE_S, self._apply, spot.dir, spot.name, is_meant, wanted)
                before = before or was
        st = await self.tree.stat(node)
        if before is not None and node.is_as_told(before):
            node.changed(st)
        return st

    async def _set_nameless(self, node: Node, wanted: Wanted) -> AnyStat:
        """Change a file by a descriptor: nothing is left of its names, or none is known."""
        if node.handles:
            handle = node.handles[-1]
            await handle.call(CALL_DEADLINE_S, _change_open, handle.fd, wanted)
        elif node.ghost_fd >= 0:
            _change_open(node.ghost_fd, wanted)
        else:
            raise Stale(f"{os.fsdecode(node.name)} is not there any more")
        node.face = None
        return await self.tree.stat(node)

    def _noted(self, rows: list[int], wanted: Wanted) -> journal.Noted:
        return journal.Noted(self.store, "attributes", rows, wanted._replace(size_bytes=None)._asdict())

    # into the index ---------------------------------------------------------------------------------------------------

    def note(self, node: Node, st: AnyStat, *, data: bool, wrote: bool = False) -> None:
        """Write what a request of the kernel changed into the shown replica's row (all replicas' for attributes).

        `wrote`: bytes were written to it, whatever its stat says.
        """
        node.face = None
        if not isinstance(st, os.stat_result):
            return
        if node.is_dir:
            ours = [ref for ref in node.parts if not ref.branch.is_remote]
            for ref in ours:
                row = entries.get(self.store.db, ref.entry_id)
                if row is not None and len(ours) == 1 and row.mode != st.st_mode:
                    with self.store.write(ORIGIN_MOUNT) as unit:
                        apply.change_row(unit, row, Stat.of(st), ref.branch.uuid)
            return
        # Whose name was removed while it was open may have others that nobody has looked at.
        spots = node.spots if node.spots and not node.links else self.tree.replicas(node)
        wrote = wrote or any(handle.wrote for handle in node.handles)
        for spot in spots:
            row = entries.get(self.store.db, spot.entry_id)
            if row is None or row.st_ino != inode_of(st):
                continue  # a handle is of what was open, which may not be the one that is shown
            if row.matches(st) and not (wrote and row.hash_state):
                break
            # Who has it by another number than it has now is not who holds that one.
            origin = ORIGIN_MOUNT if row.node == node.ino else ORIGIN_SCAN
            self.store.following(partial(self._note_row, row, Stat.of(st), spot.dir.branch.uuid, wrote, origin))
            break
        for spot in node.spots[1:] if not data else []:
            self._remend(spot)

    def _note_row(self, row: Entry, st: Stat, branch_uuid: bytes, wrote: bool, origin: str) -> None:
        """Whoever gives a file its size and mtime back after a write, here or on the disk, leaves no other trace."""
        with self.store.write(origin) as unit:
            now = recording.restat_twins(unit, apply.change_row(unit, row, st, branch_uuid), st)
            if now.kind == KIND_FILE and now.hash_state != HASH_NONE and (wrote or self._was_written(now)):
                recording.doubt(unit, now)

    def _was_written(self, row: Entry) -> bool:
        return row.parent_id is not None and bool(self.tree.was_written(row.parent_id, row.name))

    def _remend(self, spot: Spot) -> None:
        branch = spot.dir.branch
        if branch.slow or branch.state != LIVE:
            return
        try:
            with self.tree.dirs.opened(spot.dir) as fd:
                st = os.stat(spot.name, dir_fd=fd, follow_symlinks=False)
        except OSError:
            return
        self.tree.mend(spot.dir, spot.name, entries.get(self.store.db, spot.entry_id), st)

    # on the disk ------------------------------------------------------------------------------------------------------

    def complete(self, ref: DirRef, row: Entry, arguments: dict[str, Any]) -> None:
        """Do to one replica what was asked of all before a kill; Stale when it is another file now."""
        wanted = Wanted(**arguments)
        if row.id == ref.entry_id:
            self._apply_to_dir(ref, wanted)
        else:
            self._apply(ref, row.name, lambda st: inode_of(st) == row.st_ino, wanted)

    def _apply_to_dir(self, ref: DirRef, wanted: Wanted) -> None:
        with self.tree.dirs.opened(ref) as fd:
            _change(fd, wanted)

    def _apply(self, ref: DirRef, name: bytes, is_meant: IsMeant, wanted: Wanted) -> os.stat_result:
        with self._opened(ref, name, os.O_PATH, is_meant) as (fd, before):
            _change(fd, wanted)
        return before

    def _truncate(self, ref: DirRef, name: bytes, is_meant: IsMeant, size_bytes: int) -> os.stat_result:
        with self._opened(ref, name, os.O_WRONLY | os.O_NONBLOCK, is_meant) as (fd, before):
            os.ftruncate(fd, size_bytes)
        return before

    @contextmanager
    def _opened(self, ref: DirRef, name: bytes, flags: int, is_meant: IsMeant) -> Iterator[tuple[int, os.stat_result]]:
        """A descriptor of the file that is meant, and what it is like; Stale when another one has its name."""
        with self.tree.dirs.opened(ref) as dir_fd:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            st = os.fstat(fd)
            if not is_meant(st):
                raise Stale(f"{os.fsdecode(name)} is another file now")
            yield fd, st
        finally:
            os.close(fd)


def _change_removed(last: RowStat, wanted: Wanted) -> None:
    """A directory that was removed is what is remembered of it, for who holds it: nothing of it is on a disk."""
    last.st_mode = last.st_mode if wanted.mode is None else stat.S_IFMT(last.st_mode) | stat.S_IMODE(wanted.mode)
    last.st_uid = last.st_uid if wanted.uid is None else wanted.uid
    last.st_gid = last.st_gid if wanted.gid is None else wanted.gid
    last.st_atime_ns = last.st_atime_ns if wanted.atime_ns is None else wanted.atime_ns
    last.st_mtime_ns = last.st_mtime_ns if wanted.mtime_ns is None else wanted.mtime_ns
    last.st_ctime_ns = time.time_ns()


def _change_open(fd: int, wanted: Wanted) -> None:
    """All that is wanted of a file that is open, for whatever it was opened."""
    if wanted.size_bytes is not None:
        writable = os.open(syscalls.proc_path(fd), os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.ftruncate(writable, wanted.size_bytes)
        finally:
            os.close(writable)
    _change(fd, wanted)


def _change(fd: int, wanted: Wanted) -> None:
    """Owner, mode and times of what a descriptor names, in the order in which none undoes another."""
    path = syscalls.proc_path(fd)
    if wanted.uid is not None or wanted.gid is not None:
        os.chown(path, -1 if wanted.uid is None else wanted.uid, -1 if wanted.gid is None else wanted.gid)
    if wanted.mode is not None:
        os.chmod(path, stat.S_IMODE(wanted.mode))
    if wanted.atime_ns is not None or wanted.mtime_ns is not None:
        try:
            syscalls.set_times(path, wanted.atime_ns, wanted.mtime_ns)
        except PermissionError:
            if not wanted.times_now:
                raise
            syscalls.touch_now(path)
