"""Stacks: what the server is doing right now, written down when SIGUSR1 comes.

For whoever looks after a mount that does not answer. The stack of each thread is written by the signal's own handler
(faulthandler), so also while the loop hangs in a call; then, if the loop goes on, where each of its tasks waits. Both
go to a file of their own beside the log, as lines of code only, never values: no user's path, name or secret is in
them. Where the file cannot be had (a full disk) the mount does without.

Source: Python's faulthandler; trio.lowlevel.Task.iter_await_frames.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import trio

log = logging.getLogger("sdmount")


async def tell_on_signal(path: Path) -> None:
    """Until cancelled. What is told is added to the file, which servers of several libraries may share."""
    with _opened(path) as out, trio.open_signal_receiver(signal.SIGUSR1) as signals:
        faulthandler.register(signal.SIGUSR1, out, all_threads=True, chain=True)
        try:
            async for _ in signals:
                _tell_tasks(out)
        finally:
            faulthandler.unregister(signal.SIGUSR1)


def _opened(path: Path) -> TextIO:
    try:
        path.touch(0o600)
        return path.open("a", encoding="utf-8")
    except OSError as error:
        log.warning("SIGUSR1 tells nothing: %s", error)
        return Path(os.devnull).open("a", encoding="utf-8")


def _tell_tasks(out: TextIO) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"{now} the tasks of the loop, each where it waits:"]
    root = trio.lowlevel.current_root_task()
    if root is not None:
        lines += _tree(root, 1)
    with contextlib.suppress(OSError):  # a full disk
        out.write("\n".join(lines) + "\n\n")
        out.flush()


def _tree(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    frames = [
        f"{frame.f_code.co_name} ({os.path.basename(frame.f_code.co_filename)}:{line})"
        for frame, line in task.iter_await_frames()
    ]
    yield f"{'  ' * depth}{task.name}: {' > '.join(frames)}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda one: one.name):
            yield from _tree(child, depth + 1)
