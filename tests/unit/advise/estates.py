"""Small estates for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bulkhead.advise.estate import Estate, Load, Server
from bulkhead.advise.levels import Workload
from bulkhead.errors import Refused

GIB = 1 << 30


def server(name: str, *, cores: int = 8, memory: int = 32, disk: int = 500) -> Server:
    return Server(name, cores, 2.0, memory * GIB, disk * GIB, 10**9, f"test:{name}", 50.0, 150.0, 5000.0)


def load(name: str, on: str, cpu: Sequence[float], *, memory: float = 4, disk: float = 20, **facts: object) -> Load:
    """`cpu`: GHz, one for each step."""
    use = np.zeros((4, len(cpu)), dtype=np.float32)
    use[0], use[1], use[2], use[3] = cpu, memory * GIB, disk * GIB, 10**7
    workload = facts.pop("workload", Workload("own"))
    return Load(name, on, workload, f"test:{name}", use, float(use[0].mean()), **facts)  # type: ignore[arg-type]


def estate(servers: Sequence[Server], loads: Sequence[Load], *, step: float = 3600.0) -> Estate:
    return Estate(tuple(servers), tuple(loads), 1_767_571_200.0, step, loads[0].use.shape[1], ("test",))


def problems_of(error: Refused) -> list[str]:
    return [problem.what for problem in error.problems]


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
