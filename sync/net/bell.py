"""A bell: something has happened, and whoever waits for it looks what.

Rung while nobody waits, the next one who comes does not wait at all. Rung often before somebody looks, it has rung
once. Each answer of a link rings one, so it is made for that: nothing is allocated, and a ring that wakes nobody costs
next to nothing.
"""

import trio


class Bell:
    """For whoever waits: all who do are woken."""

    def __init__(self) -> None:
        self._has_rung = False
        self._lot = trio.lowlevel.ParkingLot()

    def ring(self) -> None:
        """Something has happened."""
        if self._lot:
            self._lot.unpark_all()
        else:
            self._has_rung = True

    async def wait(self) -> None:
        """Return when it has rung since the last time."""
        if self._has_rung:
            self._has_rung = False
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._lot.park()
