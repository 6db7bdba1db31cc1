"""Looking for who offers a pairing: all places that are known of it, several at once, until one knows the secret.

In: the secret, and places that a person or a ticket named; what is heard by multicast comes by itself. Out: a stream
that has shaken hands by the secret, or the reason why there is none. Anybody may say by multicast that the offer is
his, so no place holds up the others. A place that took its time and hung up knows other words: it is not asked again,
for an offer counts such tries. One where nobody was, or who had too many visitors, is.
"""

import logging
import math
from typing import Final

import trio

from index.model.errors import Deadline, HandshakeFailed, LinkClosed, Unreachable, VdfsError
from sync.net.acceptor import REFUSED_S
from sync.net.addresses import Endpoint
from sync.net.shaking import shake_hands
from sync.net.transport import Stream
from sync.peers.links import Links
from sync.wire.handshake import Secured, dial_pairing
from sync.wire.pairing import Secret

log = logging.getLogger("sdmount.sync")

#: How long it looks, in all and where it was told a place.
LOOK_S: Final = 30.0
LOOK_AT_PLACES_S: Final = 12.0
_DIAL_S: Final = 3.0
_AGAIN_S: Final = 1.5
_TRIES: Final = 8  # at once
_REFUSED_S: Final = 0.9 * REFUSED_S

_NOBODY: Final = (
    "nobody with these words was found on this network; is `sd pair` open there? If it is, name the place: "
    "--at HOST:PORT, or use the ticket"
)
_OTHER_WORDS: Final = "these words do not serve there (any more); run `sd pair` there for new ones"


class Looking:
    """Looking for who offers: several places at once, until one proves to know the secret."""

    def __init__(self, links: Links, secret: Secret, known: tuple[Endpoint, ...]) -> None:
        self._links = links
        self._secret = secret
        self._known = known
        self._under_way: set[Endpoint] = set()
        self._refused: set[Endpoint] = set()
        self._again_s: dict[Endpoint, float] = {}
        self._has_found = False
        self._met: tuple[Stream, Secured, Endpoint] | None = None
        self.reason = _NOBODY

    async def run(self) -> tuple[Stream, Secured, Endpoint] | None:
        """The stream to it, after the handshake; None when nobody was found, and `reason` says why."""
        with trio.move_on_after(LOOK_AT_PLACES_S if self._known else LOOK_S):
            async with trio.open_nursery() as nursery:
                while self._met is None:
                    for endpoint in self._due(trio.current_time()):
                        self._under_way.add(endpoint)
                        nursery.start_soon(self._dial, endpoint)
                    if self._known and not self._under_way and self._refused >= self._places():
                        break  # all who are there were asked
                    await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
        return self._met

    def _places(self) -> set[Endpoint]:
        return {*self._known, *self._links.discovery.find_offer(self._secret.tag)}

    def _due(self, now_s: float) -> list[Endpoint]:
        places = dict.fromkeys((*self._known, *self._links.discovery.find_offer(self._secret.tag)))
        due = [
            place for place in places
            if place not in self._under_way and place not in self._refused and self._again_s.get(place, now_s) <= now_s
        ]  # fmt: skip
        due.sort(key=lambda place: place in self._again_s)  # those first that were not dialled yet
        return due[: _TRIES - len(self._under_way)]

    async def _dial(self, endpoint: Endpoint) -> None:
        stream: Stream | None = None
        began_s = math.inf
        try:
            stream = await self._links.dial(endpoint, _DIAL_S)
            began_s = trio.current_time()
            exchange = dial_pairing(
                self._links.identity.keys,
                self._secret.psk,
                name=self._links.name,
                os_name="Linux",
                random=self._links.outside.bytes,
            )
            secured = await shake_hands(stream, exchange, _DIAL_S, self._is_first)
            self._met, stream = (stream, secured, endpoint), None
        except (HandshakeFailed, LinkClosed) as error:
            if trio.current_time() >= began_s + _REFUSED_S:  # who has too many visitors hangs up at once
                self._refused.add(endpoint)
                self.reason = _OTHER_WORDS
            self._note(endpoint, error)
        except (Unreachable, Deadline) as error:
            if self.reason == _NOBODY:
                self.reason = f"nobody answers at {endpoint}; is `sd pair` open there, and can this network reach it?"
            self._note(endpoint, error)
        except VdfsError as error:
            self.reason = f"{endpoint}: {error}"
            self._note(endpoint, error)
        finally:
            self._under_way.discard(endpoint)
            if stream is not None:
                with trio.CancelScope(shield=True):
                    await stream.aclose()

    def _is_first(self) -> bool:
        """Whoever gets here knows the secret, and the offer serves once."""
        self._has_found, is_first = True, not self._has_found
        return is_first

    def _note(self, endpoint: Endpoint, error: VdfsError) -> None:
        self._again_s[endpoint] = trio.current_time() + _AGAIN_S
        if not self._has_found:  # else it is one of several places of the device that was found
            log.info("pairing at %s: %s", endpoint, error)
