"""Names of images as they are given, and what stands in the way of taking one away."""

from __future__ import annotations

from collections.abc import Sequence

from bulkhead.errors import Conflict, Refused
from bulkhead.images import reference
from bulkhead.tenancy.names import split

MOST_USERS = 8
"""Instances that are named when they keep an image from being removed."""


def used(name: str, users: Sequence[str]) -> Conflict:
    """Why an image cannot go."""
    shown, more = users[:MOST_USERS], ", ..." if len(users) > MOST_USERS else ""
    many = f"{len(users)} instances" if len(users) > 1 else "instance"
    hint = f"bulkhead rm {' '.join(shown)} first (-f where it runs)"
    return Conflict(f"image {name} is used by {many} {', '.join(shown)}{more}", hint=hint)


def given(name: str | None) -> tuple[str, ...]:
    """The one name that was given, in its normal form. Raises Refused."""
    return (str(reference.parse_tagged(name)),) if name else ()


def as_name(text: str) -> str:
    """The normalised name that `text` is, "" where it is none."""
    try:
        return str(reference.parse(text))
    except Refused:
        return ""


def repository(name: str) -> str:
    """The repository of one of the store's names, whosever it is."""
    return reference.parse(split(name)[1]).name
