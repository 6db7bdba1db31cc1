"""Version vectors over branches: which replica of a file has seen which changes of the others.

A vector maps the uuid of a branch (a branch belongs to one device, so it names the device too) to the stamp of the
last change made there. A replica whose vector is dominated is *stale*; when neither of two dominates and the bytes
differ, that is a conflict, and both stay visible. Pure values; packed as msgpack with sorted keys, so that equal
vectors are equal bytes.

Stamps are of the device's hybrid logical clock, not counts of changes: a vector goes with a name, and names go from
file to file. What is made or moved where another file was must not look like an older version of that; a count that
begins again would. Nor does a clock begin again in a library that came back from an old copy.

Source: Parker et al., "Detection of Mutual Inconsistency in Distributed Systems" (1983).
"""

from collections.abc import Mapping

import msgpack

Vector = Mapping[bytes, int]


def pack(vector: Vector) -> bytes:
    """Bytes of a vector; equal vectors give equal bytes."""
    packed: bytes = msgpack.packb([[k, vector[k]] for k in sorted(vector)])
    return packed


def unpack(raw: bytes | None) -> dict[bytes, int]:
    """The vector of packed bytes; None is the vector of a replica that never changed."""
    if raw is None:
        return {}
    return {bytes(k): int(v) for k, v in msgpack.unpackb(raw)}


def of(raw: bytes | None, branch: bytes) -> dict[bytes, int]:
    """The vector of a row of a branch; NULL stands for {branch: 1}, of what was there before all that is stamped."""
    return {branch: 1} if raw is None else unpack(raw)


def bump(vector: Vector, branch: bytes, stamp: int) -> dict[bytes, int]:
    """The vector after one more change on `branch`, in a unit that is stamped so."""
    out = dict(vector)
    out[branch] = max(out.get(branch, 0) + 1, stamp)
    return out


def join(a: Vector, b: Vector) -> dict[bytes, int]:
    """The least vector that has seen what both have."""
    out = dict(a)
    for key, count in b.items():
        if count > out.get(key, 0):
            out[key] = count
    return out


def covers(a: Vector, b: Vector) -> bool:
    """Whether `a` has seen every change that `b` has."""
    return all(a.get(key, 0) >= count for key, count in b.items())


def dominates(a: Vector, b: Vector) -> bool:
    """Whether `a` has seen all of `b` and more."""
    return covers(a, b) and not covers(b, a)
