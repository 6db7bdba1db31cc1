"""Without root: the mount is made, served and used by a user with no rights at all.

The other tests of this room are the specification; here they run again as that user, in a mount namespace in which the
interpreter, the checkout and /dev/fuse can be reached by everybody. What only root can do skips itself there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import NOBODY, as_nobody

ROOM = Path(__file__).parent
DAILY = (
    "test_lifecycle.py::test_sdmount_returns_when_the_mount_answers",
    "test_lifecycle.py::test_every_way_to_end_is_clean",
    "test_lifecycle.py::test_a_stale_mountpoint_is_healed_at_the_next_start",
    "test_xattrs.py::test_tags_are_one_thing_in_every_place",
    "test_union.py::test_the_root_works_with_no_location_at_all",
    "test_tools.py::test_git",
    "test_tools.py::test_tar",
    "test_behind.py::test_attributes_show",
    "test_index_jobs.py::test_what_cannot_be_read_is_told_by_the_job",
    "test_index_jobs.py::test_a_file_that_cannot_be_read_is_told_and_is_read_when_it_can_be",
)
WATCHERS = (
    "test_watchers.py::test_a_mount_of_ones_own_raises_them",
    "test_watchers.py::test_what_another_device_does_raises_the_events_of_doing_it",
)
EVERYTHING = ("lifecycle", "locations", "union", "xattrs", "behind", "away", "views", "tools", "names")


def as_somebody_else(base: Path, tests: list[str], limit_s: float) -> None:
    """pytest over these tests by a user without rights; none may fail, and some must have run."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the other tests ran without root already")
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "--durations=5",
        f"--rootdir={ROOM.parents[1]}",
        f"--basetemp={base / 'inner'}", f"--confcutdir={ROOM.parents[1]}",
        *(str(ROOM / test) for test in tests),
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if k != "SDMOUNT_TEST_SESSION"}
    env |= {"HOME": str(base), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(base)}
    os.chown(base, NOBODY, NOBODY)
    done = subprocess.run(
        as_nobody(base / "way", *command), capture_output=True, text=True, check=False, timeout=limit_s, env=env,
        cwd=ROOM.parents[1],
    )  # fmt: skip
    print(done.stdout[-3000:])
    assert done.returncode == 0, f"{done.stdout[-20000:]}{done.stderr[-5000:]}"
    assert re.search(r"^[1-9]\d* passed", done.stdout, re.MULTILINE), done.stdout[-2000:]


@pytest.mark.timeout(240)
def test_a_user_without_rights_mounts_and_works(base, fuse):
    as_somebody_else(base, list(DAILY), 200)


@pytest.mark.timeout(240)
def test_who_watches_hears_of_what_came_from_elsewhere(base, fuse):
    as_somebody_else(base, list(WATCHERS), 200)


@pytest.mark.long
@pytest.mark.timeout(2000)
def test_everything_that_needs_no_rights(base, fuse):
    """All of this room's tests that do not need root."""
    as_somebody_else(base, [f"test_{name}.py" for name in EVERYTHING], 1900)


SCRIPT = """
cd /
run() {{ "{python}" -P -m "$@"; }}
export PYTHONPATH="{root}" HOME="{base}" SDMOUNT_DATA_DIR="{base}/data"
run fusefs.sdmount "{base}/mnt" "{base}/LOC" || exit 9
for top in "{base}/mnt/LOC" "{base}/LOC"; do
    cd "$top"; echo "in $(basename "$(dirname "$top")")"
    rmdir closed seen full; mkdir new; mv -T new full; rm -rf full; rmdir new; ls
    cd /
done
run vdfs.cli status --wait-idle --timeout 60 > "{base}/idle"  # what was never listed is not compared
run vdfs.cli index verify; echo "verify: $?"
run fusefs.sdumount "{base}/mnt"; echo "ended: $?"
"""


def test_directories_of_others_are_as_on_the_disk(base, fuse):
    """An empty one may be removed by whom its parent belongs to, one that is not says so; verify could not read it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make directories that belong to somebody else")
    for directory in (base, base / "LOC", base / "mnt"):
        directory.mkdir(exist_ok=True)
        os.chown(directory, NOBODY, NOBODY)

    def fill() -> None:
        for name, mode in (("closed", 0o700), ("seen", 0o711), ("full", 0o700)):
            (base / "LOC" / name).mkdir(exist_ok=True)
            (base / "LOC" / name).chmod(mode)
        (base / "LOC" / "full" / "x").touch()

    fill()
    script = SCRIPT.format(python=sys.executable, root=ROOM.parents[1], base=base)
    once = subprocess.run(
        as_nobody(base / "way", "/bin/sh", "-c", script), capture_output=True, text=True, check=False, timeout=90
    )
    mounted, direct = once.stdout.split("in mnt\n")[1].split(f"in {base.name}\n")
    assert mounted == "full\n", once.stdout + once.stderr
    assert direct.splitlines()[0] == "full"
    says = [line for line in once.stderr.splitlines() if "full" in line and "could not be compared" not in line]
    assert says[:3] == says[3:6], once.stderr
    assert "could not be compared" in once.stderr
    assert "ended: 0" in once.stdout, once.stdout + once.stderr
    assert "verify: 2" in once.stdout, once.stdout + once.stderr
