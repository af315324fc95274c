"""Tokens to join a fleet: what is made can be read, and nothing else can."""

from __future__ import annotations

import base64
import json

import pytest

from bulkhead.errors import Refused
from bulkhead.fleet import Place, fingerprint, invite, parse_invitation
from bulkhead.model import Isolation


def test_a_token_says_whom_to_ask_and_which_authority_is_behind_it() -> None:
    made = invite("[fd00::1]:8444", "-----BEGIN CERTIFICATE-----")
    read = parse_invitation(f" {made.encode()}\n")
    assert (read.address, read.fingerprint) == ("[fd00::1]:8444", fingerprint("-----BEGIN CERTIFICATE-----"))
    assert (read.secret, read.hash) == (made.secret, made.hash)
    assert made.secret not in made.hash
    assert invite("[fd00::1]:8444", "").secret != made.secret


def encoded(document: object) -> str:
    return "bhj_" + base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bhj_",
        "bhd_0123_abc",
        "bhj_!!!",
        "bhj_" + "A" * 3000,
        encoded({}),
        encoded(["10.0.0.1:1", "f" * 64]),
        encoded(["10.0.0.1:1", "f" * 64, 7]),
        encoded(["10.0.0.1:1/../x", "f" * 64, "s" * 43]),
        encoded(["example.org:1", "f" * 64, "s" * 43]),
        encoded(["10.0.0.1:1", "F" * 64, "s" * 43]),
        encoded(["10.0.0.1:1", "f" * 64, "s" * 42 + "\n"]),
        encoded([["10.0.0.1:1"], "f" * 64, "s" * 43]),
        encoded([[[[[]]]]] * 3),
    ],
)
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Refused, match="this is no token to join a fleet") as refused:
        parse_invitation(text)
    assert not text or text not in str(refused.value)


def test_a_place_has_the_name_that_is_unique_in_the_fleet() -> None:
    place = Place(id="0" * 32, name="web", tenant="acme", host="1" * 32, level=Isolation.VM, amounts={})
    assert place.key == "acme@web"
    assert place.model_copy(update={"tenant": "default"}).key == "web"
