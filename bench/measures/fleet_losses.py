"""A host is lost at once, as by its power: how long until what ran on it answers elsewhere."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import partial

from bench.contest import Cast, Sizes, say
from bench.figures import Figure
from bench.measures.fleet import own_names
from bench.measures.fleet_moves import PORT, RUN, SERVE, asking, has_answered, wait
from bench.timing import Unusable
from bulkhead.engine.fleet.losing import GRACE_SECONDS
from bulkhead.host import cgroups
from tests.harness import images
from tests.harness.fleet import Fleet, Host
from tests.integration.passages import guard_of, listed, runs_elsewhere

LEASES = (3, 10)
"""Seconds."""


def measure(cast: Cast, sizes: Sizes) -> Figure:
    """Three hosts, and a container with a published port that is to run whichever of them is lost."""
    figure = Figure(
        "fleet-losses",
        "Loss of a host",
        "Three hosts, namespaces of this machine, and etcd. A container that serves pages on a published port "
        "(`--on-host-loss recreate`). Its host's link is cut and its daemon, its guard and all that it runs are killed "
        "at once, by SIGKILL; `answers elsewhere`: from the first of these until a client that asks all hosts every "
        "millisecond is answered by another one. The others hold a host for lost once they have not heard of it for "
        f"the lease and {GRACE_SECONDS:g} s of grace, and hear of it until its entry in etcd has ended, which is two "
        "thirds of a lease to a whole one after its end. `over lease + grace`: what is more than these two alone.",
    )
    quick = sizes.runs <= 5
    with own_names(cast):
        for lease in LEASES[:1] if quick else LEASES:
            _lose(figure, cast, lease, 2 if quick else 10)
    return figure


def _lose(figure: Figure, cast: Cast, lease: int, times: int) -> None:
    say(f"a host is lost, with a lease of {lease} s")
    tar = images.busybox_tar(cast.scene.directory("fleet") / "busybox.tar")
    took = []
    with Fleet(3, tls=False) as fleet:
        fleet.begin("--lease", f"{lease}s")
        fleet.wait_for_all()
        hosts = {host.name: host for host in fleet.hosts}
        first, *others = fleet.hosts
        first.cli("image", "import", str(tar), "box")
        for host in others:
            host.cli("run", "--rm", "--host", host.name, "box", "true")
        words = ("--host", first.name, "--on-host-loss", "recreate", "--name", "served", "-p", f"{PORT}:80")
        first.cli(*RUN, *words, "--disk", "64M", "box", "sh", "-c", SERVE)
        source = first
        for _ in range(times):
            seconds, source = _once(fleet, hosts, source)
            took.append(seconds)
        source.cli("rm", "-f", "served")
        if left := fleet.leaked():
            raise Unusable(f"the fleet left behind: {left}")
    label = f"lease of {lease} s: answers elsewhere"
    figure.add("bulkhead", label, took, unit="s")
    figure.add(
        "bulkhead", f"lease of {lease} s: over lease + grace", [one - lease - GRACE_SECONDS for one in took], unit="s"
    )


def _once(fleet: Fleet, hosts: dict[str, Host], source: Host) -> tuple[float, Host]:
    """Seconds, and where it is then; the lost host is back."""
    asked = next(host for host in fleet.hosts if host is not source)
    others = [host.address for host in fleet.hosts if host is not source]
    with asking(fleet, [host.address for host in fleet.hosts]) as answers:
        began = time.perf_counter()
        _lost(source)
        wait(lambda: any(has_answered(answers, address, began) for address in others))
    came = min(when for when, who in answers if who in others and when > began)
    target = hosts[runs_elsewhere(asked, "served", than=source)]
    source.mend()
    source.daemon.start()
    fleet.wait_for_all()
    wait(partial(_is_alone, fleet, source, target))
    return came - began, target


def _lost(host: Host) -> None:
    host.cut()
    guard, layout = guard_of(host), cgroups.detect()
    if guard:
        os.kill(guard, signal.SIGKILL)
    host.daemon.kill9()
    for pid in cgroups.processes(layout, host.daemon.config.cgroup):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_alone(fleet: Fleet, source: Host, target: Host) -> bool:
    left = list(source.daemon.config.instances_dir.iterdir())
    return not left and listed(fleet.hosts[0]).get("served") == (target.name, "running")
