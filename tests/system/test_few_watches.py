"""Where the system allows fewer watches than there are directories: it is said, and everything is found all the same.

The limit is that of a user namespace, which has one of its own and spares everybody else. Nobody outside sees a mount
that was made in there, so a script inside does all of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import Mounted, private_mounts

SCRIPT = """
set -e
echo {watches} > /proc/sys/user/max_inotify_watches
{python} -m fusefs.sdmount --data-dir {data} -o rescan=1 {mnt} {docs}
trap '{python} -m fusefs.sdumount --data-dir {data} {mnt}' EXIT
sd() {{ {python} -m vdfs.cli --data-dir {data} "$@"; }}
sd status --wait-idle --timeout 60
for n in 1 2 3 4 5 6 7 8; do echo new > {docs}/d$n/behind; done
mv {docs}/d1/moved {docs}/d8/moved
for try in $(seq 100); do
    sleep 0.3
    if sd index verify > /dev/null && sd status --wait-idle --timeout 60 > /dev/null; then break; fi
done
sd index verify
sd status --wait-idle --timeout 60
ls {mnt}/Docs/d8
sd tag list sd:/Docs/d8/moved
"""


@pytest.mark.timeout(240)
def test_what_has_no_watch_is_looked_through_again_and_it_is_said(library: Mounted):
    allowed = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", "echo 100 > /proc/sys/user/max_inotify_watches"],
        capture_output=True,
        check=False,
    )
    if allowed.returncode:
        pytest.skip(f"no user namespace with a limit of its own: {allowed.stderr.decode().strip()}")
    docs = library.folder("Docs")
    for number in range(1, 9):
        (docs / f"d{number}").mkdir()
    (docs / "d1" / "moved").write_text("moved")
    library.mount(docs)
    library.settle()
    library.sd("tag", "add", "kept", "sd:/Docs/d1/moved")
    library.unmount()
    alone = private_mounts() if os.geteuid() == 0 else []
    script = SCRIPT.format(watches=4, python=sys.executable, data=library.data, mnt=library.mnt, docs=docs)
    done = subprocess.run(
        [*alone, "unshare", "-Urm", "--propagation", "private", "sh", "-c", script],
        capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2], timeout=200,
        env=library.environment(),
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{library.log()}"
    assert "no differences" in done.stdout
    assert "too few watches" in done.stdout
    assert done.stdout.splitlines()[-3:] == ["behind", "moved", "kept"], "a file that moved unseen keeps its tags"
    assert "user.max_inotify_watches is 4" in library.log()
