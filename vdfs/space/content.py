"""Open files: bytes of local replicas, one descriptor an open.

Reads try the page cache first, inline (RWF_NOWAIT); what would wait for a disk goes to a thread, as do large writes and
every fsync, so the loop never waits for a device. After each write the file's stat is taken, so that the echo of our
own writes in the watcher is told from somebody else's.

O_APPEND stays on the descriptor: a file that grew behind the mount is appended to, not overwritten. But the kernel
writes back pages of a shared mapping through a handle that was mapped, which may have been opened for appending too,
and those writes belong where they say. What begins at the end of the file as the kernel knows it is an append; what
begins before it is a write-back, and goes through a second descriptor without O_APPEND.
"""

import contextlib
import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import trio

from index.model.entry import KIND_DIR
from index.model.errors import Stale, Unreachable, VdfsError
from index.model.inode import inode_of
from vdfs.space import syscalls
from vdfs.space.attributes import Attributes
from vdfs.space.branches import CALL_DEADLINE_S, DISK_THREADS, MISSING, Branch, let_go
from vdfs.space.checks import own_spots
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node
from vdfs.space.remotes import RemoteBranch
from vdfs.space.tree import Tree

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

#: Writes up to this size are made inline; the copy of more would hold up the loop.
_INLINE_WRITE_BYTES = 128 << 10
#: An inline write that took longer sends the handle's next writes to a thread.
_SLOW_WRITE_S = 0.005
_SLOW_WRITES = 64

_KEEP_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_SYNC | os.O_DSYNC | getattr(os, "O_NOATIME", 0)


