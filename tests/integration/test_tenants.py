"""Two customers of one provider: over TLS, each finds its own things alone, and has no more than was sold."""

from __future__ import annotations

import http.client
import io
import json
import ssl
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from bulkhead.api.browsers import TERMINAL
from bulkhead.api.relay import REQUEST, api_frame
from bulkhead.api.rules import RULES
from bulkhead.tenancy import certificates
from tests.harness import unikernels
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.kernels import kernel_layout
from tests.harness.registries import Registry, configure, plain
from tests.integration import building

PORT = 8443
PLAN = ("--memory", "64M", "--cpus", "0.1", "--disk", "64M")
LOOP = ("sh", "-c", "echo ready; while :; do sleep 1; done")
NOWHERE = "f" * 32
ELSEWHERE = ("number", "month", "instance")
"""What invoices and prices are named by: numbers are the host's, so they have a test of their own;
what arrives from another host of a fleet is that host's to send."""


@dataclass(frozen=True)
class Caller:
    """Somebody with a token."""

    daemon: Daemon
    token: str
    directory: Path

    def cli(self, *arguments: str, check: bool = True, stdin: str = "") -> Any:
        """`bulkhead ARGUMENTS` over TLS, from a host that has nothing of the daemon's."""
        settings = {
            "BULKHEAD_HOST": f"https://127.0.0.1:{PORT}",
            "BULKHEAD_TOKEN": self.token,
            "BULKHEAD_TLSCACERT": str(self.directory / "ca.crt"),
            "HOME": "/nowhere",
        }
        words = ["env", "-i", "PATH=/usr/bin:/bin", *(f"{key}={value}" for key, value in settings.items())]
        return self.daemon.sandbox.run(*words, str(BULKHEAD), *arguments, check=check, stdin=stdin)

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One request: (status, the answer as JSON, or its bytes)."""
        with self.line() as ask:
            return ask(method, path, body)

    @contextmanager
    def line(self) -> Iterator[Callable[[str, str, object], tuple[int, Any]]]:
        """Many requests over one connection, made anew where the daemon has ended it: handshakes take their time."""
        held: list[http.client.HTTPSConnection] = []

        def ask(method: str, path: str, body: object = None) -> tuple[int, Any]:
            if not held:
                held.append(self._connect())
            data = None if body is None else json.dumps(body)
            headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
            held[0].request(method, path, data, headers | ({"Content-Type": "application/json"} if data else {}))
            answer = held[0].getresponse()
            text = answer.read()
            if answer.will_close:
                held.pop().close()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

        try:
            yield ask
        finally:
            for connection in held:
                connection.close()

    def _connect(self) -> http.client.HTTPSConnection:
        assert self.daemon.outside
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        connection = http.client.HTTPSConnection("127.0.0.1", PORT, timeout=30)
        plain = self.daemon.outside.connect(self.daemon.outside.inside4, PORT)
        connection.sock = context.wrap_socket(plain, server_hostname="127.0.0.1")
        return connection


@dataclass(frozen=True)
class Provider:
    """The daemon, its two customers, and somebody who only looks."""

    daemon: Daemon
    ann: Caller
    bob: Caller
    vic: Caller


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the daemon and of ann, and who has issued them."""
    made = tmp_path_factory.mktemp("certificates")
    ca = certificates.make_ca(days=1)
    (made / "ca.crt").write_bytes(ca[0])
    for name, pair in {
        "server": certificates.issue_server(ca, ["127.0.0.1"], days=1),
        "client": certificates.issue_client(ca, "ann", days=1),
    }.items():
        (made / f"{name}.crt").write_bytes(pair[0])
        (made / f"{name}.key").write_bytes(pair[1])
    return made


@pytest.fixture(scope="module")
def module_daemon(make_module_daemon: Callable[..., Daemon], directory: Path) -> Daemon:
    """One that listens over TLS."""
    listen = {
        "address": "0.0.0.0",
        "port": PORT,
        "cert": str(directory / "server.crt"),
        "key": str(directory / "server.key"),
        "client_ca": str(directory / "ca.crt"),
    }
    return make_module_daemon(listen=[listen])


