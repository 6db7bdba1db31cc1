"""File systems that are mounted inside a location, before or while it is shown: seen, told apart, and never waited for.

Root mounts them: a stick is a tmpfs here, a network file system a bindfs that is stopped.
"""

import mmap
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.harness import Mounted, errno_of, eventually, mountpoints, names, tree

TAGS = "user.xdg.tags"
SOON_S = 3.0

pytestmark = pytest.mark.usefixtures("root_only")


@pytest.fixture
def put(library: Mounted) -> Iterator[Callable[..., Path]]:
    """Mounts something on a directory of a location, which is made; it is gone after the test, whatever happened."""
    points: list[Path] = []

    def mount(kind: str, point: Path, *options: str, source: str | Path = "none") -> Path:
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", kind, *options, str(source), str(point)], check=True)
        points.append(point)
        return point

    try:
        yield mount
    finally:
        for point in reversed(points):
            subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)


def quickly(call: Callable[[], object], limit_s: float = 2.0) -> None:
    began_s = time.monotonic()
    call()
    assert time.monotonic() - began_s < limit_s


def test_a_stick_on_a_directory_that_is_known(library, put):
    """What is on it shows soon, what lay beneath does not; and the other way round when it is gone."""
    home = library.folder("home")
    (home / "stick").mkdir()
    (home / "stick" / "beneath").write_bytes(b"beneath")
    (home / "stick" / "sub").mkdir()
    library.mount(home)
    shown = library.mnt / "home" / "stick"
    assert names(shown) == ["beneath", "sub"]
    library.wait_idle()
    put("tmpfs", home / "stick")
    (home / "stick" / "file").write_bytes(b"on the stick")
    (home / "stick" / "d").mkdir()
    (home / "stick" / "d" / "deep").write_bytes(b"deep")
    eventually(lambda: names(shown) == ["d", "file"], "the stick shows", SOON_S)
    assert (shown / "file").read_bytes() == b"on the stick"
    assert (shown / "d" / "deep").read_bytes() == b"deep"
    (shown / "new").write_bytes(b"new")
    assert (home / "stick" / "new").read_bytes() == b"new"
    (home / "stick" / "late").write_bytes(b"late")
    eventually(lambda: (shown / "late").exists(), "it is watched", 1.5)
    library.wait_idle()
    assert [hit["path"] for hit in library.sd_json("search", "deep")["hits"]] == [str(shown / "d" / "deep")]
    assert library.sd_json("search", "beneath")["hits"] == []
    library.verify("--content")
    umount = ["umount", str(home / "stick")]
    free = lambda: subprocess.run(umount, check=False, capture_output=True).returncode == 0  # noqa: E731
    eventually(free, "nobody keeps it busy", 8)
    eventually(lambda: names(shown) == ["beneath", "sub"], "what lay beneath is back", SOON_S)
    assert (shown / "beneath").read_bytes() == b"beneath"
    library.wait_idle()
    library.verify("--content")


@pytest.mark.parametrize("hidden", ["tmpfs", "proc"])
def test_a_mount_that_is_hidden_by_a_later_one_above_it(library, put, hidden):
    """What lies there now is a plain directory of the later one, whatever is mounted beneath; and back again."""
    home = library.folder("home")
    (home / "data").mkdir()
    put(hidden, home / "data" / "sub")
    put("tmpfs", home / "data")
    (home / "data" / "sub").mkdir()
    (home / "data" / "sub" / "seen").write_bytes(b"seen")
    library.mount(home)
    shown = library.mnt / "home" / "data"
    assert names(shown / "sub") == ["seen"]
    (shown / "sub" / "new").write_bytes(b"new")
    os.rename(shown / "sub" / "new", shown / "new")
    library.wait_idle()
    library.verify("--content")
    subprocess.run(["umount", "-l", str(home / "data")], check=True)
    eventually(lambda: names(shown) == (["sub"] if hidden == "tmpfs" else []), "what was hidden is back", SOON_S)
    subprocess.run(["umount", "-l", str(home / "data" / "sub")], check=True)
    eventually(lambda: names(shown) == ["sub"] and names(shown / "sub") == [], "nothing is mounted", SOON_S)
    library.wait_idle()
    library.verify("--content")


