"""Hashing files where they lie: the names of their bytes, and a typed outcome for all that goes wrong."""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from index.model import content
from index.model.filetype import Method
from index.scan import hasher
from index.scan.hasher import Hasher, Identity, Mode, Outcome, Unidentified

MIB = 1 << 20
NOBODY = 65534
DEADLINE_S = 10.0


@contextlib.contextmanager
def hashing(root: Path) -> Iterator[Hasher]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        with Hasher(fd) as hashes:
            yield hashes
    finally:
        os.close(fd)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Gives up root's right to read everything; without root there is nothing to give up."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def identify(root: Path, *path: bytes, mode: Mode = Mode.FULL) -> hasher.Result:
    with hashing(root) as hashes:
        return hashes.identify(path, mode)


def pattern(size_bytes: int) -> bytes:
    period = bytes(range(251))
    return (period * (size_bytes // 251 + 1))[:size_bytes]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("size_bytes", [600, 200_000, 3 * MIB])
def test_a_file_gets_its_type_with_its_identity(tmp_path: Path, size_bytes: int, mode: Mode) -> None:
    """By the bytes that are read anyway, whatever their number and whatever else is asked."""
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(size_bytes))
    (tmp_path / "empty.png").touch()
    found = identify(tmp_path, b"a.txt", mode=mode)
    assert isinstance(found, Identity)
    assert (found.type_name, found.method) == ("png", Method.MAGIC)
    empty = identify(tmp_path, b"empty.png", mode=mode)
    assert isinstance(empty, Identity)
    assert empty.type_name == "empty"


@pytest.mark.parametrize(
    "size_bytes",
    [0, 1, 102_400, 102_401, 131_072, 131_073, MIB - 1, MIB, MIB + 1, 3 * MIB + 5, 40 * MIB],
)
def test_a_file_gets_the_names_of_its_bytes(tmp_path: Path, size_bytes: int) -> None:
    data = pattern(size_bytes)
    (tmp_path / "f").write_bytes(data)
    found = identify(tmp_path, b"f")
    st_now = (tmp_path / "f").stat()

    assert isinstance(found, Identity)
    assert (found.size_bytes, found.inode) == (size_bytes, st_now.st_ino)
    assert (found.mtime_ns, found.ctime_ns) == (st_now.st_mtime_ns, st_now.st_ctime_ns)
    assert found.sampled == content.sampled_id_of(data)
    assert found.full == blake3(data).hexdigest()
    assert found.manifest is not None
    manifest = content.load(found.manifest, size_bytes, bytes.fromhex(found.full))
    assert manifest.leaves == b"".join(
        blake3(data[at : at + content.BLOCK_BYTES]).digest() for at in range(0, size_bytes, content.BLOCK_BYTES)
    )


@pytest.mark.parametrize("size_bytes", [0, 1, 102_400, 102_401, 3 * MIB])
def test_the_sampled_mode_gives_the_sampled_id_alone(tmp_path: Path, size_bytes: int) -> None:
    data = pattern(size_bytes)
    (tmp_path / "f").write_bytes(data)
    found = identify(tmp_path, b"f", mode=Mode.SAMPLED)
    assert isinstance(found, Identity)
    assert (found.sampled, found.full, found.manifest) == (content.sampled_id_of(data), None, None)


def test_a_sparse_file_over_4_gib_is_hashed_whole(tmp_path: Path) -> None:
    size_bytes = (4 << 30) + 12_345
    with open(tmp_path / "f", "wb") as file:
        file.truncate(size_bytes)
        file.seek((4 << 30) + 7)
        file.write(b"the end")
    zeros = bytes(16 * MIB)
    reference = blake3()
    for _ in range((4 << 30) // len(zeros)):
        reference.update(zeros)
    reference.update(bytes(7) + b"the end" + bytes(12_345 - 14))

    found = identify(tmp_path, b"f")
    assert isinstance(found, Identity)
    assert (found.size_bytes, found.full) == (size_bytes, reference.hexdigest())
    assert found.manifest is not None
    manifest = content.parse(found.manifest)
    assert manifest.matches(content.block_count(size_bytes) - 1, bytes(7) + b"the end" + bytes(12_345 - 14))
    assert manifest.matches(0, bytes(content.BLOCK_BYTES))


# What stands there is no file.


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock, contextlib.chdir(path.parent):
        sock.bind(path.name)


def make_link(path: Path) -> None:
    (path.parent / "target").write_bytes(b"x")
    path.symlink_to("target")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [make_fifo, make_socket, make_link, make_dangling_link, Path.mkdir])
@pytest.mark.parametrize("mode", list(Mode))
def test_only_regular_files_are_read_and_nothing_blocks(
    tmp_path: Path, make: Callable[[Path], None], mode: Mode
) -> None:
    make(tmp_path / "f")
    found = identify(tmp_path, b"f", mode=mode)
    assert isinstance(found, Unidentified)
    assert found.outcome is Outcome.NOT_REGULAR


def test_a_device_is_not_read() -> None:
    found = identify(Path("/dev"), b"zero")
    assert found == Unidentified(Outcome.NOT_REGULAR)


def test_no_symlink_on_the_way_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "d").symlink_to(outside)
    found = identify(root, b"d", b"f")
    assert found == Unidentified(Outcome.GONE, errno.ENOTDIR)


