"""Volumes at run time: which are mounted, which of them we know, and the branches that come and go with them.

In: each new table of mounts (mountwatch.py). What has come or gone by text is noted at once; then the volumes are asked
who they are, each in a thread under a deadline, since one may be a dead server. From their fingerprints follow: the row
of a volume that is known, the connection of each branch to the volume that it lies on, and the new root of a branch
whose volume is mounted at another place than before. Its rows, numbers and tags stay, for they speak of the branch.

A copy of a file system has its UUID, and at first its marker. Seen beside the original it gets a marker of its own when
it carried one, and else counts as a volume without a lasting name. Seen alone it cannot be told from the original.

Kept out: what is asked and commanded (ops/volumes.py), and the way out (ejection.py).
"""

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from index.model.change import ORIGIN_SCAN
from index.model.ids import new_uuid
from index.scan.fsid import fs_identity_fd
from index.scan.mounts import Mount, is_within, mount_of, mounts
from index.store import places, volumes
from index.store.volumes import VolumeRow
from index.volumes import marker
from index.volumes.detect import Found, detect
from index.volumes.identity import Fingerprint, copy_of, fingerprint
from index.volumes.marker import Marker
from index.volumes.measure import Facts, measure
from vdfs.space.branches import MISSING, Branch
from vdfs.space.locations import Locations
from vdfs.space.presence import Presence
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.volumes")

#: How long a volume may take to say who it is.
ASK_DEADLINE_S = 5.0
#: How often it is looked whether the disks of what is mounted are still there.
LOST_S = 1.0
#: Threads that a dead file system may keep; nobody else waits for one of these. Dead servers do not keep disks waiting.
_threads = trio.CapacityLimiter(16)
_slow_threads = trio.CapacityLimiter(8)

_Key = tuple[str, ...]


@attrs.define(eq=False)
class Present:
    """One volume that is mounted just now. `facts` and `print` are None until it has said who it is."""

    found: Found
    facts: Facts | None = None
    print: Fingerprint | None = None
    row_id: int | None = None
    error: str | None = None
    is_lost: bool = False  # its disk was pulled out; the kernel still has it mounted


@attrs.frozen
class Volume:
    """A volume as it is told: its row, if it is known; what is mounted, if it is there."""

    fingerprint: str
    row: VolumeRow | None
    present: Present | None

    @property
    def is_online(self) -> bool:
        return self.present is not None and not self.present.is_lost

    @property
    def shown_name(self) -> str:
        """What it is called: by a person, by its label, by where it is."""
        names = [] if self.row is None else [self.row.name, self.row.label]
        point = b"" if self.row is None else self.row.mount_point
        if self.present is not None:
            point = self.present.found.mount_point
            names.append("" if self.present.facts is None else self.present.facts.label)
        names += [os.fsdecode(os.path.basename(point)), os.fsdecode(point)]
        return next((name for name in names if name), "")


