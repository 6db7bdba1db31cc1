"""While a secret is held, this process leaves no core file: the words of a pairing would be in it.

In: the length of a block. Out: the kernel dumps nothing of this process and lets nobody else of its user look into its
memory (`PR_SET_DUMPABLE`); the end of the last block gives back what was before. What is left in freed memory after
that serves nobody: a secret serves once, and for five minutes.

Source: prctl(2), core(5).
"""

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from typing import Any, Final

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4


class Secrecy:
    """Used on the loop only; blocks may overlap."""

    def __init__(self) -> None:
        self._held = 0
        self._was_dumpable = False

    @contextlib.contextmanager
    def undumped(self) -> Iterator[None]:
        """No core file of this process within the block."""
        if not self._held:
            self._was_dumpable = is_dumpable() == 1  # 2, as for programs that change their user, may not be set
            _prctl(_PR_SET_DUMPABLE, 0)
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held and self._was_dumpable:
                _prctl(_PR_SET_DUMPABLE, 1)


def is_dumpable() -> int:
    """What the kernel has noted: 1 when it would dump this process."""
    return _prctl(_PR_GET_DUMPABLE, 0)


def _prctl(option: int, value: int) -> int:
    return int(_libc().prctl(option, value, 0, 0, 0))


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