@pytest.fixture(scope="module")
def opened(module_daemon: Daemon, busybox_tar: Path, directory: Path) -> Provider:
    """Tenants acme (ann, and vic who looks) and beta (bob), and an image for all."""
    daemon = module_daemon
    daemon.cli("image", "import", busybox_tar, "busybox")
    daemon.cli("image", "share", "busybox")
    callers = {}
    for tenant, users in {"acme": {"ann": "tenant", "vic": "viewer"}, "beta": {"bob": "tenant"}}.items():
        daemon.cli("tenant", "create", tenant)
        for user, role in users.items():
            daemon.cli("user", "create", "--role", role, "--tenant", tenant, user)
            token = daemon.cli("token", "create", "--expires", "1h", user).stdout.strip()
            callers[user] = Caller(daemon, token, directory)
    return Provider(daemon, callers["ann"], callers["bob"], callers["vic"])


@pytest.fixture
def provider(shared_daemon: Daemon, opened: Provider) -> Iterator[Provider]:
    """The same, with nothing of theirs after each test."""
    assert shared_daemon is opened.daemon
    yield opened
    shared_daemon.clear()
    for kind in ("volume", "network"):
        for each in shared_daemon.json(kind, "ls", "--format", "json"):
            owner = "" if each["tenant"] == "default" else f"{each['tenant']}@"
            if (kind, each["name"]) != ("network", "default"):
                shared_daemon.cli(kind, "rm", f"{owner}{each['name']}")


def test_a_customer_works_from_afar(provider: Provider, tmp_path: Path) -> None:
    ann, daemon = provider.ann, provider.daemon
    assert ann.cli("run", "--rm", *PLAN, "busybox", "sh", "-c", "echo out; exit 3", check=False).returncode == 3
    said = ann.cli("run", "-i", "--rm", *PLAN, "busybox", "cat", stdin="x" * 300_000).stdout
    assert said == "x" * 300_000, "streams go both ways over TLS, whatever their size"
    ann.cli("run", "-d", "--name", "web", *PLAN, "busybox", *LOOP)
    assert ann.cli("exec", "web", "hostname").returncode == 0
    (tmp_path / "file").write_text("content\n")
    ann.cli("cp", str(tmp_path / "file"), "web:/file")
    assert ann.cli("exec", "web", "cat", "/file").stdout == "content\n"
    assert "ready" in ann.cli("logs", "web").stdout
    assert daemon.json("inspect", "acme@web")[0]["config"]["tenant"] == "acme"
    refused = ann.cli("run", "-v", "/etc:/etc", "busybox", "true", check=False)
    assert refused.returncode == 125 and "that is of this host" in refused.stderr
    for user, action in (("ann", "POST /v1/run"), ("ann", "POST /v1/instances/{ref}/exec")):
        assert any(
            trace["user"] == user and trace["action"] == action
            for trace in json.loads(ann.cli("trail", "--format", "json").stdout)
        )
    assert [
        event["by"]
        for event in map(json.loads, daemon.cli("events", "--format", "json").stdout.splitlines())
        if event["action"] == "create" and event["name"] == "web"
    ] == ["ann"]


