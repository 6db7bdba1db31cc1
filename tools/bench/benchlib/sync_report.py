"""The tables of the program `sync`, of what it has found.

In: `Found`, which the program fills as far as it comes. Out: lines; what was not measured is `-`.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from . import report
from .pair import Taken
from .report import Samples

AIM_ROWS = 100_000  # a second of processor time of the side that takes
AIM_LIVE_S = 0.030
PARTS = ("backfill", "live", "catching up", "idle")
OURS, THEIRS, FLOOR = "sdmount", "syncthing", "SQLite alone"
ATTRIBUTE, DIRECTORY, FILE = "attribute to attribute", "directory to name", "file to name"
LIVE = {
    ATTRIBUTE: "setxattr at one mount, getxattr at the other",
    DIRECTORY: "mkdir on one disk, lstat at the other mount",
    FILE: "a file on one disk, left alone for a second as it must be, lstat at the other mount",
}
ALONE, CONNECTED = "a device alone", "a device connected"


@dataclass
class Found:
    """What was measured. `samples`: rows `wall`, `telling`, `taking` by program, seconds for a row of the library."""

    samples: Samples
    changes: int
    taken: list[Taken] = field(default_factory=list)
    wire_bytes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    live: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in LIVE})
    idle: dict[str, tuple[float, float]] = field(default_factory=dict)
    #: Of catching up: seconds, and seconds of processor time of both sides.
    caught: tuple[float, float, float] | None = None

    def add(self, name: str, number: int, rows: int, seconds: tuple[float, float, float], wire_bytes: int = 0) -> None:
        """Kept as seconds for a row, so that rounds and programs with other numbers of rows compare."""
        for row, one in zip(("wall", "telling", "taking"), seconds, strict=True):
            self.samples.add(row, name, number, one / rows)
        if wire_bytes:
            self.wire_bytes[name].append(wire_bytes / rows)


def tables(found: Found, parts: Sequence[str]) -> list[list[str]]:
    """A table for each part that was wanted."""
    made = {"backfill": _backfill, "live": _live, "catching up": _catching_up, "idle": _idle}
    return [report.aligned(table(found)) for part, table in made.items() if part in parts]


def _backfill(found: Found) -> list[list[str]]:
    samples = found.samples
    head = ["backfill", "rows a second", "telling, of processor", "taking, of processor", "bytes a row"]
    table = [[*head, "peak (own), telling", "peak (own), taking", "/ SQLite alone", "aim, taking"]]
    for name in (OURS, THEIRS, FLOOR):
        row = [name, *(_rate(samples.seconds_of(kind, name)) for kind in ("wall", "telling", "taking"))]
        row.append(f"{median(found.wire_bytes[name]):.0f}" if found.wire_bytes[name] else "-")
        row += _peaks(found.taken) if name == OURS else ["-", "-"]
        row.append(report.cell(samples.ratios("taking", name, FLOOR)) if name != FLOOR else "-")
        row.append(_rows_verdict(samples) if name == OURS else "")
        table.append(row)
    return table


def _peaks(taken: Sequence[Taken]) -> list[str]:
    """Of the two ends: the most resident memory, and the most of it that is no page of the database."""
    if not taken:
        return ["-", "-"]
    telling = max(one.telling_peak_bytes for one in taken), max(one.telling_own_bytes for one in taken)
    taking = max(one.taking_peak_bytes for one in taken), max(one.taking_own_bytes for one in taken)
    return [f"{report.mebibytes(peak)} ({report.mebibytes(own)})" for peak, own in (telling, taking)]


def _rows_verdict(samples: Samples) -> str:
    goal = f">= {AIM_ROWS}"
    each = samples.seconds_of("taking", OURS)
    return f"{goal}: {'met' if 1 / each >= AIM_ROWS else 'not met'}" if each else goal


def _live(found: Found) -> list[list[str]]:
    table = [["live", "tries", "p50", "p99", "aim, p50"]]
    for what, seconds in found.live.items():
        ordered = sorted(seconds)
        goal = "" if what == FILE else f"<= {AIM_LIVE_S * 1e3:g} ms"
        if not ordered:
            table.append([what, "-", "-", "-", goal])
            continue
        p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.5, 0.99))
        if goal:
            goal += f": {'met' if p50 <= AIM_LIVE_S else 'not met'}"
        table.append([what, f"{len(ordered)}", report.duration(p50), report.duration(p99), goal])
    return table


def _catching_up(found: Found) -> list[list[str]]:
    table = [["catching up", "changes", "seconds", "changes a second", "telling, processor", "taking, its start too"]]
    row = ["tags set while apart", f"{found.changes}"]
    if found.caught is None:
        return [*table, [*row, "-", "-", "-", "-"]]
    seconds, telling_s, taking_s = found.caught
    rate = f"{found.changes / seconds:.0f}"
    return [*table, [*row, report.duration(seconds), rate, f"{telling_s:.2f} s", f"{taking_s:.2f} s"]]


def _idle(found: Found) -> list[list[str]]:
    table = [["idle, a minute", "processor", "wake-ups", ""]]
    for what in (ALONE, CONNECTED):
        one = found.idle.get(what)
        table.append([what, *(("-", "-") if one is None else (f"{one[0]:.2f} s", f"{one[1]:.0f}")), ""])
    return table


def _rate(each_s: float | None) -> str:
    return f"{1 / each_s:.0f}" if each_s else "-"
