"""Storms behind the mount: more changes than anybody can follow one by one. Afterwards the index is that of a fresh
scan, row by row, and verification agrees.

Each storm has a small size that always runs, and one as large as an unpacked source tree.
"""

import errno
import itertools
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.harness import NOBODY, Mounted, as_nobody, errno_of, eventually
from tests.system.storm import calm, equals_fresh, left_the_index, names_come_and_go, packages, rows_of

TAGS = "user.xdg.tags"

LARGE = [pytest.mark.long, pytest.mark.timeout(1200)]


def sizes(small: int, large: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("size", [small, pytest.param(large, marks=LARGE)])


@pytest.fixture
def dice() -> random.Random:
    seed = int(os.environ.get("SDMOUNT_SEED", str(secrets.randbelow(1 << 32))))
    print(f"seed {seed}")
    return random.Random(seed)


@contextmanager
def stalled(library: Mounted) -> Iterator[None]:
    """The server sees nothing for a while, and the kernel's queue of events fills."""
    os.kill(library.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(library.pid, signal.SIGCONT)


@sizes(3000, 20_000)
def test_a_burst_in_one_directory(library, files, dice, size):
    """Files made, renamed, replaced, removed, written and given modes, thousands a second."""
    names_come_and_go(files, size, dice)
    equals_fresh(library, files)


@sizes(300, 5000)
def test_a_burst_of_nested_directories(library, files, size):
    """mkdir, mkdir, file, over and over, and some of it taken away again at once."""
    for number in range(size):
        inner = files / f"d{number}" / "one" / "two"
        inner.mkdir(parents=True)
        for name in ("a", "b", "c"):
            (inner / name).write_bytes(b"%d" % number)
        (inner.parent / "beside").write_bytes(name.encode())
        if number % 3 == 1:
            shutil.rmtree(files / f"d{number // 2}", ignore_errors=True)
        if number % 5 == 0:
            inner.rename(files / f"moved{number}")
    equals_fresh(library, files, within_s=300)


@sizes(60, 1500)
def test_what_programs_unpack(library, files, size):
    """`git clone`, `tar x`, a tree of packages, all at once, and one of them again into the same place."""
    outside = library.folder("outside")
    repo = outside / "repo"
    packages(repo / "src", size // 2)
    (repo / ".gitignore").write_text("*.json\n")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q", repo], ["-C", repo, "add", "-A", "-f", "src"], ["-C", repo, "commit", "-qm", "all"]):
        subprocess.run([*git, *map(str, words)], check=True, capture_output=True)
    packed = outside / "packed.tar"
    with tarfile.open(packed, "w") as archive:
        for number in range(size):
            (outside / "one").write_bytes(b"member %d" % number)
            archive.add(outside / "one", f"unpacked/d{number % 40}/e{number % 7}/m{number}")
    running = [
        subprocess.Popen([*git, "clone", "-q", "--no-hardlinks", str(repo), str(files / "clone")]),
        subprocess.Popen(["tar", "-xf", str(packed), "-C", str(files)]),
    ]
    packages(files, size)
    assert [one.wait() for one in running] == [0, 0]
    subprocess.run(["tar", "-xf", str(packed), "-C", str(files)], check=True)
    equals_fresh(library, files, within_s=300)


@sizes(40, 600)
def test_directories_moved_in_and_out_during_a_burst(library, files, dice, size):
    """Between two locations, and out of both and back, while they fill. Who had a tag has it still."""
    other, outside = library.folder("Other"), library.folder("outside")
    library.add(other)
    tagged = files / "tagged"
    tagged.mkdir()
    (tagged / "inside").write_bytes(b"tagged")
    eventually(lambda: (library.mnt / "Files" / "tagged" / "inside").exists(), "it shows")
    library.sd("tag", "add", "Kept", library.mnt / "Files" / "tagged", library.mnt / "Files" / "tagged" / "inside")
    places = [files, other, outside]
    dirs: list[Path] = [tagged]
    for number in range(size):
        new = dice.choice(places) / f"d{number}"
        for name in ("one", "two/three"):
            (new / name).mkdir(parents=True)
            (new / name / "f").write_bytes(b"%d" % number)
        dirs.append(new)
        for _ in range(3):
            at = dice.randrange(len(dirs))
            to = dice.choice(places) / f"{dirs[at].name}"
            if to.exists():
                to = to.with_name(f"{to.name}-{number}")
            dirs[at].rename(to)
            dirs[at] = to
        (dice.choice(dirs) / f"late{number}").write_bytes(b"late")
    dirs[0].rename(files / "at last")
    equals_fresh(library, files, other, within_s=200)
    assert {os.getxattr(library.mnt / "Files" / "at last" / name, TAGS) for name in ("", "inside")} == {b"Kept"}


@sizes(150, 3000)
def test_an_editor_that_saves_in_a_loop(library, files, dice, size):
    """By a new file that replaces the old one, by a backup, in place; tags stay."""
    for number in range(10):
        library.sd("tag", "add", "Mine", library.mnt / "Files" / f"f{number}")
    for number in range(size):
        path = files / f"f{dice.randrange(10)}"
        text = b"version %d " % number * dice.choice((1, 100))
        how = number % 3
        if how == 0:
            (files / f".{path.name}.swp").write_bytes(text)
            os.rename(files / f".{path.name}.swp", path)
        elif how == 1:
            os.rename(path, files / f"{path.name}~")
            path.write_bytes(text)
            os.unlink(files / f"{path.name}~")
        else:
            path.write_bytes(text)
    for number in range(10):
        eventually(lambda n=number: os.getxattr(library.mnt / "Files" / f"f{n}", TAGS) == b"Mine", "its tag is kept", 5)
    calm(library)
    library.verify("--content")
    shown = {path.name: path.read_bytes() for path in (library.mnt / "Files").iterdir()}
    assert shown == {path.name: path.read_bytes() for path in files.iterdir()}


@pytest.mark.parametrize("backup", ["{}~", ".{}.bak", "{}.orig"])
@pytest.mark.parametrize(("rest_s", "write_s", "is_kept"), [(0.15, 0.15, False), (0, 0.15, False), (0.15, 0, True)])
def test_an_editor_that_saves_slowly_behind_the_mount(library, files, backup, rest_s, write_s, is_kept):
    """It puts the file aside, makes it anew, and may remove what it put aside: somebody looks in between."""
    library.sd("tag", "add", "Mine", library.mnt / "Files" / "f0")
    aside = files / backup.format("f0")
    os.rename(files / "f0", aside)
    time.sleep(rest_s)
    (files / "f0").write_bytes(b"a new version")
    time.sleep(write_s)
    if not is_kept:
        aside.unlink()
    shown = library.mnt / "Files"
    eventually(lambda: os.getxattr(shown / "f0", TAGS) == b"Mine", "its tag is kept", 5)
    calm(library)
    assert os.getxattr(shown / "f0", TAGS) == b"Mine"
    assert not is_kept or TAGS not in os.listxattr(shown / aside.name)
    library.verify("--content")


def test_what_was_put_aside_and_never_made_anew_is_gone(library, files):
    """Its name is waited for a moment, and no longer."""
    for name in ("f8", "f9"):
        os.rename(files / name, files / f"{name}~")
    time.sleep(0.1)
    (files / "f8~").unlink()
    os.rename(files / "f9~", files / "moved")
    assert errno_of(os.stat, library.mnt / "Files" / "f8") == errno.ENOENT
    eventually(lambda: not library.sd("search", "f8").split(), "it is gone", 10)
    equals_fresh(library, files)


@sizes(4, 40)
def test_a_directory_that_is_renamed_again_and_again(library, files, size):
    """It may be under each name when another is looked at: while it lives, what is in it does not leave the index."""
    (files / "roams" / "deep").mkdir(parents=True)
    for number in range(200):
        (files / "roams" / f"f{number}").write_bytes(b"%d" % number)
    (files / "roams" / "deep" / "file").write_bytes(b"deep")
    calm(library)
    shown = library.mnt / "Files"
    kept = [shown / "roams" / name for name in ("", "f77", "deep", "deep/file")]
    library.sd("tag", "add", "Kept", *kept)
    before = [path.stat().st_ino for path in kept]
    for burst in range(size):
        names = ["roams", *(f"a{number}" for number in range(40)), "roams"]
        for old, new in itertools.pairwise(names):
            os.rename(files / old, files / new)
            time.sleep(burst % 2 * 0.001)
        eventually(lambda: [os.getxattr(path, TAGS) for path in kept] == [b"Kept"] * 4, "tags are kept", 5)
    assert [path.stat().st_ino for path in kept] == before
    assert left_the_index(library) == 0, "nothing had to come back"
    os.rename(files / "roams", library.base / "out")
    eventually(lambda: not (shown / "roams").exists(), "it does not show", 1)
    eventually(lambda: left_the_index(library) == 203, "it is let go", 10)
    equals_fresh(library, files)


@sizes(100, 2000)
def test_writes_that_leave_size_and_mtime(library, files, dice, size):
    """Twice within a tick of the clock, or with the mtime given back: every hash is that of the last bytes."""
    for number in range(size):
        path = files / f"f{dice.randrange(20)}"
        before = path.lstat()
        old = path.read_bytes()
        with path.open("r+b") as file:
            file.write(bytes(dice.randrange(97, 122) for _ in old))
        if number % 2:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        if number % 10 == 0:
            with path.open("r+b") as file:
                file.write(b"A" * len(old))
    equals_fresh(library, files)


def test_an_overflow_of_the_kernels_queue(library, files, dice):
    """While the server is stalled, more happens than the kernel keeps: all of it is found."""
    (files / "deep" / "deeper").mkdir(parents=True)
    (files / "deep" / "deeper" / "last").write_bytes(b"first")
    library.sd("tag", "add", "Kept", library.mnt / "Files" / "f3")
    calm(library)
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queued > 20_000:
        pytest.skip(f"the kernel keeps {queued} events here")
    with stalled(library):
        (files / "flood").mkdir()
        for number in range(queued // 2 + 100):  # two events each at least
            (files / f"n{number % 4000}").write_bytes(b"%d" % number)
        os.rename(files / "f3", files / "deep" / "moved")
        (files / "flood" / "unseen").mkdir()
        (files / "flood" / "unseen" / "file").write_bytes(b"unseen")
        (files / "deep" / "deeper" / "last").write_bytes(b"later")
        shutil.rmtree(files / "deep" / "deeper")
        (files / "deep" / "deeper").mkdir()
        (files / "deep" / "deeper" / "last").write_bytes(b"again")
    equals_fresh(library, files, within_s=100)
    assert "overflowed" in library.log(), "the queue did overflow"
    assert os.getxattr(library.mnt / "Files" / "deep" / "moved", TAGS) == b"Kept"


def test_names_and_times_of_all_sorts(library, files):
    """Names that are no text, links in circles, times before 1970 and far ahead, a clock that was set back."""
    top = os.fsencode(files)
    for number, name in enumerate((b"\xff\xfe", b"new\nline", b"\xc3", b"a" * 255, b" ", b"-rf", b"\x01")):
        with open(top + b"/" + name, "wb") as file:
            file.write(b"%d" % number)
        os.mkdir(top + b"/d" + name[:200])
        os.symlink(name, top + b"/s" + name[:200])
    (files / "circle").symlink_to("circle")
    (files / "up").mkdir()
    (files / "up" / "again").symlink_to("..")
    (files / "one").symlink_to("other")
    (files / "other").symlink_to("one")
    for number, time_s in enumerate((-1, -(1 << 31), 0, 1 << 31, 1 << 33)):
        os.utime(files / f"f{number}", (time_s, time_s))
        os.utime(files / "up", (time_s, time_s))
    for number in range(5, 10):  # the same size again, with an older time each time
        (files / f"f{number}").write_bytes(b"x")
        os.utime(files / f"f{number}", (10**9 - number, 10**9 - number))
    equals_fresh(library, files)


def test_files_that_vanish_between_steps(library, files):
    """While a location is walked and read for the first time, and again."""
    vanishing = library.folder("Vanishing")
    churn = subprocess.Popen([sys.executable, "-c", _CHURN, str(vanishing), "200"])
    try:
        library.add(vanishing)
        for _ in range(5):
            library.sd("location", "rescan", "Vanishing")
            errno_of(os.listdir, library.mnt / "Vanishing")
        assert churn.wait(60) == 0
    finally:
        churn.kill()
        churn.wait()
    equals_fresh(library, files, vanishing)


_CHURN = """
import os, shutil, sys
top, rounds = sys.argv[1], int(sys.argv[2])
for number in range(rounds):
    for directory in range(5):
        path = f"{top}/d{directory}/e{number % 3}"
        os.makedirs(path, exist_ok=True)
        for name in range(4):
            with open(f"{path}/f{name}", "wb") as file:
                file.write(b"%d" % number * (1 + name * 2000))
    shutil.rmtree(f"{top}/d{number % 5}")
    if number % 7 == 0 and os.path.isdir(f"{top}/d{(number + 1) % 5}"):
        os.rename(f"{top}/d{(number + 1) % 5}", f"{top}/away{number % 4}") if not os.path.exists(
            f"{top}/away{number % 4}") else shutil.rmtree(f"{top}/away{number % 4}")
"""


def test_a_directory_that_took_the_place_of_another_while_nothing_ran(library, files):
    """It is seen leaving before it is seen arriving: what is in it comes along all the same."""
    for name in ("p1/c", "p2/cz"):
        (files / name / "deep").mkdir(parents=True)
        for number in range(3):
            (files / name / f"{number}").write_bytes(f"{name} {number}".encode())
            (files / name / "deep" / f"{number}").write_bytes(f"deep {name} {number}".encode())
    calm(library)
    library.sd("tag", "add", "Kept", library.mnt / "Files" / "p1" / "c" / "deep" / "1")
    library.unmount()
    shutil.rmtree(files / "p2" / "cz")
    (files / "p1" / "c").rename(files / "p2" / "cz")
    library.mount()
    equals_fresh(library, files)
    assert os.getxattr(library.mnt / "Files" / "p2" / "cz" / "deep" / "1", TAGS) == b"Kept"


@pytest.mark.parametrize(("old", "new"), [("p1/old", "p1/new"), ("p1/old", "p2/new"), ("p2/old", "p1/new")])
def test_a_tree_that_was_renamed_and_changed_while_nothing_ran(library, files, old, new):
    """Its rows come along, and what happened in it is seen as well."""
    for place in ("p1", "p2"):
        (files / place).mkdir()
    for directory in ("", "deep", "deep/er"):
        (files / old / directory).mkdir()
        for name in ("kept", "written", "gone"):
            (files / old / directory / name).write_bytes(f"{directory} {name}".encode())
    calm(library)
    library.sd("tag", "add", "Kept", library.mnt / "Files" / old / "deep" / "written")
    library.unmount()
    (files / old).rename(files / new)
    for directory in ("", "deep", "deep/er"):
        with open(files / new / directory / "written", "ab") as file:
            file.write(b" and more")
        (files / new / directory / "gone").unlink()
    library.mount()
    equals_fresh(library, files)
    assert os.getxattr(library.mnt / "Files" / new / "deep" / "written", TAGS) == b"Kept"


@sizes(3000, 100_000)
def test_a_large_directory_is_renamed(library, files, size):
    """Through the mount at once, behind it in one round: numbers and tags of what is in it are kept."""
    for number in range(size):
        path = files / "large" / f"d{number // 1000}"
        if number % 1000 == 0:
            path.mkdir(parents=True)
        (path / f"f{number}").write_bytes(b"%d" % number)
    calm(library, 600)
    shown = library.mnt / "Files"
    some = [f"d{number // 1000}/f{number}" for number in range(0, size, size // 50)]
    for name in some[:5]:
        library.sd("tag", "add", "Kept", shown / "large" / name)
    before = {name: (shown / "large" / name).stat().st_ino for name in some}

    def kept(top: str) -> bool:
        assert {name: (shown / top / name).stat().st_ino for name in some} == before
        return all(os.getxattr(shown / top / name, TAGS) == b"Kept" for name in some[:5])

    began_s = time.monotonic()
    os.rename(shown / "large", shown / "through")
    renamed_s = time.monotonic()
    os.stat(shown / "through")
    os.stat(shown / "through" / some[-1])
    seen_s = time.monotonic()
    assert not (shown / "large").exists()
    assert kept("through")
    print(
        f"{size} files: renamed in {1e3 * (renamed_s - began_s):.2f} ms, seen {1e3 * (seen_s - renamed_s):.2f} ms later"
    )
    calm(library, 300)
    library.verify()
    began_s = time.monotonic()
    os.rename(files / "through", files / "behind")
    eventually(lambda: kept("behind"), "it is seen", 30)
    print(f"behind the mount: seen after {1e3 * (time.monotonic() - began_s):.0f} ms")
    assert not (shown / "through").exists()
    if size > 10_000:
        calm(library, 300)
        library.verify()
    else:
        equals_fresh(library, files)


def test_what_may_not_be_read_by_who_indexes(base, root_only, fuse):
    """A closed directory is an error of the job, and what was known in it stays; opened again, it is as the disk."""
    home = base / "home"
    for path in (home, home / "Files", home / "Files" / "closed", home / "mnt"):
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
    for name in ("closed/known", "open"):
        (home / "Files" / name).write_bytes(name.encode())
    closed = home / "Files" / "closed"

    def steps(*scripts: str) -> str:
        text = "; ".join(scripts)
        done = subprocess.run(
            as_nobody(base / "scratch", sys.executable, "-c", _AS_NOBODY, str(home), text),
            capture_output=True, text=True, check=False, timeout=110, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = steps("mount", "idle", "end")
    closed.chmod(0)
    (home / "Files" / "open").write_bytes(b"changed")
    said = steps("mount", "idle", "notes", "look", "end")
    assert "closed could not be read: Permission denied" in said
    assert "unexpected" not in said
    assert "closed/known" in said, "what was known stays"
    closed.chmod(0o755)
    (closed / "new").write_bytes(b"new")
    steps("mount", "idle", "verify", "end")


_AS_NOBODY = """
import json, os, sqlite3, subprocess, sys
home, steps = sys.argv[1], sys.argv[2].split("; ")
os.environ.update(HOME=home, SDMOUNT_DATA_DIR=home + "/data", XDG_RUNTIME_DIR=home + "/run")
os.makedirs(home + "/run", mode=0o700, exist_ok=True)
def run(*words):
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    print(words, done.stdout, done.stderr)
    if done.returncode:
        sys.exit(f"{words}: {done.returncode}")
    return done.stdout
for step in steps:
    if step == "mount":
        run("fusefs.sdmount", home + "/mnt", home + "/Files")
    elif step == "idle":
        run("vdfs.cli", "status", "--wait-idle", "--timeout", "50")
    elif step == "notes":
        for one in json.loads(run("vdfs.cli", "--json", "job", "list"))["jobs"]:
            for job in (one["job"], *one["parts"]):
                run("vdfs.cli", "job", "show", str(job["id"]))
    elif step == "look":
        db = sqlite3.connect("file:" + home + "/data/libraries/Library.sdlibrary/library.db?mode=ro", uri=True)
        for (name,) in db.execute("SELECT p.name || '/' || e.name FROM entry e JOIN entry p ON p.id = e.parent_id"):
            print("row", name)
    elif step == "verify":
        run("vdfs.cli", "index", "verify", "--content")
    elif step == "end":
        run("fusefs.sdumount", home + "/mnt")
"""


def test_what_is_in_a_file_is_known_wherever_its_bytes_were_first_seen(library, files):
    """A copy comes to a deep location of what was known before: in another location, held back by a rule."""
    deep = library.folder("Deep")
    (files / "first.txt").write_text("words that were known before\n")
    (deep / ".gitignore").write_text("held\n")
    (deep / ".git").mkdir()
    library.sd("location", "add", deep, "--mode", "deep")
    calm(library)
    shutil.copy(files / "first.txt", deep / "copy.txt")
    (deep / "held").mkdir()
    (deep / "held" / "second.txt").write_text("words that were held back\n")
    calm(library)
    (deep / ".gitignore").unlink()
    calm(library)
    rows = rows_of(library)
    for name in (b"Deep/copy.txt", b"Deep/held/second.txt"):
        eventually(lambda name=name: rows_of(library)[name]["reading"] == 1, f"{name!r} was read: {rows[name]}", 10)
