"""Servers and runtimes from Debian packages behind a container's wall: its filter, capabilities and mounts."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from bulkhead import limits
from bulkhead.host import cgroups
from bulkhead.host.facts import facts
from bulkhead.model import Plan
from tests.harness.abilities import require
from tests.harness.images import CACHE, rootfs_tar
from tests.integration.isolation.lab import Lab, Running

ASK = """
import socket, sys, time
for attempt in range(300):
    try:
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        break
    except OSError:
        time.sleep(0.1)
connection.sendall(sys.argv[2].encode().decode("unicode_escape").encode())
connection.settimeout(10)
while data := connection.recv(65536):
    sys.stdout.write(data.decode())
    if len(sys.argv) > 3:
        break
"""


def erofs_of(name: str) -> Path:
    """A root file system as EROFS, as a layer is, made once and kept beside its tar file."""
    tar = rootfs_tar(name)
    image = tar.with_suffix(".erofs")
    with (CACHE / f"{name}.erofs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not image.exists():
            tree = Path(tempfile.mkdtemp(dir=CACHE))
            try:
                subprocess.run(["tar", "-xpf", str(tar), "-C", str(tree), "--xattrs"], check=True)
                subprocess.run(["mkfs.erofs", "-T0", f"{image}.new", str(tree)], check=True, capture_output=True)
                Path(f"{image}.new").rename(image)
            finally:
                shutil.rmtree(tree)
    return image


@pytest.fixture
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of the prepared root file systems, mounted."""
    require("root", "loop devices", "erofs", "mkfs.erofs")
    with ExitStack() as stack:
        target = tmp_path_factory.mktemp("image")
        source = erofs_of(request.param)
        subprocess.run(["mount", "-t", "erofs", "-o", "loop,ro", str(source), str(target)], check=True)
        stack.callback(subprocess.run, ["umount", str(target)], check=True)
        yield target


servers = pytest.mark.parametrize("image", ["servers"], indirect=True)
runtimes = pytest.mark.parametrize("image", ["runtimes"], indirect=True)


def ask(instance: Running, port: int, text: str, *, once: bool = False) -> str:
    """Say something to a TCP port inside, from inside; what it answers."""
    return instance.execute("python3", "-c", ASK, str(port), text, *(["once"] if once else [])).output


@servers
def test_nginx(lab: Lab, image: Path) -> None:
    with lab.running("nginx", "-g", "daemon off;", image=image) as instance:
        answer = ask(instance, 80, r"GET / HTTP/1.0\r\n\r\n")
        users = instance.execute(
            "sh", "-c", "cat /proc/[0-9]*/status | grep -E '^(Name|Uid)' | paste - - | grep nginx"
        ).output
    assert answer.startswith("HTTP/1.1 200 OK")
    assert "nginx" in answer
    assert "\t33\t" in users, "workers have dropped to www-data"


@servers
def test_redis(lab: Lab, image: Path) -> None:
    with lab.running("redis-server", "--dir", "/tmp", image=image, user="redis") as instance:
        assert ask(instance, 6379, r"PING\r\n", once=True) == "+PONG\r\n"
        assert ask(instance, 6379, r"SET a b\r\n", once=True) == "+OK\r\n"
        assert "started" in ask(instance, 6379, r"BGSAVE\r\n", once=True)
        assert "b" in ask(instance, 6379, r"GET a\r\n", once=True)


PYTHON = """
import os, select, socket, threading, time
threads = [threading.Thread(target=time.sleep, args=(0,)) for _ in range(10)]
assert [thread.start() or thread.join() for thread in threads] == [None] * 10
a, b = socket.socketpair(); a.send(b"x"); assert b.recv(1) == b"x"
if os.fork() == 0: os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
assert os.getrandom(8) and os.memfd_create("x") and os.pidfd_open(os.getpid())
s = socket.socket(socket.AF_INET6); s.bind(("::1", 0)); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
e = select.epoll(); e.register(s.fileno())
open("/tmp/b", "w").write("x" * 10)
os.copy_file_range(os.open("/tmp/b", os.O_RDONLY), os.open("/tmp/c", os.O_CREAT | os.O_RDWR), 10)
os.posix_fallocate(os.open("/tmp/d", os.O_CREAT | os.O_RDWR), 0, 4096); os.sync()
print("fine")
"""


