"""mmap(2) beside read(2) and write(2): one file, whichever way its bytes are reached."""

import errno
import mmap
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

from .kit import (
    Env,
    Skipped,
    cases,
    equal,
    fails,
    opened,
    pattern,
    read,
    spawn,
    stamps,
    together,
    write,
    write_all,
)

PAGE = mmap.PAGESIZE


def check_a_shared_mapping_writes_the_file(root: Path, env: Env) -> None:
    write("f", pattern(3 * PAGE + 100))
    with opened("f", os.O_RDWR) as fd:
        with mmap.mmap(fd, 3 * PAGE + 100) as view:
            equal(view[:], pattern(3 * PAGE + 100))
            view[PAGE - 2 : PAGE + 2] = b"WXYZ"
            equal(os.pread(fd, 4, PAGE - 2), b"WXYZ", "read through the same descriptor")
            equal(read("f")[PAGE - 2 : PAGE + 2], b"WXYZ", "read through a new descriptor")
        equal(read("f")[PAGE - 2 : PAGE + 2], b"WXYZ", "read after the mapping is gone")
    equal(os.stat("f").st_size, 3 * PAGE + 100)


def check_another_process_reads_what_a_mapping_wrote(root: Path, env: Env) -> None:
    write("f", bytes(PAGE))
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, PAGE) as view:
        for number in range(20):
            view[number * 4 : number * 4 + 4] = b"%04d" % number
            equal(spawn(lambda: read("f")).result()[number * 4 : number * 4 + 4], b"%04d" % number)


def check_two_processes_share_a_mapping(root: Path, env: Env) -> None:
    write("f", bytes(2 * PAGE))

    def work(number: int) -> None:
        with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, 2 * PAGE) as view:
            for turn in range(100):
                view[number * 100 + turn] = turn + 1

    together(4, work)
    expected = bytes(range(1, 101)) * 4
    equal(read("f"), expected + bytes(2 * PAGE - 400))


def check_a_write_is_seen_by_a_mapping_at_once(root: Path, env: Env) -> None:
    write("f", bytes(2 * PAGE))
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, 2 * PAGE, prot=mmap.PROT_READ) as view:
        equal(view[:4], bytes(4))
        for number in range(50):
            os.pwrite(fd, b"%04d" % number, PAGE - 2)
            equal(view[PAGE - 2 : PAGE + 2], b"%04d" % number)


def check_a_write_by_another_process_is_seen_by_a_mapping(root: Path, env: Env) -> None:
    write("f", bytes(PAGE))
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, PAGE, prot=mmap.PROT_READ) as view:
        for number in range(10):

            def change(number: int = number) -> None:
                with opened("f", os.O_RDWR) as other:
                    os.pwrite(other, b"%04d" % number, 100)

            spawn(change).result()
            equal(view[100:104], b"%04d" % number)


def check_msync_keeps_the_bytes(root: Path, env: Env) -> None:
    write("f", bytes(10 * PAGE))
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, 10 * PAGE) as view:
        view[:] = pattern(10 * PAGE)
        view.flush()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    equal(read("f"), pattern(10 * PAGE))


def check_a_mapped_write_stamps_the_file_by_msync(root: Path, env: Env) -> None:
    write("f", bytes(PAGE))
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, PAGE) as view, stamps("f", moved="mtime ctime"):
        view[5] = 1
        view.flush()


def check_a_private_mapping_leaves_the_file_alone(root: Path, env: Env) -> None:
    write("f", pattern(PAGE))
    with (
        opened("f") as fd,
        mmap.mmap(fd, PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as view,
    ):
        view[:5] = b"xxxxx"
        equal(view[:5], b"xxxxx")
    equal(read("f"), pattern(PAGE))


def check_a_mapping_outlives_its_descriptor(root: Path, env: Env) -> None:
    write("f", bytes(PAGE))
    with opened("f", os.O_RDWR) as fd:
        view = mmap.mmap(fd, PAGE)
    view[:4] = b"late"
    view.close()
    equal(read("f")[:4], b"late")


def check_the_page_beyond_the_end_is_zero_and_never_written(root: Path, env: Env) -> None:
    write("f", b"short")
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, 0) as view:
        equal(view[:], b"short")
    with opened("f", os.O_RDWR) as fd:
        os.ftruncate(fd, PAGE)
        with mmap.mmap(fd, PAGE) as view:
            equal(view[:], b"short" + bytes(PAGE - 5))
            os.ftruncate(fd, 5)
            view[100:104] = b"lost"
            view.flush()
    equal((read("f"), os.stat("f").st_size), (b"short", 5))


def check_touching_a_page_beyond_a_truncation_is_sigbus(root: Path, env: Env) -> None:
    write("f", pattern(4 * PAGE))

    def touch() -> None:
        with opened("f", os.O_RDWR) as fd:
            view = mmap.mmap(fd, 4 * PAGE)
            equal(view[3 * PAGE : 3 * PAGE + 3], pattern(4 * PAGE)[3 * PAGE : 3 * PAGE + 3])
            os.ftruncate(fd, PAGE)
            equal(view[:PAGE], pattern(PAGE))
            view[2 * PAGE]

    equal(spawn(touch).signal_of_death(), signal.SIGBUS, "signal")
    equal(read("f"), pattern(PAGE))


def check_a_mapping_grows_into_an_extended_file(root: Path, env: Env) -> None:
    write("f", pattern(100))
    with opened("f", os.O_RDWR) as fd:
        os.ftruncate(fd, 3 * PAGE)
        with mmap.mmap(fd, 3 * PAGE) as view:
            view[2 * PAGE : 2 * PAGE + 3] = b"new"
    equal(read("f"), pattern(100) + bytes(2 * PAGE - 100) + b"new" + bytes(PAGE - 3))


