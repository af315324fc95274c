"""What the tests of fleets share: moving, and finding out where an instance is and where it runs."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness.fleet import Host
from tests.harness.namespaces import in_network
from tests.integration.lives import until

LEASE = "8s"
"""Of fleets whose hosts are lost."""


def arriving(host: Host) -> list[str]:
    """Ids of what has come to a host and is no instance."""
    top = host.daemon.config.state_dir / "incoming"
    return [path.name for path in top.iterdir()] if top.exists() else []


def bundles(host: Host) -> list[str]:
    """Ids of what lies among a host's instances, but for templates that are just made."""
    return [path.name for path in host.daemon.config.instances_dir.iterdir() if (path / "spec.json").exists()]


def answering(host: Host) -> list[dict[str, Any]]:
    """The instances that answer, as a host lists them."""
    return [each for each in host.daemon.json("ps", "-a", "--format", "json") if "reason" not in each]


def listed(host: Host) -> dict[str, tuple[str, str]]:
    """Names of all instances that answer with their hosts and states."""
    return {each["spec"]["name"]: (each["host"], each["state"]) for each in answering(host)}


def away(host: Host) -> dict[str, tuple[str, str]]:
    """The same of those that do not answer."""
    found = host.daemon.json("ps", "--format", "json")
    return {each["spec"]["name"]: (each["host"], each["state"]) for each in found if "reason" in each}


def own(host: Host) -> dict[str, str]:
    """What a host has by itself."""
    return {each["spec"]["name"]: each["state"] for each in answering(host) if each["host"] == host.name}


def runs_elsewhere(asked: Host, name: str, *, than: Host) -> str:
    """Wait until it runs on another host; which one."""

    def look() -> str:
        where, state = listed(asked).get(name, ("", ""))
        return where if state == "running" and where != than.name else ""

    return until(f"{name} runs elsewhere", look)


def until_running(hosts: list[Host], name: str, *, but: Host) -> str:
    """Wait until a host says that it runs it itself; which one. `but`: the one that is not asked."""

    def look() -> str:
        found = (host.name for host in hosts if host is not but and own(host).get(name) == "running")
        return next(found, "")

    return until(f"{name} runs elsewhere", look)


def guard_of(host: Host) -> int:
    """The pid of a host's guard; 0 where it has none."""
    directory = str(host.daemon.config.run_dir / "guard")
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and directory.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return int(process.name)
    return 0


def alone(hosts: list[Host], name: str, *, on: str) -> None:
    """Wait until one host has it and no other has anything of it."""

    def look() -> bool:
        sold = {each["name"]: each["instances"] for each in hosts[0].status()["hosts"]}
        found = {host.name: own(host).get(name) for host in hosts}
        bundles = [host.name for host in hosts if list(host.daemon.config.instances_dir.iterdir())]
        only = {host.name: "running" if host.name == on else None for host in hosts}
        return found == only and bundles == [on] and sold == {host.name: int(host.name == on) for host in hosts}

    until(f"{name} is on {on} alone", look)


def homes(host: Host) -> dict[str, str]:
    """Names of all instances with their hosts."""
    return {each["spec"]["name"]: each["host"] for each in answering(host)}


def asked(host: Host, address: str, path: str, context: ssl.SSLContext, headers: str = "") -> str:
    """The first line of the answer to a request of a program on that host."""

    def ask() -> str:
        plain = socket.create_connection((address, 8444), 30)
        with plain, context.wrap_socket(plain, server_hostname=address) as wire:
            wire.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n".encode())
            return wire.recv(4096).decode().partition("\r\n")[0]

    return in_network(f"/proc/{host.daemon.sandbox.pid}/ns/net", ask)


def begin(host: Host, name: str) -> None:
    """A running instance there, which has written something."""
    host.cli("run", "-d", "--host", host.name, "--name", name, "box", "sleep", "1000")
    host.cli("exec", name, "sh", "-c", "echo kept >/kept")


def move(host: Host, name: str, target: Host, *options: str) -> dict[str, Any]:
    """How it went."""
    done = host.daemon.cli("move", name, "--host", target.name, "--format", "json", *options)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def where(hosts: list[Host], name: str) -> str:
    """Wait until one host has it, running, and the other has nothing; which one that is."""

    def agreed() -> str:
        found = {host.name: own(host) for host in hosts}
        there = [host.name for host in hosts if name in found[host.name]]
        runs = [host.name for host in hosts if found[host.name].get(name) == "running"]
        has = [host.name for host in hosts if bundles(host)]
        sold = [each["name"] for each in hosts[0].status()["hosts"] if each["instances"]]
        if there == runs == has == sold and len(there) == 1 and not any(arriving(host) for host in hosts):
            return there[0]
        return ""

    found = until(f"{name} is on one host", agreed)
    for host in hosts:
        for bundle in bundles(host):
            left = {path.name for path in (host.daemon.config.instances_dir / bundle).iterdir()}
            assert not {"leaving.json", "parcel.json"} & left
    return found


class Slow:
    """A move that goes on while the test does something: about a mebibyte a second."""

    def __init__(self, host: Host, name: str, target: str, *options: str, rate: str = "1M") -> None:
        argv = [*host.daemon.cli("ps").args[:1], "move", name, "--host", target, "--rate", rate, *options]
        # What runs in the background of a shell is started with INT ignored, and so is what it starts.
        argv = ["env", "--default-signal=INT", *argv]
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=host.daemon.environment(), text=True
        )

    def interrupt(self) -> None:
        """As Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def end(self) -> str:
        """What it has said, once it has ended."""
        return self._process.communicate(timeout=400)[0]
