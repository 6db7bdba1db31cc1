"""Devices on a network that have nothing but words and multicast to find each other: they come to show the same."""

import os
import time

import pytest

from tests.netlab import why_not
from tests.system.devices import Device, devices
from tests.system.harness import eventually
from tests.system.watcher import watching

TAGS = "user.xdg.tags"
SECONDS = 30


@pytest.fixture
def network():
    if why_not():
        pytest.skip(why_not())


def tree(device: Device, name: str, files: int) -> None:
    """A location with real files in directories."""
    top = device.folder(name)
    for number in range(files):
        place = top / f"{device.name} {number // 50}"
        place.mkdir(exist_ok=True)
        (place / f"file {number}").write_bytes(b"%s %d" % (device.name.encode(), number))
    os.symlink("file 0", top / f"link of {device.name}")
    device.add(top)


def agree(*members: Device) -> None:
    """Wait until all show the same."""
    for device in members:
        device.wait_idle()

    def same() -> bool:
        for device in members:
            device.wait_synced()
        first, *others = [device.names() for device in members]
        return all(names == first for names in others)

    eventually(same, "all mounts show the same names", SECONDS)


def tags(device: Device, path: str) -> bytes:
    try:
        return os.getxattr(device.mnt / path, TAGS)
    except OSError:
        return b""


@pytest.mark.timeout(300)
def test_three_devices_show_one_tree(fuse, network, base):
    """Paired by words alone, found by multicast alone; then edits on both sides of a network in two parts."""
    with devices(base, "ann", "bob", "nas") as (lab, (ann, bob, nas)):
        for device in (ann, bob, nas):
            tree(device, "Shared", 60)
            tree(device, f"Of {device.name}", 20)
        ann.admit(bob)
        bob.admit(nas)
        agree(ann, bob, nas)
        path = "Shared/ann 0/file 7"
        os.setxattr(ann.mnt / path, TAGS, b"sea,sun")
        for device in (bob, nas):
            eventually(lambda device=device: tags(device, path) == b"sea,sun", "a tag set on ann", SECONDS)
        lab.part(ann.node, bob.node)
        lab.part(ann.node, nas.node)
        os.setxattr(ann.mnt / path, TAGS, b"sea,sun,of ann")
        os.setxattr(bob.mnt / path, TAGS, b"sun,of bob")
        os.setxattr(nas.mnt / path, "user.note", b"of nas")
        (ann.disk / "Shared" / "new on ann").write_bytes(b"new")
        lab.heal()
        agree(ann, bob, nas)
        for device in (ann, bob, nas):
            found = set(tags(device, path).decode().split(","))
            assert found == {"sun", "of ann", "of bob"}, device.name
            assert os.getxattr(device.mnt / path, "user.note") == b"of nas"
        for device in (ann, bob, nas):
            device.verify()


