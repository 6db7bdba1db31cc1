"""Branches that go away, fill up, refuse or hang: what is known stays, errors are true and fast, the rest goes on."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from tests.system.harness import Mounted, errno_of, eventually, gone, names, one_line, tree, walk

ROOT = Path(__file__).parents[2]
TAGS = "user.xdg.tags"
AWAY = (errno.EHOSTDOWN, errno.EIO)
# What "at once" may take on a busy machine.
AT_ONCE_S = 1.0
# No call may take longer, whatever its branch does.
NEVER_LONGER_S = 10.0


def fill(directory: Path) -> None:
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "a.txt").write_bytes(b"content of a")
    (directory / "sub" / "b.txt").write_bytes(b"b" * 5000)
    (directory / "sub" / "deep" / "c").write_bytes(b"c" * 200_000)
    (directory / "sub" / "link").symlink_to("b.txt")


def timed(call: Callable[..., object], *arguments: object) -> tuple[int, float]:
    """(errno, seconds) of a call."""
    began_s = time.monotonic()
    code = errno_of(call, *arguments)
    return code, time.monotonic() - began_s


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """What a listing and stat say of everything below."""
    found: dict[str, tuple[object, ...]] = {}
    for path in walk(top):
        st = os.lstat(path)
        size = st.st_size if not os.path.isdir(path) else 0
        found[os.path.relpath(path, top)] = (st.st_ino, st.st_mode, size, st.st_mtime_ns)
    return found


def state(path: Path) -> str:
    return os.getxattr(path, "user.vdfs.state").decode()


def is_away(
    library: Mounted, shown: Path, before: dict[str, tuple[object, ...]], files: int, word: str = "missing"
) -> None:
    """Listed as before, marked missing (or offline), data refused fast, nothing changed anywhere, nothing forgotten."""
    eventually(lambda: state(shown / "a.txt") == word, f"it is {word}", 5)
    assert facts(shown) == before
    assert state(shown) == word
    assert state(shown / "sub" / "b.txt") == word
    assert os.getxattr(shown / "a.txt", "user.vdfs.local_bytes") == b"0"
    assert os.stat(shown / "a.txt").st_blocks > 0, "never 0 blocks for a file that is not empty"
    for call, arguments in (
        (lambda p: Path(p).read_bytes(), (shown / "a.txt",)),
        (lambda p: Path(p).read_bytes(), (shown / "sub" / "deep" / "c",)),
        (lambda p: open(p, "r+b"), (shown / "a.txt",)),
        (lambda p: open(p, "ab"), (shown / "sub" / "b.txt",)),
        (os.truncate, (shown / "a.txt", 0)),
        (os.unlink, (shown / "a.txt",)),
        (os.rename, (shown / "a.txt", shown / "z.txt")),
        (os.rename, (shown / "sub", shown / "z")),
        (os.rmdir, (shown / "sub" / "deep",)),
        (os.chmod, (shown / "a.txt", 0o600)),
    ):
        code, seconds = timed(call, *arguments)
        assert code in (*AWAY, errno.EROFS, errno.ENOTEMPTY), (call, arguments, code)
        assert seconds < AT_ONCE_S, (call, arguments, seconds)
    assert facts(shown) == before
    info = library.sd_json("info", shown / "a.txt")
    assert (info["state"], info["tags"]) == (word, ["kept"])
    assert library.sd_json("status")["files"] == files
    assert library.sd_json("search", "b.txt")["hits"] != []
    assert names(library.mnt / "Tags" / "kept") == ["a.txt"]


def is_back(library: Mounted, shown: Path, before: dict[str, tuple[object, ...]]) -> None:
    eventually(lambda: (shown / "a.txt").read_bytes() == b"content of a", "its bytes are back", 5)
    assert state(shown / "a.txt") == "local"
    assert facts(shown) == before
    assert os.getxattr(shown / "a.txt", TAGS) == b"kept"
    library.wait_idle()
    library.verify("--content")
    (shown / "new").write_bytes(b"new")
    assert (shown / "new").read_bytes() == b"new"


@pytest.fixture
def stick(library: Mounted) -> Iterator[tuple[Mounted, Path, dict[str, tuple[object, ...]]]]:
    """A mounted library with a location `Stick`, indexed and tagged, beside another one `Disk`."""
    source, other = library.folder("volume", "Stick"), library.folder("Disk")
    fill(source)
    (other / "here").write_bytes(b"always here")
    library.mount(source, other)
    shown = library.mnt / "Stick"
    os.setxattr(shown / "a.txt", TAGS, b"kept")
    library.wait_idle()
    yield library, source, facts(shown)
    assert (library.mnt / "Disk" / "here").read_bytes() == b"always here"


# -- the root goes


def test_a_root_that_was_renamed_away(stick):
    """Missing, and back when it is back."""
    library, source, before = stick
    shown = library.mnt / "Stick"
    os.rename(source, source.with_name("elsewhere"))
    is_away(library, shown, before, 4)
    assert not source.exists(), "nothing was made in its place"
    os.rename(source.with_name("elsewhere"), source)
    is_back(library, shown, before)


@pytest.mark.parametrize("content", ["empty", "other files"])
def test_another_directory_in_its_place(stick, content):
    """An empty mountpoint, or somebody else's directory: not shown, not written to, and nothing is deleted for it."""
    library, source, before = stick
    shown = library.mnt / "Stick"
    os.rename(source, source.with_name("elsewhere"))
    source.mkdir()
    if content == "other files":
        (source / "a.txt").write_bytes(b"not the file you know")
        (source / "foreign").write_bytes(b"foreign")
    held = tree(source)
    is_away(library, shown, before, 4)
    code, seconds = timed(os.mkdir, shown / "made")
    assert (code, seconds < AT_ONCE_S) == (errno.EHOSTDOWN, True), "nothing new for a volume that is away"
    assert tree(source) == held, "nothing of ours lands in a foreign directory"
    assert "another directory stands at" in library.sd_fails("location", "rescan", "Stick")
    library.wait_idle()
    assert facts(shown).keys() >= before.keys()
    shutil.rmtree(source)
    os.rename(source.with_name("elsewhere"), source)
    assert not (shown / "made").exists()
    is_back(library, shown, before)


