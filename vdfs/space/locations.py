"""Locations: adding, removing and listing the directories that a library shows; which branches there are.

Adding is instant (a location row, a branch row and the row of its root) and the scan runs behind. What cannot be a
location is refused with the reason; what contains us (a home directory around the mount point or the data directory)
is fine, and the inner paths are skipped by name before they are ever touched. Removing forgets rows and never touches
a user's file; a location that other devices hold too stays theirs.

Branches and locations of other devices come, change and go by their rows; `follow` brings what runs up to date.
"""

import contextlib
import os
import shlex
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from index.model import change
from index.model.change import ORIGIN_CALL, ORIGIN_SYNC
from index.model.entry import Stat
from index.model.errors import AccessDenied, Deadline, Exists, Invalid, NotADirectory, NotFound, Unsupported, VdfsError
from index.model.ids import new_uuid
from index.model.inode import DEVICES
from index.scan import recording
from index.scan.fsid import fs_identity
from index.scan.mounts import Mount, is_inside, is_within, mount_of, mounts
from index.scan.volumes import root_stat, use_devices, words_of
from index.store import devices, entries, places, volumes
from index.store.store import Store
from vdfs.space.branches import LIVE, OFFLINE, Branch
from vdfs.space.remotes import RemoteBranch
from vdfs.space.roots import root_row
from vdfs.space.tree import Tree

T = TypeVar("T")

_DELETE_ROWS = 2000
_LOOK_DEADLINE_S = 10.0
#: Threads that a dead file system may keep; nobody else waits for one of these.
_threads = trio.CapacityLimiter(8)
_NAME_MAX_BYTES = 255


@attrs.frozen
class Added:
    """A branch that was just added."""

    name: bytes
    uuid: bytes
    branch: Branch


async def _asked(path: bytes, look: Callable[[], T]) -> T:
    """What must be asked of a directory itself, which may lie on a dead server."""
    with trio.move_on_after(_LOOK_DEADLINE_S):
        return await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=_threads)
    raise Deadline(f"{os.fsdecode(path)} did not answer within {_LOOK_DEADLINE_S:g} s; its file system may be dead")


