"""The demo of a fleet: three hosts on one machine, each a network namespace with a daemon of its own, and a real etcd.

    scripts/demo --fleet [--wall container]

A client asks a web server all the time while its host is drained, and while a host is lost. Uses the command line
alone, as a user would; the hosts are those of the tests' harness. Nothing is left of it, also after Ctrl-C.
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

from demo_client import Client, Silence
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

from bulkhead.host import syscalls
from tests.harness.fleet import Fleet, Host
from tests.harness.images import busybox_tar
from tests.harness.kernels import kernel_layout

PORT = 8080
PAGE = "mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www"
PLAN = ("--memory", "96M", "--cpus", "1", "--disk", "64M")
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
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=host.daemon.environment()
    )
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


def named(fleet: Fleet, name: str) -> Host:
    """The host of this name."""
    return next(host for host in fleet.hosts if host.name == name)


def wait_until(host: Host, name: str, alive: bool) -> float:
    """Seconds until a host is heard of, or not any more, as another one sees it."""
    began = time.monotonic()
    while {each["name"]: each["alive"] for each in host.status().get("hosts", [])}.get(name) is not alive:
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"{name} is not {'heard of' if alive else 'missed'} after {PATIENCE:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - began


def tell(silence: Silence) -> None:
    """What the client saw."""
    console.print(f"[green]client[/]  {silence}")


# --- the story


def form(fleet: Fleet) -> None:
    """One after the other they become a fleet."""
    chapter("Three hosts, and an etcd of three members")
    alpha, *others = fleet.hosts
    etcd = fleet.coordinates()
    first = ("cluster", "init", *etcd, "--address", alpha.address, "--name", alpha.name, "lab")
    type_in(alpha, *first)
    for host in others:
        token = type_in(alpha, "cluster", "invite").strip()
        join = ("cluster", "join", "--address", host.address, "--name", host.name)
        type_in(host, *join, token, shown=" ".join((*join, _short(token))))
    for host in fleet.hosts:
        wait_until(alpha, host.name, alive=True)
    type_in(alpha, "cluster", "set", "--policy", "spread")
    type_in(alpha, "host", "ls")


def place(fleet: Fleet, wall: str, tar: Path) -> None:
    """Instances, each where the fleet's policy says."""
    chapter("What runs, and where: the fleet chooses")
    alpha, beta, gamma = fleet.hosts
    type_in(alpha, "image", "import", str(tar), "box", shown="image import busybox.tar box")
    if wall == "vm":
        for host in fleet.hosts:  # a kernel is each host's own
            host.cli("image", "import", str(kernel_layout()), "kernel/debian:latest")
        say("A machine's first start on a host boots its kernel; that is kept for all later ones.")
    web = ("run", "-d", "--name", "web", "--isolation", wall, "-p", f"{PORT}:80", "--stop-signal", "KILL", *PLAN)
    web = (*web, "box", "sh", "-c", PAGE)
    type_in(alpha, *web, shown=" ".join((*web[:-1], "'mkdir /www ...; exec httpd -f -p 80 -h /www'")))
    for host, name in ((beta, "db"), (gamma, "cache"), (alpha, "job")):
        type_in(host, "run", "-d", "--name", name, *PLAN, "box", "sleep", "100000")
    say("Whichever host is asked, all of them are there:")
    type_in(gamma, "ps")


def drain(fleet: Fleet, client: Client) -> None:
    """Everything off the host that has the web server."""
    source = where(fleet.hosts[0])["web"]
    chapter(f"{source} is drained, while a client asks its web server every 10 ms")
    client.await_answer()
    time.sleep(2)
    tell(client.take())
    other = next(host for host in fleet.hosts if host.name != source)
    type_in(other, "host", "drain", source)
    client.await_answer()
    time.sleep(2)
    tell(client.take())
    type_in(other, "ps")
    type_in(other, "host", "undrain", source)


def lose(fleet: Fleet, client: Client) -> None:
    """The host that has the web server by now is gone, with all that ran there."""
    lost = named(fleet, where(fleet.hosts[0])["web"])
    chapter(f"The power of {lost.name} fails")
    client.await_answer()
    client.take()
    lost.unplug()
    lost.daemon.close()
    others = [host for host in fleet.hosts if host is not lost]
    fleet.hosts[:] = others
    say(f"Its lease runs out: it was missed after {wait_until(others[0], lost.name, alive=False):.1f} s.")
    type_in(others[0], "host", "ls")
    type_in(others[1], "ps", check=False)
    say("What ran on the others runs on, and they take what is new:")
    type_in(others[1], "run", "-d", "--name", "more", *PLAN, "box", "sleep", "100000")


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
        place(fleet, wall, busybox_tar(Path(directory) / "busybox.tar"))
        with Client(fleet.switch.pid, {host.name: host.address for host in fleet.hosts}, PORT) as client:
            drain(fleet, client)
            lose(fleet, client)
        console.print()


def _end(*_: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        sys.exit(130)
