"""The guard around every handler: nothing but FUSEError may leave one, or pyfuse3 ends the mount.

Errors of ours and of the system become their errno. Anything else is a bug: it is logged once with its request and the
caller gets EIO; the mount lives on.
"""

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3
import trio

from index.model.errors import VdfsError, errno_of

log = logging.getLogger("sdmount.mount")

P = ParamSpec("P")
T = TypeVar("T")


def guarded(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Wrap a handler; cancellation passes through."""

    @functools.wraps(handler)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except (VdfsError, OSError) as error:
            raise pyfuse3.FUSEError(errno_of(error)) from None
        except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            log.exception("request failed: %s%r", handler.__name__, args[1:])
            raise pyfuse3.FUSEError(errno_of(error)) from None

    return wrapper