def test_a_root_that_was_deleted(stick):
    """rm -r of the whole folder: what was in it is missing, not forgotten; removing the location is what forgets."""
    library, source, before = stick
    shown = library.mnt / "Stick"
    # the folder goes as one: what a single rm inside does is another matter
    os.rename(source, source.with_name("doomed"))
    shutil.rmtree(source.with_name("doomed"))
    is_away(library, shown, before, 4)
    library.sd("location", "remove", "Stick")
    assert names(library.mnt) == ["Devices", "Disk", "Search", "Tags"]
    eventually(lambda: library.sd_json("status")["files"] == 1, "it is forgotten")


def test_away_at_the_start(stick):
    """sdmount says so and mounts; entries are listed as missing; back later."""
    library, source, before = stick
    shown = library.mnt / "Stick"
    library.unmount()
    os.rename(source, source.with_name("elsewhere"))
    done = library.sdmount()
    assert done.returncode == 0, done
    assert str(source) in one_line(done.stderr, "sdmount: ")
    is_away(library, shown, before, 4)
    library.unmount()
    source.mkdir()
    done = library.sdmount()
    assert done.returncode == 0, done
    is_away(library, shown, before, 4)
    source.rmdir()
    os.rename(source.with_name("elsewhere"), source)
    is_back(library, shown, before)


def test_verify_of_what_is_away(stick):
    """It says that it could not look (exit 2), and calls nothing a difference."""
    library, source, _ = stick
    os.rename(source, source.with_name("elsewhere"))
    eventually(lambda: state(library.mnt / "Stick") == "missing", "it is missing", 5)
    done = library.run("vdfs.cli", "--data-dir", library.data, "index", "verify", "Stick")
    assert done.returncode == 2, done
    assert "a.txt" not in done.stdout
    os.rename(source.with_name("elsewhere"), source)


# -- volumes


