"""The program `link`: what a link between two devices carries, and what it costs, over loopback.

Two processes, one at each end (link_ends.py). Blocks of 128 KiB are streamed, and small questions are asked one after
the other: by a bare trio socket, by our channel, by our channel with the hash of each block checked as whoever fetches
a file does, and by `ssh … cat`. What is compared is processor time of both ends together: on a machine with few cores,
that others use too, it is what can be trusted; and on a fast network it is what limits a device.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from . import machine, options, report
from .options import say
from .processes import Failed, end, run, timed
from .report import Samples
from .workspace import Workspace

BLOCK_BYTES = 128 << 10
BLOCKS = 16_000
BLOCKS_SMOKE = 200
CALLS = 5_000
CALLS_SMOKE = 200
ROUNDS = 5
LIMIT_S = 600.0
AIM = 0.35  # of what plain TCP carries in a second of processor time
RAW = "raw"
STREAMS = {
    "raw": "plain TCP",
    "channel": "channel",
    "channel verified": "channel, verified",
    "channel chacha verified": "channel, ChaCha20, verified",
}
CALL_WAYS = {"raw calls": "plain TCP", "channel calls": "channel"}
SSH = "ssh, aes128-gcm"
_AIMED = "channel verified"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 (also when our environment is not there), 1 when an end fails."""
    chosen = _options(arguments)
    try:
        with Workspace(directory=chosen.dir, storm_directory=chosen.dir, keep=chosen.keep) as workspace:
            return _Run(chosen, workspace).go()
    except (Failed, OSError) as error:
        print(f"link: {error}", file=sys.stderr)
        return 1


