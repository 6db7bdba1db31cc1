"""Random operations through the mount and behind it, caches on: both sides and a plain directory stay equal.

The fuzzer is tools/check/difffuzz, proved on a native directory elsewhere (tests/contract). After each operation it
compares stat, listing, absent names, bytes and mappings; what was done behind the mount may show up to a second late.
"""

import json
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import LAG_S, Mounted, walk

FUZZER = Path(__file__).resolve().parents[2] / "tools" / "check" / "difffuzz"


def stays_equal(library: Mounted, operations: int, seed: int, *arguments: str, limit_s: float) -> None:
    """One run with that seed, and the index agrees with the disk afterwards."""
    print(f"seed {seed}")
    source = library.folder("Files")
    reference = library.base / "reference"
    reference.mkdir()
    library.mount(source)
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--json", "--keep", f"--mount={library.mnt / 'Files'}", f"--branch={source}",
         f"--reference={reference}", "--xattrs=inherit", f"--settle-s={LAG_S}", f"--ops={operations}",
         f"--seed={seed}", *arguments],
        capture_output=True, text=True, check=False, timeout=limit_s, cwd="/",
    )  # fmt: skip
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"], f"seed {seed}: {report['failure']}\n" + "\n".join(report["history"])
    assert done.returncode == 0
    assert report["operations"] == operations
    print(f"lag p50 {report['lag_p50_s']} s, p99 {report['lag_p99_s']} s, max {report['lag_max_s']} s")
    # Nothing tells of a write through a descriptor whose name is gone while the file has another one: a scan finds it.
    library.sd("location", "rescan", "Files")
    library.wait_idle()
    library.verify("--content")
    before = sum(1 for _ in walk(library.mnt / "Files"))
    library.remount()
    assert sum(1 for _ in walk(library.mnt / "Files")) == before
    library.wait_idle()
    library.verify("--content")


def test_random_operations_from_both_sides(library):
    """The same story each time, so that a change of the result is a change of the code; the long run takes new ones."""
    stays_equal(library, 800, 21, limit_s=100)


def test_random_operations_mostly_behind_the_mount(library):
    stays_equal(library, 500, 22, "--behind=0.85", limit_s=100)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_thousand_random_operations(library):
    """Half an hour at most; the lag stays below a second."""
    stays_equal(library, 20_000, secrets.randbelow(1 << 32), limit_s=1700)
