"""index.verify: whether the index says what the disk says, found out without the scanner's code."""

import os

import attrs
import trio

from index.model.errors import NotFound, Unreachable
from vdfs.library.verify import verify_branch
from vdfs.ops.context import Core
from vdfs.ops.registry import doc, query
from vdfs.space.branches import LIVE


@attrs.frozen
class VerifyAsked:
    name: bytes | None = attrs.field(default=None, metadata=doc("a location; without it, everything"))
    content: bool = attrs.field(default=False, metadata=doc("also read every file and compare its hash"))


@attrs.frozen
class Difference:
    path: bytes
    kind: str = attrs.field(metadata=doc("missing, extra, kind, size, mtime, mode, inode, links, content, hash"))
    detail: str


@attrs.frozen
class Verified:
    checked: int
    differences: list[Difference]


@query("index.verify")
async def verify(core: Core, asked: VerifyAsked) -> Verified:
    """Compare rows with the disk; what differs is told, nothing is mended."""
    branches = list(core.tree.branches.values())
    if asked.name is not None:
        branches = [b for b in branches if b.location == asked.name]
        if not branches:
            raise NotFound(f"there is no location {os.fsdecode(asked.name)}")
    checked = 0
    away: list[str] = []
    differences: list[Difference] = []
    for branch in branches:
        if not branch.check() and branch.state != LIVE:
            away.append(os.fsdecode(branch.root_path))
            continue
        count, found = await trio.to_thread.run_sync(
            verify_branch, core.library.store.path, branch.id, branch.root_path, branch.excluded, asked.content
        )
        checked += count
        differences.extend(Difference(path, kind, detail) for path, kind, detail in found)
    if away and not differences:
        raise Unreachable(f"{', '.join(away)} could not be compared: not there ({checked} other entries are right)")
    return Verified(checked, differences)