@pytest.mark.timeout(300)
def test_who_watches_on_one_device_sees_what_is_done_on_another(fuse, network, base):
    """As if it was done there; and nobody hears of it as of something new."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        tree(ann, "Shared", 10)
        tree(bob, "Shared", 10)
        ann.admit(bob)
        agree(ann, bob)
        here, there = ann.mnt / "Shared" / "ann 0", bob.mnt / "Shared" / "ann 0"
        names = sorted(os.listdir(there))
        with watching(there) as watcher:
            watcher.quiet(2)
            watcher.forget()
            (here / "new").write_bytes(b"new")
            watcher.until_seen(("CREATE", "new"), ("CLOSE_WRITE", "new"), within_s=SECONDS)
            (here / "made").mkdir()
            watcher.until_seen(("CREATE", "made"), within_s=SECONDS)
            (here / "new").rename(here / "newer")
            watcher.until_seen(("MOVED_FROM", "new"), ("MOVED_TO", "newer"), within_s=SECONDS)
            watcher.forget()
            (here / "newer").write_bytes(b"newer, and longer")
            watcher.until_seen(("MODIFY", "newer"), ("CLOSE_WRITE", "newer"), within_s=SECONDS)
            eventually(lambda: (there / "newer").stat().st_size == 17, "its new size", SECONDS)
            watcher.forget()
            os.setxattr(here / "newer", TAGS, b"sea")
            watcher.until_seen(("ATTRIB", "newer"), within_s=SECONDS)
            eventually(lambda: os.getxattr(there / "newer", TAGS) == b"sea", "its tag", SECONDS)
            (here / "newer").unlink()
            (here / "made").rmdir()
            watcher.until_seen(("DELETE", "newer"), ("DELETE", "made"), within_s=SECONDS)
        assert sorted(os.listdir(there)) == names
        agree(ann, bob)
        for device in (ann, bob):
            device.verify()


@pytest.mark.timeout(300)
def test_names_of_one_file_part_and_meet_on_every_device(fuse, network, base):
    """Numbers say what is one file: programs that copy would link one with another."""

    def numbers(names: str = "fgh") -> list[tuple[int, int]]:
        """Number and size of each name, as another device shows it."""
        return [((st := (bob.mnt / "Linked" / name).stat()).st_ino, st.st_size) for name in names]

    with devices(base, "ann", "bob") as (_, (ann, bob)):
        top = ann.folder("Linked")
        (top / "f").write_bytes(b"one")
        for name in "gh":
            os.link(top / "f", top / name)
        ann.add(top)
        ann.admit(bob)
        agree(ann, bob)
        assert len(set(numbers())) == 1
        (top / "new").write_bytes(b"of its own")
        (top / "new").rename(top / "f")
        eventually(lambda: [size for _, size in numbers()] == [10, 3, 3], "f is another file", SECONDS)
        eventually(lambda: len(set(numbers())) == 2 and len(set(numbers()[1:])) == 1, "g and h are one", SECONDS)
        (top / "g").unlink()
        os.link(top / "f", top / "g")
        eventually(lambda: [size for _, size in numbers()] == [10, 10, 3], "g is a name of f", SECONDS)
        eventually(lambda: len(set(numbers()[:2])) == 1 and len(set(numbers())) == 2, "f and g are one", SECONDS)
        (top / "g").rename(top / "moved")
        shown = bob.mnt / "Linked" / "moved"
        eventually(lambda: numbers("f") == [(shown.stat().st_ino, 10)], "also where one moves", SECONDS)


@pytest.mark.timeout(300)
def test_a_fourth_joins_through_the_second_while_the_first_is_off(fuse, network, base):
    """And gets everything; then it is put out, and hears nothing more."""
    with devices(base, "ann", "bob", "cat") as (_, (ann, bob, cat)):
        tree(ann, "Of ann", 120)
        ann.admit(bob)
        tree(bob, "Of bob", 10)
        os.setxattr(ann.mnt / "Of ann/ann 0/file 1", TAGS, b"kept")
        agree(ann, bob)
        ann.unmount()
        bob.admit(cat)
        agree(bob, cat)
        assert tags(cat, "Of ann/ann 0/file 1") == b"kept"
        ann.mount()
        agree(ann, bob, cat)
        ann.sd("device", "revoke", "cat", "--yes")
        eventually(lambda: not any(one["is_online"] for one in cat.devices()), "its links are closed", SECONDS)
        os.setxattr(bob.mnt / "Of ann/ann 0/file 1", TAGS, b"secret")
        eventually(lambda: tags(ann, "Of ann/ann 0/file 1") == b"secret", "the others go on", SECONDS)
        time.sleep(1)
        assert tags(cat, "Of ann/ann 0/file 1") == b"kept"
        assert cat.sd_json("sync", "status")["state"] in ("revoked", "ready", "uninitialized", "alone", "catching up")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_backfill_is_killed_ten_times(fuse, network, base):
    """Whoever dies goes on where it was, and at the end both have the same."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        tree(ann, "Much", 20_000)
        ann.wait_idle()
        ann.admit(bob)
        for turn in range(10):
            victim = (bob, ann)[turn % 2]
            time.sleep(0.2 + 0.1 * turn)
            victim.kill()
            victim.mount()
        agree(ann, bob)
        assert len(bob.names("Much")) == len(ann.names("Much")) > 20_000
        for device in (ann, bob):
            device.verify()
