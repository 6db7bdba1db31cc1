"""The acknowledgement file: what each writer began, what was acknowledged, and how it ended.

One JSON object a line, appended by one write each, so that writers share the file and a killed one leaves at
most a torn last line. A writer is named ``<seed>-<number>``; its operations count from 1.

- ``begin``: the operation and its arguments, before its first system call.
- ``ack``: after its last one returned: the state every path it touched must have from now on; null is absent.
- ``stop``: the writer ended: ``reason`` is ``time``, ``failed`` (a living tree answered wrong), ``unmounted``, or
  the errno of the tree that died under it.

A state is ``{"kind": "dir"}``, or ``{"kind": "file"}`` with ``chunks`` (operation and length of each), ``blake2``,
``xattrs`` (values in hex), ``inode`` and ``mtime_ns``. The bytes of a chunk follow from writer, operation and
length, so a verifier can tell a half-written chunk from a damaged one without a copy of the data.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

State = dict[str, Any]
Chunks = list[list[int]]


class Journal:
    """The writing side, one a process."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def append(self, **line: object) -> None:
        """Add one line; it is in the file when this returns."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        if os.write(self._fd, data) != len(data):
            raise OSError("short write to the acknowledgement file: is its disk full?")


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines in order."""
    for line in path.read_bytes().split(b"\n")[:-1]:
        yield json.loads(line)


def chunk(writer: str, operation: int, length: int) -> bytes:
    """The bytes that this operation of this writer wrote."""
    return random.Random(f"{writer}/{operation}").randbytes(length)


def content(writer: str, chunks: Iterable[Iterable[int]]) -> bytes:
    """The bytes of a file made of these chunks."""
    return b"".join(chunk(writer, operation, length) for operation, length in chunks)


def digest(data: bytes) -> str:
    """The name of these bytes in the file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
