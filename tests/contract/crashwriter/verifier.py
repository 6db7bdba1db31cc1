"""After a restart: does the tree hold exactly what was acknowledged?

In: the tree and the acknowledgement file. Out: a report with every difference. The one operation a writer
had in flight may be done, not done, or (for bytes) done in part from the front; everything else must be as
acknowledged: kind, bytes, attributes, inode number, modification time, and no name that was removed or
never made.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .journal import State, content, digest, read_journal
from .writer import SHARED

_PROBLEMS_MAX = 50


@dataclass
class Promises:
    """What one writer is owed: its last acknowledged states, and the operation in flight."""

    writer: str
    acked: int = 0
    states: dict[str, State] = field(default_factory=dict)
    in_flight: dict[str, Any] | None = None
    stopped: str = ""

    @property
    def busy(self) -> bool:
        """Whether it was at work when the tree or the writer itself died."""
        return self.stopped not in ("time", "failed")


@dataclass(frozen=True)
class Candidate:
    """One thing a path may be: absent, or a state whose bytes may stop anywhere after ``whole_bytes``."""

    state: State | None
    whole_bytes: int = -1


def replay(lines: Iterable[dict[str, Any]]) -> dict[str, Promises]:
    """The promises of every writer from the lines of the file."""
    writers: dict[str, Promises] = {}
    for line in lines:
        promises = writers.setdefault(line["writer"], Promises(line["writer"]))
        match line["phase"]:
            case "begin":
                promises.in_flight = line
            case "ack":
                promises.in_flight = None
                promises.acked += 1
                for path, state in line["states"].items():
                    promises.states.pop(path, None)
                    if state:
                        promises.states[path] = state
            case "stop":
                promises.stopped = line["reason"]
    return writers


def verify(tree: Path, ack: Path, *, inodes: bool) -> dict[str, Any]:
    """Compare the tree with the file; the report's ``problems`` is empty when every promise is kept."""
    writers = replay(read_journal(ack))
    problems: list[str] = []
    lost = 0
    for promises in writers.values():
        found = _broken_promises(tree, promises, inodes=inodes)
        lost += len(found)
        problems += found
    problems += _foreign_names(tree, writers)
    acked, busy = sum(one.acked for one in writers.values()), sum(one.busy for one in writers.values())
    return {
        "ok": not problems,
        "acked": acked,
        "lost": lost,
        "foreign": len(problems) - lost,
        "files": sum(len(one.states) for one in writers.values()),
        "writers": len(writers),
        "busy_writers": busy,
        "in_flight": [one.in_flight["op"] for one in writers.values() if one.in_flight],
        "round_counts": acked >= 1 and busy >= 1,
        "problems": problems[:_PROBLEMS_MAX],
    }


def _broken_promises(tree: Path, promises: Promises, *, inodes: bool) -> list[str]:
    uncertain = _in_flight_candidates(promises)
    problems = []
    for path, state in promises.states.items():
        if path not in uncertain and (problem := _difference(tree / path, promises.writer, Candidate(state), inodes)):
            problems.append(f"{path}: {problem}")
    for path, candidates in uncertain.items():
        found = [_difference(tree / path, promises.writer, candidate, inodes=False) for candidate in candidates]
        if all(found):
            problems.append(f"{path} (in flight): {' or '.join(found)}")
    return problems + _torn_rename(tree, promises)


def _in_flight_candidates(promises: Promises) -> dict[str, list[Candidate]]:
    """What each path of the operation in flight may be."""
    line, states = promises.in_flight, promises.states
    if not line:
        return {}
    path, kind = line["path"], line["op"]
    old = states.get(path)
    chunks = [[line["n"], line["length"]]] if "length" in line else []
    match kind:
        case "create_sync" | "create_close":
            return {path: [Candidate(None), Candidate(_file(chunks, {}), 0)]}
        case "append_sync" | "append_close" if old:
            whole = len(content(promises.writer, old["chunks"]))
            return {path: [Candidate(_file([*old["chunks"], *chunks], old["xattrs"]), whole)]}
        case "save" if old:
            saved = [Candidate(_file(chunks, {})), Candidate(_file(chunks, old["xattrs"]))]
            temporary = [Candidate(None), Candidate(_file(chunks, {}), 0)]
            return {path: [Candidate(old), *saved], line["temporary"]: temporary}
        case "rename" | "replace" if old:
            replaced = states.get(line["to"])
            kept = replaced["xattrs"] if replaced else {}
            moved = [Candidate(old), Candidate(_file(old["chunks"], kept))]
            return {path: [Candidate(old), Candidate(None)], line["to"]: [Candidate(replaced), *moved]}
        case "mkdir":
            return {path: [Candidate(None), Candidate({"kind": "dir"})]}
        case "tag" | "comment" if old:
            changed = _file(old["chunks"], old["xattrs"] | {line["name"]: line["value"]})
            return {path: [Candidate(old), Candidate(changed)]}
        case "untag" if old:
            fewer = {name: value for name, value in old["xattrs"].items() if name != line["name"]}
            return {path: [Candidate(old), Candidate(_file(old["chunks"], fewer))]}
        case "unlink" | "rmdir":
            return {path: [Candidate(old), Candidate(None)]}
    return {}  # reread changes nothing: its path must be as acknowledged


