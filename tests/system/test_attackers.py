"""Somebody on the network who means no good: he learns nothing, gets in nowhere, and does not hold up who works.

Devices and he (tests/system/eve.py) are machines of a test network. That something is quick is not looked at, but that
it is answered while he does what he does; and that he costs little memory.
"""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netlab import Laboratory, Node, why_not
from tests.system.devices import Device, devices, meet, pair
from tests.system.harness import PROGRAM_S, eventually, names

EVE = Path(__file__).with_name("eve.py")
#: The answer to a first message of a member: 2 bytes of length, and a handshake message.
HANDSHAKE_BYTES = 1042
MEMORY_BYTES = 64 << 20

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=f"a network of machines cannot be had here: {why_not()}"),
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("fuse"),
]


def does(node: Node, *what: str | Path) -> str:
    """What he prints; he ends by himself."""
    return node.run(sys.executable, EVE, *what).stdout


@contextmanager
def between(node: Node, target: Device, mode: str, kept: Path) -> Iterator[str]:
    """He stands between: the place to dial instead of the device's."""
    program = node.popen(
        sys.executable, EVE, "proxy", target.node.address, str(target.port), mode, kept,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert program.stdout is not None
        yield f"{node.address}:{program.stdout.readline().strip()}"
    finally:
        program.kill()
        program.wait(PROGRAM_S)


def rss_bytes(device: Device) -> int:
    return int(Path(f"/proc/{device.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def deafen(lab: Laboratory) -> None:
    """Nobody is heard: who is dialled was named."""
    for node in lab.nodes.values():
        node.run("ip", "link", "set", "eth0", "multicast", "off")


def only_at(device: Device, other: str, place: str) -> None:
    """The device knows one place of another, and that is written down."""
    device.sd("device", "address", other, place)
    device.unmount()
    with sqlite3.connect(device.library_dir / "library.db") as db:
        db.execute("DELETE FROM address WHERE is_manual=0")
    db.close()
    device.mount()


def test_a_stranger_hears_nothing_whatever_he_sends(base: Path) -> None:
    """Not a byte: with an offer open and without, garbage, other protocols, messages of any length."""
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        eve = lab.node("eve")
        pair(ann, bob)
        assert set(json.loads(does(eve, "probe", ann.node.address, str(ann.port)))) == {0}
        with ann.offering():
            assert set(json.loads(does(eve, "probe", ann.node.address, str(ann.port)))) == {0}
        meet(ann, bob)
        assert len(ann.devices()) == 2


def test_who_stands_between_two_members_can_only_relay(base: Path) -> None:
    """A flipped bit in either direction ends it, what was recorded leads nowhere, what is sent back is refused."""
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        eve = lab.node("eve")
        pair(ann, bob)
        deafen(lab)
        lab.part(ann.node, bob.node)
        kept = base / "kept"
        with between(eve, ann, "relay", kept) as place:
            only_at(bob, "ann", place)
            meet(ann, bob)
            (ann.mnt / "through eve").write_text("")
            eventually(lambda: "through eve" in names(bob.mnt), "what he relays", 30)
        assert b"through eve" not in kept.read_bytes()
        eventually(lambda: not ann.sees("bob"), "the link went with him", 40)
        came = int(does(eve, "replay", ann.node.address, str(ann.port), kept))
        assert came <= HANDSHAKE_BYTES, "an answer to the first message, which he cannot read, and nothing more"
        assert not ann.sees("bob")
        for mode in ("flip:10", "flip:300", "flop:10", "flop:70", "reflect"):
            with between(eve, ann, mode, base / "other") as place:
                only_at(bob, "ann", place)
                assert (
                    "no other device can be reached" in bob.sd("sync", "status", "--wait-synced", "--timeout", "50")
                    or not bob.sync()["peers"][0]["bytes_in"]
                ), mode
        lab.heal()
        only_at(bob, "ann", f"{ann.node.address}:{ann.port}")
        meet(ann, bob)


def test_who_stands_between_in_a_pairing_can_only_relay(base: Path) -> None:
    """Or spoil it. The words and the names go through him unread; what he recorded does not open the next offer."""
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        eve = lab.node("eve")
        deafen(lab)
        lab.part(ann.node, bob.node)
        kept = base / "kept"
        for mode in ("flip:20", "flop:20", "flip:150", "reflect"):
            with ann.offering() as offer, between(eve, ann, mode, kept) as place:
                bob.sd_fails("join", "--yes", "--at", place, *offer.words.split(), code=1)
                assert len(ann.devices()) == len(bob.devices()) == 1, mode
        with ann.offering() as offer, between(eve, ann, "relay", kept) as place:
            bob.join(offer, "--at", place)
        recorded = kept.read_bytes()
        assert b"bob" not in recorded
        with ann.offering():
            assert int(does(eve, "replay", ann.node.address, str(ann.port), kept)) == 0
        assert sorted(one["name"] for one in ann.devices()) == ["ann", "bob"]


def test_a_crowd_at_the_door_holds_up_nobody(base: Path) -> None:
    """Ten thousand connections, half of them telling a byte now and then: the mount answers, members come and go."""
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        eve = lab.node("eve")
        (ann.folder("Files") / "f").write_text("f")
        ann.add(ann.disk / "Files")
        pair(ann, bob)
        before = rss_bytes(ann)
        program = eve.popen(
            sys.executable, EVE, "crowd", ann.node.address, str(ann.port), "10000",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert program.stdout is not None
        while not (line := _line(program, 0.2)):
            assert names(ann.mnt / "Files") == ["f"]
        assert int(line) == 10_000
        for number in range(20):
            (ann.mnt / "Files" / f"n{number}").write_text("n")
            assert f"n{number}" in names(ann.mnt / "Files")
        bob.remount()
        meet(ann, bob)
        assert rss_bytes(ann) < before + MEMORY_BYTES
        assert program.stdin is not None
        program.stdin.close()
        program.wait(PROGRAM_S)


def _line(program: "subprocess.Popen[str]", within_s: float) -> str:
    import select

    assert program.stdout is not None
    ready, _, _ = select.select([program.stdout], [], [], within_s)
    return program.stdout.readline() if ready else ""


def test_a_flood_of_other_words_burns_the_offer_and_nothing_else(base: Path) -> None:
    with devices(base, "ann", "bob") as (lab, (ann, bob)):
        eve = lab.node("eve")
        with ann.offering() as offer:
            for _ in range(2):  # four first messages each that could be of somebody with other words
                does(eve, "probe", ann.node.address, str(ann.port))
            assert "too many tries" in offer.fails()
        pair(ann, bob)


def test_a_member_that_asks_without_end_gets_no_more_than_its_share(base: Path) -> None:
    """Its requests are bounded, and so is what they hold; the mount answers meanwhile."""
    with devices(base, "ann", "bob", "cat") as (_, (ann, bob, cat)):
        top = ann.folder("Files")
        for number in range(500):
            (top / f"f{number}").write_text(f"{number}")
        ann.add(top)
        ann.settle()
        pair(ann, bob, cat)
        with sqlite3.connect(bob.library_dir / "library.db") as db:
            ((static,),) = db.execute("SELECT static_key FROM device WHERE name='ann'")
        db.close()
        bob.unmount()
        facts = {"library": ann.library_id.replace("-", ""), "static": bytes(static).hex()}
        (bob.data / "flood.json").write_text(json.dumps(facts))
        before = rss_bytes(ann)
        program = bob.node.popen(
            sys.executable, EVE, "flood", ann.node.address, str(ann.port), bob.data, stdout=subprocess.PIPE, text=True
        )
        while not (line := _line(program, 0.2)):
            assert len(names(ann.mnt / "Files")) == 500
        assert int(line) > 100, "he did ask"
        assert rss_bytes(ann) < before + MEMORY_BYTES
        program.wait(PROGRAM_S)
        (ann.mnt / "Files/more").write_text("more")
        eventually(lambda: "more" in names(cat.mnt / "Files"), "the others are told", 30)
        bob.mount()
        meet(ann, bob)
