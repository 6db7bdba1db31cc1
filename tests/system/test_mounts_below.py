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
