"""A plan as enforcement: the only place that knows cgroup files."""

from bulkhead.limits.check import check, check_use
from bulkhead.limits.cpu import choose_cpuset
from bulkhead.limits.enforced import Enforced, enforced
from bulkhead.limits.machine import (
    check_guest_use,
    check_own_use,
    guest_program,
    guest_update,
    guest_use,
    inner_enforced,
    inner_memory,
    inner_program,
    inner_update,
    inner_use,
    machine_for,
    own_memory,
    vmm_plan,
)
from bulkhead.limits.program import LimitProgram, program, update
from bulkhead.limits.usage import Ended, InnerUse, Usage, interpret_reports, parse_inner_use, read_usage

__all__ = [
    "Ended",
    "Enforced",
    "InnerUse",
    "LimitProgram",
    "Usage",
    "check",
    "check_guest_use",
    "check_own_use",
    "check_use",
    "choose_cpuset",
    "enforced",
    "guest_program",
    "guest_update",
    "guest_use",
    "inner_enforced",
    "inner_memory",
    "inner_program",
    "inner_update",
    "inner_use",
    "interpret_reports",
    "machine_for",
    "own_memory",
    "parse_inner_use",
    "program",
    "read_usage",
    "update",
    "vmm_plan",
]
