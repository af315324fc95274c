"""The demo of a fleet: three hosts on one machine, each a network namespace with a daemon of its own, and a real etcd.

    scripts/demo --fleet [--wall container]

A redis in a VM is written to all the time while its host is drained, a web server is asked all the time while its host
is lost. Uses the command line alone, as a user would; the hosts are those of the tests' harness. Nothing is left of it,
also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from demo_client import Client, Silence, Writer, Written
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from bulkhead.host import syscalls
from tests.harness.fleet import Fleet, Host
from tests.harness.images import busybox_tar, rootfs_tar
from tests.harness.kernels import kernel_layout

PORT = 8080
PAGE = "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www"
PLAN = ("--memory", "64M", "--cpus", "1", "--disk", "64M")
LARGE = ("--memory", "192M", "--cpus", "1", "--disk", "256M")
REDIS = ("redis-server", "--protected-mode", "no", "--dir", "/var/lib/redis", "--save", "")
LEASE = "5s"
PATIENCE = 180.0
console = Console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """What the reader is to look at."""
    console.print(f"[italic]{text}[/]")


def chapter(title: str) -> None:
    """Begin one."""
    console.print()
    console.print(Rule(f"[bold]{title}[/]", align="left", style="cyan"))


def type_in(host: Host, *words: str, shown: str = "", check: bool = True) -> str:
    """Run `bulkhead WORDS` on a host, as it would look in a terminal there; what it printed."""
    console.print(f"[bold cyan]{host.name}[/][bold]# bulkhead {escape(shown or ' '.join(words))}[/]")
    argv = [*host.daemon.cli("version", check=False).args[:1], *words]
    environment = {**host.daemon.environment(), "PYTHONUNBUFFERED": "1"}  # in the order in which it was said
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    said = []
    assert process.stdout
    for line in process.stdout:
        said.append(line)
        console.print(f"[dim]{escape(_short(line.rstrip()))}[/]")
    if process.wait() and check:
        raise SystemExit(f"it failed with {process.returncode}: bulkhead {' '.join(words)}")
    return "".join(said)


def _short(line: str) -> str:
    """A token is long, and nobody's business."""
    return f"{line[:24]}..." if line.startswith("bhj_") else line


def where(host: Host) -> dict[str, str]:
    """Names of all instances with the hosts that they run on, as one host sees it."""
    lines = host.daemon.json("ps", "-a", "--format", "json")
    return {each["spec"]["name"]: each["host"] for each in lines if each["state"] == "running"}


def wait_until(host: Host, name: str, alive: bool) -> float:
    """Seconds until a host is heard of, or not any more, as another one sees it."""
    began = time.monotonic()
    while {each["name"]: each["alive"] for each in host.status().get("hosts", [])}.get(name) is not alive:
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"{name} is not {'heard of' if alive else 'missed'} after {PATIENCE:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - began


def tell(seen: Silence | Written) -> None:
    """What the client saw."""
    console.print(f"[green]client[/]  {seen}")


# --- the story


def form(fleet: Fleet) -> None:
    """One after the other they become a fleet."""
    chapter("Three hosts, and an etcd of three members")
    alpha, *others = fleet.hosts
    etcd = fleet.coordinates()
    first = ("cluster", "init", *etcd, "--address", alpha.address, "--name", alpha.name, "--lease", LEASE, "lab")
    type_in(alpha, *first)
    for host in others:
        token = type_in(alpha, "cluster", "invite").strip()
        join = ("cluster", "join", "--address", host.address, "--name", host.name)
        type_in(host, *join, token, shown=" ".join((*join, _short(token))))
    for host in fleet.hosts:
        wait_until(alpha, host.name, alive=True)
    type_in(alpha, "cluster", "set", "--policy", "spread")
    type_in(alpha, "host", "ls")


