"""Volumes below a branch's root: what their devices are called, for inode numbers that do not collide.

A device number may change with every mount. So the word of a device is made of what its mount is by text: type, source
and place; a device that no mount has (a subvolume) has its number only, and its files are new ones after a restart that
numbers it anew. Source: proc_pid_mountinfo(5).
"""

import hashlib
import os
from collections.abc import Iterable, Mapping

from index.model.entry import Stat
from index.model.inode import DEVICES
from index.scan.mounts import Mount, is_within

#: Stands for a name where a file system is mounted that walks leave alone (in the nested mapping of excluded names).
MOUNTED = "mounted"


def _word(name: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def words_of(table: list[Mount], roots: Iterable[bytes]) -> dict[int, int]:
    """What stands for the devices that are mounted below branches' roots: 64 bits each.

    Of several mounts of one device the one whose place comes first below a root speaks: what is mounted elsewhere has
    no say.
    """
    words: dict[int, int] = {}
    for mount in sorted(table, key=lambda mount: mount.mount_point):
        if any(mount.mount_point != root and is_within(mount.mount_point, root) for root in roots):
            major, minor = map(int, mount.device.split(":"))
            name = b"\0".join((mount.fs_type.encode(), os.fsencode(mount.source), mount.mount_point))
            words.setdefault(os.makedev(major, minor), _word(name))
    return words


def word_of(device: int) -> int:
    """What stands for a device that no mount has: a subvolume."""
    return _word(f"{os.major(device)}:{os.minor(device)}".encode())


def root_stat(path: bytes) -> Stat:
    """What the root of a branch is, whose device is one from now on."""
    st = os.lstat(path)
    DEVICES.roots.add(st.st_dev)
    return Stat.of(st)


def use_devices(roots: Iterable[int], words: Mapping[int, int]) -> None:
    """From now on these are the devices of branches' roots, and others are called so."""
    DEVICES.word_of = word_of
    DEVICES.reset(roots, words)
