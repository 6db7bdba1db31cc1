"""kill -9 at any moment: after the next start nothing acknowledged is lost, and the index agrees with the disk.

The writers are tools/check/crashwriter, proved on a native directory elsewhere (tests/contract). A round counts only if
a writer was at work when the server died and something had been acknowledged. That such a test can fail is shown by a
build that answers before it commits.
"""

import json
import os
import random
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import PROGRAM_S, Mounted, eventually

WRITERS = Path(__file__).resolve().parents[2] / "tools" / "check" / "crashwriter"
ROOT = WRITERS.parents[2]

# A server that says "done" first and commits up to two seconds later. Python imports this module by itself at the
# start of every process that has its directory on PYTHONPATH.
REPLY_BEFORE_COMMIT = """
import importlib.abc, importlib.machinery, sys, time

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "index.store.store":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        def patched(module):
            execute(module)
            store, began_s = module.Store, [0.0]
            begin, commit = store.begin, store.commit
            def late_begin(self):
                if not self.db.in_transaction:
                    began_s[0] = time.monotonic()
                    begin(self)
            def late_commit(self):
                if time.monotonic() - began_s[0] > 2:
                    commit(self)
            store.begin, store.commit = late_begin, late_commit
        spec.loader.exec_module = patched
        return spec

sys.meta_path.insert(0, Finder())
"""


class Rounds:
    """One library that is killed again and again."""

    def __init__(self, library: Mounted, seed: int) -> None:
        self.library = library
        self.dice = random.Random(seed)
        self.number = 0
        self.acked = 0
        self.source = library.folder("Files")
        self.options: tuple[str, ...] = ()
        self.env: dict[str, str] = {}

    def start(self) -> None:
        new = not (self.library.library_dir / "library.db").exists()
        # In every other round the tags lie in the library alone: no copy on the file can make good a loss.
        self.options = ("-o", "xattr=library") if self.number % 2 else ()
        done = self.library.sdmount(*([self.source] if new else []), options=self.options, env=self.env)
        assert done.returncode == 0, f"{done}\n{self.library.log()}"

    def kill_once(self) -> list[str]:
        """Write, kill, start again, compare; what was wrong. A round that does not count is done again."""
        for _ in range(5):
            self.number += 1
            self.start()
            ack = self.library.base / f"ack-{self.number}"
            report = self.write_and_kill(ack)
            if report["round_counts"]:
                self.acked += report["acked"]
                return self.compare(ack)
            self.start()
            self.library.unmount()
        raise AssertionError("in five rounds nobody was at work at the moment of the kill")

    def write_and_kill(self, ack: Path) -> dict[str, Any]:
        command = [
            sys.executable, str(WRITERS), "--json", f"--mount={self.library.mnt / 'Files'}", f"--ack={ack}",
            "--seconds=60", "--writers=3", f"--seed={self.dice.randrange(1 << 30)}",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/") as writers:
            try:
                eventually(lambda: ack.exists() and b'"ack"' in ack.read_bytes(), "something is acknowledged", 30)
                eventually(self.moment(), "the moment has come", 30)
            finally:
                self.library.kill()
                printed, complaints = writers.communicate(timeout=PROGRAM_S)
        assert writers.returncode == 0, f"a writer got a wrong answer before the kill: {printed}{complaints}"
        return dict(json.loads(printed))

    def moment(self) -> Any:
        """A random time of up to a second and a half, by its own clock."""
        until = os.times().elapsed + self.dice.uniform(0.02, 1.5)
        return lambda: os.times().elapsed > until

    def compare(self, ack: Path) -> list[str]:
        self.start()
        done = subprocess.run(
            [
                *(sys.executable, str(WRITERS), "--verify", "--json"),
                *(f"--mount={self.library.mnt / 'Files'}", f"--ack={ack}"),
            ],
            capture_output=True, text=True, check=False, timeout=PROGRAM_S, cwd="/",
        )  # fmt: skip
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        assert (done.returncode == 0) == report["ok"]
        problems = [str(problem) for problem in report["problems"]]
        self.library.wait_idle()
        checked = self.library.run("vdfs.cli", "--data-dir", self.library.data, "index", "verify", "--content")
        if checked.returncode != 0:
            problems.append(f"index verify: exit {checked.returncode}\n{checked.stdout}{checked.stderr}")
        self.library.unmount()
        return problems


def nothing_is_lost(library: Mounted, rounds: int) -> None:
    seed = secrets.randbelow(1 << 32)
    print(f"seed {seed}")
    run = Rounds(library, seed)
    for number in range(rounds):
        problems = run.kill_once()
        assert problems == [], f"seed {seed}, round {number}:\n" + "\n".join(problems) + library.log()[-3000:]
    print(f"{rounds} kills, {run.acked} acknowledged operations, nothing lost")


def test_a_few_kills_lose_nothing(library):
    nothing_is_lost(library, 3)


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_hundred_kills_lose_nothing(library):
    nothing_is_lost(library, 100)


def test_a_server_that_answers_before_it_commits_is_found_out(library):
    """The test's own proof: with such a build a round fails soon."""
    library.may_complain = True
    hook = library.base / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(REPLY_BEFORE_COMMIT)
    run = Rounds(library, secrets.randbelow(1 << 32))
    run.start()
    library.unmount()
    run.env = {"PYTHONPATH": f"{hook}:{ROOT}"}
    for _ in range(5):
        if run.kill_once():
            return
    raise AssertionError("five kills of a server that loses up to two seconds, and nobody noticed")