def place(fleet: Fleet, wall: str, tars: dict[str, Path]) -> None:
    """What the story needs, and where."""
    chapter("What runs, some of it on a network of all hosts")
    alpha, _, gamma = fleet.hosts
    for image, tar in tars.items():
        type_in(alpha, "image", "import", str(tar), image, shown=f"image import {image}.tar {image}")
    if wall == "vm":
        alpha.cli("image", "import", str(kernel_layout()), "kernel/debian:latest")
        say("A machine's first start on a host boots its kernel; that is kept for all later ones.")
    type_in(alpha, "network", "create", "--fleet", "mesh")
    run = ("run", "-d", "--network", "mesh")
    kept = () if wall == "vm" else ("--appendonly", "yes")  # of a VM the memory goes with it
    type_in(alpha, *run, "--host", "alpha", "--name", "db", "--isolation", wall, *LARGE, "servers", *REDIS, *kept)
    type_in(alpha, *run, "--host", "gamma", "--name", "shop", *PLAN, "box", "sleep", "100000")
    web = ("run", "-d", "--host", "beta", "--name", "web", "-p", f"{PORT}:80", "--on-host-loss", "recreate")
    web = (*web, "--stop-signal", "KILL", *PLAN, "box", "sh", "-c", PAGE)
    type_in(alpha, *web, shown=" ".join((*web[:-1], "'mkdir /www ...; exec httpd -f -p 80 -h /www'")))
    type_in(alpha, "run", "-d", "--host", "beta", "--name", "job", *PLAN, "box", "sleep", "100000")
    say("Whichever host is asked, all of them are there:")
    type_in(gamma, "ps")


def drain(fleet: Fleet, wall: str) -> None:
    """Everything off the host that has the redis, while somebody writes into it."""
    alpha, beta, _ = fleet.hosts
    found = {each["spec"]["name"]: each for each in alpha.daemon.json("ps", "--format", "json")}
    what = "a VM that keeps answering" if wall == "vm" else "a container, which stops for it"
    chapter(f"alpha is drained: {what}. A client in shop writes every 10 ms")
    with Writer(found["shop"]["pid"], found["db"]["address"]["ipv4"]) as writer:
        writer.take()
        time.sleep(2)
        tell(writer.take())
        type_in(beta, "host", "drain", "alpha")
        time.sleep(2)
        tell(writer.take())
    type_in(beta, "ps")
    type_in(beta, "host", "undrain", "alpha")


def lose(fleet: Fleet) -> None:
    """The host that has the web server is gone, with all that ran there."""
    alpha, beta, gamma = fleet.hosts
    chapter("kill -9 of everything on beta, while a client asks its web server every 10 ms")
    with Client(fleet.switch.pid, {host.name: host.address for host in (beta, alpha, gamma)}, PORT) as client:
        client.await_answer()
        client.take()
        time.sleep(1)
        tell(client.take())
        beta.unplug()
        beta.daemon.close()
        fleet.hosts[:] = [alpha, gamma]
        say(f"Its lease runs out: it was missed after {wait_until(alpha, beta.name, alive=False):.1f} s.")
        type_in(alpha, "host", "ls")
        say("web may be started elsewhere (--on-host-loss recreate), once beta counts as lost:")
        began = time.monotonic()
        while where(alpha).get("web") in (None, beta.name):
            if time.monotonic() - began > PATIENCE:
                raise SystemExit(f"web runs nowhere after {PATIENCE:.0f} s")
            time.sleep(0.1)
        client.await_answer()
        tell(client.take())
    type_in(gamma, "ps", "-a", check=False)
    say("job waits for its host, since nothing else was asked for:")
    type_in(alpha, "cluster", "status")


# --- around it


def main() -> None:
    """Tell it."""
    parser = argparse.ArgumentParser(prog="scripts/demo --fleet", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--fleet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--wall", choices=("vm", "container"), default="vm", help="of the web server (vm)")
    wall = parser.parse_args().wall
    if os.geteuid() != 0:
        raise SystemExit("scripts/demo --fleet has to run as root")
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    os.environ.pop("BULKHEAD_CONFIG", None)
    # Whatever is mounted for it is nobody else's.
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as undo:
        undo.callback(say, "Nothing is left of it.")
        directory = undo.enter_context(tempfile.TemporaryDirectory(prefix="bulkhead-demo-"))
        say("Three hosts are made: network namespaces with a daemon each, joined by links to a switch.")
        began = time.monotonic()
        fleet = undo.enter_context(Fleet(3, tls=False))
        # From here on it ends in order, whatever is pressed.
        for number in (signal.SIGINT, signal.SIGTERM):
            undo.callback(signal.signal, number, signal.SIG_IGN)
        say(f"They run after {time.monotonic() - began:.1f} s.")
        form(fleet)
        place(fleet, wall, {"box": busybox_tar(Path(directory) / "busybox.tar"), "servers": rootfs_tar("servers")})
        drain(fleet, wall)
        lose(fleet)
        console.print()


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        sys.exit(130)
