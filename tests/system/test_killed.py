"""A killed server leaves nobody waiting, whatever the kernel was just being told."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.system.harness import Mounted, eventually, gone, is_dead, messengers

# Makes, looks up, lists and removes names in one directory of the mount: the kernel holds its lock most of the time.
BUSY = """
import os, sys
top, mark = sys.argv[1:]
n = 0
while True:
    try:
        n += 1
        path = f"{top}/{mark}{n % 50}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        os.path.exists(f"{top}/absent{n}")
        os.listdir(top)
        os.unlink(path)
    except FileNotFoundError:
        continue
    except OSError:
        break
"""
# Changes names in the same directory behind the mount: each is told to the kernel.
BEHIND = """
import os, sys, time
top = sys.argv[1]
n = 0
while os.getppid() > 1:
    n += 1
    os.close(os.open(f"{top}/behind{n % 500}", os.O_CREAT | os.O_WRONLY))
    if n % 2:
        os.unlink(f"{top}/behind{n % 500}")
    time.sleep(0.0005)
"""


def program(text: str, *arguments: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def killed_in_the_middle(library: Mounted, round_: int) -> None:
    shown, disk = library.mnt / "Docs", library.disk / "Docs"
    users = [program(BUSY, shown, f"user{n}-") for n in range(3)]
    behind = program(BEHIND, disk)
    try:
        time.sleep(0.4 + 0.05 * (round_ % 7))
        pid = library.pid
        os.kill(pid, signal.SIGKILL)
        for user in users:
            user.wait(10)  # TimeoutExpired: it waits for a server that is gone
        eventually(lambda: gone(pid), "the killed server ends")
        eventually(lambda: is_dead(library.mnt), "its mount is dead, not silent")
        eventually(lambda: not messengers(pid), "nothing of it is left")
    finally:
        for process in (*users, behind):
            process.kill()
            process.wait(10)


def rounds(library: Mounted, count: int) -> None:
    library.mount(library.folder("Docs"))
    for round_ in range(count):
        killed_in_the_middle(library, round_)
        library.mount()
    library.wait_idle()
    library.verify()


@pytest.mark.timeout(240)
def test_a_kill_in_the_middle_of_a_notice_leaves_nobody_waiting(library):
    rounds(library, 5)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_many_kills_in_the_middle_of_notices_leave_nobody_waiting(library):
    rounds(library, 60)
