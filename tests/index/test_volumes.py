"""Volumes by text and by their first bytes: what is one, of what class, which it is, and who holds it."""

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.scan import speedtest
from index.scan.fsid import fs_identity, fs_uuid_fd, is_root
from index.scan.mounts import Mount, parse
from index.volumes import detect, holders, identity, marker, superblock
from index.volumes import unmount as unmounting
from index.volumes.block import Disk, disk_of
from index.volumes.detect import Found, class_of
from index.volumes.marker import Marker

DEVICE = b"d" * 16
UUID = "0123456789abcdef0123456789abcdef"
STICK = Disk("sdb", rotational=False, removable=True, sequence=7)
FIXED = Disk("sda", rotational=True, removable=False, sequence=1)
IMAGE = Disk("loop3", rotational=False, removable=False, backing=b"/i.img", sequence=9, virtual=True)


def mount(point: bytes, fs_type: str = "ext4", source: str = "/dev/sdb1", device: str = "8:17", **more) -> Mount:
    return Mount(point, fs_type, source, device, **more)


def found(point: bytes, disk: Disk | None, fs_type: str = "ext4", source: str = "/dev/sdb1") -> Found:
    one = mount(point, fs_type, source)
    return Found("8:17", fs_type, source, (one,), class_of([point], one, disk), detect.disk_type_of(one, disk), disk)


# -- classes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "fs_type", "disk", "expected"),
    [
        (b"/", "ext4", FIXED, "Primary"),
        (b"/", "overlay", None, "Primary"),
        (b"/home", "ext4", FIXED, "UserData"),
        (b"/home/me", "btrfs", FIXED, "UserData"),
        (b"/home/me/stick", "vfat", STICK, "External"),
        (b"/media/me/stick", "ext4", FIXED, "External"),
        (b"/run/media/me/stick", "exfat", STICK, "External"),
        (b"/mnt", "xfs", FIXED, "External"),
        (b"/mntx", "xfs", FIXED, "Secondary"),
        (b"/srv/data", "xfs", FIXED, "Secondary"),
        (b"/srv/usb", "ntfs3", STICK, "External"),
        (b"/boot/efi", "vfat", FIXED, "System"),
        (b"/boot", "ext4", FIXED, "System"),
        (b"/bootleg", "ext4", FIXED, "Secondary"),
        (b"/srv/image", "ext4", IMAGE, "Virtual"),
        (b"/tank", "zfs", None, "Secondary"),
        (b"/net/nas", "nfs4", None, "Network"),
        (b"/media/nas", "cifs", None, "Network"),
        (b"/home/me/remote", "fuse.sshfs", None, "Network"),
        (b"/media/me/win", "fuseblk", STICK, "External"),
        (b"/dev/shm", "tmpfs", None, "Virtual"),
        (b"/snap/core/1", "squashfs", IMAGE, "Virtual"),
        (b"/odd", "what", None, "Unknown"),
    ],
)
def test_the_class_of_a_volume(point, fs_type, disk, expected):
    """By place, disk and kind, the first rule that holds."""
    assert class_of([point], mount(point, fs_type), disk) == expected


def test_a_bind_of_the_root_elsewhere_does_not_make_it_another():
    """All places of a file system are looked at."""
    assert class_of([b"/media/x", b"/"], mount(b"/media/x"), FIXED) == "Primary"
    assert class_of([b"/media/x", b"/srv"], mount(b"/media/x"), FIXED) == "Secondary"


def test_disk_types():
    """In one word."""
    kinds = [
        detect.disk_type_of(mount(b"/a", kind), disk)
        for kind, disk in (
            ("ext4", FIXED), ("ext4", STICK), ("ext4", IMAGE), ("nfs", None), ("tmpfs", None), ("what", None)
        )
    ]  # fmt: skip
    assert kinds == ["HDD", "SSD", "Virtual", "Network", "Virtual", "Unknown"]


# -- detection ---------------------------------------------------------------------------------------------------------

