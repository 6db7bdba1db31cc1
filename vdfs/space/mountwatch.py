"""What is mounted below the branches' roots, followed: the kernel tells of mounts nowhere but in a table.

inotify is silent when a stick is mounted on a directory that is known, and a mount of our own (a bind of it, a chroot)
must be hidden before anybody looks into it, because the server would wait for itself. So a thread waits for the table
to change, and whoever reaches for a directory on the loop asks first whether it has (`DirTable.before_reach`, half a
microsecond). Then every branch is told at once what is not to be looked at and what is slow in it (`Branch.place`), and
directories are opened anew; after that the names where something came or went are looked at again, and what lay there
before leaves the index. Volumes that come and go as a whole hear of the same (`changed`, volumes.py).

Source: proc_pid_mountinfo(5), poll(2): POLLPRI on /proc/self/mountinfo.
"""

import logging
import os
import select
from collections.abc import Callable

import trio

from index.model.entry import Entry
from index.scan.mounts import Mount, is_within, mounts
from index.scan.volumes import use_devices, words_of
from index.store import entries
from vdfs.space.branches import LIVE, Branch
from vdfs.space.locations import Locations
from vdfs.space.tree import Tree
from vdfs.space.watch import Watch

log = logging.getLogger("sdmount.mounts")

#: How long the thread waits at a time; whoever ends the task leaves it behind for no longer.
_POLL_MS = 500
#: How often a slow file system inside a branch is asked what its root is like.
_INNER_S = 2.0

#: What is mounted at a place.
_What = tuple[int, str, str]


