"""The POSIX suite itself: native directories keep every promise, and broken ones are found out.

A check that fails on ext4 or tmpfs is a wrong check; a check that passes on a file system with a known
fault is no check. The suite runs as the program users run, in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools/check/posix"
PACKAGE = Path(__file__).parent / "posix"
GROUPS = sorted(
    path.stem for path in PACKAGE.glob("*.py") if "check_" in path.read_text() and "@cases" in path.read_text()
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory other users can reach; pytest's own lies below one that is closed to them."""
    path = Path(tempfile.mkdtemp(prefix="posix-native-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def run(directory: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(directory), "--json", *arguments],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def explain(report: dict[str, Any]) -> str:
    return "\n".join(f"{failure['name']}: {failure['reason']}" for failure in report["failures"])


def names_of(report: dict[str, Any]) -> set[str]:
    return {failure["name"].split("[")[0] for failure in report["failures"]}


@pytest.mark.parametrize("group", GROUPS)
def test_a_native_directory_keeps_every_promise(place: Path, group: str) -> None:
    code, report = run(place, "--only", f"{group}.*")
    assert (code, report["failed"]) == (0, 0), explain(report)
    assert report["passed"] > 0, f"nothing ran: {report['skips']}"
    if os.geteuid() == 0:
        assert not any("other users" in reason for reason in report["skips"]), "the place is closed to others"
    assert list(place.iterdir()) == [], "the suite left something behind"


@pytest.mark.parametrize("group", ["readdir", "rename", "truncate", "utimens", "xattr"])
def test_tmpfs_keeps_every_promise(group: str) -> None:
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no tmpfs at /dev/shm")
    code, report = run(Path("/dev/shm"), "--only", f"{group}.*")
    assert (code, report["failed"]) == (0, 0), explain(report)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("group", ["chown", "create_open", "mknod", "permissions", "stat_sync", "unlink"])
def test_an_unprivileged_user_finds_every_promise_kept(place: Path, group: str) -> None:
    place.chmod(0o777)
    code, report = run(place, "--only", f"{group}.*", "--as-uid", "54321")
    assert (code, report["failed"]) == (0, 0), explain(report)
    assert report["skipped"] > 0, "what needs root cannot have passed"
    assert list(place.iterdir()) == [], "the suite left something behind"


def test_the_suite_is_as_large_as_it_claims() -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), "--list"], capture_output=True, text=True, check=True)
    names = done.stdout.splitlines()
    assert len(names) > 1000
    assert len(set(names)) == len(names), "two checks of one name"
    assert {name.split(".")[0] for name in names} == set(GROUPS)


def test_known_faults_of_bindfs_are_found(place: Path) -> None:
    """It gives one file several inodes, joins paths beyond PATH_MAX, and takes UTIME_OMIT for now."""
    if not shutil.which("bindfs") or not os.path.exists("/dev/fuse"):
        pytest.skip("needs bindfs and /dev/fuse")
    (place / "branch").mkdir()
    (place / "mount").mkdir()
    mounted = subprocess.run(["bindfs", place / "branch", place / "mount"], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"bindfs cannot mount here: {mounted.stderr.decode()}")
    try:
        found = set()
        for group in ("link", "names", "rename_flags", "unlink", "utimens"):
            code, report = run(place / "mount", "--only", f"{group}.*")
            assert (code, report["died"]) == (1, "")
            found |= names_of(report)
    finally:
        subprocess.run(["fusermount3", "-uz", place / "mount"], check=True)
    assert found >= {
        "link.size_and_bytes_show_through_the_second_name_at_once",
        "names.a_tree_deeper_than_path_max_is_used_by_steps",
        "rename_flags.exchange_swaps_any_two_kinds",
        "unlink.an_unlinked_open_file_leaves_no_trace_in_listings",
        "utimens.omit_leaves_the_access_time",
    }


PLANTED = """
import json, os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from contract.posix import kit, runner

def hangs(root, env):
    time.sleep(60)

def dies(root, env):
    os.kill(os.getpid(), 9)

def asserts(root, env):
    kit.equal(1, 2, "a number")

def raises(root, env):
    os.stat("missing")

def skips(root, env):
    env.need("wings")

def leaves_processes(root, env):
    kit.spawn(lambda: time.sleep(60))
    raise AssertionError("with a child behind")

def passes(root, env):
    os.makedirs("deep/" * 100)
    os.chmod("deep/deep", 0)

env = kit.Env(os.geteuid() == 0, {"wings": "no wings here"})
checks = (hangs, dies, asserts, raises, skips, leaves_processes, passes)
results = [runner.run(runner.Check(f.__name__, f, {}), Path(sys.argv[2]), env, 1.0) for f in checks]
print(json.dumps({result.name: [result.status, result.reason] for result in results}))
"""


def test_every_way_to_fail_is_reported(place: Path) -> None:
    arguments = [sys.executable, "-c", PLANTED, str(PACKAGE.parents[1]), str(place)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=60)
    results = json.loads(done.stdout)
    assert {name: status for name, (status, _) in results.items()} == {
        "hangs": "fail",
        "dies": "fail",
        "asserts": "fail",
        "raises": "fail",
        "skips": "skip",
        "leaves_processes": "fail",
        "passes": "pass",
    }
    assert "did not end within 1 s" in results["hangs"][1]
    assert "a number: expected 2, got 1" in results["asserts"][1]
    assert "ENOENT" in results["raises"][1]
    assert results["skips"][1] == "no wings here"


@pytest.mark.parametrize(
    "arguments", [["/nonexistent"], ["/etc/passwd"], ["/tmp", "--only", "no-such-check"], []], ids=str
)
def test_bad_arguments_are_refused_in_one_line(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("posix: ")
