"""The life of a mount's process: how it begins, who may begin it, how it ends, and what stays."""

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.harness import (
    NOBODY,
    PROGRAM_S,
    Mounted,
    children,
    detach,
    errno_of,
    eventually,
    gone,
    is_dead,
    names,
    one_line,
    private_mounts,
    tree,
    walk,
)

VOICE = "sdmount: "


def fill(directory: Path, count: int = 30) -> None:
    """A small tree with a bit of everything."""
    for number in range(count):
        below = directory / f"d{number % 5}"
        below.mkdir(exist_ok=True)
        (below / f"f{number}.txt").write_bytes(b"content %d\n" % (number // 2))
    (directory / "empty").mkdir()
    (directory / "link").symlink_to("d0/f0.txt")
    os.link(directory / "d0" / "f0.txt", directory / "d1" / "twin")


def inodes(top: Path) -> dict[str, int]:
    return {path: os.lstat(path).st_ino for path in walk(top)}


# -- the start


def test_sdmount_returns_when_the_mount_answers(library):
    """After exit 0 the very next call sees all of a tree that no scan has reached yet."""
    source = library.folder("Photos")
    fill(source)
    done = library.sdmount(source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tree(library.mnt / "Photos") == tree(source)
    assert {"Photos", "Tags", "Search", "Devices"} == set(os.listdir(library.mnt))


def test_the_server_is_a_process_of_its_own(library):
    """No terminal, no descriptor of the caller's, its folder is not the caller's, and it outlives its session."""
    library.mount()
    pid = library.pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[3]) == pid, "it leads a session of its own"
    assert fields[4] == "0", "no terminal"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


def test_workers_hold_neither_the_mount_nor_the_lock(library):
    """A worker that kept /dev/fuse would turn a kill -9 of the server into a hung mount. The messenger has a device."""
    source = library.folder("Files")
    fill(source)
    library.mount(source)
    library.wait_idle()
    workers = eventually(lambda: library.workers, "there are workers")
    for worker in workers:
        held = []
        for fd in os.listdir(f"/proc/{worker}/fd"):
            try:
                held.append(os.readlink(f"/proc/{worker}/fd/{fd}"))
            except FileNotFoundError:
                continue
        speaks = b"fusefs.messenger" in Path(f"/proc/{worker}/cmdline").read_bytes()
        assert held.count("/dev/fuse") == (1 if speaks else 0), held
        assert not [path for path in held if path.endswith("/lock")], held


def test_what_a_server_is_doing_is_told_to_whoever_asks(library):
    """Stacks of its threads and where its tasks wait; it goes on as before, and no name of a user's is told."""
    source = library.folder("Secret")
    fill(source)
    library.mount(source)
    told = library.data / "state" / "sdmount.stacks"
    for count in (1, 2):
        os.kill(library.pid, signal.SIGUSR1)
        eventually(lambda count=count: told.read_text().count("where it waits:") == count, "it is told")
    text = told.read_text()
    assert "(most recent call first)" in text, "threads"
    assert "_walk_forever (scanner.py:" in text, "tasks"
    assert "Secret" not in text
    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    assert tree(library.mnt / "Secret") == tree(source)
    library.unmount()


def test_where_nothing_can_be_told_the_mount_lives_on(library):
    """The file of the stacks cannot be had, as on a full disk; the signal does no harm."""
    source = library.folder("Files")
    fill(source)
    (library.data / "state" / "sdmount.stacks").mkdir(parents=True)
    library.mount(source)
    os.kill(library.pid, signal.SIGUSR1)
    assert tree(library.mnt / "Files") == tree(source)
    assert "SIGUSR1 tells nothing" in library.log()


def test_what_cannot_be_mounted_is_said_in_one_line(library):
    """Each refusal is exit 1 and one line that names the thing; nothing is mounted, nothing is left running."""
    file = library.disk / "a file"
    file.write_bytes(b"x")
    good = library.folder("good")
    refusals = [
        (library.sdmount(library.disk / "absent"), "absent"),
        (library.sdmount(file), "a file"),
        (library.sdmount(good, mountpoint=file), "a file"),
        (library.sdmount(good, mountpoint=file / "below"), "below"),
        (library.sdmount(good, options=("-o", "nonsense")), "nonsense"),
        (library.sdmount(good, options=("-o", "create=everywhere")), "create="),
        (library.sdmount(good, options=("--library", "a/b")), "a/b"),
        (library.sdmount("/proc"), "/proc"),
        (library.sdmount("/sys/kernel"), "/sys/kernel"),
    ]
    for done, named in refusals:
        assert done.returncode == 1, done
        assert named in one_line(done.stderr, VOICE)
        assert done.stdout == ""
    assert not library.is_mounted()
    assert library.holder() is None
    assert file.read_bytes() == b"x"
    library.mount(good)


def test_wrong_usage_is_exit_code_2(library):
    """As every other program: no mountpoint, an option that does not exist."""
    for arguments in ((), ("--no-such-option", library.mnt)):
        done = library.run("fusefs.sdmount", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: sdmount")


def test_a_mountpoint_that_is_not_empty_is_refused(library):
    """What lies there would be hidden; it is named, and left alone."""
    library.mnt.mkdir()
    (library.mnt / "precious").write_bytes(b"mine")
    done = library.sdmount()
    assert done.returncode == 1
    message = one_line(done.stderr, VOICE)
    assert "not empty" in message
    assert "precious" in message
    assert not library.is_mounted()
    assert (library.mnt / "precious").read_bytes() == b"mine"


def test_the_mountpoint_is_made_when_it_is_missing(library):
    """With its parents."""
    deep = library.base / "x" / "y" / "z"
    library.extra_mounts.append(deep)
    done = library.sdmount(library.folder("Files"), mountpoint=deep)
    assert done.returncode == 0, done
    assert "Files" in os.listdir(deep)


def test_a_mountpoint_may_have_any_name(library):
    """Spaces, newlines, a dash in front, bytes that are not UTF-8."""
    for number, name in enumerate((b"with space", b"new\nline", b"-dash", b"\\back", b"\xff\xfe")):
        library.mnt = library.base / os.fsdecode(name)
        done = library.sdmount(*([library.folder("Files")] if number == 0 else []))
        assert done.returncode == 0, (name, done)
        assert "Files" in os.listdir(library.mnt)
        library.unmount()
        assert not library.is_mounted()


def test_a_mountpoint_behind_a_symlink_is_the_directory_itself(library):
    """`sdmount LINK` mounts where the link leads, and `sdumount LINK` ends it."""
    real = library.base / "real"
    real.mkdir()
    link = library.base / "link"
    link.symlink_to(real)
    library.extra_mounts.append(real)
    done = library.sdmount(library.folder("Files"), mountpoint=link)
    assert done.returncode == 0, done
    assert "Files" in os.listdir(real)
    library.run("fusefs.sdumount", "--data-dir", library.data, link, check=True)
    assert not library.is_mounted(real)


def test_a_second_mount_of_the_library_names_the_holder(library):
    """At the same place or another: exit 1, the pid, the place; the first mount goes on."""
    source = library.folder("Files")
    (source / "a").write_bytes(b"a")
    library.mount(source)
    pid = library.pid
    elsewhere = library.base / "elsewhere"
    for mountpoint in (library.mnt, elsewhere):
        done = library.sdmount(mountpoint=mountpoint)
        assert done.returncode == 1, done
        message = one_line(done.stderr, VOICE)
        assert re.search(rf"\b{pid}\b", message), message
    assert str(library.mnt) in message, "the other place is named, too"
    assert not library.is_mounted(elsewhere)
    assert library.pid == pid
    assert (library.mnt / "Files" / "a").read_bytes() == b"a"


def test_two_starts_at_once_give_one_mount(library):
    """The lock decides; the loser says so and leaves the winner's mount alone."""
    library.mount(library.folder("Files"))
    library.unmount()
    done: list[subprocess.CompletedProcess[str]] = []
    places = [library.base / "one", library.base / "two"]
    library.extra_mounts += places
    threads = [threading.Thread(target=lambda p=p: done.append(library.sdmount(mountpoint=p))) for p in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(d.returncode for d in done) == [0, 1], done
    one_line(next(d for d in done if d.returncode).stderr, VOICE)
    mounted = [place for place in places if library.is_mounted(place)]
    assert len(mounted) == 1
    assert "Files" in os.listdir(mounted[0])


def test_two_libraries_live_side_by_side(library):
    """`--library NAME` keeps them apart; their locations are their own."""
    library.mount(library.folder("Files"))
    other = library.base / "other"
    library.extra_mounts.append(other)
    done = library.sdmount(library.folder("More"), mountpoint=other, options=("--library", "Second"))
    assert done.returncode == 0, done
    lock = json.loads((library.data / "libraries" / "Second.sdlibrary" / "lock").read_text())
    library.servers.add(lock["pid"])
    assert lock["pid"] != library.pid
    assert "More" in names(other)
    assert "More" not in names(library.mnt)
    assert "Files" not in names(other)


def test_foreground_stays_until_interrupted(library):
    """`-f` serves in the foreground, shows progress on the terminal, and ends cleanly with Ctrl-C."""
    source = library.folder("Files")
    (source / "big").touch()
    os.truncate(source / "big", 1 << 30)  # holes only, but they have to be hashed
    command = [sys.executable, "-m", "fusefs.sdmount", "-f", "--data-dir", library.data, library.mnt, source]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
        env=library.environment(), start_new_session=True,
    ) as process:  # fmt: skip
        try:
            eventually(library.is_mounted, "it is mounted", PROGRAM_S)
            library.servers.add(process.pid)
            assert library.pid == process.pid
            library.wait_idle()
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=20)
        finally:
            if process.poll() is None:
                process.kill()
    assert process.returncode in (0, 130), printed
    assert "Traceback" not in printed
    assert re.search(r"indexing: \d+ entries|index up to date", printed), printed
    assert not library.is_mounted()


# -- the end


def ends_cleanly(library: Mounted, pid: int, workers: list[int]) -> None:
    """The process is gone with its workers, the lock is free, nothing is mounted, the data is in order."""
    eventually(lambda: gone(pid), "the server ends", 20)
    eventually(lambda: all(gone(worker) for worker in workers), "its workers end", 10)
    assert not library.is_mounted()
    assert names(library.mnt) == []
    with open(library.library_dir / "lock", "r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert library.sd_json("status")["pid"] is None
    assert list(library.runtime.rglob("*.sock")) == [], "the socket is removed"
    with sqlite3.connect(library.library_dir / "library.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()
    assert "ended" in library.log().splitlines()[-1] or "ended" in library.log()


@pytest.mark.parametrize("way", ["SIGTERM", "SIGINT", "SIGHUP", "sdumount", "sdumount alone", "fusermount3", "umount"])
def test_every_way_to_end_is_clean(library, way):
    """Process and workers gone, lock free, mountpoint empty; what was written is there next time."""
    if way == "umount" and os.geteuid() != 0:
        pytest.skip("umount is for root")
    source = library.folder("Files")
    fill(source)
    library.mount(source)
    (library.mnt / "Files" / "new").write_bytes(b"written")
    library.sd("tag", "add", "blue", library.mnt / "Files" / "new")
    pid, workers = library.pid, library.workers
    assert workers
    if way.startswith("SIG"):
        os.kill(pid, signal.Signals[way])
    elif way == "sdumount":
        library.unmount()
        assert library.holder() is None, "sdumount returns when the server has let go"
    elif way == "sdumount alone":  # the mount says where its library is
        library.run("fusefs.sdumount", library.mnt, check=True)
        assert library.holder() is None
    else:
        command = ["fusermount3", "-u"] if way == "fusermount3" else ["umount"]
        subprocess.run([*command, str(library.mnt)], check=True, cwd="/")
    ends_cleanly(library, pid, workers)
    library.mount()
    assert (library.mnt / "Files" / "new").read_bytes() == b"written"
    assert library.sd("tag", "list", library.mnt / "Files" / "new") == "blue\n"


def test_it_ends_while_it_scans(library):
    """A SIGTERM in the middle of a first scan is as clean as any other."""
    source = library.folder("Big")
    for number in range(40):
        (source / f"d{number}").mkdir()
        for file in range(50):
            (source / f"d{number}" / f"f{file}").write_bytes(os.urandom(200))
    large = source / "large"
    large.touch()
    os.truncate(large, 64 << 30)  # nobody hashes that in the time of this test
    library.mount(source)
    pid, workers = library.pid, library.workers
    assert not library.sd_json("status")["scan"]["idle"], "the tree is too small for this test"
    os.kill(pid, signal.SIGTERM)
    ends_cleanly(library, pid, workers)
    large.unlink()
    library.mount()
    library.wait_idle()
    library.verify("--content")


def test_a_busy_mount_is_not_taken_away_by_sdumount(library):
    """An open file: one line, exit 1, the mount goes on; `--lazy` detaches it."""
    source = library.folder("Files")
    (source / "a").write_bytes(b"before")
    library.mount(source)
    pid, workers = library.pid, library.workers
    with open(library.mnt / "Files" / "a", "r+b") as file:
        done = library.run("fusefs.sdumount", "--data-dir", library.data, library.mnt)
        assert done.returncode == 1
        assert "in use" in one_line(done.stderr, "sdumount: ")
        assert library.is_mounted()
        file.write(b"during")
        file.flush()
        with subprocess.Popen(
            [sys.executable, "-m", "fusefs.sdumount", "--data-dir", library.data, "--lazy", library.mnt],
            env=library.environment(), cwd="/",
        ) as lazy:  # fmt: skip
            eventually(lambda: not library.is_mounted(), "the name is free at once")
            file.seek(0)
            assert file.read() == b"during", "who has it open goes on"
            file.close()
            assert lazy.wait(30) == 0
    ends_cleanly(library, pid, workers)


def test_sigterm_ends_it_even_while_a_file_is_open(library):
    """A shutdown does not wait for a viewer that was left open; what was written is on the disk."""
    source = library.folder("Files")
    (source / "a").write_bytes(b"before")
    library.mount(source)
    pid, workers = library.pid, library.workers
    fd = os.open(library.mnt / "Files" / "a", os.O_RDWR)
    try:
        os.write(fd, b"during")
        os.kill(pid, signal.SIGTERM)
        ends_cleanly(library, pid, workers)
        assert (source / "a").read_bytes() == b"during"
    finally:
        errno_of(os.close, fd)


def test_sdumount_of_what_is_no_mount_of_ours(library):
    """One line, exit 1; somebody else's mount is left alone."""
    library.mnt.mkdir()
    done = library.run("fusefs.sdumount", library.mnt)
    assert done.returncode == 1
    assert str(library.mnt) in one_line(done.stderr, "sdumount: ")
    done = library.run("fusefs.sdumount", "/proc")
    assert done.returncode == 1
    one_line(done.stderr, "sdumount: ")
    assert os.path.exists("/proc/self")


# -- after a kill


def test_a_stale_mountpoint_is_healed_at_the_next_start(library):
    """kill -9 leaves `Transport endpoint is not connected`; the next sdmount clears it away and serves."""
    source = library.folder("Files")
    fill(source)
    library.mount(source)
    (library.mnt / "Files" / "new").write_bytes(b"written")
    workers = library.workers
    library.kill()
    assert library.is_mounted()
    assert is_dead(library.mnt)
    eventually(lambda: all(gone(worker) for worker in workers), "workers die with their server")
    library.mount()
    assert (library.mnt / "Files" / "new").read_bytes() == b"written"
    assert tree(library.mnt / "Files") == tree(source)
    library.wait_idle()
    library.verify()
    library.unmount()
    assert not library.is_mounted(), "no second layer is left"


def test_sdumount_clears_a_dead_mount_away(library):
    """Also without a server there is something to unmount."""
    library.mount(library.folder("Files"))
    library.kill()
    library.unmount()
    assert not library.is_mounted()
    assert names(library.mnt) == []


def test_a_dead_mount_elsewhere_does_not_hinder(library):
    """After a kill the library may be mounted at another place."""
    library.mount(library.folder("Files"))
    library.kill()
    elsewhere = library.base / "elsewhere"
    library.extra_mounts.append(elsewhere)
    done = library.sdmount(mountpoint=elsewhere)
    assert done.returncode == 0, done
    assert "Files" in names(elsewhere)
    detach(library.mnt)


def test_a_foreign_mount_on_the_mountpoint_is_refused(library, root_only):
    """Somebody's tmpfs is neither covered nor cleared away."""
    library.mnt.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(library.mnt)], check=True)
    try:
        done = library.sdmount(library.folder("Files"))
        assert done.returncode == 1
        assert str(library.mnt) in one_line(done.stderr, VOICE)
        assert library.is_mounted(), "the tmpfs is still there"
    finally:
        subprocess.run(["umount", str(library.mnt)], check=True)


def test_a_kill_during_the_very_first_start_leaves_nothing_broken(library):
    """Whatever is half made, the next start makes it whole: same device, same library."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    source = library.folder("Files")
    fill(source)
    for _ in range(3):
        shutil.rmtree(library.data, ignore_errors=True)
        command = [sys.executable, "-m", "fusefs.sdmount", "-f", "--data-dir", library.data, library.mnt, source]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/", env=library.environment()) as process:
            time.sleep(dice.uniform(0.1, 0.9))
            workers = children(process.pid)
            process.kill()
        eventually(lambda pids=workers: all(gone(p) for p in pids), "workers die with their server")
        library.mount(*([] if (library.library_dir / "library.db").exists() and _has_location(library) else [source]))
        assert tree(library.mnt / "Files") == tree(source)
        facts = json.loads((library.library_dir / "library.json").read_text())
        device = json.loads((library.data / "device.json").read_text())
        library.remount()
        assert json.loads((library.library_dir / "library.json").read_text()) == facts
        assert json.loads((library.data / "device.json").read_text()) == device
        library.unmount()


def _has_location(library: Mounted) -> bool:
    done = library.run("vdfs.cli", "--data-dir", library.data, "--json", "location", "list")
    return done.returncode == 0 and bool(json.loads(done.stdout)["locations"])


def test_a_scan_goes_on_after_a_kill(library):
    """What was identified before the kill keeps its id; the rest follows; the index is whole in the end."""
    source = library.folder("Big")
    for number in range(60):
        (source / f"d{number}").mkdir()
        for file in range(50):
            (source / f"d{number}" / f"f{file}").write_bytes(b"%d/%d" % (number, file))
    library.mount(source)
    eventually(lambda: library.sd_json("status")["scan"]["files_identified"] > 100, "some are identified", 30)
    library.kill()
    with sqlite3.connect(f"file:{library.library_dir}/library.db?mode=ro", uri=True) as db:
        known = dict(db.execute("SELECT id, uuid FROM entry WHERE uuid IS NOT NULL").fetchall())
    db.close()
    assert len(known) > 100
    library.mount()
    library.wait_idle()
    library.verify("--content")
    status = library.sd_json("status")
    assert status["files"] == 3000
    assert status["scan"]["pending_files"] == 0
    with sqlite3.connect(f"file:{library.library_dir}/library.db?mode=ro", uri=True) as db:
        now = dict(db.execute("SELECT id, uuid FROM entry WHERE uuid IS NOT NULL").fetchall())
    db.close()
    assert {i: now.get(i) for i in known} == known


def test_inode_numbers_are_the_same_after_a_remount(library):
    """Of files, directories, links, hard links (one number for both names), also after a kill."""
    source = library.folder("Files")
    fill(source)
    library.mount(source)
    (library.mnt / "Projects").mkdir()
    (library.mnt / "Projects" / "plan").write_bytes(b"x")
    before = inodes(library.mnt)
    assert before[f"{library.mnt}/Files/d0/f0.txt"] == before[f"{library.mnt}/Files/d1/twin"]
    others = [n for p, n in before.items() if not p.endswith("/twin")]
    assert len(set(others)) == len(others)
    views = {name: (library.mnt / ".vdfs" / name).stat().st_ino for name in ("", "tags", "recent", "status.json")}
    library.wait_idle()
    assert inodes(library.mnt) == before, "identification changes no number"
    library.remount()
    assert inodes(library.mnt) == before
    library.kill()
    library.mount()
    assert inodes(library.mnt) == before
    assert views == {name: (library.mnt / ".vdfs" / name).stat().st_ino for name in views}


def test_inode_numbers_are_never_used_again(library):
    """A number of a deleted file does not come back, neither at once nor after a remount."""
    library.mount(library.folder("Files"))
    top = library.mnt / "Files"
    seen: set[int] = set()
    for round_ in range(3):
        for number in range(20):
            path = top / f"f{number}"
            path.write_bytes(b"x")
            ino = path.stat().st_ino
            assert ino not in seen
            seen.add(ino)
            path.unlink()
        if round_ < 2:
            library.remount()


def test_times_are_the_same_after_a_remount(library):
    """mtime and ctime to the nanosecond, and they are the disk's."""
    source = library.folder("Files")
    fill(source)
    library.mount(source)

    def times() -> dict[str, tuple[int, int]]:
        top = library.mnt / "Files"
        return {p: (os.lstat(p).st_mtime_ns, os.lstat(p).st_ctime_ns) for p in walk(top)}

    before = times()
    for path, (mtime_ns, ctime_ns) in before.items():
        real = os.lstat(source / os.path.relpath(path, library.mnt / "Files"))
        assert (mtime_ns, ctime_ns) == (real.st_mtime_ns, real.st_ctime_ns)
    library.remount()
    assert times() == before


# -- what is kept


def test_the_device_is_made_once(library):
    """device.json and its key: the key for its owner alone, both the same for ever, both of a plain format."""
    library.mount()
    facts = json.loads((library.data / "device.json").read_text())
    keys = [p for p in library.data.iterdir() if p.is_file() and "key" in p.name]
    assert len(keys) == 1
    assert stat.S_IMODE(keys[0].stat().st_mode) == 0o600
    assert facts["id"] == library.sd_json("status")["device_id"]
    key = keys[0].read_bytes()
    library.remount()
    assert json.loads((library.data / "device.json").read_text()) == facts
    assert keys[0].read_bytes() == key
    assert key.strip().decode() not in (library.data / "device.json").read_text()


def test_the_library_says_what_it_is(library):
    """library.json with an id that stays; the directory is the owner's alone; the lock and the store are in it."""
    library.mount()
    facts = json.loads((library.library_dir / "library.json").read_text())
    assert facts["name"] == "Library"
    assert facts["id"] == library.sd_json("status")["library_id"]
    assert {"library.db", "store", "lock", "library.json"} <= set(names(library.library_dir))
    assert stat.S_IMODE(library.library_dir.stat().st_mode) & 0o077 == 0
    library.remount()
    assert json.loads((library.library_dir / "library.json").read_text()) == facts
    assert [n for n in names(library.library_dir) if n.endswith((".tmp", "~"))] == []


def test_the_socket_is_the_owners(library):
    """0600 in a directory of 0700."""
    library.mount()
    holder = library.holder()
    assert holder is not None
    socket = Path(holder["socket"])
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("file", ["library.json", "device.json", "device_key", "library.db"])
def test_a_damaged_file_is_named_and_not_overwritten(library, file):
    """One line with the file and the cure, exit 1, the bytes as they were; the right file back, and it works."""
    source = library.folder("Files")
    fill(source)
    library.mount(source)
    library.wait_idle()
    library.unmount()
    path = library.library_dir / file if file.startswith("library") else library.data / file
    good = path.read_bytes()
    is_json = file.endswith(".json")
    for damage in (b"{ this is no", b'{"version": "x"}' if is_json else b"\0" * len(good)):
        path.write_bytes(damage)
        done = library.sdmount()
        assert done.returncode == 1, (damage, done)
        message = one_line(done.stderr, VOICE)
        assert str(path) in message, message
        assert "unexpected" not in message, message
        assert path.read_bytes() == damage
        assert not library.is_mounted()
        assert library.holder() is None
        library.sd_fails("status", code=2)
    path.write_bytes(good)
    library.mount()
    assert tree(library.mnt / "Files") == tree(source)


def test_a_database_of_the_future_is_refused_unharmed(library):
    """A newer schema: one line, exit 1, not a byte changed, by sdmount and by sd."""
    library.mount(library.folder("Files"))
    library.unmount()
    path = library.library_dir / "library.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 4711")
    db.close()
    before = digests(library.library_dir)
    done = library.sdmount()
    assert done.returncode == 1
    message = one_line(done.stderr, VOICE)
    assert "newer" in message
    assert "4711" in message
    library.sd_fails("status", code=2)
    assert digests(library.library_dir) == before
    assert not library.is_mounted()


def test_a_library_json_of_the_future_is_refused_unharmed(library):
    """The version in library.json counts, too."""
    library.mount(library.folder("Files"))
    library.unmount()
    path = library.library_dir / "library.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    before = digests(library.library_dir)
    done = library.sdmount()
    assert done.returncode == 1
    assert "newer" in one_line(done.stderr, VOICE)
    assert digests(library.library_dir) == before


def digests(directory: Path) -> dict[str, str]:
    """Content of the files that make a library; the lock's note and SQLite's own side files come and go."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in ("lock", "library.db-wal", "library.db-shm")
    }


def test_a_copied_library_is_a_backup(library):
    """The folder of an ended library, copied to another data directory with its device, shows the same things."""
    library.mount()
    (library.mnt / "Notes").mkdir()
    (library.mnt / "Notes" / "a").write_bytes(b"note")
    library.sd("tag", "add", "kept", library.mnt / "Notes" / "a")
    library.unmount()
    moved = library.base / "moved"
    shutil.copytree(library.data, moved, symlinks=True)
    shutil.rmtree(library.data)
    library.data = moved
    library.mount()
    assert (library.mnt / "Notes" / "a").read_bytes() == b"note"
    assert library.sd("tag", "list", library.mnt / "Notes" / "a") == "kept\n"


def test_a_library_that_another_device_of_the_same_name_opens(library):
    """A restored backup whose device is lost, or a second machine that is called alike: it is there, and has a slug."""
    library.mount()
    (library.mnt / "Notes").mkdir()
    (slug,) = names(library.mnt / ".vdfs" / "devices")
    library.unmount()
    for name in ("device.json", "device_key"):
        (library.data / name).unlink()
    for _ in range(2):
        library.mount()
        assert names(library.mnt / ".vdfs" / "devices") == [slug, f"{slug}-2"]
        assert "Notes" in names(library.mnt)
        library.unmount()


def test_a_library_json_of_another_library_is_refused(library):
    """Which of the two is the right one, nobody knows but its owner."""
    library.mount()
    library.unmount()
    path = library.library_dir / "library.json"
    other = path.read_text().replace(json.loads(path.read_text())["id"], "00000000-0000-4000-8000-000000000000")
    path.write_text(other)
    done = library.sdmount()
    assert (done.returncode, "another library" in done.stderr) == (1, True)
    assert path.read_text() == other


def test_sdumount_returns_when_the_server_has_ended(library):
    """A stick with the data directory on it can be unmounted at once."""
    library.mount()
    pid = library.pid
    library.unmount()
    assert gone(pid)


# -- where things lie


def test_the_data_directory_by_environment_flag_and_xdg(library):
    """The flag beats SDMOUNT_DATA_DIR, which beats XDG, which beats the home directory; logs go to the state one."""
    flag, variable, xdg = (library.base / name for name in ("flag", "variable", "xdg"))
    state = library.base / "xdg-state"
    everything = {"XDG_DATA_HOME": str(xdg), "XDG_STATE_HOME": str(state)}
    rounds = [
        (("--data-dir", flag), {**everything, "SDMOUNT_DATA_DIR": str(variable)}, flag, flag / "state"),
        ((), {**everything, "SDMOUNT_DATA_DIR": str(variable)}, variable, variable / "state"),
        ((), everything, xdg / "sdmount", state / "sdmount"),
        ((), {}, library.base / ".local/share/sdmount", library.base / ".local/state/sdmount"),
    ]
    for options, env, data, logs in rounds:
        library.run("fusefs.sdmount", *options, library.mnt, env=env, check=True)
        lock = json.loads((data / "libraries" / "Library.sdlibrary" / "lock").read_text())
        library.servers.add(lock["pid"])
        done = library.run("vdfs.cli", "--json", *options, "status", env=env, check=True)
        assert json.loads(done.stdout)["pid"] == lock["pid"]
        assert json.loads(done.stdout)["data_dir"] == str(data)
        assert list(logs.glob("*.log")), f"no log in {logs}"
        library.run("fusefs.sdumount", *options, library.mnt, env=env, check=True)
        eventually(lambda pid=lock["pid"]: gone(pid), "the server ends")
        shutil.rmtree(data)


def test_the_log_tells_the_story(library):
    """Start, the locations, the end, each with its time, in a file that `sd status` names."""
    source = library.folder("Files")
    library.mount(source)
    log = Path(library.sd_json("status")["log"])
    library.unmount()
    text = log.read_text()
    assert str(library.mnt) in text
    assert str(source) in text
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ INFO .*ended", text, re.MULTILINE)


def test_sd_without_a_library_says_how_to_get_one(library):
    """One line, exit 2, and nothing is made."""
    message = library.sd_fails("status", code=2)
    assert "sdmount" in message
    assert not library.data.exists()


def test_sd_works_while_nothing_runs(library):
    """Tags, search, info, verify: the library is opened for one command and let go."""
    source = library.folder("Files")
    (source / "beach.jpg").write_bytes(b"jpg")
    library.mount(source)
    library.wait_idle()
    library.unmount()
    library.sd("tag", "add", "holiday", source / "beach.jpg")
    assert library.sd("tag", "list", "sd:/Files/beach.jpg") == "holiday\n"
    assert library.sd_json("search", "beach")["hits"][0]["path"] == "sd:/Files/beach.jpg"
    assert library.sd_json("info", "sd:/Files/beach.jpg")["tags"] == ["holiday"]
    assert library.sd("index", "verify", check=True) is not None
    library.mount()
    assert names(library.mnt / "Tags" / "holiday") == ["beach.jpg"]


def test_without_dev_fuse_for_this_user_it_says_so(library, root_only):
    """One line with the cure, not a stack of messages from below."""
    if stat.S_IMODE(os.stat("/dev/fuse").st_mode) & 0o006:
        pytest.skip("everybody may open /dev/fuse here")
    script = (
        "import os, sys, tempfile, fusefs.sdmount; os.setgroups([]); "  # what is loaded later nobody may read
        f"os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY}); "
        "sys.exit(fusefs.sdmount.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--data-dir", str(library.base / "nobody"), str(library.mnt)],
        capture_output=True, text=True, check=False, timeout=PROGRAM_S, cwd="/", env=library.environment(),
    )  # fmt: skip
    assert done.returncode == 1
    assert "/dev/fuse" in one_line(done.stderr, VOICE)


def test_verifying_leaves_the_database_to_the_server(library):
    """Locks and log are as before, whoever opens and closes the library meanwhile; again and again, at work."""
    disk = library.folder("Docs")
    fill(disk)
    library.mount(disk)
    shown = library.mnt / "Docs"
    for round_ in range(4):
        library.wait_idle()
        library.verify("--content")
        for number in range(60):
            (shown / f"{round_}-{number}").write_bytes(b"%d" % number * 400)
        library.sd("location", "rescan", "Docs")
        locks = Path("/proc/locks").read_text()
        database = (library.library_dir / "library.db-shm").stat()
        assert f" {library.pid} " in locks, "the server holds its locks on the database"
        assert f":{database.st_ino} " in locks
    library.wait_idle()
    library.verify("--content")


# what a stranger's disk brings ----------------------------------------------------------------------------------------


def database(library) -> Path:
    return library.data / "libraries" / "Library.sdlibrary" / "library.db"


def test_what_it_makes_is_its_owners_alone(library):
    """Nobody else may put a library there or take one away, whatever the umask is."""
    previous = os.umask(0)
    try:
        library.mount(library.folder("Files"))
    finally:
        os.umask(previous)
    for path in (library.data, library.data / "libraries", database(library).parent, library.data / "state"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_a_damaged_database_is_one_line(library):
    """`sd`, `sd index verify` and `sdmount` could not try: exit code and cure, no traceback, the file as it was."""
    source = library.folder("Files")
    for number in range(400):
        (source / f"f{number}").write_bytes(b"%d" % number)
    library.mount(source)
    library.wait_idle()
    library.unmount()
    with open(database(library), "r+b") as file:
        file.truncate(file.seek(0, 2) // 2)
        file.seek(8192)
        file.write(os.urandom(16384))
    damaged = database(library).read_bytes()
    for command in (("status",), ("index", "verify"), ("search", "f1"), ("tag", "list")):
        assert "damaged" in library.sd_fails(*command, code=2), command
    done = library.sdmount()
    assert done.returncode == 1
    assert "damaged" in one_line(done.stderr, "sdmount: ")
    assert len(damaged) == database(library).stat().st_size
    library.may_complain = True


def test_a_database_that_is_gone_is_a_loss(library):
    """Empty or missing beside its library.json: refused, never begun anew in silence."""
    library.mount(library.folder("Files"))
    library.unmount()
    facts = (database(library).parent / "library.json").read_text()
    for lose in (lambda: database(library).write_bytes(b""), database(library).unlink):
        lose()
        for suffix in ("-wal", "-shm"):
            Path(f"{database(library)}{suffix}").unlink(missing_ok=True)
        done = library.sdmount()
        assert done.returncode == 1
        assert "empty or missing" in one_line(done.stderr, "sdmount: ")
        assert (database(library).parent / "library.json").read_text() == facts


def test_sdumount_of_a_server_that_hangs(library):
    """It says so after a few seconds; `--lazy` detaches the mount all the same."""
    library.mount(library.folder("Files"))
    pid = library.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        done = library.run("fusefs.sdumount", "--data-dir", library.data, library.mnt)
        assert done.returncode == 1
        assert "does not answer" in one_line(done.stderr, "sdumount: ")
        assert library.is_mounted()
        library.run("fusefs.sdumount", "--data-dir", library.data, "--lazy", library.mnt, check=True)
        assert not library.is_mounted()
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: gone(pid), "it ends", 20)


@contextlib.contextmanager
def a_service_with_mounts_of_its_own() -> Iterator[None]:
    """As a container has them: copies of those that were there when it began."""
    began = [*private_mounts(), "sh", "-c", "echo ready; exec sleep 60"]
    with subprocess.Popen(began, stdout=subprocess.PIPE) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == b"ready\n"
            yield
        finally:
            service.kill()


def test_a_mount_that_a_service_has_a_copy_of_is_ended_all_the_same(library, root_only):
    library.mount(library.folder("Files"))
    pid = library.pid
    with a_service_with_mounts_of_its_own():
        library.run("fusefs.sdumount", "--data-dir", library.data, library.mnt, check=True)
        assert gone(pid)
        library.mount()


def test_a_copy_of_a_mount_is_taken_away_and_the_mount_goes_on(library, root_only):
    """sdumount in a mount namespace of its own ends nothing that others use."""
    source = library.folder("Files")
    (source / "f").write_bytes(b"x")
    library.mount(source)
    pid = library.pid
    command = [*private_mounts(), sys.executable, "-m", "fusefs.sdumount", "--data-dir", library.data, library.mnt]
    with open(library.mnt / "Files" / "f", "r+b", buffering=0) as file:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=True, env=library.environment({}), cwd="/"
        )
        assert "unmounted here" in one_line(done.stderr, "sdumount: ")
        file.write(b"y")
    assert (source / "f").read_bytes() == b"y"
    assert library.pid == pid


def test_nobody_is_ended_who_has_the_number_of_the_server_in_a_container(library, root_only):
    """With processes of its own, it knows the mount and the library, and not the server."""
    library.mount(library.folder("Files"))
    script = f"""
        echo {library.pid - 1} > /proc/sys/kernel/ns_last_pid
        sleep 60 & bystander=$!
        [ $bystander = {library.pid} ] || exit 77
        "{sys.executable}" -m fusefs.sdumount --data-dir "{library.data}" "{library.mnt}" || exit 3
        kill $bystander
    """
    inside = [*private_mounts("--pid", "--fork", "--mount-proc", "--kill-child"), "sh", "-c", script]
    done = subprocess.run(
        inside, capture_output=True, text=True, timeout=90, check=False, env=library.environment({}), cwd="/"
    )
    if done.returncode == 77:
        pytest.skip("a container's numbers cannot be chosen here")
    assert done.returncode == 0, done.stderr
    assert library.is_mounted()


def test_a_server_whose_mount_only_a_service_has_is_named_with_the_cure(library, root_only):
    """After a plain `fusermount3 -u`; it is no longer mounted here, and nobody says so."""
    library.mount(library.folder("Files"))
    pid = library.pid
    with a_service_with_mounts_of_its_own():
        subprocess.run(["fusermount3", "-u", str(library.mnt)], check=True)
        done = library.sdmount()
        assert done.returncode == 1
        assert f"kill {pid}" in one_line(done.stderr, VOICE)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: gone(pid), "it ends", 20)
        library.mount()


def test_a_detached_server_takes_nobodys_mount_away(library, root_only):
    """SIGTERM to a server whose mount went before: what stands at its mountpoint by then is somebody else's."""
    source = library.folder("Files")
    (source / "f").write_bytes(b"x")
    library.mount(source)
    pid = library.pid
    held = os.open(library.mnt / "Files" / "f", os.O_RDONLY)  # keeps the session alive
    try:
        subprocess.run(["fusermount3", "-u", "-z", str(library.mnt)], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(library.mnt)], check=True)
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: gone(pid), "it ends", 20)
        assert library.is_mounted()
    finally:
        errno_of(os.close, held)  # ENOTCONN: its server has ended
        subprocess.run(["umount", "-l", str(library.mnt)], check=False)


