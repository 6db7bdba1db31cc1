"""The devices of a library, cared for: what joining brings together, names, addresses, and who is put out of it."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.netlab import why_not
from tests.system.devices import Device, devices, meet, pair
from tests.system.harness import eventually, names

TAGS = "user.xdg.tags"
NOTE = "user.xdg.comment"

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=f"a network of machines cannot be had here: {why_not()}"),
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("fuse"),
]


def tags(path: Path) -> set[str]:
    try:
        return set(os.getxattr(path, TAGS).decode().split(","))
    except OSError:
        return set()


def uuid_at(device: Device, path: str) -> str:
    return os.getxattr(device.mnt / path, "user.vdfs.id").decode()


def agree(*members: Device) -> None:
    """All have all, and show the same names."""

    def same() -> bool:
        for device in members:
            device.wait_synced()
        first, *others = [device.names() for device in members]
        return all(one == first for one in others)

    eventually(same, "all show the same names", 60)


# -- what joining brings together --------------------------------------------------------------------------------------


def test_two_libraries_become_one_and_neither_loses_anything(base: Path) -> None:
    """Locations, tags, saved searches and attributes of both; same names merge, same files are one file."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        for device, own in ((ann, "sand"), (bob, "rock")):
            top = device.folder("Photos")
            (top / "same.jpg").write_bytes(b"the same on both")
            (top / f"{device.name}.jpg").write_bytes(own.encode())
            device.add(top)
            device.add(device.folder(f"Of {device.name}"))
            device.settle()
            os.setxattr(device.mnt / "Photos/same.jpg", TAGS, f"both,of {device.name}".encode())
            os.setxattr(device.mnt / f"Photos/{device.name}.jpg", TAGS, b"sea")
            os.setxattr(device.mnt / f"Photos/{device.name}.jpg", NOTE, own.encode())
            device.sd("search", f"tag:sea {own}", "--save", f"by {device.name}")
            device.wait_idle()
        given_up = bob.library_id
        inode = os.stat(bob.mnt / "Photos/bob.jpg").st_ino
        pair(ann, bob)
        agree(ann, bob)
        assert ann.library_id == bob.library_id != given_up
        for device in (ann, bob):
            top = device.mnt / "Photos"
            assert names(top) == ["ann.jpg", "bob.jpg", "same.jpg"], device.name
            eventually(lambda top=top: tags(top / "same.jpg") == {"both", "of ann", "of bob"}, "tags of both", 30)
            assert tags(top / "ann.jpg") == tags(top / "bob.jpg") == {"sea"}
            assert os.getxattr(top / "ann.jpg", NOTE) == b"sand"
            assert os.getxattr(top / "bob.jpg", NOTE) == b"rock"
            assert {"Of ann", "Of bob", "Photos"} <= set(names(device.mnt))
            assert names(device.mnt / ".vdfs/search/saved") == ["by ann", "by bob"]
            found = device.sd_json("search", "tag:sea")
            assert len(found["entries"] if "entries" in found else found["hits"]) == 2
        assert uuid_at(ann, "Photos/same.jpg") == uuid_at(bob, "Photos/same.jpg")
        assert os.stat(bob.mnt / "Photos/bob.jpg").st_ino == inode
        # The side that moved is found under its new id, also after it was mounted again and after a kill.
        for again in (bob.remount, lambda: (bob.kill(), bob.mount())):
            again()
            status = json.loads((bob.mnt / ".vdfs/status.json").read_text())
            assert status["library_id"] == bob.library_id == ann.library_id
            assert json.loads((bob.library_dir / "lock").read_text())["mountpoint"] == str(bob.mnt)
            assert bob.sync()["state"] in ("catching up", "ready")
            assert (bob.mnt / "Photos/bob.jpg").read_bytes() == b"rock"
        meet(ann, bob)
        for device in (ann, bob):
            device.verify()


def test_two_devices_of_one_library_on_one_machine(base: Path) -> None:
    """With one runtime directory: each has a socket of its own, also when both are mounted anew."""
    with devices(base, "ann") as (_, (ann,)):
        bob = Device(base / "bob", ann.node)
        bob.runtime.rmdir()
        bob.runtime, bob.name = ann.runtime, "bob"
        try:
            bob.mount()
            bob.call_it("bob")
            pair(ann, bob)
            for device in (ann, bob):
                device.remount()
            meet(ann, bob)
            (ann.mnt / "new").write_text("new")
            eventually(lambda: "new" in names(bob.mnt), "a new file", 20)
        finally:
            bob.close()


