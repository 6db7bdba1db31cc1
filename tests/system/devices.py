"""Several devices under test: each a machine of a network laboratory with a library, a mount and programs of its own.

In: a laboratory (tests/netlab.py) and a directory. Out: `Device`, which is `Mounted` (harness.py) on its machine. What
they agree on is looked at from outside: what their mounts show.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.netlab import Laboratory, Node, laboratory
from tests.system.harness import PROGRAM_S, Mounted

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
        return list(self.sd_json("device", "list")["devices"])

    def wait_synced(self, timeout_s: float = SYNCED_S) -> None:
        self.sd("sync", "status", "--wait-synced", "--timeout", f"{timeout_s}")

    def names(self, below: str = "") -> list[str]:
        """Every path in the mount, without the links at its top."""
        top = self.mnt / below
        found = []
        for directory, dirs, files in os.walk(top):
            found += [os.path.relpath(os.path.join(directory, name), top) for name in (*dirs, *files)]
        return sorted(found)


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
