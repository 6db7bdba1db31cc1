"""The crash workload itself: a tree that keeps everything passes, and each kind of loss is reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools/check/crashwriter"


@pytest.fixture
def place() -> Iterator[Path]:
    """A tree, a mount point, and the file of acknowledgements beside them."""
    path = Path(tempfile.mkdtemp(prefix="crashwriter-native-"))
    (path / "tree").mkdir()
    (path / "mount").mkdir()
    yield path
    shutil.rmtree(path)


def command(place: Path, *arguments: str, tree: str = "tree") -> list[str]:
    trees = [f"--mount={place / tree}", f"--ack={place / 'ack'}"]
    return [sys.executable, str(PROGRAM), *trees, "--json", *arguments]


def run(place: Path, *arguments: str, tree: str = "tree") -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        command(place, *arguments, tree=tree), capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def write_some(place: Path, seed: str) -> dict[str, Any]:
    code, report = run(place, "--same-disk", "--seconds=0.7", f"--seed={seed}")
    assert code == 0
    assert report["acked"] > 50
    return report


def test_a_tree_that_keeps_everything_passes(place: Path) -> None:
    write_some(place, "1")
    code, report = run(place, "--verify")
    assert (code, report["problems"], report["lost"], report["foreign"]) == (0, [], 0, 0)
    assert report["files"] > 10
    assert not report["round_counts"], "nobody was at work when nothing died"


def acked_files(place: Path) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = {}
    for line in (place / "ack").read_text().splitlines():
        entry = json.loads(line)
        if entry["phase"] == "ack":
            states |= entry["states"]
    return {path: state for path, state in states.items() if state and state["kind"] == "file"}


def revert_bytes(path: Path) -> None:
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"an older version")
    os.utime(path, ns=times)


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def bring_back(path: Path) -> None:
    path.with_name(path.name + "9999").write_bytes(b"removed long ago")


def drop_attribute(path: Path) -> None:
    os.removexattr(path, os.listxattr(path)[0])


def change_attribute(path: Path) -> None:
    os.setxattr(path, os.listxattr(path)[0], b"older")


def change_time(path: Path) -> None:
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


def change_inode(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    os.rename(copy, path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (os.unlink, "lost"),
        (revert_bytes, "other bytes"),
        (cut_off, "cut off"),
        (bring_back, "there, though removed or never made"),
        (drop_attribute, "attributes"),
        (change_attribute, "attributes"),
        (change_time, "modified at"),
        (change_inode, "inode number"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_one_damaged_file_is_reported(place: Path, damage: Callable[[Path], None], words: str) -> None:
    write_some(place, "2")
    states = acked_files(place)
    candidates = [path for path, state in states.items() if state["xattrs"] and state["chunks"][-1][1] > 20]
    victim = sorted(candidates)[0]
    damage(place / "tree" / victim)
    code, report = run(place, "--verify")
    assert code == 1
    assert [victim in problem and words in problem for problem in report["problems"]] == [True]
    assert report["lost"] + report["foreign"] == 1


def test_inode_numbers_may_be_excused(place: Path) -> None:
    write_some(place, "3")
    change_inode(place / "tree" / sorted(acked_files(place))[0])
    assert run(place, "--verify")[0] == 1
    assert run(place, "--verify", "--no-inodes")[0] == 0


def test_killed_writers_leave_one_operation_each_in_the_air(place: Path) -> None:
    """Whatever it was, done, undone or half done, verification holds; so it does with a torn last line."""
    for turn in range(5):
        (place / "ack").unlink(missing_ok=True)
        writing = subprocess.Popen(
            command(place, "--same-disk", "--seconds=30", f"--seed={turn}"),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_acks(place / "ack", 60 + 40 * turn)
        finally:
            os.killpg(writing.pid, signal.SIGKILL)
            writing.wait()
        with (place / "ack").open("ab") as file:
            file.write(b'{"writer":"0-0","n":9')
        code, report = run(place, "--verify")
        assert (code, report["problems"]) == (0, [])
        assert report["round_counts"]
        assert report["busy_writers"] == 4


def wait_for_acks(ack: Path, count: int) -> None:
    deadline_s = time.monotonic() + 20
    while not ack.exists() or ack.read_bytes().count(b'"ack"') < count:
        assert time.monotonic() < deadline_s, "the writers do not get on"
        time.sleep(0.01)


def test_a_mount_killed_under_the_writers_ends_them_and_loses_nothing(place: Path) -> None:
    if not shutil.which("bindfs") or not os.path.exists("/dev/fuse"):
        pytest.skip("needs bindfs and /dev/fuse")
    server = mount_bindfs(place)
    writing = subprocess.Popen(command(place, "--seconds=30", "--seed=7", tree="mount"), stdout=subprocess.PIPE)
    try:
        wait_for_acks(place / "ack", 200)
        server.kill()
        server.wait()
        report = json.loads(writing.communicate(timeout=30)[0])
        assert writing.returncode == 0
        assert report["busy_writers"] == 4, report["ended"]
        unmount(place)
        server = mount_bindfs(place)
        code, verdict = run(place, "--verify", tree="mount")
    finally:
        writing.kill()
        writing.wait()
        server.kill()
        server.wait()
        unmount(place)
    assert (code, verdict["problems"]) == (0, [])
    assert verdict["round_counts"]
    assert verdict["acked"] >= 200


def mount_bindfs(place: Path) -> subprocess.Popen[bytes]:
    """In the foreground, so that its process is ours to kill."""
    server = subprocess.Popen(["bindfs", "-f", str(place / "tree"), str(place / "mount")], stderr=subprocess.DEVNULL)
    deadline_s = time.monotonic() + 10
    while not os.path.ismount(place / "mount"):
        if server.poll() is not None or time.monotonic() > deadline_s:
            pytest.skip("bindfs cannot mount here")
        time.sleep(0.01)
    return server


def unmount(place: Path) -> None:
    subprocess.run(["fusermount3", "-uz", str(place / "mount")], check=False, capture_output=True)


def test_a_wrong_answer_of_a_living_tree_fails_the_writer(place: Path) -> None:
    """Somebody else removes the writers' files while they write."""
    writing = subprocess.Popen(
        command(place, "--same-disk", "--seconds=20", "--seed=8"), start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_acks(place / "ack", 40)
        deadline_s = time.monotonic() + 20
        while '"failed"' not in (place / "ack").read_text():
            assert time.monotonic() < deadline_s, "the loss was not noticed"
            for path in (place / "tree").rglob("8-0-*"):  # again and again: what there is may have been over and done
                if path.is_file():
                    path.unlink(missing_ok=True)
            time.sleep(0.01)
    finally:
        os.killpg(writing.pid, signal.SIGKILL)
        writing.wait()


@pytest.mark.parametrize("arguments", [["--verify"], ["--ack=/nonexistent/ack"], ["--mount=/nonexistent"], []])
def test_bad_arguments_are_refused_in_one_line(place: Path, arguments: list[str]) -> None:
    done = subprocess.run(command(place, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("crashwriter: ")
