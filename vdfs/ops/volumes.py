"""volume.*: the file systems that branches lie on, as things that come and go."""

import errno
import os
import time
from functools import partial
from typing import Literal

import attrs
import trio

from index.model.change import ORIGIN_CALL
from index.model.errors import AccessDenied, Deadline, Invalid, NoSpace, NotFound, ReadOnly, Unreachable, VdfsError
from index.scan.speedtest import LIMIT_S, SIZE_BYTES, speedtest
from index.scan.workers import WorkerError
from index.store import volumes
from index.volumes.identity import SHORT, first_marker_id, takes_marker
from index.volumes.marker import Marker
from vdfs.ops.context import Core
from vdfs.ops.registry import action, doc, query
from vdfs.space.volumes import Volume

#: The first digits of a fingerprint that are enough to name a volume, if no other begins so.
_LEAST = 4


@attrs.frozen
class VolumeFacts:
    fingerprint: str = attrs.field(metadata=doc("64 hex digits; ephemeral ones mean nothing after the volume is gone"))
    short: str = attrs.field(metadata=doc("the first 8 of them"))
    name: str
    label: str
    state: Literal["online", "offline"]
    volume_class: str = attrs.field(
        metadata=doc("Primary, UserData, External, Secondary, System, Network, Virtual, Unknown")
    )
    disk_type: str = attrs.field(metadata=doc("SSD, HDD, Network, Virtual, Unknown"))
    fs_type: str
    source: str | None = attrs.field(metadata=doc("the device or the server; null while it is offline"))
    mount_points: list[bytes] = attrs.field(metadata=doc("where it is mounted, or where it was last"))
    size_bytes: int
    free_bytes: int
    is_removable: bool
    is_read_only: bool
    is_tracked: bool
    is_ephemeral: bool
    locations: list[bytes] = attrs.field(metadata=doc("what of the library lies on it"))
    first_seen_ns: int | None
    last_seen_ns: int | None
    read_bps: int | None = attrs.field(metadata=doc("of the last speed test, bytes a second"))
    write_bps: int | None
    tested_ns: int | None
    error: str | None = attrs.field(metadata=doc("why it could not be asked"))


@attrs.frozen
class VolumeList:
    volumes: list[VolumeFacts]


@attrs.frozen
class VolumeListing:
    all: bool = attrs.field(default=False, metadata=doc("also parts of the system and file systems in memory"))


@attrs.frozen
class VolumeName:
    path: bytes | None = attrs.field(default=None, metadata=doc("an absolute path on the volume"))
    volume: str | None = attrs.field(
        default=None, metadata=doc(f"its name, its label, or {_LEAST} digits or more of its fingerprint")
    )


@attrs.frozen
class VolumeTrack:
    path: bytes | None = attrs.field(default=None, metadata=doc("an absolute path on the volume"))
    volume: str | None = attrs.field(default=None, metadata=doc("its name, label or fingerprint"))
    name: str | None = attrs.field(default=None, metadata=doc("what it is called from now on"))


@attrs.frozen
class VolumeEjected:
    name: str
    mount_points: list[bytes]


@attrs.frozen
class VolumeSpeed:
    name: str
    fingerprint: str
    read_bps: int
    write_bps: int
    size_bytes: int = attrs.field(metadata=doc("what was written and read"))
    direct: bool = attrs.field(metadata=doc("by O_DIRECT; else it was synced and dropped from the cache"))


@query("volume.list")
async def list_volumes(core: Core, asked: VolumeListing) -> VolumeList:
    """The volumes that are mounted, and those that are known and away."""
    await core.volumes.now()
    told = [
        _facts(core, volume)
        for volume in core.volumes.all()
        if asked.all or volume.row is not None or (volume.present is not None and volume.present.found.is_shown)
    ]
    return VolumeList(told)


@query("volume.info")
async def volume_info(core: Core, asked: VolumeName) -> VolumeFacts:
    """All that is known of one volume."""
    return _facts(core, await _named(core, asked.path, asked.volume))


