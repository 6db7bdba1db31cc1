"""The addresses of this machine as the kernel has them, and notice of what changes them."""

import ipaddress
import socket
import time

import pytest
import trio
import trio.testing

from sync.net import interfaces
from sync.net.interfaces import NetworkWatch, local_addresses
from sync.net.revision import Revision
from tests.netlab import laboratory

#: How long is waited for what has to come.
PATIENCE_S = 20.0


@pytest.fixture
def node():
    with laboratory() as lab:
        made = lab.node("a", "10.77.0.1", "fd77::1")
        until_s = time.monotonic() + PATIENCE_S
        while len(made.inside(local_addresses)) < 5 and time.monotonic() < until_s:  # its cable was just plugged in
            time.sleep(0.02)
        yield made


def test_the_loopback_is_here():
    (known,) = [known for known in local_addresses() if str(known.ip) == "127.0.0.1"]
    assert (known.interface, known.is_loopback, known.is_multicast) == ("lo", True, False)
    assert known.network == ipaddress.ip_network("127.0.0.0/8")


def test_addresses_are_those_of_interfaces_that_are_up(node):
    """Both families, each with its network."""
    found = {str(known.ip): known for known in node.inside(local_addresses)}
    assert {"127.0.0.1", "::1", "10.77.0.1", "fd77::1", f"fe80::ff:fe00:{node.number}"} == set(found)
    assert found["10.77.0.1"].is_multicast
    assert not found["10.77.0.1"].is_loopback
    assert str(found["fd77::1"].network) == "fd77::/64"
    node.down()
    assert {str(known.ip) for known in node.inside(local_addresses)} == {"127.0.0.1", "::1"}


def test_many_addresses_are_read_whole(node):
    """More than one answer of the kernel holds."""
    commands = "\n".join(f"addr add 10.78.{i // 250}.{i % 250 + 1}/16 dev eth0" for i in range(2000))
    node.run("ip", "-batch", "-", input=commands)
    assert len(node.inside(local_addresses)) == 2005


def test_a_change_is_noticed(node):
    """An address comes, an address goes, the cable is pulled; what changes nothing tells nothing."""

    def follow() -> None:
        async def main() -> None:
            watch = NetworkWatch()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                await trio.sleep(0.1)
                for change in (lambda: node.add_address("10.77.0.50"), lambda: node.remove_address("10.77.0.50")):
                    seen = watch.revision.value
                    await trio.to_thread.run_sync(change)
                    with trio.fail_after(PATIENCE_S):
                        await watch.revision.beyond(seen)
                    assert watch.addresses == local_addresses()
                seen = watch.revision.value
                await trio.to_thread.run_sync(node.down)
                with trio.fail_after(PATIENCE_S):
                    await watch.revision.beyond(seen)
                assert {known.interface for known in watch.addresses} == {"lo"}
                seen = watch.revision.value
                watch.look()
                assert watch.revision.value == seen
                nursery.cancel_scope.cancel()

        trio.run(main)

    node.inside(follow)


def test_a_sleep_is_a_change(monkeypatch):
    """The same addresses may be another network: the lid was closed at home and opened in a train."""
    slept_s = 5.0
    monkeypatch.setattr(interfaces, "_slept_s", lambda: slept_s)
    watch = NetworkWatch()
    watch.look()
    assert watch.revision.value == 0
    slept_s = 3600.0
    watch.look()
    assert watch.revision.value == 1
    watch.look()
    assert watch.revision.value == 1


def test_a_kernel_that_refuses_is_told_of_once(monkeypatch, caplog):
    """A sandbox without rtnetlink: no addresses, and all else goes on."""

    class Refusing(socket.socket):
        def __init__(self, *_arguments) -> None:
            raise PermissionError(1, "no")

    monkeypatch.setattr(interfaces.socket, "socket", Refusing)
    watch = NetworkWatch()
    watch.look()
    watch.look()
    assert watch.addresses == frozenset()
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_revision_misses_nothing_and_keeps_no_queue():
    async def main() -> None:
        revision = Revision()
        revision.bump()
        revision.bump()
        assert await revision.beyond(0) == 2
        with trio.move_on_after(0.01) as scope:
            await revision.beyond(2)
        assert scope.cancelled_caught
        async with trio.open_nursery() as nursery:
            nursery.start_soon(revision.beyond, 2)
            nursery.start_soon(revision.beyond, 2)
            await trio.testing.wait_all_tasks_blocked()
            revision.bump()

    trio.run(main)