class Volumes:
    """The volumes of one library. Used on the loop only."""

    def __init__(self, tree: Tree, locations: Locations, presence: Presence) -> None:
        self.tree = tree
        self.store = tree.store
        self.locations = locations
        self.presence = presence
        self._present: dict[_Key, Present] = {}
        self._unasked: set[_Key] = set()
        self._gone: dict[int, int] = {}  # rows of volumes that went -> when
        self._wake = trio.Event()
        self._lock = trio.Lock()
        self._boot_id = _boot_id()
        self.sys = Path("/sys")
        #: Told of a branch that has another root now.
        self.moved: Callable[[Branch], None] = lambda _: None

    # what is mounted --------------------------------------------------------------------------------------------------

    def refresh(self, table: list[Mount]) -> None:
        """Take a table of mounts: who is gone is offline from now on, who came is asked soon.

        Nothing is waited for and nothing is written: it may be in the middle of a unit that this is called.
        """
        found = {one.key: one for one in detect(table, self.sys)}
        for held in [one.found for one in self._present.values() if one.found.is_lost(self.sys)]:
            # What is still mounted of it is not another volume.
            found = {key: held if key[:-1] == held.key[:-1] else one for key, one in found.items()}
        found = {one.key: one for one in found.values()}
        for key in [key for key in self._present if key not in found]:
            gone = self._present.pop(key)
            if gone.row_id is not None:
                log.info("volume %s is offline", "" if gone.print is None else gone.print.short)
                self._gone[gone.row_id] = time.time_ns()
        for key, one in found.items():
            known = self._present.get(key)
            if known is None and one.in_memory:  # it has nothing to say of itself, and containers have hundreds
                said = fingerprint(one, "", None, self.store.device_uuid, self._boot_id)
                self._present[key] = Present(one, print=said)
            elif known is None:
                self._present[key] = Present(one)
                self._unasked.add(key)
            elif known.found != one:
                known.found = one
                if not one.in_memory:
                    self._unasked.add(key)
        self._unasked &= self._present.keys()
        self._mark(table)
        self._wake.set()

    def _mark(self, table: list[Mount]) -> None:
        """Tell each branch whether its volume is away, or was pulled out from under it."""
        there = {one.row_id for one in self._present.values() if not one.is_lost}
        for branch in self.tree.branches.values():
            branch.is_offline = branch.volume_id is not None and branch.volume_id not in there
            branch.is_ejected = branch.is_ejected and not branch.is_offline
            stands_on = self.at(branch.root_path, table)
            branch.is_lost = stands_on is not None and stands_on.is_lost

    async def run(self) -> None:
        """For ever: whenever something came or went, find out what it means.

        Disks are asked together, each server by itself: one that is dead keeps nobody else waiting.
        """
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                unasked = [self._present[key] for key in self._unasked]
                self._unasked.clear()
                nursery.start_soon(self._take_in, [one for one in unasked if not one.found.is_slow])
                for one in unasked:
                    if one.found.is_slow:
                        nursery.start_soon(self._take_in, [one])
                while not self._wake.is_set():
                    with trio.move_on_after(LOST_S):
                        await self._wake.wait()
                    self._look_for_lost()

    def _look_for_lost(self) -> None:
        """A disk that is pulled out leaves its file system mounted, and no table of mounts changes."""
        for one in self._present.values():
            is_lost = one.found.is_lost(self.sys)
            if is_lost != one.is_lost:
                how = "is gone" if is_lost else "is back"
                log.warning("the disk of %s %s", os.fsdecode(one.found.mount_point), how)
                one.is_lost = is_lost
                self._mark(mounts())
                self._wake.set()

    def added(self, _: Branch) -> None:
        """A branch came: it is connected soon."""
        self._wake.set()

    async def now(self) -> None:
        """Bring everything up to this moment, how full the disks are included."""
        self.refresh(mounts())
        wanted = [
            one for key, one in self._present.items()
            if key in self._unasked or one.print is None or not one.found.is_slow
        ]  # fmt: skip
        self._unasked.clear()
        await self._take_in(wanted)

    async def _take_in(self, asked: list[Present]) -> None:
        """Ask some volumes who they are; then look at the branches, connect and move them."""
        asked = [one for one in asked if not one.is_lost]
        async with trio.open_nursery() as nursery:
            for one in asked:
                nursery.start_soon(self._ask, one)
        async with self._lock:
            # Who stands where his row last saw him is the original of two.
            for one in sorted(asked, key=self._is_elsewhere):
                if self._present.get(one.found.key) is one:
                    await self._name(one)
            self._note_gone()
            for branch in list(self.tree.branches.values()):
                if not branch.slow:
                    await self.presence.look(branch)
            table = mounts()
            for branch in list(self.tree.branches.values()):
                await self._settle(branch, table, asked)
            self._mark(table)

    def _note_gone(self) -> None:
        gone, self._gone = self._gone, {}
        if gone:
            with self.store.write(ORIGIN_SCAN) as unit:
                for row_id, seen_ns in gone.items():
                    volumes.seen(unit.db, row_id, seen_ns)

    async def _ask(self, one: Present) -> None:
        limiter = _slow_threads if one.found.is_slow else _threads
        try:
            with trio.fail_after(ASK_DEADLINE_S):
                one.facts = await trio.to_thread.run_sync(measure, one.found, abandon_on_cancel=True, limiter=limiter)
                one.error = None
        except trio.TooSlowError:
            one.error = f"it did not answer within {ASK_DEADLINE_S:g} s"
        except OSError as error:
            one.error = error.strerror or str(error)

    def _first_print(self, one: Present) -> Fingerprint | None:
        if one.facts is None:
            if not one.found.is_slow:
                return None
            return fingerprint(one.found, "", None, self.store.device_uuid, self._boot_id)
        return fingerprint(one.found, one.facts.fs_uuid, one.facts.marker, self.store.device_uuid, self._boot_id)

    def _is_elsewhere(self, one: Present) -> bool:
        said = self._first_print(one)
        row = None if said is None else volumes.by_fingerprint(self.store.db, said.digest)
        return row is None or row.mount_point != one.found.mount_point

    async def _name(self, one: Present) -> None:
        """Give a volume its fingerprint, and its row if it is known."""
        said = self._first_print(one)
        if said is None:
            return
        others = (other for other in self._present.values() if other is not one and not other.is_lost)
        if any(other.print == said for other in others):
            said = await self._tell_apart(one, said)
        if one.print != said:
            log.info("volume %s is at %s", said.short, os.fsdecode(one.found.mount_point))
        one.print = said
        row = volumes.by_fingerprint(self.store.db, said.digest)
        one.row_id = None
        if row is not None:
            self.put(one)

    async def _tell_apart(self, one: Present, said: Fingerprint) -> Fingerprint:
        """The name of a copy beside its original: by a new marker where it carried one."""
        facts = one.facts
        is_disk = one.found.disk is not None  # a network folder that is mounted twice is no copy
        if is_disk and facts is not None and facts.marker is not None and not facts.is_read_only:
            own = Marker(os.urandom(16).hex(), facts.fs_uuid)
            try:
                await self.write_marker(one, own)
            except OSError as error:
                log.warning("the copy at %s could not be marked: %s", os.fsdecode(one.found.mount_point), error)
            else:
                return fingerprint(one.found, facts.fs_uuid, own, self.store.device_uuid, self._boot_id)
        return copy_of(said, one.found)

    async def write_marker(self, one: Present, new: Marker) -> None:
        """Mark a volume; raises OSError (ETIMEDOUT when it does not answer)."""
        assert one.facts is not None
        try:
            with trio.fail_after(2 * ASK_DEADLINE_S):
                await trio.to_thread.run_sync(
                    _write_marker, one.facts.mount.mount_point, new, abandon_on_cancel=True, limiter=_threads
                )
        except trio.TooSlowError:
            raise TimeoutError(110, "it did not answer") from None
        one.facts = attrs.evolve(one.facts, marker=new)

    def put(self, one: Present) -> VolumeRow:
        """The row of a volume, made or brought up to date."""
        assert one.print is not None
        now_ns = time.time_ns()
        facts = one.facts
        row = VolumeRow(
            0, new_uuid(), self.store.device_uuid, one.print.digest,
            "" if facts is None else facts.fs_uuid,
            None if facts is None or facts.marker is None else facts.marker.id,
            None, "" if facts is None else facts.label,
            one.found.volume_class, one.found.disk_type, one.found.fs_type, one.found.mount_point,
            0 if facts is None else facts.size_bytes, 0 if facts is None else facts.free_bytes,
            now_ns, now_ns, None, None, None, None,
        )  # fmt: skip
        with self.store.write(ORIGIN_SCAN) as unit:
            one.row_id = volumes.put(unit.db, row)
        stored = volumes.get(self.store.db, one.row_id)
        assert stored is not None
        for branch in self.tree.branches.values():
            if branch.volume_id == stored.id:
                branch.marker = stored.marker
        return stored

    # branches ---------------------------------------------------------------------------------------------------------

    async def _settle(self, branch: Branch, table: list[Mount], asked: list[Present]) -> None:
        """Connect a branch that is there to its volume; look for one that is not where its volume is by now.

        On a slow volume only if that has just answered: nobody else is to wait for a dead server.
        """
        if branch.state != MISSING:
            self._connect(branch, table)
        elif branch.volume_path is not None and not branch.is_ejected:
            there = [one for one in self._present.values() if one.row_id is not None and not one.is_lost]
            held = next((one for one in there if one.row_id == branch.volume_id), None)
            if held is not None and (not held.found.is_slow or (held in asked and held.error is None)):
                await self._find(branch, held)

    def _connect(self, branch: Branch, table: list[Mount]) -> None:
        one = self.at(branch.root_path, table)
        if one is None or one.print is None or one.print.is_ephemeral:
            return
        if one.row_id is None:
            self.put(one)
        assert one.row_id is not None
        if branch.volume_id == one.row_id:
            return
        mount = mount_of(branch.root_path, list(one.found.mounts))
        if mount is None:
            return
        path = _path_inside(mount, branch.root_path)
        row = volumes.get(self.store.db, one.row_id)
        with self.store.write(ORIGIN_SCAN) as unit:
            before, branch.volume_id, branch.volume_path = branch.volume_id, one.row_id, path
            places.set_branch_volume(unit.db, branch.id, one.row_id, path)
            if before is not None:
                volumes.drop_unused(unit.db, before)
        branch.marker = None if row is None else row.marker

    def at(self, path: bytes, table: list[Mount] | None = None) -> Present | None:
        """The volume that a real path lies on."""
        mount = mount_of(path, mounts() if table is None else table)
        if mount is None:
            return None
        return next((one for one in self._present.values() if any(m.id == mount.id for m in one.found.mounts)), None)

    async def _find(self, branch: Branch, held: Present) -> None:
        """The root of a branch at the places where its volume is mounted now."""
        assert branch.volume_path is not None
        for mount in held.found.mounts:
            if not is_within(branch.volume_path, mount.root):
                continue
            path = _path_at(mount, branch.volume_path)
            identity = None
            with trio.move_on_after(ASK_DEADLINE_S):
                identity = await trio.to_thread.run_sync(
                    partial(_identity_at, path, branch.fs_id, branch.root_ino, renumbers=mount.renumbers),
                    abandon_on_cancel=True, limiter=_threads,
                )  # fmt: skip
            is_as_before = (path, identity) == (branch.root_path, (branch.fs_id, branch.root_ino))
            if identity is None or branch.state != MISSING or is_as_before:
                continue
            log.warning("%s is at %s now", os.fsdecode(branch.root_path), os.fsdecode(path))
            table = mounts()
            with self.store.write(ORIGIN_SCAN) as unit:
                places.move_branch(unit.db, branch.id, path, *identity)
            branch.move(path, identity, table, self.locations.excluded(path, table, one_fs=branch.one_fs))
            self.tree.dirs.root(branch).st_ino = branch.root_ino
            branch.is_lost = False
            self.moved(branch)
            await self.presence.look(branch)
            return

    def on(self, one: Present) -> list[Branch]:
        """The branches that lie on a volume which is mounted now."""
        return [branch for branch in self.tree.branches.values() if self.at(branch.root_path) is one]

    # telling ----------------------------------------------------------------------------------------------------------

    def all(self) -> list[Volume]:
        """Every volume that is known or mounted: those of our rows first, then the rest by place."""
        lost_first = sorted(self._present.values(), key=lambda one: not one.is_lost)
        present = {one.print.digest: one for one in lost_first if one.print is not None}
        rows = volumes.volumes(self.store.db)
        told = [Volume(row.fingerprint, row, present.pop(row.fingerprint, None)) for row in rows]
        rest = sorted(present.items(), key=lambda pair: pair[1].found.mount_point)
        return [*told, *(Volume(digest, None, one) for digest, one in rest)]


def _path_inside(mount: Mount, path: bytes) -> bytes:
    """A path on a mount as a path in its file system."""
    return mount.root.rstrip(b"/") + path[len(mount.mount_point.rstrip(b"/")) :] or b"/"


def _path_at(mount: Mount, inside: bytes) -> bytes:
    """The other way round."""
    return (mount.mount_point.rstrip(b"/") + inside[len(mount.root.rstrip(b"/")) :]).rstrip(b"/") or b"/"


def _identity_at(path: bytes, fs_id: str, root_ino: int, *, renumbers: bool) -> tuple[str, int] | None:
    """(file system identity, inode) of the directory at a path when it is the root that is looked for, else None.

    It lies at the path of the root on the volume whose fingerprint is the one: that settles which file system it is, so
    a device number may be another, and where inodes are numbered anew at each mount the path must do for the root.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        now, number = fs_identity_fd(fd)
        is_file_system = now == fs_id or fs_id.startswith("dev:") or renumbers
        return (now, number) if is_file_system and (number == root_ino or renumbers) else None
    finally:
        os.close(fd)


def _write_marker(mount_point: bytes, new: Marker) -> None:
    fd = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        marker.write(fd, new)
    finally:
        os.close(fd)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return str(time.time_ns())
