"""Volumes as a person has them: plugged in, pulled out, swapped, copied, ejected. What is known stays, and is true."""

import errno
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.system.harness import Mounted, errno_of, eventually, names, tree, walk
from tests.system.volumes import Sticks, open_at

TAGS = "user.xdg.tags"
MARKER = ".vdfs-volume"
AWAY = (errno.EHOSTDOWN, errno.EIO)
SEEN_S = 5.0
#: Of this session alone: others may have sticks, too.
LABEL = f"s{os.getpid()}"

pytestmark = pytest.mark.usefixtures("root_only")


def fill(directory: Path) -> Path:
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "a.txt").write_bytes(b"content of a")
    (directory / "sub" / "b.txt").write_bytes(b"b" * 5000)
    (directory / "sub" / "deep" / "c").write_bytes(b"c" * 200_000)
    return directory


def state(path: Path) -> str:
    return os.getxattr(path, "user.vdfs.state").decode()


def facts(top: Path) -> dict[str, tuple[object, ...]]:
    """Numbers, sizes, times and ids of everything below."""
    found: dict[str, tuple[object, ...]] = {}
    for path in walk(top):
        st = os.lstat(path)
        size = st.st_size if os.path.isfile(path) else 0
        found[os.path.relpath(path, top)] = (st.st_ino, size, st.st_mtime_ns, os.getxattr(path, "user.vdfs.id"))
    return found


def tree_names(top: Path) -> list[str]:
    return [os.path.relpath(path, top) for path in walk(top)]


def is_offline(shown: Path) -> None:
    eventually(lambda: state(shown) == "offline", "it is offline", SEEN_S)


def is_online(shown: Path) -> None:
    eventually(lambda: (shown / "a.txt").read_bytes() == b"content of a", "its bytes are back", SEEN_S)
    assert state(shown / "a.txt") == "local"


def volume(library: Mounted, which: Path | str) -> dict[str, object]:
    found: dict[str, object] = library.sd_json("volume", "info", which)
    return found


def unplugged(sticks: Sticks, point: Path) -> None:
    """A plain umount works once nobody uses the volume any more."""
    eventually(lambda: sticks.unplug(point), "no idle descriptor keeps the volume busy", 15)


# -- coming and going


@pytest.mark.parametrize("fs_type", ["ext4", "btrfs", "xfs", "vfat"])
def test_a_stick_that_is_mounted_elsewhere_is_found_there(library, sticks, fs_type):
    """Its files have the same numbers, ids, tags and hashes, and nothing was made at the old place."""
    image = sticks.make("mine", fs_type, "holiday")
    source = fill(sticks.plug(image, "here") / "Stick")
    library.mount(source)
    shown = library.mnt / "Stick"
    os.setxattr(shown / "a.txt", TAGS, b"kept")
    library.settle()
    before = facts(shown)
    told = volume(library, source)
    assert (told["label"], told["state"], told["fs_type"]) == ("holiday", "online", fs_type)
    assert told["locations"] == ["Stick"]
    unplugged(sticks, sticks.base / "here")
    is_offline(shown)
    assert facts(shown) == before
    assert errno_of((shown / "a.txt").read_bytes) in AWAY
    there = sticks.plug(image, "elsewhere/deeper")
    is_online(shown)
    assert facts(shown) == before
    assert os.getxattr(shown / "a.txt", TAGS) == b"kept"
    assert os.getxattr(shown / "a.txt", "user.vdfs.hash.state") == b"full"
    assert names(sticks.base / "here") == []
    (branch,) = library.sd_json("location", "list")["locations"][0]["branches"]
    assert branch["path"] == str(there / "Stick")
    (shown / "new").write_bytes(b"new")
    assert (there / "Stick" / "new").read_bytes() == b"new"
    (there / "Stick" / "behind").write_bytes(b"behind")
    eventually(lambda: (shown / "behind").exists(), "changes behind it are seen there", SEEN_S)
    assert volume(library, there)["fingerprint"] == told["fingerprint"]
    library.settle()
    library.verify("--content")
    library.remount()
    assert (shown / "a.txt").read_bytes() == b"content of a", "it is known from the start where it is"
    library.unmount()


