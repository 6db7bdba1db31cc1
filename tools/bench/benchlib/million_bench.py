"""The program `million`: a library as large as a person's life, started again.

A tree of a million empty files (a file system's cost is in its entries, not in their bytes) is indexed
once. Then, round after round, the mount is started again and asked at once, while it still compares its
index with the disk: how long until it answers, how long a listing of a directory nobody looked into yet
takes, and what its process weighs. One directory holds a hundredth of all files, because every collection
has such a directory. The yardsticks are the same listings on the directories themselves with the kernel's
caches as empty.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from . import machine, options, report
from .corpus import Shape, existing_names, grow
from .options import say
from .probe import Probe
from .processes import Failed, timed
from .report import Samples
from .sdmount import Memory, Sdmount
from .workspace import Workspace

SEED = 20_242
ENTRIES = 1_000_000
ENTRIES_SMOKE = 2_000
FILES_PER_DIRECTORY = 100
LISTED = 50
CROWD = "crowd"
LIMIT_S = 3_600.0
FIND = ["find", ".", "-printf", "%s %T@ %i\n"]
NATIVE = report.NATIVE
READY = "restart: mount ready"
ROWS = (
    "index to idle",
    READY,
    "restart to idle",
    "ls at once, median",
    "ls at once, slowest",
    "ls of the largest",
    "find over everything",
)
READY_AIM_S = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when our commands are not there: the yardsticks are printed), 1 when they fail."""
    chosen = _options(arguments)
    entries = chosen.entries or (ENTRIES_SMOKE if chosen.smoke else ENTRIES)
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.dir, keep=chosen.keep) as workspace:
            return _Run(chosen, entries, workspace).go()
    except (Failed, OSError) as error:
        print(f"million: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, entries: int, workspace: Workspace) -> None:
        self.chosen = chosen
        self.entries = entries
        self.crowd = entries // FILES_PER_DIRECTORY
        self.workspace = workspace
        self.samples = Samples(rounds=chosen.rounds or (1 if chosen.smoke else 3))
        self.dropping = machine.can_drop_caches()
        self.memory: dict[str, list[Memory]] = {}
        self.database_bytes = 0

    def go(self) -> int:
        self.root = self.workspace.disk / "tree"
        directories = self.entries // FILES_PER_DIRECTORY
        say(f"making {self.entries} entries in {self.root}")
        shape = Shape(files=self.entries - directories - self.crowd - 1, directories=directories)
        self.tree = grow(self.root, shape, SEED)
        grow(self.root / CROWD, Shape(files=self.crowd, directories=0), SEED + 1)
        product = Sdmount(self.workspace.disk / "product", self.chosen.commands)
        reason = product.missing()
        failed = False
        with Probe(LIMIT_S) as probe:
            self.probe = probe
            if reason is not None:
                self.samples.note(f"skipped: sdmount: {reason}")
            for number in range(self.samples.rounds):
                say(f"round {number + 1} of {self.samples.rounds}: the directories themselves")
                self._measure_native(number)
                if reason is not None or failed:
                    continue
                say(f"round {number + 1} of {self.samples.rounds}: sdmount")
                try:
                    self._measure(product, number)
                except Failed as error:
                    failed = True
                    self.samples.note(f"failed: sdmount: {error}")
                finally:
                    product.unmount()
            self.database_bytes = product.database_bytes()
        self._print()
        return 1 if failed else 0

    def _measure_native(self, number: int) -> None:
        self._cool()
        self.expected = self._list(self.root, NATIVE, number)
        timed(FIND, cwd=self.root, deadline_s=LIMIT_S)
        walked_s = timed(FIND, cwd=self.root, deadline_s=LIMIT_S)
        for row in ("index to idle", "restart to idle", "find over everything"):
            self.samples.add(row, NATIVE, number, walked_s)

    def _measure(self, product: Sdmount, number: int) -> None:
        """The first round indexes; every round starts the mount over a library that knows everything."""
        if number == 0:
            product.mount()
            start = time.perf_counter()
            product.sd("location", "add", self.root)
            product.wait_idle(LIMIT_S)
            self.samples.add("index to idle", "sdmount", number, time.perf_counter() - start)
            self._weigh("after the first index", product)
            product.unmount()
        self._cool()
        start = time.perf_counter()
        self.samples.add(READY, "sdmount", number, product.mount())
        shown = product.mount_point / self.root.name
        seen = self._list(shown, "sdmount", number)
        if seen != self.expected:
            raise Failed(f"the listings have {seen} entries where there are {self.expected}")
        self._weigh("restarted, 51 directories listed", product)
        product.wait_idle(LIMIT_S)
        self.samples.add("restart to idle", "sdmount", number, time.perf_counter() - start)
        walked_s = timed(FIND, cwd=shown, deadline_s=LIMIT_S)
        self.samples.add("find over everything", "sdmount", number, walked_s)
        self._weigh("restarted, everything walked", product)

    def _list(self, root: Path, name: str, number: int) -> int:
        """List random directories and the largest one; how many entries they had."""
        homes = self.workspace.disk / "homes"
        files = existing_names(self.tree, LISTED, SEED + number)
        homes.write_text("\n".join(file.rpartition("/")[0] or "." for file in files) + "\n")
        crowd = self.workspace.disk / "crowd"
        crowd.write_text(f"{CROWD}\n")
        few = self.probe.ask("listings", base=str(root), names=str(homes))
        many = self.probe.ask("listings", base=str(root), names=str(crowd))
        self.samples.add("ls at once, median", name, number, median(few["each"]))
        self.samples.add("ls at once, slowest", name, number, max(few["each"]))
        self.samples.add("ls of the largest", name, number, many["seconds"])
        return int(few["entries"]) + int(many["entries"])

    def _cool(self) -> None:
        if self.dropping:
            machine.drop_caches(machine.NAMES_AND_INODES)

    def _weigh(self, moment: str, product: Sdmount) -> None:
        self.memory.setdefault(moment, []).append(product.memory())

    def _print(self) -> None:
        header = self._header()
        table = [["work", "sdmount", NATIVE, "ratio", "aim"]]
        for row in ROWS:
            mine, theirs = self.samples.seconds_of(row, "sdmount"), self.samples.seconds_of(row, NATIVE)
            times = [report.duration(seconds) if seconds is not None else "-" for seconds in (mine, theirs)]
            aim = f"<= {READY_AIM_S:g} s" if row == READY else ""
            if aim and mine is not None:
                aim += f": {report.judged(mine, READY_AIM_S)}"
            table.append([row, *times, report.cell(self.samples.ratios(row, "sdmount")), aim])
        facts = [report.labelled("memory", self._weight(*weighed)) for weighed in self.memory.items()]
        if self.memory:
            each = self.database_bytes / self.entries
            facts.append(report.labelled("database", f"{each:.0f} bytes an entry, everything in it included"))
        sections = [header, report.aligned(table), facts, self.samples.notes]
        print("\n\n".join("\n".join(lines) for lines in sections if lines))
        if self.chosen.json:
            report.write_json(self.chosen.json, [*header, *facts], self.samples)

    def _weight(self, moment: str, weighed: list[Memory]) -> str:
        now, peak = max(each.now_bytes for each in weighed), max(each.peak_bytes for each in weighed)
        return f"{moment}: {report.mebibytes(now)} (at most {report.mebibytes(peak)})"

    def _header(self) -> list[str]:
        cold = "names and inodes dropped from the kernel before it"
        if not self.dropping:
            cold = "NOT root: what the kernel knows of the directories themselves stays warm"
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            f"A library of {self.entries} entries, started again: time / native time of the same round",
            report.labelled("machine", machine.describe()),
            report.labelled(
                "data",
                f"{self.entries} entries: empty files, {FILES_PER_DIRECTORY} a directory and {self.crowd} in "
                f"the largest, on {machine.file_system_of(self.workspace.disk)}; seed {SEED}",
            ),
            report.labelled(
                "method",
                f"median of {self.samples.rounds} rounds; ready: sdmount returned; ls: the names of {LISTED} "
                f"random directories, right after that; {cold}",
            ),
            report.labelled("noise", report.NOISE),
        ]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "A library of a million entries, started again."
    parser = options.parser("million", about, smoke=f"{ENTRIES_SMOKE} entries")
    parser.add_argument("--entries", type=options.count, metavar="N", help=f"how many entries (default {ENTRIES})")
    return parser.parse_args(arguments)
