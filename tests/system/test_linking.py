"""Links come about and come back: by multicast alone, by a written address alone, after any change of the network.

Devices are machines of a test network. How long anything takes is not looked at, only that it comes to pass while
somebody waits for it.
"""

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.netlab import why_not
from tests.system.devices import Device, devices, meet, pair
from tests.system.harness import eventually, names

SECONDS = 40.0

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=f"a network of machines cannot be had here: {why_not()}"),
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("fuse"),
]


def part(one: Device, other: Device) -> None:
    eventually(lambda: not one.sees(other.name) and not other.sees(one.name), "the link is known to be dead", SECONDS)


def forget_addresses(device: Device) -> None:
    """As after a long time: nothing is known of where others were."""
    device.unmount()
    import sqlite3

    with sqlite3.connect(device.library_dir / "library.db") as db:
        db.execute("DELETE FROM address")
    db.close()


def works(one: Device, other: Device, what: str) -> None:
    """Something that is made on one shows on the other."""
    (one.mnt / what).write_text(what)
    eventually(lambda: what in names(other.mnt), f"{what} arrives", SECONDS)


def sockets(device: Device) -> list[str]:
    """The established TCP connections of a device's machine."""
    lines = device.node.run("cat", "/proc/net/tcp", "/proc/net/tcp6").stdout.splitlines()
    return [line for line in lines if line.split()[3:4] == ["01"]]


def test_the_network_goes_and_comes_back(base: Path) -> None:
    """A cable that is pulled, silence in both directions, other addresses, a program that slept, one with another port:
    each time the link comes back by itself, and there is one."""
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        pair(ann, bob)
        bob.node.down()
        part(ann, bob)
        bob.node.up()
        meet(ann, bob)
        works(ann, bob, "after the cable")
        lab.part(ann.node, bob.node)
        part(ann, bob)
        lab.heal()
        meet(ann, bob)
        works(bob, ann, "after silence")
        old = bob.node.address
        bob.node.add_address("10.77.0.99")
        bob.node.remove_address(old)
        works(ann, bob, "after the move")
        # Somebody else has the port when it comes back: it takes another one.
        port = bob.port
        bob.unmount()
        taken = bob.node.inside(lambda: socket.create_server(("0.0.0.0", port)))
        with taken:
            bob.mount()
            meet(ann, bob)
            assert bob.port != port
            works(bob, ann, "by another port")
        eventually(lambda: len(sockets(ann)) == len(sockets(bob)) == 1, "one link, and no more", SECONDS)


def test_a_machine_that_slept_is_linked_again(base: Path) -> None:
    """Its program was stopped for so long that the other one took it for dead."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        pair(ann, bob)
        os.kill(bob.pid, signal.SIGSTOP)
        try:
            eventually(lambda: not ann.sees("bob"), "it is taken for dead", SECONDS)
        finally:
            os.kill(bob.pid, signal.SIGCONT)
        meet(ann, bob)
        works(ann, bob, "after sleep")


def test_multicast_alone_suffices_and_so_does_a_written_address(base: Path) -> None:
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        pair(ann, bob)
        for device in (ann, bob):
            forget_addresses(device)
        for device in (ann, bob):
            device.mount()
        meet(ann, bob)
        for device in (ann, bob):
            forget_addresses(device)
            device.node.run("ip", "link", "set", "eth0", "multicast", "off")
        for device in (ann, bob):
            device.mount()
        assert "no other device can be reached" in ann.sd("sync", "status", "--wait-synced", "--timeout", "50")
        assert "no port" in ann.sd_fails("device", "address", "bob", "10.77.0.2")
        ann.sd("device", "address", "bob", f"{bob.node.address}:{bob.port}")
        meet(ann, bob)
        works(bob, ann, "by a written address")
        ann.sd("device", "address", "bob")
        assert ann.sees("bob"), "the link stays"


def test_two_libraries_on_one_machine_do_not_mix(base: Path) -> None:
    """Each meets its own: what is announced tells them apart, and nobody lets in the other's members."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        pair(ann, bob)
        (base / "more").mkdir()
        made: list[Device] = []
        try:
            for device in (ann, bob):
                other = Device(base / "more" / device.name, device.node)
                made.append(other)
                other.mount()
                other.call_it(device.name)
            pair(*made)
            meet(ann, bob)
            assert ann.library_id == bob.library_id != made[0].library_id == made[1].library_id
            (ann.mnt / "of the first").write_text("")
            (made[1].mnt / "of the second").write_text("")
            eventually(lambda: "of the first" in names(bob.mnt), "the first's", SECONDS)
            eventually(lambda: "of the second" in names(made[0].mnt), "the second's", SECONDS)
            assert "of the second" not in names(bob.mnt)
            assert "of the first" not in names(made[0].mnt)
            assert [len(device.devices()) for device in (ann, bob, *made)] == [2] * 4
        finally:
            for device in made:
                device.close()


def test_idle_devices_do_next_to_nothing(base: Path) -> None:
    """Linked, and nothing to say: a few wake-ups a second, for all that looks after mount, library and link."""
    with devices(base, "ann", "bob") as (_, (ann, bob)):
        pair(ann, bob)
        for device in (ann, bob):
            device.wait_idle()
        time.sleep(8)  # pairing has its afterlife
        before = {device.name: wakeups(device.pid) for device in (ann, bob)}
        time.sleep(10)
        for device in (ann, bob):
            a_second = (wakeups(device.pid) - before[device.name]) / 10
            assert a_second < 30, f"{device.name}: {a_second} a second"


def wakeups(pid: int) -> int:
    """How often the threads of a process were put to work after having waited."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