TABLE = rb"""
22 27 0:21 / /proc rw - proc proc rw
24 27 0:6 / /dev rw - devtmpfs devtmpfs rw
27 1 8:1 / / rw - ext4 /dev/sda1 rw
30 27 8:1 /srv /bound rw - ext4 /dev/sda1 rw
31 27 0:40 /one /b/one rw - btrfs /dev/sdc1 rw,subvol=/one
32 27 0:40 / /b rw - btrfs /dev/sdc1 rw,subvol=/
33 27 8:17 / /media/a\040stick rw - vfat /dev/sdb1 rw
34 27 8:33 / /media/a\040stick rw - vfat /dev/sdd1 rw
35 27 0:50 / /home/me/Spacedrive rw - fuse.sdmount sdmount:Library rw
36 27 0:51 / /home/me/nas rw - fuse.sshfs me@nas:/data rw
37 27 0:52 / /run/user/1000/doc rw - fuse.portal portal rw
"""


def test_what_is_a_volume_and_what_is_none(tmp_path):
    """Pseudo file systems, our own mounts and what is hidden by another mount are none; the places of one are one."""
    table = parse(TABLE)
    told = {one.mount_point: [m.mount_point for m in one.mounts] for one in detect.detect(table, tmp_path)}
    assert told == {
        b"/": [b"/", b"/bound"],
        b"/b": [b"/b", b"/b/one"],
        b"/media/a stick": [b"/media/a stick"],
        b"/home/me/nas": [b"/home/me/nas"],
    }
    (stick,) = [one for one in detect.detect(table, tmp_path) if one.mount_point == b"/media/a stick"]
    assert stick.source == "/dev/sdd1", "what was mounted last is what is seen there"


def test_what_a_person_takes_for_a_volume():
    """Neither parts of the system nor what is in memory."""
    shown = [
        found(point, disk, kind).is_shown
        for point, disk, kind in (
            (b"/", FIXED, "ext4"), (b"/", None, "overlay"), (b"/boot", FIXED, "ext4"), (b"/dev/shm", None, "tmpfs"),
            (b"/snap/x", IMAGE, "squashfs"), (b"/i", IMAGE, "ext4"), (b"/n", None, "nfs"),
        )
    ]  # fmt: skip
    assert shown == [True, True, False, False, False, True, True]


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """A stick with a partition, a mapped device on a card, an image, as sysfs tells of them."""
    base = tmp_path / "sys"
    files = {
        "devices/pci/usb1/sdb/removable": "0", "devices/pci/usb1/sdb/queue/rotational": "0",
        "devices/pci/usb1/sdb/diskseq": "4", "devices/pci/usb1/sdb/sdb1/partition": "1",
        "devices/pci/ata1/sda/removable": "0", "devices/pci/ata1/sda/queue/rotational": "1",
        "devices/mmc_host/mmc0/mmcblk0/device/type": "SD", "devices/mmc_host/mmc1/mmcblk1/device/type": "MMC",
        "devices/virtual/block/dm-0/queue/rotational": "1", "devices/virtual/block/loop3/loop/backing_file": "/i.img",
        "devices/virtual/block/loop3/queue/rotational": "1",
    }  # fmt: skip
    for name, text in files.items():
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(text + "\n")
    (base / "dev/block").mkdir(parents=True)
    numbers = {
        "8:17": "devices/pci/usb1/sdb/sdb1", "8:0": "devices/pci/ata1/sda", "179:0": "devices/mmc_host/mmc0/mmcblk0",
        "179:8": "devices/mmc_host/mmc1/mmcblk1", "253:0": "devices/virtual/block/dm-0",
        "7:3": "devices/virtual/block/loop3",
    }  # fmt: skip
    for number, place in numbers.items():
        (base / "dev/block" / number).symlink_to(base / place)
    (base / "class/block").mkdir(parents=True)
    for place in {*numbers.values(), "devices/pci/usb1/sdb"}:
        (base / "class/block" / Path(place).name).symlink_to(base / place)
    (base / "devices/virtual/block/dm-0/slaves").mkdir()
    (base / "devices/virtual/block/dm-0/slaves/mmcblk0").symlink_to(base / "devices/mmc_host/mmc0/mmcblk0")
    return base


