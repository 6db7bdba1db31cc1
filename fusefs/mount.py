"""mounted(): a core as a FUSE session, from init to close, as one async context.

pyfuse3 holds one session a process. Options are those that work everywhere: default_permissions (the kernel decides
from the modes we report), nosuid, nodev; the subtype makes `fuse.sdmount` of it in /proc/mounts.
"""

import logging
import os
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from fusefs.invalidate import Notifier
from fusefs.kernel.inodes import Ledger
from fusefs.poked import PokedOperations
from fusefs.pokes import Pokes
from fusefs.receiving import keep_awake, receiving
from fusefs.views.context import ViewContext
from fusefs.views.special import ROOT_LINKS, RootViews
from fusefs.xattrs import Xattrs
from index.model.errors import VdfsError
from index.scan.mounts import device_at
from index.scan.workers import WorkerPool
from vdfs.base.tasks import for_ever
from vdfs.ops.context import Core
from vdfs.ops.core import snapshot
from vdfs.ops.devices import snapshot as peers_snapshot
from vdfs.ops.jobs import snapshot as jobs_snapshot

log = logging.getLogger("sdmount.mount")

#: The poker is a worker of its own pool, which ends when nothing came from elsewhere for so long.
POKER = "fusefs.poker:OPERATIONS"
_POKER_IDLE_S = 3600.0

#: What open files may take to reach the index when the session ends under them.
_FLUSH_DEADLINE_S = 5.0


def make_operations(core: Core, show: frozenset[bytes], *, is_shared: bool = False) -> PokedOperations:
    """The handlers over a core; `is_shared`: other users may enter the mount."""
    ledger = Ledger(core.tree.root)
    notifier = Notifier(core.tree, ledger)

    def status() -> dict[str, object]:
        told = snapshot(core, _light_numbers(core))
        return {
            "pid": told.pid,
            "version": told.version,
            "library": told.library,
            "library_id": told.library_id,
            "device": told.device,
            "mountpoint": os.fsdecode(told.mountpoint or b""),
            "data_dir": os.fsdecode(told.data_dir),
            "idle": told.scan.idle,
            "pending_dirs": told.scan.pending_dirs,
            "pending_files": told.scan.pending_files,
            "current": None if told.scan.current is None else os.fsdecode(told.scan.current),
            "errors": told.scan.errors,
            "locations": told.locations,
            "watches": told.watches,
            "inodes": len(ledger),
        }

    context = ViewContext(
        core.tree, os.getuid(), os.getgid(), status, partial(jobs_snapshot, core), partial(peers_snapshot, core),
        core.tree.readlink, core.finder, core.volumes, is_shared,
    )  # fmt: skip
    core.library.store.feed.at_once(context.answers.forget)
    return PokedOperations(
        core.tree,
        core.namespace,
        core.renames,
        core.attributes,
        core.opener,
        core.watch,
        Xattrs(core.tree, core.annotations, lambda: core.library.device_name, is_shared=is_shared),
        RootViews(context, show),
        notifier,
        ledger,
    )


def _light_numbers(core: Core) -> dict[str, int]:
    keys = ("entries", "files", "dirs", "bytes", "far_files", "far_bytes", "contents", "tags", "database_bytes")
    return dict.fromkeys(keys, 0)


def mount_options(*, allow_other: bool, read_only: bool, library: str) -> set[str]:
    """The options of the session."""
    options = {"default_permissions", "nosuid", "nodev", "subtype=sdmount", f"fsname=sdmount:{_plain(library)}"}
    if allow_other:
        options.add("allow_other")
    if read_only:
        options.add("ro")
    return options


def _plain(text: str) -> str:
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in text) or "library"


async def serve_mount(
    core: Core,
    mountpoint: Path,
    options: set[str],
    show: frozenset[bytes] = frozenset(ROOT_LINKS),
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Mount and serve until the kernel ends the session (umount) or this is cancelled; started, it tells its device."""
    core.tree.is_shared = "allow_other" in options
    operations = make_operations(core, show, is_shared=core.tree.is_shared)
    try:
        pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as error:
        reason = f"{error}; what fusermount3 said is on the terminal, or in {core.config.log_path}"
        raise VdfsError(f"{mountpoint} could not be mounted: {reason}") from error
    device = device_at(os.fsencode(mountpoint))
    poker = WorkerPool(2, log_path=core.config.state_dir / "workers.log", table=POKER, idle_s=_POKER_IDLE_S)
    pokes = Pokes(core.tree, operations.ledger, operations.notifier, poker, mountpoint, device)
    operations.use(pokes)
    core.tree.all_told = operations.notifier.all_told
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_awake)
            nursery.start_soon(for_ever, operations.notifier.run)
            if device and "ro" not in options:
                nursery.start_soon(poker.run)
                nursery.start_soon(for_ever, pokes.run)
            task_status.started(device)
            with receiving():
                await pyfuse3.main(min_tasks=1, max_tasks=64)
            nursery.cancel_scope.cancel()
    finally:
        # libfuse unmounts by path: by now that may be somebody else's mount, when ours was detached before.
        pyfuse3.close(unmount=device_at(os.fsencode(mountpoint)) == device)
        with trio.move_on_after(_FLUSH_DEADLINE_S, shield=True):
            for handle in operations.handles.take_files():
                try:
                    await core.opener.flush(handle)
                finally:
                    handle.close()