class Handle:
    """One open of one file. Reads and writes at offsets; knows its node."""

    __slots__ = ("_append_fd", "_closed", "_lock", "_slow_writes", "_users", "branch", "fd", "flags", "node", "wrote")

    def __init__(self, node: Node, branch: Branch, fd: int, flags: int) -> None:
        self.node = node
        self.branch = branch
        self.fd = fd
        self.flags = flags
        self.wrote = False
        self._append_fd = -1
        self._slow_writes = 0
        self._lock = threading.Lock()
        self._users = 0  # threads that are in a call on a slow branch
        self._closed = False
        if flags & os.O_APPEND and flags & os.O_ACCMODE != os.O_RDONLY:
            self._append_fd = fd
            mode = flags & os.O_ACCMODE
            try:
                if branch.slow:  # an open may wait for a server: every write is an append there
                    raise OSError(errno.EAGAIN, "not on the loop")
                self.fd = os.open(syscalls.proc_path(fd), mode | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:  # the mode forbids a second open: every write is an append then
                self.fd = fd
        node.handles = (*node.handles, self)

    def close(self) -> None:
        """Let go of the descriptors; while a call that was given up still uses them, it does that when it is over."""
        self.node.handles = tuple(h for h in self.node.handles if h is not self)
        with self._lock:
            self._closed = True
            if self._users:
                return
        self._close()

    def _close(self) -> None:
        if self._append_fd >= 0 and self._append_fd != self.fd:
            self.branch.close(self._append_fd)
        self.branch.close(self.fd)

    async def call(
        self, deadline_s: float, function: Callable[[*Ts], T], *args: *Ts, drop: Callable[[T], object] | None = None
    ) -> T:
        """`Branch.call` with a function that uses our descriptors: none is closed, and its number another file's,
        before the function is done with it, also long after the deadline."""

        def use() -> T:
            self._enter()
            try:
                return function(*args)
            finally:
                self._leave()

        if not self.branch.slow:
            return function(*args)
        return await self.branch.call(deadline_s, use, drop=drop)

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "closed meanwhile")
            self._users += 1

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._closed and not self._users
        if is_last:
            self._close()

    async def fstat(self) -> os.stat_result | None:
        """The file's stat by its descriptor; None when its branch does not answer."""
        try:
            return await self.call(CALL_DEADLINE_S, os.fstat, self.fd)
        except OSError:
            return None
        except Unreachable:
            return None

    async def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes at `offset`; fewer only at the end of the file."""
        self.node.reach = max(self.node.reach, offset + size)
        if self.branch.slow:
            return await self.call(CALL_DEADLINE_S, os.pread, self.fd, size, offset)
        if self.branch.in_memory:  # such file systems know no RWF_NOWAIT, and have nothing to wait for
            return os.pread(self.fd, size, offset)
        buffer = bytearray(size)
        try:
            got = os.preadv(self.fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return await self._read_from_disk(offset, size)
        if got == size:
            return buffer  # type: ignore[return-value]  # pyfuse3 takes any buffer
        if offset + got >= os.fstat(self.fd).st_size:
            return memoryview(buffer)[:got]  # type: ignore[return-value]  # pyfuse3 takes any buffer
        return bytes(buffer[:got]) + await self._read_from_disk(offset + got, size - got)

    async def _read_from_disk(self, offset: int, size: int) -> bytes:
        return await trio.to_thread.run_sync(os.pread, self.fd, size, offset, limiter=DISK_THREADS)

    async def write(self, offset: int, data: bytes) -> int:
        """Write all of `data`; returns its length. ENOSPC and the like come through as they are.

        A write with O_APPEND begins where the kernel has the end. Others by such a handle are pages that are written
        back, or come from who has taken the flag off (F_SETFL), of which nobody is told.
        """
        at_end = self._append_fd >= 0 and self._begins_at_end(offset, len(data))
        appends = at_end or self._append_fd == self.fd
        if self.branch.slow:
            done, st = await self.call(CALL_DEADLINE_S, self._write, offset, data, appends)
        elif len(data) <= _INLINE_WRITE_BYTES and not self._slow_writes:
            began_s = time.monotonic()
            done, st = self._write_here(offset, data, appends)
            if time.monotonic() - began_s > _SLOW_WRITE_S:
                self._slow_writes = _SLOW_WRITES
        else:
            self._slow_writes = max(0, self._slow_writes - 1)
            done, st = await trio.to_thread.run_sync(self._write, offset, data, appends, limiter=DISK_THREADS)
        node = self.node
        self.wrote = True
        node.written(offset + done, st, at_end=at_end)
        node.face = None
        return done

    def _begins_at_end(self, offset: int, length: int) -> bool:
        """Whether a write by a handle with O_APPEND is to go where the end of the file is.

        Pages are written back through handles that a mapping was made of, for which they must be open to read as well.
        What a handle that is open to write alone says is an append, unless somebody has taken the flag off: he knows
        where he writes, while nobody else does.
        """
        if self.flags & os.O_ACCMODE == os.O_RDWR:
            return self.node.begins_at_end(offset, length)
        if self.node.begins_at_end(offset, length, pages=False):
            return True
        grew = not self.branch.slow and os.fstat(self.fd).st_size != self.node.kernel_size
        return grew and offset >= self.node.least_size

    def _write_here(self, offset: int, data: bytes, appends: bool) -> tuple[int, os.stat_result]:
        """A write that nobody's but a stranger's can precede unseen."""
        self.node.is_as_told(os.fstat(self.fd))
        return self._write(offset, data, appends)

    def _write(self, offset: int, data: bytes, appends: bool) -> tuple[int, os.stat_result]:
        done, view = 0, memoryview(data)
        while done < len(data):
            try:
                if appends:
                    done += os.write(self._append_fd, view[done:])
                else:
                    done += os.pwrite(self.fd, view[done:], offset + done)
            except OSError:
                if done:
                    break
                raise
        return done, os.fstat(self.fd)

    async def truncate(self, size_bytes: int) -> os.stat_result:
        def cut() -> tuple[os.stat_result, os.stat_result]:
            before = os.fstat(self.fd)
            os.ftruncate(self.fd, size_bytes)
            return before, os.fstat(self.fd)

        before, st = await self.call(CALL_DEADLINE_S, cut)
        if self.node.is_as_told(before):
            self.node.changed(st)
        self.wrote = True
        self.node.face = None
        return st

    async def sync(self, data_only: bool) -> None:
        """fsync of the file, in a thread."""
        function = os.fdatasync if data_only else os.fsync
        if self.branch.slow:
            await self.call(CALL_DEADLINE_S, function, self.fd)
        else:
            await trio.to_thread.run_sync(function, self.fd, limiter=DISK_THREADS)


class Opener:
    """Opens nodes and takes what was written into the index."""

    def __init__(self, tree: Tree, attributes: Attributes) -> None:
        self.tree = tree
        self.attributes = attributes

    async def open(self, node: Node, flags: int, *, by_uid: int = 0) -> tuple[Handle, os.stat_result]:
        """Open the shown replica; Unreachable at once when its branch is away, or another device's. To write what
        others alone hold is ReadOnly.

        O_TRUNC cuts what is open and was held against the inode that is meant, never what has the name by now.
        """
        if node.kind == KIND_DIR:
            raise IsADirectoryError(errno.EISDIR, "is a directory")
        wanted = (flags & _KEEP_FLAGS) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        away: VdfsError | None = None
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            own_spots(node)
        for spot in self.tree.spots_of(node):
            branch = spot.dir.branch
            if isinstance(branch, RemoteBranch):
                away = away or branch.unreachable(spot.name)
                continue
            if branch.state == MISSING and not (self.tree.check(branch) and branch.state != MISSING):
                away = Unreachable(f"{os.fsdecode(spot.name)} lies on {branch.label}, which is away")
                continue
            try:
                fd, st = await branch.call(CALL_DEADLINE_S, self._open, spot.dir, spot.name, wanted, drop=let_go)
            except (FileNotFoundError, NotADirectoryError, Stale):
                continue
            except Unreachable as error:
                away = error
                continue
            if inode_of(st) != self.tree.inode_at(node, spot) or not stat.S_ISREG(st.st_mode):
                branch.close(fd)  # replaced behind the mount: the kernel looks the name up again
                if spot not in node.spots[:1]:
                    continue
                raise Stale(f"{os.fsdecode(spot.name)} is another file now")
            handle = Handle(node, branch, fd, flags)
            if flags & os.O_TRUNC:
                try:
                    st = await handle.call(CALL_DEADLINE_S, _cut, fd, by_uid)
                except BaseException:
                    handle.close()
                    raise
                handle.wrote = True
            return handle, st
        # a file without a name: by any descriptor of it
        how = (wanted, flags & os.O_TRUNC, by_uid)
        if node.handles:
            held = node.handles[-1]
            fd, st = await held.call(CALL_DEADLINE_S, _open_again, held.fd, *how, drop=let_go)
            return Handle(node, held.branch, fd, flags), st
        if node.ghost_fd >= 0 and self.tree.home is not None:
            fd, st = _open_again(node.ghost_fd, *how)
            return Handle(node, self.tree.home, fd, flags), st
        raise away or Stale(f"{os.fsdecode(node.name)} is not there any more")

    def _open(self, ref: DirRef, name: bytes, flags: int) -> tuple[int, os.stat_result]:
        with self.tree.dirs.opened(ref) as dir_fd:
            try:
                fd = os.open(name, flags, dir_fd=dir_fd)
            except PermissionError:
                if not flags & os.O_NOATIME:
                    raise
                fd = os.open(name, flags & ~os.O_NOATIME, dir_fd=dir_fd)
        return fd, os.fstat(fd)

    def adopt(self, node: Node, fd: int, flags: int) -> Handle:
        """A handle for a file that was made and opened in one step."""
        handle = Handle(node, node.spots[0].dir.branch, fd, flags)
        handle.wrote = True
        return handle

    async def flush(self, handle: Handle) -> None:
        """close(2) of a descriptor: what was written is in the index when this returns."""
        if not handle.wrote:
            return
        handle.wrote = False
        st = await handle.fstat()
        if st is not None:
            node = handle.node
            self.attributes.note(node, st, data=True, wrote=True)
            if len(node.spots) > 1 and node.parent is not None:  # it may be the version that is shown from now on
                with contextlib.suppress(OSError, VdfsError):
                    await self.tree.lookup(node.parent, node.name)


def _open_again(held_fd: int, flags: int, cuts: int, by_uid: int) -> tuple[int, os.stat_result]:
    fd = os.open(syscalls.proc_path(held_fd), flags & ~os.O_NOFOLLOW)
    try:
        return fd, _cut(fd, by_uid) if cuts else os.fstat(fd)
    except BaseException:
        os.close(fd)
        raise


def _cut(fd: int, by_uid: int) -> os.stat_result:
    """What O_TRUNC does, to a file that is open; and what it takes away when it is not root who does it."""
    path = syscalls.proc_path(fd)
    cutter = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # the open itself may be for reading
    try:
        os.ftruncate(cutter, 0)
    finally:
        os.close(cutter)
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    kept = mode & ~stat.S_ISUID & ~(stat.S_ISGID if mode & stat.S_IXGRP else 0)
    if by_uid and kept != mode:
        os.chmod(path, kept)
    return os.fstat(fd)


def statfs(tree: Tree) -> tuple[int, int, int, int, int, int]:
    """(block size, blocks, free, available, files, free files) of the distinct file systems of all live branches."""
    seen: set[str] = set()
    unit = 4096
    blocks = free = available = files = files_free = 0
    for branch in tree.branches.values():
        if branch.state == MISSING or branch.slow or branch.fs_id in seen:
            continue
        try:
            vfs = os.statvfs(branch.root_path)
        except OSError:
            continue
        seen.add(branch.fs_id)
        blocks += vfs.f_blocks * vfs.f_frsize // unit
        free += vfs.f_bfree * vfs.f_frsize // unit
        available += vfs.f_bavail * vfs.f_frsize // unit
        files += vfs.f_files
        files_free += vfs.f_ffree
    return unit, blocks, free, available, files, files_free
