"""What every test gets: the checkout on the path, the floors in order, a keeper that leaves nothing behind.

tests/leftovers.py is the keeper; here it is started, told about the tests, and heard at the end. Kept out on
purpose: fixtures that make libraries and mounts, which live beside the tests that need them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# How long an example takes says something of the machine and of who else works on it: it fails no test.
hypothesis.settings.register_profile(
    "sdmount", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.load_profile("sdmount")

ROOT = Path(__file__).resolve().parent.parent
# From the ground up: the first red one names the room. Anything else comes after these.
FLOORS = ("index", "sync", "vdfs", "fusefs", "contract", "system")
# How long after its own time limit a test is taken to be stuck where that limit does not reach it.
STUCK_S = 30.0
KEEPER = pytest.StashKey["subprocess.Popen[str]"]()
LEFT_BEHIND = pytest.StashKey[str]()

sys.path.insert(0, str(ROOT))
# Subprocesses find the packages as the tests do, and not in whatever folder they are started in.
os.environ["PYTHONPATH"] = str(ROOT)
os.environ["PYTHONSAFEPATH"] = "1"
# Who starts the tests in the background of a script has them ignore SIGINT, and all that they start with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort by floor, and put the long tests aside unless they were asked for."""
    tests = ROOT / "tests"

    def floor(item: pytest.Item) -> int:
        room = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        return FLOORS.index(room) if room in FLOORS else len(FLOORS)

    items.sort(key=floor)
    aside = [] if config.getoption("--long") else [item for item in items if item.get_closest_marker("long")]
    if aside:
        config.hook.pytest_deselected(items=aside)
        items[:] = [item for item in items if item not in aside]


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.getoption("numprocesses", None):
        return  # only hands out tests; each of its workers has a keeper of its own
    mark = f"{os.getpid()}-{os.urandom(8).hex()}"
    session.config.stash[KEEPER] = subprocess.Popen(
        [sys.executable, "-I", ROOT / "tests" / "leftovers.py", mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for pytest; the keeper hears of it by the end of its input
    )
    os.environ["SDMOUNT_TEST_SESSION"] = mark  # after the keeper, which is not to end itself


@pytest.fixture(scope="session", autouse=True)
def _session_directory(tmp_path_factory: pytest.TempPathFactory, announce: Callable[[Path], None]) -> None:
    announce(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def announce(pytestconfig: pytest.Config) -> Callable[[Path], None]:
    """Tell the keeper about a directory: what is mounted in it at the end was left behind."""
    return lambda base: _tell(pytestconfig, f"base {base}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("timeout")
    limit = marker.args[0] if marker and marker.args else item.config.getoption("timeout", None)
    limit_s = float(item.config.getini("timeout") if limit is None else limit)
    if limit_s and not item.config.getoption("usepdb"):
        _tell(item.config, f"limit {limit_s + STUCK_S}")
    try:
        return (yield)
    finally:
        _tell(item.config, "idle")


def _tell(config: pytest.Config, line: str) -> None:
    keeper = config.stash[KEEPER]
    assert keeper.stdin is not None
    keeper.stdin.write(line + "\n")
    keeper.stdin.flush()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if keeper := session.config.stash.get(KEEPER, None):
        session.config.stash[LEFT_BEHIND], _ = keeper.communicate(timeout=60)
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left behind"] = session.config.stash[LEFT_BEHIND]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended: what it left behind is told with the rest."""
    stash = node.config.stash
    stash[LEFT_BEHIND] = stash.get(LEFT_BEHIND, "") + getattr(node, "workeroutput", {}).get("left behind", "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What belongs above the closing line: leftovers, and the checks that tools/test ran before the tests."""
    for line in config.stash.get(LEFT_BEHIND, "").splitlines():
        terminalreporter.write_line(f"left behind and ended: {line}", yellow=True)
    if failed := os.environ.get("SDMOUNT_CHECKS_FAILED"):
        terminalreporter.write_line(f"FAILED before the tests: {failed} (see above)", red=True)
