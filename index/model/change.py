"""Change and Commit: the only things that travel upwards.

A unit of the store collects what it changed and publishes one immutable `Commit` after its transaction. Readers of
the feed (kernel invalidation, sockets, later the replicator) decide from these values alone; nobody below knows them.
"""

from typing import NamedTuple

ADDED = "added"
REMOVED = "removed"
TIMES = "times"  # a directory's times moved along with its names
ATTRS = "attrs"  # stat changed, the bytes did not
DATA = "data"  # the bytes changed (or may have)
META = "meta"  # tags, comment, other attributes of an entry

ORIGIN_MOUNT = "mount"  # made by a request of the kernel, which knows already
ORIGIN_SCAN = "scan"  # found on disk
ORIGIN_WALK = "walk"  # found by a walk, which says itself what of it carries attributes
ORIGIN_CALL = "call"  # asked by an operation (command line, socket)
ORIGIN_SYNC = "sync"  # told by another device
#: What was found on a disk of ours: nobody did it through us, nor told us.
FOUND = frozenset({ORIGIN_SCAN, ORIGIN_WALK})


class Change(NamedTuple):
    """One fact about one entry row. `parent_id` and `name` say where it was (removed) or is."""

    what: str
    branch_id: int
    entry_id: int
    parent_id: int | None
    name: bytes
    node: int


class Commit(NamedTuple):
    """What one unit changed, in order. `seq` is the device's own count of units."""

    seq: int
    hlc: int
    origin: str
    changes: tuple[Change, ...]
