"""What the figures were taken on, and the kernel's caches.

A ratio is only worth something beside the machine, the versions and the load it was taken under, so every
report begins with `describe()`.

Cold means that the kernel has forgotten while the file systems' own processes stay up. Root drops the
caches for the whole machine (`drop_caches`): level 2 forgets names and inodes (and with them the pages of
files of one page), level 3 the page cache too. Without root nothing can be dropped: the caller remounts
instead, which empties the mount's caches and leaves those beneath it warm, and the report says so.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

NAMES_AND_INODES = 2
EVERYTHING = 3
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
QUIET_LOOK_S = 0.06  # a clock tick of /proc/PID/stat is 10 ms
QUIET_LIMIT_S = 5.0


def can_drop_caches() -> bool:
    """Whether this process may empty the kernel's caches (tried, not guessed: containers often say no)."""
    try:
        DROP_CACHES.write_text(f"{NAMES_AND_INODES}\n")
    except OSError:
        return False
    return True


def drop_caches(level: int) -> None:
    """Make the kernel forget; only clean pages can go, so whoever wrote data syncs first."""
    DROP_CACHES.write_text(f"{level}\n")


def wait_until_quiet(pids: Iterable[int]) -> None:
    """Return once none of these processes uses the processor.

    Dropping caches sends a FORGET for every inode to the daemons: 50 000 of them are still being worked off
    when the next measurement starts, on a machine with two cores.
    """
    watched = list(pids)
    deadline = time.monotonic() + QUIET_LIMIT_S
    before = [_processor_ticks(pid) for pid in watched]
    while time.monotonic() < deadline:
        time.sleep(QUIET_LOOK_S)
        now = [_processor_ticks(pid) for pid in watched]
        if now == before:
            return
        before = now


def _processor_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # utime, stime: fields 14 and 15 counted from the pid


def describe() -> str:
    """Machine, kernel and load in one sentence."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = " ".join(f"{figure:.2f}" for figure in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory_bytes / 2**30:.0f} GiB memory, load {load}; "
        f"Linux {platform.release()}, Python {platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Processor"}:
            return value.strip()
    return platform.machine()


def version(program: str, argument: str = "--version") -> str | None:
    """The first line a program prints about itself, or None when it is not installed."""
    if shutil.which(program) is None:
        return None
    told = subprocess.run([program, argument], capture_output=True, text=True, check=False, timeout=30)
    lines = (told.stdout or told.stderr).strip().splitlines()
    return lines[0].strip() if lines else "(no version told)"


def file_system_of(path: Path) -> str:
    """Type of the file system a path lies on, from mountinfo (the deepest mount point above it)."""
    best, kind = "", "?"
    real = str(path.resolve())
    for mount_point, file_system in mounts():
        inside = real == mount_point or real.startswith(mount_point.rstrip("/") + "/")
        if inside and len(mount_point) >= len(best):
            best, kind = mount_point, file_system
    return kind


def mounts() -> list[tuple[str, str]]:
    """Mount point and file system type of every mount, in the order they were made."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        mount_point = left.split()[4]
        for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
            mount_point = mount_point.replace(escape, character)
        found.append((mount_point, right.split()[0]))
    return found
