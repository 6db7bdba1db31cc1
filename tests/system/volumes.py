"""Sticks for the tests: file systems in images, plugged in by a loop device and pulled out, cleaned up in any case.

An image is a file; a loop device is detached by the kernel when its file system is unmounted, so what is mounted is all
that there is to clean up.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.harness import mountpoints

#: What a file system needs at least, and how its maker is told to be quick and quiet.
MAKERS = {
    "ext4": (32, ["mkfs.ext4", "-q", "-F"]),
    "btrfs": (112, ["mkfs.btrfs", "-q", "-f"]),
    "xfs": (300, ["mkfs.xfs", "-q", "-f"]),
    "vfat": (32, ["mkfs.vfat"]),
}


class Sticks:
    """Images and mount points in one directory."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.points: list[Path] = []

    def make(self, name: str, fs_type: str = "ext4", label: str = "", size_mib: int = 0) -> Path:
        """A new, empty stick."""
        least_mib, maker = MAKERS[fs_type]
        if shutil.which(maker[0]) is None:
            pytest.skip(f"{maker[0]} is not installed")
        image = self.base / f"{name}.img"
        with open(image, "wb") as file:
            file.truncate(max(least_mib, size_mib) << 20)
        named = ["-n" if fs_type == "vfat" else "-L", label] if label else []
        subprocess.run([*maker, *named, str(image)], check=True, capture_output=True)
        return image

    def copy(self, image: Path, name: str) -> Path:
        """What dd makes of a stick."""
        return Path(shutil.copy(image, self.base / f"{name}.img"))

    def plug(self, image: Path, place: str, *options: str) -> Path:
        """Mount a stick at a place, which is made."""
        point = self.base / place
        point.mkdir(exist_ok=True, parents=True)
        words = ["mount", "-o", ",".join(("loop", *options)), str(image), str(point)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"it cannot be mounted here: {done.stderr.strip()}")
        self.points.append(point)
        return point

    def bind(self, source: Path, place: str) -> Path:
        point = self.base / place
        point.mkdir(exist_ok=True, parents=True)
        subprocess.run(["mount", "--bind", str(source), str(point)], check=True)
        self.points.append(point)
        return point

    def unplug(self, point: Path) -> bool:
        """Unmount as a person does; whether it worked."""
        return subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0

    def pull(self, point: Path) -> None:
        """Gone, whoever uses it."""
        subprocess.run(["umount", "-l", str(point)], check=True)

    def is_plugged(self, point: Path) -> bool:
        return str(point) in mountpoints()

    def close(self) -> None:
        for point in reversed(self.points):
            while self.is_plugged(point):
                subprocess.run(["umount", "-l", str(point)], check=True, capture_output=True)


def open_at(pid: int, place: Path) -> list[str]:
    """What a process holds open at or below a place."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target == str(place) or target.startswith(f"{place}/"):
            found.append(target)
    return found
