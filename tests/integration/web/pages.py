"""What the tests of the web page share: views, instances, whoever has a token, and what the browser says."""

from __future__ import annotations

import http.client
import json
import socket

from playwright.sync_api import Page

from tests.harness.daemon import Daemon
from tests.harness.namespaces import in_network
from tests.integration.lives import PLAN

MILLISECONDS = 90_000
"""For what must happen, on a host that does much else."""
TALKER = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.2; done"
PORT = 8443


def listen(page: Page) -> list[str]:
    """What the browser's console will have said, errors of scripts and dialogs included."""
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text} {message.location}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    return said


def run(daemon: Daemon, name: str, *options: str, script: str = TALKER) -> str:
    """An instance that runs; its id."""
    return daemon.cli("run", "-d", "--name", name, *PLAN, *options, "busybox", "sh", "-c", script).stdout.strip()


def go(page: Page, where: str) -> None:
    """Another view."""
    page.evaluate("where => { location.hash = where; }", where)


def token_of(daemon: Daemon, tenant: str, user: str) -> str:
    """A token of a new user of a new tenant."""
    assert daemon.api("POST", "/v1/tenants", {"name": tenant}).status == 201
    assert daemon.api("POST", "/v1/users", {"name": user, "role": "tenant", "tenant": tenant}).status == 201
    return str(daemon.api("POST", "/v1/tokens", {"user": user}).body["token"])


def connected(daemon: Daemon) -> http.client.HTTPConnection:
    """A connection to the port that asks for tokens."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=60)
    namespace = f"/proc/{daemon.sandbox.pid}/ns/net"
    connection.sock = in_network(namespace, lambda: socket.create_connection(("127.0.0.1", PORT), timeout=60))
    return connection


def over_tcp(daemon: Daemon, token: str, path: str, body: object) -> None:
    """Make something as whoever has the token."""
    connection = connected(daemon)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
    finally:
        connection.close()
