"""The promises of POSIX and Linux, kept by the mount: the suite of tools/check/posix, run by root and by nobody.

The suite is proved on native directories elsewhere (tests/contract); here the mount is measured by it. Every day a part
of it, for time's sake; with --long all of it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import fresh_base, fresh_library
from tests.system.harness import Mounted

SUITE = Path(__file__).resolve().parents[2] / "tools" / "check" / "posix"
DAILY = (
    "append",
    "create_open",
    "mmap_io",
    "open_flags",
    "races",
    "rename_flags",
    "sparse",
    "stat_sync",
    "truncate",
    "unlink",
)


@pytest.fixture(scope="module")
def place(fuse: None, announce: Callable[[Path], None]) -> Iterator[Path]:
    """A writable directory of a mount that other users may enter; at the end the index agrees with the disk."""
    for base in fresh_base(announce):
        for library in fresh_library(base):
            options = ("-o", "allow_other") if os.geteuid() == 0 else ()
            source = library.folder("Files")
            library.mount(source, options=options)
            yield library.mnt / "Files"
            in_order(library)


def in_order(library: Mounted) -> None:
    library.wait_idle()
    library.verify("--content")
    assert "Traceback" not in library.log()


def keeps_its_promises(place: Path, *arguments: str, limit_s: float = 100) -> dict[str, Any]:
    """Run the suite; every failure is told. The report."""
    done = subprocess.run(
        [sys.executable, str(SUITE), str(place), "--json", *arguments],
        capture_output=True, text=True, check=False, timeout=limit_s, cwd="/",
    )  # fmt: skip
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    broken = "\n".join(f"{failure['name']}: {failure['reason']}" for failure in report["failures"])
    assert (done.returncode, report["failed"], report["died"]) == (0, 0, ""), broken
    assert report["passed"] > 0, f"nothing ran: {report['skips']}"
    assert os.listdir(place) == [], "the suite left something behind"
    return dict(report)


@pytest.mark.parametrize("group", DAILY)
def test_promises_of_every_day(place, group):
    keeps_its_promises(place, "--only", f"{group}.*")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_promises(place):
    """The whole suite, with at most a few reasons to skip."""
    report = keeps_its_promises(place, limit_s=800)
    assert report["passed"] > 1000
    print(f"skipped: {report['skips']}")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_all_promises_to_somebody_else(place, root_only):
    """The same by a user without rights, in a mount that root serves for all."""
    keeps_its_promises(place, "--as-uid", "65534", limit_s=800)
