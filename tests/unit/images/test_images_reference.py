"""What images are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkhead.errors import Refused
from bulkhead.images import reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("debian", "debian:latest"),
        ("debian:bookworm", "debian:bookworm"),
        ("docker.io/library/debian", "debian:latest"),
        ("index.docker.io/team/app:1", "team/app:1"),
        ("host:5000/team/app", "host:5000/team/app:latest"),
        ("localhost/x:Tag_1.2-3", "localhost/x:Tag_1.2-3"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("a__b/c-d.e", "a__b/c-d.e:latest"),
        (f"debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"debian@{DIGEST}"),
        (DIGEST, DIGEST),
    ],
)
def test_normal_forms(text: str, normal: str) -> None:
    assert str(reference.parse(text)) == normal
    assert str(reference.parse(normal)) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", "Debian", "a//b", "/a", "a/", "a:", ":tag", "a:b:c", "a b", "-a", "a..b", "a___b", "a:-tag", "../etc"),
        *("a:" + "t" * 129, "a@sha256:12", "a@md5:" + "0" * 32, "@" + DIGEST, "a" * 256, "a\n", "a:b\n", DIGEST + "\n"),
    ],
)
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(Refused):
        reference.parse(text)


def test_a_digest_cannot_be_given_as_a_name() -> None:
    for text in (DIGEST, f"debian@{DIGEST}"):
        with pytest.raises(Refused):
            reference.parse_tagged(text)


def test_beginnings_of_digests() -> None:
    assert reference.digest_prefix("abcdef") == "abcdef"
    assert reference.digest_prefix("sha256:abcdef1") == "abcdef1"
    assert reference.digest_prefix("abcde") is None
    assert reference.digest_prefix("abcdeg") is None


@given(st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,3}(/[a-z0-9]{1,8}){0,3}", fullmatch=True))
def test_a_name_with_its_tag_is_read_back(name: str) -> None:
    found = reference.parse(name)
    assert reference.parse(str(found)) == found
    tagged = reference.parse(f"{name}:v1.0")
    assert tagged.tag == "v1.0"
    assert reference.parse(f"{tagged.name}@{DIGEST}").digest == DIGEST


@given(st.text(max_size=40))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        found = reference.parse(text)
    except Refused:
        return
    assert reference.parse(str(found)) == found
    assert not set(str(found)) & set(" \n\t\0\\")
