"""What images are called: `debian:bookworm`, `host:5000/team/app:1.2`, a digest, or the beginning of one.

The grammar is that of docker's distribution/reference. Names are kept as people write them: `debian`, not
`docker.io/library/debian`; the long form means the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bulkhead.errors import Refused

DEFAULT_TAG = "latest"
MAX_NAME = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
_NAME = re.compile(rf"(?:(?P<host>{_HOST}(?::[0-9]+)?)/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{6,64}")
_DEFAULT_HOSTS = ("docker.io/", "index.docker.io/")
_GRAMMAR = "a name looks like debian:bookworm or host:5000/team/app:1.2, in lower case"


@dataclass(frozen=True, slots=True)
class Reference:
    """A name with its tag, a name with a digest, or a digest alone (`name` empty)."""

    name: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        if self.digest:
            return f"{self.name}@{self.digest}" if self.name else self.digest
        return f"{self.name}:{self.tag}"


def is_digest(text: str) -> bool:
    """Whether `text` is a whole digest, `sha256:` and 64 hex digits."""
    return _DIGEST.fullmatch(text) is not None


def parse(text: str) -> Reference:
    """The normalised reference. A tag that is not given is "latest"; one beside a digest is dropped.

    Raises Refused for what is none.
    """
    if is_digest(text):
        return Reference("", digest=text)
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise Refused(f"image {text!r}: {digest!r} is not a digest", hint="sha256: and 64 hex digits")
    name, tag = _split_tag(rest)
    for host in _DEFAULT_HOSTS:
        if name.startswith(host):
            name = name.removeprefix(host).removeprefix("library/")
            break
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise Refused(f"image {text!r}: {name!r} is not a name", hint=_GRAMMAR)
    if tag is not None and not _TAG.fullmatch(tag):
        raise Refused(f"image {text!r}: {tag!r} is not a tag", hint="letters, digits, _ . - and at most 128 of them")
    return Reference(name, digest=digest) if at else Reference(name, tag=tag or DEFAULT_TAG)


def parse_tagged(text: str) -> Reference:
    """A reference that a name can be given by: without a digest. Raises Refused."""
    reference = parse(text)
    if reference.digest:
        raise Refused(f"image {text!r} is a digest, not a name to give", hint=_GRAMMAR)
    return reference


def digest_prefix(text: str) -> str | None:
    """The hex digits when `text` can be the beginning of a digest (6 at least), else None."""
    return text.removeprefix("sha256:") if _PREFIX.fullmatch(text) else None


def _split_tag(text: str) -> tuple[str, str | None]:
    """The name and what follows the last colon behind its last slash (a port's colon is before one)."""
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    return head + slash + name, tag if colon else None