def test_the_disk_below_a_file_system(sysfs):
    """A partition's disk, the card below an encrypted device, the file of an image; USB disks are removable."""
    below = {number: disk_of(number, "", sysfs) for number in ("8:17", "8:0", "179:0", "179:8", "253:0", "7:3")}
    assert below == {
        "8:17": Disk("sdb", rotational=False, removable=True, sequence=4, bases=("sdb",)),
        "8:0": Disk("sda", rotational=True, removable=False, bases=("sda",)),
        "179:0": Disk("mmcblk0", rotational=False, removable=True, bases=("mmcblk0",)),
        "179:8": Disk("mmcblk1", rotational=False, removable=False, bases=("mmcblk1",)),
        "253:0": Disk("dm-0", rotational=False, removable=True, bases=("mmcblk0",)),
        "7:3": Disk("loop3", rotational=True, removable=False, backing=b"/i.img", virtual=True, bases=("loop3",)),
    }
    assert disk_of("0:40", "none", sysfs) is None


def on(disk: Disk | None) -> Found:
    """A volume on a disk."""
    return found(b"/media/a", disk)


def test_an_encrypted_stick_is_lost_with_the_disk_below_it(sysfs):
    """The mapped device stays where it was, and with it a link to what is no more."""
    one = on(disk_of("253:0", "", sysfs))
    assert not one.is_lost(sysfs)
    shutil.rmtree(sysfs / "devices/mmc_host/mmc0")
    assert not on(disk_of("8:17", "", sysfs)).is_lost(sysfs)
    assert one.is_lost(sysfs)
    assert on(disk_of("253:0", "", sysfs)).is_lost(sysfs), "who looks only now sees it as well"


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        ("md/level", "raid1", False), ("md/level", "raid6", False), ("md/level", "raid0", True),
        ("dm/uuid", "mpath-3600", False), ("dm/uuid", "LVM-a", True), ("slaves/sda/dm/name", "vg-lv_rimage_0", False),
    ],
)  # fmt: skip
def test_what_bears_the_loss_of_a_disk_is_not_lost_with_it(sysfs, file, text, expected):
    """A mirror goes on without one of its disks; what is merely put together of two does not."""
    array = sysfs / "devices/virtual/block/dm-0"
    (array / "slaves/sda").symlink_to(sysfs / "devices/pci/ata1/sda")
    (array / file).parent.mkdir(exist_ok=True)
    (array / file).write_text(text + "\n")
    one = on(disk_of("253:0", "", sysfs))
    (sysfs / "class/block/mmcblk0").unlink()
    assert one.is_lost(sysfs) is expected