@pytest.mark.parametrize("path", [(b"absent",), (b"absent", b"f"), (b"file", b"f")])
def test_a_path_that_leads_nowhere_is_gone(tmp_path: Path, path: tuple[bytes, ...]) -> None:
    (tmp_path / "file").touch()
    found = identify(tmp_path, *path)
    assert isinstance(found, Unidentified)
    assert found.outcome is Outcome.GONE


def test_a_file_that_may_not_be_read_is_denied(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "f").chmod(0)
    (tmp_path / "d").mkdir(mode=0)
    with hashing(tmp_path) as hashes, as_nobody():
        assert hashes.identify([b"f"]) == Unidentified(Outcome.DENIED, errno.EACCES)
        assert hashes.identify([b"d", b"f"]) == Unidentified(Outcome.DENIED, errno.EACCES)


def test_a_file_of_another_owner_is_read_all_the_same(tmp_path: Path) -> None:
    """Only the owner may ask the kernel to leave the access time alone."""
    if os.geteuid() != 0:
        pytest.skip("needs root to make a file that belongs to somebody else")
    tmp_path.chmod(0o755)
    for name in ("f", "g"):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).chmod(0o644)
    with hashing(tmp_path) as hashes, as_nobody():
        for raw in (b"f", b"g"):
            found = hashes.identify([raw])
            assert isinstance(found, Identity)
            assert found.full == blake3(b"x").hexdigest()


def test_hashing_leaves_the_access_time_alone(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    os.utime(tmp_path / "f", ns=(10**9, 2 * 10**9))
    assert isinstance(identify(tmp_path, b"f"), Identity)
    assert (tmp_path / "f").stat().st_atime_ns == 10**9


# It changes while we read.


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, 2 * MIB + 1)


def cut_and_regrow(path: Path) -> None:
    os.truncate(path, MIB + 5)
    os.truncate(path, 4 * MIB)


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"!")


