"""Servers and runtimes from Debian packages under a hosting plan: through the daemon, over published ports."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from tests.harness.daemon import Daemon
from tests.harness.images import rootfs_tar
from tests.integration.lives import until, with_image

PLAN = ("--memory", "512M", "--cpus", "2", "--disk", "5G")
WALLS = pytest.mark.parametrize("wall", ["chroot", "container"])


@pytest.fixture
def servers(shared_daemon: Daemon) -> Daemon:
    """A daemon with nginx, redis and Python."""
    return with_image(shared_daemon, rootfs_tar("servers"), "servers")


@pytest.fixture
def runtimes(shared_daemon: Daemon) -> Daemon:
    """A daemon with PostgreSQL, Node.js and Java."""
    return with_image(shared_daemon, rootfs_tar("runtimes"), "runtimes")


def ask(daemon: Daemon, port: int, *commands: bytes) -> list[bytes]:
    """Lines that a redis answers from outside."""
    assert daemon.outside
    with daemon.outside.connect(daemon.outside.inside4, port) as connection, connection.makefile("rwb") as stream:
        answers = []
        for command in commands:
            stream.write(command + b"\r\n")
            stream.flush()
            answers.append(stream.readline().strip())
            if re.fullmatch(rb"\$\d+", answers[-1]):
                answers[-1] = stream.readline().strip()
        return answers


@WALLS
def test_nginx(servers: Daemon, wall: str) -> None:
    assert servers.outside
    port, options = (8080, ["-p", "8080:80"]) if wall != "chroot" else (80, [])
    servers.cli(
        "run", "-d", "--name", "web", "--isolation", wall, *options, *PLAN, "servers", "nginx", "-g", "daemon off;"
    )
    status, body = servers.outside.fetch(port)
    assert (status, b"Welcome to nginx" in body) == (200, True)
    servers.cli("cp", "-", "web:/var/www/html", stdin=page(b"<p>mine"))
    assert servers.outside.fetch(port, "/mine.html") == (200, b"<p>mine")
    assert servers.outside.fetch(port, "/none")[0] == 404
    servers.cli("stop", "web")
    assert servers.cli("wait", "web").stdout == "0\n"


def page(text: bytes) -> bytes:
    """A tar archive of one page."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("mine.html")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    return packed.getvalue()


@WALLS
def test_redis(servers: Daemon, wall: str) -> None:
    port, options = (7000, ["-p", "7000:6379"]) if wall != "chroot" else (6379, [])
    run = ["run", "-d", "--name", "store", "--isolation", wall, "-u", "redis", "-v", "kept:/var/lib/redis", *options]
    server = ["redis-server", "--dir", "/var/lib/redis", "--protected-mode", "no", "--bind", "0.0.0.0"]
    servers.cli("volume", "create", "--size", "64M", "kept")
    servers.cli(
        "run", "--rm", *run[4:6], "-v", "kept:/var/lib/redis", *PLAN, "servers", "chown", "redis:", "/var/lib/redis"
    )
    servers.cli(*run, *PLAN, "servers", *server)
    assert ask(servers, port, b"SET a b", b"GET a", b"SAVE") == [b"+OK", b"b", b"+OK"]
    servers.cli("rm", "-f", "store")
    servers.cli(*run, *PLAN, "servers", *server)
    until("it has read its file", lambda: ask(servers, port, b"GET a") == [b"b"])
    servers.cli("rm", "-f", "store")
    servers.cli("volume", "rm", "kept")


PYTHON = """
import sqlite3, subprocess, threading
base = sqlite3.connect("/srv/base", check_same_thread=False)
base.execute("create table t (n integer)")
lock = threading.Lock()
def add(n):
    with lock, base:
        base.execute("insert into t values (?)", (n,))
threads = [threading.Thread(target=add, args=(n,)) for n in range(100)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(base.execute("select sum(n) from t").fetchone()[0])
print(subprocess.run(["sh", "-c", "echo $((6 * 7)); exit 3"], capture_output=True, text=True))
"""


@WALLS
def test_python(servers: Daemon, wall: str) -> None:
    lines = servers.cli("run", "--rm", "--isolation", wall, *PLAN, "servers", "python3", "-c", PYTHON).stdout.split(
        "\n"
    )
    assert lines[0] == "4950"
    assert "returncode=3, stdout='42\\n'" in lines[1]