def test_a_disk_is_lost_only_for_certain(sysfs, monkeypatch):
    """Not when sysfs may not be looked at, nor where there is none."""
    one = on(disk_of("8:17", "", sysfs))
    real = os.stat

    def refuse(path, **named):
        if "class" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        assert not one.is_lost(sysfs)
    (sysfs / "class/block/sdb").unlink()
    assert one.is_lost(sysfs)
    shutil.rmtree(sysfs / "class")
    assert not one.is_lost(sysfs)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_of_a_disk_that_sysfs_does_not_tell_of_nothing_is_known(sysfs, monkeypatch, error):
    """It may be closed to us, or vanish while it is looked at; whoever asks which volumes there are is answered."""

    def refuse(*_, **__):
        raise error

    (sysfs / "devices/virtual/block/dm-0/diskseq").write_text("what\n")
    table = [mount(b"/media/a", device="253:0"), mount(b"/", device="8:0")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        patched.setattr(os, "listdir", refuse)
        disks = [one.disk for one in detect.detect(table, sysfs)]
    assert disks == [
        Disk("dm-0", rotational=True, removable=False, virtual=True, bases=("dm-0",)),
        Disk("sda", rotational=True, removable=False, bases=("sda",)),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        assert [one.disk for one in detect.detect(table, sysfs)] == [None, None]


# -- superblocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maker", "size_mib", "fs_type", "digits"),
    [
        (["mkfs.ext4", "-q", "-L", "holiday"], 8, "ext4", 32),
        (["mkfs.xfs", "-q", "-L", "holiday"], 300, "xfs", 32),
        (["mkfs.btrfs", "-q", "-L", "holiday"], 112, "btrfs", 32),
        (["mkfs.vfat", "-F", "32", "-n", "holiday"], 64, "vfat", 8),
        (["mkfs.vfat", "-F", "16", "-n", "holiday"], 16, "vfat", 8),
        (["mkfs.exfat", "-L", "holiday"], 16, "exfat", 8),
        (["mkfs.ntfs", "-F", "-Q", "-q", "-L", "holiday"], 16, "ntfs", 16),
    ],
)
def test_superblocks(tmp_path, maker, size_mib, fs_type, digits):
    """Each file system by its maker's own image: kind, UUID, label; another image has another UUID."""
    if shutil.which(maker[0]) is None:
        pytest.skip(f"{maker[0]} is not installed")
    blocks = []
    for name in ("one", "two"):
        image = tmp_path / name
        with open(image, "wb") as file:
            file.truncate(size_mib << 20)
        subprocess.run([*maker, str(image)], check=True, capture_output=True)
        blocks.append(superblock.read_device(str(image)))
    assert all(block is not None and block.fs_type == fs_type and len(block.uuid) == digits for block in blocks)
    assert {block.label.lower() for block in blocks} <= {"holiday", ""}
    if fs_type not in ("exfat", "ntfs"):
        assert blocks[0].label.lower() == "holiday"
    if digits == 32:
        assert blocks[0].uuid != blocks[1].uuid
    if (blkid := shutil.which("blkid")) is not None:
        said = subprocess.run([blkid, "-p", "-o", "value", "-s", "UUID", str(tmp_path / "one")],
                              check=True, capture_output=True, text=True).stdout.strip()  # fmt: skip
        assert said.replace("-", "").lower() == blocks[0].uuid


@given(st.binary(max_size=2000))
def test_any_bytes_are_no_superblock_and_no_trouble(data):
    """What is cut short or made up is None, or something with a UUID in hex."""
    block = superblock.parse(lambda offset, size: data[offset : offset + size])
    assert block is None or bytes.fromhex(block.uuid) is not None


def test_what_cannot_be_read_has_no_superblock(tmp_path):
    assert superblock.read_device(str(tmp_path / "absent")) is None
    assert superblock.read_device(str(tmp_path)) is None


# -- fingerprints ------------------------------------------------------------------------------------------------------


def print_of(one: Found, uuid: str = "", mark: Marker | None = None, device: bytes = DEVICE, boot: str = "b"):
    return identity.fingerprint(one, uuid, mark, device, boot)


def test_a_file_system_with_a_uuid_is_itself_everywhere():
    """Whatever machine, place, disk and source; tracked or not."""
    first = print_of(found(b"/media/a", STICK), UUID)
    assert len(first.digest) == 64
    assert not first.is_ephemeral
    for other in (
        print_of(found(b"/srv/b", FIXED, "ext3", "/dev/sdz9"), UUID),
        print_of(found(b"/media/a", STICK), UUID, device=b"e" * 16, boot="c"),
        print_of(found(b"/media/a", STICK), UUID, Marker(identity.first_marker_id(UUID), UUID)),
    ):
        assert other == first
    assert print_of(found(b"/media/a", STICK), UUID[::-1]) != first
    assert print_of(found(b"/media/a", STICK), UUID, Marker("ab" * 16, UUID)) != first, "a copy that was told apart"


def test_what_has_no_uuid_is_known_by_what_is_stable():
    """A marker anywhere; a server by what was mounted; a fixed disk by its place on this device; else by nothing."""
    mark = Marker("ab" * 16, "")
    assert print_of(found(b"/media/a", STICK), mark=mark) == print_of(found(b"/b", None, "nfs", "x:/y"), mark=mark)
    nas = [print_of(found(p, None, "nfs4", "nas:/data"), device=d) for p, d in ((b"/a", b"1" * 16), (b"/b", b"2" * 16))]
    assert nas[0] == nas[1]
    assert not nas[0].is_ephemeral
    assert print_of(found(b"/a", None, "nfs4", "nas:/other")) != nas[0]
    fixed = print_of(found(b"/", FIXED))
    assert not fixed.is_ephemeral
    assert print_of(found(b"/", FIXED), device=b"e" * 16) != fixed
    for one in (
        found(b"/media/a", STICK), found(b"/tmp/x", None, "tmpfs", "tmpfs"), found(b"/x", None, "fuse.thing", "thing")
    ):  # fmt: skip
        assert print_of(one).is_ephemeral
        assert print_of(one, boot="another") != print_of(one)


def test_a_device_that_is_used_again_is_another_mounted_thing():
    """A loop device, or a reader with another card: by the number of its attaching."""
    one = found(b"/media/a", STICK)
    assert attrs.evolve(one, disk=STICK._replace(sequence=8)).key != one.key
    assert attrs.evolve(one, volume_class="Secondary").key == one.key


def test_who_is_marked():
    """What can be carried away, and what has nothing better; never a part of this machine."""
    assert identity.takes_marker(found(b"/media/a", STICK), UUID)
    assert identity.takes_marker(found(b"/i", IMAGE), UUID)
    assert identity.takes_marker(found(b"/n", None, "nfs", "nas:/x"), "")
    assert not identity.takes_marker(found(b"/", FIXED), "")
    assert not identity.takes_marker(found(b"/srv", FIXED), UUID)
    assert not identity.takes_marker(found(b"/dev/shm", None, "tmpfs"), "")


# -- markers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_marker_is_read_as_it_was_written(root, tmp_path):
    """And replaced as a whole; nothing else is left."""
    for ident in ("ab" * 16, "cd" * 16):
        marker.write(root, Marker(ident, UUID))
        assert marker.read(root, UUID) == Marker(ident, UUID)
    assert os.listdir(tmp_path) == [".vdfs-volume"]
    assert (tmp_path / ".vdfs-volume").stat().st_size < 200


def test_a_marker_of_another_file_system_says_nothing(root):
    """It was copied along with the files."""
    marker.write(root, Marker("ab" * 16, UUID))
    assert marker.read(root, UUID[::-1]) is None
    assert marker.read(root, "") is None


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b'{"vdfs-volume": 2, "id": "00", "filesystem": ""}',
     b'{"vdfs-volume": 1, "id": 5, "filesystem": ""}', b'{"vdfs-volume": 1, "id": "xx", "filesystem": ""}'],
)  # fmt: skip
def test_what_is_no_marker(root, tmp_path, text):
    """Anything may be called so."""
    (tmp_path / ".vdfs-volume").write_bytes(text)
    assert marker.read_any(root) is None


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_what_is_no_file_is_no_marker(root, tmp_path, kind):
    """Nor is it waited for, or followed."""
    path = tmp_path / ".vdfs-volume"
    if kind == "link":
        path.symlink_to("elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert marker.read_any(root) is None


# -- identities of roots -----------------------------------------------------------------------------------------------


def test_a_root_is_known_by_either_name(tmp_path):
    """The UUID that a newer kernel tells, or the device number that stood in for it."""
    path = os.fsencode(tmp_path)
    fs_id, number = fs_identity(path)
    st = os.stat(path)
    fd = os.open(path, os.O_RDONLY)
    try:
        assert is_root(fd, fs_id, number)
        assert is_root(fd, f"dev:{os.major(st.st_dev)}:{os.minor(st.st_dev)}", number)
        assert not is_root(fd, fs_id, number + 1)
        assert not is_root(fd, "uuid:" + UUID, number)
        assert (fs_id == f"uuid:{fs_uuid_fd(fd)}") or not fs_uuid_fd(fd) or "." in fs_id
    finally:
        os.close(fd)


# -- holders -----------------------------------------------------------------------------------------------------------


def test_who_holds_something_is_named(tmp_path):
    """Open files, working directories, mappings; who holds nothing is not."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_bytes(b"x" * 5000)
    place = os.fsencode(tmp_path / "in")
    assert holders.holders([place]) == []
    standing = subprocess.Popen(["sleep", "60"], cwd=tmp_path / "in")
    script = "import mmap, os; f = os.open('f', 0); m = mmap.mmap(f, 0, prot=1); os.close(f); os.chdir('/'); input()"
    mapping = subprocess.Popen([sys.executable, "-c", f"import os; print(flush=True); {script}"],
                               cwd=tmp_path / "in", stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert mapping.stdout is not None
        mapping.stdout.readline()
        pids = {one.pid: one.program for one in holders.holders([place])}
        assert standing.pid in pids
        assert pids[standing.pid] == "sleep"
        assert mapping.pid in pids
    finally:
        for one in (standing, mapping):
            one.kill()
            one.communicate()
    assert holders.holders([place]) == []


def test_what_is_mounted_on_a_volume():
    """Not its own other places."""
    table = parse(TABLE)
    assert holders.mounted_below([b"/b"], table, "0:40") == []
    assert b"/home/me/nas" in holders.mounted_below([b"/"], table, "8:1")


# -- unmounting --------------------------------------------------------------------------------------------------------


class Refusing:
    """What the kernel says to who is not root."""

    def umount2(self, place: bytes, flags: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    def syncfs(self, fd: int) -> int:
        return 0


@pytest.fixture
def umount(tmp_path: Path, monkeypatch) -> Callable[[str], None]:
    """Unmounting by a program that says something; the user has German messages, and may nothing himself."""

    def by(said: str, fs_type: str = "ext4") -> None:
        program = tmp_path / ("fusermount3" if fs_type.startswith("fuse") else "umount")
        german = "{ echo Ziel wird gerade benutzt >&2; exit 32; }"
        program.write_text(f'#!/bin/sh\n[ "$LC_ALL${{LANGUAGE-}}" = C ] || {german}\n{said}')
        program.chmod(0o755)
        unmounting.unmount(mount(os.fsencode(tmp_path / "place"), fs_type))

    monkeypatch.setattr(unmounting, "_libc", Refusing())
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    for name in ("LC_ALL", "LANGUAGE", "LANG"):
        monkeypatch.setenv(name, "de_DE.UTF-8")
    return by


@pytest.mark.parametrize(
    ("said", "fs_type", "expected"),
    [
        ("umount: /x: target is busy.", "ext4", errno.EBUSY),
        ("umount: can't unmount /x: Device or resource busy", "ext4", errno.EBUSY),
        ("fusermount3: failed to unmount /x: Device or resource busy", "fuse.sshfs", errno.EBUSY),
        ("umount: /x: umount failed: Operation not permitted.", "ext4", errno.EPERM),
        ("umount: /x: must be superuser to unmount.", "ext4", errno.EPERM),
        ("umount: only root can do that", "ext4", errno.EPERM),
        ("fusermount3: entry for /x not found in /etc/mtab", "fuse.sshfs", errno.EPERM),
        ("umount: /x: the stars are wrong.", "ext4", errno.EIO),
    ],
)
def test_what_a_program_says_that_does_not_unmount(umount, said, fs_type, expected):
    """In English, whatever its user speaks; what is not known is told as it was said, and is no lack of rights."""
    with pytest.raises(OSError) as raised:
        umount(f'echo "{said}" >&2; exit 32', fs_type)
    assert raised.value.errno == expected
    assert expected != errno.EIO or raised.value.strerror == said


def test_a_program_that_unmounts(umount):
    """Says nothing."""
    umount("exit 0")


# -- speed -------------------------------------------------------------------------------------------------------------


class Unstopped:
    def stopped(self) -> bool:
        return False


class Stopped(Unstopped):
    """Says stop after a while."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stopped(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_speed_test_writes_and_reads_what_it_says(tmp_path):
    """And leaves an empty directory."""
    result = speedtest.speedtest({"directory": os.fsencode(tmp_path), "size_bytes": 4 << 20}, Unstopped())
    assert result["size_bytes"] == 4 << 20
    assert min(result["read_bps"], result["write_bps"]) > 0
    assert os.listdir(tmp_path) == []


def test_a_speed_test_ends_with_its_time_or_when_it_is_stopped(tmp_path):
    """The figures are of what was done by then."""
    args = {"directory": os.fsencode(tmp_path), "size_bytes": 8 << 20}
    assert speedtest.speedtest({**args, "limit_s": 0}, Unstopped())["size_bytes"] == 1 << 20
    assert speedtest.speedtest(args, Stopped(3))["size_bytes"] == 3 << 20
    assert os.listdir(tmp_path) == []


def test_a_speed_test_where_files_always_have_names(tmp_path, monkeypatch):
    """The name is gone as soon as the file is open."""
    real = os.open

    def refuse(path, flags, *more, **named):
        if flags & os.O_TMPFILE == os.O_TMPFILE or flags & os.O_DIRECT:
            raise OSError(95 if flags & os.O_TMPFILE == os.O_TMPFILE else 22, "not here")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    result = speedtest.speedtest({"directory": os.fsencode(tmp_path), "size_bytes": 2 << 20}, Unstopped())
    assert (result["size_bytes"], result["direct"]) == (2 << 20, False)
    assert os.listdir(tmp_path) == []
