"""Safekeeping: the task that keeps a last good backup of the library's database, at most a day old.

Everything is done in a thread on a connection of its own; neither requests nor units wait for it. When the task ends
with the mount, a backup that has become due is made then, if that takes no longer than a moment: who unmounts does not
wait for a large library.
"""

import logging
import time
from typing import Final

import trio

from index.care import backup
from index.store.store import Store

log = logging.getLogger("sdmount.library")

#: After the start others come first; then it looks so often whether a backup is due.
_FIRST_S: Final = 60.0
_LOOK_S: Final = 600.0
#: How long the end of the mount may be held up.
_END_S: Final = 2.0


async def keep_backup(store: Store) -> None:
    """Make a backup whenever the last one is a day old, until cancelled."""
    said = ""
    try:
        await trio.sleep(_FIRST_S)
        while True:
            if backup.is_due(store.path):
                why = await trio.to_thread.run_sync(backup.make, store.path, _is_cancelled)
                if why and why != said:
                    log.warning("no backup: %s", why)
                said = why
            await trio.sleep(_LOOK_S)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_at_the_end, store)


def _is_cancelled() -> bool:
    """In the thread: whether nobody waits for it any more."""
    try:
        trio.from_thread.check_cancelled()
    except trio.Cancelled:
        return True
    return False


def _at_the_end(store: Store) -> None:
    if backup.is_due(store.path):
        end_s = time.monotonic() + _END_S
        why = backup.make(store.path, lambda: time.monotonic() > end_s)
        if why:
            log.info("no backup at the end: %s", why)
