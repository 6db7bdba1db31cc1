"""Branches at run time: directories of this device behind the union, and how their system calls are made. Those of
other devices are in remotes.py.

A fast branch (a local file system) is called inline: a stat takes a microsecond, a hop through a thread a hundred. A
slow one (network, FUSE) is called in a thread of its own limiter under a deadline, so that a dead server stops only
itself: after a miss the branch is `stalled` and answers at once with Unreachable until one of its calls comes back.

Inside a fast branch a slow file system may be mounted (`~/nas` in a home directory). What lies there is of the same
branch, but its calls are made by a `Branch` object of its own, an *inner* one, so that only it waits; the mount point's
name is answered from what that was last seen to be, since even a stat of it may wait for ever. Inner ones are looked
into when somebody does, and neither walked nor hashed.

A branch is (file system, inode of its root). Whatever else stands at its path (an empty mount point, another stick)
makes it `missing`: its rows stay, nothing of it is deleted. A copy of a file system has the same of both; where the
volume carries a marker, that is compared too. Why a branch is away is told in one word (`away`): `offline` when its
volume is, `missing` when the volume is there and the root is not.
"""

import copy
import errno
import hashlib
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar, TypeVarTuple

import trio

from index.model.errors import Deadline, Unreachable
from index.model.inode import DEVICES
from index.scan.fsid import is_root
from index.scan.mounts import Mount, is_within, mount_of
from index.scan.volumes import MOUNTED
from index.store.places import MODE_CONTENT, BranchRow
from index.volumes import marker

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

LIVE = "live"
MISSING = "missing"
STALLED = "stalled"

#: What is said of a branch that is not live, and of its files.
OFFLINE = "offline"
LOCAL = "local"
REMOTE = "remote"
REMOVED = "removed"  # of a name: other devices have it, and it left here

#: How long one call on a slow branch may take before the kernel gets an answer. Below the 10 s that the mount promises.
CALL_DEADLINE_S = 5.0
#: How long names (lookup, listing) may wait for a slow branch: they hold the kernel's lock on the directory.
NAME_DEADLINE_S = 2.0
#: Calls of one slow branch at a time; what is beyond waits under the same deadline.
_SLOW_THREADS = 8

#: Errors of a root that say the branch is away rather than that one file is odd.
AWAY = frozenset({errno.ENOTCONN, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EIO, errno.EHOSTDOWN, errno.ETIMEDOUT})

#: Children of a directory that are not like others: name -> True (never looked at), an inner Branch (mounted there), or
#: the same for the directory below.
Excluded = dict[bytes, Any]


def let_go(opened: tuple[int, os.stat_result]) -> None:
    """`drop` for calls that open: a descriptor, and its stat, that came when nobody waits any more."""
    os.close(opened[0])


#: What may wait for a disk: nothing that is left behind when a slow file system does not answer.
DISK_THREADS = trio.CapacityLimiter(16)