@pytest.mark.parametrize("victim", ["ann", "bob"])
def test_a_kill_in_the_middle_of_joining_leaves_two_libraries_or_one(base: Path, victim: str) -> None:
    """Whenever it comes: both mount again, nothing is lost, and pairing once more makes them one."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        here = ann if victim == "ann" else bob
        for device in (ann, bob):
            top = device.folder(device.name)
            (top / "file").write_text(device.name)
            device.add(top)
        for number in range(4):
            with ann.offering() as offer:
                joining = bob.begin("join", "--yes", *offer.words.split())
                # Over the words being looked for, the handshake, what is written, the first link.
                time.sleep(0.3 + 0.1 * number)
                here.kill()
                joining.send_signal(signal.SIGINT)
                joining.communicate(timeout=60)
            here.mount()
            assert (here.mnt / here.name / "file").read_text() == here.name
            trusts = [any(one["is_trusted"] and not one["is_own"] for one in device.devices()) for device in (ann, bob)]
            if bob.library_id == ann.library_id:  # who moved is known where he moved to
                assert trusts[0], f"after {number}: bob has moved, and ann does not know him"
            if all(trusts):
                break
        if not all(trusts):
            with ann.offering() as offer:
                bob.join(offer)
        assert ann.library_id == bob.library_id
        meet(ann, bob)
        agree(ann, bob)


@pytest.mark.parametrize("offers", ["ann", "bob"])
def test_a_copy_that_is_older_than_the_pairing_is_paired_once_more(base: Path, offers: str) -> None:
    """It has forgotten the other, who has not forgotten it, and neither loses anything."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        for device in (ann, bob):
            top = device.folder(device.name)
            (top / "file").write_text(device.name)
            device.add(top)
            device.settle()
        os.setxattr(ann.mnt / "ann/file", TAGS, b"before")
        ann.wait_idle()
        ann.unmount()
        kept = ann.library_dir.with_name("kept")
        shutil.copytree(ann.library_dir, kept)
        ann.mount()
        one, other = (ann, bob) if offers == "ann" else (bob, ann)
        pair(one, other)
        agree(ann, bob)
        os.setxattr(bob.mnt / "ann/file", TAGS, b"before,of bob")
        os.setxattr(ann.mnt / "bob/file", NOTE, b"forgotten")
        eventually(lambda: os.getxattr(bob.mnt / "bob/file", NOTE) == b"forgotten", "the note", 20)
        agree(ann, bob)
        ann.unmount()
        shutil.rmtree(ann.library_dir)
        shutil.move(kept, ann.library_dir)
        ann.mount()
        assert [row["name"] for row in ann.devices()] == ["ann"]
        pair(one, other)
        agree(ann, bob)
        assert ann.library_id == bob.library_id
        for device in (ann, bob):
            assert tags(device.mnt / "ann/file") == {"before", "of bob"}, device.name
            assert os.getxattr(device.mnt / "bob/file", NOTE) == b"forgotten", device.name
        for device in (ann, bob):
            device.settle()
            eventually(lambda device=device: device.verify() is None, "its index of names is of this epoch", 20)


def test_two_machines_with_copies_of_one_data_directory_lose_nothing(base: Path) -> None:
    """A cloned disk: each hears from others what the other said as if it had forgotten it."""
    with devices(base, "ann", "bob", "eve") as (_, (ann, bob, eve)):
        for device in (ann, bob):
            top = device.folder(device.name)
            (top / "file").write_text(device.name)
            device.add(top)
            device.settle()
        pair(ann, bob)
        agree(ann, bob)
        for device in (ann, eve):
            device.unmount()
        shutil.rmtree(eve.data)
        shutil.copytree(ann.data, eve.data, symlinks=True)
        ann.mount()
        eve.mount()
        three = (ann, bob, eve)
        for number in range(6):  # while the link that there is goes to the one or the other
            for device in three:
                os.setxattr(device.mnt / "bob/file", f"user.of_{device.name}", b"%d" % number)
            time.sleep(1)
        for device, other in ((ann, eve), (eve, ann)):  # there is one link to both: one of them waits for it
            other.unmount()
            if not device.is_mounted():
                device.mount()
            agree(device, bob)
        ann.mount()
        eve.unmount()
        agree(ann, bob)
        for device in (ann, bob):
            assert {os.getxattr(device.mnt / "bob/file", f"user.of_{one.name}") for one in three} == {b"5"}
            device.settle()
            eventually(lambda device=device: device.verify() is None, "its index of names is of this epoch", 20)


# -- names and addresses -----------------------------------------------------------------------------------------------


