"""rename(2) over the union: names move with all their replicas, each on its own branch.

First everything is looked up and checked, then the disk is changed branch by branch, then one unit writes all rows.
Inside a location nothing is ever EXDEV: a replica's missing parent directories are made on its branch. Between
locations the kernel decides, as between any two file systems.

Renaming over a file makes a new version of it: its vector has seen every replica of source and target, so a replica of
the target that stays behind on another branch is stale and not shown. A version in conflict that lies where the source
goes is no replica of the target: it gets the name that it is shown under. The source's rows stay (the kernel keeps its
inode); the target's uuid, and with it tags and attributes, moves to them unless the source carries annotations of its
own. At the root, a location's name is changed and no folder of a user moves.

What other devices hold stays where it is, under a number of its own; a name that they alone hold is not renamed, nor
replaced. What they have of that which left is hidden here (index/store/leaving.py), name by name: of a directory those
that they alone have stay under the old name.
"""

import contextlib
import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from index.model import change, versions
from index.model.change import ORIGIN_MOUNT, ORIGIN_SCAN
from index.model.entry import KIND_DIR, KIND_FILE, Entry, Stat
from index.model.errors import Busy, CrossBranch, Exists, Invalid, NotADirectory, NotFound, VdfsError
from index.model.inode import inode_of
from index.scan import apply, recording
from index.store import entries, leaving, metadata, places, rulings
from index.store.unit import Unit
from vdfs.space import journal, syscalls
from vdfs.space.branches import CALL_DEADLINE_S, LIVE, Branch
from vdfs.space.checks import (
    check_name,
    check_there,
    check_writable,
    os_error,
    own_parts,
    own_spots,
    part_on,
    same_location,
)
from vdfs.space.departures import leads_of, leave_name
from vdfs.space.dirs import DirRef
from vdfs.space.namespace import Namespace
from vdfs.space.nodes import Node, Spot, is_below, removed_stat
from vdfs.space.remotes import RemoteBranch
from vdfs.space.sameness import certain, is_as_it_was, rows_of


class _Step(NamedTuple):
    """One replica's move: from where, to which directory and name, by which flags."""

    spot: Spot
    ref: DirRef
    name: bytes
    flags: int = 0


def _alone(spot: Spot, ref: DirRef, name: bytes) -> _Step:
    """One half of an exchange, on a branch that has nothing of the other half: it replaces nothing."""
    # A network file system may not know the flag; there the lookup of a moment ago must do.
    return _Step(spot, ref, name, 0 if spot.dir.branch.slow else syscalls.RENAME_NOREPLACE)


def _check_distinct(steps: Sequence[_Step], taken: Sequence[Spot] = ()) -> None:
    """No step may go where another goes, nor where something lies that is to stay: of two files one would be lost.

    So it would be where replicas, of which one may be an older version, leave for a location that takes one of them.
    """
    places = [(step.ref.entry_id, step.name) for step in steps] + [(spot.dir.entry_id, spot.name) for spot in taken]
    if len({*places}) < len(places):
        raise CrossBranch("it lies on several branches that cannot go there together; copy it")


