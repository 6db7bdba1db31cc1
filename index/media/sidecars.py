"""Sidecar files: where they lie, how they get there, and how files and rows are made to agree.

    <library>/sidecars/content/hh/hh/<full hash, 64 hex digits>/thumbs/<variant>.webp

hh are the first two bytes of the hash. The key is the full hash and not the content's uuid, because two contents may
share that one, and a picture would show the other's. A file is written beside its place and renamed, so what has the
name is whole. It is not synced: what a loss of power leaves is too short, and `look_over` finds it.

`look_over` is for a thread: it reads, and says what does not agree. Rows are then forgotten in a unit, and files that
no row speaks of are removed once they are old enough that no worker has just written them.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import apsw

from index.store import sidecars
from index.store.sidecars import THUMB, Sidecar

#: Below the library's directory.
DIRECTORY: Final = b"sidecars"
_CONTENT: Final = b"content"
_PLACES: Final = {THUMB: b"thumbs"}
_KINDS: Final = {place: kind for kind, place in _PLACES.items()}
_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PAGE: Final = 512
#: A file without a row may be one that a worker wrote and nobody took in yet, or a half of one.
YOUNG_S: Final = 3600.0

FORMAT: Final = "webp"


class Disagreements(NamedTuple):
    """What `look_over` found: rows whose file is not there or has another size, and files that no row speaks of."""

    rows: list[tuple[int, str, str]]
    files: list[bytes]


def directory_of(full: bytes, kind: str) -> list[bytes]:
    """The directories of a content's sidecars of a kind, below `DIRECTORY`."""
    key = full.hex().encode()
    return [_CONTENT, key[:2], key[2:4], key, _PLACES[kind]]


def path_of(root: bytes, full: bytes, kind: str, variant: str, file_format: str = FORMAT) -> bytes:
    """The file of a sidecar; `root` is the library's `DIRECTORY`."""
    return b"/".join([root, *directory_of(full, kind), f"{variant}.{file_format}".encode()])


def write(root_fd: int, full: bytes, kind: str, variant: str, data: bytes, file_format: str = FORMAT) -> None:
    """Put a sidecar in its place. Raises OSError; nothing is left then."""
    with _made(root_fd, directory_of(full, kind)) as fd:
        name = f"{variant}.{file_format}".encode()
        temporary = b".%s.%d.tmp" % (name, os.getpid())
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            file = os.open(temporary, flags, 0o600, dir_fd=fd)
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(file, left) :]
            finally:
                os.close(file)
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=fd)
            raise


@contextlib.contextmanager
def _made(root_fd: int, path: list[bytes]) -> Iterator[int]:
    """The descriptor of a directory that is made where it is missing."""
    fd = os.dup(root_fd)
    try:
        for name in path:
            try:
                deeper = os.open(name, _DIR, dir_fd=fd)
            except FileNotFoundError:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=fd)
                deeper = os.open(name, _DIR, dir_fd=fd)
            os.close(fd)
            fd = deeper
        yield fd
    finally:
        os.close(fd)


def find(db: apsw.Connection, content_id: int, variant: str) -> Sidecar | None:
    """The row of the file that shows a thumbnail of this variant; None where there is none."""
    rows = {row.variant: row for row in sidecars.of_content(db, content_id, THUMB)}
    row = rows.get(variant)
    if row is None or row.state != sidecars.SERVED:
        return row if row is not None and row.state == sidecars.READY else None
    ready = [other for other in rows.values() if other.state == sidecars.READY and other.version == row.version]
    return max(ready, key=lambda other: other.size_bytes, default=None)


# making files and rows agree ------------------------------------------------------------------------------------------


def look_over(db: apsw.Connection, root: bytes, now_s: float | None = None) -> Disagreements:
    """Where rows and files of a library's sidecars do not agree: a pass over both, for a thread with its own reader."""
    young_s = (time.time() if now_s is None else now_s) - YOUNG_S
    return Disagreements(list(_rows_without_file(db, root)), list(_files_without_row(db, root, young_s)))


def forget(db: apsw.Connection, found: Disagreements) -> None:
    """Remove the rows, so that their files are made again. Inside a unit."""
    sidecars.forget(db, found.rows)


def remove(found: Disagreements, root: bytes) -> int:
    """Remove the files and what directories are empty then; for a thread. Returns how many files went."""
    gone = 0
    for path in found.files:
        try:
            os.unlink(path)
        except OSError:
            continue
        gone += 1
        above = os.path.dirname(path)
        with contextlib.suppress(OSError):  # not empty
            while len(above) > len(root):
                os.rmdir(above)
                above = os.path.dirname(above)
    return gone


def _rows_without_file(db: apsw.Connection, root: bytes) -> Iterator[tuple[int, str, str]]:
    after = 0
    while page := sidecars.page_of_contents(db, after, _PAGE):
        after = page[-1]
        for row, full in sidecars.files(db, page):
            try:
                st = os.lstat(path_of(root, full, row.kind, row.variant, row.format)) if full else None
            except OSError:
                st = None
            if st is None or st.st_size != row.size_bytes:
                yield row.content_id, row.kind, row.variant


def _files_without_row(db: apsw.Connection, root: bytes, young_s: float) -> Iterator[bytes]:
    for directory, _, names in os.walk(os.path.join(root, _CONTENT)):
        parts = directory.rsplit(b"/", 2)
        kind = _KINDS.get(parts[-1])
        for name in names:
            path = os.path.join(directory, name)
            variant, _, file_format = name.decode("utf-8", "replace").rpartition(".")
            full = _full(parts[-2])
            if kind and full and sidecars.has_file(db, full, kind, variant, file_format):
                continue
            try:
                if os.lstat(path).st_mtime < young_s:
                    yield path
            except OSError:
                continue


def _full(key: bytes) -> bytes | None:
    try:
        return bytes.fromhex(key.decode("ascii")) if len(key) == 64 else None
    except ValueError:
        return None
