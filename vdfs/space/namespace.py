"""Namespace: what changes names, on disk first and in the index in the same step.

Every function does its system calls on the branch, then one unit that writes the rows, with no await between the two on
a fast branch: what a reply acknowledges is in both. A new name goes to the branch that holds the parent; deletion acts
on the logical entry, that is on every local replica: all are checked before any is changed (checks.py). What lies on a
branch that is away is refused before anything happens, and so is what other devices alone hold; in a directory of
theirs new names are made on a branch of ours. Renaming and attributes are next door (rename.py,
attributes.py).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

import trio

from index.model.change import ORIGIN_MOUNT
from index.model.entry import KIND_DIR, KIND_FILE, Entry, Stat
from index.model.errors import (
    CrossBranch,
    Exists,
    NoSpace,
    NotADirectory,
    NotEmpty,
    NotFound,
    NotPermitted,
    Stale,
    Unreachable,
)
from index.model.inode import inode_of
from index.scan import apply, recording
from index.store import entries, leaving, links
from index.store.unit import Unit
from vdfs.space import journal, syscalls
from vdfs.space.annotations import Annotations
from vdfs.space.backups import Backups
from vdfs.space.branches import CALL_DEADLINE_S, DISK_THREADS, LIVE, MISSING, Branch, let_go
from vdfs.space.checks import (
    check_name,
    check_there,
    check_writable,
    os_error,
    own_parts,
    own_spots,
    part_on,
    same_location,
)
from vdfs.space.departures import leads_of, leave_name
from vdfs.space.dirs import DirRef
from vdfs.space.locations import Locations
from vdfs.space.nodes import AnyStat, Node, Spot, removed_stat
from vdfs.space.sameness import certain, is_as_it_was, rows_of
from vdfs.space.tree import Tree

SYNC_DEADLINE_S = 10.0
_CREATE_FLAGS = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY


class Caller(NamedTuple):
    """Who asked: a new file becomes theirs. `pid` only links the steps of one program."""

    uid: int
    gid: int
    umask: int
    pid: int = 0


class Namespace:
    """Changes to the tree. Used on the loop only."""

    def __init__(self, tree: Tree, annotations: Annotations, locations: Locations, create_policy: str = "here") -> None:
        self.tree = tree
        self.annotations = annotations
        self.locations = locations
        self.store = tree.store
        self.create_policy = create_policy
        self._as_root = os.geteuid() == 0
        self.backups = Backups(tree)

    # where things go --------------------------------------------------------------------------------------------------

    async def place_for_new(self, parent: Node) -> DirRef:
        """The directory that takes a new name: of the branch that holds the parent, made in the store if none does. In
        a directory that other devices alone have it is made in our branch of that location, if there is one."""
        if parent.removed is not None or self.tree.is_gone(parent):
            raise NotFound("the directory was removed")
        live = [p for p in parent.parts if p.branch.state == LIVE]
        folders = [p for p in live if not p.branch.is_store]
        if not folders and any(not p.branch.is_store and not p.branch.is_remote for p in parent.parts):
            raise Unreachable(f"the volume of {os.fsdecode(parent.name)} is away")
        if not live and parent.parts and (ours := self._ours_at(parent)):
            there = next((branch for branch in ours if branch.state == LIVE), None)
            if there is None:
                raise Unreachable(f"the volume of {os.fsdecode(parent.path()[0])} is away")
            return await self.ensure_dir(parent, there)
        folders = folders or live
        if self.create_policy == "mfs" and len(folders) > 1:
            return max(folders, key=_free_bytes)
        if folders:
            return folders[0]
        if self.tree.home is None or self.tree.home.state != LIVE or not parent.parts:
            raise Unreachable(f"no branch that holds {os.fsdecode(parent.name)} is there")
        return await self.ensure_dir(parent, self.tree.home)

    def _ours_at(self, node: Node) -> list[Branch]:
        """The branches of this device that hold the location in which a directory is."""
        path = node.path()
        return self.tree.of_location(path[0]) if path else []

    async def ensure_dir(self, node: Node, branch: Branch) -> DirRef:
        """The directory of a node on a branch; it and its missing parents are made, with the mode of the others."""
        part = part_on(node, branch)
        if part is not None:
            return part
        if node.parent is None:
            raise CrossBranch("the root of the library lies in its store alone")
        if node.parent is self.tree.root and branch.location == node.name:
            return self.tree.dirs.root(branch)
        if node.parent is self.tree.root and not branch.is_store:
            raise CrossBranch(f"{os.fsdecode(node.name)} is another location")
        above = await self.ensure_dir(node.parent, branch)
        like = await self.tree.stat(node)
        name = node.name

        def make() -> os.stat_result:
            with self.tree.dirs.opened(above) as fd:
                try:
                    os.mkdir(name, stat.S_IMODE(like.st_mode) | 0o700, dir_fd=fd)
                    if self._as_root:
                        os.chown(name, like.st_uid, like.st_gid, dir_fd=fd, follow_symlinks=False)
                except FileExistsError:
                    pass
                return os.stat(name, dir_fd=fd, follow_symlinks=False)

        st = await branch.call(CALL_DEADLINE_S, make)
        if not stat.S_ISDIR(st.st_mode):
            raise NotADirectory(f"{os.fsdecode(name)} is no directory on {branch.label}")
        found = self.tree.mend(above, name, entries.child(self.store.db, above.entry_id, name), st)
        assert found is not None
        first = entries.get(self.store.db, node.parts[0].entry_id) if node.parts else None
        if found.row.id in (part.entry_id for part in node.parts):
            return part_on(node, branch) or self.tree.dirs.child(above, found.row.id, name, found.row.st_ino)
        if first is not None:
            with self.store.write(ORIGIN_MOUNT) as unit:
                recording.meet(unit, found.row, node.ino)
                if first.uuid is not None:
                    entries.set_uuid(unit.db, found.row.id, first.uuid, unit.seq)
        ref = self.tree.dirs.child(above, found.row.id, name, found.row.st_ino)
        node.parts = tuple(sorted((*node.parts, ref), key=lambda part: part.branch.is_remote))
        node.names_changed()
        return ref

    async def _refuse_if_there(self, parent: Node, name: bytes) -> None:
        self.store.refuse_if_full()
        if any(ref.hides(name) for ref in parent.parts):
            raise NotPermitted(f"{os.fsdecode(name)} is taken by what is not shown: a mount, or the library's own data")
        if len(parent.parts) > 1 or parent is self.tree.root or any(p.branch.is_remote for p in parent.parts):
            try:
                await self.tree.lookup(parent, name)
            except NotFound:
                return
            raise Exists(f"{os.fsdecode(name)} is there already")

    # making -----------------------------------------------------------------------------------------------------------

    async def create(self, parent: Node, name: bytes, flags: int, mode: int, who: Caller) -> tuple[Node, AnyStat, int]:
        """Make and open a regular file; returns its node, attributes and the open descriptor, now the caller's."""
        check_name(name)
        await self._refuse_if_there(parent, name)
        ref = await self.place_for_new(parent)

        def make() -> tuple[int, os.stat_result]:
            with self.tree.dirs.opened(ref) as dir_fd:
                above = os.fstat(dir_fd)
                wanted = _mode_in(above, mode & 0o7777, who, directory=False)
                fd = os.open(name, flags | _CREATE_FLAGS, wanted, dir_fd=dir_fd)
                try:
                    return fd, self._own(fd, above, wanted, who)
                except BaseException:
                    os.close(fd)
                    os.unlink(name, dir_fd=dir_fd)
                    raise

        self.tree.before_look(ref)
        fd, st = await ref.branch.call(CALL_DEADLINE_S, make, drop=let_go)
        try:
            node = self._added(parent, ref, name, st, who.pid)
        except BaseException:
            ref.branch.close(fd)
            raise
        return node, st, fd

    async def mkdir(self, parent: Node, name: bytes, mode: int, who: Caller) -> tuple[Node, AnyStat]:
        check_name(name)
        await self._refuse_if_there(parent, name)
        ref = await self.place_for_new(parent)

        def make() -> os.stat_result:
            with self.tree.dirs.opened(ref) as dir_fd:
                wanted = _mode_in(os.fstat(dir_fd), mode & 0o7777, who, directory=True)
                os.mkdir(name, wanted, dir_fd=dir_fd)
                try:
                    self._own_name(dir_fd, name, who)
                    st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                    if stat.S_IMODE(st.st_mode) != wanted:
                        syscalls.change_mode(dir_fd, name, wanted)
                        st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                except BaseException:
                    os.rmdir(name, dir_fd=dir_fd)
                    raise
                return st

        self.tree.before_look(ref)
        st = await ref.branch.call(CALL_DEADLINE_S, make)
        return self._added(parent, ref, name, st, who.pid), st

    async def symlink(self, parent: Node, name: bytes, target: bytes, who: Caller) -> tuple[Node, AnyStat]:
        check_name(name)
        await self._refuse_if_there(parent, name)
        ref = await self.place_for_new(parent)

        def make() -> os.stat_result:
            with self.tree.dirs.opened(ref) as dir_fd:
                os.symlink(target, name, dir_fd=dir_fd)
                self._own_name(dir_fd, name, who)
                return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

        self.tree.before_look(ref)
        st = await ref.branch.call(CALL_DEADLINE_S, make)
        return self._added(parent, ref, name, st, who.pid), st

    async def mknod(self, parent: Node, name: bytes, mode: int, who: Caller) -> tuple[Node, AnyStat]:
        """A regular file, fifo or socket; devices are never made (the mount is nodev)."""
        check_name(name)
        if stat.S_IFMT(mode) not in (stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
            raise NotPermitted("device nodes are not kept in a library")
        await self._refuse_if_there(parent, name)
        ref = await self.place_for_new(parent)

        def make() -> os.stat_result:
            with self.tree.dirs.opened(ref) as dir_fd:
                os.mknod(name, mode, dir_fd=dir_fd)
                self._own_name(dir_fd, name, who)
                syscalls.change_mode(dir_fd, name, _mode_in(os.fstat(dir_fd), mode & 0o7777, who, directory=False))
                return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

        self.tree.before_look(ref)
        st = await ref.branch.call(CALL_DEADLINE_S, make)
        return self._added(parent, ref, name, st, who.pid), st

    async def link(self, node: Node, parent: Node, name: bytes) -> tuple[Node, AnyStat]:
        """A second name of a file, on its own branch."""
        check_name(name)
        if node.is_dir:
            raise NotPermitted("a directory cannot have a second name")
        await self._refuse_if_there(parent, name)
        ours = own_spots(node)
        spot = next((s for s in self.tree.replicas(node) if s.dir.branch.state == LIVE), None)
        if spot is None:
            check_there(ours)
            raise Stale(f"{os.fsdecode(node.name)} is not there any more")
        branch = spot.dir.branch
        ref = part_on(parent, branch)
        if ref is None:
            if not same_location(node, parent, self.tree.root):
                raise CrossBranch("a hard link cannot leave its file system")
            ref = await self.ensure_dir(parent, branch)
        target = ref

        def make() -> os.stat_result:
            with self.tree.dirs.opened(spot.dir) as src_fd, self.tree.dirs.opened(target) as dst_fd:
                # fd() of the second may have closed the first only if the table is one entry large
                os.link(spot.name, name, src_dir_fd=src_fd, dst_dir_fd=dst_fd, follow_symlinks=False)
                return os.stat(name, dir_fd=dst_fd, follow_symlinks=False)

        self.tree.before_look(target)
        st = await branch.call(CALL_DEADLINE_S, make)
        with self.store.write(ORIGIN_MOUNT) as unit:
            old = entries.get(unit.db, spot.entry_id)
            for replica in entries.by_node(unit.db, node.ino) if old is None or entries.is_shared(unit.db, old) else []:
                if replica.branch_id != branch.id and (now := entries.get(unit.db, replica.id)) is not None:
                    recording.alone(unit, now)
            if old is not None and (now := entries.get(unit.db, old.id)) is not None:
                apply.change_row(unit, now, Stat.of(st), branch.uuid)  # it may have been written to and not be closed
            self._make_way(unit, target, name, st)
            row = apply.add(
                unit, branch.id, target.entry_id, name, Stat.of(st), self.tree,
                node=node.ino, uuid=old.uuid if old else None,
            )  # fmt: skip
            row = recording.restat_twins(unit, row, Stat.of(st))
        parent.names_changed()
        node.face = None
        node.links = node.links or set()
        node.links.update((*node.spots, Spot(target, name, row.id)))
        return node, st

    def _added(self, parent: Node, ref: DirRef, name: bytes, st: os.stat_result, pid: int) -> Node:
        """Write the row of what was just made and return its node; what cannot be written down is unmade."""
        try:
            return self._written_down(parent, ref, name, st, pid)
        except NoSpace:
            if not ref.branch.slow:
                with contextlib.suppress(OSError), self.tree.dirs.opened(ref) as fd:
                    (os.rmdir if stat.S_ISDIR(st.st_mode) else os.unlink)(name, dir_fd=fd)
            raise

    def _written_down(self, parent: Node, ref: DirRef, name: bytes, st: os.stat_result, pid: int) -> Node:
        heir = self.backups.heir(parent, name, pid)
        with self.store.write(ORIGIN_MOUNT) as unit:
            self._make_way(unit, ref, name, st)
            row = apply.add(unit, ref.branch.id, ref.entry_id, name, Stat.of(st), self.tree, fresh=True)
            if heir is not None and row.kind == KIND_FILE:
                self.backups.hand_over(unit, heir, [row], uuid=row.uuid)
        parent.names_changed()
        node, _ = self.tree.node_of(parent, name, ref, row, st)
        if node.is_dir:  # somebody may put files into it behind the mount before anyone looks
            self.tree.before_look(node.parts[0])
        return node

    def _make_way(self, unit: Unit, ref: DirRef, name: bytes, st: os.stat_result) -> None:
        """What the index has under a name that was just made vanished behind the mount; it may be elsewhere.

        Nobody had looked yet, or the row waits for the other half of a rename.
        """
        old = entries.child(unit.db, ref.entry_id, name)
        if old is not None:
            apply.remove(unit, old, ref.branch.uuid, keep=old.st_ino != inode_of(st))

    def _own(self, fd: int, above: os.stat_result, wanted: int, who: Caller) -> os.stat_result:
        """Owner, group and mode of a new file as the caller's ids, the umask and a setgid directory say."""
        st = os.fstat(fd)
        if self._as_root:
            gid = above.st_gid if above.st_mode & stat.S_ISGID else who.gid
            if (st.st_uid, st.st_gid) != (who.uid, gid):
                os.fchown(fd, who.uid, gid)
                st = os.fstat(fd)
        if stat.S_IMODE(st.st_mode) != wanted:
            os.fchmod(fd, wanted)
            st = os.fstat(fd)
        return st

    def _own_name(self, dir_fd: int, name: bytes, who: Caller) -> None:
        if self._as_root:
            above = os.fstat(dir_fd)
            gid = above.st_gid if above.st_mode & stat.S_ISGID else who.gid
            os.chown(name, who.uid, gid, dir_fd=dir_fd, follow_symlinks=False)

    # unmaking ---------------------------------------------------------------------------------------------------------

    async def unlink(self, parent: Node, name: bytes) -> Node:
        """Remove a name from every local replica; what is open stays readable by its handles. What other devices have
        under the name is hidden (leaving.py)."""
        node, _ = await self.tree.lookup(parent, name)
        if node.is_dir:
            raise os_error(errno.EISDIR)
        ours = own_spots(node)
        stale = [spot for spot in node.stale_spots if not spot.dir.branch.is_remote]
        check_there([*ours, *stale])
        # Of this name only: a lookup leaves hard-linked twins in `links`.
        was = rows_of(self.tree, [*ours[1:], *stale])
        doomed = [*await certain(self.tree, ours), *stale]
        check_writable(self.tree, [s.dir for s in doomed])
        self.tree.keep_ghost(node)
        leads = await leads_of(self.tree, doomed)
        rows = list(rows_of(self.tree, doomed).values())
        with journal.Noted(self.store, "unlink", [s.entry_id for s in doomed], leaves=self.tree.is_held_beside(rows)):
            gone = []
            for spot in doomed:
                self.tree.before_look(spot.dir)
                if await spot.dir.branch.call(CALL_DEADLINE_S, self._unlink_one, spot, was.get(spot.entry_id)):
                    self._removed(spot, None if node.ghost_fd < 0 else os.fstat(node.ghost_fd), rows, leads)
                    gone.append(spot)
                else:
                    self.tree.look_at(spot.dir.entry_id, spot.name)
        parent.names_changed()
        self.dropped(node, gone)
        return node

    def _unlink_one(self, spot: Spot, was: Entry | None) -> bool:
        """Take a replica's name away; not if it has been another file since it `was` seen, of which nobody spoke."""
        with self.tree.dirs.opened(spot.dir) as fd:
            if was is not None:
                try:
                    now = os.stat(spot.name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    return False
                if not is_as_it_was(was, now):
                    return False
            os.unlink(spot.name, dir_fd=fd)
        return True

    async def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory from every branch of ours; a location at the root is forgotten, its folder stays.

        One in which others alone have names is not empty; one that others have too, without names that show, is hidden.
        """
        node, _ = await self.tree.lookup(parent, name)
        if not node.is_dir:
            raise NotADirectory(f"{os.fsdecode(name)} is no directory")
        parts = [p for p in node.parts if not p.branch.is_remote]
        away = [p for p in parts if p.branch.state != LIVE]
        if away:
            raise Unreachable(f"{os.fsdecode(name)} lies partly on {away[0].branch.label}, which is away")
        await self.refuse_if_not_empty(node)
        own_parts(node)
        last = removed_stat(await self.tree.stat(node))
        hanging = [(ref, ref.parent) for ref in parts if ref.parent is not None]
        check_writable(self.tree, [above for _, above in hanging])
        held = self.tree.held_as(node)
        rows = [row for row in (entries.get(self.store.db, ref.entry_id) for ref, _ in hanging) if row is not None]
        with journal.Noted(self.store, "rmdir", [row.id for row in rows], leaves=self.tree.is_held_beside(rows)):
            for ref, above in hanging:
                await self.remove_directory(ref, above)
        for one in held:
            one.vanished(last)
        parent.names_changed()
        if parent is self.tree.root and self.tree.of_location(name):
            await self.locations.remove(name)

    async def refuse_if_not_empty(self, node: Node) -> None:
        """NotEmpty when a part of a directory is not. Of an only one that may not be listed the call itself says it."""
        for ref in node.parts:
            try:
                listed = await self.tree.list_part(ref)
            except PermissionError:
                if len(node.parts) > 1:  # what would be done to the others could not be taken back
                    raise
                continue
            if listed:
                raise NotEmpty(f"{os.fsdecode(node.name)} is not empty")

    async def remove_directory(self, ref: DirRef, above: DirRef) -> None:
        """Remove one branch's empty directory and its row."""

        def remove() -> None:
            with self.tree.dirs.opened(above) as fd:
                os.rmdir(ref.name, dir_fd=fd)

        await above.branch.call(CALL_DEADLINE_S, remove)
        self._removed(Spot(above, ref.name, ref.entry_id))
        self.tree.dirs.close(ref)

    def _removed(
        self,
        spot: Spot,
        left: os.stat_result | None = None,
        together: Sequence[Entry] = (),
        leads: leaving.Targets | None = None,
    ) -> None:
        """A name is gone; `left` is what its inode is like now, `together` are the replicas that go, `leads` says where
        those lead that are links."""
        row = entries.get(self.store.db, spot.entry_id)
        if row is None:
            return
        self.store.following(lambda: self._remove_row(row, spot.dir.branch.uuid, left, together or [row], leads))

    def _remove_row(
        self,
        row: Entry,
        branch_uuid: bytes,
        left: os.stat_result | None,
        together: Sequence[Entry],
        leads: leaving.Targets | None,
    ) -> None:
        with self.store.write(ORIGIN_MOUNT) as unit:
            leave_name(unit, [row], together, leads)
            self.backups.take_back(unit, row)
            linked = row.kind != KIND_DIR and row.nlink > 1
            apply.remove(unit, row, branch_uuid, keep=linked)
            now = Stat.of(left) if linked and left is not None else row.stat
            if now._replace(ctime_ns=row.ctime_ns, nlink=row.nlink) == row.stat and now != row.stat:
                links.set_stat(unit.db, row, now, unit.seq, 1)  # else each is looked at when somebody comes by
            self.look_beside(unit, row)

    def look_beside(self, unit: Unit, row: Entry) -> None:
        """Names of a file in other locations, whose link went here, are looked at: what they hear of is elsewhere."""
        if row.nlink < 2 or row.kind == KIND_DIR:
            return
        for other in links.beside(unit.db, row.branch_id, row.st_ino):
            if other.parent_id is not None:
                self.tree.look_at(other.parent_id, other.name)

    def dropped(self, node: Node, spots: list[Spot]) -> None:
        if node.links is not None:
            node.links.difference_update(spots)
            left = [s for s in node.links if s not in spots]
            node.spots = tuple(left[:1])
        else:
            node.spots = ()
        node.stale_spots = ()

    async def sync_dir(self, node: Node) -> None:
        """fsync of a directory on every live branch, and of the index, in threads."""

        def sync(ref: DirRef) -> None:
            fd = ref.branch.open_root()
            try:
                for step in ref.chain()[1:]:
                    below = os.open(step.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
                    os.close(fd)
                    fd = below
                os.fsync(fd)
            finally:
                os.close(fd)

        for ref in node.parts:
            if ref.branch.slow and ref.branch.state != MISSING:
                await ref.branch.call(SYNC_DEADLINE_S, sync, ref)
            elif ref.branch.state == LIVE:
                await trio.to_thread.run_sync(sync, ref, limiter=DISK_THREADS)
        await self.store.make_durable()


def _mode_in(above: os.stat_result, mode: int, who: Caller, *, directory: bool) -> int:
    """The mode of a new name in a directory: the umask applied, setgid as the kernel would give or take it."""
    mode &= ~who.umask
    if above.st_mode & stat.S_ISGID:
        if directory:
            mode |= stat.S_ISGID
        elif mode & stat.S_IXGRP and mode & stat.S_ISGID and who.uid != 0 and who.gid != above.st_gid:
            mode &= ~stat.S_ISGID
    return mode


def _free_bytes(ref: DirRef) -> int:
    if ref.branch.slow:
        return -1
    try:
        vfs = os.statvfs(ref.branch.root_path)
    except OSError:
        return -1
    return vfs.f_bavail * vfs.f_frsize
