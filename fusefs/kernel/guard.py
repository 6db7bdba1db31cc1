"""The guard around every handler: nothing but FUSEError may leave one, or pyfuse3 ends the mount.

Errors of ours and of the system become their errno. Anything else is a bug: it is logged once with its request and the
caller gets EIO; the mount lives on.
"""

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from index.model.errors import VdfsError, errno_of

log = logging.getLogger("sdmount.mount")


class Asked(Protocol):
    """Whose handlers these are."""

    def asked(self) -> None:
        """A request has come."""
        ...


P = ParamSpec("P")
S = TypeVar("S", bound=Asked)
T = TypeVar("T")

Handler = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def guarded(handler: Handler[S, P, T]) -> Handler[S, P, T]:
    """Wrap a handler, which says first that it was asked; cancellation passes through."""

    @functools.wraps(handler)
    async def wrapper(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self.asked()
        try:
            return await handler(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except (VdfsError, OSError) as error:
            raise pyfuse3.FUSEError(errno_of(error)) from None
        except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            log.exception("request failed: %s%r", handler.__name__, args)
            raise pyfuse3.FUSEError(errno_of(error)) from None

    return wrapper
