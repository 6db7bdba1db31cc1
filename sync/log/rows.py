"""Rows: entries of one device as the body of a page, column by column. Pure.

    {"b": [branch uuid, …], "w": [which branch, a row], "i": [number], "p": [number of the directory, 0: none],
     "n": [name], "u": uuids (16 bytes each), "k": kinds (a byte each), "h": hash states (a byte each), "m": [mode],
     "s": [size], "t": [mtime in ns], "c": [ctime - mtime in ns], "f": full hashes (32 bytes each) and
     "a": sampled ids (8 bytes each) of the files whose bytes are known, in order, "l": {index: links, where not 1},
     "v": {index: packed version vector}, "x": {index: target of a symlink},
     "g": [[which branch, number, kind of tombstone], …]}

Columns, since like stands beside like then: half the bytes and a third of the time of a list of rows. Rows come in the
order of their numbers, so a directory mostly comes before what is in it.

What another device says is held against the form before anything is made of it: a row whose name no file system has
(`..`, a slash, NUL, 256 bytes) is left out and counted, anything else that does not fit refuses the page.
"""

from collections.abc import Sequence
from itertools import pairwise
from operator import add
from typing import Any, Final, NamedTuple

from index.model import versions
from index.model.entry import HASH_FULL, KIND_DIR, KIND_FILE, KIND_OTHER, NAME_MAX_BYTES, is_name, kind_of
from index.model.errors import PageRefused
from index.store.remote import RemoteRow

ROWS_MAX: Final = 20_000
_INT64_MAX: Final = (1 << 63) - 1
_TARGET_MAX_BYTES: Final = 4096
_VERSION_MAX_BYTES: Final = 64 << 10
_NO_NAMES: Final = frozenset((b"", b".", b".."))
_HASH_STATES: Final = frozenset((0, 2, 3, 4))


class Gone(NamedTuple):
    """A tombstone: the branch, the number of the row, why (index/store/changes.py)."""

    branch: bytes
    rid: int
    kind: int


class Body(NamedTuple):
    """Rows by branch, in the order of their numbers, and tombstones."""

    rows: dict[bytes, list[RemoteRow]]
    gone: list[Gone]
    refused: int  # rows with names that no file system has


def packed(rows: Sequence[tuple[bytes, RemoteRow]], gone: Sequence[Gone]) -> dict[str, Any]:
    """The body of a page."""
    branches = list(dict.fromkeys([branch for branch, _ in rows] + [one.branch for one in gone]))
    at = {branch: index for index, branch in enumerate(branches)}
    entries = [row for _, row in rows]
    known = [row for row in entries if row.full is not None]
    return {
        "b": branches,
        "w": [at[branch] for branch, _ in rows] if len(branches) > 1 else [],
        "i": [row.rid for row in entries],
        "p": [row.parent_rid for row in entries],
        "n": [row.name for row in entries],
        "u": b"".join(row.uuid for row in entries),
        "k": bytes(row.kind for row in entries),
        "h": bytes(row.hash_state for row in entries),
        "m": [row.mode for row in entries],
        "s": [row.size_bytes for row in entries],
        "t": [row.mtime_ns for row in entries],
        "c": [row.ctime_ns - row.mtime_ns for row in entries],
        "f": b"".join(row.full or b"" for row in known),
        "a": b"".join(row.sampled or b"" for row in known),
        "l": {index: row.nlink for index, row in enumerate(entries) if row.nlink != 1},
        "v": {index: row.version for index, row in enumerate(entries) if row.version is not None},
        "x": {index: row.target for index, row in enumerate(entries) if row.target is not None},
        "g": [[at[one.branch], one.rid, one.kind] for one in gone],
    }


def _need(sound: bool) -> None:
    if not sound:
        raise PageRefused("a page of rows has another form than it must have")


def _column(body: Any, key: str, count: int, kind: type) -> list[Any]:
    values = body.get(key)
    _need(isinstance(values, list) and len(values) == count and set(map(type, values)) <= {kind})
    return list(values)


def _numbers(body: Any, key: str, count: int, least: int = 0) -> list[int]:
    values: list[int] = _column(body, key, count, int)
    _need(not values or (min(values) >= least and max(values) <= _INT64_MAX))
    return values


def _raw(body: Any, key: str, size_bytes: int) -> bytes:
    value = body.get(key)
    _need(isinstance(value, bytes) and len(value) == size_bytes)
    return bytes(value)


def _sparse(body: Any, key: str, count: int, kind: type) -> dict[int, Any]:
    values = body.get(key)
    _need(isinstance(values, dict) and set(map(type, values)) <= {int} and set(map(type, values.values())) <= {kind})
    _need(all(0 <= index < count for index in values))
    return dict(values)