def _file(chunks: list[list[int]], xattrs: dict[str, str]) -> State:
    return {"kind": "file", "chunks": chunks, "xattrs": xattrs}


def _torn_rename(tree: Path, promises: Promises) -> list[str]:
    """A file in flight from one name to another must be under exactly one of them."""
    line = promises.in_flight
    if not line or line["op"] not in ("rename", "replace"):
        return []
    old_there = os.path.lexists(tree / line["path"])
    data = content(promises.writer, promises.states[line["path"]]["chunks"])
    new = tree / line["to"]
    new_there = os.path.lexists(new) and new.read_bytes() == data
    if old_there != new_there:
        return []
    # Two files may hold the same bytes; then both names are right.
    replaced = promises.states.get(line["to"])
    if old_there and replaced and content(promises.writer, replaced["chunks"]) == data:
        return []
    return [f"{line['path']} (in flight): under {'both names' if old_there else 'neither name'} of its rename"]


def _difference(path: Path, writer: str, candidate: Candidate, inodes: bool) -> str:
    """How the path differs from what it may be, empty when it does not."""
    state = candidate.state
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "lost" if state else ""
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    if state is None:
        return "there, though removed"
    if stat.S_ISDIR(status.st_mode) != (state["kind"] == "dir"):
        return "another kind of file"
    if state["kind"] == "dir":
        return ""
    try:
        return _wrong_bytes(path, writer, candidate) or _wrong_facts(path, status, state, inodes)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _wrong_bytes(path: Path, writer: str, candidate: Candidate) -> str:
    assert candidate.state
    data, expected = path.read_bytes(), content(writer, candidate.state["chunks"])
    if data == expected:
        return ""
    if 0 <= candidate.whole_bytes <= len(data) and expected.startswith(data):
        return ""
    if expected.startswith(data):
        return f"cut off at {len(data)} of {len(expected)} bytes"
    return f"other bytes ({len(data)} with {digest(data)}, acknowledged {len(expected)} with {digest(expected)})"


def _wrong_facts(path: Path, status: os.stat_result, state: State, inodes: bool) -> str:
    names = [name for name in os.listxattr(path) if name.startswith("user.")]
    xattrs = {name: os.getxattr(path, name).hex() for name in names}
    if xattrs != state["xattrs"]:
        return f"attributes {_readable(xattrs)}, acknowledged {_readable(state['xattrs'])}"
    if "mtime_ns" in state and status.st_mtime_ns != state["mtime_ns"]:
        return f"modified at {status.st_mtime_ns}, acknowledged {state['mtime_ns']}"
    if inodes and status.st_ino != state["inode"]:
        return f"inode number {status.st_ino}, acknowledged {state['inode']}"
    return ""


def _readable(xattrs: dict[str, str]) -> dict[str, str]:
    return {name: bytes.fromhex(value).decode(errors="replace") for name, value in xattrs.items()}


def _foreign_names(tree: Path, writers: dict[str, Promises]) -> list[str]:
    """Names in the writers' directories that nobody may find there: removed ones, leftovers, strangers."""
    known = {SHARED}
    for promises in writers.values():
        known |= promises.states.keys() | _in_flight_candidates(promises).keys()
    problems = []
    for top in (SHARED, *writers):
        for directory, directories, files in os.walk(tree / top):
            for name in (*directories, *files):
                path = os.path.relpath(os.path.join(directory, name), tree)
                mine = name.split("-file-")[0].split("-moved-")[0].split("-dir-")[0] in writers
                if path not in known and (mine or top != SHARED):
                    problems.append(f"{path}: there, though removed or never made")
    return problems
