"""Who watches directories of the mount hears of what came from elsewhere, as of what programs do in it.

What other devices tell comes by rows (tests/remote_rows.py), what is done behind the mount by the real files. The
watcher is a process of its own with inotify, as file managers, `inotifywait -m` and scripts have it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.conftest import fresh_base, fresh_library
from tests.system.harness import Mounted, eventually, gone, is_dead, names
from tests.system.test_remote import Told
from tests.system.watcher import watching

NEWER_NS = 1_700_000_000_000_000_000
pytestmark = pytest.mark.timeout(300)


class Shown(NamedTuple):
    """A location that this device and `laptop` have, mounted."""

    library: Mounted
    told: Told
    branch: int
    top: Path
    disk: Path


@pytest.fixture(scope="module")
def shown(fuse: None, announce: Callable[[Path], None]) -> Iterator[Shown]:
    for base in fresh_base(announce):
        for library in fresh_library(base):
            disk = library.folder("Photos")
            library.mount(disk)
            library.wait_idle()
            library.unmount()
            told = Told(library)
            try:
                branch = told("branch", told("device", "Laptop"), "Photos")
                told("follow")
                the_poker(library.pid)
                yield Shown(library, told, branch, library.mnt / "Photos", disk)
            finally:
                told.close()


class Place(NamedTuple):
    """A directory for one test, which both devices have."""

    shown: Shown
    name: str
    mnt: Path
    disk: Path

    def tell(self, what: str, name: str, *more: object, **named: object) -> None:
        """Another device tells something of a name in the directory."""
        told = [f"{self.name}/{one}" if what == "move" and isinstance(one, str) else one for one in more]
        self.shown.told(what, self.shown.branch, f"{self.name}/{name}", *told, **named)


@pytest.fixture
def place(shown: Shown, request: pytest.FixtureRequest) -> Place:
    name = request.node.name[:60]
    (shown.disk / name).mkdir()
    shown.told("directory", shown.branch, name)
    eventually((shown.top / name).is_dir, "it is shown")
    os.listdir(shown.top / name)
    with watching(shown.top, shown.top / name) as watcher:
        watcher.quiet()  # until what that was is told
    return Place(shown, name, shown.top / name, shown.disk / name)


def soon(latencies: list[float]) -> None:
    """Within a second; a busy machine may take that away, so the best counts."""
    assert min(latencies) < 1.0, latencies


def test_what_another_device_does_raises_the_events_of_doing_it(place: Place) -> None:
    """Each with its name, and nothing else; a rename with both halves of one cookie."""
    latencies = []
    steps: list[tuple[Callable[[], object], list[tuple[str, str]]]] = [
        (lambda: place.tell("file", "a", "b:one"), [("CREATE", "a"), ("CLOSE_WRITE", "a")]),
        (lambda: place.tell("directory", "d"), [("CREATE", "d")]),
        (lambda: place.tell("link", "l", "a"), [("CREATE", "l")]),
        (lambda: place.tell("file", "a", "b:another", mtime_ns=NEWER_NS), [("MODIFY", "a"), ("CLOSE_WRITE", "a")]),
        (lambda: place.tell("move", "a", "b"), [("MOVED_FROM", "a"), ("MOVED_TO", "b")]),
        (lambda: place.tell("move", "d", "e"), [("MOVED_FROM", "d"), ("MOVED_TO", "e")]),
        (lambda: place.tell("remove", "b"), [("DELETE", "b")]),
        (lambda: place.tell("remove", "e"), [("DELETE", "e")]),
        (lambda: place.tell("remove", "l"), [("DELETE", "l")]),
    ]
    with watching(place.mnt) as watcher:
        for act, expected in steps:
            watcher.forget()
            act()
            latencies.append(watcher.until_seen(*expected))
            assert watcher.quiet(0.7) == expected
            if expected[0][0] == "MOVED_FROM":
                assert watcher.seen[0].cookie == watcher.seen[1].cookie != 0
    assert names(place.mnt) == []
    soon(latencies)


def test_what_is_done_behind_the_mount_raises_them_too(place: Place) -> None:
    latencies = []
    steps: list[tuple[Callable[[], object], list[tuple[str, str]]]] = [
        (lambda: (place.disk / "a").write_bytes(b"1"), [("CREATE", "a"), ("CLOSE_WRITE", "a")]),
        (lambda: (place.disk / "a").write_bytes(b"22"), [("MODIFY", "a"), ("CLOSE_WRITE", "a")]),
        (lambda: (place.disk / "a").chmod(0o600), [("ATTRIB", "a")]),
        (lambda: (place.disk / "a").rename(place.disk / "b"), [("MOVED_FROM", "a"), ("MOVED_TO", "b")]),
        (lambda: (place.disk / "b").unlink(), [("DELETE", "b")]),
        (lambda: (place.disk / "d").mkdir(), [("CREATE", "d")]),
        (lambda: (place.disk / "d").rmdir(), [("DELETE", "d")]),
    ]
    with watching(place.mnt) as watcher:
        for act, expected in steps:
            watcher.forget()
            act()
            latencies.append(watcher.until_seen(*expected))
            assert [one for one in watcher.quiet(0.7) if one[0] != "ATTRIB" or "ATTRIB" in dict(expected)] == expected
    soon(latencies)


def test_what_is_done_in_the_mount_is_told_once(place: Place) -> None:
    with watching(place.mnt) as watcher:
        (place.mnt / "a").write_bytes(b"1")
        (place.mnt / "a").rename(place.mnt / "b")
        (place.mnt / "b").unlink()
        seen = watcher.quiet()
    assert [one for one in seen if one[0] != "MODIFY"] == [
        ("CREATE", "a"), ("CLOSE_WRITE", "a"), ("MOVED_FROM", "a"), ("MOVED_TO", "b"), ("DELETE", "b"),
    ]  # fmt: skip


def test_what_was_there_before_somebody_looked_is_not_new(place: Place) -> None:
    """Nor what another device has of what is shown already; other bytes are a change."""
    (place.disk / "below").mkdir()
    for number in range(30):
        (place.disk / "below" / f"f{number}").write_bytes(b"x")
    (place.disk / "same").write_bytes(b"same")
    eventually((place.mnt / "below").is_dir, "it is shown")
    with watching(place.mnt, place.mnt / "below") as watcher:
        watcher.quiet(0.7)
        watcher.forget()
        assert len(names(place.mnt / "below")) == 30
        place.tell("file", "same", "b:same", mtime_ns=NEWER_NS)
        assert [one for one in watcher.quiet() if one[0] == "CREATE"] == []


def test_who_watches_the_file_itself_hears_of_it(place: Place) -> None:
    place.tell("file", "log", "b:one")
    eventually((place.mnt / "log").exists, "it is shown")
    with watching(place.mnt / "log") as watcher:
        watcher.quiet(0.7)
        watcher.forget()
        place.tell("file", "log", "b:one two", mtime_ns=NEWER_NS)
        watcher.until_seen(("MODIFY", ""))
        assert (place.mnt / "log").stat().st_size == 7
        place.tell("remove", "log")
        watcher.until_seen(("DELETE_SELF", ""))


def test_a_tag_that_was_set_elsewhere_is_a_change_of_attributes(place: Place) -> None:
    (place.disk / "tagged").write_bytes(b"x")
    eventually((place.mnt / "tagged").exists, "it is shown")
    with watching(place.mnt) as watcher:
        watcher.quiet(0.7)
        watcher.forget()
        place.shown.library.sd("tag", "add", "sea", place.mnt / "tagged")
        watcher.until_seen(("ATTRIB", "tagged"))
        assert os.getxattr(place.mnt / "tagged", "user.xdg.tags") == b"sea"


LOOKER = """
import os, sys
top = sys.argv[1]
while os.getppid() > 1:
    for n in range(40):
        for name in (f"n{n}", f"d{n}"):
            try:
                os.stat(f"{top}/{name}")
            except OSError:
                pass
    os.listdir(top)
