"""Libraries for the system tests: real mounts under the test's own directory, ended whatever happens.

`library` is one that is not mounted yet; `shared` is mounted once for a file of tests, and `place` gives each of
them a directory of its own in it, as the mount shows it and as it lies on the disk. Without FUSE nothing of this
room can run, and every test says so.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.harness import Mounted
from tests.system.volumes import Sticks


class Place(NamedTuple):
    """One directory, seen through the mount and on the disk."""

    mnt: Path
    disk: Path


@pytest.fixture(scope="session")
def fuse() -> None:
    """Skip what needs a mount where there can be none."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse here")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be opened by this user")
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is not installed")


@pytest.fixture
def root_only() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make the file systems and users that this needs")


@pytest.fixture
def library(fuse: None, base: Path) -> Iterator[Mounted]:
    """A library of its own; the test mounts it."""
    yield from fresh_library(base)


@pytest.fixture
def files(library: Mounted) -> Path:
    """A location that is mounted, as the disk has it, with a few files in it."""
    top = library.folder("Files")
    for number in range(20):
        (top / f"f{number}").write_bytes(b"%d" % number)
    library.mount(top)
    library.wait_idle()
    return top


@pytest.fixture
def base(announce: Callable[[Path], None]) -> Iterator[Path]:
    """A directory other users can reach; pytest's own lies below one that is closed to them."""
    yield from fresh_base(announce)


@pytest.fixture(scope="module")
def shared(fuse: None, announce: Callable[[Path], None]) -> Iterator[Mounted]:
    """A library for all tests of a file, mounted, with one location `Files`; at the end it must be in order."""
    for base in fresh_base(announce):
        for library in fresh_library(base):
            library.mount(library.folder("Files"))
            yield library
            library.wait_idle()
            library.verify("--content")


@pytest.fixture
def place(shared: Mounted, request: pytest.FixtureRequest) -> Place:
    """A directory for one test in the shared library's location."""
    name = request.node.name[:100].replace("/", "-")
    for number in range(1000):
        disk = shared.disk / "Files" / f"{name}-{number}"
        if not disk.exists():
            break
    mnt = shared.mnt / "Files" / disk.name
    mnt.mkdir()
    return Place(mnt, disk)


def fresh_base(announce: Callable[[Path], None]) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sdmount-test-"))
    path.chmod(0o755)
    announce(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def fresh_library(base: Path) -> Iterator[Mounted]:
    library = Mounted(base)
    try:
        yield library
    finally:
        library.close()


@pytest.fixture
def sticks(library: Mounted) -> Iterator[Sticks]:
    """File systems on loop devices, which go with the library."""
    held = Sticks(library.base)
    try:
        yield held
    finally:
        library.close()
        held.close()
