"""Notices: what a FUSE server tells the kernel unasked, as bytes. No I/O.

A notice is written to the device like a reply whose `unique` is 0 and whose `error` is the code of the notice. Source:
include/uapi/linux/fuse.h (fuse_out_header, fuse_notify_inval_inode_out, fuse_notify_inval_entry_out), fs/fuse/dev.c.
"""

import errno
import struct

_OUT = struct.Struct("<IiQ")  # length, error, unique
_IN = struct.Struct("<IIQ")  # length, opcode, unique: the head of a request
_INODE = struct.Struct("<Qqq")  # inode, offset, length
_ENTRY = struct.Struct("<QII")  # parent, length of the name, flags
_INVAL_INODE = 2
_INVAL_ENTRY = 3
_EXPIRE_ONLY = 1  # FUSE_EXPIRE_ONLY, since Linux 6.2; the field is not looked at before
#: Requests that nobody answers: FORGET, INTERRUPT, BATCH_FORGET.
_UNANSWERED = frozenset({2, 36, 42})


def inval_inode(ino: int, *, attr_only: bool) -> bytes:
    """Forget the attributes of an inode, and its pages unless attr_only."""
    body = _INODE.pack(ino, -1 if attr_only else 0, 0)
    return _OUT.pack(_OUT.size + len(body), _INVAL_INODE, 0) + body


def inval_entry(parent_ino: int, name: bytes, *, expire: bool = False) -> bytes:
    """Forget a name in a directory, and that it was absent.

    With expire: believe it no longer. The kernel asks when somebody comes by, and what it finds unchanged stays linked
    where it is for who stands in it or has it open.
    """
    body = _ENTRY.pack(parent_ino, len(name), _EXPIRE_ONLY if expire else 0) + name + b"\0"
    return _OUT.pack(_OUT.size + len(body), _INVAL_ENTRY, 0) + body


def split(batch: bytes) -> list[bytes]:
    """The notices of a batch, each as it is written."""
    out, at = [], 0
    while at < len(batch):
        (length, _, _) = _OUT.unpack_from(batch, at)
        out.append(batch[at : at + length])
        at += length
    return out


def refusal(request: bytes) -> bytes | None:
    """The answer "nobody is here any more" to a request, None when it expects no answer."""
    _, opcode, unique = _IN.unpack_from(request)
    if opcode in _UNANSWERED:
        return None
    return _OUT.pack(_OUT.size, -errno.ENOTCONN, unique)
