"""`sd device`, `sd pair`, `sd join`: the devices of the library."""

import argparse
import json
import sys
from typing import Final

from vdfs.commands.arguments import Commands, as_text
from vdfs.commands.door import Door
from vdfs.commands.output import complain, print_result
from vdfs.commands.words import Json, shown, table

_OVER: Final = ("done", "failed")


def add(commands: Commands) -> None:
    pair = commands.add("pair [--yes]", _pair, "show words by which another device can join this library")
    join = commands.add("join [--yes] WORDS|TICKET...", _join, "join the library of a device that shows words")
    join.add_argument("text", metavar="WORDS|TICKET", nargs="+", help="the twelve words, or the ticket")
    join.add_argument("--at", action="append", default=[], metavar="HOST:PORT", help="where the other device is")
    for one in (pair, join):
        one.add_argument("--yes", action="store_true", help="do not ask; for scripts")
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
    if args.json:
        print(json.dumps({"words": " ".join(begun["words"]), "ticket": begun["ticket"]}), flush=True)
    else:
        print("On the other device, with a library mounted there, run:\n")
        print(f"  sd join {' '.join(begun['words'])}\n")
        print(f"or paste or scan this instead of the words:\n\n{_qr(begun['ticket'])}\n{begun['ticket']}\n")
        print("It serves once, within five minutes. Waiting …", flush=True)
    return _to_the_end(door, args, begun["session"], asks=True)


def _join(door: Door, args: argparse.Namespace) -> int:
    begun = door.call("action:device.join", {"text": " ".join(args.text), "addresses": args.at})
    if not args.json:
        print("Looking for the other device …", flush=True)
    return _to_the_end(door, args, begun["session"], asks=False)


def _to_the_end(door: Door, args: argparse.Namespace, session: int, *, asks: bool) -> int:
    """Follow a pairing: the other device is shown, the person asked, the end told."""
    seen = ""
    try:
        while seen not in _OVER:
            now = door.call("query:device.pairing", {"session": session, "seen": seen})
            if now["state"] != seen and now["state"] == "shown":
                if not args.json:
                    print(f"\n  {shown(now['name'])} ({shown(now['os'])}), key: {' '.join(now['words'])}\n", flush=True)
                accept = args.yes or not asks or _ask("Is that the device you mean?")
                door.call("action:device.confirm", {"session": session, "accept": accept})
            seen = now["state"]
    except KeyboardInterrupt:
        door.call("action:device.end_pairing", {"session": session})
        raise
    if now["state"] == "failed":
        complain(f"no device was paired: {now['failure']}")
        return 1
    return print_result(args, now, paired)


def _ask(question: str) -> bool:
    """A person's word; without a terminal nobody is asked, and the answer is no."""
    if not sys.stdin.isatty():
        complain("nobody can be asked here; use --yes in scripts")
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _qr(ticket: str) -> str:
    """A QR code for the terminal."""
    import io

    import segno

    out = io.StringIO()
    segno.make(ticket, micro=False).terminal(out=out, compact=True, border=2)
    return out.getvalue()


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
        state = (
            "this device" if one["is_own"] else "revoked" if one["is_revoked"]
            else "not trusted here" if not one["is_trusted"] else "connected" if one["is_online"] else "away"
        )  # fmt: skip
        rows.append(
            [one["slug"], shown(one["name"]), state, " ".join(one["words"]), ", ".join(one["addresses"]) or "-"]
        )
    return table(rows)
