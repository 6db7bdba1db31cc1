"""Ejecting a volume: let go of it, then unmount it, and say who else holds it when that fails.

In: a volume that is mounted. When this returns, its places are unmounted and everything is on the disk; else an error
says why not, and the library goes on with the volume as before. The way: what people have open through the mount is
named and refuses the eject; then no directory of its branches is opened any more, descriptors and watches are closed,
workers that read it are stopped and waited for. Of several places none is unmounted before all are free, where that can
be told; then umount(2), never lazily; and at last it is looked whether the volume is mounted anywhere else, in another
mount namespace or beneath another mount: then it must not be pulled, and that is said.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from index.model.errors import Busy, Deadline, NotPermitted, VdfsError
from index.scan.mounts import Mount, is_within, mounts
from index.scan.workers import WorkerPool
from index.volumes.detect import PRIMARY, SYSTEM, USER_DATA
from index.volumes.holders import Holder, held_by, holders, images_on, mounted_below, still_mounted
from index.volumes.unmount import is_held, unmount
from vdfs.space.branches import Branch
from vdfs.space.halts import Halts
from vdfs.space.nodes import Node
from vdfs.space.volumes import Present, Volume, Volumes

#: How long our own workers may take to let go, and how long others may: a desktop looks at what it shows.
_WORKERS_S = 5.0
_BUSY_S = 2.0
_LOOK_S = 0.05
#: How long the system may take to write back what a slow stick still lacks.
UNMOUNT_S = 300.0
_NAMED = 3
#: Threads that a disk may keep which does not take what is written back to it; nobody else waits for one of these.
_threads = trio.CapacityLimiter(4)

T = TypeVar("T")


class Ejector:
    """Used on the loop only."""

    def __init__(self, volumes: Volumes, halts: Halts, pool: WorkerPool) -> None:
        self.volumes = volumes
        self.tree = volumes.tree
        self.presence = volumes.presence
        self.halts = halts
        self.pool = pool

    async def eject(self, volume: Volume) -> list[bytes]:
        """Unmount a volume; returns the places where it was. Busy names who holds it."""
        one = volume.present
        assert one is not None
        name = volume.shown_name
        places = [mount.mount_point for mount in one.found.mounts]
        self._refuse(name, one, places)
        branches = self._inside(places)
        self._refuse_open(name, branches, places)
        on_it = self.volumes.on(one)
        for branch in on_it:
            branch.is_ejected = True
        try:
            await self._let_go(branches, places)
            await self._workers_out(places)
            await self._all_free(name, one, branches, places)
            await self._unmount_all(name, one, branches, places)
            await self._nowhere_else(name, one, places)
        except BaseException:
            with trio.CancelScope(shield=True):
                for branch in on_it:
                    branch.is_ejected = False
                await self.volumes.now()
            raise
        await self.volumes.now()
        return places

    def _refuse(self, name: str, one: Present, places: list[bytes]) -> None:
        if one.found.volume_class in (PRIMARY, SYSTEM, USER_DATA):
            raise NotPermitted(f"{name} is a part of the running system ({one.found.volume_class}) and stays mounted")
        for place in places:
            if is_within(self._data_dir, place) and self.volumes.at(self._data_dir) is one:
                raise NotPermitted(f"{name} holds this library; end it first: sdumount")
        below = mounted_below(places, mounts(), one.found.device)
        if below:
            raise Busy(f"{name} cannot be ejected: another file system is mounted on it at {os.fsdecode(below[0])}")

    @property
    def _data_dir(self) -> bytes:
        return self.volumes.locations.data_dir

    def _inside(self, places: list[bytes]) -> list[Branch]:
        """The branches on a volume, and those that contain a place where it is mounted."""
        return [
            branch for branch in self.tree.branches.values()
            if any(is_within(branch.root_path, place) or is_within(place, branch.root_path) for place in places)
        ]  # fmt: skip

    def _refuse_open(self, name: str, branches: list[Branch], places: list[bytes]) -> None:
        """What somebody has open through the mount would be cut off."""
        ids = {branch.id for branch in branches}
        mine = os.getpid()
        if not any(_is_below(path, places) for path in held_by(mine, places)):
            return
        open_files = [node for node in self.tree.nodes.values() if _is_open(node, ids, places)]
        if open_files:
            shown = ", ".join(os.fsdecode(b"/".join(node.path())) for node in open_files[:_NAMED])
            more = f" and {len(open_files) - _NAMED} more" if len(open_files) > _NAMED else ""
            raise Busy(f"{name} cannot be ejected: {shown}{more} is open through the mount; close it first")

    async def _let_go(self, branches: list[Branch], places: list[bytes]) -> None:
        """Stop what reads it, close descriptors and watches."""
        for branch in branches:
            self.halts.stop(branch.id)
            if branch.is_ejected:
                await self.presence.look(branch)
                self.tree.dirs.close_branch(branch)
            else:
                self.tree.dirs.settle(branch)
            for inner in branch.inner.values():
                self.tree.dirs.close_branch(inner)
        for node in list(self.tree.nodes.values()):
            if node.ghost_fd >= 0 and _is_below(_path_of(node.ghost_fd), places):
                node.drop_ghost()

    async def _workers_out(self, places: list[bytes]) -> None:
        """Wait until no worker has anything of it open."""
        with trio.move_on_after(_WORKERS_S):
            while any(held_by(pid, places) for pid in self.pool.pids()):  # noqa: ASYNC110  (nothing announces it)
                await trio.sleep(_LOOK_S)

    async def _all_free(self, name: str, one: Present, branches: list[Branch], places: list[bytes]) -> None:
        """Of several places none goes before all can; one with another place of the volume on it cannot be asked."""
        if len(places) == 1:
            return
        until_s = trio.current_time() + _BUSY_S
        inside = {mount.parent for mount in one.found.mounts}
        for mount in one.found.mounts:
            while mount.id not in inside and await self._waited_for(name, is_held, mount):
                if trio.current_time() > until_s:
                    raise await self._why(name, mount, OSError(errno.EBUSY, os.strerror(errno.EBUSY)), places)
                await trio.sleep(_LOOK_S)
                await self._let_go(branches, places)

    async def _unmount_all(self, name: str, one: Present, branches: list[Branch], places: list[bytes]) -> None:
        gone: list[bytes] = []
        try:
            # What lies inside another place goes before it. Ids do not tell: the kernel gives them again.
            for mount in sorted(one.found.mounts, key=lambda m: len(m.mount_point), reverse=True):
                await self._unmount(name, mount, branches, places)
                gone.append(mount.mount_point)
        except VdfsError as error:
            if not gone:
                raise
            raise type(error)(f"{error}; it was unmounted from {_listed(gone)} already") from error

    async def _unmount(self, name: str, mount: Mount, branches: list[Branch], places: list[bytes]) -> None:
        until_s = trio.current_time() + _BUSY_S
        while True:
            try:
                await self._waited_for(name, unmount, mount)
            except OSError as error:
                if error.errno != errno.EBUSY or trio.current_time() > until_s:
                    raise await self._why(name, mount, error, places) from error
            else:
                return
            await trio.sleep(_LOOK_S)
            await self._let_go(branches, places)

    async def _waited_for(self, name: str, call: Callable[[Mount], T], mount: Mount) -> T:
        """What may have to wait for the disk, in a thread, for so long."""
        try:
            with trio.fail_after(UNMOUNT_S):
                return await trio.to_thread.run_sync(call, mount, abandon_on_cancel=True, limiter=_threads)
        except trio.TooSlowError:
            raise Deadline(
                f"{name} is still being written to after {UNMOUNT_S:g} s; leave it plugged in, its unmounting goes on"
            ) from None

    async def _nowhere_else(self, name: str, one: Present, places: list[bytes]) -> None:
        """It is gone from here: whether it may be pulled depends on who else has it mounted. A server is not pulled."""
        found = one.found
        if found.is_slow and found.disk is None:
            return
        until_s = trio.current_time() + _BUSY_S
        look = partial(still_mounted, found.device, found.fs_type)
        while left := await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=_threads):
            if trio.current_time() > until_s:
                shown = ", ".join(_has_it(holder) for holder in left[:_NAMED])
                more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
                raise Busy(
                    f"{name} was unmounted from {_listed(places)}, but must not be pulled yet: "
                    f"it is still mounted {shown}{more}"
                )
            await trio.sleep(_LOOK_S)

    async def _why(self, name: str, mount: Mount, error: OSError, places: list[bytes]) -> Exception:
        where = os.fsdecode(mount.mount_point)
        if error.errno == errno.EBUSY:
            found = await trio.to_thread.run_sync(holders, places, limiter=_threads)
            held = [f"{h.program} ({h.pid}) holds {os.fsdecode(h.path)}" for h in found]
            held += [f"{device} lies in a file on it" for device in images_on(places)]
            who = ", ".join(held[:_NAMED])
            more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
            return Busy(f"{name} cannot be ejected: {who or 'somebody who cannot be seen holds it'}{more}")
        if error.errno in (errno.EPERM, errno.EACCES):
            return NotPermitted(f"{name} cannot be ejected: this user may not unmount {where}; sudo umount {where}")
        return Busy(f"{name} cannot be ejected: {where}: {error.strerror}")


def _listed(places: list[bytes]) -> str:
    return ", ".join(os.fsdecode(place) for place in places)


def _has_it(holder: Holder) -> str:
    place = os.fsdecode(holder.path)
    if holder.pid == os.getpid():
        return f"at {place}, where something else hides it or it was mounted anew"
    return f"at {place} in the mount namespace of {holder.program} ({holder.pid})"


def _is_below(path: bytes, places: list[bytes]) -> bool:
    return any(is_within(path, place) for place in places)


def _path_of(fd: int) -> bytes:
    try:
        return os.readlink(b"/proc/self/fd/%d" % fd)
    except OSError:
        return b""


def _is_open(node: Node, branch_ids: set[int], places: list[bytes]) -> bool:
    return any(h.branch.id in branch_ids and _is_below(_path_of(h.fd), places) for h in node.handles)
