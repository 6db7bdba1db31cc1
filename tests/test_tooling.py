"""The launchers, the set-up behind them, the locks and the wheel: what a person meets before our first line.

Failures are made for real where that is quick (an index nobody listens on, a folder of somebody else's) and
otherwise on a machine of stand-ins: a PATH that holds the few programs of a bare system and whatever else the
test puts there. Each must end in one line that names the thing and the cure. A whole set-up takes a network
and half a minute; that one was running before these tests could.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
SETUP = ROOT / "tools" / "setup"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What tools/setup takes for granted: coreutils, findutils, grep, awk and util-linux.
BARE = "awk cat cut dirname env find flock grep head id ls mkdir readlink rm sh sha256sum tail tr true".split()


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def machine(tmp_path):
    """A bare machine: PATH is one folder. Call it with NAME="shell script" to add programs."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def add(**scripts: str) -> dict[str, str]:
        for name, script in (dict.fromkeys(BARE, "") | scripts).items():
            program = programs / name.replace("_", "-")
            program.unlink(missing_ok=True)
            if script:
                program.write_text(f"#!/bin/sh\n{script}\n")
                program.chmod(0o755)
            else:
                program.symlink_to(shutil.which(name) or pytest.skip(f"this system has no {name}"))
        return {
            "PATH": str(programs),
            "SDMOUNT_VENV": str(tmp_path / "venv"),
            "SDMOUNT_FUSE_DEVICE": "/dev/null",
        }

    return add


# A Python that is complete: this one, behind a script because a link to it would lose its standard library.
REAL_PYTHON = f'exec "{os.path.realpath(sys.executable)}" "$@"'


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    """The one line a failed set-up ends with, nothing on standard output, no traceback."""
    assert result.returncode == 1
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("set-up: installing")]
    assert len(lines) == 1, result.stderr
    return lines[0]


# -- a machine that is ready ---------------------------------------------------------------------------------


def test_a_ready_checkout_is_seen_at_once(tmp_path):
    """Nothing is missing: the interpreter is printed, from any folder, and nobody waits: a tenth of a second where the
    machine has nothing else to do, and far less than asking any program for what is there."""
    if not (Path(sys.prefix) / ".made-by-sdmount").exists():
        pytest.skip("these tests were not started by tools/test, so no set-up made their environment")
    durations_s = []
    for _ in range(5):
        start_s = time.perf_counter()
        result = run(SETUP, "--no-mount", cwd=tmp_path, SDMOUNT_VENV=sys.prefix)
        durations_s.append(time.perf_counter() - start_s)
        assert (result.stdout, result.stderr) == (f"{sys.prefix}/bin/python\n", "")
    assert min(durations_s) < 1.0


