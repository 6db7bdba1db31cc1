"""Find out, by trying, what this tree and this user cannot offer, so that checks skip with a true reason.

In: the working directory of the run. Out: the ``Env`` every check gets. Only what POSIX or Linux leaves to
the file system, the mount options or the user's rights is probed; what every file system owes is required.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import kit


def probe(work: Path) -> kit.Env:
    """Try each feature in a child; none leaves anything behind."""
    is_root = os.geteuid() == 0
    missing: dict[str, str] = {}
    probes: dict[str, Callable[[Path], None]] = {
        "other_uids": _probe_other_uids,
        "devices": _probe_devices,
        "xattr": _probe_xattr,
        "xattr_64k": _probe_big_xattr,
        "symlink_4095": _probe_long_symlink,
        "atime": _probe_atime,
        "exec": _probe_exec,
    }
    for feature, attempt in probes.items():
        place = Path(tempfile.mkdtemp(prefix="probe-", dir=work))
        place.chmod(0o755)
        try:
            kit.spawn(lambda attempt=attempt, place=place: attempt(place)).result()  # type: ignore[misc]
        except (OSError, AssertionError, kit.Skipped) as error:
            missing[feature] = str(error)
        kit.sweep(place)
    return kit.Env(is_root, missing)


def _probe_other_uids(place: Path) -> None:
    if os.geteuid() != 0:
        raise kit.Skipped("only root can act as other users")
    try:
        os.setgroups([])
        os.setresgid(kit.OTHER, kit.OTHER, kit.OTHER)
        os.setresuid(kit.OTHER, kit.OTHER, kit.OTHER)
        os.listdir(place)
    except OSError as error:
        raise kit.Skipped(f"the tree does not admit other users ({kit.errno_name(error)})") from None


def _probe_devices(place: Path) -> None:
    try:
        os.mknod(place / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except OSError as error:
        raise kit.Skipped(f"device nodes cannot be made here ({kit.errno_name(error)})") from None


def _probe_xattr(place: Path) -> None:
    try:
        os.setxattr(place, b"user.probe", b"1")
    except OSError as error:
        raise kit.Skipped(f"no user attributes here ({kit.errno_name(error)})") from None


def _probe_big_xattr(place: Path) -> None:
    try:
        os.setxattr(place, b"user.probe", bytes(65_536))
    except OSError as error:
        raise kit.Skipped(f"an attribute of 64 KiB does not fit here ({kit.errno_name(error)})") from None


def _probe_long_symlink(place: Path) -> None:
    try:
        os.symlink("x" * 4095, place / "link")
    except OSError as error:
        raise kit.Skipped(f"symlinks of 4095 bytes cannot be made here ({kit.errno_name(error)})") from None


def _probe_atime(place: Path) -> None:
    if os.statvfs(place).f_flag & os.ST_NOATIME:
        raise kit.Skipped("mounted noatime")


def _probe_exec(place: Path) -> None:
    if os.statvfs(place).f_flag & os.ST_NOEXEC:
        raise kit.Skipped("mounted noexec")
