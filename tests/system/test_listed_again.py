"""A listing that was told before is told again only while it is true: every way a name can come, go or change."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.harness import eventually, names

CHANGES: dict[str, Callable[[Path], object]] = {
    "made": lambda top: (top / "d" / "new").write_bytes(b"x"),
    "removed": lambda top: (top / "d" / "a").unlink(),
    "renamed": lambda top: (top / "d" / "a").rename(top / "d" / "z"),
    "moved away": lambda top: (top / "d" / "a").rename(top / "e" / "a"),
    "moved here": lambda top: (top / "e" / "b").rename(top / "d" / "b"),
    "moved to a new directory": lambda top: (os.mkdir(top / "e" / "n"), (top / "d/a").rename(top / "e/n/a")),
    "moved out of sight": lambda top: (top / "d" / "a").rename(top.parent / "out of sight"),
    "replaced": lambda top: ((top / "e" / "t").write_bytes(b"longer"), (top / "e" / "t").rename(top / "d" / "a")),
    "exchanged for a directory": lambda top: ((top / "d" / "a").unlink(), os.mkdir(top / "d" / "a")),
    "a directory moved away": lambda top: (top / "d" / "sub").rename(top / "e" / "sub"),
    "a tree removed": lambda top: shutil.rmtree(top / "d" / "sub"),
    "linked": lambda top: os.link(top / "d" / "a", top / "d" / "l"),
    "longer": lambda top: (top / "d" / "a").write_bytes(b"much longer than before"),
    "another mode": lambda top: os.chmod(top / "d" / "a", 0o600),
}


def said(directory: Path) -> dict[str, tuple[int, int, int]]:
    """What a listing with attributes says."""
    with os.scandir(directory) as scan:
        found = {item.name: item.stat(follow_symlinks=False) for item in scan}
    return {n: (s.st_mode, 0 if os.path.isdir(directory / n) else s.st_size, s.st_mtime_ns) for n, s in found.items()}


@pytest.mark.parametrize("behind", [True, False], ids=["behind the mount", "through the mount"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_listing_follows(place, change, behind):
    """At once for what is done through the mount, within a second for the rest, and it stays so."""
    for name in ("d/sub", "e"):
        (place.disk / name).mkdir(parents=True)
    for name in ("d/a", "d/sub/s", "e/b", "d/c"):
        (place.disk / name).write_bytes(b"x")
    eventually(lambda: "d" in names(place.mnt), "it is there")
    for _ in range(3):  # the third time from what was kept
        for name in ("d", "e", "d/sub"):
            said(place.mnt / name)
    CHANGES[change](place.disk if behind else place.mnt)
    shown = ["d", "e"]

    def agrees() -> bool:
        return all(said(place.mnt / name) == said(place.disk / name) for name in shown)

    if behind:
        eventually(agrees, "the mount shows what is on the disk", 2)
    for _ in range(5):
        assert agrees()
        (place.mnt / "somewhere else").write_bytes(b"")


def test_a_listing_begins_with_the_directory_and_the_one_above(place):
    """`ls -f` shows what readdir(3) says, in its order, with the numbers that it says."""
    (place.mnt / "d" / "below").mkdir(parents=True)
    (place.mnt / "d" / "a").write_bytes(b"x")
    (place.mnt / "d" / "below").rename(place.mnt / "moved")

    def listed(path: str) -> list[tuple[int, str]]:
        out = subprocess.run(
            ["ls", "-fi", place.mnt / path], check=True, capture_output=True, text=True, timeout=30
        ).stdout
        return [(int(line.split()[0]), line.split()[1]) for line in out.splitlines()]

    def number(path: str) -> int:
        return (place.mnt / path).stat().st_ino

    assert listed("d") == [(number("d"), "."), (number("."), ".."), (number("d/a"), "a")]
    assert listed("moved") == [(number("moved"), "."), (number("."), "..")]
    assert listed(".")[:2] == [(number("."), "."), (number(".."), "..")]
    top = next(str(above) for above in place.mnt.parents if above.is_mount())
    assert listed(top)[:2] == [(1, "."), (number(f"{top}/.."), "..")]  # which ls looks up at a mountpoint
    assert listed(f"{top}/.vdfs/tags") == [(number(f"{top}/.vdfs/tags"), "."), (number(f"{top}/.vdfs"), "..")]
