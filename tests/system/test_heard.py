"""What is heard of changes behind the mount while something else is under way: a first scan whose reports wait, a
round of the watch, a queue that is long. Nothing that happened in between is lost, and nothing is believed for good
that is no longer so.

A first scan waits while somebody uses the mount: reports of a large directory then take a while to be taken in, and
what happens meanwhile in directories that were listed already is heard before their rows are written.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.harness import Mounted, children, eventually
from tests.system.storm import calm, opened

TAGS = "user.xdg.tags"
HUGE = 10_000
pytestmark = pytest.mark.timeout(300)


def names_in(library: Mounted, directory: str) -> set[str]:
    """The names that the index has in directories that are called so."""
    sql = "SELECT e.name FROM entry e JOIN entry p ON p.id = e.parent_id WHERE p.name = ?"
    with opened(library) as db:
        return {os.fsdecode(name) for (name,) in db.execute(sql, (directory.encode(),))}


def kernel_watches(library: Mounted) -> int:
    """How many directories the kernel watches for the server."""
    count = 0
    for path in Path(f"/proc/{library.pid}/fdinfo").iterdir():
        try:
            count += path.read_text().count("inotify wd:")
        except OSError:  # it was closed a moment ago
            continue
    return count


def believed_watches(library: Mounted) -> int:
    return int(library.sd_json("status")["watches"])


def tags(path: Path) -> bytes | None:
    try:
        return os.getxattr(path, TAGS)
    except OSError:
        return None


@pytest.fixture
def big(library: Mounted) -> Path:
    """A directory that is no location yet, with a large one in it that is listed early; another location is mounted."""
    top = library.folder("Big")
    (top / "huge").mkdir()
    for number in range(HUGE):
        os.close(os.open(top / "huge" / f"f{number:05d}", os.O_CREAT | os.O_WRONLY))
    small = library.folder("Small")
    (small / "a").write_bytes(b"a")
    library.mount(small)
    calm(library)
    return top


@contextmanager
def first_scan(library: Mounted, top: Path, taken_in: int) -> Iterator[None]:
    """While `top` is scanned for the first time and somebody uses the mount, so that reports wait; from when so many
    rows of the large directory are written on. Afterwards all is at rest."""
    ends = threading.Event()

    def use() -> None:
        while not ends.is_set():
            os.stat(library.mnt / "Small" / "a")
            os.listdir(library.mnt / "Small")
            time.sleep(0.02)

    user = threading.Thread(target=use)
    user.start()
    try:
        library.sd("location", "add", top)
        eventually(lambda: len(names_in(library, "huge")) > taken_in, "it is taken in", 60)
        yield
    finally:
        ends.set()
        user.join()
    calm(library, 200)
    time.sleep(1.5)  # what appeared is walked once more after a second of quiet
    calm(library)


def test_directories_that_go_before_their_reports_are_not_believed_to_be_watched(library, big):
    """Somebody looked into them, so they are watched; they are removed, and only then their reports are taken in."""
    for number in range(100):
        (big / f"z{number:03d}").mkdir()
    with first_scan(library, big, 100):
        for number in range(100):
            os.listdir(library.mnt / "Big" / f"z{number:03d}")
        eventually(lambda: len(names_in(library, "huge")) > HUGE * 4 // 5, "nearly all is taken in", 60)
        for number in range(100):
            (big / f"z{number:03d}").rmdir()
            (big / f"z{number:03d}").mkdir()
    assert believed_watches(library) == kernel_watches(library)
    for number in range(100):
        (big / f"z{number:03d}" / "late").touch()
    calm(library)
    time.sleep(1)
    library.verify()


def test_directories_that_go_in_an_overflow_before_their_reports(library, big):
    """The end of their watches is among what was lost."""
    queued = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if queued > 20_000:
        pytest.skip(f"the kernel keeps {queued} events here")
    for number in range(100):
        (big / "q" / f"z{number:03d}").mkdir(parents=True)
    with first_scan(library, big, HUGE * 4 // 5):
        os.kill(library.pid, signal.SIGSTOP)
        try:
            for number in range(queued // 2 + 500):
                (library.disk / "Small" / f"x{number}").touch()
            for number in range(100):
                (big / "q" / f"z{number:03d}").rmdir()
            for number in range(100):
                (big / "q" / f"z{number:03d}").mkdir()
        finally:
            os.kill(library.pid, signal.SIGCONT)
    assert "overflowed" in library.log(), "the queue did overflow"
    assert believed_watches(library) == kernel_watches(library)
    for number in range(100):
        (big / "q" / f"z{number:03d}" / "late").touch()
    calm(library)
    time.sleep(1)
    library.verify()


def test_directories_that_move_to_another_location_before_their_reports(library, big):
    """They are watched where they are now, whatever a report says of where they were."""
    for number in range(20):
        (big / "q" / f"z{number:02d}").mkdir(parents=True)
    with first_scan(library, big, HUGE * 4 // 5):
        for number in range(20):
            (big / "q" / f"z{number:02d}").rename(library.disk / "Small" / f"z{number:02d}")
            time.sleep(0.03)
    for number in range(20):
        (library.disk / "Small" / f"z{number:02d}" / "late").touch()
    time.sleep(1)
    calm(library)
    library.verify()


def test_directories_that_take_the_names_of_others_before_they_are_listed(library, big):
    """Between the listing of what is above them and their own: a report of one is not taken for the other's."""
    for number in range(20):
        (big / f"z{number:02d}").mkdir()
    with first_scan(library, big, 1000):
        for number in range(20):
            (big / f"z{number:02d}").rename(big / f"moved{number:02d}")
            (big / f"z{number:02d}").mkdir()
            (big / f"z{number:02d}" / "other").touch()
        for number in range(20):
            os.listdir(library.mnt / "Big" / f"z{number:02d}")
            os.listdir(library.mnt / "Big" / f"moved{number:02d}")
    for number in range(20):
        (big / f"z{number:02d}" / "late").touch()
        (big / f"moved{number:02d}" / "late").touch()
    time.sleep(1)
    calm(library)
    library.verify()


