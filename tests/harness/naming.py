"""Names of this test run: whatever the tests make on the host can be told from everybody else's by them."""

from __future__ import annotations

import secrets
import string
import tempfile
from itertools import count
from pathlib import Path

from bulkhead.config import Config

_LETTERS = string.ascii_lowercase + string.digits
RUN = "".join(secrets.choice(_LETTERS) for _ in range(5))
"""This run's own letters."""
PREFIX = f"bt{RUN}"
"""Begins the name of every cgroup, nftables table and temporary directory that the tests make."""
LINK_PREFIX = "b" + RUN[:3]
"""Begins the name of every link that the tests make in the host's network namespace."""
_numbers = count()
_SLOTS, _SLOT = 120, 100 * 65_536
_first_slot = secrets.randbelow(_SLOTS)


def temporary_directory() -> Path:
    """A new directory with a short path, so that unix sockets fit below it. The caller removes it."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))


def make_config(directory: Path, **settings: object) -> Config:
    """A configuration that shares nothing with any other daemon on this host."""
    number = next(_numbers)
    usual: dict[str, object] = {
        "state_dir": directory / "state",
        "run_dir": directory / "run",
        "cache_dir": directory / "cache",
        "containers_dir": directory / "containers",  # what this host's says of registries is its own affair
        "cgroup": f"{PREFIX}-{number}",
        "link_prefix": LINK_PREFIX,
        "nft_table": f"{PREFIX}_{number}",
        "host_factor": 1.0,  # how fast this machine is while tests run is chance
        "warm_memory": 0,  # what waits in the background is no leak, but looks like one
        # What a small machine can sell is no business of most tests; those that are about it set these themselves.
        "overcommit_memory": 16.0,
        "overcommit_cpu": 64.0,
        "overcommit_disk": 16.0,
        "uid_base": 1_200_000_000 + (_first_slot + number) % _SLOTS * _SLOT,
    }
    return Config.model_validate({**usual, **settings})
