"""The peer of the program `sync`: two instances of syncthing, with homes of their own, on loopback.

What is compared is the exchange of the index alone. Both share the folder as *send only*: such a side takes in the
other's index whole and counts it as the state of everybody, and fetches no file. So the one with an empty folder knows
all that the other has, and nothing else was done. Everything else that either would do by itself (announcing, relays,
upgrades, reports) is off.

Nothing is installed: without the program on the path there is a reason instead of figures.
"""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import machine
from .processes import Failed, end, run
from .sdmount import processor_of

_KEY = "sync-bench"
_FOLDER = "tree"
_LOOK_S = 0.05
_START_S = 60.0
_OFF = {
    "globalAnnounceEnabled": "false", "localAnnounceEnabled": "false", "relaysEnabled": "false", "natEnabled": "false",
    "crashReportingEnabled": "false", "startBrowser": "false", "urAccepted": "-1", "autoUpgradeIntervalH": "0",
    "announceLANAddresses": "false", "reconnectionIntervalS": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Exchanged:
    """What it took until one side knew everything of the other."""

    entries: int
    seconds: float
    telling_s: float
    taking_s: float
    wire_bytes: int


def missing() -> str | None:
    """Why there are no figures, or None."""
    if shutil.which("syncthing") is None or machine.version("syncthing") is None:
        return "it is not installed (apt install syncthing)"
    return None


class Syncthing:
    """One instance, inside `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        made = run(
            ["syncthing", "generate", f"--home={home}", "--no-default-folder", "--skip-port-probing"], deadline_s=60
        )
        if made.code:
            raise Failed(f"syncthing: {made.reason()}")
        told = run(["syncthing", f"--home={home}", "--device-id"], deadline_s=60)
        self.device = told.out.strip()
        self.listens_at, self._asked_at = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def set_up(self, folder: Path, other: "Syncthing") -> None:
        """One folder, one other device, nothing of its own accord."""
        path = self.home / "config.xml"
        tree = ET.parse(path)
        root = tree.getroot()
        for name in ("folder", "device"):
            for element in root.findall(name):
                root.remove(element)
        for instance in (self, other):
            element = ET.SubElement(root, "device", id=instance.device, name=instance.home.name)
            ET.SubElement(element, "address").text = f"tcp://127.0.0.1:{instance.listens_at}"
            ET.SubElement(element, "paused").text = "true" if instance is other else "false"
        shared = ET.SubElement(
            root, "folder", id=_FOLDER, path=str(folder), type="sendonly", fsWatcherEnabled="false", rescanIntervalS="0"
        )
        ET.SubElement(shared, "markerName").text = "."  # nothing is written into the tree
        for instance in (self, other):
            ET.SubElement(shared, "device", id=instance.device)
        gui = root.find("gui")
        options = root.find("options")
        if gui is None or options is None:
            raise Failed("syncthing wrote a configuration of another form than is known here")
        _set(gui, "address", f"127.0.0.1:{self._asked_at}")
        _set(gui, "apikey", _KEY)
        _set(options, "listenAddress", f"tcp://127.0.0.1:{self.listens_at}")
        for name, value in _OFF.items():
            _set(options, name, value)
        tree.write(path)

    def start(self) -> None:
        """It runs and answers."""
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["syncthing", "serve", f"--home={self.home}", "--no-browser", "--no-upgrade", "--no-restart"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=_environment(),
            )  # fmt: skip
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.ask("system/ping")
            except Failed:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Failed("syncthing does not answer") from None
                time.sleep(_LOOK_S)
            else:
                return

    def stop(self) -> None:
        """It ends; what it knows stays."""
        end(self._process)
        self._process = None

    def ask(self, what: str, method: str = "GET") -> Any:
        """One question to its API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._asked_at}/rest/{what}", method=method, headers={"X-API-Key": _KEY}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read() or b"null")
        except (OSError, urllib.error.URLError, ValueError) as error:
            raise Failed(f"syncthing: {error}") from None

    def counted(self, whose: str) -> int:
        """Files, directories and links of the folder: those that are here (`local`) or known of (`global`)."""
        told = self.ask(f"db/status?folder={_FOLDER}")
        return sum(int(told[whose + what]) for what in ("Files", "Directories", "Symlinks"))

    def is_idle(self) -> bool:
        """Whether its folder is scanned."""
        return bool(self.ask(f"db/status?folder={_FOLDER}")["state"] == "idle")

    def let_in(self, other: "Syncthing", *, resume: bool) -> None:
        """Connect to another instance from now on, or not any more."""
        self.ask(f"system/{'resume' if resume else 'pause'}?device={other.device}", "POST")

    def processor_s(self) -> float:
        """Processor time so far of it and what it started."""
        assert self._process is not None
        return processor_of(self._process.pid)

    def connection(self, other: "Syncthing") -> dict[str, Any]:
        """What it says of its connection to another."""
        told: dict[str, Any] = self.ask("system/connections")["connections"].get(other.device, {})
        return told


class Two:
    """An instance that has a tree, and one that comes to know of it."""

    def __init__(self, home: Path, tree: Path, entries: int) -> None:
        self._empty = home / "empty"
        self._empty.mkdir(parents=True)
        self.telling, self.taking = Syncthing(home / "telling"), Syncthing(home / "taking")
        self._entries = entries
        self.telling.set_up(tree, self.taking)
        self.taking.set_up(self._empty, self.telling)

    def prepare(self, limit_s: float) -> None:
        """The one with the tree has scanned it."""
        self.telling.start()
        deadline = time.monotonic() + limit_s
        while self.telling.counted("local") < self._entries or not self.telling.is_idle():
            if time.monotonic() > deadline:
                raise Failed(f"syncthing has not scanned the tree after {limit_s:.0f} s")
            time.sleep(_LOOK_S * 4)

    def meet(self, limit_s: float) -> Exchanged:
        """One that knows nothing connects; returns once it knows all."""
        shutil.rmtree(self.taking.home / "index-v0.14.0.db", ignore_errors=True)
        both = (self.telling, self.taking)
        self.taking.start()
        try:
            deadline = time.monotonic() + limit_s
            while not self.taking.is_idle():
                _wait(deadline)
            before = [one.processor_s() for one in both]
            self.telling.let_in(self.taking, resume=True)
            self.taking.let_in(self.telling, resume=True)
            while not self.taking.connection(self.telling).get("connected"):
                _wait(deadline)
            start = time.perf_counter()
            while self.taking.counted("global") < self._entries:
                _wait(deadline)
            seconds = time.perf_counter() - start
            used = [one.processor_s() - begun for one, begun in zip(both, before, strict=True)]
            wire_bytes = int(self.taking.connection(self.telling)["inBytesTotal"])
            self.telling.let_in(self.taking, resume=False)
        finally:
            self.taking.stop()
        return Exchanged(self._entries, seconds, used[0], used[1], wire_bytes)

    def stop(self) -> None:
        """Both have ended."""
        for one in (self.taking, self.telling):
            one.stop()


def _wait(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise Failed("syncthing has not exchanged its index in time")
    time.sleep(_LOOK_S)


def _set(above: ET.Element, name: str, text: str) -> None:
    for element in above.findall(name):
        above.remove(element)
    ET.SubElement(above, name).text = text


def _environment() -> dict[str, str]:
    return {**os.environ, "STNOUPGRADE": "1"}


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
