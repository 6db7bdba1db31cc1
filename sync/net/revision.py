"""A number that grows whenever something changed: whoever comes late sees that, and changes while he was busy are one.

In: `bump()`. Out: `await beyond(seen)`, which returns at once where `seen` is old. There is no queue that could grow
and no event that could be missed. Used on the loop only.
"""

import trio


class Revision:
    """Begins at 0."""

    def __init__(self) -> None:
        self.value = 0
        self._changed = trio.Event()

    def bump(self) -> None:
        self.value += 1
        self._changed.set()
        self._changed = trio.Event()

    async def beyond(self, seen: int) -> int:
        """Wait until the number is greater than `seen`; the number then."""
        while self.value <= seen:
            await self._changed.wait()
        return self.value
