"""core.status: what the library is and what it is doing."""

import os
import time
from contextlib import suppress

import attrs
import trio

from index.model.errors import NoSpace
from index.model.ids import uuid_text
from vdfs.base.version import __version__
from vdfs.library.statistics import statistics
from vdfs.ops.context import Core
from vdfs.ops.registry import doc, query


@attrs.frozen
class StatusAsked:
    wait_idle_s: float = attrs.field(
        default=0.0, metadata=doc("answer when nothing is left to index, or after this long")
    )


@attrs.frozen
class ScanStatus:
    idle: bool
    pending_dirs: int
    pending_files: int = attrs.field(metadata=doc("10 000 at most are counted; jobs know how many"))
    current: bytes | None
    dirs: int
    entries: int
    files_identified: int
    bytes_identified: int
    errors: int
    paused: int = attrs.field(metadata=doc("jobs that are held up"))
    unwatched: bool = attrs.field(
        metadata=doc("whether the system allows too few watches: what has none is looked through now and then")
    )
    active: bool = attrs.field(metadata=doc("whether anything goes on, beside what is held up"))


@attrs.frozen
class Status:
    pid: int
    version: str
    library: str
    library_id: str
    device: str
    device_id: str
    mountpoint: bytes | None
    data_dir: bytes
    log: bytes
    uptime_s: float
    scan: ScanStatus
    locations: int
    entries: int
    files: int
    dirs: int
    bytes: int
    far_files: int = attrs.field(metadata=doc("of the files, those that other devices hold"))
    far_bytes: int
    contents: int
    tags: int
    watches: int
    database_bytes: int


@query("core.status")
async def status(core: Core, asked: StatusAsked) -> Status:
    """The process, the library's statistics, and the scan's progress."""
    if asked.wait_idle_s > 0:
        with trio.move_on_after(min(asked.wait_idle_s, 60.0)):
            await core.indexing.wait_idle()
    with suppress(NoSpace):  # the figures are then those of a moment ago
        core.library.store.settle()
    numbers = await trio.to_thread.run_sync(statistics, core.library)
    return snapshot(core, numbers)


def snapshot(core: Core, numbers: dict[str, int]) -> Status:
    """The status without asking the database anything long."""
    progress = core.scanner.progress
    return Status(
        pid=os.getpid(),
        version=__version__,
        library=core.library.name,
        library_id=uuid_text(core.library.store.library_uuid),
        device=core.library.device_name,
        device_id=uuid_text(core.library.device.uuid),
        mountpoint=None if core.mountpoint is None else os.fsencode(core.mountpoint),
        data_dir=os.fsencode(core.config.data_dir),
        log=os.fsencode(core.config.log_path),
        uptime_s=round((time.time_ns() - core.started_ns) / 1e9, 3),
        scan=ScanStatus(
            idle=core.indexing.idle,
            pending_dirs=core.scanner.pending_dirs(),
            pending_files=core.scanner.identifier.pending_files(),
            current=None if progress.current is None else os.fsencode(progress.current),
            dirs=progress.dirs,
            entries=progress.entries,
            files_identified=progress.files_identified,
            bytes_identified=progress.bytes_identified,
            errors=progress.errors,
            paused=core.jobs.paused(),
            unwatched=core.watch.lacks_room,
            active=core.indexing.active,
        ),
        locations=len(core.tree.locations),
        watches=len(core.watch),
        **numbers,
    )
