"""The pages about audits are made from the rules and the data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_rules_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/make-audit"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
