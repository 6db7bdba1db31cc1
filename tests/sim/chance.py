"""Chance: all that is not decided by code comes from one seed, also the order in which tasks take their turns.

`Chance` hands out generators by name, so that who draws once more does not change what another one draws.
`reproducible` puts the house's hooks for randomness and time, and trio's scheduler, under the seed's rule for a while.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import trio
import trio.testing

from index.model import ids

#: When simulated time begins: in the middle of some day.
BEGIN_NS = 1_700_000_000 * 10**9


class Chance:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def of(self, name: str) -> Random:
        """A generator of that name's own."""
        return Random(f"{self.seed}/{name}")  # a text is hashed by SHA-512: the same in every process


def run(chance: Chance, main: Callable[[], Any]) -> Any:
    """Run a simulation to its end, with a clock that leaps whenever everybody waits."""
    runner: Any = trio._core._run
    with _reproducible(chance):
        runner._r.seed(chance.of("scheduler").getrandbits(64))
        runner._ALLOW_DETERMINISTIC_SCHEDULING = True
        try:
            return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
        finally:
            runner._ALLOW_DETERMINISTIC_SCHEDULING = False


def true_ns() -> int:
    """What a clock would say that is right."""
    try:
        return BEGIN_NS + int(trio.current_time() * 1e9)
    except RuntimeError:  # before and after
        return BEGIN_NS


@contextmanager
def _reproducible(chance: Chance) -> Iterator[None]:
    held = ids.random_bytes, ids.now_ns
    ids.random_bytes, ids.now_ns = chance.of("ids").randbytes, true_ns
    try:
        yield
    finally:
        ids.random_bytes, ids.now_ns = held
