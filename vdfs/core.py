"""open_core(): one open library with everything that runs on it. The composition of the floors below.

Used by the mount (fusefs/server.py) and, without a mount, by `run_offline`, which does one operation and closes again.
"""

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from index.media.workermain import TABLE
from index.model.errors import VdfsError
from index.scan.mounts import mounts
from index.scan.rules.gitrepo import User
from index.scan.workers import WorkerPool
from index.store.connection import translated
from sync.engine import Sync
from vdfs.base.config import Config, load_config, make_private
from vdfs.base.tasks import for_ever, once
from vdfs.indexing.indexing import UNWATCHED_S, Indexing
from vdfs.indexing.media import Media
from vdfs.indexing.scanner import Scanner
from vdfs.jobs.manager import JobManager
from vdfs.jobs.power import wait_for_power
from vdfs.library.library import open_library
from vdfs.library.safekeeping import keep_backup
from vdfs.ops.context import Core
from vdfs.ops.registry import Registry
from vdfs.ops.table import load
from vdfs.space import journal
from vdfs.space.agreeing import Agreeing, file_id
from vdfs.space.annotations import Annotations
from vdfs.space.arrivals import Arrivals
from vdfs.space.attributes import Attributes
from vdfs.space.branches import Branch
from vdfs.space.content import Opener
from vdfs.space.ejection import Ejector
from vdfs.space.finder import Finder
from vdfs.space.importer import Importer
from vdfs.space.indexer import Indexer
from vdfs.space.locations import Locations
from vdfs.space.mountwatch import MountWatch
from vdfs.space.namespace import Namespace
from vdfs.space.presence import Presence
from vdfs.space.rename import Renames
from vdfs.space.rulers import Rulers
from vdfs.space.ruling import Ruling
from vdfs.space.tree import Tree
from vdfs.space.volumes import Volumes
from vdfs.space.watch import Watch
from vdfs.wire import server

log = logging.getLogger("sdmount.core")

T = TypeVar("T")

#: One worker walks, one hashes, one hashes what is large, one is kept for what somebody waits for.
WORKERS = 4
#: Of those that decode media one is kept for calls; they end when there is nothing to do for a while.
MEDIA_WORKERS = 3
_MEDIA_IDLE_S = 60.0
_HOUSEKEEPING_S = 1.0
#: How long the answer to an action waits for the kernel to hear of it.
_TOLD_S = 1.0


@asynccontextmanager
async def open_core(
    config: Config,
    library_name: str | None,
    *,
    mountpoint: Path | None = None,
    create: str = "here",
    xattrs: str = "copy",
    rescan_s: float = UNWATCHED_S,
    stop: Callable[[], None] = lambda: None,
) -> AsyncIterator[Core]:
    """The library, open and loaded; nothing runs yet (see `run_core`)."""
    make_private(config.state_dir)
    library = open_library(config, library_name)
    try:
        tree = Tree(library.store, library.slug)
        annotations = Annotations(tree, xattrs)
        importer = Importer(tree, annotations)
        watch = Watch(tree)
        pool = WorkerPool(WORKERS, log_path=config.state_dir / "workers.log", watches_fd=watch.fd)
        scanner = Scanner(tree, pool, importer.take)
        scanner.watch = watch
        rulers = scanner.rulers = Rulers(tree, User.of(os.environb))
        watch.imports = importer.take
        importer.waits = watch.has_attributes
        watch.covered = scanner.covered
        tree.before_look = watch.look
        tree.found_dir = scanner.found_dir
        locations = Locations(tree, config.data_dir, None if mountpoint is None else os.fsencode(mountpoint))
        namespace = Namespace(tree, annotations, locations, create)
        watch.put_aside = namespace.backups
        attributes = Attributes(tree)
        finder = Finder(library.store.path)
        with translated(library.store.path):
            locations.load()
            journal.complete(tree, attributes.complete)
        jobs = JobManager(library.directory)
        media_pool = WorkerPool(
            MEDIA_WORKERS, log_path=config.state_dir / "workers.log", table=TABLE, idle_s=_MEDIA_IDLE_S
        )
        media = Media(library.store, media_pool, os.fsencode(library.sidecars_dir), scanner.halts, tree.pace)
        indexing = Indexing(scanner, media, jobs, rescan_s)
        indexing.is_more_owed = lambda: importer.is_behind
        arrivals = Arrivals(tree)
        presence = Presence(tree, watch, scanner.begin)
        volumes = Volumes(tree, locations, presence)
        ruling = Ruling(rulers, pool)
        ruling.released = indexing.note_contents
        agreeing = Agreeing(tree, locations)
        sync = Sync(
            library.store, library.device, pace=tree.pace, target_of=agreeing.target_of, adopt=library.adopt,
            library_name=lambda: library.name, file_id=file_id(library.store),
        )  # fmt: skip
        sync.changed, sync.connected = agreeing.changed, agreeing.connected
        core = Core(
            config, library, tree, namespace, Renames(namespace), attributes, Opener(tree, attributes), annotations,
            importer, locations, arrivals, scanner, jobs, indexing, watch, rulers, ruling, finder, presence,
            volumes, Ejector(volumes, scanner.halts, pool), sync, agreeing, mountpoint,
            time.time_ns(), stop,
        )  # fmt: skip
        try:
            yield core
        finally:
            finder.close()
            watch.close()
            tree.dirs.close_all()
            jobs.close()
    finally:
        library.close()


