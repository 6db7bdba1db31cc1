"""Ground: the names of one branch at a time, disk and rows made to agree.

The disk is asked, the index remembers, and what differs is mended on the way, through the same functions as a scan
(index/scan/apply.py): a name that the index lacks is added, one that the disk lacks is removed. So whoever looks into a
directory that was never scanned gets the whole truth, and the index with him. Branches that are away answer from their
rows. What several branches make of a name is decided one floor up, in the union (tree.py).
"""

import contextlib
import errno
import logging
import os
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import trio
from trio.lowlevel import TrioToken, current_trio_token, spawn_system_task

from index.model import change
from index.model.change import ORIGIN_SCAN
from index.model.entry import KIND_DIR, KIND_FILE, Entry, Stat, ns
from index.model.errors import Deadline, NoSpace, Stale, Unreachable, VdfsError
from index.scan import apply, differ, kinship, recording
from index.store import entries
from vdfs.space.branches import CALL_DEADLINE_S, MISSING, NAME_DEADLINE_S, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.disk import BranchDisk

log = logging.getLogger("sdmount.ground")

_UNIT_ROWS = 500
#: Rows of a tree that is gone which are taken out between two turns of the loop.
_CLEAR_SLICE = 100
RECHECK_S = 1.0


class Found(NamedTuple):
    """One replica of a name: the directory it is in, its row, what the disk says (None: branch away)."""

    dir: DirRef
    row: Entry
    st: os.stat_result | None


class _Seen(NamedTuple):
    """A name of a listing whose row lacks or differs."""

    line: int
    name: bytes
    row: Entry | None
    st: os.stat_result