@action("volume.track")
async def track_volume(core: Core, asked: VolumeTrack) -> VolumeFacts:
    """Know a volume from now on, also while it is away. One that can be carried off, or that has no UUID, gets a small
    marker file, `.vdfs-volume`, if it may be written to."""
    volume = await _named(core, asked.path, asked.volume)
    one = volume.present
    if one is None and volume.row is None:
        raise NotFound("it is not there any more")
    if asked.name is not None and (not asked.name or "/" in asked.name or len(asked.name.encode()) > 200):
        raise Invalid(f"{asked.name!r} cannot be the name of a volume")
    if one is not None and one.facts is None and one.print is None:
        raise Unreachable(f"{volume.shown_name} cannot be asked who it is: {one.error}")
    if one is not None and one.facts is not None and one.facts.marker is None:
        await _mark(core, volume)
    if one is not None and one.print is not None and one.print.is_ephemeral:
        raise Invalid(
            f"{volume.shown_name} has no identity that would outlast its mount ({one.found.fs_type}), "
            "so it cannot be known again"
        )
    row = volume.row if one is None else core.volumes.put(one)
    assert row is not None
    with core.library.store.write(ORIGIN_CALL) as unit:
        volumes.track(unit.db, row.id, asked.name, row.marker, time.time_ns())
    await core.volumes.now()
    return _facts(core, _by_fingerprint(core, row.fingerprint))


async def _mark(core: Core, volume: Volume) -> None:
    """Write the marker where one belongs."""
    one = volume.present
    assert one is not None
    facts = one.facts
    assert facts is not None
    if facts.mount.root != b"/" or facts.is_read_only or not takes_marker(one.found, facts.fs_uuid):
        return
    if one.print is not None and one.print.is_ephemeral and facts.fs_uuid:
        ident = os.urandom(16).hex()  # a copy beside its original
    else:
        ident = first_marker_id(facts.fs_uuid) if facts.fs_uuid else os.urandom(16).hex()
    try:
        await core.volumes.write_marker(one, Marker(ident, facts.fs_uuid))
    except OSError as error:
        if one.print is not None and not one.print.is_ephemeral:
            return  # it is known well enough without
        place = os.fsdecode(facts.mount.mount_point)
        raise _refused(error, f"{volume.shown_name} cannot be marked: {place}: {error.strerror}") from error
    await core.volumes.now()


@action("volume.untrack")
async def untrack_volume(core: Core, asked: VolumeName) -> VolumeFacts:
    """Forget that somebody wanted to know a volume; what of the library lies on it stays. Its marker stays too."""
    volume = await _named(core, asked.path, asked.volume)
    if volume.row is None or volume.row.tracked_ns is None:
        raise NotFound(f"{volume.shown_name} is not tracked")
    facts = _facts(core, volume)
    with core.library.store.write(ORIGIN_CALL) as unit:
        volumes.untrack(unit.db, volume.row.id)
    await core.volumes.now()
    return attrs.evolve(facts, is_tracked=False)


@action("volume.eject")
async def eject_volume(core: Core, asked: VolumeName) -> VolumeEjected:
    """Let go of a volume and unmount it: when this returns it may be pulled. Busy names who holds it, or has it yet."""
    volume = await _named(core, asked.path, asked.volume)
    _online(volume)
    return VolumeEjected(volume.shown_name, await core.ejector.eject(volume))


@action("volume.speedtest")
async def test_speed(core: Core, asked: VolumeName) -> VolumeSpeed:
    """Write and read 10 MiB past the page cache, for 30 s at most; the file has no name and is gone in any case."""
    volume = await _named(core, asked.path, asked.volume)
    _online(volume)
    assert volume.present is not None
    args = {"directory": _place_to_write(core, volume), "size_bytes": SIZE_BYTES, "limit_s": LIMIT_S}
    try:
        if core.scanner.pool.is_running:
            result = await core.scanner.pool.call("speedtest", args)
        else:
            result = await trio.to_thread.run_sync(partial(speedtest, args, _Unstopped()))
    except (WorkerError, OSError) as error:
        code = error.os_errno if isinstance(error, WorkerError) else error.errno
        text = str(error).partition("] ")[2] or str(error)  # what a worker says of an OSError begins with its number
        raise _refused(OSError(code, text), f"{volume.shown_name} cannot be tested: {text}") from error
    row = volume.row
    if row is not None:
        with core.library.store.write(ORIGIN_CALL) as unit:
            volumes.set_speed(unit.db, row.id, result["read_bps"], result["write_bps"], time.time_ns())
    return VolumeSpeed(volume.shown_name, volume.fingerprint, **result)