class _Ticket(Generic[T]):
    """Where one call of a slow branch is at, agreed between its thread and the loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state = "waiting"
        self._missed = False
        self.result: Future[T] | None = None  # once it is done

    def begin(self) -> bool:
        """The thread starts; False when nobody waits any more."""
        with self._lock:
            if self._state == "given up":
                return False
            self._state = "running"
            return True

    def end(self, result: Future[T]) -> tuple[bool, bool]:
        """The thread is done; whether nobody waits any more, and whether the loop had noted that it is stuck."""
        with self._lock:
            late, self._state = self._state == "given up", "done"
            self.result = result
            return late, self._missed

    def give_up(self, note: Callable[[], None] | None) -> bool:
        """The loop waits no longer; notes and says whether a thread is stuck in the call."""
        with self._lock:
            if self._state == "done":
                return False
            stuck, self._state = self._state == "running", "given up"
            if stuck and note is not None:
                self._missed = True
                note()
            return stuck


class Branch:
    """One branch of this device."""

    is_remote = False  # it is another device's: nothing of it is here but its rows

    def __init__(self, row: BranchRow, location: bytes | None, table: list[Mount], excluded: list[bytes]) -> None:
        self.id = row.id
        self.uuid = row.uuid
        self.device_uuid = row.device_uuid
        self.slug = ""  # what its device is called in names of conflicts; the tree says it
        self.label = row.label
        self.location = location  # the first component of its paths in the union; None = the root itself
        self.location_id = row.location_id
        self.root_path = row.root_path
        self.fs_id = row.fs_id
        self.root_ino = row.root_ino
        self.root_entry_id = row.root_entry_id or 0
        self.volume_id = row.volume_id
        self.volume_path = row.volume_path
        self.one_fs = bool(row.one_fs)
        self.marker: str | None = None  # id of the marker that its volume carries; None: there is nothing to compare
        self.is_offline = False  # its volume is known and not mounted
        self.is_ejected = False  # nothing on its volume is to be opened any more
        self.is_lost = False  # the disk of its volume is gone, though that is still mounted
        self._stand_on(mount_of(row.root_path, table))
        self.device: int | None = None  # of its root, once that was open
        self.mounted_at: bytes | None = None  # where all of the file system is seen that its root lies on
        self.is_covered = False  # a mount stands over its root that must not be asked on the loop
        self.outer: Branch | None = None  # of an inner branch: the one it lies in
        self.mount_point: bytes | None = None  # and what is mounted there,
        self.mount_id = 0
        self.seen: os.stat_result | None = None  # as it was last seen
        self.state = LIVE
        self.mode = MODE_CONTENT  # how far its files are looked into
        self.is_followed = False  # the index has caught up with what happened while nobody watched
        self.checked_s = 0.0
        self._begin()
        self.inner: dict[bytes, Branch] = {}
        self.excluded: Excluded = {}
        self.place(table, excluded)

    def _stand_on(self, mount: Mount | None) -> None:
        """What its root's file system is like."""
        self.slow = mount is not None and mount.is_slow
        self.folds_case = mount is not None and mount.folds_case
        self.renumbers = mount is not None and mount.renumbers
        self.in_memory = mount is not None and mount.is_memory

    def move(self, root_path: bytes, identity: tuple[str, int], table: list[Mount], excluded: list[bytes]) -> None:
        """Its volume is mounted elsewhere, or anew: this is its root now."""
        self.root_path = root_path
        self.fs_id, self.root_ino = identity
        self._stand_on(mount_of(root_path, table))
        self.place(table, excluded)

    @property
    def away(self) -> str:
        """One word for what its files are: local, or why they are not."""
        if self.state == LIVE:
            return LOCAL
        return OFFLINE if self.is_offline else MISSING

    def _begin(self) -> None:
        self._limiter = trio.CapacityLimiter(_SLOW_THREADS)
        self._stalled_calls = 0
        self._count_lock = threading.Lock()

    def place(self, table: list[Mount], excluded: list[bytes]) -> bool:
        """What is mounted below the root is this now; returns whether anything is another way than before."""
        slow: dict[bytes, Branch] = {}
        over = mount_of(self.root_path, table)
        self.mounted_at = over.mount_point if over is not None and over.root == b"/" else None
        was_covered = self.is_covered
        self.is_covered = over is not None and (over.is_own or (over.is_slow and not self.slow))
        if not self.slow:
            for mount in table:
                point = mount.mount_point
                if mount.is_slow and not mount.is_own and point != self.root_path and is_within(point, self.root_path):
                    known = self.inner.get(point)
                    slow[point] = known if known is not None and known.mount_id == mount.id else self._inner(mount)
        before = (was_covered, self.excluded, self.inner)
        self.inner = slow
        self.excluded = _trie(self.root_path, [(path, True) for path in excluded] + list(slow.items()))
        return before != (self.is_covered, self.excluded, self.inner)

    def _inner(self, mount: Mount) -> "Branch":
        """The same branch for what lies on a slow file system inside it."""
        inner = copy.copy(self)
        inner._begin()
        inner.outer, inner.mount_point, inner.mount_id = self, mount.mount_point, mount.id
        inner.slow = True
        inner.folds_case, inner.renumbers, inner.in_memory = mount.folds_case, mount.renumbers, False
        inner.inner, inner.excluded, inner.state = {}, {}, LIVE
        inner.seen = None
        return inner

    def mount_stat(self) -> os.stat_result:
        """What the mount point of an inner branch is, without asking it: its number is made of its path."""
        word = hashlib.blake2b(self.mount_point or b"", digest_size=7).digest()
        seen = self.seen or os.stat_result((stat.S_IFDIR | 0o755, 0, 0, 1, os.getuid(), os.getgid(), 4096, 0, 0, 0))
        fields = list(seen)
        fields[stat.ST_INO], fields[stat.ST_DEV] = int.from_bytes(word, "little"), (self.outer or self).device or 0
        return os.stat_result(
            fields, {"st_atime_ns": seen.st_atime_ns or 0, "st_mtime_ns": seen.st_mtime_ns or 0,
                     "st_ctime_ns": seen.st_ctime_ns or 0, "st_blocks": 8, "st_blksize": 4096, "st_rdev": 0}
        )  # fmt: skip

    def for_workers(self) -> Excluded:
        """`excluded` as a worker is told it."""

        def told(trie: Excluded) -> Excluded:
            return {
                name: MOUNTED if isinstance(leaf, Branch) else told(leaf) if isinstance(leaf, dict) else leaf
                for name, leaf in trie.items()
            }

        return told(self.excluded)

    @property
    def is_store(self) -> bool:
        return self.location_id is None

    def open_root(self) -> int:
        """A descriptor of the root, or Unreachable when something else (or nothing) stands at its path."""
        if self.is_covered:
            self.state = MISSING
            raise Unreachable(f"another file system is mounted over {os.fsdecode(self.root_path)}")
        if self.is_ejected or self.is_lost:
            self.state = MISSING
            why = "is being ejected" if self.is_ejected else "was pulled out"
            raise Unreachable(f"the volume of {os.fsdecode(self.root_path)} {why}")
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
            try:
                fd = os.open(self.root_path, flags | os.O_NOATIME)
            except PermissionError:
                fd = os.open(self.root_path, flags)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) or error.errno in AWAY:
                self.state = MISSING
                raise Unreachable(f"{os.fsdecode(self.root_path)} is not there (its volume may be away)") from error
            raise
        try:
            if not is_root(fd, self.fs_id, self.root_ino) or not self._is_marked():
                self.state = MISSING
                raise Unreachable(f"another directory stands at {os.fsdecode(self.root_path)}; its volume may be away")
        except BaseException:
            os.close(fd)
            raise
        self.device = os.fstat(fd).st_dev
        DEVICES.roots.add(self.device)
        if self.state == MISSING:
            self.state = LIVE
        return fd

    def _is_marked(self) -> bool:
        """Whether what is mounted carries the marker of the branch's volume, or none at all."""
        if self.marker is None or self.mounted_at is None:
            return True
        try:
            fd = os.open(self.mounted_at, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return True  # it may be closed to us; the root is not
        try:
            found = marker.read_any(fd)
        finally:
            os.close(fd)
        return found is None or found.id == self.marker

    async def call(
        self,
        deadline_s: float,
        function: Callable[[*Ts], T],
        *args: *Ts,
        drop: Callable[[T], object] | None = None,
    ) -> T:
        """Run a function of plain system calls on this branch: inline when fast, else in a thread with a deadline.

        Raises Deadline when a slow branch does not answer in time (the thread is left behind, and the branch counts as
        stalled until it returns), Unreachable at once while it is stalled. `drop` lets go of a result that comes when
        nobody waits any more: a descriptor, say.
        """
        if not self.slow:
            return function(*args)
        if self._stalled_calls:
            raise Unreachable(f"the file system of {self._where()} does not answer")
        ticket = _Ticket[T]()

        def work() -> None:
            if not ticket.begin():
                return
            result = Future[T]()
            try:
                result.set_result(function(*args))
            except BaseException as error:
                result.set_exception(error)
            is_late, was_missed = ticket.end(result)
            if is_late and drop is not None and result.exception() is None:
                drop(result.result())
            if was_missed:
                self._answered()

        try:
            with trio.move_on_after(deadline_s):
                await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)
        except trio.Cancelled:  # the caller has enough: that says nothing about the branch
            ticket.give_up(None)
            raise
        if ticket.give_up(self._missed):
            self.state = STALLED
        if ticket.result is not None:
            return ticket.result.result()
        raise Deadline(f"the file system of {self._where()} did not answer within {deadline_s:g} s")

    def close(self, fd: int) -> None:
        """Close a descriptor of a file; a slow file system may write back now, and does it in a thread of its own."""
        if self.slow:
            threading.Thread(target=os.close, args=(fd,), daemon=True).start()
        else:
            os.close(fd)

    def _where(self) -> str:
        return os.fsdecode(self.mount_point or self.root_path)

    def _missed(self) -> None:
        with self._count_lock:
            self._stalled_calls += 1

    def _answered(self) -> None:
        """A call that had been given up came back after all (from its thread)."""
        with self._count_lock:
            self._stalled_calls -= 1
            if not self._stalled_calls and self.state == STALLED:
                self.state = LIVE

    def check(self) -> bool:
        """Look at the root again, inline; returns whether the state changed. A slow branch is left to check_slow()."""
        before = self.state
        self.checked_s = time.monotonic()
        if not self.slow:
            self._look()
        return self.state != before

    async def check_slow(self) -> bool:
        """The same for a slow branch, in a thread, under a deadline."""
        before = self.state
        try:
            await self.call(NAME_DEADLINE_S, self._look)
        except (Unreachable, Deadline):
            pass
        return self.state != before

    def _look(self) -> None:
        try:
            if self.mount_point is not None:
                self.seen = os.stat(self.mount_point)
            os.close(self.open_root())
        except (OSError, Unreachable):
            if self.state != STALLED:
                self.state = MISSING


def state_of(branches: list[Branch]) -> str:
    """One word for what lies on several branches: where any of them has it, it is local; remote where another device
    has it that is there; offline when all that is missing is a volume or a device."""
    words = {branch.away for branch in branches}
    if not words:
        return LOCAL
    return next((word for word in (LOCAL, REMOTE, OFFLINE) if word in words), MISSING)


def _trie(root: bytes, leaves: list[tuple[bytes, Any]]) -> Excluded:
    """Paths below a root as nested dicts by name, with what ends each; what lies below an end is left out."""
    trie: Excluded = {}
    for path, leaf in sorted(leaves, key=lambda pair: (len(pair[0]), pair[1] is not True)):
        if path == root or not is_within(path, root):
            continue
        names = path[len(root.rstrip(b"/")) + 1 :].split(b"/")
        level = trie
        for name in names[:-1]:
            below = level.setdefault(name, {})
            if not isinstance(below, dict):
                break
            level = below
        else:
            level.setdefault(names[-1], leaf)
    return trie