def test_two_volumes_with_the_same_inode_numbers(library, put):
    """Files of one number on two file systems are two files: bytes, numbers, tags, links and maps of their own."""
    home = library.folder("home")
    for stick in ("one", "two"):
        put("tmpfs", home / stick)
        (home / stick / "f").write_bytes(stick.encode() * 1000)
        os.link(home / stick / "f", home / stick / "g")
    assert os.lstat(home / "one" / "f").st_ino == os.lstat(home / "two" / "f").st_ino, "the test needs that"
    library.mount(home)
    shown = library.mnt / "home"

    def right() -> None:
        numbers = {os.lstat(shown / stick / name).st_ino for stick in ("one", "two") for name in "fg"}
        assert len(numbers) == 2
        for stick in ("one", "two"):
            for name in "fg":
                assert (shown / stick / name).read_bytes() == (home / stick / name).read_bytes()

    right()
    library.wait_idle()
    right()
    os.setxattr(shown / "one" / "f", TAGS, b"first")
    assert os.getxattr(shown / "one" / "g", TAGS) == b"first"
    assert errno_of(os.getxattr, shown / "two" / "f", TAGS) == 61
    assert TAGS not in os.listxattr(home / "two" / "f")
    for stick in ("one", "two"):
        (home / stick / "f").write_bytes(stick.upper().encode() * 1000)
    eventually(lambda: (shown / "one" / "g").read_bytes() == b"ONE" * 1000, "what was written shows", 2)
    with open(shown / "one" / "f", "r+b") as one, open(shown / "two" / "f", "r+b") as two:
        first, second = mmap.mmap(one.fileno(), 0), mmap.mmap(two.fileno(), 0)
        assert (first[:3], second[:3]) == (b"ONE", b"TWO")
        second[:3] = b"two"
        second.flush()
        assert first[:3] == b"ONE"
        first.close()
        second.close()
    assert (home / "one" / "f").read_bytes()[:3] == b"ONE"
    library.wait_idle()
    library.verify("--content")
    before = {p: os.lstat(shown / p).st_ino for p in ("one/f", "two/g", "one", "two")}
    library.remount()
    assert {p: os.lstat(shown / p).st_ino for p in before} == before
    assert os.getxattr(shown / "one" / "f", TAGS) == b"first"


@pytest.mark.parametrize("what", ["bind", "proc"])
def test_what_must_not_be_looked_into_is_hidden_when_it_comes(library, put, what):
    """A bind of our own mount, a pseudo file system: gone from the tree, never entered, back after its end."""
    home = library.folder("home")
    (home / "d").mkdir()
    (home / "d" / "own").write_bytes(b"own")
    library.mount(home)
    shown = library.mnt / "home"
    assert names(shown) == ["d"]
    library.wait_idle()
    if what == "bind":
        subprocess.run(["mount", "--bind", str(library.mnt), str(home / "d")], check=True)
    else:
        put("proc", home / "d")
    try:
        eventually(lambda: names(shown) == [], "it is hidden", SOON_S)
        quickly(lambda: errno_of(os.listdir, shown / "d"))
        quickly(lambda: library.sd("status"))
        assert errno_of(os.stat, shown / "d") == 2
        (shown / "f").write_bytes(b"life goes on")
        library.wait_idle()
        assert library.sd_json("search", "own")["hits"] == []
    finally:
        subprocess.run(["umount", "-l", str(home / "d")], check=False, capture_output=True)
    eventually(lambda: names(shown) == ["d", "f"], "it is back", SOON_S)
    assert (shown / "d" / "own").read_bytes() == b"own"
    library.wait_idle()
    library.verify("--content")


class Stoppable:
    """A bindfs inside a location, which can be stopped as a dead server is."""

    def __init__(self, real: Path, point: Path) -> None:
        self.point = point
        self.process = subprocess.Popen(["bindfs", "-f", str(real), str(point)], stderr=subprocess.DEVNULL)
        eventually(lambda: str(point) in mountpoints() or self.process.poll() is not None, "bindfs is mounted")
        if self.process.poll() is not None:
            pytest.skip("bindfs cannot mount here")

    def end(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "-l", str(self.point)], capture_output=True, check=False)
        self.process.kill()
        self.process.wait(20)


