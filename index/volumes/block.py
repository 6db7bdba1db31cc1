"""Block devices: which disk a file system lies on, and what the kernel says of that disk.

In: the device number of a mount and its source. Out: a `Disk`. A partition and a mapped device are followed to the disk
below; a btrfs has no device number of its own there and is found by its source. Nothing is opened but files of sysfs,
so nothing here waits for a disk.

Source: sysfs-block and sysfs-class-bdi of the kernel's ABI documents.
"""

import os
import stat
from pathlib import Path
from typing import NamedTuple

#: Buses that a person plugs things into, as they stand in the path of a device.
_PLUGGED = ("/usb", "/firewire", "/fw-host")


class Disk(NamedTuple):
    """The disk below a file system. `backing` is the file of a loop device; `sequence` is another at each attaching."""

    name: str
    rotational: bool
    removable: bool
    backing: bytes | None = None
    sequence: int = 0
    virtual: bool = False


def disk_of(device: str, source: str, sys: Path = Path("/sys")) -> Disk | None:
    """The disk of a mount by its device number ("major:minor") or its source; None where there is none."""
    if device.startswith("0:") and not source.startswith("/dev/"):
        return None
    entry = sys / "dev" / "block" / device
    if not entry.exists():
        number = _number_of(source)
        entry = sys / "dev" / "block" / number if number else entry
        if not number or not entry.exists():
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
    sequence = int(_text(entry / "diskseq") or 0)
    whole = entry.parent if (entry / "partition").exists() else entry
    sequence = sequence or int(_text(whole / "diskseq") or 0)
    below = sorted((whole / "slaves").glob("*"))
    parts = [_disk_at(Path(os.path.realpath(one)), depth + 1) for one in below] if depth < 8 else []
    backing = _text(whole / "loop" / "backing_file")
    return Disk(
        name=whole.name,
        rotational=any(one.rotational for one in parts) if parts else _text(whole / "queue" / "rotational") == "1",
        removable=any(one.removable for one in parts) or _is_removable(whole),
        backing=os.fsencode(backing) if backing else None,
        sequence=sequence,
        virtual=not parts and "/virtual/" in f"{whole}/",
    )


def _is_removable(whole: Path) -> bool:
    if _text(whole / "removable") == "1":
        return True
    if "/mmc_host" in str(whole):  # a card; what is soldered to the board says MMC
        return _text(whole / "device" / "type") == "SD"
    return any(bus in str(whole) for bus in _PLUGGED)


def _text(file: Path) -> str:
    try:
        return os.fsdecode(file.read_bytes()).strip()
    except OSError:
        return ""