"""


def test_names_that_somebody_looks_up_meanwhile_are_created_and_removed_all_the_same(place: Place) -> None:
    looker = subprocess.Popen([sys.executable, "-c", LOOKER, str(place.mnt)], stdin=subprocess.DEVNULL)
    try:
        with watching(place.mnt) as watcher:
            for number in range(40):
                place.tell("file", f"n{number}", "b:x")
                place.tell("directory", f"d{number}")
            wanted = [("CREATE", f"{kind}{number}") for number in range(40) for kind in "nd"]
            watcher.until_seen(*wanted, within_s=30)
            watcher.quiet()
            assert sorted(one for one in watcher.plain() if one[0] == "CREATE") == sorted(wanted)
            for number in range(40):
                place.tell("remove", f"n{number}")
                place.tell("remove", f"d{number}")
            wanted = [("DELETE", f"{kind}{number}") for number in range(40) for kind in "nd"]
            watcher.until_seen(*wanted, within_s=30)
            assert looker.poll() is None
    finally:
        looker.kill()
        looker.wait()
    assert names(place.mnt) == []


def test_nothing_of_it_reaches_the_real_files_or_the_index(place: Place) -> None:
    """No name, no time, no change that would be told to others."""

    def state() -> tuple[object, ...]:
        stats = [os.lstat(path) for path in (place.disk, place.disk / "own", place.mnt, place.mnt / "own")]
        return tuple((st.st_mtime_ns, st.st_ctime_ns, st.st_size) for st in stats), names(place.disk)

    (place.disk / "own").write_bytes(b"own")
    eventually((place.mnt / "own").exists, "it is shown")
    with watching(place.mnt) as watcher:
        place.shown.library.settle()
        before, last = state(), place.shown.told("own_work")
        for number in range(5):
            place.tell("file", f"f{number}", "b:x")
            watcher.until_seen(("CREATE", f"f{number}"))
            place.tell("remove", f"f{number}")
            watcher.until_seen(("DELETE", f"f{number}"))
        assert state() == before
        assert place.shown.told("own_work") == last
    place.shown.library.wait_idle()
    place.shown.library.verify()


def pokers(server: int) -> list[int]:
    """The pokers of a server, by what they and their parent were started for."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            lines = [(path / "cmdline").read_bytes().split(b"\0") for path in (entry, Path(f"/proc/{parent}"))]
        except (OSError, ValueError, IndexError):
            continue
        if all(b"fusefs.poker:OPERATIONS" in words and b"%d" % server in words for words in lines):
            found.append(int(entry.name))
    return found


