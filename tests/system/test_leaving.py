"""What leaves a name here has left it, though another device holds it yet, through real mounts and real programs.

Most locations here are held whole by `Laptop`, too: by rows that say of each file what is on our disk.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.posix.syscalls import renameat2
from tests.remote_rows import OLD_NS, RemoteRows, closed_library
from tests.system.harness import Mounted, errno_of, eventually, names
from tests.system.test_remote import RENAME_EXCHANGE, Told, shell, value

DATA = b"the same" * 500


def run(line: str, cwd: Path) -> str:
    """A line of shell that must work."""
    done = shell(line, cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hold_too(rows: RemoteRows, branch: int, top: Path) -> None:
    """The other device has all that is below a directory of ours."""
    for base, directories, files in os.walk(top):
        below = os.path.relpath(base, top)
        if ".git" in Path(below).parts:
            continue
        for name in [*directories, *files]:
            path, real = os.path.normpath(os.path.join(below, name)), Path(base, name)
            if path == ".git":
                continue
            if real.is_symlink():
                rows.link(branch, path, os.readlink(real))
            elif real.is_dir():
                rows.directory(branch, path)
            else:
                rows.file(branch, path, real.read_bytes(), mode=stat.S_IMODE(real.stat().st_mode))


class Held:
    """A location `Work` that Laptop holds too, in a library that is mounted by `mount`."""

    def __init__(self, library: Mounted, here: Path) -> None:
        self.library = library
        self.here = here
        self.branch = 0

    def mount(self) -> Path:
        """Read ours, have Laptop hold it too, and mount; returns where it is shown."""
        self.library.mount(self.here)
        self.library.wait_idle()
        self.library.settle()
        self.library.unmount()
        with closed_library(self.library.library_dir, self.library.data) as rows:
            self.branch = rows.branch(rows.device("Laptop"), "Work")
            hold_too(rows, self.branch, self.here)
        self.library.mount()
        self.library.settle()
        return self.library.mnt / "Work"


@pytest.fixture
def held(library: Mounted) -> Held:
    return Held(library, library.folder("Work"))


def laptop(library: Mounted) -> Path:
    return library.mnt / ".vdfs" / "devices" / "laptop" / "Work"


def test_a_name_that_was_removed_is_free_and_what_is_made_there_is_a_later_version_of_it(held: Held) -> None:
    for name in ("plan", "kept", "link"):
        (held.here / name).write_bytes(DATA + name.encode())
    (held.here / "link").unlink()
    (held.here / "link").symlink_to("plan")
    top = held.mount()
    library = held.library
    plan = top / "plan"
    assert value(plan, "devices")[1:] == ["Laptop"]
    library.sd("tag", "add", "mine", plan)
    uuid, number = value(plan, "id"), plan.stat().st_ino
    assert (value(top, "rfiles"), value(top, "rbytes")) == (["4"], [str(4 * len(DATA) + 16)])
    plan.unlink()
    assert names(top) == ["kept", "link"]
    assert not plan.exists()
    assert (value(top, "rfiles"), value(top, "rbytes")) == (["2"], [str(2 * len(DATA) + 8)])
    assert library.sd_json("search", "plan")["hits"] == []
    assert "plan" not in names(library.mnt / ".vdfs" / "recent")
    assert "mine" not in names(library.mnt / ".vdfs" / "tags")
    assert names(laptop(library)) == ["kept", "link", "plan"]
    assert os.getxattr(laptop(library) / "plan", "user.vdfs.state") == b"removed"
    info = library.sd_json("info", plan)
    assert (info["state"], [one["device"] for one in info["replicas"]]) == ("removed", ["Laptop"])
    library.remount()
    assert names(top) == ["kept", "link"]
    fd = os.open(plan, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    os.write(fd, b"anew")
    os.close(fd)
    library.settle()
    assert names(top) == ["kept", "link", "plan"]
    assert plan.read_bytes() == b"anew"
    assert value(plan, "id") == uuid
    assert plan.stat().st_ino != number
    assert os.getxattr(plan, "user.xdg.tags") == b"mine"
    assert len(value(plan, "devices")) == 1
    assert value(plan, "allpaths") == [str(held.here / "plan"), "laptop:/far/away/plan"]
    assert len(value(plan, "version")[0].split(",")) == 2
    os.unlink(top / "link")
    os.symlink("kept", top / "link")
    assert os.readlink(top / "link") == "kept"
    assert names(top) == ["kept", "link", "plan"]
    plan.unlink()
    assert not plan.exists()
    plan.mkdir()
    assert names(top) == ["kept", "link", "plan"]
    plan.rmdir()
    os.link(top / "kept", plan)
    assert plan.read_bytes() == DATA + b"kept"
    assert names(top) == ["kept", "link", "plan"]
    library.settle()
    library.verify("--content")
    assert library.sd_json("library", "check") == {"faults": []}


def test_whole_trees_are_removed_moved_and_come_back(held: Held) -> None:
    for path in ("dir/one", "dir/sub/two", "dir/sub/deep/three", "other/four"):
        (held.here / path).parent.mkdir(parents=True, exist_ok=True)
        (held.here / path).write_bytes(DATA + path.encode())
    top = held.mount()
    run("mv dir moved", top)
    assert names(top) == ["moved", "other"]
    assert run("find moved -type f | sort", top).split() == ["moved/one", "moved/sub/deep/three", "moved/sub/two"]
    assert value(top, "rdirs") == ["5"]  # three of ours, and on each device `other`
    run("mkdir dir && rmdir dir && mv moved dir", top)
    assert names(top) == ["dir", "other"]
    assert run("find dir -type f | sort", top).split() == ["dir/one", "dir/sub/deep/three", "dir/sub/two"]
    assert (top / "dir" / "sub" / "two").read_bytes() == DATA + b"dir/sub/two"
    run("echo changed > dir/sub/two", top)
    held.library.settle()
    assert names(top / "dir" / "sub") == ["deep", "two"]
    assert (top / "dir" / "sub" / "two").read_bytes() == b"changed\n"
    run("rm -r dir other && mkdir other && echo 4 > other/four", top)
    assert names(top) == ["other"]
    assert names(top / "other") == ["four"]
    held.library.remount()
    assert names(top) == ["other"]
    assert names(top / "other") == ["four"]
    assert names(laptop(held.library)) == ["dir", "other"]
    held.library.settle()
    held.library.verify("--content")
    assert held.library.sd_json("library", "check") == {"faults": []}


def test_exchanging_and_renaming_over_leave_no_other_version_to_show(held: Held) -> None:
    for name in ("a", "b", "c", "d"):
        (held.here / name).write_bytes(DATA + name.encode() * (1 + "abcd".index(name)))
    top = held.mount()
    renameat2(top / "a", top / "b", RENAME_EXCHANGE)
    assert names(top) == ["a", "b", "c", "d"]
    os.rename(top / "c", top / "d")
    assert names(top) == ["a", "b", "d"]
    assert [(top / name).read_bytes()[len(DATA) :] for name in "abd"] == [b"bb", b"a", b"ccc"]
    held.library.settle()
    held.library.remount()
    assert names(top) == ["a", "b", "d"]
    for name in ("a", "b", "d"):
        assert len(value(top / name, "devices")) == 1
        (top / name).unlink()
    assert names(top) == []
    held.library.verify("--content")


PROGRAMS = {
    "sed -i": "sed -i s/same/other/ f",
    "rsync": "echo other > ../new && rsync -a --no-whole-file ../new f && rm ../new",
    "tar x": "mkdir ../packed && echo other > ../packed/f && tar cf ../p.tar -C ../packed f && tar xf ../p.tar && "
    "rm -r ../packed ../p.tar",
    "cp --remove-destination": "echo other > ../new && cp --remove-destination ../new f && rm ../new",
    "install": "echo other > ../new && install -m 644 ../new f && rm ../new",
    "backup and write": "mv f f~ && echo other > f && rm f~",
    "write and move": "echo other > f.tmp && mv f.tmp f",
    "perl -i": "perl -i.bak -pe s/same/other/ f && rm f.bak",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_that_make_a_name_anew_find_it_free(held: Held, program: str) -> None:
    if shutil.which(PROGRAMS[program].split()[0]) is None or (program == "rsync" and shutil.which("rsync") is None):
        pytest.skip(f"{program} is not installed")
    (held.here / "dir").mkdir()
    (held.here / "dir" / "f").write_bytes(DATA)
    top = held.mount()
    held.library.sd("tag", "add", "mine", top / "dir" / "f")
    run(PROGRAMS[program], top / "dir")
    assert names(top / "dir") == ["f"]
    assert b"other" in (top / "dir" / "f").read_bytes()
    held.library.settle()
    assert names(top / "dir") == ["f"]
    assert os.getxattr(top / "dir" / "f", "user.xdg.tags") == b"mine"
    assert len(value(top / "dir" / "f", "devices")) == 1
    assert len(value(top / "dir" / "f", "version")[0].split(",")) == 2
    held.library.verify("--content")


def test_an_editor_saves_as_it_does_elsewhere(held: Held) -> None:
    vim = shutil.which("vim") or shutil.which("vi")
    if vim is None:
        pytest.skip("no vim is installed")
    (held.here / "f").write_bytes(DATA)
    top = held.mount()
    held.library.sd("tag", "add", "mine", top / "f")
    for copying in ("no", "yes"):
        run(f"{vim} -es -u NONE -c 'set backup backupcopy={copying}' -c '%s/same/{copying} same/' -c wq f", top)
        assert copying.encode() in (top / "f").read_bytes()
        assert os.getxattr(top / "f", "user.xdg.tags") == b"mine"
    held.library.settle()
    assert set(names(top)) <= {"f", "f~"}
    held.library.verify("--content")


def test_git_checks_out_and_commits_in_a_location_that_another_device_holds_too(held: Held) -> None:
    git = "git -c user.name=a -c user.email=a@b -c init.defaultBranch=main -c gc.auto=0"
    run(f"{git} init -q .", held.here)
    for path in ("README", "src/one.c", "src/two.c", "doc/index"):
        (held.here / path).parent.mkdir(exist_ok=True)
        (held.here / path).write_bytes(DATA + path.encode())
    (held.here / "latest").symlink_to("README")
    run(f"{git} add . && {git} commit -qm first", held.here)
    top = held.mount()
    run(f"{git} checkout -q -b topic", top)
    run("echo more >> src/one.c && rm -r doc && mkdir doc2 && echo new > doc2/index && ln -sf src latest", top)
    run(f"{git} add -A && {git} commit -qm second", top)
    for branch in ("main", "topic", "main"):
        run(f"{git} checkout -q {branch}", top)
        assert os.readlink(top / "latest") == {"main": "README", "topic": "src"}[branch]
        assert run(f"{git} status --porcelain", top) == ""
    assert names(top) == [".git", "README", "doc", "latest", "src"]
    run(f"{git} checkout -q topic && {git} rebase -q main && {git} stash list", top)
    assert run(f"{git} status --porcelain", top) == ""
    assert names(top) == [".git", "README", "doc2", "latest", "src"]
    held.library.remount()
    assert run(f"{git} status --porcelain", top) == ""
    assert run(f"{git} fsck 2>&1", top) == ""
    held.library.settle()
    held.library.verify("--content")
    assert held.library.sd_json("library", "check") == {"faults": []}


# told while the mount is used -----------------------------------------------------------------------------------------


@pytest.fixture
def here(library: Mounted) -> Path:
    top = library.folder("Photos")
    (top / "both.txt").write_bytes(DATA)
    (top / "dir").mkdir()
    (top / "dir" / "one").write_bytes(DATA)
    library.mount(top)
    library.settle()
    library.unmount()
    return top


@pytest.fixture
def told(here: Path, library: Mounted) -> Iterator[Told]:
    server = Told(library)
    yield server
    server.close()


@pytest.fixture
def far(told: Told) -> int:
    """The branch that another device has of `Photos`."""
    device = bytes.fromhex(told("device", "Laptop")[2:])
    branch: int = told("branch", device, "Photos")
    told("follow")
    told("meet", True)
    told("file", branch, "both.txt", "b:" + DATA.decode())
    told("file", branch, "dir/one", "b:" + DATA.decode())
    return branch


def test_a_later_version_of_the_other_device_shows_again(told: Told, far: int) -> None:
    top = told.library.mnt / "Photos"
    eventually(lambda: len(value(top / "both.txt", "devices")) == 2, "both have it")
    for name in ("both.txt", "dir/one"):
        (top / name).unlink()
        assert not (top / name).exists()
    told("file", far, "both.txt", "b:" + DATA.decode(), mtime_ns=OLD_NS + 5)
    assert not (top / "both.txt").exists()
    uuid = told("uuid_of", far, "both.txt")
    told("file", far, "both.txt", "b:newer", mtime_ns=OLD_NS + 9, uuid=uuid, version=told("later", far, "both.txt"))
    eventually(lambda: (top / "both.txt").exists(), "it was written since")
    assert (top / "both.txt").stat().st_size == 5
    assert errno_of((top / "both.txt").unlink) == errno.EROFS
    assert names(top / "dir") == []
    (top / "dir").rmdir()
    assert not (top / "dir").exists()
    told("file", far, "dir/fresh", "b:fresh")
    eventually(lambda: (top / "dir").exists() and names(top / "dir") == ["fresh"], "there is something new in it")
    told("remove", far, "dir/fresh")
    eventually(lambda: not (top / "dir").exists(), "that is gone")
    (top / "dir").mkdir()
    assert names(top / "dir") == []
    (top / "dir" / "one").write_bytes(b"ours")
    assert names(top / "dir") == ["one"]
    assert (top / "dir" / "one").read_bytes() == b"ours"


def test_what_is_removed_behind_the_mount_is_a_replica_and_no_name(told: Told, far: int, here: Path) -> None:
    top = told.library.mnt / "Photos"
    eventually(lambda: len(value(top / "both.txt", "devices")) == 2, "both have it")
    (here / "both.txt").unlink()
    eventually(lambda: value(top / "both.txt", "state") == ["offline"], "the other device's has the name")
    (here / "both.txt").write_bytes(b"again")
    eventually(lambda: (top / "both.txt").read_bytes() == b"again", "it is there again")


def test_what_was_not_known_to_be_the_same_is_hidden_and_shows_beside_what_is_made_anew(
    told: Told, far: int, here: Path
) -> None:
    top = told.library.mnt / "Photos"
    (top / "unread").write_bytes(b"x" * 100)
    told("file", far, "unread", "b:" + "y" * 100)
    (top / "unread").unlink()
    assert not (top / "unread").exists()
    (top / "unread").write_bytes(b"z" * 200)
    shown = [name for name in names(top) if name.startswith("unread")]
    assert shown == ["unread", "unread (from laptop, Photos)"]
