"""Volumes below a branch's root: what their devices are called, for inode numbers that do not collide.

A device number may change with every mount. So the word of a device is made of what its mount is by text: type, source
and place; a device that no mount has (a subvolume) has its number only, and its files are new ones after a restart that
numbers it anew. Source: proc_pid_mountinfo(5).
"""

import hashlib
import os
from collections.abc import Iterable

from index.model.entry import Stat
from index.model.inode import DEVICES
from index.scan.mounts import mounts

#: Stands for a name where a file system is mounted that walks leave alone (in the nested mapping of excluded names).
MOUNTED = "mounted"


def word_of(device: int) -> int:
    """64 bits that stand for a device."""
    number = f"{os.major(device)}:{os.minor(device)}"
    name = number.encode()
    for mount in mounts():
        if mount.device == number:
            name = b"\0".join((mount.fs_type.encode(), os.fsencode(mount.source), mount.mount_point))
            break
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")


def root_stat(path: bytes) -> Stat:
    """What the root of a branch is, whose device is one from now on."""
    st = os.lstat(path)
    DEVICES.roots.add(st.st_dev)
    return Stat.of(st)


def use_devices(roots: Iterable[int]) -> None:
    """From now on these are the devices of branches' roots, and others are called by what is mounted now."""
    DEVICES.word_of = word_of
    DEVICES.reset(roots)
