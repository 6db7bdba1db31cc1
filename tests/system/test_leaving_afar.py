"""What leaves a name on one device, as another sees it: nothing there goes, and what is made anew reaches it."""

import os

import pytest

from tests.netlab import why_not
from tests.system.devices import Device, devices, pair
from tests.system.harness import eventually, names

TAGS = "user.xdg.tags"


@pytest.fixture
def network():
    if why_not():
        pytest.skip(why_not())


def share(device: Device) -> None:
    """The same files on every device."""
    top = device.folder("Shared")
    (top / "dir").mkdir()
    for name in ("plan", "kept", "dir/one"):
        (top / name).write_bytes(b"the same" * 100 + name.encode())
    device.add(top)
    device.wait_idle()
    device.settle()


def size(device: Device, name: str) -> int:
    try:
        return os.stat(device.mnt / "Shared" / name).st_size
    except FileNotFoundError:
        return -1


@pytest.mark.timeout(300)
def test_a_name_that_left_here_and_came_again_is_a_later_version_there(fuse, network, base):
    """Without a conflict on either side, with one uuid and its tags."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        share(ann)
        share(bob)
        pair(ann, bob)
        here, there = ann.mnt / "Shared", bob.mnt / "Shared"
        eventually(lambda: os.getxattr(here / "plan", "user.vdfs.devices").count(b"\0") == 1, "both have it")
        os.setxattr(here / "plan", TAGS, b"mine")
        (here / "plan").unlink()
        (here / "dir" / "one").unlink()
        (here / "dir").rmdir()
        assert names(here) == ["kept"]
        ann.wait_synced()
        bob.wait_synced()
        assert names(here) == ["kept"]
        assert names(there) == ["dir", "kept", "plan"]
        assert (there / "plan").read_bytes().endswith(b"plan")
        (here / "plan").write_bytes(b"anew")
        ann.settle()
        eventually(lambda: size(bob, "plan") == 4, "the later version has come")
        assert names(there) == ["dir", "kept", "plan"]
        assert names(here) == ["kept", "plan"]
        eventually(lambda: os.getxattr(there / "plan", TAGS) == b"mine", "with its tags")
        assert (bob.disk / "Shared" / "plan").read_bytes().endswith(b"plan")
        (there / "dir" / "one").write_bytes(b"bob wrote this")
        bob.settle()
        eventually(lambda: size(ann, "dir/one") == 14, "what bob wrote since shows again")
        assert names(here) == ["dir", "kept", "plan"]
        for device in (ann, bob):
            device.verify()
            assert device.sd_json("library", "check") == {"faults": []}
