"""The rules by which several replicas of one name become what a person sees. Pure.

Directories merge. A directory beats a file. Of files, those whose vector is dominated are stale and not listed; of the
rest the greatest (mtime_ns, device, branch) has the plain name, together with every replica of the same bytes (or
whose bytes are not known to differ: same size, a full hash still missing). The others are conflicts and get names of
their own, made from columns that every device knows, so that they are the same everywhere. But what a rule holds back
here, of which no other device knows, keeps its name here. A replica of another device that is dominated by one of
the same bytes is no older than it: its device has not been told yet.
"""

from typing import NamedTuple

from index.model import versions
from index.model.entry import HASH_FULL, KIND_DIR, KIND_FILE, KIND_SYMLINK, NAME_MAX_BYTES, Entry

_WHENCE_MAX_BYTES = 64  # of a device or a branch in the name of a conflict


class Candidate(NamedTuple):
    """One replica of a name: its row, and what the names of conflicts need of its branch."""

    row: Entry
    vector: versions.Vector
    device: bytes
    branch_uuid: bytes
    slug: str
    label: str
    number: int  # the caller's own number for it
    target: bytes | None = None  # of a symlink, where it could be read


class Arranged(NamedTuple):
    """What is shown under the plain name (best first), what under names of conflict, what not at all."""

    shown: list[Candidate]
    conflicts: list[tuple[bytes, Candidate]]
    stale: list[Candidate]


def known_same(a: Entry, b: Entry) -> bool:
    """Whether two files are known to hold the same bytes."""
    if a.size_bytes == 0 and b.size_bytes == 0:
        return True
    return a.hash_state == HASH_FULL and b.hash_state == HASH_FULL and a.content_id == b.content_id


def known_different(a: Entry, b: Entry) -> bool:
    """Whether two files are known to hold different bytes."""
    if a.kind != b.kind:
        return True
    if a.kind == KIND_SYMLINK:  # the length of the target is all that rows have of it
        return a.size_bytes != b.size_bytes
    if a.kind != KIND_FILE:
        return False
    if a.size_bytes != b.size_bytes:
        return True
    return a.size_bytes > 0 and a.hash_state == HASH_FULL and b.hash_state == HASH_FULL and a.content_id != b.content_id


def _differ(a: Candidate, b: Candidate) -> bool:
    if a.target is not None and b.target is not None:
        return a.target != b.target
    return known_different(a.row, b.row)


def _rank(c: Candidate) -> tuple[int, bytes, bytes]:
    return (c.row.mtime_ns, c.device, c.branch_uuid)


def _is_stale(c: Candidate, files: list[Candidate]) -> bool:
    return any(o is not c and versions.dominates(o.vector, c.vector) and not _is_copy(o, c) for o in files)


def _is_copy(a: Candidate, b: Candidate) -> bool:
    return a.row.is_ours != b.row.is_ours and a.row.kind == b.row.kind == KIND_FILE and known_same(a.row, b.row)


def arrange(name: bytes, candidates: list[Candidate]) -> Arranged:
    """Decide for one name; with one candidate that is what it is."""
    if len(candidates) == 1:
        return Arranged(candidates, [], [])
    directories = [c for c in candidates if c.row.kind == KIND_DIR]
    files = [c for c in candidates if c.row.kind != KIND_DIR]
    stale = [c for c in files if _is_stale(c, files)]
    fresh = sorted((c for c in files if c not in stale), key=_rank, reverse=True)
    if not all(c.row.is_ours for c in fresh):
        fresh.sort(key=lambda c: not (c.row.is_ours and c.row.rule))
    if directories:
        return Arranged(directories, [(conflict_name(name, c), c) for c in fresh], stale)
    winner = fresh[0]
    shown = [winner]
    conflicts = []
    for other in fresh[1:]:
        if _differ(winner, other):
            conflicts.append((conflict_name(name, other), other))
        else:
            shown.append(other)
    return Arranged(shown, conflicts, stale)


def conflict_name(name: bytes, c: Candidate, number: int = 1) -> bytes:
    """`stem (from slug, label)[ n].ext`, cut at a character of UTF-8 to 255 bytes."""
    stem, dot, extension = name.rpartition(b".")
    if not stem:
        stem, dot, extension = name, b"", b""
    count = f" {number}" if number > 1 else ""
    whence = cut(c.slug.encode(), _WHENCE_MAX_BYTES) + b", " + cut(c.label.encode(), _WHENCE_MAX_BYTES)
    mark = b" (from " + whence + b")" + count.encode()
    tail = mark + dot + extension
    if len(tail) > NAME_MAX_BYTES - 1:
        tail = mark
    return cut(stem, NAME_MAX_BYTES - len(tail)) + tail


def stem_of(conflict: bytes) -> bytes:
    """What the names begin with that a version in conflict may be of which is shown so."""
    return conflict[: conflict.index(b" (from ")]  # the first: a branch's label may have it, too


def may_be_of(name: bytes, conflict: bytes) -> bool:
    """Whether a version in conflict that is shown so may be of a name; True for some that it is not of."""
    stem = stem_of(conflict)
    left = name[len(stem) :] if name.startswith(stem) else b"?"
    return not left or left.startswith((b".", b" (from ")) or len(conflict) > NAME_MAX_BYTES - 4  # cut at a character


def cut(text: bytes, limit: int) -> bytes:
    """At most `limit` bytes, never in the middle of a character of UTF-8."""
    if len(text) <= limit:
        return text
    while limit > 0 and text[limit] & 0xC0 == 0x80:
        limit -= 1
    return text[:limit]
