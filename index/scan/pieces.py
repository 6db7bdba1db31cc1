"""Work in pieces, shared out among a few workers: a piece says what it left, and that is pieces again.

For a tree whose shape nobody knows beforehand. The last that was left is done first, so what waits stays as small as
the tree is deep.
"""

from collections.abc import Awaitable, Callable

import trio

from index.model.errors import VdfsError

#: Workers that share one piece of work; more gain little beside the one who writes down what they find.
SHARES = 2
#: Things in one piece, at most.
PIECE_MAX = 256


async def shared_out(
    first: list[int],
    work: Callable[[list[int]], Awaitable[list[int]]],
    left_is: Callable[[list[int]], None] = lambda _: None,
) -> None:
    """Give `work` pieces of some things and of what it returns, until it returns nothing more.

    `left_is` is told after each piece what is left: what waits, and what is being worked on. Who begins with that
    another time does the rest. A VdfsError of one piece ends the others and is raised.
    """
    waiting = _cut(first)
    failed: list[VdfsError] = []
    running: list[list[int]] = []

    async with trio.open_nursery() as nursery:

        async def run(piece: list[int]) -> None:
            try:
                left = await work(piece)
            except VdfsError as error:
                failed.append(error)
                nursery.cancel_scope.cancel()
                return
            waiting.extend(_cut(left))
            running.remove(piece)
            left_is([one for some in (*waiting, *running) for one in some])
            hand_out()

        def hand_out() -> None:
            while waiting and len(running) < SHARES:
                running.append(waiting.pop())
                nursery.start_soon(run, running[-1])

        hand_out()
    if failed:
        raise failed[0]


def _cut(things: list[int]) -> list[list[int]]:
    """Pieces of about the same size, for each worker at least one."""
    size = min(PIECE_MAX, -(-len(things) // SHARES)) or 1
    return [things[start : start + size] for start in range(0, len(things), size)]
