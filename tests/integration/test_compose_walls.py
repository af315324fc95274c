"""Projects whose services are behind different walls, and find one another across them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.harness import unikernels
from tests.harness.daemon import BULKHEAD, Daemon
from tests.harness.images import rootfs_tar
from tests.harness.kernels import kernel_layout
from tests.integration.lives import client, until, with_image

pytestmark = pytest.mark.timeout(1200)
HOWTO = Path(__file__).parents[2] / "docs/howto/compose.md"
APP = """
import http.server, socket, urllib.request

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = urllib.request.urlopen("http://pages:8080/", timeout=60).read().decode()
        with socket.create_connection(("store", 6379), 60) as store:
            store.sendall(b"INCR visits\\r\\n")
            count = store.recv(100).decode().strip(":\\r\\n")
        body = f"visit {count}, {told}".encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

print("app is up", flush=True)
http.server.HTTPServer(("", 8000), Page).serve_forever()
"""
WALLS = """
name: walls
services:
  app:
    image: app
    ports: ["8000:8000"]
    depends_on:
      store: {condition: service_healthy}
      pages: {condition: service_started}
    healthcheck: {test: "python3 -c 'import socket; socket.create_connection((\\"localhost\\", 8000))'", interval: 1s}
    x-bulkhead: {isolation: container, memory: 128M}
  store:
    image: redis
    volumes: ["kept:/data"]
    healthcheck: {test: redis-cli ping, interval: 2s, retries: 60}
    x-bulkhead: {isolation: vm, memory: 256M}
  pages:
    image: pages
    x-bulkhead: {isolation: unikernel, memory: 128M}
volumes:
  kept: {driver_opts: {size: 64M}}
"""
IMAGES = {
    "redis": 'CMD ["redis-server", "--dir", "/data", "--bind", "0.0.0.0", "--protected-mode", "no"]',
    "nginx": 'CMD ["nginx", "-g", "daemon off;"]',
    "app": 'COPY app.py /app.py\nCMD ["python3", "/app.py"]',
}


@pytest.fixture
def images(shared_daemon: Daemon, tmp_path: Path, busybox_tar: Path) -> Daemon:
    """A daemon with a kernel and the images of the projects."""
    if "pages" in shared_daemon.cli("image", "ls").stdout:
        return shared_daemon
    shared_daemon.cli("image", "import", kernel_layout(), "kernel/debian:latest")
    with_image(shared_daemon, busybox_tar, "busybox")
    with_image(shared_daemon, rootfs_tar("servers"), "servers")
    (tmp_path / "app.py").write_text(APP)
    for name, lines in IMAGES.items():
        (tmp_path / "Containerfile").write_text(f"FROM servers\n{lines}\n")
        shared_daemon.cli("build", "-t", name, tmp_path)
    shared_daemon.cli("build", "--unikernel", "-t", "pages", unikernels.server(tmp_path))
    return shared_daemon


def nothing_is_left(daemon: Daemon, project: str) -> None:
    """Of a project that was taken down with its volumes."""
    assert daemon.json("compose", "-p", project, "ps", "-a", "--format", "json") == []
    assert daemon.json("ps", "-a", "--format", "json") == []
    assert [each["name"] for each in daemon.json("network", "ls", "--format", "json")] == ["default"]
    assert daemon.json("volume", "ls", "--format", "json") == []


def test_three_services_behind_three_walls(images: Daemon, tmp_path: Path) -> None:
    assert images.outside
    file = tmp_path / "compose.yaml"
    file.write_text(WALLS)
    said = images.cli("up", "-d", "--wait", "-f", file, timeout=600).stderr
    assert said.index("walls-store-1  Started") < said.index("walls-app-1  Starting")
    assert said.index("walls-pages-1  Started") < said.index("walls-app-1  Starting")
    found = images.json("compose", "-f", str(file), "ps", "--format", "json")
    assert {each["spec"]["name"]: (each["spec"]["isolation"], each["state"]) for each in found} == {
        "walls-app-1": ("container", "running"),
        "walls-store-1": ("vm", "running"),
        "walls-pages-1": ("unikernel", "running"),
    }
    assert {each["spec"]["name"]: each["health"] for each in found if each["health"]} == {
        "walls-app-1": "healthy",
        "walls-store-1": "healthy",
    }
    # The container's program asks both machines by their names, and the guest with a shell finds the others by theirs.
    for count in (1, 2):
        status, body = images.outside.fetch(8000, timeout=120.0)
        assert status == 200
        assert re.fullmatch(rf"visit {count}, served by \S+, process \d+\n", body.decode())
    for name in ("app", "pages"):
        address = images.json("inspect", f"walls-{name}-1")[0]["address"]["ipv4"]
        hosts = images.cli("compose", "-f", file, "exec", "-T", "store", "getent", "ahostsv4", name).stdout
        assert hosts.split()[0] == address
    with client(images, "compose", "-f", str(file), "logs", "-f") as following:
        assert following.stdout
        wanted = {("walls-app-1", "app is up"), ("walls-store-1", "Ready to accept"), ("walls-pages-1", "listening")}
        for line in following.stdout:
            name, _, text = line.decode().partition("|")
            wanted -= {each for each in wanted if each[0] == name.strip() and each[1] in text}
            if not wanted:
                break
        assert not wanted
    images.cli("down", "-v", "-f", file, timeout=300)
    nothing_is_left(images, "walls")


def blocks(kind: str) -> list[str]:
    """The how-to's blocks of code of one kind."""
    return re.findall(rf"```{kind}\n(.*?)```", HOWTO.read_text(), re.DOTALL)


def test_the_how_to_as_it_is_written(images: Daemon, tmp_path: Path) -> None:
    """Its file and its lines; what it builds and keeps secret are the reader's own."""
    (tmp_path / "compose.yaml").write_text(blocks("yaml")[0])
    (tmp_path / "key").write_text("verysecret\n")
    (tmp_path / "index.html").write_text("well\n")
    (tmp_path / "Containerfile").write_text(
        'FROM busybox\nCOPY index.html /www/\nCMD ["httpd", "-f", "-p", "8000", "-h", "/www"]\n'
    )
    said = {}
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    for line in filter(None, lines):
        if line == "bulkhead down":
            page = ["curl", "-s", "-m", "60", "http://127.0.0.1:8080/"]
            until("the page", lambda page=page: "nginx" in images.sandbox.run(*page, check=False).stdout)  # type: ignore[misc]
            app = "import urllib.request as r; print(r.urlopen('http://app:8000/').read())"
            assert "well" in bulkhead(images, tmp_path, f'bulkhead compose exec -T web python3 -c "{app}"')
            assert bulkhead(images, tmp_path, "bulkhead compose exec -T app cat /run/secrets/key") == "verysecret\n"
        said[line] = bulkhead(images, tmp_path, line.replace(" -f ", " "))  # the test above follows logs
    assert "shop-web-1" in said["bulkhead compose ps"]
    assert said["bulkhead compose exec db redis-cli ping"].strip() == "PONG"
    nothing_is_left(images, "shop")


def bulkhead(daemon: Daemon, directory: Path, line: str) -> str:
    """What a line of shell says that somebody types in `directory`."""
    done = subprocess.run(
        line.replace("bulkhead", str(BULKHEAD), 1),
        shell=True,
        cwd=directory,
        env=daemon.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done}"
    return done.stdout
