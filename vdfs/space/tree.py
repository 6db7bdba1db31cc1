"""Tree: names to nodes, over all branches, those of other devices with ours. What each branch says of a name is
ground.py's, what becomes of several merging.py's; here a name, a listing and what stat says are put together.

A lookup costs one fstatat and one indexed query for each branch that holds the directory; a listing one scandir and one
query. Local attributes are always those of the disk just now; what other devices hold is as its rows say.
"""

import os
import time
from collections import Counter
from collections.abc import Iterable

from index.model import change
from index.model.change import ORIGIN_SCAN
from index.model.entry import KIND_DIR, KIND_SYMLINK, NAME_MAX_BYTES, Entry, is_name, kind_of
from index.model.errors import Deadline, NameTooLong, NotADirectory, NotFound, Stale, Unreachable, VdfsError
from index.store import entries, targets
from index.store.store import Store
from vdfs.space import syscalls, union
from vdfs.space.branches import CALL_DEADLINE_S, LIVE, MISSING, NAME_DEADLINE_S, Branch
from vdfs.space.dirs import DirRef
from vdfs.space.ground import RECHECK_S, Found
from vdfs.space.merging import Merging
from vdfs.space.nodes import AnyStat, Listed, Node, RowStat, Spot, remembered, removed_stat
from vdfs.space.remotes import RemoteBranch

#: A part of a directory and its names.
_Part = tuple[DirRef, list[tuple[bytes, Entry, os.stat_result | None]]]


