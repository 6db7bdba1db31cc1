"""A mount that root shares with others: nobody gets at more through it than he would on the disk.

The kernel decides who may open what (`default_permissions`), by what the mount tells it of a file. So what the file is
must be what the kernel was told, also when somebody exchanges it in that very moment.
"""

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.harness import Mounted, errno_of, eventually

EACCES = 13
OTHER, THIRD, GROUP = 12345, 54321, 777

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can share a mount and be somebody else")


@pytest.fixture
def pub(library: Mounted) -> Path:
    """A directory of a shared mount that everybody may write to; its real one is `real(pub)`."""
    source = library.folder("Files")
    for directory in (library.base, *library.base.parents, library.disk, source):
        if directory.stat().st_mode & 0o005 != 0o005 and directory.is_relative_to(library.base):
            directory.chmod(0o755)
    (source / "pub").mkdir()
    (source / "pub").chmod(0o777)
    library.mount(source, options=("-o", "allow_other"))
    assert (library.mnt / "Files" / "pub").is_dir()
    return library.mnt / "Files" / "pub"


def real(library: Mounted) -> Path:
    return library.disk / "Files" / "pub"


BECOMES = """
import os, sys
uid, gid = int(sys.argv.pop(1)), int(sys.argv.pop(1))
os.setgroups([]); os.setgid(gid); os.setuid(uid)
"""


