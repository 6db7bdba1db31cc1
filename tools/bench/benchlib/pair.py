"""Two mounts of ours on one machine that become devices of one library, as two people would have them.

Each has a mount point, a data directory and so a key of its own; they find each other by the address that is given to
`sd join`. Everything between them goes through real sockets on loopback and two real databases.
"""

import json
import sqlite3
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .processes import Failed, end
from .sdmount import COMMANDS, Sdmount

LOOK_S = 0.02
_DONE = "SELECT 1 FROM stream WHERE device=? AND kind=0 AND seq>start_seq AND part_to=0"


@dataclass(frozen=True)
class Taken:
    """What it took until one device had everything of the other. Processor time is of the two mounts' processes."""

    rows: int
    seconds: float
    telling_s: float
    taking_s: float
    wire_bytes: int
    telling_peak_bytes: int
    taking_peak_bytes: int
    telling_own_bytes: int  # the most that was seen of what is no page of a mapped file
    taking_own_bytes: int


class Pair:
    """`telling` has the files, `taking` joins it. Both are mounted while the pair is used."""

    def __init__(self, telling: Sdmount, home: Path, commands: Path = COMMANDS) -> None:
        self.telling = telling
        self.taking = Sdmount(home, commands)

    def own_id(self, product: Sdmount) -> bytes:
        """The id of a device."""
        own = next(one for one in product.told("device", "list")["devices"] if one["is_own"])
        return bytes.fromhex(str(own["id"]).replace("-", ""))

    def meet(self, limit_s: float) -> Taken:
        """They are paired; returns once the one that joins has every row."""
        telling, taking = self.telling, self.taking
        teller = self.own_id(telling)
        both = (telling, taking)
        for one in both:
            one.forget_peak()
        before = [one.server_s() for one in both]
        self._introduce(limit_s)
        with closing(sqlite3.connect(f"file:{taking.library()}?mode=ro", uri=True)) as db:
            deadline = time.monotonic() + limit_s
            own = [0, 0]
            while db.execute(_DONE, (teller,)).fetchone() is None:
                if time.monotonic() > deadline:
                    raise Failed(f"not all is there after {limit_s:.0f} s")
                own = [max(most, one.own_bytes()) for one, most in zip(both, own, strict=True)]
                time.sleep(LOOK_S)
            ended_ns = time.time_ns()
            used = [one.server_s() - start for one, start in zip(both, before, strict=True)]
            (rows,) = db.execute("SELECT count(*) FROM entry WHERE uid=-1").fetchone()
        wire_bytes = int(taking.told("sync", "metrics")["bytes_in"])
        memory = [one.memory().peak_bytes for one in both]
        seconds = (ended_ns - self.connected_ns()) / 1e9
        return Taken(rows, seconds, used[0], used[1], wire_bytes, *memory, *own)

    def connected_ns(self) -> int:
        """When the taking device came to be connected last."""
        events = self.taking.told("sync", "events", "--limit", "1000")["events"]
        return max(int(event["time_ns"]) for event in events if event["event"] == "connected")

    def wait_synced(self, limit_s: float) -> None:
        """Return once nothing is missing that the other device has."""
        self.taking.sd("sync", "status", "--wait-synced", "--timeout", f"{limit_s:.0f}", limit_s=limit_s + 60)

    def part(self) -> None:
        """The device that joined is no member any more."""
        self.telling.sd("device", "revoke", "--yes", self.own_id(self.taking).hex())

    def _introduce(self, limit_s: float) -> None:
        offer = self.telling.begin_sd("pair", "--yes", "--json")
        try:
            assert offer.stdout is not None
            line = offer.stdout.readline()
            if not line:
                raise Failed("sd pair printed no words")
            port = self.telling.told("sync", "status")["port"]
            words = json.loads(line)["words"].split()
            self.taking.sd("join", "--yes", "--at", f"127.0.0.1:{port}", *words, limit_s=limit_s)
            try:
                offer.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                raise Failed("sd pair does not end") from None
        finally:
            end(offer)
            if offer.stdout is not None:
                offer.stdout.close()


def plain_insert(library: Path, made: Path) -> tuple[int, float, float]:
    """The floor: the same rows into the same table with the same indexes and those of their contents, by SQLite alone,
    in transactions as large as ours. Returns rows, seconds, and seconds of processor time."""
    with closing(sqlite3.connect(f"file:{library}?mode=ro", uri=True)) as db:
        kept = ("entry", "content")
        marks = ",".join("?" * len(kept))
        schema = [
            row[0]
            for row in db.execute(
                f"SELECT sql FROM sqlite_master WHERE tbl_name IN ({marks}) AND type IN ('table', 'index') "
                "AND sql IS NOT NULL ORDER BY type DESC",
                kept,
            )
        ]
        rows = db.execute("SELECT * FROM entry WHERE uid=-1 ORDER BY id").fetchall()
        contents = db.execute(
            "SELECT * FROM content WHERE id IN (SELECT content_id FROM entry WHERE uid=-1) ORDER BY id"
        ).fetchall()
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        for statement in schema:
            db.execute(statement)
        began, began_cpu = time.perf_counter(), time.process_time()
        for start in range(0, len(rows), _AT_ONCE):
            db.execute("BEGIN")
            for table, all_of_it in (("content", contents), ("entry", rows)):
                some = all_of_it[start : start + _AT_ONCE]
                if some:
                    db.executemany(f"INSERT INTO {table} VALUES({','.join('?' * len(some[0]))})", some)
            db.execute("COMMIT")
        return len(rows), time.perf_counter() - began, time.process_time() - began_cpu


_AT_ONCE = 2000
