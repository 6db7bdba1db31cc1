"""Frames that a bridge drops, by port: partitions of a test network, also of one direction only.

A bridge floods mDNS to all its ports and forwards the rest by learnt addresses; a partition has to stop both, so it is
told by ports and not by addresses. The kernel's nftables can do that (family bridge, hook forward); this speaks its
netlink directly, since the program `nft` is not everywhere. One table with one chain; a change replaces it as a
whole, in one batch, so that no moment has half of the rules.

In: a process in the namespace of the bridge runs `python nfdrop.py IN:OUT …` with the names of ports. Out: frames
that come in by IN do not leave by OUT; exit code 0 when the kernel took it. Nothing given: nothing is dropped.

Source: linux/netfilter/nf_tables.h (attributes), nfnetlink batches.
"""

import os
import socket
import struct
import sys

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_FAMILY_BRIDGE = 7
_HOOK_FORWARD = 2  # NF_BR_FORWARD
_NESTED = 0x8000
_META_IN_NAME, _META_OUT_NAME = 6, 7
_REGISTER = 1
_TABLE = b"sdmount-test\0"
_CHAIN = b"cuts\0"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *values: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(values))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">i", value))


def expression(name: bytes, *data: bytes) -> bytes:
    return nested(1, attribute(1, name + b"\0"), nested(2, *data))


def port_is(key: int, name: str) -> bytes:
    """The port by which a frame comes or goes has this name, or the rule ends here."""
    wanted = attribute(1, name.encode().ljust(16, b"\0"))
    load = expression(b"meta", number(2, key), number(1, _REGISTER))
    return load + expression(b"cmp", number(1, _REGISTER), number(2, 0), nested(3, wanted))


def rule(port_in: str, port_out: str) -> bytes:
    drop = expression(b"immediate", number(1, 0), nested(2, nested(2, number(1, 0))))
    conditions = port_is(_META_IN_NAME, port_in) + port_is(_META_OUT_NAME, port_out)
    return attribute(1, _TABLE) + attribute(2, _CHAIN) + nested(4, conditions + drop)


def message(kind: int, flags: int, family: int, resource: int, body: bytes, sequence: int) -> bytes:
    header = struct.pack("=IHHII", 20 + len(body), kind, flags | _REQUEST, sequence, 0)
    return header + struct.pack(">BBH", family, 0, resource) + body


def replace(cuts: list[tuple[str, str]]) -> None:
    """These and no others are dropped from now on. OSError is the kernel's refusal."""
    table = attribute(1, _TABLE)
    chain = table + attribute(3, _CHAIN) + nested(4, number(1, _HOOK_FORWARD), number(2, 0)) + attribute(7, b"filter\0")
    steps = [
        (_NEW_TABLE, _CREATE, table),  # so that there is one to delete
        (_DELETE_TABLE, 0, table),
        (_NEW_TABLE, _CREATE, table),
        (_NEW_CHAIN, _CREATE, chain),
        *((_NEW_RULE, _CREATE | _APPEND, rule(*cut)) for cut in cuts),
    ]
    batch = [message(_BATCH_BEGIN, 0, 0, _SUBSYSTEM, b"", 0)]
    for sequence, (kind, flags, body) in enumerate(steps, 1):
        batch.append(message(_SUBSYSTEM << 8 | kind, flags | _ACK, _FAMILY_BRIDGE, 0, body, sequence))
    batch.append(message(_BATCH_END, 0, 0, _SUBSYSTEM, b"", len(batch)))
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as kernel:
        kernel.settimeout(5)
        kernel.send(b"".join(batch))
        answered: set[int] = set()
        while len(answered) < len(steps):
            data = kernel.recv(65536)
            while data:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
                if kind == 2:  # NLMSG_ERROR: an errno, or 0
                    code = -struct.unpack_from("=i", data, 16)[0]
                    if code:
                        raise OSError(code, f"{os.strerror(code)} (step {sequence} of the batch)")
                    answered.add(sequence)
                data = data[(length + 3) & ~3 :]


if __name__ == "__main__":
    replace([(first, second) for first, _, second in (pair.partition(":") for pair in sys.argv[1:])])
