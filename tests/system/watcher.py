"""Somebody who watches directories of a mount: a process of its own with inotify, as file managers and scripts have it.

Run as `python -m tests.system.watcher DIRECTORY…`: says `ready`, then each event as a line of JSON: the number of the
directory on the command line, what happened, the name, the cookie. It opens nothing and lists nothing.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from index.scan import inotify
from tests.system.harness import PATIENCE

KINDS = {
    inotify.IN_MODIFY: "MODIFY",
    inotify.IN_ATTRIB: "ATTRIB",
    inotify.IN_CLOSE_WRITE: "CLOSE_WRITE",
    inotify.IN_MOVED_FROM: "MOVED_FROM",
    inotify.IN_MOVED_TO: "MOVED_TO",
    inotify.IN_CREATE: "CREATE",
    inotify.IN_DELETE: "DELETE",
    inotify.IN_DELETE_SELF: "DELETE_SELF",
    inotify.IN_MOVE_SELF: "MOVE_SELF",
}


class Seen(NamedTuple):
    """One event, as it was seen."""

    where: int
    what: str
    name: str
    cookie: int
    at_s: float

    @property
    def plain(self) -> tuple[str, str]:
        return self.what, self.name


class Watcher:
    """The process, and what it has seen so far."""

    def __init__(self, *directories: Path, mask: int = inotify.WATCH_MASK & ~inotify.IN_ONLYDIR) -> None:
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.watcher", str(mask), *map(str, directories)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=root,
        )  # fmt: skip
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._out = self._process.stdout
        self.seen: list[Seen] = []
        self._buffer = b""
        assert self._out.readline() == b"ready\n"
        os.set_blocking(self._out.fileno(), False)

    def look(self, wait_s: float = 0.0) -> list[Seen]:
        """All events so far."""
        if select.select([self._out], [], [], wait_s)[0]:
            self._buffer += self._out.read() or b""
            *lines, self._buffer = self._buffer.split(b"\n")
            self.seen += [Seen(*json.loads(line), time.monotonic()) for line in lines]
        return self.seen

    def forget(self) -> None:
        self.look()
        self.seen.clear()

    def plain(self, where: int | None = None) -> list[tuple[str, str]]:
        """(what, name) of all so far."""
        return [one.plain for one in self.look() if where is None or one.where == where]

    def until(self, check: Callable[[list[tuple[str, str]]], bool], what: str, within_s: float = 10.0) -> float:
        """Wait until what was seen is enough; returns how long that took."""
        began_s = time.monotonic()
        while not check(self.plain()):
            is_late = time.monotonic() - began_s > PATIENCE * within_s
            assert not is_late, f"not within {PATIENCE * within_s:g} s: {what}; seen: {self.plain()}"
            self.look(0.05)
        return time.monotonic() - began_s

    def until_seen(self, *events: tuple[str, str], within_s: float = 10.0) -> float:
        return self.until(lambda seen: set(events) <= set(seen), f"{events}", within_s)

    def quiet(self, for_s: float = 1.2) -> list[tuple[str, str]]:
        """What is seen until nothing was for a while."""
        until_s = time.monotonic() + for_s
        while (now_s := time.monotonic()) < until_s:
            count = len(self.seen)
            if len(self.look(until_s - now_s)) > count:
                until_s = time.monotonic() + for_s
        return self.plain()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()


@contextmanager
def watching(*directories: Path) -> Iterator[Watcher]:
    watcher = Watcher(*directories)
    try:
        yield watcher
    finally:
        watcher.close()


def main(argv: list[str]) -> None:
    mask, *directories = argv
    with inotify.Inotify() as watch:
        numbers = {watch.add(os.fsencode(path), int(mask)): number for number, path in enumerate(directories)}
        print("ready", flush=True)
        while True:
            select.select([watch.fd], [], [])
            for event in watch.read():
                what = next((name for bit, name in KINDS.items() if event.mask & bit), None)
                if what is not None:
                    line = [numbers.get(event.wd, -1), what, os.fsdecode(event.name), event.cookie]
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
