"""Indexer: the task that brings the index of names up to what the library holds.

It looks once a second whether anything is new or changed, and has a worker process take that in: the index is a file of
its own, so no unit waits for it, and folding names holds no interpreter but the worker's. What was taken in is then
forgotten in small units. Searches are exact meanwhile, they only have more to look at. An index that is damaged is
thrown away by the worker and built anew.
"""

import logging
from typing import Final

import trio

from index.model.errors import NoSpace
from index.scan.workers import WorkerDied, WorkerError, WorkerPool
from index.store import search
from index.store.connection import one
from index.store.search import Known
from index.store.store import Store

log = logging.getLogger("sdmount.search")

_LOOK_S: Final = 1.0
#: How long it waits for room on a full disk, or after what it does not know.
_PAUSE_S: Final = 30.0
#: Lines of search_todo that are forgotten in one unit, and how many wait for one.
_DROPPED_LINES: Final = 2000
_KEPT_LINES: Final = 64


class Indexer:
    """Keeps one library's index of names."""

    def __init__(self, store: Store, pool: WorkerPool) -> None:
        self._store = store
        self._pool = pool
        self._known: Known | None = None  # how far the index is; None where it was not looked at yet
        self._epoch = 0  # in which it was

    async def run(self) -> None:
        """Follow the library until cancelled."""
        while True:
            try:
                await self._catch_up()
            except WorkerDied as error:
                log.info("the index of names goes on in another worker: %s", error)
            except NoSpace:
                await trio.sleep(_PAUSE_S)
            except WorkerError as error:
                if error.error_kind != "FullError":
                    log.warning("the index of names could not be brought up to date: %s", error)
                await trio.sleep(_PAUSE_S)
            await trio.sleep(_LOOK_S)

    async def _catch_up(self) -> None:
        if self._is_behind():
            self._epoch = self._store.epoch
            async with self._pool.stream("names", {"database": str(self._store.path)}) as stream:
                async for known in stream:
                    self._known = Known._make(known)
        while self._is_worth_dropping():
            with self._store.write("search") as unit:
                search.drop_done(unit.db, self._done_seq(), _DROPPED_LINES)
            await trio.lowlevel.checkpoint()

    def _is_behind(self) -> bool:
        if self._known is None or self._epoch != self._store.epoch:  # of another epoch it is made anew
            return True
        newest, line = one(self._store.db, "SELECT (SELECT max(id) FROM entry), (SELECT max(seq) FROM search_todo)")
        return (newest or 0) > self._known.indexed_id or line > self._known.done_seq

    def _is_worth_dropping(self) -> bool:
        first = int(one(self._store.db, "SELECT min(seq) FROM search_todo")[0])
        return self._done_seq() - first >= _KEPT_LINES

    def _done_seq(self) -> int:
        return 0 if self._known is None else self._known.done_seq
