"""`devices/<slug>/<location>`: what lies where, branch by branch, and `conflicts`: what differs under one name.

The trees here are listings of the index, each file with the bytes of that very branch. What other devices hold is as
they told, also what was removed here; its bytes are not here, and nothing of it is changed here.
"""

from collections.abc import AsyncIterator, Iterable

from fusefs.views.answers import AnsweredDir, Names
from fusefs.views.base import ViewDir, ViewLink, ViewNode, link_into_union
from fusefs.views.context import ViewContext, unused
from index.model.entry import KIND_DIR, Entry
from index.model.errors import NotFound, ReadOnly, VdfsError
from index.store import devices, entries
from vdfs.space.branches import REMOVED, Branch
from vdfs.space.nodes import Node, RowStat, Spot


class ReplicaFile(ViewNode):
    """One replica as it lies on its branch, also a stale one, which the union does not show; read only."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], parent_id: int, row: Entry) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context
        self.parent_id = parent_id
        self.row = row
        st = RowStat(row)
        self.mode = st.st_mode & ~0o222
        self.uid, self.gid = st.st_uid, st.st_gid

    def size_bytes(self) -> int:
        return self.row.size_bytes

    def times_ns(self) -> int:
        return self.row.mtime_ns

    def refusal(self) -> VdfsError:
        return super().refusal() if self.row.is_ours else _of_another_device()

    def xattr(self, name: bytes) -> bytes | None:
        if name == b"user.vdfs.state" and self.row.is_hidden:
            return REMOVED.encode()
        return super().xattr(name)

    def _node(self) -> Node:
        ref = self.context.tree.ref_of(self.parent_id)
        if ref is None:
            raise NotFound("it is not there any more")
        node = Node(self.ino, self.row.kind)
        node.spots = (Spot(ref, self.row.name, self.row.id),)
        node.st_ino = self.row.st_ino
        return node

    async def real(self) -> Node | None:
        return self._node()

    async def read_link(self) -> bytes:
        return await self.context.readlink(self._node())


class BranchDir(ViewDir):
    """One directory of one branch, as the index has it. `shows_all`: also what was removed here, and its device has."""

    def __init__(
        self, context: ViewContext, path: tuple[bytes, ...], branch: Branch, entry_id: int, *, shows_all: bool
    ) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context
        self.branch = branch
        self.entry_id = entry_id
        self.shows_all = shows_all

    def refusal(self) -> VdfsError:
        return _of_another_device() if self.branch.is_remote else super().refusal()

    async def _current(self) -> None:
        """Bring the rows up to date with the disk first."""
        ref = self.context.tree.ref_of(self.entry_id)
        if ref is not None:
            await self.context.tree.list_part(ref)

    def _node(self, row: Entry) -> ViewNode:
        path = self.child(row.name)
        if row.kind == KIND_DIR:
            return BranchDir(self.context, path, self.branch, row.id, shows_all=self.shows_all)
        return ReplicaFile(self.context, path, self.entry_id, row)

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        await self._current()
        for row in entries.children(self.context.tree.store.db, self.entry_id):
            if self.shows_all or not row.is_hidden:
                yield row.name, self._node(row)

    async def lookup(self, name: bytes) -> ViewNode | Node:
        row = entries.child(self.context.tree.store.db, self.entry_id, name)
        if row is None:
            await self._current()
            row = entries.child(self.context.tree.store.db, self.entry_id, name)
        if row is None or (row.is_hidden and not self.shows_all):
            raise NotFound("it is not there")
        return self._node(row)


class BranchesDir(ViewDir):
    """Some branches by location; a second one of a location has its label behind the name."""

    shows_all = True

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    def branches(self) -> Iterable[Branch]:
        """Those that are shown."""
        raise NotImplementedError

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        used: set[bytes] = set()
        for branch in list(self.branches()):
            name = b"store" if branch.location is None else branch.location
            if name in used:
                whence = f"{branch.slug}, {branch.label}" if branch.is_remote else branch.label
                name = unused(name + b" (" + whence.encode() + b")", used)
            used.add(name)
            yield (
                name,
                BranchDir(self.context, self.child(name), branch, branch.root_entry_id, shows_all=self.shows_all),
            )


def _of_another_device() -> VdfsError:
    return ReadOnly("this is another device's, and can be changed there only")


class DeviceDir(BranchesDir):
    """The locations of one device."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...], device: bytes) -> None:
        super().__init__(context, path)
        self.device = device

    def refusal(self) -> VdfsError:
        return super().refusal() if self.device == self.context.tree.store.device_uuid else _of_another_device()

    def branches(self) -> Iterable[Branch]:
        tree = self.context.tree
        if self.device == tree.store.device_uuid:
            return tree.branches.values()
        return [branch for branch in tree.remotes.values() if branch.device_uuid == self.device]


class DevicesRoot(ViewDir):
    """`devices`: this device and the others; of those that are no members any more, the ones that hold something."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(path, context.uid, context.gid)
        self.context = context

    async def entries(self) -> AsyncIterator[tuple[bytes, ViewNode | Node]]:
        tree = self.context.tree
        holders = {branch.device_uuid for branch in tree.remotes.values()}
        for device in devices.every(tree.store.db):
            if device.revoked and device.uuid not in holders:
                continue
            name = (tree.slug if device.uuid == tree.store.device_uuid else device.slug).encode()
            yield name, DeviceDir(self.context, self.child(name), device.uuid)


class ConflictsDir(AnsweredDir):
    """`conflicts`: links to every version of every name that has more than one."""

    def __init__(self, context: ViewContext, path: tuple[bytes, ...]) -> None:
        super().__init__(context.answers, path, context.uid, context.gid)
        self.context = context

    async def find(self) -> Names:
        tree = self.context.tree
        depth = len(self.path) + 1
        found: dict[bytes, ViewNode | Node] = {}
        for names in await self._merged_directories():
            try:
                node, _ = await tree.resolve(names)
            except NotFound:
                continue
            by_row: dict[bytes, list[bytes]] = {}
            for line in await tree.listing(node):
                if line.node.spots:
                    by_row.setdefault(line.node.spots[0].name, []).append(line.name)
            for name in (name for group in by_row.values() if len(group) > 1 for name in sorted(group)):
                shown = unused(name, found.keys())
                link = link_into_union(depth, [*names, name])
                found[shown] = ViewLink(self.child(shown), self.uid, self.gid, link)
        return found

    async def _merged_directories(self) -> list[list[bytes]]:
        """Paths of directories in which one name lies on several branches with several numbers."""
        rows = await self.context.rows(_parents_of_conflicts)
        out: dict[tuple[bytes, ...], None] = {}
        for row in rows:
            path = self.context.union_path(row)
            if path is not None:
                out.setdefault(tuple(path))
        return [list(p) for p in out]


def _parents_of_conflicts(db: object) -> list[Entry]:
    """One parent directory's row for each name that several branches hold as different files."""
    sql = (
        "SELECT DISTINCT a.parent_id FROM entry a JOIN entry pa ON pa.id = a.parent_id "
        "JOIN entry pb ON pb.node = pa.node AND pb.id > pa.id "
        "JOIN entry b ON b.parent_id = pb.id AND b.name = a.name AND b.node <> a.node "
        "WHERE a.kind = 0 AND a.rule >= 0 AND b.rule >= 0"
    )
    found = [r[0] for r in db.execute(sql)]  # type: ignore[attr-defined]
    return [row for row in (entries.get(db, i) for i in found) if row is not None]  # type: ignore[arg-type]
