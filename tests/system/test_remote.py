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
from blake3 import blake3

from index.store import places
from tests.contract.posix.syscalls import renameat2
from tests.remote_rows import OLD_NS, RemoteRows, closed_library, own_version
from tests.system.harness import Mounted, errno_of, eventually, names

RENAME_EXCHANGE = 2


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
        with self._server:  # closes both pipes, and waits for the end
            pass
        assert self._server.returncode == 0, self.library.log()


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


def value(path: Path, name: str) -> list[str]:
    """A virtual attribute, cut at its NULs."""
    return os.getxattr(path, f"user.vdfs.{name}", follow_symlinks=False).decode().split("\0")


def shell(line: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["/bin/sh", "-c", line], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_programs_go_through_it_and_fail_on_its_bytes_alone(far: Far) -> None:
    for number in range(3):
        far.rows.file(far.photos, f"2019/b{number}.jpg", b"x" * (1000 + number))
    far.rows.link(far.photos, "2019/first", "b0.jpg")
    far.rows.directory(far.photos, "2019/empty")
    top = mounted(far)
    (top / "2019" / "mine.txt").write_bytes(b"mine")
    found = shell("find . | sort", top)
    assert found.stdout.split() == [
        ".", "./2019", "./2019/b0.jpg", "./2019/b1.jpg", "./2019/b2.jpg", "./2019/empty", "./2019/first",
        "./2019/mine.txt", "./local.txt",
    ]  # fmt: skip
    assert (found.returncode, found.stderr) == (0, "")
    assert shell("ls -lR", top).returncode == 0
    assert shell("du -s --apparent-size -B1 2019/b2.jpg", top).stdout.split()[0] == "1002"
    copied = shell("cp -r 2019 ../Photos/copy", top)
    assert copied.returncode == 1
    assert copied.stderr.count("Host is down") == copied.stderr.count("\n") == 3, copied.stderr
    assert names(top / "copy") == ["empty", "first", "mine.txt"]
    assert (top / "copy" / "mine.txt").read_bytes() == b"mine"
    assert shell("rsync -a -n --itemize-changes 2019/ /nonexistent-target", top).returncode == 0
    packed = shell("tar cf - 2019 | tar tf -", top)
    assert packed.stderr.count("Host is down") == 3, packed.stderr
    assert "2019/mine.txt" in packed.stdout
    assert shell("touch 2019/b0.jpg", top).stderr.endswith("Read-only file system\n")
    far.library.verify()


def test_directories_merge_and_ours_says_who_may_do_what(far: Far, here: Path) -> None:
    (here / "2019").mkdir(mode=0o750)
    (here / "2019" / "mine.txt").write_bytes(b"mine")
    far.rows.directory(far.photos, "2019", mode=0o700, mtime_ns=1 << 61)
    far.rows.file(far.photos, "2019/theirs.txt", b"theirs", mode=0o600)
    top = mounted(far)
    assert names(top / "2019") == ["mine.txt", "theirs.txt"]
    st = (top / "2019").stat()
    assert (st.st_mode & 0o7777, st.st_mtime_ns) == (0o750, (here / "2019").stat().st_mtime_ns)
    assert value(top / "2019", "state") == ["local"]
    assert value(top / "2019", "devices")[1:] == ["Laptop"]
    (top / "2019").chmod(0o700)
    assert (here / "2019").stat().st_mode & 0o7777 == 0o700
    (top / "2019" / "new").write_bytes(b"n")
    assert (here / "2019" / "new").read_bytes() == b"n"
    far.library.settle()
    far.library.verify()


def test_a_name_with_the_same_bytes_here_and_there_is_one_file_that_is_read_and_changed_here(
    far: Far, here: Path
) -> None:
    data = b"the same" * 500
    (here / "both.txt").write_bytes(data)
    far.rows.file(far.photos, "both.txt", data)
    top = mounted(far)
    far.library.settle()
    both = top / "both.txt"
    assert names(top) == ["both.txt", "local.txt"]
    assert both.read_bytes() == data
    assert value(both, "state") == ["local"]
    assert value(both, "devices")[1:] == ["Laptop"]
    assert value(both, "allpaths") == [str(here / "both.txt"), "laptop:/far/away/both.txt"]
    assert far.library.sd_json("duplicates")["sets"] == []
    both.chmod(0o600)
    assert (here / "both.txt").stat().st_mode & 0o777 == 0o600
    far.library.sd("tag", "add", "kept", both)
    number = both.stat().st_ino
    (here / "both.txt").unlink()  # behind the mount: this replica is gone, and no more
    eventually(lambda: both.stat().st_mtime_ns == OLD_NS, "the name shows what the other device has")
    eventually(lambda: both.stat().st_ino != number, "under a number of its own, once the row of ours is gone")
    st = both.stat()
    assert (st.st_size, st.st_nlink) == (len(data), 1)
    assert errno_of(both.read_bytes) == errno.EHOSTDOWN
    assert os.getxattr(both, "user.xdg.tags") == b"kept"
    assert errno_of(both.unlink) == errno.EROFS
    far.library.verify("--content")


def test_what_is_written_here_after_the_bytes_were_one_is_newer(far: Far, here: Path) -> None:
    data = b"the same" * 500
    (here / "both.txt").write_bytes(data)
    far.rows.file(far.photos, "both.txt", data)
    top = mounted(far)
    far.library.settle()
    assert value(top / "both.txt", "devices")[1:] == ["Laptop"]
    (top / "both.txt").write_bytes(b"changed")
    far.library.settle()
    assert names(top) == ["both.txt", "local.txt"]
    assert (top / "both.txt").read_bytes() == b"changed"
    assert len(value(top / "both.txt", "devices")) == 1
    assert value(top / "both.txt", "allpaths") == [str(here / "both.txt"), "laptop:/far/away/both.txt"]


def test_versions_that_have_not_seen_each_other_show_both_by_the_names_of_their_devices(far: Far, here: Path) -> None:
    (here / "plan.txt").write_bytes(b"mine")
    far.rows.file(far.photos, "plan.txt", b"theirs, and longer", mtime_ns=1 << 61)
    far.rows.file(far.photos, "old.txt", b"theirs, and longer", mtime_ns=OLD_NS)
    (here / "old.txt").write_bytes(b"mine")
    top = mounted(far)
    far.library.settle()
    assert names(top)[:2] == ["local.txt", "old (from laptop, Photos).txt"]
    ours = next(name for name in names(top) if name.startswith("plan (from "))
    assert ours.endswith(", Photos).txt")
    assert (top / ours).read_bytes() == b"mine"
    assert errno_of((top / "plan.txt").read_bytes) == errno.EHOSTDOWN
    assert (top / "old.txt").read_bytes() == b"mine"
    assert value(top / "old (from laptop, Photos).txt", "state") == ["offline"]
    assert len(os.listdir(far.library.mnt / ".vdfs" / "conflicts")) == 4
    (top / "old.txt").unlink()
    assert (top / "old.txt").stat().st_size == 18
    assert errno_of((top / "plan.txt").unlink) == errno.EROFS


def test_a_later_version_of_another_device_hides_ours_which_stays_where_it_lies(far: Far, here: Path) -> None:
    (here / "plan.txt").write_bytes(b"mine")
    far.rows.store.close()
    far.library.mount()
    far.library.settle()
    far.library.unmount()
    with closed_library(far.library.library_dir, far.library.data) as rows:
        ours = own_version(rows.store, b"plan.txt")
        branch = next(row for row in places.branches(rows.store.db) if row.id == far.photos)
        rows.file(
            far.photos, "plan.txt", b"theirs, which have seen mine", uuid=ours.uuid,
            version={**ours.version, branch.uuid: 1},
        )  # fmt: skip
    far.library.mount()
    top = far.library.mnt / "Photos"
    assert names(top) == ["local.txt", "plan.txt"]
    assert (top / "plan.txt").stat().st_size == 28
    assert errno_of((top / "plan.txt").read_bytes) == errno.EHOSTDOWN
    assert value(top / "plan.txt", "allpaths") == ["laptop:/far/away/plan.txt", str(here / "plan.txt")]
    devices = far.library.mnt / ".vdfs" / "devices"
    own = next(path for path in devices.iterdir() if path.name not in ("laptop", "nas"))
    assert (own / "Photos" / "plan.txt").read_bytes() == b"mine"
    assert errno_of((top / "plan.txt").unlink) == errno.EROFS
    assert (here / "plan.txt").read_bytes() == b"mine"


def test_what_a_rule_holds_here_keeps_its_name_here(far: Far, here: Path) -> None:
    (here / ".gitignore").write_bytes(b"*.log\n")
    (here / ".git").mkdir()
    subprocess.run(["git", "init", "-q", str(here)], check=True)
    (here / "build.log").write_bytes(b"mine")
    far.rows.file(far.photos, "build.log", b"theirs, and newer", mtime_ns=1 << 61)
    top = mounted(far)
    far.library.settle()
    assert (top / "build.log").read_bytes() == b"mine"
    assert "build (from laptop, Photos).log" in names(top)


def test_moving_what_is_ours_leaves_behind_what_others_alone_have(far: Far, here: Path) -> None:
    data = b"the same" * 500
    (here / "both.txt").write_bytes(data)
    (here / "trip" / "deep").mkdir(parents=True)
    (here / "trip" / "deep" / "ours.txt").write_bytes(b"ours")
    (here / "trip" / "both.txt").write_bytes(data)
    far.rows.file(far.photos, "both.txt", data)
    far.rows.file(far.photos, "trip/both.txt", data)
    far.rows.file(far.photos, "trip/deep/theirs.txt", b"theirs")
    far.rows.file(far.photos, "trip/only/one.txt", b"theirs")
    top = mounted(far)
    far.library.settle()
    far.library.sd("tag", "add", "kept", top / "both.txt", top / "trip", top / "trip" / "both.txt")
    assert names(top / "trip") == ["both.txt", "deep", "only"]
    assert names(top / "trip" / "deep") == ["ours.txt", "theirs.txt"]
    assert names(top / "trip" / "only") == ["one.txt"]
    numbers = [(top / name).stat().st_ino for name in ("both.txt", "trip", "trip/deep")]
    os.rename(top / "both.txt", top / "moved.txt")
    os.rename(top / "trip", top / "journey")
    after = [(top / name).stat().st_ino for name in ("moved.txt", "journey", "journey/deep")]
    assert after == numbers
    assert (top / "moved.txt").read_bytes() == data
    assert not (top / "both.txt").exists()
    eventually(lambda: names(top / "journey") == ["both.txt", "deep"], "what is ours has moved")
    assert names(top / "journey" / "deep") == ["ours.txt"]
    eventually(lambda: not (top / "journey" / "only").exists(), "what is not has not")
    assert names(top / "trip") == ["deep", "only"]
    assert names(top / "trip" / "deep") == ["theirs.txt"]
    assert names(top / "trip" / "only") == ["one.txt"]
    for path in ("moved.txt", "trip", "journey", "journey/both.txt"):
        assert os.getxattr(top / path, "user.xdg.tags") == b"kept", path
    assert value(top / "trip", "id") != value(top / "journey", "id")
    far.library.settle()
    far.library.verify("--content")


def test_exchanging_and_replacing_concern_what_is_ours(far: Far, here: Path) -> None:
    data = b"the same" * 500
    for name in ("a", "b", "over"):
        (here / name).write_bytes(data + name.encode())
        far.rows.file(far.photos, name, data + name.encode())
    far.rows.file(far.photos, "theirs", b"theirs")
    top = mounted(far)
    far.library.settle()
    assert names(top) == ["a", "b", "local.txt", "over", "theirs"]
    renameat2(top / "a", top / "b", RENAME_EXCHANGE)
    assert ((top / "a").read_bytes(), (top / "b").read_bytes()) == (data + b"b", data + b"a")
    os.rename(top / "local.txt", top / "over")
    assert (top / "over").read_bytes() == b"here"
    assert value(top / "over", "devices")[1:] == []
    assert errno_of(renameat2, top / "a", top / "theirs", RENAME_EXCHANGE) == errno.EROFS
    far.library.settle()
    far.library.verify("--content")


def test_rm_takes_what_is_ours_and_says_what_is_not(far: Far, here: Path) -> None:
    data = b"the same" * 500
    (here / "trip" / "ours").mkdir(parents=True)
    (here / "trip" / "both.txt").write_bytes(data)
    (here / "trip" / "ours" / "one.txt").write_bytes(data)
    (here / "bare").mkdir()
    far.rows.file(far.photos, "trip/both.txt", data)
    far.rows.file(far.photos, "trip/theirs.txt", data + b"more")
    far.rows.directory(far.photos, "bare")
    far.rows.directory(far.photos, "afar")
    top = mounted(far)
    far.library.settle()
    removed = shell("rm -r trip", top)
    assert removed.returncode == 1
    assert removed.stderr.splitlines() == ["rm: cannot remove 'trip/theirs.txt': Read-only file system"]
    assert not (here / "trip" / "ours").exists()
    assert names(top / "trip") == ["theirs.txt"]
    assert names(here / "trip") == []
    assert "Directory not empty" in shell("rmdir trip", top).stderr
    (top / "bare").rmdir()
    assert not (here / "bare").exists()
    assert not (top / "bare").exists()
    assert errno_of((top / "afar").rmdir) == errno.EROFS
    assert errno_of(far.library.mnt.joinpath("Photos").rmdir) == errno.ENOTEMPTY
    far.library.verify()


def test_new_things_are_made_in_directories_of_others_where_this_device_keeps_them(far: Far, here: Path) -> None:
    far.rows.file(far.photos, "2019/may/beach.jpg", b"x" * 100)
    far.rows.file(far.attic, "notes/todo.txt", b"later")
    music = far.rows.branch(far.nas, "Music")
    far.rows.file(music, "band/album/song.ogg", b"la")
    top = mounted(far)
    store = far.library.library_dir / "store"
    (top / "2019" / "may" / "mine.jpg").write_bytes(b"mine")
    assert (here / "2019" / "may" / "mine.jpg").read_bytes() == b"mine"
    assert names(top / "2019" / "may") == ["beach.jpg", "mine.jpg"]
    (top / "2019" / "june" / "a" / "b").mkdir(parents=True)
    assert (here / "2019" / "june" / "a" / "b").is_dir()
    album = far.library.mnt / "Music" / "band" / "album"
    (album / "notes.txt").write_bytes(b"good")
    assert (store / "Music" / "band" / "album" / "notes.txt").read_bytes() == b"good"
    os.symlink("song.ogg", album / "best")
    os.mkfifo(album / "pipe")
    shell("touch touched; ln notes.txt again; cp notes.txt copied; mv notes.txt renamed", album)
    assert names(album) == ["again", "best", "copied", "pipe", "renamed", "song.ogg", "touched"]
    os.rename(top / "local.txt", top / "2019" / "local.txt")
    assert (here / "2019" / "local.txt").read_bytes() == b"here"
    notes = far.library.mnt / "notes"
    (notes / "more.txt").write_bytes(b"more")
    assert (store / "notes" / "more.txt").read_bytes() == b"more"
    assert errno_of(os.open, album / "song.ogg", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == errno.EEXIST
    assert errno_of((top / "2019" / "may").mkdir) == errno.EEXIST
    far.library.settle()
    far.library.verify()


def test_tags_and_attributes_belong_to_the_library_whoever_has_the_bytes(far: Far) -> None:
    far.rows.file(far.photos, "2019/beach.jpg", b"x" * 5000)
    top = mounted(far)
    there = top / "2019" / "beach.jpg"
    os.setxattr(there, "user.xdg.tags", b"sea,sun")
    os.setxattr(there, "user.note", b"nice")
    os.setxattr(top / "2019", "user.xdg.comment", b"a year")
    assert sorted(os.listxattr(there)) == ["user.note", "user.xdg.tags"]
    assert os.getxattr(there, "user.note") == b"nice"
    assert errno_of(os.setxattr, there, "user.note", b"y", os.XATTR_CREATE) == errno.EEXIST
    link = far.library.mnt / ".vdfs" / "tags" / "sea" / "sun" / "beach.jpg"
    assert link.stat().st_size == 5000
    assert link.resolve() == there
    os.removexattr(there, "user.note")
    assert errno_of(os.getxattr, there, "user.note") == errno.ENODATA
    found = far.library.sd_json("search", "tag:sea")["hits"]
    assert [hit["path"] for hit in found] == [str(there)]
    assert names(far.library.mnt / ".vdfs" / "search" / "beach") == ["beach.jpg"]
    far.library.remount()
    assert os.getxattr(there, "user.xdg.tags") == b"sea,sun"


def test_attributes_and_commands_say_where_it_is(far: Far) -> None:
    data = b"x" * 5000
    far.rows.file(far.photos, "2019/beach.jpg", data, nlink=3)
    far.rows.file(far.photos, "2019/copy.jpg", data)
    far.rows.file(far.photos, "2019/only.bin", b"alone")
    top = mounted(far)
    there = top / "2019" / "beach.jpg"
    assert value(there, "state") == ["offline"]
    assert value(there, "devices") == ["Laptop"]
    assert value(there, "local_bytes") == ["0"]
    assert value(there, "allpaths") == value(there, "origin") == ["laptop:/far/away/2019/beach.jpg"]
    assert value(there, "hash") == ["blake3:" + blake3(data).hexdigest()]
    assert value(there, "kind") == ["file"]
    assert value(top / "2019", "state") == ["offline"]
    assert value(top, "state") == ["local"]
    assert (value(top, "rfiles"), value(top, "rdirs"), value(top, "rbytes")) == (["4"], ["1"], ["10009"])
    assert (value(far.library.mnt, "rfiles"), value(top / "2019", "rfiles")) == (["4"], ["3"])
    info = far.library.sd_json("info", there)
    assert info["state"] == "offline"
    assert [(one["device"], one["branch"], one["path"]) for one in info["replicas"]] == [
        ("Laptop", "Photos", "/far/away/2019/beach.jpg")
    ]
    assert "Laptop" in far.library.sd("info", there)
    (several,) = far.library.sd_json("duplicates")["sets"]
    assert [Path(one["path"]).name for one in several["paths"]] == ["beach.jpg", "copy.jpg"]
    alone = {Path(one["path"]).name for one in far.library.sd_json("unique", "Photos")["files"]}
    assert alone == {"beach.jpg", "copy.jpg", "only.bin", "local.txt"}
    status = far.library.sd_json("status")
    assert (status["files"], status["far_files"], status["far_bytes"]) == (4, 3, 10005)
    assert status["scan"]["idle"]
    assert "Elsewhere" in far.library.sd("status")
    (location,) = far.library.sd_json("location", "list")["locations"]
    assert [(one["device"], one["state"]) for one in location["branches"]] == [(None, "done"), ("Laptop", "offline")]
    assert "Laptop: /far/away" in far.library.sd("location", "list")


def test_views_show_what_each_device_has(far: Far) -> None:
    data = b"x" * 5000
    far.rows.file(far.photos, "2019/beach.jpg", data, mtime_ns=1 << 61)
    far.rows.file(far.photos, "2019/copy.jpg", data)
    far.rows.link(far.photos, "first", "2019/beach.jpg")
    far.rows.file(far.attic, "todo.txt", b"later")
    mounted(far)
    vdfs = far.library.mnt / ".vdfs"
    laptop = vdfs / "devices" / "laptop"
    assert set(names(vdfs / "devices")) > {"laptop", "nas"}
    assert names(laptop) == ["Photos", "store"]
    assert names(vdfs / "devices" / "nas") == []
    there = laptop / "Photos" / "2019" / "beach.jpg"
    st = there.stat()
    assert (st.st_size, st.st_uid, st.st_mode & 0o777) == (5000, os.getuid(), 0o400)
    assert os.readlink(laptop / "Photos" / "first") == "2019/beach.jpg"
    assert errno_of(there.read_bytes) == errno.EHOSTDOWN
    assert errno_of((laptop / "Photos" / "new").mkdir) == errno.EROFS
    assert errno_of((laptop / "Photos" / "new").write_bytes, b"") == errno.EROFS
    assert errno_of(there.unlink) == errno.EROFS
    assert errno_of(there.chmod, 0o600) == errno.EROFS
    assert errno_of(os.rename, there, there.with_name("x")) == errno.EROFS
    assert names(vdfs / "offline") == ["Photos", "store"]
    assert names(vdfs / "offline" / "Photos" / "2019") == ["beach.jpg", "copy.jpg"]
    assert names(vdfs / "recent") == ["beach.jpg", "copy.jpg", "local.txt", "todo.txt"]
    full = blake3(data).hexdigest()
    assert names(vdfs / "duplicates") == [full]
    assert names(vdfs / "duplicates" / full) == ["beach.jpg", "copy.jpg"]
    assert (vdfs / "content" / full).stat().st_size == 5000
    assert errno_of((vdfs / "content" / full).read_bytes) == errno.EHOSTDOWN
    (far.library.mnt / "Photos" / "mine.jpg").write_bytes(data)
    far.library.settle()
    assert (vdfs / "content" / full).read_bytes() == data


def test_what_is_detached_shows_nowhere(far: Far) -> None:
    data = b"x" * 5000
    far.rows.file(far.photos, "2019/beach.jpg", data)
    far.rows.file(far.photos, "2020/copy.jpg", data)
    far.rows.file(far.photos, "2020/wave.jpg", b"wave")
    for path in ("2020", "2019/beach.jpg"):
        far.rows.move(far.photos, path, None)
    top = mounted(far)
    assert names(top) == ["2019", "local.txt"]
    assert names(top / "2019") == []
    assert not (top / "2020").exists()
    vdfs = far.library.mnt / ".vdfs"
    assert names(vdfs / "recent") == ["local.txt"]
    assert names(vdfs / "devices" / "laptop" / "Photos") == ["2019"]
    assert errno_of((vdfs / "content" / blake3(data).hexdigest()).stat) == errno.ENOENT
    assert far.library.sd_json("search", "jpg")["hits"] == []
    assert far.library.sd_json("search", "wave", "--limit", "5")["hits"] == []
    assert (value(top, "rfiles"), value(top, "rbytes"), value(top, "rdirs")) == (["1"], ["4"], ["1"])
    status = far.library.sd_json("status")
    assert (status["files"], status["far_files"]) == (1, 0)
    assert far.library.sd_json("library", "check") == {"faults": []}
    far.library.unmount()
    assert "sound" in far.library.sd("library", "repair")
    far.library.mount()
    with_all = far.library.sd_json("status")
    assert with_all["entries"] == status["entries"]


# told while the mount is used -----------------------------------------------------------------------------------------


@pytest.fixture
def laptop(told: Told) -> int:
    """The branch that another device has of `Photos`."""
    branch: int = told("branch", bytes.fromhex(told("device", "Laptop")[2:]), "Photos")
    told("follow")
    return branch


@pytest.mark.parametrize("meets", [False, True])
def test_what_comes_changes_and_goes_shows_at_once_wherever_somebody_looks(
    told: Told, laptop: int, here: Path, meets: bool
) -> None:
    told("meet", meets)
    top = told.library.mnt / "Photos"
    (top / "2019").mkdir()
    standing = os.open(top / "2019", os.O_RDONLY | os.O_DIRECTORY)
    assert not (top / "2019" / "beach.jpg").exists()
    assert not (top / "new").exists()
    assert names(top) == ["2019", "local.txt"]
    told("file", laptop, "2019/beach.jpg", "b:" + "x" * 500)
    told("file", laptop, "new/one.txt", "b:one")
    eventually(lambda: names(top) == ["2019", "local.txt", "new"], "a directory has come")
    eventually(lambda: (top / "2019" / "beach.jpg").stat().st_size == 500, "a file has come to a directory of ours")
    eventually(lambda: os.stat("beach.jpg", dir_fd=standing).st_size == 500, "also for who stands in it")
    os.close(standing)
    told("file", laptop, "2019/beach.jpg", "b:" + "y" * 700, mtime_ns=OLD_NS + 1)
    eventually(lambda: (top / "2019" / "beach.jpg").stat().st_size == 700, "a new version has come")
    assert names(top / "new") == ["one.txt"]
    told("move", laptop, "new", "2019/inside")
    eventually(lambda: not (top / "new").exists(), "it has left")
    assert names(top / "2019") == ["beach.jpg", "inside"]
    assert names(top / "2019" / "inside") == ["one.txt"]
    told("remove", laptop, "2019/beach.jpg")
    eventually(lambda: not (top / "2019" / "beach.jpg").exists(), "it is gone")
    detached = told("move", laptop, "2019/inside", None)
    eventually(lambda: not (top / "2019" / "inside").exists(), "it is detached")
    assert names(top / "2019") == []
    told("attach", detached, laptop, "again")
    eventually(lambda: names(top / "again") == ["one.txt"], "it has a place again")


def test_a_directory_that_moves_elsewhere_takes_nothing_of_ours_along(told: Told, laptop: int, here: Path) -> None:
    top = told.library.mnt / "Photos"
    (top / "trip").mkdir()
    (top / "trip" / "ours.txt").write_bytes(b"ours")
    told("file", laptop, "trip/theirs.txt", "b:theirs")
    told("file", laptop, "trip/ours.txt", "b:ours")
    eventually(lambda: names(top / "trip") == ["ours.txt", "theirs.txt"], "they are one")
    number = (top / "trip").stat().st_ino
    told("move", laptop, "trip", "journey")
    eventually(lambda: names(top / "trip") == ["ours.txt"], "theirs has left")
    assert (top / "trip").stat().st_ino == number
    assert names(top / "journey") == ["ours.txt", "theirs.txt"]
    assert (top / "journey").stat().st_ino != number
    assert (top / "trip" / "ours.txt").read_bytes() == b"ours"
    assert errno_of((top / "journey" / "ours.txt").read_bytes) == errno.EHOSTDOWN


def test_devices_come_and_go_and_their_locations_with_them(told: Told, laptop: int, here: Path) -> None:
    mnt = told.library.mnt
    device = bytes.fromhex(told("device", "Laptop")[2:])
    told("file", laptop, "one.txt", "b:one")
    assert not (mnt / "Music").exists()
    assert not (mnt / "notes").exists()
    music = told("branch", device, "Music")
    store = told("branch", device, None)
    told("follow")
    told("file", music, "song.ogg", "b:la")
    told("file", store, "notes/todo.txt", "b:later")
    eventually(lambda: names(mnt / "Music") == ["song.ogg"], "a location has come")
    eventually(lambda: names(mnt / "notes") == ["todo.txt"], "a store has come")
    assert value(mnt / "Music" / "song.ogg", "state") == ["offline"]
    told("online", device, True)
    assert value(mnt / "Music" / "song.ogg", "state") == ["remote"]
    assert value(mnt / "Music", "state") == ["remote"]
    assert names(mnt / ".vdfs" / "offline") == []
    told("online", device, False)
    assert value(mnt / "Music", "state") == ["offline"]
    told("rename_location", "Music", "Songs")
    told("follow")
    eventually(lambda: names(mnt / "Songs") == ["song.ogg"] and not (mnt / "Music").exists(), "it is called otherwise")
    told("rename_location", "Photos", "Pictures")
    told("follow")
    eventually(lambda: names(mnt / "Pictures") == ["local.txt", "one.txt"], "so is one that we have too")
    (mnt / "Pictures" / "mine").write_bytes(b"mine")
    assert (here / "mine").read_bytes() == b"mine"
    told("forget_branch", music)
    told("follow")
    eventually(lambda: not (mnt / "Songs").exists(), "it is gone")
    assert errno_of(os.rmdir, mnt / "Songs") == errno.ENOENT


def test_forgetting_our_directory_of_a_location_leaves_it_to_the_others(told: Told, laptop: int, here: Path) -> None:
    mnt = told.library.mnt
    told("file", laptop, "one.txt", "b:one")
    eventually(lambda: names(mnt / "Photos") == ["local.txt", "one.txt"], "both are there")
    told.library.sd("location", "remove", "Photos")
    eventually(lambda: names(mnt / "Photos") == ["one.txt"], "theirs is left")
    assert (here / "local.txt").read_bytes() == b"here"
    told.library.sd_fails("location", "remove", "Photos")
    told.library.sd("location", "add", here, "--name", "Photos")
    eventually(lambda: names(mnt / "Photos") == ["local.txt", "one.txt"], "both are there again")


def test_what_is_the_same_is_one_though_nobody_has_looked(told: Told, laptop: int, here: Path) -> None:
    data = "z" * 3000
    for number in range(30):
        (here / "many" / f"{number}").mkdir(parents=True)
        (here / "many" / f"{number}" / "file").write_bytes(data.encode() + b"%d" % number)
    for number in range(30):
        told("file", laptop, f"many/{number}/file", f"b:{data}{number}")
    told.library.settle()
    eventually(lambda: told.library.sd_json("duplicates")["sets"] == [], "none is a copy of itself")
    assert len(told.library.sd_json("search", "file", "--limit", "100")["hits"]) == 30
    told.library.verify("--content")


def test_a_location_is_named_and_left_by_those_who_hold_it(told: Told, laptop: int, here: Path) -> None:
    mnt = told.library.mnt
    music = told("branch", bytes.fromhex(told("device", "Laptop")[2:]), "Music")
    told("follow")
    told("file", laptop, "one.txt", "b:one")
    assert errno_of(os.rename, mnt / "Music", mnt / "Songs") == errno.EROFS
    assert errno_of(os.rmdir, mnt / "Music") == errno.EROFS
    told("file", music, "song.ogg", "b:la")
    os.rename(mnt / "Photos", mnt / "Pictures")
    assert names(mnt / "Pictures") == ["local.txt", "one.txt"]
    assert not (mnt / "Photos").exists()
    (mnt / "Music" / "mine.ogg").write_bytes(b"mine")
    assert (told.library.library_dir / "store" / "Music" / "mine.ogg").read_bytes() == b"mine"
    assert names(mnt / "Music") == ["mine.ogg", "song.ogg"]
    number = (mnt / "Pictures").stat().st_ino
    told("remove", laptop, "one.txt")
    (mnt / "Pictures" / "local.txt").unlink()
    eventually(lambda: names(mnt / "Pictures") == [], "it is empty")
    os.rmdir(mnt / "Pictures")
    assert here.is_dir()
    assert names(mnt / "Pictures") == []
    assert (mnt / "Pictures").stat().st_ino != number
    assert errno_of(os.rmdir, mnt / "Pictures") == errno.EROFS
    (mnt / "Pictures" / "anew").write_bytes(b"anew")
    assert not (here / "anew").exists()
    assert names(mnt / "Pictures") == ["anew"]
