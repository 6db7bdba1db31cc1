"""The network of the tests does what it says: machines apart, cut and healed, and nothing left of it."""

import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netlab import Node, laboratory, why_not

#: How long is waited for a datagram that has to come; one that must not come is followed by one that has to.
PATIENCE_S = 20.0


@pytest.fixture
def lab():
    with laboratory() as made:
        yield made


def udp(node: Node) -> socket.socket:
    """A bound datagram socket in a node."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((node.address, 4000))
        made.settimeout(PATIENCE_S)
        return made

    return node.inside(make)


def send(source: socket.socket, target: Node, data: bytes) -> None:
    source.sendto(data, (target.address, 4000))


def arrived(target: socket.socket) -> bytes:
    return target.recv(100)


def test_machines_reach_each_other_and_not_this_one(lab):
    """Each node has its address, the bridge joins them, and our own interfaces are none of theirs."""
    a, b = lab.node("a"), lab.node("b")
    with udp(a) as at_a, udp(b) as at_b:
        send(at_a, b, b"hello")
        assert arrived(at_b) == b"hello"
    assert (a.address, b.address) == ("10.77.0.1", "10.77.0.2")
    links = json.loads(a.run("ip", "-j", "link").stdout)
    assert {"lo", "eth0"} <= {link["ifname"] for link in links if "UP" in link["flags"]} <= {"lo", "eth0"}
    assert "br0" not in subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout


def test_a_partition_is_of_a_pair_and_silent(lab):
    """The third node is reached by both; a datagram sent across is lost without an error."""
    a, b, c = lab.node("a"), lab.node("b"), lab.node("c")
    with udp(a) as at_a, udp(b) as at_b, udp(c) as at_c:
        send(at_a, b, b"before")
        assert arrived(at_b) == b"before"
        lab.part(a, b)
        send(at_a, b, b"lost")
        send(at_a, c, b"to c")
        send(at_c, b, b"from c")
        assert arrived(at_c) == b"to c"
        assert arrived(at_b) == b"from c"
        lab.heal(a, b)
        send(at_a, b, b"after")
        assert arrived(at_b) == b"after"


def test_a_cut_is_of_one_direction(lab):
    """What a half-open network does to a protocol can be seen."""
    a, b = lab.node("a"), lab.node("b")
    with udp(a) as at_a, udp(b) as at_b:
        send(at_a, b, b"they know each other's hardware address")
        arrived(at_b)
        send(at_b, a, b"both")
        arrived(at_a)
        lab.cut(a, b)
        send(at_a, b, b"lost")
        send(at_b, a, b"comes")
        assert arrived(at_a) == b"comes"
        lab.heal()
        send(at_a, b, b"again")
        assert arrived(at_b) == b"again"


def test_a_cable_is_pulled_and_an_address_changed(lab):
    """The node itself sees it."""
    a, b = lab.node("a"), lab.node("b", "10.77.0.9", "fd77::9")
    b.down()
    assert "DOWN" in b.run("ip", "link", "show", "eth0").stdout
    b.up()
    b.add_address("10.77.0.10")
    b.remove_address("10.77.0.9")
    assert b.addresses() == ["10.77.0.10"]
    with udp(a) as at_a, udp(b) as at_b:
        send(at_a, b, b"hello")
        assert arrived(at_b) == b"hello"


def test_a_program_runs_in_a_node_and_shares_the_rest(lab, tmp_path):
    """Its network is the node's, its files are ours: what it mounts would be seen."""
    a = lab.node("a")
    assert a.run("readlink", "/proc/self/ns/net").stdout != os.readlink("/proc/self/ns/net") + "\n"
    assert a.run("readlink", "/proc/self/ns/mnt").stdout == os.readlink("/proc/self/ns/mnt") + "\n"


def test_every_frame_is_seen_at_the_bridge(lab):
    """Also what goes between two nodes only."""
    a, b = lab.node("a"), lab.node("b")
    with lab.listen() as watching, udp(a) as at_a, udp(b) as at_b:
        send(at_a, b, b"a secret")
        arrived(at_b)
        seen = b""
        until_s = time.monotonic() + PATIENCE_S
        while b"a secret" not in seen and time.monotonic() < until_s:
            select.select([watching], [], [], 1)
            seen += watching.recv(65536)
        assert b"a secret" in seen


def test_nothing_is_left(tmp_path):
    """Processes, and with them namespaces and interfaces, end with the laboratory, also when a test fails in it."""
    with pytest.raises(ZeroDivisionError), laboratory() as lab:
        a = lab.node("a")
        sleeper = a.popen("sleep", "infinity")
        pids = [lab.hub.pid, a.pid, sleeper.pid]
        1 / 0  # noqa: B018
    for pid in pids:
        assert not is_running(pid)


LEFT = """
import os, signal
from tests.netlab import Laboratory
lab = Laboratory()
node = lab.node("a")
sleeper = node.popen("sleep", "infinity")
print(lab.hub.pid, node.pid, sleeper.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_keeper_ends_what_a_killed_session_left():
    """Namespaces have no names: they go with their holders, which carry the mark of the session."""
    if reason := why_not():
        pytest.skip(reason)
    mark = f"netlab-{os.getpid()}-{time.monotonic_ns()}"
    environment = {**os.environ, "SDMOUNT_TEST_SESSION": mark}
    # What it leaves has its output, too: that is not read to the end, which would not come.
    with subprocess.Popen([sys.executable, "-c", LEFT], env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        pids = [int(word) for word in killed.stdout.readline().split()]
    assert len(pids) == 3
    keeper = [sys.executable, "-I", str(Path(__file__).with_name("leftovers.py")), mark]
    told = subprocess.run(keeper, input="", capture_output=True, text=True, check=True, timeout=60).stdout
    for pid in pids:
        assert f"process {pid}: sleep infinity" in told
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
