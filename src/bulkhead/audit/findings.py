"""From facts to findings, by the rules."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bulkhead.audit import rules
from bulkhead.audit.calls import Reached, Surface
from bulkhead.audit.facts import Look
from bulkhead.audit.outside import Process
from bulkhead.audit.report import Finding, Group, Side
from bulkhead.audit.rules import Rule

MOST_NAMED = 6
"""Examples that a finding's detail names."""
_NOT_TRIED, _SIGNAL = 3000, 1000
_REFUSED = (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.ESOCKTNOSUPPORT)
_STRICTER = "put it in a container: --isolation container"
_OWN_KERNEL = "give it a kernel of its own: --isolation vm"


@dataclass(frozen=True, slots=True)
class Targets:
    """Addresses that were tried, by whose they are."""

    same: frozenset[str] = frozenset()
    """Instances of its own network."""
    others: frozenset[str] = frozenset()
    """Instances of other networks of its tenant."""
    tenants: frozenset[str] = frozenset()
    """Instances of other tenants."""
    host: frozenset[str] = frozenset()

    def all(self) -> list[str]:
        """Each once, those of others first."""
        return [*sorted(self.tenants), *sorted(self.others), *sorted(self.same), *sorted(self.host)]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of an instance. `side`: whose kernel the probe has looked at."""

    level: str
    side: Side
    look: Look | None = None
    """As root inside."""
    process: Process | None = None
    """The workload's, where it runs on the host's kernel."""
    hypervisor: Process | None = None
    surfaces: Sequence[Surface] = ()
    targets: Targets = field(default_factory=Targets)

    @property
    def has_own_users(self) -> bool:
        """Whether capabilities count in a user namespace of the instance's own."""
        return self.process is not None and self.process.has_own_users

    @property
    def hint(self) -> str:
        """Which level would close what this one leaves open."""
        return _STRICTER if self.level == "chroot" else _OWN_KERNEL


def find(evidence: Evidence) -> list[Finding]:
    """Every finding, those that cost the most first."""
    found = [_wall(evidence)]
    if evidence.process:
        found += _of_process(evidence.process, "host", evidence.hint)
    if evidence.hypervisor:
        found += _of_process(evidence.hypervisor, "hypervisor", "")
    if evidence.look:
        for part in (_features, _surface, _interfaces, _devices, _network):
            found += list(part(evidence, evidence.look))
    return sorted(found, key=lambda finding: (-finding.weight, finding.side, finding.rule))


def _wall(evidence: Evidence) -> Finding:
    if evidence.hypervisor:
        title = "QEMU's devices, and the processor's caches and memory bus, are between it and the host"
        return Finding(rule="hypervisor", group="wall", side="hypervisor", weight=rules.HYPERVISOR, title=title)
    title = "the host's kernel is its kernel: a flaw in any call that is left is a way to the host"
    hint = _OWN_KERNEL
    return Finding(rule="kernel", group="wall", side="host", weight=rules.SHARED_KERNEL, title=title, hint=hint)


def _finding(
    rule: Rule, name: str, group: Group, side: Side, *, own: bool = False, detail: str = "", hint: str = ""
) -> Finding:
    """What counts at a hypervisor counts a quarter, and what a guest's own kernel lets be costs nothing."""
    factor = {"host": 1.0, "hypervisor": rules.BEHIND_HYPERVISOR, "guest": 0.0}[side]
    weight = round(rule.cost(has_own_users=own) * factor, 3)
    hint = (rule.hint or hint) if weight else ""
    return Finding(rule=name, group=group, side=side, weight=weight, title=rule.title, detail=detail, hint=hint)


def _of_process(process: Process, side: Side, hint: str) -> Iterator[Finding]:
    own = process.has_own_users
    for kind in process.shared:
        if kind == "user" and process.root_uid not in (0, None):
            continue
        yield _finding(rules.NAMESPACES[kind], f"namespace-{kind}", "namespaces", side, hint=hint)
    for name in process.bounding:
        if name in rules.CAPABILITIES:
            rule = rules.CAPABILITIES[name]
            if rule.cost(has_own_users=own):
                detail = f"{name}, in {'a user namespace of its own' if own else 'the host'}"
                yield _finding(rule, name.lower(), "privileges", side, own=own, detail=detail, hint=hint)
    if process.seccomp == 0:
        yield _finding(rules.NO_FILTER, "no-filter", "privileges", side, hint=hint)
    if not process.no_new_privs:
        yield _finding(rules.NEW_PRIVILEGES, "new-privileges", "privileges", side, own=own, hint=hint)
    if process.ambient:
        yield _finding(rules.AMBIENT, "ambient", "privileges", side, detail=", ".join(process.ambient), hint=hint)
    for path in process.host_paths:
        rule = rules.HOST_PATH_READ if path.read_only else rules.HOST_PATH
        yield _finding(rule, f"host-path {path.target}", "files", side, detail=f"{path.source} at {path.target}")


def _features(evidence: Evidence, look: Look) -> Iterator[Finding]:
    own, side, hint = evidence.has_own_users, evidence.side, evidence.hint
    for name, attempts, rule in rules.FEATURES:
        done = [attempt for attempt in attempts if look.attempts.get(attempt) == 0]
        if done:
            yield _finding(rule, name, "kernel", side, own=own, detail=f"tried: {', '.join(done)}", hint=hint)
    for name, attempt, rule in rules.GRANTED:
        result = look.attempts.get(attempt, _NOT_TRIED)
        if result not in _REFUSED and result < _SIGNAL:
            yield _finding(rule, name, "kernel", side, own=own, detail=f"tried: {attempt}", hint=hint)


