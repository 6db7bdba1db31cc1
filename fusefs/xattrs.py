"""Extended attributes: a table of the virtual names, and the road to the stored ones.

`user.vdfs.*` and `user.checksum.blake3` are answers, never listed, because tools that copy what is listed fail on what
they cannot set. `security.*`, `system.*` and `trusted.*` are answered from constants; but where other users may enter,
the kernel is told the access control lists that the real files have. Names without a namespace that we
keep are refused. docs/xattrs.md is generated from the table here.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import pyfuse3
import trio

from fusefs.views.base import ViewNode
from index.media import fields, types
from index.model.change import ORIGIN_MOUNT
from index.model.entry import HASH_FAILED, HASH_FULL, HASH_LEFT, HASH_SAMPLED, KIND_DIR, KIND_FILE, KIND_NAMES, Entry
from index.model.errors import Invalid, NoAttribute, NotPermitted, Unsupported
from index.model.ids import uuid_text
from index.scan import recording
from index.scan.rules.ruleset import Ruleset
from index.store import contents, entries, places
from index.store.connection import one
from vdfs.space import realattrs
from vdfs.space.annotations import CHECKSUM, VIRTUAL_PREFIX, Annotations
from vdfs.space.branches import LIVE, NAME_DEADLINE_S, state_of
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node
from vdfs.space.remotes import RemoteBranch
from vdfs.space.tree import Tree

_NAME_MAX_BYTES = 255
#: Before the name of a field (index/media/fields.py).
META_PREFIX = b"user.vdfs.meta."
ACL = b"system.posix_acl_access"


class Virtual(NamedTuple):
    """A virtual attribute: how it is computed, for which kinds, and what it says."""

    get: Callable[["Xattrs", Node, Entry], Awaitable[bytes | None]]
    on: str  # "all", "file", "dir"
    about: str


class Xattrs:
    """The four xattr handlers' answers."""

    def __init__(
        self, tree: Tree, annotations: Annotations, device_name: Callable[[], str], *, is_shared: bool = False
    ) -> None:
        self.is_shared = is_shared  # other users may enter: the kernel must know the files' access control lists
        self.tree = tree
        self.annotations = annotations
        self.device_name = device_name

    async def get(self, node: Any, name: bytes) -> bytes:
        if name == ACL and self.is_shared and isinstance(node, Node):
            return await self._acl(node)
        _check(name)
        if isinstance(node, ViewNode):
            value = node.xattr(name)
            if value is None:
                raise NoAttribute(f"no attribute {os.fsdecode(name)} here")
            return value
        if name.startswith(VIRTUAL_PREFIX) or name == CHECKSUM:
            return await self._virtual(node, name)
        return await self.annotations.get(node, name)

    async def _acl(self, node: Node) -> bytes:
        """The list of the shown replica's real file. Without it the mode's group bits, which are its mask, would let in
        whom the list keeps out."""
        places = [(ref, b"") for ref in node.parts] if node.is_dir else [(s.dir, s.name) for s in node.spots]
        value = None
        if places and not places[0][0].branch.is_remote:
            ref, name = places[0]
            st_ino = None if node.is_dir else node.st_ino
            value = await ref.branch.call(NAME_DEADLINE_S, realattrs.acl, self.tree.dirs, ref, name, st_ino)
        if value is None:
            raise NoAttribute("it has no access control list")
        return value

    async def names(self, node: Any) -> list[bytes]:
        if isinstance(node, ViewNode):
            return []
        return await self.annotations.names(node)

    async def set(self, node: Any, name: bytes, value: bytes) -> None:
        _check(name, writing=True)
        if isinstance(node, ViewNode):
            await node.set_xattr(name, value)
            return
        self._check_virtual(name)
        await self.annotations.set(node, name, value, ORIGIN_MOUNT)

    async def remove(self, node: Any, name: bytes) -> None:
        _check(name, writing=True)
        if isinstance(node, ViewNode):
            raise NotPermitted("views have no attributes")
        self._check_virtual(name)
        await self.annotations.remove(node, name, ORIGIN_MOUNT)

    def _check_virtual(self, name: bytes) -> None:
        if name in ACTIONS:
            raise Unsupported(f"{os.fsdecode(name)} starts nothing here yet")
        if name.startswith(VIRTUAL_PREFIX) or name == CHECKSUM:
            if name in VIRTUAL or _is_field(name):
                raise NotPermitted(f"{os.fsdecode(name)} can be read only")
            raise NoAttribute(f"there is no {os.fsdecode(name)}")

    async def _virtual(self, node: Node, name: bytes) -> bytes:
        virtual = VIRTUAL.get(name)
        row = self.row_of(node)
        if row is None or (virtual is None and not _is_field(name)):
            raise NoAttribute(f"there is no {os.fsdecode(name)}")
        if virtual is None:
            virtual = Virtual(partial(_meta, name=name), "file", "")
        if (virtual.on == "dir" and not node.is_dir) or (virtual.on == "file" and node.kind != KIND_FILE):
            raise NoAttribute(f"{os.fsdecode(name)} has no meaning here")
        value = await virtual.get(self, node, row)
        if value is None:
            raise NoAttribute(f"{os.fsdecode(name)} is not known")
        return value

    def row_of(self, node: Node) -> Entry | None:
        """The row of the shown replica."""
        ids = (p.entry_id for p in node.parts) if node.is_dir else (s.entry_id for s in self.tree.spots_of(node))
        for entry_id in ids:
            row = entries.get(self.tree.store.db, entry_id)
            if row is not None:
                return row
        return None


