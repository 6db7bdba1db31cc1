"""The jobs that index a location: stopped at every point, paused, commanded, and remembered."""

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from PIL import Image

from tests.system.harness import Mounted, children, eventually, gone

# What an index says of a location, but for what is made anew each time (ids, times of the scan, uuids).
ROWS = """
WITH RECURSIVE up(id, path) AS (
  SELECT root_entry_id, '' FROM branch WHERE location_id IS NOT NULL
  UNION ALL SELECT e.id, up.path || '/' || hex(e.name) FROM up JOIN entry e ON e.parent_id = up.id)
SELECT up.path, e.kind, e.mode, e.size_bytes, e.mtime_ns, e.ctime_ns, e.st_ino, e.nlink, e.uid, e.gid, e.hash_state,
  c.full, c.sampled, m.body, e.uuid IS NOT NULL, s.rbytes, s.rfiles, s.rdirs,
  (SELECT count(*) FROM entry o WHERE o.node = e.node), t.name, c.type_method, x.extractor, x.version, x.state, x.error,
  x.fields, (SELECT group_concat(variant || ' ' || size_bytes || ' ' || state, ', ') FROM
    (SELECT * FROM sidecar WHERE content_id = c.id ORDER BY variant))
FROM up JOIN entry e ON e.id = up.id LEFT JOIN content c ON c.id = e.content_id
LEFT JOIN manifest m ON m.content_id = c.id LEFT JOIN sums s ON s.dir_id = e.id
LEFT JOIN filetype t ON t.id = c.type_id LEFT JOIN extracted x ON x.content_id = c.id ORDER BY up.path"""


def index_of(library: Mounted) -> list[tuple[Any, ...]]:
    """All that an index says, of a library that nobody has open."""
    db = sqlite3.connect(library.library_dir / "library.db")
    try:
        return list(db.execute(ROWS))
    finally:
        db.close()


def jobs_of(library: Mounted) -> list[dict[str, Any]]:
    """The rows of jobs.db, read beside the process that writes them."""
    try:
        db = sqlite3.connect(f"file:{library.library_dir / 'jobs.db'}?mode=ro", uri=True)
    except sqlite3.OperationalError:
        return []
    try:
        cursor = db.execute("SELECT * FROM job ORDER BY id")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()
    for row in rows:
        for name in ("state", "progress", "result", "args"):
            row[name] = None if row[name] is None else msgpack.unpackb(row[name], strict_map_key=False)
    return rows