def test_nothing_of_anothers_is_found_by_any_route(provider: Provider) -> None:
    ann, bob = provider.ann, provider.bob
    bob.cli("run", "-d", "--name", "secretive", *PLAN, "busybox", *LOOP)
    bob.cli("volume", "create", "--size", "16M", "ledger")
    bob.cli("network", "create", "hidden")
    bob.cli("secret", "create", "password", "-", stdin="of-bob-alone")
    bob.cli("snapshot", "create", "secretive", "before")
    bob.cli("image", "tag", "busybox", "bobs/own:1")
    record = json.loads(bob.cli("inspect", "secretive").stdout)[0]
    operation = bob.ask("GET", "/v1/operations")[1][0]["id"]
    everything = json.dumps(
        [
            ann.ask("GET", path)[1]
            for path in (
                "/v1/instances",
                "/v1/volumes",
                "/v1/networks",
                "/v1/secrets",
                "/v1/snapshots",
                "/v1/images",
                "/v1/stats",
                "/v1/operations",
                "/v1/tenants",
                "/v1/users",
                "/v1/tokens",
                "/v1/trail",
                "/v1/usage",
                "/v1/info",
                "/v1/prices",
                "/v1/invoices",
            )
        ]
    )
    everything += str(ann.ask("GET", "/v1/events")[1])
    for word in ("secretive", "password", "of-bob-alone", "ledger", "hidden", "beta", "bob", record["id"], "bobs/own"):
        assert word not in everything, f"{word} is seen by another tenant"
    names = {
        "ref": (record["id"], record["id"][:12], "secretive", "beta@secretive"),
        "name": (
            "ledger",
            "hidden",
            "password",
            "before",
            "beta@password",
            "beta@ledger",
            "beta@hidden",
            "beta",
            "bob",
        ),
        "operation": (operation,),
        "identifier": (bob.token.split("_")[1],),
    }
    bodies: dict[str, object] = {"PATCH /v1/instances/{ref}": {"plan": {"memory": 128 << 20}}}
    asked = [key for key in RULES if "{" in key and key.partition("{")[2].partition("}")[0] not in ELSEWHERE]
    with ann.line() as ask:
        for key in asked:
            method, path = key.split(" ")
            held = [part[1:-1] for part in path.split("/") if part.startswith("{")]
            nothing = {name: NOWHERE[:12] if name == "identifier" else NOWHERE for name in held}
            body = bodies.get(key, {} if method in ("POST", "PATCH") else None)
            expected = _shape(ask(method, path.format(**nothing), body), nothing.values())
            for value in names[held[0]]:
                filled = {**nothing, held[0]: value}
                found = _shape(ask(method, path.format(**filled), body), filled.values())
                assert found == expected, f"{key} with {value} is answered otherwise than what is not there"
    for body in (
        {"image": "bobs/own:1", "command": ["true"]},
        {"image": "beta@bobs/own:1", "command": ["true"]},
        {"snapshot": "secretive/before", "command": ["true"]},
        {"snapshot": f"{record['id']}/before", "command": ["true"]},
        {"image": "busybox", "inside": record["id"], "command": ["true"]},
        {"image": "busybox", "network": "hidden", "command": ["true"]},
        {"image": "busybox", "secrets": [{"source": "password"}], "command": ["true"]},
        {"image": "busybox", "secrets": [{"source": "beta@password"}], "command": ["true"]},
        {"image": "busybox", "tenant": "beta", "command": ["true"]},
    ):
        status, answer = ann.ask("POST", "/v1/instances", body)
        assert status in (404, 422), f"{body}: {status} {answer}"
    ann.cli("run", "--rm", "-v", "ledger:/data", *PLAN, "busybox", "touch", "/data/anns")
    assert bob.cli("run", "--rm", "-v", "ledger:/data", *PLAN, "busybox", "ls", "/data").stdout == ""
    assert bob.cli("ps", "-q").stdout.split() == [record["id"][:12]]
    ann.cli("secret", "create", "password", "-", stdin="of-ann")
    read = ("run", "--rm", "--secret", "password", *PLAN, "busybox", "cat", "/run/secrets/password")
    assert (ann.cli(*read).stdout, bob.cli(*read).stdout) == ("of-ann", "of-bob-alone")
    daemon = provider.daemon
    assert daemon.cli("tenant", "rm", "acme", check=False).stderr.count("secrets") == 1
    daemon.cli("volume", "create", "--size", "16M", "ledger")
    daemon.cli("volume", "rm", "acme@ledger")
    left = [(each["tenant"], each["name"]) for each in daemon.json("volume", "ls", "--format", "json")]
    assert left == [("beta", "ledger"), ("default", "ledger")], "the operator removes the one that was named"


