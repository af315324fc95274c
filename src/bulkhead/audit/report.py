"""What an audit comes to: findings with their weights, the score, system calls, exploits. As the API gives it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from bulkhead.audit.outside import Process

Group = Literal["wall", "namespaces", "privileges", "kernel", "files", "devices", "network"]
Side = Literal["host", "guest", "hypervisor"]
"""Whose kernel a finding is about: the host's, a guest's own (it costs no points), the host's behind a hypervisor."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Part):
    """One thing that can be reached, and what it costs."""

    rule: str
    group: Group
    side: Side
    weight: float
    """Points off 100, before a group's most is applied; 0: told for its own sake."""
    title: str
    detail: str = ""
    hint: str = ""
    """What would raise the score; "" where it is the level itself."""


class CallReport(_Part):
    """System calls of one architecture, tried as one user."""

    user: Literal["root", "workload"]
    abi: str
    counts: dict[str, int]
    reachable: tuple[str, ...]
    guarded: tuple[str, ...]
    filtered: tuple[str, ...]
    untried: tuple[str, ...]


class ExploitReport(_Part):
    """One published exploit: whether the interfaces that it needs are reachable. Never whether it would work."""

    cve: str
    title: str
    reachable: bool
    missing: tuple[str, ...]
    """What it needs and does not find, in words."""
    in_range: bool | None
    """Whether the kernel's version is among those that upstream says are concerned; None: it cannot be told.
    Distributions mend without changing the version."""
    affected: str
    source: str


class Deduction(_Part):
    """What a group costs."""

    group: Group
    points: float
    most: float


class AuditReport(_Part):
    """One instance's audit."""

    instance: str
    level: str
    inside: str = ""
    """The VM that it is in."""
    image: str
    kernel: str
    """The release of the kernel that the probe ran on; the host's where it could not run."""
    host_kernel: str
    when: float
    score: int | None
    """0 to 100; None where the probe's report is incomplete."""
    deductions: tuple[Deduction, ...]
    findings: tuple[Finding, ...]
    raises: tuple[str, ...]
    """What would raise the score, the most first."""
    calls: tuple[CallReport, ...]
    exploits: tuple[ExploitReport, ...]
    process: Process | None
    """The workload's first process as the host sees it; None in a guest."""
    hypervisor: Process | None
    """The hypervisor, where there is one."""
    probed: bool
    """Whether the probe ran inside."""
    complete: bool
    notes: tuple[str, ...] = ()
