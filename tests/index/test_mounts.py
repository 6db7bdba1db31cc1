"""What is mounted where: the text of mountinfo read, paths placed on mounts, file systems told apart."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.scan import mounts
from index.scan.mounts import Mount, is_within, mount_of, parse

# As the kernel writes them, with zero, one and two optional fields before the dash.
MOUNTINFO = rb"""22 1 254:0 / / rw,relatime - ext4 /dev/root rw
23 22 0:21 / /proc rw,nosuid shared:5 - proc proc rw
24 22 0:40 / /home/u/Space\040drive rw shared:7 master:2 - fuse.sdmount sdmount:Library rw,user_id=0
25 22 0:41 /a\134b /mnt/odd\012name\011\134 rw - fuse.sshfs host:/srv/a\040b rw
"""

COMPONENT = st.binary(min_size=1, max_size=8).filter(lambda b: b"/" not in b and b"\0" not in b)
PATH = st.lists(COMPONENT, max_size=4).map(lambda parts: b"/" + b"/".join(parts))


def at(point: bytes, fs_type: str = "ext4") -> Mount:
    return Mount(point, fs_type, "source", "254:0")


def escaped(path: bytes) -> bytes:
    """As the kernel does it: space, tab, newline and backslash in octal."""
    for char in b"\\ \t\n":
        path = path.replace(bytes([char]), b"\\%03o" % char)
    return path


def test_each_line_is_a_mount_whatever_optional_fields_it_has():
    """Their number varies from none up; the dash ends them."""
    assert parse(MOUNTINFO) == [
        Mount(b"/", "ext4", "/dev/root", "254:0", 22, parent=1),
        Mount(b"/proc", "proc", "proc", "0:21", 23, parent=22),
        Mount(b"/home/u/Space drive", "fuse.sdmount", "sdmount:Library", "0:40", 24, parent=22),
        Mount(b"/mnt/odd\nname\t\\", "fuse.sshfs", "host:/srv/a b", "0:41", 25, b"/a\\b", 22),
    ]


@given(PATH)
def test_a_mount_point_of_any_bytes_is_read_back(path):
    """Escaped by the kernel, unescaped here; bytes that are not UTF-8 stay themselves."""
    line = b"30 22 0:50 / " + escaped(path) + b" rw - tmpfs tmpfs rw\n"
    assert next(m.mount_point for m in parse(line + MOUNTINFO)) == path


@pytest.mark.parametrize("path", [b"/mnt/a\rb", b"/mnt/a\r", b"/mnt/\x0b\x0c", b"/mnt/\x1c\x1d\x1e", b"/mnt/\x85"])
def test_only_a_newline_ends_a_line(path):
    """A carriage return in a name is part of the name: the kernel escapes four characters and no others."""
    text = b"30 22 0:50 / " + path + b" rw - fuse.sdmount sdmount:x rw\n" + MOUNTINFO
    assert next(m.mount_point for m in parse(text)) == path
    assert len(parse(text)) == 5


@pytest.mark.parametrize("line", [b"", b"garbage", b"1 2 3:4 / /x rw shared:1", b"1 2 3:4 / /x rw - ", b"-" * 9])
def test_a_line_that_makes_no_sense_is_passed_over(line):
    """The others are still read: nothing in the text may end a scan."""
    assert parse(MOUNTINFO + line + b"\n") == parse(MOUNTINFO)


def test_the_table_of_this_machine_is_read():
    """/proc is a pseudo file system; the root of a chroot need not be a mount of any."""
    table = mounts.mounts()
    assert (mount_of(b"/", table) is not None) == any(m.mount_point == b"/" for m in table)
    under_proc = mount_of(b"/proc/self", table)
    assert under_proc is not None
    assert under_proc.is_pseudo
    text = Path("/proc/self/mountinfo").read_bytes()
    assert len(parse(text)) == text.count(b"\n")  # not one line was passed over


CHROOT = """
import os
from index.scan.mounts import mount_of, mounts
os.chroot("{place}")
os.chdir("/")
at = mount_of(b"/somewhere", mounts())
print(at.mount_point, at.fs_type, at.device)
"""


MOUNTED = """
import os, subprocess, sys
from index.scan.mounts import mount_of, mounts
place = sys.argv[1]
run = lambda *words: subprocess.run(words, check=True)
os.makedirs(f"{place}/data/sub")
run("mount", "-t", "tmpfs", "first", f"{place}/data/sub")
run("mount", "-t", "tmpfs", "second", f"{place}/data")
os.mkdir(f"{place}/data/sub")
run("mount", "-t", "tmpfs", "root", "/")
table = mounts()
for path in (f"{place}/data/sub/x", place):
    at = mount_of(os.fsencode(path), table)
    print(at.source, os.stat(os.path.dirname(path)).st_dev == os.makedev(*map(int, at.device.split(":"))))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_what_the_kernel_hides_is_not_told(tmp_path):
    """By a mount over a directory above it; and the root stays what it was, whatever is mounted over it."""
    private = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*private, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mounts cannot be kept private here")
    done = subprocess.run(
        [*private, sys.executable, "-c", MOUNTED, str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    here = mount_of(bytes(tmp_path), mounts.mounts())
    assert here is not None
    assert done.stdout.split() == ["second", "True", here.source, "True"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may chroot")
def test_in_a_directory_that_somebody_was_put_into_its_file_system_is_at_the_root(tmp_path):
    """chroot(2): the table has nothing at `/`, and what lies there lies on something all the same."""
    own = tmp_path / "proc" / "self"
    own.mkdir(parents=True)
    (own / "mountinfo").touch()  # as the kernel tells it: what is mounted below the directory, which is nothing
    done = subprocess.run(
        [sys.executable, "-c", CHROOT.format(place=tmp_path)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known = mount_of(bytes(tmp_path), mounts.mounts())
    assert known is not None
    assert done.stdout.split() == ["b'/'", known.fs_type, known.device]


def test_the_innermost_mount_holds_a_path():
    """By whole components: /home2 does not lie on /home."""
    table = [at(b"/"), at(b"/home"), at(b"/home/u/disk")]
    wanted = {
        b"/": b"/", b"/home2/x": b"/", b"/home": b"/home", b"/home/u/disks": b"/home",
        b"/home/u/disk": b"/home/u/disk", b"/home/u/disk/a/b": b"/home/u/disk",
    }  # fmt: skip
    found = {path: mount.mount_point for path in wanted if (mount := mount_of(path, table))}
    assert wanted == found


def test_of_two_mounts_at_one_point_the_later_one_is_seen():
    """It covers the earlier; a new root (pivoted, chrooted) as well."""
    table = [at(b"/", "rootfs"), at(b"/m", "ext4"), at(b"/m", "nfs4"), at(b"/", "overlay")]
    assert [m.fs_type for m in (mount_of(b"/m/x", table), mount_of(b"/x", table)) if m] == ["nfs4", "overlay"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("1 0 /", "1"),
        ("1 0 /; 2 1 /data/sub; 3 1 /data", "1 3"),  # over a directory on its way
        ("1 0 /; 3 1 /data; 2 1 /data/sub", "1 3"),  # whatever the order of the lines
        ("1 0 /; 2 1 /data/sub; 3 1 /data; 4 3 /data/sub", "1 3 4"),  # the same place again, on what came over it
        ("1 0 /; 2 1 /data/sub; 3 1 /database", "1 2 3"),
        ("1 0 /; 2 1 /m; 3 2 /m; 4 3 /m", "1 4"),  # one on top of the other
        ("1 0 /; 2 1 /m; 3 2 /m/in; 4 3 /m/in/in; 5 2 /m", "1 5"),  # and with it all that was mounted inside
        ("1 0 /; 2 1 /m; 3 2 /m; 4 3 /m/in", "1 3 4"),
        ("1 0 /; 2 1 /a; 3 2 /a/b/c; 4 2 /a/b; 5 3 /a/b/c/d", "1 2 4"),
        ("1 0 /; 2 1 /home; 3 1 /; 4 3 /x", "1 2"),  # the root of a process is held, not looked up
        ("1 1 /; 2 1 /m; 3 1 /", "1 2"),  # the first of all lies on itself
        ("2 9 /m; 3 9 /n; 4 3 /n/o; 5 2 /m", "3 4 5"),  # in a chroot: what the root lies on is not in the table
        ("2 9 /m/n; 3 9 /m", "3"),
    ],
)  # fmt: skip
def test_what_a_path_leads_to(lines, expected):
    """A mount with another over it, or over a directory on its way, is hidden: id, what it lies on, place."""
    fields = [line.split() for line in lines.split("; ")]
    text = "".join(f"{one} {parent} 0:{one} / {point} rw - ext4 source rw\n" for one, parent, point in fields)
    seen = mounts.visible(parse(text.encode()))
    assert sorted(str(m.id) for m in seen) == expected.split()


def test_without_a_table_a_path_lies_on_nothing():
    """No guess: the caller decides."""
    assert mount_of(b"/x", []) is None


@given(PATH, st.lists(COMPONENT, max_size=3))
def test_what_is_joined_below_a_directory_lies_within_it(directory, below):
    """And a directory lies within itself."""
    assert is_within(b"/".join([directory.rstrip(b"/"), *below]) or b"/", directory)


@given(PATH, PATH)
def test_two_paths_within_each_other_are_one(a, b):
    """Lying within is an order."""
    assert (is_within(a, b) and is_within(b, a)) == (a == b)


@pytest.mark.parametrize(
    ("fs_type", "own", "pseudo", "slow"),
    [
        ("ext4", False, False, False),
        ("btrfs", False, False, False),
        ("tmpfs", False, False, False),
        ("overlay", False, False, False),
        ("proc", False, True, False),
        ("cgroup2", False, True, False),
        ("fusectl", False, True, False),  # the control files of FUSE, not a file system of a person
        ("nfs4", False, False, True),
        ("cifs", False, False, True),
        ("fuse", False, False, True),
        ("fuse.sshfs", False, False, True),
        ("fuse.sdmount", True, False, True),
        ("fuse.sdmount2", False, False, True),
        ("fuseblk", False, False, True),  # ntfs-3g: a process of its own answers, however near the disk is
    ],
)
def test_what_kind_of_file_system_it_is(fs_type, own, pseudo, slow):
    """Ours, none at all, or one whose calls may wait for another process or machine."""
    mount = at(b"/m", fs_type)
    assert (own, pseudo, slow) == (mount.is_own, mount.is_pseudo, mount.is_slow)