def somebody(code: str, *arguments: str | Path, uid: int = OTHER, gid: int | None = None) -> subprocess.Popen[str]:
    """A Python program that becomes another user."""
    return subprocess.Popen(
        [sys.executable, "-c", BECOMES + code, str(uid), str(uid if gid is None else gid), *map(str, arguments)],
        cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def answer(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=30)
    return out.strip() or err.strip()


CREATES = """
import os, sys
mnt, disk = sys.argv[1:]
try: os.stat(mnt)  # the kernel knows that there is nothing
except FileNotFoundError: print("ready", flush=True)
while not os.path.lexists(disk): pass
try:
    fd = os.open(mnt, os.O_RDWR | os.O_CREAT, 0o600)
    print(os.read(fd, 99), os.pwrite(fd, b"taken", 0))
except OSError as error: print(error.errno)
"""


def test_a_file_that_came_first_is_not_opened_as_a_new_one(library, pub):
    """O_CREAT on a name that the kernel believes absent: whose file is there by then decides who opens it."""
    for number in range(5):
        process = somebody(CREATES, pub / f"s{number}", real(library) / f"s{number}")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", answer(process)
        time.sleep(0.5)  # he looks, and waits
        (real(library) / "new").write_bytes(b"secret")
        (real(library) / "new").chmod(0o600)
        os.rename(real(library) / "new", real(library) / f"s{number}")
        assert answer(process) == str(EACCES)
        assert (real(library) / f"s{number}").read_bytes() == b"secret"


CUTS = """
import os, sys
mnt, disk = sys.argv[1:]
os.stat(mnt)
ino = os.stat(disk).st_ino
print("ready", flush=True)
while os.stat(disk).st_ino == ino: pass
try: os.close(os.open(mnt, os.O_WRONLY | os.O_TRUNC))
except OSError as error: print(error.errno)
"""


def test_a_file_that_came_in_its_place_is_not_cut(library, pub):
    """O_TRUNC on a name whose file was exchanged a moment ago."""
    for number in range(5):
        own = real(library) / f"o{number}"
        own.write_bytes(b"mine")
        os.chown(own, OTHER, OTHER)
        eventually((pub / own.name).exists, "it is there")
        process = somebody(CUTS, pub / own.name, own)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", answer(process)
        (real(library) / "new").write_bytes(b"of root")
        (real(library) / "new").chmod(0o600)
        os.rename(real(library) / "new", own)
        assert answer(process) == str(EACCES)
        assert own.read_bytes() == b"of root"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_whoever_cuts_a_file_takes_its_rights_away(library, pub, flags):
    """setuid and setgid do not survive O_TRUNC by somebody who is not root."""
    (pub / "f").write_bytes(b"x")
    os.chown(pub / "f", OTHER, OTHER)
    os.chmod(pub / "f", 0o6777)
    code = f"import os, sys; os.close(os.open(sys.argv[1], {flags} | os.O_TRUNC))"
    assert not answer(somebody(code, pub / "f", uid=THIRD))
    assert stat.S_IMODE(os.stat(real(library) / "f").st_mode) == 0o777
    eventually(lambda: stat.S_IMODE(os.stat(pub / "f").st_mode) == 0o777, "the mount says so", 1)
    assert (pub / "f").read_bytes() == b""


READS = """
import sys
try: print(open(sys.argv[1]).read())
except OSError as error: print(error.errno)
"""


@pytest.mark.skipif(shutil.which("setfacl") is None, reason="setfacl is not installed")
def test_whom_a_list_keeps_out_stays_out(library, pub):
    """An access control list of the real file holds in the mount; its mask is not the group's right."""
    for name, rule, mode in (("user", f"u:{OTHER}:---", 0o644), ("mask", "u:4444:rw", 0o640)):
        path = real(library) / name
        path.write_text("secret")
        os.chown(path, 0, GROUP)
        path.chmod(mode)
        done = subprocess.run(["setfacl", "-m", rule, path], check=False, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this file system keeps no lists: {done.stderr.strip()}")
    for name, gid in (("user", OTHER), ("mask", GROUP)):
        expected = answer(somebody(READS, real(library) / name, gid=gid))
        assert answer(somebody(READS, pub / name, gid=gid)) == expected, name
    assert answer(somebody(READS, pub / "user", uid=THIRD)) == "secret"
    assert answer(somebody(READS, pub / "mask", uid=4444)) == "secret"
    subprocess.run(["setfacl", "-b", real(library) / "user"], check=True)
    time.sleep(0.1)
    eventually(lambda: answer(somebody(READS, pub / "user")) == "secret", "the list is gone", 2)
    assert errno_of(os.getxattr, pub / "user", "system.posix_acl_access") == 61


def test_views_are_the_mounters_own(library, pub):
    """They tell names and bytes of files in directories that others may not enter."""
    secret = library.mnt / "Files" / "secret"
    secret.mkdir(mode=0o700)
    for name in ("pw", "pw.bak"):
        (secret / name).write_bytes(b"a secret of some length")
        (secret / name).chmod(0o600)
    library.wait_idle()
    (full,) = os.listdir(library.mnt / ".vdfs" / "duplicates")
    content = library.mnt / ".vdfs" / "content" / full
    assert content.read_bytes() == b"a secret of some length"
    reads = "\ntry: print(open(sys.argv[1], 'rb').read())\nexcept OSError as error: print(error.errno)"
    lists = "\ntry: print(os.listdir(sys.argv[1]))\nexcept OSError as error: print(error.errno)"
    assert answer(somebody(reads, content)) == str(EACCES)
    for view in ("search/pw", "recent", "duplicates", "tags", ""):
        assert answer(somebody(lists, library.mnt / ".vdfs" / view)) == str(EACCES), view
    assert answer(somebody(lists, library.mnt / "Search" / "pw")) == str(EACCES)


def test_a_merged_directory_lets_in_whom_all_its_parts_let_in(library, pub):
    """The real directory behind a private part is not read through the public one; whoever may enter both, may."""
    second = library.folder("second", "Files")
    for name, mode in (("mixed", 0o700), ("open", 0o755)):
        for top, bits in ((second, mode), (library.disk / "Files", 0o755)):
            (top / name).mkdir()
            (top / name).chmod(bits)
        (second / name / "secret").write_bytes(b"secret")
        (second / name / "secret").chmod(0o644)
    library.add(second, "Files")
    mnt = library.mnt / "Files"
    eventually(lambda: (mnt / "mixed" / "secret").exists(), "both parts show")
    reads = "\ntry: print(open(sys.argv[1], 'rb').read())\nexcept OSError as error: print(error.errno)"
    assert answer(somebody(reads, mnt / "mixed" / "secret")) == str(EACCES)
    assert answer(somebody(reads, mnt / "open" / "secret")) == "b'secret'"
    (mnt / "mixed" / "new").write_bytes(b"by the owner")