@pytest.fixture
def loop(library: Mounted, root_only: None) -> Iterator[Callable[[str], Path]]:
    """Makes small ext4 volumes in files and mounts them by name at one place; unmounts what is left."""
    point = library.base / "volume"
    point.mkdir()

    def mount(name: str) -> Path:
        image = library.base / f"{name}.img"
        if not image.exists():
            with open(image, "wb") as file:
                file.truncate(8 << 20)
            subprocess.run(["mkfs.ext4", "-q", str(image)], check=True, capture_output=True)
        done = subprocess.run(["mount", "-o", "loop", str(image), str(point)], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no loop devices here: {done.stderr.decode().strip()}")
        return point

    yield mount
    while subprocess.run(["umount", "-l", str(point)], capture_output=True, check=False).returncode == 0:
        pass


def test_a_stick_that_is_pulled_and_put_back(library, loop):
    """umount works although the library has it open; another stick at that place is not taken for it."""
    point = loop("mine")
    source = point / "Stick"
    source.mkdir()
    fill(source)
    library.mount(source)
    shown = library.mnt / "Stick"
    os.setxattr(shown / "a.txt", TAGS, b"kept")
    library.wait_idle()
    before = facts(shown)
    eventually(
        lambda: subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0,
        "no idle descriptor keeps the volume busy", 15,
    )  # fmt: skip
    is_away(library, shown, before, 3, "offline")
    loop("another")
    (point / "Stick").mkdir()
    (point / "Stick" / "a.txt").write_bytes(b"of another stick")
    is_away(library, shown, before, 3, "offline")
    assert tree(point / "Stick") == {"a.txt": ("file", b"of another stick")}
    subprocess.run(["umount", str(point)], check=True)
    loop("mine")
    is_back(library, shown, before)
    library.unmount()


def test_a_stick_with_files_open_when_it_is_pulled(library, loop):
    """umount -l: who has a file open reads on; the rest is missing."""
    point = loop("mine")
    source = point / "Stick"
    source.mkdir()
    fill(source)
    (source / "open").write_bytes(b"o" * 5000)
    library.mount(source)
    shown = library.mnt / "Stick"
    os.setxattr(shown / "a.txt", TAGS, b"kept")
    library.wait_idle()
    before = facts(shown)
    with open(shown / "open", "rb", buffering=0) as file:
        assert file.read(3) == b"ooo"
        subprocess.run(["umount", "-l", str(point)], check=True)
        is_away(library, shown, before, 4, "offline")
        assert os.pread(file.fileno(), 10, 100) == b"o" * 10
    loop("mine")
    is_back(library, shown, before)
    library.unmount()


def unmounted(point: Path) -> None:
    """A plain umount; no idle descriptor keeps the volume busy for long."""
    eventually(
        lambda: subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode == 0,
        f"{point} is not busy", 15,
    )  # fmt: skip


def test_a_volume_inside_a_location(library, loop):
    """A stick mounted in a home directory: gone with its files when pulled, and with their tags when it is back."""
    point = loop("mine")
    fill(point)
    home = point.parent / "home"
    home.mkdir()
    (home / "own").write_bytes(b"own")
    unmounted(point)  # somebody else's look at what is mounted may keep it for a moment
    inner = home / "stick"
    inner.mkdir()
    image = library.base / "mine.img"
    # One device for both times: what lies inside a location is told by type, device and place.
    attached = subprocess.run(["losetup", "-f", "--show", str(image)], check=True, capture_output=True, text=True)
    device = attached.stdout.strip()
    subprocess.run(["mount", device, str(inner)], check=True)
    try:
        library.mount(home, options=("-o", "xattr=library"))
        shown = library.mnt / "home"
        os.setxattr(shown / "stick" / "a.txt", TAGS, b"kept")
        library.wait_idle()
        assert (shown / "stick" / "sub" / "b.txt").exists()
        unmounted(inner)
        assert (shown / "own").read_bytes() == b"own"
        eventually(lambda: errno_of(lambda: (shown / "stick" / "a.txt").read_bytes()) != 0, "its bytes are gone", 5)
        library.wait_idle()
        subprocess.run(["mount", device, str(inner)], check=True)
        eventually(lambda: (shown / "stick" / "a.txt").read_bytes() == b"content of a", "its bytes are back", 5)
        assert os.getxattr(shown / "stick" / "a.txt", TAGS) == b"kept"
        library.wait_idle()
        library.verify()
        library.unmount()
    finally:
        subprocess.run(["umount", "-l", str(inner)], capture_output=True, check=False)
        subprocess.run(["losetup", "-d", device], capture_output=True, check=False)


# -- errors of the file system below


@pytest.fixture
def small(library: Mounted, root_only: None) -> Iterator[Path]:
    """A tmpfs of 2 MiB and few inodes."""
    path = library.folder("Small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=40", "none", str(path)], check=True)
    yield path
    library_ended = subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
    assert library_ended.returncode == 0


