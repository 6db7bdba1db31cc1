"""Roster: which devices are members of the library, and by whose word.

In: the rows of devices, and the vouches among their registers. Out: who may link to this device and say things in the
library, and the keys by which he is known.

Two devices that paired by words vouch for each other, first hand: each signs (library, device, its card) and tells it
to all. A device is trusted here when an unbroken chain of such words leads to it from this device. So whoever joined
by any member is known to all of them, and nobody can be brought in by somebody who has not seen his words. A vouch
stays good when who gave it is revoked later: what is known of by then was seen before. Who is revoked is out at once,
wherever that is heard, and never comes back under the same key.

A device that is out says nothing any more to who has heard of it. What it said to a member that had not heard stands,
for all, and is handed on by members: they could not know, have built on it, and no two of them would cut it at one
place. What it holds is let go of everywhere (places.give_up_branches).

Source: the web of trust of Zimmermann, "PGP User's Guide" (1992), cut down to what is first hand.
"""

import logging
from collections.abc import Iterable
from typing import Final

import attrs
from blake3 import blake3

from index.store import devices, places, registers
from index.store.devices import Device
from index.store.store import Store
from index.store.unit import Unit
from sync.log import claims
from sync.wire.identity import DeviceIdentity, is_card, is_signed
from sync.wire.words import fingerprint_words

log = logging.getLogger("sdmount.sync")

_TAG_CONTEXT: Final = "sdmount library tag 1"


@attrs.frozen
class Member:
    """A device of the library as it is listed. `by`: who vouched for it, nearest to us first."""

    device: Device
    is_own: bool
    is_trusted: bool
    words: tuple[str, ...]
    by: tuple[bytes, ...]


class Roster:
    """Used on the loop only; `refresh` after device rows changed."""

    def __init__(self, store: Store, identity: DeviceIdentity) -> None:
        self.store = store
        self.identity = identity
        self._trusted: dict[bytes, Device] = {}
        self._known: dict[bytes, Device] = {}  # with those that were put out
        self._by_static: dict[bytes, bytes] = {}
        self._vouchers: dict[bytes, tuple[bytes, ...]] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Read who is trusted anew; returns whether that changed."""
        db, own = self.store.db, self.identity.uuid
        rows = {row.uuid: row for row in devices.every(db)}
        vouches: dict[bytes, set[bytes]] = {}
        for uuid, row in rows.items():
            fields = registers.fields_of(db, devices.MODEL, uuid)
            if not is_card(uuid, fields.get("card")):
                continue
            for field, signature in fields.items():
                if not field.startswith(claims.VOUCH) or not isinstance(signature, bytes):
                    continue
                try:
                    voucher = rows[bytes.fromhex(field[len(claims.VOUCH) :])]
                except (ValueError, KeyError):
                    continue
                if is_signed(voucher.public_key, self._said(uuid, row), signature):
                    vouches.setdefault(voucher.uuid, set()).add(uuid)
        reached: dict[bytes, tuple[bytes, ...]] = {own: ()}
        todo = [own]
        for voucher_uuid in todo:  # grows on the way
            for uuid in sorted(vouches.get(voucher_uuid, ())):
                if uuid not in reached:
                    reached[uuid] = (*reached[voucher_uuid], voucher_uuid)
                    todo.append(uuid)
        trusted = {uuid: rows[uuid] for uuid in reached if uuid in rows and not rows[uuid].revoked}
        changed = {u: r.public_key for u, r in trusted.items()} != {u: r.public_key for u, r in self._trusted.items()}
        self._trusted = trusted
        self._known = {uuid: rows[uuid] for uuid in reached if uuid in rows}
        self._vouchers = reached
        self._by_static = {row.static_key: uuid for uuid, row in trusted.items()}
        return changed

    def _said(self, uuid: bytes, row: Device) -> bytes:
        return claims.vouched(self.store.library_uuid, uuid, row.public_key, row.static_key)

    # asked ------------------------------------------------------------------------------------------------------------

    def others(self) -> list[Device]:
        """The trusted devices besides this one."""
        return [row for uuid, row in self._trusted.items() if uuid != self.identity.uuid]

    def is_trusted(self, uuid: bytes) -> bool:
        return uuid in self._trusted

    def key_of(self, uuid: bytes) -> bytes | None:
        """The public key of a device that may say things here, or might before it was put out: what members heard of
        it by then is handed on among them."""
        row = self._known.get(uuid)
        return None if row is None else row.public_key

    def is_out(self, uuid: bytes) -> bool:
        """Whether a device was put out of the library."""
        row = devices.get(self.store.db, uuid)
        return row is not None and bool(row.revoked)

    def admit(self, static_key: bytes, library: bytes, device: bytes) -> bool:
        """Whether whoever holds a key may link to this library as that device."""
        return library == self.store.library_uuid and self._by_static.get(static_key) == device != self.identity.uuid

    def tag_of(self, uuid: bytes) -> bytes:
        """By what a device is announced: 8 bytes that only members can compute."""
        return blake3(self.store.library_uuid + uuid, derive_key_context=_TAG_CONTEXT).digest(8)

    def members(self) -> list[Member]:
        """All devices that are known, trusted or not."""
        own = self.identity.uuid
        return [
            Member(row, row.uuid == own, row.uuid in self._trusted, fingerprint_words(row.public_key),
                   self._vouchers.get(row.uuid, ()))
            for row in devices.every(self.store.db)
        ]  # fmt: skip

    # written ----------------------------------------------------------------------------------------------------------

    def vouch(self, unit: Unit, uuid: bytes) -> None:
        """Say that this device has paired with another one, whose row is there. Its card is told with that, also to
        those who may have it already: a vouch that comes alone is of no use, and is passed over in a current state."""
        row = devices.get(unit.db, uuid)
        assert row is not None
        registers.put(unit, devices.MODEL, uuid, "card", registers.fields_of(unit.db, devices.MODEL, uuid)["card"])
        signature = self.identity.keys.sign(self._said(uuid, row))
        registers.put(unit, devices.MODEL, uuid, claims.vouch_field(self.identity.uuid), signature)

    def revoke(self, unit: Unit, uuid: bytes) -> None:
        """A device is no member any more, for all who hear of it."""
        registers.put(unit, devices.MODEL, uuid, "revoked", [unit.device])
        devices.make(unit.db, uuid, registers.fields_of(unit.db, devices.MODEL, uuid))
        places.give_up_branches(unit.db, unit.device)


def tags_of(roster: Roster, members: Iterable[Device]) -> dict[bytes, bytes]:
    """The tags by which some devices are announced, with the devices."""
    return {roster.tag_of(row.uuid): row.uuid for row in members}
