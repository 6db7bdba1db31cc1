"""Arguments: how a command says what it takes, and what an argument may be.

Paths are sent absolute, as bytes; what lies under them (the mount, a location's own directory, a library path that
starts with `sd:/`) the operation finds out. The last component is never followed: a symlink is what was named.
"""

import argparse
import os
from collections.abc import Callable
from typing import NoReturn

from index.model.errors import Invalid, NotFound
from vdfs.commands.door import Door

Run = Callable[[Door, argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """argparse with its errors as one line that names the cure."""

    def error(self, message: str) -> NoReturn:
        raise Invalid(f"{message} (see `{self.prog} --help`)")


class Commands:
    """Adds commands; their shapes and texts become their own help and the list in `sd --help`."""

    def __init__(self, top: Parser, common: Parser) -> None:
        self._common = common
        self._choices = {"": top.add_subparsers(metavar="COMMAND", required=True, help=argparse.SUPPRESS)}
        self._list: list[tuple[str, str]] = []

    def group(self, noun: str, text: str) -> None:
        parser = self._choices[""].add_parser(
            noun, prog=f"sd {noun}", description=text, parents=[self._common], allow_abbrev=False
        )
        self._choices[noun] = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(self, shape: str, run: Run, text: str) -> Parser:
        """A command by its shape, `noun verb ARGUMENTS` or `verb ARGUMENTS`; the caller adds arguments."""
        words = shape.split()
        noun = words[0] if words[0] in self._choices else ""
        name = words[1] if noun else words[0]
        parser = self._choices[noun].add_parser(
            name,
            help=text,
            prog=f"sd {noun} {name}".replace("  ", " "),
            usage=f"sd {shape} [options]",
            description=f"{text[0].upper()}{text[1:]}.",
            parents=[self._common],
            allow_abbrev=False,
        )
        parser.set_defaults(run=run)
        self._list.append((shape, text))
        return parser

    def listing(self) -> str:
        return "\n".join(["commands:", *(f"  {shape}\n      {text}" for shape, text in self._list)])


def common_options() -> Parser:
    """Options that stand before or after the command. No defaults: the one that is given wins, wherever."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    options = common.add_argument_group("options for every command")
    options.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options.add_argument("--data-dir", metavar="DIR", help="where libraries lie (see environment)")
    options.add_argument("--library", metavar="NAME", help="which library (default: the only one)")
    return common


def as_text(argument: str) -> str:
    """An argument that must be text: a tag, a query."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("it is not UTF-8") from None
    if not argument:
        raise argparse.ArgumentTypeError("it is empty")
    return argument


def as_count(argument: str) -> int:
    if not (argument.isascii() and argument.isdigit() and 0 < int(argument) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{argument!r} is no whole number from 1")
    return int(argument)


def as_size(argument: str) -> int:
    """Bytes, written as in a search: 4096, 10MB, 1.5GiB."""
    from index.model.sizes import BadSize, parse_sizes

    try:
        sizes = parse_sizes(argument)
    except BadSize as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if sizes.low is None or sizes.low != sizes.high:
        raise argparse.ArgumentTypeError(f"{argument!r} is no single size")
    return sizes.low


def as_seconds(argument: str) -> float:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{argument!r} is no number of seconds")
    return seconds


def absolute(argument: str) -> bytes:
    """The path from the root, its parents resolved, its last component as it was written."""
    path = os.fsencode(argument)
    if not path:
        raise Invalid("an empty path names nothing")
    directory, name = os.path.split(path)
    try:
        if name in (b"", b".", b".."):  # a trailing slash asks for what the link leads to
            return os.path.realpath(path)
        parent = os.path.realpath(directory or b".")
        if b"/.vdfs/" in parent + b"/":  # a leaf of a view is a link to what is meant
            return os.path.realpath(os.path.join(parent, name))
        return os.path.join(parent, name)
    except FileNotFoundError:
        raise NotFound("the current directory is not there any more; cd into one that is") from None


def library_or_absolute(argument: str) -> bytes:
    """`sd:/...` as it is; anything else absolute (a file that is called so is `./sd:/...`)."""
    return os.fsencode(argument) if argument.startswith("sd:/") else absolute(argument)
