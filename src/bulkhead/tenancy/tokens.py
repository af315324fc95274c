"""API tokens: made once, shown once, kept as a hash.

A token is `bhd_ID_SECRET`: ID finds its record, SECRET is 256 random bits. The record holds the SHA-256 of the
secret. A slow hash (scrypt, argon2) protects secrets that can be guessed; nobody guesses 256 random bits, whatever a
guess costs, and a slow hash on every request would be a way to keep the daemon busy.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

PREFIX = "bhd"
"""By which scanners of repositories can find a token that was committed."""
_ID_BYTES, _SECRET_BYTES = 6, 32
_FORM = re.compile(rf"^{PREFIX}_([0-9a-f]{{{2 * _ID_BYTES}}})_([A-Za-z0-9_-]{{43}})$")
MAX_LENGTH = 128
"""Characters of what is looked at as a token."""


@dataclass(frozen=True, slots=True)
class Presented:
    """A token as somebody shows it."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"Presented(id={self.id!r})"


def make() -> tuple[str, str, str]:
    """A new token: (its id, the whole of it, which is shown once, the hash that is kept)."""
    identifier, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    return identifier, f"{PREFIX}_{identifier}_{secret}", digest(secret)


def parse(text: str) -> Presented | None:
    """The parts of a token; None where it is none."""
    found = _FORM.match(text) if len(text) <= MAX_LENGTH else None
    return Presented(found[1], found[2]) if found else None


def digest(secret: str) -> str:
    """The hash of a token's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(presented: Presented, kept: str) -> bool:
    """Whether the secret is the one whose hash was kept. Takes the same time whichever of its characters differ."""
    return hmac.compare_digest(digest(presented.secret), kept)


NOTHING = digest("")
"""A hash to compare with where there is no record, so that the time does not tell which ids there are."""
