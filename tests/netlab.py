"""A network of several machines on this one: namespaces with their own interfaces and addresses, on one bridge.

In: `with laboratory() as lab`, then `lab.node("a")` for each machine. Programs run in a node by `node.popen` and
`node.run`; sockets of the test's own process by `node.inside()`. The network can be partitioned, by pair and by
direction (`lab.cut`, `lab.part`, `lab.heal`), a node's cable pulled (`node.down`, `node.up`), its addresses changed.

Invariant: nothing is left. A namespace has no name; it is held by a process that does nothing else, and ends with it,
and with the namespace its interfaces. The holders carry the mark of the test session, so that the keeper
(tests/leftovers.py) ends them, and whatever runs in a node, where the test could not. Nothing of this machine's own
network is changed: the bridge lies in a namespace of its own.

Programs are run by `nsenter --net`, which shares everything else with the test: `ip netns exec` would give them a
mount namespace, and a file system mounted in it would be seen by nobody else.

Needs root and the programs `ip`, `nsenter` and `unshare`; `why_not()` says what is missing.
"""

import contextlib
import ctypes
import functools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_DROP = Path(__file__).with_name("nfdrop.py")
#: How long a small program may take on a busy machine.
PROGRAM_S = 30.0
_CLONE_NEWNET = 0x40000000
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_MR_PROMISC = 263, 1, 1


@functools.cache
def why_not() -> str:
    """What a laboratory lacks here, in words; empty when it can be had."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nsenter", "unshare"):
        if shutil.which(program) is None:
            return f"network namespaces need the program {program}"
    probe = "ip link add br0 type bridge && ip link add v0 type veth peer name v1"
    done = subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True, text=True, check=False)
    return f"no bridge or veth can be made: {done.stderr.strip()}" if done.returncode else ""


class Namespace:
    """A network namespace, held by a process; `lo` is up."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[Any]] = []
        # It tells when it is there: nsenter into a process that is not yet `unshare`d would enter our own network.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo here && exec sleep infinity"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "here\n":
            self.close()
            raise RuntimeError("no network namespace")
        self.pid = self._holder.pid

    def command(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, **options: Any) -> "subprocess.CompletedProcess[str]":
        """A program from beginning to end."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=PROGRAM_S, **options
        )
        assert not check or done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def popen(self, *words: str | Path, **options: Any) -> "subprocess.Popen[Any]":
        """A program that goes on; it is killed with the namespace at the latest. nsenter becomes it: the pid is its."""
        process = subprocess.Popen(self.command(*words), **options)
        self._running.append(process)
        return process

    def inside(self, work: Callable[[], T]) -> T:
        """What `work` returns, called in this namespace by a thread of ours: sockets made there belong to it."""
        result: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                with open(f"/proc/{self.pid}/ns/net", "rb") as namespace:
                    set_namespace(namespace.fileno())
                result.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def close(self) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(PROGRAM_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        self._holder.send_signal(signal.SIGKILL)
        self._holder.wait(PROGRAM_S)
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class Node(Namespace):
    """A machine of the network: its interface is `eth0`. Addresses are text without a prefix length."""

    def __init__(self, lab: "Laboratory", number: int, name: str, addresses: tuple[str, ...]) -> None:
        super().__init__()
        self.name = name
        self.number = number
        self._lab = lab
        self.port = f"p{number}"
        self.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", self.port, "netns", str(lab.hub.pid))
        # Addresses are there at once, not after a second of asking whether another node has them.
        self.run("sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad || true")
        # An address goes alone, not with all that came after it.
        self.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/promote_secondaries")
        self.run("ip", "link", "set", "eth0", "address", f"02:00:00:00:00:{number:02x}")
        lab.hub.run("ip", "link", "set", self.port, "master", "br0", "up")
        for address in addresses:
            self.add_address(address)
        self.up()

    @property
    def address(self) -> str:
        """The first IPv4 address that it has just now."""
        return self.addresses()[0]

    def addresses(self) -> list[str]:
        words = self.run("ip", "-o", "-4", "addr", "show", "dev", "eth0").stdout.split()
        return [words[i + 1].partition("/")[0] for i, word in enumerate(words) if word == "inet"]

    def add_address(self, address: str) -> None:
        length = 64 if ":" in address else 24
        self.run("ip", "addr", "add", f"{address}/{length}", "dev", "eth0", *(["nodad"] if ":" in address else []))

    def remove_address(self, address: str) -> None:
        self.run("ip", "addr", "del", f"{address}/{64 if ':' in address else 24}", "dev", "eth0")

    def down(self) -> None:
        """The cable is pulled, as this node sees it: the interface loses its carrier and IPv6 its addresses."""
        self.run("ip", "link", "set", "eth0", "down")

    def up(self) -> None:
        self.run("ip", "link", "set", "eth0", "up")

    def python(self, code: str, *arguments: str, **options: Any) -> "subprocess.Popen[Any]":
        """A Python program in this node that goes on."""
        return self.popen(sys.executable, "-c", code, *arguments, **options)


class Laboratory:
    """The bridge and its nodes."""

    def __init__(self) -> None:
        self.hub = Namespace()
        self.nodes: dict[str, Node] = {}
        self._cuts: set[tuple[str, str]] = set()
        self.hub.run("ip", "link", "add", "br0", "type", "bridge")
        # Multicast goes to all ports, as on a network without a querier; the bridge need not learn who listens.
        self.hub.run("ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "0")
        self.hub.run("ip", "link", "set", "br0", "up")

    def node(self, name: str, *addresses: str) -> Node:
        """A new machine; without addresses it gets 10.77.0.<number>."""
        number = len(self.nodes) + 1
        node = Node(self, number, name, addresses or (f"10.77.0.{number}",))
        self.nodes[name] = node
        return node

    def cut(self, source: Node, target: Node) -> None:
        """Nothing goes from `source` to `target` any more; the other way it does."""
        self._cuts.add((source.port, target.port))
        self._apply()

    def part(self, one: Node, other: Node) -> None:
        """Nothing goes between the two, in silence: no error tells either."""
        self._cuts |= {(one.port, other.port), (other.port, one.port)}
        self._apply()

    def heal(self, *pair: Node) -> None:
        """Undo what was cut between two nodes, or everything."""
        ports = {node.port for node in pair}
        self._cuts = {cut for cut in self._cuts if pair and not ports >= set(cut)}
        self._apply()

    def _apply(self) -> None:
        self.hub.run(sys.executable, _DROP, *(f"{source}:{target}" for source, target in sorted(self._cuts)))

    def listen(self) -> socket.socket:
        """A packet socket at the bridge that sees every frame of the network, without blocking."""

        def open_socket() -> socket.socket:
            watching = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            watching.bind(("br0", 0))
            member = struct.pack("=iHH8s", socket.if_nametoindex("br0"), _PACKET_MR_PROMISC, 0, b"")
            watching.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, member)
            watching.setblocking(False)
            return watching

        return self.hub.inside(open_socket)

    def close(self) -> None:
        for namespace in [*self.nodes.values(), self.hub]:
            namespace.close()


def set_namespace(descriptor: int) -> None:
    """setns(2) of this thread alone; Python has it only since 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def laboratory() -> Iterator[Laboratory]:
    """A network that ends with the block. Skips the test where there can be none, and says why."""
    if reason := why_not():
        pytest.skip(reason)
    lab = Laboratory()
    try:
        yield lab
    finally:
        lab.close()
