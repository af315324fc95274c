"""Whether a host will do for an instance: one rule after the other, and why not, in words with figures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bulkhead.amounts import shown
from bulkhead.cluster.snapshot import HostView, Snapshot, Term, Wanted


class Rule(StrEnum):
    """In the order in which they are told; the first that is broken is the one that a summary counts."""

    STATE = "state"
    PINNED = "pinned"
    REFUSED = "refused"
    ARCHITECTURE = "architecture"
    LEVEL = "level"
    BASELINE = "baseline"
    LABELS = "labels"
    CORES = "cores"
    SPEED = "speed"
    MEMORY = "memory"
    CPU = "cpu"
    DISK = "disk"
    BANDWIDTH = "bandwidth"
    IOPS = "iops"
    DISK_BPS = "disk_bps"
    TENANTS = "tenants"
    KERNEL = "kernel"
    NEAR = "near"
    AWAY = "away"
    SPARE = "spare"


IN_WORDS = {
    Rule.STATE: "the host takes nothing new",
    Rule.PINNED: "another host was asked for",
    Rule.REFUSED: "the host refused to make it",
    Rule.ARCHITECTURE: "another architecture",
    Rule.LEVEL: "the level does not work there",
    Rule.BASELINE: "VMs cannot have the processor there",
    Rule.LABELS: "labels are not those that are required",
    Rule.CORES: "too few cores",
    Rule.SPEED: "cores are too slow",
    Rule.MEMORY: "not enough memory left",
    Rule.CPU: "not enough GHz left",
    Rule.DISK: "not enough disk left",
    Rule.BANDWIDTH: "not enough bandwidth left",
    Rule.IOPS: "not enough disk operations left",
    Rule.DISK_BPS: "not enough disk throughput left",
    Rule.TENANTS: "a tenant has the host for itself",
    Rule.KERNEL: "the kernel would be shared with another tenant",
    Rule.NEAR: "what it must be near to is not there",
    Rule.AWAY: "what it must be away from is there",
    Rule.SPARE: "the loss of one host would not be covered",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that is broken."""

    rule: Rule
    what: str
    hint: str = ""


def lone_terms(snapshot: Snapshot, wanted: Wanted) -> frozenset[Term]:
    """Hard terms to be near to what it is itself, where nothing of the kind is anywhere yet: the first has to go
    somewhere.
    """
    own = {term for term in wanted.terms if term.hard and not term.away and term.matches(wanted)}
    if not own:
        return frozenset()
    for host in snapshot.hosts:
        for placed in host.instances:
            other = placed.wanted
            if other.tenant == wanted.tenant and other.id != wanted.id:
                own -= {term for term in own if term.matches(other)}
    return frozenset(own)


def check(host: HostView, wanted: Wanted, lone: frozenset[Term] = frozenset()) -> tuple[Reason, ...]:
    """Every rule that placing it there would break, in the order of `Rule`; not the reserve, which is the fleet's."""
    return (*_host(host, wanted), *_room(host, wanted), *_tenants(host, wanted), *_affinity(host, wanted, lone))


def _host(host: HostView, wanted: Wanted) -> Iterator[Reason]:
    if host.state != "ready":
        hint = f"bulkhead host undrain {host.name}" if host.state == "draining" else ""
        yield Reason(Rule.STATE, f"{host.name} is {host.state}", hint)
    if wanted.host and wanted.host not in (host.id, host.name):
        yield Reason(Rule.PINNED, f"--host {wanted.host} was asked for", "leave out --host")
    if host.id in wanted.avoid:
        yield Reason(Rule.REFUSED, f"{host.name} refused to make it a moment ago")
    if wanted.architecture != host.architecture:
        what = f"the image is for {wanted.architecture}, {host.name} is {host.architecture}"
        yield Reason(Rule.ARCHITECTURE, what, f"an image for {host.architecture}")
    able = host.abilities.get(wanted.level)
    if able is None or not able.works:
        why = able.reason if able else "nothing is known of it"
        yield Reason(Rule.LEVEL, f"{wanted.level} does not work on {host.name}: {why}", able.hint if able else "")
    if wanted.cpu_model and wanted.cpu_model not in host.cpu_models:
        what = f"{host.name} cannot run the processor {wanted.cpu_model} whole, which its VMs would have"
        hint = "bulkhead cluster set --cpu-baseline with one that all hosts have: see bulkhead host ls --format json"
        yield Reason(Rule.BASELINE, what, hint)
    missing = [label for label in wanted.requires if not label.holds(host.labels)]
    if missing:
        told = ", ".join(map(str, missing))
        yield Reason(Rule.LABELS, f"{host.name} is not labelled {told}", f"bulkhead host label {host.name} ...")


