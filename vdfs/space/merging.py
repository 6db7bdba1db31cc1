"""Merging: what several branches have under one name becomes nodes: one, and one for each version in conflict.

In: what each branch said of a name (ground.py), and what the kernel holds. Out: nodes with their parts or spots. The
rules are union.py's; here they are carried out, on nodes and rows. Replicas of one file, and parts of one directory,
share a number, which is one that the kernel knows, if it knows any; whoever holds the other goes on to hear of it
(`Holdings.former`). Versions that part get two; a handle's file keeps the one it was opened by.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import nullcontext

from index.model import versions
from index.model.change import ORIGIN_SCAN
from index.model.entry import KIND_DIR, KIND_FILE, KIND_SYMLINK, Entry
from index.model.errors import VdfsError
from index.scan import recording
from index.store import entries, metadata, targets
from index.store.store import Store
from index.store.unit import Unit
from vdfs.space import union
from vdfs.space.branches import Branch
from vdfs.space.dirs import DirRef
from vdfs.space.ground import Found
from vdfs.space.nodes import AnyStat, Node, RowStat, Spot, copy_of, remembered
from vdfs.space.reach import Reach


class Merging(Reach):
    """Nodes of names. Used on the loop only."""

    def __init__(self, store: Store, slug: str) -> None:
        super().__init__(store)
        self.slug = slug
        self.is_shared = False  # others than who mounted use the mount, too

    def _single(self, parent: Node, name: bytes, found: Found) -> tuple[Node, AnyStat]:
        row = found.row
        node = self.nodes.get(row.node)
        if node is None or node.kind != row.kind:
            node = Node(row.node, row.kind)
            self.nodes[row.node] = node
        self.hang(node, parent, name)
        if row.kind == KIND_DIR:
            node.lies_in((self._dir(found.dir, row),))
        else:
            self._set_spots(node, (Spot(found.dir, row.name, row.id),), row.nlink if row.is_ours else 1)
            node.stale_spots = ()
            node.st_ino = row.st_ino
        return node, found.st if found.st is not None else RowStat(row)

    def node_of(self, parent: Node, name: bytes, ref: DirRef, row: Entry, st: os.stat_result) -> tuple[Node, AnyStat]:
        """The node of a row that was just written."""
        return self._single(parent, name, Found(ref, row, st))

    def _set_spots(self, node: Node, spots: tuple[Spot, ...], nlink: int) -> None:
        if nlink > 1:
            if node.links is None:
                node.links = set(node.spots)
            node.links.update(spots)
        else:
            node.links = None
        node.spots = spots

    def _candidates(self, found: list[Found]) -> list[union.Candidate]:
        out = []
        for index, one in enumerate(found):
            target = self._target_of(one) if one.row.kind == KIND_SYMLINK else None
            out.append(_candidate(one.dir.branch, one.row, index, target))
        return out

    def conflict_name(self, branch: Branch, row: Entry, number: int) -> bytes:
        """What a replica is called that is a version in conflict."""
        return union.conflict_name(row.name, _candidate(branch, row, 0, None), number)

    def _target_of(self, found: Found) -> bytes | None:
        """Where a symlink leads, None where asking would take time."""
        if found.dir.branch.is_remote:
            return targets.get(self.store.db, found.row.id)
        if found.st is None or found.dir.branch.slow:
            return None
        try:
            with self.dirs.opened(found.dir) as fd:
                return os.readlink(found.row.name, dir_fd=fd)
        except (OSError, VdfsError):
            return None

    def _merged(self, parent: Node, name: bytes, found: list[Found]) -> list[tuple[Node, AnyStat]]:
        """The nodes of one name on several branches: the plain one first, then the conflicts by their names."""
        arranged = union.arrange(name, self._candidates(found))
        shown = sorted((found[c.number] for c in arranged.shown), key=lambda one: one.dir.branch.is_remote)
        shown = self._leave_open(shown, [found[c.number] for _, c in arranged.conflicts])
        shown = self._unify(parent, name, shown)
        node, st = self._single(parent, name, shown[0])
        if node.is_dir:
            self._merge(node, tuple(self._dir(f.dir, f.row) for f in shown))
            st = self._as_one(shown)
        else:
            links = shown[0].row.nlink if shown[0].row.is_ours else 1
            self._set_spots(node, tuple(Spot(f.dir, f.row.name, f.row.id) for f in shown), links)
            node.stale_spots = tuple(Spot(found[c.number].dir, c.row.name, c.row.id) for c in arranged.stale)
        out: list[tuple[Node, AnyStat]] = [(node, st)]
        for conflict, candidate in arranged.conflicts:
            one = found[candidate.number]
            if one.row.node == node.ino and not node.is_dir:
                one = self._part(one)
            out.append(self._single(parent, conflict, one))
        return out

    def _merge(self, node: Node, parts: tuple[DirRef, ...]) -> None:
        """A directory lies in these. What another part adds to one that the kernel knows, the kernel is told of.

        The names in it may have been seen before it was known to be a part, when nobody could say whose they are.
        """
        more = [ref for ref in parts if ref not in node.parts] if node.lookups and node.parts else []
        node.lies_in(parts)
        for ref in more:
            self.tell_again(ref)

    def _leave_open(self, shown: list[Found], conflicts: list[Found]) -> list[Found]:
        """Of what was one file and is two versions by now, one keeps the number: the shown one, unless it is the other
        that somebody has open. The kernel has one set of pages for a number."""
        number = shown[0].row.node
        held = self.nodes.get(number)
        others = [one for one in conflicts if one.row.node == number]
        if held is None or held.is_dir or not held.handles or not others:
            return shown
        if any(self.has_open(held, one.row.branch_id, one.row.st_ino) for one in shown):
            return shown
        if not any(self.has_open(held, one.row.branch_id, one.row.st_ino) for one in others):
            return shown
        out = [self._part(one) if one.row.node == number else one for one in shown]
        for one in out:
            self.tell_again(one.dir, one.row.name)
        return out

    def _part(self, one: Found) -> Found:
        """A replica that was one file with the shown one holds another version now: it gets a number of its own."""
        with self.store.write(ORIGIN_SCAN) as unit:
            return Found(one.dir, recording.part(unit, one.row), one.st)

    def together(self, parent_id: int, name: bytes) -> list[Found]:
        """What branches have in one directory of the union under a name, as far as that is one file or directory; none
        where nothing of another device is among it. By the rows alone: no disk is asked."""
        db = self.store.db
        found = []
        for directory in (parent_id, *entries.one_with(db, parent_id)):
            row = entries.child(db, directory, name)
            ref = None if row is None else self.ref_of(directory)
            if row is not None and ref is not None and not row.is_hidden:
                found.append(Found(ref, row, None))
        if len(found) < 2 or all(one.row.is_ours for one in found):
            return []
        shown = [found[c.number] for c in union.arrange(name, self._candidates(found)).shown]
        return sorted(shown, key=lambda one: one.dir.branch.is_remote) if len(shown) > 1 else []

    def is_held_beside(self, rows: Sequence[Entry]) -> bool:
        """Whether another device has something that shows under the name of one of some rows."""
        if not self.remotes:
            return False
        beside = (
            entries.child(self.store.db, directory, row.name)
            for row in rows
            if row.parent_id is not None
            for directory in entries.one_with(self.store.db, row.parent_id)
        )
        return any(row is not None and not row.is_ours and not row.is_hidden for row in beside)

    def join(self, found: list[Found], unit: Unit) -> list[Found]:
        """Let what lies together share what it is to share."""
        return self._unify(None, found[0].row.name, found, unit)

    def _unify(self, parent: Node | None, name: bytes, shown: list[Found], unit: Unit | None = None) -> list[Found]:
        """Replicas of one union name share number, uuid and, when their bytes are known to be equal, their vector.

        The number is one that the kernel knows, if it knows any. What has been seen is noted of our own replicas: of
        what another device holds, its device says that.
        """
        known = self._known_one(parent, name, shown)
        first = known.row
        out = []
        for one in shown:
            row = one.row
            if one is known:
                out.append(one)
                continue
            same = (row.kind == KIND_DIR or union.known_same(first, row)) and row.branch_id != first.branch_id
            # Names of one inode share a number: not with replicas of one of them, which have no such other name.
            linked = row.kind != KIND_DIR and any(one.is_ours and one.nlink > 1 for one in (first, row))
            number = row.node if linked else first.node
            if same and (row.node != number or _is_owed(first, row, known.dir.branch.uuid, one.dir.branch.uuid)):
                with self.store.write(ORIGIN_SCAN) if unit is None else nullcontext(unit) as writing:
                    is_told = (first.is_ours or row.is_ours) and recording.are_one_file(first, row)
                    uuid = recording.known_uuid(first, row) if is_told else None
                    names = entries.by_node(writing.db, row.node) if linked else [row]
                    if row.node != number:
                        self.renumbered(row)
                        metadata.mirror_moves(writing.db, row, number)
                        if row.kind == KIND_DIR:
                            recording.meet(writing, row, number)
                        else:
                            entries.set_node(writing.db, row.id, number, writing.seq)
                    if uuid is not None:
                        twins = (*entries.by_node(writing.db, first.node), *names)
                        for other in {twin.uuid for twin in twins} - {None, uuid}:
                            assert other is not None
                            uuid = recording.alias(writing, other, uuid)
                        for twin in twins:
                            if twin.uuid != uuid and twin.is_ours:
                                entries.set_uuid(writing.db, twin.id, uuid, writing.seq)
                        first = recording.again(writing, first.id)
                    if row.kind != KIND_DIR:
                        recording.join_versions(writing, first, row, known.dir.branch.uuid, one.dir.branch.uuid)
                fresh = entries.get(self.store.db, row.id)
                assert fresh is not None
                row = fresh
            out.append(Found(one.dir, row, one.st))
        return out

    def _known_one(self, parent: Node | None, name: bytes, shown: list[Found]) -> Found:
        """Of replicas the one whose number the kernel knows, best as that of this very name; else the first."""

        def rank(one: Found) -> int:
            node = self.nodes.get(one.row.node)
            if node is None or not node.lookups:
                return 0
            return 2 if (node.parent, node.name) == (parent, name) else 1

        return max(shown, key=rank)

    def _as_one(self, parts: list[Found]) -> AnyStat:
        """What a directory shows that is made of these, our own first."""
        stats = [part.st for part in parts if part.st is not None]
        if not stats:
            return remembered([part.row for part in parts])
        return self._newest(stats[0] if parts[0].st is None else parts[0].st, stats)

    def _newest(self, first: AnyStat, stats: list[os.stat_result]) -> AnyStat:
        """What a merged directory shows: the owner of the first, the times of the newest, and as its mode what all of
        them allow to others, if others use the mount."""
        if len(stats) < 2:
            return first
        newest = max(stats, key=lambda s: s.st_mtime_ns)
        mode = _allowed_by_all(first, stats) if self.is_shared else first.st_mode
        if newest is first and mode == first.st_mode:
            return first
        merged = copy_of(first)
        merged.st_mode = mode
        merged.st_mtime_ns = newest.st_mtime_ns
        merged.st_ctime_ns = max(s.st_ctime_ns for s in stats)
        return merged


def _candidate(branch: Branch, row: Entry, number: int, target: bytes | None) -> union.Candidate:
    vector = recording.vector_of(row, branch.uuid)
    return union.Candidate(row, vector, branch.device_uuid, branch.uuid, branch.slug, branch.label, number, target)


def _is_owed(a: Entry, b: Entry, a_branch: bytes, b_branch: bytes) -> bool:
    """Whether of two replicas of one file, or parts of one directory, one that is ours is to learn of the other."""
    if not a.is_ours and not b.is_ours:
        return False
    if a.uuid != b.uuid and recording.are_one_file(a, b):
        return True
    vectors = recording.vector_of(a, a_branch), recording.vector_of(b, b_branch)
    if a.is_ours == b.is_ours or a.kind != KIND_FILE:
        return False
    return not versions.covers(*(vectors if a.is_ours else reversed(vectors)))


def _allowed_by_all(first: AnyStat, stats: list[os.stat_result]) -> int:
    """The mode of several directories shown as one: nobody gets into what he may not enter where it lies.

    The owner of the first is a stranger to what somebody else owns. That he may write says his own directory alone,
    which new names go to. A server without all rights shuts nobody out of what is his: it can do no more than he.
    """
    mode = first.st_mode
    if os.geteuid() != 0 and any(st.st_uid != first.st_uid for st in stats):
        return mode
    for st in stats:
        strangers = st.st_mode & stat.S_IRWXO
        group = st.st_mode & stat.S_IRWXG if st.st_gid == first.st_gid else strangers << 3
        owner = st.st_mode & stat.S_IRWXU if st.st_uid == first.st_uid else strangers << 6
        mode &= ~0o777 | owner | stat.S_IWUSR | group | strangers
    return mode