class Locations:
    """The locations of one library. Used on the loop only."""

    def __init__(self, tree: Tree, data_dir: Path, mountpoint: bytes | None) -> None:
        self.tree = tree
        self.store: Store = tree.store
        self.data_dir = os.path.realpath(os.fsencode(data_dir))
        self.mountpoint = mountpoint
        #: Told of each branch that is added while the library is open.
        self.added: Callable[[Branch], None] = lambda _: None

    def load(self) -> None:
        """Make the branches of all rows."""
        table = mounts()
        names = {row.id: row.name for row in places.locations(self.store.db)}
        modes = {row.id: row.mode for row in places.locations(self.store.db)}
        own = [row for row in places.branches(self.store.db) if row.device_uuid == self.store.device_uuid]
        use_devices((), words_of(table, [row.root_path for row in own]))
        for row in own:
            if row.scan_state == places.LEAVING or row.location_id not in {None, *names}:
                continue
            location = None if row.location_id is None else names[row.location_id]
            branch = Branch(row, location, table, self.excluded(row.root_path, table, one_fs=bool(row.one_fs)))
            self._follow_mode(branch, modes.get(row.location_id or 0, places.MODE_CONTENT))
            volume = None if row.volume_id is None else volumes.get(self.store.db, row.volume_id)
            branch.marker = None if volume is None else volume.marker
            self.tree.check(branch)
            self.tree.add_branch(branch)
        for other in self._remotes():
            self.tree.add_branch(other)
        self.tree.join_tops()

    def _remotes(self) -> list[RemoteBranch]:
        """The branches of other devices, as the rows have them. One whose root has not come yet is left out."""
        db = self.store.db
        names = {row.id: row.name for row in places.locations(db)}
        owners = {row.uuid: row for row in devices.every(db)}
        return [
            RemoteBranch(
                row, None if row.location_id is None else names[row.location_id], owners[row.device_uuid],
                is_online=self.tree.is_online(row.device_uuid),
            )
            for row in places.branches(db)
            if row.device_uuid != self.store.device_uuid and row.root_entry_id and row.scan_state != places.GONE
            and (row.location_id is None or row.location_id in names)
        ]  # fmt: skip

    # following other devices -----------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Rows of devices, locations or branches were changed by another device: what runs becomes what they say, and
        whoever shows names that are not so any more looks again."""
        tree, db = self.tree, self.store.db
        tree.rename_device(devices.slug(db, self.store.device_uuid))
        rows = {row.id: row for row in places.locations(db)}
        changed: dict[bytes, None] = {}
        for branch in list(tree.branches.values()):
            if branch.location is None or branch.location_id is None:
                continue
            row = rows.get(branch.location_id)
            if row is None:
                changed[branch.location] = None
                await self._let_go(branch)
                continue
            if row.name != branch.location:
                changed[branch.location] = changed[row.name] = None
                tree.relocate(branch, row.name)
            if row.mode != branch.mode:
                self._follow_mode(branch, row.mode)
        for name in self._follow_remotes():
            changed[name] = None
        tree.join_tops()
        home = tree.home
        if home is not None and changed:
            with self.store.write(ORIGIN_SYNC) as unit:
                for name in changed:
                    held = tree.locations.get(name)
                    what, entry_id = (change.ADDED, held[0].root_entry_id) if held else (change.REMOVED, 0)
                    unit.changed(what, home.id, entry_id, home.root_entry_id, name, 0)
            for name in changed:  # who stands in it has it with the parts that it has now
                with contextlib.suppress(OSError, VdfsError):
                    await tree.lookup(tree.root, name)
        self._touch()

    def _follow_remotes(self) -> list[bytes]:
        """Bring the branches of other devices up to date; returns the names at the top that are made of others now."""
        tree = self.tree
        wanted = {branch.id: branch for branch in self._remotes()}
        changed: list[bytes | None] = []
        for known in list(tree.remotes.values()):
            now = wanted.get(known.id)
            if now is not None and (now.root_entry_id, now.location) == (known.root_entry_id, known.location):
                if (now.slug, now.label) != (known.slug, known.label):  # names of conflicts have them
                    tree.branch_changed(known)
                known.follow(now)
                del wanted[known.id]
                continue
            tree.branch_changed(known)
            tree.drop_branch(known)
            changed.append(known.location)
        for branch in wanted.values():
            tree.add_branch(branch)
            changed.append(branch.location)
            if branch.location is None:
                tree.tell_again(tree.dirs.root(branch))
        return [name for name in changed if name is not None]

    def excluded(self, root: bytes, table: list[Mount], *, one_fs: bool = False) -> list[bytes]:
        """Paths below a root that are never looked at: mounts of ours, pseudo file systems, the data directory; and
        with `one_fs` whatever another file system is mounted on."""
        on_top = {m.mount_point: m for m in table}  # of several at one place the last is seen
        here = mount_of(root, table) if one_fs else None
        out = [
            m.mount_point for m in on_top.values()
            if m.is_own or m.is_pseudo or (here is not None and m.device != here.device)
        ]  # fmt: skip
        if not is_within(root, self.data_dir):
            out.append(self.data_dir)
        if self.mountpoint is not None:
            out.append(self.mountpoint)
        return out

    # adding -----------------------------------------------------------------------------------------------------------

    async def add(self, path: bytes, name: bytes | None, *, one_fs: bool = False) -> Added:
        """Make a directory a branch of the location `name` (of its own name by default).

        `one_fs`: what other file systems are mounted in it is left out.
        """
        table = mounts()
        real, fs_id, root_ino, root_st = await _asked(path, lambda: self._look(path, table))
        return self._add(real, os.fsdecode(path), name, table, fs_id, root_ino, root_st, one_fs=one_fs)

    async def real(self, path: bytes) -> bytes:
        """A path without symlinks."""
        return await _asked(path, lambda: os.path.realpath(path))

    def _look(self, path: bytes, table: list[Mount]) -> tuple[bytes, str, int, Stat]:
        """Everything that must be asked of the directory itself: a thread's work."""
        real = self._acceptable(path, table)
        fs_id, root_ino = fs_identity(real)
        return real, fs_id, root_ino, root_stat(real)

    def _add(
        self,
        real: bytes,
        shown: str,
        name: bytes | None,
        table: list[Mount],
        fs_id: str,
        root_ino: int,
        root_st: Stat,
        *,
        one_fs: bool,
    ) -> Added:
        given = name is not None
        # A symlink was named by whoever made it.
        location = os.path.basename(os.path.normpath(os.fsencode(shown))) or os.path.basename(real)
        location = location if name is None else name
        self._check_name(location, shown)
        for branch in self.tree.branches.values():  # of other devices nothing lies here
            self._refuse_overlap(real, shown, branch, table, (fs_id, root_ino))
        use_devices(DEVICES.roots, words_of(table, [real, *(b.root_path for b in self.tree.branches.values())]))
        if not given and location in self.tree.locations:
            raise Exists(
                f"there is a location {os.fsdecode(location)} already; "
                f"sd location add {shlex.quote(shown)} --name NAME gives it another name, or the same to merge both"
            )
        label = self._label(real, location)
        held = next((row for row in places.locations(self.store.db) if row.name == location), None)
        with self.store.write(ORIGIN_CALL) as unit:
            if held is None:
                uuid = new_uuid()
                location_id = places.put_location(unit, uuid, location)
            else:
                uuid, location_id = held.uuid, held.id
            branch_id = places.put_branch(
                unit.db, new_uuid(), location_id, unit.device, label, real, fs_id, root_ino, one_fs=one_fs
            )
            row = root_row(unit, branch_id, root_st)
            twin = self._root_twin(location)
            if twin is not None:
                row = row._replace(node=twin[0], uuid=twin[1] or row.uuid)
            entries.insert(unit.db, row)
            places.set_branch_root(unit.db, branch_id, row.id)
            places.tell_branch(unit, branch_id)
            home = self.tree.home
            if home is not None:
                unit.changed(change.ADDED, home.id, row.id, home.root_entry_id, location, row.node)
        stored = next(b for b in places.branches(self.store.db) if b.id == branch_id)
        branch = Branch(stored, location, table, self.excluded(real, table, one_fs=one_fs))
        self._follow_mode(branch, places.MODE_CONTENT if held is None else held.mode)
        self.tree.add_branch(branch)
        self.added(branch)
        self._touch()
        return Added(location, uuid, branch)

    def _root_twin(self, location: bytes) -> tuple[int, bytes | None] | None:
        """Number and uuid that the top directory of a name has already."""
        for branch in self.tree.locations.get(location, []):
            row = entries.get(self.store.db, branch.root_entry_id)
            if row is not None:
                return row.node, row.uuid
        if self.tree.home is not None:
            row = entries.child(self.store.db, self.tree.home.root_entry_id, location)
            if row is not None:
                return row.node, row.uuid
        return None

    def _acceptable(self, path: bytes, table: list[Mount]) -> bytes:
        """The real path of a directory that can be a location, or the reason why it cannot."""
        shown = os.fsdecode(path)
        for mount in table:  # by name first: a stat of our own mount would wait for us
            if mount.is_own and is_within(os.path.normpath(path), mount.mount_point):
                raise Invalid(f"{shown} lies in a mount of sdmount; give the real directory behind it")
        if self.mountpoint is not None and is_within(os.path.normpath(path), self.mountpoint):
            raise Invalid(f"{shown} lies in this mount; give the real directory behind it")
        real = os.path.realpath(path)
        for mount in table:
            if mount.is_own and is_within(real, mount.mount_point):
                raise Invalid(f"{shown} lies in a mount of sdmount; give the real directory behind it")
        try:
            st = os.stat(real)
        except FileNotFoundError:
            raise NotFound(f"{shown} does not exist") from None
        except PermissionError:
            raise AccessDenied(f"{shown} cannot be reached: no permission") from None
        except OSError as error:
            raise Invalid(f"{shown} cannot be read: {error.strerror}") from error
        if not stat.S_ISDIR(st.st_mode):
            raise NotADirectory(f"{shown} is no directory; a location is a directory")
        if not os.access(real, os.R_OK | os.X_OK):
            raise AccessDenied(f"{shown} cannot be read: no permission to list it")
        mount_here = mount_of(real, table)
        if mount_here is not None and mount_here.is_pseudo:
            raise Unsupported(
                f"{shown} lies on a pseudo file system ({mount_here.fs_type}), which holds no files to keep"
            )
        if is_within(real, self.data_dir):
            raise Invalid(f"{shown} lies in sdmount's own data directory, which is never a location")
        return real

    def _check_name(self, name: bytes, shown: str) -> None:
        if not name or b"/" in name or b"\0" in name or name in (b".", b"..", b".vdfs") or len(name) > _NAME_MAX_BYTES:
            what = os.fsdecode(name) or shown
            raise Invalid(f"{what!r} cannot be the name of a location; say another with --name NAME")

    def _refuse_overlap(
        self, real: bytes, shown: str, branch: Branch, table: list[Mount], identity: tuple[str, int]
    ) -> None:
        other = branch.root_path
        where = os.fsdecode(other)
        name = "the library's store" if branch.location is None else f"the location {os.fsdecode(branch.location)}"
        if real == other:
            raise Exists(f"{shown} is {name} already")
        if branch.location is None:
            return
        if is_within(real, other):
            raise Exists(f"{shown} lies inside {name} ({where}), which shows it already")
        if is_within(other, real):
            command = f"sd location remove {shlex.quote(os.fsdecode(branch.location))}"
            raise Exists(f"{shown} contains {name} ({where}); remove that one first: {command}")
        if branch.state != LIVE:
            return
        if identity == (branch.fs_id, branch.root_ino):
            raise Exists(f"{shown} is {name} already: one directory, mounted there and at {where}")
        if not branch.slow and (is_inside(real, other, table) or is_inside(other, real, table)):
            raise Exists(f"{shown} and {name} ({where}) show the same files: one is in the other, by another mount")

    def _label(self, real: bytes, location: bytes) -> str:
        """A short name that tells the branches of one location apart: the last components of their paths."""
        used = {b.label for b in self.tree.of_location(location)}
        parts = [p.decode("utf-8", "replace") for p in real.split(b"/") if p]
        for count in range(1, len(parts) + 1):
            label = "-".join(parts[-count:])
            if label not in used:
                return label
        return f"{'-'.join(parts)}-{len(used) + 1}"

    def unknown(self, name: bytes) -> NotFound:
        known = ", ".join(sorted(os.fsdecode(n) for n in self.tree.locations)) or "none"
        return NotFound(f"there is no location {os.fsdecode(name)} (there are: {known})")

    def set_mode(self, name: bytes, mode: int) -> None:
        """How far the files of a location are looked into from now on."""
        rows = [r for r in places.locations(self.store.db) if r.name == name]
        if not rows:
            raise self.unknown(name)
        with self.store.write(ORIGIN_CALL) as unit:
            for row in rows:
                places.set_mode(unit, row.id, mode)
        for branch in self.tree.of_location(name):
            self._follow_mode(branch, mode)

    def _follow_mode(self, branch: Branch, mode: int) -> None:
        branch.mode = mode
        if mode == places.MODE_SHALLOW:
            self.store.shallow.add(branch.id)
        else:
            self.store.shallow.discard(branch.id)

    # removing ---------------------------------------------------------------------------------------------------------

    async def remove(self, name: bytes) -> int:
        """Forget a location and its branches here; returns how many. No file is touched. What other devices hold of it
        stays, and the location with it: ReadOnly where that is all there is."""
        held = self.tree.of_location(name)
        others = [branch for branch in self.tree.remotes.values() if branch.location == name]
        if others and not held:
            raise others[0].refusal(name)
        rows = [r for r in places.locations(self.store.db) if r.name == name]
        if not rows:
            raise self.unknown(name)
        for branch in held:
            await self.tree.forget_watches(branch)
            self.tree.drop_branch(branch)
        home = self.tree.home
        with self.store.write(ORIGIN_CALL) as unit:
            for branch in held:
                places.set_scan_state(unit.db, branch.id, places.LEAVING)
                top = entries.get(unit.db, branch.root_entry_id)
                if top is not None:
                    recording.leave_to_others(unit, top.node)
            for row in rows:
                if all(branch.location_id != row.id for branch in others):
                    places.remove_location(unit, row.id)
            if home is not None:
                unit.changed(change.REMOVED, home.id, 0, home.root_entry_id, name, 0)
        self._touch()
        for branch in held:
            await self._forget_rows(branch)
        return len(held)

    async def _let_go(self, branch: Branch) -> None:
        """The location of a branch of ours was removed by another device."""
        await self.tree.forget_watches(branch)
        self.tree.branch_changed(branch)
        self.tree.drop_branch(branch)
        await self._forget_rows(branch)

    async def finish_removals(self) -> None:
        """Forget what a removal that was interrupted left behind."""
        live = {row.id for row in places.locations(self.store.db)}
        for row in places.branches(self.store.db):
            is_gone = row.scan_state == places.LEAVING or row.location_id not in {None, *live}
            if is_gone and row.device_uuid == self.store.device_uuid:
                await self._forget_rows(Branch(row, None, [], []))

    async def _forget_rows(self, branch: Branch) -> None:
        """Delete the rows of a branch from the leaves up, a page at a time."""
        while True:
            with self.store.write(ORIGIN_CALL) as unit:
                ids = [
                    r[0]
                    for r in unit.db.execute(
                        "SELECT id FROM entry e WHERE branch_id=? AND NOT EXISTS "
                        "(SELECT 1 FROM entry c WHERE c.parent_id = e.id) LIMIT ?",
                        (branch.id, _DELETE_ROWS),
                    )
                ]
                for entry_id in ids:
                    entries.delete(unit.db, entry_id)
            await trio.lowlevel.checkpoint()
            if not ids:
                break
        with self.store.write(ORIGIN_CALL) as unit:
            places.tell_branch_gone(unit, branch.uuid)
            places.delete_branch(unit.db, branch.id)
            if branch.volume_id is not None:
                volumes.drop_unused(unit.db, branch.volume_id)

    def _touch(self) -> None:
        self.tree.root.names_changed()


def location_state(branch: Branch, row: places.BranchRow) -> str:
    """One word for a branch: its own state, or what its scan is at."""
    if branch.is_remote:
        return branch.away
    if branch.state == LIVE:
        return row.scan_state
    return OFFLINE if branch.away == OFFLINE else branch.state
