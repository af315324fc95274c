"""The probe: the program that looks about behind a wall (`probe/`). An agent runs it from memory."""

from __future__ import annotations

import os
from pathlib import Path

from bulkhead.errors import Unavailable

BUILT = Path(__file__).resolve().parents[3] / "probe" / "build" / "probe"
INSTALLED = Path("/usr/lib/bulkhead/probe")


def find_probe() -> Path:
    """Its binary: `$BULKHEAD_PROBE`, the checkout's build, or the installed one. Raises Unavailable."""
    named = os.environ.get("BULKHEAD_PROBE")
    candidates = [Path(named)] if named else [BUILT, INSTALLED]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = " and ".join(map(str, candidates))
    raise Unavailable(f"the probe's binary is missing: looked for {looked}", hint="build it with make -C probe")
