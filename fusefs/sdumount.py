"""sdumount: end a mount, and return when its server has let go of the library.

The server ends with its session, and that lives as long as a mount namespace has the mount: a container or a service
that was started meanwhile has a copy, and nobody else takes it away there. So a server that goes on is told to end.
That is done to no other process (who listens at the library's socket, the kernel says, in this namespace's numbers),
and not where only a copy was taken away: then the mount is in use where the server is.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from fusefs.stale import heal_stale_mount, is_dead, real_mountpoint
from index.scan.mounts import is_own_at, mounts
from vdfs.base.config import load_config
from vdfs.library.lock import running_holder
from vdfs.wire.client import listener_pid

T = TypeVar("T")

_DEADLINE_S = 30.0
#: A server that has nothing left to do ends in less; files that are open make their mount busy before.
_BY_ITSELF_S = 3.0
_ANSWER_S = 5.0
_TRIES = 30
_AGAIN_S = 0.05


def main(argv: list[str] | None = None) -> int:
    """Entry point of `sdumount`."""
    parser = argparse.ArgumentParser(prog="sdumount", description="End a mount of sdmount.")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-z", "--lazy", action="store_true", help="detach now, also while files are open")
    parser.add_argument("--data-dir", metavar="DIR", help="as given to sdmount (default: what the mount says)")
    args = parser.parse_args(argv)
    path = real_mountpoint(Path(args.mountpoint))
    ours = [m for m in mounts() if m.mount_point == os.fsencode(path)]
    if not ours or not ours[-1].is_own:
        print(f"sdumount: no library is mounted at {args.mountpoint}", file=sys.stderr)
        return 1
    answers = _answers(path)
    if answers is False:
        heal_stale_mount(path)
        return 0
    if answers is None and not args.lazy:
        print(f"sdumount: the server of {path} does not answer; to detach the mount all the same: --lazy",
              file=sys.stderr)  # fmt: skip
        return 1
    servers = _servers(args.data_dir or _told_data_dir(path), path) if answers and not args.lazy else {}
    command = ["fusermount3", "-u", *(["-z"] if args.lazy else []), str(path)]
    done = _unmounted(command)
    if done.returncode != 0:
        text = done.stderr.strip()
        if "busy" in text:
            text = f"{path} is in use (an open file, or a shell that stands in it); close it, or use --lazy"
        print(f"sdumount: {text}", file=sys.stderr)
        return 1
    return _wait_for(servers, path)


def _unmounted(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """What becomes of an unmount. One that is busy is tried again: the server's own poker is in the mount at times, for
    some milliseconds."""
    for _ in range(_TRIES):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0 or "busy" not in done.stderr:
            break
        time.sleep(_AGAIN_S)
    return done


def _wait_for(servers: dict[int, bool], path: Path) -> int:
    """Wait for the end of the servers of a mount that is gone here; returns the exit code."""
    if _ended(servers, _BY_ITSELF_S):
        return 0
    if any(_has_mount(pid, path) for pid in servers):
        print(f"sdumount: {path} is unmounted here; its server goes on, for it is mounted in another mount namespace",
              file=sys.stderr)  # fmt: skip
        return 0
    for pid, is_certain in servers.items():
        if is_certain:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
    if _ended(servers, _DEADLINE_S):
        return 0
    print("sdumount: unmounted, but the server has not ended yet", file=sys.stderr)
    return 1


def _has_mount(pid: int, path: Path) -> bool:
    try:
        return is_own_at(os.fsencode(path), pid)
    except OSError:
        return False


def _ended(pids: Iterable[int], within_s: float) -> bool:
    """Whether processes end within a time."""
    deadline_s = time.monotonic() + within_s
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def _answers(path: Path) -> bool | None:
    """Whether the server of a mount answers; False when it is gone, None when nothing comes in time."""
    dead = _asked(lambda: is_dead(path))
    return None if dead is None else not dead


def _told_data_dir(path: Path) -> str | None:
    """Where the library of a mount lies, as the mount itself says; None when it says nothing."""

    def ask() -> str | None:
        try:
            told = json.loads((path / ".vdfs" / "status.json").read_bytes())["data_dir"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return told if isinstance(told, str) else None

    return _asked(ask)


def _asked(question: Callable[[], T]) -> T | None:
    """What somebody answers who may never do so: he is asked by a thread, and the process ends without it."""
    answers: list[T] = []
    asking = threading.Thread(target=lambda: answers.append(question()), daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    return answers[0] if answers else None


def _servers(data_dir: str | None, mountpoint: Path) -> dict[int, bool]:
    """The processes that serve this mount point (of the libraries that can be found from here, one or none), and of
    each whether that is certain: what is noted may be its number in another namespace."""
    config = load_config(data_dir)
    found = {}
    for name in config.library_names():
        holder = running_holder(config.library_dir(name))
        if holder is None or holder.mountpoint != str(mountpoint):
            continue
        pid = None if holder.socket is None else listener_pid(holder.socket)
        if pid != 0:  # else it is in no namespace that is seen from here
            found[pid or holder.pid] = pid is not None
    return found


def _lives(pid: int) -> bool:
    """Whether a process has not ended, with all its descriptors closed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
