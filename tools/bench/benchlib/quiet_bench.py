"""The program `quiet`: what who works with files notices of an index that is being made.

One location is indexed and at rest; of its files single ones are looked at, opened and read, each once before it was
ever asked for by its name (*new*) and again later (*warm*). Then another location is added, and while its content index
runs the same is done with other files. A cell is a quantile while the index runs / the same quantile at rest. What the
machine itself has become slower by is measured on the directory beneath, with the same files, in the same turns.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from . import machine, options, report
from .corpus import Shape, grow
from .options import say
from .probe import Probe
from .processes import Failed
from .report import Samples
from .sdmount import Sdmount
from .workspace import Workspace

SEED = 4_711
FILES = 120_000  # of the location that is indexed meanwhile
FILES_SMOKE = 600
LOOKED_AT = 4_000  # files of the quiet location that are looked at: half of them at rest
LOOKED_AT_SMOKE = 80
TURN = 200  # in one turn: so many new ones, the same again, and the same beneath
TURN_SMOKE = 20
FILES_PER_DIRECTORY = 20
MAX_BYTES = 4 << 10
PAUSE_S = 0.001
LIMIT_S = 1_800.0
AIM = 5.0
CALLS = ("stat", "open", "read")
PLACES = ("new", "warm", "beneath")
QUANTILES = {"p50": 0.50, "p99": 0.99}

#: (call, place) -> seconds of every single one.
Times = dict[tuple[str, str], list[float]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when our commands are not there), 1 when they fail."""
    chosen = _options(arguments)
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.dir, keep=chosen.keep) as workspace:
            return _Run(chosen, workspace).go()
    except (Failed, OSError) as error:
        print(f"quiet: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, workspace: Workspace) -> None:
        self.chosen = chosen
        self.workspace = workspace
        self.files = chosen.files or (FILES_SMOKE if chosen.smoke else FILES)
        self.looked_at = LOOKED_AT_SMOKE if chosen.smoke else LOOKED_AT
        self.turn = TURN_SMOKE if chosen.smoke else TURN
        self.samples = Samples(rounds=1)
        self.at_rest: Times = defaultdict(list)
        self.indexing: Times = defaultdict(list)

    def go(self) -> int:
        product = Sdmount(self.workspace.disk / "product", self.chosen.commands)
        reason = product.missing()
        failed = False
        if reason is not None:
            self.samples.note(f"skipped: sdmount: {reason}")
        else:
            try:
                self._measure(product)
            except Failed as error:
                failed = True
                self.samples.note(f"failed: sdmount: {error}")
        self._print()
        return 1 if failed else 0

    def _measure(self, product: Sdmount) -> None:
        say(f"making {self.looked_at} and {self.files} files in {self.workspace.disk}")
        shape = Shape(self.looked_at, self.looked_at // FILES_PER_DIRECTORY, max_bytes=MAX_BYTES, even_sizes=True)
        quiet = grow(self.workspace.disk / "quiet", shape, SEED)
        shape = Shape(self.files, max(1, self.files // FILES_PER_DIRECTORY), max_bytes=MAX_BYTES, even_sizes=True)
        busy = grow(self.workspace.disk / "busy", shape, SEED + 1)
        names = random.Random(SEED).sample(quiet.files, len(quiet.files))
        half = len(names) // 2
        try:
            product.mount(quiet.root)
            product.wait_idle(LIMIT_S)
            shown = product.mount_point / quiet.root.name
            with Probe(LIMIT_S) as probe:
                # Directories are known beforehand, so that a new name is one question.
                probe.ask("stat", base=str(shown), names=self._list(quiet.directories))
                say("at rest")
                for some in self._turns(names[:half]):
                    self._look(probe, shown, quiet.root, some, self.at_rest)
                say("while a content index runs")
                product.sd("location", "add", busy.root)
                for number, some in enumerate(self._turns(names[half:])):
                    times: Times = defaultdict(list)
                    self._look(probe, shown, quiet.root, some, times)
                    is_whole = product.is_indexing()
                    if not is_whole:
                        self.samples.note(f"the index was made after {number} turns of {self.turn} files")
                    if is_whole or not self.indexing:
                        for key, seconds in times.items():
                            self.indexing[key].extend(seconds)
                    if not is_whole:
                        break
            product.wait_idle(LIMIT_S)
        finally:
            product.unmount()

    def _look(self, probe: Probe, shown: Path, real: Path, names: list[str], times: Times) -> None:
        """One turn: some names for the first time, once more, and beneath."""
        listed = self._list(names)
        for place, base in (("new", shown), ("warm", shown), ("beneath", real)):
            answer = probe.ask("touches", base=str(base), names=listed, pause_s=PAUSE_S)
            for call, seconds in answer["each"].items():
                times[call, place].extend(seconds)

    def _turns(self, names: list[str]) -> list[list[str]]:
        return [names[start : start + self.turn] for start in range(0, len(names), self.turn)]

    def _list(self, names: Sequence[str]) -> str:
        path = self.workspace.disk / "names"
        path.write_text("".join(f"{name}\n" for name in names))
        return str(path)

    def _print(self) -> None:
        table = [["call", "at rest", "indexing", "ratio", "beneath", "aim"]]
        for place in ("new", "warm"):
            for call in CALLS:
                for name, quantile in QUANTILES.items():
                    table.append(self._row(call, place, name, quantile))
        sections = [self._header(), report.aligned(table), self.samples.notes]
        print("\n\n".join("\n".join(lines) for lines in sections if lines))
        if self.chosen.json:
            for state, times in (("at rest", self.at_rest), ("indexing", self.indexing)):
                for (call, place), seconds in times.items():
                    for number, one in enumerate(seconds):
                        self.samples.add(f"{call} {place}", state, number, one)
            self.samples.rounds = self.looked_at
            report.write_json(self.chosen.json, self._header(), self.samples)

    def _row(self, call: str, place: str, name: str, quantile: float) -> list[str]:
        rest, busy = (_quantile(times.get((call, place), []), quantile) for times in (self.at_rest, self.indexing))
        below = [_quantile(times.get((call, "beneath"), []), quantile) for times in (self.at_rest, self.indexing)]
        row = [f"{call} {place} {name}", *(report.duration(one) if one else "-" for one in (rest, busy))]
        row.append(report.cell([busy / rest]) if busy and rest else "-")
        row.append(report.cell([below[1] / below[0]]) if below[0] and below[1] else "-")
        goal = f"<= {AIM:g}" if place == "new" else ""
        if goal and busy and rest:
            goal += f": {report.judged(busy / rest, AIM)}"
        return [*row, goal]

    def _header(self) -> list[str]:
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            "What is noticed at the mount of a content index that is being made: time while it runs / time at rest",
            report.labelled("machine", machine.describe()),
            report.labelled(
                "data",
                f"{self.looked_at} files to look at, {self.files} to index, of 0 to {MAX_BYTES} B, on "
                f"{machine.file_system_of(self.workspace.disk)}; seed {SEED}",
            ),
            report.labelled(
                "method",
                f"single calls with {PAUSE_S * 1e3:g} ms between files, in turns of {self.turn}; new: never asked for "
                "before, in a directory that was; beneath: the ratio of the real directory in the same turns",
            ),
        ]


def _quantile(seconds: list[float], quantile: float) -> float:
    """0 of nothing."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * quantile))] if ordered else 0.0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "Stat, open and read at the mount while a content index runs, against the same at rest."
    parser = options.parser("quiet", about, smoke=f"{FILES_SMOKE} files")
    parser.add_argument("--files", type=options.count, metavar="N", help=f"files to index meanwhile (default {FILES})")
    return parser.parse_args(arguments)
