"""Room that is given up when the disk is full: there, gone, there again."""

import errno
import os

from index.store import ballast
from index.store.ballast import BYTES, Ballast


def test_it_takes_room_and_gives_it_back(tmp_path):
    """Real blocks, not a hole; both calls may be repeated."""
    path = tmp_path / "library.ballast"
    held = Ballast(path)
    assert not held.is_held
    assert held.hold()
    assert held.hold()
    assert path.stat().st_blocks * 512 >= BYTES
    held.give_up()
    held.give_up()
    assert not held.is_held
    assert not path.exists()
    assert held.hold()


def test_what_an_earlier_process_left_is_taken_over(tmp_path):
    """Nothing is allocated twice."""
    path = tmp_path / "library.ballast"
    assert Ballast(path).hold()
    inode = path.stat().st_ino
    assert Ballast(path).hold()
    assert path.stat().st_ino == inode


def test_a_full_disk_holds_none(tmp_path, monkeypatch):
    """And no half of it; on a file system that cannot allocate there is none to hold, which is no full disk."""
    path = tmp_path / "library.ballast"

    def refuses(code: int) -> None:
        def fallocate(fd: int, offset: int, length: int) -> None:
            os.write(fd, b"half")
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(ballast.os, "posix_fallocate", fallocate)

    held = Ballast(path)
    for code in (errno.ENOSPC, errno.EDQUOT):
        refuses(code)
        assert not held.hold()
        assert not path.exists()
    refuses(errno.EOPNOTSUPP)
    assert held.hold()
    assert not path.exists()
