"""Lists of platforms: names, bounds, and what strangers write into them."""

from __future__ import annotations

import json

import pytest

from bulkhead.errors import ImageError, Refused
from bulkhead.images import platforms
from bulkhead.images.documents import Index, Platform
from bulkhead.images.platforms import Member

DIGEST = "sha256:" + "a" * 64


def index(*named: str) -> Index:
    entries = []
    for text in named:
        system, architecture, *variant = text.split("/")
        platform = {"os": system, "architecture": architecture, "variant": "".join(variant)}
        entries.append({"digest": DIGEST, "size": 1, "platform": platform})
    return Index.model_validate({"schemaVersion": 2, "manifests": entries})


def test_names_tell_platforms_apart() -> None:
    assert platforms.name_for("app:1", Platform(os="linux", architecture="amd64")) == "app:1"
    assert platforms.name_for("app:1", Platform(os="linux", architecture="386")) == "app:1-386"
    arm = Platform(os="linux", architecture="arm", variant="v7")
    assert platforms.name_for("localhost:5000/app:1", arm) == "localhost:5000/app:1-arm-v7"
    assert dict(platforms.likely({"app:1": "a", "app:1-386": "b", "app:10": "c"}, "app:1")) == {"app:1-386": "b"}


@pytest.mark.parametrize("architecture", ["../../etc", "a b", "x:y", "x@y", "a\nb", "\x1b[2J", "x" * 200])
def test_an_architecture_that_is_no_name_is_refused(architecture: str) -> None:
    with pytest.raises((Refused, ValueError)):
        platforms.name_for("app:1", Platform(os="linux", architecture=architecture))


def test_linux_alone_each_once() -> None:
    found = platforms.entries(
        index("linux/amd64", "linux/arm/v7", "linux/amd64", "windows/amd64", "unknown/unknown", "linux/386")
    )
    assert [str(entry.platform) for entry in found] == ["linux/amd64", "linux/arm/v7", "linux/386"]


def test_lists_have_bounds() -> None:
    with pytest.raises(ImageError, match="for 0 platforms"):
        platforms.entries(index("windows/amd64"))
    with pytest.raises(ImageError, match="for 65 platforms"):
        platforms.entries(index(*(f"linux/a{number}" for number in range(65))))


def test_a_list_is_written_as_the_specification_has_it() -> None:
    data = platforms.list_of([Member("m", DIGEST, 7, Platform(os="linux", architecture="arm", variant="v7"))])
    assert json.loads(data) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "m",
                "digest": DIGEST,
                "size": 7,
                "platform": {"architecture": "arm", "os": "linux", "variant": "v7"},
            }
        ],
    }
