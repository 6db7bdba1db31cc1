"""Tasks beside the requests: what fails in one of them is a line in the log, never the end of the mount."""

import logging
from collections.abc import Awaitable, Callable

import trio

log = logging.getLogger("sdmount.core")

#: How long a task that failed waits before it begins anew.
RESTART_S = 1.0


async def for_ever(task: Callable[[], Awaitable[None]]) -> None:
    """Run a task that never ends by itself; after a failure it begins anew. Cancellation passes through."""
    while True:
        try:
            await task()
        except Exception:
            log.exception("%s failed; it begins anew", _name(task))
        await trio.sleep(RESTART_S)


async def once(work: Callable[[], Awaitable[None]]) -> None:
    """Run what has an end; a failure is its end, too."""
    try:
        await work()
    except Exception:
        log.exception("%s failed", _name(work))


def _name(task: Callable[[], Awaitable[None]]) -> str:
    return getattr(task, "__qualname__", repr(task))
