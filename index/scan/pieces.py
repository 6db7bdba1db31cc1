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


async def shared_out(first: list[int], work: Callable[[list[int]], Awaitable[list[int]]]) -> None:
    """Give `work` pieces of some things and of what it returns, until it returns nothing more.

    A VdfsError of one piece ends the others and is raised.
    """
    waiting = [first]
    failed: list[VdfsError] = []
    running = 0

    async with trio.open_nursery() as nursery:

        async def run(piece: list[int]) -> None:
            nonlocal running
            try:
                left = await work(piece)
            except VdfsError as error:
                failed.append(error)
                nursery.cancel_scope.cancel()
                return
            size = min(PIECE_MAX, -(-len(left) // SHARES)) or 1
            waiting.extend(left[start : start + size] for start in range(0, len(left), size))
            running -= 1
            hand_out()

        def hand_out() -> None:
            nonlocal running
            while waiting and running < SHARES:
                running += 1
                nursery.start_soon(run, waiting.pop())

        hand_out()
    if failed:
        raise failed[0]