def test_a_full_disk_is_enospc(library, small):
    """Every byte that was acknowledged is there; after a deletion there is room again; statvfs tells it."""
    library.mount(small)
    shown = library.mnt / "Small"
    written = 0
    with open(shown / "f", "wb", buffering=0) as file:
        with pytest.raises(OSError, match="No space") as caught:
            while True:
                written += file.write(b"x" * 65536)
        assert caught.value.errno == errno.ENOSPC
    assert 1 << 20 < written <= 2 << 20
    assert os.stat(small / "f").st_size == os.stat(shown / "f").st_size >= written
    assert (small / "f").read_bytes()[:written] == b"x" * written
    assert errno_of(lambda: (shown / "g").write_bytes(b"y" * 10_000)) == errno.ENOSPC
    (shown / "f").unlink()
    eventually(lambda: (shown / "g").write_bytes(b"y" * 10_000), "there is room again", 5)
    assert (small / "g").read_bytes() == b"y" * 10_000
    codes = [errno_of((shown / f"n{number}").touch) for number in range(60)]
    assert codes[0] == 0
    assert codes[-1] == errno.ENOSPC, "no inodes are no space, too"
    assert errno_of(os.mkdir, shown / "d") == errno.ENOSPC
    assert names(shown) == names(small)
    library.wait_idle()
    library.verify("--content")
    library.unmount()


def test_a_full_disk_and_a_mapping(library, small):
    """Pages of a shared mapping that find no room: the process gets an error or a signal, the mount lives."""
    library.mount(small)
    shown = library.mnt / "Small"
    with open(shown / "sparse", "wb") as file:
        file.truncate(8 << 20)
    script = (
        "import mmap, os, sys; fd = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(fd, 0)\n"
        "for i in range(0, len(m), 4096): m[i] = 1\n"
        "m.flush()\n"
        "os.fsync(fd)"
    )
    done = subprocess.run(
        ["python3", "-c", script, str(shown / "sparse")], capture_output=True, check=False, timeout=60
    )
    assert done.returncode != 0, "somebody has to be told"
    assert (library.mnt / "Small").is_dir()
    (shown / "sparse").unlink()
    library.wait_idle()
    library.verify()
    library.unmount()


def test_a_read_only_disk_is_erofs(library, root_only):
    """Every change is EROFS and none happens; reading and tagging work."""
    source = library.folder("Fixed")
    fill(source)
    subprocess.run(["mount", "--bind", str(source), str(source)], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(source)], check=True)
    try:
        library.mount(source)
        shown = library.mnt / "Fixed"
        before = tree(source)
        for call, arguments in (
            (lambda p: open(p, "wb"), (shown / "new",)),
            (lambda p: open(p, "r+b"), (shown / "a.txt",)),
            (lambda p: open(p, "ab"), (shown / "a.txt",)),
            (os.truncate, (shown / "a.txt", 1)),
            (os.unlink, (shown / "a.txt",)),
            (os.mkdir, (shown / "d",)),
            (os.rmdir, (shown / "sub" / "deep",)),
            (os.rename, (shown / "a.txt", shown / "z")),
            (os.symlink, ("x", shown / "l")),
            (os.link, (shown / "a.txt", shown / "h")),
            (os.mkfifo, (shown / "p",)),
            (os.chmod, (shown / "a.txt", 0o600)),
            (os.chown, (shown / "a.txt", 1, 1)),
            (os.utime, (shown / "a.txt",)),
        ):
            code = errno_of(call, *arguments)
            assert code in (errno.EROFS, errno.ENOTEMPTY if call is os.rmdir else errno.EROFS), (call, arguments, code)
        assert tree(source) == before
        assert tree(shown) == before
        os.setxattr(shown / "a.txt", TAGS, b"t")
        assert os.getxattr(shown / "a.txt", TAGS) == b"t"
        library.wait_idle()
        library.verify("--content")
        library.unmount()
    finally:
        subprocess.run(["umount", "-l", str(source)], check=True)


def test_a_mount_that_is_read_only_itself(library):
    """`-o ro`: the kernel refuses every change, reading works."""
    source = library.folder("Files")
    fill(source)
    library.mount(source, options=("-o", "ro"))
    shown = library.mnt / "Files"
    assert errno_of(os.unlink, shown / "a.txt") == errno.EROFS
    assert errno_of(os.mkdir, shown / "d") == errno.EROFS
    assert errno_of(os.setxattr, shown / "a.txt", TAGS, b"t") == errno.EROFS
    assert tree(shown) == tree(source)


