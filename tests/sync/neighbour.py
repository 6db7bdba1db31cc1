"""A program that runs discovery in a node of the test network, and is told and asked by lines.

In, one a line: `announce PORT TAG OFFER` (hex, or `-`), `quiet`, `expect TAG OFFER`, `size`; the end of input is the
end. Out, as JSON lines: `{"up": true}`; then `{"tag": […], "offer": […]}`, what is found under the awaited tags, at
each change; `{"size": ENDPOINTS, "rss_bytes": …}` when asked. Its
argument is how soon it asks anew who is there, and when it begins anew after a flood.
"""

import json
import logging
import sys
from pathlib import Path

import trio

from sync.net import discovery as discovery_module
from sync.net.announcement import Announcement
from sync.net.discovery import Discovery
from sync.net.interfaces import NetworkWatch


def tag_of(text: str) -> bytes | None:
    return None if text == "-" else bytes.fromhex(text)


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


async def main() -> None:
    network = NetworkWatch()
    discovery = Discovery(network)
    awaited: list[bytes | None] = [None, None]

    async def tell() -> None:
        seen, before = 0, None
        while True:
            tag, offer = awaited
            found = {
                "tag": [str(endpoint) for endpoint in discovery.find(tag)] if tag else [],
                "offer": [str(endpoint) for endpoint in discovery.find_offer(offer)] if offer else [],
            }
            if found != before:
                say(found)
            before = found
            seen = await discovery.revision.beyond(seen)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(network.run)
        nursery.start_soon(discovery.run)
        nursery.start_soon(tell)
        say({"up": True})
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as lines:
            pending = b""
            async for chunk in lines:
                *whole, pending = (pending + chunk).split(b"\n")
                for line in whole:
                    match line.decode().split():
                        case ["announce", port, tag, offer]:
                            discovery.announce(Announcement(int(port), tag_of(tag), tag_of(offer)))
                        case ["size"]:
                            rss_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
                            say({"size": len(discovery._sightings), "rss_bytes": rss_bytes})
                        case ["quiet"]:
                            discovery.announce(None)
                        case ["expect", tag, offer]:
                            awaited[:] = [tag_of(tag), tag_of(offer)]
                            discovery.expect([t for t in awaited[:1] if t], [t for t in awaited[1:] if t])
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    if len(sys.argv) > 1:
        discovery_module.ASK_AGAIN_S = discovery_module.FLOOD_S = float(sys.argv[1])

    trio.run(main)
