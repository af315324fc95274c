"""Files of logins as podman and docker write them, and the helpers that they name."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from bulkhead.cli import logins
from bulkhead.errors import HostError, Refused


def source(registry: str = "a.test", repository: str = "team/app") -> dict[str, Any]:
    return {"registry": registry, "repository": repository, "name": "", "mirror": False}


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    return tmp_path


def keep(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def test_the_closest_login_is_taken(home: Path) -> None:
    keep(
        home / "runtime/containers/auth.json",
        {"auths": {"a.test": auth("all:1"), "a.test/team": auth("team:2:x"), "a.test/team/app": auth("app:3")}},
    )

    def found(repository: str) -> list[dict[str, str]]:
        return logins.for_sources([source(repository=repository)], None)

    assert found("team/app") == [{"registry": "a.test", "username": "app", "password": "3"}]
    assert found("team/other") == [{"registry": "a.test", "username": "team", "password": "2:x"}]
    assert found("teams") == [{"registry": "a.test", "username": "all", "password": "1"}]


def test_only_those_of_the_registries_that_are_asked_leave(home: Path) -> None:
    keep(home / "runtime/containers/auth.json", {"auths": {"a.test": auth("a:1"), "b.test": auth("b:2")}})
    assert [login["registry"] for login in logins.for_sources([source("b.test"), source("c.test")], None)] == ["b.test"]


def test_podmans_file_comes_before_dockers(home: Path) -> None:
    keep(home / ".docker/config.json", {"auths": {"a.test": auth("docker:1"), "b.test": auth("docker:2")}})
    keep(home / "runtime/containers/auth.json", {"auths": {"a.test": auth("podman:1")}})
    found = logins.for_sources([source(), source("b.test")], None)
    assert [login["username"] for login in found] == ["podman", "docker"]


def test_docker_hub_has_names_of_its_own(home: Path) -> None:
    keep(
        home / ".docker/config.json", {"auths": {"https://index.docker.io/v1/": {**auth("me:x"), "identitytoken": "t"}}}
    )
    (login,) = logins.for_sources([source("docker.io", "library/debian")], None)
    assert login["identity_token"] == "t"
    assert logins.host_of("https://index.docker.io/v1/") == "docker.io"


def test_helpers_are_asked_for_their_registries(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, bytes]] = []

    def run(argv: list[str], *, stdin: bytes, timeout: float) -> bytes:
        asked.append((argv[0], stdin))
        if stdin == b"none.test":
            raise HostError(f"{argv[0]} failed with 1: credentials not found in native keychain")
        return json.dumps({"Username": "<token>" if stdin == b"t.test" else "u", "Secret": "s"}).encode()

    monkeypatch.setattr(logins, "run", run)
    keep(home / ".docker/config.json", {"credsStore": "desktop", "credHelpers": {"h.test": "own", "t.test": "own"}})
    found = logins.for_sources([source("h.test"), source("t.test"), source("docker.io"), source("none.test")], None)
    assert found == [
        {"registry": "h.test", "username": "u", "password": "s"},
        {"registry": "t.test", "username": "", "identity_token": "s"},
        {"registry": "docker.io", "username": "u", "password": "s"},
    ]
    assert asked[0] == ("docker-credential-own", b"h.test")
    assert asked[2] == ("docker-credential-desktop", b"https://index.docker.io/v1/")


@pytest.mark.parametrize("document", [[], {"auths": [1]}, {"auths": {"a.test": {"auth": "%%%"}}}])
def test_damaged_files_are_told(home: Path, document: object) -> None:
    keep(home / "runtime/containers/auth.json", document)
    with pytest.raises(Refused, match=r"auth\.json"):
        logins.for_sources([source()], None)


def test_a_file_that_was_named_must_be_there(home: Path) -> None:
    with pytest.raises(Refused, match="there is no file"):
        logins.for_sources([source()], str(home / "none"))


def test_a_login_is_kept_beside_others_for_its_owner_alone(home: Path) -> None:
    path = keep(home / "runtime/containers/auth.json", {"auths": {"b.test": auth("b:2")}, "other": 1})
    path.chmod(0o644)
    assert logins.save("a.test", "me", "pass:word", None) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text())
    assert document == {"auths": {"a.test": auth("me:pass:word"), "b.test": auth("b:2")}, "other": 1}
    assert logins.forget("a.test", None) == ["forgot the login of a.test"]
    assert logins.forget("a.test", None) == ["there was no login of a.test"]
    assert logins.forget(None, None) == ["forgot the login of b.test"]
    assert [entry.name for entry in path.parent.iterdir()] == ["auth.json"]


@pytest.mark.parametrize("name", ["", "https://", "a b", "x\ny"])
def test_what_is_no_registry(name: str) -> None:
    with pytest.raises(Refused, match="is no registry"):
        logins.host_of(name)
