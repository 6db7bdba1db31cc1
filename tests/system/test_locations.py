"""Locations: real directories join and leave the library while it is mounted, and no file of theirs is touched."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from index.scan.mounts import mount_of, mounts
from tests.system.harness import (
    NOBODY,
    PROGRAM_S,
    Mounted,
    as_nobody,
    errno_of,
    eventually,
    mountpoints,
    names,
    one_line,
    tree,
    walk,
)


def fill(directory: Path) -> None:
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "a.txt").write_bytes(b"a")
    (directory / "sub" / "b.txt").write_bytes(b"b" * 1000)
    (directory / "sub" / "deep" / "c").write_bytes(os.urandom(5000))
    (directory / "link").symlink_to("sub/b.txt")


def fingerprint(directory: Path) -> dict[str, tuple[object, ...]]:
    """All that must not change about a user's files: content, times (not atime), mode, inode, attributes."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [str(directory), *walk(directory)]:
        st = os.lstat(path)
        content = os.readlink(path) if stat.S_ISLNK(st.st_mode) else None
        if stat.S_ISREG(st.st_mode):
            content = Path(path).read_bytes()
        attributes = [] if stat.S_ISLNK(st.st_mode) else os.listxattr(path)
        found[path] = (content, st.st_mtime_ns, st.st_ctime_ns, st.st_mode, st.st_ino, tuple(attributes))
    return found


# -- adding


def test_a_location_is_there_the_moment_it_is_added(library):
    """`sd location add` returns, and the next `ls` has all of it, through a mount that runs."""
    library.mount()
    photos = library.folder("Photos")
    fill(photos)
    before = fingerprint(photos)
    shown = library.add(photos)
    assert "Photos" in names(library.mnt)
    assert tree(shown) == tree(photos)
    assert library.sd_json("location", "list")["locations"][0]["branches"][0]["path"] == str(photos)
    library.wait_idle()
    library.verify("--content")
    assert fingerprint(photos) == before, "indexing touches nothing"


def test_a_big_tree_is_listed_before_it_is_scanned(library):
    """Adding takes no longer for a big tree, and any directory in it is complete at once, the deepest first."""
    library.mount()
    for size in (60, 120, 240, 480):  # a busy machine may take the time away in which the scan is not done yet
        big = library.folder(f"Big{size}")
        for number in range(size):
            below = big / f"d{number:02}" / "x" / "y"
            below.mkdir(parents=True)
            for file in range(60):
                (below / f"f{file:02}").write_bytes(b"%d" % file)
        shown = library.add(big)
        if not library.sd_json("status")["scan"]["idle"]:
            break
    else:
        pytest.fail("a tree of 28 800 files is too small for this test")
    assert names(shown / "d59" / "x" / "y") == [f"f{file:02}" for file in range(60)]
    assert (shown / "d58" / "x" / "y" / "f07").read_bytes() == b"7"
    assert tree(shown) == tree(big)
    library.wait_idle()
    library.verify()


def test_locations_of_the_command_line_are_kept(library):
    """`sdmount MNT DIR…` once; the next `sdmount MNT` shows them again; naming them again is no error."""
    one, two = library.folder("One"), library.folder("Two")
    fill(one)
    library.mount(one, two)
    assert {"One", "Two"} <= set(names(library.mnt))
    library.unmount()
    library.mount()
    assert {"One", "Two"} <= set(names(library.mnt))
    library.unmount()
    library.mount(one)
    assert len(library.sd_json("location", "list")["locations"]) == 2