def _shape(answer: tuple[int, Any], names: Any) -> tuple[int, str]:
    """An answer without the names that were asked for."""
    status, told = answer
    if isinstance(told, dict) and "problem" in told:  # where the answer had begun when it was found out
        status, told = told["problem"]["status"], told["problem"]
    text = told.decode() if isinstance(told, bytes) else json.dumps(told)
    for name in sorted(map(str, names), key=len, reverse=True):
        text = text.replace(name, "NAME")
    return status, text


@pytest.mark.parametrize(
    "body",
    [
        {"mounts": [{"kind": "bind", "source": "/etc", "target": "/e"}]},
        {"network": "host"},
        {"isolation": "chroot"},
        {"kernel": "kernel/debian:latest", "isolation": "vm"},
        {"ports": [{"host_ip": "127.0.0.1", "host_port": 80, "port": 80}]},
        {"trust": "own", "isolation": "auto"},
        {"disks": [{"source": "/dev/sda"}]},
    ],
    ids=lambda body: next(iter(body)),
)
def test_the_host_is_out_of_a_tenants_reach(provider: Provider, body: dict[str, Any]) -> None:
    status, answer = provider.ann.ask("POST", "/v1/instances", {"image": "busybox", "command": ["true"], **body})
    assert status == 422, answer
    assert provider.ann.ask("GET", "/v1/instances")[1] == []


def test_a_quota_holds_whoever_is_first(provider: Provider) -> None:
    provider.daemon.cli("tenant", "update", "--instances", "5", "--memory", "1G", "--disk", "1G", "acme")
    request = {
        "image": "busybox",
        "command": ["true"],
        "plan": {"memory": 64 << 20, "cpus": 0.1, "disk": 64 << 20},
    }
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: provider.ann.ask("POST", "/v1/instances", request)[0], range(12)))
    assert sorted(statuses) == [201] * 5 + [422] * 7
    status, answer = provider.ann.ask(
        "POST", "/v1/instances", {**request, "plan": {**request["plan"], "memory": 2 << 30}}
    )
    assert status == 422 and len(answer["problems"]) >= 2, "all that is too much is told at once"
    first = provider.ann.ask("GET", "/v1/instances")[1][0]["spec"]["id"]
    assert provider.ann.ask("PATCH", f"/v1/instances/{first}", {"plan": {"memory": 900 << 20}})[0] == 422
    assert provider.ann.ask("PATCH", f"/v1/instances/{first}", {"plan": {"memory": 128 << 20}})[0] == 200
    assert provider.ann.ask("GET", "/v1/tenants/acme")[1]["used"]["memory"] == 4 * (64 << 20) + (128 << 20)
    assert provider.bob.ask("POST", "/v1/instances", request)[0] == 201


def test_prices_and_invoices_of_another_are_not_there(provider: Provider) -> None:
    ann, bob, daemon = provider.ann, provider.bob, provider.daemon
    daemon.cli("price", "set", "--tenant", "beta", "--from", "2020-01-01", "hour", "77.77", "EUR")
    number = next(each["id"] for each in daemon.json("price", "ls", "--format", "json") if each["tenant"] == "beta")
    try:
        bob.cli("run", "--rm", *PLAN, "busybox", "true")
        month = time.strftime("%Y-%m", time.gmtime())
        status, own = bob.ask("GET", f"/v1/invoices/month/{month}")
        assert (status, own["tenant"]) == (200, "beta"), "there is something to be found"
        assert "77.77" in json.dumps(bob.ask("GET", "/v1/prices")[1])
        assert "77.77" not in json.dumps(ann.ask("GET", "/v1/prices")[1])
        for path in (f"/v1/invoices/month/{month}", "/v1/invoices", "/v1/prices", "/v1/usage"):
            told = [_shape(ann.ask("GET", f"{path}?tenant={name}"), [name]) for name in ("beta", "nowhere")]
            assert told[0] == told[1] and told[0][0] in (404, 422), f"{path}: {told}"
            assert bob.ask("GET", f"{path}?tenant=beta")[0] == (422 if told[0][0] == 422 else 200)
        for method, path, body in (
            ("DELETE", f"/v1/prices/{number}", None),
            ("DELETE", "/v1/prices/999999", None),
            ("POST", "/v1/prices", {"unit": "hour", "amount": "0", "currency": "EUR", "valid_from": "2020-01-01"}),
            ("POST", "/v1/invoices", {"tenant": "beta", "month": month}),
        ):
            assert ann.ask(method, path, body)[0] == 403, path
        assert "77.77" in json.dumps(bob.ask("GET", "/v1/prices")[1])
    finally:
        daemon.cli("price", "rm", str(number))