@pytest.mark.parametrize("change", [append, cut, cut_and_regrow, overwrite])
def test_a_change_during_the_read_gives_no_identity(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "f"
    path.write_bytes(pattern(4 * MIB))
    os.utime(path, ns=(10**9, 10**9))
    chunks = 0

    def meddle() -> bool:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            change(path)
        return False

    with hashing(tmp_path) as hashes:
        assert hashes.identify([b"f"], Mode.FULL, meddle) == Unidentified(Outcome.CHANGED)


def test_it_stops_between_two_chunks_when_asked(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(pattern(8 * MIB))
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked == 4

    with hashing(tmp_path) as hashes:
        assert hashes.identify([b"f"], Mode.FULL, stopped) == Unidentified(Outcome.STOPPED)
    assert asked == 4


def test_a_file_changed_a_moment_ago_is_racy_and_an_old_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    found = identify(tmp_path, b"f")
    assert isinstance(found, Identity)
    if time.time_ns() - found.ctime_ns < hasher.FINE_TICK_NS:
        assert found.racy
    deadline_s = time.monotonic() + DEADLINE_S
    while found.racy:
        assert time.monotonic() < deadline_s
        found = identify(tmp_path, b"f")
        assert isinstance(found, Identity)


# Names and descriptors.


@pytest.mark.parametrize("name", [b"\xff\xfe", b"new\nline", b"-", b"...", b"n" * 255])
def test_names_are_bytes(tmp_path: Path, name: bytes) -> None:
    with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
        file.write(b"x")
    assert isinstance(identify(tmp_path, name), Identity)


@pytest.mark.parametrize("path", [(), (b"",), (b".",), (b"..", b"f"), (b"a/b",), (b"a\0b",), (b"d", b"..")])
def test_what_is_no_component_is_refused(tmp_path: Path, path: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="path"):
        identify(tmp_path, *path)


@given(st.lists(st.binary(max_size=3), max_size=3))
def test_any_components_give_a_result_or_a_clear_refusal(path: list[bytes]) -> None:
    with hashing(Path("/proc/self/task")) as hashes:
        try:
            found = hashes.identify(path)
        except ValueError:
            assert not path or {b"", b".", b".."} & set(path) or any(set(name) & set(b"/\0") for name in path)
        else:
            assert isinstance(found, Unidentified)


def test_a_file_deeper_than_path_max_is_hashed(tmp_path: Path) -> None:
    step = b"d" * 250
    fds = [os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)]
    try:
        for _ in range(20):
            os.mkdir(step, dir_fd=fds[-1])
            fds.append(os.open(step, os.O_PATH | os.O_DIRECTORY, dir_fd=fds[-1]))
        os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY, dir_fd=fds[-1]))
        found = identify(tmp_path, *[step] * 20, b"f")
        os.unlink(b"f", dir_fd=fds[-1])
        assert isinstance(found, Identity)
    finally:
        while len(fds) > 1:
            os.close(fds.pop())
            os.rmdir(step, dir_fd=fds[-1])
        os.close(fds[0])


def test_files_of_several_directories_are_found_and_no_descriptor_stays(tmp_path: Path) -> None:
    for directory in ("a", "b", "b/c"):
        (tmp_path / directory).mkdir()
        for name in ("1", "2"):
            (tmp_path / directory / name).write_text(directory + name)
    before = len(os.listdir("/proc/self/fd"))
    with hashing(tmp_path) as hashes:
        for directory in ("a", "b", "b/c", "a"):
            for name in ("1", "2", "absent"):
                found = hashes.identify([*os.fsencode(directory).split(b"/"), os.fsencode(name)])
                if name == "absent":
                    assert found == Unidentified(Outcome.GONE, errno.ENOENT)
                else:
                    assert isinstance(found, Identity)
                    assert found.full == blake3((directory + name).encode()).hexdigest()
    assert len(os.listdir("/proc/self/fd")) == before


def resident(path: Path, offset: int) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def places_left(path: Path, places: range) -> list[int]:
    """What a pass over a cold file leaves in memory; others may keep pages once, not three times."""
    left: list[int] = []
    for _ in range(3):
        assert isinstance(identify(path.parent, b"f"), Identity)
        left = [place for place in places if resident(path, place)]
        if not left:
            break
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    return left


def test_a_big_file_that_was_cold_does_not_fill_the_page_cache_and_a_hot_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(pattern(40 * MIB))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    places = range(0, 40 * MIB, 4 * MIB)
    if any(resident(path, place) for place in places):
        pytest.skip("the file system of the temporary directory keeps its pages (a tmpfs?)")
    left = places_left(path, places)
    assert not left
    path.read_bytes()
    assert isinstance(identify(tmp_path, b"f"), Identity)
    assert all(resident(path, place) for place in places)


def test_results_survive_the_wire(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(pattern(200_000))
    results = [
        (1, identify(tmp_path, b"f")),
        (2, identify(tmp_path, b"absent")),
        (3, identify(tmp_path, b"f", mode=Mode.SAMPLED)),
    ]
    assert list(hasher.unpack_results(msgpack.unpackb(msgpack.packb(results)))) == results
