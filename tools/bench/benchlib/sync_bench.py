"""The program `sync`: how soon another device knows a library, how soon one change, and what being connected costs.

Two mounts on this machine are paired as people would pair them (pair.py): everything is in the figures that a person
has, the mount that is told of the rows included. *Backfill* is from the connection until the new device has every row
of the other; beside it stand the same rows inserted by SQLite alone, and what syncthing takes to exchange the index of
the same tree (syncthing.py). *Live* is one change at a time: made on one side, looked for on the other until it is
there. *Catching up* is after many changes that were made while one side was away. *Idle* is when nothing happens.
"""

import argparse
import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from . import machine, options, report, sync_report, syncthing
from .corpus import Shape, Tree, grow
from .options import say
from .pair import Pair, plain_insert
from .probe import Probe
from .processes import Failed
from .report import Samples
from .sdmount import Sdmount
from .sync_report import ALONE, ATTRIBUTE, CONNECTED, DIRECTORY, FILE, FLOOR, LIVE, OURS, PARTS, THEIRS, Found
from .workspace import Workspace

SEED = 8_128
FILES = 100_000
FILES_MILLION = 1_000_000
FILES_SMOKE = 300
FILES_PER_DIRECTORY = 20
MAX_BYTES = 256  # what a file holds is not sent, only read once for its hash
ROUNDS = 3
TRIES = 200
TRIES_SMOKE = 10
FILE_TRIES = 20
FILE_TRIES_SMOKE = 2
PAUSES_S = (0.02, 0.06)  # not in step with what either side does by the clock
CHANGES = 10_000
CHANGES_SMOKE = 100
IDLE_S = 60.0
IDLE_SMOKE_S = 2.0
SETTLE_S = 5.0  # after something happened, before idleness is measured
LIMIT_S = 1_800.0
LIVE_LIMIT_S = 30.0
LOOK_S = 0.0005


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when our commands are not there), 1 when they fail."""
    chosen = _options(arguments)
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.dir, keep=chosen.keep) as workspace:
            return _Run(chosen, workspace).go()
    except (Failed, OSError) as error:
        print(f"sync: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, workspace: Workspace) -> None:
        self.chosen = chosen
        self.workspace = workspace
        smoke = chosen.smoke
        self.files = chosen.files or (FILES_SMOKE if smoke else FILES_MILLION if chosen.million else FILES)
        self.shape = Shape(self.files, max(1, self.files // FILES_PER_DIRECTORY), max_bytes=MAX_BYTES, even_sizes=True)
        self.tries = TRIES_SMOKE if smoke else TRIES
        self.file_tries = FILE_TRIES_SMOKE if smoke else FILE_TRIES
        self.idle_s = IDLE_SMOKE_S if smoke else IDLE_S
        self.samples = Samples(rounds=chosen.rounds or (1 if smoke else ROUNDS))
        self.found = Found(self.samples, min(self.files, CHANGES_SMOKE if smoke else CHANGES))

    def go(self) -> int:
        telling = Sdmount(self.workspace.disk / "telling", self.chosen.commands)
        reason = telling.missing()
        failed = False
        if reason is not None:
            self.samples.note(f"skipped: sdmount: {reason}")
        else:
            say(f"making {self.files} files in {self.workspace.disk}")
            self.tree = grow(self.workspace.disk / "tree", self.shape, SEED)
            if "backfill" in self.chosen.only:
                self._measure_syncthing(self.tree)
            try:
                self._measure(telling)
            except Failed as error:
                failed = True
                self.samples.note(f"failed: sdmount: {error}")
        self._print()
        return 1 if failed else 0

    def _measure(self, telling: Sdmount) -> None:
        try:
            say("indexing it")
            telling.mount(self.tree.root)
            telling.wait_idle(LIMIT_S)
            if "idle" in self.chosen.only:
                self._rest(ALONE, [telling])
            for number in range(self.samples.rounds):
                say(f"round {number + 1} of {self.samples.rounds}: backfill")
                pair = Pair(telling, self.workspace.disk / f"taking-{number}", self.chosen.commands)
                try:
                    pair.taking.mount()
                    pair.taking.wait_idle(LIMIT_S)
                    self._backfill(pair, number)
                    if number == self.samples.rounds - 1:
                        self._measure_pair(pair)
                    pair.part()
                finally:
                    pair.taking.unmount()
        finally:
            telling.unmount()

    def _backfill(self, pair: Pair, number: int) -> None:
        taken = pair.meet(LIMIT_S)
        if taken.rows < self.tree.entries:
            raise Failed(f"{taken.rows} rows came of {self.tree.entries}")
        pair.wait_synced(LIMIT_S)
        self.found.taken.append(taken)
        used = taken.seconds, taken.telling_s, taken.taking_s
        self.found.add(OURS, number, taken.rows, used, taken.wire_bytes)
        if "backfill" in self.chosen.only:
            made = self.workspace.disk / f"floor-{number}.db"
            rows, seconds, used_s = plain_insert(pair.taking.library(), made)
            self.found.add(FLOOR, number, rows, (seconds, 0.0, used_s))
            made.unlink()

    def _measure_pair(self, pair: Pair) -> None:
        if "live" in self.chosen.only:
            say("live")
            pair.taking.wait_idle(LIMIT_S)
            self._measure_live(pair)
        if "catching up" in self.chosen.only:
            say("catching up")
            self._catch_up(pair)
        if "idle" in self.chosen.only:
            pair.taking.wait_idle(LIMIT_S)
            time.sleep(0 if self.chosen.smoke else SETTLE_S)
            self._rest(CONNECTED, [pair.telling, pair.taking])

    def _measure_live(self, pair: Pair) -> None:
        luck = random.Random(SEED)
        here, there = (one.mount_point / self.tree.root.name for one in (pair.telling, pair.taking))
        for number, name in enumerate(luck.choices(self.tree.files, k=self.tries)):
            value = f"{number} {luck.random()}".encode()
            change = partial(os.setxattr, here / name, "user.xdg.comment", value)
            self._try(ATTRIBUTE, change, partial(_has, there / name, "user.xdg.comment", value))
            time.sleep(luck.uniform(*PAUSES_S))
        for number in range(self.tries):
            name = f"new-directory-{number:04d}"
            self._try(DIRECTORY, (self.tree.root / name).mkdir, partial(os.path.lexists, there / name))
            time.sleep(luck.uniform(*PAUSES_S))
        for number in range(self.file_tries):
            name = f"new-file-{number:04d}"
            write = partial((self.tree.root / name).write_text, name)
            self._try(FILE, write, partial(os.path.lexists, there / name))

    def _try(self, what: str, change: Callable[[], object], is_there: Callable[[], bool]) -> None:
        start = time.perf_counter()
        change()
        while not is_there():
            if time.perf_counter() - start > LIVE_LIMIT_S:
                raise Failed(f"{what}: not there after {LIVE_LIMIT_S:.0f} s")
            time.sleep(LOOK_S)
        self.found.live[what].append(time.perf_counter() - start)

    def _catch_up(self, pair: Pair) -> None:
        """Tags are set while the other device is away; then it comes back."""
        telling, taking = pair.telling, pair.taking
        taking.unmount()
        names = self.workspace.disk / "names"
        chosen = random.Random(SEED).sample(self.tree.files, self.found.changes)
        names.write_text("".join(f"{name}\n" for name in chosen))
        with Probe(LIMIT_S) as probe:
            probe.ask("tag", base=str(telling.mount_point / self.tree.root.name), names=str(names), value="holiday")
        telling.wait_idle(LIMIT_S)
        told_s = telling.server_s()
        taking.mount()
        last = taking.mount_point / self.tree.root.name / chosen[-1]
        deadline = time.monotonic() + LIMIT_S
        while not _has(last, "user.xdg.tags", b"holiday"):
            if time.monotonic() > deadline:
                raise Failed("the last of the changes did not come")
            time.sleep(LOOK_S)
        ended_ns = time.time_ns()
        used = telling.server_s() - told_s, taking.server_s()
        pair.wait_synced(LIMIT_S)
        self.found.caught = ((ended_ns - pair.connected_ns()) / 1e9, *used)

    def _rest(self, what: str, products: list[Sdmount]) -> None:
        """What a mount's process does while nobody asks it for anything, a minute. Wake-ups of threads that ended
        meanwhile are not among them."""
        say(f"idle: {what}")
        before = [(one.server_s(), one.wake_ups()) for one in products]
        time.sleep(self.idle_s)
        after = [(one.server_s(), one.wake_ups()) for one in products]
        share = 60.0 / self.idle_s / len(products)
        used_s, woken = 0.0, 0
        for (begun_s, slept), (ended_s, sleeps) in zip(before, after, strict=True):
            used_s += ended_s - begun_s
            woken += sum(count - slept.get(thread, 0) for thread, count in sleeps.items())
        self.found.idle[what] = used_s * share, woken * share

    def _measure_syncthing(self, tree: Tree) -> None:
        """Before ours, so that its processes are gone when what is idle is measured."""
        reason = syncthing.missing()
        if reason is not None:
            self.samples.note(f"skipped: syncthing: {reason}")
            return
        try:
            two = syncthing.Two(self.workspace.disk / "syncthing", tree.root, tree.entries)
            try:
                say("syncthing scans the tree")
                two.prepare(LIMIT_S)
                for number in range(self.samples.rounds):
                    say(f"round {number + 1} of {self.samples.rounds}: syncthing")
                    got = two.meet(LIMIT_S)
                    used = got.seconds, got.telling_s, got.taking_s
                    self.found.add(THEIRS, number, got.entries, used, got.wire_bytes)
            finally:
                two.stop()
        except Failed as error:
            self.samples.note(f"failed: syncthing: {error}")

    def _print(self) -> None:
        sections = [self._header(), *sync_report.tables(self.found, self.chosen.only), self.samples.notes]
        print("\n\n".join("\n".join(lines) for lines in sections if lines))
        if self.chosen.json:
            for what, seconds in self.found.live.items():
                for number, one in enumerate(seconds):
                    self.samples.add("live", what, number, one)
            self.samples.rounds = max(self.samples.rounds, self.tries)
            report.write_json(self.chosen.json, self._header(), self.samples)

    def _header(self) -> list[str]:
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            "How soon another device knows a library, how soon one change, and what being connected costs",
            report.labelled("machine", machine.describe()),
            report.labelled(
                "data",
                f"{self.files} files of 0 to {MAX_BYTES} B in {self.shape.directories} directories, all read for their "
                f"hash before, on {machine.file_system_of(self.workspace.disk)}; seed {SEED}",
            ),
            report.labelled(
                "method",
                f"two mounts, paired, over loopback; backfill: {self.samples.rounds} rounds, medians, a new device "
                "each time; of processor: rows for a second of processor time of that mount's process; bytes: of "
                "pages; syncthing: its index alone, no file; SQLite alone: the same rows, tables and indexes",
            ),
            report.labelled("live", "; ".join(f"{name}: {how}" for name, how in LIVE.items())),
            report.labelled("noise", report.NOISE),
        ]


def _has(path: Path, name: str, value: bytes) -> bool:
    """Whether a file has an attribute with a value; not, while the file is not there."""
    with contextlib.suppress(OSError):
        return os.getxattr(path, name) == value
    return False


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "How soon another device knows a library, how soon one change, and what being connected costs."
    parser = options.parser("sync", about, smoke=f"{FILES_SMOKE} files")
    parser.add_argument("--files", type=options.count, metavar="N", help=f"files of the library (default {FILES})")
    parser.add_argument("--million", action="store_true", help=f"a library of {FILES_MILLION} files")
    parser.add_argument(
        "--only", type=_parts, metavar="PART,…", default=PARTS, help=f"some of: {', '.join(PARTS)} (default: all)"
    )
    return parser.parse_args(arguments)


def _parts(text: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in text.split(","))
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: there are {', '.join(PARTS)}")
    return chosen
