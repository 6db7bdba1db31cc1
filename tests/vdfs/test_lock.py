"""The lock of a library: one holder, known to others, gone with its process."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from index.model.errors import Busy, Invalid
from tests.system.harness import eventually, gone
from vdfs.library import lock
from vdfs.library.lock import acquire, read_holder, running_holder

# A process that takes the lock, says who it is, and keeps it until its input ends.
HOLD = """
import sys
from pathlib import Path
from vdfs.library.lock import acquire
held = acquire(Path(sys.argv[1]))
held.note("/mnt/there", "/run/there.sock")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def elsewhere(tmp_path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_whoever_is_first_holds_it(tmp_path):
    """The second is refused until the first lets go; letting go twice does no harm."""
    first = acquire(tmp_path)
    with pytest.raises(Busy):
        acquire(tmp_path)
    first.release()
    first.release()
    second = acquire(tmp_path)
    second.release()


def test_the_refusal_names_the_holder(elsewhere, tmp_path):
    """Its pid and where it is mounted, and what to do about it."""
    with pytest.raises(Busy) as caught:
        acquire(tmp_path)
    text = str(caught.value)
    for part in (str(tmp_path), f"process {elsewhere.pid}", "/mnt/there", "sdumount"):
        assert part in text
    assert "\n" not in text


def test_a_refusal_without_a_note_is_one_line_too(tmp_path):
    """Held by a process that has said nothing yet."""
    held = acquire(tmp_path)
    try:
        with pytest.raises(Busy, match="another process"):
            acquire(tmp_path)
    finally:
        held.release()


def test_others_see_who_holds_it(elsewhere, tmp_path):
    """Pid, mountpoint, socket: all that `sd` needs to find the running process."""
    before_ns = time.time_ns()
    holder = running_holder(tmp_path)
    assert holder is not None
    assert (holder.pid, holder.mountpoint, holder.socket) == (elsewhere.pid, "/mnt/there", "/run/there.sock")
    assert holder.started_ns < before_ns


def test_looking_does_not_take_it_away(elsewhere, tmp_path):
    """A prober's shared lock is refused, and lets go at once where it is not."""
    assert running_holder(tmp_path) is not None
    elsewhere.kill()
    elsewhere.wait()
    assert running_holder(tmp_path) is None
    acquire(tmp_path).release()


# A process whose first thread ends while another one holds what it has open for a while.
LINGERS = """
import ctypes, sys, threading, time
from pathlib import Path
from vdfs.library.lock import acquire
held = acquire(Path(sys.argv[1]))
held.note("/mnt/there", "/run/there.sock")
threading.Thread(target=lambda: (time.sleep(float(sys.argv[2])), ctypes.CDLL(None)._exit(0))).start()
print("held", flush=True)
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_holder_of_which_the_first_thread_has_ended_is_waited_for(tmp_path):
    """As after `kill -9` while another thread waits for the disk: it looks ended, and holds the lock yet."""
    with subprocess.Popen(
        [sys.executable, "-c", LINGERS, str(tmp_path), "1.5"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        eventually(lambda: gone(process.pid), "its first thread ends", 5)
        assert process.poll() is None, "it holds the lock yet"
        assert running_holder(tmp_path) is None
        acquire(tmp_path).release()


def test_a_lock_whose_holder_nobody_sees_is_believed_after_a_moment(elsewhere, tmp_path):
    """It may be of another pid namespace: a container that shares the data directory."""
    text = (tmp_path / "lock").read_text()
    (tmp_path / "lock").write_text(text.replace(str(elsewhere.pid), "4194305"))  # no pid is as large
    holder = running_holder(tmp_path)
    assert holder is not None
    assert holder.pid == 4194305
    with pytest.raises(Busy, match="process 4194305"):
        acquire(tmp_path)


def test_two_who_look_at_once_do_not_take_each_other_for_a_holder(tmp_path):
    """A note that a killed process left behind would otherwise be believed for a moment."""
    (tmp_path / "lock").write_text('{"pid": 1, "mountpoint": null, "socket": null, "started_ns": 0}')
    fd = os.open(tmp_path / "lock", os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        assert running_holder(tmp_path) is None
    finally:
        os.close(fd)


def test_a_killed_holder_holds_nothing(elsewhere, tmp_path):
    """The kernel drops the lock with the process; the note it left behind is not believed."""
    elsewhere.kill()
    elsewhere.wait()
    assert read_holder(tmp_path) is not None
    assert running_holder(tmp_path) is None
    acquire(tmp_path).release()


def test_nobody_holds_what_is_not_there(tmp_path):
    """No library, no lock file: no holder and no error; nothing is made by looking."""
    assert running_holder(tmp_path) is None
    assert running_holder(tmp_path / "absent") is None
    assert read_holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_letting_go_takes_the_note_back(tmp_path):
    """Whoever reads the file sees nobody."""
    held = acquire(tmp_path)
    held.note(None, "/run/s")
    assert read_holder(tmp_path) is not None
    held.release()
    assert read_holder(tmp_path) is None


def test_a_shorter_note_replaces_a_longer_one(tmp_path):
    """Nothing of the old one stays behind it."""
    held = acquire(tmp_path)
    try:
        held.note("/mnt/" + "long" * 50, "/run/s")
        held.note(None, None)
        facts = json.loads((tmp_path / "lock").read_text())
        assert (facts["pid"], facts["mountpoint"], facts["socket"]) == (os.getpid(), None, None)
    finally:
        held.release()


def test_a_mountpoint_of_any_name_can_be_noted(tmp_path):
    """Bytes that are no UTF-8, newlines, quotes: they come back as they were."""
    mountpoint = os.fsdecode(b'/mnt/\xff\xfe\n"x')
    held = acquire(tmp_path)
    try:
        held.note(mountpoint, None)
        holder = running_holder(tmp_path)
        assert holder is not None
        assert holder.mountpoint == mountpoint
    finally:
        held.release()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"pid": 1}', '{"pid": "x"}', "\x00\x00", "\xff"])
def test_a_note_that_makes_no_sense_is_none(tmp_path, text):
    """The file is for information: damaged, it stops nobody."""
    (tmp_path / "lock").write_text(text, "latin-1")
    assert read_holder(tmp_path) is None
    assert running_holder(tmp_path) is None
    acquire(tmp_path).release()


def test_it_is_taken_although_somebody_is_looking(tmp_path, monkeypatch):
    """A prober holds its shared lock for a moment only, which the taker waits out."""
    (tmp_path / "lock").touch()
    fd = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)
    pauses = []

    def look_away(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            fcntl.flock(fd, fcntl.LOCK_UN)

    monkeypatch.setattr(lock.time, "sleep", look_away)
    try:
        acquire(tmp_path).release()
    finally:
        os.close(fd)
    assert len(pauses) == 2


def test_no_child_keeps_it(tmp_path):
    """A worker that outlived the process would keep the library closed to everybody."""
    held = acquire(tmp_path)
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        held.release()
        acquire(tmp_path).release()
    finally:
        child.kill()
        child.wait()


def test_nobody_else_may_read_it(tmp_path):
    """It names the socket."""
    held = acquire(tmp_path)
    try:
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    finally:
        held.release()


def test_a_lock_file_that_is_a_link_is_refused(tmp_path):
    """It could lead to a file that is then cut to nothing."""
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / "lock").symlink_to(precious)
    with pytest.raises(OSError):
        acquire(tmp_path)
    assert running_holder(tmp_path) is None
    assert precious.read_text() == "data"


@pytest.mark.parametrize("after", ["/mnt/b", "/mnt/" + "long" * 20, None])
def test_a_reader_sees_the_old_note_or_the_new_one(tmp_path, monkeypatch, after):
    """At each step of writing it: a library that is held never looks as if it were free."""
    held = acquire(tmp_path)
    held.note("/mnt/before", "/run/s")
    seen = []

    def watched(call):
        def step(*args):
            seen.append(running_holder(tmp_path))
            result = call(*args)
            seen.append(running_holder(tmp_path))
            return result

        return step

    for name in ("ftruncate", "pwrite", "write"):
        monkeypatch.setattr(lock.os, name, watched(getattr(os, name)))
    try:
        held.note(after, "/run/s")
    finally:
        monkeypatch.undo()
        held.release()
    assert seen
    assert {"nobody" if holder is None else holder.mountpoint for holder in seen} <= {"/mnt/before", after}


def test_a_lock_that_is_no_file_is_named(tmp_path):
    """And nobody waits for what the other end of a fifo never says."""
    os.mkfifo(tmp_path / "lock")
    with pytest.raises(Invalid, match=r"lock is no regular file; remove it"):
        acquire(tmp_path)
