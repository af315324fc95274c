"""A plan as enforcement: the only place that knows cgroup files."""

from bulkhead.limits.capacity import (
    Capacity,
    Share,
    capacity,
    core_khz,
    how_many,
    plan_amounts,
    room_problems,
    shown,
    weigh,
)
from bulkhead.limits.check import MACHINES, check, check_use
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
from bulkhead.limits.usage import Ended, InnerUse, Usage, interpret_reports, parse_inner_use, read_group, read_usage

__all__ = [
    "MACHINES",
    "Capacity",
    "Ended",
    "Enforced",
    "InnerUse",
    "LimitProgram",
    "Share",
    "Usage",
    "capacity",
    "check",
    "check_guest_use",
    "check_own_use",
    "check_use",
    "choose_cpuset",
    "core_khz",
    "enforced",
    "guest_program",
    "guest_update",
    "guest_use",
    "how_many",
    "inner_enforced",
    "inner_memory",
    "inner_program",
    "inner_update",
    "inner_use",
    "interpret_reports",
    "machine_for",
    "own_memory",
    "parse_inner_use",
    "plan_amounts",
    "program",
    "read_group",
    "read_usage",
    "room_problems",
    "shown",
    "update",
    "vmm_plan",
    "weigh",
]
