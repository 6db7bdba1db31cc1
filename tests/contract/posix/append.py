"""O_APPEND: every write lands at the end of the file as it is at that moment, whoever moved the end."""

import fcntl
import mmap
import os
from collections import Counter
from pathlib import Path

from .kit import Env, cases, equal, opened, pattern, read, spawn, together, write, write_all

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


@cases(length=(1, 60, 4096, 70_000))
def check_appends_of_many_processes_lose_nothing(root: Path, env: Env, length: int) -> None:
    turns = 200 if length < 10_000 else 20

    def work(number: int) -> None:
        with opened("log", APPEND) as fd:
            for turn in range(turns):
                line = b"%d %d " % (number, turn)
                equal(os.write(fd, line + b"x" * length + b"\n"), len(line) + length + 1)

    together(4, work)
    lines = Counter(read("log").splitlines())
    expected = Counter(b"%d %d " % (number, turn) + b"x" * length for number in range(4) for turn in range(turns))
    assert lines == expected, f"{sum((expected - lines).values())} of {sum(expected.values())} lines lost or torn"


def check_each_writer_finds_its_own_lines_in_order(root: Path, env: Env) -> None:
    def work(number: int) -> None:
        for turn in range(100):
            with opened("log", APPEND) as fd:  # opened anew each time, as loggers do
                os.write(fd, b"%d %d\n" % (number, turn))

    together(3, work)
    lines = [tuple(map(int, line.split())) for line in read("log").splitlines()]
    for number in range(3):
        equal([turn for owner, turn in lines if owner == number], list(range(100)), f"lines of writer {number}")


def check_two_descriptors_append_in_turn(root: Path, env: Env) -> None:
    with opened("f", APPEND) as one, opened("f", APPEND) as two:
        for number in range(100):
            os.write((one, two)[number % 2], b"%02d" % number)
    equal(read("f"), b"".join(b"%02d" % number for number in range(100)))


def check_an_append_follows_a_plain_write_beyond_the_end(root: Path, env: Env) -> None:
    with opened("f", APPEND) as append, opened("f", os.O_RDWR) as plain:
        os.write(append, b"start")
        os.pwrite(plain, b"far", 10)
        os.write(append, b"end")
    equal(read("f"), b"start" + bytes(5) + b"far" + b"end")


def check_an_append_follows_a_truncation(root: Path, env: Env) -> None:
    with opened("f", APPEND) as fd:
        write_all(fd, b"0123456789")
        os.truncate("f", 4)
        write_all(fd, b"x")
        os.truncate("f", 0)
        write_all(fd, b"y")
        os.truncate("f", 5)
        write_all(fd, b"z")
    equal(read("f"), b"y" + bytes(4) + b"z")


def check_an_append_beside_a_shared_mapping_keeps_both(root: Path, env: Env) -> None:
    page = mmap.PAGESIZE
    write("f", bytes(page))
    with opened("f", os.O_RDWR) as fd, opened("f", APPEND) as append, mmap.mmap(fd, page) as view:
        for number in range(50):
            view[number * 4 : number * 4 + 4] = b"%04d" % number
            os.write(append, b"%04d" % number)
            equal(os.fstat(fd).st_size, page + number * 4 + 4)
    text = b"".join(b"%04d" % number for number in range(50))
    equal(read("f"), text + bytes(page - 200) + text)


def check_an_append_into_a_mapped_page_shows_in_the_mapping(root: Path, env: Env) -> None:
    write("f", b"head")
    os.truncate("f", mmap.PAGESIZE)
    os.truncate("f", 4)
    with opened("f", os.O_RDWR) as fd, opened("f", APPEND) as append:
        os.ftruncate(fd, 100)
        with mmap.mmap(fd, 100) as view:
            view[4:8] = b"mid-"
            os.write(append, b"tail")
            equal(view[:8], b"head" + b"mid-")
    equal(read("f"), b"head" + b"mid-" + bytes(92) + b"tail")


def check_the_flag_can_be_set_and_cleared_on_a_descriptor(root: Path, env: Env) -> None:
    write("f", b"0123456789")
    with opened("f", os.O_RDWR) as fd:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)
        os.write(fd, b"+")
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, b"-")
    equal(read("f"), b"-123456789+")


def check_the_position_after_an_append_is_the_end(root: Path, env: Env) -> None:
    write("f", b"01234")
    with opened("f", os.O_RDWR | os.O_APPEND) as fd:
        os.write(fd, b"56")
        equal((os.lseek(fd, 0, os.SEEK_CUR), os.read(fd, 10)), (7, b""))
        os.lseek(fd, 0, os.SEEK_SET)
        equal(os.read(fd, 3), b"012")
        os.write(fd, b"7")
        equal(os.lseek(fd, 0, os.SEEK_CUR), 8)


def check_an_append_through_a_second_name(root: Path, env: Env) -> None:
    write("a", b"")
    os.link("a", "b")
    with opened("a", APPEND) as one, opened("b", APPEND) as two:
        for number in range(60):
            os.write((one, two)[number % 2], b"%02d" % number)
    equal(read("a"), b"".join(b"%02d" % number for number in range(60)))


def check_an_append_after_rename_and_unlink(root: Path, env: Env) -> None:
    with opened("a", os.O_RDWR | os.O_APPEND | os.O_CREAT) as fd:
        os.write(fd, b"1")
        os.rename("a", "b")
        os.write(fd, b"2")
        os.unlink("b")
        os.write(fd, b"3")
        equal(os.pread(fd, 9, 0), b"123")


def check_a_log_grown_by_another_process_is_not_overwritten(root: Path, env: Env) -> None:
    with opened("log", APPEND) as fd:
        for number in range(20):

            def add(number: int = number) -> None:
                with opened("log", APPEND) as other:
                    os.write(other, b"b%02d" % number)

            os.write(fd, b"a%02d" % number)
            spawn(add).result()
    equal(read("log"), b"".join(b"a%02db%02d" % (number, number) for number in range(20)))


def check_one_large_append_is_whole(root: Path, env: Env) -> None:
    write("f", b"head")
    with opened("f", APPEND) as fd:
        write_all(fd, pattern(5_000_000))
    equal(read("f"), b"head" + pattern(5_000_000))


def check_a_write_beyond_the_end_after_append_was_taken_off_leaves_a_hole(root: Path, env: Env) -> None:
    with opened("f", APPEND) as fd:
        os.write(fd, b"0123")
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_APPEND)
        os.pwrite(fd, b"END", 100)
        os.pwrite(fd, b"B", 1)
    equal(read("f"), b"0B23" + bytes(96) + b"END")
