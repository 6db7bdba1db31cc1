"""The program `scan`: how long until a tree is known, and until it is known that nothing changed.

The yardsticks are what a person has without us, in the same round: `find -printf` over the tree (names and
attributes), plocate's `updatedb` (a database of names), `b3sum` over all files (their full hashes). A shallow index
is against `updatedb`, hashing against `b3sum`, all of a content index against `find` and `b3sum` together, everything
else against `find` alone.

Two libraries are made anew in every round, a shallow one and one with contents; the tree is not. How long a phase took
its job says; where it ends behind the job (names that can be searched) or spans a start, the clock does.
"""

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from . import bigfiles, machine, options, report
from .bigfiles import BigFiles
from .corpus import Shape, Tree, grow
from .options import say
from .processes import Failed, timed
from .report import Aim, Samples
from .sdmount import Sdmount
from .workspace import Workspace

SEED = 20_241
FILES = 200_000
FILES_MILLION = 1_000_000
FILES_SMOKE = 1_000
FILES_PER_DIRECTORY = 20
MAX_BYTES = 4 << 10
LIMIT_S = 1_800.0

FIND = ["find", ".", "-printf", "%s %T@ %i\n"]
B3SUM = ["sh", "-c", "find . -type f -print0 | xargs -0 b3sum"]
BOTH = "find + b3sum"
BIG = "big files, not in memory"
YARDSTICKS = {
    "shallow: listed": "updatedb",
    "shallow: searchable": "updatedb",
    "content: listed": "find",
    "content: all hashes": "b3sum",
    "content: idle": BOTH,
    "rescan, no change": "find",
    "restart to idle": "find",
    "restart, 1 % changed": "find",
    BIG: "dd",
}
AIMS = {
    aim.row: aim
    for aim in (
        Aim("shallow: listed", 2.5, over="updatedb"),
        Aim("content: all hashes", 0.7, over="b3sum"),
        Aim("rescan, no change", 1.2, over="find"),
        Aim(BIG, 1.05, over="dd"),
    )
}
AIM_BYTES = 280
CHANGED = 0.01
LOOK_S = 0.02
SAMPLE_S = 0.25


