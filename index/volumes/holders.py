"""Who keeps a volume: processes with something open on it, standing in it or running from it; and who has it mounted.

In: the places where it is mounted. Out: `Holder`s, one a process, with what each holds. Read from the links in /proc,
as text: no file of the volume is touched. A process of somebody else shows nothing to who is not root; processes with
mounts of their own are seen where their paths are called alike.

Source: proc(5), mount_namespaces(7).
"""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from index.scan.mounts import Mount, every_mount, is_within

_LINKS = (b"cwd", b"root", b"exe")
#: Mount namespaces that are looked into: a machine with containers has hundreds.
_NAMESPACES = 2000


class Holder(NamedTuple):
    pid: int
    program: str
    path: bytes  # one of the things it holds


def holders(places: list[bytes]) -> list[Holder]:
    """The processes that hold something below any of the places, by pid."""
    found = []
    for name in os.listdir(b"/proc"):
        if name.isdigit():
            path = next(iter(held_by(int(name), places)), None)
            if path is not None:
                found.append(Holder(int(name), _program(int(name)), path))
    return sorted(found)


def held_by(pid: int, places: list[bytes]) -> list[bytes]:
    """What one process holds below the places."""
    base = b"/proc/%d/" % pid
    links = [base + link for link in _LINKS]
    with contextlib.suppress(OSError):
        links += [base + b"fd/" + fd for fd in os.listdir(base + b"fd")]
    paths = []
    for link in links:
        with contextlib.suppress(OSError):
            paths.append(os.readlink(link))
    with contextlib.suppress(OSError), open(base + b"maps", "rb") as maps:
        paths += [fields[5].strip() for line in maps if len(fields := line.split(None, 5)) == 6]
    return [path for path in paths if any(is_within(path, place) for place in places)]


def images_on(places: list[bytes], sys: Path = Path("/sys")) -> list[Path]:
    """The loop devices whose files lie below the places: such a file is held by the kernel."""
    found = []
    for file in sorted(sys.glob("block/loop*/loop/backing_file")):
        with contextlib.suppress(OSError):
            if any(is_within(file.read_bytes().rstrip(b"\n"), place) for place in places):
                found.append(Path("/dev") / file.parent.parent.name)
    return found


def mounted_below(places: list[bytes], table: list[Mount], device: str) -> list[bytes]:
    """Where other file systems are mounted on top of a volume."""
    return [
        mount.mount_point
        for mount in table
        if mount.device != device and any(is_within(mount.mount_point, place) for place in places)
    ]


def still_mounted(device: str, fs_type: str) -> list[Holder]:
    """Where a file system is mounted, seen or hidden, in any mount namespace: each place by a process that has it.

    This process comes first. One process speaks for all that have its namespace and its root; who may not be looked
    at is passed over.
    """
    found: list[Holder] = []
    known: set[tuple[bytes, bytes]] = set()
    others = sorted(int(name) for name in os.listdir(b"/proc") if name.isdigit())
    for pid in (os.getpid(), *others):
        try:
            namespace = os.readlink(b"/proc/%d/ns/mnt" % pid), os.readlink(b"/proc/%d/root" % pid)
            if namespace in known:
                continue
            table = every_mount(pid)
        except OSError:
            continue
        places = [mount.mount_point for mount in table if (mount.device, mount.fs_type) == (device, fs_type)]
        found += [Holder(pid, _program(pid), place) for place in places]
        known.add(namespace)
        if len(known) == _NAMESPACES:
            break
    return found


def _program(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as comm:
        return os.fsdecode(comm.read()).strip()
    return "?"
