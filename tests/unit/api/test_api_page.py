"""The web page's files, and what keeps other sites' pages away from the API."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from bulkhead.api import page
from bulkhead.client import Client

Answer = tuple[int, Mapping[str, str], bytes]


def ask(client: Client, method: str, path: str, **headers: str) -> Answer:
    """One request as a browser would send it: status, headers by their small names, body."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(client.path)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": "localhost", **headers}.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def digest_of(index: bytes) -> str:
    """The version that a page loads."""
    found = set(re.findall(rb"/web/([0-9a-f]{16})/", index))
    assert len(found) == 1
    return found.pop().decode()


# --- the page


def test_the_page_trusts_nothing_but_its_own_files(client: Client) -> None:
    status, headers, body = ask(client, "GET", "/")
    assert status == 200
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    text = body.decode()
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|javascript:", text), "something inline"
    assert not re.search(r"(src|href)=\"(?!/|#)", text), "something of another host's"


def test_every_file_that_the_page_names_is_there_for_good(client: Client) -> None:
    index = ask(client, "GET", "/")[2].decode()
    names = re.findall(r'(?:src|href)="(/web/[^"]+)"', index)
    assert len(names) >= 4
    for name in names:
        status, headers, body = ask(client, "GET", name)
        assert status == 200, name
        assert "immutable" in headers["cache-control"]
        assert headers["x-content-type-options"] == "nosniff"
        packed = ask(client, "GET", name, Accept_Encoding="gzip, br")
        assert packed[1]["content-encoding"] == "gzip"
        assert gzip.decompress(packed[2]) == body


def test_modules_import_only_what_is_served() -> None:
    names = set(page.site().files) | set(page.VENDOR)
    for name, file in page.site().files.items():
        if not name.startswith("js/"):
            continue
        text = file.data.decode()
        wanted = re.findall(r"""(?:from|import) ?\(?["'](\.[^"']+)["']""", text)
        wanted += re.findall(r"""new URL\(["']([^"']+)["']""", text)
        for target in wanted:
            assert os.path.normpath(f"js/{target}") in names, (name, target)


def test_no_script_makes_markup_of_text() -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc|eval\("
    for name, file in page.site().files.items():
        if name.startswith("js/"):
            assert not re.search(ways, file.data.decode()), name


@pytest.mark.parametrize(
    "name",
    [
        "js/../../config.py",
        "..%2f..%2fconfig.py",
        "%2e%2e/index.html",
        "/etc/passwd",
        "package.json",
        "node_modules/uplot/package.json",
        ".npmrc",
        "js/main.js%00",
        "index.html",
    ],
)
def test_nothing_else_is_served(client: Client, name: str) -> None:
    digest = digest_of(ask(client, "GET", "/")[2])
    status, headers, body = ask(client, "GET", f"/web/{digest}/{name}")
    assert status == 404
    assert headers["content-type"] == "application/problem+json"
    assert b"load the page again" in body or b"http-api" in body


def test_another_version_is_not_there(client: Client) -> None:
    ask(client, "GET", "/")
    status, _, body = ask(client, "GET", f"/web/{'0' * 16}/js/main.js")
    assert status == 404
    assert json.loads(body)["hint"] == "load the page again"


def test_the_page_without_its_packages(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(page.ROOT, tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    monkeypatch.setattr(page, "ROOT", tmp_path / "web")
    monkeypatch.setattr(page, "PACKAGES", tmp_path / "web" / "node_modules")
    status, _, body = ask(client, "GET", "/")
    assert status == 200
    assert b'data-missing="@xterm/addon-fit @xterm/xterm uplot"' in body
    before = digest_of(body)
    (tmp_path / "web" / "js" / "main.js").write_text("// another version\n")
    body = ask(client, "GET", "/")[2]
    assert digest_of(body) != before
    assert ask(client, "GET", f"/web/{digest_of(body)}/js/main.js")[2] == b"// another version\n"


def test_what_the_page_needs_is_installed() -> None:
    missing = [name for name in page.VENDOR if name not in page.site().files]
    assert not missing, "run scripts/setup"


# --- other sites' pages


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:81", "http://a@localhost:1", "x", ""]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_requests_of_other_sites_are_refused(client: Client, method: str, origin: str) -> None:
    status, headers, body = ask(client, method, "/v1/instances/web", Origin=origin)
    assert status == 403
    assert headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in headers
    assert json.loads(body)["type"] == "forbidden"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8006", "127.0.0.1:8006", "[::1]:8006", "bulkhead", "a.localhost"]
)
def test_requests_of_the_page_are_served(client: Client, host: str) -> None:
    assert ask(client, "GET", "/v1/ping", Host=host)[0] == 200
    assert ask(client, "GET", "/v1/ping", Host=host, Origin=f"http://{host}")[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8006", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]", "a@b:c"]
)
def test_names_that_lead_to_the_unix_socket_by_a_trick_are_refused(client: Client, host: str) -> None:
    """DNS rebinding: a site that makes its own name mean this address has no other origin than the API's."""
    assert ask(client, "GET", "/v1/instances", Host=host)[0] == 403
    assert ask(client, "GET", "/v1/instances", Host=host, Origin=f"http://{host}")[0] == 403


def test_whoami(client: Client) -> None:
    who = client.call("GET", "/v1/whoami")
    assert (who["user"], who["role"], who["tenant"]) == ("root", "admin", None)
    assert {"read", "exec", "host", "tenants"} <= set(who["permissions"])
