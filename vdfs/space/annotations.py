"""Tags and attributes of entries: the library is the truth, real extended attributes are its copies.

Reading first compares each local replica with what was last seen on it (only when its ctime moved): a value that
differs on the same inode is an edit made outside and wins; one that vanished from the same inode was removed outside;
on a new inode that brings attributes of its own those win, and one that brings none takes the library's. Writing goes
to the library first, then to every writable local replica, best effort: a file system without attributes, a full one or
a read-only one takes nothing away from what the person was told.

Indexing only reads (`user.xdg.*` and the rating), it never writes into a user's file.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple

from index.model import change
from index.model.entry import KIND_DIR, KIND_FILE, Entry
from index.model.errors import Invalid, NoAttribute, NoSpace, NotFound, Stale, TooLarge, VdfsError
from index.scan import recording
from index.store import annotating, entries, metadata, tags
from index.store.unit import Unit
from vdfs.space import realattrs
from vdfs.space.branches import LIVE, NAME_DEADLINE_S
from vdfs.space.dirs import DirRef
from vdfs.space.nodes import Node, Spot
from vdfs.space.sameness import are_same, compared_until_s
from vdfs.space.tree import Tree

TAGS = tags.XATTR
RATING = b"user.baloo.rating"
VIRTUAL_PREFIX = b"user.vdfs."
CHECKSUM = b"user.checksum.blake3"

_NAMES_MAX_BYTES = 64 << 10
_VALUE_MAX_BYTES = 64 << 10
_TAG_MAX_BYTES = 1024


class Target(NamedTuple):
    """One local replica: its directory, its name there (empty: the directory itself), its row."""

    dir: DirRef
    name: bytes
    row: Entry


def parse_tags(value: bytes) -> list[str]:
    """The tags of a written text (`tags.in_text`). Invalid for what is no text, or no tag."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("tags are UTF-8 text, separated by commas") from error
    found = tags.in_text(text)
    for tag in found:
        check_tag(tag)
    return found


def check_tag(tag: str) -> None:
    """Refuse what cannot be a tag."""
    if len(tag.encode()) > _TAG_MAX_BYTES:
        raise Invalid(f"a tag has at most {_TAG_MAX_BYTES} bytes, and {tag[:20]!r}… has {len(tag.encode())}")
    if not tags.is_tag(tag):
        raise Invalid(f"{tag!r} cannot be a tag: it must have no comma or line break, and some text")


#: Calls a function with a descriptor of a file, and the arguments given.
Ask = Callable[..., Awaitable[Any]]


def _asking(node: Node) -> Ask | None:
    if node.handles:
        handle = node.handles[-1]
        return lambda function, *args: handle.call(NAME_DEADLINE_S, function, handle.fd, *args)
    if node.ghost_fd >= 0:  # never of a slow branch

        async def ask(function: Callable[..., Any], *args: object) -> Any:
            return function(node.ghost_fd, *args)

        return ask
    return None


