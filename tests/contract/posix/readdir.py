"""getdents64(2), lseek(2) on directories: every name once, whatever happens meanwhile."""

import errno
import os
import random
from pathlib import Path

from .kit import (
    ALL_KINDS,
    Env,
    Skipped,
    absent,
    cases,
    equal,
    fails,
    make,
    names_in,
    opened,
    spawn,
    together,
    write,
)
from .syscalls import getdents, listing, lseek64, type_of_dirent

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
SMALL = 4096


def _fill(count: int, prefix: str = "file-with-a-longer-name-", place: str = "d") -> set[bytes]:
    os.makedirs(place, exist_ok=True)
    names = [f"{prefix}{number:05d}" for number in range(count)]
    for name in names:
        os.close(os.open(f"{place}/{name}", os.O_CREAT | os.O_WRONLY))
    return set(map(os.fsencode, names))


def _each_once(seen: list[bytes], expected: set[bytes]) -> None:
    equal(len(seen), len(set(seen)), "names that came more than once")
    missing, foreign = expected - set(seen), set(seen) - expected
    assert not missing, f"{len(missing)} of {len(expected)} names missing, such as {min(missing)!r}"
    assert not foreign, f"{len(foreign)} foreign names, such as {min(foreign)!r}"


@cases(count=(0, 1, 2, 100, 3000), buffer_bytes=(512, SMALL, 1 << 16))
def check_every_name_comes_once(root: Path, env: Env, count: int, buffer_bytes: int) -> None:
    expected = _fill(count)
    with opened("d", DIRECTORY) as fd:
        _each_once(listing(fd, buffer_bytes), expected)
        equal(getdents(fd), [], "entries after the end")


def check_ten_thousand_names_come_once(root: Path, env: Env) -> None:
    expected = _fill(10_000, "n")
    _each_once([os.fsencode(entry.name) for entry in os.scandir("d")], expected)


def check_long_names_fit_the_smallest_buffer(root: Path, env: Env) -> None:
    expected = set()
    os.mkdir("d")
    for number in range(40):
        expected.add(b"%03d" % number + b"x" * 252)
        make("regular", b"d/" + b"%03d" % number + b"x" * 252)
    with opened("d", DIRECTORY) as fd:
        _each_once(listing(fd, 280), expected)


def check_a_buffer_too_small_for_one_entry_is_einval(root: Path, env: Env) -> None:
    make("regular", b"x" * 255)
    with opened(root, DIRECTORY) as fd, fails(errno.EINVAL):
        for _ in range(5):  # the dots may fit
            getdents(fd, 64)


@cases(kind=ALL_KINDS)
def check_type_and_inode_of_an_entry_are_those_of_the_file(root: Path, env: Env, kind: str) -> None:
    env.need_kind(kind)
    make(kind, "x")
    with opened(root, DIRECTORY) as fd:
        entries = {entry.name: entry for entry in getdents(fd)}
    equal((type_of_dirent.get(entries[b"x"].kind), entries[b"x"].inode), (kind, os.lstat("x").st_ino))


def check_inodes_in_a_listing_are_right_after_renames_and_links(root: Path, env: Env) -> None:
    for number in range(20):
        write(f"f{number}", b"")
    for number in range(0, 20, 2):
        os.rename(f"f{number}", f"f{number + 1}")
        os.link(f"f{number + 1}", f"link{number}")
    for entry in os.scandir("."):
        equal(entry.inode(), os.lstat(entry.name).st_ino, f"inode of {entry.name}")


# -- changes during a listing ----------------------------------------------------------------------


def check_creating_during_a_listing_neither_loses_nor_repeats(root: Path, env: Env) -> None:
    expected = _fill(2000)
    seen: list[bytes] = []
    with opened("d", DIRECTORY) as fd:
        number = 0
        while entries := getdents(fd, SMALL):
            seen += [entry.name for entry in entries if entry.name not in (b".", b"..")]
            for _ in range(5):
                write(f"d/new-{number}", b"")
                number += 1
            assert number < 100_000, "the listing never ends while files are made"
    old = [name for name in seen if not name.startswith(b"new-")]
    _each_once(old, expected)
    equal(len(seen), len(set(seen)), "names that came more than once")