def _room(host: HostView, wanted: Wanted) -> Iterator[Reason]:
    need, speed = wanted.need, host.speed
    if need.widest > speed.cores:
        what = f"cpus {need.widest:g} is more than the {speed.cores} cores of {host.name}"
        yield Reason(Rule.CORES, what, f"at most --cpus {speed.cores}")
    if need.core_khz > speed.core:
        what = f"ghz {need.core_khz / 1e6:.4g} is faster than the cores of {host.name} ({shown('cpu', speed.core)})"
        yield Reason(Rule.SPEED, what, f"at most --ghz {speed.core / 1e6:.4g}")
    takes = need.on(speed)
    for name in host.has.lacking(takes, host.sold):
        yield Reason(Rule(name), host.has.shortage(name, takes, host.sold), "another host, or a smaller plan")


def _tenants(host: HostView, wanted: Wanted) -> Iterator[Reason]:
    others = [placed.wanted for placed in host.instances if placed.wanted.tenant != wanted.tenant]
    owner = next((other.tenant for other in others if other.dedicated), "")
    if owner:
        yield Reason(Rule.TENANTS, f"{host.name} is for tenant {owner} alone", "another host")
    elif wanted.dedicated and others:
        what = f"tenant {wanted.tenant} is to be alone, and {others[0].tenant} is on {host.name}"
        yield Reason(Rule.TENANTS, what, "an empty host")
    if not wanted.on_host_kernel:
        return
    hint = "--isolation vm has a kernel of its own"
    sharing = [other for other in others if other.on_host_kernel]
    foreign = next((other for other in sharing if not other.trusted), None)
    if foreign:
        what = f"the kernel of {host.name} runs a {foreign.level} of a tenant that is not trusted"
        yield Reason(Rule.KERNEL, what, hint)
    elif sharing and not wanted.trusted:
        what = f"a {wanted.level} that is not trusted would share the kernel of {host.name} with other tenants'"
        yield Reason(Rule.KERNEL, what, hint)


def _affinity(host: HostView, wanted: Wanted, lone: frozenset[Term]) -> Iterator[Reason]:
    here = neighbours(host, wanted)
    hard = [term for term in wanted.terms if term.hard]
    far = [term for term in hard if not term.away and term not in lone and not any(map(term.matches, here))]
    if far:
        yield Reason(Rule.NEAR, f"{', '.join(map(str, far))} is not on {host.name}", "start that first, or a soft term")
    close = [f"{term} is on {host.name}" for term in hard if term.away and any(map(term.matches, here))]
    close += [
        f"{other.name} on {host.name} is to be away from {term}"
        for other in here
        for term in other.terms
        if term.hard and term.away and term.matches(wanted)
    ]
    if close:
        yield Reason(Rule.AWAY, "; ".join(dict.fromkeys(close)), "another host, or a soft term")


def neighbours(host: HostView, wanted: Wanted) -> list[Wanted]:
    """The other instances of its tenant on a host."""
    found = [placed.wanted for placed in host.instances]
    return [other for other in found if other.tenant == wanted.tenant and other.id != wanted.id]