def test_a_location_may_be_the_whole_stick(library, sticks):
    """Its root is a mount point then, and follows as well."""
    image = sticks.make("mine")
    point = sticks.plug(image, "here")
    fill(point / "sub")
    (point / "a.txt").write_bytes(b"content of a")
    library.mount()
    library.sd("location", "add", point, "--name", "Stick")
    shown = library.mnt / "Stick"
    library.settle()
    before = facts(shown)
    library.sd("volume", "eject", point)
    is_offline(shown)
    assert names(point) == []
    there = sticks.plug(image, "there")
    is_online(shown)
    assert facts(shown) == before
    (branch,) = library.sd_json("location", "list")["locations"][0]["branches"]
    assert branch["path"] == str(there)
    library.settle()
    library.verify("--content")
    library.unmount()


def test_a_stick_that_moved_while_nothing_ran_is_found(library, sticks):
    """At the start its branch is where the volume is by then."""
    image = sticks.make("mine")
    source = fill(sticks.plug(image, "here") / "Stick")
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    before = facts(shown)
    library.unmount()
    assert sticks.unplug(sticks.base / "here")
    sticks.plug(image, "there")
    library.sdmount()
    is_online(shown)
    assert facts(shown) == before
    library.unmount()


def test_another_stick_at_its_place_is_another_volume(library, sticks):
    """Even with the same label and the same names on it: it is not shown, not written to, and known by itself."""
    mine, other = sticks.make("mine", label=LABEL), sticks.make("other", label=LABEL)
    source = fill(sticks.plug(mine, "here") / "Stick")
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    first, before = volume(library, source), facts(shown)
    unplugged(sticks, sticks.base / "here")
    (sticks.plug(other, "here") / "Stick").mkdir()
    (source / "a.txt").write_bytes(b"of another stick")
    is_offline(shown)
    assert facts(shown) == before
    assert errno_of((shown / "a.txt").read_bytes) in AWAY
    assert errno_of((shown / "z").touch) in AWAY
    assert tree(source) == {"a.txt": ("file", b"of another stick")}
    second = volume(library, source)
    assert second["fingerprint"] != first["fingerprint"]
    assert volume(library, str(first["fingerprint"]))["state"] == "offline"
    unplugged(sticks, sticks.base / "here")
    sticks.plug(mine, "here")
    is_online(shown)
    assert facts(shown) == before
    library.unmount()


def test_a_root_that_is_gone_while_its_volume_is_there_is_missing(library, sticks):
    """Offline is said of volumes."""
    source = fill(sticks.plug(sticks.make("mine"), "here") / "Stick")
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    source.rename(source.with_name("renamed"))
    eventually(lambda: state(shown) == "missing", "it is missing", SEEN_S)
    source.with_name("renamed").rename(source)
    is_online(shown)
    library.unmount()


def test_a_volume_is_shown_with_what_lies_on_it(library, sticks):
    """volumes/<name>~<id>/<location> and offline/<location>: browsable while it is away, without its bytes."""
    image = sticks.make("mine", label="holi/day")
    source = fill(sticks.plug(image, "here") / "Stick")
    disk = library.folder("Disk")
    (disk / "here").write_bytes(b"here")
    library.mount(source, disk)
    library.settle()
    views = library.mnt / ".vdfs"
    told = volume(library, source)
    mine = views / "volumes" / f"holi\u2215day~{told['short']}"
    assert names(mine) == ["Stick"]
    assert tree(mine / "Stick") == tree(source)
    assert names(views / "offline") == []
    elsewhere = [entry for entry in (views / "volumes").iterdir() if entry != mine]
    assert any("Disk" in names(entry) for entry in elsewhere)
    before = {path: os.lstat(path).st_size for path in walk(mine)}
    unplugged(sticks, sticks.base / "here")
    is_offline(library.mnt / "Stick")
    assert {path: os.lstat(path).st_size for path in walk(mine)} == before
    assert names(views / "offline") == ["Stick"]
    assert names(views / "offline" / "Stick" / "sub") == ["b.txt", "deep"]
    assert errno_of((views / "offline" / "Stick" / "a.txt").read_bytes) in AWAY
    assert errno_of(os.mkdir, views / "volumes" / "x") == errno.EPERM
    library.unmount()


# -- identity