class Annotations:
    """What people attach to entries. Used on the loop only."""

    def __init__(self, tree: Tree, mode: str = "copy") -> None:
        self.tree = tree
        self.store = tree.store
        self.copies = mode != "library"

    # reading ----------------------------------------------------------------------------------------------------------

    async def get(self, node: Node, name: bytes) -> bytes:
        """The value of a stored attribute; NoAttribute when there is none."""
        ask = await self._compared(node)
        if ask is not None:
            values: dict[bytes, bytes] = await ask(realattrs.read_fd)
            if name not in values:
                raise NoAttribute(f"it has no {os.fsdecode(name)}")
            return values[name]
        uuid = self._uuid(node)
        value = None
        if uuid is not None:
            value = self._tags_text(uuid) if name == TAGS else metadata.get(self.store.db, uuid, name)
        if value is None:
            raise NoAttribute(f"{os.fsdecode(node.name)} has no {os.fsdecode(name)}")
        return value

    async def names(self, node: Node) -> list[bytes]:
        """The names of all stored attributes; of what is no file or directory none, as the kernel lets nobody read one
        there, and a copy would fail."""
        if node.kind not in (KIND_FILE, KIND_DIR):
            return []
        ask = await self._compared(node)
        if ask is not None:
            return list(await ask(realattrs.read_fd))
        uuid = self._uuid(node)
        if uuid is None:
            return []
        found = [n for n in metadata.all_of(self.store.db, uuid) if n != TAGS]
        if tags.of_entry(self.store.db, uuid):
            found.append(TAGS)
        return found

    def tags_of(self, node: Node) -> list[str]:
        uuid = self._uuid(node)
        return [] if uuid is None else tags.of_entry(self.store.db, uuid)

    async def _compared(self, node: Node) -> Ask | None:
        """Take in what was changed on the real files; or the way to ask a file that has no name left, by a descriptor.

        What such a file carries is all there is of it.
        """
        ask = None if node.is_dir else _asking(node)
        if ask is not None and not node.spots and not node.links:
            return ask
        try:
            await self.reconcile(node)
        except Stale:
            if ask is None:
                raise
            return ask
        return None

    def _tags_text(self, uuid: bytes) -> bytes | None:
        """The text as it was written while it names exactly the live set, else the set in order of addition."""
        live = tags.of_entry(self.store.db, uuid)
        if not live:
            return None
        written = metadata.get(self.store.db, uuid, TAGS)
        if written is not None:
            try:
                if set(parse_tags(written)) == set(live):
                    return written
            except Invalid:
                pass
        return ",".join(live).encode()

    # writing ----------------------------------------------------------------------------------------------------------

    async def set(self, node: Node, name: bytes, value: bytes, origin: str) -> None:
        """Set an attribute; Invalid for a value its meaning does not allow."""
        ask = await self._compared(node)
        if ask is not None:
            await ask(realattrs.set_fd, name, value)
            return
        if name == TAGS:
            wanted = parse_tags(value)
            if not wanted:
                await self.remove(node, name, origin, missing_ok=True)
                return
        elif name == RATING:
            text = value.rstrip(b"\0")
            if not text.isdigit() or len(text) > 4 or int(text) > 10:
                raise Invalid("a rating is a number from 0 to 10")
            if int(text) == 0:
                await self.remove(node, name, origin, missing_ok=True)
                return
        row = self._row(node)
        if row.uuid is not None:
            held = metadata.all_of(self.store.db, row.uuid)
            if name not in held and sum(len(n) + 1 for n in held) + len(name) + 1 > _NAMES_MAX_BYTES:
                raise NoSpace("the names of the attributes would pass 64 KiB")
        with self.store.write(origin) as unit:
            uuid = self._ensure_uuid(unit, row)
            self._write(unit, row, uuid, name, value)
        await self._copy_out(node, name, value, compared_until_s())

    async def remove(self, node: Node, name: bytes, origin: str, *, missing_ok: bool = False) -> None:
        """Take an attribute away; NoAttribute when there is none."""
        ask = await self._compared(node)
        if ask is not None:
            await ask(realattrs.set_fd, name, None)
            return
        row = self._row(node)
        uuid = row.uuid
        there = uuid is not None and (
            metadata.get(self.store.db, uuid, name) is not None
            or (name == TAGS and bool(tags.of_entry(self.store.db, uuid)))
        )
        if not there or uuid is None:
            if missing_ok:
                return
            raise NoAttribute(f"{os.fsdecode(node.name)} has no {os.fsdecode(name)}")
        with self.store.write(origin) as unit:
            self._write(unit, row, uuid, name, None)
        await self._copy_out(node, name, None, compared_until_s())

    async def change_tag(self, node: Node, tag: str, present: bool, origin: str) -> bool:
        """Add or take one tag; returns whether anything changed."""
        tag = tag.strip()  # as in the written text, whose parts are trimmed
        check_tag(tag)
        await self.reconcile(node)
        row = self._row(node)
        live = [] if row.uuid is None else tags.of_entry(self.store.db, row.uuid)
        if (tag in live) == present:
            return False
        if present and sum(len(one.encode()) + 1 for one in (*live, tag)) > _VALUE_MAX_BYTES:
            raise TooLarge(f"the tags of {os.fsdecode(node.name)} would pass 64 KiB, the most that an attribute holds")
        with self.store.write(origin) as unit:
            uuid = self._ensure_uuid(unit, row)
            if present:
                annotating.add_tag(unit, uuid, tag)
            else:
                annotating.remove_tag(unit, uuid, tag)
            unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)
        text = self._tags_text(uuid)
        await self._copy_out(node, TAGS, text, compared_until_s())
        return True

    def _write(self, unit: Unit, row: Entry, uuid: bytes, name: bytes, value: bytes | None) -> None:
        """One cell, and for tags the set behind it."""
        if name == TAGS:
            wanted = [] if value is None else parse_tags(value)
            live = tags.of_entry(unit.db, uuid)
            _set_tags(unit, uuid, live, wanted)
        annotating.set_cell(unit, uuid, name, value)
        unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)

    def _ensure_uuid(self, unit: Unit, row: Entry) -> bytes:
        fresh = entries.get(unit.db, row.id)
        if fresh is None:
            raise NotFound(f"{os.fsdecode(row.name)} is not there any more")
        return recording.ensure_uuid(unit, fresh)

    # real files -------------------------------------------------------------------------------------------------------

    def targets(self, node: Node) -> Iterator[Target]:
        """The live local replicas whose real attributes are copies of the library's."""
        return (target for target in self._replicas(node) if target.dir.branch.state == LIVE)

    def _replicas(self, node: Node) -> Iterator[Target]:
        """Every name of a node that the index has; not one that is another file's by now."""
        if node.is_dir:
            places = ((p, b"", p.entry_id) for p in node.parts)
        else:
            places = ((s.dir, s.name, s.entry_id) for s in self.tree.spots_of(node))
        for ref, name, entry_id in places:
            row = entries.get(self.store.db, entry_id)
            if row is None:
                continue
            if node.is_dir or row.st_ino == self.tree.inode_at(node, Spot(ref, name, entry_id)):
                yield Target(ref, name, row)

    async def reconcile(self, node: Node) -> None:
        """Take in what was changed on the real files since they were last compared.

        Stale when none of its names is the node's any more: who asks looks the name up again.
        """
        if node.kind not in (KIND_FILE, KIND_DIR):
            return
        lost: Stale | None = None
        for target in self.targets(node):
            st_ino = target.row.st_ino if target.name else None
            try:
                seen = await target.dir.branch.call(
                    NAME_DEADLINE_S, realattrs.read_if_changed, self.tree.dirs, target.dir, target.name, st_ino,
                    metadata.mirror_state(self.store.db, target.row),
                )  # fmt: skip
            except (FileNotFoundError, NotADirectoryError, Stale) as error:
                lost = Stale(str(error))
                continue
            except (OSError, VdfsError):
                continue
            if seen is not None:
                self.take_in(target.row, seen)
            return  # replicas of one file carry the same copies; the shown one speaks for them
        if lost is not None:
            raise lost

    def take_in(self, row: Entry, real: realattrs.Real) -> None:
        """Hold what a replica carries against what was last seen on it; the differences are edits made outside."""
        state = metadata.mirror_state(self.store.db, row)
        before = metadata.mirror_seen(self.store.db, row)
        if not real.values and not before:
            if state is not None:
                with self.store.write("reconcile") as unit:
                    metadata.set_mirror_state(unit.db, row, real.st_ino, real.ctime_ns)
            return
        same_inode = real.is_inode_of(state)
        edits: dict[bytes, bytes | None] = {
            name: value for name, value in real.values.items() if before.get(name) != value
        }
        if same_inode:
            edits.update({name: None for name in before if name not in real.values})
        with self.store.write("reconcile") as unit:
            take_in_edits(unit, row, edits)
            for name in before:
                if name not in real.values:
                    metadata.mirror_drop(unit.db, row, name)
            for name, value in real.values.items():
                metadata.mirror_put(unit.db, row, name, value)
            metadata.set_mirror_state(unit.db, row, real.st_ino, real.ctime_ns)

    async def _copy_out(self, node: Node, name: bytes, value: bytes | None, until_s: float) -> None:
        """Write a value (or its removal) to the local replicas, best effort; not to what may be another file."""
        if not self.copies:
            return
        done: set[tuple[int, int]] = set()
        first: Spot | None = None
        for target in self.targets(node):
            key = (target.row.branch_id, target.row.st_ino)
            if key in done:
                continue
            done.add(key)
            spot = Spot(target.dir, target.name, target.row.id)
            first = first or spot
            if spot is not first and target.name and not await are_same(self.tree, first, spot, until_s):
                continue
            st_ino = target.row.st_ino if target.name else None
            try:
                real = await target.dir.branch.call(
                    NAME_DEADLINE_S, realattrs.write, self.tree.dirs, target.dir, target.name, st_ino, name, value
                )
            except (OSError, VdfsError):
                continue
            node.face = None
            with self.store.write("reconcile") as unit:
                there = value if real.written else real.values.get(name)  # a file that refuses keeps what it had
                if there is None:
                    metadata.mirror_drop(unit.db, target.row, name)
                else:
                    metadata.mirror_put(unit.db, target.row, name, there)
                metadata.set_mirror_state(unit.db, target.row, real.st_ino, real.ctime_ns)

    async def copy_all(self, node: Node) -> None:
        """Write what the library holds to a file that took over another's identity."""
        uuid = self._uuid(node)
        if uuid is None:
            return
        until_s = compared_until_s()
        for name, value in metadata.all_of(self.store.db, uuid).items():
            if name != TAGS:
                await self._copy_out(node, name, value, until_s)
        text = self._tags_text(uuid)
        if text is not None:
            await self._copy_out(node, TAGS, text, until_s)

    def _row(self, node: Node) -> Entry:
        for target in self._replicas(node):
            return target.row
        raise Stale(f"{os.fsdecode(node.name)} is not there any more")

    def _uuid(self, node: Node) -> bytes | None:
        return self._row(node).uuid


def take_in_edits(unit: Unit, row: Entry, edits: dict[bytes, bytes | None]) -> None:
    """Edits made on the real file become the library's values; what makes no sense as a tag stays a plain value."""
    if not edits:
        return
    uuid = recording.ensure_uuid(unit, row)
    for name, value in edits.items():
        if name == TAGS:
            try:
                wanted = [] if value is None else parse_tags(value)
            except Invalid:
                continue
            _set_tags(unit, uuid, tags.of_entry(unit.db, uuid), wanted)
        annotating.set_cell(unit, uuid, name, value)
    unit.changed(change.META, row.branch_id, row.id, row.parent_id, row.name, row.node)


def _set_tags(unit: Unit, uuid: bytes, live: list[str], wanted: list[str]) -> None:
    for tag in live:
        if tag not in wanted:
            annotating.remove_tag(unit, uuid, tag)
    for tag in wanted:
        if tag not in live:
            annotating.add_tag(unit, uuid, tag)
