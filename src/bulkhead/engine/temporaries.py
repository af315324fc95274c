"""Names of images that belong to the request that asked for one: what has such a name goes when that request ends.

A copy of a server is made in two passes, of which the first is an image that nobody wants once the second is there.
"""

from __future__ import annotations

import secrets
from contextlib import suppress

from bulkhead.engine.context import Context
from bulkhead.errors import NotFound
from bulkhead.tenancy.names import split

PREFIX = "temporary.invalid/"
"""No registry can have this host's name."""


class Temporaries:
    """Hands out names, and takes away what is called so."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def name(self) -> str:
        """A name that nothing has. Whoever asks gives it back, whatever happens."""
        return f"{PREFIX}{secrets.token_hex(8)}:latest"

    def end(self, name: str) -> None:
        """Take the name away, and with it the image where it is its last one. Fine when nothing is called so."""
        with suppress(NotFound):
            self._context.images.remove(name)

    def recover(self) -> list[str]:
        """At the daemon's start nobody holds a name any more; what was taken away, in words."""
        found = [
            name
            for image in self._context.images.list()
            for name in image.references
            if split(name)[1].startswith(PREFIX)
        ]
        for name in found:
            self.end(name)
        return [f"image {name}: nobody holds it, removed" for name in found]