def test_image_space_ends_an_import_where_it_ends(provider: Provider, tmp_path: Path) -> None:
    ann, daemon = provider.ann, provider.daemon
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("big")
        info.size = 24 << 20
        tar.addfile(info, io.BytesIO(Random(1).randbytes(info.size)))
    (tmp_path / "big.tar").write_bytes(archive.getvalue())
    store = daemon.config.images_dir
    before = sorted(path for path in store.rglob("*") if path.is_file())
    daemon.cli("tenant", "update", "--images", "8M", "acme")
    try:
        refused = ann.cli("image", "import", str(tmp_path / "big.tar"), "big", check=False)
        assert refused.returncode == 125 and "may grow by 8M" in refused.stderr, refused.stderr
        assert sorted(path for path in store.rglob("*") if path.is_file()) == before, "something of it was left"
        assert ann.ask("GET", "/v1/tenants/acme")[1]["used"]["images"] == 0
    finally:
        daemon.cli("tenant", "update", "--images", "none", "acme")
    ann.cli("image", "import", str(tmp_path / "big.tar"), "big")
    assert ann.ask("GET", "/v1/tenants/acme")[1]["used"]["images"] > 24 << 20
    ann.cli("image", "rm", "big")


def test_who_looks_changes_nothing_and_a_certificate_is_its_user(provider: Provider, directory: Path) -> None:
    assert provider.vic.ask("GET", "/v1/instances")[0] == 200
    assert provider.vic.ask("POST", "/v1/instances", {"image": "busybox"})[0] == 403
    assert provider.vic.ask("POST", "/v1/images/pull", {"reference": "busybox"})[0] == 403
    nobody = Caller(provider.daemon, "", directory)
    assert nobody.ask("GET", "/v1/instances")[0] == 401
    words = ["--tlscert", str(directory / "client.crt"), "--tlskey", str(directory / "client.key"), "user", "ls"]
    assert "ann" in nobody.cli(*words).stdout
    strange = certificates.issue_client(certificates.make_ca(days=1), "ann", days=1)
    (directory / "strange.crt").write_bytes(strange[0])
    (directory / "strange.key").write_bytes(strange[1])
    words = ["--tlscert", str(directory / "strange.crt"), "--tlskey", str(directory / "strange.key"), "user", "ls"]
    assert nobody.cli(*words, check=False).returncode == 125


