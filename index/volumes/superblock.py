"""Superblocks: UUID and label of a file system from the first bytes of its device.

For kernels that do not tell the UUID of a mounted file system, and for those (FAT, exFAT, NTFS) that have no more than
a serial number there. In: a function that reads bytes at an offset. Out: a `Superblock`, or None for what is not known.
No I/O of its own, no state.

Source: the kernel's documents of ext4, xfs and btrfs; Microsoft's of FAT and exFAT; the boot sector of NTFS.
"""

import os
from collections.abc import Callable
from typing import NamedTuple

#: (offset, size in bytes) -> the bytes there, fewer at the end of the device.
Read = Callable[[int, int], bytes]


class Superblock(NamedTuple):
    """`uuid` in hex: 32 digits, or the 8 or 16 of a serial number; "" when it is zero."""

    fs_type: str
    uuid: str
    label: str


def parse(read: Read) -> Superblock | None:
    """What kind of file system begins here."""
    for known in (_ext, _xfs, _btrfs, _exfat, _ntfs, _fat):
        found = known(read)
        if found is not None:
            return found
    return None


def read_device(path: str) -> Superblock | None:
    """The superblock on a device or in an image; None when it cannot be read or is not known."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return parse(lambda offset, size_bytes: os.pread(fd, size_bytes, offset))
    except OSError:
        return None
    finally:
        os.close(fd)


def _hex(raw: bytes) -> str:
    return raw.hex() if any(raw) else ""


def _label(raw: bytes) -> str:
    return raw.split(b"\0")[0].decode("utf-8", "replace").strip()


def _ext(read: Read) -> Superblock | None:
    block = read(1024, 136)
    if len(block) < 136 or block[56:58] != b"\x53\xef":
        return None
    return Superblock("ext4", _hex(block[104:120]), _label(block[120:136]))


def _xfs(read: Read) -> Superblock | None:
    block = read(0, 120)
    if len(block) < 120 or block[:4] != b"XFSB":
        return None
    return Superblock("xfs", _hex(block[32:48]), _label(block[108:120]))


def _btrfs(read: Read) -> Superblock | None:
    block = read(65536, 555)
    if len(block) < 555 or block[64:72] != b"_BHRfS_M":
        return None
    return Superblock("btrfs", _hex(block[32:48]), _label(block[299:555]))


def _exfat(read: Read) -> Superblock | None:
    block = read(0, 512)
    if len(block) < 512 or block[3:11] != b"EXFAT   ":
        return None
    return Superblock("exfat", _hex(block[100:104][::-1]), "")


def _ntfs(read: Read) -> Superblock | None:
    block = read(0, 512)
    if len(block) < 512 or block[3:11] != b"NTFS    ":
        return None
    return Superblock("ntfs", _hex(block[72:80][::-1]), "")


def _fat(read: Read) -> Superblock | None:
    block = read(0, 512)
    if len(block) < 512 or block[510:512] != b"\x55\xaa":
        return None
    if block[82:90] == b"FAT32   ":
        serial, label = block[67:71], block[71:82]
    elif block[54:58] == b"FAT1":
        serial, label = block[39:43], block[43:54]
    else:
        return None
    text = _label(label)
    return Superblock("vfat", _hex(serial[::-1]), "" if text == "NO NAME" else text)
