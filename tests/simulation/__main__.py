"""python -m tests.simulation HOSTS [--days 7] [--seed 1] [--policy balance] [--spare] [--arrivals PER-HOST-AND-DAY]

Prints what happened; ends with 1, and says what, where something that was promised did not hold.
"""

from __future__ import annotations

import argparse
import sys
import time

from bulkhead.cluster.policies import POLICIES
from tests.simulation.referee import Foul
from tests.simulation.world import Rates, World


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("hosts", type=int)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policy", choices=POLICIES, default="balance")
    parser.add_argument("--spare", action="store_true", help="the loss of any one host is to stay covered")
    parser.add_argument("--arrivals", type=float, default=Rates().arrivals_per_host, help="per host and day")
    asked = parser.parse_args()
    rates = Rates(arrivals_per_host=asked.arrivals)
    world = World(asked.seed, asked.hosts, policy=asked.policy, spare=asked.spare, rates=rates)
    began = time.monotonic()
    try:
        world.run(asked.days)
    except Foul as foul:
        print(f"{world.summary()}\n\nseed {asked.seed}: {foul}")  # noqa: T201 - its answer
        return 1
    print(f"{world.summary()}\nit took  {time.monotonic() - began:.0f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
