"""The program `mount`: ours and the peers against the directories themselves.

The story of a run: make the files, mount everybody, check that everybody shows the same files, then go
round. In every round each workload visits the file systems one right after the other, in an order that
turns from workload to workload, so that whoever else uses the machine disturbs all of them alike. At the
end one table.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from . import machine, options, report
from .corpus import Shape, Tree, absent_names, existing_names, grow, make_big_file
from .filesystems import NAMES, FileSystem, Shares, assemble, versions
from .options import say
from .probe import Probe
from .processes import Failed, timed
from .report import Aim, Samples
from .workloads import BIG, MIB, TREE, WORKLOADS, Bench, Sizes, Workload
from .workspace import Workspace

SEED = 20_240
LOOP_CALLS = 20_000
AIMS = (
    Aim("find cold", 1.2, over="mergerfs+"),
    Aim("find warm", 2.5),
    Aim("ls -lR warm", 8.0),
    Aim("du warm", 2.5),
    Aim("stat warm", 1.2),
    Aim("absent warm", 1.2),
    Aim("seqread warm", 3.0),
    Aim("randread warm", 1.2),
)


@dataclass(frozen=True)
class Scale:
    """How large a run is."""

    shape: Shape
    big_bytes: int
    sizes: Sizes
    rounds: int
    deadline_s: float


FULL = Scale(
    shape=Shape(files=50_000, directories=1_500, mean_bytes=3_000, symlinks=500, tagged=5_000),
    big_bytes=1024 * MIB,
    sizes=Sizes(stats=20_000, absent=10_000, cold_reads=2_000, warm_reads=50_000, write_bytes=256 * MIB, created=5_000),
    rounds=3,
    deadline_s=120.0,
)
SMOKE = Scale(
    shape=Shape(files=300, directories=20, mean_bytes=3_000, symlinks=10, tagged=30),
    big_bytes=8 * MIB,
    sizes=Sizes(stats=200, absent=200, cold_reads=50, warm_reads=200, write_bytes=4 * MIB, created=50),
    rounds=1,
    deadline_s=60.0,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 when our own mount is there and fails, or anything is left behind."""
    chosen = _options(arguments)
    scale = SMOKE if chosen.smoke else FULL
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.storm_dir, keep=chosen.keep) as workspace:
            return _Run(chosen, scale, workspace).go()
    except (Failed, OSError) as error:
        print(f"mount: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, scale: Scale, workspace: Workspace) -> None:
        self.chosen = chosen
        self.scale = scale
        self.workspace = workspace
        self.samples = Samples(rounds=chosen.rounds or scale.rounds)
        self.dropping = machine.can_drop_caches()
        self.ours_failed = False
        self.mounted: list[FileSystem] = []

    def go(self) -> int:
        disk = self.workspace.disk / "disk"
        files, big = self.scale.shape.files, report.mebibytes(self.scale.big_bytes)
        say(f"making {files} files and one of {big} in {disk}")
        self.tree = grow(disk / TREE, self.scale.shape, SEED)
        self.big = disk / BIG
        make_big_file(self.big, self.scale.big_bytes, SEED)
        self.existing = self._name_list("existing", existing_names(self.tree, self.scale.sizes.stats, SEED))
        self.absent = self._name_list("absent", absent_names(self.tree, self.scale.sizes.absent, SEED))
        self._prime()
        with ExitStack() as stack:
            self.probe = stack.enter_context(Probe(self.scale.deadline_s))
            for file_system in self._assemble(disk):
                self._mount(file_system, stack)
            workloads = [workload for workload in self._wanted() if self._possible(workload, self.tree)]
            for number in range(self.samples.rounds):
                for turn, workload in enumerate(workloads):
                    say(f"round {number + 1} of {self.samples.rounds}: {workload.name}")
                    start = (number + turn) % len(self.mounted)
                    for file_system in self.mounted[start:] + self.mounted[:start]:
                        self._measure(workload, file_system, number)
            loop_s = self.probe.seconds("loop", count=LOOP_CALLS) / LOOP_CALLS
        self._print(workloads, loop_s)
        return 1 if self.ours_failed else 0

    def _prime(self) -> None:
        """Read everything from the disk once: the host of a virtual machine may not have it in memory yet,
        and whoever came first would pay for all."""
        if self.dropping:
            machine.drop_caches(machine.EVERYTHING)
        timed(["tar", "cf", "-", "."], cwd=self.big.parent, deadline_s=10 * self.scale.deadline_s)

    def _assemble(self, disk: Path) -> list[FileSystem]:
        wanted = {"native", *self.chosen.peers}
        if "mergerfs" in wanted:
            wanted.add("mergerfs+")
        shares_of = {}
        own = self.workspace.disk / "own"
        for name in NAMES:
            shares = Shares(disk, own / name / "scratch", self.workspace.memory / name / "storm")
            if name in wanted:
                shares.scratch.mkdir(parents=True)
                shares.storm.mkdir(parents=True)
            shares_of[name] = shares
        return assemble(
            tuple(wanted), homes=self.workspace.disk / "mounts", shares_of=shares_of,
            commands=self.chosen.commands, limit_s=10 * self.scale.deadline_s,
        )  # fmt: skip

    def _mount(self, file_system: FileSystem, stack: ExitStack) -> None:
        """Mount and check one; a peer that cannot is left out with its reason."""
        reason = file_system.missing()
        if reason is None:
            stack.callback(file_system.unmount)
            try:
                file_system.mount()
                self._check(file_system)
            except Failed as error:
                reason = str(error)
                self.ours_failed |= file_system.name == "sdmount"
                file_system.unmount()
        if reason is None:
            self.mounted.append(file_system)
        else:
            self.samples.note(f"skipped: {file_system.name}: {reason}")

    def _check(self, file_system: FileSystem) -> None:
        """Everybody must show what is there: a wrong answer may be fast."""
        seen = self.probe.ask("count", base=str(file_system.shown.disk))
        if not self.mounted:
            self.truth = seen
        for what in ("entries", "bytes"):
            if seen[what] != self.truth[what]:
                wrong = f"{file_system.name} shows {seen[what]} {what} where there are {self.truth[what]}"
                self.samples.note(wrong)
                self.ours_failed |= file_system.name == "sdmount"

    def _wanted(self) -> list[Workload]:
        only = self.chosen.only
        return [workload for workload in WORKLOADS if not only or only & _names_of(workload)]

    def _possible(self, workload: Workload, tree: Tree) -> bool:
        reason = None
        if workload.needs and machine.version(workload.needs) is None:
            reason = f"{workload.needs} is not installed"
        elif workload.name == "getfattr" and not tree.tagged:
            reason = f"{machine.file_system_of(tree.root)} took no extended attributes"
        if reason:
            self.samples.note(f"left out: {workload.name}: {reason}")
        return reason is None

    def _measure(self, workload: Workload, file_system: FileSystem, number: int) -> None:
        bench = Bench(
            shown=file_system.shown, native_big=self.big, probe=self.probe,
            cool=lambda level: self._cool(file_system, level), sizes=self.scale.sizes,
            existing=self.existing, absent=self.absent, deadline_s=self.scale.deadline_s,
        )  # fmt: skip
        try:
            self._wait_until_quiet()
            for row, seconds in workload.measure(bench).items():
                self.samples.add(row, file_system.name, number, seconds)
            if workload.writes:
                file_system.settle()
        except (Failed, OSError) as error:
            self.samples.note(f"failed: {file_system.name}: {workload.name}: {error}")
            self.ours_failed |= file_system.name == "sdmount"

    def _cool(self, file_system: FileSystem, level: int) -> None:
        """Make the kernel forget what it knows through this file system; the daemon stays up if possible."""
        if self.dropping:
            machine.drop_caches(level)
            self._wait_until_quiet()
            return
        file_system.unmount()
        file_system.mount()
        if level == machine.EVERYTHING:
            self.probe.ask("drop_file", path=str(self.big))

    def _wait_until_quiet(self) -> None:
        machine.wait_until_quiet(pid for file_system in self.mounted for pid in file_system.pids)

    def _name_list(self, name: str, names: list[str]) -> Path:
        path = self.workspace.disk / name
        path.write_text("\n".join(names) + "\n")
        return path

    def _print(self, workloads: list[Workload], loop_s: float) -> None:
        header = self._header(loop_s)
        sizes = self.scale.sizes
        calls = {
            "stat cold": min(sizes.stats, len(self.tree.files)),
            "stat warm": min(sizes.stats, len(self.tree.files)),
            "absent cold": sizes.absent,
            "absent warm": sizes.absent,
            "randread cold": sizes.cold_reads,
            "randread warm": sizes.warm_reads,
            "create": sizes.created,
            "delete": sizes.created,
        }
        rows = [row for workload in workloads for row in workload.rows]
        names = [name for name in NAMES if any(file_system.name == name for file_system in self.mounted)]
        table = report.comparison(self.samples, rows, names, AIMS, calls)
        print("\n".join([*header, "", *table, *(["", *self.samples.notes] if self.samples.notes else [])]))
        if self.chosen.json:
            report.write_json(self.chosen.json, header, self.samples)

    def _header(self, loop_s: float) -> list[str]:
        shape, sizes, big = self.scale.shape, self.scale.sizes, report.mebibytes(self.scale.big_bytes)
        cold = "drop_caches 2 (names, inodes, files of one page), 3 for the big file; the daemons stay up"
        if not self.dropping:
            cold = "NOT root, so the mount is started again; native and all beneath the mounts stay warm"
        storms = "in memory" if self.workspace.storms_in_memory() else "on the disk (there is no tmpfs)"
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            "How much slower than the directory itself: time / native time of the same round",
            report.labelled("machine", machine.describe()),
            report.labelled("versions", "; ".join(versions())),
            *(report.labelled("mounted", f"{each.name}: {each.about}") for each in self.mounted),
            report.labelled(
                "data",
                f"{shape.files} files (mean {shape.mean_bytes} B), {shape.directories} directories, "
                f"{shape.symlinks} symlinks, {self.tree.tagged} xattrs, one file of {big}, on "
                f"{machine.file_system_of(self.workspace.disk)}; seed {SEED}",
            ),
            report.labelled(
                "storms",
                f"{sizes.stats} stats, {sizes.absent} absent names, {sizes.cold_reads} random reads of 4 KiB "
                f"cold and {sizes.warm_reads} warm, {report.mebibytes(sizes.write_bytes)} written and "
                f"fsynced, {sizes.created} files created and deleted {storms}",
            ),
            report.labelled(
                "method",
                f"median of {self.samples.rounds} rounds, in each all file systems one after the other; "
                f"cold: {cold}; warm: third run",
            ),
            report.labelled(
                "noise",
                f"the loop of the storms itself costs {report.duration(loop_s)} a call, in every figure "
                f"alike; {report.NOISE}",
            ),
        ]


def _names_of(workload: Workload) -> set[str]:
    return {workload.name, *workload.name.split("+"), *workload.rows}


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options.parser("mount", "Compare mounted file systems with the native one.", smoke="tiny sizes")
    known = sorted(set().union(*(_names_of(workload) for workload in WORKLOADS)))
    parser.add_argument("--only", metavar="W,...", type=_ListOf(known), help=f"some of: {', '.join(known)}")
    parser.add_argument(
        "--peers", metavar="P,...", type=_ListOf(NAMES), default=frozenset(NAMES),
        help=f"some of: {', '.join(NAMES)} (mergerfs brings mergerfs+, with all its caches)",
    )  # fmt: skip
    parser.add_argument(
        "--storm-dir", type=Path, metavar="DIR", help="make storms of creation here (default: /dev/shm)"
    )
    return parser.parse_args(arguments)


class _ListOf:
    """An argparse type: comma separated words, each of them known."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> frozenset[str]:
        words = frozenset(word for word in text.split(",") if word)
        unknown = words.difference(self._known)
        if unknown:
            raise argparse.ArgumentTypeError(f"not known: {', '.join(sorted(unknown))}")
        return words