def test_files_that_go_from_a_large_directory_while_it_is_taken_in(library, big):
    with first_scan(library, big, 300):
        for number in range(HUGE - 1, HUGE // 2, -20):
            (big / "huge" / f"f{number:05d}").unlink()
            time.sleep(0.001)
    assert names_in(library, "huge") == set(os.listdir(big / "huge"))
    library.verify()


def test_files_that_go_from_a_directory_that_somebody_saw_before_its_report(library, big):
    for number in range(40):
        (big / f"z{number:02d}").mkdir()
        for name in range(20):
            (big / f"z{number:02d}" / f"k{name}").touch()
    with first_scan(library, big, 100):
        for number in range(40):
            os.listdir(library.mnt / "Big" / f"z{number:02d}")
        eventually(lambda: len(names_in(library, "huge")) > HUGE * 4 // 5, "nearly all is taken in", 60)
        for number in range(40):
            for name in range(5):
                (big / f"z{number:02d}" / f"k{name}").unlink()
            time.sleep(0.02)
    library.verify()


def test_files_that_move_into_what_was_not_listed_yet_keep_their_identity(library):
    """The first listing of a location asks for no moves, so it does not know them: who takes the old row out does."""
    top = library.folder("Big")
    for number in range(100):
        (top / f"d{number:03d}").mkdir()
    (top / "zz" / "deep" / "deeper").mkdir(parents=True)
    names = [f"f{number}" for number in range(20)]
    for name in names:
        (top / name).write_bytes(name.encode())
    library.mount()
    library.sd("location", "add", top)
    held = [pid for pid in _all_below(library.pid) if b"forkserver" in _command(pid) and not children(pid)]
    for pid in held:
        os.kill(pid, signal.SIGSTOP)
    shown = library.mnt / "Big"
    try:
        for name in names:
            os.setxattr(shown / name, TAGS, b"Mine")
        before = [os.getxattr(shown / name, "user.vdfs.id") for name in names]
        time.sleep(0.5)
        for name in names:
            os.rename(top / name, top / "zz" / "deep" / "deeper" / name)
        time.sleep(0.5)
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)
    calm(library, 100)
    deeper = shown / "zz" / "deep" / "deeper"
    assert [os.getxattr(deeper / name, "user.vdfs.id") for name in names] == before
    assert {tags(deeper / name) for name in names} == {b"Mine"}
    library.verify()


def _all_below(pid: int) -> list[int]:
    below = children(pid)
    return below + [one for child in below for one in _all_below(child)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


def test_a_write_at_the_end_of_a_long_queue_is_heard_by_who_asks(library, files):
    """Size and mtime are as before, and the mode explains the ctime: only the event tells of the write."""
    (files / "noise").mkdir()
    calm(library)
    os.kill(library.pid, signal.SIGSTOP)
    try:
        for number in range(4500):
            (files / "noise" / f"n{number % 10}-{'x' * 40}{number}").touch()
        before = (files / "f3").stat()
        with (files / "f3").open("r+b") as file:
            file.write(b"Z")
        os.utime(files / "f3", ns=(before.st_atime_ns, before.st_mtime_ns))
        (files / "f3").chmod(0o600)
        asks = subprocess.Popen(["stat", str(library.mnt / "Files" / "f3")], stdout=subprocess.DEVNULL)
        time.sleep(0.3)
    finally:
        os.kill(library.pid, signal.SIGCONT)
    assert asks.wait(30) == 0
    calm(library)
    assert "overflowed" not in library.log(), "the queue was long enough"
    library.verify("--content")


def test_changes_in_a_directory_that_is_renamed_all_the_time(library, files):
    """It is never where the index has it; what changed in it is looked at when it has come to rest."""
    top = files / "roams"
    top.mkdir()
    for number in range(50):
        (top / f"f{number}").write_bytes(b"%d" % number)
    calm(library)
    for burst in range(3):
        until_s, at, has_written = time.monotonic() + 1.5, top, False
        renames = 0
        while time.monotonic() < until_s:
            new = files / f"a{renames % 40}"
            at.rename(new)
            at, renames = new, renames + 1
            if not has_written and time.monotonic() > until_s - 1.2:
                (at / f"new{burst}").write_bytes(b"new")
                (at / f"f{burst}").unlink()
                has_written = True
        at.rename(top)
        eventually(lambda n=burst: f"new{n}" in names_in(library, "roams"), "what is new is known", 10)
        eventually(lambda n=burst: f"f{n}" not in names_in(library, "roams"), "what is gone is not", 10)
    calm(library)
    library.verify()


def test_saves_by_backups_that_are_there_while_others_write(library, files):
    """The two halves of a rename are heard in a round that looks at other names; the file goes on in the next one."""
    shown = library.mnt / "Files"
    for number in range(10):
        (files / f"f{number}~").write_bytes(b"older")
    calm(library)
    for number in range(10):
        library.sd("tag", "add", "Mine", shown / f"f{number}")
    (files / "busy").mkdir()
    ends = threading.Event()

    def write() -> None:
        for number in range(10**9):
            if ends.is_set():
                return
            (files / "busy" / f"x{number % 2000}").write_bytes(b"%d" % number)
            if number % 50 == 0:
                time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for save in range(5):
            for number in range(10):
                os.rename(files / f"f{number}", files / f"f{number}~")
                time.sleep(0.1)
                (files / f"f{number}").write_bytes(b"version %d" % save)
                time.sleep(0.05)
    finally:
        ends.set()
        writer.join()
    calm(library)
    assert [tags(shown / f"f{number}") for number in range(10)] == [b"Mine"] * 10


def test_a_name_that_one_program_puts_aside_through_the_mount_and_another_makes(library, files):
    """They are two files, and stay so: the kernel's telling of the rename changes nothing."""
    shown = library.mnt / "Files"
    library.sd("tag", "add", "Mine", shown / "f0")
    calm(library)
    subprocess.run(["mv", shown / "f0", shown / "f0.old"], check=True)
    subprocess.run(["touch", shown / "f0"], check=True)
    assert (tags(shown / "f0"), tags(shown / "f0.old")) == (None, b"Mine")
    time.sleep(1)
    assert (tags(shown / "f0"), tags(shown / "f0.old")) == (None, b"Mine")


def test_a_save_behind_the_mount_that_fails_gives_the_backup_its_tags_again(library, files):
    shown = library.mnt / "Files"
    library.sd("tag", "add", "Mine", shown / "f0")
    calm(library)
    os.rename(files / "f0", files / "f0~")
    time.sleep(0.1)
    (files / "f0").write_bytes(b"half of it")
    eventually(lambda: tags(shown / "f0") == b"Mine", "the new version has them", 5)
    (files / "f0").unlink()
    eventually(lambda: tags(shown / "f0~") == b"Mine", "the backup has them", 5)
    os.rename(files / "f0~", files / "f0")
    eventually(lambda: tags(shown / "f0") == b"Mine", "the file has them", 5)
    calm(library)
    assert tags(shown / "f0") == b"Mine"
    library.verify("--content")


@pytest.mark.parametrize("make", ["link", "symlink", "mknod", "rename"])
def test_a_name_that_left_behind_the_mount_a_moment_ago_may_be_given_anew(library, make):
    """Nobody has heard of that yet, and the row of the name waits for the other half: the new file has the name, and
    what left keeps its tag."""
    docs = library.folder("Docs")
    (docs / "source").touch()
    library.mount(docs)
    library.wait_idle()
    shown = library.mnt / "Docs"
    makers = {
        "link": lambda name: os.link(shown / "source", name),
        "symlink": lambda name: os.symlink("source", name),
        "mknod": lambda name: os.mknod(name),
        "rename": lambda name: os.rename(shown / "made", name),
    }
    for number in range(40):
        name = f"name{number}"
        (docs / name).write_text(name)
        os.setxattr(shown / name, TAGS, name.encode())
        if make == "rename":
            (shown / "made").touch()
        os.rename(docs / name, docs / (f"{name}~" if number % 2 else f"other{number}"))
        makers[make](shown / name)
    library.settle()
    for number in range(0, 40, 2):  # of a backup the new file is the next version
        assert tags(shown / f"other{number}") == b"name%d" % number
    library.verify("--content")
