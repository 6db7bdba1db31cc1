"""Which volumes are mounted, of what class, on what disk: from /proc/self/mountinfo and sysfs alone.

In: the table of mounts. Out: one `Found` for each file system, however often it is mounted: bind mounts and the
subvolumes of a btrfs are places of one volume. No mount point is touched here, so no dead server and no mount of our
own can make anybody wait; what must be asked of a file system itself is measure.py's. Pseudo file systems and our own
mounts are no volumes; other mounts by FUSE (sshfs, rclone) are network ones.
"""

from pathlib import Path

import attrs

from index.scan.mounts import Mount, is_within
from index.volumes.block import Disk, disk_of

PRIMARY = "Primary"
USER_DATA = "UserData"
EXTERNAL = "External"
SECONDARY = "Secondary"
SYSTEM = "System"
NETWORK = "Network"
VIRTUAL = "Virtual"
UNKNOWN = "Unknown"

CLASSES = (PRIMARY, USER_DATA, EXTERNAL, SECONDARY, SYSTEM, NETWORK, VIRTUAL, UNKNOWN)

#: Kept in memory, or put together of others: gone with the mount.
_MEMORY = frozenset("tmpfs ramfs overlay aufs fuse.fuse-overlayfs unionfs".split())
#: Packed, read only, part of some program.
_PACKED = frozenset("squashfs erofs cramfs romfs fuse.squashfuse fuse.snapfuse".split())
#: By FUSE, and yet no place for files.
_PSEUDO_FUSE = frozenset("fuse.gvfsd-fuse fuse.portal fuse.lxcfs fuse.xdg-document-portal fusectl".split())
#: Made of whole disks, which they do not tell.
_POOLS = frozenset(["zfs"])
_SYSTEM_PLACES = (b"/boot", b"/efi", b"/proc", b"/sys", b"/dev", b"/run", b"/snap", b"/var/lib/docker", b"/nix/store")
_PLUGGED_PLACES = (b"/media", b"/run/media", b"/mnt")


@attrs.frozen
class Found:
    """One file system that is mounted just now."""

    device: str  # "major:minor" of its mounts
    fs_type: str
    source: str
    mounts: tuple[Mount, ...]  # the place that speaks for it first
    volume_class: str
    disk_type: str  # SSD, HDD, Network, Virtual, Unknown
    disk: Disk | None

    @property
    def key(self) -> tuple[str, ...]:
        """Which mounted thing this is: another when a device is used again for something else."""
        return (self.device, self.fs_type, self.source, str(self.disk.sequence if self.disk else 0))

    @property
    def mount_point(self) -> bytes:
        return self.mounts[0].mount_point

    def is_lost(self, sys: Path = Path("/sys")) -> bool:
        """Whether a disk of it was pulled while it is still mounted: the kernel tells of that in sysfs alone."""
        return self.disk is not None and self.disk.is_gone(sys)

    @property
    def is_slow(self) -> bool:
        """Whether a call may wait for another machine or another process."""
        return self.mounts[0].is_slow

    @property
    def in_memory(self) -> bool:
        return self.fs_type in _MEMORY

    @property
    def is_image(self) -> bool:
        """Whether it lies in a file, by a loop device: that can be carried anywhere."""
        return self.disk is not None and self.disk.backing is not None

    @property
    def is_removable(self) -> bool:
        return self.disk is not None and self.disk.removable

    @property
    def is_shown(self) -> bool:
        """Whether a person takes it for a volume; the rest is told only when it is asked for."""
        if self.volume_class in (SYSTEM, UNKNOWN) or self.fs_type in _PACKED:
            return False
        return not self.in_memory or self.volume_class == PRIMARY


def detect(table: list[Mount], sys: Path = Path("/sys")) -> list[Found]:
    """The volumes of a table of mounts, in the order in which they were first mounted."""
    on_top = {mount.mount_point: mount for mount in table}
    groups: dict[tuple[str, str], list[Mount]] = {}
    for mount in table:
        is_seen = on_top[mount.mount_point] is mount
        if is_seen and not mount.is_own and not mount.is_pseudo and mount.fs_type not in _PSEUDO_FUSE:
            groups.setdefault((mount.device, mount.fs_type), []).append(mount)
    return [_found(mounts, sys) for mounts in groups.values()]


def _found(mounts: list[Mount], sys: Path) -> Found:
    whole_first = sorted(mounts, key=lambda m: (m.root != b"/", len(m.mount_point), m.mount_point))
    first = whole_first[0]
    disk = disk_of(first.device, first.source, sys)
    volume_class = class_of([m.mount_point for m in whole_first], first, disk)
    return Found(
        first.device, first.fs_type, first.source, tuple(whole_first), volume_class, disk_type_of(first, disk), disk
    )


def class_of(places: list[bytes], mount: Mount, disk: Disk | None) -> str:
    """The class of a volume by where it is mounted and on what it lies; the first rule that holds."""
    if b"/" in places:
        return PRIMARY
    if mount.is_slow and disk is None:
        return NETWORK
    if mount.fs_type in _MEMORY or mount.fs_type in _PACKED:
        return VIRTUAL
    if (disk is not None and disk.removable) or _all_in(places, _PLUGGED_PLACES):
        return EXTERNAL
    if any(is_within(place, b"/home") for place in places):
        return USER_DATA
    if _all_in(places, _SYSTEM_PLACES):
        return SYSTEM
    if disk is None:
        return SECONDARY if mount.fs_type in _POOLS else UNKNOWN
    return VIRTUAL if disk.backing is not None else SECONDARY


def _all_in(places: list[bytes], directories: tuple[bytes, ...]) -> bool:
    return all(any(is_within(place, one) for one in directories) for place in places)


def disk_type_of(mount: Mount, disk: Disk | None) -> str:
    """What a volume lies on, in one word."""
    if disk is None:
        return "Network" if mount.is_slow else "Virtual" if mount.fs_type in _MEMORY else "Unknown"
    if disk.virtual:
        return "Virtual"
    return "HDD" if disk.rotational else "SSD"