@cases(buffer_bytes=(512, SMALL, 1 << 15))
def check_deleting_during_a_listing_removes_all(root: Path, env: Env, buffer_bytes: int) -> None:
    """As rm -r does: read some, remove those, read on."""
    expected = _fill(3000)
    seen: list[bytes] = []
    with opened("d", DIRECTORY) as fd:
        while entries := getdents(fd, buffer_bytes):
            for entry in entries:
                if entry.name not in (b".", b".."):
                    os.unlink(b"d/" + entry.name)
                    seen.append(entry.name)
    _each_once(seen, expected)
    os.rmdir("d")


def check_what_stays_is_listed_while_others_go(root: Path, env: Env) -> None:
    expected = sorted(_fill(3000))
    keep, seen = set(expected[::3]), []
    drop = [name for name in expected if name not in keep]
    with opened("d", DIRECTORY) as fd:
        while entries := getdents(fd, SMALL):
            seen += [entry.name for entry in entries if entry.name in keep]
            for _ in range(100):
                if drop:
                    os.unlink(b"d/" + drop.pop())
    _each_once(seen, keep)


def check_renaming_others_during_a_listing_loses_no_bystander(root: Path, env: Env) -> None:
    expected = _fill(1500, "stays-")
    _fill(500, "moves-")
    seen, number = [], 0
    with opened("d", DIRECTORY) as fd:
        while entries := getdents(fd, SMALL):
            seen += [entry.name for entry in entries if entry.name.startswith(b"stays-")]
            for _ in range(20):
                if number < 500:
                    os.rename(f"d/moves-{number:05d}", f"d/{number:05d}-moved")
                    number += 1
    _each_once(seen, expected)


def check_a_name_removed_before_the_listing_began_is_not_in_it(root: Path, env: Env) -> None:
    _fill(50)
    names_in("d")
    for number in range(50):
        os.unlink(f"d/file-with-a-longer-name-{number:05d}")
        equal(len(names_in("d")), 49 - number)


def check_a_name_made_before_the_listing_began_is_in_it(root: Path, env: Env) -> None:
    os.mkdir("d")
    for number in range(50):
        make(("regular", "dir", "fifo", "symlink", "socket")[number % 5], f"d/{number}")
        equal(names_in("d"), {b"%d" % known for known in range(number + 1)})


def check_another_process_lists_what_was_just_made(root: Path, env: Env) -> None:
    os.mkdir("d")
    for number in range(10):
        write(f"d/{number}", b"")
        equal(spawn(lambda: len(os.listdir("d"))).result(), number + 1)


# -- positions -------------------------------------------------------------------------------------


def check_rewinding_shows_new_names(root: Path, env: Env) -> None:
    expected = _fill(300)
    with opened("d", DIRECTORY) as fd:
        _each_once(listing(fd), expected)
        write("d/late", b"")
        os.unlink("d/file-with-a-longer-name-00007")
        os.lseek(fd, 0, os.SEEK_SET)
        _each_once(listing(fd), (expected - {b"file-with-a-longer-name-00007"}) | {b"late"})


def check_rewinding_in_the_middle_starts_over(root: Path, env: Env) -> None:
    expected = _fill(1000)
    with opened("d", DIRECTORY) as fd:
        for _ in range(3):
            getdents(fd, SMALL)
        os.lseek(fd, 0, os.SEEK_SET)
        _each_once(listing(fd), expected)


def check_every_saved_offset_continues_the_stream(root: Path, env: Env) -> None:
    _fill(500)
    with opened("d", DIRECTORY) as fd:
        stream = []
        while entries := getdents(fd, SMALL):
            stream += entries
        order = list(range(len(stream)))
        random.Random(7).shuffle(order)
        for place in order[:150]:
            os.lseek(fd, stream[place].offset, os.SEEK_SET)
            following = getdents(fd, SMALL)
            expected = [entry.name for entry in stream[place + 1 :]]
            equal([entry.name for entry in following], expected[: len(following)], f"names after entry {place}")
            assert following or not expected, "the stream ended early after a seek"


def check_the_position_is_the_offset_of_the_last_entry(root: Path, env: Env) -> None:
    _fill(500)
    with opened("d", DIRECTORY) as fd:
        while entries := getdents(fd, SMALL):
            equal(os.lseek(fd, 0, os.SEEK_CUR), entries[-1].offset, "position")