def test_an_immutable_file_is_eperm(library, root_only):
    """What the disk refuses comes through with its own errno."""
    source = library.folder("Files")
    (source / "fixed").write_bytes(b"x")
    if subprocess.run(["chattr", "+i", str(source / "fixed")], capture_output=True, check=False).returncode != 0:
        pytest.skip("this file system has no immutable files")
    try:
        library.mount(source)
        path = library.mnt / "Files" / "fixed"
        assert errno_of(os.unlink, path) == errno.EPERM
        assert errno_of(os.rename, path, path.with_name("moved")) == errno.EPERM
        assert errno_of(lambda: open(path, "r+b")) == errno.EPERM
        assert errno_of(os.chmod, path, 0o600) == errno.EPERM
        assert path.read_bytes() == b"x"
        library.wait_idle()
        library.verify()
    finally:
        subprocess.run(["chattr", "-i", str(source / "fixed")], check=True)


def test_a_file_larger_than_the_limit(library):
    """EFBIG, EINVAL and the like are the disk's own words."""
    source = library.folder("Files")
    for name in ("native", "ours"):
        (source / name).write_bytes(b"x")
    library.mount(source)
    for size in (1 << 62, 1 << 45, (1 << 63) - 1):
        native = errno_of(os.truncate, source / "native", size)
        assert errno_of(os.truncate, library.mnt / "Files" / "ours", size) == native, size
        if native:
            assert os.stat(library.mnt / "Files" / "ours").st_size == 1
        os.truncate(source / "native", 1)
        os.truncate(library.mnt / "Files" / "ours", 1)


# -- branches that hang


