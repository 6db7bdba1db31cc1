"""The server of a mount: everything runs here, in one nursery, until the mount ends.

Started by the command (sdmount.py), which it tells on a pipe, once, that the mount answers or why it does not; or by
the same command in the foreground, where a person is told. A module of its own, as the command has no need of most of
what is imported here.
"""

import contextlib
import gc
import json
import logging
import logging.handlers
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import trio

from fusefs.mount import mount_options, serve_mount
from fusefs.stacks import tell_on_signal
from fusefs.views.special import ROOT_LINKS
from index.model.errors import VdfsError
from index.scan.mounts import device_at
from vdfs.base.config import Config, make_private
from vdfs.commands.words import message
from vdfs.core import open_core, run_core, run_to_end
from vdfs.ops.context import Core

log = logging.getLogger("sdmount")

#: How long open files keep a mount alive after it was told to end.
_GRACE_S = 2.0
#: How long `fusermount3` may take.
_DETACH_S = 5.0


def serve_in_foreground(
    config: Config, library: str, mountpoint: Path, locations: list[bytes], options: dict[str, str]
) -> int:
    """Serve until a signal comes; log to the terminal. Returns the exit code."""
    _log_to(config, foreground=True)
    return _serve(config, library, mountpoint, locations, options, None)


def serve_reporting(
    config: Config, library: str, mountpoint: Path, locations: list[bytes], options: dict[str, str], fd: int
) -> int:
    """The spawned server: reports on the pipe `fd`, once. Returns the exit code."""
    os.set_inheritable(fd, False)
    _log_to(config, foreground=False)

    def report(**facts: object) -> None:
        with contextlib.suppress(OSError):
            os.write(fd, json.dumps(facts).encode())
            os.close(fd)

    try:
        return _serve(config, library, mountpoint, locations, options, report)
    except VdfsError as error:
        report(ok=False, error=str(error))
        return 1
    except OSError as error:
        log.exception("the server could not start")
        report(ok=False, error=f"{error.filename or ''} {error.strerror}".strip())
        return 1
    except BaseException as error:
        log.exception("the server ended")
        report(ok=False, error=f"unexpected {type(error).__name__}: {error}; see {config.log_path}")
        return 1


def _serve(
    config: Config,
    library: str,
    mountpoint: Path,
    locations: list[bytes],
    options: dict[str, str],
    report: Callable[..., None] | None,
) -> int:
    os.umask(0)
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    shown = frozenset(
        name for name in ROOT_LINKS if name.decode().lower() in options.get("show", "tags:search:devices").split(":")
    )

    # A held library is millions of objects without cycles: a pass over all of them would stop every request meanwhile.
    gc.set_threshold(50_000, 20, 100)

    async def run() -> None:
        async with trio.open_nursery() as outer:
            scope = outer.cancel_scope
            outer.start_soon(tell_on_signal, config.stacks_path)
            async with open_core(
                config, library, mountpoint=mountpoint, create=options.get("create", "here"),
                xattrs=options.get("xattr", "copy"), rescan_s=float(options.get("rescan", "60")), stop=scope.cancel,
            ) as core:  # fmt: skip
                warnings = await _add_locations(core, locations)
                async with trio.open_nursery() as nursery:
                    await nursery.start(run_core, core)
                    mount = mount_options(
                        allow_other="allow_other" in options, read_only="ro" in options, library=core.library.name
                    )
                    nursery.start_soon(_end_on_signal, mountpoint, nursery.cancel_scope.cancel, ours := [""])

                    async def mounted(*, task_status: trio.TaskStatus[str]) -> None:
                        await serve_mount(core, mountpoint, mount, shown, task_status=task_status)
                        nursery.cancel_scope.cancel()

                    ours[0] = await nursery.start(mounted)
                    log.info("library %s is mounted at %s", core.library.name, mountpoint)
                    if report is not None:
                        report(ok=True, warnings=warnings)
                    else:
                        for line in warnings:
                            print(message(f"sdmount: {line}"), file=sys.stderr)
                        nursery.start_soon(_show_progress, core)
            scope.cancel()

    run_to_end(run)
    log.info("ended")
    return 0


async def _add_locations(core: Core, locations: list[bytes]) -> list[str]:
    """Add the directories of the command line, or none; those that are locations already stay as they are."""
    new: list[bytes] = []
    try:
        for path in locations:
            known = {branch.root_path for branch in core.tree.branches.values()}
            if path in known or await core.locations.real(path) in known:
                continue
            added = await core.locations.add(path, None)
            new.append(added.name)
            log.info("location %s: %s", os.fsdecode(added.name), os.fsdecode(path))
    except VdfsError:
        for name in new:
            await core.locations.remove(name)
        raise
    away = [b for b in core.tree.branches.values() if b.state != "live"]
    return [f"{os.fsdecode(b.root_path)} is not there; its entries are shown as missing" for b in away]


async def _end_on_signal(mountpoint: Path, end: Callable[[], None], ours: list[str]) -> None:
    """SIGTERM, SIGINT, SIGHUP: unmount, which ends the session and then everything else. `ours`: the mount's device.

    The mount is detached at once. Whoever still has a file open gets a moment; what was written is with the files
    already, so nothing is lost when it is cut off then.
    """
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            log.info("signal %d: unmounting", number)
            if device_at(os.fsencode(mountpoint)) != ours[0]:  # detached before: what is there is not ours
                end()
                continue
            await _detach(mountpoint)
            await trio.sleep(_GRACE_S)  # the session ends by itself when nobody holds a file
            end()


async def _detach(mountpoint: Path) -> None:
    """`fusermount3 -u -z`, which says itself, on our standard error, what it cannot.

    Not by way of `subprocess`, which would wait until the new process has closed what it inherited (see
    index/scan/forkserver.py).
    """
    try:
        pid = os.posix_spawnp("fusermount3", ["fusermount3", "-u", "-z", str(mountpoint)], os.environ)  # noqa: ASYNC221 (see above)
    except OSError as error:
        log.warning("fusermount3: %s", error)
        return
    with trio.move_on_after(_DETACH_S):
        while os.waitpid(pid, os.WNOHANG)[0] == 0:  # noqa: ASYNC110, ASYNC222 (it does not wait)
            await trio.sleep(0.01)


async def _show_progress(core: Core) -> None:
    """A line on the terminal while something is scanned."""
    shown = False
    while True:
        await trio.sleep(0.5)
        scanner = core.scanner
        if core.indexing.idle:
            if shown:
                print("\r\x1b[Kindex up to date", file=sys.stderr)
                shown = False
            continue
        pending = scanner.identifier.pending_files()
        line = f"indexing: {scanner.progress.entries} entries seen, {pending} files to identify"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        shown = True


def _log_to(config: Config, *, foreground: bool) -> None:
    make_private(config.state_dir)
    handler: logging.Handler = (
        logging.StreamHandler()
        if foreground
        else logging.handlers.RotatingFileHandler(
            config.log_path, maxBytes=10 << 20, backupCount=2, encoding="utf-8", errors="backslashreplace"
        )
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(os.environ.get("SDMOUNT_LOG_LEVEL", "INFO"))