def check_a_saved_offset_survives_creations_and_deletions(root: Path, env: Env) -> None:
    expected = sorted(_fill(600))
    with opened("d", DIRECTORY) as fd:
        first = getdents(fd, SMALL)
        position = os.lseek(fd, 0, os.SEEK_CUR)
        seen = {entry.name for entry in first}
        for number in range(40):
            write(f"d/another-{number}", b"")
        for name in [name for name in expected if name in seen][:10]:
            os.unlink(b"d/" + name)
        os.lseek(fd, position, os.SEEK_SET)
        rest = [name for name in listing(fd) if not name.startswith(b"another-")]
    _each_once(rest, set(expected) - seen)


@cases(seed=tuple(range(6)))
def check_hostile_offsets_harm_nothing(root: Path, env: Env, seed: int) -> None:
    """An offset nobody gave out may be refused or give any true names, never a crash nor a foreign name."""
    expected, chance = _fill(300), random.Random(seed)
    with opened("d", DIRECTORY) as fd:
        for _ in range(200):
            offset = chance.choice(
                (
                    chance.getrandbits(63),
                    chance.getrandbits(31),
                    chance.randrange(700),
                    2**63 - 1,
                    2**32 - 1,
                    2**31,
                )
            )
            try:
                lseek64(fd, offset, os.SEEK_SET)
                names = {entry.name for entry in getdents(fd, SMALL)} - {b".", b".."}
            except OSError as error:
                equal(error.errno in (errno.EINVAL, errno.EOVERFLOW, errno.ENOENT), True, f"errno {error.errno}")
                continue
            equal(names - expected, set(), "foreign names")
        with fails(errno.EINVAL):
            lseek64(fd, -5, os.SEEK_SET)
        os.lseek(fd, 0, os.SEEK_SET)
        _each_once(listing(fd), expected)


def check_two_listings_of_one_directory_are_independent(root: Path, env: Env) -> None:
    expected = _fill(800)
    with opened("d", DIRECTORY) as one, opened("d", DIRECTORY) as two:
        first, second = [], []
        while True:
            some, more = getdents(one, SMALL), getdents(two, 1024)
            first += [entry.name for entry in some]
            second += [entry.name for entry in more]
            if not some and not more:
                break
    for seen in (first, second):
        _each_once([name for name in seen if name not in (b".", b"..")], expected)


def check_two_processes_reading_one_descriptor_share_the_stream(root: Path, env: Env) -> None:
    expected = _fill(3000)
    with opened("d", DIRECTORY) as fd:
        parts = together(2, lambda number: listing(fd, SMALL))
    _each_once([name for part in parts for name in part], expected)


def check_a_descriptor_of_a_directory_moves_with_it(root: Path, env: Env) -> None:
    expected = _fill(300)
    with opened("d", DIRECTORY) as fd:
        some = [entry.name for entry in getdents(fd, SMALL) if entry.name not in (b".", b"..")]
        os.rename("d", "e")
        _each_once(some + listing(fd), expected)
    absent("d")


def check_storms_beside_listings_never_hide_a_bystander(root: Path, env: Env) -> None:
    expected = _fill(400, "stays-")

    def work(number: int) -> None:
        for turn in range(120):
            if number:
                write(f"d/w{number}-{turn}", b"")
                os.rename(f"d/w{number}-{turn}", f"d/v{number}-{turn}")
                os.unlink(f"d/v{number}-{turn}")
            else:
                with opened("d", DIRECTORY) as fd:
                    _each_once([name for name in listing(fd) if name.startswith(b"stays-")], expected)

    together(3, work)
    equal(names_in("d"), expected)


def check_dots_lead_here_and_up(root: Path, env: Env) -> None:
    os.mkdir("d")
    with opened("d", DIRECTORY) as fd:
        entries = {entry.name: entry.inode for entry in getdents(fd)}
    if b"." not in entries:
        raise Skipped("this file system lists no dots (POSIX allows that)")
    equal((entries[b"."], entries[b".."]), (os.stat("d").st_ino, os.stat(".").st_ino))