def test_the_fingerprint_survives_all_but_another_file_system(library, sticks):
    """Another label, another fill level, another place, another machine, tracked or not: the same volume."""
    image = sticks.make("mine", label="before")
    point = sticks.plug(image, "here")
    library.mount()
    first = str(volume(library, point)["fingerprint"])
    assert not (point / MARKER).exists(), "nobody tracked it"
    (point / "much").write_bytes(b"x" * (10 << 20))
    assert volume(library, point)["fingerprint"] == first
    tracked = library.sd_json("volume", "track", point, "--name", "Mine")
    assert (tracked["fingerprint"], tracked["name"], tracked["is_tracked"]) == (first, "Mine", True)
    assert json.loads((point / MARKER).read_bytes())["filesystem"] != ""
    unplugged(sticks, point)
    assert volume(library, "Mine")["state"] == "offline"
    subprocess.run(["e2label", str(image), "after"], check=True)
    elsewhere = sticks.plug(image, "elsewhere")
    told = volume(library, elsewhere)
    assert (told["fingerprint"], told["label"], told["name"]) == (first, "after", "Mine")
    library.unmount()
    other = sticks.base / "machine"
    other.mkdir()
    machine = Mounted(other)
    try:
        machine.mount()
        assert volume(machine, elsewhere)["fingerprint"] == first
        assert machine.sd_json("volume", "track", elsewhere)["fingerprint"] == first
        machine.unmount()
    finally:
        machine.close()
    library.mount()
    assert library.sd_json("volume", "untrack", "Mine")["is_tracked"] is False
    assert "after" in [one["name"] for one in library.sd_json("volume", "list")["volumes"]]
    assert (elsewhere / MARKER).exists()
    library.unmount()


def test_nothing_is_written_to_a_volume_that_nobody_tracks(library, sticks):
    """A location on it, its scan, its views, a list of the volumes: no file of ours comes of these."""
    source = fill(sticks.plug(sticks.make("mine"), "here") / "Stick")
    library.mount(source)
    library.settle()
    library.sd("volume", "list", "--all")
    names(library.mnt / ".vdfs" / "volumes")
    assert names(sticks.base / "here") == ["Stick", "lost+found"]
    library.unmount()


def test_a_volume_that_cannot_be_written_to_is_tracked_by_its_uuid(library, sticks):
    """No marker, and the same fingerprint when it can be written to again."""
    image = sticks.make("mine")
    point = sticks.plug(image, "here", "ro")
    library.mount()
    told = library.sd_json("volume", "track", point)
    assert (told["is_tracked"], told["is_read_only"]) == (True, True)
    assert not (point / MARKER).exists()
    unplugged(sticks, point)
    point = sticks.plug(image, "there")
    assert volume(library, point)["fingerprint"] == told["fingerprint"]
    library.unmount()


def test_a_copy_of_a_stick_is_told_apart_once_both_were_seen(library, sticks):
    """dd copies UUID and marker. Beside the original the copy gets a marker of its own, and never stands for it."""
    image = sticks.make("mine")
    source = fill(sticks.plug(image, "here") / "Stick")
    library.mount(source)
    library.sd("volume", "track", source, "--name", "Original")
    shown = library.mnt / "Stick"
    library.settle()
    before, original = facts(shown), volume(library, "Original")
    unplugged(sticks, sticks.base / "here")
    copied = sticks.copy(image, "copy")
    sticks.plug(image, "here")
    is_online(shown)
    there = sticks.plug(copied, "there")
    told = eventually(lambda: volume(library, there), "the copy is known", SEEN_S)
    assert told["fingerprint"] != original["fingerprint"]
    ids = [json.loads((point / MARKER).read_bytes())["id"] for point in (sticks.base / "here", there)]
    assert ids[0] != ids[1]
    assert state(shown) == "local"
    (there / "Stick" / "a.txt").write_bytes(b"of the copy")
    unplugged(sticks, sticks.base / "here")
    is_offline(shown)
    unplugged(sticks, there)
    sticks.plug(copied, "here")
    time.sleep(1.5)  # it would be taken for the original by then
    assert state(shown) == "offline"
    assert facts(shown) == before
    assert errno_of((shown / "a.txt").read_bytes) in AWAY
    assert volume(library, sticks.base / "here")["fingerprint"] == told["fingerprint"]
    sticks.plug(image, "again")
    is_online(shown)
    library.unmount()


def test_copies_that_nobody_tracks_are_left_as_they_are(library, sticks):
    """The second has no lasting name then, and says so."""
    image = sticks.make("mine")
    copied = sticks.copy(image, "copy")
    here = sticks.plug(image, "here")
    library.mount()
    first = volume(library, here)
    there = sticks.plug(copied, "there")
    second = volume(library, there)
    assert (first["is_ephemeral"], second["is_ephemeral"]) == (False, True)
    assert first["fingerprint"] != second["fingerprint"]
    assert names(here) == names(there) == ["lost+found"]
    library.unmount()