def make_tree(top: Path, directories: int, files: int) -> None:
    """Directories in directories, files small and large, links of both sorts, names that are no text."""
    place = [top]
    for number in range(directories):
        place.append(place[number // 3] / f"d{number}")
        place[-1].mkdir()
    for number in range(files):
        directory = os.fsencode(place[number % len(place)])
        with open(directory + b"/f%d-\xff\xc3\xa4" % number, "wb") as file:
            file.write(b"%d" % (number % (files // 2)) * (30_000 if number % 50 == 0 else 1 + number % 40))
    for number in range(0, files, 97):
        name = os.fsencode(place[number % len(place)]) + b"/f%d-\xff\xc3\xa4" % number
        os.link(name, os.fsencode(top) + b"/link%d" % number)
        os.symlink(b"f%d" % number, os.fsencode(top) + b"/symlink%d" % number)
    for number in range(40):
        image = Image.new("RGB", (600 + number, 400), (number * 6, 90, 200))
        image.save(place[number % len(place)] / f"image{number}.png")
    (top / "image broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (top / "empty").touch()


@pytest.fixture
def other(tmp_path):
    """A second library, for the same directories."""
    (tmp_path / "other").mkdir()
    library = Mounted(tmp_path / "other")
    yield library
    library.close()


def live(library: Mounted, kind: str) -> dict[str, Any] | None:
    """The running job of a kind, of the location (the store has jobs of its own)."""
    found = [job for job in jobs_of(library) if job["kind"] == kind and "Docs" in job["title"]]
    return next((job for job in found if job["status"] == "running"), None)


def mounted_and_killed(library: Mounted, is_so: Callable[[], bool]) -> bool:
    """Mount, and SIGKILL the server at the first moment that something is so; False when all was done before."""
    pids: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            holder = library.holder()
            if holder is not None and not gone(holder["pid"]) and is_so():
                os.kill(holder["pid"], signal.SIGKILL)
                pids.append(holder["pid"])
                return
            jobs = [job for job in jobs_of(library) if job["kind"] == "index" and "Docs" in job["title"]]
            if jobs and all(job["status"] == "completed" for job in jobs):
                return
            time.sleep(0.001)

    killer = threading.Thread(target=kill)
    killer.start()
    library.sdmount()
    killer.join()
    if pids:
        eventually(lambda: gone(pids[0]) and library.holder() is None, "a killed server ends", 20)
    return bool(pids)


@pytest.mark.timeout(600)
def test_an_index_that_was_killed_in_each_phase_is_that_of_an_unbroken_run(library, other):
    """Row by row the same, with sums, contents and manifests; and nothing was done twice but what was under way."""
    docs = library.folder("Docs")
    make_tree(docs, 300, 6000)
    for one in (library, other):
        one.mount()
        one.unmount()
        one.sd("location", "add", docs, "--mode", "deep")
    library.mount()
    library.sd("status", "--wait-idle", "--timeout", "200")
    library.unmount()

    phases = {
        "discover": (0, 1500, 3500),
        "classify": (0, 2000, 4000),
        "extract": (0, 1000, 2000),
        "thumbnail": (0, 20),
    }
    kills = dict.fromkeys(phases, 0)

    def has_begun(kind: str, progress: int) -> Callable[[], bool]:
        def is_so() -> bool:
            job = live(other, kind)
            return job is not None and job["state"] is not None and job["state"]["s"].get(count, 0) > progress

        count = {"discover": "entries", "classify": "files"}.get(kind, "done")
        return is_so

    for kind, steps in phases.items():
        for progress in steps:
            kills[kind] += mounted_and_killed(other, has_begun(kind, progress))
    if other.holder() is None:
        other.mount()
    assert other.holder() is not None, other.log()
    other.sd("status", "--wait-idle", "--timeout", "200")
    other.verify("--content")
    jobs = jobs_of(other)
    other.unmount()
    broken, whole = index_of(other), index_of(library)
    assert [pair for pair in zip(broken, whole, strict=True) if pair[0] != pair[1]] == []
    pictures = [sorted(one.library_dir.glob("sidecars/**/*.webp")) for one in (library, other)]
    trees = [[(file.relative_to(one.library_dir), file.read_bytes()) for file in files]
             for one, files in zip((library, other), pictures, strict=True)]  # fmt: skip
    assert trees[0] == trees[1]
    assert len(pictures[0]) >= 40
    assert min(kills.values()) >= 1, kills

    def first(kind: str) -> dict[str, Any]:
        return next(job for job in jobs if job["kind"] == kind and "Docs" in job["title"])

    assert {first(kind)["status"] for kind in ("index", *phases, "cleanup")} == {"completed"}
    assert first("index")["runs"] == 1 + sum(kills.values()), "one job, that went on each time"
    assert first("thumbnail")["result"]["failed"] == 1
    assert 41 - 30 * kills["thumbnail"] <= first("thumbnail")["result"]["files"] <= 41
    rows = index_of(library)
    batch = 1500  # reports under way between worker and server
    seen = first("discover")["result"]["entries"]
    assert seen <= len(rows) - 1 + batch * kills["discover"]
    inodes = len({row[6] for row in rows if row[1] == 0 and row[3]})
    unit = 1024  # its files may be written and not yet counted
    assert inodes - unit * kills["classify"] <= first("classify")["result"]["files"] <= inodes


@pytest.mark.timeout(240)
def test_workers_that_are_killed_cost_no_file_and_no_job(library, other):
    """Who runs out of memory kills somebody who did nothing wrong."""
    docs = library.folder("Docs")
    make_tree(docs, 300, 6000)
    library.mount()
    library.sd("location", "add", docs)
    library.sd("status", "--wait-idle", "--timeout", "200")
    library.unmount()

    other.mount()
    server, luck, killed = other.pid, random.Random(1), 0
    other.sd("location", "add", docs)
    until = time.monotonic() + 6
    while time.monotonic() < until:
        workers = [pid for starter in children(server) for pid in children(starter)]
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(luck.choice(workers), signal.SIGKILL)
                killed += 1
        time.sleep(luck.uniform(0.0, 0.1))
    other.sd("status", "--wait-idle", "--timeout", "200")
    other.verify("--content")
    found = other.sd("search", "--json", "f777-")
    jobs = jobs_of(other)
    other.unmount()
    assert killed >= 20
    assert {job["status"] for job in jobs if job["kind"] in ("index", "discover", "classify")} == {"completed"}
    assert [pair for pair in zip(index_of(other), index_of(library), strict=True) if pair[0] != pair[1]] == []
    assert "f777-" in found


def test_an_image_that_cannot_be_read_says_why(library):
    docs = library.folder("Docs")
    (docs / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    Image.new("RGB", (30, 20)).save(docs / "whole.png")
    library.mount()
    library.sd("location", "add", docs, "--mode", "deep")
    library.wait_idle()
    assert "Unread" not in library.sd("info", library.mnt / "Docs/whole.png")
    (line,) = [line for line in library.sd("info", library.mnt / "Docs/broken.png").splitlines() if "Unread" in line]
    assert "image" in line


def stopped(library: Mounted, how: str, status: str) -> tuple[str, int]:
    """A location whose index somebody stopped in the middle, and the job; a location more for each job that was done
    before, for who works on a busy machine may come too late."""
    for number in range(5):
        name = f"Docs{number}"
        make_tree(library.folder(name), 100, 8000)
        library.sd("location", "add", library.disk / name)

        def stories(name: str = name) -> list[dict[str, Any]]:
            return [job for job in jobs_of(library) if name in job["title"] and job["parent_id"] is None]

        top = eventually(stories, "it indexes", 20)[0]["id"]
        eventually(
            lambda: live(library, "classify") or live(library, "discover") or stories()[0]["ended_ns"], "it runs"
        )
        library.sd("job", how, str(top), check=False)
        eventually(lambda: stories()[0]["status"] in (status, "completed"), "it is stopped")
        if stories()[0]["status"] == status:
            return name, top
    pytest.fail("8000 files are too few for this test")


@pytest.mark.timeout(300)
def test_a_paused_job_stays_paused_over_a_restart_and_a_kill(library):
    """Until somebody lets it go on; who waits for idle is told. Then everything is there."""
    library.mount()
    _, top = stopped(library, "pause", "paused")
    assert "paused (user)" in library.sd("job", "show", str(top))
    library.remount()
    assert library.sd_json("job", "show", str(top))["job"]["paused_by"] == "user"
    library.kill()
    library.mount()
    said = library.sd_fails("status", "--wait-idle", "--timeout", "30", code=1)
    assert "paused" in said
    assert "sd job resume" in said
    library.sd("job", "resume", str(top))
    assert library.sd("job", "watch", str(top)).splitlines()[-1].startswith(time.strftime("%H"))
    library.wait_idle()
    library.verify("--content")
    states = {row[10] for row in (library.unmount(), index_of(library))[1] if row[1] == 0 and row[3]}
    assert states == {2}


def test_a_cancelled_job_leaves_what_it_did_and_a_rescan_does_the_rest(library):
    library.mount()
    name, top = stopped(library, "cancel", "cancelled")
    assert next(job for job in jobs_of(library) if job["id"] == top)["ended_ns"] is not None
    library.sd("location", "rescan", name)
    library.wait_idle()
    library.verify("--content")


def test_a_shallow_location_is_known_by_its_names_until_more_is_asked_for(library):
    """No byte of it is read; `sd location mode` has it read, and files that come later, too."""
    docs = library.folder("Docs")
    (docs / "first").write_text("first")
    library.mount()
    library.sd("location", "add", docs, "--mode", "shallow")
    library.wait_idle()
    assert [row["mode"] for row in library.sd_json("location", "list")["locations"]] == ["shallow"]
    assert library.sd_json("info", "sd:/Docs/first")["hash_state"] == "left"
    (library.mnt / "Docs" / "second").write_text("second")
    (docs / "third").write_text("third")
    library.settle()
    for name in ("second", "third"):
        assert library.sd_json("info", f"sd:/Docs/{name}")["hash_state"] == "left"
    library.sd("location", "mode", "Docs", "content")
    library.settle()
    for name in ("first", "second", "third"):
        assert library.sd_json("info", f"sd:/Docs/{name}")["hash_state"] == "full"
    library.remount()
    assert [row["mode"] for row in library.sd_json("location", "list")["locations"]] == ["content"]


def test_what_cannot_be_read_is_told_by_the_job(library):
    """An unreadable directory is an error of the job, not its end; what was known below it stays."""
    if os.geteuid() == 0:
        pytest.skip("root reads every directory")
    docs = library.folder("Docs")
    (docs / "closed").mkdir()
    (docs / "closed" / "file").write_text("x")
    library.mount(docs)
    library.wait_idle()
    (docs / "closed").chmod(0)
    try:
        library.sd("location", "rescan", "Docs")
        library.wait_idle()
        stories = [library.sd_json("job", "show", str(j["id"])) for j in jobs_of(library) if j["kind"] == "discover"]
        assert any("closed" in note["text"] for story in stories for note in story["notes"])
    finally:
        (docs / "closed").chmod(0o755)
    library.sd("location", "rescan", "Docs")
    library.wait_idle()
    library.verify()


def test_a_file_that_cannot_be_read_is_told_and_is_read_when_it_can_be(library):
    if os.geteuid() == 0:
        pytest.skip("root reads every file")
    docs = library.folder("Docs")
    for name in ("open", "secret"):
        (docs / name).write_text(name)
    (docs / "secret").chmod(0)
    time.sleep(1.3)  # what changed within the last second is not the job's, which tells of what it could not read
    library.mount(docs)
    library.wait_idle()
    told = [
        library.sd_json("job", "show", str(job["id"]))
        for job in jobs_of(library)
        if job["kind"] == "classify" and "Docs" in job["title"]
    ]
    assert [note["text"] for story in told for note in story["notes"]] == [
        f"{docs / 'secret'}: the permission to read it is denied"
    ]
    assert library.sd_json("info", library.mnt / "Docs/secret")["hash_state"] == "failed"
    (docs / "secret").chmod(0o600)
    eventually(lambda: library.sd_json("info", library.mnt / "Docs/secret")["hash_state"] == "full", "it is read")


def test_what_a_failing_disk_did_not_give_is_asked_for_again_by_a_rescan(library):
    docs = library.folder("Docs")
    (docs / "file").write_text("x")
    library.mount(docs)
    library.settle()
    library.unmount()
    with contextlib.closing(sqlite3.connect(library.library_dir / "library.db", isolation_level=None)) as db:
        db.execute("UPDATE entry SET hash_state=3, content_id=NULL WHERE name=?", (b"file",))
    library.mount()
    library.wait_idle()
    assert library.sd_json("info", library.mnt / "Docs/file")["hash_state"] == "failed"
    library.sd("location", "rescan", "Docs")
    library.wait_idle()
    assert library.sd_json("info", library.mnt / "Docs/file")["hash_state"] == "full"


@pytest.mark.parametrize("kind", ["discover", "classify", "extract"])
def test_a_location_that_is_away_when_its_job_goes_on_is_looked_through_when_it_is_back(library, kind):
    """The job says where it is not, in words; nothing that is known of it is lost."""
    docs, away = library.folder("Docs"), library.disk / "away"
    make_tree(docs, 100, 4000)
    library.mount()
    library.unmount()
    library.sd("location", "add", docs, "--mode", "deep")
    assert mounted_and_killed(library, lambda: live(library, kind) is not None)
    docs.rename(away)
    assert f"{docs} is not there" in library.sdmount().stderr

    def failed() -> dict[str, Any] | None:
        found = [job for job in jobs_of(library) if job["kind"] == "index" and "Docs" in job["title"]]
        return next((job for job in found if job["status"] == "failed"), None)

    story = eventually(failed, "it cannot go on", 30)
    assert f"{docs} is not there" in story["error"]
    away.rename(docs)
    library.settle()
    library.verify("--content")
    jobs = [job for job in jobs_of(library) if job["kind"] == "index" and "Docs" in job["title"]]
    assert jobs[-1]["status"] == "completed"
    assert "Traceback" not in library.log()


def test_removing_a_location_ends_its_jobs(library):
    docs = library.folder("Docs")
    make_tree(docs, 50, 1500)
    library.mount()
    library.sd("location", "add", docs)
    library.sd("location", "remove", "Docs")
    library.wait_idle()
    assert {job["status"] for job in jobs_of(library) if "Docs" in job["title"]} <= {"cancelled", "completed"}
    shutil.rmtree(docs)
    os.kill(library.pid, signal.SIGTERM)


def test_what_is_asked_of_a_location_while_its_job_waits_is_not_forgotten(library):
    """Its files are to be read from now on: whoever has it looked through after that takes nothing away."""
    docs = library.folder("Docs")
    (docs / "first").write_text("first")
    library.mount()
    library.sd("location", "add", docs, "--mode", "shallow")
    library.wait_idle()
    library.unmount()
    library.sd("location", "rescan", "Docs")  # nothing runs: the job waits
    library.sd("location", "mode", "Docs", "content")
    library.sd("location", "rescan", "Docs")
    library.mount()
    library.settle()
    assert library.sd_json("info", "sd:/Docs/first")["hash_state"] == "full"
