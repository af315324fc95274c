"""The level of isolation that a workload's risk calls for: a table of rules, of which the first that fits decides.

The cheapest level that is still enough, in the order chroot, container, vm; what brings a kernel of its own has no
choice. docs/explanation/walls.md says what each wall holds; the reasons here are those that `run` prints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bulkhead.model import Isolation, Trust


@dataclass(frozen=True, slots=True)
class Workload:
    """What the rules look at."""

    trust: Trust
    """Whose program it is: one's own, of somebody with whom there is a contract, anybody's."""
    hostile_input: bool = False
    """It reads what strangers send: requests from the internet, uploads, mail."""
    needs_kernel: bool = False
    """It loads modules, sets what belongs to the whole kernel, or needs another kernel than the host's."""
    system: bool = False
    """Its image is a disk with an operating system."""
    shares_network: bool = False
    """It was asked to have the host's network, so that no wall stands there anyway."""
    worth_a_kernel: bool = False
    """What a break through a shared kernel would cost in a year is more than a kernel of its own does. Only who has
    prices knows it: `bulkhead advise`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table."""

    number: int
    when: str
    level: Isolation
    because: str
    fits: Callable[[Workload], bool]


RULES = (
    Rule(
        1,
        "the image is a disk with an operating system",
        Isolation.VM,
        "an operating system brings a kernel of its own",
        lambda workload: workload.system,
    ),
    Rule(
        2,
        "--needs-kernel",
        Isolation.VM,
        "a container has the host's kernel, and may not change it",
        lambda workload: workload.needs_kernel,
    ),
    Rule(
        3,
        "--trust public",
        Isolation.VM,
        "a program of anybody's may know a flaw of the kernel: one flaw in 300 system calls opens a container",
        lambda workload: workload.trust == "public",
    ),
    Rule(
        4,
        "--trust partner with --hostile-input",
        Isolation.VM,
        "what strangers send may take the program over, and nobody here vouches for how well it is made",
        lambda workload: workload.trust == "partner" and workload.hostile_input,
    ),
    Rule(
        5,
        "prices are known (bulkhead advise), and a shared kernel's risk costs more than a kernel of its own",
        Isolation.VM,
        "the loss that a kernel of its own spares in a year is larger than what the kernel costs",
        lambda workload: workload.worth_a_kernel,
    ),
    Rule(
        6,
        "--trust partner",
        Isolation.CONTAINER,
        "whoever made it answers for it; namespaces, limits and the filter of system calls hold its mistakes",
        lambda workload: workload.trust == "partner",
    ),
    Rule(
        7,
        "--hostile-input",
        Isolation.CONTAINER,
        "a program of one's own that is taken over is held by a user namespace and the filter of system calls",
        lambda workload: workload.hostile_input,
    ),
    Rule(
        8,
        "--network host",
        Isolation.CHROOT,
        "a program of one's own that hears no stranger and shares the network needs files of its own and a plan",
        lambda workload: workload.shares_network,
    ),
    Rule(
        9,
        "anything else",
        Isolation.CONTAINER,
        "an address and processes of its own cost next to nothing more than a chroot",
        lambda _: True,
    ),
)


def choose(workload: Workload) -> Rule:
    """The rule that decides; the last one fits everything."""
    return next(rule for rule in RULES if rule.fits(workload))


def may_share(workload: Workload) -> bool:
    """Whether it may have a kernel in common with other tenants: not where its risk alone calls for one of its own."""
    risk = replace(workload, needs_kernel=False, system=False, shares_network=False, worth_a_kernel=False)
    return choose(risk).level not in (Isolation.VM, Isolation.UNIKERNEL)