def test_subvolumes_and_binds_are_places_of_one_volume(library, sticks):
    """One volume, several mount points; a branch on a subvolume is found by another mount of that."""
    image = sticks.make("mine", "btrfs")
    top = sticks.plug(image, "top")
    subprocess.run(["btrfs", "subvolume", "create", str(top / "one")], check=True, capture_output=True)
    subprocess.run(["btrfs", "subvolume", "create", str(top / "two")], check=True, capture_output=True)
    fill(top / "one" / "Stick")
    (top / "two" / "Stick").mkdir()
    (top / "two" / "Stick" / "a.txt").write_bytes(b"of the other subvolume")
    assert os.stat(top / "one" / "Stick").st_ino == os.stat(top / "two" / "Stick").st_ino, "the test needs that"
    one = sticks.plug(image, "one", "subvol=one")
    bound = sticks.bind(one / "Stick", "bound")
    library.mount(one / "Stick")
    shown = library.mnt / "Stick"
    library.settle()
    before = facts(shown)
    told = volume(library, bound)
    assert set(told["mount_points"]) == {str(top), str(one), str(bound)}
    assert volume(library, top)["fingerprint"] == told["fingerprint"]
    for point in (bound, one, top):
        unplugged(sticks, point)
    is_offline(shown)
    sticks.plug(image, "one", "subvol=two")
    time.sleep(1.5)  # it would be taken for the branch by then
    assert state(shown) != "local", "numbers are the same in another subvolume, and yet it is not the branch"
    assert errno_of((shown / "a.txt").read_bytes) in AWAY
    sticks.plug(image, "two", "subvol=one")
    is_online(shown)
    assert facts(shown) == before
    library.unmount()


# -- letting go


def test_a_plain_umount_works_a_moment_after_the_last_use(library, sticks):
    """No descriptor, watch, worker or kept listing pins a volume that was listed, read, tagged, scanned and hashed."""
    point = sticks.plug(sticks.make("mine"), "here")
    source = fill(point / "Stick")
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    for path in walk(shown):
        if os.path.isfile(path):
            Path(path).read_bytes()
    os.setxattr(shown / "a.txt", TAGS, b"t")
    os.listdir(shown)
    (source / "behind").write_bytes(b"behind")
    eventually(lambda: (shown / "behind").exists(), "it is watched", SEEN_S)
    library.settle()
    standing = os.open(shown / "sub", os.O_RDONLY | os.O_DIRECTORY)  # a shell in the mount holds nothing of the disk
    try:
        unplugged(sticks, point)
    finally:
        os.close(standing)
    is_offline(shown)
    assert open_at(library.pid, point) == []
    library.unmount()


def test_eject_unmounts_at_once(library, sticks):
    """Also when the volume was used a moment ago, and is mounted at several places; it can be plugged in again."""
    image = sticks.make("mine", label=LABEL)
    point = sticks.plug(image, "here")
    source = fill(point / "Stick")
    bound = sticks.bind(source, "bound")
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    assert (shown / "sub" / "b.txt").read_bytes() == b"b" * 5000
    said = library.sd_json("volume", "eject", LABEL)
    assert set(said["mount_points"]) == {str(point), str(bound)}
    assert not sticks.is_plugged(point)
    assert not sticks.is_plugged(bound)
    assert state(shown) == "offline"
    assert "offline" in library.sd_fails("volume", "eject", LABEL)
    sticks.plug(image, "here")
    is_online(shown)
    library.unmount()


def test_eject_names_who_holds_the_volume(library, sticks):
    """A program that stands in it, a file that is open through the mount: refused, and everything goes on."""
    point = sticks.plug(sticks.make("mine", label=LABEL), "here")
    source = fill(point / "Stick")
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    holder = subprocess.Popen(["sleep", "60"], cwd=source)
    try:
        said = library.sd_fails("volume", "eject", LABEL)
        assert "sleep" in said
        assert str(holder.pid) in said
        is_online(shown)
    finally:
        holder.kill()
        holder.wait()
    with open(shown / "a.txt", "rb"):
        said = library.sd_fails("volume", "eject", LABEL)
        assert "Stick/a.txt" in said
        assert "through the mount" in said
        is_online(shown)
    library.sd("volume", "eject", LABEL)
    assert not sticks.is_plugged(point)
    library.unmount()


