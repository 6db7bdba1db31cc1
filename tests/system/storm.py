"""Whether an index that lived through a storm is that of a fresh scan, and what storms are made of.

The rows of a library are held against those of a second library that was made afterwards over the same directories:
names, attributes, hashes, types, rules, fields, thumbnails, sums, tags. What is made anew in each library (ids, uuids,
times of its own) is left out.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.system.harness import Mounted, eventually, what_it_does

ROWS = """
WITH RECURSIVE up(id, path) AS (
  SELECT b.root_entry_id, CAST(l.name AS BLOB) FROM branch b JOIN location l ON l.id = b.location_id
  UNION ALL SELECT e.id, CAST(up.path || X'2F' || e.name AS BLOB) FROM up JOIN entry e ON e.parent_id = up.id)
SELECT up.path, e.kind, e.mode, e.size_bytes, e.mtime_ns, e.ctime_ns, e.st_ino, e.nlink, e.uid, e.gid, e.rule,
  s.rbytes AS sum_bytes, s.rfiles AS sum_files, s.rdirs AS sum_dirs,
  (SELECT count(*) FROM entry o WHERE o.node = e.node) AS names,
  (SELECT group_concat(name, ', ') FROM (SELECT t.name FROM tagging g JOIN tag t ON t.id = g.tag_id
    WHERE g.entry_uuid = e.uuid GROUP BY t.name ORDER BY t.name)) AS tags,
  e.hash_state, c.full, c.sampled, m.body AS manifest, t.name AS type, x.state AS reading, x.error, x.fields,
  (SELECT group_concat(variant || ' ' || size_bytes || ' ' || state || ' ' || coalesce(error, ''), ', ') FROM
    (SELECT * FROM sidecar WHERE content_id = c.id ORDER BY variant)) AS pictures
