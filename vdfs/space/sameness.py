"""Sameness: which replicas of a name are the same file for certain, before something is done that destroys them.

What is shown as one name may be several files of one size of which a hash is still missing (union.py). To read or write
the shown one that does no harm: what differs turns up beside it once it is hashed. What is done to all replicas (to tag
them, to change their mode, to remove or replace them) means what is seen; so what is not known to be the same is
compared here, byte by byte while time allows, and else is taken to be another file, which is left alone.
"""

import os
import stat
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import trio

from index.model.entry import KIND_FILE, Entry, Stat
from index.model.errors import VdfsError
from index.model.inode import inode_of
from index.store import entries
from vdfs.space import union
from vdfs.space.branches import DISK_THREADS
from vdfs.space.nodes import Spot
from vdfs.space.tree import Tree

#: So long somebody may wait for a comparison: some gigabytes that are in memory, some hundred megabytes of a disk.
_COMPARED_S = 3.0
_CHUNK_BYTES = 1 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def compared_until_s() -> float:
    """When somebody who asks now has waited long enough, however many comparisons he asks for."""
    return time.monotonic() + _COMPARED_S


async def certain(tree: Tree, spots: Sequence[Spot]) -> list[Spot]:
    """The first of some replicas of a name, and those that hold the same bytes."""
    if len(spots) < 2:
        return list(spots)
    until_s = compared_until_s()
    return [spots[0], *[spot for spot in spots[1:] if await are_same(tree, spots[0], spot, until_s)]]


async def are_same(tree: Tree, one: Spot, other: Spot, until_s: float) -> bool:
    """Whether two places of what is shown as one file have one inode, or files that hold the same bytes."""
    a, b = entries.get(tree.store.db, one.entry_id), entries.get(tree.store.db, other.entry_id)
    if a is None or b is None:
        return a is None  # nothing is known of the one that is meant: what is with it goes along
    if a.kind != KIND_FILE or (a.branch_id, a.st_ino) == (b.branch_id, b.st_ino) or union.known_same(a, b):
        return True
    if a.size_bytes != b.size_bytes:
        return False
    if not await _are_equal(tree, [(one, a), (other, b)], until_s):
        return False
    return is_as_it_was(b, entries.get(tree.store.db, other.entry_id))


def rows_of(tree: Tree, spots: Sequence[Spot]) -> dict[int, Entry]:
    """What some replicas are just now: to be asked before others get a turn, and to be held against what is there."""
    rows = [(spot.entry_id, entries.get(tree.store.db, spot.entry_id)) for spot in spots]
    return {entry_id: row for entry_id, row in rows if row is not None}


def is_as_it_was(was: Entry, now: Entry | os.stat_result | None) -> bool:
    """Whether nobody put another file there, nor wrote to it."""
    if now is None:
        return False
    st = now.stat if isinstance(now, Entry) else Stat.of(now)
    return (st.st_ino, st.size_bytes, st.mtime_ns) == (was.st_ino, was.size_bytes, was.mtime_ns)


async def _are_equal(tree: Tree, pair: list[tuple[Spot, Entry]], until_s: float) -> bool:
    """Whether two files hold the same bytes; False also where that cannot be found out in time."""
    slow = next((spot.dir.branch for spot, _ in pair if spot.dir.branch.slow), None)
    compare = partial(_compare, tree, pair, until_s)
    try:
        if slow is not None:
            return bool(await slow.call(_COMPARED_S, compare))
        return await trio.to_thread.run_sync(compare, limiter=DISK_THREADS)
    except (OSError, VdfsError):
        return False


def _compare(tree: Tree, pair: list[tuple[Spot, Entry]], until_s: float) -> bool:
    """In a thread, where `DirTable.opened` has descriptors of its own."""
    with ExitStack() as opened:
        return _equal([_open(tree, opened, spot, row) for spot, row in pair], until_s)


def _open(tree: Tree, opened: ExitStack, spot: Spot, row: Entry) -> int:
    """A descriptor of the file of a row, closed with the stack; OSError when something else has its name."""
    with tree.dirs.opened(spot.dir) as dir_fd:
        try:
            fd = os.open(spot.name, _FLAGS | os.O_NOATIME, dir_fd=dir_fd)
        except PermissionError:  # another's file
            fd = os.open(spot.name, _FLAGS, dir_fd=dir_fd)
    opened.callback(os.close, fd)
    st = os.fstat(fd)
    if not stat.S_ISREG(st.st_mode) or inode_of(st) != row.st_ino:
        raise FileNotFoundError(2, "another file has the name")
    return fd


def _equal(files: list[int], until_s: float) -> bool:
    """Read two files side by side."""
    offset = 0
    while time.monotonic() < until_s:
        one, other = (os.pread(fd, _CHUNK_BYTES, offset) for fd in files)
        if one != other:
            return False
        if not one:
            return True
        offset += len(one)
    return False
