"""The task that keeps a backup: once a day, told once when it cannot, and nobody waits for it at the end."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from index.care import backup
from index.store.store import Store
from vdfs.library import safekeeping

PATIENCE_S = 20


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An open library; the task looks at it at once and all the time."""
    monkeypatch.setattr(safekeeping, "_FIRST_S", 0)
    monkeypatch.setattr(safekeeping, "_LOOK_S", 0)
    made = Store(tmp_path / "library.db", b"d" * 16)
    yield made
    made.close()


def keep_until(store: Store, is_done: Callable[[], bool]) -> None:
    """Run the task until something is so, and end it."""

    async def main() -> None:
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(safekeeping.keep_backup, store)
                while not is_done():  # noqa: ASYNC110  (what is waited for tells nobody)
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_backup_is_made_when_it_is_due(store):
    """And again when it has become a day old."""
    kept = backup.path_beside(store.path)
    keep_until(store, kept.exists)
    first = kept.stat().st_ino
    os.utime(kept, (time.time() - 90_000,) * 2)
    keep_until(store, lambda: kept.stat().st_ino != first)
    assert not backup.is_due(store.path)


def test_the_end_makes_what_has_become_due(store, monkeypatch):
    """Before the task has looked for the first time."""
    monkeypatch.setattr(safekeeping, "_FIRST_S", 3600)
    keep_until(store, lambda: True)
    assert backup.path_beside(store.path).exists()


def test_a_backup_that_takes_long_does_not_hold_up_the_end(store, monkeypatch):
    """It is stopped when the task is cancelled, and the one at the end after its time."""
    monkeypatch.setattr(safekeeping, "_END_S", 0.05)
    stopped = []

    def make(path: Path, stops: Callable[[], bool]) -> str:
        stopped.append(False)
        while not stops():
            time.sleep(0.001)
        stopped[-1] = True
        return "there was no time for a backup"

    monkeypatch.setattr(backup, "make", make)
    keep_until(store, lambda: len(stopped) == 1)
    assert stopped == [True, True]


def test_what_keeps_a_backup_from_being_made_is_told_once(store, monkeypatch, caplog):
    """Not every ten minutes."""
    asked = []
    monkeypatch.setattr(backup, "make", lambda *_: asked.append(1) or "the disk lacks room")
    with caplog.at_level(logging.WARNING):
        keep_until(store, lambda: len(asked) > 3)
    assert [record.getMessage() for record in caplog.records] == ["no backup: the disk lacks room"]
