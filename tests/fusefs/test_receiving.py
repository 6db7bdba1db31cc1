"""Requests that go from the kernel's queue between two looks at it."""

import os
import subprocess
import sys

import pytest
import trio
import trio.testing

from fusefs.receiving import Receiving


def test_what_is_gone_when_its_turn_comes_is_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever made the request was killed after the loop was woken for it."""
    end, begin = os.pipe()
    wait_readable = trio.lowlevel.wait_readable
    woken: list[int] = []

    async def woken_and_then_gone(fd: int) -> None:
        await wait_readable(fd)
        woken.append(fd)
        if len(woken) < 3:
            assert os.read(fd, 1) == b"x"

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Receiving().wait_readable, end)
            for number in range(3):
                assert len(woken) == number
                os.write(begin, b"x")
                await trio.testing.wait_all_tasks_blocked(0.02)
        assert os.read(end, 9) == b"x"

    monkeypatch.setattr(trio.lowlevel, "wait_readable", woken_and_then_gone)
    trio.run(main)
    assert woken == [end] * 3


def test_the_end_of_what_is_read_is_told() -> None:
    """As readable: the read says what has ended."""
    end, begin = os.pipe()
    os.close(begin)
    trio.run(Receiving().wait_readable, end)
    assert os.read(end, 1) == b""


def test_a_call_that_holds_the_interpreter_is_ended() -> None:
    """A read without end and with the interpreter's lock, which is what an emptied queue is to pyfuse3."""
    program = """
import ctypes, errno, os, trio
from fusefs.receiving import keep_awake
async def main():
    end, begin = os.pipe()
    libc = ctypes.PyDLL(None, use_errno=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_awake)
        await trio.sleep(0.1)
        print(libc.read(end, ctypes.create_string_buffer(1), 1), errno.errorcode[ctypes.get_errno()])
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
trio.run(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "-1 EINTR\n", "")
