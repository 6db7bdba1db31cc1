"""What is in files of deep locations: fields and thumbnails, for the jobs that index a branch and for what comes later.

Queues, results and decoders are those of index/media; here is who asks for which page when. All state is in the rows:
what has its fields or its pictures, or has failed to give them, is not asked again.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import trio

from index.media import pipeline
from index.media.driving import work_off
from index.media.pipeline import Page, Source
from index.media.variants import DEFAULT
from index.model.change import ORIGIN_SCAN
from index.model.errors import NoSpace, VdfsError
from index.model.inode import DEVICES
from index.scan.workers import WorkerError, WorkerPool
from index.store.store import Store
from index.store.unit import Unit
from vdfs.base.pace import Pace
from vdfs.space.branches import Branch
from vdfs.space.halts import Halts

log = logging.getLogger("sdmount.media")

#: What a disk says that takes no more.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

#: (content, what a worker said of it)
Batch = Sequence[tuple[int, list[Any]]]
#: Told of each batch: how many were looked at, how many of these were read, and (path, reason) of those that cannot be.
Done = Callable[[int, int, list[tuple[str, str]]], None]
#: What is said of a file of which only the type became known, or that is to be asked again.
_UNREAD = frozenset({"type", "again"})


class Media:
    """Used on the loop only."""

    def __init__(self, store: Store, pool: WorkerPool, sidecars_dir: bytes, halts: Halts, pace: Pace) -> None:
        self.halts = halts
        self.pace = pace
        self.store = store
        self.pool = pool
        self.sidecars_dir = sidecars_dir
        self.looked_s = 0.0  # spent on finding what is to be decoded, all in all

    async def extract(self, branch: Branch, after: int, done: Done, at: Callable[[int], None]) -> None:
        """Have the fields read of the contents of a branch that lack them, from a content on; `at` is told after each
        page where to go on."""
        page = partial(pipeline.lacking_fields, self.store.db, [branch.id])
        await self._all(branch, "extract", page, pipeline.take_extracted, after, done, at)

    async def thumbnail(self, branch: Branch, after: int, done: Done, at: Callable[[int], None]) -> None:
        """The same for thumbnails."""
        page = partial(pipeline.lacking_thumbnails, self.store.db, [branch.id])
        await self._all(branch, "thumbnail", page, pipeline.take_thumbnails, after, done, at)

    async def read_new(self, branch: Branch, after: int) -> None:
        """Fields and thumbnails of contents behind one that lack them; what does not work is left to the next job."""
        for what in (self.extract, self.thumbnail):
            try:
                await what(branch, after, lambda count, read, failed: None, lambda at: None)
            except VdfsError as error:
                log.warning("what came to %s could not be looked into: %s", os.fsdecode(branch.root_path), error)

    async def _all(
        self,
        branch: Branch,
        operation: str,
        page: Callable[[int], Page],
        take: Callable[[Unit, Batch], list[int]],
        after: int,
        done: Done,
        at: Callable[[int], None],
    ) -> None:
        next_id: int | None = after
        while next_id is not None:
            began_s = time.monotonic()
            sources, next_id = page(next_id)
            self.looked_s += time.monotonic() - began_s
            if sources:
                await self._some(branch, operation, sources, take, done)
            if next_id is not None:
                at(next_id)
            await trio.lowlevel.checkpoint()

    async def _some(
        self,
        branch: Branch,
        operation: str,
        sources: list[Source],
        take: Callable[[Unit, Batch], list[int]],
        done: Done,
    ) -> None:
        by_id = {source.content_id: source for source in sources}

        async def take_batch(batch: Batch) -> None:
            async with self.pace.turn():
                with self.store.write(ORIGIN_SCAN) as unit:
                    take(unit, batch)
            failed = [
                (os.fsdecode(b"/".join([branch.root_path, *by_id[content_id].path])), str(result[1]))
                for content_id, result in batch
                if result[0] == "failed"
            ]
            done(len(batch), sum(result[0] not in _UNREAD for _, result in batch), failed)

        args: dict[str, Any] = {"root": branch.root_path, "sidecars": self.sidecars_dir, "devices": DEVICES.told()}
        if operation == "thumbnail":
            args["variants"] = list(DEFAULT)
        with self.halts.on(branch.id):
            try:
                await work_off(self.pool, operation, args, [source.item() for source in sources], take_batch)
            except WorkerError as error:
                if error.os_errno in NO_ROOM:
                    raise NoSpace("the disk that holds the library has no room for a thumbnail") from error
                raise
