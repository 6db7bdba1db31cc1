"""What is mounted where, from /proc/self/mountinfo, read before anything is stat-ed.

A stat of our own mount from the process that serves it would wait for itself, and a pseudo file system is no place for
a person's files: both are recognised here by text alone. Slow file systems (network and FUSE) are told apart, because
their calls must never run on the loop. A mount that no path leads to any more, because another one came over it or
over a directory on its way, is left out of `mounts()`: the tree of mounts tells, the order of the lines does not.

Source: proc_pid_mountinfo(5); path_resolution(7).
"""

import ctypes
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

PSEUDO = frozenset(
    "autofs bdev binfmt_misc bpf cgroup cgroup2 configfs cpuset debugfs devpts devtmpfs efivarfs fusectl hugetlbfs "
    "mqueue nsfs pipefs proc pstore ramfs-boot rpc_pipefs securityfs selinuxfs sockfs sysfs tracefs".split()
)

SLOW = frozenset("nfs nfs4 cifs smb3 smbfs 9p ceph afs ncpfs glusterfs lustre virtiofs davfs".split())

RENUMBERS = frozenset("vfat msdos exfat".split())
FOLDS_CASE = frozenset("vfat msdos exfat ntfs ntfs3 hfs hfsplus apfs jfs udf iso9660".split())

#: Types by what statfs(2) calls them, for where no table does.
_MAGIC = {
    0xEF53: "ext4",
    0x9123_683E: "btrfs",
    0x5846_5342: "xfs",
    0xF2F5_2010: "f2fs",
    0x2FC1_2FC1: "zfs",
    0x794C_7630: "overlay",
    0x0102_1994: "tmpfs",
    0x8584_58F6: "ramfs",
    0x6969: "nfs",
    0x0102_1997: "9p",
    0x6573_5546: "fuse",
}

#: The kernel's name of our own mounts: `fuse` plus the subtype that we give.
OWN_TYPE = "fuse.sdmount"


class Mount(NamedTuple):
    """One mounted file system: where, what type, from what, its device number as "major:minor", the mount's own."""

    mount_point: bytes
    fs_type: str
    source: str
    device: str
    id: int = 0
    root: bytes = b"/"  # what of that file system is shown: of a bind mount, a directory
    parent: int = 0  # the id of the mount that its place lies on

    @property
    def is_own(self) -> bool:
        return self.fs_type == OWN_TYPE

    @property
    def is_pseudo(self) -> bool:
        return self.fs_type in PSEUDO

    @property
    def is_slow(self) -> bool:
        """Whether a call may wait for another machine or another process."""
        return self.fs_type in SLOW or self.fs_type.split(".")[0] in ("fuse", "fuseblk")

    @property
    def renumbers(self) -> bool:
        """Whether inode numbers are made up at each mount: they tell nothing of what was there before."""
        return self.fs_type in RENUMBERS

    @property
    def folds_case(self) -> bool:
        """Whether a name may be found by other spellings than the one a listing shows."""
        return self.fs_type in FOLDS_CASE

    @property
    def is_memory(self) -> bool:
        """Whether no read has a disk to wait for."""
        return self.fs_type in ("tmpfs", "ramfs")


def _unescape(raw: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda m: bytes([int(m.group(1), 8)]), raw)


def parse(text: bytes) -> list[Mount]:
    """The mounts of a mountinfo text, seen or hidden, in its order (a later one hides an earlier one at its point)."""
    found = []
    for line in text.split(b"\n"):
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", 6)
            found.append(
                Mount(
                    _unescape(fields[4]),
                    fields[dash + 1].decode("ascii", "replace"),
                    os.fsdecode(_unescape(fields[dash + 2])),
                    fields[2].decode("ascii"),
                    int(fields[0]),
                    _unescape(fields[3]),
                    int(fields[1]),
                )
            )
        except (ValueError, IndexError):
            continue
    return found


def mounts() -> list[Mount]:
    """What this process finds mounted: each place once, and nothing that is hidden."""
    table = every_mount()
    seen = visible(table)
    if not any(m.mount_point == b"/" for m in seen):
        seen.insert(0, _root(table))
    return seen


def every_mount(pid: int | None = None) -> list[Mount]:
    """All that is mounted in the mount namespace of this process, or of another, whether a path leads there or not."""
    with open(f"/proc/{'self' if pid is None else pid}/mountinfo", "rb") as file:
        return parse(file.read())