def test_a_large_file_holds_nobody_up(library):
    """One that would be hashed for hours, and is deleted meanwhile: the others are identified at once."""
    source = library.folder("Files")
    (source / "large").touch()
    os.truncate(source / "large", 4 << 40)
    library.mount(source)
    for number in range(5):
        (source / f"f{number}").write_bytes(b"%d" % number)
    hashed = lambda name: errno_of(os.getxattr, library.mnt / "Files" / name, "user.vdfs.hash") == 0  # noqa: E731
    eventually(lambda: all(hashed(f"f{number}") for number in range(5)), "the small ones are known", 20)
    (library.mnt / "Files" / "large").unlink()
    library.wait_idle()
    library.verify("--content")


def test_paths_beyond_what_the_kernel_takes_are_verified(library):
    """Made step by step, 5000 bytes deep; and a name that no file can have is one line."""
    source = library.folder("Files")
    library.mount(source)
    here = os.open(source, os.O_RDONLY)
    try:
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=here)
            deeper = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
        library.sd("location", "rescan", "Files")
        library.wait_idle()
        library.verify("--content")
        os.unlink("file", dir_fd=here)
        library.wait_idle()
        library.verify("--content")
    finally:
        os.close(here)
    assert "at most 255 bytes" in library.sd_fails("info", f"sd:/Files/{'x' * 300}")
    assert "at most 255 bytes" in library.sd_fails("tag", "add", "t", f"sd:/Files/{'x' * 300}")


