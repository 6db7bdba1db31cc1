"""Giving work to media workers, and finding out which file one died of.

A worker sends its results in batches and says nothing before it begins a file: that would cost a message a file, for
what happens once in a million. So when one dies, the items it has not answered are asked for one by one: who dies with
a process that was given nothing else is the one, and fails for good; the others, and one that a passer-by killed, go
on. Batches are some 0.1 s old at most, so little is done twice but the file that kills, which is met twice.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from index.scan.workers import WorkerDied, WorkerPool

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

    while left:
        try:
            await run(list(left.values()))
            return
        except WorkerDied as error:
            if not error.how or not pool.is_running:
                raise
        for item in list(left.values()):
            try:
                await run([item])
            except WorkerDied as error:
                if not error.how or not pool.is_running:
                    raise
                left.pop(item["id"], None)
                await take([(item["id"], ["failed", _ENDS.get(error.how, f"its decoder {error.how}")])])
                break  # the one is found: the others together again
