"""What is done to each file system: a workload makes the figures of one or more rows.

Cold and warm belong to one workload: cold is the first run after the kernel forgot, warm is the third run
in a row (the second still pays for access times that the first one made stale). A big file has a third
state, `mount cold`: the file beneath is in memory and the mount has not seen it, which is what a union file
system meets when another program has just written the file.

Nothing here knows which file system it is looking at: only paths, and how to make them cold.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .corpus import ABSENT_WORD
from .filesystems import Shares
from .machine import EVERYTHING, NAMES_AND_INODES
from .probe import Probe
from .processes import timed

TREE = "tree"
BIG = "big.bin"
MIB = 1 << 20
SMALL_FILE_BYTES = 2048
SERIAL = itertools.count()  # no name is used twice, so nothing is overwritten


@dataclass(frozen=True)
class Sizes:
    """How much of everything: the full run, or the smoke run that only proves that the programs work."""

    stats: int
    absent: int
    cold_reads: int
    warm_reads: int
    write_bytes: int
    created: int


@dataclass(frozen=True)
class Bench:
    """One file system as a workload sees it."""

    shown: Shares
    native_big: Path
    probe: Probe
    cool: Callable[[int], None]
    sizes: Sizes
    existing: Path
    absent: Path
    deadline_s: float

    @property
    def tree(self) -> Path:
        return self.shown.disk / TREE

    @property
    def big(self) -> Path:
        return self.shown.disk / BIG


Rows = dict[str, float]


@dataclass(frozen=True)
class Workload:
    """A name for --only, the rows it fills, and how."""

    name: str
    rows: tuple[str, ...]
    measure: Callable[[Bench], Rows]
    writes: bool = False
    needs: str | None = None  # a program without which it is left out


def _walk(name: str, argv: list[str], accept: tuple[int, ...] = (0,)) -> Workload:
    """A program that goes through the small tree: first run cold, third run warm."""

    def measure(bench: Bench) -> Rows:
        def once() -> float:
            return timed(argv, cwd=bench.tree, deadline_s=bench.deadline_s, accept=accept)

        bench.cool(NAMES_AND_INODES)
        # The program itself was forgotten too: start it once where there is nothing to do.
        timed([argv[0], "--version"], cwd=Path("/"), deadline_s=bench.deadline_s)
        cold = once()
        once()
        return {f"{name} cold": cold, f"{name} warm": once()}

    return Workload(name, (f"{name} cold", f"{name} warm"), measure, needs=argv[0])


def _storm(name: str, names: Callable[[Bench], Path]) -> Workload:
    """A storm of one call over a list of names."""

    def measure(bench: Bench) -> Rows:
        def once() -> float:
            return bench.probe.seconds(name, base=str(bench.tree), names=str(names(bench)))

        bench.probe.start()
        bench.cool(NAMES_AND_INODES)
        cold = once()
        once()
        return {f"{name} cold": cold, f"{name} warm": once()}

    return Workload(name, (f"{name} cold", f"{name} warm"), measure)


def _sequential_read(bench: Bench) -> Rows:
    def once(path: Path) -> float:
        read = ["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"]
        return timed(read, cwd=Path("/"), deadline_s=bench.deadline_s)

    bench.cool(EVERYTHING)
    timed(["dd", "--version"], cwd=Path("/"), deadline_s=bench.deadline_s)
    cold = once(bench.big)
    once(bench.big)
    warm = once(bench.big)
    if bench.big != bench.native_big:
        bench.probe.ask("drop_file", path=str(bench.big))
    once(bench.native_big)
    return {"seqread cold": cold, "seqread warm": warm, "seqread mount cold": once(bench.big)}


def _random_read(bench: Bench) -> Rows:
    def once(count: int) -> float:
        return bench.probe.seconds("random_read", path=str(bench.big), count=count, seed=7)

    bench.probe.start()
    bench.cool(EVERYTHING)
    cold = once(bench.sizes.cold_reads)
    fill = ["dd", f"if={bench.big}", "of=/dev/null", "bs=1M", "status=none"]
    timed(fill, cwd=Path("/"), deadline_s=bench.deadline_s)
    once(bench.sizes.warm_reads)
    return {"randread cold": cold, "randread warm": once(bench.sizes.warm_reads)}


def _sequential_write(bench: Bench) -> Rows:
    target = bench.shown.scratch / f"written-{next(SERIAL)}"
    blocks = max(1, bench.sizes.write_bytes // MIB)
    write = ["dd", "if=/dev/zero", f"of={target}", "bs=1M", f"count={blocks}", "conv=fsync", "status=none"]
    try:
        return {"seqwrite": timed(write, cwd=Path("/"), deadline_s=bench.deadline_s)}
    finally:
        target.unlink(missing_ok=True)


def _create_and_delete(bench: Bench) -> Rows:
    fresh = str(bench.shown.storm / f"fresh-{next(SERIAL)}")
    count, size_bytes = bench.sizes.created, SMALL_FILE_BYTES
    created = bench.probe.seconds("create", base=fresh, count=count, size_bytes=size_bytes)
    return {"create": created, "delete": bench.probe.seconds("delete", base=fresh)}


WORKLOADS = (
    _walk("find", ["find", "."]),
    _walk("ls -lR", ["ls", "-lR", "."]),
    _walk("du", ["du", "-s", "."]),
    _walk("tar", ["tar", "cf", "-", "."]),
    _walk("grep", ["grep", "-r", ABSENT_WORD, "."], accept=(1,)),
    _walk("getfattr", ["getfattr", "-R", "-d", "."]),
    _storm("stat", lambda bench: bench.existing),
    _storm("absent", lambda bench: bench.absent),
    Workload("seqread", ("seqread cold", "seqread warm", "seqread mount cold"), _sequential_read, needs="dd"),
    Workload("randread", ("randread cold", "randread warm"), _random_read, needs="dd"),
    Workload("seqwrite", ("seqwrite",), _sequential_write, writes=True, needs="dd"),
    Workload("create+delete", ("create", "delete"), _create_and_delete, writes=True),
)
