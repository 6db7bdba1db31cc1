"""Work on a branch that can be stopped from outside: what runs in workers must let go of a volume that is ejected.

Whoever has a worker read a branch does so in `on(branch id)`; `stop` cancels all of that, and it ends there as
Unreachable, as if the volume had been pulled.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from index.model.errors import Unreachable


class Halts:
    """Used on the loop only."""

    def __init__(self) -> None:
        self._scopes: dict[int, set[trio.CancelScope]] = {}

    @contextmanager
    def on(self, branch_id: int) -> Iterator[None]:
        """The block reads a branch; Unreachable when it was stopped."""
        scope = trio.CancelScope()
        held = self._scopes.setdefault(branch_id, set())
        held.add(scope)
        try:
            with scope:
                yield
        finally:
            held.discard(scope)
        if scope.cancelled_caught:
            raise Unreachable("it was stopped: its volume is being ejected")

    def stop(self, branch_id: int) -> None:
        """Stop what reads a branch just now."""
        for scope in list(self._scopes.get(branch_id, ())):
            scope.cancel()