class Ground(BranchDisk):
    """Names of single branches. Used on the loop only."""

    # one name ---------------------------------------------------------------------------------------------------------

    async def _probe(self, ref: DirRef, name: bytes) -> Found | None:
        """What one branch says of a name; mends the index. Stale when the directory hangs elsewhere by now.

        Unreachable or Deadline when the branch does not answer and the index cannot know either.
        """
        branch = ref.branch
        if branch.state == MISSING and time.monotonic() - branch.checked_s > RECHECK_S:
            self.check(branch)
        row = entries.child(self.store.db, ref.entry_id, name)
        if branch.state == MISSING:
            return Found(ref, row, None) if row and not row.is_hidden else None
        self.before_look(ref)
        try:
            st = await branch.call(NAME_DEADLINE_S, self.lstat, ref, name)
        except (FileNotFoundError, NotADirectoryError):
            st = None
        except (Unreachable, Deadline):
            if row is None and not self._knows(ref):
                raise
            return Found(ref, row, None) if row else None
        except Stale:
            if entries.get(self.store.db, ref.entry_id) is None:
                return None
            raise
        if branch.slow:  # time has passed
            row = entries.child(self.store.db, ref.entry_id, name)
        return self.mend(ref, name, row, st, looked=True)

    def _knows(self, ref: DirRef) -> bool:
        """Whether the index has every name of a directory: it was listed, and what changes in it is seen. What other
        devices have is not known but by the index."""
        if ref.branch.is_remote:
            return True
        row = entries.get(self.store.db, ref.entry_id)
        return row is not None and row.scanned_ns is not None and not ref.branch.slow

    def mend(
        self, ref: DirRef, name: bytes, row: Entry | None, st: os.stat_result | None, *, looked: bool = False
    ) -> Found | None:
        """Make the row say what the disk says; returns both.

        A name that is gone may be half of a move: where a watcher runs, its row is left to him, who sees both halves.
        `looked`: somebody only asks, and is told what the disk says; the times of a directory, which move with every
        name in it, are then left to the watcher and the scan.
        """
        if st is None:
            if row is not None and not self.left_to_watch(ref, name):
                self.take_out(ref, row)
            return None
        stat = Stat.of(st)
        verdict = differ.SAME
        if row is not None:
            verdict = differ.compare(row, stat)
            if verdict == differ.SAME or (looked and verdict == differ.TIMES):
                return Found(ref, row, st)
        elif entries.get(self.store.db, ref.entry_id) is None:
            return None  # the directory itself left the index a moment ago

        def take_in() -> Entry:
            with self.store.write(ORIGIN_SCAN) as unit:
                place = kinship.Place(ref.branch.id, ref.entry_id, name)
                return apply.take_in(unit, place, row, stat, ref.branch.uuid, self)

        try:
            new = self.store.following(take_in)
        except NoSpace:
            if row is None or not looked or verdict > differ.DATA:
                raise
            return Found(ref, row, st)  # the row is behind; the watcher will try again
        self._look_into(ref, new)
        return Found(ref, new, st)

    def _look_into(self, above: DirRef, row: Entry) -> None:
        """A directory that the index did not know: what lies in it is to be taken in too."""
        if row.kind == KIND_DIR and row.scanned_ns is None:
            ref = self._dir(above, row)
            self.before_look(ref)
            self.found_dir(ref)

    def take_out(self, ref: DirRef, row: Entry) -> None:
        """A name is gone from the disk: its row leaves the index, or goes where its file has a new one already."""

        def remove() -> bool:
            with self.store.write(ORIGIN_SCAN) as unit:
                found = kinship.arrived(unit, row, self)
                if found is None or entries.is_larger(unit.db, found[0].id, _UNIT_ROWS):
                    gone = row
                    if row.kind == KIND_FILE and self.was_written(ref.entry_id, row.name):
                        recording.doubt(unit, row)  # where it turns up nothing is known of what was heard by this name
                        gone = recording.again(unit, row.id)
                    apply.remove(unit, gone, ref.branch.uuid)
                    return False
                newer, st = found
                apply.remove(unit, newer, ref.branch.uuid, keep=False)
                here = apply.take_in(unit, kinship.place(newer), None, st, ref.branch.uuid, self)
                recording.carries_too(unit, here, newer.uuid)
                return row.kind == KIND_DIR

        if self.store.following(remove):
            self._scan_anew(row.id)

    async def clear(self, row: Entry, branch_uuid: bytes, *, covered: bool = False) -> None:
        """A directory is gone from the disk: all below it leaves the index, in small units; its own row stays.

        A tree of a million names that was moved away is one event, and must not be one long wait for the kernel: a
        small one is left to who takes out the row. `covered`: what was there is hidden by a mount, or was one.
        """
        db = self.store.db
        if row.kind != KIND_DIR:
            return
        if not covered and not entries.is_larger(db, row.id, _UNIT_ROWS):
            return
        tree = [row.id]
        for count, entry_id in enumerate(tree):  # grows on the way: what lies above comes first
            tree.extend(below for below, _ in entries.subdirectories(db, entry_id))
            if count % _CLEAR_SLICE == 0:
                await trio.lowlevel.checkpoint()
        for count, entry_id in enumerate(reversed(tree)):
            while page := entries.some_children(db, entry_id, _CLEAR_SLICE):
                if not covered and not self._is_still_gone(row):
                    return self._scan_anew(row.id)
                if not entries.is_below(db, entry_id, row.id):  # it was taken out of the tree and is somewhere
                    self._scan_anew(entry_id)
                    break
                self.store.following(partial(self._take_all_out, entry_id, page, branch_uuid))
                await trio.lowlevel.checkpoint()
            if count % _CLEAR_SLICE == 0:
                await trio.lowlevel.checkpoint()
        return None

    def _is_still_gone(self, row: Entry) -> bool:
        """Whether a directory hangs where it did, and nothing is there: while we waited it may have turned up."""
        now = entries.get(self.store.db, row.id)
        return now is not None and (now.parent_id, now.name) == (row.parent_id, row.name) and self.stat_at(now) is None

    def _scan_anew(self, entry_id: int) -> None:
        """A directory is there again of whose rows some are gone."""
        if entries.get(self.store.db, entry_id) is None:
            return
        with self.store.write(ORIGIN_SCAN) as unit:
            entries.set_scanned(unit.db, entry_id, None, None)
        ref = self.ref_of(entry_id)
        if ref is not None:
            self.found_dir(ref)

    def _take_all_out(self, entry_id: int, rows: list[Entry], branch_uuid: bytes) -> None:
        """Rows of a directory, which counts as not listed from now on: whoever finds it somewhere has it scanned."""
        with self.store.write(ORIGIN_SCAN) as unit:
            entries.set_scanned(unit.db, entry_id, None, None)
            for row in rows:
                apply.remove(unit, row, branch_uuid)

    def tell_again(self, ref: DirRef, name: bytes | None = None) -> None:
        """A name (None: every one) of a directory may be unknown to somebody, or known as it was: let him ask again."""
        db = self.store.db
        rows = entries.children(db, ref.entry_id) if name is None else [entries.child(db, ref.entry_id, name)]
        with self.store.write(ORIGIN_SCAN) as unit:
            for row in filter(None, rows):
                unit.changed(change.ADDED, row.branch_id, row.id, ref.entry_id, row.name, row.node)

    def restamp(self, refs: Iterable[DirRef]) -> None:
        """Names in directories of fast branches changed: their rows get the times that they have now."""
        moved: list[tuple[Entry, Stat]] = []
        for ref in refs:
            row = entries.get(self.store.db, ref.entry_id)
            try:
                st = Stat.of(self._fstat_dir(ref))
            except (OSError, VdfsError):
                continue
            if row is not None and differ.compare(row, st) == differ.TIMES:
                moved.append((row, st))
        if not moved:
            return
        with self.store.write(ORIGIN_SCAN) as unit:
            for row, st in moved:
                entries.set_stat(unit.db, row.id, st, unit.seq)
                unit.changed(change.TIMES, row.branch_id, row.id, row.parent_id, row.name, row.node)

    # one directory ----------------------------------------------------------------------------------------------------

    async def list_part(self, ref: DirRef) -> list[tuple[bytes, Entry, os.stat_result | None]]:
        """One branch's directory from disk, the index mended; from its rows when the branch is away.

        Unreachable or Deadline when it does not answer and was never listed: an empty listing would be a lie.
        """
        branch = ref.branch
        if branch.state == MISSING and time.monotonic() - branch.checked_s > RECHECK_S:
            self.check(branch)
        if branch.state != MISSING:
            self.before_look(ref)
            try:
                dir_st, listed = await branch.call(
                    CALL_DEADLINE_S, self._scandir, ref, drop=partial(self._listed_late, current_trio_token(), ref)
                )
            except (Unreachable, Deadline):
                row = entries.get(self.store.db, ref.entry_id)
                if row is not None and row.scanned_ns is None:
                    raise
            else:
                return await self._reconcile(ref, dir_st, listed)
        return [(row.name, row, None) for row in entries.children(self.store.db, ref.entry_id) if not row.is_hidden]

    def _listed_late(self, token: TrioToken, ref: DirRef, got: tuple[os.stat_result, list[Any]]) -> None:
        """A listing that nobody waits for any more, in the thread that made it: the next one may have it."""

        async def take() -> None:
            try:
                await self._reconcile(ref, *got, late=True)
            except (OSError, VdfsError) as error:
                log.info("a late listing was of no use: %s", error)
            except Exception:
                log.exception("a late listing could not be taken in")

        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(spawn_system_task, take)

    def _scandir(self, ref: DirRef) -> tuple[os.stat_result, list[tuple[bytes, os.stat_result]]]:
        out = []
        with self.dirs.opened(ref) as fd:
            hides = ref.excluded
            dir_st = os.fstat(fd)
            try:
                with os.scandir(fd) as scan:
                    listed = list(scan)
            except OSError as error:
                if error.errno == errno.EBADF:  # opened with O_PATH: no permission to list it
                    raise PermissionError(errno.EACCES, "no permission to list the directory") from error
                raise
            for item in listed:
                name = item.name.encode("utf-8", "surrogateescape")
                leaf = hides.get(name) if hides else None
                if leaf is True:
                    continue
                if isinstance(leaf, Branch):
                    out.append((name, leaf.mount_stat()))
                    continue
                with contextlib.suppress(FileNotFoundError):
                    out.append((name, item.stat(follow_symlinks=False)))
        return dir_st, out

    async def _reconcile(
        self, ref: DirRef, dir_st: os.stat_result, listed: list[tuple[bytes, os.stat_result]], *, late: bool = False
    ) -> list[tuple[bytes, Entry, os.stat_result | None]]:
        """Make the rows say what a listing says. Large ones take several turns of the loop, between which anybody may
        have been there: then the disk is asked once more. `late`: the listing is older than the rows, and adds only."""
        me = entries.get(self.store.db, ref.entry_id)
        if me is None:
            raise Stale("the directory left the index a moment ago")
        rows = {row.name: row for row in entries.children(self.store.db, ref.entry_id)}
        out: list[tuple[bytes, Entry, os.stat_result | None]] = []
        unknown: list[_Seen] = []
        changed: list[_Seen] = []
        for name, st in listed:
            row = rows.pop(name, None)
            if row is None:
                unknown.append(_Seen(len(out), name, None, st))
            elif not row.matches(st) and differ.compare(row, Stat.of(st)) > differ.TIMES:
                changed.append(_Seen(len(out), name, row, st))
            out.append((name, row, st))  # type: ignore[arg-type]  # rows that are missing yet are put in below
        unknown.sort(key=lambda seen: seen.name)
        # An inode of an unknown name may be that of a known one; so they come first, and what is gone comes last.
        todo = unknown if late else unknown + changed
        pauses = late or len(todo) > _UNIT_ROWS
        try:
            for start in range(0, len(todo), _UNIT_ROWS):
                if start:
                    await trio.lowlevel.checkpoint()
                some = todo[start : start + _UNIT_ROWS]
                self.store.following(partial(self._take_in, ref, some, out, again=late or start > 0))
            if rows and not late:
                self.store.following(lambda: self._gone(ref, list(rows.values()), again=pauses))
        except NoSpace:  # what the index knows is told, the rest when it has room
            if any(row is None for _, row, _ in out):
                raise
            return out
        if pauses:
            out = self._as_it_is_now(ref, out)
        known = {name: row for name, row, _ in out} if pauses else None
        for seen in todo:
            row = out[seen.line][1] if known is None else known.get(seen.name)
            if row is not None:
                self._look_into(ref, row)
        mtime_ns = ns(dir_st.st_mtime_ns)
        if me.scanned_mtime_ns != mtime_ns:
            with contextlib.suppress(NoSpace), self.store.write(ORIGIN_SCAN) as unit:
                entries.set_scanned(unit.db, ref.entry_id, time.time_ns(), mtime_ns)
        return out

    def _take_in(
        self, ref: DirRef, some: list[_Seen], out: list[tuple[bytes, Entry, os.stat_result | None]], *, again: bool
    ) -> None:
        """Mend the rows of some names of a directory, in one unit; `again`: others had a turn since they were seen."""
        if again and entries.get(self.store.db, ref.entry_id) is None:
            raise Stale("the directory left the index a moment ago")
        with self.store.write(ORIGIN_SCAN) as unit:
            for line, name, row, st in some:
                if row is not None or again:  # another name may have taken or changed it meanwhile
                    fresh = entries.child(unit.db, ref.entry_id, name)
                    if again and ref.branch.slow and fresh is not None and (row is None or fresh.seq != row.seq):
                        continue  # who wrote it since knows better
                    row = fresh
                if again and not ref.branch.slow:
                    try:
                        st = self.lstat(ref, name)
                    except (FileNotFoundError, NotADirectoryError):
                        continue  # who took it away, or the watcher, has said so
                place = kinship.Place(ref.branch.id, ref.entry_id, name)
                new = apply.take_in(unit, place, row, Stat.of(st), ref.branch.uuid, self)
                out[line] = (name, new, st)

    def _gone(self, ref: DirRef, rows: list[Entry], *, again: bool) -> None:
        """Names of a directory are not on its disk any more; `again` as above."""
        rows = [row for row in rows if not self.left_to_watch(ref, row.name)]
        with self.store.write(ORIGIN_SCAN) as unit:
            for row in rows:
                fresh = entries.get(unit.db, row.id)  # an addition may have been the move of this one
                if fresh is None or fresh.parent_id != ref.entry_id or fresh.name != row.name:
                    continue
                if not again or (fresh.seq == row.seq if ref.branch.slow else self.stat_at(fresh) is None):
                    apply.remove(unit, fresh, ref.branch.uuid)

    def _as_it_is_now(
        self, ref: DirRef, out: list[tuple[bytes, Entry, os.stat_result | None]]
    ) -> list[tuple[bytes, Entry, os.stat_result | None]]:
        """A listing that took several turns: rows as they are by now, without the names that went meanwhile."""
        now = {row.name: row for row in entries.children(self.store.db, ref.entry_id)}
        lines: list[tuple[bytes, Entry, os.stat_result | None]] = []
        for name, row, st in out:
            fresh = now.get(name)
            if fresh is None:
                continue
            if fresh != row:
                try:
                    st = None if ref.branch.slow else self.lstat(ref, name)
                except (FileNotFoundError, NotADirectoryError):
                    continue
            lines.append((name, fresh, st))
        return lines
