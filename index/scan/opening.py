"""Opening a file below a branch root, to read it: what hashing and decoding begin with.

In: the descriptor of a root and a path as components. Out: a descriptor. OSError for all that a file system can say;
a path that is none raises ValueError.

Invariants
- The path is walked component by component from the root descriptor and no symlink is followed, so a name
  swapped for a link cannot lead out of the branch, and PATH_MAX does not matter.
- The open is O_NONBLOCK: a fifo swapped in does not block, a device is not waited for. Whoever reads looks first
  whether it is a regular file.
"""

import errno
import os
from collections.abc import Sequence

from index.model.entry import is_name

_OPEN_DIR = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# What the index reads the user did not read; only a file's owner may ask for that.
_OPEN_UNSEEN = _OPEN_FILE | os.O_NOATIME


class Opener:
    """Opens files below one root and keeps the descriptor of the last directory: files of one directory in a row cost
    one walk to it. The root's descriptor stays the caller's."""

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._dir_path: Sequence[bytes] = ()
        self._dir_fd: int | None = None
        self._flags = _OPEN_UNSEEN

    def __enter__(self) -> "Opener":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what it keeps."""
        if self._dir_fd is not None:
            os.close(self._dir_fd)
        self._dir_fd, self._dir_path = None, ()

    def open(self, path: Sequence[bytes]) -> int:
        """A descriptor for reading, which is the caller's to close."""
        if not path:
            raise ValueError("an empty path names the branch root, which is no file")
        name = path[-1]
        _check(name)
        parent = self._directory(path[:-1])
        try:
            return os.open(name, self._flags, dir_fd=parent)
        except PermissionError as error:
            if error.errno != errno.EPERM or self._flags == _OPEN_FILE:
                raise
            self._flags = _OPEN_FILE  # another owner's; the files beside it are likely his as well
            return os.open(name, _OPEN_FILE, dir_fd=parent)

    def _directory(self, path: Sequence[bytes]) -> int:
        if not path:
            return self._root_fd
        if self._dir_fd is not None and path == self._dir_path:
            return self._dir_fd
        for name in path:
            _check(name)
        self.close()
        self._flags = _OPEN_UNSEEN
        fd = self._root_fd
        for name in path:
            try:
                deeper = os.open(name, _OPEN_DIR, dir_fd=fd)
            finally:
                if fd != self._root_fd:
                    os.close(fd)
            fd = deeper
        self._dir_fd, self._dir_path = fd, path
        return fd


def _check(name: bytes) -> None:
    if not is_name(name):
        raise ValueError(f"{name!r} is not the name of one path component")
