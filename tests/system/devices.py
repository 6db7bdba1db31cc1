"""Several devices under test: each a machine of a network laboratory with a library, a mount and programs of its own.

In: a laboratory (tests/netlab.py) and a directory. Out: `Device`, which is `Mounted` (harness.py) on its machine. What
they agree on is looked at from outside: what their mounts show.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.netlab import Laboratory, Node, laboratory
from tests.system.harness import PROGRAM_S, Mounted, eventually, one_line

SYNCED_S = 60


class Device(Mounted):
    """One machine."""

    def __init__(self, base: Path, node: Node) -> None:
        base.mkdir(mode=0o700)
        super().__init__(base)
        self.node = node
        self.name = node.name
        self.inside = node.command()

    def begin(self, *arguments: str) -> "subprocess.Popen[str]":
        """`sd` that goes on."""
        return subprocess.Popen(
            [*self.inside, sys.executable, "-m", "vdfs.cli", "--data-dir", str(self.data), *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/",
            env=self.environment(),
        )  # fmt: skip

    def offer(self) -> tuple["subprocess.Popen[str]", dict[str, Any]]:
        """`sd pair` for a script: the program that waits, and its line."""
        program = self.begin("pair", "--yes", "--json")
        assert program.stdout is not None
        line = program.stdout.readline()
        assert line, program.communicate(timeout=PROGRAM_S)
        return program, json.loads(line)

    def admit(self, other: "Device") -> None:
        """Another device joins by the words that this one shows."""
        program, shown = self.offer()
        try:
            other.sd("join", "--yes", *shown["words"].split())
            out, error = program.communicate(timeout=PROGRAM_S)
            assert program.returncode == 0, out + error
        finally:
            program.kill()
            program.communicate()

    def call_it(self, name: str) -> None:
        """The name of this device, for people."""
        own = next(one for one in self.devices() if one["is_own"])
        self.sd("device", "rename", own["id"], name)

    def devices(self) -> list[dict[str, Any]]:
        return list(self.told("device", "list")["devices"])

    def wait_synced(self, timeout_s: float = SYNCED_S) -> None:
        self.sd("sync", "status", "--wait-synced", "--timeout", f"{timeout_s}")

    # what people do ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def offering(self) -> Iterator["Offer"]:
        """`sd pair` while the block lasts."""
        offer = Offer(self.begin("pair", "--yes", "--json"))
        try:
            yield offer
        finally:
            offer.close()

    def join(self, offer: "Offer", *options: str) -> None:
        """Type the words, and wait until both sides are done."""
        self.sd("join", "--yes", *options, *offer.words.split())
        offer.finish()

    def typed(self, text: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        """An `sd` that is told something on its standard input."""
        return subprocess.run(
            [*self.inside, sys.executable, "-m", "vdfs.cli", "--data-dir", str(self.data), *map(str, arguments)],
            input=text, capture_output=True, text=True, check=False, timeout=PROGRAM_S, cwd="/", env=self.environment(),
        )  # fmt: skip

    # what it says -----------------------------------------------------------------------------------------------------

    def device(self, name: str) -> dict[str, Any]:
        """What it says of one device."""
        found = [one for one in self.devices() if one["name"] == name]
        assert len(found) == 1, f"{self.name} does not know {name}: {self.devices()}"
        return found[0]

    def sees(self, name: str) -> bool:
        """Whether it is connected to another device."""
        return any(one["name"] == name and one["is_online"] for one in self.devices())

    def sync(self) -> dict[str, Any]:
        return dict(self.told("sync", "status"))

    @property
    def library_id(self) -> str:
        return str(json.loads((self.library_dir / "library.json").read_text())["id"])

    @property
    def port(self) -> int:
        return int(self.sync()["port"])

    def names(self, below: str = "") -> list[str]:
        """Every path in the mount, without the links at its top."""
        top = self.mnt / below
        found = []
        for directory, dirs, files in os.walk(top):
            found += [os.path.relpath(os.path.join(directory, name), top) for name in (*dirs, *files)]
        return sorted(found)


class Offer:
    """A running `sd pair --yes --json`, once it has shown its one line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"`sd pair` showed nothing: {process.communicate(timeout=PROGRAM_S)}"
        shown = json.loads(line)
        self.words: str = shown["words"]
        self.ticket: str = shown["ticket"]

    def finish(self) -> None:
        """It ends with 0, and without a second line."""
        out, err = self.process.communicate(timeout=PROGRAM_S)
        assert (self.process.returncode, out, err) == (0, "", "")

    def fails(self) -> str:
        """It ends with 1; the one line that it says then."""
        out, err = self.process.communicate(timeout=PROGRAM_S)
        assert (self.process.returncode, out) == (1, ""), f"exit {self.process.returncode}: {out}{err}"
        return one_line(err, "sd: ")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PROGRAM_S)


@contextlib.contextmanager
def devices(base: Path, *names: str) -> Iterator[tuple[Laboratory, list[Device]]]:
    """Mounted devices on one network, which do not know each other yet."""
    with laboratory() as lab:
        made: list[Device] = []
        try:
            for name in names:
                device = Device(base / name, lab.node(name))
                made.append(device)
                device.mount()
                device.call_it(name)
            yield lab, made
        finally:
            failures = []
            for device in made:
                try:
                    device.close()
                except AssertionError as error:
                    failures.append(str(error))
            assert not failures, "\n".join(failures)


def pair(one: Device, *others: Device) -> None:
    """Others join, one after the other, and all are connected with the first and have all that there is."""
    for other in others:
        with one.offering() as offer:
            other.join(offer)
    for other in others:
        meet(one, other)
    for device in (*others, one):
        device.wait_synced()


def meet(one: Device, other: Device) -> None:
    """Wait until both say that they are connected."""
    eventually(lambda: one.sees(other.name) and other.sees(one.name), f"{one.name} and {other.name} are linked", 30)