def test_eject_of_a_stick_inside_a_location(library, sticks):
    """It has no branch of its own: the location around it lets go of it, and shows what lay beneath."""
    home = library.folder("home")
    (home / "own").write_bytes(b"own")
    point = sticks.plug(sticks.make("mine", label=LABEL), "disk/home/stick")
    fill(point / "things")
    library.mount(home)
    shown = library.mnt / "home"
    library.settle()
    assert (shown / "stick" / "things" / "a.txt").read_bytes() == b"content of a"
    library.sd("volume", "eject", point)
    assert not sticks.is_plugged(point)
    eventually(lambda: names(shown / "stick") == [], "it is gone", SEEN_S)
    assert (shown / "own").read_bytes() == b"own"
    library.unmount()


def test_eject_during_a_scan(library, sticks):
    """What reads it in workers is stopped; the rest is indexed when it is back."""
    image = sticks.make("mine", label=LABEL, size_mib=128)
    point = sticks.plug(image, "here")
    source = point / "Stick"
    for number in range(40):
        (source / f"d{number}").mkdir(parents=True)
        for other in range(25):
            (source / f"d{number}" / f"f{other}").write_bytes(b"%d %d" % (number, other) * 3000)
    library.mount(source)
    shown = library.mnt / "Stick"
    library.sd("volume", "eject", LABEL)
    assert not sticks.is_plugged(point)
    is_offline(shown)
    sticks.plug(image, "there")
    eventually(lambda: len(names(shown)) == 40, "it is back", SEEN_S)
    library.settle()
    assert library.sd_json("status")["files"] == 1000
    library.verify("--content")
    library.unmount()


def test_what_the_system_runs_on_is_not_ejected(library, sticks):
    """Nor the volume that holds the library."""
    library.mount()
    assert "part of the running system" in library.sd_fails("volume", "eject", "/")
    assert os.path.ismount("/")
    library.unmount()


# -- pulled out


def test_a_stick_that_is_pulled_while_it_is_read(library, sticks):
    """Readers get an error or the bytes, soon; nothing hangs; what is known stays, and it comes back."""
    image = sticks.make("mine")
    point = sticks.plug(image, "here")
    source = fill(point / "Stick")
    for number in range(50):
        (source / f"f{number}").write_bytes(b"x" * 100_000)
    library.mount(source)
    shown = library.mnt / "Stick"
    library.settle()
    before = facts(shown)
    codes: set[int] = set()
    end = threading.Event()

    def read() -> None:
        while not end.is_set():
            for number in range(50):
                codes.add(errno_of((shown / f"f{number}").read_bytes))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        eventually(lambda: 0 in codes, "they read")
        sticks.pull(point)
        eventually(lambda: codes & set(AWAY), "they are told", SEEN_S)
    finally:
        end.set()
        for reader in readers:
            reader.join(20)
    assert not any(reader.is_alive() for reader in readers)
    assert codes <= {0, *AWAY}
    is_offline(shown)
    assert facts(shown) == before
    sticks.plug(image, "there")
    is_online(shown)
    library.settle()
    library.verify("--content")
    library.unmount()


def test_a_stick_that_is_pulled_while_it_is_indexed(library, sticks):
    """The scan ends, the index keeps what it saw, and goes on when the stick is back."""
    image = sticks.make("mine", size_mib=128)
    point = sticks.plug(image, "here")
    source = point / "Stick"
    for number in range(60):
        (source / f"d{number}").mkdir(parents=True)
        for other in range(20):
            (source / f"d{number}" / f"f{other}").write_bytes(b"%d %d" % (number, other) * 2000)
    library.mount(source)
    shown = library.mnt / "Stick"
    volume(library, point)  # a stick that is gone before it was asked who it is is not known to be one
    sticks.pull(point)
    is_offline(shown)
    seen = set(tree_names(shown))
    sticks.plug(image, "there")
    eventually(lambda: len(names(shown)) == 60, "it is back", SEEN_S)
    library.settle()
    assert seen <= set(tree_names(shown))
    assert library.sd_json("status")["files"] == 1200
    library.verify("--content")
    library.unmount()


