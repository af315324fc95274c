"""Images for several platforms: one list in a registry or an archive; here an image for each, told apart by names.

`app:1` is this host's; the others are called `app:1-arm64`, `app:1-arm-v7`, as many registries have it. So each can
be run, saved, tagged and removed like any image, and the names alone say what a list is made of again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bulkhead.errors import ImageError
from bulkhead.images import documents, reference
from bulkhead.images.documents import Descriptor, Index, Platform
from bulkhead.images.rootfs import host_architecture

MOST = 64
"""Platforms of one image."""


@dataclass(frozen=True, slots=True)
class Member:
    """One image of a list that is to be written."""

    media_type: str
    digest: str
    size: int
    platform: Platform


def name_for(name: str, platform: Platform) -> str:
    """What the image for a platform is called where the list has this name, which ends in a tag.

    Raises Refused where that is no name: an architecture is what a stranger has written.
    """
    if platform.architecture == host_architecture():
        return name
    return str(reference.parse_tagged("-".join(filter(None, (name, platform.architecture, platform.variant)))))


def entries(index: Index) -> list[Descriptor]:
    """The images of a list, one for each platform of Linux. Raises ImageError for lists of too many, or of none."""
    found: dict[str, Descriptor] = {}
    for entry in index.manifests:
        platform = entry.platform
        if platform and platform.os in ("", "linux") and platform.architecture not in ("", "unknown"):
            found.setdefault(str(platform), entry)
    if not found or len(found) > MOST:
        raise ImageError(f"the list has images for {len(found)} platforms of Linux, 1 to {MOST} are allowed")
    return list(found.values())


def likely(names: Mapping[str, str], name: str) -> Iterator[tuple[str, str]]:
    """Names, with their digests, that may be the other platforms' of an image of this name."""
    return ((other, digest) for other, digest in sorted(names.items()) if other.startswith(f"{name}-"))


def list_of(members: Sequence[Member]) -> bytes:
    """The document of a list, as the OCI specification has it."""
    said = [
        {
            "mediaType": member.media_type,
            "digest": member.digest,
            "size": member.size,
            "platform": {key: value for key, value in member.platform.model_dump().items() if value},
        }
        for member in members
    ]
    return documents.dump({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": said})
