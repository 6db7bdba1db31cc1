"""The two ends of what `link` measures, each a process of its own, run by the project's Python.

    link_ends.py serve WAY             prints its port, serves one connection, prints what it used
    link_ends.py take WAY PORT COUNT   asks for so many blocks, or so many times, and prints what it saw and used

WAY is `raw` (a bare trio socket), `channel` (sealed, as two paired devices talk), each also as `calls` (small round
trips); `channel verified` checks the hash of each block, as whoever fetches a file does; `channel chacha verified` is a
machine without AES. The sockets of all have the same options. What is printed is one line of JSON.
"""

import json
import os
import sys
import time
from typing import Any

import trio
from blake3 import blake3

from sync.net.addresses import Endpoint
from sync.net.channel import Call, open_channel
from sync.net.transport import TcpStream, dial_tcp, listen_tcp
from sync.wire.aead import CHACHA20_POLY1305
from sync.wire.codec import Body, Codec, message
from sync.wire.forms import U32
from sync.wire.handshake import answer_paired, dial_paired
from sync.wire.identity import Keys

BLOCK_BYTES = 128 << 10
SMALL_BYTES = 1 << 10
BUFFER_BYTES = 512 << 10
WINDOW_BYTES = 4 << 20
BLOCKS_KEPT = 16  # different ones, sent in turn
DEADLINE_S = 3600.0
ONE, OTHER = Keys(b"1" * 32), Keys(b"2" * 32)


@message(1)
class Wanted:
    """Blocks that are asked for, of this size."""

    count: U32
    size: U32


@message(2)
class Block:
    """One of them."""

    index: U32
    body: Body


CODEC = Codec([Wanted, Block])


def used_s() -> float:
    """Processor time of this process, to the microsecond."""
    return time.process_time()


# -- serving -----------------------------------------------------------------------------------------------------------


async def serve(way: str) -> None:
    """One connection, to its end."""
    blocks = [os.urandom(BLOCK_BYTES) for _ in range(BLOCKS_KEPT)]
    listener = await listen_tcp(Endpoint("127.0.0.1", 0))
    print(json.dumps({"port": listener.endpoint.port}), flush=True)
    stream = await listener.accept()
    await listener.aclose()
    before_s = used_s()
    if way.startswith("raw"):
        await _serve_raw(stream, blocks, way)
    else:
        await _serve_channel(stream, blocks)
    print(json.dumps({"processor_s": used_s() - before_s}), flush=True)


async def _serve_raw(stream: TcpStream, blocks: list[bytes], way: str) -> None:
    buffer = memoryview(bytearray(SMALL_BYTES))
    if "calls" in way:
        while await _receive(stream, buffer):
            await stream.send_all(buffer)
    else:
        await _receive(stream, buffer)
        for number in range(int.from_bytes(buffer[:4], "big")):
            await stream.send_all(blocks[number % BLOCKS_KEPT])
        await stream.send_eof()
        await stream.receive_into(buffer)
    await stream.aclose()


async def _serve_channel(stream: TcpStream, blocks: list[bytes]) -> None:
    async def handle(call: Call) -> None:
        wanted = call.message
        for number in range(wanted.count):
            await call.reply(Block(number, memoryview(blocks[number % BLOCKS_KEPT])[: wanted.size]))

    async with open_channel(stream, answer_paired(OTHER, lambda *_: True), codec=CODEC, handle=handle) as channel:
        await channel.wait_closed()


async def _receive(stream: TcpStream, buffer: memoryview) -> bool:
    """Fill it; False at the end of the stream."""
    at = 0
    while at < len(buffer):
        count = await stream.receive_into(buffer[at:])
        if not count:
            return False
        at += count
    return True


# -- taking ------------------------------------------------------------------------------------------------------------


async def take(way: str, port: int, count: int) -> dict[str, Any]:
    """What was seen: seconds and processor seconds, of calls also the seconds of each."""
    stream = await dial_tcp(Endpoint("127.0.0.1", port), 5.0)
    if way.startswith("raw"):
        return await (_call_raw if "calls" in way else _take_raw)(stream, count)
    ciphers = (CHACHA20_POLY1305,) if "chacha" in way else None
    exchange = dial_paired(ONE, device=bytes(16), library=bytes(16), remote_static=OTHER.static_key, ciphers=ciphers)
    async with open_channel(stream, exchange, codec=CODEC) as channel:
        if "calls" in way:
            return await _timed_calls(count, lambda: channel.call(Wanted(1, SMALL_BYTES), priority=0, deadline_s=60))
        start_s, before_s = time.perf_counter(), used_s()
        taken = 0
        wanted = Wanted(count, BLOCK_BYTES)
        async with channel.stream(wanted, priority=3, deadline_s=DEADLINE_S, window_bytes=WINDOW_BYTES) as blocks:
            async for block in blocks:
                taken += len(block.body)
                if "verified" in way:
                    blake3(block.body).digest()
        return _seen(start_s, before_s, taken == count * BLOCK_BYTES)


async def _take_raw(stream: TcpStream, count: int) -> dict[str, Any]:
    buffer = memoryview(bytearray(BUFFER_BYTES))
    start_s, before_s = time.perf_counter(), used_s()
    await stream.send_all(count.to_bytes(4, "big").ljust(SMALL_BYTES))
    taken = 0
    while got := await stream.receive_into(buffer):
        taken += got
    seen = _seen(start_s, before_s, taken == count * BLOCK_BYTES)
    await stream.aclose()
    return seen


async def _call_raw(stream: TcpStream, count: int) -> dict[str, Any]:
    buffer = memoryview(bytearray(SMALL_BYTES))

    async def call() -> None:
        await stream.send_all(buffer)
        await _receive(stream, buffer)

    seen = await _timed_calls(count, call)
    await stream.aclose()
    return seen


async def _timed_calls(count: int, call: Any) -> dict[str, Any]:
    each = []
    for _ in range(min(count, 100)):
        await call()
    start_s, before_s = time.perf_counter(), used_s()
    for _ in range(count):
        began_s = time.perf_counter()
        await call()
        each.append(time.perf_counter() - began_s)
    return {**_seen(start_s, before_s, True), "each": each}


def _seen(start_s: float, before_s: float, whole: bool) -> dict[str, Any]:
    if not whole:
        raise SystemExit("not all of it came")
    return {"seconds": time.perf_counter() - start_s, "processor_s": used_s() - before_s}


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve, sys.argv[2])
    else:
        print(json.dumps(trio.run(take, sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))), flush=True)