class Tree(Merging):
    """The union of all branches. Used on the loop only.

    `locations` has the branches of a name, this device's first; `root.parts` is the store, then those of the others.
    """

    def __init__(self, store: Store, slug: str) -> None:
        super().__init__(store, slug)
        self.locations: dict[bytes, list[Branch]] = {}
        self.home: Branch | None = None
        self._online: set[bytes] = set()  # other devices that are connected

    # branches ---------------------------------------------------------------------------------------------------------

    def add_branch(self, branch: Branch) -> None:
        if isinstance(branch, RemoteBranch):
            self.remotes[branch.id] = branch
            self.store.remote.add(branch.id)
        else:
            self.branches[branch.id] = branch
            branch.slug = self.slug
        if branch.location is not None:
            held = self.locations.setdefault(branch.location, [])
            held.append(branch)
            held.sort(key=lambda one: (one.is_remote, one.id))
            return
        if not branch.is_remote:
            self.home = branch
        self.root.parts = tuple(
            sorted((*self.root.parts, self.dirs.root(branch)), key=lambda ref: (ref.branch.is_remote, ref.branch.id))
        )

    def drop_branch(self, branch: Branch) -> None:
        self.dirs.close_branch(branch)
        self.branches.pop(branch.id, None)
        self.remotes.pop(branch.id, None)
        self.store.remote.discard(branch.id)
        if branch.location is None:
            self.root.parts = tuple(ref for ref in self.root.parts if ref.branch is not branch)
        else:
            self._leave_location(branch, branch.location)

    def _leave_location(self, branch: Branch, name: bytes) -> None:
        left = [b for b in self.locations.get(name, []) if b is not branch]
        if left:
            self.locations[name] = left
        else:
            self.locations.pop(name, None)

    def rename_location(self, old: bytes, new: bytes) -> None:
        for branch in list(self.locations.get(old, [])):
            self.relocate(branch, new)

    def relocate(self, branch: Branch, name: bytes) -> None:
        """A branch is shown under another name at the top."""
        if branch.location is not None:
            self._leave_location(branch, branch.location)
        branch.location = name
        for inner in branch.inner.values():
            inner.location = name
        held = self.locations.setdefault(name, [])
        held.append(branch)
        held.sort(key=lambda one: (one.is_remote, one.id))

    def of_location(self, name: bytes) -> list[Branch]:
        """The branches of this device that hold a location."""
        return [branch for branch in self.locations.get(name, []) if not branch.is_remote]

    def rename_device(self, slug: str) -> None:
        """What this device is called in names of conflicts, and in paths."""
        if slug != self.slug:
            self.slug = slug
            for branch in self.branches.values():
                branch.slug = slug
                self.branch_changed(branch)

    def set_online(self, device_uuid: bytes, is_online: bool) -> None:
        """Another device is connected, or is not. Of what the kernel keeps nothing says so: views and attributes of
        ours are asked for each time."""
        if is_online:
            self._online.add(device_uuid)
        else:
            self._online.discard(device_uuid)
        for branch in self.remotes.values():
            if branch.device_uuid == device_uuid:
                branch.is_online = is_online

    def is_online(self, device_uuid: bytes) -> bool:
        """Whether another device is connected."""
        return device_uuid in self._online

    def branch_changed(self, branch: Branch) -> None:
        """A branch went away or came back: whoever shows its entries must look again."""
        with self.store.write(ORIGIN_SCAN) as unit:
            for ref in self.dirs.of_branch(branch):
                for row in entries.children(self.store.db, ref.entry_id):
                    unit.changed(change.ATTRS, branch.id, row.id, ref.entry_id, row.name, row.node)
                    unit.changed(change.REMOVED, branch.id, row.id, ref.entry_id, row.name, row.node)

    # one name ---------------------------------------------------------------------------------------------------------

    async def lookup(self, parent: Node, name: bytes) -> tuple[Node, AnyStat]:
        """The node of a name in a directory and its attributes, or NotFound."""
        if not parent.is_dir:
            raise NotADirectory(f"{os.fsdecode(parent.name)} is no directory")
        if len(name) > NAME_MAX_BYTES:
            raise NameTooLong(f"a name has at most {NAME_MAX_BYTES} bytes")
        if not is_name(name):
            raise NotFound(f"{os.fsdecode(name)!r} is the name of nothing")
        if parent is self.root and name in self.locations:
            return await self._location(name)
        found = await self._found(parent, name)
        if len(found) == 1:
            return self._single(parent, name, found[0])
        if found:
            return self._merged(parent, name, found)[0]
        conflict = await self._conflict(parent, name) if b" (from " in name and len(parent.parts) > 1 else None
        if conflict is None:
            raise NotFound(f"{os.fsdecode(name)} is not there")
        return conflict.node, conflict.st

    async def _conflict(self, parent: Node, name: bytes) -> Listed | None:
        """The version in conflict that is shown under a name.

        Only the names are looked at that it may be of: to look at others would say of hard-linked files that they are
        reached by these.
        """
        names = self._known_beginning(parent, union.stem_of(name))
        listed = _by_name(await self._per_part(parent)) if names is None else {}
        names = Counter({base: len(found) for base, found in listed.items()}) if names is None else names
        taken = set(names)
        for base in sorted(base for base, count in names.items() if count > 1 and union.may_be_of(base, name)):
            found = listed.get(base) or await self._found(parent, base)
            if len(found) > 1:
                for line in self._named(parent, base, found, taken):
                    if line.name == name:
                        return line
        return None

    def _known_beginning(self, parent: Node, stem: bytes) -> Counter[bytes] | None:
        """The names in a directory that begin so, each with how many parts have it, by the rows; None where these may
        lack what somebody was shown."""
        known: Counter[bytes] = Counter()
        for ref in parent.parts:
            if not ref.branch.is_remote and not (self._knows(ref) and self.is_watched(ref.entry_id, ref.st_ino)):
                return None
            known.update(entries.names_beginning(self.store.db, ref.entry_id, stem))
        return known

    def is_known(self, parent: Node, name: bytes) -> bool:
        """Whether the index has a name just now; the disk is not asked."""
        return bool(self.known_inos(parent, name)) or (parent is self.root and name in self.locations)

    def in_conflict(self, parent: Node, name: bytes) -> bool:
        """Whether a name in a directory stands for several versions, by the rows alone."""
        rows = ((ref, entries.child(self.store.db, ref.entry_id, name)) for ref in parent.parts)
        found = [Found(ref, row, None) for ref, row in rows if row is not None]
        return len(found) > 1 and bool(union.arrange(name, self._candidates(found)).conflicts)

    def known_inos(self, parent: Node, name: bytes) -> set[int]:
        """The numbers that the index has under a name just now; the disk is not asked."""
        rows = (entries.child(self.store.db, ref.entry_id, name) for ref in parent.parts)
        return {row.node for row in rows if row is not None}

    async def resolve(self, path: list[bytes]) -> tuple[Node, AnyStat]:
        """The node of a path from the root of the union."""
        node, st = self.root, await self.stat(self.root)
        for name in path:
            node, st = await self.lookup(node, name)
        return node, st

    async def _found(self, parent: Node, name: bytes) -> list[Found]:
        found = []
        lost: VdfsError | None = None
        for ref in parent.parts:
            if ref.hides(name):
                continue
            try:
                one = await self._probe(ref, name)
            except (Stale, Unreachable, Deadline) as error:
                lost = error
                continue
            if one is not None:
                found.append(one)
        # What was found may have shown that a part is none any more: it hangs elsewhere, even in another part.
        found = [one for one in found if one.dir in parent.parts]
        if lost is not None and not found:
            raise lost
        return found

    async def _location(self, name: bytes) -> tuple[Node, AnyStat]:
        """The top directory of a location: the roots of its branches and the store's directory of that name."""
        found: list[Found] = []
        for branch in self.locations[name]:
            row = entries.get(self.store.db, branch.root_entry_id)
            if row is None:
                continue
            ref = self.dirs.root(branch)
            found.append(Found(ref, row, await self._root_stat(branch, ref)))
        for ref in self.root.parts:
            one = await self._probe(ref, name)
            if one is not None and one.row.kind == KIND_DIR:
                found.append(one)
        if not found:
            raise NotFound(f"{os.fsdecode(name)} is not there")
        found.sort(key=lambda one: one.dir.branch.is_remote)
        if not found[-1].row.is_ours:
            found = self._unify(self.root, name, found)
        node = self.nodes.get(found[0].row.node) or Node(found[0].row.node, KIND_DIR)
        self.nodes[node.ino] = node
        node.parent, node.name = self.root, name
        self._merge(node, tuple(f.dir if f.row.parent_id is None else self._dir(f.dir, f.row) for f in found))
        return node, self._as_one(found)

    def join_tops(self) -> None:
        """The roots of stores become one, and so do those of the branches of each location, where others have some: who
        holds them is told of names below any of them."""
        db = self.store.db
        tops: list[list[Found]] = [[Found(ref, row, None) for ref in self.root.parts if (row := self._row(ref))]]
        for name, branches in self.locations.items():
            refs = [self.dirs.root(branch) for branch in branches]
            found = [Found(ref, row, None) for ref in refs if (row := self._row(ref))]
            for ref in self.root.parts:
                row = entries.child(db, ref.entry_id, name)
                if row is not None and row.kind == KIND_DIR and not row.is_hidden:
                    found.append(Found(ref, row, None))
            tops.append(found)
        for found in tops:
            if len({one.row.node for one in found}) > 1 and not all(one.row.is_ours for one in found):
                with self.store.write(ORIGIN_SCAN) as unit:
                    self.join(sorted(found, key=lambda one: one.dir.branch.is_remote), unit)

    def _row(self, ref: DirRef) -> Entry | None:
        return entries.get(self.store.db, ref.entry_id)

    async def _root_stat(self, branch: Branch, ref: DirRef) -> os.stat_result | None:
        if branch.state == MISSING and time.monotonic() - branch.checked_s > RECHECK_S:
            self.check(branch)
        if branch.state == MISSING:
            return None
        self.before_look(ref)
        try:
            return await branch.call(NAME_DEADLINE_S, self._fstat_dir, ref)
        except (OSError, Unreachable, Deadline, Stale):
            return None

    # attributes -------------------------------------------------------------------------------------------------------

    async def stat(self, node: Node) -> AnyStat:
        """The attributes of a node just now; what is open is asked by its descriptor."""
        if node.is_dir:
            return await self._stat_dir(node)
        for handle in reversed(node.handles):
            held: os.stat_result | None = await handle.fstat()
            if held is not None:
                return held
        st = await self._stat_at(node, self.spots_of(node)) or await self._stat_at(node, self.other_spots(node))
        if st is not None:
            return st
        if node.ghost_fd >= 0:
            return os.fstat(node.ghost_fd)
        for spot in node.spots:
            row = entries.get(self.store.db, spot.entry_id)
            if row is not None and spot.dir.branch.state != LIVE:
                return RowStat(row)
        raise Stale(f"{os.fsdecode(node.name)} is not there any more")

    async def _stat_at(self, node: Node, spots: Iterable[Spot]) -> os.stat_result | None:
        """What the first of the spots that still is the node says."""
        for spot in spots:
            branch = spot.dir.branch
            if branch.state == MISSING:
                continue
            try:
                st: os.stat_result = await branch.call(NAME_DEADLINE_S, self.lstat, spot.dir, spot.name)
            except (FileNotFoundError, NotADirectoryError, Stale):
                continue
            except (Unreachable, Deadline):
                return None
            if self.meant(node, spot)(st):
                return st
        return None

    async def readlink(self, node: Node) -> bytes:
        """The target of a symlink; Stale when something else has its name by now."""
        for spot in self.spots_of(node):
            branch = spot.dir.branch
            if isinstance(branch, RemoteBranch):
                told = targets.get(self.store.db, spot.entry_id)
                if told is None:
                    raise branch.unreachable(spot.name)
                return told
            if branch.state == MISSING:
                raise Unreachable(f"{os.fsdecode(spot.name)} lies on {branch.label}, which is away")
            try:
                st, target = await branch.call(CALL_DEADLINE_S, self._readlink, spot.dir, spot.name)
            except (FileNotFoundError, NotADirectoryError, Stale):
                continue
            if target is not None and self.meant(node, spot)(st):
                return bytes(target)
        if node.ghost_fd >= 0:
            return os.readlink(b"", dir_fd=node.ghost_fd)
        raise Stale(f"{os.fsdecode(node.name)} is not there any more")

    def _readlink(self, ref: DirRef, name: bytes) -> tuple[os.stat_result, bytes | None]:
        with self.dirs.opened(ref) as dir_fd:
            fd = syscalls.open_path(dir_fd, name)
        try:
            st = os.fstat(fd)
            return st, os.readlink(b"", dir_fd=fd) if kind_of(st.st_mode) == KIND_SYMLINK else None
        finally:
            os.close(fd)

    async def _stat_dir(self, node: Node) -> AnyStat:
        if node.removed is not None:
            return node.removed
        stats: list[os.stat_result] = []
        for ref in node.parts:
            if ref.branch.state == MISSING:
                continue
            try:
                stats.append(await ref.branch.call(NAME_DEADLINE_S, self._fstat_dir, ref))
            except (FileNotFoundError, NotADirectoryError, Stale, Unreachable, Deadline):
                continue
        if stats:
            return self._newest(stats[0], stats)
        known = [(ref, entries.get(self.store.db, ref.entry_id)) for ref in node.parts]
        rows = [row for ref, row in known if row is not None and ref.branch.state != LIVE]
        if rows:
            return remembered(rows)
        if node.parent is not None and self.is_gone(node):
            # Who stands in it or has it open sees an empty directory like the one it lay in.
            return removed_stat(await self.stat(node.parent))
        raise Stale(f"{os.fsdecode(node.name)} is not there any more")

    def is_gone(self, node: Node) -> bool:
        """Whether a directory was removed behind the mount: the index has none of its parts any more."""
        return bool(node.parts) and all(entries.get(self.store.db, ref.entry_id) is None for ref in node.parts)

    # listings ---------------------------------------------------------------------------------------------------------

    async def listing(self, node: Node) -> list[Listed]:
        """Every name of a directory with its node and attributes, whole and true."""
        single = self._single
        out: list[Listed] = []
        per_part = await self._per_part(node)
        if len(per_part) == 1 and node is not self.root:
            ref, lines = per_part[0]
            for name, row, st in lines:
                child, attrs = single(node, name, Found(ref, row, st))
                out.append(Listed(name, child, attrs))
            return out
        groups = _by_name(per_part)
        if node is self.root:
            for name in self.locations:
                groups.pop(name, None)
                try:
                    child, attrs = await self._location(name)
                except NotFound:
                    continue
                out.append(Listed(name, child, attrs))
        several = []
        for name, found in groups.items():
            if len(found) == 1:
                child, attrs = single(node, name, found[0])
                out.append(Listed(name, child, attrs))
            else:
                several.append(name)
        taken = set(groups) if several else set()
        for name in sorted(several):  # in the order in which _conflict numbers them
            out.extend(self._named(node, name, groups[name], taken))
        return out

    async def _per_part(self, node: Node) -> list[_Part]:
        """What each part of a directory has."""
        per_part: list[_Part] = []
        refused: OSError | VdfsError | None = None
        for ref in node.parts:
            try:
                per_part.append((ref, await self.list_part(ref)))
            except PermissionError as error:
                refused = error
            except Stale as error:
                if entries.get(self.store.db, ref.entry_id) is not None:
                    refused = error  # it hangs elsewhere: the kernel looks its name up again
            except (FileNotFoundError, NotADirectoryError):
                continue
        if refused is not None and not per_part:
            raise refused
        return [part for part in per_part if part[0] in node.parts]  # see _found

    def _named(self, node: Node, name: bytes, found: list[Found], taken: set[bytes]) -> list[Listed]:
        """What is shown of a name that several parts of a directory have; the names go into `taken`."""
        out = []
        for child, attrs in self._merged(node, name, found):
            shown = child.name
            number = 1
            while shown in taken and shown != name:
                number += 1
                shown = _numbered(child.name, number)
            taken.add(shown)
            child.name = shown
            out.append(Listed(shown, child, attrs))
        return out


def _by_name(per_part: list[_Part]) -> dict[bytes, list[Found]]:
    """What the parts of a directory have under each name."""
    groups: dict[bytes, list[Found]] = {}
    for ref, lines in per_part:
        for name, row, st in lines:
            groups.setdefault(name, []).append(Found(ref, row, st))
    return groups


def _numbered(name: bytes, number: int) -> bytes:
    stem, dot, extension = name.rpartition(b".")
    if not stem:
        stem, dot, extension = name, b"", b""
    tail = f" {number}".encode() + dot + extension
    return union.cut(stem, 255 - len(tail)) + tail
