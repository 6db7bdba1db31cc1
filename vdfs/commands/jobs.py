"""`sd job`: what it prints, and how it watches: bars on a terminal, lines elsewhere, JSON for programs.

Watching asks again and again for what is new (job.watch answers then, not before) until the job, or all of them, have
ended.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from vdfs.commands.arguments import Commands, as_count
from vdfs.commands.door import Door
from vdfs.commands.output import print_result
from vdfs.commands.words import Json, count, human_bytes, human_duration, human_time, message, table

ENDED: Final = ("completed", "failed", "cancelled")
WATCH_S: Final = 10.0


def add(commands: Commands) -> None:
    jobs = commands.add("job list [--limit N]", _job_list, "list the jobs, those that have not ended first")
    jobs.add_argument("--limit", type=as_count, default=20, metavar="N", help="at most N (default: 20)")
    show = commands.add("job show ID [--lines N]", _job_show, "show one job: its parts, its notes, its log")
    watch = commands.add("job watch [ID]", _job_watch, "watch jobs until they have ended; exit code 1: one failed")
    watch.add_argument("id", metavar="ID", nargs="?", type=as_count, help="a number of `sd job list`")
    pause = commands.add("job pause ID", _job_pause, "hold a job up, also over a restart")
    resume = commands.add("job resume ID", _job_resume, "let a paused job go on where it was")
    cancel = commands.add("job cancel ID", _job_cancel, "end a job where it is; what it did stays")
    for one in (show, pause, resume, cancel):
        one.add_argument("id", metavar="ID", type=as_count, help="a number of `sd job list`")
    show.add_argument("--lines", type=as_count, default=50, metavar="N", help="of its log, the last N (default: 50)")


def _job_list(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:job.list", {"limit": args.limit}), job_list)


def _job_show(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:job.show", {"id": args.id, "lines": args.lines}), job_story)


def _job_watch(door: Door, args: argparse.Namespace) -> int:
    return watch(door.call, args.id, as_json=args.json)


def _job_pause(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("action:job.pause", {"id": args.id}), job_stopped)


def _job_resume(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("action:job.resume", {"id": args.id}), job_changed)


def _job_cancel(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("action:job.cancel", {"id": args.id}), job_stopped)


def job_list(result: Json) -> list[str]:
    """Jobs, those that have not ended first; the parts of these are indented below."""
    rows = []
    for item in result["jobs"]:
        rows.append(_row(item["job"], ""))
        if item["job"]["status"] not in ENDED:
            rows.extend(_row(part, "  ") for part in item["parts"])
    return table(rows, right=(0,)) if rows else ["no jobs yet; `sd location add DIR` makes some"]


def _row(job: Json, indent: str) -> list[str]:
    return [f"{job['id']}", indent + message(job["title"]), _status(job), how_far(job)]


def _status(job: Json) -> str:
    by = job.get("paused_by")
    return f"paused ({by})" if job["status"] == "paused" and by else str(job["status"])


def how_far(job: Json) -> str:
    """`4 021 of 12 000 (33 %), 1.2 GiB, 412/s, 20 s left`; of one that has ended how long it took."""
    if job["status"] in ENDED:
        said = [f"{human_time(job['ended_ns'])}, took {_took(job['worked_s'])}"]
    else:
        said = [message(job["phase"])] if job["phase"] else []
        if job["total"]:
            said.append(f"{_number(job['done'])} of {_number(job['total'])} ({100 * job['done'] // job['total']} %)")
        elif job["done"]:
            said.append(_number(job["done"]))
        if job["bytes_done"]:
            said.append(human_bytes(job["bytes_done"]))
        if job["rate"]:
            said.append(f"{_number(round(job['rate']))}/s")
        if job["eta_s"] is not None:
            said.append(f"{human_duration(job['eta_s'])} left")
    for key in ("error", "warning"):
        if job[f"{key}s"]:
            said.append(count(job[f"{key}s"], key))
    if job["error"]:
        said.append(message(job["error"]))
    return ", ".join(said)


def _took(seconds: float) -> str:
    return human_duration(seconds) if seconds >= 10 else f"{seconds:.1f} s"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def job_story(result: Json) -> list[str]:
    """All of one job."""
    job = result["job"]
    runs = job["runs"]
    facts = [
        ("Job", f"{job['id']}, {message(job['title'])}"),
        ("Status", _status(job)),
        ("Far", how_far(job)),
        ("Begun", human_time(job["started_ns"]) + (f", {count(runs, 'run')}" if runs > 1 else "")),
        ("Done", _said(json.loads(result["result"]))),
    ]
    lines = table((label, value) for label, value in facts if value)
    if result["parts"]:
        lines += ["Parts", *table([_row(part, "  ") for part in result["parts"]], right=(0,))]
    if result["notes"]:
        lines += ["Notes", *(f"  {human_time(n['at_ns'])} {n['level']}: {message(n['text'])}" for n in result["notes"])]
    if result["log"]:
        lines += ["Log", *(f"  {message(line)}" for line in result["log"])]
    return lines


def _said(result: Json) -> str:
    """A result as words; those of parts in brackets."""
    said = [f"{key} ({_said(v)})" if isinstance(v, Mapping) else f"{key} {v}" for key, v in result.items()]
    return message(", ".join(said))


def job_changed(result: Json) -> list[str]:
    return [f"job {result['id']} ({message(result['title'])}): {_status(result)}"]


def job_stopped(result: Json) -> list[str]:
    """The same of one that was told to stop; it may be amid something that takes a while."""
    more = ", and stops as soon as it can" if result["status"] == "running" else ""
    return [line + more for line in job_changed(result)]


def watch(call: Callable[..., Json], job_id: int | None, *, as_json: bool) -> int:
    """Show jobs as they go until the one that is meant, or all, have ended. Returns 1 when one of them failed."""
    if as_json:
        show: Callable[[list[Json]], None] = lambda jobs: print(json.dumps({"jobs": jobs}), flush=True)  # noqa: E731
        return _watched(call, job_id, show)
    if not sys.stdout.isatty():
        return _watched(call, job_id, _Lines())
    return _with_bars(call, job_id)


def _looks(call: Callable[..., Json], job_id: int | None) -> Iterator[list[Json]]:
    """What is to be shown, each time that there is something new: the jobs that are watched, with their parts."""
    told, seen = -1, set[int]()
    while True:
        result = call("query:job.watch", {"told": told, "timeout_s": WATCH_S, "limit": 100}, timeout_s=WATCH_S + 20)
        told = result["told"]
        families = [[item["job"], *item["parts"]] for item in result["jobs"]]
        if job_id is None:
            seen |= {family[0]["id"] for family in families if family[0]["status"] not in ENDED}
            families = [family for family in families if family[0]["id"] in seen]
        else:
            families = [family for family in families if any(job["id"] == job_id for job in family)]
            if not families:  # an old one
                story = call("query:job.show", {"id": job_id, "lines": 0})
                families = [[story["job"], *story["parts"]]]
        yield [job for family in families for job in family]
        watched = [job for family in families for job in family if job_id is None or job["id"] == job_id]
        if all(job["status"] in ENDED for job in watched):
            return


def _watched(call: Callable[..., Json], job_id: int | None, show: Callable[[list[Json]], None]) -> int:
    jobs: list[Json] = []
    for jobs in _looks(call, job_id):
        show(jobs)
    asked = [job for job in jobs if job_id is None or job["id"] == job_id]
    return 1 if any(job["status"] != "completed" for job in asked) else 0


class _Lines:
    """For a log or a pipe: a line when a status or a phase is another one."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[str, str]] = {}

    def __call__(self, jobs: list[Json]) -> None:
        for job in jobs:
            now = (_status(job), job["phase"])
            if self._said.get(job["id"]) != now:
                self._said[job["id"]] = now
                stamp = time.strftime("%H:%M:%S")
                far = how_far(job)
                print(f"{stamp} {job['id']} {message(job['title'])}: {now[0]}{f', {far}' if far else ''}", flush=True)


def _with_bars(call: Callable[..., Json], job_id: int | None) -> int:
    """Bars, drawn by rich: it knows terminals."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.text import Text

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.fields[label]}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[far]}", markup=False),
    )
    with Progress(*columns, refresh_per_second=10) as bars:
        tasks: dict[int, Any] = {}

        def show(jobs: list[Json]) -> None:
            for job in jobs:
                if job["id"] not in tasks:
                    tasks[job["id"]] = bars.add_task("", total=None, label="", far="")
                indent = "  " if job["parent"] is not None else ""
                is_over = job["status"] in ENDED
                total = job["total"] if not is_over else max(1, job["done"])
                far = how_far(job) if job["status"] in ("running", "completed") else f"{_status(job)} {how_far(job)}"
                done = total if job["status"] == "completed" else job["done"]
                label = Text(f"{indent}{job['id']} {message(job['title'])}").plain
                bars.update(tasks[job["id"]], total=total, completed=done, label=label, far=far)

        return _watched(call, job_id, show)