def the_poker(server: int) -> int:
    return eventually(lambda: pokers(server), "there is a poker", 30)[0]


def test_many_changes_at_once_are_one_event_for_the_directory(place: Place) -> None:
    """And nobody else waits for them."""
    count = 5000
    with watching(place.mnt) as watcher:
        place.shown.told("files", place.shown.branch, place.name, count)
        eventually(lambda: len(os.listdir(place.mnt)) == count, "all are shown")
        watcher.until(lambda seen: ("ATTRIB", "") in seen, "the directory is to be looked at again")
        seen = watcher.quiet()
    assert len(seen) < count // 5, len(seen)
    assert seen[-1] == ("ATTRIB", ""), seen[-5:]


def test_a_poker_that_dies_or_hangs_does_so_alone(place: Place) -> None:
    """The mount goes on, and who watches hears of the next change."""
    server = place.shown.library.pid
    with watching(place.mnt) as watcher:
        place.tell("file", "first", "b:x")
        watcher.until_seen(("CREATE", "first"))
        os.kill(the_poker(server), signal.SIGKILL)
        place.tell("file", "second", "b:x")
        assert names(place.mnt) == ["first", "second"]
        watcher.until(lambda seen: ("CREATE", "second") in seen or ("ATTRIB", "") in seen, "it is told", 30)
        hanging = the_poker(server)
        os.kill(hanging, signal.SIGSTOP)
        place.tell("file", "third", "b:x")
        assert names(place.mnt) == ["first", "second", "third"]
        watcher.forget()
        watcher.until(lambda seen: ("CREATE", "third") in seen or ("ATTRIB", "") in seen, "it is told", 90)
        eventually(lambda: gone(hanging), "the one that hung is ended")


