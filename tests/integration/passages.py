"""What the tests of moves between hosts share: moving, and finding out where an instance is."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

from tests.harness.fleet import Host
from tests.integration.lives import until


def arriving(host: Host) -> list[str]:
    """Ids of what has come to a host and is no instance."""
    top = host.daemon.config.state_dir / "incoming"
    return [path.name for path in top.iterdir()] if top.exists() else []


def bundles(host: Host) -> list[str]:
    """Ids of what lies among a host's instances, but for templates that are just made."""
    return [path.name for path in host.daemon.config.instances_dir.iterdir() if (path / "spec.json").exists()]


def listed(host: Host) -> dict[str, tuple[str, str]]:
    """Names of all instances with their hosts and states."""
    found = host.daemon.json("ps", "-a", "--format", "json")
    return {each["spec"]["name"]: (each["host"], each["state"]) for each in found}


def move(host: Host, name: str, target: Host, *options: str) -> dict[str, Any]:
    """How it went."""
    done = host.daemon.cli("move", name, "--host", target.name, "--format", "json", *options)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def where(hosts: list[Host], name: str) -> str:
    """Wait until one host has it, running, and the other has nothing; which one that is."""

    def agreed() -> str:
        own = [
            {
                each["spec"]["name"]: each["state"]
                for each in host.daemon.json("ps", "-a", "--format", "json")
                if each["host"] == host.name
            }
            for host in hosts
        ]
        there = [host.name for host, found in zip(hosts, own, strict=True) if name in found]
        runs = [host.name for host, found in zip(hosts, own, strict=True) if found.get(name) == "running"]
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