@pytest.mark.skipif(shutil.which("bindfs") is None, reason="bindfs is not installed")
@pytest.mark.parametrize("first", ["mount", "library"])
def test_a_network_file_system_inside_a_location_stops_only_itself(library, first):
    """It is shown and worked in; when its server hangs, everything beside it answers at once."""
    home, real = library.folder("home"), library.folder("elsewhere", "real")
    (real / "sub").mkdir()
    (real / "sub" / "deep").write_bytes(b"deep")
    (real / "f").write_bytes(b"far")
    (home / "nas").mkdir()
    (home / "docs").mkdir()
    (home / "docs" / "a").write_bytes(b"near")
    if first == "library":
        library.mount(home)
        assert names(library.mnt / "home" / "nas") == []
        library.wait_idle()
    nas = Stoppable(real, home / "nas")
    try:
        if first == "mount":
            library.mount(home)
        shown = library.mnt / "home"
        eventually(lambda: names(shown / "nas") == ["f", "sub"], "it shows", SOON_S)
        assert tree(shown / "nas") == tree(real)
        (shown / "nas" / "sub" / "new").write_bytes(b"new")
        assert (real / "sub" / "new").read_bytes() == b"new"
        os.rename(shown / "nas" / "sub" / "new", shown / "nas" / "newer")
        os.setxattr(shown / "nas" / "newer", TAGS, b"t")
        assert (shown / "Tags" / "t").exists() or library.sd("tag", "list", shown / "nas" / "newer") == "t\n"
        (real / "behind").write_bytes(b"behind")
        eventually(lambda: (shown / "nas" / "behind").exists(), "a change behind it", 4)
        library.wait_idle()
        library.verify("--content")
        nas.process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)  # what the kernel believed of it is over
        waiting = subprocess.Popen(["ls", "-l", str(shown / "nas" / "nope")], stderr=subprocess.DEVNULL)
        try:
            for number in range(5):
                quickly(lambda: names(shown / "docs"))
                quickly(lambda number=number: (shown / "docs" / f"n{number}").write_bytes(b"x"))
                quickly(lambda: os.listdir(shown))
                quickly(lambda: library.sd("status"), 5)
            assert waiting.wait(12) != 0
        finally:
            waiting.kill()
            waiting.wait(10)
        quickly(lambda: errno_of(lambda p: Path(p).read_bytes(), shown / "nas" / "f"), 12)
        nas.process.send_signal(signal.SIGCONT)
        eventually(lambda: errno_of(os.listdir, shown / "nas") == 0 and "f" in names(shown / "nas"), "it is back", 10)
        read = lambda: errno_of((shown / "nas" / "f").read_bytes) == 0  # noqa: E731
        eventually(read, "it is read", 10)
        assert (shown / "nas" / "f").read_bytes() == b"far"
        subprocess.run(["umount", "-l", str(home / "nas")], check=True)
        eventually(lambda: names(shown / "nas") == [], "it is gone", SOON_S)
        library.wait_idle()
        library.verify("--content")
    finally:
        nas.end()


def test_a_bind_of_our_own_mount_over_a_directory_that_somebody_holds(library, put):
    """By a descriptor no name is asked for: it must not be entered all the same, or the server waits for itself."""
    home = library.folder("home")
    (home / "d" / "sub").mkdir(parents=True)
    (home / "d" / "sub" / "f").write_bytes(b"f")
    library.mount(home)
    library.wait_idle()
    shown = library.mnt / "home"
    held = [os.open(shown / "d", os.O_RDONLY), os.open(shown / "d" / "sub", os.O_RDONLY)]
    subprocess.run(["mount", "--bind", str(library.mnt), str(home / "d")], check=True)
    try:
        for fd in held:
            quickly(lambda fd=fd: errno_of(os.listdir, fd))
            quickly(lambda fd=fd: errno_of(lambda: os.stat("nope", dir_fd=fd)))
        quickly(lambda: os.listdir(shown))
        quickly(lambda: library.sd("status"))
    finally:
        subprocess.run(["umount", "-l", str(home / "d")], check=False, capture_output=True)
        for fd in held:
            os.close(fd)
    eventually(lambda: names(shown / "d" / "sub") == ["f"], "it is back", SOON_S)
    library.wait_idle()
    library.verify("--content")


def test_a_bind_of_our_own_mount_over_a_location(library, put):
    """The location is away as long as that lasts."""
    home, other = library.folder("home"), library.folder("other")
    (home / "f").write_bytes(b"f")
    (other / "g").write_bytes(b"g")
    library.mount(home, other)
    library.wait_idle()
    shown = library.mnt / "home"
    subprocess.run(["mount", "--bind", str(library.mnt / "home"), str(home)], check=True)
    try:
        eventually(lambda: os.getxattr(shown / "f", "user.vdfs.state") == b"missing", "it is away", SOON_S)
        for _ in range(4):
            quickly(lambda: os.listdir(shown))
            quickly(lambda: errno_of((shown / "f").read_bytes))
            quickly(lambda: (library.mnt / "other" / "g").read_bytes())
            quickly(lambda: library.sd("status"))
            time.sleep(0.5)
        assert "is not there" in library.sd_fails("location", "rescan", "home")
    finally:
        subprocess.run(["umount", "-l", str(home)], check=False, capture_output=True)
    eventually(lambda: (shown / "f").read_bytes() == b"f", "it is back", SOON_S)
    library.wait_idle()
    library.verify("--content")


