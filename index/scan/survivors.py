"""Going on when a worker died: finding out of which item, and sparing the others.

A worker sends its results in batches and says nothing before it begins an item: that would cost a message each, for
what happens once in a million. So when one dies, what it has not answered is asked for again, the next few one by one:
who dies with a process that was given nothing else is suspected, and blamed when that happens as often as the caller
says. The others go on together. An item that a passer-by's kill met (who runs out of memory looks for the largest) is
asked for again and costs nobody anything.

In: items by a key, in the order in which they are worked off, and a function that runs some of them and takes out of
the table who was answered. Out: a call for each that is to blame.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from index.scan.workers import WorkerDied, WorkerPool

K = TypeVar("K")
T = TypeVar("T")

#: Items that a worker may have worked off before it said so: more than a batch of any operation.
_SUSPECTS = 256


async def work_off(
    pool: WorkerPool,
    left: dict[K, T],
    run: Callable[[list[T]], Awaitable[None]],
    blame: Callable[[T, str], Awaitable[None]],
    *,
    deaths: int = 1,
) -> None:
    """Run items until each was answered or blamed, with how its worker ended; that is after so many `deaths`.

    Raises WorkerDied when no worker starts, and what `run` raises.
    """

    async def has_died(some: list[T]) -> str:
        """How the worker ended; empty when it did not."""
        try:
            await run(some)
        except WorkerDied as error:
            if not error.how or not pool.is_running:
                raise
            return error.how
        return ""

    while left:
        if not await has_died(list(left.values())):
            return
        for key, item in list(left.items())[:_SUSPECTS]:
            how, died = "", 0
            while key in left and died < deaths and (how := await has_died([item])):
                died += 1
            if key in left and how:
                del left[key]
                await blame(item, how)
                break  # the one is found: the others together again