def unpacked(body: Any) -> Body:
    """What a body says; PageRefused when it has another form."""
    _need(isinstance(body, dict) and isinstance(body.get("i"), list) and len(body["i"]) <= ROWS_MAX)
    count = len(body["i"])
    branches = body.get("b")
    _need(isinstance(branches, list) and len(branches) <= ROWS_MAX)
    _need(all(isinstance(branch, bytes) and len(branch) == 16 for branch in branches))
    where = _numbers(body, "w", count if len(branches) > 1 else 0) or [0] * count
    _need(not count or max(where) < len(branches))
    rids, parents = _numbers(body, "i", count, 1), _numbers(body, "p", count)
    names: list[bytes] = _column(body, "n", count, bytes)
    uuids, kinds, states = _raw(body, "u", 16 * count), _raw(body, "k", count), _raw(body, "h", count)
    modes, sizes = _numbers(body, "m", count), _numbers(body, "s", count)
    mtimes, later = _numbers(body, "t", count, -_INT64_MAX), _numbers(body, "c", count, -_INT64_MAX)
    _need(not count or branches != [])
    _need(not count or (max(kinds) <= KIND_OTHER and set(states) <= _HASH_STATES and max(modes) < 1 << 32))
    _need(all(a < b for a, b in pairwise(rids)))
    full = [k == KIND_FILE and h == HASH_FULL and s > 0 for k, h, s in zip(kinds, states, sizes, strict=True)]
    fulls, sampled = _raw(body, "f", 32 * sum(full)), _raw(body, "a", 8 * sum(full))
    links, vectors = _sparse(body, "l", count, int), _sparse(body, "v", count, bytes)
    targets = _sparse(body, "x", count, bytes)
    _need(all(0 < nlink < 1 << 32 for nlink in links.values()))
    _need(all(len(target) <= _TARGET_MAX_BYTES for target in targets.values()))
    for vector in vectors.values():
        _check_vector(vector)
    ctimes = list(map(add, mtimes, later))
    if ctimes and not -_INT64_MAX <= min(ctimes) <= max(ctimes) <= _INT64_MAX:
        ctimes = [max(-_INT64_MAX, min(_INT64_MAX, ctime)) for ctime in ctimes]
    columns = zip(
        rids, parents, names, _cut(uuids, 16), kinds, modes, sizes, mtimes, ctimes, _spread(links, count, 1), states,
        _where(full, fulls, 32), _where(full, sampled, 8), _spread(vectors, count, None),
        _spread(targets, count, None), strict=True,
    )  # fmt: skip
    told = list(map(RemoteRow._make, columns))
    sound = told if _are_sound(names, parents, kinds, modes) else [row for row in told if _is_sound(row)]
    rows: dict[bytes, list[RemoteRow]] = {}
    if len(branches) > 1:
        of = dict(zip(rids, where, strict=True))
        for row in sound:
            rows.setdefault(branches[of[row.rid]], []).append(row)
    elif sound:
        rows[branches[0]] = sound
    return Body(rows, _gone(body, branches), count - len(sound))


def _cut(data: bytes, size_bytes: int) -> list[bytes]:
    return [data[at : at + size_bytes] for at in range(0, len(data), size_bytes)]


def _where(flags: list[bool], data: bytes, size_bytes: int) -> list[bytes | None]:
    """The pieces of data, one where a flag is set."""
    pieces = iter(_cut(data, size_bytes))
    return [next(pieces) if flag else None for flag in flags]


def _spread(values: dict[int, Any], count: int, other: Any) -> list[Any]:
    """A column of which only some values are told."""
    column = [other] * count
    for index, value in values.items():
        column[index] = value
    return column


def _are_sound(names: list[bytes], parents: list[int], kinds: bytes, modes: list[int]) -> bool:
    """Whether all rows can be such of a file system, and none is a root; False says nothing."""
    if not names or 0 in parents:
        return False
    joined = b"\0".join(names)
    return (
        joined.count(b"\0") == len(names) - 1
        and b"/" not in joined
        and _NO_NAMES.isdisjoint(names)
        and max(map(len, names)) <= NAME_MAX_BYTES
        and all(kind_of(mode << 12) == kind for kind, mode in set(zip(kinds, [m >> 12 for m in modes], strict=True)))
    )


def _gone(body: Any, branches: list[bytes]) -> list[Gone]:
    gone = body.get("g")
    _need(isinstance(gone, list) and len(gone) <= ROWS_MAX)
    for one in gone:
        _need(isinstance(one, list) and len(one) == 3 and all(type(n) is int and n >= 0 for n in one))
        _need(one[0] < len(branches))
    return [Gone(branches[where], rid, kind) for where, rid, kind in gone]


def _is_sound(row: RemoteRow) -> bool:
    """Whether a row can be one of a file system."""
    if row.parent_rid == 0:
        return row.name == b"" and row.kind == KIND_DIR
    return len(row.name) <= NAME_MAX_BYTES and is_name(row.name) and kind_of(row.mode) == row.kind


def _check_vector(raw: bytes) -> None:
    _need(len(raw) <= _VERSION_MAX_BYTES)
    try:
        vector = versions.unpack(raw)
    except Exception as error:
        raise PageRefused("a version is no vector") from error
    _need(all(len(branch) == 16 and 0 <= n <= _INT64_MAX for branch, n in vector.items()))