def test_a_relative_directory_is_meant_from_where_one_stands(library):
    """`cd disk; sd location add Photos` and `sd location add .`"""
    library.mount()
    photos = library.folder("Photos")
    fill(photos)
    for directory, given, name in ((library.disk, "Photos", "Photos"), (library.folder("Dot"), ".", "Dot")):
        done = subprocess.run(
            [sys.executable, "-m", "vdfs.cli", "--data-dir", str(library.data), "location", "add", given],
            cwd=directory, env=library.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert name in names(library.mnt)
    assert tree(library.mnt / "Photos") == tree(photos)


@pytest.mark.parametrize(
    "name", [b"with space", b"new\nline", b"-dash", b".hidden", b"caf\xc3\xa9", b"\xff\xfe", b"n" * 255]
)
def test_any_name_of_a_directory_is_a_location(library, name):
    """Names are bytes: shown, listed by `sd`, removed by their name, also when they are no text."""
    library.mount()
    directory = library.disk / os.fsdecode(name)
    directory.mkdir()
    (directory / "f").write_bytes(b"x")
    shown = library.add(directory)
    assert name in os.listdir(os.fsencode(library.mnt))
    assert (shown / "f").read_bytes() == b"x"
    listed = library.sd_json("location", "list")["locations"]
    assert len(listed) == 1
    library.sd("location", "rescan", "--", os.fsdecode(name))
    library.sd("location", "remove", "--", os.fsdecode(name))
    assert name not in os.listdir(os.fsencode(library.mnt))
    assert (directory / "f").read_bytes() == b"x"


def test_a_location_behind_a_symlink_is_the_directory_itself(library):
    """The link may go; the location stays."""
    library.mount()
    real = library.folder("real")
    fill(real)
    link = library.disk / "link"
    link.symlink_to(real)
    library.sd("location", "add", link, "--name", "Linked")
    assert tree(library.mnt / "Linked") == tree(real)
    link.unlink()
    library.remount()
    assert tree(library.mnt / "Linked") == tree(real)
    library.sd_fails("location", "add", real)


def test_a_used_basename_needs_a_name(library):
    """Another directory of that name is refused with the cure; `--name` of its own, or the same to merge."""
    first, second = library.folder("a", "Photos"), library.folder("b", "Photos")
    (first / "one").write_bytes(b"1")
    (second / "two").write_bytes(b"2")
    library.mount(first)
    message = library.sd_fails("location", "add", second)
    assert "--name" in message
    assert "Photos" in message
    assert names(library.mnt / "Photos") == ["one"]
    library.sd("location", "add", second, "--name", "More")
    assert names(library.mnt / "More") == ["two"]
    library.sd("location", "remove", "More")
    library.sd("location", "add", second, "--name", "Photos")
    assert names(library.mnt / "Photos") == ["one", "two"]
    listed = library.sd_json("location", "list")["locations"]
    assert [len(location["branches"]) for location in listed] == [2]


def test_a_used_basename_at_the_command_line_of_sdmount(library):
    """`sdmount MNT a/Photos b/Photos` is refused in one line before anything is mounted."""
    first, second = library.folder("a", "Photos"), library.folder("b", "Photos")
    done = library.sdmount(first, second)
    assert done.returncode == 1
    assert "Photos" in one_line(done.stderr, "sdmount: ")
    assert not library.is_mounted()


def test_what_can_be_no_location_is_refused(library):
    """Nested, twice, a file, absent, our own mount and data, pseudo file systems: one line each, nothing changed."""
    outer = library.folder("outer")
    inner = library.folder("outer", "inner")
    other = library.folder("other")
    file = library.disk / "file"
    file.write_bytes(b"x")
    library.mount(inner)
    refused = [
        (inner, (), "already"),
        (inner, ("--name", "Again"), "already"),
        (outer, (), "inner"),
        (library.folder("outer", "inner", "below"), (), "inner"),
        (file, (), "directory"),
        (file / "x", (), "file"),
        (library.disk / "absent", (), "absent"),
        (library.mnt, (), "mount"),
        (library.mnt / "inner", (), "mount"),
        (library.mnt / ".vdfs", (), "mount"),
        (library.data, (), "data directory"),
        (library.library_dir, (), "data directory"),
        (library.library_dir / "store", (), ""),
        (Path("/proc"), (), "/proc"),
        (Path("/proc/self"), (), "/proc"),
        (Path("/sys/kernel"), (), "/sys"),
        (Path("/dev/pts"), (), "/dev/pts"),
        (other, ("--name", "a/b"), "name"),
        (other, ("--name", ".."), "name"),
        (other, ("--name", ".vdfs"), "name"),
        (other, ("--name", "n" * 256), "name"),
    ]
    for directory, arguments, says in refused:
        message = library.sd_fails("location", "add", directory, *arguments)
        assert says in message, (directory, message)
    assert [location["name"] for location in library.sd_json("location", "list")["locations"]] == ["inner"]
    assert names(library.mnt) == sorted(["inner", "Tags", "Search", "Devices"])


def test_a_directory_that_is_mounted_twice_is_one_location(library, root_only):
    """A bind of a location, of what is in it and of what it is in: every file would be there twice."""
    inner = library.folder("outer", "inner")
    at = mount_of(os.fsencode(inner), mounts())
    if at is None or not at.id:
        pytest.skip("in a chroot the table of mounts does not say where directories lie")
    library.folder("outer", "inner", "below")
    library.mount(inner)
    for name, source in (("same", inner), ("deeper", inner / "below"), ("higher", inner.parent)):
        bound = library.folder("bound", name)
        subprocess.run(["mount", "--bind", source, bound], check=True, timeout=30)
        library.extra_mounts.append(bound)
        for arguments in ((), ("--name", "inner")):
            assert "inner" in library.sd_fails("location", "add", bound, *arguments)
    assert [location["name"] for location in library.sd_json("location", "list")["locations"]] == ["inner"]
    assert names(library.mnt / "inner") == ["below"]


def test_of_several_directories_none_is_added_when_one_cannot_be(library):
    library.mount()
    library.unmount()
    one, other = library.folder("one", "D"), library.folder("other", "D")
    done = library.sdmount(one, other)
    assert (done.returncode, "--name" in done.stderr) == (1, True)
    library.mount()
    assert library.sd_json("location", "list")["locations"] == []


def test_another_library_of_ours_is_no_location(library):
    """The mount of a second library holds answers, not files."""
    other = library.base / "other"
    library.extra_mounts.append(other)
    done = library.sdmount(mountpoint=other, options=("--library", "Second"))
    assert done.returncode == 0, done
    lock = json.loads((library.data / "libraries" / "Second.sdlibrary" / "lock").read_text())
    library.servers.add(lock["pid"])
    library.run("fusefs.sdmount", "--data-dir", library.data, "--library", "Library", library.mnt, check=True)
    library.servers.add(library.pid)
    done = library.run("vdfs.cli", "--data-dir", library.data, "--library", "Library", "location", "add", other)
    assert done.returncode in (1, 2)
    assert "mount" in one_line(done.stderr, "sd: ")


def test_an_unreadable_directory_is_refused(library, root_only):
    """For somebody who is not root and may not list it: one line that says so, and no location."""
    library.mount()
    library.unmount()
    closed = library.folder("closed")
    closed.chmod(0o700)
    behind = library.folder("wall", "behind")
    behind.parent.chmod(0o700)
    unlisted = library.folder("unlisted")
    unlisted.chmod(0o711)
    allowed = library.folder("open")
    for path in [str(library.data), *walk(library.data), str(library.runtime)]:
        os.chown(path, NOBODY, NOBODY)
    for directory in (closed, behind, unlisted):
        done = sd_as_nobody(library, "location", "add", str(directory))
        assert done.returncode in (1, 2), done
        message = one_line(done.stderr, "sd: ")
        assert directory.name in message
        assert "permission" in message
    assert sd_as_nobody(library, "location", "add", str(allowed)).returncode == 0
    listed = json.loads(sd_as_nobody(library, "--json", "location", "list").stdout)["locations"]
    assert [location["name"] for location in listed] == ["open"]


def sd_as_nobody(library: Mounted, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`sd` by somebody else."""
    sd = (sys.executable, "-m", "vdfs.cli", "--data-dir", library.data, *arguments)
    return subprocess.run(
        as_nobody(library.base / "way", *sd),
        capture_output=True, text=True, check=False, timeout=PROGRAM_S, cwd="/", env=library.environment(),
    )  # fmt: skip


def test_a_directory_in_a_location_that_cannot_be_read(library, root_only):
    """One closed directory inside: the rest is indexed, and nothing of it is taken for deleted."""
    source = library.folder("Files")
    fill(source)
    shown = library.mount(source).mnt / "Files"
    library.wait_idle()
    assert (shown / "sub" / "b.txt").exists()
    os.chmod(source / "sub", 0)
    library.sd("location", "rescan", "Files")
    library.wait_idle()
    assert library.sd_json("search", "b.txt")["hits"], "still known"
    os.chmod(source / "sub", 0o755)
    assert (shown / "sub" / "b.txt").read_bytes() == b"b" * 1000


# -- a home directory


def test_a_home_directory_that_contains_us_is_fine(library):
    """Mountpoint and data directory lie in the location: both are skipped, in listing, walk, search and scan."""
    home = library.disk / "home"
    home.mkdir()
    fill(home)
    library.data = home / ".local" / "share" / "sdmount"
    library.data.mkdir(parents=True)
    library.mnt = home / "Spacedrive"
    library.mnt.mkdir()
    (home / ".local" / "share" / "other").write_bytes(b"other")
    library.mount(home)
    shown = library.mnt / "home"
    assert names(shown) == sorted([".local", "a.txt", "link", "sub"])
    assert names(shown / ".local" / "share") == ["other"]
    for hidden in (shown / "Spacedrive", shown / ".local" / "share" / "sdmount"):
        assert not hidden.exists()
        assert errno_of(os.stat, hidden) == 2
    library.wait_idle()
    library.verify()
    found = [path for path in walk(shown) if "library.db" in path or "Spacedrive" in os.path.relpath(path, shown)]
    assert found == []
    assert library.sd_json("search", "library.db")["hits"] == []
    (shown / "new").write_bytes(b"new")
    assert (home / "new").read_bytes() == b"new"
    (home / "behind").write_bytes(b"behind")
    eventually(lambda: (shown / "behind").read_bytes() == b"behind", "changes are seen", 5)
    library.remount()
    assert names(shown) == sorted([".local", "a.txt", "behind", "link", "new", "sub"])


def test_names_of_what_is_skipped_cannot_be_made(library):
    """Inside such a home nothing can be put over the mountpoint or the data directory through the mount."""
    home = library.disk / "home"
    home.mkdir()
    (home / "f").write_bytes(b"x")
    library.mnt = home / "Spacedrive"
    library.mnt.mkdir()
    library.data = home / "data"
    library.mount(home)
    shown = library.mnt / "home"
    for name in ("Spacedrive", "data"):
        assert errno_of(os.mkdir, shown / name) != 0
        assert errno_of(os.rmdir, shown / name) != 0
        assert errno_of(os.rename, shown / "f", shown / name) != 0
        assert errno_of(os.rename, shown / name, shown / "g") != 0
        assert errno_of(lambda path: Path(path).write_bytes(b""), shown / name) != 0
    assert (library.mnt / "home" / "f").read_bytes() == b"x"
    assert (home / "data").is_dir()
    assert library.is_mounted()


def test_a_mount_of_another_kind_inside_a_location_is_shown(library, root_only):
    """A tmpfs in a home directory holds files like any other; a proc does not, and is skipped."""
    home = library.folder("home")
    (home / "tmp").mkdir()
    (home / "proc").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(home / "tmp")], check=True)
    subprocess.run(["mount", "-t", "proc", "none", str(home / "proc")], check=True)
    try:
        (home / "tmp" / "f").write_bytes(b"in tmpfs")
        library.mount(home)
        shown = library.mnt / "home"
        assert (shown / "tmp" / "f").read_bytes() == b"in tmpfs"
        assert names(shown) == ["tmp"], "the pseudo file system is skipped"
        library.wait_idle()
        library.verify()
        (shown / "tmp" / "g").write_bytes(b"g")
        assert (home / "tmp" / "g").read_bytes() == b"g"
        library.unmount()
    finally:
        for name in ("tmp", "proc"):
            subprocess.run(["umount", "-l", str(home / name)], check=True)
    assert str(home / "tmp") not in mountpoints()


# -- removing


def test_removing_a_location_touches_no_file(library):
    """The name is gone from the mount at once; every file is as it was, to its times and attributes."""
    photos, music = library.folder("Photos"), library.folder("Music")
    fill(photos)
    fill(music)
    library.mount(photos, music)
    library.wait_idle()
    before = fingerprint(photos)
    pid = library.pid
    library.sd("location", "remove", "Photos")
    assert "Photos" not in names(library.mnt)
    assert errno_of(os.stat, library.mnt / "Photos") == 2
    assert errno_of(os.stat, library.mnt / "Photos" / "a.txt") == 2
    assert fingerprint(photos) == before
    assert tree(library.mnt / "Music") == tree(music)
    assert library.pid == pid
    assert library.sd_json("search", "a.txt")["hits"] != []
    assert all("Music" in hit["path"] for hit in library.sd_json("search", "a.txt")["hits"])
    library.wait_idle()
    library.verify()
    library.remount()
    assert "Photos" not in names(library.mnt)
    shown = library.add(photos)
    assert tree(shown) == tree(photos)


def test_removing_while_a_file_is_open(library):
    """Whoever has a file of it open goes on reading and writing; the bytes land in the file."""
    photos = library.folder("Photos")
    (photos / "f").write_bytes(b"0123456789")
    library.mount(photos)
    with open(library.mnt / "Photos" / "f", "r+b", buffering=0) as file:
        assert file.read(3) == b"012"
        library.sd("location", "remove", "Photos")
        assert "Photos" not in names(library.mnt)
        file.seek(0)
        assert file.read() == b"0123456789"
        file.write(b"more")
    assert (photos / "f").read_bytes() == b"0123456789more"


def test_removing_while_it_is_scanned(library):
    """A removal does not wait for the scan, and the scan brings nothing back."""
    big = library.folder("Big")
    for number in range(50):
        (big / f"d{number}").mkdir()
        for file in range(50):
            (big / f"d{number}" / f"f{file}").write_bytes(b"%d" % file)
    (big / "large").touch()
    os.truncate(big / "large", 8 << 30)  # of holes, which take their time to be hashed
    library.mount(big)
    assert not library.sd_json("status")["scan"]["idle"]
    library.sd("location", "remove", "Big")
    assert "Big" not in names(library.mnt)
    library.wait_idle()
    status = library.sd_json("status")
    assert (status["files"], status["locations"]) == (0, 0)
    library.verify()
    assert len(list(walk(big))) == 50 * 51 + 1


def test_a_removal_that_was_killed_is_finished(library):
    """SIGKILL in the middle of forgetting many rows: after the next start nothing of it is left."""
    big, small = library.folder("Big"), library.folder("Small")
    fill(small)
    for number in range(60):
        (big / f"d{number}").mkdir()
        for file in range(100):
            (big / f"d{number}" / f"f{file}").touch()
    library.mount(big, small)
    library.wait_idle()
    with subprocess.Popen(
        [sys.executable, "-m", "vdfs.cli", "--data-dir", str(library.data), "location", "remove", "Big"],
        env=library.environment(), cwd="/", stderr=subprocess.DEVNULL,
    ) as removing:  # fmt: skip
        eventually(lambda: "Big" not in names(library.mnt), "it is removed")
        library.kill()
        removing.wait(30)
    library.mount()
    assert "Big" not in names(library.mnt)
    library.wait_idle()
    eventually(lambda: library.sd_json("status")["files"] == 3, "the rows are gone")
    library.verify()
    assert len(list(walk(big))) == 60 * 101
    shown = library.add(big)
    assert len(names(shown)) == 60


def test_what_is_not_there_cannot_be_removed_or_rescanned(library):
    """Exit 1, one line that names what there is."""
    library.mount(library.folder("Photos"))
    for verb in ("remove", "rescan"):
        message = library.sd_fails("location", verb, "Pohtos", code=1)
        assert "Pohtos" in message
        assert "Photos" in message


def test_rescan_finds_what_nobody_reported(library):
    """Changes made while nothing ran are there after the start; a rescan by hand is quiet when all is known."""
    photos = library.folder("Photos")
    fill(photos)
    library.mount(photos)
    library.wait_idle()
    library.unmount()
    (photos / "sub" / "late").write_bytes(b"late")
    (photos / "a.txt").unlink()
    shutil.move(photos / "sub" / "deep", photos / "moved")
    library.mount()
    library.wait_idle()
    library.verify("--content")
    assert [hit["path"] for hit in library.sd_json("search", "late")["hits"]] == [str(library.mnt / "Photos/sub/late")]
    assert library.sd_json("search", "a.txt")["hits"] == []
    library.sd("location", "rescan", "Photos")
    library.wait_idle()
    library.verify("--content")
    assert tree(library.mnt / "Photos") == tree(photos)


def test_the_list_says_how_far_each_is(library):
    """Name, path, entries, state of each directory; for people and as JSON."""
    photos = library.folder("Photos")
    fill(photos)
    library.mount(photos)
    library.wait_idle()
    (location,) = library.sd_json("location", "list")["locations"]
    (branch,) = location["branches"]
    assert (location["name"], branch["path"], branch["state"], branch["error"]) == ("Photos", str(photos), "done", None)
    assert branch["entries"] == 6
    printed = library.sd("location", "list")
    assert "Photos" in printed
    assert str(photos) in printed


def test_adding_while_nothing_runs(library):
    """`sd location add` without a mount: it is shown and scanned at the next start."""
    library.mount()
    library.unmount()
    photos = library.folder("Photos")
    fill(photos)
    library.sd("location", "add", photos)
    library.mount()
    assert tree(library.mnt / "Photos") == tree(photos)
    library.wait_idle()
    library.verify("--content")
