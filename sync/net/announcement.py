"""Announcement: what this device tells of itself to whoever is near. sightings.py says what is made of it there."""

import attrs

from sync.net.sightings import TAG_BYTES


@attrs.frozen
class Announcement:
    """What is told: the port, and tags of 8 bytes, of this device and of an open offer to pair, as far as any."""

    port: int
    tag: bytes | None = None
    offer: bytes | None = None

    def __attrs_post_init__(self) -> None:
        if not 0 < self.port < 65536 or any(len(tag) != TAG_BYTES for tag in (self.tag, self.offer) if tag is not None):
            raise ValueError("a port from 1 to 65535 and tags of 8 bytes")
