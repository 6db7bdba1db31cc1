"""A child process that makes system calls by the thousand and times nothing but them.

It is one process for a whole run, so the start of an interpreter is in no figure, and what its loop costs
by itself is the same for every file system (the report prints it: `loop`). Requests and answers are lines
of JSON: `{"do": "stat", "base": ..., "names": FILE}` is answered by `{"seconds": ..., "calls": ...}` or
`{"error": ...}`. Between requests it stands in `/` with nothing open, so that it never keeps a mount busy.

The second half of the file is that program; the first half is the class that drives it.
"""

import contextlib
import gc
import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from .processes import Failed, end

PAGE_BYTES = 4096


class Probe:
    """The driving side. A pass that misses its deadline ends the process; the next pass gets a new one."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._process)

    def start(self) -> None:
        """Have the process up before caches are dropped, so that its own start is not what follows."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchlib.probe"],
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            self.ask("loop", count=1)

    def ask(self, do: str, **what: str | float) -> dict[str, Any]:
        """One pass; its answer. Failed when the pass met an error or the deadline."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"do": do, **what}).encode() + b"\n")
        process.stdin.flush()
        readable, _, _ = select.select([process.stdout], [], [], self._deadline_s)
        if not readable:
            end(process)
            raise Failed(f"no end within {self._deadline_s:.0f} s")
        answer: dict[str, Any] = json.loads(process.stdout.readline() or b'{"error": "the probe died"}')
        if "error" in answer:
            raise Failed(f"{do}: {answer['error']}")
        return answer

    def seconds(self, do: str, **what: str | float) -> float:
        """One pass; the time its calls took."""
        return float(self.ask(do, **what)["seconds"])


def stat(base: str, names: str) -> dict[str, Any]:
    """Attributes of every name in the file `names`, relative to `base`."""
    paths = _names(names)
    os.chdir(base)
    one = os.stat
    start = time.perf_counter()
    for path in paths:
        one(path)
    return _took(start, len(paths))


def absent(base: str, names: str) -> dict[str, Any]:
    """Names that do not exist; access(2), because an exception costs more than the call."""
    paths = _names(names)
    os.chdir(base)
    one = os.access
    start = time.perf_counter()
    found = [path for path in paths if one(path, os.F_OK)]
    answer = _took(start, len(paths))
    return {"error": f"{found[0]} exists"} if found else answer


def loop(count: int) -> dict[str, Any]:
    """What a pass of `stat` costs without a path to walk: the loop, and making the result object."""
    one = os.stat
    handle = os.open("/", os.O_PATH)
    try:
        start = time.perf_counter()
        for _ in range(count):
            one(handle)
        return _took(start, count)
    finally:
        os.close(handle)


def random_read(path: str, count: int, seed: int) -> dict[str, Any]:
    """4 KiB reads at random pages of one file, into one buffer."""
    handle = os.open(path, os.O_RDONLY)
    try:
        pages = os.fstat(handle).st_size // PAGE_BYTES
        luck = random.Random(seed)
        offsets = [luck.randrange(pages) * PAGE_BYTES for _ in range(count)]
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        buffers = [bytearray(PAGE_BYTES)]
        one = os.preadv
        start = time.perf_counter()
        for offset in offsets:
            one(handle, buffers, offset)
        return _took(start, count)
    finally:
        os.close(handle)


def drop_file(path: str) -> dict[str, Any]:
    """Make the kernel forget the pages of one file (of this mount only: the file beneath keeps its own)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return {"seconds": 0.0}


def create(base: str, count: int, size_bytes: int) -> dict[str, Any]:
    """New files with content in the directory `base`, which must not exist."""
    data = b"x" * size_bytes
    os.mkdir(base)
    os.chdir(base)
    names = [f"new-{number:06d}.txt" for number in range(count)]
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    start = time.perf_counter()
    for name in names:
        handle = os.open(name, flags, 0o644)
        os.write(handle, data)
        os.close(handle)
    return _took(start, count)


def delete(base: str) -> dict[str, Any]:
    """Remove every file of the directory `base`, then (untimed) the directory."""
    os.chdir(base)
    names = sorted(os.listdir("."))
    start = time.perf_counter()
    for name in names:
        os.unlink(name)
    answer = _took(start, len(names))
    os.chdir("/")
    os.rmdir(base)
    return answer


def tag(base: str, names: str, value: str) -> dict[str, Any]:
    """Set the tags of each file of the file `names`."""
    paths = _names(names)
    os.chdir(base)
    data = value.encode()
    start = time.perf_counter()
    for path in paths:
        os.setxattr(path, "user.xdg.tags", data)
    return _took(start, len(paths))


def listings(base: str, names: str) -> dict[str, Any]:
    """List each directory of the file `names`: the single times and how many entries were seen."""
    paths = _names(names)
    os.chdir(base)
    each, entries = [], 0
    for path in paths:
        start = time.perf_counter()
        found = os.listdir(path)
        each.append(time.perf_counter() - start)
        entries += len(found)
    return {"seconds": sum(each), "calls": len(each), "each": each, "entries": entries}


def touches(base: str, names: str, pause_s: float) -> dict[str, Any]:
    """Each file of the file `names`: stat, open, read of its first page; the single times of each."""
    paths = _names(names)
    os.chdir(base)
    each: dict[str, list[float]] = {"stat": [], "open": [], "read": []}
    buffers = [bytearray(PAGE_BYTES)]
    now = time.perf_counter
    began = now()
    for path in paths:
        time.sleep(pause_s)  # as who works with files, not as who storms
        start = now()
        os.stat(path)
        seen = now()
        handle = os.open(path, os.O_RDONLY)
        opened = now()
        os.preadv(handle, buffers, 0)
        done = now()
        os.close(handle)
        for what, seconds in (("stat", seen - start), ("open", opened - seen), ("read", done - opened)):
            each[what].append(seconds)
    os.chdir("/")
    return {"seconds": now() - began, "calls": len(paths), "each": each}


def count(base: str) -> dict[str, Any]:
    """How many entries a walk sees and the bytes of the files: a fast file system must not be a wrong one."""
    entries = size_bytes = 0
    start = time.perf_counter()
    waiting = [base]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for entry in found:
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    size_bytes += entry.stat(follow_symlinks=False).st_size
    return {**_took(start, entries), "entries": entries, "bytes": size_bytes}


PASSES: dict[str, Callable[..., dict[str, Any]]] = {
    "stat": stat, "absent": absent, "loop": loop, "random_read": random_read, "drop_file": drop_file,
    "create": create, "delete": delete, "listings": listings, "count": count,
    "touches": touches, "tag": tag,
}  # fmt: skip


def _names(file: str) -> list[str]:
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        return lines.read().splitlines()


def _took(start: float, calls: int) -> dict[str, Any]:
    return {"seconds": time.perf_counter() - start, "calls": calls}


def serve() -> None:
    """Answer requests until the other side hangs up."""
    gc.disable()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = PASSES[request.pop("do")](**request)
        except OSError as error:
            answer = {"error": str(error)}
        with contextlib.suppress(OSError):
            os.chdir("/")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
