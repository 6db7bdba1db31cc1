"""What one name looks like from outside, as a value that can be compared between two trees.

In: a path. Out: a ``Look``: kind, attributes, bytes read and bytes mapped, link target, listing, extended
attributes; or the errno of a name that cannot be looked at. Also the names of a whole tree.
"""

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields

_LIMIT_BYTES = 1 << 22  # the fuzzer's files stay far below


@dataclass(frozen=True)
class View:
    """A name as a program sees it; fields that do not apply to its kind stay empty."""

    error: str = ""
    kind: int = 0
    mode: int = 0
    owner: tuple[int, int] = (0, 0)
    links: int = 0
    size: int = 0
    read: bytes | str = b""
    mapped: bytes | str = b""
    target: bytes = b""
    listing: frozenset[bytes] | str = frozenset()
    attributes: tuple[tuple[bytes, bytes], ...] | str = ()


@dataclass(frozen=True)
class Look:
    """A view together with what two healthy trees need not share: times and inode number."""

    view: View
    mtime_ns: int = 0
    inode: int = 0


def look(path: bytes, *, attributes: bool = True) -> Look:
    """Look at one name by every door."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return Look(View(error=_name(error)))
    kind = stat.S_IFMT(status.st_mode)
    regular = stat.S_ISREG(status.st_mode)
    view = View(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        links=0 if stat.S_ISDIR(status.st_mode) else status.st_nlink,
        size=status.st_size if regular or stat.S_ISLNK(status.st_mode) else 0,
        read=_read(path) if regular else b"",
        mapped=_mapped(path) if regular else b"",
        target=_target(path) if stat.S_ISLNK(status.st_mode) else b"",
        listing=_listing(path) if stat.S_ISDIR(status.st_mode) else frozenset(),
        attributes=_attributes(path) if attributes else (),
    )
    return Look(view, status.st_mtime_ns, status.st_ino)


def differences(seen: View, expected: View) -> dict[str, tuple[object, object]]:
    """The fields in which two views differ, as (seen, expected)."""
    pairs = ((item.name, getattr(seen, item.name), getattr(expected, item.name)) for item in fields(View))
    return {name: (one, two) for name, one, two in pairs if one != two}


def names_below(base: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Every relative name in a tree with inode number and file kind, directories before what they hold."""
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(base, directory) if directory else base) as entries:
            found = sorted((entry.name, entry) for entry in entries)
        for name, entry in found:
            relative = os.path.join(directory, name)
            status = entry.stat(follow_symlinks=False)
            yield relative, status.st_ino, stat.S_IFMT(status.st_mode)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(relative)


def _read(path: bytes) -> bytes | str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            return os.pread(fd, _LIMIT_BYTES, 0)
        finally:
            os.close(fd)
    except OSError as error:
        return _name(error)


def _mapped(path: bytes) -> bytes | str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            size = os.fstat(fd).st_size
            if not size:
                return b""
            with mmap.mmap(fd, size, prot=mmap.PROT_READ) as view:
                return view[:]
        finally:
            os.close(fd)
    except OSError as error:
        return _name(error)


def _target(path: bytes) -> bytes:
    try:
        return os.readlink(path)
    except OSError as error:
        return _name(error).encode()


def _listing(path: bytes) -> frozenset[bytes] | str:
    try:
        return frozenset(os.listdir(path))
    except OSError as error:
        return _name(error)


def _attributes(path: bytes) -> tuple[tuple[bytes, bytes], ...] | str:
    try:
        names = sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False)))
        wanted = [name for name in names if name.startswith(b"user.")]
        return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in wanted)
    except OSError as error:
        return _name(error)


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))