@dataclass
class Costs:
    """What libraries of one mode cost beside time, a figure for each round."""

    library_bytes: list[int] = field(default_factory=list)
    search_bytes: list[int] = field(default_factory=list)
    processor_s: list[float] = field(default_factory=list)
    server_bytes: list[int] = field(default_factory=list)
    own_bytes: list[int] = field(default_factory=list)
    worker_bytes: list[int] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when our commands are not there: the yardsticks are printed), 1 when they fail."""
    chosen = _options(arguments)
    files = chosen.files or (FILES_SMOKE if chosen.smoke else FILES_MILLION if chosen.million else FILES)
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
        self.costs = {"shallow": Costs(), "content": Costs()}

    def go(self) -> int:
        shape = self.shape
        say(f"making {shape.files} files in {shape.directories} directories in {self.workspace.disk}")
        self.tree = grow(self.workspace.disk / "tree", self.shape, SEED)
        self.big = BigFiles(self.workspace.disk / "big", bigfiles.BYTES_SMOKE if self.chosen.smoke else bigfiles.BYTES)
        failed = False
        for number in range(self.samples.rounds):
            say(f"round {number + 1} of {self.samples.rounds}: yardsticks")
            self._measure_yardsticks(number)
            measures = {
                "shallow": self._measure_shallow, "content": self._measure_content, "big files": self._measure_big,
            }  # fmt: skip
            for mode, measure in measures.items():
                home = self.workspace.disk / f"round-{number}-{mode.replace(' ', '-')}"
                product = Sdmount(home, self.chosen.commands)
                reason = product.missing()
                if reason is not None:
                    self.samples.note(f"skipped: sdmount: {reason}")
                    continue
                say(f"round {number + 1} of {self.samples.rounds}: sdmount, {mode}")
                try:
                    measure(product, number)
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
        self._measure_updatedb(number)
        if machine.version("b3sum") is None:
            self.samples.note("left out: b3sum is not installed")
            return
        self._cool()
        b3sum_s = timed(B3SUM, cwd=self.tree.root, deadline_s=LIMIT_S)
        self.samples.add("b3sum of all files", "b3sum", number, b3sum_s)
        self.samples.add("content: all hashes", "b3sum", number, b3sum_s)
        self.samples.add("content: idle", BOTH, number, find_s + b3sum_s)

    def _measure_big(self, product: Sdmount, number: int) -> None:
        """Files that are read at the speed of the disk, if at all."""
        self.samples.add(BIG, "dd", number, self.big.read_by_dd(LIMIT_S))
        try:
            product.mount()
            product.wait_idle(LIMIT_S)
            self.big.forget()
            product.sd("location", "add", self.big.root, "--mode", "content")
            product.wait_idle(LIMIT_S)
            self.samples.add(BIG, "sdmount", number, product.parts_of_newest()["classify"])
        finally:
            product.unmount()

    def _measure_updatedb(self, number: int) -> None:
        """A new database of its own each time: an old one would lend its directories."""
        if machine.version("updatedb") is None or "plocate" not in str(machine.version("updatedb")):
            self.samples.note("left out: plocate's updatedb is not installed")
            return
        made = self.workspace.disk / f"names-{number}.db"
        nothing = [f"--prune{what}=" for what in ("fs", "names", "paths")]
        command = ["updatedb", "-l", "no", *nothing, "-U", str(self.tree.root), "-o", str(made)]
        self._cool()
        updatedb_s = timed(command, cwd=self.tree.root, deadline_s=LIMIT_S)
        made.unlink()
        self.samples.add("updatedb", "updatedb", number, updatedb_s)
        for row, yardstick in YARDSTICKS.items():
            if yardstick == "updatedb":
                self.samples.add(row, "updatedb", number, updatedb_s)

    def _measure_shallow(self, product: Sdmount, number: int) -> None:
        """A library that knows names and attributes."""
        costs = self.costs["shallow"]
        try:
            product.mount()
            product.wait_idle(LIMIT_S)
            self._cool()
            with _costing(product, costs):
                start = time.perf_counter()
                product.sd("location", "add", self.tree.root, "--mode", "shallow")
                deadline = start + LIMIT_S
                while not product.names_indexed() or product.is_behind(self.tree.entries):
                    if time.perf_counter() > deadline:
                        raise Failed(f"not every name can be searched after {LIMIT_S:.0f} s")
                    time.sleep(LOOK_S)
                self.samples.add("shallow: searchable", "sdmount", number, time.perf_counter() - start)
                product.wait_idle(LIMIT_S)
            self.samples.add("shallow: listed", "sdmount", number, product.parts_of_newest()["discover"])
        finally:
            product.unmount()
        _weigh(product, costs)

    def _measure_content(self, product: Sdmount, number: int) -> None:
        """A library that knows what is in files, from nothing; then a rescan and two restarts."""
        costs = self.costs["content"]

        def add(row: str, seconds: float) -> None:
            self.samples.add(row, "sdmount", number, seconds)

        try:
            product.mount()
            product.wait_idle(LIMIT_S)
            self._cool()
            with _costing(product, costs):
                product.sd("location", "add", self.tree.root, "--mode", "content")
                product.wait_idle(LIMIT_S)
            took_s = product.parts_of_newest()
            add("content: listed", took_s["discover"])
            add("content: all hashes", took_s["classify"])
            add("content: idle", sum(took_s.values()))

            self._cool()
            product.sd("location", "rescan", self.tree.root.name)
            product.wait_idle(LIMIT_S)
            add("rescan, no change", product.parts_of_newest()["discover"])
            product.unmount()
            _weigh(product, costs)

            for row, share in (("restart to idle", 0.0), ("restart, 1 % changed", CHANGED)):
                _change(self.tree, share, number)
                self._cool()
                start = time.perf_counter()
                product.mount()
                product.wait_idle(LIMIT_S)  # not by the mount: who asks that slows down what goes on behind
                add(row, time.perf_counter() - start)
                product.unmount()
        finally:
            product.unmount()

    def _cool(self) -> None:
        if self.chosen.cold:
            machine.drop_caches(machine.EVERYTHING)

    def _print(self) -> None:
        header = self._header()
        table = [["work", "seconds", "yardstick", "its seconds", "ratio", "aim"]]
        bare = (("find -printf", "find"), ("updatedb", "updatedb"), ("b3sum of all files", "b3sum"))
        for row, yardstick in bare:
            taken = self.samples.seconds_of(row, yardstick)
            table.append([row, "-", yardstick, report.duration(taken) if taken else "-", "-", ""])
        table += [self._row(row, yardstick) for row, yardstick in YARDSTICKS.items()]
        facts = [line for mode, costs in self.costs.items() if costs.library_bytes for line in self._facts(mode, costs)]
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

    def _facts(self, mode: str, costs: Costs) -> list[str]:
        entries = self.tree.entries + 1
        library, search = (median(some) / entries for some in (costs.library_bytes, costs.search_bytes))
        used_s = median(costs.processor_s)
        memory = (costs.server_bytes, costs.own_bytes, costs.worker_bytes)
        server, own, worker = (report.mebibytes(max(some)) for some in memory)
        return [
            report.labelled(
                mode,
                f"{library:.0f} + {search:.0f} bytes an entry (library.db + search.db), aim <= {AIM_BYTES}: "
                f"{report.judged(library + search, AIM_BYTES)}; {entries / used_s:.0f} entries a second of processor "
                f"time ({used_s / entries * 1e6:.0f} us an entry); memory at most {server} in the mount's process, "
                f"{own} of it its own (the rest is files that it maps), {worker} in a worker",
            )
        ]

    def _header(self) -> list[str]:
        state = "warm: the tree is in memory (--cold: it is not)"
        if self.chosen.cold:
            state = "cold: drop_caches 3 before each"
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            "How long until a tree is known: time / time of the yardstick in the same round",
            report.labelled("machine", machine.describe()),
            report.labelled(
                "versions", "; ".join(machine.version(tool) or f"no {tool}" for tool in ("find", "updatedb", "b3sum"))
            ),
            report.labelled(
                "data",
                f"{self.shape.files} files of 0 to {MAX_BYTES} B in {self.shape.directories} directories, on "
                f"{machine.file_system_of(self.workspace.disk)}; seed {SEED}; {bigfiles.FILES} big files of "
                f"{report.mebibytes(self.big.size_bytes)} beside them",
            ),
            report.labelled(
                "method",
                f"median of {self.samples.rounds} rounds, new libraries in each; {state}; of the phases that a job "
                "has, its own times; searchable and restart include the start of a command",
            ),
            report.labelled("noise", report.NOISE),
        ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "First index and rescan against find and b3sum."
    parser = options.parser("scan", about, smoke=f"{FILES_SMOKE} files")
    parser.add_argument("--files", type=options.count, metavar="N", help=f"how many files (default {FILES})")
    parser.add_argument("--million", action="store_true", help=f"{FILES_MILLION} files")
    parser.add_argument("--cold", action="store_true", help="drop caches before each measurement (root)")
    chosen = parser.parse_args(arguments)
    if chosen.cold and not machine.can_drop_caches():
        parser.error("--cold needs root: /proc/sys/vm/drop_caches cannot be written")
    return chosen


@contextmanager
def _costing(product: Sdmount, costs: Costs) -> Iterator[None]:
    """Note what a mount uses within; workers end when they have nothing to do, so they are looked at all the time."""
    before_s = product.processor_s()
    done = threading.Event()
    worker_bytes = own_bytes = 0

    def look() -> None:
        nonlocal worker_bytes, own_bytes
        while not done.wait(SAMPLE_S):
            worker_bytes = max(worker_bytes, product.workers_peak_bytes())
            own_bytes = max(own_bytes, product.own_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        done.set()
        looking.join()
    costs.processor_s.append(product.processor_s() - before_s)
    costs.server_bytes.append(product.memory().peak_bytes)
    costs.own_bytes.append(max(own_bytes, product.own_bytes()))
    costs.worker_bytes.append(worker_bytes)


def _weigh(product: Sdmount, costs: Costs) -> None:
    """After the process has ended, when the logs are folded in."""
    costs.library_bytes.append(product.database_bytes("library.db"))
    costs.search_bytes.append(product.database_bytes("search.db"))


def _change(tree: Tree, share: float, number: int) -> None:
    """Write some of the files anew, with other bytes; the same ones in each round."""
    count = int(len(tree.files) * share)
    for name in tree.files[:: len(tree.files) // count] if count else ():
        path: Path = tree.root / name
        path.write_bytes(f"round {number} ".encode() + os.urandom(32))
