"""The program `scan`: how long until a tree is known, and until it is known that nothing changed.

The yardsticks are what a person has without us, in the same round: `find -printf` over the tree (names and
attributes) and `b3sum` over all files (their full hashes). First index is against both together, everything
else against `find` alone.

A library is made anew in every round; the tree is not. Starting the `sd` client costs a tenth of a second
or two, which is much beside a `find`: it is measured and taken off where it is not what we ask about.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median

from . import machine, options, report
from .corpus import Shape, grow
from .options import say
from .processes import Failed, timed
from .report import Aim, Samples
from .sdmount import Memory, Sdmount
from .workspace import Workspace

SEED = 20_241
FILES = 200_000
FILES_SMOKE = 1_000
FILES_PER_DIRECTORY = 20
MAX_BYTES = 4 << 10
LIMIT_S = 1_800.0

FIND = ["find", ".", "-printf", "%s %T@ %i\n"]
B3SUM = ["sh", "-c", "find . -type f -print0 | xargs -0 b3sum"]
YARDSTICKS = {
    "first index, listed": "find",
    "first index, idle": "find + b3sum",
    "rescan, no change": "find",
    "restart to idle": "find",
}
AIMS = {aim.row: aim for aim in (Aim("rescan, no change", 3.0, over="find"),)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when our commands are not there: the yardsticks are printed), 1 when they fail."""
    chosen = _options(arguments)
    files = chosen.files or (FILES_SMOKE if chosen.smoke else FILES)
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.dir, keep=chosen.keep) as workspace:
            return _Run(chosen, files, workspace).go()
    except (Failed, OSError) as error:
        print(f"scan: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, files: int, workspace: Workspace) -> None:
        self.chosen = chosen
        self.workspace = workspace
        self.shape = Shape(files, max(1, files // FILES_PER_DIRECTORY), max_bytes=MAX_BYTES, even_sizes=True)
        self.samples = Samples(rounds=chosen.rounds or (1 if chosen.smoke else 3))
        self.client_s: list[float] = []
        self.database_bytes: list[int] = []
        self.memory: list[Memory] = []

    def go(self) -> int:
        shape = self.shape
        say(f"making {shape.files} files in {shape.directories} directories in {self.workspace.disk}")
        self.tree = grow(self.workspace.disk / "tree", self.shape, SEED)
        failed = False
        for number in range(self.samples.rounds):
            say(f"round {number + 1} of {self.samples.rounds}: yardsticks")
            self._measure_yardsticks(number)
            product = Sdmount(self.workspace.disk / f"round-{number}", self.chosen.commands)
            reason = product.missing()
            if reason is not None:
                self.samples.note(f"skipped: sdmount: {reason}")
                continue
            say(f"round {number + 1} of {self.samples.rounds}: sdmount")
            try:
                self._measure(product, number)
            except Failed as error:
                failed = True
                self.samples.note(f"failed: sdmount: {error}")
        self._print()
        return 1 if failed else 0

    def _measure_yardsticks(self, number: int) -> None:
        timed(FIND, cwd=self.tree.root, deadline_s=LIMIT_S)  # the tree in memory, as it is for us after it
        self._cool()
        find_s = timed(FIND, cwd=self.tree.root, deadline_s=LIMIT_S)
        self.samples.add("find -printf", "find", number, find_s)
        for row in YARDSTICKS:
            self.samples.add(row, "find", number, find_s)
        if machine.version("b3sum") is None:
            self.samples.note("left out: b3sum is not installed")
            return
        self._cool()
        b3sum_s = timed(B3SUM, cwd=self.tree.root, deadline_s=LIMIT_S)
        self.samples.add("b3sum of all files", "b3sum", number, b3sum_s)
        self.samples.add("first index, idle", "find + b3sum", number, find_s + b3sum_s)

    def _measure(self, product: Sdmount, number: int) -> None:
        """One library from nothing: first index, rescan, restart; then its size."""

        def add(row: str, seconds: float) -> None:
            self.samples.add(row, "sdmount", number, seconds)

        try:
            product.mount()
            product.wait_idle(LIMIT_S)
            client_s = min(product.sd("status").seconds for _ in range(3))
            self.client_s.append(client_s)

            self._cool()
            listed_s, idle_s = self._first_index(product)
            if listed_s is None:
                self.samples.note("first index, listed: .vdfs/status.json tells no pending_dirs")
            else:
                add("first index, listed", _without(client_s, listed_s))
            add("first index, idle", _without(client_s, idle_s))

            self._cool()
            start = time.perf_counter()
            product.sd("location", "rescan", self.tree.root.name)
            self._wait(product)
            add("rescan, no change", _without(client_s, time.perf_counter() - start))
            self.memory.append(product.memory())
            product.unmount()

            self._cool()
            start = time.perf_counter()
            product.mount()
            self._wait(product)
            add("restart to idle", time.perf_counter() - start)
        finally:
            product.unmount()
        self.database_bytes.append(product.database_bytes())

    def _first_index(self, product: Sdmount) -> tuple[float | None, float]:
        """Seconds until every entry is listed (None when not told), and until nothing is left to do."""
        start = time.perf_counter()
        product.sd("location", "add", self.tree.root)
        listed_s = None
        for status in product.follow(LIMIT_S):
            if listed_s is None and status.get("pending_dirs") == 0:
                listed_s = time.perf_counter() - start
        return listed_s, time.perf_counter() - start

    @staticmethod
    def _wait(product: Sdmount) -> None:
        for _ in product.follow(LIMIT_S):
            pass

    def _cool(self) -> None:
        if self.chosen.cold:
            machine.drop_caches(machine.EVERYTHING)

    def _print(self) -> None:
        header = self._header()
        table = [["work", "seconds", "yardstick", "its seconds", "ratio", "aim"]]
        for row, yardstick in (("find -printf", "find"), ("b3sum of all files", "b3sum")):
            taken = self.samples.seconds_of(row, yardstick)
            table.append([row, "-", yardstick, report.duration(taken) if taken else "-", "-", ""])
        table += [self._row(row, yardstick) for row, yardstick in YARDSTICKS.items()]
        facts = []
        if self.database_bytes:
            each = median(self.database_bytes) / (self.tree.entries + 1)
            facts.append(report.labelled("database", f"{each:.0f} bytes an entry, everything in it included"))
        if self.memory:
            peak = report.mebibytes(max(memory.peak_bytes for memory in self.memory))
            facts.append(report.labelled("memory", f"at most {peak} in the mount's process (not its workers)"))
        sections = [header, report.aligned(table), facts, self.samples.notes]
        print("\n\n".join("\n".join(lines) for lines in sections if lines))
        if self.chosen.json:
            report.write_json(self.chosen.json, [*header, *facts], self.samples)

    def _row(self, row: str, yardstick: str) -> list[str]:
        mine, theirs = self.samples.seconds_of(row, "sdmount"), self.samples.seconds_of(row, yardstick)
        ratios = self.samples.ratios(row, "sdmount", yardstick)
        aim = AIMS.get(row)
        goal = f"<= {aim.limit:g}" if aim else ""
        if aim and ratios:
            goal += f": {report.judged(median(ratios), aim.limit)}"
        times = [report.duration(seconds) if seconds is not None else "-" for seconds in (mine, theirs)]
        return [row, times[0], yardstick, times[1], report.cell(ratios), goal]

    def _header(self) -> list[str]:
        client = report.duration(median(self.client_s)) if self.client_s else "(not measured)"
        state = "warm: the tree is in memory (--cold: it is not)"
        if self.chosen.cold:
            state = "cold: drop_caches 3 before each"
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            "How long until a tree is known: time / time of the yardstick in the same round",
            report.labelled("machine", machine.describe()),
            report.labelled("versions", f"{machine.version('find')}; {machine.version('b3sum') or 'no b3sum'}"),
            report.labelled(
                "data",
                f"{self.shape.files} files of 0 to {MAX_BYTES} B in {self.shape.directories} directories, on "
                f"{machine.file_system_of(self.workspace.disk)}; seed {SEED}",
            ),
            report.labelled(
                "method",
                f"median of {self.samples.rounds} rounds, a new library in each; {state}; one sd command "
                f"takes {client}: it is taken off `first index` and `rescan`",
            ),
            report.labelled("noise", report.NOISE),
        ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "First index and rescan against find and b3sum."
    parser = options.parser("scan", about, smoke=f"{FILES_SMOKE} files")
    parser.add_argument("--files", type=options.count, metavar="N", help=f"how many files (default {FILES})")
    parser.add_argument("--cold", action="store_true", help="drop caches before each measurement (root)")
    chosen = parser.parse_args(arguments)
    if chosen.cold and not machine.can_drop_caches():
        parser.error("--cold needs root: /proc/sys/vm/drop_caches cannot be written")
    return chosen


def _without(client_s: float, whole_s: float) -> float:
    """A time less the start of the client; a smoke run may take less than that varies: then 0.1 ms."""
    return max(whole_s - client_s, 1e-4)
