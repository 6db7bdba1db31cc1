"""Inode: one number that tells the files of a branch apart, also where other volumes are mounted in it.

An inode number means something on its own file system only, and a branch may hold several: a stick mounted in a home
directory, a subvolume. What lies on the file system of some branch's root keeps its number; on any other the number is
mixed with a word of that file system. Numbers are kept as signed 64 bits, since that is what SQLite has; some file
systems use all of them. No I/O: what a device is called is found out by whoever sets `Devices.word_of`
(index/scan/volumes.py). One table a process, as the devices are the machine's.
"""

import os
from collections.abc import Callable, Iterable, Mapping

_HALF = 1 << 63
_ALL = 1 << 64


class Devices:
    """Which device numbers are those of branches' roots, and the words of others."""

    def __init__(self) -> None:
        self.roots: set[int] = set()
        self.word_of: Callable[[int], int] = lambda device: device << 32
        self._words: dict[int, int] = {}

    def reset(self, roots: Iterable[int], words: Mapping[int, int]) -> None:
        """What is mounted changed: device numbers may mean something else now."""
        self.roots = set(roots)
        self._words = dict(words)

    def told(self) -> tuple[list[int], dict[int, int]]:
        """Both tables, for another process."""
        return list(self.roots), dict(self._words)

    def is_plain(self, device: int) -> bool:
        """Whether inodes on a device keep their numbers."""
        return not self.roots or device in self.roots

    def word(self, device: int) -> int:
        found = self._words.get(device)
        if found is None:
            found = self._words[device] = self.word_of(device)
        return found


DEVICES = Devices()


def signed(number: int) -> int:
    """An unsigned number of 64 bits as SQLite keeps it."""
    return number if number < _HALF else number - _ALL


def inode_of(st: os.stat_result) -> int:
    """The number of an inode as the index keeps it."""
    number = st.st_ino
    if not DEVICES.is_plain(st.st_dev):
        number ^= DEVICES.word(st.st_dev)
    return signed(number)
