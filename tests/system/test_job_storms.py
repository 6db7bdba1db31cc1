"""What happens to a location while its jobs run: held up, taken away, ejected, removed, made to look less far, killed,
indexed by two libraries at once, in each phase. No job hangs, none lies, and in the end the index is that of a fresh
scan.
"""

import os
import random
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.system.harness import Mounted, eventually
from tests.system.storm import calm, equals_fresh
from tests.system.test_index_jobs import jobs_of, make_tree

PHASES = ("discover", "classify", "extract", "thumbnail")
LARGE = [pytest.mark.long, pytest.mark.timeout(6000)]


def phases(always: str) -> pytest.MarkDecorator:
    """Each phase; one of them also in the quick suite."""
    values = [name if name == always else pytest.param(name, marks=pytest.mark.long) for name in PHASES]
    return pytest.mark.parametrize("phase", values)


def heavy(top: Path) -> Path:
    """A tree that keeps each phase busy for a while."""
    top.mkdir(exist_ok=True)
    make_tree(top, 30, 600)
    for number in range(6):
        Image.effect_noise((1600, 1200 + number), 60).save(top / f"noise{number}.jpg")
    return top


def in_phase(library: Mounted, phase: str) -> dict[str, Any] | None:
    """The index job of the location Docs, once it is in a phase or past it."""
    jobs = [job for job in jobs_of(library) if "Docs" in job["title"]]
    if any(job["kind"] == phase and job["runs"] for job in jobs):
        return max((job for job in jobs if job["kind"] == "index"), key=lambda job: job["id"])
    return None


def begun(library: Mounted, phase: str) -> dict[str, Any]:
    return eventually(lambda: in_phase(library, phase), f"{phase} begins", 60)


def told(library: Mounted) -> dict[int, dict[str, Any]]:
    """All jobs as the server tells of them."""
    return {job["id"]: job for one in library.sd_json("job", "list")["jobs"] for job in (one["job"], *one["parts"])}


def at_rest(library: Mounted) -> None:
    """No job runs or waits to but for what is paused, and those above."""

    def rests() -> bool:
        jobs = told(library).values()
        held = {job["parent"] for job in jobs if job["status"] == "paused"}
        return not [job for job in jobs if job["status"] in ("queued", "running") and job["id"] not in held]

    eventually(rests, "no job hangs", 40)
    assert "Traceback" not in library.log()


@phases("extract")
def test_paused_in_each_phase(library, phase):
    """It and its parts stop, stay so, and go on to the end."""
    docs = heavy(library.folder("Docs"))
    library.mount()
    library.sd("location", "add", docs, "--mode", "deep")
    job = begun(library, phase)
    done = library.run("vdfs.cli", "--data-dir", library.data, "job", "pause", str(job["id"]))
    if done.returncode == 0:
        eventually(lambda: told(library)[job["id"]]["status"] == "paused", "it is paused")
        at_rest(library)
        parts = [one for one in told(library).values() if one["parent"] == job["id"]]
        assert {one["status"] for one in parts} <= {"paused", "completed"}
        assert {one["paused_by"] for one in parts} <= {"parent", None}
        library.sd("job", "resume", str(job["id"]))
    else:
        assert "has not ended" in done.stderr, "it was over before"
    equals_fresh(library, docs, mode="deep")


@pytest.mark.usefixtures("root_only")
@pytest.mark.parametrize("how", ["pull", pytest.param("eject", marks=pytest.mark.long)])
@phases("classify")
def test_its_volume_goes_in_each_phase(library, sticks, phase, how):
    """The job ends and says why; nothing that is known is lost; when the volume is back, all of it is indexed."""
    image = sticks.make("mine", "ext4", f"s{os.getpid()}", size_mib=96)
    point = sticks.plug(image, "here")
    docs = heavy(point / "Docs")
    library.mount()
    library.sd("location", "add", docs, "--mode", "deep")
    job = begun(library, phase)
    if how == "pull":
        sticks.pull(point)
    else:
        library.sd("volume", "eject", docs)
    at_rest(library)
    ended = told(library)[job["id"]]
    assert ended["status"] in ("failed", "completed"), ended
    if ended["status"] == "failed":
        assert ended["error"]
        assert "unexpected" not in ended["error"]
    sticks.plug(image, "here")
    eventually(lambda: (library.mnt / "Docs" / "empty").read_bytes() == b"", "it is back", 20)
    equals_fresh(library, docs, mode="deep")


@phases("discover")
def test_its_location_is_removed_and_added_in_each_phase(library, phase):
    """The job is cancelled, and the location that is added then gets one of its own."""
    docs = heavy(library.folder("Docs"))
    library.mount()
    library.sd("location", "add", docs, "--mode", "deep")
    job = begun(library, phase)
    library.sd("location", "remove", "Docs")
    eventually(lambda: told(library)[job["id"]]["status"] in ("cancelled", "completed"), "it ends")
    at_rest(library)
    library.sd("location", "add", docs, "--mode", "deep")
    equals_fresh(library, docs, mode="deep")