def test_errors_of_the_disk_are_errors_of_its_files_alone(library, sticks):
    """The disk below a mounted stick is gone: reads fail, nothing is forgotten, everything else goes on."""
    image = sticks.make("mine")
    point = sticks.plug(image, "here")
    source = fill(point / "Stick")
    (source / "big").write_bytes(os.urandom(4 << 20))
    disk = library.folder("Disk")
    (disk / "here").write_bytes(b"here")
    library.mount(source, disk)
    shown = library.mnt / "Stick"
    library.settle()
    before = facts(shown)
    os.sync()
    whole = sticks.copy(image, "whole")
    os.truncate(image, 0)  # the loop device answers with errors from now on
    Path("/proc/sys/vm/drop_caches").write_text("3")
    try:
        assert errno_of((shown / "big").read_bytes) in AWAY
        assert (library.mnt / "Disk" / "here").read_bytes() == b"here"
        library.sd("status")
        library.sd("volume", "list")
        assert set(facts(shown)) == set(before), "nothing is taken for deleted"
    finally:
        sticks.pull(point)
    is_offline(shown)
    assert facts(shown) == before
    sticks.plug(whole, "there")
    is_online(shown)
    library.unmount()


# -- speed


def test_the_speed_test_leaves_nothing_behind(library, sticks):
    """No file, and the index hears of none; the figures are kept."""
    point = sticks.plug(sticks.make("mine", label=LABEL, size_mib=96), "here")
    source = fill(point / "Stick")
    library.mount(source)
    library.settle()
    held = names(point)
    result = library.sd_json("volume", "speedtest", LABEL)
    assert result["size_bytes"] == 10 << 20
    assert result["read_bps"] > 0
    assert result["write_bps"] > 0
    assert names(point) == held
    told = volume(library, LABEL)
    assert (told["read_bps"], told["write_bps"]) == (result["read_bps"], result["write_bps"])
    unplugged(sticks, point)
    assert "offline" in library.sd_fails("volume", "speedtest", LABEL)
    library.unmount()


def test_the_speed_test_refuses_what_it_would_fill_or_cannot_write(library, sticks):
    """One line each, and nothing is written."""
    full = sticks.plug(sticks.make("full", label=f"{LABEL}f"), "full")
    (full / "much").write_bytes(b"x" * (15 << 20))
    sticks.plug(sticks.make("closed", label=f"{LABEL}c"), "closed", "ro")
    library.mount()
    before = os.statvfs(full).f_bavail
    assert "nearly full" in library.sd_fails("volume", "speedtest", f"{LABEL}f")
    assert os.statvfs(full).f_bavail == before
    assert "read only" in library.sd_fails("volume", "speedtest", f"{LABEL}c")
    library.unmount()


# -- boundaries


def test_a_location_of_one_file_system(library, sticks):
    """What is mounted in it is left out, now and later; without the option it is a part."""
    home = library.folder("home")
    (home / "own").write_bytes(b"own")
    for name in ("stick", "later"):
        (home / name).mkdir()
    image = sticks.make("mine")
    subprocess.run(["mount", "-o", "loop", str(image), str(home / "stick")], check=True)
    sticks.points.append(home / "stick")
    (home / "stick" / "on-it").write_bytes(b"on it")
    library.mount()
    library.sd("location", "add", home, "--one-file-system")
    shown = library.mnt / "home"
    library.settle()
    assert names(shown) == ["later", "own"]
    assert library.sd_json("search", "on-it")["hits"] == []
    sticks.bind(home / "stick", "disk/home/later")
    eventually(lambda: names(shown) == ["own"], "what comes later is left out too", SEEN_S)
    library.remount()
    assert names(shown) == ["own"]
    library.sd("location", "remove", "home")
    library.sd("location", "add", home)
    eventually(lambda: (shown / "stick" / "on-it").exists(), "without the option it is a part", SEEN_S)
    library.unmount()


def test_a_fuse_mount_is_a_network_volume_and_ours_is_none(library, sticks):
    """sshfs and rclone are volumes; this mount, proc and the like are not, and are never offered."""
    library.mount()
    points = {point for one in library.sd_json("volume", "list", "--all")["volumes"] for point in one["mount_points"]}
    assert "/" in points
    assert not points & {str(library.mnt), "/proc", "/sys", "/dev"}
    assert "no volume" in library.sd_fails("volume", "info", library.mnt)
    library.unmount()


def test_volumes_are_told_when_nothing_runs(library, sticks):
    """`sd volume list` opens the library by itself and asks the volumes then."""
    point = sticks.plug(sticks.make("mine", label=LABEL), "here")
    library.mount()
    library.sd("volume", "track", point, "--name", "Mine")
    library.unmount()
    assert volume(library, "Mine")["state"] == "online"
    assert sticks.unplug(point)
    assert volume(library, "Mine")["state"] == "offline"
