"""What a path means that a person gave: in the mount, on a real disk, or in the library (`sd:/…`)."""

import os

import trio

from index.model.errors import Deadline, Invalid, NameTooLong, NotFound
from index.scan.mounts import is_within
from vdfs.ops.context import Core
from vdfs.space.nodes import AnyStat, Node

_SCHEME = b"sd:/"
_RESOLVE_DEADLINE_S = 5.0
#: Threads that a dead file system may keep; nobody else waits for one of these.
_threads = trio.CapacityLimiter(8)


async def union_path(core: Core, path: bytes) -> list[bytes]:
    """The components in the union of a path as a client sends it (absolute, or `sd:/…`).

    Symlinks are resolved in a thread: one may lead into our own mount, which the loop must be free to answer for, or
    onto a dead server.
    """
    if path.startswith(_SCHEME):
        names = [p for p in path[len(_SCHEME) :].split(b"/") if p and p != b"."]
        if b".." in names:
            raise Invalid(f"{os.fsdecode(path)}: a path in the library has no '..'")
        return names
    path = os.path.normpath(path)
    if core.mountpoint is not None:
        mountpoint = os.fsencode(core.mountpoint)
        if is_within(path, mountpoint):
            return [p for p in path[len(mountpoint) :].split(b"/") if p]
    real = None
    with trio.move_on_after(_RESOLVE_DEADLINE_S):
        real = await trio.to_thread.run_sync(_real, path, abandon_on_cancel=True, limiter=_threads)
    if real is None:
        raise Deadline(f"{os.fsdecode(path)} did not answer within {_RESOLVE_DEADLINE_S:g} s")
    if core.mountpoint is not None and is_within(real, os.fsencode(core.mountpoint)):
        return [p for p in real[len(os.fsencode(core.mountpoint)) :].split(b"/") if p]
    for branch in core.tree.branches.values():
        if is_within(real, branch.root_path):
            below = [p for p in real[len(branch.root_path) :].split(b"/") if p]
            return below if branch.location is None else [branch.location, *below]
    raise NotFound(f"{os.fsdecode(path)} lies in no location of the library; see: sd location list")


def _real(path: bytes) -> bytes:
    """The path with its directory's symlinks resolved, the last component as it is."""
    head, tail = os.path.split(path)
    return os.path.join(os.path.realpath(head), tail) if tail else os.path.realpath(head)


async def node_of(core: Core, path: bytes) -> tuple[Node, AnyStat]:
    """The node of a given path; NotFound names it as it was given."""
    names = await union_path(core, path)
    try:
        return await core.tree.resolve(names)
    except NotFound as error:
        raise NotFound(f"{os.fsdecode(path)} is not in the library") from error
    except NameTooLong as error:
        raise NameTooLong(f"{os.fsdecode(path)}: {error}") from error


def shown(core: Core, names: list[bytes]) -> bytes:
    """How a path of the union is told: below the mount point, or as `sd:/…` when nothing is mounted."""
    if core.mountpoint is not None:
        return b"/".join([os.fsencode(core.mountpoint), *names])
    return _SCHEME + b"/".join(names)


def branch_prefix(core: Core, branch_id: int) -> bytes | None:
    """How the told paths of a branch's rows begin; None where the branch is none any more."""
    branch = core.tree.branch_of(branch_id)
    if branch is None:
        return None
    return shown(core, [b""] if branch.location is None else [branch.location, b""])


def row_path(core: Core, branch_id: int, names: list[bytes]) -> bytes | None:
    """The told path of a row by its names on a branch."""
    begin = branch_prefix(core, branch_id)
    return None if begin is None else begin + b"/".join(names)
