"""Arrivals: what follows when rows of other devices come, change places or go.

In: units and commits, whoever wrote them. Out, in the same unit: a row that is moved or detached shares no number with
what stays, since the kernel would move a directory that has two places; and what is hidden, since it left here, is
hidden again or shows (leaving.py). Out, behind: what devices have under one name
shares number and uuid (merging.py), though nobody looks the name up, so that a search tells it once and it is no
duplicate of itself; and a directory that comes to one which somebody holds becomes a part of it.

Where too much comes to be remembered, and at the start, all that other devices hold is gone through once.
"""

import contextlib
from collections.abc import Iterable, Sequence

import trio

from index.model.change import ADDED, DATA, META, ORIGIN_SCAN, ORIGIN_SYNC, REMOVED, Change, Commit
from index.model.entry import KIND_DIR, Entry
from index.model.errors import VdfsError
from index.scan import recording
from index.store import entries, leaving, whiteouts
from index.store.unit import Unit
from vdfs.space.ground import Found
from vdfs.space.tree import Tree

#: Names that wait at most; beyond, everything is gone through.
_MOST = 20_000
#: Names that are looked at in one turn, and while the mount is in use.
_TURN, _TURN_USED = 64, 8

#: A directory's row, and a name in it.
_Place = tuple[int, bytes]


class Arrivals:
    """Used on the loop only; `run()` is its life."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.store = tree.store
        self._waiting: dict[_Place, None] = {}
        self._has_more = True  # than what waits: that of the time before
        self._wake = trio.Event()
        tree.store.before_commit = self.about_to_be_told
        if whiteouts.is_any(tree.store.db) or whiteouts.hidden(tree.store.db):
            with tree.store.write(ORIGIN_SCAN) as unit:
                leaving.judge_all(unit)
        tree.store.feed.at_once(self._heard)

    def about_to_be_told(self, unit: Unit, changes: Sequence[Change]) -> None:
        """Before a unit is committed: rows of others that left a place and are there yet hang elsewhere, or nowhere;
        what came may be what left here."""
        if unit.origin != ORIGIN_SYNC:
            return
        for entry_id in list({one.entry_id: None for one in changes if one.what == REMOVED}):
            row = entries.get(unit.db, entry_id)
            if row is not None and not row.is_ours:
                recording.moved_afar(unit, row)
        leaving.told(unit, changes, self.store.last_entry_id)

    def _heard(self, commit: Commit) -> None:
        """What came, or is known better, may be one with what others have."""
        if self.tree.remotes:
            self._await((c.parent_id, c.name) for c in commit.changes if c.what in (ADDED, DATA, META))

    def _await(self, places: Iterable[tuple[int | None, bytes]]) -> None:
        for parent_id, name in places:
            if parent_id is not None:
                self._waiting[parent_id, name] = None
        if len(self._waiting) > _MOST:
            self._waiting.clear()
            self._has_more = True
        self._wake.set()

    async def run(self) -> None:
        """Join what has come under the names of others, for ever."""
        while True:
            await self.join_all()
            await self._wake.wait()
            self._wake = trio.Event()

    async def join_all(self) -> None:
        """Join what has come so far."""
        while self._waiting or (self._has_more and self.tree.remotes):
            if self._has_more:
                await self._go_through_all()
            await self._join_waiting()

    async def _go_through_all(self) -> None:
        """All names of others that are not one with what there is beside them."""
        self._has_more = False
        after_id, found = 0, [((0, b""), 0)]
        while found and not self._has_more:
            found = await trio.to_thread.run_sync(self._apart, after_id)
            self._await(place for place, _ in found)
            await self._join_waiting()
            after_id = found[-1][1] if found else 0

    def _apart(self, after_id: int) -> list[tuple[_Place, int]]:
        """In a thread: some of these names, each with the row behind which to go on."""
        with self.store.reader() as db:
            return entries.apart(db, after_id, _MOST // 2)

    async def _join_waiting(self) -> None:
        while self._waiting:
            async with self.tree.pace.turn():
                some = [*self._waiting][: _TURN_USED if self.tree.pace.is_used else _TURN]
                for place in some:
                    del self._waiting[place]
                partial = self._join(some)
            for parent_id, name in partial:
                await self._look_up(parent_id, name)

    def _join(self, places: list[_Place]) -> list[_Place]:
        """Join what lies at some places; returns the directories among them that somebody holds without a part."""
        # Asked once a directory: of most of what comes nobody else has the directory.
        shared = {parent for parent in {parent for parent, _ in places} if entries.one_with(self.store.db, parent)}
        several = [(place, found) for place in places if place[0] in shared and (found := self.tree.together(*place))]
        if not several:
            return []
        partial = []
        with self.store.write(ORIGIN_SCAN) as unit:
            for place, found in several:
                numbers = {one.row.node for one in found}
                joined = self.tree.join(found, unit)
                if joined[0].row.kind != KIND_DIR:
                    continue
                if len(numbers) > 1:
                    self._await((one.row.id, row.name) for one in joined for row in self._others_in(one.row.id))
                if self._is_partial(joined):
                    partial.append(place)
        return partial

    def _is_partial(self, parts: list[Found]) -> bool:
        """Whether somebody holds a directory and has not heard of one of its parts."""
        node = self.tree.nodes.get(parts[0].row.node)
        if node is None or not node.lookups:
            return False
        return not {part.row.id for part in parts} <= {ref.entry_id for ref in node.parts}

    def _others_in(self, directory: int) -> list[Entry]:
        """What is in a directory of another device; nothing of one of ours."""
        return [row for row in entries.children(self.store.db, directory) if not row.is_ours]

    async def _look_up(self, parent_id: int, name: bytes) -> None:
        """Whoever holds what became one with something has it as it is now."""
        parent = self.tree.held_dir(parent_id)
        if parent is None or self.tree.dirs.known(parent_id) is None:
            return
        held = (self.tree.nodes.get(number) for number in self.tree.known_inos(parent, name))
        if any(node is not None and node.lookups for node in held):
            with contextlib.suppress(OSError, VdfsError):
                await self.tree.lookup(parent, name)
