"""Indexer: the task that brings the index of names up to what the library holds.

It looks once a second whether anything is new or changed, and takes it in slices in a thread: the index is a file of
its own, so no unit waits for it. What was taken in is then forgotten in small units. Searches are exact meanwhile, they
only have more to look at. An index that is damaged is thrown away and built anew.
"""

import logging
from typing import Final

import apsw
import trio

from index.model.errors import NoSpace
from index.store import search
from index.store.connection import one
from index.store.search import SearchIndex
from index.store.store import Store

log = logging.getLogger("sdmount.search")

_LOOK_S: Final = 1.0
#: How long it waits for room on a full disk.
_FULL_S: Final = 30.0
#: Lines of search_todo that are forgotten in one unit, and how many wait for one.
_DROPPED_LINES: Final = 2000
_KEPT_LINES: Final = 64


class Indexer:
    """Keeps one library's index of names."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Follow the library until cancelled."""
        index = await trio.to_thread.run_sync(SearchIndex, self._store.path)
        try:
            while True:
                try:
                    await self._catch_up(index)
                except (apsw.CorruptError, apsw.NotADBError) as error:
                    log.warning("the index of names is damaged (%s) and is built anew", error)
                    index.close()
                    search.remove(self._store.path)
                    index = await trio.to_thread.run_sync(SearchIndex, self._store.path)
                except (apsw.FullError, NoSpace):
                    await trio.sleep(_FULL_S)
                await trio.sleep(_LOOK_S)
        finally:
            index.close()

    async def _catch_up(self, index: SearchIndex) -> None:
        while self._is_behind(index):
            await trio.to_thread.run_sync(index.step)
        while self._is_worth_dropping(index):
            with self._store.write("search") as unit:
                search.drop_done(unit.db, index.known.done_seq, _DROPPED_LINES)
            await trio.lowlevel.checkpoint()

    def _is_behind(self, index: SearchIndex) -> bool:
        newest, line = one(self._store.db, "SELECT (SELECT max(id) FROM entry), (SELECT max(seq) FROM search_todo)")
        return (newest or 0) > index.known.indexed_id or line > index.known.done_seq

    def _is_worth_dropping(self, index: SearchIndex) -> bool:
        first = int(one(self._store.db, "SELECT min(seq) FROM search_todo")[0])
        return index.known.done_seq - first >= _KEPT_LINES