def _surface(evidence: Evidence, look: Look) -> Iterator[Finding]:
    side, hint = evidence.side, evidence.hint
    names = [surface.named(Reached.REACHABLE) for surface in evidence.surfaces]
    reached = len({name for each in names for name in each})
    if reached:
        rule = Rule(max(0.0, (reached - rules.WIDE) / 20), f"{reached} system calls reach the kernel")
        yield _finding(rule, "calls", "kernel", side, hint=hint)
    if any(surface.abi == "i386" and surface.named(Reached.REACHABLE) for surface in evidence.surfaces):
        yield _finding(rules.COMPAT, "i386", "kernel", side)
    exotic = {
        family
        for abi in look.families
        for family in range(len(look.families[abi]))
        if look.passes(family, abi) and family not in rules.USUAL_FAMILIES
    }
    if exotic:
        yield _finding(rules.FAMILIES, "families", "kernel", side, detail=_families(exotic, look), hint=hint)


def _families(families: set[int], look: Look) -> str:
    named = [rules.FAMILY_NAMES[family] for family in sorted(families) if family in rules.FAMILY_NAMES]
    by = [abi for abi in look.families if any(look.passes(family, abi) for family in families)]
    return f"{', '.join(named[:MOST_NAMED])}{', ...' if len(named) > MOST_NAMED else ''} (by {', '.join(by)})"


def _interfaces(evidence: Evidence, look: Look) -> Iterator[Finding]:
    side, hint = evidence.side, evidence.hint
    for path, rule in rules.TRIGGERS.items():
        interface = look.interfaces.get(path)
        if interface and interface.write == 0:
            yield _finding(rule, f"write {path}", "files", side, detail=path, hint=hint)
    for path, rule in rules.TELLING.items():
        interface = look.interfaces.get(path)
        if interface and interface.telling:
            yield _finding(rule, f"read {path}", "files", side, detail=path, hint=hint)
    agents = [path for path in look.writable if path.endswith("/release_agent")]
    if agents:
        yield _finding(rules.RELEASE_AGENT, "release-agent", "files", side, detail=agents[0], hint=hint)
    settings = [path for path in look.writable if path.startswith("/proc/") and _is_hosts(path, evidence)]
    if settings:
        yield _finding(rules.SYSCTLS, "sysctl", "files", side, detail=_examples(settings), hint=hint)
    files = [path for path in look.writable if path.startswith("/sys/") and not path.startswith("/sys/fs/cgroup/")]
    if files:
        yield _finding(rules.SYSFS, "sysfs", "files", side, detail=_examples(files), hint=hint)


def _is_hosts(path: str, evidence: Evidence) -> bool:
    """Whether a setting is the host's, not one of a namespace of the instance's own."""
    shared = evidence.process.shared if evidence.process else ()
    return not path.startswith(rules.OWN_SETTINGS) or "net" in shared


def _examples(paths: Sequence[str]) -> str:
    return ", ".join(paths[:MOST_NAMED]) + (f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else "")


def _devices(evidence: Evidence, look: Look) -> Iterator[Finding]:
    side, hint = evidence.side, evidence.hint
    others = []
    for device in look.devices:
        number = (device.major, device.minor)
        if device.result != 0 or number in rules.HARMLESS or device.major == 136:
            continue
        if device.kind == "b":
            yield _finding(rules.BLOCK_DEVICE, f"device {device.path}", "devices", side, detail=device.path, hint=hint)
        elif number in rules.DEVICES:
            rule = rules.DEVICES[number]
            yield _finding(rule, f"device {device.path}", "devices", side, detail=device.path, hint=hint)
        else:
            others.append(device.path)
    if others:
        yield _finding(rules.OTHER_DEVICE, "devices", "devices", side, detail=_examples(others), hint=hint)
    if any(node.opened == 0 for node in look.nodes if node.kind == "b"):
        yield _finding(rules.NODE_OPENED, "node-opened", "devices", side, detail="a disk's", hint=hint)
    elif any(node.made == 0 for node in look.nodes):
        yield _finding(rules.NODE_MADE, "node-made", "devices", side, detail="null's", hint=hint)


def _network(evidence: Evidence, look: Look) -> Iterator[Finding]:
    """A network is what the host has made of it, whosever kernel sends: it counts at every level."""
    answered = {reach.address for reach in look.reached if reach.answer in ("open", "echo", "refused")}
    answered |= set(look.neighbours)
    side: Side = "host"
    groups: Mapping[str, tuple[frozenset[str], Rule]] = {
        "reaches-tenants": (evidence.targets.tenants, rules.REACHES_TENANTS),
        "reaches-others": (evidence.targets.others, rules.REACHES_OTHERS),
        "reaches-network": (evidence.targets.same, rules.REACHES_SAME),
        "reaches-host": (evidence.targets.host, rules.REACHES_HOST),
    }
    for name, (addresses, rule) in groups.items():
        reached = sorted(answered & addresses)
        if reached:
            yield _finding(rule, name, "network", side, detail=_examples(reached))
