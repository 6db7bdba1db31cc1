"""Identifiers as types of their own, so that mixing two of them is a type error.

Local integers (`EntryId`, `BranchId`, …) never leave this device; on the wire and in shared rows there are 16-byte
uuids only. `Inode` is the number the kernel sees; it is given once and never again (see index/store/changes.py).
"""

import os
import time
from collections.abc import Callable
from typing import NewType

EntryId = NewType("EntryId", int)
BranchId = NewType("BranchId", int)
LocationId = NewType("LocationId", int)
ContentId = NewType("ContentId", int)
TagId = NewType("TagId", int)
Inode = NewType("Inode", int)
Seq = NewType("Seq", int)

DeviceUuid = NewType("DeviceUuid", bytes)
BranchUuid = NewType("BranchUuid", bytes)
EntryUuid = NewType("EntryUuid", bytes)

#: The kernel's name for the root of a mount.
ROOT_INODE = Inode(1)

#: Numbers from here on belong to the nodes of views; entries stay below, and both stay below 2**53 (JSON, JavaScript).
VIEW_INODE_BASE = 1 << 52


#: Where chance and the time of version 7 uuids come from; a simulation puts its own here, so that a seed says it all.
random_bytes: Callable[[int], bytes] = os.urandom
now_ns: Callable[[], int] = time.time_ns


def new_uuid() -> bytes:
    """16 random bytes with the marks of a version 4 uuid (RFC 9562)."""
    raw = bytearray(random_bytes(16))
    raw[6] = (raw[6] & 0x0F) | 0x40
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)


def new_entry_uuid() -> bytes:
    """A version 7 uuid (RFC 9562, 6.2 method 3): when it was made, to 250 ns, then 62 random bits.

    Entries get theirs by the hundred thousand, and the index of them grows at its end only: a third less room, and a
    unit writes one page of it instead of one for each file.
    """
    return new_entry_uuids(1)[0]


def new_entry_uuids(count: int) -> list[bytes]:
    """So many of them, made at once, in ascending order: one look at the clock, and each a tick after the other."""
    first = (now_ns() << 12) // 1_000_000
    drawn = random_bytes(8 * count)
    made = []
    for number in range(count):
        ticks = first + number
        half = drawn[8 * number : 8 * number + 8]
        head = (ticks >> 12) << 16 | 0x7000 | (ticks & 0xFFF)
        made.append(head.to_bytes(8, "big") + bytes((half[0] & 0x3F | 0x80,)) + half[1:])
    return made


def uuid_text(raw: bytes) -> str:
    """`8-4-4-4-12` lower-case hexadecimal digits of 16 bytes."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
