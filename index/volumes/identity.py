"""Fingerprints: which volume this is, wherever, whenever and on whatever machine it is mounted.

In: what a file system says of itself (UUID, marker), and for those that say nothing where they lie. Out: a
`Fingerprint`, 64 hex digits of BLAKE3. The invariant: nothing in it moves with the mount point, the label, how full the
volume is or which machine it is at; and another volume that stands at the same place has another.

- A file system with a UUID: the UUID. Its first marker is made of the same, so tracking changes nothing; a copy of the
  file system that was told apart has a marker of its own, which then counts as well.
- One without UUID that carries a marker: the marker alone.
- A network file system without either: the server and the path that were mounted, where its source says so much.
- A fixed disk without UUID: this device and the place. It is never carried elsewhere.
- All else (in memory, overlays, a removable disk that says nothing): ephemeral, a name for as long as it is mounted.
"""

from typing import NamedTuple

from blake3 import blake3

from index.volumes.detect import EXTERNAL, NETWORK, PRIMARY, SECONDARY, SYSTEM, USER_DATA, Found
from index.volumes.marker import Marker

SHORT = 8
#: Whose name is its place: they stay where they are.
_FIXED = frozenset({PRIMARY, USER_DATA, SECONDARY, SYSTEM})


class Fingerprint(NamedTuple):
    """`digest` in hex; an ephemeral one means nothing once the volume is gone."""

    digest: str
    is_ephemeral: bool = False

    @property
    def short(self) -> str:
        return self.digest[:SHORT]


def _digest(*words: str) -> str:
    hasher = blake3(b"sdmount volume v1")
    for word in words:
        raw = word.encode("utf-8", "surrogateescape")
        hasher.update(len(raw).to_bytes(4, "big") + raw)
    return hasher.hexdigest()


def first_marker_id(fs_uuid: str) -> str:
    """The id of the marker that a file system gets at first: the same from whichever machine it is tracked."""
    return _digest("marker", fs_uuid)[:32]


def fingerprint(found: Found, fs_uuid: str, marker: Marker | None, device_uuid: bytes, boot_id: str) -> Fingerprint:
    """Which volume this is."""
    if found.in_memory:
        return Fingerprint(_digest("ephemeral", boot_id, *found.key), is_ephemeral=True)
    if fs_uuid:
        if marker is None or marker.id == first_marker_id(fs_uuid):
            return Fingerprint(_digest("filesystem", fs_uuid))
        return Fingerprint(_digest("filesystem", fs_uuid, marker.id))
    if marker is not None:
        return Fingerprint(_digest("marker", marker.id))
    if found.volume_class == NETWORK and any(mark in found.source for mark in ":/"):
        return Fingerprint(_digest("network", found.fs_type, found.source))
    if found.volume_class in _FIXED:
        return Fingerprint(_digest("place", device_uuid.hex(), found.fs_type, found.mount_point.hex()))
    return Fingerprint(_digest("ephemeral", boot_id, *found.key), is_ephemeral=True)


def copy_of(first: Fingerprint, found: Found) -> Fingerprint:
    """The name of a copy that is mounted beside its original and carries no marker of its own."""
    return Fingerprint(_digest("copy", first.digest, *found.key), is_ephemeral=True)


def takes_marker(found: Found, fs_uuid: str) -> bool:
    """Whether a volume is marked when it is tracked: one that can be carried away, or is known by nothing better."""
    if found.in_memory:
        return False
    if found.volume_class == EXTERNAL or found.is_image:
        return True
    return not fs_uuid and found.volume_class not in _FIXED
