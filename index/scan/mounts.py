"""What is mounted where, from /proc/self/mountinfo, read before anything is stat-ed.

A stat of our own mount from the process that serves it would wait for itself, and a pseudo file system is no place for
a person's files: both are recognised here by text alone. Slow file systems (network and FUSE) are told apart, because
their calls must never run on the loop. Source: proc_pid_mountinfo(5).
"""

import ctypes
import os
import re
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
    """The mounts of a mountinfo text, in mount order (a later one hides an earlier one at the same point)."""
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
                )
            )
        except (ValueError, IndexError):
            continue
    return found


def mounts(pid: int | None = None) -> list[Mount]:
    """What is mounted in the mount namespace of this process, or of another."""
    with open(f"/proc/{'self' if pid is None else pid}/mountinfo", "rb") as file:
        table = parse(file.read())
    if pid is None and not any(m.mount_point == b"/" for m in table):
        table.insert(0, _root(table))
    return table


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
    """Whether one of our mounts is at a place, for this process or for another."""
    return any(m.is_own and m.mount_point == mount_point for m in mounts(pid))


def device_at(mount_point: bytes) -> str:
    """The device of what is mounted at a place, on top of what else is; "" when nothing is."""
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
