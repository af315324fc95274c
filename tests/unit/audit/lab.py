"""Reports of a probe as tests need them, and what they are judged by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from bulkhead.audit.assessing import Gathered
from bulkhead.audit.facts import CALLS, parse
from bulkhead.audit.outside import Process

OPEN = 14
"""EFAULT: the kernel has looked at the arguments."""
ENOSYS, EPERM = 38, 1
STATUS = {
    "inheritable": 0,
    "permitted": 0,
    "effective": 0,
    "bounding": 0,
    "ambient": 0,
    "no_new_privs": True,
    "seccomp": 2,
    "filters": 1,
}


def line(fact: str, **values: object) -> bytes:
    """One fact."""
    return json.dumps({"fact": fact, **values}).encode()


def calls(abi: str = "x86_64", results: Mapping[int, int] | None = None, usual: int = ENOSYS) -> bytes:
    """All calls of an architecture, each with the usual result or its own."""
    given = results or {}
    return line("calls", abi=abi, first=0, results=[given.get(number, usual) for number in range(CALLS)])


def probed(kernel: str = "6.18.44", build: str = "#1 SMP") -> bytes:
    """Who looked."""
    return line("probe", version=1, machine="x86_64", kernel=kernel, build=build, uid=0, gid=0)


def report(*facts: bytes) -> bytes:
    """A whole report."""
    return b"\n".join([*facts, line("end", facts=len(facts)), b""])


def container(*more: bytes, results: Mapping[int, int] | None = None) -> bytes:
    """What the probe says in a container that lets pass what `results` has."""
    return report(probed(), line("status", **STATUS), calls(results=results), *more)


def process(**changes: object) -> Process:
    """A container's process as the host sees it."""
    usual: dict[str, object] = {
        "program": "/bin/sh",
        "shared": (),
        "uid": 1_000_000,
        "root_uid": 1_000_000,
        "effective": ("CAP_CHOWN",),
        "bounding": ("CAP_CHOWN",),
        "ambient": (),
        "no_new_privs": True,
        "seccomp": 2,
        "filters": 1,
        "security": "",
        "host_paths": (),
        "open_files": (),
    }
    return Process.model_validate({**usual, **changes})


def gathered(
    root: bytes | None = None, *, of: Process | None = None, hypervisor: Process | None = None, **more: object
) -> Gathered:
    """What an audit has to go by; without a hypervisor the workload is the host's process."""
    looks = {} if root is None else {"root": parse(root)}
    fields: dict[str, object] = {"instance": "web", "level": "vm" if hypervisor else "container", "image": "debian"}
    fields |= {"host_kernel": "6.18.44", "when": 1.0, "looks": looks, "hypervisor": hypervisor}
    fields |= {"process": of if of or hypervisor else process(), **more}
    return Gathered(**fields)  # type: ignore[arg-type]


def rules_of(findings: Sequence[object]) -> set[str]:
    """Which rules have found something that counts."""
    return {each.rule for each in findings if each.weight}  # type: ignore[attr-defined]
