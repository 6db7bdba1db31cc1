"""Holes, far offsets and positional writes: what was never written reads as zeros, at any size."""

import errno
import mmap
import os
import random
from pathlib import Path

from .kit import Env, cases, equal, fails, opened, pattern, read, spawn, write, write_all

GIB = 1 << 30
RDWR = os.O_RDWR | os.O_CREAT


@cases(gap=(1, 100, 4095, 4096, 4097, 131_072, 1_000_003))
def check_a_write_beyond_the_end_leaves_zeros_between(root: Path, env: Env, gap: int) -> None:
    with opened("f", RDWR) as fd:
        write_all(fd, b"head")
        equal(os.pwrite(fd, b"tail", 4 + gap), 4)
        equal(os.fstat(fd).st_size, 8 + gap)
    equal(read("f"), b"head" + bytes(gap) + b"tail")


@cases(offset=(2 * GIB - 2, 2 * GIB, 4 * GIB - 2, 4 * GIB, 4 * GIB + 1, 5 * GIB + 12_345, 40 * GIB))
def check_far_offsets_are_reached(root: Path, env: Env, offset: int) -> None:
    with opened("f", RDWR) as fd:
        equal(os.pwrite(fd, b"far!", offset), 4)
        equal((os.fstat(fd).st_size, os.stat("f").st_size), (offset + 4, offset + 4))
        equal(os.pread(fd, 10, offset - 3), bytes(3) + b"far!")
        equal(os.pread(fd, 10, offset // 2), bytes(10))
        os.lseek(fd, -2, os.SEEK_END)
        equal((os.read(fd, 10), os.lseek(fd, 0, os.SEEK_CUR)), (b"r!", offset + 4))
    with opened("f") as fd:
        equal(os.pread(fd, 4, offset), b"far!")


def check_a_sparse_file_takes_little_space(root: Path, env: Env) -> None:
    with opened("f", RDWR) as fd:
        os.pwrite(fd, b"x", 5 * GIB)
        os.fsync(fd)
    assert os.stat("f").st_blocks * 512 < 1 << 20, "the hole takes space"


def check_a_file_with_bytes_takes_some_blocks(root: Path, env: Env) -> None:
    """GNU tar -S takes a file of no blocks for one of zeros."""
    with opened("f", RDWR) as fd:
        write_all(fd, pattern(100_000))
        os.fsync(fd)
    assert os.stat("f").st_blocks * 512 >= 100_000 // 2, "too few blocks"


def check_truncate_makes_a_file_over_4_gib(root: Path, env: Env) -> None:
    write("f", b"head")
    os.truncate("f", 5 * GIB)
    equal(os.stat("f").st_size, 5 * GIB)
    with opened("f", os.O_RDWR) as fd:
        equal((os.pread(fd, 6, 0), os.pread(fd, 6, 5 * GIB - 3)), (b"head\0\0", bytes(3)))
        with mmap.mmap(fd, 4096, offset=4 * GIB) as view:
            view[10:13] = b"map"
        equal(os.pread(fd, 3, 4 * GIB + 10), b"map")
    os.truncate("f", 4 * GIB + 11)
    with opened("f") as fd:
        equal(os.pread(fd, 9, 4 * GIB + 9), b"\0m")


def check_reading_at_and_beyond_the_end_gives_nothing(root: Path, env: Env) -> None:
    write("f", b"12345")
    with opened("f") as fd:
        equal([os.pread(fd, 10, offset) for offset in (4, 5, 6, 4096, 5 * GIB)], [b"5", b"", b"", b"", b""])


def check_a_write_of_nothing_changes_nothing(root: Path, env: Env) -> None:
    write("f", b"12345")
    with opened("f", os.O_RDWR) as fd:
        equal((os.pwrite(fd, b"", 100), os.fstat(fd).st_size), (0, 5))


def check_seek_hole_and_seek_data_tell_no_lies(root: Path, env: Env) -> None:
    """A file system may call everything data; it must not call data a hole."""
    with opened("f", RDWR) as fd:
        os.pwrite(fd, b"x" * 10, 10 << 20)
        size = os.fstat(fd).st_size
        assert os.lseek(fd, 0, os.SEEK_DATA) <= 10 << 20, "data skipped"
        equal(os.lseek(fd, 10 << 20, os.SEEK_HOLE), size, "hole after the data")
        equal(os.lseek(fd, 10 << 20, os.SEEK_DATA), 10 << 20)
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with fails(errno.ENXIO):
                os.lseek(fd, size + 1, whence)


def check_seeking_obeys_its_rules(root: Path, env: Env) -> None:
    write("f", b"0123456789")
    with opened("f") as fd:
        equal((os.lseek(fd, 100, os.SEEK_SET), os.read(fd, 1)), (100, b""))
        equal(os.lseek(fd, -3, os.SEEK_END), 7)
        equal((os.read(fd, 2), os.lseek(fd, 0, os.SEEK_CUR)), (b"78", 9))
        with fails(errno.EINVAL):
            os.lseek(fd, -11, os.SEEK_END)
        equal(os.lseek(fd, 0, os.SEEK_CUR), 9)


def check_posix_fallocate_extends_with_zeros(root: Path, env: Env) -> None:
    write("f", b"head")
    with opened("f", os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 100_000)
        equal((os.fstat(fd).st_size, os.pread(fd, 100_000, 0)), (100_000, b"head" + bytes(99_996)))
        os.posix_fallocate(fd, 10, 100)
        equal(os.fstat(fd).st_size, 100_000)


# -- copy_file_range -------------------------------------------------------------------------------


@cases(size=(0, 1, 4096, 3_000_001))
def check_copy_file_range_copies_all(root: Path, env: Env, size: int) -> None:
    write("f", pattern(size))
    with opened("f") as source, opened("g", os.O_RDWR | os.O_CREAT) as target:
        done = 0
        while moved := os.copy_file_range(source, target, size - done or 1):
            done += moved
        equal((done, os.fstat(target).st_size), (size, size))
    equal((read("g"), os.stat("g").st_size), (pattern(size), size))


def check_copy_file_range_takes_offsets(root: Path, env: Env) -> None:
    write("f", b"0123456789")
    write("g", b"abcdefghij")
    with opened("f") as source, opened("g", os.O_RDWR) as target:
        equal(os.copy_file_range(source, target, 3, 5, 8), 3)
        equal((os.lseek(source, 0, os.SEEK_CUR), os.lseek(target, 0, os.SEEK_CUR)), (0, 0), "positions")
        equal(os.copy_file_range(source, target, 5, 100, 0), 0)
    equal((read("g"), os.stat("g").st_size), (b"abcdefgh567", 11))


def check_copy_file_range_within_one_file(root: Path, env: Env) -> None:
    write("f", pattern(100_000))
    with opened("f", os.O_RDWR) as fd:
        done = 0
        while done < 50_000:
            done += os.copy_file_range(fd, fd, 50_000 - done, done, 100_000 + done)
        equal(os.pread(fd, 200_000, 0), pattern(100_000) + pattern(50_000))
        with fails(errno.EINVAL):
            os.copy_file_range(fd, fd, 1000, 0, 500)


def check_a_copied_range_shows_in_a_mapping_and_stamps(root: Path, env: Env) -> None:
    write("f", pattern(8192))
    write("g", bytes(8192))
    with opened("f") as source, opened("g", os.O_RDWR) as target, mmap.mmap(target, 8192) as view:
        equal(view[:4], bytes(4))
        before = os.stat("g").st_mtime_ns
        moved = os.copy_file_range(source, target, 8192, 0, 0)
        equal(view[:moved], pattern(8192)[:moved])
        assert os.stat("g").st_mtime_ns >= before, "the time went back"


# -- a random walk against a plain bytearray -------------------------------------------------------


@cases(seed=tuple(range(8)))
def check_random_input_and_output_matches_a_model(root: Path, env: Env, seed: int) -> None:
    chance, model, limit = random.Random(seed), bytearray(), 400_000
    fd = os.open("f", RDWR)
    for step in range(300):
        action = chance.choice(
            ("write", "write", "read", "truncate", "map", "mapread", "append", "reopen", "copy", "stat")
        )
        start, length = chance.randrange(limit), chance.choice((1, 7, 512, 4096, 5000, 66_000))
        data = chance.randbytes(length)
        if action == "write":
            os.pwrite(fd, data, start)
            _put(model, start, data)
        elif action == "append":
            with opened("f", os.O_WRONLY | os.O_APPEND) as other:
                if len(model) < limit:
                    write_all(other, data)
                    model += data
        elif action == "truncate":
            os.ftruncate(fd, start)
            del model[start:]
            model += bytes(start - len(model))
        elif action == "map" and model:
            start %= len(model)
            length = min(length, len(model) - start)
            with mmap.mmap(fd, len(model)) as view:
                view[start : start + length] = data[:length]
            _put(model, start, data[:length])
        elif action == "mapread" and model:
            with mmap.mmap(fd, len(model), prot=mmap.PROT_READ) as view:
                equal(
                    view[start : start + length],
                    bytes(model[start : start + length]),
                    f"mapping at step {step}",
                )
        elif action == "copy" and len(model) > 2 * length:
            target = chance.randrange(length, len(model))
            moved = os.copy_file_range(fd, fd, length, 0, target)
            _put(model, target, bytes(model[:moved]))
        elif action == "reopen":
            os.close(fd)
            fd = os.open("f", os.O_RDWR)
        elif action == "stat":
            equal(spawn(lambda: os.stat("f").st_size).result(), len(model), f"size at step {step}")
        equal(
            os.pread(fd, length, start),
            bytes(model[start : start + length]),
            f"bytes at step {step} ({action})",
        )
        equal(os.fstat(fd).st_size, len(model), f"size at step {step} ({action})")
    os.close(fd)
    equal(read("f"), bytes(model), "the whole file")


def _put(model: bytearray, start: int, data: bytes) -> None:
    if start > len(model):
        model += bytes(start - len(model))
    model[start : start + len(data)] = data
