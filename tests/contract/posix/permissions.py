"""Who may do what: the classes of a mode, supplementary groups, sticky and suid bits, access(2), root."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from .kit import (
    GROUP,
    OTHER,
    SECOND_GROUP,
    THIRD,
    Env,
    cases,
    equal,
    fails,
    mode_of,
    names_in,
    opened,
    read,
    stamps,
    together,
    write,
    write_all,
)

# Who asks, with which ids; the file belongs to OTHER and to GROUP.
ASKERS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "owner": (OTHER, OTHER, ()),
    "group": (THIRD, GROUP, ()),
    "supplementary": (THIRD, THIRD, (SECOND_GROUP, GROUP)),
    "stranger": (THIRD, THIRD, (SECOND_GROUP,)),
    "owner_in_group": (OTHER, GROUP, (GROUP,)),
}
CLASS_SHIFT = {"owner": 6, "group": 3, "supplementary": 3, "stranger": 0, "owner_in_group": 6}


def _belongs_to_other(path: str, mode: int) -> None:
    os.chown(path, OTHER, GROUP)
    os.chmod(path, mode)


@cases(
    asker=tuple(ASKERS),
    bits=(0o000, 0o400, 0o200, 0o600, 0o040, 0o020, 0o060, 0o004, 0o002, 0o006, 0o066, 0o606, 0o660),
)
def check_opening_a_file_follows_the_class_of_the_asker(root: Path, env: Env, asker: str, bits: int) -> None:
    """The first class that fits decides, also when a later one would allow more."""
    env.need("other_uids")
    write("f", b"data")
    _belongs_to_other("f", bits)
    allowed = bits >> CLASS_SHIFT[asker] & 0o7
    uid, gid, groups = ASKERS[asker]

    def attempt() -> tuple[bool, bool, bool]:
        return _opens("f", os.O_RDONLY), _opens("f", os.O_WRONLY), _opens("f", os.O_RDWR)

    expected = (bool(allowed & 4), bool(allowed & 2), allowed & 6 == 6)
    equal(env.as_user(attempt, uid=uid, gid=gid, groups=groups), expected, "opened for reading, writing, both")


def _opens(path: str, flags: int) -> bool:
    try:
        os.close(os.open(path, flags))
    except PermissionError as error:
        equal(error.errno, errno.EACCES)
        return False
    return True


@cases(
    asker=tuple(ASKERS),
    bits=(0o000, 0o700, 0o500, 0o300, 0o070, 0o050, 0o030, 0o007, 0o005, 0o003, 0o001, 0o010, 0o100),
)
def check_using_a_directory_follows_the_class_of_the_asker(root: Path, env: Env, asker: str, bits: int) -> None:
    env.need("other_uids")
    os.mkdir("d")
    write("d/f", b"data")
    os.chmod("d/f", 0o666)
    _belongs_to_other("d", bits)
    allowed = bits >> CLASS_SHIFT[asker] & 0o7
    uid, gid, groups = ASKERS[asker]

    def attempt() -> tuple[bool, bool, bool]:
        return _may(lambda: os.listdir("d")), _may(lambda: write("d/new", b"")), _may(lambda: read("d/f"))

    expected = (bool(allowed & 4), allowed & 3 == 3, bool(allowed & 1))
    equal(env.as_user(attempt, uid=uid, gid=gid, groups=groups), expected, "listed, created in, entered")


def _may(action: Callable[[], object]) -> bool:
    try:
        action()
    except PermissionError as error:
        equal(error.errno, errno.EACCES)
        return False
    return True


@cases(asker=("owner", "group", "supplementary", "stranger"), bits=(0o000, 0o754, 0o421, 0o124, 0o070, 0o007))
def check_access_tells_what_open_would_do(root: Path, env: Env, asker: str, bits: int) -> None:
    env.need("other_uids")
    write("f", b"")
    _belongs_to_other("f", bits)
    allowed = bits >> CLASS_SHIFT[asker] & 0o7
    uid, gid, groups = ASKERS[asker]

    def attempt() -> tuple[bool, ...]:
        return tuple(os.access("f", mode) for mode in (os.F_OK, os.R_OK, os.W_OK, os.X_OK))

    expected = (True, bool(allowed & 4), bool(allowed & 2), bool(allowed & 1))
    equal(env.as_user(attempt, uid=uid, gid=gid, groups=groups), expected, "F R W X")


def check_root_reads_and_writes_anything_but_runs_only_programs(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"data")
    _belongs_to_other("f", 0)
    equal((read("f"), os.access("f", os.R_OK | os.W_OK), os.access("f", os.X_OK)), (b"data", True, False))
    os.chmod("f", 0o001)
    equal(os.access("f", os.X_OK), True)


def check_a_supplementary_group_opens_a_shared_directory(root: Path, env: Env) -> None:
    """A server that acts with the primary ids only refuses this."""
    env.need("other_uids")
    os.mkdir("team")
    os.chown("team", OTHER, GROUP)
    os.chmod("team", 0o2770)

    def work() -> bytes:
        write("team/f", b"by a member")
        os.rename("team/f", "team/g")
        os.link("team/g", "team/h")
        os.unlink("team/g")
        return read("team/h")

    equal(env.as_user(work, uid=THIRD, groups=[GROUP]), b"by a member")
    with fails(errno.EACCES):
        env.as_user(lambda: read("team/h"), uid=THIRD, groups=[SECOND_GROUP])


@cases(bits=((0o4777, 0o777), (0o6777, 0o777), (0o2777, 0o777), (0o4766, 0o766)))
def check_a_write_by_another_user_clears_suid_and_sgid(root: Path, env: Env, bits: tuple[int, int]) -> None:
    env.need("other_uids")
    write("f", b"data")
    os.chmod("f", bits[0])

    def change() -> None:
        with opened("f", os.O_WRONLY) as fd:
            os.pwrite(fd, b"D", 0)

    env.as_user(change, uid=OTHER)
    equal((mode_of("f"), read("f")), (bits[1], b"Data"))


def check_a_write_by_its_unprivileged_owner_clears_suid(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"data")
    os.chown("f", OTHER, OTHER)
    os.chmod("f", 0o4755)

    def change() -> None:
        with opened("f", os.O_WRONLY | os.O_APPEND) as fd:
            write_all(fd, b"!")

    env.as_user(change, uid=OTHER)
    equal((mode_of("f"), read("f")), (0o755, b"data!"))


def check_reading_keeps_suid(root: Path, env: Env) -> None:
    write("f", b"data")
    os.chmod("f", 0o4755)
    env.as_user(lambda: read("f"))
    equal(mode_of("f"), 0o4755)


def check_mtime_moves_with_a_write_that_clears_suid(root: Path, env: Env) -> None:
    env.need("other_uids")
    write("f", b"data")
    os.chmod("f", 0o4777)

    def change() -> None:
        with opened("f", os.O_WRONLY) as fd:
            os.pwrite(fd, b"D", 0)

    with stamps("f", moved="mtime ctime"):
        env.as_user(change)


def check_in_a_sticky_directory_everyone_creates_and_the_owner_removes(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.mkdir("tmp")
    os.chmod("tmp", 0o1777)
    env.as_user(lambda: write("tmp/mine", b"1"), uid=OTHER)
    env.as_user(lambda: write("tmp/theirs", b"2"), uid=THIRD)
    with fails(errno.EPERM, errno.EACCES):
        env.as_user(lambda: os.unlink("tmp/theirs"), uid=OTHER)
    env.as_user(lambda: os.rename("tmp/mine", "tmp/renamed"), uid=OTHER)
    env.as_user(lambda: os.unlink("tmp/renamed"), uid=OTHER)
    equal(names_in("tmp"), {b"theirs"})


def check_protected_hard_links_follow_the_machine(root: Path, env: Env) -> None:
    env.need("other_uids")
    setting = Path("/proc/sys/fs/protected_hardlinks")
    os.mkdir("free")
    os.chmod("free", 0o777)
    write("f", b"")
    if setting.exists() and setting.read_text().strip() == "1":
        with fails(errno.EPERM):
            env.as_user(lambda: os.link("f", "free/f"))
    os.chmod("f", 0o666)
    env.as_user(lambda: os.link("f", "free/f"))
    equal(os.lstat("f").st_nlink, 2)


def check_a_change_of_the_directory_mode_binds_at_once(root: Path, env: Env) -> None:
    env.need("other_uids")
    os.makedirs("d/e")
    write("d/e/f", b"data")
    for _ in range(5):
        equal(env.as_user(lambda: read("d/e/f")), b"data")
        os.chmod("d", 0o700)
        with fails(errno.EACCES):
            env.as_user(lambda: read("d/e/f"))
        os.chmod("d", 0o755)


def check_two_users_at_once_each_keep_their_own_ids(root: Path, env: Env) -> None:
    """Credentials that leak from one request to the next show as foreign owners."""
    env.need("other_uids")
    os.mkdir("open")
    os.chmod("open", 0o777)

    def work(number: int) -> None:
        uid = (OTHER, THIRD, OTHER, THIRD)[number]
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        for turn in range(60):
            write(f"open/{number}-{turn}", b"")
            os.mkdir(f"open/{number}-{turn}.d")

    together(4, work)
    for entry in os.scandir("open"):
        owner = (OTHER, THIRD, OTHER, THIRD)[int(entry.name[0])]
        status = entry.stat()
        equal((status.st_uid, status.st_gid), (owner, owner), f"ids of {entry.name}")