def test_a_new_name_is_seen_everywhere(base: Path) -> None:
    """In the lists, in paths, and in the names of conflicts; whoever gave it."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        for device in (ann, bob):
            top = device.folder("Files")
            (top / "f.txt").write_text(f"what {device.name} wrote")
            device.add(top)
            device.settle()
            time.sleep(0.05)  # mtimes differ
        pair(ann, bob)
        agree(ann, bob)
        (conflict,) = [name for name in names(ann.mnt / "Files") if "from" in name]
        assert conflict == "f (from ann, Files).txt"
        bob.sd("device", "rename", "ann", "Ann’s tower")
        for device in (ann, bob):
            eventually(lambda device=device: "ann-s-tower" in names(device.mnt / ".vdfs/devices"), "a new slug", 20)
            wanted = "f (from ann-s-tower, Files).txt"
            eventually(lambda device=device: wanted in names(device.mnt / "Files"), "a name of a conflict", 20)
            assert names(device.mnt / ".vdfs/devices") == ["ann-s-tower", "bob"]
        eventually(lambda: ann.sd_json("status")["device"] == "Ann’s tower", "its own name", 20)
        ann.remount()
        assert ann.device("Ann’s tower")["is_own"]
        assert ann.sd_fails("device", "rename", "bob", "two\nlines")
        said = ann.sd_fails("device", "rename", "nobody", "x")
        assert "there is no device nobody (there are: ann-s-tower, bob)" in said


def test_peers_are_told_in_a_file(base: Path) -> None:
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        alone = json.loads((ann.mnt / ".vdfs/peers.json").read_text())
        assert (alone["state"], [one["state"] for one in alone["devices"]]) == ("alone", ["own"])
        pair(ann, bob)

        def told() -> dict[str, dict[str, object]]:
            facts = json.loads((ann.mnt / ".vdfs/peers.json").read_text())
            return {one["slug"]: one for one in facts["devices"]}

        assert {slug: one["state"] for slug, one in told().items()} == {"ann": "own", "bob": "connected"}
        assert told()["bob"]["lag"] == 0
        assert told()["bob"]["link"]
        bob.unmount()
        eventually(lambda: told()["bob"]["state"] == "away", "it is away", 30)


# -- who is put out ----------------------------------------------------------------------------------------------------


def test_who_is_put_out_is_cut_off_everywhere_and_goes_on_alone(base: Path) -> None:
    """It is told so, and nothing after it; what it holds goes; it comes back only with another key."""
    with devices(base, "ann", "bob", "cat") as (_, (ann, bob, cat)):
        top = cat.folder("Of cat")
        (top / "file").write_text("cat")
        cat.add(top)
        cat.settle()
        pair(ann, bob, cat)
        meet(bob, cat)
        agree(ann, bob, cat)
        assert (
            "nobody can be asked here; use --yes"
            in ann.run("vdfs.cli", "--data-dir", ann.data, "device", "revoke", "cat").stderr
        )
        ann.sd("device", "revoke", "cat", "--yes")
        for device in (ann, bob):
            eventually(lambda device=device: device.device("cat")["state"] == "revoked", "it is out", 20)
            eventually(lambda device=device: not device.sees("cat"), "its link is closed", 10)
        eventually(lambda: cat.sync()["state"] == "revoked", "it knows", 20)
        eventually(lambda: cat.sync()["port"] and not any(one["is_online"] for one in cat.devices()), "alone", 10)
        said = cat.sd("sync", "status")
        assert "--data-dir" in said, "the cure"
        assert "put out" in cat.sd_fails("sync", "status", "--wait-synced", code=1)
        # Nothing reaches it, nothing of it is heard; its mount goes on, and what it held is listed nowhere else.
        heard = sum(peer["rows_in"] for peer in cat.sync()["peers"])
        (ann.mnt / "secret").write_text("secret")
        (cat.mnt / "Of cat/later").write_text("later")
        eventually(lambda: "secret" in names(bob.mnt), "the others go on", 20)
        assert "secret" not in names(cat.mnt)
        assert sum(peer["rows_in"] for peer in cat.sync()["peers"]) == heard
        assert names(cat.mnt / "Of cat") == ["file", "later"]
        for device in (ann, bob):
            top = device.mnt / "Of cat"
            eventually(lambda top=top: not top.exists() or names(top) == [], "what it holds is let go of", 20)
            assert names(device.mnt / ".vdfs/devices") == ["ann", "bob"]
        # It stays so: after a restart, and with words.
        cat.remount()
        assert cat.sync()["state"] == "revoked"
        with bob.offering() as offer:
            assert "its key serves no more" in cat.sd_fails("join", "--yes", *offer.words.split(), code=1)
        assert "its key serves no more" in cat.sd_fails("pair", code=1)
        assert ann.sd_fails("device", "revoke", "ann", "--yes", code=1)
        # With another key, on the same directories, it is a new member.
        new = Device(base / "new", cat.node)
        try:
            new.name = "new"
            new.mount(cat.disk / "Of cat")
            new.call_it("new")
            with bob.offering() as offer:
                new.join(offer)
            meet(new, ann)
            assert (new.mnt / "Of cat/file").read_text() == "cat"
            eventually(lambda: "later" in names(ann.mnt / "Of cat"), "its files are told again", 30)
        finally:
            new.close()


def test_who_was_away_when_it_was_put_out_is_nobody_when_it_comes_back(base: Path) -> None:
    """It is not let in, and by no member; it is told nothing, so to it all others are away."""
    with devices(base, "ann", "bob", "cat") as (_, (ann, bob, cat)):
        pair(ann, bob, cat)
        cat.unmount()
        bob.sd("device", "revoke", "cat", "--yes")
        eventually(lambda: ann.device("cat")["state"] == "revoked", "it is out everywhere", 20)
        (ann.mnt / "secret").write_text("secret")
        cat.mount()
        assert "no other device can be reached" in cat.sd("sync", "status", "--wait-synced", "--timeout", "50")
        assert "secret" not in names(cat.mnt)
        assert not ann.sees("cat")
        with ann.offering() as offer:
            said = cat.sd_fails("join", "--yes", *offer.words.split(), code=1)
            assert "never serves again" in said
            assert "never serves again" in offer.fails()
