"""bulkhead web: a port that leads to the daemon, for one's own programs alone."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from bulkhead.cli import forwarding
from bulkhead.cli.forwarding import listening, owner_of
from bulkhead.errors import Conflict, Refused
from tests.unit.cli.conftest import Cli

NOBODY = 65534
ASK = "import socket,sys; s=socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
ASK += "s.sendall(b'GET /v1/ping HTTP/1.0\\r\\nhost: localhost\\r\\n\\r\\n'); print(s.recv(100))"


@contextmanager
def served(cli: Cli, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`bulkhead web` while it runs, and its port."""
    process = cli.start("web", "--port", "0", *words)
    try:
        assert process.stdout
        address = process.stdout.readline().decode().strip()
        assert address.startswith("http://localhost:")
        yield process, urlsplit(address).port or 0
    finally:
        process.terminate()
        process.communicate(timeout=20)


def test_the_page_and_the_api_are_there(cli: Cli) -> None:
    with served(cli) as (_, port):
        for path, kind in (("/", "text/html"), ("/v1/ping", "application/json")):
            connection = http.client.HTTPConnection("localhost", port, timeout=20)
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.headers.get_content_type()) == (200, kind)
            answer.read()
            connection.close()


def test_another_user_of_this_host_gets_nothing(cli: Cli) -> None:
    """Whoever reaches the socket is root: a port on the loopback must not make everybody that."""
    with served(cli) as (process, port):
        ask = [sys.executable, "-I", "-c", ASK, str(port)]
        asked = subprocess.run(ask, user=NOBODY, group=NOBODY, capture_output=True, timeout=20, check=False)
        assert b"pid" not in asked.stdout
        assert b"HTTP" not in asked.stdout
        own = subprocess.run(ask, capture_output=True, timeout=20, check=True)
        assert b"200 OK" in own.stdout
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert b"refused a connection of the user 65534" in said


def test_owner_of_a_connection() -> None:
    with listening(None, usual=0) as listener:
        server = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", server)) as client:
            port = client.getsockname()[1]
            assert owner_of(port, server) == 0
            assert owner_of(port, server + 1) is None
    assert forwarding._end(80) == "0100007F:0050"


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(Conflict, match="taken"), listening(taken, usual=taken):
            pass
        with listening(None, usual=taken) as listener:
            assert listener.getsockname()[1] != taken
    with pytest.raises(Refused, match="70000"), listening(70000, usual=1):
        pass
