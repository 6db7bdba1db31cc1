"""A program that means no good, on a machine of the test network: what it does is its first argument.

    proxy HOST PORT MODE FILE   listens, prints its port, and stands between: MODE is `relay`, `flip:N` (one bit of the
                                Nth byte that is relayed to HOST), `flop:N` (of what comes back), or `reflect` (HOST is
                                not even asked). What goes to HOST by the first connection is kept in FILE
    probe HOST PORT             sends what strangers send, and prints how many bytes came back for each, as JSON
    replay HOST PORT FILE       sends what was kept, and prints how many bytes came back
    crowd HOST PORT COUNT       holds so many connections, half of them telling a byte now and then; prints a line when
                                all were tried, ends with its input
    flood HOST PORT DATA        a member that asks without end, with the key in a data directory; prints how many
                                requests were made

But for the last it uses nothing of ours.
"""

import contextlib
import json
import os
import resource
import selectors
import socket
import sys
import threading
import time
from pathlib import Path

ANSWER_S = 15.0
FLOOD_S = 8.0


def proxy(host: str, port: str, mode: str, kept: str) -> None:
    kind, _, at = mode.partition(":")
    listener = socket.create_server(("0.0.0.0", 0))
    print(listener.getsockname()[1], flush=True)
    with open(kept, "wb", buffering=0) as file:
        is_first = True
        while True:
            here, _ = listener.accept()
            if kind == "reflect":
                threading.Thread(target=pump, args=(here, here, -1, None), daemon=True).start()
                continue
            try:
                there = socket.create_connection((host, int(port)), 5)
            except OSError:
                here.close()
                continue
            there.settimeout(None)
            into_file, is_first = (file if is_first else None), False
            for one, other, wanted, into in ((here, there, "flip", into_file), (there, here, "flop", None)):
                where = int(at) if kind == wanted else -1
                threading.Thread(target=pump, args=(one, other, where, into), daemon=True).start()


def pump(one: socket.socket, other: socket.socket, flipped: int, kept: object) -> None:
    seen = 0
    with contextlib.suppress(OSError):
        while data := bytearray(one.recv(65536)):
            if seen <= flipped < seen + len(data):
                data[flipped - seen] ^= 1
            seen += len(data)
            if kept is not None:
                kept.write(data)  # type: ignore[attr-defined]
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)


def told(host: str, port: str, data: bytes) -> int:
    """How many bytes come back until the other side hangs up."""
    count = 0
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 5) as sock:
        sock.settimeout(ANSWER_S)
        sock.sendall(data)
        while came := sock.recv(65536):
            count += len(came)
    return count


def probe(host: str, port: str) -> None:
    lengths = [0, 1, 16, 96, 1040, 1041, 65535]
    payloads = [
        b"", b"\0", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-x\r\n", bytes.fromhex("16030100a5010000a10303"),
        os.urandom(4096), bytes(4096), b"\xff" * 4096,
        *(length.to_bytes(2, "big") + os.urandom(length) for length in lengths),
    ]  # fmt: skip
    answers = []
    threads = [threading.Thread(target=lambda p=p: answers.append(told(host, port, p))) for p in payloads]
    for thread in threads:
        thread.start()
        time.sleep(0.3)  # no more at a time than one source may be
    for thread in threads:
        thread.join()
    print(json.dumps(answers))


def replay(host: str, port: str, kept: str) -> None:
    print(told(host, port, Path(kept).read_bytes()))


def crowd(host: str, port: str, count: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = []
    for number in range(int(count)):
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((host, int(port)))
        held.append(sock)
        if number % 50 == 0:
            time.sleep(0.01)
    print(len(held), flush=True)
    waiting = selectors.DefaultSelector()
    waiting.register(sys.stdin, selectors.EVENT_READ)
    while not waiting.select(0.5):
        for sock in held[::2]:  # a byte of a first message that never ends
            with contextlib.suppress(OSError):
                sock.send(b"\0")


def flood(host: str, port: str, data: str) -> None:
    import trio

    from index.model.errors import VdfsError
    from sync.log.messages import LOG_CODEC, Follow, HeadsWanted, StateWanted
    from sync.net.addresses import Endpoint
    from sync.net.channel import open_channel
    from sync.net.transport import dial_tcp
    from sync.wire.handshake import dial_paired
    from sync.wire.identity import load_or_create

    identity = load_or_create(Path(data))
    facts = json.loads((Path(data) / "flood.json").read_text())
    library, static = bytes.fromhex(facts["library"]), bytes.fromhex(facts["static"])
    count = 0

    async def ask(channel: object, request: object) -> None:
        nonlocal count
        while True:
            async with channel.stream(request, priority=0, deadline_s=60) as replies:  # type: ignore[attr-defined]
                count += 1
                async for _ in replies:
                    pass

    async def main() -> None:
        exchange = dial_paired(identity.keys, device=identity.uuid, library=library, remote_static=static)
        stream = await dial_tcp(Endpoint(host, int(port)), 5)
        async with open_channel(stream, exchange, codec=LOG_CODEC) as channel, trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, channel, (StateWanted(), HeadsWanted(), Follow((), ()))[number % 3])
            await trio.sleep(FLOOD_S)
            nursery.cancel_scope.cancel()

    with contextlib.suppress(VdfsError, ExceptionGroup):
        trio.run(main)
    print(count)


if __name__ == "__main__":
    {"proxy": proxy, "probe": probe, "replay": replay, "crowd": crowd, "flood": flood}[sys.argv[1]](*sys.argv[2:])
