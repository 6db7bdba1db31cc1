"""The emulated link does what it is told: it is late, slow, and loses what it should."""

import os
import socket
import threading
import time

import pytest

from tests.linkemu import Shape, link
from tests.netlab import Namespace, why_not

PATIENCE_S = 30.0

pytestmark = pytest.mark.skipif(
    not os.access("/dev/net/tun", os.R_OK | os.W_OK) or bool(why_not()), reason=f"no TAP device here {why_not()}"
)


@pytest.fixture
def pair():
    namespaces = Namespace(), Namespace()
    try:
        yield namespaces
    finally:
        for namespace in namespaces:
            namespace.close()


def udp(namespace: Namespace, number: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((f"10.78.0.{number}", 4000))
        made.settimeout(PATIENCE_S)
        return made

    return namespace.inside(make)


def warm(a: socket.socket, b: socket.socket) -> None:
    """Until both know each other's hardware address."""
    a.sendto(b"hello", ("10.78.0.2", 4000))
    b.recv(100)
    b.sendto(b"hello", ("10.78.0.1", 4000))
    a.recv(100)


def test_a_frame_takes_its_time(pair):
    """No less than the delay, there and back."""
    link(*pair, Shape(delay_s=0.05))
    with udp(pair[0], 1) as a, udp(pair[1], 2) as b:
        warm(a, b)
        began_s = time.monotonic()
        warm(a, b)
        assert time.monotonic() - began_s >= 0.1


def test_a_stream_goes_no_faster_than_the_rate(pair):
    """And nothing of it is missing: TCP finds its way."""
    rate_bits_s, amount = 20e6, 1 << 20
    link(*pair, Shape(delay_s=0.005, rate_bits_s=rate_bits_s))
    listener = pair[1].inside(lambda: socket.create_server(("10.78.0.2", 5000)))
    received = bytearray()

    def receive() -> None:
        stream, _ = listener.accept()
        with stream:
            while chunk := stream.recv(65536):
                received.extend(chunk)

    reader = threading.Thread(target=receive)
    reader.start()
    with listener, pair[0].inside(lambda: socket.create_connection(("10.78.0.2", 5000), PATIENCE_S)) as stream:
        began_s = time.monotonic()
        stream.sendall(bytes(amount))
        stream.shutdown(socket.SHUT_WR)
        reader.join(PATIENCE_S)
        took_s = time.monotonic() - began_s
    assert len(received) == amount
    assert took_s >= amount * 8 / rate_bits_s


def test_a_part_of_the_frames_is_lost(pair):
    """As many as it was told, more or less."""
    link(*pair, Shape(loss=0.3, seed=5))
    with udp(pair[0], 1) as a, udp(pair[1], 2) as b:
        b.settimeout(1.0)
        pair[0].run("ip", "neigh", "replace", "10.78.0.2", "lladdr", mac(pair[1]), "dev", "tap0")
        for number in range(300):
            a.sendto(b"%d" % number, ("10.78.0.2", 4000))
        arrived = 0
        with pytest.raises(TimeoutError):
            while b.recv(100):
                arrived += 1
    assert 150 < arrived < 270


def mac(namespace: Namespace) -> str:
    words = namespace.run("ip", "-o", "link", "show", "tap0").stdout.split()
    return words[words.index("link/ether") + 1]