def test_a_certificate_opens_a_terminal_without_a_token(provider: Provider, directory: Path) -> None:
    """A browser shows its certificate with the WebSocket too; who has none, and no token, gets none."""
    provider.ann.cli("run", "-d", "--name", "door", *PLAN, "busybox", *LOOP)
    provider.bob.cli("run", "-d", "--name", "other", *PLAN, "busybox", *LOOP)
    daemon, outside = provider.daemon, provider.daemon.outside
    assert outside
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))

    def said(instance: str) -> bytes:
        """What a command says over a WebSocket."""
        plain = outside.connect(outside.inside4, PORT)
        where = f"wss://127.0.0.1:{PORT}/v1/instances/{instance}/exec"
        found = b""
        with connect(where, sock=plain, ssl=context, subprotocols=[TERMINAL], open_timeout=30) as opened:  # type: ignore[list-item]
            opened.send(api_frame(REQUEST, json.dumps({"command": ["echo", "here"]}).encode()))
            try:
                while True:
                    found += bytes(opened.recv(timeout=60))
            except ConnectionClosed as closed:
                assert closed.rcvd and closed.rcvd.code == 1000
                return found

    with pytest.raises(InvalidStatus):
        said("door")
    context.load_cert_chain(str(directory / "client.crt"), str(directory / "client.key"))
    assert b"here\n" in said("door")
    other = next(
        line["spec"]["id"] for line in daemon.json("ps", "--format", "json") if line["spec"]["name"] == "other"
    )
    assert b"no such instance" in said(other)
    trail = [trace for trace in daemon.json("trail", "--format", "json") if trace["action"].startswith("WebSocket")]
    assert {(trace["user"], trace["tenant"]) for trace in trail} == {("ann", "acme")}


@pytest.mark.timeout(900)
def test_a_customer_has_every_wall_that_is_sold_and_builds_what_runs_there(provider: Provider, tmp_path: Path) -> None:
    """A machine with the operator's kernel, a unikernel that is shared, and an image of one's own."""
    ann, bob, daemon = provider.ann, provider.bob, provider.daemon
    daemon.cli("image", "import", kernel_layout())
    daemon.cli("image", "import", "--unikernel", unikernels.banner(tmp_path), "banner")
    daemon.cli("image", "share", "banner")
    made = building.context(tmp_path / "context", "FROM busybox\nRUN echo built > /made\nCMD cat /made\n")
    built = ann.cli("build", "-t", "own", *PLAN, str(made), check=False)
    assert built.returncode == 0, built.stderr
    try:
        for wall in ("container", "vm"):
            done = ann.cli(
                "run", "--rm", "--isolation", wall, "--memory", "160M", "--cpus", "1", "--disk", "64M", "own"
            )
            assert done.stdout == "built\n", wall
        least = ("--isolation", "unikernel", "--memory", "8M", "--cpus", "1", "--disk", "16M", "--network", "none")
        done = ann.cli("run", "--rm", *least, "banner", "e5", "some words", check=False)
        assert done.returncode == 5 and unikernels.SAYS in done.stdout
        assert "no image 'own" in bob.cli("run", "--rm", *PLAN, "own", check=False).stderr
        refused = ann.cli("run", "--rm", "--isolation", "chroot", *PLAN, "own", check=False)
        assert refused.returncode == 125 and "chroot" in refused.stderr
    finally:
        ann.cli("image", "rm", "own")


def test_a_customer_pulls_from_registries_that_are_meant_for_it(provider: Provider, tmp_path: Path) -> None:
    """One at an address of the host's own is the operator's to name; else the daemon would be a bridge into it."""
    ann, bob, daemon = provider.ann, provider.bob, provider.daemon
    registry = Registry(daemon.sandbox, tmp_path / "registry")
    name, conf = f"{registry.host}/team/app:1", daemon.config.containers_dir / "registries.conf"
    with ExitStack() as undo:
        undo.callback(registry.stop)
        registry.start()
        undo.callback(conf.unlink, missing_ok=True)
        configure(daemon, plain(registry.host))
        daemon.cli("image", "push", "busybox", name)
        conf.unlink()
        for verb in (("image", "pull", name), ("image", "tags", f"{registry.host}/team/app")):
            refused = ann.cli(*verb, check=False)
            assert refused.returncode == 125 and "an address of this host" in refused.stderr, refused.stderr
        configure(daemon, plain(registry.host))
        ann.cli("image", "pull", name)
        undo.callback(ann.cli, "image", "rm", name)
        assert ann.cli("run", "--rm", *PLAN, name, "echo", "pulled").stdout == "pulled\n"
        assert "no image" in bob.cli("run", "--rm", "--pull", "never", *PLAN, name, "true", check=False).stderr
