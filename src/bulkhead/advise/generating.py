"""Estates that are made up, by a seed: servers with one application each, as surveys find them.

Where the distributions come from:
- Mean cpu use of 11 %, spread log-normally: surveys tell of 6 to 18 % (NRDC, Data Center Efficiency Assessment,
  2014). In 50 traces of bitbrains (GWA-T-12; Shen, van Beek, Iosup, Statistical Characterization of Business-Critical
  Workloads Hosted in Cloud Datacenters, CCGrid 2015) it is 8.6 %.
- A fifth of the servers do nothing that anybody needs (20 to 30 % in the same report).
- Noise and peaks: in these traces a value is correlated with the one before by 0.6, and the busiest five minutes of a
  month are nine times the mean (medians).
- Most follow the hours of work, some work at night; memory, disk, network, facts: these shares are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulkhead.advise.estate import DATA, DAY, Data, Estate, Load, Server
from bulkhead.advise.levels import Workload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

START = 1_767_571_200.0
"""Monday, 5 January 2026, 0:00 UTC."""
MEAN = 0.11
SPREAD = 0.7
"""Of the logarithm of a server's mean use."""
IDLE_SHARE, NIGHT_SHARE = 0.2, 0.2
GIB = 1 << 30
APPLICATIONS = (
    "web",
    "db",
    "mail",
    "files",
    "build",
    "crm",
    "erp",
    "wiki",
    "shop",
    "queue",
    "cache",
    "report",
    "auth",
    "print",
)
OWNERS = ("sales", "finance", "it", "production", "support")


@dataclass(frozen=True, slots=True)
class Kind:
    """A model of server, and how many of ten are one."""

    cores: int
    ghz: float
    memory: int
    disk: int
    idle: float
    peak: float
    purchase: float
    share: float


KINDS = (
    Kind(16, 2.4, 64 * GIB, 1000 * GIB, 75.0, 220.0, 4000.0, 0.4),
    Kind(24, 2.2, 96 * GIB, 2000 * GIB, 90.0, 280.0, 5500.0, 0.3),
    Kind(32, 2.6, 128 * GIB, 2000 * GIB, 105.0, 350.0, 7000.0, 0.2),
    Kind(48, 2.8, 256 * GIB, 4000 * GIB, 130.0, 460.0, 11000.0, 0.1),
)


def generate(servers: int, *, days: float = 30.0, step: float = 300.0, seed: int = 0) -> Estate:
    """An estate of so many servers. The same arguments give the same estate."""
    import numpy as np

    random = np.random.default_rng(seed)
    steps = max(2, round(days * DAY / step))
    hours = (step * np.arange(steps) / 3600) % 168
    made, loads = [], []
    for number in range(servers):
        kind = KINDS[int(random.choice(len(KINDS), p=[kind.share for kind in KINDS]))]
        name = f"srv{number + 1:03d}"
        made.append(
            Server(
                name,
                kind.cores,
                kind.ghz,
                kind.memory,
                kind.disk,
                10**9,
                f"generated:{number + 2}",
                kind.idle,
                kind.peak,
                kind.purchase,
            )
        )
        loads.append(_load(random, number, name, kind, hours))
    return Estate(tuple(made), tuple(loads), START, step, steps, (f"generated with seed {seed}",))


def _load(random: np.random.Generator, number: int, server: str, kind: Kind, hours: Floats) -> Load:
    import numpy as np

    mean = float(np.clip(random.lognormal(np.log(MEAN) - SPREAD**2 / 2, SPREAD), 0.005, 0.6))
    which = random.random()
    if which < IDLE_SHARE:
        shape, mean = np.ones(len(hours)), mean * 0.1
    elif which < IDLE_SHARE + NIGHT_SHARE:
        shape = _night(hours, float(random.uniform(0, 5)), float(random.uniform(1, 4)))
    else:
        # Those who do nothing pull the mean down, so the others are above it.
        shape = _office(hours, float(random.uniform(1.0, 4.0)), float(random.normal(13.5, 1.5)))
    if which >= IDLE_SHARE:
        mean /= 1 - IDLE_SHARE * 0.9
    part = np.clip(shape / shape.mean() * _noise(random, len(hours)) * mean, 0.001, 1.0)
    use = np.zeros((4, len(hours)), dtype=np.float32)
    use[0] = part * kind.cores * kind.ghz
    kept = float(np.clip(random.beta(2.5, 5.0), 0.05, 0.85))
    use[1] = np.clip(kept * (0.95 + 0.1 * part / part.max()), 0, 0.95) * kind.memory
    use[2] = float(np.clip(random.beta(1.5, 5.0), 0.01, 0.9)) * kind.disk
    use[3] = part * 10**9 * float(random.uniform(0.02, 0.3))
    trust, hostile, data = _facts(random)
    return Load(
        f"{APPLICATIONS[int(random.integers(len(APPLICATIONS)))]}{number + 1:03d}",
        server,
        Workload(trust, hostile, needs_kernel=bool(random.random() < 0.03), system=bool(random.random() < 0.05)),  # type: ignore[arg-type]
        f"generated:{number + 2}",
        use,
        float(use[0].mean()),
        OWNERS[int(random.integers(len(OWNERS)))],
        data,
        latency="low" if random.random() < 0.1 else "normal",
    )


def _office(hours: Floats, swing: float, middle: float) -> Floats:
    """Busy around the middle of working days, a fifth of that at weekends."""
    import numpy as np

    day = hours % 24
    week = np.where(hours // 24 < 5, 1.0, 0.2)
    return 1 + swing * week * np.exp(-((day - middle) ** 2) / (2 * 3.0**2))


def _night(hours: Floats, begin: float, length: float) -> Floats:
    """A job of some hours each night."""
    import numpy as np

    day = hours % 24
    return np.where((day >= begin) & (day < begin + length), 8.0, 0.5)


def _noise(random: np.random.Generator, steps: int) -> Floats:
    """Log-normal, each value near to the one before, with a burst now and then; mean 1."""
    import numpy as np

    near = 0.6
    shocks = random.normal(0.0, 0.25 * np.sqrt(1 - near**2), steps)
    values = np.empty(steps)
    value = 0.0
    for at in range(steps):
        value = near * value + shocks[at]
        values[at] = value
    bursts = np.where(random.random(steps) < 0.002, random.pareto(2.5, steps) * 4, 0.0)
    made = np.exp(values) + bursts
    return np.asarray(made / made.mean())


def _facts(random: np.random.Generator) -> tuple[str, bool, Data]:
    trust = ("own", "partner", "public")[int(random.choice(3, p=[0.75, 0.2, 0.05]))]
    # What anybody brings along is not what the firm lives by.
    worth = [0.3, 0.5, 0.2, 0.0] if trust == "public" else [0.1, 0.6, 0.25, 0.05]
    return trust, bool(random.random() < 0.3), DATA[int(random.choice(4, p=worth))]