FROM up JOIN entry e ON e.id = up.id LEFT JOIN content c ON c.id = e.content_id
LEFT JOIN manifest m ON m.content_id = c.id LEFT JOIN sums s ON s.dir_id = e.id
LEFT JOIN filetype t ON t.id = c.type_id LEFT JOIN extracted x ON x.content_id = c.id"""
#: What is known of the bytes; of what a rule holds back that depends on what was read before it did.
_OF_BYTES = ("hash_state", "full", "sampled", "manifest", "type", "reading", "error", "fields", "pictures")

Row = dict[str, Any]


def opened(library: Mounted) -> closing[sqlite3.Connection]:
    """The index of a library, to be read and then closed."""
    uri = f"file:{library.library_dir / 'library.db'}?mode=ro"
    return closing(sqlite3.connect(uri, uri=True, timeout=30))


def rows_of(library: Mounted) -> dict[bytes, Row]:
    """All that an index says of its locations: path -> what."""
    with opened(library) as db:
        cursor = db.execute(ROWS)
        columns = [column[0] for column in cursor.description]
        found: dict[bytes, Row] = {}
        for values in cursor:
            row = dict(zip(columns, values, strict=True))
            if row["rule"]:
                row |= dict.fromkeys(_OF_BYTES)
            found[row.pop("path")] = row
        return found


def left_the_index(library: Mounted) -> int:
    """How many rows left the index and did not come back."""
    with opened(library) as db:
        return int(db.execute("SELECT count(*) FROM limbo").fetchone()[0])


def differences(is_so: dict[bytes, Row], shall_be: dict[bytes, Row]) -> list[str]:
    """What one index says otherwise than another, a line each; the first fifty."""
    told = [f"{path!r} is missing" for path in sorted(shall_be.keys() - is_so.keys())]
    told += [f"{path!r} is too many" for path in sorted(is_so.keys() - shall_be.keys())]
    for path in sorted(is_so.keys() & shall_be.keys()):
        one, other = is_so[path], shall_be[path]
        if other["tags"] is None:  # the name's tags are kept when a file replaces another that carries none
            one = one | {"tags": None}
        wrong = [f"{name}: {one[name]!r:.90}, not {other[name]!r:.90}" for name in one if one[name] != other[name]]
        if wrong:
            told.append(f"{path!r}: {'; '.join(wrong)}")
    return told[:50]


def calm(library: Mounted, within_s: float = 60.0) -> None:
    """What was done is taken in, hashes and fields and all."""
    time.sleep(1.3)
    left: object
    try:
        left = library.idle_within(within_s)
    except TimeoutError:
        left = f"no answer; the process: {what_it_does(library.pid)}"
    if left is not None:
        raise AssertionError(f"{left}\n{what_holds_up(library)}\n{library.log()[-3000:]}")


def what_holds_up(library: Mounted) -> str:
    """For a failure's message: where threads and tasks of the server are now, twice, and what its jobs say if it
    answers."""
    pid = library.pid
    for _ in range(2):
        os.kill(pid, signal.SIGUSR1)
        time.sleep(2)
    stacks = library.data / "state" / "sdmount.stacks"
    told = stacks.read_text()[-20_000:] if stacks.exists() else "it says nothing"
    try:
        jobs = library.sd("job", "list", check=False)
    except subprocess.TimeoutExpired:
        jobs = f"sd job list has no answer; the process: {what_it_does(pid)}"
    return f"{told}\n{jobs}"


def equals_fresh(library: Mounted, *tops: Path, mode: str = "content", within_s: float = 60.0) -> None:
    """The library agrees with the disk by its own verification, and with a library that is made now, row by row."""
    calm(library, within_s)
    base = Path(os.path.realpath(library.base)) / f"fresh-{time.monotonic_ns()}"
    base.mkdir()
    fresh = Mounted(base)
    try:
        fresh.mount()
        for top in tops:
            fresh.sd("location", "add", top, "--mode", mode)
        calm(fresh, within_s)

        def equal() -> bool:
            wrong = differences(rows_of(library), rows_of(fresh))
            assert not wrong, "\n".join([*wrong, library.log()[-3000:]])
            return True

        # Idle is a moment between two rounds of the watcher now and then: what is right stays so.
        eventually(equal, "the index is that of a fresh scan", 5)
    finally:
        fresh.close()
        shutil.rmtree(base, ignore_errors=True)
    library.verify("--content")
    assert "Traceback" not in library.log()


def names_come_and_go(top: Path, changes: int, dice: random.Random) -> None:
    """Changes in one directory, as fast as they can be made: files made, renamed, removed, written, given modes."""
    there: list[str] = []
    for number in range(changes):
        what = dice.random()
        if what < 0.5 or len(there) < 10:
            there.append(f"n{number}")
            (top / there[-1]).write_bytes(b"%d" % number)
            continue
        at = dice.randrange(len(there))
        name = top / there[at]
        if what < 0.65:
            there[at] = f"r{number}"
            name.rename(top / there[at])
        elif what < 0.75:
            other = dice.randrange(len(there))
            name.rename(top / there[other])
            if other != at:
                there[at] = there[-1]
                there.pop()
        elif what < 0.85:
            name.unlink()
            there[at] = there[-1]
            there.pop()
        elif what < 0.93:
            name.chmod(dice.choice((0o600, 0o640, 0o644)))
        else:
            with name.open("ab") as file:
                file.write(b"more %d" % number)


def packages(top: Path, count: int) -> None:
    """What a package manager leaves: many small directories, links, files of few bytes."""
    for number in range(count):
        package = top / "node_modules" / f"p{number}"
        (package / "lib" / "deep").mkdir(parents=True)
        (package / "package.json").write_text(f'{{"name": "p{number}"}}')
        (package / "lib" / "index.js").write_text(f"module.exports = {number}")
        (package / "lib" / "deep" / "more.js").write_text("x" * number)
        (top / "node_modules" / ".bin").mkdir(exist_ok=True)
        (top / "node_modules" / ".bin" / f"p{number}").symlink_to(f"../p{number}/lib/index.js")