def visible(table: list[Mount]) -> list[Mount]:
    """The mounts of a table that a path leads to, in its order.

    As the kernel walks: from the root, and from each mount into those on it, unless another one stands on the way. The
    root of a process is a directory that it holds: what is mounted over that later covers nothing for it, and is not
    seen. Of a chroot the mount that its root lies on is not in the table.
    """
    ids = {mount.id for mount in table}
    first = [mount for mount in table if mount.parent not in ids or mount.parent == mount.id]
    on: dict[int, list[Mount]] = {}  # by the mount that their places lie on
    for mount in table:
        if mount.parent in ids and mount.parent != mount.id and mount.mount_point != b"/":
            on.setdefault(mount.parent, []).append(mount)
    seen: set[int] = set()
    ways = [first]
    for beside in ways:  # grows on the way
        points = {mount.mount_point for mount in beside} - {b"/"}
        for mount in beside:
            if not points.isdisjoint(_above(mount.mount_point)):
                continue
            then = on.get(mount.id, [])
            ways.append(then)
            if all(one.mount_point != mount.mount_point for one in then):
                seen.add(mount.id)
    return [mount for mount in table if mount.id in seen]


def _above(path: bytes) -> Iterator[bytes]:
    """The directories above an absolute path, but for the root."""
    while len(path := os.path.dirname(path)) > 1:
        yield path


def _root(table: list[Mount]) -> Mount:
    """What this process has at `/` where nothing is mounted there: the directory that chroot(2) took it to. Which one
    of its file system that is nobody tells."""
    st = os.stat("/")
    device = f"{os.major(st.st_dev)}:{os.minor(st.st_dev)}"
    same = next((m for m in table if m.device == device), None)
    if same is not None:
        return Mount(b"/", same.fs_type, same.source, device)
    words = (ctypes.c_long * 64)()  # struct statfs, which begins with the type
    failed = ctypes.CDLL(None).statfs(b"/", words)
    return Mount(b"/", "unknown" if failed else _MAGIC.get(words[0] & 0xFFFF_FFFF, "unknown"), "", device)


def is_own_at(mount_point: bytes, pid: int | None = None) -> bool:
    """Whether one of our mounts is at a place: for this process, or, be it hidden there, for another."""
    table = mounts() if pid is None else every_mount(pid)
    return any(m.is_own and m.mount_point == mount_point for m in table)


def device_at(mount_point: bytes) -> str:
    """The device of what is seen mounted at a place; "" when nothing is."""
    return next((m.device for m in reversed(mounts()) if m.mount_point == mount_point), "")


def mount_of(path: bytes, table: list[Mount]) -> Mount | None:
    """The mount that an absolute, normalised path lies on."""
    best: Mount | None = None
    for mount in table:
        point = mount.mount_point
        if is_within(path, point) and (best is None or len(point) >= len(best.mount_point)):
            best = mount
    return best


def is_inside(path: bytes, directory: bytes, table: list[Mount]) -> bool:
    """Whether a directory of a local file system lies below another by some other mount of it, and is seen there."""
    ours, theirs = _original(path, table), _original(directory, table)
    if ours is None or theirs is None or ours[0] != theirs[0] or not is_within(ours[1], theirs[1]):
        return False
    there = directory.rstrip(b"/") + ours[1][len(theirs[1].rstrip(b"/")) :]
    if is_within(there, directory) and mount_of(there, table) != mount_of(directory, table):
        return False  # something is mounted over it
    try:
        one, other = os.lstat(path), os.lstat(there)
    except OSError:
        return False
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _original(path: bytes, table: list[Mount]) -> tuple[str, bytes] | None:
    """(device, path in its file system) of a path: the same for a directory and for its bind mounts.

    None on a file system that may make us wait; NFS, for one, does not tell which part of it is mounted.
    """
    mount = mount_of(path, table)
    if mount is None or mount.is_slow:
        return None
    below = path[len(mount.mount_point.rstrip(b"/")) :]
    return mount.device, mount.root.rstrip(b"/") + below or b"/"


def is_within(path: bytes, directory: bytes) -> bool:
    """Whether an absolute path is a directory or lies below it."""
    return directory in (path, b"/") or path.startswith(directory + b"/")