CHANGING = """
import os, sys, time
top = sys.argv[1]
n = 0
while os.getppid() > 1:
    n += 1
    name = f"{top}/behind{n % 300}"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.rename(name, name + ".moved")
    if n % 3:
        os.unlink(name + ".moved")
    time.sleep(0.002)
"""


@pytest.mark.parametrize("round_", range(3))
def test_a_server_that_is_killed_while_it_pokes_leaves_nobody_waiting(library: Mounted, round_: int) -> None:
    docs = library.folder("Docs")
    library.mount(docs)
    library.wait_idle()
    changing = subprocess.Popen([sys.executable, "-c", CHANGING, str(docs)], stdin=subprocess.DEVNULL)
    looker = subprocess.Popen([sys.executable, "-c", LOOKER, str(library.mnt / "Docs")], stdin=subprocess.DEVNULL)
    try:
        with watching(library.mnt / "Docs") as watcher:
            watcher.until(lambda seen: len(seen) > 10, "events come", 30)
            time.sleep(0.1 * round_)
            pid = library.pid
            doomed = pokers(pid)
            os.kill(pid, signal.SIGKILL)
            looker.wait(10)  # TimeoutExpired: it waits for a server that is gone
            eventually(lambda: gone(pid), "the killed server ends")
            eventually(lambda: is_dead(library.mnt), "its mount is dead, not silent")
            eventually(lambda: all(map(gone, doomed)), "its poker ends")
    finally:
        for process in (changing, looker):
            process.kill()
            process.wait()
    library.mount()
    library.wait_idle()
    library.verify()


def test_a_mount_is_ended_while_it_is_poked(library: Mounted) -> None:
    docs = library.folder("Docs")
    library.mount(docs)
    library.wait_idle()
    changing = subprocess.Popen([sys.executable, "-c", CHANGING, str(docs)], stdin=subprocess.DEVNULL)
    try:
        for _ in range(3):
            with watching(library.mnt / "Docs") as watcher:
                watcher.until(lambda seen: len(seen) > 10, "events come", 30)
                library.unmount()
            library.mount()
    finally:
        changing.kill()
        changing.wait()


def behind(library: Mounted, *options: str) -> list[tuple[str, str]]:
    """What is seen of a file that is made and removed behind a mount."""
    docs = library.folder("Docs")
    library.mount(docs, options=options)
    library.wait_idle()
    os.listdir(library.mnt / "Docs")
    with watching(library.mnt / "Docs") as watcher:
        (docs / "new").write_bytes(b"x")
        eventually((library.mnt / "Docs" / "new").exists, "it shows")
        if "ro" not in options:
            watcher.until_seen(("CLOSE_WRITE", "new"), within_s=30)
        (docs / "new").unlink()
        eventually(lambda: not (library.mnt / "Docs" / "new").exists(), "it is gone")
        return watcher.quiet(2)


def test_a_mount_that_cannot_be_changed_raises_no_events(library: Mounted) -> None:
    assert behind(library, "-o", "ro") == []


def test_a_shared_mount_raises_them(library: Mounted, root_only: None) -> None:
    assert behind(library, "-o", "allow_other") == [("CREATE", "new"), ("CLOSE_WRITE", "new"), ("DELETE", "new")]


def test_a_mount_of_ones_own_raises_them(library: Mounted) -> None:
    assert behind(library) == [("CREATE", "new"), ("CLOSE_WRITE", "new"), ("DELETE", "new")]