SET_UID = """
cp /usr/bin/id /tmp/id
chmod 4755 /tmp/id
su -s /bin/sh www-data -c '/tmp/id -u'
"""
CAPABLE = """
import os, struct, subprocess
os.system("cp /usr/bin/cat /tmp/cat; touch /tmp/secret; chown 1:1 /tmp/secret; chmod 0 /tmp/secret")
capability = struct.pack("<5I", 0x02000001, 1 << 1, 0, 0, 0)  # DAC_OVERRIDE, effective
os.setxattr("/tmp/cat", "security.capability", capability)
assert os.getxattr("/tmp/cat", "security.capability") == capability
print(subprocess.run(["/tmp/cat", "/tmp/secret"], user=33, capture_output=True).returncode)
"""


@pytest.mark.parametrize(
    ("wall", "uid", "code"), [("chroot", "0", 0), ("container", "33", 1)], ids=["chroot", "container"]
)
def test_files_that_give_privileges(servers: Daemon, wall: str, uid: str, code: int) -> None:
    """They can be made and are kept; in a container nobody gets anything from them (no_new_privs)."""
    run = ["run", "--rm", "--isolation", wall, *PLAN, "servers"]
    assert servers.cli(*run, "sh", "-c", SET_UID).stdout == f"{uid}\n"
    assert servers.cli(*run, "python3", "-c", CAPABLE).stdout == f"{code}\n"


POSTGRES = """
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
$bin/initdb -D /var/lib/postgresql/data > /dev/null
exec $bin/postgres -D /var/lib/postgresql/data -k /tmp
"""


def test_postgresql(runtimes: Daemon) -> None:
    check = ("--health-cmd", "pg_isready", "--health-interval", "0.2")
    run = ["run", "-d", "--name", "base", "-u", "postgres", "-e", "PGHOST=/tmp", "--stop-signal", "INT", *check, *PLAN]
    runtimes.cli(*run, "runtimes", "sh", "-c", POSTGRES)
    until("it takes connections", lambda: runtimes.json("inspect", "base")[0]["health"] == "healthy")
    table = "create table t as select generate_series(1, 100000) n"
    query = "set max_parallel_workers_per_gather = 2; select sum(n) from t"
    runtimes.cli("exec", "base", "psql", "-qc", table)
    assert runtimes.cli("exec", "base", "psql", "-qAtc", query).stdout == "5000050000\n"
    runtimes.cli("stop", "base")
    assert "database system is shut down" in runtimes.cli("logs", "base").stderr
    assert runtimes.cli("wait", "base").stdout == "0\n"


NODE = """
const http = require('http');
const server = http.createServer((q, a) => a.end('served')).listen(8080, () =>
  http.get('http://localhost:8080', a => a.on('data', d => { console.log(String(d)); process.exit(0); })));
"""


@WALLS
def test_node(runtimes: Daemon, wall: str) -> None:
    assert runtimes.cli("run", "--rm", "--isolation", wall, *PLAN, "runtimes", "node", "-e", NODE).stdout == "served\n"


def test_java_finds_the_plan_by_itself(runtimes: Daemon) -> None:
    """What Runtime.maxMemory and availableProcessors say, of a virtual machine with threads of every kind."""
    java = [
        "java",
        "-XX:+UseG1GC",
        "-XX:ParallelGCThreads=2",
        "-XX:MaxRAMPercentage=50",
        "-XshowSettings:all",
        "-version",
    ]
    told = runtimes.cli("run", "--rm", *PLAN, "runtimes", *java).stderr
    assert "Max. Heap Size (Estimated): 256.00M" in told
    assert "Effective CPU Count: 2" in told
    assert "Memory Limit: 512.00M" in told
    smaller = ["--memory", "256M", "--cpus", "1", "--disk", "1G"]
    told = runtimes.cli("run", "--rm", *smaller, "runtimes", *java).stderr
    assert "Max. Heap Size (Estimated): 128.00M" in told
    assert "Effective CPU Count: 1" in told
    make = "keytool -genkeypair -alias a -dname CN=a -keyalg EC -keystore /srv/k -storepass secret && ls /srv/k"
    assert runtimes.cli("run", "--rm", *PLAN, "runtimes", "sh", "-c", make).stdout.endswith("/srv/k\n")


@WALLS
def test_an_image_for_i386(shared_daemon: Daemon, wall: str) -> None:
    with_image(shared_daemon, rootfs_tar("busybox-i386"), "i386")
    assert shared_daemon.json("image", "inspect", "i386")[0]["Architecture"] == "386"
    program = Path("/bin/busybox")
    run = ["run", "--rm", "--isolation", wall, *PLAN, "i386", str(program)]
    assert shared_daemon.cli(*run, "sh", "-c", "echo $((6 * 7))").stdout == "42\n"
    header = shared_daemon.cli(*run, "od", "-An", "-tx1", "-N5", str(program)).stdout
    assert header.split() == ["7f", "45", "4c", "46", "01"], "it is a program of 32 bits"
