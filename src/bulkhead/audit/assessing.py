"""Everything that was gathered about an instance, made one report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bulkhead.audit import calls, exploits, score
from bulkhead.audit.calls import Reached, Surface
from bulkhead.audit.exploits import Ground
from bulkhead.audit.facts import Look
from bulkhead.audit.findings import Evidence, Targets, find
from bulkhead.audit.outside import Process
from bulkhead.audit.report import AuditReport, CallReport, ExploitReport, Side

_INCOMPLETE = "the probe's report is incomplete: it was disturbed, so there is no score"
_NO_FILTER = 0


@dataclass(frozen=True, slots=True)
class Gathered:
    """What an audit has to go by."""

    instance: str
    level: str
    image: str
    host_kernel: str
    when: float
    inside: str = ""
    looks: Mapping[str, Look] = field(default_factory=dict)
    """By who looked: "root", "workload" where that is another."""
    process: Process | None = None
    hypervisor: Process | None = None
    reference: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    targets: Targets = field(default_factory=Targets)
    notes: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every look is whole."""
        return all(look.complete for look in self.looks.values())

    @property
    def root(self) -> Look | None:
        """What root inside has found: whoever has an instance can become that."""
        return self.looks.get("root")

    @property
    def side(self) -> Side:
        """Whose kernel the probe has looked at."""
        return "host" if self.process else "guest"


def assess(gathered: Gathered) -> AuditReport:
    """The report."""
    surfaces = {who: _surfaces(gathered, look) for who, look in gathered.looks.items()}
    root = gathered.root
    evidence = Evidence(
        level=gathered.level,
        side=gathered.side,
        look=root,
        process=gathered.process,
        hypervisor=gathered.hypervisor,
        surfaces=surfaces.get("root", ()),
        targets=gathered.targets,
    )
    findings = tuple(find(evidence))
    deductions = score.deductions(findings)
    kernel = root.probed.kernel if root and root.probed else gathered.host_kernel
    return AuditReport(
        instance=gathered.instance,
        level=gathered.level,
        inside=gathered.inside,
        image=gathered.image,
        kernel=kernel,
        host_kernel=gathered.host_kernel,
        when=gathered.when,
        score=score.score(deductions) if gathered.complete else None,
        deductions=deductions,
        findings=findings,
        raises=score.raises(findings),
        calls=tuple(_call_reports(surfaces)),
        exploits=_exploits(gathered, surfaces.get("root", ())),
        process=gathered.process,
        hypervisor=gathered.hypervisor,
        probed=bool(gathered.looks),
        complete=gathered.complete,
        notes=(*gathered.notes, *(() if gathered.complete else (_INCOMPLETE,))),
    )


def _surfaces(gathered: Gathered, look: Look) -> tuple[Surface, ...]:
    """Calls by how far they got. The host's word on whether there is a filter counts more than the probe's."""
    claimed = look.status.seccomp if look.status else _NO_FILTER
    filtered = bool(gathered.process.seccomp if gathered.process else claimed)
    return calls.surfaces(look.calls, gathered.reference, filtered=filtered)


def _call_reports(surfaces: Mapping[str, Sequence[Surface]]) -> Iterator[CallReport]:
    for who, found in surfaces.items():
        for surface in found:
            yield CallReport(
                user="root" if who == "root" else "workload",
                abi=surface.abi,
                counts=surface.counts(),
                reachable=surface.named(Reached.REACHABLE),
                guarded=surface.named(Reached.GUARDED),
                filtered=surface.named(Reached.FILTERED),
                untried=surface.named(Reached.UNTRIED),
            )


def _exploits(gathered: Gathered, surfaces: Sequence[Surface]) -> tuple[ExploitReport, ...]:
    look = gathered.root
    if look is None:
        return ()
    effective = look.status.effective if look.status else 0
    own = gathered.process.bounding if gathered.process else tuple(_names(effective))
    no_new_privs = gathered.process.no_new_privs if gathered.process else bool(look.status and look.status.no_new_privs)
    ground = Ground(look=look, surfaces=surfaces, capabilities=frozenset(own), no_new_privs=no_new_privs)
    version = exploits.kernel_version(look.probed.kernel, look.probed.build) if look.probed else None
    return exploits.judge(ground, version)


def _names(mask: int) -> Iterator[str]:
    """The few capabilities that exploits need."""
    for bit, name in ((12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (21, "CAP_SYS_ADMIN")):
        if mask >> bit & 1:
            yield name
