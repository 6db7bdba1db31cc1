"""index.verify: whether the index says what the disk says, found out without the scanner's code."""

import os
from collections.abc import AsyncIterator
from functools import partial

import attrs
import trio

from index.model.errors import AccessDenied, NotFound, Unreachable
from index.model.inode import DEVICES
from index.scan import verify as verification
from index.store import search
from vdfs.ops.context import Core
from vdfs.ops.registry import doc, query
from vdfs.space.branches import LIVE, Branch


@attrs.frozen
class VerifyAsked:
    name: bytes | None = attrs.field(default=None, metadata=doc("a location; without it, everything"))
    content: bool = attrs.field(default=False, metadata=doc("also read every file and compare its hash"))


@attrs.frozen
class Difference:
    path: bytes
    kind: str = attrs.field(
        metadata=doc(
            "missing, extra, kind, size, mtime, mode, inode, links, content, number, uuid, aggregate, search, "
            "unreadable"
        )
    )
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
    away: list[bytes] = []
    differences: list[Difference] = []
    for branch in branches:
        core.tree.check(branch)
        if branch.state != LIVE:
            away.append(branch.root_path)
            continue
        with core.library.store.settled():
            async for count, found in _compared(core, branch, asked.content):
                checked += count
                differences.extend(Difference(path, kind, detail) for path, kind, detail in found)
    if asked.name is None:
        differences += await _of_search(core)
    if away and not differences:
        raise Unreachable(f"{_some(away)} could not be compared: not there ({checked} other entries are right)")
    differences += [Difference(path, "unreadable", "it is not there") for path in away]
    if differences and all(one.kind == "unreadable" for one in differences):
        where = _some([one.path for one in differences])
        raise AccessDenied(f"{len(differences)} could not be compared: {where} ({checked} other entries are right)")
    return Verified(checked, differences)


def _some(paths: list[bytes]) -> str:
    return ", ".join(map(os.fsdecode, paths[:3])) + (", …" if len(paths) > 3 else "")


async def _of_search(core: Core) -> list[Difference]:
    """What is wrong with the index of names."""
    path = core.library.store.path
    faults = await trio.to_thread.run_sync(search.check, path)
    return [Difference(os.fsencode(search.path_beside(path)), "search", fault) for fault in faults]


async def _compared(core: Core, branch: Branch, content: bool) -> AsyncIterator[tuple[int, list[verification.Found]]]:
    """Pieces of the comparison of one branch: from a worker process, or from a thread where no workers run."""
    store, pool = core.library.store, core.scanner.pool
    if not pool.is_running:
        pieces = partial(
            verification.differences, store.path, branch.id, branch.root_path, branch.for_workers(), content
        )
        for piece in await trio.to_thread.run_sync(lambda: list(pieces())):
            yield piece
        return
    args = {
        "database": str(store.path), "branch": branch.id, "root": branch.root_path, "excluded": branch.for_workers(),
        "content": content, "devices": DEVICES.told(),
    }  # fmt: skip
    async with pool.stream("verify", args) as stream:
        async for count, found in stream:
            yield count, [(path, kind, detail) for path, kind, detail in found]
