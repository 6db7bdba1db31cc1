"""sdumount: end a mount, and return when its server has let go of the library.

The server ends with its session, and that lives as long as a mount namespace has the mount: a container or a service
that was started meanwhile has a copy, and nobody else takes it away there. So a server that goes on is told to end.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from fusefs.stale import heal_stale_mount, is_dead, real_mountpoint
from index.scan.mounts import mounts
from vdfs.base.config import load_config
from vdfs.library.lock import running_holder

_DEADLINE_S = 30.0
#: A server that has nothing left to do ends in less; files that are open make their mount busy before.
_BY_ITSELF_S = 3.0
_ANSWER_S = 5.0


def main(argv: list[str] | None = None) -> int:
    """Entry point of `sdumount`."""
    parser = argparse.ArgumentParser(prog="sdumount", description="End a mount of sdmount.")
    parser.add_argument("mountpoint", metavar="MOUNTPOINT")
    parser.add_argument("-z", "--lazy", action="store_true", help="detach now, also while files are open")
    parser.add_argument("--data-dir", metavar="DIR", help="as given to sdmount")
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
    waiting = _servers(args.data_dir, path) if answers and not args.lazy else []
    command = ["fusermount3", "-u", *(["-z"] if args.lazy else []), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        text = done.stderr.strip()
        if "busy" in text:
            text = f"{path} is in use (an open file, or a shell that stands in it); close it, or use --lazy"
        print(f"sdumount: {text}", file=sys.stderr)
        return 1
    if not _ended(waiting, _BY_ITSELF_S):
        for pid in set(waiting) & set(_servers(args.data_dir, path)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        if not _ended(waiting, _DEADLINE_S):
            print("sdumount: unmounted, but the server has not ended yet", file=sys.stderr)
            return 1
    return 0


def _ended(pids: list[int], within_s: float) -> bool:
    """Whether processes end within a time."""
    deadline_s = time.monotonic() + within_s
    while any(_lives(pid) for pid in pids):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


def _answers(path: Path) -> bool | None:
    """Whether the server of a mount answers; False when it is gone, None when nothing comes in time.

    The question is asked by a thread that may wait for ever: the process ends without it.
    """
    dead: list[bool] = []
    asking = threading.Thread(target=lambda: dead.append(is_dead(path)), daemon=True)
    asking.start()
    asking.join(_ANSWER_S)
    return not dead[0] if dead else None


def _servers(data_dir: str | None, mountpoint: Path) -> list[int]:
    """The processes that serve this mount point: of the libraries that can be found from here, one or none."""
    config = load_config(data_dir)
    found = []
    for name in config.library_names():
        holder = running_holder(config.library_dir(name))
        if holder is not None and holder.mountpoint == str(mountpoint):
            found.append(holder.pid)
    return found


def _lives(pid: int) -> bool:
    """Whether a process has not ended, with all its descriptors closed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
