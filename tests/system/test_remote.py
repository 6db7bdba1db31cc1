"""What other devices hold, through the mount: shown like everything else, its bytes refused at once, changed nowhere.

Most of it is written into a library that nobody has open, then mounted; `told` has it come while the mount is used.
"""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote_rows import OLD_NS, RemoteRows, closed_library
from tests.system.harness import Mounted, errno_of, names


class Far:
    """A library that knows of `laptop` and `nas`."""

    def __init__(self, library: Mounted, rows: RemoteRows) -> None:
        self.library = library
        self.rows = rows
        self.laptop = rows.device("Laptop")
        self.nas = rows.device("NAS")
        self.photos = rows.branch(self.laptop, "Photos")
        self.attic = rows.branch(self.laptop, None)


@pytest.fixture
def here(library: Mounted) -> Path:
    """A location `Photos` of this device, as the disk has it, in a library that was mounted once and is not now."""
    top = library.folder("Photos")
    (top / "local.txt").write_bytes(b"here")
    library.mount(top)
    library.wait_idle()
    library.unmount()
    return top


@pytest.fixture
def far(here: Path, library: Mounted) -> Iterator[Far]:
    """The library, closed, its rows open to be written."""
    with closed_library(library.library_dir, library.data) as rows:
        yield Far(library, rows)


class Told:
    """A mount whose server is told of other devices meanwhile."""

    def __init__(self, library: Mounted) -> None:
        self.library = library
        library.mnt.mkdir(exist_ok=True)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.system.afar", str(library.data), str(library.mnt)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=library.environment(),
        )  # fmt: skip
        library.servers.add(self._server.pid)
        assert self._heard() == "mounted"

    def __call__(self, what: str, *arguments: Any, **named: Any) -> Any:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([what, _told(arguments), _told(named)]) + "\n")
        self._server.stdin.flush()
        return self._heard()

    def _heard(self) -> Any:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        assert line, f"the server ended with {self._server.wait(20)}\n{self.library.log()}"
        return json.loads(line)

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        assert self._server.wait(30) == 0


def _told(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"x:{value.hex()}"
    if isinstance(value, dict):
        return {_told(key): _told(one) for key, one in value.items()}
    return [_told(one) for one in value] if isinstance(value, tuple | list) else value


@pytest.fixture
def told(here: Path, library: Mounted) -> Iterator[Told]:
    server = Told(library)
    yield server
    server.close()


def mounted(far: Far) -> Path:
    """Let go of the rows, mount, and return where the location is shown."""
    far.rows.store.close()
    far.library.mount()
    return far.library.mnt / "Photos"


def test_names_of_other_devices_are_listed_with_their_own_sizes_and_times(far: Far) -> None:
    far.rows.file(far.photos, "2019/beach.jpg", b"x" * 5000, mode=0o664)
    far.rows.directory(far.photos, "empty", mode=0o000)
    far.rows.link(far.photos, "newest", "2019/beach.jpg")
    far.rows.file(far.attic, "notes/todo.txt", b"later")
    top = mounted(far)
    assert names(top) == ["2019", "empty", "local.txt", "newest"]
    assert names(far.library.mnt) == ["Devices", "Photos", "Search", "Tags", "notes"]
    st = (top / "2019" / "beach.jpg").stat()
    assert (st.st_size, st.st_mtime_ns, st.st_mode & 0o7777, st.st_nlink) == (5000, OLD_NS, 0o600, 1)
    assert (st.st_uid, st.st_gid) == (os.getuid(), os.getgid())
    assert st.st_blocks > 0
    assert (top / "empty").stat().st_mode & 0o7777 == 0o500
    assert os.readlink(top / "newest") == "2019/beach.jpg"
    assert os.listdir(far.library.mnt / "notes") == ["todo.txt"]


def test_bytes_that_others_hold_are_refused_at_once_and_changes_are_read_only(far: Far) -> None:
    far.rows.file(far.photos, "2019/beach.jpg", b"x" * 5000)
    top = mounted(far)
    there = top / "2019" / "beach.jpg"
    assert errno_of(there.read_bytes) == errno.EHOSTDOWN
    assert errno_of(there.write_bytes, b"y") == errno.EROFS
    assert errno_of(open, there, "ab") == errno.EROFS
    assert errno_of(os.truncate, there, 3) == errno.EROFS
    assert errno_of(there.unlink) == errno.EROFS
    assert errno_of(there.chmod, 0o600) == errno.EROFS
    assert errno_of(os.utime, there) == errno.EROFS
    assert errno_of(os.rename, there, top / "elsewhere") == errno.EROFS
    assert errno_of(os.rename, top / "local.txt", there) == errno.EROFS
    assert errno_of(os.link, there, top / "2019" / "again") == errno.EROFS
    assert errno_of(os.rename, top / "2019", top / "2020") == errno.EROFS
    assert errno_of((top / "2019").chmod, 0o700) == errno.EROFS
    assert errno_of((top / "2019").rmdir) == errno.ENOTEMPTY
    assert (top / "local.txt").read_bytes() == b"here"
    assert names(top / "2019") == ["beach.jpg"]