def test_a_library_path_leads_nowhere_else(library):
    """`..` in sd:/ is refused: nothing outside a location is read, tagged or taken into the index."""
    source = library.folder("Files")
    (library.disk / "outside").write_bytes(b"secret")
    (source / "f").write_bytes(b"x")
    library.mount(source)
    for path in ("sd:/Files/../outside", "sd:/../library.db", "sd:/.."):
        assert "'..'" in library.sd_fails("info", path, code=2)
        assert "'..'" in library.sd_fails("tag", "add", "stolen", path, code=2)
    assert os.listxattr(library.disk / "outside") == []
    (source / "g").write_bytes(b"y")
    library.wait_idle()
    assert library.sd_json("search", "library")["hits"] == []
    library.verify("--content")


# Changes a directory of the mount without end, each time in many ways.
_CHANGES = """
import os, sys
name = f"{sys.argv[1]}/of{os.getpid()}"
while True:
    with open(name, "wb") as file:
        file.write(b"x" * 1000)
    os.setxattr(name, "user.xdg.comment", b"said")
    os.rename(name, name + "b")
    os.unlink(name + "b")
    os.listdir(sys.argv[1])
"""


def test_programs_that_are_killed_in_a_request_hold_nobody_up(library):
    """What they asked leaves the kernel's queue; the server must not wait for it with all else that it does."""
    shown = library.mount(library.folder("Docs")).mnt / "Docs"
    ends = threading.Event()

    def ask() -> None:
        while not ends.is_set():
            with contextlib.suppress(OSError):
                library.call("query:core.methods", {}, 60)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(30):
            command = [sys.executable, "-S", "-c", _CHANGES, shown]
            programs = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(12)]
            time.sleep(0.15)
            for program in programs:
                program.kill()
            for program in programs:
                program.wait()
            library.call("query:core.methods", {}, 20)  # nobody touches the mount meanwhile
    finally:
        ends.set()
        os.kill(library.pid, signal.SIGUSR1)  # what stands still goes on
        for asker in askers:
            asker.join()
