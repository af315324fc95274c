"""Who lives in the simulated world: hosts of a few kinds, and instances as a provider sells them."""

from __future__ import annotations

import math
import random
import zlib

from bulkhead.amounts import Amounts, Capacity, Share
from bulkhead.cluster.snapshot import Able, HostView, Label, Need, Placed, PowerCurve, Speed, Term, Wanted
from bulkhead.model import Isolation

GIB = 1 << 30
DAY = 86_400.0
KINDS = (
    (Speed(32, 2_500_000), 256 * GIB, 4000 * GIB),
    (Speed(32, 3_000_000, 1.1), 256 * GIB, 4000 * GIB),
    (Speed(16, 2_800_000, 1.0, "tcg"), 128 * GIB, 2000 * GIB),
)
WORKS = {level: Able(works=True) for level in Isolation}
NO_KVM = {**WORKS, Isolation.UNIKERNEL: Able(works=False, reason="no KVM", hint="load kvm")}
OVERHEAD = {"kvm": 96 << 20, "tcg": 176 << 20}


def make_hosts(dice: random.Random, count: int) -> list[HostView]:
    """Empty ones, in racks of forty; some have SSDs."""
    found = []
    for number in range(count):
        speed, memory, disk = KINDS[dice.choices((0, 1, 2), (5, 3, 2))[0]]
        shares = {
            "memory": Share(memory, 4 * GIB, 1.0),
            "cpu": Share(speed.cores * speed.core, 0, 2.0),
            "disk": Share(disk, 20 * GIB, 1.0),
            "iops": Share(100_000, 0, 1.0),
        }
        labels = {"rack": str(number // 40), "zone": "abc"[number // 40 % 3]}
        host = HostView(
            id=f"{number:05}",
            name=f"h{number}",
            version=1,
            speed=speed,
            has=Capacity(shares),
            labels=labels | ({"ssd": ""} if dice.random() < 0.3 else {}),
            abilities=NO_KVM if speed.accelerator == "tcg" else WORKS,
            images=frozenset(f"sha256:{dice.randrange(50)}" for _ in range(5)),
            power=PowerCurve((100.0, 180.0, 250.0)),
        )
        found.append(host)
    return found


def any_wanted(dice: random.Random, identity: str, clock: float) -> Wanted:
    """A few sizes, mostly small; a tenant has many, some of which are to be apart or together."""
    step = dice.choices((1, 2, 4, 8, 16, 32), (40, 25, 15, 10, 7, 3))[0]
    ghz = dice.random() < 0.5
    amounts = Amounts(
        memory=step * GIB,
        cpu=step * 500_000 if ghz else 0,
        disk=step * 8 * GIB,
        iops=dice.choice((0, 0, 500)),
    )
    level = dice.choices((Isolation.CONTAINER, Isolation.VM, Isolation.CHROOT, Isolation.UNIKERNEL), (60, 30, 5, 5))[0]
    app = f"app{dice.randrange(300)}"
    guest = level in (Isolation.VM, Isolation.UNIKERNEL)
    need = Need(
        amounts,
        cores=0.0 if ghz else step * 0.2,
        widest=float(min(32, max(1, step))),
        core_khz=2_600_000 if dice.random() < 0.05 else 0,
        overhead=OVERHEAD if guest else {},
    )
    tenant = f"t{int(dice.paretovariate(0.7)) % 400}"
    # A tenant's programs are trusted or not, all of them: who is not never shares a kernel.
    trusted = number_of(tenant) % 10 != 0
    return Wanted(
        id=identity,
        name=identity,
        need=need,
        level=level,
        tenant=tenant,
        trusted=guest or trusted,
        dedicated=number_of(tenant) % 97 == 0,
        image=f"sha256:{dice.randrange(50)}",
        labels={"app": app},
        requires=_requires(dice),
        terms=_terms(dice, app),
        priority=dice.randrange(3),
        restart=dice.choices(("no", "on-failure", "always"), (2, 2, 6))[0],  # type: ignore[arg-type]
    )


def number_of(text: str) -> int:
    """A number that is the same in every process."""
    return zlib.crc32(text.encode())


def _requires(dice: random.Random) -> tuple[Label, ...]:
    kind = dice.random()
    if kind < 0.05:
        return (Label("ssd"),)
    if kind < 0.1:
        return (Label("zone", (dice.choice("abc"),)),)
    return (Label("ssd", absent=True),) if kind < 0.12 else ()


def _terms(dice: random.Random, app: str) -> tuple[Term, ...]:
    kind = dice.random()
    if kind < 0.1:
        return (Term(app, "app", away=True, hard=True),)
    if kind < 0.3:
        return (Term(app, "app", away=True, hard=False),)
    return (Term(app, "app", hard=kind < 0.32),) if kind < 0.36 else ()


def lifetime(dice: random.Random) -> float:
    """Seconds: many live for minutes, some for weeks."""
    return min(60 * DAY, dice.lognormvariate(math.log(12 * 3600.0), 1.8))


def used_now(dice: random.Random, placed: Placed, clock: float) -> Amounts:
    """What an instance uses: more by day, and noise; never more than was sold to it."""
    day = 0.45 + 0.25 * math.sin(2 * math.pi * clock / DAY + number_of(placed.id) % 7)
    share = min(1.0, max(0.02, day * dice.lognormvariate(0.0, 0.5)))
    sold = placed.amounts
    return Amounts(
        memory=int(sold.memory * min(1.0, 0.3 + share)), cpu=int(sold.cpu * share), disk=int(sold.disk * 0.5)
    )
