"""The border at which errors become errno: nothing but FUSEError leaves a handler, and a bug is told once."""

import contextlib
import errno
import logging
import os

import pyfuse3
import pytest
import trio

from fusefs.kernel.guard import guarded
from index.model import errors
from index.model.errors import OsFailure, VdfsError


def kinds(base: type[VdfsError] = VdfsError) -> list[type[VdfsError]]:
    found = [base]
    for kind in base.__subclasses__():
        found += kinds(kind)
    return [kind for kind in found if kind.__module__ == errors.__name__]


class Handler:
    """Something like the handlers of the mount."""

    def __init__(self, outcome: BaseException | int) -> None:
        self.outcome = outcome
        self.requests = 0

    def asked(self) -> None:
        self.requests += 1

    @guarded
    async def lookup(self, ino: int, name: bytes) -> int:
        """Look a name up."""
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome + ino


def errno_that_leaves(error: BaseException) -> int:
    async def main() -> int:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await Handler(error).lookup(1, b"name")
        return caught.value.errno

    return trio.run(main)


def test_an_answer_passes_through():
    """Unchanged; the handler keeps its name and words."""
    assert trio.run(Handler(41).lookup, 1, b"name") == 42
    assert (Handler.lookup.__name__, Handler.lookup.__doc__) == ("lookup", "Look a name up.")


#: What those are made of that are made of more than words.
SAYS = {errors.MissingDependency: ("tag", b"t" * 16), errors.PeerError: ("OfANewerVersion", "no such thing")}


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind is not OsFailure])
def test_each_error_of_ours_is_its_errno(kind, caplog):
    """And no line in the log: it is an answer, not a bug."""
    assert errno_that_leaves(kind(*SAYS.get(kind, ("no such thing",)))) == kind.errno
    assert caplog.records == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT, errno.ENAMETOOLONG])
def test_what_the_branch_answered_comes_through_as_itself(code, caplog):
    """From a system call, or handed on by a worker."""
    assert errno_that_leaves(OSError(code, os.strerror(code))) == code
    assert errno_that_leaves(OsFailure(code)) == code
    assert caplog.records == []


def test_an_error_without_a_number_is_an_io_error():
    """There is always something to say to the caller."""
    assert errno_that_leaves(OSError("nothing more is known")) == errno.EIO


def test_an_errno_that_was_chosen_stays():
    """A handler may raise FUSEError by itself."""
    assert errno_that_leaves(pyfuse3.FUSEError(errno.ENODATA)) == errno.ENODATA


@pytest.mark.parametrize(
    "bug", [ValueError("x"), AssertionError(), KeyError(b"k"), RecursionError(), SystemExit(1), MemoryError()]
)
def test_a_bug_is_an_io_error_and_one_entry_in_the_log(bug, caplog):
    """With the request and where it happened; the mount lives on."""
    assert errno_that_leaves(bug) == errno.EIO
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "lookup" in record.getMessage()
    assert "b'name'" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is bug


@pytest.mark.parametrize("outcome", [41, ValueError("a bug"), errors.NotFound("it is not there")])
def test_every_request_is_heard_of(outcome):
    """Once, however it ends: what goes on behind the mount gives way to it."""
    handler = Handler(outcome)
    with contextlib.suppress(pyfuse3.FUSEError):
        trio.run(handler.lookup, 1, b"name")
    assert handler.requests == 1


def test_cancellation_passes_through():
    """The end of the session is no error of a request, and must not be swallowed by one."""

    class Waiting:
        def asked(self) -> None:
            """Nobody listens."""

        @guarded
        async def read(self) -> None:
            await trio.sleep_forever()

    async def main() -> bool:
        with trio.move_on_after(0.01) as scope:
            await Waiting().read()
        return scope.cancelled_caught

    assert trio.run(main)


def test_ctrl_c_passes_through():
    """It is for the process, not for a request."""
    with pytest.raises(KeyboardInterrupt):
        trio.run(Handler(KeyboardInterrupt()).lookup, 1, b"name")


def test_every_handler_of_the_mount_is_guarded():
    """One that is not could end the mount for everybody. `forget` has no reply and touches the ledger only."""
    from fusefs.operations import Operations

    handlers = {
        name
        for name, value in vars(Operations).items()
        if callable(value) and hasattr(pyfuse3.Operations, name) and not name.startswith("_")
    }
    unguarded = {name for name in handlers if not hasattr(vars(Operations)[name], "__wrapped__")}
    assert {"lookup", "read", "write", "setattr", "readdir"} < handlers
    assert unguarded <= {"forget"}


def test_every_request_that_a_library_can_answer_has_a_handler():
    """A default of pyfuse3 would answer ENOSYS, which the kernel remembers until the mount ends.

    For `poll` that is right: files are always ready, and the kernel then says so by itself.
    """
    from fusefs.operations import Operations

    asked = {
        name
        for name, value in vars(pyfuse3.Operations).items()
        if callable(value) and not name.startswith("_") and name not in ("init", "stacktrace", "poll")
    }
    assert asked - set(vars(Operations)) == set()
