"""The keeper of the test sessions does what it says, and nothing to anybody else."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

KEEPER = Path(__file__).with_name("leftovers.py")
# A daemon: its parent is gone, it is in a session of its own, and it holds none of our descriptors.
DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(60)
"""
# The smallest file system: it answers nothing but ENOSYS.
SERVER = """
import sys, pyfuse3, trio
pyfuse3.init(pyfuse3.Operations(), sys.argv[1], {"fsname=leftover"})
print("mounted", flush=True)
trio.run(pyfuse3.main)
"""


@pytest.fixture
def keeper():
    """A keeper of its own, the mark it looks for, and a certain end."""
    mark = f"test-{os.getpid()}-{time.monotonic_ns()}"
    command = [sys.executable, "-I", KEEPER, mark]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process, {**os.environ, "SDMOUNT_TEST_SESSION": mark}
    finally:
        process.communicate(timeout=30)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_daemon(environment: dict[str, str]) -> int:
    command = [sys.executable, "-c", DAEMON]
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, timeout=30, check=True).stdout)


def test_a_daemon_is_ended_with_its_session_and_a_strangers_is_not(keeper):
    """The end of the keeper's input is the end of the session, also when pytest was killed."""
    process, environment = keeper
    ours, other = start_daemon(environment), start_daemon({**environment, "SDMOUNT_TEST_SESSION": "other"})
    try:
        told, _ = process.communicate(timeout=30)
        assert told.startswith(f"process {ours}: ")
        assert not is_running(ours)
        assert is_running(other)
    finally:
        os.kill(other, 9)


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="mounting here needs a helper")
@pytest.mark.parametrize("in_base", [True, False])
def test_a_mount_is_ended_with_its_server(keeper, tmp_path, in_base):
    """Known by lying in the session's directory, or by the command line of the server that was killed."""
    process, environment = keeper
    mountpoint = tmp_path / "a mount"
    mountpoint.mkdir()
    command = [sys.executable, "-c", SERVER, mountpoint]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "mounted\n"
        if in_base:
            server.kill()  # a dead mount without a server that could name it
            server.wait()
        told, _ = process.communicate(f"base {tmp_path}\n" if in_base else "", timeout=30)
    assert told.splitlines()[-1] == f"mount {mountpoint}"
    assert not os.path.ismount(mountpoint)
    assert list(mountpoint.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount what is no FUSE")
def test_nobody_reads_what_it_tells(tmp_path):
    """Pytest was killed: its processes end and mounts of any kind go all the same."""
    mark = f"test-{os.getpid()}-{time.monotonic_ns()}"
    mountpoint = tmp_path / "bound"
    mountpoint.mkdir()
    ours = [start_daemon({**os.environ, "SDMOUNT_TEST_SESSION": mark}) for _ in range(2)]
    subprocess.run(["mount", "--bind", tmp_path, mountpoint], check=True)
    command = [sys.executable, "-I", KEEPER, mark]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        keeper.stdout.close()
        keeper.stdin.write(f"base {tmp_path}\n".encode())
        keeper.stdin.close()
        assert keeper.stderr.read() == b""
    assert not any(is_running(pid) for pid in ours)
    assert not os.path.ismount(mountpoint)


def test_a_test_that_overruns_its_limit_loses_its_processes(keeper):
    """What a stuck test waits for is gone, so its call returns; the keeper goes on."""
    process, environment = keeper
    pid = start_daemon(environment)
    process.stdin.write("limit 60\nidle\n")
    process.stdin.flush()
    assert is_running(pid)
    process.stdin.write("limit 0.01\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(f"process {pid}: ")
    assert process.poll() is None