@servers
def test_python(lab: Lab, image: Path) -> None:
    assert lab.run("python3", "-c", PYTHON, image=image).lines == ["fine"]


NODE = """
const http = require('http'), { Worker } = require('worker_threads'), { execFileSync } = require('child_process');
const fs = require('fs'), crypto = require('crypto');
fs.writeFileSync('/tmp/x', crypto.randomBytes(1 << 20));
const server = http.createServer((q, a) => a.end('served')).listen(8080, () => {
  http.get('http://127.0.0.1:8080', a => a.on('data', d => {
    new Worker("require('worker_threads').parentPort.postMessage(6 * 7)", { eval: true }).on('message', m => {
      console.log(String(d), m, execFileSync('/bin/echo', ['child']).toString().trim(), fs.statSync('/tmp/x').size);
      server.close(); process.exit(0);
    });
  }));
});
"""


@runtimes
def test_node(lab: Lab, image: Path) -> None:
    assert lab.run("node", "-e", NODE, image=image).lines == ["served 42 child 1048576"]


@runtimes
def test_java(lab: Lab, image: Path) -> None:
    """The virtual machine finds the plan by itself; the key tool uses threads, files and random numbers."""
    layout, plan = cgroups.detect(), Plan(memory=384 << 20, cpus=1, disk=16 << 20)
    bundle = lab.bundle(["java", "-XX:+UseSerialGC", "-XshowSettings:system", "-version"], image=image)
    program = limits.program(
        plan,
        cgroup=lab.config.cgroup,
        instance_id=bundle.spec.id,
        layout=layout,
        facts=facts(lab.config),
        cpuset=(0,),
        device=None,
    )
    bundle = replace(bundle, limits=program)
    done = lab.wait(bundle, lab.driver.start(bundle))
    cgroups.kill_and_remove(layout, lab.config.cgroup, bundle.spec.id)
    cgroups.remove(layout, lab.config.cgroup)
    assert done.code == 0, done.output
    found = dict(line.strip().split(": ") for line in done.lines if line.count(": ") == 1 and not line.endswith(": "))
    assert found["Effective CPU Count"] == "1"
    assert found["Memory Limit"] == "384.00M"
    command = "keytool -genkeypair -alias a -dname CN=a -keyalg EC -keystore /tmp/k -storepass secret && ls /tmp/k"
    made = lab.run("sh", "-c", command, image=image)
    assert (made.code, made.lines[-1]) == (0, "/tmp/k"), made.output


POSTGRES = """
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
$bin/initdb -D /tmp/data >/dev/null
$bin/pg_ctl -D /tmp/data -o '-k /tmp' -w -l /tmp/log start >/dev/null || { cat /tmp/log; exit 1; }
psql -h /tmp -qAt -d postgres -c 'create table t as select generate_series(1, 100000) n' -c 'checkpoint' \
    -c 'set max_parallel_workers_per_gather = 2' -c 'select sum(n) from t'
$bin/pg_ctl -D /tmp/data -m fast stop >/dev/null
"""


@runtimes
def test_postgresql(lab: Lab, image: Path) -> None:
    done = lab.run("sh", "-c", POSTGRES, image=image, user="postgres")
    assert (done.code, done.lines[-1:]) == (0, ["5000050000"]), done.output


@servers
def test_packages_can_be_installed_and_removed(lab: Lab, image: Path) -> None:
    """dpkg as root inside: files of other owners, hard links, renames, triggers."""
    done = lab.run(
        "sh",
        "-c",
        "dpkg --purge --force-all nginx-light && dpkg --audit; dpkg -l | wc -l; ldconfig && echo ok",
        image=image,
    )
    assert done.code == 0, done.output
    assert done.lines[-1] == "ok"
