"""One library under test, from outside: its directories, its mount, its programs, and a certain end.

The tests in this room are a user with a shell. They see the programs (`sdmount`, `sdumount`, `sd`), the mount, the
branches behind it, and what the documents say of the data directory; never the packages. All calls on the mount
are made by the test's process or its children, never by the one that serves it.

In: an empty directory. Invariant: `close()` leaves no mount and no process, whatever happened before, and tells
what was wrong: a traceback in the log of the server is a failure of the test that caused it.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

LIBRARY = "Library"
# How late a change behind the mount may show.
LAG_S = 1.0
# How long a program of ours may take on a busy machine before it counts as hung.
PROGRAM_S = 60.0
LOOK_S = 0.01
#: How many times longer than on an idle machine something is waited for.
PATIENCE = 4
# Whom tests become that need somebody who is not root; `nobody` by number, as its name differs between systems.
NOBODY = 65534


class Mounted:
    """One library with its mountpoint and its directories; not mounted until `mount()`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.data = base / "data"
        self.mnt = base / "mnt"
        self.disk = base / "disk"
        self.runtime = base / "run"
        for directory in (self.disk, self.runtime):
            directory.mkdir()
        self.runtime.chmod(0o700)
        self.servers: set[int] = set()
        self.extra_mounts: list[Path] = []
        #: What a program is started by, where that is another machine of a laboratory.
        self.inside: list[str] = []
        # A test that makes the server complain on purpose says so.
        self.may_complain = False

    # programs ---------------------------------------------------------------------------------------------------------

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "SDMOUNT_D"))}
        env["XDG_RUNTIME_DIR"] = str(self.runtime)
        env["HOME"] = str(self.base)
        return {**env, **(extra or {})}

    def run(
        self, module: str, *arguments: str | Path, check: bool = False, env: Mapping[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """A program of ours by its module, as a user would start it: elsewhere, without a terminal."""
        done = subprocess.run(
            [*self.inside, sys.executable, "-m", module, *map(str, arguments)],
            capture_output=True, text=True, errors="surrogateescape", check=False, timeout=PROGRAM_S,
            stdin=subprocess.DEVNULL, cwd="/", env=self.environment(env),
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        if check:
            assert done.returncode == 0, f"{module} {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def sdmount(
        self, *locations: str | Path, mountpoint: Path | None = None, options: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> "subprocess.CompletedProcess[str]":  # fmt: skip
        """`sdmount`, whatever comes of it."""
        chosen = () if env and "SDMOUNT_DATA_DIR" in env else ("--data-dir", self.data)
        try:
            return self.run("fusefs.sdmount", *chosen, *options, "--", mountpoint or self.mnt, *locations, env=env)
        finally:
            if (holder := self.holder()) is not None:
                self.servers.add(int(holder["pid"]))

    def mount(self, *locations: str | Path, options: tuple[str, ...] = ()) -> "Mounted":
        """Mount, and fail if that does not work at once and in silence."""
        done = self.sdmount(*locations, options=options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), f"{done}\n{self.log()}"
        return self

    def unmount(self) -> None:
        self.run("fusefs.sdumount", "--data-dir", self.data, self.mnt, check=True)

    def remount(self, *, options: tuple[str, ...] = ()) -> None:
        self.unmount()
        self.mount(options=options)

    def kill(self) -> int:
        """SIGKILL the server; returns when it is gone, with its pid. The mountpoint stays behind, dead."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: gone(pid), "a killed server ends", 20)
        return pid

    def sd(self, *arguments: str | Path, check: bool = True) -> str:
        """What `sd` prints."""
        return self.run("vdfs.cli", "--data-dir", self.data, *arguments, check=check).stdout

    def sd_json(self, *arguments: str | Path) -> Any:
        return json.loads(self.sd("--json", *arguments))

    def sd_fails(self, *arguments: str | Path, code: int | tuple[int, ...] = (1, 2)) -> str:
        """The one line on stderr of a command that must end with such an exit code."""
        done = self.run("vdfs.cli", "--data-dir", self.data, *arguments)
        codes = (code,) if isinstance(code, int) else code
        assert done.returncode in codes, f"sd {arguments}: exit {done.returncode}, not {code}: {done}"
        return one_line(done.stderr, "sd: ")

    def call(self, method: str, params: Mapping[str, Any], timeout_s: float = PROGRAM_S) -> Any:
        """The result of one call on the socket of the running process, as a script makes it (rpc-v1.md): a program
        costs a hundred times as much to start. TimeoutError when there is no answer in time."""
        holder = self.holder()
        assert holder is not None, f"no server holds the library\n{self.log()}"
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": dict(params)}
        directory, name = os.path.split(holder["socket"])
        with socket.socket(socket.AF_UNIX) as connection, opened_directory(directory) as fd:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/self/fd/{fd}/{name}")  # an address is short, a path need not be
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline())
        assert "result" in answer, answer
        return answer["result"]

    @property
    def takes_calls(self) -> bool:
        """Whether there is a process to call, and its socket is to be seen from here."""
        holder = self.holder()
        return holder is not None and holder["socket"] is not None and os.path.exists(holder["socket"])

    def told(self, noun: str, verb: str) -> Any:
        """What `sd --json NOUN VERB` prints, asked without it where that can be."""
        return self.call(f"query:{noun}.{verb}", {}) if self.takes_calls else self.sd_json(noun, verb)

    def idle_within(self, within_s: float) -> dict[str, Any] | None:
        """Wait until nothing is left to index; None, or after so long what is left. TimeoutError without an answer."""
        until_s = time.monotonic() + within_s
        while True:
            left_s = max(until_s - time.monotonic(), 0.01)
            scan = self.call("query:core.status", {"wait_idle_s": min(left_s, 20.0)})["scan"]
            if scan["idle"]:
                return None
            if time.monotonic() > until_s:
                return dict(scan)

    def wait_idle(self) -> None:
        if not self.takes_calls:
            self.sd("status", "--wait-idle", "--timeout", "60")
        else:
            left = self.idle_within(60)
            assert left is None, f"not idle: {left}\n{self.log()}"

    def settle(self) -> None:
        """What was done behind the mount is taken in, and files have their hash, which waits for a second of quiet."""
        time.sleep(1.3)
        self.wait_idle()

    def verify(self, *arguments: str) -> None:
        """The index agrees with the disk, once what was heard by now is taken in."""
        self.wait_idle()
        done = self.run("vdfs.cli", "--data-dir", self.data, "index", "verify", *arguments)
        assert done.returncode == 0, f"index verify: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}"

    def add(self, directory: Path, name: str | None = None) -> Path:
        """`sd location add`; returns where it is shown."""
        named = () if name is None else ("--name", name)
        self.sd("location", "add", directory, *named)
        return self.mnt / (name or directory.name)

    def folder(self, *names: str) -> Path:
        """A new real directory to be shown."""
        path = self.disk.joinpath(*names)
        path.mkdir(parents=True)
        return path

    # what can be seen of it ------------------------------------------------------------------------------------------

    @property
    def library_dir(self) -> Path:
        return self.data / "libraries" / f"{LIBRARY}.sdlibrary"

    @property
    def pid(self) -> int:
        holder = self.holder()
        assert holder is not None, f"no server holds the library\n{self.log()}"
        return int(holder["pid"])

    def holder(self) -> dict[str, Any] | None:
        """The note in the lock file while the lock is held, else None (the protocol document says how)."""
        try:
            fd = os.open(self.library_dir / "lock", os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return dict(json.loads(os.pread(fd, 1 << 16, 0)))
            except ValueError:
                return None
        else:
            return None
        finally:
            os.close(fd)

    @property
    def workers(self) -> list[int]:
        return children(self.pid)

    def log(self) -> str:
        logs = sorted((self.data / "state").glob("*.log"))
        return "".join(f"--- {path.name}\n{path.read_text(errors='replace')}" for path in logs)

    def is_mounted(self, path: Path | None = None) -> bool:
        return str(path or self.mnt) in mountpoints()

    # the end ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End everything; AssertionError when the server complained that a request failed."""
        for path in reversed([self.mnt, *self.extra_mounts]):
            if self.is_mounted(path) and not is_dead(path):
                self.run("fusefs.sdumount", "--data-dir", self.data, "--lazy", path)
        doomed = [pid for server in self.servers for pid in (server, *children(server))]
        for server in self.servers:
            if not _ends_by(server, 3.0) and has_other_mount_namespaces() and self._is_ours(server):
                os.kill(server, signal.SIGTERM)  # a container may have a copy of the mount, which keeps it alive
        late = {pid: what_it_does(pid) for pid in doomed if not _ends_by(pid, 10.0)}
        for pid in late:
            if self._is_ours(pid):
                os.kill(pid, signal.SIGKILL)
        for path in reversed([self.mnt, *self.extra_mounts]):
            while self.is_mounted(path):
                detach(path)
        log = self.log()
        for directory in (self.disk, self.data):
            shutil.rmtree(directory, ignore_errors=True)
        if not self.may_complain:
            doing = "".join(f"\n{pid}: {doing}" for pid, doing in late.items())
            assert not late, f"processes did not end with their mount:{doing}\n{log}"
            assert "Traceback" not in log, f"the server failed in a request\n{log}"

    def _is_ours(self, pid: int) -> bool:
        """Whether a pid still is what it was: servers and workers have the data directory on their command line."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            return b"fusefs" in words or b"index.scan" in words
        except OSError:
            return False


@contextlib.contextmanager
def opened_directory(path: str | Path) -> Iterator[int]:
    """A descriptor of a directory, to go on from."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


# processes and mounts -------------------------------------------------------------------------------------------------


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def what_it_does(pid: int) -> str:
    """For a failure's message: where its threads wait, and what it has open."""
    found = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        for name in ("wchan", "stack"):
            try:
                found.append(f"{task.name} {name}: {(task / name).read_text()}")
            except OSError:
                continue
    for fd in sorted(Path(f"/proc/{pid}/fd").glob("*"), key=lambda path: int(path.name)):
        try:
            found.append(f"{fd.name} -> {os.readlink(fd)}")
        except OSError:
            continue
    return "\n".join(found)


def messengers(server: int) -> list[int]:
    """The processes that speak to the kernel for a server, by the pipe that ends with it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"fusefs.messenger" in (entry / "cmdline").read_bytes() and int(
                (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            ) in (server, 1):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def children(pid: int) -> list[int]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:
            continue
    return found


def _ends_by(pid: int, wait_s: float) -> bool:
    until_s = time.monotonic() + wait_s
    while not gone(pid):
        if time.monotonic() > until_s:
            return False
        time.sleep(LOOK_S)
    return True


def has_other_mount_namespaces() -> bool:
    """Whether there are processes with mounts of their own: which, cannot be seen from here."""
    ours = os.readlink("/proc/self/ns/mnt")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe") and os.readlink(f"/proc/{pid}/ns/mnt") != ours:
                return True
        except OSError:  # it has ended, is the kernel's own and has no program, or cannot be asked
            continue
    return False


def mountpoints() -> list[str]:
    """All mountpoints in mount order, by text alone: no path is touched."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        point = line.split(b" ")[4]
        for char in b" \t\n\\":
            point = point.replace(b"\\%03o" % char, bytes([char]))
        found.append(os.fsdecode(point))
    return found


def is_dead(path: Path) -> bool:
    """Whether the server behind a mountpoint is gone."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno in (107, 103)  # ENOTCONN, ECONNABORTED
    return False


def detach(path: Path) -> None:
    command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
    subprocess.run([*command, str(path)], check=True, capture_output=True)


# somebody else -------------------------------------------------------------------------------------------------------

# Run in a mount namespace of its own: the way to the interpreter and to the checkout is opened for everybody by
# hiding each closed directory on it under a tmpfs that holds only what is needed, and /dev/fuse for everybody is put
# over the real one. Nothing of this is seen outside.
_OPEN_THE_WAY = """
import os, subprocess, sys
uid, scratch, *rest = sys.argv[1:]
wanted, command = rest[:rest.index("--")], rest[rest.index("--") + 1:]
run = lambda *words: subprocess.run(words, check=True)
run("mount", "-t", "tmpfs", "-o", "mode=755", "none", scratch)
for line in reversed(open("/proc/self/mountinfo").read().splitlines()):
    # Copies of FUSE mounts in this namespace would keep them alive after they were unmounted outside.
    if line.split(" - ")[1].startswith("fuse"):
        point = line.split(" ")[4].encode().decode("unicode_escape")
        subprocess.run(["umount", "-l", "--", point], capture_output=True)
closed = {}
for path in map(os.path.realpath, wanted):
    parts = path.split("/")
    for end in range(2, len(parts) + 1):
        above = "/".join(parts[:end])
        if not os.stat(above).st_mode & 1:
            closed.setdefault(above, set()).add(path)
            break
for number, (above, below) in enumerate(closed.items()):
    hidden = f"{scratch}/{number}"
    os.mkdir(hidden, 0o700)
    run("mount", "--rbind", above, hidden)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "none", above)
    for path in sorted(below):
        os.makedirs(path, exist_ok=True)
        run("mount", "--rbind", hidden + path[len(above):], path)
if os.path.exists("/dev/fuse"):
    os.mknod(f"{scratch}/fuse", 0o020666, os.stat("/dev/fuse").st_rdev)
    os.chmod(f"{scratch}/fuse", 0o666)
    run("mount", "--bind", f"{scratch}/fuse", "/dev/fuse")
os.setgroups([])
os.setresgid(int(uid), int(uid), int(uid))
os.setresuid(int(uid), int(uid), int(uid))
os.execv(command[0], command)
"""


#: In a copy of all mounts: the volumes of other tests are let go of, for who ejects one there asks whether others have
#: it. Then the command.
_LET_GO = """
awk '$1 ~ "^/dev/loop" && $2 ~ "/(sdmount-test-|pytest-of-)" { print $2 }' /proc/self/mounts |
    while read -r point; do umount -l "$point"; done
exec "$@"
"""


def private_mounts(*options: str) -> list[str]:
    """The head of a command line that root runs with a copy of all mounts, of which nobody hears. `options`: what
    else of its own it has."""
    private = ["unshare", "--mount", "--propagation", "private"]
    refused = subprocess.run([*private, "true"], capture_output=True, text=True, check=False).stderr.strip()
    if refused:  # in a chroot, for one
        pytest.skip(f"mounts cannot be kept private here: {refused}")
    return [*private, *options, "sh", "-c", _LET_GO, "sh"]


def as_nobody(scratch: Path, *command: str | Path) -> list[str]:
    """A command line (absolute program first) that root runs as somebody without any rights, who may mount."""
    private = private_mounts()
    scratch.mkdir(exist_ok=True)
    root = Path(__file__).resolve().parents[2]
    wanted = {sys.prefix, sys.base_prefix, str(root)}
    return [
        *private, sys.executable, "-I", "-c", _OPEN_THE_WAY,
        str(NOBODY), str(scratch), *sorted(wanted), "--", *map(str, command),
    ]  # fmt: skip


# waiting --------------------------------------------------------------------------------------------------------------


def eventually(check: Callable[[], T], what: str, within_s: float = 10.0) -> T:
    """The first true answer of a check; a check that raises is not true yet. `within_s` is what it may take on a
    machine that does nothing else: on a busy one it is waited for longer before it counts as missing."""
    until_s = time.monotonic() + PATIENCE * within_s
    while True:
        last: BaseException | None = None
        try:
            if answer := check():
                return answer
        except (AssertionError, OSError, LookupError, ValueError) as error:
            last = error
        if time.monotonic() > until_s:
            raise AssertionError(f"not within {PATIENCE * within_s:g} s: {what}") from last
        time.sleep(LOOK_S)


def shows_soon(change: Callable[[int], object], shown: Callable[[int], bool], what: str, tries: int = 3) -> float:
    """Make a change behind the mount and see that it shows within a second; returns the lag.

    A busy machine may take that second away once, so the best of a few tries counts; each gets its number. But
    every change must show.
    """
    lags = []
    for number in range(tries):
        change(number)
        began_s = time.monotonic()
        eventually(lambda: shown(number), what, 10)
        lags.append(time.monotonic() - began_s)
        if lags[-1] <= LAG_S:
            return lags[-1]
    raise AssertionError(f"{what}: it showed only after {', '.join(f'{lag:.2f}' for lag in lags)} s")


# looking --------------------------------------------------------------------------------------------------------------


def one_line(text: str, begins: str) -> str:
    """A message for a person: exactly one line, in the voice of its program."""
    assert text.startswith(begins), f"not {begins!r}…: {text!r}"
    assert text.count("\n") == 1, f"not one line: {text!r}"
    assert text.endswith("\n"), text
    return text.strip()


def errno_of(call: Callable[..., object], *arguments: Any, **named: Any) -> int:
    """The errno of a call, 0 when it works."""
    try:
        call(*arguments, **named)
    except OSError as error:
        return error.errno or -1
    return 0


def tree(top: Path) -> dict[str, Any]:
    """Everything below a directory by relative path: kind and content, for comparison."""
    found: dict[str, Any] = {}
    for path in walk(top):
        name = os.path.relpath(path, top)
        if os.path.islink(path):
            found[name] = ("link", os.readlink(path))
        elif os.path.isdir(path):
            found[name] = ("dir",)
        elif os.path.isfile(path):
            found[name] = ("file", Path(path).read_bytes())
        else:
            found[name] = ("special", os.lstat(path).st_mode)
    return found


def walk(top: Path) -> Iterator[str]:
    """Every path below a directory; links are not followed."""
    for directory, subdirectories, files in os.walk(top):
        for name in (*subdirectories, *files):
            yield os.path.join(directory, name)


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))
