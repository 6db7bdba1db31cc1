"""The program `search`: how soon a search answers, in the library's own process, through its socket, beside others.

A library of rows that no disk has (search_library.py) is searched through its socket, one query after the other, and
by itself. plocate, with a database of its own, and fd search a real tree of such names, smaller by default, in the same
round. What a person waits for is compared, not work: they print paths and start a process.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from . import machine, options, report
from .options import say
from .processes import Failed, end, timed
from .report import Samples
from .search_names import FILES_PER_DIRECTORY, directory_names, names, queries
from .workspace import Workspace

SEED = 20_251
ENTRIES, FILES, QUERIES = 1_000_000, 200_000, 100
ENTRIES_SMOKE, FILES_SMOKE, QUERIES_SMOKE = 2_000, 300, 10
PEER_QUERIES = 10
LIMIT_S = 1_800.0
FIRST_AIM_S = 0.001
ALL_AIM_S = 0.016
OURS_ALONE = "tag, kind and date"
NAMED = "named"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when the project's environment is not there), 1 when something of ours fails."""
    chosen = _options(arguments)
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.dir, keep=chosen.keep) as workspace:
            return _Run(chosen, workspace).go()
    except (Failed, OSError) as error:
        print(f"search: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, workspace: Workspace) -> None:
        smoke = chosen.smoke
        self.chosen = chosen
        self.entries = chosen.entries or (ENTRIES_SMOKE if smoke else ENTRIES)
        self.files = chosen.files or (FILES_SMOKE if smoke else self.entries if chosen.million else FILES)
        self.count = QUERIES_SMOKE if smoke else QUERIES
        self.workspace = workspace
        self.samples = Samples(rounds=chosen.rounds or (1 if smoke else 3))
        self.rows = queries(self.count, SEED + 1)
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.facts: dict[str, Any] = {}

    def go(self) -> int:
        python = Path(os.environ.get("SDMOUNT_VENV", self.chosen.commands.parent / ".venv")) / "bin" / "python"
        peers = self._peers()
        if not python.exists():
            self.samples.note(f"skipped: sdmount: no environment at {python}; tools/setup makes it")
            self._ask_peers(peers, 0)
            self._print(peers)
            return 0
        say(f"making a library of {self.entries} names")
        home = self.workspace.disk / "library"
        script = Path(__file__).with_name("search_library.py")
        command = [str(python), str(script), str(home), str(self.entries), str(self.count), str(SEED)]
        paths = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[3])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise Failed("the library could not be made; what it said is above")
            self.facts = json.loads(line)
            for row, found in self.facts["rows"].items():
                for key in ("first", "all"):
                    self.seconds[row, f"{key} in process"] = found[key]
            for number in range(self.samples.rounds):
                say(f"round {number + 1} of {self.samples.rounds}")
                self._ask_socket(Path(self.facts["socket"]), number)
                self._ask_peers(peers, number)
        finally:
            end(process)
        self._print(peers)
        return 0

    def _ask_socket(self, path: Path, number: int) -> None:
        """Every query once: from the request's first byte to the reply as values."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            with sock.makefile("rwb") as stream:
                for row, texts in self.rows.items():
                    for text in texts[:3]:
                        _ask(stream, text)
                    times = [_ask(stream, text) for text in texts]
                    self.seconds.setdefault((row, "socket"), []).extend(times)
                    self.samples.add(row, "sdmount", number, median(times))

    def _peers(self) -> dict[str, list[str]]:
        """The command lines, up to the text, of those that are installed; their tree is made when one is."""
        tree, database = self.workspace.disk / "tree", self.workspace.disk / "plocate.db"
        fd = shutil.which("fdfind") or shutil.which("fd")
        found = {}
        if shutil.which("plocate") and shutil.which("updatedb"):
            found["plocate"] = ["plocate", "-d", str(database), "-b", "-i"]
        if fd:
            found["fd"] = [fd, "-u", "-F", "-i", "--search-path", str(tree)]
        for name in {"plocate", "fd"} - set(found):
            self.samples.note(f"skipped: {name}: not installed (apt install plocate fd-find)")
        if found:
            say(f"making {self.files} files for {' and '.join(found)}")
            _grow(tree, self.files)
        if "plocate" in found:
            command = ["updatedb", "-l", "0", "-U", str(tree), "-o", str(database), "--prunepaths", "", "--prunefs", ""]
            self.seconds[NAMED, "updatedb"] = [timed(command, cwd=tree, deadline_s=LIMIT_S)]
        return found

    def _ask_peers(self, peers: dict[str, list[str]], number: int) -> None:
        for row, texts in self.rows.items():
            if row == OURS_ALONE:
                continue
            for name, command in peers.items():
                times = [
                    timed([*command, text], cwd=self.workspace.disk, deadline_s=LIMIT_S, accept=(0, 1))
                    for text in texts[:PEER_QUERIES]
                ]
                self.seconds.setdefault((row, name), []).extend(times)
                self.samples.add(row, name, number, median(times))

    def _print(self, peers: dict[str, list[str]]) -> None:
        head = ["search", "in process", "p95", "socket", "p95", "all hits", "p95", "hits", "plocate", "fd"]
        table = [[*head, f"aim: first p95 <= {FIRST_AIM_S * 1e3:g} ms, all <= {ALL_AIM_S * 1e3:g} ms"]]
        for row in self.rows:
            cells = []
            for key in ("first in process", "socket", "all in process"):
                times = self.seconds.get((row, key), [])
                cells += [report.duration(median(times)), report.duration(_p95(times))] if times else ["-", "-"]
            hits = self.facts.get("rows", {}).get(row, {}).get("hits")
            cells.append(f"{median(hits):.0f}" if hits else "-")
            cells += [report.cell(self.samples.ratios(row, name, "sdmount")) for name in ("plocate", "fd")]
            table.append([row, *cells, self._verdict(row)])
        facts = self._facts() if self.facts else []
        sections = [self._header(peers), report.aligned(table), facts, self.samples.notes]
        print("\n\n".join("\n".join(lines) for lines in sections if lines))
        if self.chosen.json:
            report.write_json(self.chosen.json, [*self._header(peers), *facts], self.samples)

    def _verdict(self, row: str) -> str:
        first, whole = self.seconds.get((row, "socket")), self.seconds.get((row, "all in process"))
        if not first or not whole:
            return ""
        return f"{_judged(_p95(first), FIRST_AIM_S)}; {_judged(_p95(whole), ALL_AIM_S)}"

    def _facts(self) -> list[str]:
        facts, writes = self.facts, self.facts["writes"]
        each = facts["index_bytes"] / self.entries
        took, processor, slice_ = (report.duration(facts[key]) for key in ("build_s", "build_cpu_s", "slice_s"))
        build = f"{took} ({processor} of a processor), slices of at most {slice_} in a thread"
        named = self.seconds.get((NAMED, "updatedb"))
        if named:
            build += f"; updatedb of {self.files} files {report.duration(named[0])}"
        changes = ", ".join(
            f"{what} {report.duration(writes[f'{what} with'])} ({report.duration(writes[f'{what} without'])} without)"
            for what in ("create", "rename", "delete")
        )
        return [
            report.labelled("index", f"{each:.0f} bytes a name; built in {build}"),
            report.labelled("database", f"{facts['library_bytes'] / self.entries:.0f} bytes an entry beside it"),
            report.labelled("rows", f"{changes}, in one unit"),
        ]

    def _header(self, peers: dict[str, list[str]]) -> list[str]:
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            f"Searches over {self.entries} names; {' and '.join(peers) or 'nobody else'} as time / ours",
            report.labelled("machine", machine.describe()),
            report.labelled(
                "data",
                f"{self.entries} rows of a library that no disk has; for plocate and fd {self.files} empty files of "
                f"such names, on {machine.file_system_of(self.workspace.disk)}; seed {SEED}",
            ),
            report.labelled(
                "method",
                f"{self.count} queries a row, the first 100 hits with their paths: in process, and through the socket "
                f"until the reply is parsed ({self.samples.rounds} rounds); all hits in process, 20 queries; plocate "
                f"and fd: time / ours through the socket, their output read, {PEER_QUERIES} queries a round, names "
                "only, either case",
            ),
            report.labelled("noise", report.NOISE),
        ]


def _ask(stream: Any, text: str) -> float:
    """Seconds of one request; Failed when it is refused."""
    began_s = time.perf_counter()
    request = {"jsonrpc": "2.0", "id": 1, "method": "query:search.names", "params": {"query": text, "limit": 100}}
    stream.write(json.dumps(request).encode() + b"\n")
    stream.flush()
    reply = json.loads(stream.readline())
    took_s = time.perf_counter() - began_s
    if "result" not in reply:
        raise Failed(f"the search for {text} was refused: {reply}")
    return took_s


def _grow(tree: Path, count: int) -> None:
    """Empty files of the names that a library gets, in directories side by side."""
    homes = directory_names(count // FILES_PER_DIRECTORY + 1)
    for home in homes:
        (tree / home).mkdir(parents=True)
    for number, name in enumerate(names(count, SEED)):
        os.close(os.open(tree / homes[number // FILES_PER_DIRECTORY] / name, os.O_WRONLY | os.O_CREAT, 0o644))


def _p95(times: list[float]) -> float:
    return quantiles(times, n=20)[-1] if len(times) > 1 else times[0]


def _judged(seconds: float, aim_s: float) -> str:
    return "met" if seconds <= aim_s else f"not met, {report.duration(seconds)}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "Searches over a library of a million names, beside plocate and fd."
    parser = options.parser("search", about, smoke=f"{ENTRIES_SMOKE} names")
    parser.add_argument("--entries", type=options.count, metavar="N", help=f"names in the library (default {ENTRIES})")
    parser.add_argument("--files", type=options.count, metavar="N", help=f"files for plocate and fd (default {FILES})")
    parser.add_argument("--million", action="store_true", help="as many files for plocate and fd as names")
    return parser.parse_args(arguments)
