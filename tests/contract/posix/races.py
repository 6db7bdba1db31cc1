"""Several processes on the same names: no one sees a moment between, and nothing remains of the race."""

import errno
import os
import random
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from .kit import Env, cases, equal, names_in, opened, pattern, read, spawn, together, write, write_all
from .syscalls import RENAME_EXCHANGE, renameat2

SAVES = 1000
#: A slow file system makes fewer of them.
SAVING_S = 4.0


def _saves() -> Iterator[int]:
    """Turns 0, 1, …: as many as a race needs, and no longer than it may last; at least one."""
    end = time.monotonic() + SAVING_S
    for turn in range(SAVES):
        yield turn
        if time.monotonic() > end:
            return


def _version(number: int) -> bytes:
    """A file that proves itself: its own length and one repeated word."""
    word = b"%06d " % number
    return word * (number % 700 + 1)


def _assert_whole(data: bytes) -> None:
    assert data, "an empty file was seen"
    number = int(data[:6])
    assert data == _version(number), f"a torn file was seen ({len(data)} bytes of version {number})"


@cases(how=("open", "stat", "listdir"))
def check_a_save_by_rename_is_never_seen_half_done(root: Path, env: Env, how: str) -> None:
    """An editor's save is a temporary file renamed over; readers see the old or the new, never nothing."""
    write("document", _version(0))

    def race(number: int) -> int:
        turn = 0
        if number == 0:
            for turn in _saves():
                write("document.tmp", _version(turn))
                os.rename("document.tmp", "document")
            write("done", b"")
            return turn
        while not os.path.lexists("done"):
            if how == "open":
                _assert_whole(read("document"))
            elif how == "stat":
                os.stat("document")
            else:
                assert b"document" in names_in("."), "the name vanished from the listing"
        return turn

    last, *_ = together(3, race)
    equal(read("document"), _version(last))


def check_an_exchange_is_never_seen_half_done(root: Path, env: Env) -> None:
    write("a", _version(1))
    write("b", _version(2))

    def race(number: int) -> None:
        if number == 0:
            for _ in _saves():
                renameat2("a", "b", RENAME_EXCHANGE)
            write("done", b"")
            return
        while not os.path.lexists("done"):
            for name in ("a", "b"):
                _assert_whole(read(name))

    together(3, race)


def check_a_directory_swapped_by_renames_leads_to_a_whole_tree(root: Path, env: Env) -> None:
    """The current -> releases/N scheme with symlinks."""
    for number in range(2):
        os.makedirs(f"release-{number}")
        write(f"release-{number}/f", _version(number))
    os.symlink("release-0", "current")

    def race(number: int) -> None:
        if number == 0:
            for turn in range(300):
                os.symlink(f"release-{turn % 2}", "next")
                os.rename("next", "current")
            write("done", b"")
            return
        while not os.path.lexists("done"):
            _assert_whole(read("current/f"))

    together(3, race)


def check_of_many_that_rename_one_file_one_wins(root: Path, env: Env) -> None:
    def attempt(number: int) -> int:
        won = 0
        for turn in range(50):
            try:
                os.rename(f"f{turn}", f"taken-{turn}-{number}")
                won += 1
            except FileNotFoundError:
                pass
        return won

    for turn in range(50):
        write(f"f{turn}", b"%d" % turn)
    equal(sum(together(4, attempt)), 50, "renames that succeeded")
    equal(sorted(int(name.split(b"-")[1]) for name in names_in(".")), list(range(50)))


def check_files_moved_between_directories_are_in_exactly_one(root: Path, env: Env) -> None:
    os.mkdir("x")
    os.mkdir("y")
    for number in range(20):
        write(f"x/{number}", b"%d" % number)

    def work(worker: int) -> None:
        chance = random.Random(worker)
        for _ in range(200):
            number = chance.randrange(20)
            source, target = chance.choice((("x", "y"), ("y", "x")))
            try:
                os.rename(f"{source}/{number}", f"{target}/{number}")
            except FileNotFoundError:
                pass

    together(4, work)
    left, right = names_in("x"), names_in("y")
    equal((left & right, left | right), (set(), {b"%d" % number for number in range(20)}))
    for directory, names in ((b"x", left), (b"y", right)):
        for name in names:
            equal(read(directory + b"/" + name), name)


def check_writers_of_their_own_files_do_not_disturb_each_other(root: Path, env: Env) -> None:
    def work(worker: int) -> None:
        for turn in range(25):
            data = pattern(10_000 * (turn % 5) + turn, worker * 100 + turn + 1)
            with opened(f"{worker}-{turn % 4}", os.O_CREAT | os.O_RDWR | os.O_TRUNC) as fd:
                write_all(fd, data)
                equal(os.pread(fd, len(data) + 1, 0), data)
            equal(read(f"{worker}-{turn % 4}"), data)

    together(4, work)


@cases(seed=(1, 2, 3))
def check_a_random_storm_leaves_a_tree_that_agrees_with_itself(root: Path, env: Env, seed: int) -> None:
    """Any call may fail with an errno of its own; none may hang, none may leave two views of one tree."""
    os.mkdir("tree")

    def storm(worker: int) -> None:
        chance = random.Random(seed * 10 + worker)
        for _ in range(250):
            _random_call(chance)

    together(4, storm, deadline_s=25)
    _agrees_with_itself("tree")
    spawn(lambda: _agrees_with_itself("tree")).result()


def _random_call(chance: random.Random) -> None:
    def place() -> str:
        return "tree/" + "/".join(chance.choice("abcd") for _ in range(chance.choice((1, 1, 2, 2, 3))))

    path, other = place(), place()
    try:
        match chance.randrange(14):
            case 0 | 1:
                os.mkdir(path)
            case 2 | 3:
                write(path, pattern(chance.randrange(9000)))
            case 4:
                os.rename(path, other)
            case 5:
                renameat2(path, other, RENAME_EXCHANGE)
            case 6:
                os.link(path, other)
            case 7:
                os.symlink(other, path)
            case 8:
                os.unlink(path)
            case 9:
                os.rmdir(path)
            case 10:
                os.truncate(path, chance.randrange(9000))
            case 11:
                os.chmod(path, 0o755)
            case 12:
                os.listdir(path)
            case _:
                with opened(path, os.O_RDWR | os.O_NOFOLLOW) as fd:
                    os.unlink(path)
                    os.pwrite(fd, b"late", 100)
                    os.pread(fd, 4, 100)  # any answer: others may truncate what they still hold
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSYS, errno.ENOTCONN, errno.ESTALE, errno.EREMOTEIO):
            raise AssertionError(f"{errno.errorcode[error.errno]} from a healthy tree") from error


def _agrees_with_itself(directory: str) -> None:
    """Every listed name can be looked at and is of the listed kind; link counts equal the names there are."""
    counts: dict[int, list[os.stat_result]] = {}
    for path, directories, files in os.walk(directory):
        for entry in os.scandir(path):
            status = os.lstat(entry.path)
            equal(entry.is_dir(follow_symlinks=False), stat.S_ISDIR(status.st_mode), f"kind of {entry.path}")
            equal(entry.inode(), status.st_ino, f"inode of {entry.path}")
            if stat.S_ISREG(status.st_mode):
                counts.setdefault(status.st_ino, []).append(status)
                equal(len(read(entry.path)), status.st_size, f"bytes of {entry.path}")
        equal(len(directories) + len(files), len(os.listdir(path)))
    for inode, found in counts.items():
        equal({status.st_nlink for status in found}, {len(found)}, f"link counts of inode {inode}")
