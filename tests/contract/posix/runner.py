"""Collect the checks and run each in a process of its own inside a fresh directory.

In: a working directory of the tree under test. Out: one Result a check. Invariants: one check cannot disturb
another (own process, own directory, removed afterwards; what cannot be removed is a failure of that check),
and a call that never returns is a failure after a deadline. Kept out: any knowledge of what serves the tree.
"""

import contextlib
import fnmatch
import importlib
import os
import pickle
import pkgutil
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import kit

_NOT_GROUPS = {"__main__", "kit", "probing", "program", "runner", "syscalls"}
_OCTAL_PARAMETERS = {"mode", "umask", "bits"}


@dataclass(frozen=True)
class Check:
    """One run of one check function with its case."""

    name: str
    function: Callable[..., None]
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """How one check went; ``status`` is pass, fail or skip."""

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0


# -- collecting ------------------------------------------------------------------------------------


def groups() -> list[str]:
    """The names of the check modules."""
    package = Path(__file__).parent
    return sorted(info.name for info in pkgutil.iter_modules([str(package)]) if info.name not in _NOT_GROUPS)


def collect(only: str = "") -> list[Check]:
    """All checks, in the order they are written; ``only`` is a shell pattern or a part of the name."""
    checks: list[Check] = []
    for group in groups():
        module = importlib.import_module(f"{__package__}.{group}")
        for name, function in vars(module).items():
            if name.startswith("check_") and function.__module__ == module.__name__:
                checks += _expand(group, name.removeprefix("check_"), function)
    return [check for check in checks if fits(check.name, only)]


def fits(name: str, pattern: str) -> bool:
    """Whether a check's name matches a shell pattern, or holds the text when it is none."""
    if any(mark in pattern for mark in "*?"):
        return fnmatch.fnmatchcase(name, pattern)
    return pattern in name


def _expand(group: str, sentence: str, function: Callable[..., None]) -> Iterable[Check]:
    for arguments in kit.variants(function):
        label = ",".join(f"{key}={_label(key, value)}" for key, value in arguments.items())
        yield Check(f"{group}.{sentence}" + (f"[{label}]" if label else ""), function, arguments)


def _label(key: str, value: object) -> str:
    if isinstance(value, int) and key in _OCTAL_PARAMETERS:
        return f"{value:04o}"
    if isinstance(value, tuple):
        text = ":".join(_label(key, part) for part in value)
    elif isinstance(value, bytes):
        text = repr(value)[2:-1]
    else:
        text = str(value)
    return text if len(text) <= 40 else f"{text[:24]}…{len(text)}"


# -- running ---------------------------------------------------------------------------------------


def run(check: Check, work: Path, env: kit.Env, deadline_s: float) -> Result:
    """Run one check in a child inside a new directory of ``work``, then remove the directory."""
    started_s = time.monotonic()
    try:
        root = Path(tempfile.mkdtemp(prefix="check-", dir=work))
        root.chmod(0o755)
        status, reason = _in_child(check, root, env, deadline_s)
    except OSError as error:
        status, reason = "fail", f"could not begin: {kit.errno_name(error)}"
    else:
        if status != "hang":  # after a hang the removal may block as well; the end of the run tries it again
            status, reason = _swept(root, status, reason)
    return Result(check.name, "fail" if status == "hang" else status, reason, time.monotonic() - started_s)


def _swept(root: Path, status: str, reason: str) -> tuple[str, str]:
    try:
        kit.sweep(root)
    except OSError as error:
        if status == "pass":
            return "fail", f"its directory could not be removed: {kit.errno_name(error)}"
    return status, reason


def _in_child(check: Check, root: Path, env: kit.Env, deadline_s: float) -> tuple[str, str]:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        os.setpgid(0, 0)  # so that all processes of a check end with it
        os.write(writer, pickle.dumps(_outcome(check, root, env)))
        os._exit(0)
    os.close(writer)
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)  # whichever of the two comes first
    try:
        return _await_outcome(pid, reader, deadline_s)
    finally:
        os.close(reader)


def _outcome(check: Check, root: Path, env: kit.Env) -> tuple[str, str]:
    try:
        os.umask(0o022)
        os.chdir(root)
        check.function(root, env, **check.arguments)
    except kit.Skipped as skipped:
        return "skip", str(skipped)
    except AssertionError as error:
        return "fail", f"{_one_line(error) or 'assertion'} ({_where(error, check)})"
    except BaseException as error:  # the child must answer whatever happened
        return "fail", f"{type(error).__name__}: {_one_line(error)} ({_where(error, check)})"
    return "pass", ""


def _await_outcome(pid: int, reader: int, deadline_s: float) -> tuple[str, str]:
    ready, _, _ = select.select([reader], [], [], deadline_s)
    data = os.read(reader, 1 << 16) if ready else b""
    wait_channel = "" if ready else _wait_channel(pid)
    os.killpg(pid, signal.SIGKILL)  # a failed check leaves its other processes running
    _reap(pid, 5.0)
    if not ready:
        return "hang", f"did not end within {deadline_s:g} s (waiting in {wait_channel})"
    if not data:
        return "fail", "the process of the check died"
    outcome: tuple[str, str] = pickle.loads(data)
    return outcome


def _reap(pid: int, deadline_s: float) -> None:
    """Wait for an ended child; one stuck in the kernel is left to the machine after the deadline."""
    end_s = time.monotonic() + deadline_s
    while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < end_s:
        time.sleep(0.0005)


def _wait_channel(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/wchan").read_text() or "user code"
    except OSError:
        return "an unknown place"


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return f"{kit.errno_name(error)} {error.strerror}"
    text = " ".join(str(error).split())
    return text if len(text) <= 240 else f"{text[:200]}…"


def _where(error: BaseException, check: Check) -> str:
    file = check.function.__code__.co_filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{Path(file).name}:{lines[-1] if lines else check.function.__code__.co_firstlineno}"
