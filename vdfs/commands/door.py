"""Door: how a command reaches the library.

It finds the process that holds the library (the note in the library's lock file) and calls it over its socket; when
nobody holds it, the library is opened for this one call, in this process. Both ways end in the same dispatch of
vdfs/ops/registry.py. What is heavy (trio, SQLite) is imported only then; a repair is done here too.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from index.model.errors import Busy, Deadline, Invalid, NotRunning
from vdfs.base.config import Config
from vdfs.library.lock import Holder, running_holder
from vdfs.wire.client import RpcClient
from vdfs.wire.jsonrpc import encode_name

Json = dict[str, Any]
CALL_TIMEOUT_S: Final = 60.0
FIND_TIMEOUT_S: Final = 5.0  # for a process that is starting or ending: it holds the lock and does not answer

#: Opens the library for one call: data directory, library, method, params.
Here = Callable[[Path, str, str, Json], Any]


class Door:
    """Calls the library: through the process that holds it, or by opening it here."""

    def __init__(self, config: Config, library: str, here: Here) -> None:
        self.running = False  # whether the last call was answered by a running process
        self._here = here
        self._config = config
        self._library = library
        self._client: RpcClient | None = None

    def __enter__(self) -> "Door":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def call(self, method: str, params: Json | None = None, *, timeout_s: float | None = CALL_TIMEOUT_S) -> Json:
        """The result of one operation. Errors of the tree; an action is sent at most once."""
        deadline = time.monotonic() + FIND_TIMEOUT_S
        while True:
            try:
                if self._client is None:
                    holder = running_holder(self._config.library_dir(self._library))
                    if holder is None:
                        return self._call_here(method, params or {})
                    self._client = self._connect(holder, timeout_s)
                return self._call_there(self._client, method, params or {})
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _connect(self, holder: Holder, timeout_s: float | None) -> RpcClient:
        """A client of the process that holds the library; Busy when it does not answer (yet)."""
        who = f"process {holder.pid} holds the library {self._library}"
        if holder.socket is None:
            raise Busy(f"{who} and takes no calls; try again when it has ended")
        try:
            return RpcClient(holder.socket, timeout_s)
        except NotRunning as error:
            raise Busy(f"{who} but does not answer: {error}") from error

    def _call_there(self, client: RpcClient, method: str, params: Json) -> Json:
        """Ask the running process. When it went away meanwhile, a query may be asked again (Busy)."""
        self.running = True
        try:
            return _object(method, client.call(method, params))
        except (NotRunning, Deadline) as error:
            self.close()
            if isinstance(error, NotRunning) and method.startswith("query:"):
                raise Busy(str(error)) from error
            raise

    def _call_here(self, method: str, params: Json) -> Json:
        self.running = False
        return _object(method, self._here(self._config.data_dir, self._library, method, params))

    def check(self) -> Json:
        """The faults of the library's database: told by the process that holds it, else found by looking here."""
        if running_holder(self._config.library_dir(self._library)) is not None:
            return self.call("query:library.check", timeout_s=None)
        from vdfs.library.repair import check_closed

        return {"faults": check_closed(self._config, self._library)}

    def repair(self) -> Json:
        """Mend the library here. Busy while somebody holds it."""
        from vdfs.library.repair import repair

        done = repair(self._config, self._library)
        aside = {"aside": None} if done.aside is None else encode_name(done.aside, "aside")
        return {"how": done.how, "did": done.did, "lost": done.lost, **aside}


def _object(method: str, result: Any) -> Json:
    if not isinstance(result, dict):
        raise Invalid(f"{method} answered no object; is the running process of another version?")
    return result