@pytest.mark.skipif(shutil.which("bindfs") is None, reason="bindfs is not installed")
def test_nothing_moves_between_a_location_and_a_network_folder_in_it(library):
    """EXDEV, both ways, at once, also while its server hangs; and what was refused leaves no trace."""
    home, real = library.folder("home"), library.folder("elsewhere", "real")
    (real / "f1").write_bytes(b"far")
    for directory in ("nas", "docs", "docs/dd"):
        (home / directory).mkdir()
    for name in ("c1", "c2", "c3", "c4"):
        (home / "docs" / name).write_bytes(name.encode())
    nas = Stoppable(real, home / "nas")
    try:
        library.mount(home)
        library.wait_idle()
        far, docs = library.mnt / "home" / "nas", library.mnt / "home" / "docs"
        assert names(far) == ["f1"]
        for call in (os.rename, os.link):
            assert errno_of(call, far / "f1", docs / "f1") == 18
            assert errno_of(call, docs / "c1", far / "c1") == 18
        (docs / "c1").unlink()
        os.rename(docs / "c2", docs / "c2b")
        os.rename(docs / "c3", docs / "c4")
        (docs / "dd").rmdir()
        assert names(docs) == ["c2b", "c4"]
        assert (docs / "c4").read_bytes() == b"c3"
        subprocess.run(["mv", far / "f1", docs], check=True, timeout=20)
        assert (docs / "f1").read_bytes() == b"far"
        nas.process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        moving = subprocess.Popen(["mv", str(docs / "f1"), str(far / "zz")], stderr=subprocess.DEVNULL)
        try:
            for number in range(10):
                quickly(lambda: os.listdir(docs))
                quickly(lambda: os.statvfs(library.mnt))
                quickly(lambda number=number: (docs / f"n{number}").write_bytes(b"x"))
                time.sleep(0.2)
        finally:
            nas.process.send_signal(signal.SIGCONT)
            moving.wait(30)
        library.wait_idle()
        library.verify("--content")
    finally:
        nas.end()


@pytest.mark.skipif(shutil.which("bindfs") is None, reason="bindfs is not installed")
def test_a_network_folder_that_comes_back_while_somebody_stands_in_it_is_still_one(library):
    """It is not taken for a part of the disk then, and not waited for."""
    home, real = library.folder("home"), library.folder("elsewhere", "real")
    (real / "x").mkdir()
    (home / "nas").mkdir()
    (home / "docs").mkdir()
    library.mount(home)
    library.wait_idle()
    shown = library.mnt / "home"
    held = [os.open(shown / "nas", os.O_RDONLY)]
    nas = None
    try:
        for _ in range(3):
            nas = Stoppable(real, home / "nas")
            eventually(lambda: names(shown / "nas") == ["x"], "it shows", SOON_S)
            held.append(os.open(shown / "nas", os.O_RDONLY))
            held.append(eventually(lambda: os.open(shown / "nas" / "x", os.O_RDONLY), "it opens", SOON_S))
            time.sleep(0.5)
            if len(held) < 6:
                nas.end()
                eventually(lambda: names(shown / "nas") == [], "it is gone", SOON_S)
                held.append(os.open(shown / "nas", os.O_RDONLY))
                time.sleep(0.5)
            else:
                break
        nas.process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        waiting = subprocess.Popen(
            ["ls", str(shown / "nas" / "x")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        try:
            for number in range(10):
                quickly(lambda: os.listdir(shown / "docs"))
                quickly(lambda number=number: (shown / "docs" / f"n{number}").write_bytes(b"x"))
                time.sleep(0.3)
        finally:
            nas.process.send_signal(signal.SIGCONT)
            waiting.wait(30)
    finally:
        for fd in held:
            os.close(fd)
        if nas is not None:
            nas.end()
    assert "AttributeError" not in library.log()


@pytest.mark.skipif(shutil.which("bindfs") is None, reason="bindfs is not installed")
def test_what_a_hanging_server_does_not_say_is_an_error_and_not_empty(library):
    """Nobody knows what is in a network folder that was never listed: rsync --delete must not believe it empty."""
    home, real = library.folder("home"), library.folder("elsewhere", "real")
    (real / "f").write_bytes(b"far")
    (home / "nas").mkdir()
    nas = Stoppable(real, home / "nas")
    try:
        library.mount(home)
        library.wait_idle()
        nas.process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        shown = library.mnt / "home" / "nas"
        assert errno_of(os.listdir, shown) in (110, 112)
        assert errno_of(os.stat, shown / "f") in (110, 112)
        nas.process.send_signal(signal.SIGCONT)
        eventually(lambda: names(shown) == ["f"], "it shows", 10)
    finally:
        nas.end()
