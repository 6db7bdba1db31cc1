"""The keeper of a test session: a process beside pytest that ends what the session leaves behind.

Why a process: a mount whose daemon went into the background survives its test, its session, and a kill -9 of
pytest; and a test that waits inside a system call on a dead mount is not reached by any signal that Python
handles. (A thread in pytest would reach that one, but makes every os.fork() of a test a warning.)

In: lines on standard input. `base DIR`, a temporary directory of the session; `limit SECONDS` when a test
begins, `idle` when it has ended; and the end of input when pytest ends, however it ends. Out: a line for each
thing that was ended. The session's processes are known by an environment variable, which they inherit and do
not lose by becoming daemons, and are killed by pid. Then what is mounted in the session's directories, and FUSE
mounts named on the command line of a process that was killed, are unmounted. No other process or mount is
touched. Nobody may be there to read the lines: pytest was killed, and what it left has to end all the same.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "SDMOUNT_TEST_SESSION"
# How long a killed process is waited for; one that a file system keeps in the kernel may take longer, or for
# ever.
GONE_S = 10.0


def main() -> None:
    mark, due_s, pending = sys.argv[1], None, b""
    bases: set[str] = set()
    while True:
        wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        if not select.select([0], [], [], wait_s)[0]:
            end(mark, bases)  # a stuck test: its call returns once its mount is dead
            due_s = None
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            break
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            word, _, value = line.partition(b" ")
            if word == b"base":
                bases.add(os.path.realpath(os.fsdecode(value)))
            else:
                due_s = time.monotonic() + float(value) if word == b"limit" else None
    end(mark, bases)


def end(mark: str, bases: set[str]) -> None:
    """Kill the processes with this mark, then unmount: a mount without its server holds nobody any more."""
    named: set[str] = set()
    killed: dict[int, str] = {}
    until_s = time.monotonic() + GONE_S
    while (found := list(marked(mark))) and time.monotonic() < until_s:
        for pid, cwd, words in found:
            killed[pid] = " ".join(words)
            named.update(real(os.path.join(cwd, word)) for word in words if word)
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)  # look again until they are gone
    for pid, command in killed.items():
        tell(f"process {pid}: {command}")
    for mountpoint, is_fuse in mounts():
        is_inside = any(mountpoint.startswith(base + "/") for base in bases)
        if is_inside or (is_fuse and mountpoint in named):
            unmount = ["umount", "-l"] if os.getuid() == 0 else [shutil.which("fusermount3") or "false", "-u", "-z"]
            subprocess.run([*unmount, mountpoint], check=False, capture_output=True)
            tell(f"mount {mountpoint}")


def tell(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # also for what is flushed at the end


def marked(mark: str) -> Iterator[tuple[int, str, list[str]]]:
    """Pid, folder and command line of each process with the mark; those of other users are not seen."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    words = os.fsdecode((folder / "cmdline").read_bytes()).rstrip("\0").split("\0")
                    yield int(folder.name), os.readlink(folder / "cwd"), words
            except OSError:
                continue  # it has ended


def real(path: str) -> str:
    """The path without symlinks, its last component untouched: that may be a mount which answers nobody."""
    folder, name = os.path.split(os.path.normpath(path))
    return os.path.join(os.path.realpath(folder), name)


def mounts() -> list[tuple[str, bool]]:
    """Where file systems are mounted and whether they are FUSE's, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        # The kernel writes a space, a tab, a newline and a backslash in octal.
        point = fields[4]
        for char in b" \t\n\\":
            point = point.replace(b"\\%03o" % char, bytes([char]))
        found.append((os.fsdecode(point), fields[fields.index(b"-") + 1].startswith(b"fuse")))
    return sorted(found, reverse=True)


if __name__ == "__main__":
    main()
