"""Giving work to media workers. A decoder that dies costs the one content it died of; which one that is, and what it
costs the others, is survivors.py. Batches are some 0.1 s old at most, so little is done twice but the file that kills.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from index.scan import survivors
from index.scan.workers import WorkerPool

#: (content, result) pairs as a worker gives them (workermain.py).
Batch = list[tuple[int, list[Any]]]

_ENDS = {
    "ended by SIGALRM": "took too long to decode",
    "ended by SIGPROF": "took too much CPU time to decode",
}


async def work_off(
    pool: WorkerPool,
    operation: str,
    args: dict[str, Any],
    items: Sequence[dict[str, Any]],
    take: Callable[[Batch], Awaitable[object]],
) -> None:
    """Run `operation` over items of one branch and hand each batch of results to `take` as it comes; every item gets
    one.

    Raises WorkerError when the operation cannot run at all (the branch is away), WorkerDied when no worker starts.
    """
    left = {item["id"]: item for item in items}

    async def run(some: list[dict[str, Any]]) -> None:
        async with pool.stream(operation, {**args, "items": some}) as stream:
            async for batch in stream:
                for content_id, _ in batch:
                    left.pop(content_id, None)
                await take([(content_id, result) for content_id, result in batch])

    async def blame(item: dict[str, Any], how: str) -> None:
        await take([(item["id"], ["failed", _ENDS.get(how, f"its decoder {how}")])])

    await survivors.work_off(pool, left, run, blame)
