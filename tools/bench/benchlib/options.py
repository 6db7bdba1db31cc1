"""The options that all the programs share, so that whoever knows one knows all."""

import argparse
import sys
from pathlib import Path

from .sdmount import COMMANDS


def parser(program: str, about: str, *, smoke: str) -> argparse.ArgumentParser:
    """A parser with the common options; the program adds its own."""
    made = argparse.ArgumentParser(prog=program, description=about)
    made.add_argument("--smoke", action="store_true", help=f"{smoke}: only proves that the program works")
    made.add_argument("--rounds", type=_positive, metavar="N", help="how often everything is measured")
    made.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement here")
    made.add_argument("--dir", type=Path, metavar="DIR", help="make the files here (default: $TMPDIR)")
    made.add_argument(
        "--commands", type=Path, metavar="DIR", default=COMMANDS,
        help="where sdmount, sdumount and sd are (default: tools/ of this checkout)",
    )  # fmt: skip
    made.add_argument("--keep", action="store_true", help="leave files and logs (everything is unmounted)")
    return made


def count(text: str) -> int:
    """An argparse type: how many of something, at least a hundred."""
    number = int(text)
    if number < 100:
        raise argparse.ArgumentTypeError(f"{number} is too few to measure anything: 100 or more")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of rounds: 1 or more")
    return number


def say(text: str) -> None:
    """Progress, on standard error so that the table can be redirected."""
    print(text, file=sys.stderr, flush=True)