class Renames:
    """Renaming. Used on the loop only."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.tree = namespace.tree
        self.store = namespace.store
        self.annotations = namespace.annotations

    async def rename(
        self, src_parent: Node, src_name: bytes, dst_parent: Node, dst_name: bytes, flags: int, pid: int = 0
    ) -> tuple[Node | None, Node | None]:
        """rename(2) with RENAME_NOREPLACE and RENAME_EXCHANGE. Returns what the two names were (None: nothing)."""
        check_name(dst_name)
        root = self.tree.root
        if src_parent is root and src_name in self.tree.locations:
            await self._rename_location(src_name, dst_parent, dst_name, flags)
            return None, None
        if dst_parent is root and dst_name in self.tree.locations:
            if flags & syscalls.RENAME_NOREPLACE:
                raise Exists(f"{os.fsdecode(dst_name)} is there already")
            raise Busy(f"{os.fsdecode(dst_name)} is a location and cannot be replaced")
        if flags & ~(syscalls.RENAME_NOREPLACE | syscalls.RENAME_EXCHANGE):
            raise Invalid("a library has no whiteouts")
        src, _ = await self.tree.lookup(src_parent, src_name)
        moving = _spots(src)  # of this name only: another lookup may leave those of a hard-linked twin
        dst = await self._find(dst_parent, dst_name)
        names = src, dst
        if dst is src:
            return names
        if src.is_dir and is_below(dst_parent, src):
            raise Invalid("a directory cannot be moved into itself")
        if flags & syscalls.RENAME_EXCHANGE:
            if dst is None:
                raise NotFound(f"{os.fsdecode(dst_name)} is not there")
            await self._exchange(src_parent, src, moving, dst_parent, dst)
            return names
        if dst is not None and flags & syscalls.RENAME_NOREPLACE:
            raise Exists(f"{os.fsdecode(dst_name)} is there already")
        was = next(iter(self._rows(src.spots)), None)
        await self._move(src_parent, src_name, src, moving, dst_parent, dst_name, dst, flags)
        if dst is None and not src.is_dir:
            await self._continue_backup(dst_parent, dst_name, src, was, pid)
        rows = self._rows(src.spots)
        self.namespace.backups.note(src_parent, src_name, rows[0] if rows else None, dst_name, pid)
        return names

    async def _continue_backup(self, parent: Node, name: bytes, src: Node, was: Entry | None, pid: int) -> None:
        """The name was put aside by this process a moment ago: what it moved there now is its new version."""
        rows = self._rows(src.spots)
        held = self.namespace.backups.heir(parent, name, pid)
        had = None if was is None else was.uuid
        if held is None or not rows or (had is not None and metadata.has_any(self.store.db, had)):
            return
        with self.store.write(ORIGIN_MOUNT) as unit:
            uuid = rows[0].uuid if rows[0].uuid != had else None  # it took over what others have there
            self.namespace.backups.hand_over(unit, held, rows, uuid=uuid)
        await self.annotations.copy_all(src)

    async def _find(self, parent: Node, name: bytes) -> Node | None:
        try:
            return (await self.tree.lookup(parent, name))[0]
        except NotFound:
            return None

    # moving -----------------------------------------------------------------------------------------------------------

    async def _move(
        self,
        src_parent: Node,
        src_name: bytes,
        src: Node,
        moving: list[Spot],
        dst_parent: Node,
        dst_name: bytes,
        dst: Node | None,
        flags: int,
    ) -> None:
        over = [] if dst is None or dst.is_dir else own_spots(dst)
        stale = [] if dst is None or dst.is_dir else _spots(dst)[len(over) :]
        was = rows_of(self.tree, [*over[1:], *stale])
        if dst is not None:
            await self._check_replaceable(src, dst)
        check_there(moving)
        steps = [_Step(spot, await self._target(spot, src_parent, dst_parent), dst_name, flags) for spot in moving]
        over = await certain(self.tree, over)
        if was:  # that took its time: the rows are to say what the disk says
            await self._find(dst_parent, dst_name)
        was = {i: row for i, row in was.items() if is_as_it_was(row, entries.get(self.store.db, i))}
        over = [*over[:1], *(spot for spot in over[1:] if spot.entry_id in was)]
        aliased = [spot for spot in over if spot.name != dst_name and spot not in moving]
        _check_distinct(steps)
        check_writable(self.tree, [s.spot.dir for s in steps] + [s.ref for s in steps] + [s.dir for s in aliased])
        if dst is not None:
            meant = {spot.entry_id for spot in (*moving, *over, *(spot for spot in stale if spot.entry_id in was))}
            # A directory is shown before a file: only where it goes must there be room.
            for ref in {step.ref for step in steps} if dst.is_dir else dst_parent.parts:
                await self._make_room(ref, dst_name, meant)
        last, held = None, set()
        if dst is not None:
            self.tree.keep_ghost(dst)
            if dst.is_dir:
                last, held = removed_stat(await self.tree.stat(dst)), self.tree.held_as(dst)
            else:  # what either brings along decides whose identity stays
                await self.annotations.reconcile(src)
                await self.annotations.reconcile(dst)
        beside = self._others_below(src)
        leads = await leads_of(self.tree, [*moving, *over])
        with self._noted(moving):
            stats = await self._on_disk(steps)
            done = list(zip(steps, stats, strict=True))
            aliased = [spot for spot in aliased if await self._is_unlinked(spot)]
            self.store.following(lambda: self._write_rows(src, dst, over, done, aliased, leads))
        self._tell_others_stay(beside)
        if dst is not None and dst.is_dir:
            await self._clear_directory(dst, {s.ref.branch.id for s in steps})
            assert last is not None
            for one in held:
                one.vanished(last)
        src_parent.names_changed()
        dst_parent.names_changed()
        self.tree.hang(src, dst_parent, dst_name)
        if dst is not None and not src.is_dir:
            await self.annotations.copy_all(src)

    def _noted(self, spots: Sequence[Spot]) -> journal.Noted:
        """Around a step that takes replicas of ours from names that other devices have, too."""
        rows = self._rows(spots)
        return journal.Noted(self.store, "rename", [row.id for row in rows], leaves=self.tree.is_held_beside(rows))

    async def _make_room(self, ref: DirRef, name: bytes, meant: set[int]) -> None:
        """Where another version lies than the one that is meant, it gets the name that it is shown under."""
        row = entries.child(self.store.db, ref.entry_id, name)
        if row is None or row.kind == KIND_DIR or row.id in meant or ref.branch.state != LIVE:
            return
        number = 1
        while entries.child(self.store.db, ref.entry_id, self.tree.conflict_name(ref.branch, row, number)):
            number += 1
        aside = _alone(Spot(ref, name, row.id), ref, self.tree.conflict_name(ref.branch, row, number))
        (st,) = await self._on_disk([aside])
        with self.store.write(ORIGIN_MOUNT) as unit:
            recording.part_ways(unit, row)
            self._write_row(unit, aside, st, set())
            moved = entries.get(unit.db, row.id)
            if moved is not None:
                recording.own_identity(unit, moved, aside.ref.entry_id, aside.name)
        node = self.tree.nodes.get(row.node)
        if node is not None and not node.is_dir:
            self._moved(node, aside, inode_of(st), st)

    async def _check_replaceable(self, src: Node, dst: Node) -> None:
        name = os.fsdecode(dst.name)
        if dst.is_dir and not src.is_dir:
            raise os_error(errno.EISDIR)
        if src.is_dir and not dst.is_dir:
            raise NotADirectory(f"{name} is no directory")
        if dst.is_dir:
            await self.namespace.refuse_if_not_empty(dst)
        check_there(_spots(dst))

    async def _target(self, spot: Spot, src_parent: Node, dst_parent: Node) -> DirRef:
        """Where a replica goes: it stays on its branch, whose missing parents are made."""
        branch = spot.dir.branch
        part = part_on(dst_parent, branch)
        if part is not None:
            return part
        if same_location(src_parent, dst_parent, self.tree.root) and dst_parent is not self.tree.root:
            return await self.namespace.ensure_dir(dst_parent, branch)
        return await self.namespace.place_for_new(dst_parent)

    async def _on_disk(self, steps: list[_Step]) -> list[os.stat_result]:
        """Do every step; when one fails, those before it that replaced nothing are taken back."""
        stats: list[os.stat_result] = []
        try:
            for step in steps:
                self.tree.before_look(step.spot.dir)
                self.tree.before_look(step.ref)
                stats.append(await step.spot.dir.branch.call(CALL_DEADLINE_S, self._rename_one, step))
        except (OSError, VdfsError):
            for step in reversed(steps[: len(stats)]):
                if entries.child(self.store.db, step.ref.entry_id, step.name) is None:
                    back = _Step(Spot(step.ref, step.name, step.spot.entry_id), step.spot.dir, step.spot.name)
                    with contextlib.suppress(OSError, VdfsError):
                        await step.spot.dir.branch.call(CALL_DEADLINE_S, self._rename_one, back)
            raise
        return stats

    def _rename_one(self, step: _Step) -> os.stat_result:
        with self.tree.dirs.opened(step.spot.dir) as src_fd, self.tree.dirs.opened(step.ref) as dst_fd:
            syscalls.rename(src_fd, step.spot.name, dst_fd, step.name, step.flags)
            return os.stat(step.name, dir_fd=dst_fd, follow_symlinks=False)

    def _write_rows(
        self,
        src: Node,
        dst: Node | None,
        over: list[Spot],
        done: list[tuple[_Step, os.stat_result]],
        aliased: list[Spot],
        leads: leaving.Targets,
    ) -> None:
        over_file = dst if dst is not None and not dst.is_dir else None
        is_alias = any(spot.name != step.name for spot in over for step, _ in done)
        destroyed = set() if dst is None else {spot.entry_id for spot in _spots(dst)}
        with self.store.write(ORIGIN_MOUNT) as unit:
            heir, vector = self._new_version(unit, src, over_file, over, leads, [step.ref.branch for step, _ in done])
            for replaced in self._rows(aliased):
                self._drop(unit, replaced, keep=replaced.nlink > 1)
            gone = self._rows([step.spot for step, _ in done])
            leave_name(unit, gone, gone, leads)
            for moving in gone:
                recording.part_ways(unit, moving)
            for step, st in done:
                self._write_row(unit, step, st, destroyed)
                if heir is not None:
                    entries.set_uuid(unit.db, step.spot.entry_id, heir, unit.seq)
                if vector is not None and step.spot in src.spots:
                    entries.set_version(unit.db, step.spot.entry_id, vector, unit.seq)
            if vector is None:
                recording.arrive_together(unit, self._rows([step.spot for step, _ in done]))
            for step, _ in done:  # a version in conflict goes its own way from now on
                row = entries.get(unit.db, step.spot.entry_id)
                if row is not None and (heir is None or is_alias):
                    recording.own_identity(unit, row, step.ref.entry_id, step.name)
            shown = {step.spot.entry_id for step, _ in done if src.is_dir or step.spot in src.spots}
            came = [entries.get(unit.db, entry_id) for entry_id in sorted(shown)]
            leaving.made_again(unit, [row for row in came if row is not None])
        src.face = None
        _parted(src)
        for step, st in done:
            self._moved(src, step, inode_of(st), st)
            if step.ref.branch is not step.spot.dir.branch:
                self.tree.dirs.settle_below(step.spot.entry_id)
        if over_file is not None:
            over_file.face = None
            refs = {step.ref for step, _ in done}
            self.namespace.dropped(over_file, [s for s in over_file.spots if s.dir in refs or s in aliased])

    def _others_below(self, moving: Node) -> list[tuple[DirRef, bytes]]:
        """Names that other devices alone have in a directory that is about to move, and in those below it, each with
        our part of the directory. They stay behind, while the kernel moves all that it knows of."""
        if not self.tree.remotes or not moving.is_dir:
            return []
        found = []
        for node in list(self.tree.nodes.values()):
            theirs = [part for part in node.parts if part.branch.is_remote]
            if not theirs or len(theirs) == len(node.parts) or not is_below(node, moving):
                continue
            own = next(part for part in node.parts if not part.branch.is_remote)
            names = {row.name for part in theirs for row in entries.children(self.store.db, part.entry_id)}
            found += [(own, name) for name in names]
        return found

    def _tell_others_stay(self, names: list[tuple[DirRef, bytes]]) -> None:
        """Whoever knows these names by our directories is to look again."""
        if names:
            with self.store.write(ORIGIN_SCAN) as unit:
                for ref, name in names:
                    unit.changed(change.ADDED, ref.branch.id, 0, ref.entry_id, name, 0)

    async def _is_unlinked(self, spot: Spot) -> bool:
        """A version in conflict was replaced under the name it is shown by: it goes from the one that it has.

        Where that is refused it stays, and shows.
        """
        row = entries.get(self.store.db, spot.entry_id)

        def unlink() -> bool:
            with self.tree.dirs.opened(spot.dir) as fd:
                there = inode_of(os.stat(spot.name, dir_fd=fd, follow_symlinks=False))
                if row is None or there != row.st_ino:
                    return False
                os.unlink(spot.name, dir_fd=fd)
            return True

        try:
            return bool(await spot.dir.branch.call(CALL_DEADLINE_S, unlink))
        except (OSError, VdfsError):
            return False

    def _drop(self, unit: Unit, row: Entry, *, keep: bool) -> None:
        """What was under a name was replaced."""
        apply.remove(unit, row, unit.branch_uuid(row.branch_id), keep=keep)
        self.namespace.look_beside(unit, row)

    def _write_row(self, unit: Unit, step: _Step, st: os.stat_result, destroyed: set[int]) -> None:
        row = entries.get(unit.db, step.spot.entry_id)
        over = entries.child(unit.db, step.ref.entry_id, step.name)
        if over is not None and over.id != step.spot.entry_id:  # what we did not destroy went behind the mount
            lives = over.id not in destroyed or (over.nlink > 1 and over.kind != KIND_DIR)
            self._drop(unit, over, keep=lives)
        if row is None:
            apply.add(unit, step.ref.branch.id, step.ref.entry_id, step.name, Stat.of(st), self.tree, fresh=True)
        elif step.ref.branch is step.spot.dir.branch:
            unit.changed(change.REMOVED, row.branch_id, row.id, row.parent_id, row.name, row.node)
            entries.move(unit.db, row.id, step.ref.entry_id, step.name, unit.seq)
            recording.restat(unit, row, Stat.of(st))
            unit.changed(change.ADDED, row.branch_id, row.id, step.ref.entry_id, step.name, row.node)
        else:
            recording.change_branch(unit, row, step.ref.branch.id, step.ref.entry_id, step.name, Stat.of(st))

    def _new_version(
        self, unit: Unit, src: Node, dst: Node | None, over: list[Spot], leads: leaving.Targets, on: list[Branch]
    ) -> tuple[bytes | None, bytes | None]:
        """(uuid that the source takes over, packed vector that has seen all) of a name renamed over another's, on some
        branches. What the source had seen on others is of its old name.

        What is no file keeps its own uuid; it too must have seen the versions of the target that stay behind.
        """
        if dst is None or src.is_dir:
            return None, None
        sources, targets = self._rows(src.spots), self._rows([*over, *dst.stale_spots])
        if not sources or not targets:
            return None, None
        theirs = leaving.seen_by(unit, targets, [row for row in self._rows(dst.spots) if not row.is_ours], leads)
        branches = {one.uuid for one in on}
        had = {branch: stamp for branch, stamp in leaving.joined(unit, sources).items() if branch in branches}
        vector = versions.join(had, leaving.joined(unit, [*targets, *theirs]))
        for branch in branches:
            vector = versions.bump(vector, branch, unit.version)
        uuid = sources[0].uuid
        annotated = uuid is not None and metadata.has_any(unit.db, uuid)
        own = src.kind != KIND_FILE or annotated or sources[0].nlink > 1
        heir = None if own else recording.heir_uuid(unit, targets[0])
        return heir, versions.pack(vector)

    def _rows(self, spots: Sequence[Spot]) -> list[Entry]:
        return list(rows_of(self.tree, spots).values())

    def _moved(self, node: Node, step: _Step, st_ino: int, st: os.stat_result | None = None) -> None:
        """Bring the node of a moved name up to date; `st` where the disk was asked."""
        new = Spot(step.ref, step.name, step.spot.entry_id)
        if node.is_dir:
            self.tree.dirs.child(new.dir, new.entry_id, new.name, st_ino)
            return
        if node.spots and node.spots[0] == step.spot:
            node.st_ino = st_ino
            if st is not None:
                node.renamed(st)
        node.spots = tuple(new if s == step.spot else s for s in node.spots)
        node.stale_spots = tuple(new if s == step.spot else s for s in node.stale_spots)
        if node.links is not None:
            node.links.discard(step.spot)
            node.links.add(new)

    async def _clear_directory(self, dst: Node, done: set[int]) -> None:
        """A directory was renamed over an empty one: its parts on other branches go too."""
        for ref in list(dst.parts):
            if ref.branch.id not in done and ref.parent is not None and not ref.branch.is_remote:
                await self.namespace.remove_directory(ref, ref.parent)

    # exchanging -------------------------------------------------------------------------------------------------------

    async def _exchange(self, src_parent: Node, src: Node, ours: list[Spot], dst_parent: Node, dst: Node) -> None:
        """Each branch swaps what it has of the two: both names, or the one it holds."""
        if dst.is_dir and is_below(src_parent, dst):
            raise Invalid("a directory cannot be exchanged with what lies in it")
        theirs = _spots(dst)
        check_there([*ours, *theirs])
        src_name, dst_name = src.name, dst.name
        swaps: list[tuple[_Step, Spot]] = []
        moves: list[tuple[Node, _Step]] = []
        for spot in ours:
            other = next((t for t in theirs if t.dir.branch is spot.dir.branch), None)
            if other is not None:
                swaps.append((_Step(spot, other.dir, other.name, syscalls.RENAME_EXCHANGE), other))
            else:
                moves.append((src, _alone(spot, await self._target(spot, src_parent, dst_parent), dst_name)))
        lone = [t for t in theirs if not any(s.dir.branch is t.dir.branch for s in ours)]
        moves += [(dst, _alone(t, await self._target(t, dst_parent, src_parent), src_name)) for t in lone]
        steps = [s for s, _ in swaps] + [s for _, s in moves]
        _check_distinct([s for _, s in moves], [*ours, *theirs])
        check_writable(self.tree, [s.spot.dir for s in steps] + [s.ref for s in steps])
        for _, step in moves:
            await self._make_room(step.ref, step.name, {spot.entry_id for spot in (*ours, *theirs)})
        beside = self._others_below(src) + self._others_below(dst)
        leads = await leads_of(self.tree, [*ours, *theirs])
        with self._noted([*ours, *theirs]):
            stats = await self._on_disk(steps)
            self._write_exchanged(ours, theirs, swaps, moves, stats, leads)
        self._tell_others_stay(beside)
        for node in (src, dst):
            _parted(node)
        for (step, other), st in zip(swaps, stats, strict=False):
            self._moved(src, step, inode_of(st), st)
            row = entries.get(self.store.db, other.entry_id)
            if row is not None:
                self._moved(dst, _Step(other, step.spot.dir, step.spot.name), row.st_ino)
        for (node, step), st in zip(moves, stats[len(swaps) :], strict=True):
            self._moved(node, step, inode_of(st), st)
        for node in (src, dst):
            node.face = None
        self.tree.hang(src, dst_parent, dst_name)
        self.tree.hang(dst, src_parent, src_name)
        src_parent.names_changed()
        dst_parent.names_changed()

    def _write_exchanged(
        self,
        ours: list[Spot],
        theirs: list[Spot],
        swaps: list[tuple[_Step, Spot]],
        moves: list[tuple[Node, _Step]],
        stats: list[os.stat_result],
        leads: leaving.Targets,
    ) -> None:
        with self.store.write(ORIGIN_MOUNT) as unit:
            for rows in (self._rows(ours), self._rows(theirs)):
                leave_name(unit, rows, rows, leads)
            for moving in self._rows([*ours, *theirs]):
                recording.part_ways(unit, moving)
            for (step, other), st in zip(swaps, stats, strict=False):
                a, b = entries.get(unit.db, step.spot.entry_id), entries.get(unit.db, other.entry_id)
                if a is not None and b is not None:
                    recording.swap_names(unit, a, b)
                    recording.restat(unit, a, Stat.of(st))
            for (_, step), st in zip(moves, stats[len(swaps) :], strict=True):
                self._write_row(unit, step, st, set())
            for spots in (ours, theirs):
                recording.arrive_together(unit, self._rows(spots))
                for one in self._rows(spots):
                    now = recording.again(unit, one.id)
                    recording.own_identity(unit, now, now.parent_id, now.name)
                leaving.made_again(unit, self._rows(spots), inherits=False)

    # locations --------------------------------------------------------------------------------------------------------

    async def _rename_location(self, old: bytes, dst_parent: Node, new: bytes, flags: int) -> None:
        """mv of a location at the root: its name changes, no folder of a user moves."""
        root = self.tree.root
        if dst_parent is not root:
            raise Busy(f"{os.fsdecode(old)} is a location; it can be renamed at the top only")
        if flags & syscalls.RENAME_EXCHANGE:
            raise Invalid("locations cannot be exchanged")
        if await self._find(root, new) is not None:
            raise Exists(f"{os.fsdecode(new)} is there already")
        if not self.tree.of_location(old):
            _refuse(self.tree.locations[old], old)
        home = root.parts[0] if root.parts else None
        row = entries.child(self.store.db, home.entry_id, old) if home is not None else None
        if home is not None and row is not None:
            await self._on_disk([_Step(Spot(home, old, row.id), home, new)])
        rows = [row for row in places.locations(self.store.db) if row.name == old]
        with self.store.write(ORIGIN_MOUNT) as unit:
            if row is not None and home is not None:
                entries.move(unit.db, row.id, home.entry_id, new, unit.seq)
                rulings.put(unit.db, home.entry_id, unit.seq)
            for location in rows:
                places.rename_location(unit, location.id, new)
        self.tree.rename_location(old, new)
        root.names_changed()


def _spots(node: Node) -> list[Spot]:
    """Every replica of a node that is ours: the places a directory hangs, or the shown and the stale ones of a file.
    ReadOnly where others alone hold what is shown."""
    if node.is_dir:
        return [Spot(p.parent, p.name, p.entry_id) for p in own_parts(node) if p.parent is not None]
    return [*own_spots(node), *(spot for spot in node.stale_spots if not spot.dir.branch.is_remote)]


def _parted(node: Node) -> None:
    """A file has gone where the replicas of other devices did not follow."""
    if not node.is_dir:
        node.spots = tuple(spot for spot in node.spots if not spot.dir.branch.is_remote)
        node.stale_spots = tuple(spot for spot in node.stale_spots if not spot.dir.branch.is_remote)


def _refuse(branches: Sequence[Branch], name: bytes) -> None:
    """A location of which we have no branch is not ours to name."""
    for branch in branches:
        if isinstance(branch, RemoteBranch):
            raise branch.refusal(name)