def _is_field(name: bytes) -> bool:
    return name.startswith(META_PREFIX) and name.removeprefix(META_PREFIX).decode("ascii", "replace") in fields.FIELDS


def _check(name: bytes, *, writing: bool = False) -> None:
    if name.startswith((b"security.", b"system.", b"trusted.")):
        raise pyfuse3.FUSEError(errno.EOPNOTSUPP if writing else errno.ENODATA)
    if not name.startswith(b"user."):
        raise Unsupported(f"attributes are kept in the namespace user. only, not {os.fsdecode(name)}")
    if name == b"user.":
        raise Invalid("an attribute needs a name")
    if len(name) > _NAME_MAX_BYTES:
        raise OSError(errno.ERANGE, "attribute name too long")


# the virtual names --------------------------------------------------------------------------------------------------


async def _id(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    return None if row.uuid is None else uuid_text(row.uuid).encode()


def _full(x: Xattrs, row: Entry) -> bytes | None:
    if row.content_id is None or row.hash_state != HASH_FULL:
        return None
    content = contents.get(x.tree.store.db, row.content_id)
    return None if content is None or content.full is None else content.full.hex().encode()


async def _hash(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    full = _full(x, row)
    return None if full is None else b"blake3:" + full


async def _checksum(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    return _full(x, row)


_HASH_STATES = {HASH_FULL: b"full", HASH_SAMPLED: b"sampled", HASH_FAILED: b"failed", HASH_LEFT: b"left"}


async def _hash_state(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    return _HASH_STATES.get(row.hash_state, b"pending")


async def _state(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    refs = node.parts if node.is_dir else [s.dir for s in node.spots]
    return state_of([r.branch for r in refs]).encode()


async def _local_bytes(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    live = any(s.dir.branch.state == LIVE for s in node.spots)
    return str(row.size_bytes if live else 0).encode()


async def _devices(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    refs = node.parts if node.is_dir else [spot.dir for spot in node.spots]
    own = x.device_name()
    held = {r.branch.device_name if isinstance(r.branch, RemoteBranch) else own: None for r in refs}
    return b"\0".join(name.encode() for name in held or {own: None})


def _path(x: Xattrs, ref: DirRef, entry_id: int) -> bytes:
    """Where a replica lies: a path of this device, or the name of another one and its path there."""
    path = b"/".join([ref.branch.root_path, *entries.path_of(x.tree.store.db, entry_id)])
    return ref.branch.slug.encode() + b":" + path if ref.branch.is_remote else path


async def _allpaths(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    if node.is_dir:
        return b"\0".join(_path(x, part, part.entry_id) for part in node.parts)
    spots = [*x.tree.spots_of(node), *node.stale_spots]
    return b"\0".join(_path(x, spot.dir, spot.entry_id) for spot in spots)


async def _origin(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    paths = await _allpaths(x, node, row)
    if not paths:
        return None
    first = paths.split(b"\0")[0]
    return first if not row.is_ours else x.tree.slug.encode() + b":" + first


async def _kind(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    return KIND_NAMES[row.kind].encode()


async def _mime(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    if row.kind == KIND_DIR:
        return b"inode/directory"
    found = types.of_row(x.tree.store.db, row)
    return None if found is None else found.mime.encode()


async def _type(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    found = types.of_row(x.tree.store.db, row)
    return None if found is None else found.kind_name.encode()


async def _meta(x: Xattrs, node: Node, row: Entry, name: bytes) -> bytes | None:
    """A field of what stands in the file."""
    found = types.fields_of_row(x.tree.store.db, row).get(name.removeprefix(META_PREFIX).decode("ascii", "replace"))
    return None if found is None else fields.shown(found).encode()


async def _version(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    branch = x.tree.branch_of(row.branch_id)
    if branch is None:
        return None
    vector = recording.vector_of(row, branch.uuid)
    return ",".join(f"{k.hex()[:8]}:{vector[k]}" for k in sorted(vector)).encode()


async def _conflict(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    """The other names of a conflict: those made from this name, or the plain one of a loser."""
    if node.parent is None or len(node.parent.parts) < 2:
        return None
    names = [
        line.name
        for line in await x.tree.listing(node.parent)
        if line.node is not node and x.row_of(line.node) is not None
        and (x.row_of(line.node) or row).name == row.name
    ]  # fmt: skip
    return b"\0".join(names) or None


async def _rule(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    branch = x.tree.branches.get(row.branch_id)
    if not row.rule or branch is None:
        return None
    packed = None if branch.location_id is None else places.rules_of(x.tree.store.db, branch.location_id)
    return Ruleset.unpack(packed).name_of(row.rule).encode()


async def _error(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    return b"could not be read" if row.hash_state == HASH_FAILED else None


def _directories(x: Xattrs, node: Node) -> list[int]:
    """The rows of a directory, one a branch; of the root those of all locations too."""
    ids = [p.entry_id for p in node.parts]
    if node is x.tree.root:
        ids += [b.root_entry_id for held in x.tree.locations.values() for b in held]
    return ids


def _sums(field: str) -> Callable[[Xattrs, Node, Entry], Awaitable[bytes | None]]:
    async def get(x: Xattrs, node: Node, row: Entry) -> bytes | None:
        below = x.tree.store.sums_below(_directories(x, node))
        return str(getattr(below, field)).encode()

    return get


async def _rctime(x: Xattrs, node: Node, row: Entry) -> bytes | None:
    sql = (
        "WITH RECURSIVE below(id) AS (SELECT ? UNION ALL SELECT e.id FROM below JOIN entry e ON e.parent_id = below.id "
        "AND e.kind = 1) SELECT max(e.ctime_ns) FROM entry e JOIN below ON e.parent_id = below.id WHERE e.rule >= 0"
    )

    ids = _directories(x, node)

    def latest() -> int:
        with x.tree.store.reader() as db:
            return max(int(one(db, sql, i)[0] or 0) for i in ids)

    return str(await trio.to_thread.run_sync(latest)).encode()


VIRTUAL: dict[bytes, Virtual] = {
    b"user.vdfs.id": Virtual(_id, "all", "uuid of the entry; appears when a file is identified or annotated"),
    b"user.vdfs.hash": Virtual(_hash, "file", "`blake3:` and the full hash, once known"),
    b"user.vdfs.hash.state": Virtual(_hash_state, "file", "pending, sampled, full, failed; left: nobody reads it"),
    b"user.vdfs.state": Virtual(
        _state,
        "all",
        "local; remote: another device has it, and is connected; offline: its volume or device is away; missing: its "
        "volume is there, and not its location; removed: in `.vdfs/devices` alone, it was removed here",
    ),
    b"user.vdfs.local_bytes": Virtual(_local_bytes, "file", "bytes that can be read on this device"),
    b"user.vdfs.devices": Virtual(_devices, "all", "names of the devices that hold it, NUL between them"),
    b"user.vdfs.allpaths": Virtual(
        _allpaths,
        "all",
        "every real path, NUL between them, the shown one first; that of another device as `device:path`",
    ),
    b"user.vdfs.origin": Virtual(_origin, "all", "`device:path` of the shown replica"),
    b"user.vdfs.kind": Virtual(_kind, "all", "file, directory, symlink or special"),
    b"user.vdfs.mime": Virtual(_mime, "all", "media type, by the first bytes once they were read, before by name"),
    b"user.vdfs.type": Virtual(_type, "file", "image, video, audio, document, code, …: the kind of what is in it"),
    b"user.vdfs.version": Virtual(_version, "file", "version vector: branch and its last stamp, commas between"),
    b"user.vdfs.conflict": Virtual(_conflict, "file", "the other names of a conflict, NUL between them"),
    b"user.vdfs.rule": Virtual(_rule, "all", "the [rule](rules.md) that holds it back from being read and found"),
    b"user.vdfs.error": Virtual(_error, "file", "why the last attempt to read it failed"),
    b"user.vdfs.rbytes": Virtual(_sums("rbytes"), "dir", "bytes of all files below, each replica and name counted"),
    b"user.vdfs.rfiles": Virtual(_sums("rfiles"), "dir", "files below"),
    b"user.vdfs.rdirs": Virtual(_sums("rdirs"), "dir", "directories below"),
    b"user.vdfs.rctime": Virtual(_rctime, "dir", "latest change below, nanoseconds"),
    CHECKSUM: Virtual(_checksum, "file", "full BLAKE3 in hexadecimal, once known"),
}

#: Writable names that start something; refused until the room that does it is there.
ACTIONS: dict[bytes, str] = {
    b"user.vdfs.pin": "keep the bytes on this device",
    b"user.vdfs.fetch": "fetch the bytes now",
    b"user.vdfs.evict": "free the local copy",
    b"user.vdfs.restore": "take it back out of the trash",
    b"user.vdfs.keep": "choose this side of a conflict",
}