class MountWatch:
    """Follows the table of mounts. Used on the loop only."""

    def __init__(self, tree: Tree, watch: Watch, locations: Locations) -> None:
        self.tree = tree
        self.watch = watch
        self.locations = locations
        self._known: dict[int, dict[bytes, _What]] = {}
        #: Told of every table of mounts that is not the one before.
        self.changed: Callable[[list[Mount]], None] = lambda _: None
        self._changed: list[tuple[Branch, bytes]] = []  # places that wait to be looked at again
        self._wake = trio.Event()
        self._table = open("/proc/self/mountinfo", "rb")  # noqa: SIM115  (held until close())
        self._poll = select.poll()
        self._poll.register(self._table, select.POLLPRI)
        self.refresh()
        tree.dirs.before_reach = self._reach

    def close(self) -> None:
        self.tree.dirs.before_reach = lambda: None
        self._table.close()

    async def run(self) -> None:
        """For ever: wait for a change, take it in."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ask_inner)
            nursery.start_soon(self._listen)
            while True:
                while self._changed:
                    branch, point = self._changed.pop(0)
                    log.info("what is mounted at %s changed", os.fsdecode(point))
                    await self._look_again(branch, point)
                self._wake = trio.Event()
                await self._wake.wait()

    async def _listen(self) -> None:
        """A descriptor is told of each change once: the thread has one of its own."""
        with open("/proc/self/mountinfo", "rb") as table:
            poll = select.poll()
            poll.register(table, select.POLLPRI)
            self._reach()  # this descriptor is not told of what changed before it was opened
            while True:
                if await trio.to_thread.run_sync(poll.poll, _POLL_MS, abandon_on_cancel=True):
                    self._reach()

    def _reach(self) -> None:
        if self._poll.poll(0):
            self.refresh()

    def refresh(self) -> None:
        """Hold what is mounted against what was, and see to it at once that nobody goes where he must not."""
        table = mounts()
        changed: list[tuple[Branch, set[bytes]]] = []
        for branch in list(self.tree.branches.values()):
            below = _below(branch.root_path, table)
            before = self._known.get(branch.id, below)
            self._known[branch.id] = below
            points = {point for point, _ in before.items() ^ below.items()}
            excluded = self.locations.excluded(branch.root_path, table, one_fs=branch.one_fs)
            if branch.place(table, excluded) or points:
                changed.append((branch, points))
        if changed:
            self._use_devices(table)
            for branch, points in changed:
                self._settle(branch, points)
                self._changed.extend((branch, point) for point in sorted(points))
            self._wake.set()
        try:  # last: whoever is told has no say in what a request may reach for
            self.changed(table)
        except Exception:
            log.exception("what is mounted now could not be taken in")

    def added(self, branch: Branch) -> None:
        """A branch came: what is mounted below its root is taken as it is, and what comes later is a change."""
        self._known[branch.id] = _below(branch.root_path, mounts())

    def moved(self, branch: Branch) -> None:
        """A branch has another root now: the same goes for that."""
        table = mounts()
        self._known[branch.id] = _below(branch.root_path, table)
        self._use_devices(table)
        self.tree.dirs.settle(branch)

    def _use_devices(self, table: list[Mount]) -> None:
        branches = list(self.tree.branches.values())
        roots = [branch.device for branch in branches if branch.device is not None]
        use_devices(roots, words_of(table, [branch.root_path for branch in branches]))

    def _settle(self, branch: Branch, points: set[bytes]) -> None:
        """At once, before anybody looks: descriptors and watches of what was there before mean nothing any more."""
        for ref in self.tree.dirs.settle(branch):
            path = b"/".join((branch.root_path, *(step.name for step in ref.chain()[1:])))
            if ref.branch.slow or any(is_within(path, point) for point in points):
                self.watch.forget(ref.entry_id)
                ref.watch = -1

    async def _look_again(self, branch: Branch, point: bytes) -> None:
        """Take what lay below a place out of the index, and have the place looked at."""
        above, name = self._above(branch, point)
        if above is None:
            return  # the scan has yet to come there
        row = entries.child(self.tree.store.db, above.id, name)
        ref = self.tree.ref_of(above.id)
        if row is not None:
            self._unwatch(row.id)
            await self.tree.clear(row, branch.uuid, covered=True)
            row = entries.get(self.tree.store.db, row.id)
        if ref is not None and row is not None and ref.hides(name):
            self.tree.take_out(ref, row)
        self.watch.look_at(above.id, name)

    def _above(self, branch: Branch, point: bytes) -> tuple[Entry | None, bytes]:
        """The row of the directory that a place is in, and its name there."""
        *names, last = point[len(branch.root_path.rstrip(b"/")) + 1 :].split(b"/")
        row = entries.get(self.tree.store.db, branch.root_entry_id)
        for name in names:
            row = None if row is None else entries.child(self.tree.store.db, row.id, name)
        return row, last

    def _unwatch(self, entry_id: int) -> None:
        """Forget the watches of a directory and all below it."""
        todo = [entry_id]
        for directory in todo:  # grows on the way
            self.watch.forget(directory)
            todo.extend(below for below, _ in entries.subdirectories(self.tree.store.db, directory))

    async def _ask_inner(self) -> None:
        """What the slow file systems inside branches are like, each in its own time."""
        while True:
            async with trio.open_nursery() as nursery:
                for branch in list(self.tree.branches.values()):
                    for inner in list(branch.inner.values()) if branch.state == LIVE else ():
                        nursery.start_soon(self._ask, branch, inner)
            await trio.sleep(_INNER_S)

    async def _ask(self, branch: Branch, inner: Branch) -> None:
        before = inner.mount_stat()
        if await inner.check_slow():
            log.warning("%s is %s now", os.fsdecode(inner.mount_point or b""), inner.state)
        if inner.mount_stat() != before and inner.mount_point is not None:
            above, name = self._above(branch, inner.mount_point)
            if above is not None:
                self.watch.look_at(above.id, name)


def _below(root: bytes, table: list[Mount]) -> dict[bytes, _What]:
    """What is mounted below a root, by place; of several at one place the last, which hides the others."""
    below = [m for m in table if m.mount_point != root and is_within(m.mount_point, root)]
    return {m.mount_point: (m.id, m.device, m.fs_type) for m in below}
