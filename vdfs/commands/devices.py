"""`sd device`, `sd pair`, `sd join`: the devices of the library.

A pairing runs in the process that has the library mounted; here it is followed: what comes is shown, the person asked,
the end told. With `--json` `sd pair` prints one line, as soon as there are words, and nothing more: its exit code says
how it ended, so that a script reads a line and waits.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from index.model.errors import Invalid, NotFound, PairingRefused, VdfsError
from vdfs.commands.arguments import Commands, as_text
from vdfs.commands.door import Door
from vdfs.commands.output import complain, print_result
from vdfs.commands.words import Json, shown, table

_STDIN: Final = "-"
_STATES: Final = {"own": "this device", "untrusted": "not trusted here"}
_TYPED_MAX: Final = 4096
_WHITE_ON_BLACK: Final = "\x1b[97;40m"
_PLAIN: Final = "\x1b[0m"


def add(commands: Commands) -> None:
    pair = commands.add("pair [--yes]", _pair, "show words by which another device can join this library")
    join = commands.add("join WORDS|TICKET|- [--at HOST:PORT]", _join, "join the library of a device that shows words")
    join.add_argument(
        "text", metavar="WORDS|TICKET", nargs="*", help="the twelve words, or the ticket; `-`: on standard input"
    )
    join.add_argument("--at", action="append", default=[], metavar="HOST:PORT", help="where the other device is")
    pair.add_argument("--yes", action="store_true", help="do not ask whether it is the right device; for scripts")
    join.add_argument("--yes", action="store_true", help="nothing is asked here anyway; for scripts that say it")
    commands.add("device list", _device_list, "list the devices of the library")
    rename = commands.add("device rename DEVICE NAME", _device_rename, "give a device another name")
    revoke = commands.add("device revoke DEVICE [--yes]", _device_revoke, "put a device out of the library, for ever")
    address = commands.add("device address DEVICE [HOST:PORT]", _device_address, "write down where a device is")
    for one in (rename, revoke, address):
        one.add_argument("device", metavar="DEVICE", type=as_text, help="its name or slug, or the beginning of its id")
    rename.add_argument("name", metavar="NAME", type=as_text, help="the new name")
    revoke.add_argument("--yes", action="store_true", help="do not ask")
    address.add_argument("address", metavar="HOST:PORT", nargs="?", help="without it: forget what was written down")


def _pair(door: Door, args: argparse.Namespace) -> int:
    begun = door.call("action:device.pair")
    with _ended(door, begun["session"]):
        if args.json:
            print(json.dumps({"words": " ".join(begun["words"]), "ticket": begun["ticket"]}), flush=True)
        else:
            print("On the other device, with a library mounted there, run\n")
            print(f"  sd join {' '.join(begun['words'])}\n")
            if sys.stdout.isatty():
                print(f"or scan this, or paste it, instead of the words:\n\n{qr_code(begun['ticket'])}")
            else:
                print("or paste this instead of the words:\n")
            print(f"  {begun['ticket']}\n")
            print("It serves once, within five minutes. Waiting (Ctrl-C ends it) …", flush=True)
        now = _followed(door, args, begun["session"], asks=True)
        return 0 if args.json else print_result(args, now, paired)


def _join(door: Door, args: argparse.Namespace) -> int:
    begun = door.call("action:device.join", {"text": _typed(args.text), "addresses": args.at})
    with _ended(door, begun["session"]):
        if not args.json:
            print("Looking for the other device …", flush=True)
        return print_result(args, _followed(door, args, begun["session"], asks=False), paired)


def _typed(words: list[str]) -> str:
    """What the person has of the other device: arguments can be seen by others of this machine, standard input not."""
    if words and words != [_STDIN]:
        return " ".join(words)
    if not words and not sys.stdin.isatty():
        raise Invalid("what does the other device show? Give its words or its ticket, or `-` to read them from here")
    if sys.stdin.isatty():
        print("The words or the ticket that the other device shows:", file=sys.stderr)
    text = sys.stdin.readline(_TYPED_MAX)
    if not text.strip():
        raise Invalid("no words came on standard input")
    return text


@contextlib.contextmanager
def _ended(door: Door, session: int) -> Iterator[None]:
    """Whatever ends the block, Ctrl-C also, ends the pairing: its words serve no more."""
    try:
        yield
    except BaseException:
        door.close()  # an answer may be under way there
        with contextlib.suppress(VdfsError, OSError):
            door.call("action:device.end_pairing", {"session": session})
        raise


def _followed(door: Door, args: argparse.Namespace, session: int, *, asks: bool) -> dict[str, Any]:
    """Follow a pairing to its end: how it stands then. PairingRefused when it came to nothing."""
    seen = ""
    while True:
        now = door.call("query:device.pairing", {"session": session, "seen": seen})
        if now["state"] != seen and now["state"] == "shown":
            if not args.json:
                print(f"\n  {shown(now['name'])} ({shown(now['os'])}), key: {' '.join(now['words'])}\n", flush=True)
            accepts = args.yes or not asks or _ask("Is that the device you mean?")
            with contextlib.suppress(NotFound):  # it is over
                door.call("action:device.confirm", {"session": session, "accept": accepts})
            if accepts and not args.json:
                print("Waiting for the other device …", flush=True)
        seen = now["state"]
        if seen == "failed":
            cure = "; run `sd pair` for new words" if asks and ";" not in now["failure"] else ""
            raise PairingRefused(f"no device was paired: {now['failure']}{cure}")
        if seen == "done":
            return now


def _ask(question: str) -> bool:
    """A person's word; without a terminal nobody is asked, and the answer is no."""
    if not sys.stdin.isatty():
        complain("nobody can be asked here; use --yes in scripts")
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def qr_code(ticket: str) -> str:
    """A QR code for a terminal, of half blocks in colours of its own, since not every camera reads an inverted one.
    Capital letters make it smaller, and mean the same."""
    import io

    import segno

    out = io.StringIO()
    segno.make(ticket.upper(), micro=False, error="l", boost_error=False).terminal(out=out, compact=True, border=2)
    return "".join(f"{_WHITE_ON_BLACK}{line}{_PLAIN}\n" for line in out.getvalue().splitlines())


def _device_list(door: Door, args: argparse.Namespace) -> int:
    return print_result(args, door.call("query:device.list"), device_list)


def _device_rename(door: Door, args: argparse.Namespace) -> int:
    params = {"device": args.device, "name": args.name}
    return print_result(args, door.call("action:device.rename", params), device_list)


def _device_revoke(door: Door, args: argparse.Namespace) -> int:
    if not args.yes and not _ask(f"Put {args.device} out of the library, for ever?"):
        return 1
    return print_result(args, door.call("action:device.revoke", {"device": args.device}), device_list)


def _device_address(door: Door, args: argparse.Namespace) -> int:
    params = {"device": args.device, "address": args.address}
    return print_result(args, door.call("action:device.address", params), device_list)


def paired(result: Json) -> list[str]:
    return [f"paired with {shown(result['name'])}: both hold the library {shown(result['library'])} now"]


def device_list(result: Json) -> list[str]:
    rows = []
    for one in result["devices"]:
        state = _STATES.get(one["state"], one["state"])
        if one["is_own"] and one["state"] == "revoked":
            state = "this device, revoked"
        rows.append(
            [
                one["slug"],
                shown(one["name"]),
                state,
                " ".join(one["words"]),
                ", ".join(one["addresses"]) or one["link"] or "-",
            ]
        )
    return table(rows)
