"""The trimmed kernel under machines: it has what programs and systems look for.

`scripts/test kernel` builds the kernel and runs these; elsewhere they are left out, since a build takes minutes.
"""

from __future__ import annotations

import json

import pytest

from tests.harness.daemon import Daemon
from tests.harness.images import rootfs_tar
from tests.harness.trimmed import trimmed_layout
from tests.integration import test_applications as applications
from tests.integration.lives import until, with_image

pytestmark = pytest.mark.trimmed_kernel
SIZE = ("--memory", "256M", "--cpus", "1", "--disk", "256M", "--network", "none")
CALLS = {
    "bpf": 321,
    "clone3": 435,
    "epoll_create1": 291,
    "eventfd2": 290,
    "fanotify_init": 300,
    "inotify_init1": 294,
    "io_setup": 206,
    "io_uring_setup": 425,
    "kcmp": 312,
    "keyctl": 250,
    "landlock_create_ruleset": 444,
    "membarrier": 324,
    "memfd_create": 319,
    "mq_open": 240,
    "name_to_handle_at": 303,
    "openat2": 437,
    "pidfd_open": 434,
    "process_vm_readv": 310,
    "rseq": 334,
    "seccomp": 317,
    "semget": 64,
    "set_robust_list": 273,
    "setns": 308,
    "shmget": 29,
    "signalfd4": 289,
    "swapon": 167,
    "timer_create": 222,
    "timerfd_create": 283,
    "unshare": 272,
}
"""System calls that a kernel can be built without, by their numbers on x86-64. set_robust_list stands for futex, which
answers ENOSYS to a command that it does not know."""
ASK = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
missing = []
for name, number in json.loads(%r).items():
    ctypes.set_errno(0)
    # Arguments that no call takes: it answers EINVAL, EFAULT, EBADF or EPERM, or ENOSYS where it is not there.
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6) == -1 and ctypes.get_errno() == 38:
        missing.append(name)
for family in ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"):
    socket.socket(getattr(socket, family), socket.SOCK_DGRAM).close()
spaces = sorted(os.listdir("/proc/self/ns"))
print(json.dumps([missing, spaces, open("/proc/filesystems").read().split(), os.path.exists("/proc/modules")]))
"""


@pytest.fixture
def machines(shared_daemon: Daemon) -> Daemon:
    """A daemon with no other kernel."""
    if "kernel/trim" not in shared_daemon.cli("image", "ls").stdout:
        shared_daemon.cli("image", "import", trimmed_layout(), "kernel/trim:latest")
    return shared_daemon


@pytest.fixture
def servers(machines: Daemon) -> Daemon:
    return with_image(machines, rootfs_tar("servers"), "servers")


@pytest.fixture
def runtimes(machines: Daemon) -> Daemon:
    return with_image(machines, rootfs_tar("runtimes"), "runtimes")


def test_it_is_told_what_a_machine_boots(servers: Daemon) -> None:
    run = ["run", "--rm", "--isolation", "vm", *SIZE]
    assert servers.cli(*run, "servers", "uname", "-r").stdout.endswith("-bulkhead\n")
    servers.cli("run", "-d", "--name", "guest", "--isolation", "vm", *SIZE, "servers", "sleep", "1000")
    kernel = servers.json("inspect", "guest")[0]["kernel"]
    assert kernel["name"].startswith("kernel/trim:")
    assert kernel["release"].endswith("-bulkhead")
    refused = servers.cli("image", "rm", "kernel/trim", check=False)
    assert "guest" in refused.stderr


def test_it_has_what_programs_look_for(servers: Daemon) -> None:
    script = ASK % json.dumps(CALLS)
    said = servers.cli("run", "--rm", "--isolation", "vm", *SIZE, "servers", "python3", "-c", script).stdout
    missing, spaces, systems, modules = json.loads(said)
    assert missing == []
    assert {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} <= set(spaces)
    assert {"ext4", "erofs", "overlay", "tmpfs", "proc", "sysfs", "devtmpfs", "cgroup2", "mqueue"} <= set(systems)
    assert not modules, "it cannot load any"


def test_nginx(servers: Daemon) -> None:
    applications.test_nginx(servers, "vm")


def test_redis(servers: Daemon) -> None:
    applications.test_redis(servers, "vm")


def test_python(servers: Daemon) -> None:
    applications.test_python(servers, "vm")


def test_node(runtimes: Daemon) -> None:
    applications.test_node(runtimes, "vm")


def test_an_image_for_i386(machines: Daemon) -> None:
    applications.test_an_image_for_i386(machines, "vm")


def test_postgresql(runtimes: Daemon) -> None:
    run = ["run", "-d", "--name", "base", "--isolation", "vm", "-u", "postgres", "-e", "PGHOST=/tmp"]
    check = ["--stop-signal", "INT", "--health-cmd", "pg_isready", "--health-interval", "1"]
    runtimes.cli(*run, *check, *applications.PLAN, "runtimes", "sh", "-c", applications.POSTGRES)
    until("it takes connections", lambda: runtimes.json("inspect", "base")[0]["health"] == "healthy")
    query = "select sum(n) from generate_series(1, 1000) n"
    assert runtimes.cli("exec", "base", "psql", "-qAtc", query).stdout == "500500\n"
    runtimes.cli("stop", "base")
    assert "database system is shut down" in runtimes.cli("logs", "base").stderr
