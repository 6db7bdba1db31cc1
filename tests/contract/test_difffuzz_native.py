"""The fuzzer itself: native directories agree, a planted fault is found, and so are the faults of bindfs."""

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

PROGRAM = Path(__file__).resolve().parents[2] / "tools/check/difffuzz"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with an empty branch, mount and reference."""
    path = Path(tempfile.mkdtemp(prefix="difffuzz-native-"))
    for name in ("branch", "mount", "reference"):
        (path / name).mkdir()
    yield path
    shutil.rmtree(path)


def trees(place: Path, mount: str) -> list[str]:
    return [f"--mount={place / mount}", f"--branch={place / 'branch'}", f"--reference={place / 'reference'}"]


def fuzz(place: Path, *arguments: str, mount: str = "branch", **environment: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, PROGRAM, *trees(place, mount), "--json", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | environment,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_a_directory_agrees_with_itself(place: Path, seed: str) -> None:
    code, report = fuzz(place, "--ops", "700", "--seed", seed, "--walk-every", "200")
    assert (code, report["failure"]) == (0, "")
    assert report["operations"] == 700
    assert report["behind_mount"] > 150
    assert report["through_mount"] > 300
    assert report["refused_alike"] < 400, "most operations should do something"
    assert report["comparisons"] > 3000
    assert (report["lag_max_s"], report["late_outcomes"]) == (0.0, 0), "nothing can be late on one directory"
    assert list((place / "branch").iterdir()) == list((place / "reference").iterdir()) == []


def test_every_kind_of_operation_is_done_from_both_sides(place: Path) -> None:
    _, report = fuzz(place, "--ops", "1500", "--seed", "5")
    sides = {kind.split(".")[0] for kind in report["by_kind"]}
    kinds = {kind.split(".")[1] for kind in report["by_kind"]}
    assert (sides, len(kinds)) == ({"mount", "branch"}, 25)


def test_a_seed_replays_the_same_run(place: Path) -> None:
    runs = [fuzz(place, "--ops", "400", "--seed", "9")[1] for _ in range(2)]
    assert runs[0]["by_kind"] == runs[1]["by_kind"]
    assert runs[0]["comparisons"] == runs[1]["comparisons"]


@pytest.mark.parametrize("start", ["0", "100", "250"])
def test_one_operation_missing_on_the_reference_is_found_at_once(place: Path, start: str) -> None:
    code, report = fuzz(place, "--ops", "700", "--seed", "4", DIFFFUZZ_SKIP_ON_REFERENCE=start)
    assert code == 1
    assert report["failure"]
    assert int(start) < report["operations"] < int(start) + 60
    assert 0 < len(report["history"]) <= 30


def test_a_mount_that_shows_another_directory_is_refused(place: Path) -> None:
    arguments = [sys.executable, str(PROGRAM), *trees(place, "mount")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "does not show" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture
def bindfs(place: Path) -> Iterator[list[str]]:
    """Its caches hold names and attributes for a second; the kinds it does wrong are left out."""
    if not shutil.which("bindfs") or not os.path.exists("/dev/fuse"):
        pytest.skip("needs bindfs and /dev/fuse")
    command = ["bindfs", str(place / "branch"), str(place / "mount")]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"bindfs cannot mount here: {mounted.stderr.decode()}")
    yield [f"--without={kind}" for kind in ("utimens", "exchange", "noreplace", "link", "hold")]
    subprocess.run(["fusermount3", "-uz", place / "mount"], check=True)


def test_a_mount_with_short_caches_agrees_late_but_in_time(place: Path, bindfs: list[str]) -> None:
    code, report = fuzz(place, "--ops", "600", "--seed", "1", "--settle-s", "3", *bindfs, mount="mount")
    assert (code, report["failure"]) == (0, "")
    assert 0.1 < report["lag_max_s"] <= 3.0, "its cache of a second must show as lag"


def test_the_same_mount_is_too_late_for_less_time(place: Path, bindfs: list[str]) -> None:
    code, report = fuzz(place, "--ops", "600", "--seed", "1", "--settle-s", "0.05", *bindfs, mount="mount")
    assert code == 1
    assert "after a change behind the mount" in report["failure"]


def test_hard_links_of_bindfs_are_found_wrong(place: Path, bindfs: list[str]) -> None:
    without = [option for option in bindfs if "link" not in option]
    code, report = fuzz(place, "--ops", "600", "--seed", "2", "--settle-s", "2", *without, mount="mount")
    assert code == 1
    assert "at once" in report["failure"]
