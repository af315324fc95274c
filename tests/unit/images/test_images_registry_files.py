"""registries.conf and policy.json: what they say of names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bulkhead.errors import Refused
from bulkhead.images.documents import Platform
from bulkhead.images.pulling import parse_platform
from bulkhead.images.registry import conf, policy
from bulkhead.images.registry.policy import Verdict


def registries(directory: Path, text: str, **drop_ins: str) -> conf.Registries:
    (directory / "registries.conf").write_text(text)
    (directory / "registries.conf.d").mkdir()
    for name, more in drop_ins.items():
        (directory / "registries.conf.d" / f"{name}.conf").write_text(more)
    return conf.load(directory)


def places(known: conf.Registries, name: str, **options: bool) -> list[tuple[str, str, str, bool]]:
    return [(at.place.host, at.path, at.reference, at.place.insecure) for at in known.sources(name, **options)]


def test_names_of_docker_hub_are_one(tmp_path: Path) -> None:
    known = conf.load(tmp_path)
    for name in ("docker.io/debian", "index.docker.io/library/debian", "docker.io/library/debian:latest"):
        assert known.full_names(name) == ["docker.io/library/debian:latest"]
    assert places(known, "docker.io/library/debian:12") == [("registry-1.docker.io", "library/debian", "12", False)]
    assert known.full_names("debian") == []


def test_short_names(tmp_path: Path) -> None:
    known = registries(
        tmp_path,
        'unqualified-search-registries = ["a.test", "b.test:5000"]\n[aliases]\napp = "c.test/team/app"\n',
        second='[aliases]\nother = "docker.io/other"\n',
    )
    digest = "@sha256:" + "0" * 64
    assert known.full_names("x:1") == ["a.test/x:1", "b.test:5000/x:1"]
    assert known.full_names("app" + digest) == ["c.test/team/app" + digest]
    assert known.full_names("other") == ["docker.io/library/other:latest"]
    assert known.full_names("localhost/x") == ["localhost/x:latest"]
    assert known.full_names("host:5000/x") == ["host:5000/x:latest"]
    for wrong in ("a.test/UPPER", "a.test/x:..", "a b", "-x"):
        with pytest.raises(Refused):
            known.full_names(wrong)


def test_a_short_name_of_several_registries_is_refused_where_that_is_wanted(tmp_path: Path) -> None:
    text = 'unqualified-search-registries = ["a.test", "b.test"]\nshort-name-mode = "enforcing"\n'
    with pytest.raises(Refused, match="short name of several") as caught:
        registries(tmp_path, text).full_names("x")
    assert "a.test/x, b.test/x" in caught.value.hint


def test_places_are_rewritten_and_mirrored_by_the_longest_prefix(tmp_path: Path) -> None:
    known = registries(
        tmp_path,
        """
        [[registry]]
        prefix = "example.test/foo"
        location = "inside.test:5000/bar"
        insecure = true
        [[registry.mirror]]
        location = "mirror.test/m"
        [[registry.mirror]]
        location = "tags.test"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "example.test"
        blocked = true
        [[registry]]
        prefix = "*.wild.test"
        insecure = true
        """,
    )
    assert places(known, "example.test/foo/app:1") == [
        ("mirror.test", "m/app", "1", False),
        ("tags.test", "app", "1", False),
        ("inside.test:5000", "bar/app", "1", True),
    ]
    digest = "sha256:" + "0" * 64
    assert [place[0] for place in places(known, f"example.test/foo/app@{digest}")] == [
        "mirror.test",
        "inside.test:5000",
    ]
    assert [place[0] for place in places(known, "example.test/foo/app:1", push=True)] == ["inside.test:5000"]
    with pytest.raises(Refused, match="is blocked"):
        known.sources("example.test/foobar:1")
    assert places(known, "a.wild.test/x:1") == [("a.wild.test", "x", "1", True)]
    assert places(known, "other.test/x:1", insecure=True) == [("other.test", "x", "1", True)]
    assert ("inside.test", 5000) in known.place("example.test").trusted


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]]\ninsecure = true\n",
        "nonsense",
        "[registries.search]\nregistries = []\n",
        "unqualified-search-registries = 1\n",
    ],
)
def test_what_is_wrong_with_registries_conf_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(Refused, match=r"registries\.conf"):
        registries(tmp_path, text)


def test_platforms() -> None:
    assert parse_platform("arm64") == Platform(os="linux", architecture="arm64")
    assert parse_platform("linux/arm/v7") == Platform(os="linux", architecture="arm", variant="v7")
    for wrong in ("windows/amd64", "linux/", "a/b/c/d", "linux/a b"):
        with pytest.raises(Refused):
            parse_platform(wrong)


# --- policy.json

SIGNED = [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/keys/k"}]


def rules(directory: Path, document: Any) -> policy.Policy:
    (directory / "policy.json").write_text(json.dumps(document))
    return policy.load(directory)


def test_the_closest_scope_decides(tmp_path: Path) -> None:
    scopes = {
        "a.test": [{"type": "reject"}],
        "a.test/team": SIGNED,
        "a.test/team/app": [{"type": "insecureAcceptAnything"}],
        "a.test/team/app:bad": [{"type": "reject"}],
        "*.wild.test": [{"type": "reject"}],
        "": SIGNED,
    }
    found = rules(tmp_path, {"default": [{"type": "reject"}], "transports": {"docker": scopes}})
    verdicts = {
        "a.test/x:1": Verdict.REJECT,
        "a.test/team/x:1": Verdict.VERIFY,
        "a.test/team/app:1": Verdict.ACCEPT,
        "a.test/team/app@sha256:" + "0" * 64: Verdict.ACCEPT,
        "a.test/team/app:bad": Verdict.REJECT,
        "a.test/teams:1": Verdict.REJECT,
        "x.wild.test:5000/y:1": Verdict.REJECT,
        "other.test/y:1": Verdict.VERIFY,
    }
    assert {name: found.verdict(name) for name in verdicts} == verdicts
    assert found.keys("a.test/team/x:1") == [Path("/keys/k")]


def test_no_policy_accepts_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    assert policy.load(tmp_path).verdict("a.test/x:1") is Verdict.ACCEPT
    for wrong in ([], {}, {"default": 1}, {"default": [1]}, {"default": [], "transports": []}):
        with pytest.raises(Refused):
            rules(tmp_path, wrong).verdict("a.test/x:1")
    with pytest.raises(Refused, match="unknown types"):
        rules(tmp_path, {"default": [{"type": "novel"}]}).verdict("a.test/x:1")