@pytest.mark.parametrize(
    ("tool", "module"), [("sdmount", "fusefs.sdmount"), ("sdumount", "fusefs.sdumount"), ("sd", "vdfs.cli")]
)
def test_a_launcher_hands_over_folder_and_words_unchanged(machine, tmp_path, tool, module):
    """Through a symlink to it; the checkout is on the path, the caller's folder is not."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    python = venv / "bin" / "python"
    python.write_text('#!/bin/sh\n[ "$1" != -I ] || { echo tag; exit; }\nprintf "%s\\0" "$PWD" "$PYTHONPATH" "$@"\n')
    python.chmod(0o755)
    (venv / "libfuse").write_text("/\n")
    (venv / ".stamp-run").write_text(f"tag\n{hashlib.sha256((ROOT / 'requirements.lock').read_bytes()).hexdigest()}\n")
    caller = tmp_path / "a b"
    caller.mkdir()
    (caller / "link").symlink_to(ROOT / "tools" / tool)
    words = ["/mnt", "-f", "", "two  words", "*", "--", "a\nb", "--dev"]
    result = run("./link", *words, cwd=caller, PYTHONPATH="/elsewhere", **machine(fusermount3="exit"))
    assert result.stderr == ""
    assert result.stdout.split("\0")[:-1] == [str(caller), str(ROOT), "-m", module, *words]


# -- a machine that is not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["sdmount", "test", "setup"])
def test_without_a_fuse_device_there_is_one_line_with_the_cure(machine, tool):
    """Said at once, before anything is installed for nothing."""
    line = only_line(run(ROOT / "tools" / tool, **machine() | {"SDMOUNT_FUSE_DEVICE": "/nonexistent/fuse"}))
    assert "no /nonexistent/fuse" in line
    assert "modprobe fuse" in line
    assert "--device /dev/fuse" in line


def test_a_python_too_old_is_named(machine):
    """What was found, what is needed."""
    old = 'case "$*" in *"print("*) echo 3.9 ;; *) exit 1 ;; esac'
    line = only_line(run(SETUP, **machine(python3=old)))
    assert "Python 3.11 or newer is needed" in line
    assert "/python3 is 3.9" in line


def test_without_a_compiler_and_a_package_manager_everything_missing_is_named(machine):
    """A system we have no words for: the person is told all of it at once."""
    line = only_line(run(SETUP, **machine(python3=REAL_PYTHON)))
    assert "missing: fusermount3 compiler pkg-config headers-libfuse3;" in line
    assert "package manager" in line


def test_without_root_and_sudo_the_command_for_root_is_given(machine):
    """Nothing is tried that cannot work."""
    line = only_line(run(SETUP, **machine(python3=REAL_PYTHON, id="echo 1000", apt_get="exit 1")))
    assert (
        "run 'apt-get install -y --no-install-recommends fuse3 gcc libc6-dev pkg-config libfuse3-dev' as root" in line
    )


@pytest.mark.parametrize(
    ("manager", "command"),
    [
        ("apt_get", "apt-get install -y --no-install-recommends fuse3 gcc libc6-dev pkg-config libfuse3-dev"),
        ("dnf", "dnf install -y fuse3 gcc glibc-devel pkgconf-pkg-config fuse3-devel"),
        ("pacman", "pacman -S --needed --noconfirm fuse3 gcc pkgconf"),
        ("zypper", "zypper --non-interactive install fuse3 gcc glibc-devel pkg-config fuse3-devel"),
    ],
)
@pytest.mark.parametrize("user", ["0", "1000"])
def test_each_package_manager_is_asked_in_its_own_words(machine, tmp_path, manager, command, user):
    """As root or through sudo, announced before it is done; a manager without a network is one line."""
    asked = tmp_path / "asked"
    failing = f'echo "$0 $*" >>{asked}; echo "Could not resolve host"; exit 1'
    # sudo and env hand on, as the real ones do.
    path = machine(
        python3=REAL_PYTHON,
        id=f"echo {user}",
        sudo='[ "$1" != -n ] || shift; exec "$@"',
        **{manager: failing},
    )
    result = run(SETUP, **path)
    sudo = "" if user == "0" else "sudo "
    assert f"set-up: installing system packages: {sudo}{command}" in result.stderr.splitlines()
    assert "no network: check the connection" in only_line(result)
    name, _, words = command.partition(" ")
    assert re.search(rf"/{name} .*{re.escape(words)}$", asked.read_text().splitlines()[-1])


def test_without_a_network_there_is_one_line_and_nothing_half_made_counts(tmp_path):
    """An earlier run was cut short, another is at work: ours takes its turn, clears up, ends in one line."""
    venv = tmp_path / "venv"
    (venv / "lib").mkdir(parents=True)
    for name in (".made-by-sdmount", ".stamp-run", "busy", "lib/half"):
        (venv / name).touch()
    offline = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "1",
    }
    with (tmp_path / "venv.lock").open("w") as lock:
        # Another set-up is at work; when it ends without having made anything, it is our turn.
        fcntl.flock(lock, fcntl.LOCK_EX)
        environment = {**os.environ, **offline, "SDMOUNT_VENV": str(venv), "PIP_FIND_LINKS": ""}
        process = subprocess.Popen(
            [SETUP, "--no-mount"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "set-up: another set-up is at work, waiting for it\n"
            fcntl.flock(lock, fcntl.LOCK_UN)
            stdout, stderr = process.communicate(timeout=100)
        finally:
            process.kill()
            process.wait()
    line = only_line(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    if "missing:" in line:
        pytest.skip(f"this machine lacks what the set-up installs: {line}")
    assert "no network: check the connection" in line
    assert str(venv) + ".log" in line
    assert not list(venv.glob(".stamp-*"))
    assert not (venv / "lib" / "half").exists()


def test_a_folder_of_somebody_elses_is_left_alone(tmp_path):
    """Not emptied, whatever SDMOUNT_VENV says."""
    (tmp_path / "mine" / "thesis").mkdir(parents=True)
    line = only_line(run(SETUP, "--no-mount", SDMOUNT_VENV=str(tmp_path / "mine")))
    assert "was not made by this set-up" in line
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    """No place for the environment, and the variable that gives it another."""
    (tmp_path / "file").touch()
    line = only_line(run(SETUP, "--no-mount", SDMOUNT_VENV=str(tmp_path / "file" / "venv")))
    assert "set SDMOUNT_VENV" in line


def test_an_unknown_argument_is_named():
    """The set-up's own words are few; a launcher's are passed on and never come here."""
    assert "unknown argument: --quick" in only_line(run(SETUP, "--quick"))


# -- locks and wheel -----------------------------------------------------------------------------------------


def pins(lock: str) -> dict[str, str]:
    """Name -> version of each requirement of a lock file; every one has a hash."""
    found = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / lock).read_text())[1:]:
        name, version = re.match(r"([\w.-]+)==([\w.]+)", block).groups()
        assert "--hash=sha256:" in block, name
        found[canonicalize_name(name)] = version
    return found


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements-dev.lock", PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]),
        ("requirements-build.lock", PROJECT["dependency-groups"]["build"]),
    ],
)
def test_a_lock_holds_what_the_project_asks_for(lock, wanted):
    """After a change of pyproject.toml: tools/lock."""
    locked = pins(lock)
    for text in wanted:
        requirement = Requirement(text)
        assert locked[canonicalize_name(requirement.name)] in requirement.specifier


def test_the_dev_lock_holds_the_run_lock():
    """The tests see exactly the versions that people get, and one environment serves both."""
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


def test_locks_name_no_index():
    """They work with the package index, or the mirror, of whoever installs."""
    for lock in ROOT.glob("*.lock"):
        assert not re.search(r"://|^-|^\s+--(?!hash)", lock.read_text(), re.MULTILINE), lock.name


def test_the_wheel_holds_the_four_packages_and_nothing_else(tmp_path):
    """With every sub-package, its data files, and the three programs."""
    result = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = {name.split("/")[0] for name in names if name.startswith("sdmount-")}
        programs = archive.read(f"{metadata}/entry_points.txt").decode()
    packages = ("fusefs", "index", "sync", "vdfs")
    assert {name.split("/")[0] for name in names} - {metadata} <= set(packages)
    source = {str(file.relative_to(ROOT)) for package in packages for file in (ROOT / package).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == source
    assert programs.split("\n\n")[0].splitlines()[1:] == [
        "sd = vdfs.cli:main",
        "sdmount = fusefs.sdmount:main",
        "sdumount = fusefs.sdumount:main",
    ]


def test_every_package_has_its_init():
    """A folder without one is imported all the same, but is read as nobody's room."""
    for package in ("fusefs", "index", "sync", "vdfs"):
        for folder in {file.parent for file in (ROOT / package).rglob("*.py")}:
            assert (folder / "__init__.py").exists(), folder