class _Unstopped:
    """What a worker's operation asks of its context, where no worker is."""

    def stopped(self) -> bool:
        return False


def _place_to_write(core: Core, volume: Volume) -> bytes:
    """A directory on the volume where this user may write: its root, or that of a branch."""
    one = volume.present
    assert one is not None
    places = [one.found.mount_point, *(branch.root_path for branch in core.volumes.on(one))]
    if not one.found.is_slow:
        return next((place for place in places if os.access(place, os.W_OK | os.X_OK)), places[0])
    return places[-1]


def _refused(error: OSError, text: str) -> VdfsError:
    if error.errno == errno.EROFS:
        return ReadOnly(text)
    if error.errno == errno.ENOSPC:
        return NoSpace(text)
    if error.errno in (errno.EACCES, errno.EPERM):
        return AccessDenied(text)
    if error.errno == errno.ETIMEDOUT:
        return Deadline(text)
    return Unreachable(text)


def _online(volume: Volume) -> None:
    if not volume.is_online:
        raise Unreachable(f"{volume.shown_name} is offline; connect it first")


def _by_fingerprint(core: Core, fingerprint: str) -> Volume:
    return next(volume for volume in core.volumes.all() if volume.fingerprint == fingerprint)


async def _named(core: Core, path: bytes | None, named: str | None) -> Volume:
    """The one volume that is meant; NotFound or Invalid with what there is."""
    await core.volumes.now()
    known = core.volumes.all()
    if path is not None and named is None:
        real = await core.locations.real(path)
        one = core.volumes.at(real)
        found = [volume for volume in known if one is not None and volume.present is one]
        if not found:
            raise NotFound(f"{os.fsdecode(path)} lies on no volume that can be known")
        return found[0]
    if named is None or path is not None:
        raise Invalid("a volume is named by a path or by its name, and by one of them")
    found = [volume for volume in known if volume.row is not None and volume.row.name == named]
    found = found or [volume for volume in known if volume.shown_name == named]
    if not found and len(named) >= _LEAST:
        found = [volume for volume in known if volume.fingerprint.startswith(named.lower())]
    if not found:
        raise NotFound(f"there is no volume {named}; see: sd volume list --all")
    if len(found) > 1:
        several = ", ".join(sorted(volume.fingerprint[:SHORT] for volume in found))
        raise Invalid(f"{named} may be one of several volumes: {several}; give more of the fingerprint")
    return found[0]


def _facts(core: Core, volume: Volume) -> VolumeFacts:
    row, one = volume.row, volume.present
    facts = None if one is None else one.facts
    if one is not None:
        found = one.found
        kinds = (found.volume_class, found.disk_type, found.fs_type)
        points = [mount.mount_point for mount in found.mounts]
        held = core.volumes.on(one)
    else:
        assert row is not None
        kinds = (row.volume_class, row.disk_type, row.fs_type)
        points = [row.mount_point]
        held = [branch for branch in core.tree.branches.values() if branch.volume_id == row.id]
    return VolumeFacts(
        fingerprint=volume.fingerprint,
        short=volume.fingerprint[:SHORT],
        name=volume.shown_name,
        label=facts.label if facts is not None else "" if row is None else row.label,
        state="online" if volume.is_online else "offline",
        volume_class=kinds[0],
        disk_type=kinds[1],
        fs_type=kinds[2],
        source=None if one is None else one.found.source,
        mount_points=points,
        size_bytes=facts.size_bytes if facts is not None else 0 if row is None else row.size_bytes,
        free_bytes=facts.free_bytes if facts is not None else 0 if row is None else row.free_bytes,
        is_removable=one is not None and one.found.is_removable,
        is_read_only=facts is not None and facts.is_read_only,
        is_tracked=row is not None and row.tracked_ns is not None,
        is_ephemeral=one is not None and one.print is not None and one.print.is_ephemeral,
        locations=sorted({b"store" if branch.location is None else branch.location for branch in held}),
        first_seen_ns=None if row is None else row.first_seen_ns,
        last_seen_ns=None if row is None else row.last_seen_ns,
        read_bps=None if row is None else row.read_bps,
        write_bps=None if row is None else row.write_bps,
        tested_ns=None if row is None else row.tested_ns,
        error=None if one is None else "its disk was pulled out" if one.is_lost else one.error,
    )