def check_a_mapping_needs_the_descriptor_to_allow_it(root: Path, env: Env) -> None:
    write("f", bytes(PAGE))
    with opened("f") as fd, fails(errno.EACCES):
        mmap.mmap(fd, PAGE)
    with opened("f", os.O_WRONLY) as fd, fails(errno.EACCES):
        mmap.mmap(fd, PAGE, prot=mmap.PROT_READ)


def check_a_directory_cannot_be_mapped(root: Path, env: Env) -> None:
    with opened(root) as fd, fails(errno.ENODEV):
        mmap.mmap(fd, PAGE, prot=mmap.PROT_READ)


def check_a_rename_does_not_disturb_a_mapping(root: Path, env: Env) -> None:
    write("f", bytes(PAGE))
    write("other", b"x" * PAGE)
    with opened("f", os.O_RDWR) as fd:
        view = mmap.mmap(fd, PAGE)
    os.rename("f", "g")
    os.rename("other", "f")
    view[:4] = b"here"
    view.close()
    equal((read("g")[:4], read("f")[:4]), (b"here", b"xxxx"))


def check_links_share_a_mapping(root: Path, env: Env) -> None:
    write("a", bytes(PAGE))
    os.link("a", "b")
    with (
        opened("a", os.O_RDWR) as one,
        opened("b", os.O_RDWR) as two,
        mmap.mmap(one, PAGE) as first,
        mmap.mmap(two, PAGE) as second,
    ):
        first[:3] = b"abc"
        equal((second[:3], os.pread(two, 3, 0)), (b"abc", b"abc"))


def check_a_whole_file_reads_right_in_random_order(root: Path, env: Env) -> None:
    size = 3_000_001
    data, chance = pattern(size), random.Random(3)
    write("f", data)
    with opened("f") as fd, mmap.mmap(fd, size, prot=mmap.PROT_READ) as view:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(300):
            start, length = chance.randrange(size), chance.choice((1, 4096, 5000, 200_000))
            source = view[start : start + length] if chance.random() < 0.5 else os.pread(fd, length, start)
            equal(source, data[start : start + length], f"bytes at {start}")


def check_scattered_calls_move_the_same_bytes(root: Path, env: Env) -> None:
    parts = [b"one", b"", b"three" * 1000, b"4"]
    with opened("f", os.O_RDWR | os.O_CREAT) as fd:
        equal(os.writev(fd, parts), sum(map(len, parts)))
        buffers = [bytearray(2), bytearray(5000), bytearray(50)]
        equal(os.preadv(fd, buffers, 0), sum(map(len, parts)))
        equal(b"".join(buffers)[: sum(map(len, parts))], b"".join(parts))


@cases(size=(0, 1, 4096, 300_001))
def check_sendfile_and_splice_move_the_same_bytes(root: Path, env: Env, size: int) -> None:
    write("f", pattern(size))
    with opened("f") as source, opened("g", os.O_WRONLY | os.O_CREAT) as target:
        sent = 0
        while sent < size:
            sent += os.sendfile(target, source, sent, size - sent)
    equal(read("g"), pattern(size))
    reader, writer = os.pipe()
    with opened("f") as source, opened("h", os.O_WRONLY | os.O_CREAT) as target:
        while moved := os.splice(source, writer, 1 << 15):
            while moved:
                moved -= os.splice(reader, target, moved)
    equal(read("h"), pattern(size))


def check_a_program_in_the_tree_runs(root: Path, env: Env) -> None:
    env.need("exec")
    true = shutil.which("true")
    if not true:
        raise Skipped("no program `true` on this machine")
    shutil.copy(true, "program")
    os.chmod("program", 0o755)
    equal(subprocess.run(["./program"], check=False).returncode, 0, "exit code")
    write("script", b"#!/bin/sh\nexit 7\n")
    os.chmod("script", 0o755)
    equal(subprocess.run(["./script"], check=False).returncode, 7, "exit code of the script")
    os.chmod("script", 0o644)
    with fails(errno.EACCES):
        os.execv("./script", ["script"])


def check_a_running_program_cannot_be_written(root: Path, env: Env) -> None:
    env.need("exec")
    sleep = shutil.which("sleep")
    if not sleep:
        raise Skipped("no program `sleep` on this machine")
    shutil.copy(sleep, "program")
    os.chmod("program", 0o755)
    running = subprocess.Popen(["./program", "60"])
    try:
        with fails(errno.ETXTBSY):
            os.open("program", os.O_WRONLY)
        os.rename("program", "moved")
        os.unlink("moved")
    finally:
        running.kill()
        running.wait()


def check_mapped_and_plain_writes_of_many_all_arrive(root: Path, env: Env) -> None:
    """Each writer owns every fourth block; half of them map."""
    block, turns = 512, 64
    write("f", bytes(block * turns * 4))

    def work(number: int) -> None:
        with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, block * turns * 4) as view:
            for turn in range(turns):
                start = (turn * 4 + number) * block
                if number % 2:
                    view[start : start + block] = bytes([number + 1]) * block
                else:
                    os.pwrite(fd, bytes([number + 1]) * block, start)

    together(4, work)
    equal(read("f"), b"".join(bytes([number + 1]) * block for number in range(4)) * turns)


def check_a_file_is_copied_through_two_mappings(root: Path, env: Env) -> None:
    size = (1 << 20) + 12_345
    write("f", pattern(size))
    with opened("f") as source, opened("g", os.O_RDWR | os.O_CREAT) as target:
        os.ftruncate(target, size)
        with mmap.mmap(source, size, prot=mmap.PROT_READ) as one, mmap.mmap(target, size) as two:
            two[:] = one[:]
        write_all(target, b"")
    equal(read("g"), pattern(size))
