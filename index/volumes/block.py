"""Block devices: which disk a file system lies on, and what the kernel says of that disk.

In: the device number of a mount and its source. Out: a `Disk`. A partition and a mapped device are followed to the disk
below; a btrfs has no device number of its own there and is found by its source. Nothing is opened but files of sysfs,
so nothing here waits for a disk. What sysfs keeps to itself, or takes away while it is read, is not known and no error.

Source: sysfs-block, sysfs-block-dm and sysfs-class-bdi of the kernel's ABI documents; its admin-guide/md.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

#: Buses that a person plugs things into, as they stand in the path of a device.
_PLUGGED = ("/usb", "/firewire", "/fw-host")


class Disk(NamedTuple):
    """The disk below a file system. `backing` is the file of a loop device; `sequence` is another at each attaching.

    `bases` are the disks that it is lost with: those that a mapped device lies on, else the disk itself. An array that
    bears the loss of a disk is a base of its own.
    """

    name: str
    rotational: bool
    removable: bool
    backing: bytes | None = None
    sequence: int = 0
    virtual: bool = False
    bases: tuple[str, ...] = ()

    def is_gone(self, sys: Path = Path("/sys")) -> bool:
        """Whether any of the disks that it lies on is there no more. A mapped device stays when its disk is pulled."""
        known = sys / "class" / "block"
        return any(_is_absent(known / base) for base in self.bases) and not _is_absent(known)


def disk_of(device: str, source: str, sys: Path = Path("/sys")) -> Disk | None:
    """The disk of a mount by its device number ("major:minor") or its source; None where there is none."""
    if device.startswith("0:") and not source.startswith("/dev/"):
        return None
    entry = sys / "dev" / "block" / device
    if not os.path.exists(entry):
        number = _number_of(source)
        entry = sys / "dev" / "block" / number if number else entry
        if not number or not os.path.exists(entry):
            return None
    return _disk_at(Path(os.path.realpath(entry)), 0)


def _number_of(source: str) -> str:
    if not source.startswith("/dev/"):
        return ""
    try:
        st = os.stat(source)
    except OSError:
        return ""
    return f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}" if stat.S_ISBLK(st.st_mode) else ""


def _disk_at(entry: Path, depth: int) -> Disk:
    """The disk of a directory of sysfs, which may be a partition's or a mapped device's."""
    whole = entry.parent if os.path.exists(entry / "partition") else entry
    below = _names(whole / "slaves") if depth < 8 else []
    parts = [_disk_at(Path(os.path.realpath(whole / "slaves" / one)), depth + 1) for one in below]
    backing = _text(whole / "loop" / "backing_file")
    return Disk(
        name=whole.name,
        rotational=any(one.rotational for one in parts) if parts else _text(whole / "queue" / "rotational") == "1",
        removable=any(one.removable for one in parts) or _is_removable(whole),
        backing=os.fsencode(backing) if backing else None,
        sequence=_number(entry / "diskseq") or _number(whole / "diskseq"),
        virtual=not parts and "/virtual/" in f"{whole}/",
        bases=_united(parts) if parts and not _bears_loss(whole, below) else (whole.name,),
    )


def _united(parts: list[Disk]) -> tuple[str, ...]:
    return tuple(sorted({base for one in parts for base in one.bases}))


def _bears_loss(whole: Path, below: list[str]) -> bool:
    """Whether a device may go on without one of those below it: a RAID, or several paths to one disk."""
    if level := _text(whole / "md" / "level"):
        return level not in ("raid0", "linear")
    mapped = [_text(whole / "slaves" / one / "dm" / "name") for one in below]
    is_mirrored = any("_rimage_" in name or "_mimage_" in name for name in mapped)  # as LVM calls them
    return is_mirrored or _text(whole / "dm" / "uuid").startswith(("mpath-", "DMRAID-"))


def _is_removable(whole: Path) -> bool:
    if _text(whole / "removable") == "1":
        return True
    if "/mmc_host" in str(whole):  # a card; what is soldered to the board says MMC
        return _text(whole / "device" / "type") == "SD"
    return any(bus in str(whole) for bus in _PLUGGED)


def _is_absent(path: Path) -> bool:
    """Whether there is no such thing, for certain: what may not be looked at may be there."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _number(file: Path) -> int:
    try:
        return int(_text(file))
    except ValueError:
        return 0


def _text(file: Path) -> str:
    try:
        return os.fsdecode(file.read_bytes()).strip()
    except OSError:
        return ""