class _Run:
    """One run inside its workspace."""

    def __init__(self, chosen: argparse.Namespace, workspace: Workspace) -> None:
        self.chosen = chosen
        self.workspace = workspace
        self.blocks = chosen.blocks or (BLOCKS_SMOKE if chosen.smoke else BLOCKS)
        self.calls = chosen.calls or (CALLS_SMOKE if chosen.smoke else CALLS)
        self.samples = Samples(rounds=chosen.rounds or (1 if chosen.smoke else ROUNDS))
        self.python = Path(os.environ.get("SDMOUNT_VENV", chosen.commands.parent / ".venv")) / "bin" / "python"
        self.each: dict[str, list[float]] = {}

    def go(self) -> int:
        failed = False
        if not self.python.exists():
            self.samples.note(f"skipped: sdmount: no environment at {self.python}; tools/setup makes it")
        else:
            ssh = _Ssh.start(self.workspace.disk, self.blocks * BLOCK_BYTES)
            try:
                if isinstance(ssh, str):
                    self.samples.note(f"skipped: ssh: {ssh}")
                for number in range(self.samples.rounds):
                    say(f"round {number + 1} of {self.samples.rounds}")
                    for way in (*STREAMS, *CALL_WAYS):
                        self._measure(way, number)
                    if isinstance(ssh, _Ssh):
                        self._add("ssh", number, *ssh.fetch())
            except Failed as error:
                failed = True
                self.samples.note(f"failed: sdmount: {error}")
            finally:
                if isinstance(ssh, _Ssh):
                    ssh.end()
        self._print()
        return 1 if failed else 0

    def _measure(self, way: str, number: int) -> None:
        count = self.calls if "calls" in way else self.blocks
        server = self._start("serve", way)
        try:
            port = self._line(server)["port"]
            client = self._start("take", way, str(port), str(count))
            try:
                taken, served = self._line(client), self._line(server)
            finally:
                end(client)
        finally:
            end(server)
        self.each.setdefault(way, []).extend(taken.get("each", ()))
        self._add(way, number, taken["seconds"], taken["processor_s"] + served["processor_s"])
        self.samples.add("taking", way, number, taken["processor_s"])

    def _add(self, way: str, number: int, seconds: float, processor_s: float) -> None:
        self.samples.add("wall", way, number, seconds)
        self.samples.add("both", way, number, processor_s)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        paths = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[3])]
        return subprocess.Popen(
            [str(self.python), str(Path(__file__).with_name("link_ends.py")), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )

    def _line(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise Failed("an end of the link died; what it said is above")
        found: dict[str, Any] = json.loads(line)
        return found

    def _print(self) -> None:
        head = ["128 KiB blocks", "wall", "for the processor", "share of plain TCP", "taking end alone"]
        table = [[*head, "aim"]]
        total_bytes = self.blocks * BLOCK_BYTES
        for way, name in {**STREAMS, "ssh": SSH}.items():
            speeds = [self._speed(kind, way, total_bytes) for kind in ("wall", "both")]
            shares = [report.cell(self._shares(kind, way)) for kind in ("both", "taking")]
            table.append([name, *speeds, *shares, self._verdict() if way == _AIMED else ""])
        small = [["1 KiB questions", "median", "processor", "/ plain TCP", "processor / plain TCP", ""]]
        for way, name in CALL_WAYS.items():
            used = self.samples.seconds_of("both", way)
            each = self.each.get(way)
            small.append([
                name,
                report.duration(median(each)) if each else "-",
                report.duration(used, self.calls) if used is not None else "-",
                *(report.cell(self.samples.ratios(kind, way, "raw calls")) for kind in ("wall", "both")),
                "",
            ])  # fmt: skip
        sections = [self._header(), report.aligned(table), report.aligned(small), self.samples.notes]
        print("\n\n".join("\n".join(lines) for lines in sections if lines))
        if self.chosen.json:
            report.write_json(self.chosen.json, self._header(), self.samples)

    def _speed(self, kind: str, way: str, total_bytes: int) -> str:
        seconds = self.samples.seconds_of(kind, way)
        return f"{total_bytes / seconds / 1e9:.2f} GB/s" if seconds else "-"

    def _shares(self, kind: str, way: str) -> list[float]:
        return [1 / ratio for ratio in self.samples.ratios(kind, way, RAW)]

    def _verdict(self) -> str:
        found = self._shares("both", _AIMED)
        goal = f">= {AIM:g}"
        return f"{goal}: {'met' if median(found) >= AIM else 'not met'}, {median(found):.2f}" if found else goal

    def _header(self) -> list[str]:
        return [
            *([report.SMOKE] if self.chosen.smoke else []),
            "What a link carries, and what it costs, beside plain TCP; loopback, a process at each end",
            report.labelled("machine", machine.describe()),
            report.labelled(
                "data", f"{self.blocks} blocks of 128 KiB in one stream; {self.calls} questions one by one"
            ),
            report.labelled(
                "method",
                f"{self.samples.rounds} rounds, medians; for the processor: bytes for a second of processor time of "
                "both ends together; verified: BLAKE3 of each block at the taking end; sockets have the same options",
            ),
            report.labelled("noise", report.NOISE),
        ]


class _Ssh:
    """An sshd of our own on loopback, with keys of this run; `ssh … cat` of a file takes the blocks."""

    def __init__(self, home: Path, sshd: str, size_bytes: int) -> None:
        self._home = home
        self._sshd = sshd
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self._port = sock.getsockname()[1]
        with (home / "data").open("wb") as file:
            for _ in range(size_bytes // BLOCK_BYTES):
                file.write(os.urandom(BLOCK_BYTES))

    @classmethod
    def start(cls, disk: Path, size_bytes: int) -> "_Ssh | str":
        """One that works, or why there is none."""
        sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        if sshd is None or shutil.which("ssh") is None:
            return "no sshd here (apt install openssh-server)"
        home = disk / "ssh"
        home.mkdir(mode=0o700)
        for name in ("host", "user"):
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)]
            made = run(keygen, deadline_s=30)
            if made.code:
                return made.reason()
        (home / "config").write_text(
            f"HostKey {home}/host\nAuthorizedKeysFile {home}/user.pub\nPidFile none\nStrictModes no\nUsePAM no\n"
            "PasswordAuthentication no\nListenAddress 127.0.0.1\nPermitRootLogin prohibit-password\n"
        )
        ssh = cls(home, sshd, size_bytes)
        try:
            ssh.fetch("true")
        except Failed as error:
            return str(error)
        return ssh

    def fetch(self, command: str = "") -> tuple[float, float]:
        """Seconds, and processor seconds of both ends: of all that was started for it, once it has ended."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with (self._home / "log").open("wb") as log:
            server = subprocess.Popen(
                [self._sshd, "-D", "-e", "-f", str(self._home / "config"), "-p", str(self._port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            seconds = timed(
                ["ssh", "-F", "none", "-i", str(self._home / "user"), "-p", str(self._port),
                 "-c", "aes128-gcm@openssh.com", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                 "-o", "ConnectionAttempts=5", "-o", "LogLevel=ERROR", "127.0.0.1",
                 command or f"cat {self._home / 'data'}"],
                cwd=self._home, deadline_s=LIMIT_S,
            )  # fmt: skip
        except Failed as error:
            said = (self._home / "log").read_text(errors="replace").strip().splitlines()
            raise Failed(f"{error}; {said[-1] if said else 'sshd said nothing'}") from None
        finally:
            end(server)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def end(self) -> None:
        """Its keys go with the workspace; nothing runs between two fetches."""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = "What a link between two devices carries for the processor time it takes, beside plain TCP and ssh."
    parser = options.parser("link", about, smoke=f"{BLOCKS_SMOKE} blocks")
    parser.add_argument("--blocks", type=options.count, metavar="N", help=f"blocks to stream (default {BLOCKS})")
    parser.add_argument("--calls", type=options.count, metavar="N", help=f"questions to ask (default {CALLS})")
    return parser.parse_args(arguments)