async def run_core(core: Core, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Everything that runs while a library is open: socket, watcher, scans, housekeeping. Ends by cancellation."""
    registry = load()

    async def dispatch(method: str, params: Any) -> Any:
        result = await _dispatch(registry, core, method, params)
        if method.startswith("action:"):  # who looks into the mount next sees what was done
            with trio.move_on_after(_TOLD_S):
                await core.tree.all_told()
        return result

    socket = core.config.runtime_dir / core.library.socket_name
    core.library.store.hold_ballast()
    with contextlib.closing(MountWatch(core.tree, core.watch, core.locations)) as mount_watch:
        mount_watch.changed = core.volumes.refresh
        core.volumes.moved = mount_watch.moved
        core.volumes.refresh(mounts())

        def added(branch: Branch) -> None:
            mount_watch.added(branch)
            core.volumes.added(branch)

        core.locations.added = added
        await _run_tasks(core, mount_watch, socket, dispatch, task_status)


async def _run_tasks(
    core: Core, mount_watch: MountWatch, socket: Path, dispatch: server.Dispatch, task_status: trio.TaskStatus[None]
) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, socket, dispatch)
        core.library.lock.note(None if core.mountpoint is None else str(core.mountpoint), str(socket))
        await nursery.start(core.scanner.pool.run)
        await nursery.start(core.indexing.media.pool.run)
        tasks = (
            core.jobs.run, core.watch.run, core.watch.cover_all, core.scanner.run, core.indexing.run, core.ruling.run,
            core.agreeing.run, core.sync.run, core.importer.follow, core.arrivals.run, mount_watch.run,
            core.volumes.run,
            Indexer(core.library.store, core.scanner.pool).run, partial(wait_for_power, core.jobs),
            partial(_housekeeping, core), partial(keep_backup, core.library.store),
        )  # fmt: skip
        for task in tasks:
            nursery.start_soon(for_ever, task)
        nursery.start_soon(once, core.locations.finish_removals)
        for branch in core.tree.branches.values():
            core.scanner.begin(branch)
        task_status.started()


async def _housekeeping(core: Core) -> None:
    """Once a second: close idle descriptors, look at roots again, put the index on disk."""
    while True:
        await trio.sleep(_HOUSEKEEPING_S)
        core.tree.dirs.close_idle(time.monotonic())
        for branch in list(core.tree.branches.values()):
            await core.presence.look(branch)
        with contextlib.suppress(OSError):
            await core.library.store.make_durable()
        await core.library.store.checkpoint()
        with contextlib.suppress(VdfsError):  # a disk that is full; they are added up later
            core.library.store.settle()
        core.library.store.hold_ballast()


def run_offline(data_dir: Path, library: str, method: str, params: Any) -> Any:
    """One operation on a library that nobody has open: opened, asked, closed."""

    async def main() -> Any:
        config = load_config(str(data_dir))
        async with open_core(config, library) as core:
            return await _dispatch(load(), core, method, params)

    return run_to_end(main)


async def _dispatch(registry: Registry, core: Core, method: str, params: Any) -> Any:
    """One operation; what SQLite says of a database that is damaged becomes our error for it."""
    with translated(core.library.store.path):
        return await registry.dispatch(core, method, params)


def run_to_end(main: Callable[[], Awaitable[T]]) -> T:
    """Run, and raise the one error of an exception group as itself."""
    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None
