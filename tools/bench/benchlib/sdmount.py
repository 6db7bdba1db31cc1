"""Our own mount, driven through its three commands exactly as a person would drive it.

Nothing is imported from the packages: what is measured is the product with its start, its client and its
process, and these programs go on working whatever moves inside. Each run has a library and a state
directory of its own; the user's library is never touched.
"""

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .processes import Failed, Finished, run
from .workspace import is_mounted, unmount

COMMANDS = Path(__file__).resolve().parents[2]  # tools/ of this checkout
START_LIMIT_S = 600.0  # the first start on a fresh machine installs what is missing
STOP_LIMIT_S = 60.0
LOOK_S = 0.05


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process now and at its highest."""

    now_bytes: int
    peak_bytes: int


class Sdmount:
    """One library with one mountpoint, both inside `home`."""

    def __init__(self, home: Path, commands: Path = COMMANDS) -> None:
        self.mount_point = home / "mnt"
        self.data_directory = home / "data"
        self._commands = commands
        self._runtime = home / "run"  # one each: two devices of a library would have one socket
        self._environment = {
            **os.environ, "XDG_STATE_HOME": str(home / "state"), "XDG_RUNTIME_DIR": str(self._runtime)
        }  # fmt: skip
        self._pid: int | None = None
        self._started: str | None = None

    def missing(self) -> str | None:
        """Why nothing can be measured, or None."""
        names = ("sdmount", "sdumount", "sd")
        absent = [name for name in names if not os.access(self._commands / name, os.X_OK)]
        return f"no {', '.join(absent)} in {self._commands}" if absent else None

    def mount(self, *locations: Path) -> float:
        """Mount and return the seconds until the mount answered."""
        for directory in (self.mount_point, self.data_directory, self._runtime):
            directory.mkdir(parents=True, exist_ok=True)
        self._runtime.chmod(0o700)
        finished = self._run(
            "sdmount", "--data-dir", self.data_directory, self.mount_point, *locations, limit_s=START_LIMIT_S
        )
        if not is_mounted(self.mount_point):
            raise Failed(f"sdmount returned and {self.mount_point} is not mounted")
        pid = self.status().get("pid")
        if not isinstance(pid, int):
            raise Failed("sd status --json tells no pid")
        self._pid, self._started = pid, _start_of(pid)
        return finished.seconds

    def unmount(self) -> None:
        """End it by its own command, and make sure that the process is gone."""
        try:
            if is_mounted(self.mount_point):
                self._run("sdumount", self.mount_point, limit_s=STOP_LIMIT_S)
        finally:
            unmount(self.mount_point)
            self._end_process()

    def sd(self, *arguments: str | Path, limit_s: float = START_LIMIT_S) -> Finished:
        """One `sd` command; Failed with its own words when it refuses."""
        return self._run("sd", "--data-dir", self.data_directory, *arguments, limit_s=limit_s)

    def begin_sd(self, *arguments: str) -> subprocess.Popen[str]:
        """An `sd` command that goes on; whoever began it ends it."""
        return subprocess.Popen(
            [str(self._commands / "sd"), "--data-dir", str(self.data_directory), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=self._environment, start_new_session=True,
        )  # fmt: skip

    def told(self, *arguments: str) -> dict[str, Any]:
        """What an `sd` command answers with --json."""
        answer = json.loads(self.sd("--json", *arguments).out)
        if not isinstance(answer, dict):
            raise Failed(f"sd {' '.join(arguments)} --json printed no object")
        return answer

    def status(self) -> dict[str, Any]:
        """What `sd status --json` tells."""
        answer = json.loads(self.sd("status", "--json").out)
        if not isinstance(answer, dict):
            raise Failed("sd status --json printed no object")
        return answer

    def wait_idle(self, limit_s: float) -> None:
        """Return once nothing is left to index."""
        self.sd("status", "--wait-idle", "--timeout", f"{limit_s:.0f}", limit_s=limit_s + STOP_LIMIT_S)

    def follow(self, limit_s: float) -> Iterator[dict[str, Any]]:
        """The state of the scan, again and again until nothing is left to index.

        Read from a file in the mount, which costs the process next to nothing and sees the end within 50 ms.
        The client looks the less often the longer it waits, and is only asked when the mount does not tell.
        """
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            status = self._told()
            if status is None:
                self.wait_idle(limit_s)
                return
            yield status
            if status["idle"]:
                return
            time.sleep(LOOK_S)
        raise Failed(f"not idle within {limit_s:.0f} s")

    def _told(self) -> dict[str, Any] | None:
        """What `.vdfs/status.json` says; None when that is not whether anything is left to do."""
        try:
            status = json.loads((self.mount_point / ".vdfs" / "status.json").read_bytes())
        except (OSError, ValueError):
            return None
        return status if isinstance(status, dict) and "idle" in status else None

    @property
    def pids(self) -> list[int]:
        """The process that serves the mount."""
        return [self._pid] if self._pid is not None else []

    def memory(self) -> Memory:
        """Resident memory of the process that serves the mount (its short-lived workers are not in it)."""
        assert self._pid is not None
        figures = {
            key: int(value.split()[0]) << 10
            for key, _, value in (
                line.partition(":") for line in Path(f"/proc/{self._pid}/status").read_text().splitlines()
            )
            if key in {"VmRSS", "VmHWM"}
        }
        return Memory(now_bytes=figures["VmRSS"], peak_bytes=figures["VmHWM"])

    def own_bytes(self) -> int:
        """What the mount's process holds for itself alone just now: without the pages of files that it maps, which the
        system may take back."""
        assert self._pid is not None
        return _kibibytes_of(self._pid, "RssAnon") << 10

    def workers_peak_bytes(self) -> int:
        """The highest resident memory so far of one of the processes that work for the mount's."""
        assert self._pid is not None
        return max((_kibibytes_of(pid, "VmHWM") << 10 for pid in _below(self._pid)), default=0)

    def processor_s(self) -> float:
        """Processor time so far of the mount's process and all that work or worked for it."""
        assert self._pid is not None
        return processor_of(self._pid)

    def server_s(self) -> float:
        """Processor time so far of the mount's process alone."""
        return _ticks_of(self._known(), children=False) / os.sysconf("SC_CLK_TCK")

    def wake_ups(self) -> dict[str, int]:
        """How often each thread of the mount's process has given the processor up to wait, so far."""
        found = {}
        for task in Path(f"/proc/{self._known()}/task").iterdir():
            with suppress(OSError):  # it has ended
                lines = (task / "status").read_text().splitlines()
                counted = (line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches:"))
                found[task.name] = sum(map(int, counted))
        return found

    def forget_peak(self) -> None:
        """The highest memory from here on (proc(5), clear_refs); where the kernel refuses it stays that of before."""
        try:
            Path(f"/proc/{self._known()}/clear_refs").write_text("5")
        except OSError:
            return

    def _known(self) -> int:
        assert self._pid is not None
        return self._pid

    def parts_of_newest(self) -> dict[str, float]:
        """Seconds that the phases of the newest job `index` took, by their kind."""
        told = json.loads(self.sd("job", "list", "--json").out)["jobs"]
        newest = max((one for one in told if one["job"]["kind"] == "index"), key=lambda one: int(one["job"]["id"]))
        return {part["kind"]: float(part["worked_s"]) for part in newest["parts"]}

    def is_indexing(self) -> bool:
        """Whether a job `index` runs."""
        told = json.loads(self.sd("job", "list", "--json").out)["jobs"]
        return any(one["job"]["kind"] == "index" and one["job"]["status"] == "running" for one in told)

    def names_indexed(self) -> bool:
        """Whether every name of the library is in its index of names; both files are read as they lie."""
        library = self.library()
        try:
            with closing(sqlite3.connect(f"file:{library}?mode=ro", uri=True)) as db:
                (newest,) = db.execute("SELECT max(id) FROM entry").fetchone()
            with closing(sqlite3.connect(f"file:{library.with_name('search.db')}?mode=ro", uri=True)) as db:
                (indexed,) = db.execute("SELECT indexed_id FROM state").fetchone()
        except (sqlite3.Error, TypeError):
            return False
        return bool(indexed >= newest)

    def is_behind(self, entries: int) -> bool:
        """Whether the library knows fewer entries than there are."""
        try:
            with closing(sqlite3.connect(f"file:{self.library()}?mode=ro", uri=True)) as db:
                (known,) = db.execute("SELECT count(*) FROM entry").fetchone()
        except sqlite3.Error:
            return True
        return bool(known < entries)

    def library(self) -> Path:
        """The file of its database."""
        (library,) = self.data_directory.rglob("library.db")
        return library

    def database_bytes(self, name: str = "*.db") -> int:
        """Bytes of every SQLite file of the library, or of those called so; write-ahead logs included."""
        files = [*self.data_directory.rglob(name), *self.data_directory.rglob(f"{name}-wal")]
        return sum(file.stat().st_size for file in files)

    def _run(self, command: str, *arguments: str | Path, limit_s: float) -> Finished:
        finished = run(
            [str(self._commands / command), *map(str, arguments)],
            deadline_s=limit_s,
            environment=self._environment,
        )
        if finished.code != 0:
            raise Failed(f"{command}: {finished.reason()}")
        return finished

    def _end_process(self) -> None:
        """Wait for the process to go; end it when it stays, having made sure that the id is still its."""
        pid, self._pid = self._pid, None
        if pid is None:
            return
        for number, patience_s in ((0, STOP_LIMIT_S), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            if number and self._is_ours(pid):
                os.kill(pid, number)
            deadline = time.monotonic() + patience_s
            while self._is_ours(pid):
                if time.monotonic() > deadline:
                    break
                time.sleep(LOOK_S)
            else:
                return
        raise Failed(f"process {pid} of the mount does not end")

    def _is_ours(self, pid: int) -> bool:
        return self._started is not None and _start_of(pid) == self._started


def processor_of(pid: int) -> float:
    """Processor time so far of a process, and of all that work or worked for it."""
    return sum(_ticks_of(one) for one in (pid, *_below(pid))) / os.sysconf("SC_CLK_TCK")


def _start_of(pid: int) -> str | None:
    """When a process began, which tells it from a later one with the same id; None once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _below(pid: int) -> list[int]:
    """The processes that one started, and that these started."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        fields = _stat_of(int(process.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(process.name))
    below = list(children.get(pid, ()))
    for one in below:
        below.extend(children.get(one, ()))
    return below


def _stat_of(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat behind the name: state, parent, …"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _ticks_of(pid: int, *, children: bool = True) -> int:
    """utime, stime, and those of children that ended: fields 14 to 17 counted from the pid."""
    fields = _stat_of(pid)
    return 0 if fields is None else sum(map(int, fields[11 : 15 if children else 13]))


def _kibibytes_of(pid: int, key: str) -> int:
    """A figure of a process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)
