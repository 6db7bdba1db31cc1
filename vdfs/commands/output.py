"""Output: a result as JSON or as lines for people, errors as one line, progress on a terminal."""

import argparse
import json
import sys
from collections.abc import Callable

from vdfs.commands.door import Json
from vdfs.commands.words import message


def print_result(args: argparse.Namespace, result: Json, render: Callable[[Json], list[str]]) -> int:
    """The result as JSON (ASCII, so that no terminal and no locale can change it), or as lines. Returns 0."""
    lines = [json.dumps(result)]
    if not args.json:
        try:
            lines = render(result)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            complain("the answer has a form that this `sd` does not know; here it is as JSON")
    text = "".join(f"{line}\n" for line in lines)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()
    return 0


def progress(args: argparse.Namespace, text: str) -> None:
    """One line that is written over, when a person watches."""
    if sys.stderr.isatty() and not args.json:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def complain(text: str) -> None:
    """One line on stderr, whatever the text holds."""
    line = message(f"sd: {text}")
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
