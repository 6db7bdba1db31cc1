"""The file systems under comparison: each shows the same directories under another path.

Three directories are shown (`Shares`): `disk` with everything that is only read, the same for all;
`scratch` on the disk and `storm` in memory, one of each per file system, so that what one of them writes
does not wake the watcher of another while a third is being measured.

Peers are mounted one process per directory, in the foreground as our children, with the options their manuals
give. A peer that is missing or refuses is skipped with its reason; ours may only be missing.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import machine
from .processes import Failed, end, wait
from .sdmount import Sdmount
from .workspace import is_mounted, unmount

MOUNT_LIMIT_S = 20.0
LOOK_S = 0.02
DAY_S = 86_400
# Every cache mergerfs 2.33 has, for as long as a day. Not the writeback cache: none of the others has it.
MERGERFS_CACHES = (
    f"cache.files=auto-full,cache.readdir=true,cache.attr={DAY_S},cache.entry={DAY_S},cache.negative_entry={DAY_S},"
    f"cache.symlinks=true,cache.statfs={DAY_S},cache.open={DAY_S}"
)
# Without it mergerfs refuses to create files where less than 4 GiB are free.
MERGERFS_BASE = "minfreespace=0"


@dataclass(frozen=True)
class Shares:
    """The directories a file system has to show, or under which it shows them."""

    disk: Path
    scratch: Path
    storm: Path


class FileSystem:
    """Native: the directories themselves. The others inherit what is the same."""

    name = "native"
    about = "the directories themselves"

    def __init__(self, shares: Shares) -> None:
        self.source = shares
        self.shown = shares

    def missing(self) -> str | None:
        """Why it cannot be measured on this machine, or None."""
        return None

    def mount(self) -> None:
        """Show the shares; Failed with the reason when it cannot."""

    def unmount(self) -> None:
        """Take everything back; harmless when nothing is mounted."""

    def settle(self) -> None:
        """Return when what was written no longer keeps it busy."""

    @property
    def pids(self) -> list[int]:
        """The processes that serve it."""
        return []


class Peer(FileSystem):
    """A FUSE program that shows one directory under one mountpoint and stays in the foreground."""

    def __init__(
        self, name: str, command: Callable[[Path, Path], list[str]], about: str, shares: Shares, home: Path
    ) -> None:
        super().__init__(shares)
        self.name = name
        self.about = about
        self._command = command
        self._home = home
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.shown = Shares(home / "disk", home / "scratch", home / "storm")

    def missing(self) -> str | None:
        program = self._command(Path("/"), Path("/"))[0]
        if shutil.which(program) is None:
            return f"{program} is not installed"
        return None if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse cannot be opened"

    def mount(self) -> None:
        pairs = zip(vars(self.source).values(), vars(self.shown).values(), strict=True)
        for source, mount_point in pairs:
            mount_point.mkdir(parents=True, exist_ok=True)
            log = self._home / "log"
            with log.open("ab") as output:
                daemon = subprocess.Popen(
                    self._command(source, mount_point),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            self._daemons.append(daemon)
            deadline = time.monotonic() + MOUNT_LIMIT_S
            while not is_mounted(mount_point):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    said = " ".join(log.read_text(errors="replace").split()[-30:])
                    raise Failed(said or "it does not mount")
                time.sleep(LOOK_S)

    def unmount(self) -> None:
        for mount_point in vars(self.shown).values():
            unmount(mount_point)
        for daemon in self._daemons:
            try:
                wait(daemon, MOUNT_LIMIT_S)
            except Failed:
                end(daemon)
        self._daemons.clear()

    @property
    def pids(self) -> list[int]:
        return [daemon.pid for daemon in self._daemons]


class Ours(FileSystem):
    """sdmount with three locations in one mount; each appears under its own name."""

    name = "sdmount"
    about = "its defaults"

    def __init__(self, shares: Shares, home: Path, commands: Path, limit_s: float) -> None:
        super().__init__(shares)
        self.product = Sdmount(home, commands)
        self._limit_s = limit_s
        top = self.product.mount_point
        self.shown = Shares(*(top / share.name for share in vars(shares).values()))

    def missing(self) -> str | None:
        return self.product.missing()

    def mount(self) -> None:
        self.product.mount(*vars(self.source).values())
        self.settle()

    def unmount(self) -> None:
        self.product.unmount()

    def settle(self) -> None:
        self.product.wait_idle(self._limit_s)

    @property
    def pids(self) -> list[int]:
        return self.product.pids


NAMES = ("native", "sdmount", "pyfuse3", "mergerfs", "mergerfs+", "bindfs", "rclone")


def assemble(
    wanted: tuple[str, ...], *, homes: Path, shares_of: Mapping[str, Shares], commands: Path, limit_s: float
) -> list[FileSystem]:
    """The wanted file systems in the order of the table; `shares_of` tells what each has to show."""
    cache = homes / "rclone" / "cache"
    python = Path(os.environ.get("SDMOUNT_VENV", commands.parent / ".venv")) / "bin" / "python"
    peers: dict[str, tuple[Callable[[Path, Path], list[str]], str]] = {
        "pyfuse3": (
            lambda source, target: [str(python), str(Path(__file__).with_name("floor.py")), str(source), str(target)],
            "a directory kept in memory with every answer prepared: the least that pyfuse3 can cost",
        ),
        "mergerfs": (
            lambda source, target: ["mergerfs", "-f", "-o", MERGERFS_BASE, str(source), str(target)],
            "its defaults",
        ),
        "mergerfs+": (
            lambda source, target: [
                "mergerfs", "-f", "-o", f"{MERGERFS_BASE},{MERGERFS_CACHES}", str(source), str(target)
            ],
            MERGERFS_CACHES.replace(",", ", "),
        ),
        "bindfs": (lambda source, target: ["bindfs", "-f", str(source), str(target)], "its defaults"),
        "rclone": (
            lambda source, target: [
                "rclone", "mount", "--config", os.devnull, "--vfs-cache-mode", "full",
                "--cache-dir", str(cache), "--dir-cache-time", "24h", str(source), str(target),
            ],
            "--vfs-cache-mode full --dir-cache-time 24h; shows no symlinks, has no xattrs",
        ),
    }  # fmt: skip
    made: list[FileSystem] = []
    for name in NAMES:
        if name not in wanted:
            continue
        shares = shares_of[name]
        if name == "native":
            made.append(FileSystem(shares))
        elif name == "sdmount":
            made.append(Ours(shares, homes / name, commands, limit_s))
        else:
            made.append(Peer(name, *peers[name], shares, homes / name))
    return made


def versions() -> list[str]:
    """Installed versions of the programs that were measured or used to measure."""
    asked = {"bindfs": "-V", "rclone": "version"}
    programs = ("mergerfs", "bindfs", "rclone", "find", "ls", "tar", "grep")
    told = [machine.version(program, asked.get(program, "--version")) for program in programs]
    return [text for text in told if text]
