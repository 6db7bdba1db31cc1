"""Importing what files already carry: their `user.*`, read when a file is identified or its ctime moved, of directories
and empty files when they are found.

A row is written first and its file is asked for its attributes a moment later. What comes in between (the end of the
process, a reader that lags, a full disk) must not leave attributes out that no later look would miss. So the library
holds (meta `attributes_seq`) up to which unit all rows have been asked about; what was written since is asked anew.

Nothing is ever written into a user's file from here.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import apsw
import trio

from index.model import change
from index.model.change import ORIGIN_CALL, ORIGIN_MOUNT, ORIGIN_SYNC, ORIGIN_WALK, Commit
from index.model.errors import NoSpace, VdfsError
from index.store import changes, entries, metadata
from index.store.feed import LAGGED
from vdfs.space import realattrs
from vdfs.space.annotations import Annotations
from vdfs.space.branches import LIVE
from vdfs.space.tree import Tree

log = logging.getLogger("sdmount.importer")

_AGAIN_S = 0.5
_TRIES = 40
_MISSED_MAX = 1000
#: How often it is written down how far all is asked.
_NOTE_S: Final = 3.0
#: Rows that are looked through, and of which files are asked, between two turns of the loop.
_PASSED: Final = 10_000
_ASKED: Final = 16
#: The unit up to which every row's file has been asked.
_ASKED_SEQ: Final = "attributes_seq"
#: Commits that leave nothing to ask: who made them has asked, or knows.
_QUIET: Final = frozenset({ORIGIN_MOUNT, ORIGIN_CALL, ORIGIN_SYNC, "reconcile"})


class Importer:
    """Takes in the real attributes of entries."""

    def __init__(self, tree: Tree, annotations: Annotations) -> None:
        self.tree = tree
        self.annotations = annotations
        self._missed: dict[int, int] = {}  # entries that could not be asked -> how often
        self._has_lost = False  # something is to be asked that nobody else will bring,
        self._asks_anew = False  # and is being asked
        #: Whether somebody is about to bring what he heard of.
        self.waits: Callable[[], bool] = lambda: False

    def take(self, entry_ids: Iterable[int]) -> None:
        try:
            for entry_id in entry_ids:
                self._guarded(entry_id)
        except BaseException:
            self._has_lost = True
            raise

    async def follow(self) -> None:
        """Take in what changed behind the mount, and what came that nobody will read: a directory, an empty file."""
        self._has_lost = True
        with self.tree.store.feed.subscribe(without=_QUIET) as commits:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._try_again)
                nursery.start_soon(self._catch_up, commits)
                await self._follow(commits)

    async def _catch_up(self, commits: trio.MemoryReceiveChannel[Commit]) -> None:
        """What was left out is asked about; and it is noted from time to time, and at the end, that all is asked."""
        try:
            while True:
                if self._has_lost:
                    await self._ask_since(self._asked_seq)
                await trio.sleep(_NOTE_S)
                self._note_asked(commits)
        finally:
            self._note_asked(commits)

    @property
    def is_behind(self) -> bool:
        """Whether something is left to be asked that was left out once."""
        return self._has_lost or self._asks_anew

    @property
    def _asked_seq(self) -> int:
        seq = changes.get_meta(self.tree.store.db, _ASKED_SEQ)
        return seq if isinstance(seq, int) else 0

    def _note_asked(self, commits: trio.MemoryReceiveChannel[Commit]) -> None:
        is_asked = not (self.is_behind or self._missed or self.waits() or commits.statistics().current_buffer_used)
        seq = self.tree.store.last_seq
        if is_asked and seq > self._asked_seq:
            # What cannot be noted is asked once more; a damaged database is told by who is asked for something.
            with suppress(NoSpace, apsw.Error), self.tree.store.write("reconcile") as unit:
                changes.set_meta(unit.db, _ASKED_SEQ, unit.seq)

    async def _ask_since(self, seq: int) -> None:
        """Ask about every row of this device that was written after a unit."""
        self._has_lost, self._asks_anew = False, True
        after: int | None = 0
        while after is not None:
            written, after = entries.written_since(self.tree.store.db, seq, after, _PASSED)
            for begin in range(0, len(written), _ASKED):
                self.take(written[begin : begin + _ASKED])
                await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        self._asks_anew = False

    async def _try_again(self) -> None:
        """What was not where the index had it may be soon: a directory above it has moved."""
        while True:
            await trio.sleep(_AGAIN_S)
            for entry_id, tries in list(self._missed.items()):
                del self._missed[entry_id]
                try:
                    self._guarded(entry_id, tries=tries)
                except (OSError, VdfsError):  # no room for the index just now
                    self._missed[entry_id] = tries
                    break

    async def _follow(self, commits: trio.MemoryReceiveChannel[Commit]) -> None:
        async for commit in commits:
            if commit is LAGGED:
                self._has_lost = True
                continue
            is_told = commit.origin == ORIGIN_WALK  # of what came, by who found it
            came = [] if is_told else [one.entry_id for one in commit.changes if one.what == change.ADDED]
            unread = entries.unread_of(self.tree.store.db, came) if came else frozenset()
            self.take(
                one.entry_id
                for one in commit.changes
                if one.what in (change.ATTRS, change.DATA) or (one.what == change.ADDED and one.entry_id in unread)
            )

    def _guarded(self, entry_id: int, *, tries: int = 0) -> None:
        """One file whose attributes defeat us must not keep those of its neighbours out."""
        try:
            is_asked = self._one(entry_id)
            if not is_asked and tries < _TRIES and len(self._missed) < _MISSED_MAX:
                self._missed[entry_id] = tries + 1
        except (VdfsError, OSError):
            raise
        except Exception:
            log.exception("the attributes of entry %d could not be taken in", entry_id)

    def _one(self, entry_id: int) -> bool:
        """Hold one entry's attributes against what was last seen; returns False where it cannot be asked just now."""
        row = entries.get(self.tree.store.db, entry_id)
        if row is None:
            return True
        ref = self.tree.ref_of(row.parent_id or row.id)
        if ref is None or ref.branch.slow or ref.branch.state != LIVE or ref.mounted(row.name):
            return True
        try:
            known = metadata.mirror_state(self.tree.store.db, row)
            real = realattrs.read_if_changed(self.tree.dirs, ref, row.name, row.st_ino, known)
        except PermissionError:
            return True
        except (OSError, VdfsError):
            return False
        if real is not None:
            self.annotations.take_in(row, real)
        return True
