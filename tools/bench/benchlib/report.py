"""From samples to one table: ratios, their medians, the aims beside them.

Seconds on a shared machine drift by a factor of two within minutes, so no seconds are compared across
rounds: the ratio is taken inside a round, where both were measured within moments, and the median of the
rounds' ratios is shown. A cell is marked `~` when its rounds disagree by more than half: read it as a
range, not as a figure.
"""

import json
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

NATIVE = "native"
SMOKE = "A SMOKE RUN: it shows that the program works, its figures say nothing"
DISAGREEMENT = 1.5
NOISE = "within 25 % is a tie; ~ = the rounds disagree by more than half"


@dataclass(frozen=True)
class Aim:
    """A row's ratio of ours to `over` that is to be at most `limit`."""

    row: str
    limit: float
    over: str = NATIVE


@dataclass
class Samples:
    """Seconds by row, file system and round; what could not be measured is absent, with a note why."""

    rounds: int = 0
    seconds: dict[str, dict[str, dict[int, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    notes: list[str] = field(default_factory=list)

    def add(self, row: str, name: str, number: int, seconds: float) -> None:
        """One measurement of round `number`."""
        self.seconds[row][name][number] = seconds

    def note(self, text: str) -> None:
        """Something the reader has to know; said once."""
        if text not in self.notes:
            self.notes.append(text)

    def ratios(self, row: str, name: str, over: str = NATIVE) -> list[float]:
        """The ratio of every round in which both were measured."""
        mine, theirs = self.seconds[row][name], self.seconds[row][over]
        return [mine[number] / theirs[number] for number in sorted(mine) if theirs.get(number)]

    def seconds_of(self, row: str, name: str) -> float | None:
        """Median seconds, to give a ratio its scale."""
        measured = self.seconds[row][name].values()
        return median(measured) if measured else None


def comparison(
    samples: Samples, rows: Sequence[str], names: Sequence[str], aims: Iterable[Aim], calls: dict[str, int]
) -> list[str]:
    """The table, workload by file system. Native's time is for one call in rows of `calls`, else for all."""
    aim_of = {aim.row: aim for aim in aims}
    table = [["workload", NATIVE, *(name for name in names if name != NATIVE), "aim for sdmount"]]
    for row in rows:
        native_s = samples.seconds_of(row, NATIVE)
        scale = duration(native_s, calls.get(row, 1)) if native_s is not None else "-"
        cells = [cell(samples.ratios(row, name)) for name in names if name != NATIVE]
        table.append([row, scale, *cells, verdict(samples, aim_of.get(row))])
    return aligned(table)


def verdict(samples: Samples, aim: Aim | None) -> str:
    """The aim and whether it was met; empty without an aim."""
    if aim is None:
        return ""
    goal = f"<= {aim.limit:g}" + ("" if aim.over == NATIVE else f" x {aim.over}")
    found = samples.ratios(aim.row, "sdmount", aim.over)
    return f"{goal}: {judged(median(found), aim.limit)}" if found else goal


def judged(figure: float, limit: float) -> str:
    """`met` or `not met`, with the figure."""
    return f"{'met' if figure <= limit else 'not met'}, {figure:.2f}"


def cell(ratios: list[float]) -> str:
    """A ratio with the digits it deserves."""
    if not ratios:
        return "-"
    figure = median(ratios)
    digits = 2 if figure < 10 else 1 if figure < 100 else 0
    doubt = "~" if max(ratios) > DISAGREEMENT * min(ratios) else ""
    return f"{figure:.{digits}f}{doubt}"


def duration(seconds: float, calls: int = 1) -> str:
    """A time in the unit that reads best; of one call when several were made."""
    each = seconds / calls
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if each >= size:
            return f"{each / size:.3g} {unit}" + ("/call" if calls > 1 else "")
    return f"{each / 1e-9:.0f} ns" + ("/call" if calls > 1 else "")


def mebibytes(size_bytes: int) -> str:
    """A size in MiB."""
    return f"{size_bytes / 2**20:.1f} MiB"


def labelled(label: str, text: str) -> str:
    """A paragraph of the header: its label, then its text beside it."""
    return textwrap.fill(text, 110, initial_indent=label.ljust(10), subsequent_indent=" " * 10)


def aligned(table: list[list[str]]) -> list[str]:
    """Rows of cells as lines: the first and the last column to the left, figures to the right."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    last = len(widths) - 1
    lines = []
    for row in table:
        cells = [
            text.ljust(width) if column in {0, last} else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return lines


def write_json(path: Path, header: list[str], samples: Samples) -> None:
    """Everything that was measured, for a later comparison."""
    rounds = range(samples.rounds)
    seconds = {
        row: {name: [measured.get(number) for number in rounds] for name, measured in names.items()}
        for row, names in samples.seconds.items()
    }
    whole = {"header": header, "rounds": samples.rounds, "seconds": seconds, "notes": samples.notes}
    path.write_text(json.dumps(whole, indent=1) + "\n")