class Bound:
    """A location behind a bindfs that can be stopped."""

    def __init__(self, library: Mounted) -> None:
        self.real = library.folder("real")
        self.point = library.folder("Slow")
        fill(self.real)
        self.library = library
        self.process = self.serve()

    def serve(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(["bindfs", "-f", str(self.real), str(self.point)], stderr=subprocess.DEVNULL)
        eventually(lambda: self.library.is_mounted(self.point) or process.poll() is not None, "bindfs is mounted")
        if process.poll() is not None:
            pytest.skip("bindfs cannot mount here")
        return process

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.go_on()
        subprocess.run(["fusermount3", "-u", "-z", str(self.point)], capture_output=True, check=False)
        self.process.kill()
        self.process.wait(20)


@pytest.fixture
def bound(library: Mounted) -> Iterator[Bound]:
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is not installed")
    bound = Bound(library)
    try:
        yield bound
    finally:
        bound.end()


def test_a_location_on_another_fuse_works(library, bound):
    """Slow branches go through threads: everything works as on a disk, changes behind it show in a second or two."""
    library.mount(bound.point)
    shown = library.mnt / "Slow"
    assert tree(shown) == tree(bound.real)
    (shown / "new").write_bytes(b"new")
    assert (bound.real / "new").read_bytes() == b"new"
    os.rename(shown / "new", shown / "sub" / "newer")
    os.chmod(shown / "sub" / "newer", 0o600)
    (shown / "d").mkdir()
    (shown / "d").rmdir()
    os.setxattr(shown / "a.txt", TAGS, b"t")
    (shown / "sub" / "link").unlink()
    (bound.real / "behind").write_bytes(b"behind")
    eventually(lambda: (shown / "behind").read_bytes() == b"behind", "a change behind it", 3)
    (bound.real / "behind").write_bytes(b"changed behind")
    eventually(lambda: (shown / "behind").read_bytes() == b"changed behind", "a change of bytes", 3)
    assert tree(shown) == tree(bound.real)
    library.wait_idle()
    library.verify("--content")
    library.unmount()


def test_a_stopped_branch_stops_only_itself(library, bound):
    """SIGSTOP of its server: other locations, the root and `sd` answer at once; it itself fails within 10 s."""
    disk = library.folder("Disk")
    fill(disk)
    library.mount(bound.point, disk)
    library.wait_idle()
    shown, other = library.mnt / "Slow", library.mnt / "Disk"
    assert (shown / "a.txt").read_bytes() == b"content of a"
    stuck: list[tuple[int, float]] = []
    bound.stop()
    calls = [
        threading.Thread(target=lambda c=call: stuck.append(timed(*c)))
        for call in (
            (lambda: (shown / "sub" / "deep" / "c").read_bytes(),),
            (os.listdir, shown / "sub"),
            (os.stat, shown / "sub" / "never seen"),
            (lambda: (shown / "sub" / "made").write_bytes(b"x"),),
        )
    ]
    try:
        for call in calls:
            call.start()
        until_s = time.monotonic() + 4
        slowest, count = 0.0, 0
        while time.monotonic() < until_s:
            count += 1
            for act in (
                lambda: (other / f"f{count}").write_bytes(b"x"),
                lambda: os.listdir(other),
                lambda: os.stat(other / f"absent{count}"),
                lambda: (other / "a.txt").read_bytes(),
                lambda: os.unlink(other / f"f{count}"),
            ):
                slowest = max(slowest, timed(act)[1])
        assert slowest < AT_ONCE_S, f"a call on another location took {slowest:.2f} s"
        assert count > 20
        code, seconds = timed(os.listdir, library.mnt)
        assert (code, seconds < 3) == (0, True), seconds
        began_s = time.monotonic()
        assert library.sd_json("status")["pid"] == library.pid
        assert time.monotonic() - began_s < 5
        for call in calls:
            call.join(NEVER_LONGER_S)
            assert not call.is_alive(), "a call on the stopped branch hangs"
        assert all(seconds <= NEVER_LONGER_S for _, seconds in stuck), stuck
        code, seconds = timed(lambda: (shown / "a.txt").read_bytes())
        assert code in (0, *AWAY, errno.ETIMEDOUT)
        assert seconds <= NEVER_LONGER_S
        assert "Slow" in os.listdir(library.mnt)
    finally:
        bound.go_on()
        for call in calls:
            call.join(30)
    eventually(lambda: (shown / "sub" / "b.txt").read_bytes() == b"b" * 5000, "it goes on", 15)
    eventually(lambda: state(shown) == "local", "it is local again", 5)
    library.wait_idle()
    library.verify()
    library.unmount()


@pytest.fixture
def flushing(library: Mounted) -> "Iterator[tuple[Path, subprocess.Popen[bytes]]]":
    """A location of which every close asks its server, and that server."""
    point = library.folder("Flushing")
    process = subprocess.Popen([sys.executable, "-m", "tests.system.flushing", str(point)], cwd=ROOT)
    try:
        eventually(lambda: library.is_mounted(point) or process.poll() is not None, "it is mounted")
        yield point, process
    finally:
        process.send_signal(signal.SIGCONT)
        subprocess.run(["fusermount3", "-u", "-z", str(point)], capture_output=True, check=False)
        process.kill()
        process.wait(20)


def workers_of(library: Mounted) -> list[int]:
    """The worker processes of a server: what its children started."""
    below = []
    for child in children(library.pid):
        below += children(child)
    return below


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_workers_come_back_while_a_file_of_a_dead_server_is_open(library, flushing):
    """A new process closes what it inherits, and would wait for the dead server: ours inherit nothing."""
    point, server = flushing
    disk = library.folder("Disk")
    fill(disk)
    library.mount(point, disk)
    library.wait_idle()
    held = [os.open(library.mnt / "Flushing" / name, os.O_RDWR) for name in ("f0", "f1")]
    before = workers_of(library)
    assert len(before) >= 2
    server.send_signal(signal.SIGSTOP)
    try:
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        code, seconds = timed(os.stat, library.mnt / "Disk" / "absent")
        assert (code, seconds < AT_ONCE_S) == (errno.ENOENT, True), (code, seconds)
        (disk / "later").write_bytes(b"hashed by a worker that came later")
        wanted = blake3(b"hashed by a worker that came later").hexdigest()
        shown = library.mnt / "Disk" / "later"
        eventually(lambda: xattr_of(shown, "user.checksum.blake3") == wanted, "a new file is hashed", 20)
    finally:
        server.send_signal(signal.SIGCONT)
        for fd in held:
            os.close(fd)
    library.unmount()


def test_a_call_that_comes_back_late_touches_no_other_file(library, flushing):
    """A cut that was given up, and its file closed: the descriptor's number is another file's by then."""
    point, server = flushing
    disk = library.folder("Disk")
    for number in range(40):
        (disk / f"d{number}").write_bytes(b"d" * 1000)
    library.mount(point, disk)
    library.wait_idle()
    shown = library.mnt / "Flushing" / "f2"
    fd = os.open(shown, os.O_RDWR)
    cut: list[int] = []
    call = threading.Thread(target=lambda: cut.append(errno_of(os.ftruncate, fd, 7)))
    server.send_signal(signal.SIGSTOP)
    held: list[int] = []
    try:
        call.start()
        call.join(NEVER_LONGER_S + 5)
        assert cut == [errno.ETIMEDOUT]
        os.close(fd)
        time.sleep(0.5)
        held = [os.open(library.mnt / "Disk" / f"d{number}", os.O_RDWR) for number in range(40)]
    finally:
        server.send_signal(signal.SIGCONT)
    eventually(lambda: state(shown) == "local", "it answers again", 10)
    time.sleep(0.5)
    assert {os.stat(disk / f"d{number}").st_size for number in range(40)} == {1000}
    for one in held:
        os.close(one)
    eventually(lambda: not links_to(library.pid, point), "no descriptor is left behind", 10)
    library.unmount()


def test_an_open_that_comes_back_late_leaves_no_descriptor(library, flushing):
    point, server = flushing
    library.mount(point)
    library.wait_idle()
    shown = library.mnt / "Flushing" / "f3"
    assert os.stat(shown).st_size == 1 << 20
    server.send_signal(signal.SIGSTOP)
    try:
        code, seconds = timed(lambda: shown.read_bytes())
        assert code in (*AWAY, errno.ETIMEDOUT)
        assert seconds <= NEVER_LONGER_S
    finally:
        server.send_signal(signal.SIGCONT)
    eventually(lambda: state(shown) == "local", "it answers again", 10)
    eventually(lambda: not links_to(library.pid, point), "no descriptor is left behind", 10)
    library.unmount()


def xattr_of(path: Path, name: str) -> str:
    try:
        return os.getxattr(path, name).decode()
    except OSError as error:
        return str(error)


def links_to(pid: int, point: Path) -> list[str]:
    """Files below a path that a process has open."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue
        if target.startswith(f"{point}/"):
            found.append(target)
    return found


@contextmanager
def under_way(bound: Bound, calls: list[threading.Thread], fds: list[int]) -> Iterator[None]:
    """While these calls on the stopped branch wait; whatever happens, it goes on afterwards and nothing stays open."""
    try:
        for call in calls:
            call.start()
        yield
    finally:
        bound.go_on()
        for call in calls:
            call.join(30)
        for fd in fds:
            errno_of(os.close, fd)


def come_back(calls: list[threading.Thread]) -> None:
    for call in calls:
        call.join(2 * NEVER_LONGER_S)
    assert not any(call.is_alive() for call in calls), "a call on the stopped branch hangs"


def test_an_fsync_that_hangs_stops_nobody_else(library, bound):
    """fsync, write and read of files on a stopped branch, all at once: another location is not slowed."""
    disk = library.folder("Disk")
    fill(disk)
    library.mount(bound.point, disk)
    library.wait_idle()
    shown, other = library.mnt / "Slow", library.mnt / "Disk"
    fds = [os.open(shown / "a.txt", os.O_RDWR) for _ in range(4)]
    cold = os.open(shown / "sub" / "deep" / "c", os.O_RDONLY)
    bound.stop()
    calls = [threading.Thread(target=errno_of, args=(os.fsync, fd)) for fd in fds[:2]]
    calls.append(threading.Thread(target=errno_of, args=(os.pwrite, fds[2], b"x", 0)))
    calls.append(threading.Thread(target=errno_of, args=(os.ftruncate, fds[3], 5)))
    calls.append(threading.Thread(target=errno_of, args=(os.pread, cold, 1000, 150_000)))
    with under_way(bound, calls, [*fds, cold]):
        slowest = 0.0
        for number in range(50):
            slowest = max(slowest, timed(lambda n=number: (other / f"n{n}").write_bytes(b"x"))[1])
            fd = os.open(other / f"n{number}", os.O_RDWR)
            slowest = max(slowest, timed(os.stat, other / f"absent{number}")[1])
            os.close(fd)
        assert slowest < AT_ONCE_S, f"a call on another location took {slowest:.2f} s"
        began_s = time.monotonic()
        fd = os.open(other / "n1", os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        assert time.monotonic() - began_s < 5
        come_back(calls)
    eventually(lambda: (shown / "sub" / "b.txt").exists(), "it goes on", 15)
    library.wait_idle()
    library.unmount()


def test_directories_that_cannot_be_synced_stop_nobody_else(library, bound):
    """More of them than there are threads; who asked is told that nothing was synced."""
    disk = library.folder("Disk")
    fill(disk)
    for number in range(45):
        (bound.point / f"d{number}").mkdir()
    library.mount(bound.point, disk)
    library.wait_idle()
    fds = [os.open(library.mnt / "Slow" / f"d{number}", os.O_RDONLY) for number in range(45)]
    other = os.open(library.mnt / "Disk", os.O_RDONLY)
    bound.stop()
    told: list[int] = []
    calls = [threading.Thread(target=lambda fd=fd: told.append(errno_of(os.fsync, fd))) for fd in fds]
    with under_way(bound, calls, [*fds, other]):
        time.sleep(0.5)
        code, took_s = timed(os.fsync, other)
        assert (code, took_s < 5) == (0, True), f"fsync of a directory on another location took {took_s:.1f} s"
        assert (library.mnt / "Disk" / "a.txt").read_bytes()
        come_back(calls)
        assert len(told) == len(calls), "an fsync hangs"
        assert 0 not in told, "an fsync that did nothing said that all was well"
    library.unmount()


def test_a_start_that_names_a_hanging_directory(library, bound):
    """One that is a location already is known by its path; another is refused in a while."""
    library.mount(bound.point)
    library.wait_idle()
    library.unmount()
    bound.stop()
    try:
        library.mount(bound.point)
        assert library.is_mounted()
        library.unmount()
        done = library.sdmount(bound.point / "sub")
        assert done.returncode == 1
        assert "did not answer" in one_line(done.stderr, "sdmount: ")
    finally:
        bound.go_on()


def test_it_can_be_ended_while_a_branch_hangs(library, bound):
    """SIGTERM: gone soon, although one of its branches never answers."""
    library.mount(bound.point)
    library.wait_idle()
    pid = library.pid
    bound.stop()
    try:
        thread = threading.Thread(target=errno_of, args=(os.listdir, library.mnt / "Slow" / "sub"))
        thread.start()
        time.sleep(0.2)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: gone(pid), "the server ends", 20)
        assert not library.is_mounted()
        thread.join(10)
        assert not thread.is_alive()
    finally:
        bound.go_on()


def test_a_start_with_a_hanging_branch(library, bound):
    """sdmount comes back in time, other locations work, the hanging one is there when it goes on."""
    disk = library.folder("Disk")
    fill(disk)
    library.mount(bound.point, disk)
    library.wait_idle()
    library.unmount()
    bound.stop()
    try:
        began_s = time.monotonic()
        done = library.sdmount()
        assert done.returncode == 0, done
        assert time.monotonic() - began_s < 2 * NEVER_LONGER_S
        assert (library.mnt / "Disk" / "a.txt").read_bytes() == b"content of a"
        assert "Slow" in os.listdir(library.mnt)
    finally:
        bound.go_on()
    eventually(lambda: (library.mnt / "Slow" / "a.txt").read_bytes() == b"content of a", "it goes on", 15)


def test_a_branch_whose_server_was_killed(library, bound):
    """ENOTCONN below: missing, fast; nothing is forgotten; back with a new server."""
    library.mount(bound.point)
    shown = library.mnt / "Slow"
    os.setxattr(shown / "a.txt", TAGS, b"kept")
    library.wait_idle()
    bound.process.kill()
    bound.process.wait(20)
    eventually(lambda: errno_of(lambda: (shown / "sub" / "deep" / "c").read_bytes()) in AWAY, "its data is away", 5)
    assert sorted(names(shown)) == ["a.txt", "sub"]
    assert names(shown / "sub") == ["b.txt", "deep", "link"]
    assert library.sd_json("status")["files"] == 3
    subprocess.run(["fusermount3", "-u", "-z", str(bound.point)], check=True)
    eventually(lambda: state(shown / "a.txt") == "offline", "the empty mountpoint is not taken for it", 5)
    assert names(shown / "sub") == ["b.txt", "deep", "link"]
    bound.process = bound.serve()
    eventually(lambda: (shown / "a.txt").read_bytes() == b"content of a", "it is back", 10)
    assert os.getxattr(shown / "a.txt", TAGS) == b"kept"
    library.wait_idle()
    library.unmount()


def test_a_long_fsync_on_a_disk_does_not_stop_the_loop(library):
    """While much dirty data goes to the disk, names of other files are answered."""
    source = library.folder("Files")
    library.mount(source)
    shown = library.mnt / "Files"
    with open(shown / "big", "wb", buffering=0) as file:
        for _ in range(100):
            file.write(os.urandom(1 << 20))
        sync = threading.Thread(target=os.fsync, args=(file.fileno(),))
        sync.start()
        slowest, count = 0.0, 0
        while sync.is_alive() or count < 50:
            slowest = max(slowest, timed(os.stat, shown / f"absent{count}")[1])
            count += 1
        sync.join()
    assert slowest < AT_ONCE_S, f"a lookup took {slowest:.2f} s beside an fsync"
