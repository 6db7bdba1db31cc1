"""Emitter: what an operation in a worker process needs of whoever asked for it (index/scan/workermain.py says how)."""

from typing import Protocol


class Emitter(Protocol):
    """Takes batches of a stream as they are made, and knows whether anybody wants more."""

    def emit(self, batch: object) -> None: ...

    def stopped(self) -> bool: ...
