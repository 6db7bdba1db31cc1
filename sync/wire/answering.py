"""Answering whoever dials: a device of the library, or one whose person was given the words of an open offer.

One port serves both. Which of the two it is shows by which handshake its first message can be opened as, so nothing
tells them apart from outside, and a stranger is left standing as by either.
"""

import os
from collections.abc import Callable, Generator
from typing import Protocol

from index.model.errors import HandshakeFailed
from sync.wire.handshake import Admit, Exchange, Secured, answer_paired, answer_pairing
from sync.wire.identity import Keys
from sync.wire.noise import Random

_Script = Generator[None, bytes, Secured]


class Offered(Protocol):
    """An offer that is open, for one more try by somebody who has just sent a first message."""

    psk: bytes

    def failed(self) -> None:
        """He does not know the secret."""

    def dropped(self) -> None:
        """He did, and then nothing more came of it."""


def answer_any(
    keys: Keys, admit: Admit, offered: Callable[[], Offered | None], *, name: str, os_name: str,
    ciphers: tuple[str, ...] | None = None, random: Random = os.urandom,
) -> Exchange:  # fmt: skip
    """The side that is dialled, by whoever: a paired device, or one that knows the words of an offer that is open
    (`offered`, None: none is). Which of the two a first message is shows by which it can be opened as."""

    def script(exchange: Exchange) -> _Script:
        first = yield
        chosen = answer_paired(keys, admit, ciphers=ciphers, random=random)
        try:
            chosen.take(first)
        except HandshakeFailed:
            offer = offered()
            if offer is None:
                raise
            return (yield from pairing(exchange, offer, first))
        return (yield from rest(exchange, chosen))

    def pairing(exchange: Exchange, offer: Offered, first: bytes) -> _Script:
        chosen = answer_pairing(keys, offer.psk, name=name, os_name=os_name, ciphers=ciphers, random=random)
        try:
            chosen.take(first)
        except HandshakeFailed:
            offer.failed()
            raise
        try:
            return (yield from rest(exchange, chosen))
        finally:  # also when nobody wants to hear the rest: the script is closed then
            if chosen.result is None:
                offer.dropped()

    def rest(exchange: Exchange, chosen: Exchange) -> _Script:
        while True:
            exchange.pass_on(chosen)
            if chosen.result is not None:
                return chosen.result
            message = yield
            try:
                chosen.take(message)
            finally:
                exchange.pass_on(chosen)

    return Exchange(script)
