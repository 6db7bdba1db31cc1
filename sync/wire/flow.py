"""Back-pressure: how much the other side may send before somebody here has taken what it sent.

A stream of answers has a `Window`. Its size is given when the request is made; what arrives makes it smaller, what is
taken is given back (CREDIT), in portions of a quarter, so that few frames are spent on it. A message larger than the
whole window could never arrive: for it the session lends what is missing, from one pot for all streams (`Loans`), to
one after the other. So what a peer can make us hold is bounded, whatever it sends: the windows, and the pot.

The invariant: sent without credit is a ProtocolError. Whoever is in the middle of a message gets the credit to end it,
once what came before has been taken.
"""

from collections import deque
from typing import Final, Protocol

from index.model.errors import ProtocolError

#: A window is no smaller: a message must be able to begin in three quarters of it.
MIN_WINDOW: Final = 4096
_GIVE_BACK: Final = 4  # a quarter


class Window:
    """What may still come on one stream, in bytes of cost."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.left = size
        self._owed = 0  # taken by somebody, and not yet given back

    def take(self, cost: int) -> None:
        """Something has come. ProtocolError when it may not."""
        self.left -= cost
        if self.left < 0:
            raise ProtocolError("more was sent than there was credit for")

    def lend(self, amount: int) -> None:
        """More may come, once."""
        self.left += amount

    def give_back(self, cost: int) -> None:
        """Something that came has been taken."""
        self._owed += cost

    def due(self, needed: int) -> int:
        """The credit that is to be sent now, or 0; `needed` is what is still to come of a message in the middle."""
        amount = self._owed
        if not amount or (amount * _GIVE_BACK < self.size and self.left >= needed):
            return 0
        self.left += amount
        self._owed = 0
        return amount


class Borrower(Protocol):
    """Who may be lent something: a stream."""

    def lend(self, amount: int) -> None:
        """It has been lent."""


class Loans:
    """The pot for messages that are larger than their windows; first come, first served."""

    def __init__(self, pot: int) -> None:
        self._left = pot
        self._waiting: deque[tuple[Borrower, int]] = deque()

    def ask(self, borrower: Borrower, amount: int) -> None:
        """Lend it now, or when others have given back enough."""
        self._waiting.append((borrower, amount))
        self._serve()

    def give_back(self, amount: int) -> None:
        self._left += amount
        self._serve()

    def forget(self, borrower: Borrower) -> None:
        """It does not wait any more."""
        self._waiting = deque(entry for entry in self._waiting if entry[0] is not borrower)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][1] <= self._left:
            borrower, amount = self._waiting.popleft()
            self._left -= amount
            borrower.lend(amount)
