"""location.*: the directories a library shows."""

import os
import shlex
from typing import Literal

import attrs

from index.model.errors import Unreachable
from index.model.ids import uuid_text
from index.store import places
from vdfs.ops.context import Core
from vdfs.ops.registry import Nothing, action, doc, query
from vdfs.space.branches import MISSING
from vdfs.space.locations import location_state
from vdfs.space.remotes import RemoteBranch


@attrs.frozen
class BranchFacts:
    path: bytes
    label: str
    device: str | None = attrs.field(metadata=doc("the device that has it; null: this one"))
    state: str = attrs.field(
        metadata=doc("pending, scanning, done, failed; away: offline, missing, stalled; of another device: remote")
    )
    entries: int
    error: str | None


@attrs.frozen
class LocationFacts:
    name: bytes
    uuid: str
    mode: str = attrs.field(metadata=doc("shallow, content or deep"))
    branches: list[BranchFacts]


@attrs.frozen
class LocationList:
    locations: list[LocationFacts]


@attrs.frozen
class LocationAdd:
    path: bytes = attrs.field(metadata=doc("an absolute path of a directory"))
    name: bytes | None = attrs.field(default=None, metadata=doc("its name in the library; its own by default"))
    mode: Literal["shallow", "content", "deep"] | None = attrs.field(
        default=None, metadata=doc("how far its files are looked into; content, or as the location has it")
    )
    one_file_system: bool = attrs.field(
        default=False, metadata=doc("leave out what other file systems are mounted in it")
    )


@attrs.frozen
class LocationAdded:
    name: bytes
    uuid: str
    branch_uuid: str
    path: bytes


@attrs.frozen
class LocationName:
    name: bytes


@attrs.frozen
class LocationMode:
    name: bytes
    mode: Literal["shallow", "content", "deep"]


@attrs.frozen
class LocationRemoved:
    name: bytes
    branches: int


@query("location.list")
async def list_locations(core: Core, asked: Nothing) -> LocationList:
    """Every location with its branches, those of this device first."""
    rows = {row.id: row for row in places.branches(core.library.store.db)}
    counts = {
        int(b): int(n)
        for b, n in core.library.store.db.execute("SELECT branch_id, count(*) - 1 FROM entry GROUP BY branch_id")
    }
    out = []
    for location in places.locations(core.library.store.db):
        branches = [
            BranchFacts(
                b.root_path, b.label, b.device_name if isinstance(b, RemoteBranch) else None,
                location_state(b, rows[b.id]), counts.get(b.id, 0), rows[b.id].scan_error,
            )
            for b in core.tree.locations.get(location.name, [])
            if b.location_id == location.id
        ]  # fmt: skip
        mode = places.MODE_NAMES[location.mode]
        out.append(LocationFacts(location.name, uuid_text(location.uuid), mode, branches))
    return LocationList(out)


@action("location.add")
async def add_location(core: Core, asked: LocationAdd) -> LocationAdded:
    """Show a directory; its scan runs behind."""
    added = await core.locations.add(asked.path, asked.name, one_fs=asked.one_file_system)
    if asked.mode is not None:
        _set_mode(core, added.name, asked.mode)
    core.scanner.request_branch(added.branch)
    return LocationAdded(added.name, uuid_text(added.uuid), uuid_text(added.branch.uuid), added.branch.root_path)


@action("location.remove")
async def remove_location(core: Core, asked: LocationName) -> LocationRemoved:
    """Forget a location. Its files stay where they are."""
    for branch in core.tree.of_location(asked.name):
        core.indexing.forget(branch)
    return LocationRemoved(asked.name, await core.locations.remove(asked.name))


@action("location.mode")
async def location_mode(core: Core, asked: LocationMode) -> LocationMode:
    """Say how far the files of a location are looked into. What is known already stays known."""
    _set_mode(core, asked.name, asked.mode)
    for branch in core.tree.of_location(asked.name):
        core.indexing.ask(branch, requeue=True)
    return asked


def _set_mode(core: Core, name: bytes, mode: str) -> None:
    core.locations.set_mode(name, places.MODE_NAMES.index(mode))


@action("location.rescan")
async def rescan_location(core: Core, asked: LocationName) -> LocationName:
    """Compare a location with the disk, behind."""
    held = core.tree.locations.get(asked.name)
    if not held:
        raise core.locations.unknown(asked.name)
    for branch in held:
        core.tree.check(branch)
        if not branch.slow and branch.state == MISSING:
            path, name = os.fsdecode(branch.root_path), os.fsdecode(asked.name)
            if not branch.is_covered and os.path.isdir(branch.root_path):
                raise Unreachable(
                    f"another directory stands at {path} than the one that was added; to show that one: "
                    f"sd location remove {shlex.quote(name)}, then sd location add {shlex.quote(path)}"
                )
            raise Unreachable(f"{path} is not there; connect its volume, or: sd location remove {shlex.quote(name)}")
    for branch in held:
        core.scanner.request_branch(branch)
        core.indexing.ask(branch, requeue=True)  # what could not be read is tried again
    return asked
