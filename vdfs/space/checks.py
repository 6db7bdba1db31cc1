"""Checks: what is refused before anything happens; what of a name is this device's to change.

A change that concerns several replicas is looked at for all of them before the first is touched, so that a refusal
leaves everything as it was. A single replica needs most of this not: the call itself says it. What another device
holds is never changed here: where we have a replica too the change is that one's, else it is refused.
"""

import errno
import os
from collections.abc import Sequence
from typing import TypeVar

from index.model.errors import CrossBranch, Exists, Unreachable
from vdfs.space import syscalls
from vdfs.space.branches import LIVE, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node, Spot
from vdfs.space.remotes import RemoteBranch
from vdfs.space.tree import Tree

T = TypeVar("T")

_NAME_MAX_BYTES = 255


def os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def check_name(name: bytes) -> None:
    """Refuse a name that no file system takes."""
    if len(name) > _NAME_MAX_BYTES:
        raise os_error(errno.ENAMETOOLONG)
    if name in (b"", b".", b".."):
        raise Exists("that name is always there")


def own_spots(node: Node) -> list[Spot]:
    """The replicas that are shown and ours; ReadOnly where others alone hold it."""
    return [spot for spot, _ in _own(node.name, [(spot, spot.dir) for spot in node.spots])]


def own_parts(node: Node) -> list[DirRef]:
    """The parts of a directory that are ours; ReadOnly where others alone have it."""
    return [part for part, _ in _own(node.name, [(part, part) for part in node.parts])]


def _own(name: bytes, places: Sequence[tuple[T, DirRef]]) -> list[tuple[T, DirRef]]:
    ours = [place for place in places if not place[1].branch.is_remote]
    if places and not ours:
        branch = places[0][1].branch
        assert isinstance(branch, RemoteBranch)
        raise branch.refusal(name)
    return ours


def check_there(spots: Sequence[Spot]) -> None:
    """Refuse when a replica lies on a branch that is away."""
    for spot in spots:
        branch = spot.dir.branch
        if branch.state != LIVE:
            raise Unreachable(f"{os.fsdecode(spot.name)} lies on {branch.label}, which is away; nothing was changed")


def part_on(node: Node, branch: Branch) -> DirRef | None:
    """A directory's part on a branch; CrossBranch when that lies on another file system inside the branch."""
    for ref in node.parts:
        if ref.branch is branch:
            return ref
        if ref.branch.id == branch.id:
            raise CrossBranch(f"{os.fsdecode(node.name)} is on another file system")
    return None


def check_not_read_only(tree: Tree, refs: list[DirRef]) -> None:
    """Of several branches: refuse when one lies on a file system that takes no writes."""
    distinct = {ref.branch.id: ref for ref in refs if not ref.branch.slow}
    if len(distinct) < 2:
        return
    for ref in distinct.values():
        if os.fstatvfs(tree.dirs.fd(ref)).f_flag & os.ST_RDONLY:
            raise os_error(errno.EROFS)


def check_writable(tree: Tree, refs: list[DirRef]) -> None:
    """Of several branches: refuse when one of the directories would."""
    distinct = {ref.entry_id: ref for ref in refs}
    if len({ref.branch.id for ref in distinct.values()}) < 2:
        return
    check_not_read_only(tree, refs)
    for ref in distinct.values():
        if ref.branch.slow:
            continue
        fd = tree.dirs.fd(ref)
        if not os.access(syscalls.proc_path(fd), os.W_OK | os.X_OK):
            raise os_error(errno.EACCES)


def same_location(a: Node, b: Node, root: Node) -> bool:
    """Whether two nodes lie under the same top-level directory."""
    return _top(a, root) is _top(b, root)


def _top(node: Node, root: Node) -> Node | None:
    """The top-level directory a node lies under (itself included); None for the root."""
    while node.parent is not None and node.parent is not root:
        node = node.parent
    return node if node.parent is root else None
