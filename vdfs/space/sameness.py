"""Sameness: which replicas of a name are the same file for certain, before something is done that destroys them.

What is shown as one name may be several files of one size of which a hash is still missing (union.py). To read, write
or tag the shown one that does no harm: what differs turns up beside it once it is hashed. Who removes or replaces a
name means what he sees; so what is not known to be the same is compared here, byte by byte up to a size that takes no
time, and else is taken to be another file, which stays.
"""

import os
import stat
from collections.abc import Sequence

import trio
from blake3 import blake3

from index.model.entry import KIND_FILE, Entry
from index.model.errors import VdfsError
from index.store import entries
from vdfs.space import union
from vdfs.space.branches import CALL_DEADLINE_S, DISK_THREADS
from vdfs.space.nodes import Spot
from vdfs.space.tree import Tree

#: Two files of this size are read in some hundredths of a second.
_COMPARED_MAX_BYTES = 16 << 20


async def certain(tree: Tree, spots: Sequence[Spot]) -> list[Spot]:
    """The first of some replicas of a name, and those that hold the same bytes."""
    if len(spots) < 2:
        return list(spots)
    rows = [entries.get(tree.store.db, spot.entry_id) for spot in spots]
    first = rows[0]
    if first is None or first.kind != KIND_FILE:
        return list(spots)
    digest: bytes | None = None
    same = [spots[0]]
    for spot, row in zip(spots[1:], rows[1:], strict=True):
        if row is None:
            continue
        if not union.known_same(first, row):
            digest = digest or await _digest(tree, spots[0], first)
            if digest is None or digest != await _digest(tree, spot, row):
                continue
        same.append(spot)
    return same


async def _digest(tree: Tree, spot: Spot, row: Entry) -> bytes | None:
    """The hash of a file's bytes; None where it is large, changes, or cannot be read in time."""
    if row.size_bytes > _COMPARED_MAX_BYTES:
        return None
    try:
        if spot.dir.branch.slow:
            return await spot.dir.branch.call(CALL_DEADLINE_S, _read, tree, spot)
        with tree.dirs.opened(spot.dir) as dir_fd:
            fd = os.open(spot.name, _FLAGS, dir_fd=dir_fd)
        return await trio.to_thread.run_sync(_hash, fd, limiter=DISK_THREADS)
    except (OSError, VdfsError):
        return None


_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _read(tree: Tree, spot: Spot) -> bytes | None:
    with tree.dirs.opened(spot.dir) as dir_fd:
        fd = os.open(spot.name, _FLAGS, dir_fd=dir_fd)
    return _hash(fd)


def _hash(fd: int) -> bytes | None:
    """Hash what a descriptor has, and close it."""
    with open(fd, "rb", buffering=0) as file:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return None
        data = file.read(_COMPARED_MAX_BYTES + 1)
        if len(data) != before.st_size:
            return None
    return blake3(data).digest()
