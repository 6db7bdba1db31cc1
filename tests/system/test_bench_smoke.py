"""The benchmark programs work, at a size that takes seconds: they must not rot until they are needed.

Nothing here looks at a time. What is held: they end with 0, print their table with a row for every workload
and a figure in every cell (or the reason why not), fail when our own mount fails, and leave nothing behind,
also when they are interrupted.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "tools" / "bench"
FILE_SYSTEMS = ("native", "sdmount", "pyfuse3", "mergerfs", "mergerfs+", "bindfs", "rclone")
MOUNT_ROWS = {
    "find": ("find cold", "find warm"),
    "ls -lR": ("ls -lR cold", "ls -lR warm"),
    "du": ("du cold", "du warm"),
    "tar": ("tar cold", "tar warm"),
    "grep": ("grep cold", "grep warm"),
    "getfattr": ("getfattr cold", "getfattr warm"),
    "stat": ("stat cold", "stat warm"),
    "absent": ("absent cold", "absent warm"),
    "seqread": ("seqread cold", "seqread warm", "seqread mount cold"),
    "randread": ("randread cold", "randread warm"),
    "seqwrite": ("seqwrite",),
    "create+delete": ("create", "delete"),
}
SCAN_ROWS = (
    "shallow: listed",
    "shallow: searchable",
    "content: all hashes",
    "content: idle",
    "rescan, no change",
    "restart to idle",
    "restart, 1 % changed",
)
QUIET_ROWS = tuple(
    f"{call} {place} {quantile}"
    for place in ("new", "warm")
    for call in ("stat", "open", "read")
    for quantile in ("p50", "p99")
)
MILLION_ROWS = (
    "index to idle",
    "restart: mount ready",
    "restart to idle",
    "ls at once, median",
    "ls of the largest",
)
SEARCH_ROWS = ("substring of 4", "prefix of 5", "word", "rare word", "two letters", "tag, kind and date")
LINK_ROWS = ("plain TCP", "channel", "channel, verified", "channel, ChaCha20, verified")
SYNC_ROWS = ("sdmount", "syncthing", "SQLite alone")
LIVE_ROWS = ("attribute to attribute", "directory to name", "file to name")
LIMIT_S = 300
LOOK_S = 0.05

pytestmark = pytest.mark.timeout(LIMIT_S + 60)


def test_mount_measures_every_workload_on_every_file_system_or_says_why_not(tmp_path):
    """A figure in every cell; a peer is absent only with its reason."""
    printed = run("mount", tmp_path, "--storm-dir", str(tmp_path))
    table = table_of(printed)
    for name in FILE_SYSTEMS:
        skipped = reason_for(printed, f"skipped: {name}")
        print(skipped or f"measured: {name}")
        for workload, rows in MOUNT_ROWS.items():
            left_out = reason_for(printed, f"left out: {workload}")
            failed = reason_for(printed, f"failed: {name}: {workload}")
            for row in rows:
                assert left_out or row in table
                assert left_out or skipped or failed or is_figure(table[row][name]), (row, name, printed)
    assert "failed: sdmount" not in printed
    assert nothing_left(tmp_path) == []


def test_scan_measures_first_index_and_rescan_or_says_why_not(tmp_path):
    """Ours beside the yardsticks; without our commands the yardsticks alone."""
    printed = run("scan", tmp_path)
    table = table_of(printed)
    skipped = "skipped: sdmount: no " in printed
    absent = {tool for tool in ("b3sum", "updatedb") if re.search(f"^left out: .*{tool} is not", printed, re.MULTILINE)}
    for row in SCAN_ROWS:
        lacks_its_own = any(tool in table[row]["yardstick"] for tool in absent)
        assert is_figure(table[row]["its seconds"]) or lacks_its_own, printed
        assert skipped or is_figure(table[row]["seconds"]), printed
    for mode in ("shallow", "content"):
        assert skipped or re.search(rf"^{mode} +\d+ \+ \d+ bytes an entry", printed, re.MULTILINE), printed
    assert skipped or printed.count("in the mount's process") == 2, printed
    assert nothing_left(tmp_path) == []


def test_quiet_measures_every_call_at_rest_and_while_an_index_is_made_or_says_why_not(tmp_path):
    """Names that are new and names that are known, at the mount; beneath it as the yardstick."""
    printed = run("quiet", tmp_path)
    table = table_of(printed)
    skipped = "skipped: sdmount: no " in printed
    for row in QUIET_ROWS:
        for column in ("at rest", "indexing", "ratio", "beneath"):
            assert skipped or is_figure(table[row][column]), printed
    assert nothing_left(tmp_path) == []


def test_million_measures_a_restart_or_says_why_not(tmp_path):
    """Every row has our time; without our commands the yardsticks alone."""
    printed = run("million", tmp_path)
    table = table_of(printed)
    skipped = "skipped: sdmount: no " in printed
    for row in MILLION_ROWS:
        assert row in table
        assert skipped or is_figure(table[row]["sdmount"]), printed
    assert skipped or printed.count("(at most ") == 3, printed
    assert nothing_left(tmp_path) == []


def test_search_measures_every_kind_of_query_or_says_why_not(tmp_path):
    """First hits and all hits of ours; plocate and fd where they are installed."""
    printed = run("search", tmp_path)
    table = table_of(printed)
    skipped = "skipped: sdmount: no " in printed
    for row in SEARCH_ROWS:
        for column in ("in process", "socket", "all hits"):
            assert skipped or is_figure(table[row][column]), printed
        for peer in ("plocate", "fd"):
            absent = reason_for(printed, f"skipped: {peer}") or row == SEARCH_ROWS[-1] or skipped
            assert absent or is_figure(table[row][peer]), printed
    assert skipped or re.search(r"^index +\d+ bytes a name", printed, re.MULTILINE), printed
    assert nothing_left(tmp_path) == []


def test_link_measures_every_way_or_says_why_not(tmp_path):
    """Plain TCP and ours; ssh where there is an sshd; then the small questions."""
    printed = run("link", tmp_path)
    table = table_of(printed)
    skipped = "skipped: sdmount: no " in printed
    for row in LINK_ROWS:
        for column in ("wall", "for the processor", "share of plain TCP", "taking end alone"):
            assert skipped or is_figure(table[row][column]), printed
    assert skipped or reason_for(printed, "skipped: ssh") or is_figure(table["ssh, aes128-gcm"]["for the processor"])
    assert skipped or re.search(r"^channel +[\d.]+ [um]s +[\d.]+ [um]s/call", printed, re.MULTILINE), printed
    assert nothing_left(tmp_path) == []


def test_sync_measures_every_part_or_says_why_not(tmp_path):
    """Backfill beside its floor and syncthing where it is installed; live, catching up and idle of ours."""
    printed = run("sync", tmp_path)
    table = table_of(printed)
    skipped = "skipped: sdmount: no " in printed
    for row in SYNC_ROWS:
        absent = skipped or reason_for(printed, f"skipped: {row}") or reason_for(printed, f"failed: {row}")
        print(absent or f"measured: {row}")
        assert absent or is_figure(table[row]["rows a second"]), printed
    for row in LIVE_ROWS:
        assert skipped or re.search(rf"^{row} +\d+ +[\d.]+ [um]?s +[\d.]+ [um]?s", printed, re.MULTILINE), printed
    assert skipped or re.search(r"^tags set while apart +\d+ +[\d.]+ [um]?s", printed, re.MULTILINE), printed
    assert skipped or len(re.findall(r"^a device (?:alone|connected) +[\d.]+ s +\d+", printed, re.MULTILINE)) == 2
    assert nothing_left(tmp_path) == []


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    """Ctrl-C in the middle: no mount, no process, no file stays."""
    process = start("mount", tmp_path, "--storm-dir", str(tmp_path), "--rounds", "1000", "--peers", "native,sdmount")
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 2 "):
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT_S)
    finally:
        stop(process)
    assert process.returncode == 128 + signal.SIGINT
    assert nothing_left(tmp_path) == []


def test_a_mount_of_ours_that_refuses_fails_the_run(tmp_path):
    """A benchmark that skipped our own failure would be green on the day it matters."""
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("sdmount", "sdumount", "sd"):
        (commands / name).write_text("#!/bin/sh\necho 'the store is from the future' >&2\nexit 3\n")
        (commands / name).chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    arguments = ["--commands", str(commands), "--peers", "sdmount", "--only", "stat"]
    process = start("mount", work, "--storm-dir", str(work), *arguments)
    printed, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "skipped: sdmount: sdmount: the store is from the future" in printed
    assert is_figure(table_of(printed)["stat warm"]["native"])
    assert nothing_left(work) == []


def run(program: str, directory: Path, *arguments: str) -> str:
    """What a smoke run printed, after it ended well."""
    process = start(program, directory, *arguments)
    try:
        printed, complaints = process.communicate(timeout=LIMIT_S)
    finally:
        stop(process)
    assert process.returncode == 0, f"{printed}\n{complaints}"
    return printed


def start(program: str, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(BENCH / program), "--smoke", "--dir", str(directory), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str]) -> None:
    """End a run that is still there, kindly, so that it unmounts."""
    if process.poll() is None:
        process.terminate()
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def table_of(printed: str) -> dict[str, dict[str, str]]:
    """The rows of the table by label; each a cell by column."""
    lines = printed.splitlines()
    rule = next(number for number, line in enumerate(lines) if re.fullmatch(r"[- ]*--[- ]*", line))
    columns = re.split(r" {2,}", lines[rule - 1].strip())
    table = {}
    for line in lines[rule + 1 :]:
        if not line.strip():
            break
        cells = re.split(r" {2,}", line.strip())
        table[cells[0]] = dict(zip(columns, cells, strict=False))
    return table


def reason_for(printed: str, what: str) -> str | None:
    """The line below the table that says why something has no figure."""
    return next((line for line in printed.splitlines() if line.startswith(f"{what}: ")), None)


def is_figure(cell: str) -> bool:
    return re.match(r"\d", cell) is not None


def nothing_left(directory: Path) -> list[str]:
    """Mounts, processes and files of a run that are still there; processes get a moment to be gone."""
    deadline = time.monotonic() + 10
    while processes_in(directory) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory}/" in line]
    return [*mounts, *processes_in(directory), *os.listdir(directory)]


def processes_in(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"{directory}/sdbench-" in command:
            found.append(command.replace("\0", " "))
    return found