@phases("thumbnail")
def test_its_mode_changes_in_each_phase(library, phase):
    """Shallow, and deep again a moment later: what it is at last, it is wholly."""
    docs = heavy(library.folder("Docs"))
    library.mount()
    library.sd("location", "add", docs, "--mode", "deep")
    begun(library, phase)
    library.sd("location", "mode", "Docs", "shallow")
    library.sd("location", "mode", "Docs", "content")
    library.sd("location", "mode", "Docs", "deep")
    at_rest(library)
    equals_fresh(library, docs, mode="deep")


def test_two_libraries_index_one_tree_while_it_changes(library, tmp_path):
    """Neither takes the other's looking for a change."""
    docs = heavy(library.folder("Docs"))
    (tmp_path / "other").mkdir()
    other = Mounted(tmp_path / "other")
    try:
        for one in (library, other):
            one.mount()
            one.sd("location", "add", docs, "--mode", "deep")
        for number in range(300):
            (docs / f"new{number}").write_bytes(b"%d" % number)
            if number % 3 == 0:
                os.rename(docs / f"new{number}", docs / f"d{number % 3}" / "moved")
        (library.mnt / "Docs" / "by one").write_bytes(b"one")
        (other.mnt / "Docs" / "by the other").write_bytes(b"other")
        calm(other)
        other.verify("--content")
        equals_fresh(library, docs, mode="deep")
    finally:
        other.close()


# kills ----------------------------------------------------------------------------------------------------------------

# Changes a tree for ever in ways that a seed decides, through the mount and behind it. A dead mount is waited for.
_WRITER = """
import os, random, shutil, sys, time
seed, *tops = sys.argv[1:]
dice = random.Random(seed)
head = b"\\x89PNG\\r\\n\\x1a\\n"
picture = open(sys.argv[-1] + "/image0.png", "rb").read()
while True:
    top = dice.choice(tops)
    name = f"{top}/w{seed}/{dice.choice('abc')}/{dice.choice('abcdef')}"
    other = f"{top}/w{seed}/{dice.choice('abc')}/{dice.choice('abcdef')}"
    try:
        for directory in (f"{top}/w{seed}", os.path.dirname(name)):
            if not os.path.isdir(directory):
                os.mkdir(directory)  # not what is above: between two mounts the mount point is an empty directory
        what = dice.random()
        if what < 0.35:
            with open(name, "wb") as file:
                file.write(b"%d " % dice.randrange(1000) * dice.choice((1, 50, 20000)))
        elif what < 0.45:
            with open(name + ".png", "wb") as file:
                file.write(dice.choice((picture, picture + b"%d" % dice.randrange(9), head)))
        elif what < 0.65:
            os.rename(name, other)
        elif what < 0.75:
            os.unlink(name)
        elif what < 0.8:
            os.rename(os.path.dirname(name), os.path.dirname(name) + dice.choice("xyz"))
        elif what < 0.85:
            shutil.rmtree(os.path.dirname(name) + dice.choice("xyz"))
        elif what < 0.9:
            os.chmod(name, dice.choice((0o600, 0o644)))
        elif what < 0.95:
            os.setxattr(name, "user.xdg.tags", dice.choice((b"one", b"two", b"one,two")))
        else:
            with open(f"{top}/w{seed}/.gitignore", "w") as file:
                file.write(dice.choice(("", "a\\n", "*.png\\n")))
    except OSError as error:
        if error.errno in (107, 103, 5, 2, 17, 39, 20, 21, 61, 9):
            time.sleep(0.001)
        else:
            raise
    time.sleep(0.002)
"""


@pytest.mark.parametrize("kills", [pytest.param(8, marks=pytest.mark.timeout(300)), pytest.param(300, marks=LARGE)])
def test_killed_at_any_moment_while_jobs_run_and_writers_write(library, kills):
    """Mounted again at once each time. When all is quiet the index is that of a fresh scan, with hashes, rules, fields,
    thumbnails and tags."""
    seed = int(os.environ.get("SDMOUNT_SEED", str(secrets.randbelow(1 << 32))))
    print(f"seed {seed}")
    dice = random.Random(seed)
    docs = library.folder("Docs")
    make_tree(docs, 30, 600)
    library.mount()
    library.sd("location", "add", docs, "--mode", "deep")
    tops = [str(library.mnt / "Docs"), str(docs)]
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(seed + n), *some], stderr=subprocess.PIPE, text=True)
        for n, some in enumerate((tops, [tops[1]]))
    ]
    try:
        for number in range(kills):
            time.sleep(dice.uniform(0, 1.5))
            assert [one.poll() for one in writers] == [None, None], [one.poll() for one in writers]
            if number % 4 == 0:
                command = ["rescan", "Docs"] if dice.random() < 0.5 else ["mode", "Docs", "deep"]
                library.sd("location", *command)
                time.sleep(dice.uniform(0, 0.3))
            library.kill()
            library.mount()
    finally:
        for one in writers:
            one.kill()
            one.communicate()
    equals_fresh(library, docs, mode="deep", within_s=200)
