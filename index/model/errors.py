"""One tree of errors, for the kernel, the socket and the people.

A class is a kind; its docstring says what the kind means. `errno` is what a system call answers, `rpc_code` what
JSON-RPC answers, and `str(error)` is the one clear line that a person reads: it names the thing and, where there is
one, the cure. Adapters (the mount's guard, the socket's server) read these attributes and need no table of their own.

Numbers below -32000 stay with JSON-RPC itself; ours are 1400 and up, close to the HTTP statuses that people know.
Foreign exceptions are renamed at the border that calls the foreign library, with `raise ... from`.
"""

import errno as _errno
from typing import ClassVar


class VdfsError(Exception):
    """Something was asked that cannot be done; the library is unharmed."""

    errno: ClassVar[int] = _errno.EIO
    rpc_code: ClassVar[int] = 1500

    @property
    def kind(self) -> str:
        return type(self).__name__


class NotFound(VdfsError):
    """No such name, entry, location or device."""

    errno = _errno.ENOENT
    rpc_code = 1404


class Exists(VdfsError):
    """The name or the thing is there already."""

    errno = _errno.EEXIST
    rpc_code = 1409


class Invalid(VdfsError):
    """The argument has a form or a value that cannot be accepted."""

    errno = _errno.EINVAL
    rpc_code = 1400


class NotPermitted(VdfsError):
    """The operation is never allowed on this thing."""

    errno = _errno.EPERM
    rpc_code = 1403


class AccessDenied(VdfsError):
    """The daemon's user, or the caller, may not do this here."""

    errno = _errno.EACCES
    rpc_code = 1401


class ReadOnly(VdfsError):
    """It belongs to another device, or lies on a file system that takes no writes."""

    errno = _errno.EROFS
    rpc_code = 1405


class Unsupported(VdfsError):
    """The name space or the action has no room here (yet)."""

    errno = _errno.EOPNOTSUPP
    rpc_code = 1406


class NoAttribute(VdfsError):
    """The extended attribute is not set."""

    errno = _errno.ENODATA
    rpc_code = 1407


class TooLarge(VdfsError):
    """A value is over its limit."""

    errno = _errno.E2BIG
    rpc_code = 1413


class NoSpace(VdfsError):
    """A budget or a disk is full."""

    errno = _errno.ENOSPC
    rpc_code = 1507


class MissingDependency(VdfsError):
    """A change from another device refers to a row that is not known yet; it waits for that."""

    errno = _errno.EAGAIN
    rpc_code = 1424

    def __init__(self, model: str, uuid: bytes) -> None:
        super().__init__(f"the {model} {uuid.hex()} is not known yet")
        self.model = model
        self.uuid = uuid


class PageRefused(VdfsError):
    """What another device sent as a page of its changes is none, or is not signed by who it says it is by."""

    errno = _errno.EBADMSG
    rpc_code = 1425


class SnapshotNeeded(VdfsError):
    """Somebody stands where the log does not reach any more; he takes the current state instead."""

    errno = _errno.ESTALE
    rpc_code = 1426


class RewindNeeded(SnapshotNeeded):
    """Rows that went since are not known any more: all rows are told anew."""


class NotADirectory(VdfsError):
    """A directory was needed."""

    errno = _errno.ENOTDIR
    rpc_code = 1420


class NameTooLong(VdfsError):
    """A name has more bytes than a file system keeps."""

    errno = _errno.ENAMETOOLONG
    rpc_code = 1414


class NotEmpty(VdfsError):
    """The directory still holds entries."""

    errno = _errno.ENOTEMPTY
    rpc_code = 1421


class CrossBranch(VdfsError):
    """The two names lie on different branches, as on two file systems."""

    errno = _errno.EXDEV
    rpc_code = 1422


class Busy(VdfsError):
    """Somebody else holds it."""

    errno = _errno.EBUSY
    rpc_code = 1423


class Stale(VdfsError):
    """What was named is not there any more under that identity."""

    errno = _errno.ESTALE
    rpc_code = 1424


class Unreachable(VdfsError):
    """The bytes lie on a device or a volume that is away."""

    errno = _errno.EHOSTDOWN
    rpc_code = 1503


class Deadline(VdfsError):
    """No progress within the time that was given."""

    errno = _errno.ETIMEDOUT
    rpc_code = 1504


class ContentCorrupt(VdfsError):
    """Bytes do not have the hash that names them."""

    errno = _errno.EIO
    rpc_code = 1520


class StoreCorrupt(VdfsError):
    """The library's database contradicts itself or cannot be read."""

    errno = _errno.EIO
    rpc_code = 1530


class VersionUnsupported(VdfsError):
    """A file or a peer speaks a newer version than this program."""

    errno = _errno.EPROTONOSUPPORT
    rpc_code = 1505


class NotRunning(VdfsError):
    """The operation needs the running process, and none runs."""

    errno = _errno.ENOTCONN
    rpc_code = 1506


class ProtocolError(VdfsError):
    """The other device sent what the protocol does not allow; the link to it is closed."""

    errno = _errno.EPROTO
    rpc_code = 1508


class HandshakeFailed(ProtocolError):
    """The other device did not prove who it is, or what it sent was changed on its way."""

    errno = _errno.ECONNABORTED
    rpc_code = 1509


class LinkClosed(Unreachable):
    """The link to the other device ended before the answer was there."""


class PairingRefused(VdfsError):
    """The offer is used up, too old or unknown, or a person said no."""

    errno = _errno.EACCES
    rpc_code = 1402


class PeerError(VdfsError):
    """The other device answered with an error of its own; its kind and its text are passed on."""

    errno = _errno.EREMOTEIO
    rpc_code = 1511

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self._kind = kind

    @property
    def kind(self) -> str:
        """The kind that the other device gave; it may be one that this version does not know."""
        return self._kind


class OsFailure(VdfsError):
    """A system call failed; its errno is passed through unchanged."""

    rpc_code = 1510

    def __init__(self, errno: int, text: str = "") -> None:
        super().__init__(text or f"{_errno.errorcode.get(errno, errno)}")
        self.os_errno = errno


def errno_of(error: BaseException) -> int:
    """The errno that a system call should answer for `error`; EIO for anything that is not ours."""
    if isinstance(error, OsFailure):
        return error.os_errno
    if isinstance(error, PeerError):
        return _KINDS_OF_PEERS.get(error.kind, PeerError).errno
    if isinstance(error, VdfsError):
        return type(error).errno
    if isinstance(error, OSError) and error.errno:
        return error.errno
    return _errno.EIO


# What another device's error means to a system call here. Kinds that speak of this device's own state are left out.
_KINDS_OF_PEERS: dict[str, type[VdfsError]] = {
    cls.__name__: cls for cls in (NotFound, AccessDenied, Busy, Stale, Unreachable, Deadline, ContentCorrupt, TooLarge)
}
