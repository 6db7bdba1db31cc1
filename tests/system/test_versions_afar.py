"""Which file has seen which, when two devices have replicas of one and names go from file to file, while neither hears
of the other: what somebody wrote is never taken for something older, and what was seen is no conflict.
"""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.netlab import Laboratory, why_not
from tests.system.devices import Device, devices
from tests.system.harness import eventually

pytestmark = pytest.mark.timeout(300)
SECONDS = 20
NAMES = (
    "anew/f", "slowly/f", "moved/f", "made/e/f", "tree/e/f", "leaves/f", "over/a", "over/f", "seen/a", "seen/f",
    "written/f", "saved/f",
)  # fmt: skip
NEW = b"what is new under a name, of a length of its own"


class Two(NamedTuple):
    ann: Device
    bob: Device
    lab: Laboratory


@pytest.fixture
def two(fuse, base) -> Iterator[Two]:
    """Two devices: of each file the first has written several versions. The second has copied the last, and knows so,
    but the first does not, since they are out of touch."""
    if why_not():
        pytest.skip(why_not())
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        top = ann.folder("Shared")
        for name in NAMES:
            (top / name).parent.mkdir(exist_ok=True, parents=True)
            (top / name).write_bytes(b"first")
        for name in ("moved/other", "tree/other/f"):
            (top / name).parent.mkdir(exist_ok=True)
            (top / name).write_bytes(NEW)
        ann.add(top)
        bob.add(bob.folder("Shared"))
        ann.admit(bob)
        for text in (b"second", b"and the last of "):
            for name in NAMES:
                (ann.mnt / "Shared" / name).write_bytes(text + name.encode())
        agree(ann, bob)
        lab.part(ann.node, bob.node)
        for name in NAMES:
            (bob.disk / "Shared" / name).parent.mkdir(exist_ok=True, parents=True)
            shutil.copy2(top / name, bob.disk / "Shared" / name)
        bob.settle()
        assert not [name for name in bob.names("Shared") if " (from " in name]
        yield Two(ann, bob, lab)


def agree(*members: Device) -> None:
    """All is known everywhere, and what holds the same is one file."""
    for device in members:
        device.settle()
    for _ in range(2):
        for device in members:
            device.wait_synced()


def sizes(device: Device, name: str) -> list[int]:
    """Of what a device shows under a name, by itself or as that of a conflict."""
    directory, _, plain = name.rpartition("/")
    top = device.mnt / "Shared" / directory
    return sorted(one.stat().st_size for one in top.iterdir() if one.name.startswith(plain))


@pytest.mark.parametrize("where", ["mnt", "disk"])
def test_what_is_new_under_a_name_is_no_older_version(two, where):
    """Whatever was known of the file that had the name: made anew, moved there, or in a directory that was."""
    ann, bob, lab = two
    top: Path = getattr(ann, where) / "Shared"
    for name in ("anew/f", "slowly/f", "moved/f"):
        (top / name).unlink()
        if name == "anew/f":
            (top / name).write_bytes(NEW)
    for name in ("made/e", "tree/e"):
        shutil.rmtree(top / name)
    time.sleep(2)
    (top / "slowly/f").write_bytes(NEW)
    (top / "moved/other").rename(top / "moved/f")
    (top / "made/e").mkdir()
    (top / "made/e/f").write_bytes(NEW)
    (top / "tree/other").rename(top / "tree/e")
    (top / "written/f").write_bytes(NEW)
    (top / "saved/.f.new").write_bytes(NEW)
    (top / "saved/.f.new").rename(top / "saved/f")
    ann.settle()
    lab.heal()
    agree(ann, bob)
    for device in (ann, bob):
        for name in ("anew/f", "slowly/f", "moved/f", "made/e/f", "tree/e/f", "written/f", "saved/f"):
            eventually(
                lambda device=device, name=name: len(NEW) in sizes(device, name), f"{device.name} shows {name}", SECONDS
            )


@pytest.mark.parametrize("where", ["mnt", "disk"])
def test_what_goes_to_another_name_has_seen_nothing_that_comes_there(two, where):
    """What it was a replica of stays behind. Over another one it has seen what was there, and nothing that is written
    there later."""
    ann, bob, lab = two
    top: Path = getattr(bob, where) / "Shared"
    (top / "leaves/f").rename(top / "leaves/new")
    (top / "over/f").rename(top / "over/a")
    (top / "seen/f").rename(top / "seen/a")
    (ann.mnt / "Shared/leaves/new").write_bytes(NEW)
    (ann.mnt / "Shared/over/a").write_bytes(NEW)
    bob.settle()
    ann.settle()
    lab.heal()
    agree(ann, bob)
    for device in (ann, bob):
        for name in ("leaves/new", "over/a"):
            eventually(
                lambda device=device, name=name: len(sizes(device, name)) == 2, f"{device.name} shows {name}", SECONDS
            )
        assert len(sizes(device, "seen/a")) == 1, device.name
